"""From what is drawn to what is bound: one function for live wiring and for static set-up alike.

:func:`wire` takes a graph and what is known of its roles, and says for each edge which bindings
carry it out, or why that cannot be said yet.

The virtual components ``msgflo/PubSub`` and ``msgflo/RoundRobin`` have no process. They say how
their neighbours are joined: an edge whose way leads through a RoundRobin puts each message into
the work queue of the role behind it, every other edge copies it to each participant. What comes
out of a RoundRobin's ``deadletter`` port are the messages that the roles behind its ``out`` could
not process.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgflo.errors import near
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Definition, Port, queue_name
from msgflo.flow.graph import Edge, Endpoint, Graph

__all__ = [
    "PUBSUB",
    "ROUNDROBIN",
    "EdgeWiring",
    "InitialWiring",
    "Wiring",
    "by_convention",
    "is_virtual",
    "wire",
]

PUBSUB = "msgflo/PubSub"
ROUNDROBIN = "msgflo/RoundRobin"


@dataclass(frozen=True, slots=True)
class EdgeWiring:
    """How an edge is carried out.

    Attributes:
        edge: the edge of the graph.
        bindings: what carries it, as far as it is known; all of it unless it is pending.
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
    the bindings of all of them. Two edges may be carried by the same binding. Several edges out of
    a RoundRobin are several work queues, and each of them gets every message. Dead letters that
    could come back to where they died are refused.

    Args:
        graph: what is wanted.
        definitions: what is known, by role. Roles that are not there yet make their edges pending.

    Returns:
        One entry for each edge and each initial packet, in the graph's order.
    """
    return _Wirer(graph, definitions).wiring()


_OUTPORTS = {PUBSUB: ("out",), ROUNDROBIN: ("out", "deadletter")}
_INPORTS = {PUBSUB: ("in",), ROUNDROBIN: ("in",)}


class _Pending(Exception):  # never leaves this module
    def __init__(self, reason: str, *, wrong: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wrong = wrong


# A step of a way: the number of an edge, and whether the way has passed a RoundRobin.
_Step = tuple[int, bool]


@dataclass(frozen=True, slots=True)
class _Way:
    """All ways through virtual nodes from one place to one step that ends at a role."""

    edges: frozenset[int]
    tgt: Endpoint
    shared: bool


class _Wirer:
    def __init__(self, graph: Graph, definitions: Mapping[str, Definition]) -> None:
        self.graph = graph
        self.definitions = definitions
        self.out_of: dict[str, list[int]] = {}
        for number, edge in enumerate(graph.edges):
            self.out_of.setdefault(edge.src.node, []).append(number)
        self.bindings: list[set[Binding]] = [set() for _ in graph.edges]
        self.pending: dict[int, _Pending] = {}
        self.misdrawn: set[int] = set()
        self.reached: set[int] = set()
        self.carried: set[int] = set()
        self.dead: dict[str, set[str]] = {}
        self.refused: dict[int, str] = {}

    def wiring(self) -> Wiring:
        for number, edge in enumerate(self.graph.edges):
            try:
                self._check_virtual(edge)
            except _Pending as pending:
                self._hold(number, pending)
                self.misdrawn.add(number)
        for number, edge in enumerate(self.graph.edges):
            if number in self.misdrawn:
                continue
            if not self._virtual(edge.src.node):
                for way in self._ways((number, self._shares(edge))):
                    self._join(way, edge)
            elif self._is_deadletter(edge):
                self._join_deadletters(number, edge)
        return Wiring(
            tuple(self._edge(number, edge) for number, edge in enumerate(self.graph.edges)),
            tuple(self._initials()),
        )

    def _hold(self, number: int, pending: _Pending) -> None:
        """Note why an edge is pending. What must be put right counts before what time will tell."""
        before = self.pending.get(number)
        if before is None or (pending.wrong and not before.wrong):
            self.pending[number] = pending

    def _edge(self, number: int, edge: Edge) -> EdgeWiring:
        bindings = tuple(sorted(self.bindings[number]))
        pending = self.pending.get(number)
        if pending is not None:
            return EdgeWiring(edge, bindings, pending.reason, pending.wrong)
        if number not in self.carried:
            return EdgeWiring(edge, bindings, self._loose(number, edge), wrong=True)
        return EdgeWiring(edge, bindings)

    def _loose(self, number: int, edge: Edge) -> str:
        if number in self.refused:
            return self.refused[number]
        if self._is_deadletter(edge):
            if not self._behind(edge.src.node):
                return f"nothing leads on from {edge.src.node!r}, so nothing there can fail"
        elif self._virtual(edge.src.node) and number not in self.reached:
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
        found = self.graph.nodes.get(edge.src.node)
        return (
            found is not None
            and found.component == ROUNDROBIN
            and edge.src.port.casefold() == "deadletter"
        )

    def _check_virtual(self, edge: Edge) -> None:
        for direction, node, port, allowed in (
            ("outport", edge.src.node, edge.src.port, _OUTPORTS),
            ("inport", edge.tgt.node, edge.tgt.port, _INPORTS),
        ):
            if self._virtual(node):
                component = self.graph.nodes[node].component
                if port.casefold() not in allowed[component]:
                    raise _Pending(
                        f"{node!r} ({component}) has no {direction} {port!r}; "
                        f"there is: {', '.join(allowed[component])}",
                        wrong=True,
                    )

    def _ways(self, first: _Step) -> list[_Way]:
        """Follow an edge on through virtual nodes, to every role that it reaches."""
        came_from: dict[_Step, list[_Step]] = {first: []}
        ends: list[_Step] = []
        ahead = [first]
        while ahead:
            step = ahead.pop()
            number, shared = step
            self.reached.add(number)
            node = self.graph.edges[number].tgt.node
            if not self._virtual(node):
                ends.append(step)
                continue
            for onward in self._onward(node):
                following = (onward, shared or self._shares(self.graph.edges[onward]))
                if following not in came_from:
                    came_from[following] = []
                    ahead.append(following)
                came_from[following].append(step)
        ways = []
        for end in sorted(ends):
            passed = {end}
            back = [end]
            while back:
                for step in came_from[back.pop()]:
                    if step not in passed:
                        passed.add(step)
                        back.append(step)
            edges = frozenset(number for number, _ in passed)
            ways.append(_Way(edges, self.graph.edges[end[0]].tgt, end[1]))
        return ways

    def _onward(self, node: str) -> list[int]:
        """The edges that go on from a virtual node with what comes in."""
        return [
            number
            for number in self.out_of.get(node, ())
            if number not in self.misdrawn and not self._is_deadletter(self.graph.edges[number])
        ]

    def _join(self, way: _Way, edge: Edge) -> None:
        try:
            source = self._port(edge.src.node, "outport", edge.src.port).queue
            target = self._port(way.tgt.node, "inport", way.tgt.port).queue
        except _Pending as pending:
            for number in way.edges:
                self._hold(number, pending)
        else:
            kind = Kind.ROUNDROBIN if way.shared else Kind.PUBSUB
            self._carry(way, Binding(kind, source, target))

    def _carry(self, way: _Way, binding: Binding) -> None:
        self.carried |= way.edges
        for number in way.edges:
            self.bindings[number].add(binding)

    def _behind(self, node: str) -> list[Endpoint]:
        """The inports behind a RoundRobin, whose dead letters its deadletter port is about."""
        reached = set(self.reached)
        found = {
            way.tgt: None for number in self._onward(node) for way in self._ways((number, True))
        }
        self.reached = reached  # nothing was sent this way, it was only looked at
        return list(found)

    def _join_deadletters(self, number: int, edge: Edge) -> None:
        """Join what the roles behind a RoundRobin cannot process to where its edge leads."""
        ways = self._ways((number, True))
        for failing in self._behind(edge.src.node):
            for way in ways:
                try:
                    source = self._port(failing.node, "inport", failing.port).queue
                    target = self._port(way.tgt.node, "inport", way.tgt.port).queue
                except _Pending as pending:
                    for passed in way.edges:
                        self._hold(passed, pending)
                    continue
                if self._come_back(source, target):
                    reason = f"dead letters of {source!r} would come back to it, again and again"
                    self._hold(number, _Pending(reason, wrong=True))
                    self.refused.update(dict.fromkeys(way.edges, reason))
                else:
                    self.dead.setdefault(source, set()).add(target)
                    self._carry(way, Binding(Kind.DEADLETTER, source, target))

    def _come_back(self, source: str, target: str) -> bool:
        """Tell whether dead letters could come round: what nobody can process would never rest."""
        seen, ahead = {target}, [target]
        while ahead:
            queue = ahead.pop()
            if queue == source:
                return True
            found = self.dead.get(queue, set()) - seen
            seen |= found
            ahead += found
        return False

    # Ports.

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
