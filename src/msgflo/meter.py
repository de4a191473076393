"""What one participant counts of its work, and which of its last handlings it remembers.

It is on every message's way, so it does little: two readings of the clock, a few additions, and a
tuple in a ring. Spans are put into words when somebody asks for them.

Which traces are kept is decided where a trace begins, by how many began there in the same second:
at most :data:`RATE`. Whoever handles a message of a trace that is not kept keeps nothing of it
either, unless it fails; so in a flood some traces are there as a whole, and not pieces of all.
"""

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Protocol

import msgspec

from msgflo.failure import Failure
from msgflo.flow.telemetry import (
    TRACEPARENT,
    TRACESTATE,
    Figures,
    InFigures,
    Question,
    Span,
    answers,
    parse_traceparent,
    trace_of,
)
from msgflo.transport.contract import Delivery

__all__ = ["RATE", "SPANS", "Handled", "Meter", "Spot"]

RATE = 100
"""Traces a second that begin at one participant and are kept."""

SPANS = 2000
"""Spans that one participant keeps, the last ones: some hundred bytes each."""

ERROR_LENGTH = 500
"""Characters of an error in a span."""


class Spot:
    """Where in its trace a handling is.

    Attributes:
        parent: what the message said; or, if it said nothing, only its new trace.
        traceparent: the header of what is sent in this handling.
        state: the header ``tracestate``, as it came; ``""`` if none did.
        span: the id of the handling's span.
        sampled: whether its span is kept.
    """

    __slots__ = ("parent", "sampled", "span", "state", "trace", "traceparent")

    def __init__(
        self, trace: str, parent: str, flags: str, span: str, state: str, sampled: bool
    ) -> None:
        self.trace = trace
        self.parent = parent
        self.span = span
        self.traceparent = f"00-{trace}-{span}-{flags}"
        self.state = state
        self.sampled = sampled


class Handled(Protocol):
    """A handling, as far as it is measured."""

    @property
    def delivery(self) -> Delivery:
        """The message."""

    began: float
    spot: Spot | None


_Record = tuple[str, str, str, str, str, float, float, float, str, int, str]


