"""The recording of a run: begun with it, and written when a signal or a failure asks for it."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgflo.coordinator.network import Event
from msgflo.project import state_folder, write_atomically
from msgflo.runtime import Runtime
from msgflo.steering.recordings import Recordings
from msgflo.trace.flowtrace import dump_flowtrace

if TYPE_CHECKING:
    from msgflo.steering.service import Service

__all__ = ["Tracing"]

EVENTS, SIZE = 10_000, 64 * 1024 * 1024
"""What a recording keeps: so many events, and so many bytes of them."""

AFTER_FAILURE = 0.5
"""Seconds until a failure is written, so that what led to it has been seen."""

KEPT = 20
"""So many files of a graph are kept; older ones make room, for a process may fail for weeks."""

SELDOM = 60.0
"""Seconds between two traces that are written because of failures: one may fail again and again."""


class Tracing:
    """Writes what was recorded of a run's main graph into files in its ``.msgflo``.

    Args:
        runtime: the run.
        service: what serves it; ``None``: nothing does.
        wanted: whether to record from the start; else only what a client has recorded is there.
        say: tells the person in front of the terminal.
        name: the graph's, if it has none of its own.
    """

    def __init__(
        self,
        runtime: Runtime,
        service: "Service | None",
        *,
        wanted: bool,
        say: Callable[[str], None],
        name: str = "",
    ) -> None:
        self._runtime = runtime
        self._say = say
        self._wanted = wanted
        self._last_failure = float("-inf")
        self._written = 0
        if service is not None:
            self._graph = service.workspace.main.id
            self._recordings = service.desk.recordings
            self._own = False
        else:
            self._graph = runtime.graph.name or name or "main"
            self._recordings = Recordings(
                lambda _: runtime.networks.get(""),
                lambda: runtime.broker if runtime.networks else None,
            )
            self._own = True

    def start(self) -> None:
        """Begin to record, if that is wanted; before the runtime starts, in the event loop."""
        self._runtime.on_told(self._heard)
        if self._wanted:
            metadata = {"label": self._graph, "type": "msgflo"}
            self._recordings.start(self._graph, EVENTS, SIZE, metadata)

    def started(self) -> None:
        """The runtime has started: there is something to look at."""
        self._recordings.change()

    async def close(self) -> None:
        """Record nothing more. Idempotent."""
        if self._own:
            await self._recordings.close()

    def write(self) -> Path | None:
        """Write what there is, and say where; return the file, ``None`` if there is nothing."""
        found = self._recordings.flowtrace(self._graph, self._runtime.graph)
        if found is None:
            self._say("nothing is recorded; run with --trace, or send trace:start")
            return None
        self._written += 1
        plain = re.sub(r"[^\w.-]", "_", self._graph)
        when = time.strftime("%Y%m%d-%H%M%S")
        file = state_folder(self._runtime.root) / f"flowtrace-{plain}-{when}-{self._written}.json"
        try:
            write_atomically(file, dump_flowtrace(found).encode())
        except OSError as error:
            self._say(f"cannot write a trace to {file}: {error.strerror or error}")
            return None
        written = sorted(file.parent.glob(f"flowtrace-{plain}-[0-9]*.json"), key=_age)
        for old in written[:-KEPT]:
            with contextlib.suppress(OSError):
                old.unlink()
        self._say(f"Wrote flowtrace to: {file}")
        return file

    def failed(self) -> None:
        """The run itself has failed: write what led to it, if it was recorded from the start."""
        if self._wanted:
            self.write()

    def _heard(self, event: Event) -> None:
        if event.kind != "failed" or not event.role or not self._wanted:
            return
        if self._own:  # else the desk has said it
            said = {"id": event.role, "error": event.text[:2000]}
            self._recordings.event(self._graph, "processerror", said)
        loop = asyncio.get_running_loop()
        if loop.time() - self._last_failure > SELDOM:
            self._last_failure = loop.time()
            loop.call_later(AFTER_FAILURE, self.write)


def _age(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime
    return 0.0
