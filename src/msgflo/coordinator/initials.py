"""Initial packets: which participant is to be given which, once each, in the graph's order. Pure.

A packet is told apart by its port, its data, and how many equal ones stand before it. One that an
edit takes away is forgotten, so that it is given again if another edit brings it back: for a
participant the last value counts, and undoing an edit is an edit.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from msgflo.flow.discovery import Announcement, place_of
from msgflo.flow.graph import Graph
from msgflo.flow.wiring import Wiring

__all__ = ["Given", "Initials", "SendInitial"]


@dataclass(frozen=True, slots=True)
class SendInitial:
    """Give a participant its initial packet.

    Attributes:
        role, participant: whose it is.
        port: the inport.
        queue: the place of the participant, or its work queue where it has no places.
        body: the packet, as JSON.
        id: the message's id: the same however often the order is tried.
    """

    role: str
    participant: str
    port: str
    queue: str
    body: bytes
    id: str


class Given(msgspec.Struct):
    """What a participant was given.

    Attributes:
        packets: the keys of the packets.
        taken_back: how often an edit took one of them away again.
    """

    packets: list[str] = []
    taken_back: int = 0


@dataclass(frozen=True, slots=True)
class _Packet:
    port: str
    queue: str
    body: bytes
    key: str


class Initials:
    """The initial packets of a graph, and who was given them.

    Args:
        graph: what is wanted.
        given: what an earlier coordinator remembered, by role and participant.
    """

    def __init__(self, graph: Graph, given: Mapping[str, Mapping[str, Given]]) -> None:
        self._given = {
            (role, id_): Given(list(known.packets), known.taken_back)
            for role, participants in given.items()
            for id_, known in participants.items()
        }
        self._earlier = set(self._given)  # not heard since
        self._orders: dict[tuple[str, str], dict[str, SendInitial]] = {}
        self._wanted: dict[str, list[_Packet]] = {}
        self._drawn = _drawn(graph)
        self._edited: set[tuple[str, str]] = set()

    @property
    def given(self) -> dict[str, dict[str, Given]]:
        """What to remember, by role and participant."""
        remembered: dict[str, dict[str, Given]] = {}
        for (role, id_), given in sorted(self._given.items()):
            if given.packets or given.taken_back:
                copy = Given(sorted(given.packets), given.taken_back)
                remembered.setdefault(role, {})[id_] = copy
        return remembered

    def change_graph(self, graph: Graph) -> None:
        """Note which ports have other packets than before."""
        drawn = _drawn(graph)
        self._edited |= {
            port
            for port in drawn.keys() | self._drawn.keys()
            if drawn.get(port) != self._drawn.get(port)
        }
        self._drawn = drawn

    def want(self, wiring: Wiring) -> None:
        """Want the packets of this wiring from now on; forget the others."""
        self._wanted = {}
        pending = set()
        for initial in wiring.initials:
            if not initial.queue:
                pending.add(initial.role)
                continue
            body = msgspec.json.encode(initial.data)
            packets = self._wanted.setdefault(initial.role, [])
            twins = sum(packet.port == initial.port and packet.body == body for packet in packets)
            digest = hashlib.blake2b(body, digest_size=12).hexdigest()
            key = f"{initial.port} {digest} {twins}"
            packets.append(_Packet(initial.port, initial.queue, body, key))
        for (role, id_), given in self._given.items():
            # While it is not known where a packet goes, nobody knows whether it was meant.
            if role not in pending:
                keys = {packet.key for packet in self._wanted.get(role, ())}
                kept = [key for key in given.packets if key in keys]
                if len(kept) < len(given.packets):
                    given.packets = kept
                    given.taken_back += 1
                orders = self._orders.get((role, id_))
                if orders:
                    self._orders[role, id_] = {k: o for k, o in orders.items() if k in keys}

    def appeared(self, announcement: Announcement) -> None:
        """A participant is there that was not. What it was given at its start need not be sent.

        It does not say what the packets were. If they were changed since this network began, it
        may have been started with the old ones, and is given the new ones; and so if its port has
        several, as only one can be given at the start.
        """
        definition = announcement.definition
        key = (definition.role, definition.id)
        self._earlier.discard(key)
        if key in self._given:
            return
        given = self._given[key] = Given()
        had = {name.casefold() for name in announcement.initials}
        packets = self._wanted.get(definition.role, ())
        ports = [packet.port for packet in packets]
        given.packets = [
            packet.key
            for packet in packets
            if packet.port.casefold() in had
            and ports.count(packet.port) == 1
            and (definition.role, packet.port.casefold()) not in self._edited
        ]

    def due(self, announcement: Announcement) -> Iterator[SendInitial]:
        """Return what a participant is to be given next: of each port the first that it has not.

        It is the same order each time until it is done, or its packet is not wanted any more.
        """
        definition = announcement.definition
        whose = (definition.role, definition.id)
        packets = self._wanted.get(definition.role)
        if not packets:
            return
        given = self._given.setdefault(whose, Given())
        orders = self._orders.setdefault(whose, {})
        waiting: set[str] = set()
        for packet in packets:
            if packet.key in given.packets or packet.port in waiting:
                continue
            waiting.add(packet.port)
            if packet.key not in orders:
                name = f"{whose!r} {packet.key} {given.taken_back}".encode()
                orders[packet.key] = SendInitial(
                    definition.role,
                    definition.id,
                    packet.port,
                    place_of(packet.queue, announcement.instance)
                    if announcement.places and announcement.instance
                    else packet.queue,
                    packet.body,
                    "initial-" + hashlib.blake2b(name, digest_size=12).hexdigest(),
                )
            yield orders[packet.key]

    def done(self, order: SendInitial) -> None:
        """A participant was given a packet."""
        whose = (order.role, order.participant)
        for key, known in self._orders.get(whose, {}).items():
            if known == order:
                del self._orders[whose][key]
                self._given[whose].packets.append(key)
                return
        if whose in self._given:
            # It is not wanted any more, but it was sent: another one like it is another message.
            self._given[whose].taken_back += 1

    @property
    def roles(self) -> Collection[str]:
        """The roles for which there are packets."""
        return self._wanted.keys()

    def forget(self, gone: Callable[[str, str], bool], everybody: bool) -> None:
        """Forget what was given to participants that are gone.

        Args:
            gone: tells it by role and id.
            everybody: those too of which only an earlier coordinator knows.
        """
        for whose in [whose for whose in self._given if gone(*whose)]:
            if everybody or whose not in self._earlier:
                del self._given[whose]
                self._orders.pop(whose, None)


def _drawn(graph: Graph) -> dict[tuple[str, str], list[bytes]]:
    packets: dict[tuple[str, str], list[bytes]] = {}
    for initial in graph.initials:
        body = msgspec.json.encode(initial.data)
        packets.setdefault((initial.tgt.node, initial.tgt.port.casefold()), []).append(body)
    return packets
