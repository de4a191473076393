"""The supervisor's hold on its watchdog: a process that ends what we leave behind.

However we end, SIGKILL included, the kernel closes our end of the watchdog's input, and it ends
every process group that it was told of and every process with our mark (:mod:`.reaper`). One
watchdog serves all processes of a supervisor.
"""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

from msgflo.processes import reaper

__all__ = ["Watchdog"]

# One that ends more often than this cannot live here; the network can without it.
_TRIES = 5

_log = logging.getLogger("msgflo.processes")

_PROGRAM = str(Path(reaper.__file__))


class Watchdog:
    """A watchdog process, started at the first need, and again if it ends.

    To be used in one event loop.

    Args:
        mark: the beginning of the marks of our processes.
        grace: seconds between asking them to end and killing them.
    """

    def __init__(self, mark: str, grace: float) -> None:
        self._mark = mark
        self._grace = grace
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._starts = 0

    @property
    def pid(self) -> int | None:
        """Its process id; ``None`` while it does not run."""
        return self._process.pid if self._process else None

    def add(self, group: int) -> None:
        """Have a process group ended if we end.

        Returns at once, without waiting for the watchdog to be up: what it is told waits for it.
        That none can be started is logged; the network runs without.
        """
        self._groups.add(group)
        if self._socket is not None:
            self._say(f"+ {group}")
        elif self._starts < _TRIES:
            self._start()

    def remove(self, group: int) -> None:
        """Say that a process group is gone."""
        self._groups.discard(group)
        self._say(f"- {group}")

    def close(self) -> None:
        """Send it away: nothing is left to watch. Waits for its end, some milliseconds."""
        self._say(".")
        self._forget()
        self._starts = 0

    def _start(self) -> None:
        self._starts += 1
        ours, its = socket.socketpair()
        with its:
            try:
                environ = {key: said for key, said in os.environ.items() if key != reaper.MARK}
                # Isolated and without site: nothing but the program itself is run, and soon.
                # A session of its own: what ends ours (a terminal, a signal) does not reach it.
                self._process = subprocess.Popen(  # noqa: S603 - our interpreter, our file
                    [sys.executable, "-I", "-S", _PROGRAM],
                    stdin=its.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=environ,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                _log.warning("no watchdog: processes may outlive us if we are killed: %s", error)
                return
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._ended)
        self._say(
            f"= {self._mark} {self._grace} {os.getpid()}",
            *(f"+ {group}" for group in self._groups),
        )

    def _ended(self) -> None:
        """Hear that it ended, which it should not before we do: it never says anything else."""
        self._forget()
        if self._starts < _TRIES:
            _log.warning("the watchdog ended; another one is started")
            self._start()
        else:
            _log.error("the watchdog ends again and again; processes may outlive us")

    def _say(self, *lines: str) -> None:
        if self._socket is not None:
            # One that has just ended is replaced as soon as that is heard, and told everything.
            with contextlib.suppress(OSError):
                self._socket.send("".join(f"{line}\n" for line in lines).encode())

    def _forget(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.wait()
            self._process = None
