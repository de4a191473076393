"""The rules by which a network comes to look like its graph. Pure: facts in, orders out.

Two states are kept apart. The *graph* is what is wanted. What is *seen* comes in as facts: who
announced itself, what the broker has bound, which order was carried out. Each fact returns the
orders that bring the one closer to the other; none of them waits for anything, so a network that
is half there is wired by half, and the rest is *pending*, with its reason, until its fact comes.

A participant's life, as seen from here:

    (nothing) --announced--> live --silent for 2.5 periods--> lost --announced--> live
                              |                                |
                              +------------goodbye-------------+--> (nothing)

A participant that is lost changes nothing for its role: its bindings stay, and what is sent
waits. One that takes the instance number of another has taken its place.

What is bound and not wanted is removed only if this network bound it before; what others bound is
shown and left alone. :class:`Memory` is what has to outlive the coordinator for that.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from msgflo.flow.binding import Binding, Kind, Wiring, diff, is_virtual, wire
from msgflo.flow.discovery import (
    PERIODS_TO_LIVE,
    UNKNOWN_PERIOD,
    Announcement,
    Definition,
    Goodbye,
    place_of,
)
from msgflo.flow.graph import Edge, Graph

__all__ = [
    "Bind",
    "EdgeStatus",
    "Event",
    "Life",
    "Memory",
    "Network",
    "NetworkStatus",
    "Order",
    "ParticipantStatus",
    "RoleStatus",
    "SendInitial",
    "Unbind",
]

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between tries of an order that failed; doubled each time. A broker that comes back is
used within half a minute even if nobody tells that it did."""


@dataclass(frozen=True, slots=True)
class Bind:
    """Carry out a connection."""

    binding: Binding


@dataclass(frozen=True, slots=True)
class Unbind:
    """Remove a connection that this network made and that nobody wants any more."""

    binding: Binding


@dataclass(frozen=True, slots=True)
class SendInitial:
    """Give a participant its initial packet.

    Attributes:
        participant: whose it is; orders for one that is gone need not be carried out.
        port: the inport.
        queue: the place of the participant, or its work queue where it has no places.
        body: the packet, as JSON.
        id: the message's id: the same for the same packet to the same participant.
    """

    participant: str
    port: str
    queue: str
    body: bytes
    id: str


Order = Bind | Unbind | SendInitial


