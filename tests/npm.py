"""Packages of npm that tests compare with: pinned by a lock file, installed once into build/."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["installed", "node"]

BUILD = Path(__file__).parent.parent / "build"


def node() -> str:
    """The program ``node``; without it the test is skipped, or fails in CI."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        _without("node and npm are needed")
    assert found is not None
    return found


def installed(folder: Path, name: str) -> Path:
    """Install what a folder's package-lock.json names, unless it is; return ``node_modules``.

    Args:
        folder: where package.json and package-lock.json are.
        name: of the folder in ``build/`` to install into.
    """
    node()
    place = BUILD / name
    lock = folder / "package-lock.json"
    marker = place / "package-lock.json"
    if not (place / "node_modules").exists() or marker.read_bytes() != lock.read_bytes():
        # A folder of our own first: another run of the tests may be doing the same.
        BUILD.mkdir(exist_ok=True)
        making = BUILD / f"{name}.{os.getpid()}"
        making.mkdir()
        for file in ("package.json", "package-lock.json"):
            shutil.copy(folder / file, making)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=making,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            shutil.rmtree(making)
            _without(f"npm could not install {name}: {done.stderr[-300:]}")
        shutil.rmtree(place, ignore_errors=True)
        making.rename(place)
    return place / "node_modules"


def _without(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
