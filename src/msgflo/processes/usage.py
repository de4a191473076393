"""What processes take of the machine: each with all that it has started. From ``/proc``."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "usage_of"]

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process takes, and what it has started.

    Attributes:
        cpu: seconds of processor time since it started; of what has ended too, where its parent
            has asked for it.
        memory: bytes that are resident.
        processes: how many they are.
    """

    cpu: float = 0.0
    memory: int = 0
    processes: int = 0


def usage_of(leaders: Iterable[int]) -> dict[int, Usage]:
    """Return what the processes of sessions take, by their leaders.

    Those that are not there are left out, and on systems without ``/proc`` all of them.
    """
    wanted = set(leaders)
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found: dict[int, Usage] = {}
    try:
        entries = [entry for entry in os.listdir(_PROC) if entry.isdecimal()]  # noqa: PTH208 - fast
    except OSError:
        return {}
    for entry in entries:
        try:
            data = (_PROC / entry / "stat").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        fields = data.rpartition(b")")[2].split()
        session = int(fields[3])
        if session not in wanted or fields[0] == b"Z":  # one that has ended takes nothing
            continue
        # proc(5): utime, stime, and those of children that were waited for; rss in pages.
        cpu = sum(map(int, fields[11:15])) / tick
        before = found.get(session, Usage())
        found[session] = Usage(
            before.cpu + cpu, before.memory + int(fields[21]) * page, before.processes + 1
        )
    return found
