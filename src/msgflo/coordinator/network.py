"""The rules by which a network comes to look like its graph. Pure: facts in, orders out.

Two states are kept apart. The *graph* is what is wanted. What is *seen* comes in as facts: who
announced itself, what the broker has bound, which order was carried out. Each fact returns the
orders that bring the one closer to the other; none of them waits for anything, so a network that
is half there is wired by half, and the rest is *pending*, with its reason, until its fact comes.

Who is there and what ports its role has is kept by :mod:`.participants`, who was given which
initial packet by :mod:`.initials`.

What is bound and not wanted is removed only if this network bound it before; what others bound is
shown and left alone. :class:`Memory` is what has to outlive the coordinator for that.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import assert_never

import msgspec

from msgflo.coordinator.initials import Given, Initials, SendInitial
from msgflo.coordinator.participants import Event, Life, Participant, Participants
from msgflo.flow.binding import Binding, Kind, diff
from msgflo.flow.discovery import Announcement, Definition, Goodbye
from msgflo.flow.graph import Edge, Graph
from msgflo.flow.matching import mismatches, without
from msgflo.flow.wiring import Wiring, is_virtual, wire

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
    "Pause",
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
class Pause:
    """Tell the participants of a role to take no messages, or to take them again."""

    role: str
    paused: bool


Order = Bind | Unbind | SendInitial | Pause


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
        paused: whether the network's participants are to take no messages.
    """

    roles: tuple[RoleStatus, ...]
    edges: tuple[EdgeStatus, ...]
    initials: tuple[str, ...]
    found: tuple[Binding, ...]
    paused: bool = False

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
        bindings: made by this network, or being made, and not removed.
        definitions: what each role was last taken to be, so that its edges are known before it is
            heard again.
        given: initial packets that were given, by role and participant.
        paused: whether the network's participants are to take no messages.
    """

    bindings: list[tuple[Kind, str, str]] = []
    definitions: dict[str, Definition] = {}
    given: dict[str, dict[str, Given]] = {}
    paused: bool = False


@dataclass(slots=True)
class _Failure:
    reason: str
    tries: int
    again: float  # when to try again; NEVER: not until the graph changes; DUE: now, or being tried


TELL_AGAIN = 2.0
"""Seconds until a role is told again to pause or to resume, while a participant has not said that
it did. One that is busy for long still says so at once."""

NEVER = float("inf")
DUE = float("-inf")


@dataclass(slots=True)
class _State:
    bound: set[Binding] = field(default_factory=set)  # in the broker, as far as known
    unsure: set[Binding] = field(default_factory=set)  # an order failed: may be bound or not
    ours: set[Binding] = field(default_factory=set)  # made by this network
    asked: set[Order] = field(default_factory=set)  # ordered, not answered
    failures: dict[Order, _Failure] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)  # role -> when to say it again
    touched: set[Binding] | None = None  # ordered since the broker was asked what is bound


class Network:
    """The two states of a network, and what to do about their difference.

    Facts are told by :meth:`heard`, :meth:`left`, :meth:`found`, :meth:`done`, :meth:`failed` and
    :meth:`tick`; each returns orders to carry out and to report on. What people should hear of
    gathers in :attr:`events`, to be taken out by the caller.

    Orders may be carried out at the same time and in any sequence: no two that are out at a time
    undo each other.

    Args:
        graph: what is wanted.
        memory: what an earlier coordinator of this network left.
        assumed: what roles are taken to be until somebody announces them, so that a network can
            be wired before its processes start and the first message finds its way.
        strict: whether connections are refused whose types can never match; else that is told.

    Attributes:
        graph: what is wanted.
        changes: grows with each fact that says something new; a heartbeat does not.
    """

    def __init__(
        self,
        graph: Graph,
        memory: Memory | None = None,
        assumed: Mapping[str, Definition] = MappingProxyType({}),
        *,
        strict: bool = False,
    ) -> None:
        memory = memory or Memory()
        self.graph = graph
        self._assumed = assumed
        self._strict = strict
        self.changes = 0
        self._participants = Participants(memory.definitions)
        self._participants.wanted = graph.nodes
        self._initials = Initials(graph, memory.given)
        self._state = _State()
        self._state.ours.update(Binding(*binding) for binding in memory.bindings)
        self._found = False
        self._paused = memory.paused
        self._wiring: Wiring | None = None
        self._wired: dict[str, Definition] = {}  # what the wiring was made from
        self._told_wrong: set[tuple[str, str]] = set()
        self._told_unfit: set[str] = set()

    @property
    def events(self) -> list[Event]:
        """What happened, to be taken out by the caller."""
        return self._participants.events

    @events.setter
    def events(self, events: list[Event]) -> None:
        self._participants.events = events

    @property
    def memory(self) -> Memory:
        """What to write down now."""
        return Memory(
            bindings=sorted((b.kind, b.source, b.target) for b in self._state.ours),
            definitions=dict(self._participants.definitions),
            given=self._initials.given,
            paused=self._paused,
        )

    @property
    def paused(self) -> bool:
        """Whether the network's participants are to take no messages."""
        return self._paused

    # Facts.

    def pause(self, paused: bool) -> list[Order]:
        """Want the participants to take no messages from now on, or to take them again."""
        if self._paused != paused:
            self._paused = paused
            self._state.told.clear()
        return self._reconsider()

    def change_graph(self, graph: Graph) -> list[Order]:
        """Want another graph from now on; also to be called after an edit of the same one."""
        self.graph = graph
        self._participants.wanted = graph.nodes
        self._initials.change_graph(graph)
        self._wiring = None
        failures = self._state.failures
        for order in [order for order, failure in failures.items() if failure.again == NEVER]:
            del failures[order]
        return self._reconsider()

    def heard(self, announcement: Announcement, now: float) -> list[Order]:
        """A participant announced itself. Any number of times; what is new counts."""
        if not self._participants.heard(announcement, now):
            return []
        rewired = self._is_rewired()
        self.wiring()  # before it is asked what a participant is to be given
        self._initials.appeared(announcement)
        if rewired:
            return self._reconsider()
        self._changed()
        return self._issue([*self._due(announcement), *self._pausing()])

    def left(self, goodbye: Goodbye) -> list[Order]:
        """A participant said goodbye. Its role keeps its ports and its bindings."""
        if not self._participants.left(goodbye):
            return []
        self._forget()
        return self._reconsider()

    def vanished(self, role: str, instance: int) -> None:
        """A participant's process is known to have ended without a goodbye: it is lost now."""
        if self._participants.vanished(role, instance):
            self._changed()

    def asking(self) -> None:
        """The broker is being asked what is bound.

        What is ordered from now on until :meth:`found` may be in its answer or not.
        """
        self._state.touched = {
            order.binding for order in self._state.asked if isinstance(order, Bind | Unbind)
        }

    def found(self, bindings: Iterable[Binding]) -> list[Order]:
        """The broker was asked what is bound, and this is all of it."""
        state = self._state
        if state.touched is None:
            self.asking()
        touched = state.touched or set()
        state.touched = None
        state.bound = (set(bindings) - touched) | (state.bound & touched)
        state.unsure &= touched
        self._found = True
        # What was made by us and is not there any more was removed by somebody.
        state.ours &= state.bound | state.unsure | touched
        # The broker answers, so what failed for want of it can be tried at once.
        for order, failure in state.failures.items():
            if failure.again != NEVER and order not in state.asked:
                failure.again = DUE
        return self._reconsider()

    def done(self, order: Order, now: float) -> list[Order]:
        """An order was carried out.

        Args:
            order: which.
            now: the time.
        """
        self._answered(order)
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
                self._initials.done(order)
                self._changed()
                there = self._participants.get(order.role, order.participant)
                return self._issue(self._due(there.announcement)) if there else []
            case Pause():
                # Whoever heard it says so. Whoever did not is told again.
                if order.paused == self._paused:
                    self._state.told[order.role] = now + TELL_AGAIN
            case _:
                assert_never(order)
        return self._reconsider()

    def failed(self, order: Order, reason: str, now: float, *, final: bool = False) -> list[Order]:
        """An order could not be carried out, or nobody knows whether it was.

        Args:
            order: which.
            reason: in words.
            now: the time.
            final: nothing was done, and trying again cannot help until the graph changes.
        """
        self._answered(order)
        if isinstance(order, Bind | Unbind):
            if not final:
                self._state.bound.discard(order.binding)
                self._state.unsure.add(order.binding)
            elif isinstance(order, Bind):
                self._state.ours.discard(order.binding)
        before = self._state.failures.get(order)
        tries = before.tries + 1 if before else 1
        pause = min(FIRST_PAUSE * 2 ** min(tries - 1, 16), LONGEST_PAUSE)
        self._state.failures[order] = _Failure(reason, tries, NEVER if final else now + pause)
        if before is None or before.reason != reason:
            role = order.role if isinstance(order, SendInitial | Pause) else ""
            self._tell("failed", role, f"{_words(order)}: {reason}")
        return self._reconsider()

    def tick(self, now: float) -> list[Order]:
        """Time has passed: who was silent for too long is lost, what failed is tried again."""
        changed = self._participants.tick(now)
        if changed:
            self._forget()
        for failure in self._state.failures.values():
            if failure.again <= now and failure.again != DUE:
                failure.again = DUE
                changed = True
        for role in [role for role, again in self._state.told.items() if again <= now]:
            del self._state.told[role]
            changed = True
        return self._reconsider() if changed else []

    def next_deadline(self) -> float | None:
        """When to call :meth:`tick` at the latest; ``None``: not before another fact."""
        again = [f.again for f in self._state.failures.values() if DUE < f.again < NEVER]
        again += self._state.told.values()
        silent = self._participants.next_deadline()
        return min(again if silent is None else [silent, *again], default=None)

    def _answered(self, order: Order) -> None:
        self._state.asked.discard(order)
        if isinstance(order, Bind | Unbind):
            self._state.unsure.discard(order.binding)

    def _forget(self) -> None:
        """Forget what was given to participants that are gone."""
        knows = self._participants.knows
        self._initials.forget(lambda role, id_: not knows(role, id_), self._participants.complete)

    def _changed(self) -> None:
        self.changes += 1

    # What is known.

    def definition(self, role: str) -> Definition | None:
        """Return what a role last announced, or was remembered or assumed to be."""
        return self._participants.definitions.get(role) or self._assumed.get(role)

    def participants(self, role: str) -> list[ParticipantStatus]:
        """Return the participants of a role that are shown."""
        return [_status_of(participant) for participant in self._participants.of(role)]

    def _known(self) -> dict[str, Definition]:
        return {**self._assumed, **self._participants.definitions}

    def wiring(self) -> Wiring:
        """Return what the graph asks of the broker, as far as it can be said now."""
        if self._wiring is None:
            self._wired = self._known()
            self._wiring = wire(self.graph, self._wired)
            unfit = mismatches(self._wiring, self._wired)
            if self._strict:
                self._wiring = without(self._wiring, unfit)
            else:
                self._tell_unfit(unfit.values())
            self._initials.want(self._wiring)
            self._tell_wrong(self._wiring)
        return self._wiring

    def status(self) -> NetworkStatus:
        """Return the whole network as it is now."""
        return NetworkStatus(
            roles=tuple(self._roles()),
            edges=tuple(self._edges()),
            initials=tuple(self._missing_initials()),
            found=tuple(sorted(self._state.bound - self.wiring().bindings)),
            paused=self._paused,
        )

    def _roles(self) -> Iterable[RoleStatus]:
        by_role: dict[str, list[ParticipantStatus]] = {}
        for participant in self._participants:
            role = participant.announcement.definition.role
            by_role.setdefault(role, []).append(_status_of(participant))
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
                failures = [self._state.failures.get(Bind(binding)) for binding in missing]
                failure = next((failure for failure in failures if failure is not None), None)
                reason = failure.reason if failure else "being bound"
                wrong = failure is not None and failure.again == NEVER
            yield EdgeStatus(wiring.edge, wiring.bindings, reason, wrong)

    def _missing_initials(self) -> Iterator[str]:
        for initial in self.wiring().initials:
            if initial.reason:
                yield f"{initial.role} {initial.port}: {initial.reason}"
        for order, failure in self._state.failures.items():
            if isinstance(order, SendInitial):
                yield f"{order.role} {order.port}: {failure.reason}"

    # Orders.

    def _is_rewired(self) -> bool:
        """Tell whether the definitions are others than those that the wiring was made from."""
        if self._wiring is None:
            return True
        definitions = self._known()
        for role in self.graph.nodes:
            now, then = definitions.get(role), self._wired.get(role)
            if now is not then and (now is None or then is None or not now.same_ports(then)):
                self._wiring = None
                return True
        return False

    def _reconsider(self) -> list[Order]:
        """Return what is to be done now and was not ordered already."""
        self._changed()
        self._is_rewired()
        wiring = self.wiring()
        wanted: list[Order] = [*self._bindings(wiring), *self._all_due(), *self._pausing()]
        failures, still = self._state.failures, set(wanted)
        for order in [o for o in failures if o not in still and o not in self._state.asked]:
            del failures[order]  # nobody wants it any more
        return self._issue(wanted)

    def _bindings(self, wiring: Wiring) -> Iterator[Order]:
        if not self._found:
            return
        state, wanted = self._state, wiring.bindings
        state.ours |= state.bound & wanted
        # What is being unbound is as good as gone, and is bound again when that is done.
        going = {order.binding for order in state.asked if isinstance(order, Unbind)}
        add = diff(state.bound - going, wanted).add
        yield from map(Bind, add)
        # A source's old way stays until its new ones are bound: in between a message takes both,
        # never none.
        incomplete = {binding.source for binding in add}
        for binding in diff(state.bound | state.unsure, wanted).remove:
            if binding in state.ours and binding.source not in incomplete:
                yield Unbind(binding)

    def _issue(self, wanted: Iterable[Order]) -> list[Order]:
        """Return those orders that are not out, may be tried, and undo none that is out."""
        state, issued = self._state, []
        for order in wanted:
            failure = state.failures.get(order)
            if order in state.asked or (failure is not None and failure.again != DUE):
                continue
            match order:
                case Bind(binding):
                    if Unbind(binding) in state.asked:
                        continue
                    # Known as ours before it is made: this process may die in between.
                    state.ours.add(binding)
                case Unbind(binding):
                    if Bind(binding) in state.asked:
                        continue
                case SendInitial():
                    pass
                case Pause(role, paused):
                    if role in state.told or Pause(role, not paused) in state.asked:
                        continue
                case _:
                    assert_never(order)
            state.asked.add(order)
            if state.touched is not None and isinstance(order, Bind | Unbind):
                state.touched.add(order.binding)
            issued.append(order)
        return issued

    def _pausing(self) -> Iterator[Pause]:
        """Return whom to tell to pause or to resume: roles with a participant that does not."""
        for role in self.graph.nodes:
            if any(
                participant.announcement.paused is (not self._paused) and not participant.lost
                for participant in self._participants.of(role)
            ):
                yield Pause(role, self._paused)
            else:
                self._state.told.pop(role, None)

    def _due(self, announcement: Announcement) -> Iterator[SendInitial]:
        definition = announcement.definition
        there = self._participants.get(definition.role, definition.id)
        if there is not None and not there.lost:
            yield from self._initials.due(announcement)

    def _all_due(self) -> Iterator[SendInitial]:
        for role in self._initials.roles:
            for participant in self._participants.of(role):
                if not participant.lost:
                    yield from self._initials.due(participant.announcement)

    def _tell(self, kind: str, role: str, text: str) -> None:
        self.events.append(Event(kind, role, text))

    def _tell_unfit(self, texts: Iterable[str]) -> None:
        unfit = set(texts)
        for text in sorted(unfit - self._told_unfit):
            self._tell("unfit", "", text)
        self._told_unfit = unfit

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


def _status_of(participant: Participant) -> ParticipantStatus:
    life = Life.LOST if participant.lost else Life.LIVE
    return ParticipantStatus(participant.announcement, life, participant.heard)


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
            return f"cannot send the initial packet of {order.role} {order.port} to {order.queue}"
        case Pause(role, paused):
            return f"cannot tell {role} to {'pause' if paused else 'resume'}"
