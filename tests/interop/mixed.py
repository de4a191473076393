"""One project with components in JavaScript, NoFlo and Python, and what it needs around it."""

import os
import shutil
import sys
from pathlib import Path

__all__ = ["HERE", "make_mixed", "surroundings"]

HERE = Path(__file__).parent


def make_mixed(folder: Path, modules: Path) -> Path:
    """Copy the project with components in JavaScript, NoFlo and Python; return its folder."""
    shutil.copytree(HERE / "project", folder)
    (folder / "node_modules").mkdir()
    # NoFlo looks through every package that is there, which takes long.
    for name in (".bin", "noflo-core", "msgflo-nodejs"):
        (folder / "node_modules" / name).symlink_to(modules / name)
    return folder


def surroundings(modules: Path) -> dict[str, str]:
    """What the original programs are started with."""
    ours = str(Path(sys.executable).parent)
    return {
        # Ours first: the original's msgflo is called by its path.
        "PATH": os.pathsep.join([ours, str(modules / ".bin"), os.environ["PATH"]]),
        "MSGFLO_DISCOVERY_PERIOD": "4",
        "NEW_RELIC_NO_CONFIG_FILE": "true",
        "NEW_RELIC_ENABLED": "false",
    }
