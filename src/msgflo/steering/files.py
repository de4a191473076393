"""The file of a graph: written when it is asked for, read again when somebody else writes it.

What a file held before it is overwritten is kept under ``.msgflo/history``.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from msgflo.errors import GraphError, MsgFloError
from msgflo.flow.graph import Graph
from msgflo.flow.text import dump
from msgflo.project import load_graph, save_graph, state_folder, write_atomically

__all__ = ["GraphFile"]

AFTER = 0.5
"""Seconds after an edit that a graph is saved by itself; edits come in bursts."""

LOOK_EVERY = 0.4
"""Seconds between looks whether somebody else has changed the file; it counts at the second."""

KEPT = 100
"""So many earlier contents of a file are kept."""


class GraphFile:
    """A graph and its file.

    Args:
        graph: returns the graph as it is now.
        path: the file; it need not be there.
        root: the project's folder, for the history.
        auto: save it by itself after an edit.
        changed: called with the graph that somebody else has written into the file.
        tell: called with what people should hear.
    """

    def __init__(
        self,
        graph: Callable[[], Graph],
        path: Path,
        root: Path,
        *,
        auto: bool,
        changed: Callable[[Graph], None],
        tell: Callable[[str], None],
    ) -> None:
        self._graph = graph
        self.path = path
        self._root = root
        self._auto = auto
        self._changed = changed
        self._tell = tell
        self._unsaved = False
        self._saving: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self._known = self._stamp()
        self._complaint = ""

    def start(self) -> None:
        """Begin to look at the file."""
        self._watching = asyncio.get_running_loop().create_task(
            self._watch(), name=f"watch {self.path}"
        )

    async def close(self) -> None:
        """Save what is to be saved by itself, and look no more. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        if self._saving is not None:
            self._saving.cancel()
            self._save_soon_done()

    def edited(self) -> None:
        """Tell that the graph was edited."""
        self._unsaved = True
        if self._auto and self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(AFTER, self._save_soon_done)

    def _save_soon_done(self) -> None:
        self._saving = None
        with contextlib.suppress(MsgFloError):
            self.save()

    def save(self) -> None:
        """Write the graph into its file, whole or not at all. What it held before is kept.

        Raises:
            GraphError: the file's language cannot say it, or the file cannot be written.
        """
        try:
            graph = self._graph()
            text = dump(graph, str(self.path))
            before = ""
            with contextlib.suppress(OSError, UnicodeDecodeError):
                before = self.path.read_text(encoding="utf-8")
            if text != before:
                if before:
                    self._keep(before)
                self.path.parent.mkdir(parents=True, exist_ok=True)
                save_graph(graph, self.path)
            self._unsaved = False
            self._known = self._stamp()
        except (GraphError, OSError) as error:
            self._complain(f"{self.path} is not saved: {error}")
            raise GraphError(f"{self.path} is not saved: {error}") from None
        self._complaint = ""

    def _keep(self, before: str) -> None:
        folder = state_folder(self._root) / "history"
        folder.mkdir(exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        number = 0
        while True:
            kept = folder / f"{self.path.stem}.{stamp}-{number}{self.path.suffix}"
            if not kept.exists():
                break
            number += 1
        write_atomically(kept, before.encode())
        for old in sorted(folder.glob(f"{self.path.stem}.*{self.path.suffix}"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    async def _watch(self) -> None:
        seen = self._known
        while True:
            await asyncio.sleep(LOOK_EVERY)
            stamp, before = self._stamp(), seen
            seen = stamp
            if stamp is None or stamp in (self._known, (stamp[0], 0)) or stamp != before:
                # Gone, empty, or not at rest yet: somebody is in the middle of writing it.
                continue
            try:
                read = load_graph(self.path)
            except GraphError as error:
                # An editor may be in the middle of writing it; it is looked at again.
                self._complain(f"{self.path} was changed, and is no graph now: {error}")
                self._known = stamp
                continue
            self._known = stamp
            self._complaint = ""
            if read != self._graph():
                if self._unsaved:
                    self._tell(f"{self.path} was changed; what was edited here is undone by that")
                self._changed(read)
                self._unsaved = False
                self._tell(f"{self.path} was changed; the network follows it")

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            self._tell(text)
