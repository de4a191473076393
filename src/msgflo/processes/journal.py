"""What processes have printed, kept in files of limited size: ``.msgflo/logs/ROLE.N.log``.

A line of a file is ``2026-11-25T14:22:36.123Z stderr out of memory``: for people, and for whoever
reads it back. A file that is full becomes ``ROLE.N.log.1``, in place of the one before.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from heapq import merge
from pathlib import Path
from typing import IO
from urllib.parse import quote

__all__ = ["Journal", "Line"]

LARGEST = 1024 * 1024
"""Bytes of a file; there are at most two of each instance."""

_log = logging.getLogger("msgflo.processes")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a process has printed.

    Attributes:
        role, instance: whose process.
        stream: ``stdout`` or ``stderr``.
        text: the line.
        time: when it came, in seconds since 1970.
    """

    role: str
    instance: int
    stream: str
    text: str
    time: float


class Journal:
    """Keeps what processes print. A disk that is full, or a folder that is gone, stops nothing.

    Args:
        folder: where; made when there is something to keep.
        largest: bytes of a file.
        clock: the time, in seconds since 1970.
    """

    def __init__(
        self, folder: Path, *, largest: int = LARGEST, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._largest = largest
        self._clock = clock
        self._open: dict[tuple[str, int], IO[bytes]] = {}
        self._complained = False

    def add(self, role: str, instance: int, stream: str, text: str) -> Line:
        """Keep a line; return it with its time."""
        line = Line(role, instance, stream, text, self._clock())
        data = f"{_written(line.time)} {stream} {text}\n".encode("utf-8", "replace")
        key = (role, instance)
        try:
            file = self._open.get(key)
            if file is None or file.tell() + len(data) > self._largest:
                file = self._next(key)
            file.write(data)
            file.flush()
        except OSError as error:
            broken = self._open.pop(key, None)
            if broken is not None:
                with contextlib.suppress(OSError):
                    broken.close()
            if not self._complained:
                self._complained = True
                _log.warning("what processes print is not kept in %s: %s", self._folder, error)
        return line

    def _next(self, key: tuple[str, int]) -> IO[bytes]:
        """Return a file that has room: the one there is, or a new one."""
        path = self._path(*key)
        before = self._open.pop(key, None)
        if before is not None:
            before.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if before is not None or path.stat().st_size >= self._largest:
                path.replace(path.with_name(f"{path.name}.1"))
        file = self._open[key] = path.open("ab")
        return file

    def _path(self, role: str, instance: int) -> Path:
        name = quote(role, safe="")
        if len(name) > 150:  # file systems end at 255 bytes
            name = f"{name[:120]}-{blake2b(role.encode(), digest_size=8).hexdigest()}"
        return self._folder / f"{name}.{instance}.log"

    def instances(self, role: str) -> list[int]:
        """Return the instances of a role of which something is kept."""
        start = self._path(role, 0).name.removesuffix("0.log")
        found = []
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                number = path.name.removeprefix(start).removesuffix(".log")
                if path.name == f"{start}{number}.log" and number.isdecimal():
                    found.append(int(number))
        return sorted(found)

    def last(self, of: Iterable[tuple[str, int]], lines: int) -> list[Line]:
        """Return the last lines of some instances together, in the order in which they came.

        Args:
            of: roles and instances.
            lines: at most so many.
        """
        kept: deque[Line] = deque(maxlen=max(lines, 1))
        kept.extend(
            merge(*(self._read(role, number, lines) for role, number in of), key=lambda it: it.time)
        )
        return list(kept) if lines > 0 else []

    def _read(self, role: str, instance: int, lines: int) -> Iterator[Line]:
        path = self._path(role, instance)
        data = _tail(path, lines)
        if data.count(b"\n") < lines:
            data = _tail(path.with_name(f"{path.name}.1"), lines) + data
        for row in data.splitlines()[-lines:]:
            when, _, rest = row.decode("utf-8", "replace").partition(" ")
            source, _, text = rest.partition(" ")
            with contextlib.suppress(ValueError):
                yield Line(role, instance, source, text, datetime.fromisoformat(when).timestamp())

    def close(self) -> None:
        """Close the files. Idempotent; what is added afterwards opens them again."""
        while self._open:
            with contextlib.suppress(OSError):
                self._open.popitem()[1].close()


def _tail(path: Path, lines: int) -> bytes:
    """Return the end of a file, whole lines, at least so many if there are."""
    size = max(64 * 1024, 200 * lines)
    with contextlib.suppress(OSError), path.open("rb") as file:
        end = file.seek(0, 2)
        while True:
            file.seek(max(0, end - size))
            data = file.read()
            if size >= end:
                return data
            whole = data.partition(b"\n")[2]
            if whole.count(b"\n") >= lines:
                return whole
            size *= 4
    return b""


def _written(moment: float) -> str:
    said = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
    return said.replace("+00:00", "Z")
