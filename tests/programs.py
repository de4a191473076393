"""Programs for tests: run in a folder of their own, read line by line, ended in any way."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["WAIT", "Program", "environment", "msgflo", "program", "runs"]

WAIT = 50.0
"""Seconds for what should take a few: the machine may be busy."""


def environment(**more: str) -> dict[str, str]:
    """The environment of a person who has msgflo installed, and has set nothing else."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MSGFLO", "PYTEST"))}
    # Not resolved: the folder of the environment, not of the interpreter that it is made from.
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "COLUMNS": "100", **more}


def msgflo(
    *arguments: str, cwd: Path, stdin: str | bytes = b"", **env: str
) -> "subprocess.CompletedProcess[str]":
    """Run ``msgflo`` to its end."""
    done = subprocess.run(
        ["msgflo", *arguments],
        cwd=cwd,
        env=environment(**env),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=WAIT,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


class Program:
    """A program that runs, and what it has printed, its two outputs together."""

    def __init__(self, argv: list[str], cwd: Path, *, terminal: bool = False, **env: str) -> None:
        if terminal:
            self._output, its = pty.openpty()
        else:
            self._output, its = os.pipe()
        self._terminal = terminal
        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environment(**env),
            stdin=its if terminal else subprocess.DEVNULL,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        self._open = True
        self.text = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def until(self, text: str, *, times: int = 1, patience: float = WAIT) -> str:
        """Read until a text was printed so often; return the line that it is in."""
        end = time.monotonic() + patience
        while self.text.count(text) < times:
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"no {text!r} in the output:\n{self.text}")
        return next(line for line in reversed(self.lines) if text in line)

    def until_line(self, pattern: str) -> str:
        """Read until a whole line matches a pattern; return it."""
        end = time.monotonic() + WAIT
        while not (found := re.search(f"^{pattern}$", self.text, re.M)):
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"no line like {pattern!r} in the output:\n{self.text}")
        return found[0]

    def read(self, timeout: float) -> None:
        """Read what has been printed, or is within so many seconds."""
        while self._read(timeout):
            timeout = 0

    def _read(self, timeout: float) -> bool:
        if not self._open or not select.select([self._output], [], [], max(0, timeout))[0]:
            return False
        try:
            data = os.read(self._output, 65536)
        except OSError:  # how a terminal says that nobody has it any more
            data = b""
        self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def type(self, text: str) -> None:
        """Press keys, in its terminal."""
        os.write(self._output, text.encode())

    def wait(self) -> int:
        """Read to the end of the output; return the exit status."""
        end = time.monotonic() + WAIT
        while self._read(end - time.monotonic()):
            pass
        return self._process.wait(max(1, end - time.monotonic()))

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.send(number)
        return self.wait()

    def hang_up(self) -> int:
        """Close its output, as a terminal is closed or a pipe's reader goes; return the status."""
        os.close(self._output)
        self._open = False
        if self._terminal:  # the kernel does it for the session's leader alone if it has one
            self.send(signal.SIGHUP)
        return self._process.wait(WAIT)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(WAIT)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._open:
            os.close(self._output)
            self._open = False


@contextlib.contextmanager
def program(*argv: str, cwd: Path, terminal: bool = False, **env: str) -> Iterator[Program]:
    made = Program([*argv], cwd, terminal=terminal, **env)
    try:
        yield made
    finally:
        made.close()


def runs(pid: int) -> bool:
    """Tell whether a process runs: it is there, and no zombie that nobody asks about."""
    try:
        os.kill(pid, 0)
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False
