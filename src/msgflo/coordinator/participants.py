"""Who is there, as far as announcements tell, and what ports that gives each role. Pure.

A participant's life, as seen from here:

    (nothing) --announced--> live --silent for 2.5 periods--> lost --announced--> live
                              |                                |
                              +------------goodbye-------------+--> (nothing)

A participant that is lost changes nothing for its role. One that announces itself as the same
instance as another has taken its place: the other is not shown any more, unless it is heard again.

The participants of a role should have the same ports. While they have not (in a rolling upgrade;
or where they are written in different languages), the role has every port that any of them has,
each as the one says that appeared last. A heartbeat is no appearance, so the role keeps still.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush, heapreplace

import msgspec

from msgflo.flow.discovery import (
    PERIODS_TO_LIVE,
    UNKNOWN_PERIOD,
    Announcement,
    Definition,
    Goodbye,
    Port,
)

__all__ = ["Event", "Life", "Participant", "Participants"]

LOST_KEPT = 3600.0
"""Seconds that a lost participant is shown, if its role is served by others or not wanted."""

EARLIER_KEPT = 2 * UNKNOWN_PERIOD * PERIODS_TO_LIVE
"""Seconds that what an earlier coordinator knew counts: twice the longest usual silence."""

MOST_DEFINITIONS = 10_000
"""So many roles are remembered, those that are wanted or there not counted: a broker may be shared
with clients that make up a role each time they start."""


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
        kind: ``live``, ``lost``, ``gone``, ``changed``, ``paused``,
            ``resumed`` (of participants), ``bound``, ``unbound``,
            ``failed`` (of orders), ``wrong`` (the graph or a component must change), ``unfit``
            (of connections: what is sent can never be what is taken).
        role: whom it concerns; ``""`` for bindings.
        text: in words.
        instance: which of the role's participants; ``None``: none in particular, or unknown.
    """

    kind: str
    role: str
    text: str
    instance: int | None = None


@dataclass(slots=True)
class Participant:
    """A participant that was announced.

    Attributes:
        announcement: the last one.
        heard: when.
        lost: whether nothing was heard of it for too long, or its process is known to have ended.
        replaced: whether another one has taken its place; it is not shown then.
        appeared: a number that is higher for who appeared, or changed its ports, later.
        armed: the time of its entry among the deadlines.
    """

    announcement: Announcement
    heard: float
    appeared: int
    lost: bool = False
    replaced: bool = False
    armed: float = float("inf")

    @property
    def deadline(self) -> float:
        """When silence will change something."""
        expires = self.heard + self.announcement.time_to_live
        return expires + LOST_KEPT if self.lost and not self.replaced else expires