class Life(StrEnum):
    """How a participant or a role is, as far as announcements tell."""

    PENDING = "pending"
    LIVE = "live"
    LOST = "lost"
    VIRTUAL = "virtual"


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person would want to be told.

    Attributes:
        kind: ``live``, ``lost``, ``gone``, ``changed`` (of participants), ``bound``, ``unbound``,
            ``failed`` (of orders), ``wrong`` (the graph must change).
        role: whom it concerns; ``""`` for bindings.
        text: in words.
        instance: which of the role's participants; ``None``: none in particular, or unknown.
    """

    kind: str
    role: str
    text: str
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class ParticipantStatus:
    """A participant that was announced.

    Attributes:
        announcement: the last one.
        life: live or lost.
        heard: when, on the clock of whoever feeds the facts.
    """

    announcement: Announcement
    life: Life
    heard: float


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """A node of the graph, or a role that was announced without being in it.

    Attributes:
        role: its name.
        component: its component, from the graph if it is there.
        life: ``live`` if any participant is; ``lost`` if some were; ``pending`` if none ever came.
        wanted: whether the graph has it.
        participants: all known, by instance.
    """

    role: str
    component: str
    life: Life
    wanted: bool
    participants: tuple[ParticipantStatus, ...]


@dataclass(frozen=True, slots=True)
class EdgeStatus:
    """An edge of the graph.

    Attributes:
        edge: the edge.
        bindings: what carries it.
        reason: why it does not work yet; ``""`` if it does.
        wrong: whether only a change of the graph or of a component can help.
    """

    edge: Edge
    bindings: tuple[Binding, ...]
    reason: str
    wrong: bool


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """The whole network at one moment.

    Attributes:
        roles: the graph's, in its order, then others that were announced.
        edges: the graph's, in its order.
        initials: reasons of initial packets that cannot be sent, as ``ROLE PORT: why``.
        found: bindings in the broker that this graph does not ask for.
    """

    roles: tuple[RoleStatus, ...]
    edges: tuple[EdgeStatus, ...]
    initials: tuple[str, ...]
    found: tuple[Binding, ...]

    @property
    def complete(self) -> bool:
        """Whether every role is live, every edge bound and every initial packet deliverable."""
        return (
            all(role.life in (Life.LIVE, Life.VIRTUAL) for role in self.roles if role.wanted)
            and not any(edge.reason for edge in self.edges)
            and not self.initials
        )


class Memory(msgspec.Struct):
    """What must outlive the coordinator, to be written down after each change.

    Attributes:
        bindings: made by this network and not removed.
        definitions: the last that each role announced, so that its edges are known before it is
            heard again.
        served: initial packets that were given, by participant.
    """

    bindings: list[tuple[str, str, str]] = []
    definitions: dict[str, Definition] = {}
    served: dict[str, list[str]] = {}


@dataclass(slots=True)
class _Failure:
    reason: str
    tries: int
    again: float  # when to try again; inf: not until the graph changes


@dataclass(slots=True)
class _Participant:
    announcement: Announcement
    heard: float
    lost: bool = False

    @property
    def expires(self) -> float:
        return self.heard + self.announcement.time_to_live


@dataclass(slots=True)
class _State:
    bound: set[Binding] = field(default_factory=set)  # seen in the broker
    ours: set[Binding] = field(default_factory=set)  # made by this network
    asked: set[Order] = field(default_factory=set)  # ordered, not answered
    failures: dict[Order, _Failure] = field(default_factory=dict)


class Network:
    """The two states of a network, and what to do about their difference.

    Facts are told by :meth:`heard`, :meth:`left`, :meth:`found`, :meth:`done`, :meth:`failed` and
    :meth:`tick`; each returns orders to carry out and to report on. What people should hear of
    gathers in :attr:`events`, to be taken out by the caller.

    Args:
        graph: what is wanted.
        memory: what an earlier coordinator of this network left.
    """

    def __init__(self, graph: Graph, memory: Memory | None = None) -> None:
        memory = memory or Memory()
        self.graph = graph
        self.events: list[Event] = []
        self._participants: dict[str, _Participant] = {}
        self._definitions: dict[str, Definition] = dict(memory.definitions)
        self._served: dict[str, set[str]] = {
            participant: set(packets) for participant, packets in memory.served.items()
        }
        self._state = _State()
        for kind, source, target in memory.bindings:
            self._state.ours.add(Binding(Kind(kind), source, target))
        self._found = False
        self._wiring: Wiring | None = None
        self._told_wrong: set[tuple[str, str]] = set()
        self._remembered: set[str] = set(self._served)  # participants not heard of yet
        self._forget_at: float | None = None

    @property
    def memory(self) -> Memory:
        """What to write down now."""
        return Memory(
            bindings=sorted((str(b.kind), b.source, b.target) for b in self._state.ours),
            definitions=dict(self._definitions),
            served={
                participant: sorted(packets)
                for participant, packets in self._served.items()
                if packets
            },
        )

    # Facts.

    def change_graph(self, graph: Graph) -> list[Order]:
        """Want another graph from now on; also to be called after an edit of the same one."""
        self.graph = graph
        for order, failure in list(self._state.failures.items()):
            if failure.again == float("inf"):
                del self._state.failures[order]
        return self._reconsider()

    def heard(self, announcement: Announcement, now: float) -> list[Order]:
        """A participant announced itself. Any number of times; what is new counts."""
        definition = announcement.definition
        known = self._participants.get(definition.id)
        if known is None:
            self._replace(announcement)
            self._tell_of("live", announcement, "is live")
        elif known.lost:
            self._tell_of("live", announcement, "is live again")
        self._participants[definition.id] = _Participant(announcement, now)
        before = self._definitions.get(definition.role)
        if before is None or not before.same_ports(definition):
            if before is not None and known is not None:
                self._tell_of("changed", announcement, "has changed ports")
            self._definitions[definition.role] = definition
            return self._reconsider()
        if known is None or known.lost or known.announcement.initials != announcement.initials:
            return self._reconsider()
        return []

    def left(self, goodbye: Goodbye) -> list[Order]:
        """A participant said goodbye. Its role keeps its ports and its bindings."""
        gone = self._participants.pop(goodbye.id, None)
        self._served.pop(goodbye.id, None)
        if gone is not None:
            self._tell_of("gone", gone.announcement, "said goodbye")
        return []

    def vanished(self, role: str, instance: int) -> None:
        """A participant's process is known to have ended without a goodbye: it is lost now."""
        for participant in self._participants.values():
            announcement = participant.announcement
            if (
                announcement.definition.role == role
                and announcement.instance == instance
                and not participant.lost
            ):
                participant.lost = True
                self._tell_of("lost", announcement, "is lost: its process ended")

    def found(self, bindings: Iterable[Binding]) -> list[Order]:
        """The broker was asked what is bound, and this is all of it."""
        self._state.bound = set(bindings)
        self._found = True
        return self._reconsider()

    def done(self, order: Order) -> list[Order]:
        """An order was carried out."""
        self._state.asked.discard(order)
        self._state.failures.pop(order, None)
        match order:
            case Bind(binding):
                self._state.bound.add(binding)
                self._state.ours.add(binding)
                self._tell("bound", "", f"bound {binding}")
            case Unbind(binding):
                self._state.bound.discard(binding)
                self._state.ours.discard(binding)
                self._tell("unbound", "", f"unbound {binding}")
            case SendInitial():
                if order.participant in self._participants:
                    self._served.setdefault(order.participant, set()).add(order.id)
        return self._reconsider()

    def failed(self, order: Order, reason: str, now: float, *, final: bool = False) -> list[Order]:
        """An order could not be carried out.

        Args:
            order: which.
            reason: in words.
            now: the time.
            final: trying again cannot help until the graph changes.
        """
        self._state.asked.discard(order)
        before = self._state.failures.get(order)
        tries = before.tries + 1 if before else 1
        pause = min(FIRST_PAUSE * 2 ** min(tries - 1, 16), LONGEST_PAUSE)
        again = float("inf") if final else now + pause
        self._state.failures[order] = _Failure(reason, tries, again)
        if before is None or before.reason != reason:
            self._tell("failed", getattr(order, "participant", ""), f"{_words(order)}: {reason}")
        return []

    def tick(self, now: float) -> list[Order]:
        """Time has passed: who was silent for too long is lost, what failed is tried again."""
        for participant in self._participants.values():
            if not participant.lost and participant.expires <= now:
                participant.lost = True
                announcement = participant.announcement
                silent = announcement.time_to_live
                self._tell_of(
                    "lost", announcement, f"is lost: nothing heard of it for {silent:.0f} s"
                )
        self._forget(now)
        due = [order for order, failure in self._state.failures.items() if failure.again <= now]
        for order in due:
            # Kept, so that the next failure waits longer; out of the way of _reconsider.
            self._state.failures[order].again = -1.0
        orders = self._reconsider() if due else []
        for order in due:
            if order not in self._state.asked:
                del self._state.failures[order]  # nobody wants it any more
        return orders

    def _forget(self, now: float) -> None:
        """Drop what is remembered of participants that have not come back."""
        if self._forget_at is None:
            self._forget_at = now + 2 * UNKNOWN_PERIOD * PERIODS_TO_LIVE
        elif now >= self._forget_at:
            for participant in self._remembered - self._participants.keys():
                self._served.pop(participant, None)
            self._remembered.clear()

    def next_deadline(self) -> float | None:
        """When to call :meth:`tick` at the latest; ``None``: not before another fact."""
        times = [p.expires for p in self._participants.values() if not p.lost]
        times += [
            failure.again
            for order, failure in self._state.failures.items()
            if order not in self._state.asked and failure.again != float("inf")
        ]
        return min(times, default=None)

    # What is known.

    def definition(self, role: str) -> Definition | None:
        """Return what a role last announced, or an earlier coordinator remembered."""
        return self._definitions.get(role)

    def wiring(self) -> Wiring:
        """Return what the graph asks of the broker, as far as it can be said now."""
        if self._wiring is None:
            self._wiring = wire(self.graph, self._definitions)
        return self._wiring

    def status(self) -> NetworkStatus:
        """Return the whole network as it is now."""
        return NetworkStatus(
            roles=tuple(self._roles()),
            edges=tuple(self._edges()),
            initials=tuple(
                f"{initial.role} {initial.port}: {initial.reason}"
                for initial in self.wiring().initials
                if initial.reason
            ),
            found=tuple(sorted(self._state.bound - self.wiring().bindings)),
        )

    def _roles(self) -> Iterable[RoleStatus]:
        by_role: dict[str, list[ParticipantStatus]] = {}
        for participant in self._participants.values():
            by_role.setdefault(participant.announcement.definition.role, []).append(
                ParticipantStatus(
                    participant.announcement,
                    Life.LOST if participant.lost else Life.LIVE,
                    participant.heard,
                )
            )
        for node in self.graph.nodes.values():
            participants = by_role.pop(node.id, [])
            life = Life.VIRTUAL if is_virtual(node.component) else _life(participants)
            yield RoleStatus(node.id, node.component, life, True, _sorted(participants))
        for role, participants in sorted(by_role.items()):
            component = participants[0].announcement.definition.component
            yield RoleStatus(role, component, _life(participants), False, _sorted(participants))

    def _edges(self) -> Iterable[EdgeStatus]:
        for wiring in self.wiring().edges:
            reason, wrong = wiring.reason, wiring.wrong
            missing = [b for b in wiring.bindings if b not in self._state.bound]
            if not reason and missing:
                failure = self._state.failures.get(Bind(missing[0]))
                reason = failure.reason if failure else "being bound"
            yield EdgeStatus(wiring.edge, wiring.bindings, reason, wrong)

    # Orders.

    def _reconsider(self) -> list[Order]:
        """Return what is to be done now and was not ordered already."""
        self._wiring = None
        wiring = self.wiring()
        self._tell_wrong(wiring)
        orders: list[Order] = []
        if self._found:
            change = diff(self._state.bound, wiring.bindings)
            self._state.ours |= self._state.bound & wiring.bindings
            orders += [Bind(binding) for binding in change.add]
            # A source's old way stays until its new ones are bound: in between a message takes
            # both, never none.
            incomplete = {binding.source for binding in change.add}
            orders += [
                Unbind(binding)
                for binding in change.remove
                if binding in self._state.ours and binding.source not in incomplete
            ]
            # What is remembered as ours and not there any more was removed by somebody.
            self._state.ours &= self._state.bound | wiring.bindings
        orders += self._initials(wiring)
        ordered = [order for order in orders if self._may(order)]
        self._state.asked.update(ordered)
        return ordered

    def _may(self, order: Order) -> bool:
        failure = self._state.failures.get(order)
        return order not in self._state.asked and (failure is None or failure.again < 0)

    def _initials(self, wiring: Wiring) -> Iterable[SendInitial]:
        for initial in wiring.initials:
            if not initial.queue:
                continue
            for participant in self._participants.values():
                announcement = participant.announcement
                definition = announcement.definition
                if definition.role != initial.role or participant.lost:
                    continue
                packet = msgspec.json.encode(initial.data)
                name = f"{definition.id} {initial.port}".encode() + b" " + packet
                order = SendInitial(
                    definition.id,
                    initial.port,
                    place_of(initial.queue, announcement.instance)
                    if announcement.places and announcement.instance
                    else initial.queue,
                    packet,
                    "initial-" + hashlib.blake2b(name, digest_size=12).hexdigest(),
                )
                served = self._served.get(definition.id, ())
                if order.id not in served and initial.port not in announcement.initials:
                    yield order

    def _replace(self, announcement: Announcement) -> None:
        """Forget a lost participant whose place this one has taken."""
        definition = announcement.definition
        for id_, participant in list(self._participants.items()):
            other = participant.announcement
            if other.definition.role != definition.role:
                continue
            same_place = announcement.instance is not None and (
                other.instance == announcement.instance
            )
            if participant.lost and (same_place or announcement.instance is None):
                del self._participants[id_]
                self._served.pop(id_, None)

    def _tell(self, kind: str, role: str, text: str) -> None:
        self.events.append(Event(kind, role, text))

    def _tell_of(self, kind: str, announcement: Announcement, text: str) -> None:
        self.events.append(
            Event(
                kind,
                announcement.definition.role,
                f"{_named(announcement)} {text}",
                announcement.instance,
            )
        )

    def _tell_wrong(self, wiring: Wiring) -> None:
        wrong = {
            (edge.edge.tgt.node, f"{_edge_name(edge.edge)}: {edge.reason}")
            for edge in wiring.edges
            if edge.wrong
        } | {
            (initial.role, f"initial packet of {initial.role} {initial.port}: {initial.reason}")
            for initial in wiring.initials
            if initial.wrong
        }
        for role, text in sorted(wrong - self._told_wrong):
            self._tell("wrong", role, text)
        self._told_wrong = wrong


def _named(announcement: Announcement) -> str:
    role = announcement.definition.role
    return f"{role}.{announcement.instance}" if announcement.instance else role


def _life(participants: Iterable[ParticipantStatus]) -> Life:
    lives = {participant.life for participant in participants}
    return Life.LIVE if Life.LIVE in lives else Life.LOST if lives else Life.PENDING


def _sorted(participants: Iterable[ParticipantStatus]) -> tuple[ParticipantStatus, ...]:
    return tuple(sorted(participants, key=lambda p: (p.announcement.instance or 0, p.heard)))


def _edge_name(edge: Edge) -> str:
    return f"{edge.src.node} {edge.src.port.upper()} -> {edge.tgt.port.upper()} {edge.tgt.node}"


def _words(order: Order) -> str:
    match order:
        case Bind(binding):
            return f"cannot bind {binding}"
        case Unbind(binding):
            return f"cannot unbind {binding}"
        case SendInitial():
            return f"cannot send the initial packet of {order.port} to {order.queue}"
