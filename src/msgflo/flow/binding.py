"""From what is drawn to what is bound: one function for live wiring and for static set-up alike.

:func:`wire` takes a graph and what is known of its roles, and says for each edge which bindings
carry it out, or why that cannot be said yet. :func:`diff` says what is to be done to get from what
is bound to what should be.

The virtual components ``msgflo/PubSub`` and ``msgflo/RoundRobin`` have no process. They say how
their neighbours are joined: an edge whose way leads through a RoundRobin puts each message into
the work queue of the role behind it, every other edge copies it to each participant. What comes
out of a RoundRobin's ``deadletter`` port are the messages that the roles behind its ``out`` could
not process.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from msgflo.errors import near
from msgflo.flow.discovery import Definition, Port, queue_name
from msgflo.flow.graph import Edge, Graph

__all__ = [
    "PUBSUB",
    "ROUNDROBIN",
    "Binding",
    "BindingChange",
    "EdgeWiring",
    "InitialWiring",
    "Kind",
    "Wiring",
    "by_convention",
    "diff",
    "is_virtual",
    "wire",
]

PUBSUB = "msgflo/PubSub"
ROUNDROBIN = "msgflo/RoundRobin"


class Kind(StrEnum):
    """How a binding shares out messages."""

    PUBSUB = "pubsub"
    ROUNDROBIN = "roundrobin"
    DEADLETTER = "deadletter"


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """A connection as the broker carries it out.

    Attributes:
        kind: how messages are shared out.
        source: the queue name of the outport; of the inport whose dead letters they are, if
            ``kind`` is deadletter.
        target: the queue name of the inport that gets them.
    """

    kind: Kind
    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.kind.upper()}: {self.source} -> {self.target}"


@dataclass(frozen=True, slots=True)
class EdgeWiring:
    """How an edge is carried out.

    Attributes:
        edge: the edge of the graph.
        bindings: what carries it; empty if it is pending, or if both ports share one queue.
        reason: why it is pending; ``""`` if it is not.
        wrong: whether the graph must change for it to work; otherwise time will tell.
    """

    edge: Edge
    bindings: tuple[Binding, ...] = ()
    reason: str = ""
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class InitialWiring:
    """Where an initial packet goes.

    Attributes:
        role: the node.
        port: the inport, as announced (as in the graph while it is pending).
        queue: its queue name; ``""`` while pending.
        data: the packet.
        reason, wrong: as for an edge.
    """

    role: str
    port: str
    queue: str
    data: Any
    reason: str = ""
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a graph asks of the broker, as far as it can be said now."""

    edges: tuple[EdgeWiring, ...]
    initials: tuple[InitialWiring, ...]

    @property
    def bindings(self) -> frozenset[Binding]:
        """All bindings that should be there."""
        return frozenset(binding for wiring in self.edges for binding in wiring.bindings)


@dataclass(frozen=True, slots=True)
class BindingChange:
    """What to do to get from what is bound to what should be.

    Attributes:
        add: bindings to make, sorted.
        remove: bindings to remove, sorted.
    """

    add: tuple[Binding, ...]
    remove: tuple[Binding, ...]


def diff(have: Iterable[Binding], want: Iterable[Binding]) -> BindingChange:
    """Return what to bind and what to unbind. Applied to ``have`` it gives ``want``."""
    there, wanted = frozenset(have), frozenset(want)
    return BindingChange(tuple(sorted(wanted - there)), tuple(sorted(there - wanted)))


def is_virtual(component: str) -> bool:
    """Tell whether nodes of this component are joints of connections, not roles."""
    return component in {PUBSUB, ROUNDROBIN}


