"""Replay: recorded events happen again, at their times, faster, or one by one.

What is replayed into a live network is a copy: it has an id of its own, so that no broker takes it
for a duplicate of the recorded message, begins a trace of its own, and says in a header which
message it was. With its old id instead, it is what it was: a broker that has had it within two
minutes drops it, so that a replay which was broken off can be done again without doubling.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgflo.errors import TraceError
from msgflo.flow.telemetry import TRACEPARENT, TRACESTATE
from msgflo.trace.flowtrace import Event, Flowtrace, packet_data
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, REQUEUED, Death

__all__ = ["REPLAYED", "Packet", "offsets", "packets_of", "play"]

REPLAYED = "Msgflo-Replayed"
"""Header: the id of the recorded message that this one is a copy of."""


def offsets(events: Sequence[Event], speed: float = 1.0) -> list[float]:
    """Return when each event is to happen again, in seconds from the first one; never decreasing.

    Args:
        events: in their order. One without a time happens with the one before it.
        speed: how many times faster; 0: all at once.
    """
    found: list[float] = []
    start: float | None = None
    last = 0.0
    for event in events:
        if event.time is not None and speed:
            start = event.time if start is None else start
            last = max(last, (event.time - start) / speed)
        found.append(last)
    return found


async def play(
    events: Sequence[Event],
    do: Callable[[Event], Awaitable[None]],
    *,
    speed: float = 1.0,
    ready: Callable[[Event], Awaitable[None]] | None = None,
) -> None:
    """Have events happen again. Cancelling it stops it between two of them.

    Args:
        events: in their order.
        do: called with each, one after the other.
        speed: how many times faster than they were; 0: without pauses.
        ready: awaited before each, in place of its time: step by step.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    for event, offset in zip(events, offsets(events, speed), strict=True):
        if ready is not None:
            await ready(event)
        else:
            # A loop that never waits would let nothing else happen.
            await asyncio.sleep(max(began + offset - loop.time(), 0))
        await do(event)


# Into a live network.


@dataclass(frozen=True, slots=True)
class Packet:
    """A recorded message, to be sent again.

    Attributes:
        event: as it was recorded.
        src: role and port that it came from; ``None``: from outside.
        tgt: role and port that it went to; ``None``: it left.
    """

    event: Event
    src: tuple[str, str] | None
    tgt: tuple[str, str] | None

    @property
    def body(self) -> bytes:
        """The payload, as it was on the wire; of a trace of others, its JSON.

        Raises:
            TraceError: the trace says that it is base64, and it is not.
        """
        return packet_data(self.event.payload)

    @property
    def id(self) -> str:
        """The message's id; ``""`` if the trace does not have it."""
        return self._recorded.get(MESSAGE_ID, "")

    def headers(self, message_id: str = "") -> dict[str, str]:
        """Return the headers to send it with.

        Args:
            message_id: an id of its own; ``""``: its old one.

        Raises:
            TraceError: its old id is wanted, and the trace does not have it.
        """
        kept = Death.strip(self._recorded)
        kept.pop(REQUEUED, None)
        if CONTENT_TYPE not in kept and not kept and self.event.payload.get("encoding") is None:
            kept[CONTENT_TYPE] = "application/json"
        if not message_id:
            if not self.id:
                raise TraceError(
                    "this trace has no message ids (others do not record them); "
                    "its packets can only be sent as new messages"
                )
            return kept
        if self.id:
            kept[REPLAYED] = self.id
        kept.pop(TRACEPARENT, None)
        kept.pop(TRACESTATE, None)
        kept[MESSAGE_ID] = message_id
        return kept

    @property
    def _recorded(self) -> Mapping[str, str]:
        found = self.event.payload.get("headers")
        if not isinstance(found, Mapping):
            return {}
        return {str(key): str(value) for key, value in found.items()}


def packets_of(trace: Flowtrace, connection: str = "") -> list[Packet]:
    """Return the packets of a trace that passed one connection.

    Args:
        trace: where they were recorded.
        connection: ``read OUT -> IN show``; or one end of it, ``read.out`` or ``show.in``, for all
            connections from there, or to there; ``""``: the only one that there is.

    Raises:
        TraceError: there is no such connection in the trace, or it is not clear which.
    """
    packets = [
        Packet(event, _end(event, "src"), _end(event, "tgt"))
        for event in trace.events
        if event.protocol == "network" and event.command == "data" and not event.error
    ]
    known = list(dict.fromkeys(_text(packet) for packet in packets))
    if not connection:
        if len(known) == 1:
            return packets
        raise TraceError(f"say which connection to replay. {_listed(known)}")
    wanted = _folded(connection)
    found = [p for p in packets if wanted in _names(p)]
    if not found:
        raise TraceError(f"nothing was recorded at {connection!r}. {_listed(known)}")
    return found


def _listed(known: Iterable[str]) -> str:
    listed = "\n".join(f"  {it}" for it in known)
    return f"The trace has packets of:\n{listed}" if listed else "The trace has no packets."


def _end(event: Event, which: str) -> tuple[str, str] | None:
    found = event.payload.get(which)
    if not isinstance(found, Mapping) or not found.get("node"):
        return None
    return str(found["node"]), str(found.get("port", ""))


def _text(packet: Packet) -> str:
    src = f"{packet.src[0]} {packet.src[1].upper()} " if packet.src else ""
    tgt = f" {packet.tgt[1].upper()} {packet.tgt[0]}" if packet.tgt else ""
    return f"{src}->{tgt}"


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _names(packet: Packet) -> set[str]:
    ends = (packet.src, packet.tgt)
    return {_folded(_text(packet)), *(_folded(".".join(end)) for end in ends if end)}
