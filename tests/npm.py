"""Packages of npm that tests compare with: pinned by a lock file, installed once into build/."""

import fcntl
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
    BUILD.mkdir(exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as turn:
        # One at a time: tests run in several processes, and each may be the first to ask.
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_bytes() != lock.read_bytes():
            _install(folder, place)
    return place / "node_modules"


def _install(folder: Path, place: Path) -> None:
    """Install into a folder of its own first, so that one that is there is whole."""
    making = place.with_name(f"{place.name}.new")
    for left in (making, place):
        shutil.rmtree(left, ignore_errors=True)
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
        _without(f"npm could not install {place.name}: {done.stderr[-300:]}")
    making.rename(place)


def _without(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
