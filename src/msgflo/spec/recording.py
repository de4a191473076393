"""From packets that passed a role to a suite that asks for the same again. Pure.

A packet that came out belongs to one that went in:

* by its id, where both have one: what a participant of ours sends while it handles a message has an
  id that follows from that message (:mod:`msgflo.outbox`);
* else by the trace that both are part of, if no other packet that went in is;
* else by order, where they have no ids: to the oldest that has no packet of that port yet.

Each packet that went in, and of which something came out, is a case. Packets that went in by ports
of which nothing ever came are settings: the fixture has them as initial packets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgflo.errors import GraphError, PayloadError
from msgflo.flow.discovery import Definition, Port, place_of
from msgflo.flow.fbp import dump_fbp
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.graphjson import dump_json
from msgflo.flow.telemetry import TRACEPARENT, parse_traceparent
from msgflo.flow.values import same
from msgflo.outbox import Handling
from msgflo.payload import plain
from msgflo.spec.expectation import shown
from msgflo.transport.contract import MESSAGE_ID, Delivery, Inlet, Tapped

__all__ = ["Recording"]

_INSTANCES: Final = 16
"""Instances of a role whose places are tried for an id."""

_EQUAL: Final = 8
"""Equal packets that one handling may send and still be recognised."""

_LONGEST_NAME: Final = 60

_WAITING: Final = 200
"""Packets that went in and wait for an answer: of a flood, the last so many are enough."""

_ANSWERED: Final = 2000
"""Packets that were answered: when so many are there, no more are taken."""


@dataclass(slots=True)
class _Input:
    port: str
    packet: Tapped
    outputs: list[tuple[str, Tapped]] = field(default_factory=list)


class _Nobody:
    def end(self, handling: Handling) -> None:
        """Nothing: this handling only tells ids."""


class Recording:
    """What passed one role. Feed it with :meth:`went_in` and :meth:`came_out`.

    Attributes:
        definition: the role, as it announced itself.
        lost: packets that came out of nothing that was seen going in.
        answered: how many of the packets that went in something came out of.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.lost = 0
        self._inputs: list[_Input] = []
        # The queues at which participants were seen to take packets: the others are tried rarely.
        self._known: list[str] = []
        self.answered = 0

    def went_in(self, port: Port, packet: Tapped) -> None:
        """Take a packet that was sent to an inport."""
        if self.answered >= _ANSWERED:
            return
        self._inputs.append(_Input(port.id, packet))
        if len(self._inputs) - self.answered > _WAITING:
            self._inputs.remove(next(it for it in self._inputs if not it.outputs))

    def came_out(self, port: Port, packet: Tapped) -> None:
        """Take a packet that an outport sent."""
        found = self._cause(port, packet)
        if found is None:
            self.lost += 1
        else:
            self.answered += not found.outputs
            found.outputs.append((port.id, packet))

    def _cause(self, port: Port, packet: Tapped) -> _Input | None:
        message_id = packet.headers.get(MESSAGE_ID)
        named = [it for it in self._inputs if MESSAGE_ID in it.packet.headers]
        if message_id:
            by_id = self._by_id(named, port, packet.body, message_id)
            if by_id is not None:
                return by_id
        trace = _trace_of(packet)
        if trace:
            same_trace = [it for it in self._inputs if _trace_of(it.packet) == trace]
            if len(same_trace) == 1:
                return same_trace[0]
        if message_id and named:
            return None
        for it in self._inputs:
            if all(name != port.id for name, _ in it.outputs):
                return it
        return None

    def _by_id(
        self, inputs: Sequence[_Input], outport: Port, body: bytes, message_id: str
    ) -> _Input | None:
        """Return the packet while whose handling one of this id was sent."""
        for known in (True, False):
            for it in reversed(inputs):
                for queue in self._queues(it, known=known):
                    inlet = Inlet(queue, 1)
                    taken = Delivery(inlet, queue, b"", {}, it.packet.headers[MESSAGE_ID])
                    handling = Handling(taken, _Nobody())
                    # Of a place that is only guessed at, the likely id is enough.
                    for _ in range(_EQUAL if known else 1):
                        if handling.next_id(outport.queue, body) == message_id:
                            if not known:
                                self._known.append(queue)
                            return it
        return None

    def _queues(self, it: _Input, *, known: bool) -> list[str]:
        """The queues that a packet may have waited in: its port's, and the places of instances."""
        port = self.definition.inport(it.port)
        assert port is not None
        places = [place_of(port.queue, number) for number in range(1, _INSTANCES + 1)]
        return [it for it in (port.queue, *places) if (it in self._known) is known]

    def suite(self, count: int, initials: Mapping[str, Sequence[Any]] | None = None) -> Any:
        """Return a suite of what was recorded, as YAML writes it; ``None`` if there is nothing.

        A packet that went in twice, and was answered alike, is one case. What cannot be tested as
        it was seen (several packets of one port for one that went in; a setting that changed) is a
        case that is skipped, with the reason.

        Args:
            count: of cases, at most.
            initials: initial packets of the role, by port, if they are known.
        """
        heard = {it.port for it in self._inputs if it.outputs}
        settings: dict[str, list[Any]] = {port: list(it) for port, it in (initials or {}).items()}
        changed = []
        for it in self._inputs:
            data = _data(it.packet)
            if it.port in heard or data is _UNSAYABLE:
                continue
            if it.port in settings and not any(same(data, there) for there in settings[it.port]):
                changed.append(it.port)
            settings[it.port] = [data]
        cases: list[dict[str, Any]] = []
        for it in self._inputs:
            case = _case(it)
            if case is None or any(_alike(case, other) for other in cases):
                continue
            if changed:
                case["skip"] = f"while it was recorded, {changed[0]} was sent other values too"
            cases.append(case)
            if len(cases) == count:
                break
        if not cases:
            return None
        for number, case in enumerate(cases, 1):
            case["name"] = f"recorded {number}: {case['name']}"
        return {
            "topic": self.definition.component,
            "name": f"{self.definition.role}, as it was recorded",
            "fixture": self._fixture(settings),
            "cases": cases,
        }

    def _fixture(self, settings: Mapping[str, Sequence[Any]]) -> dict[str, str]:
        role = self.definition.role
        graph = Graph()
        graph.add_node(role, self.definition.component)
        for port in self.definition.inports:
            if port.queue:
                graph.add_inport(port.id.lower(), role, port.id.lower())
        for port in self.definition.outports:
            if port.queue:
                graph.add_outport(port.id.lower(), role, port.id.lower())
        for name, packets in settings.items():
            for data in packets:
                graph.add_initial(data, Endpoint(role, name.lower()))
        try:
            return {"type": "fbp", "data": dump_fbp(graph)}
        except GraphError:
            return {"type": "json", "data": dump_json(graph)}