class Meter:
    """Counts for one participant. Used from one event loop.

    Attributes:
        ins: figures of its inports, by name.
        sent: packets sent, by the queue name of the outport.
    """

    def __init__(
        self,
        inports: Iterable[str] = (),
        outports: Mapping[str, str] | None = None,
        *,
        participant: str = "",
        role: str = "",
        instance: int = 1,
        clock: Callable[[], float] = time.time,
        rate: int = RATE,
        spans: int = SPANS,
        export: Callable[[Span], None] | None = None,
        entering: Callable[[Spot], None] | None = None,
        around: Callable[[], tuple[str, str, bool] | None] | None = None,
    ) -> None:
        """Make one that has counted nothing.

        Args:
            inports: their names.
            outports: queue names by name of the outport.
            participant: which running process it is.
            role: its role.
            instance: which participant of that role.
            clock: tells the seconds since 1970.
            rate: how many traces a second that begin here are kept.
            spans: how many spans are kept.
            export: called with each span that is kept.
            entering: called when a handling begins, in its task or its thread.
            around: returns trace, span and whether it is sampled of what somebody else's code is
                doing now, to which a packet of no message belongs then; ``None``: nothing.
        """
        self.ins = {name: InFigures() for name in inports}
        self.sent: dict[str, int] = defaultdict(int, dict.fromkeys((outports or {}).values(), 0))
        self._ports = {queue: name for name, queue in (outports or {}).items()}
        self._participant = participant
        self._role = role
        self._instance = instance
        self._clock = clock
        self._rate = rate
        self._export = export
        self._entering = entering
        self._around = around
        self._ring: deque[_Record] = deque(maxlen=spans)
        self._numbers = count(int.from_bytes(os.urandom(8)))
        self._second = 0.0
        self._begun = 0
        self._told: tuple[int, ...] = ()

    # On the way of each message.

    def begin(self, handling: Handled) -> None:
        """Note that a handler begins. To be called in its task or its thread."""
        handling.began = self._clock()
        if self._entering is not None:
            self._entering(self.spot(handling))

    def spot(self, handling: Handled) -> Spot:
        """Return where in its trace a handling is: the same each time for one handling."""
        found = handling.spot
        if found is None:
            found = handling.spot = self._enter(handling.delivery, handling.began)
        return found

    def headers(
        self, queue: str, message_id: str, handling: Handled | None, headers: dict[str, str]
    ) -> None:
        """Count a packet that is sent, and add to its headers which trace it belongs to.

        Args:
            queue: the queue name of the outport.
            message_id: the packet's id.
            handling: in which it is sent; ``None``: in none, and it begins a trace.
            headers: its headers.
        """
        self.sent[queue] += 1
        if handling is None:
            headers[TRACEPARENT] = self._begin(queue, message_id)
            return
        spot = handling.spot or self.spot(handling)
        headers[TRACEPARENT] = spot.traceparent
        if spot.state:
            headers[TRACESTATE] = spot.state

    def ended(self, port: str, handling: Handled, outcome: str, failure: Failure | None) -> None:
        """Count a delivery that has ended.

        Args:
            port: the inport.
            handling: what was done with it.
            outcome: as a span has it.
            failure: why it failed, if it did.
        """
        now = self._clock()
        delivery = handling.delivery
        began = handling.began or now  # it may have failed before it began
        queued = delivery.sent
        figures = self.ins.get(port)
        if figures is None:
            figures = self.ins[port] = InFigures()
        # Clocks of two machines differ: nothing takes less than no time.
        figures.add(max(now - began, 0.0), max(began - queued, 0.0) if queued else None)
        if failure is not None and outcome != "postponed":
            figures.failed += 1
            if outcome == "retried":
                figures.retried += 1
            elif outcome == "dead":
                figures.dead += 1
        spot = handling.spot or self.spot(handling)
        if spot.sampled or failure is not None:
            error = "" if failure is None else f"{failure.error}: {failure.text}"[:ERROR_LENGTH]
            self._keep(
                (
                    spot.trace,
                    spot.span,
                    spot.parent,
                    port,
                    delivery.id,
                    queued,
                    began,
                    now,
                    outcome,
                    delivery.attempt,
                    error,
                )
            )

    def _enter(self, delivery: Delivery, began: float) -> Spot:
        context = parse_traceparent(delivery.headers.get(TRACEPARENT))
        span = f"{next(self._numbers) & 0xFFFFFFFFFFFFFFFF:016x}"
        if context is None:
            sampled = self._sample(began or self._clock())
            flags = "01" if sampled else "00"
            return Spot(trace_of(delivery.id), "", flags, span, "", sampled)
        state = delivery.headers.get(TRACESTATE, "")
        trace, parent, flags = context
        sampled = flags == "01" or bool(int(flags, 16) & 1)
        return Spot(trace, parent, flags, span, state, sampled)

    def _begin(self, queue: str, message_id: str) -> str:
        """Return the header of a packet that begins a trace."""
        span = f"{next(self._numbers) & 0xFFFFFFFFFFFFFFFF:016x}"
        around = self._around() if self._around is not None else None
        if around is None:
            trace, parent, sampled = trace_of(message_id), "", self._sample(self._clock())
        else:
            trace, parent, sampled = around
        if not sampled:
            return f"00-{trace}-{span}-00"
        now = self._clock()
        port = self._ports.get(queue, queue)
        self._keep((trace, span, parent, port, message_id, 0.0, now, now, "sent", 1, ""))
        return f"00-{trace}-{span}-01"

    def _sample(self, now: float) -> bool:
        if not 0.0 <= now - self._second < 1.0:  # a clock may be set back, too
            self._second = now // 1
            self._begun = 0
        self._begun += 1
        return self._begun <= self._rate

    def _keep(self, record: _Record) -> None:
        self._ring.append(record)
        if self._export is not None:
            self._export(self._span(record))

    # For whoever asks.

    def spans(self) -> Iterator[Span]:
        """Return the spans that are kept, oldest first."""
        return map(self._span, tuple(self._ring))

    def _span(self, record: _Record) -> Span:
        trace, span, parent, port, message, queued, started, finished, outcome, attempt, error = (
            record
        )
        return Span(
            trace,
            span,
            parent,
            self._role,
            self._instance,
            port,
            _text(message),
            queued,
            started,
            finished,
            outcome,
            attempt,
            _text(error),
        )

    def answer(self, question: Question) -> list[bytes]:
        """Return the messages that answer a question for spans."""
        return list(answers(self._participant, question, self.spans()))

    def report(self, *, final: bool = False, always: bool = True) -> bytes | None:
        """Return the message that says the figures.

        Args:
            final: the participant has stopped.
            always: also if nothing has changed since the last time; else ``None`` is returned then.
        """
        state = (*(it.taken for it in self.ins.values()), *self.sent.values())
        if not always and state == self._told:
            return None
        self._told = state
        outs = {self._ports.get(queue, queue): number for queue, number in self.sent.items()}
        return msgspec.json.encode(
            Figures(self._participant, self._role, self._instance, self.ins, outs, final)
        )


def _text(said: str) -> str:
    """Return a text that can be written down: with no half surrogate pairs, as errors may have."""
    return said.encode("utf-8", "replace").decode()