def by_convention(graph: Graph) -> dict[str, Definition]:
    """Return definitions for all roles of a graph from their use in it, without hearing them.

    Each port that the graph mentions is taken to exist, its queue named by convention. For tools
    that set up a broker before any participant runs.
    """
    inports: dict[str, dict[str, Port]] = {}
    outports: dict[str, dict[str, Port]] = {}

    def note(ports: dict[str, dict[str, Port]], node: str, port: str) -> None:
        ports.setdefault(node, {})[port] = Port(port, queue=queue_name(node, port))

    for edge in graph.edges:
        note(outports, edge.src.node, edge.src.port)
        note(inports, edge.tgt.node, edge.tgt.port)
    for initial in graph.initials:
        note(inports, initial.tgt.node, initial.tgt.port)
    for export in graph.inports.values():
        note(inports, export.node, export.port)
    for export in graph.outports.values():
        note(outports, export.node, export.port)
    return {
        node.id: Definition(
            id=node.id,
            role=node.id,
            component=node.component,
            inports=tuple(inports.get(node.id, {}).values()),
            outports=tuple(outports.get(node.id, {}).values()),
        )
        for node in graph.nodes.values()
        if not is_virtual(node.component)
    }


def wire(graph: Graph, definitions: Mapping[str, Definition]) -> Wiring:
    """Say for each edge and initial packet of a graph how it is carried out.

    An edge into or out of a virtual node belongs to every connection that passes it, and lists
    the bindings of all of them. Two edges may be carried by the same binding.

    Args:
        graph: what is wanted.
        definitions: what is known, by role. Roles that are not there yet make their edges pending.

    Returns:
        One entry for each edge and each initial packet, in the graph's order.
    """
    return _Wirer(graph, definitions).wiring()


