"""Runs the command of an example's README, and reads what it prints."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


class Running:
    """A command that was started, with all that it has printed so far. Use it with ``with``."""

    def __init__(self, command: str, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            command.split(),
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, enough: Callable[[list[str]], bool]) -> list[str]:
        """Return all lines when they are enough. The time limit is the test's."""
        assert self._process.stdout is not None
        while not enough(self.lines):
            line = self._process.stdout.readline()
            assert line, "it ended early:\n" + "\n".join(self.lines)
            self.lines.append(line.rstrip("\n"))
        return self.lines

    def end(self) -> int:
        """Return the exit status when it has ended by itself, and all lines are there."""
        assert self._process.stdout is not None
        self.lines += self._process.stdout.read().splitlines()
        return self._process.wait()

    def stop(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        # Killed, it leaves nobody behind: the processes of a run have a watchdog.
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def commands(readme: Path) -> list[tuple[str, list[str]]]:
    """Return the commands that a README shows, each with the lines that it is said to print."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", readme.read_text(), re.M | re.S):
        for shown in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *printed = shown.splitlines()
            found.append((command, [line for line in printed if line]))
    return found


def copied(name: str, folder: Path) -> Path:
    """Copy an example to a place where it may leave its state; return its folder there."""
    target = folder / "examples" / name
    left = shutil.ignore_patterns(".msgflo", ".webimages", "__pycache__")
    shutil.copytree(EXAMPLES / name, target, ignore=left)
    return target
