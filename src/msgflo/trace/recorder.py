"""Recording: what passes the connections of a running network goes into a ring.

A :class:`Recorder` taps the sources of the graph's edges. A tap touches no traffic, and one that
cannot keep up misses messages: recording slows nobody. What cannot be seen in passing, dead
letters on their way to another role, is not recorded.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Definition
from msgflo.flow.graph import Edge, Endpoint, Graph
from msgflo.flow.wiring import PUBSUB, ROUNDROBIN
from msgflo.trace.flowtrace import Recording, packet_payload
from msgflo.transport.contract import Broker, Tap, Tapped

__all__ = ["Recorder", "observed_graph", "routes"]

Place = dict[str, Any]
"""One end of a connection: node, port, and index if there is one."""

Route = tuple[Place | None, Place | None]
"""From where to where; ``None``: from outside."""


class Carried(Protocol):
    """An edge, and what carries it; both a wiring and a network's status know such."""

    @property
    def edge(self) -> Edge:
        """The edge of the graph."""

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """What carries it."""


def routes(
    edges: Iterable[Carried], definitions: Mapping[str, Definition] | None = None
) -> dict[str, list[Route]]:
    """Return what to tap, and which connections a message that is seen there has passed.

    Args:
        edges: of the graph.
        definitions: the roles whose inports are tapped too, for what is sent to them from outside.
    """
    found: dict[str, list[Route]] = {}
    for carried in edges:
        route = (_place(carried.edge.src), _place(carried.edge.tgt))
        for source in {b.source for b in carried.bindings if b.kind is not Kind.DEADLETTER}:
            found.setdefault(source, []).append(route)
    entries: dict[str, list[Route]] = {}
    for role, definition in (definitions or {}).items():
        for port in definition.inports:
            if port.queue:
                entry = (None, {"node": role, "port": port.id})
                entries.setdefault(port.queue, []).append(entry)
    # Where a source and an inport have one name, what passes there has passed the connection.
    return {**entries, **found}


def _place(end: Endpoint) -> Place:
    index = {} if end.index is None else {"index": end.index}
    return {"node": end.node, "port": end.port, **index}


def observed_graph(bindings: Iterable[Binding], definitions: Mapping[str, Definition]) -> Graph:
    """Return the graph that a running network looks like: its roles, and who is bound to whom.

    Shared queues have a RoundRobin node, called ``ROLE_PORT`` after the role behind it.

    Args:
        bindings: what the broker has bound.
        definitions: the roles that have announced themselves. What is bound to others is left out.
    """
    graph = Graph("observed")
    outs = {
        p.queue: Endpoint(r, p.id) for r, d in definitions.items() for p in d.outports if p.queue
    }
    ins = {p.queue: Endpoint(r, p.id) for r, d in definitions.items() for p in d.inports if p.queue}
    for role, definition in sorted(definitions.items()):
        graph.add_node(role, definition.component or role)
    ordered = sorted(bindings, key=lambda it: (it.kind is Kind.DEADLETTER, it))
    for binding in ordered:
        target = ins.get(binding.target)
        dead = binding.kind is Kind.DEADLETTER
        source = (ins if dead else outs).get(binding.source)
        if source is None or target is None:
            continue
        if binding.kind is Kind.PUBSUB:
            graph.add_edge(source, target)
            continue
        shared = source if dead else target
        joint = _joint(graph, f"{shared.node}_{shared.port}")
        if joint not in graph.nodes:
            graph.add_node(joint, ROUNDROBIN)
            graph.add_edge(Endpoint(joint, "out"), shared)
        if dead:
            graph.add_edge(Endpoint(joint, "deadletter"), target)
        else:
            graph.add_edge(source, Endpoint(joint, "in"))
    return graph


def _joint(graph: Graph, name: str) -> str:
    while name in graph.nodes and graph.nodes[name].component not in {ROUNDROBIN, PUBSUB}:
        name += "_"
    return name


class Recorder:
    """Records the connections of one graph. To be used by one task at a time.

    Attributes:
        recording: the ring that it records into.
    """

    def __init__(
        self,
        broker: Broker,
        recording: Recording,
        graph: str,
        *,
        clock: Callable[[], float] = time.time,
        added: Callable[[], None] = lambda: None,
    ) -> None:
        """Make one that records nothing yet.

        Args:
            broker: connected; not closed by this.
            recording: what to record into.
            graph: the graph's name, for the events.
            clock: tells the seconds since 1970.
            added: called after each event.
        """
        self.recording = recording
        self._broker = broker
        self._graph = graph
        self._clock = clock
        self._added = added
        self._taps: dict[str, Tap] = {}
        self._routes: dict[str, list[Route]] = {}

    async def follow(self, wanted: Mapping[str, list[Route]]) -> None:
        """Record these connections from now on, and no others; to be called at each change.

        Args:
            wanted: as :func:`routes` has them.

        Raises:
            TransportError: the broker does not let it. What could not be tapped can be tried
                again by calling this again.
        """
        self._routes = dict(wanted)
        for source in self._taps.keys() - wanted.keys():
            await self._taps.pop(source).close()
        for source in wanted.keys() - self._taps.keys():
            self._taps[source] = await self._broker.tap(source, partial(self._see, source))

    async def close(self) -> None:
        """Record nothing more. The recording stays as it is. Idempotent."""
        await self.follow({})

    def event(self, command: str, payload: Mapping[str, Any]) -> None:
        """Record something else that has happened, such as ``started`` or ``processerror``."""
        self.recording.add(command, payload, time=self._clock(), graph=self._graph)
        self._added()

    def _see(self, source: str, message: Tapped) -> None:
        payload = None
        for src, tgt in self._routes.get(source, ()):
            if payload is None:
                payload = packet_payload(src, tgt, message.body, message.headers)
            else:
                payload = {**payload, "src": src, "tgt": tgt}
            self.recording.add("data", payload, time=message.time, graph=self._graph)
            self._added()