class _Pending(Exception):  # never leaves this module
    def __init__(self, reason: str, *, wrong: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wrong = wrong


@dataclass(frozen=True, slots=True)
class _Way:
    """A way through virtual nodes from one role to another: the edges in order."""

    edges: tuple[int, ...]
    shared: bool  # through a RoundRobin
    deadletters: bool  # through a RoundRobin's deadletter port


class _Wirer:
    def __init__(self, graph: Graph, definitions: Mapping[str, Definition]) -> None:
        self.graph = graph
        self.definitions = definitions
        self.out_of: dict[str, list[int]] = {}
        self.into: dict[str, list[int]] = {}
        for number, edge in enumerate(graph.edges):
            self.out_of.setdefault(edge.src.node, []).append(number)
            self.into.setdefault(edge.tgt.node, []).append(number)
        self.bindings: list[set[Binding]] = [set() for _ in graph.edges]
        self.pending: dict[int, _Pending] = {}
        self.carried: set[int] = set()

    def wiring(self) -> Wiring:
        for number, edge in enumerate(self.graph.edges):
            try:
                self._check_virtual(edge)
            except _Pending as pending:
                self.pending[number] = pending
        for number, edge in enumerate(self.graph.edges):
            if not self._virtual(edge.src.node):
                for way in self._ways((number,), self._shares(edge)):
                    self._join(way, self._source_queue(edge))
            elif self._is_deadletter(edge):
                self._join_deadletters(number, edge)
        return Wiring(
            tuple(self._edge(number, edge) for number, edge in enumerate(self.graph.edges)),
            tuple(self._initials()),
        )

    def _edge(self, number: int, edge: Edge) -> EdgeWiring:
        bindings = tuple(sorted(self.bindings[number]))
        pending = self.pending.get(number)
        if pending is not None:
            return EdgeWiring(edge, bindings, pending.reason, pending.wrong)
        if number not in self.carried:
            return EdgeWiring(edge, bindings, self._loose(edge), wrong=True)
        return EdgeWiring(edge, bindings)

    def _loose(self, edge: Edge) -> str:
        if self._virtual(edge.src.node):
            return f"nothing leads into {edge.src.node!r}"
        return f"nothing leads on from {edge.tgt.node!r}"

    def _initials(self) -> Iterator[InitialWiring]:
        for initial in self.graph.initials:
            role, name = initial.tgt.node, initial.tgt.port
            try:
                if self._virtual(role):
                    raise _Pending(
                        f"{role!r} is a {self.graph.nodes[role].component}, which has no process "
                        f"that could take an initial packet",
                        wrong=True,
                    )
                port = self._port(role, "inport", name)
            except _Pending as pending:
                yield InitialWiring(role, name, "", initial.data, pending.reason, pending.wrong)
            else:
                yield InitialWiring(role, port.id, port.queue, initial.data)

    # The ways through virtual nodes.

    def _virtual(self, node: str) -> bool:
        found = self.graph.nodes.get(node)
        return found is not None and is_virtual(found.component)

    def _shares(self, edge: Edge) -> bool:
        found = self.graph.nodes.get(edge.tgt.node)
        return found is not None and found.component == ROUNDROBIN

    def _is_deadletter(self, edge: Edge) -> bool:
        return (
            self.graph.nodes[edge.src.node].component == ROUNDROBIN
            and edge.src.port.casefold() == "deadletter"
        )

    def _check_virtual(self, edge: Edge) -> None:
        for node, port, allowed in (
            (edge.src.node, edge.src.port, {PUBSUB: ("out",), ROUNDROBIN: ("out", "deadletter")}),
            (edge.tgt.node, edge.tgt.port, {PUBSUB: ("in",), ROUNDROBIN: ("in",)}),
        ):
            if self._virtual(node):
                component = self.graph.nodes[node].component
                if port.casefold() not in allowed[component]:
                    direction = "outport" if node == edge.src.node else "inport"
                    raise _Pending(
                        f"{node!r} ({component}) has no {direction} {port!r}; "
                        f"there is: {', '.join(allowed[component])}",
                        wrong=True,
                    )

    def _ways(self, edges: tuple[int, ...], shared: bool) -> Iterator[_Way]:
        """Follow the last edge on through virtual nodes, to every role that it reaches."""
        node = self.graph.edges[edges[-1]].tgt.node
        if not self._virtual(node):
            yield _Way(edges, shared, False)
            return
        for number in self.out_of.get(node, ()):
            edge = self.graph.edges[number]
            if number in edges or self._is_deadletter(edge):
                continue
            yield from self._ways((*edges, number), shared or self._shares(edge))

    def _join(self, way: _Way, source: Callable[[], str]) -> None:
        target = self.graph.edges[way.edges[-1]].tgt
        try:
            queue = source()
            inport = self._port(target.node, "inport", target.port).queue
        except _Pending as pending:
            for number in way.edges:
                self.pending.setdefault(number, pending)
            return
        self.carried.update(way.edges)
        if queue == inport:
            return  # both ports are one queue of the broker: it is carried already
        kind = (
            Kind.DEADLETTER if way.deadletters else Kind.ROUNDROBIN if way.shared else Kind.PUBSUB
        )
        for number in way.edges:
            self.bindings[number].add(Binding(kind, queue, inport))

    def _join_deadletters(self, number: int, edge: Edge) -> None:
        """Join what the roles behind a RoundRobin cannot process to where its edge leads."""
        ways = [
            _Way(way.edges, shared=True, deadletters=True) for way in self._ways((number,), True)
        ]
        failing = [
            self.graph.edges[way.edges[-1]].tgt
            for first in self.out_of.get(edge.src.node, ())
            if not self._is_deadletter(self.graph.edges[first])
            for way in self._ways((first,), True)
        ]
        for tgt in failing:

            def source(node: str = tgt.node, port: str = tgt.port) -> str:
                return self._port(node, "inport", port).queue

            for way in ways:
                self._join(way, source)

    # Ports.

    def _source_queue(self, edge: Edge) -> Callable[[], str]:
        return lambda: self._port(edge.src.node, "outport", edge.src.port).queue

    def _port(self, role: str, direction: str, name: str) -> Port:
        if role not in self.graph.nodes:
            raise _Pending(
                f"the graph has no node {role!r}.{near(role, self.graph.nodes)}", wrong=True
            )
        definition = self.definitions.get(role)
        if definition is None:
            raise _Pending(f"role {role!r} has not been announced yet")
        port = definition.inport(name) if direction == "inport" else definition.outport(name)
        ports = definition.inports if direction == "inport" else definition.outports
        if port is None:
            names = [port.id for port in ports if port.queue]
            raise _Pending(
                f"role {role!r} ({definition.component}) has no {direction} {name!r}; "
                f"its {direction}s are: {', '.join(names) or 'none'}.{near(name, names)}",
                wrong=True,
            )
        if not port.queue:
            raise _Pending(f"{direction} {port.id!r} of role {role!r} is hidden: it has no queue")
        return port
