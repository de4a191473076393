"""Ends processes, their children and their children's children included.

It is used in two places: by the supervisor, and as a program of its own, the watchdog, that waits
for the supervisor's end. For the latter it imports nothing but the standard library's smallest
parts and starts in some ten milliseconds.

A process is found in two ways: by its group, of which it is a member unless it left it; and, on
Linux, by a mark in the environment that it was started with, which it passed on to all that it
started, in whatever session they are now.
"""

import os
import select
import signal
import sys
import time

MARK = "MSGFLO_SUPERVISED"
"""The environment variable that marks a supervised process: run, ``/``, number, ``/``."""

_POLL = 0.03
_PARENT_POLL = 2.0


def living(groups: set[int], mark: str) -> tuple[set[int], set[int]]:
    """Return what still runs.

    Args:
        groups: process groups.
        mark: the beginning of a value of :data:`MARK`; ``""``: look for none.

    Returns:
        The groups that still have a member which is not a zombie; and the marked processes that
        are in none of the groups.
    """
    try:
        listed = os.listdir("/proc")  # noqa: PTH208 - pathlib is not worth its import here
    except OSError:
        return {group for group in groups if _exists(group)}, set()
    # Asked first: most often there is nothing left, and nothing has to be read.
    here = {group for group in groups if _exists(group)}
    if not here and not mark:
        return set(), set()
    alive: set[int] = set()
    strays: set[int] = set()
    wanted = f"{MARK}={mark}".encode()
    me = os.getpid()
    for name in listed:
        if not name.isdecimal() or int(name) == me:
            continue
        pid = int(name)
        try:
            group = os.getpgid(pid)
            if group in here:
                if not _zombie(pid):
                    alive.add(group)
            elif mark and _has(pid, wanted):
                strays.add(pid)
        except OSError:
            # It ended meanwhile, or is another user's.
            continue
    return alive, strays


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")


def _has(pid: int, wanted: bytes) -> bool:
    with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
        environ = file.read()
    return environ.startswith(wanted) or b"\0" + wanted in environ


def send(number: int, groups: set[int], pids: set[int]) -> None:
    """Send a signal to process groups and to single processes; those that are gone are no error."""
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


class Ending:
    """Ends processes step by step: asked with SIGTERM, and from the deadline on killed.

    Args:
        groups: their process groups.
        mark: the beginning of their marks.
        deadline: the time from which on they are killed.
    """

    def __init__(self, groups: set[int], mark: str, deadline: float) -> None:
        self._groups = groups
        self._mark = mark
        self._deadline = deadline
        self._asked: set[int] = set()

    def step(self, now: float) -> bool:
        """Do what is due, and return whether nothing is left that could be ended.

        What a kill does not end within five seconds is in the kernel's hands, and is left.
        """
        groups, strays = living(self._groups, self._mark)
        if not groups and not strays:
            return True
        if now >= self._deadline:
            send(signal.SIGKILL, groups, strays)
            return now >= self._deadline + 5
        # What appears while we look, a child of a child, is asked too.
        send(signal.SIGTERM, groups - self._asked, strays - self._asked)
        self._asked |= groups | strays
        return False


def watch() -> None:
    """Wait on the standard input for the supervisor's end, then end what it left.

    It says ``"= MARK GRACE PID"`` first, ``"+ GROUP"`` for a process group that it started,
    ``"- GROUP"`` for one that is gone, and ``"."`` if nothing is left to do. Whatever way it ends,
    the input ends with it.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    mark, grace = "", 10.0
    # It says itself who it is: it may have ended before we could ask.
    parent = 0
    held = b""
    while True:
        readable, _, _ = select.select([0], [], [], _PARENT_POLL)
        if not readable:
            # A child that the supervisor forked may hold the other end of our input.
            if os.getppid() != parent:
                break
            continue
        try:
            data = os.read(0, 65536)
        except OSError:
            break
        if not data:
            break
        *lines, held = (held + data).split(b"\n")
        for line in lines:
            said = line.decode().split()
            if said[0] == "=":
                mark, grace, parent = said[1], float(said[2]), int(said[3])
            elif said[0] == "+":
                groups.add(int(said[1]))
            elif said[0] == "-":
                groups.discard(int(said[1]))
            elif said[0] == ".":
                return
    ending = Ending(groups, mark, time.monotonic() + grace)
    while not ending.step(time.monotonic()):
        time.sleep(_POLL)


if __name__ == "__main__":
    watch()
    sys.exit(0)