class Participants:
    """All participants that were announced, and what they make of their roles.

    Args:
        definitions: what an earlier coordinator knew of the roles. It counts, behind what is
            heard, until everybody must have been heard.

    Attributes:
        definitions: what each role that was ever heard is taken to be.
        wanted: the roles that the graph has.
        events: to be taken out by the caller.
    """

    def __init__(self, definitions: Mapping[str, Definition]) -> None:
        self.definitions: dict[str, Definition] = dict(definitions)
        self.wanted: Collection[str] = ()
        self.events: list[Event] = []
        self._earlier: dict[str, Definition] = dict(definitions)
        self._earlier_until: float | None = None
        self._roles: dict[str, dict[str, Participant]] = {}
        self._deadlines: list[tuple[float, str, str]] = []
        self._appearances = 0
        self._disagreeing: dict[str, str] = {}

    # Reading.

    def __iter__(self) -> Iterator[Participant]:
        """All that are shown."""
        for participants in self._roles.values():
            yield from (one for one in participants.values() if not one.replaced)

    def of(self, role: str) -> list[Participant]:
        """Those of a role that are shown."""
        return [one for one in self._roles.get(role, {}).values() if not one.replaced]

    def get(self, role: str, id_: str) -> Participant | None:
        """The participant of this role and id, ``None`` if it is not there or not shown."""
        found = self._roles.get(role, {}).get(id_)
        return None if found is None or found.replaced else found

    def knows(self, role: str, id_: str) -> bool:
        """Whether there is a participant of this role and id, shown or not."""
        return id_ in self._roles.get(role, {})

    def next_deadline(self) -> float | None:
        """When :meth:`tick` is due at the latest; ``None``: not before another fact."""
        while self._deadlines:
            armed, role, id_ = self._deadlines[0]
            there = self._roles.get(role, {}).get(id_)
            if there is None or there.armed != armed:
                heappop(self._deadlines)
            elif there.deadline > armed:  # it was heard since
                there.armed = there.deadline
                heapreplace(self._deadlines, (there.armed, role, id_))
            else:
                break
        times = [self._deadlines[0][0]] if self._deadlines else []
        if self._earlier and self._earlier_until is not None:
            times.append(self._earlier_until)
        return min(times, default=None)

    # Facts.

    def heard(self, announcement: Announcement, now: float) -> bool:
        """A participant announced itself. Returns whether that says anything new."""
        definition = announcement.definition
        role, id_ = definition.role, definition.id
        self._begin(now)
        known = self._roles.get(role, {}).get(id_)
        if known is None:
            self._replace(announcement)
            self._appearances += 1
            participant = Participant(announcement, now, self._appearances)
            self._roles.setdefault(role, {})[id_] = participant
            self._tell_of("live", announcement, "is live")
            self._arm(participant)
            self._define(role)
            return True
        if known.announcement == announcement and not known.lost:
            known.heard = now
            return False
        if known.replaced:
            self._tell_of(
                "wrong", announcement, f"is held by more than one participant, {id_!r} being one"
            )
        elif known.lost:
            self._tell_of("live", announcement, "is live again")
        before = known.announcement.definition
        paused = announcement.paused
        if paused is not None and known.announcement.paused is (not paused):
            self._tell_of("paused" if paused else "resumed", announcement, _pausing(paused))
        known.announcement = announcement
        known.heard = now
        known.lost = known.replaced = False
        if not before.same_ports(definition):
            self._appearances += 1
            known.appeared = self._appearances
            self._tell_of("changed", announcement, "has changed ports")
        self._arm(known)
        self._define(role)
        return True

    def left(self, goodbye: Goodbye) -> bool:
        """A participant said goodbye. Its role keeps its ports. Returns whether it was there."""
        there = self._roles.get(goodbye.role, {}).get(goodbye.id)
        if there is None:
            return False
        self._remove(goodbye.role, goodbye.id)
        if not there.replaced:
            self._tell_of("gone", there.announcement, "said goodbye")
        return True

    def vanished(self, role: str, instance: int) -> bool:
        """A participant's process has ended. Returns whether one is lost that was not before."""
        found = False
        for participant in self.of(role):
            if participant.announcement.instance == instance and not participant.lost:
                found = participant.lost = True
                self._tell_of("lost", participant.announcement, "is lost: its process ended")
        return found

    def tick(self, now: float) -> bool:
        """Time has passed. Returns whether that changed anything."""
        self._begin(now)
        changed = False
        while self._deadlines and self._deadlines[0][0] <= now:
            armed, role, id_ = heappop(self._deadlines)
            there = self._roles.get(role, {}).get(id_)
            if there is None or there.armed != armed:
                continue
            if there.deadline <= now:
                changed = True
                if not self._silent(role, id_, there):
                    continue
            # One that is still shown though it could be forgotten is looked at again later: its
            # role needs it, or nobody looked for so long that it is found lost only now.
            there.armed = there.deadline if there.deadline > now else now + LOST_KEPT
            heappush(self._deadlines, (there.armed, role, id_))
        if self._earlier and self._earlier_until is not None and self._earlier_until <= now:
            self._earlier.clear()
            for role in self._roles:
                self._define(role)
            changed = True
        return changed

    @property
    def complete(self) -> bool:
        """Whether everybody whom an earlier coordinator knew must have been heard by now."""
        return not self._earlier

    def _begin(self, now: float) -> None:
        if self._earlier_until is None:
            self._earlier_until = now + EARLIER_KEPT

    def _silent(self, role: str, id_: str, there: Participant) -> bool:
        """Its deadline is over. Returns whether it is still to be kept."""
        if there.replaced:
            self._remove(role, id_)
            return False
        if there.lost:
            served = any(not other.lost for other in self.of(role))
            if served or role not in self.wanted:
                self._remove(role, id_)
                return False
            return True
        there.lost = True
        silent = there.announcement.time_to_live
        self._tell_of(
            "lost", there.announcement, f"is lost: nothing heard of it for {silent:.0f} s"
        )
        return True

    def _replace(self, announcement: Announcement) -> None:
        """Let a new participant take the place of another.

        One that names no instance takes the place of all of its role that are lost, because
        nothing tells which of them it was.
        """
        role, instance = announcement.definition.role, announcement.instance
        for id_, other in list(self._roles.get(role, {}).items()):
            same_place = instance is not None and other.announcement.instance == instance
            if other.lost and (same_place or instance is None):
                del self._roles[role][id_]
            elif same_place:
                # Most likely it was killed and started again. If it is alive, it will be heard.
                other.replaced = other.lost = True

    def _remove(self, role: str, id_: str) -> None:
        participants = self._roles[role]
        del participants[id_]
        if participants:
            self._define(role, keep=True)
        else:
            del self._roles[role]
            self._disagreeing.pop(role, None)

    def _arm(self, participant: Participant) -> None:
        if participant.deadline < participant.armed:
            participant.armed = participant.deadline
            definition = participant.announcement.definition
            heappush(self._deadlines, (participant.armed, definition.role, definition.id))
            if len(self._deadlines) > 64 + 4 * sum(map(len, self._roles.values())):
                self._tidy()

    def _tidy(self) -> None:
        """Drop entries that count no more; some sender keeps changing its period or its id."""
        self._deadlines = [
            (one.armed, role, id_)
            for role, participants in self._roles.items()
            for id_, one in participants.items()
        ]
        heapify(self._deadlines)

    # What a role is.

    def _define(self, role: str, *, keep: bool = False) -> None:
        """Make a role's definition from its participants'.

        Args:
            role: whose.
            keep: keep ports that no participant has any more: one that had them has gone, and
                what waits for it, or is on its way, must not be lost by that.
        """
        shown = sorted(self.of(role), key=lambda one: one.appeared, reverse=True)
        if not shown:
            return
        said = [one.announcement.definition for one in shown]
        before = self.definitions.get(role)
        if role in self._earlier:
            said.append(self._earlier[role])
        if keep and before is not None:
            said.append(before)
        merged = msgspec.structs.replace(
            said[0],
            inports=_union(definition.inports for definition in said),
            outports=_union(definition.outports for definition in said),
        )
        if before is None or not before.same_ports(merged):
            # The order of the roles is that of their last change, for _trim.
            self.definitions.pop(role, None)
            self.definitions[role] = merged
            self._trim()
        self._tell_disagreement(role, merged, [one for one in shown if not one.lost])

    def _trim(self) -> None:
        if len(self.definitions) <= MOST_DEFINITIONS + len(self._roles) + len(self.wanted):
            return
        for role in list(self.definitions):
            if role not in self._roles and role not in self.wanted:
                del self.definitions[role]
                self._earlier.pop(role, None)
                return

    def _tell_disagreement(
        self, role: str, merged: Definition, participants: list[Participant]
    ) -> None:
        text = ""
        for participant in participants:
            definition = participant.announcement.definition
            for ours, theirs in (
                (merged.inports, definition.inports),
                (merged.outports, definition.outports),
            ):
                queues: dict[str, set[str]] = {}
                for port in ours:
                    queues.setdefault(port.id, set()).add(port.queue)
                for port in theirs:
                    if not text and port.queue not in queues[port.id]:
                        used = ", ".join(sorted(queues[port.id]))
                        text = (
                            f"participants of role {role!r} disagree on the queue of port "
                            f"{port.id!r}: it is {port.queue!r} to {definition.id!r}, "
                            f"but {used!r} is used"
                        )
        if text and self._disagreeing.get(role) != text:
            self.events.append(Event("wrong", role, text))
        self._disagreeing[role] = text
        if not text:
            del self._disagreeing[role]

    def _tell_of(self, kind: str, announcement: Announcement, text: str) -> None:
        role = announcement.definition.role
        self.events.append(
            Event(kind, role, f"{named(announcement)} {text}", announcement.instance)
        )


def _pausing(paused: bool) -> str:
    return "takes no messages" if paused else "takes messages again"


def named(announcement: Announcement) -> str:
    """Return what people call a participant: ``role`` or ``role.instance``."""
    role = announcement.definition.role
    return f"{role}.{announcement.instance}" if announcement.instance else role


def _union(lists: Iterable[tuple[Port, ...]]) -> tuple[Port, ...]:
    """Return the ports of all, in the words of the first list that has a port of its name."""
    ports: list[Port] = []
    names: set[str] = set()
    for listed in lists:
        ports += [port for port in listed if port.id not in names]
        names.update(port.id for port in listed)
    return tuple(ports)
