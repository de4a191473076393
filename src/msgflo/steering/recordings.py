"""What passes the graphs of a runtime, recorded for those who want to see it afterwards.

Unlike what is shown to a client while it happens, a recording has every packet, whole, with its
headers: messages can be sent again from it. What it has room for is bounded by the ring.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgflo.errors import MsgFloError
from msgflo.flow.graph import Graph
from msgflo.flow.graphjson import dump_json
from msgflo.live import LiveNetwork
from msgflo.trace.flowtrace import Flowtrace, Recording
from msgflo.trace.recorder import Recorder, Route, routes
from msgflo.transport.contract import Broker

__all__ = ["Recordings"]

LOOK_AGAIN = 1.0
"""Seconds between looks at what is connected, while something is recorded."""


class Recordings:
    """The recordings of a runtime, one a graph.

    Args:
        network: returns what runs of a graph, by its id; ``None``: nothing does.
        broker: returns the broker; ``None`` while there is none.
    """

    def __init__(
        self,
        network: Callable[[str], LiveNetwork | None],
        broker: Callable[[], Broker | None],
    ) -> None:
        self._network = network
        self._broker = broker
        self._rings: dict[str, Recording] = {}
        self._active: set[str] = set()
        self._recorders: dict[str, Recorder] = {}
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, graph: str, events: int, size: int, metadata: Mapping[str, Any]) -> None:
        """Record a graph from now on, in the ring that it has if that is as large; idempotent.

        Args:
            graph: its id.
            events: how many events to keep.
            size: how many bytes of them.
            metadata: for the header of the trace.
        """
        ring = self._rings.get(graph)
        if ring is None or (ring.events, ring.size) != (events, size):
            self._rings[graph] = Recording(time.time(), events=events, size=size, metadata=metadata)
        self._active.add(graph)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="record")
        self.change()

    def stop(self, graph: str) -> None:
        """Record a graph no more; what was recorded is kept. Idempotent."""
        self._active.discard(graph)
        self.change()

    def clear(self, graph: str) -> None:
        """Forget what was recorded of a graph."""
        if graph in self._rings:
            self._rings[graph].clear(time.time())

    def event(self, graph: str, command: str, payload: Mapping[str, Any]) -> None:
        """Record something else that happens in a graph, if it is recorded."""
        if graph in self._active:
            said = {key: value for key, value in payload.items() if key != "graph"}
            self._rings[graph].add(command, said, time=time.time(), graph=graph)

    def flowtrace(self, graph: str, drawn: Graph) -> Flowtrace | None:
        """Return what was recorded of a graph; ``None``: it never was.

        Args:
            graph: its id.
            drawn: the graph.
        """
        ring = self._rings.get(graph)
        if ring is None:
            return None
        return ring.flowtrace(time.time(), {graph: json.loads(dump_json(drawn))}, graph)

    def change(self) -> None:
        """What is to be looked at may be other than before."""
        self._settled.clear()
        self._changed.set()

    async def settle(self, timeout: float) -> None:
        """Wait until all is looked at that is recorded, at most so many seconds."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._settled.wait()

    async def close(self) -> None:
        """Record nothing more. What was recorded can still be had. Idempotent."""
        self._active.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for recorder in self._recorders.values():
            with contextlib.suppress(MsgFloError):
                await recorder.close()
        self._recorders.clear()

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            if await self._look() and not self._changed.is_set():
                self._settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN if self._active else None):
                    await self._changed.wait()

    async def _look(self) -> bool:
        """Tap what is to be recorded, and nothing else; tell whether all of it is."""
        broker = self._broker()
        if broker is None:
            return not self._active
        complete = True
        for graph in {*self._active, *self._recorders}:
            recorder = self._recorders.get(graph)
            if recorder is None:
                recorder = self._recorders[graph] = Recorder(broker, self._rings[graph], graph)
            recorder.recording = self._rings[graph]  # another one, if another size was wanted
            network = self._network(graph) if graph in self._active else None
            try:
                await recorder.follow(_routes(network) if network is not None else {})
            except MsgFloError:
                complete = False
        return complete


def _routes(network: LiveNetwork) -> dict[str, list[Route]]:
    """Return what to tap of a network, its nodes named as in its graph."""
    known = {
        node: it for node in network.graph.nodes if (it := network.definition(node)) is not None
    }
    found = routes(network.coordinator.status().edges, known)
    if network.scope:
        for route in (it for source in found.values() for it in source):
            for end in route:
                if end is not None:
                    end["node"] = end["node"].removeprefix(network.scope)
    return found