_UNSAYABLE: Final = object()


def _data(packet: Tapped) -> Any:
    """Return what a suite can say of a packet: JSON, or else nothing."""
    try:
        data = plain(packet.body, packet.headers)
    except PayloadError:
        return _UNSAYABLE
    return _UNSAYABLE if isinstance(data, bytes) else data


def _case(it: _Input) -> dict[str, Any] | None:
    data = _data(it.packet)
    outputs: dict[str, Any] = {}
    several = ""
    for port, packet in it.outputs:
        value = _data(packet)
        if value is _UNSAYABLE:
            continue
        if port in outputs:
            several = port
        outputs.setdefault(port, {"equals": value})
    if data is _UNSAYABLE or not outputs:
        return None
    name = shown(data)
    case: dict[str, Any] = {
        "name": name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…",
        "assertion": f"should send to {', '.join(outputs)} what it sent then",
        "inputs": {it.port: data},
        "expect": outputs,
    }
    if several:
        case["skip"] = f"it sent several packets to {several}; say which of them is meant"
    return case


def _alike(case: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return same(case["inputs"], other["inputs"]) and same(case["expect"], other["expect"])


def _trace_of(packet: Tapped) -> str:
    found = parse_traceparent(packet.headers.get(TRACEPARENT))
    return found[0] if found else ""
