"""Looking at connections for those who want to see them: one tap a source, whoever looks.

A tap costs the network nothing but a copy on its way to us; here, what nobody can follow is passed
over before it is looked at.
"""

import asyncio
import base64
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from msgflo.errors import MsgFloError
from msgflo.flow.discovery import queue_name
from msgflo.flow.graph import Graph
from msgflo.flow.parts import Edge, Endpoint
from msgflo.flow.wiring import is_virtual
from msgflo.live import LiveNetwork
from msgflo.protocol.workspace import EdgeKey, Packet, Sheet, Workspace
from msgflo.transport.contract import MESSAGE_ID, Broker, Tap, Tapped

__all__ = ["Taps", "shown", "sources_of"]

SHOWN_BYTES = 16 * 1024
"""A larger payload is shown by its beginning."""

PORT_BYTES = 1024 * 1024
"""A larger payload of an exported outport, likewise."""

LOOKED_AT, BURST = 200.0, 1000.0
"""Packets of one source that are looked at: per second, and at once."""

AGAIN = 1.0
"""Seconds until a tap that could not be made is tried again."""


def sources_of(graph: Graph, src: Endpoint) -> list[Endpoint]:
    """Return the outports of participants from which comes what leaves by an outport.

    It is the outport itself, unless its node is virtual: then it is all that leads into that.
    """
    found: list[Endpoint] = []
    seen: set[str] = set()

    def look(end: Endpoint) -> None:
        node = graph.nodes.get(end.node)
        if node is None:
            return
        if not is_virtual(node.component):
            if end not in found:
                found.append(end)
        elif node.id not in seen and end.port.casefold() == "out":
            seen.add(node.id)
            for edge in graph.edges:
                if edge.tgt.node == node.id:
                    look(edge.src)

    look(src)
    return found


def shown(body: bytes, most: int = SHOWN_BYTES) -> Any:
    """Return a payload as a JSON value that people can look at."""
    if len(body) <= most:
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    try:
        text = body[:most].decode("utf-8", "strict" if len(body) <= most else "ignore")
        plain = text.isprintable() or all(c.isprintable() or c in "\r\n\t" for c in text)
    except UnicodeDecodeError:
        plain = False
    if not plain:
        if len(body) <= most:
            return {"base64": base64.b64encode(body).decode()}
        return f"<{len(body)} bytes>"
    return text if len(body) <= most else f"{text} ... ({len(body)} bytes)"


@dataclass(slots=True)
class _Look:
    """Who looks at a source, and how much was seen there."""

    edges: list[tuple[str, EdgeKey]] = field(default_factory=list)
    ports: list[tuple[str, str]] = field(default_factory=list)
    tap: Tap | None = None
    sequence: int = 0
    left: float = BURST
    at: float = 0.0

    def may_pass(self, time: float) -> bool:
        self.left = min(BURST, self.left + max(0.0, time - self.at) * LOOKED_AT)
        self.at = time
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class Taps:
    """Makes and closes taps until those are there that somebody wants.

    Args:
        workspace: who wants to see what; told what is seen.
        broker: returns the broker; ``None`` while there is none.
        networks: returns what runs of a graph; ``None``: nothing does.
    """

    def __init__(
        self,
        workspace: Workspace,
        broker: Callable[[], Broker | None],
        networks: Callable[[Sheet], LiveNetwork | None],
    ) -> None:
        self._workspace = workspace
        self._broker = broker
        self._networks = networks
        self._looks: dict[str, _Look] = {}
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="look at edges")

    async def close(self) -> None:
        """Close all taps. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for look in self._looks.values():
            if look.tap is not None:
                with contextlib.suppress(MsgFloError):
                    await look.tap.close()
        self._looks.clear()

    def change(self) -> None:
        """What is wanted may be other than before."""
        self._settled.clear()
        self._changed.set()

    async def settle(self, timeout: float) -> None:
        """Wait until all taps are there that are wanted now, at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._settled.wait()

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            # Many want something else at once, when a graph is edited.
            await asyncio.sleep(0)
            complete = await self._make()
            if complete and not self._changed.is_set():
                self._settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if complete else AGAIN):
                    await self._changed.wait()

    async def _make(self) -> bool:
        """Make and close taps; return whether all are there."""
        broker = self._broker()
        if broker is None:
            return True
        wanted = self._wanted()
        complete = True
        for source, look in list(self._looks.items()):
            new = wanted.pop(source, None)
            if new is None:
                del self._looks[source]
                if look.tap is not None:
                    with contextlib.suppress(MsgFloError):
                        await look.tap.close()
            else:
                look.edges, look.ports = new.edges, new.ports
        self._looks |= wanted
        for source, look in list(self._looks.items()):
            if look.tap is None:
                try:
                    look.tap = await broker.tap(source, partial(self._saw, look))
                except MsgFloError:
                    complete = False
        return complete

    def _wanted(self) -> dict[str, _Look]:
        looks: dict[str, _Look] = {}
        anybody = bool(self._workspace.audience)
        for sheet in self._workspace.sheets.values():
            network = self._networks(sheet)
            if network is None:
                continue
            edges = self._workspace.wanted(sheet)
            known = {edge.key for edge in sheet.graph.edges}
            for key in edges:
                if key[0] is not None and key in known:
                    for queue in _queues(sheet, network, key[0]):
                        looks.setdefault(queue, _Look()).edges.append((sheet.id, key))
            if anybody and sheet.started:
                for public, it in sheet.graph.outports.items():
                    for queue in _queues(sheet, network, Endpoint(it.node, it.port)):
                        looks.setdefault(queue, _Look()).ports.append((sheet.id, public))
        return looks

    def _saw(self, look: _Look, seen: Tapped) -> None:
        look.sequence += 1
        message = seen.headers.get(MESSAGE_ID, "")
        for graph, public in look.ports:
            self._workspace.saw(
                Packet(
                    graph,
                    None,
                    None,
                    shown(seen.body, PORT_BYTES),
                    seen.time,
                    look.sequence,
                    len(seen.body),
                    public,
                    message,
                )
            )
        if not look.edges or not look.may_pass(seen.time):
            return
        data = shown(seen.body)
        for graph, (src, tgt) in look.edges:
            packet = Packet(
                graph, src, tgt, data, seen.time, look.sequence, len(seen.body), id=message
            )
            self._workspace.saw(packet)


def _queues(sheet: Sheet, network: LiveNetwork, src: Endpoint) -> Iterable[str]:
    for end in sources_of(sheet.graph, src):
        role = network.scope + end.node
        definition = network.definition(role)
        port = definition.outport(end.port) if definition is not None else None
        if port is None:
            yield queue_name(role, end.port)
        elif port.queue:
            yield port.queue


def initial_packets(sheet: Sheet, now: float, added: Iterable[Any] = ()) -> Iterable[Packet]:
    """Return the initial packets of a graph as something that was seen.

    Args:
        sheet: the graph.
        now: the time.
        added: these ones; all, if there are none.
    """
    for it in added or sheet.graph.initials:
        if not isinstance(it, Edge):
            yield Packet(sheet.id, None, it.tgt, it.data, now)


def headers_of(message: str) -> Mapping[str, str]:
    """Return the headers of a message of ours with this id."""
    return {MESSAGE_ID: message, "Content-Type": "application/json"}
