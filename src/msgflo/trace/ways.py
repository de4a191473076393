"""The way of a message: spans asked for from participants, and drawn as a tree with times.

Participants remember the spans of what they handled last (:mod:`msgflo.flow.telemetry`). An
:class:`Inquirer` asks all of them at once; what they know is put together here.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgflo.errors import DefinitionError
from msgflo.flow.discovery import Announcement, Goodbye, parse_discovery
from msgflo.flow.telemetry import TELEMETRY, Answer, Question, Span, parse_report, trace_of
from msgflo.transport.contract import Broker, Tap, Tapped

__all__ = ["Inquirer", "Step", "Way", "way_lines", "ways"]

PATIENCE = 2.0
"""Seconds that a participant has to answer. Ours take milliseconds, unless a handler of theirs
holds up the event loop."""

ALL_HEARD = 0.3
"""Seconds in which participants announce themselves that were asked to."""


# Asking.


class Inquirer:
    """Asks the participants of a network for spans. To be used by one task at a time."""

    def __init__(self, broker: Broker) -> None:
        """Make one that uses a connected broker, and does not close it."""
        self._broker = broker
        self._tap: Tap | None = None
        self._participants: dict[str, str] = {}
        self._spans: dict[str, Span] = {}
        self._answered: set[str] = set()
        self._token = ""
        self._news = asyncio.Event()
        self.silent: list[str] = []
        """Roles whose participants did not answer the last time, in time."""

    async def start(self) -> None:
        """Begin to listen; to be called once.

        Raises:
            TransportError: the broker does not let it.
        """
        self._tap = await self._broker.tap(TELEMETRY, self._hear)
        await self._broker.listen(self._meet)
        await asyncio.sleep(ALL_HEARD)

    async def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._tap is not None:
            await self._tap.close()

    async def find(self, *ids: str, patience: float = PATIENCE) -> list[Span]:
        """Return the spans of all traces that a message was in.

        Args:
            ids: of messages, or of traces.
            patience: seconds; whoever has not answered then is in :attr:`silent`.

        Raises:
            ConnectionLost: the broker went away.
        """
        self._spans.clear()
        asked = {*ids, *map(trace_of, ids)}
        await self._ask(asked, patience)
        traces = {span.trace for span in self._spans.values()}
        if not traces <= asked:
            await self._ask(traces, patience)
        return sorted(self._spans.values(), key=_order)

    async def _ask(self, ids: Iterable[str], patience: float) -> None:
        self._token = secrets.token_hex(8)
        self._answered.clear()
        await self._broker.tell(Question(self._token, tuple(ids)).encode())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not self._participants.keys() <= self._answered:
                    self._news.clear()
                    await self._news.wait()
        missing = self._participants.keys() - self._answered
        self.silent = sorted({self._participants[it] for it in missing})

    def _hear(self, message: Tapped) -> None:
        try:
            answer = parse_report(message.body)
        except DefinitionError:
            return  # somebody else's
        if isinstance(answer, Answer) and answer.token == self._token:
            for span in answer.spans:
                self._spans[span.span] = span
            if answer.last:
                self._answered.add(answer.id)
            self._news.set()

    def _meet(self, data: bytes) -> None:
        try:
            said = parse_discovery(data)
        except DefinitionError:
            return  # the coordinator reports it
        if isinstance(said, Goodbye):
            self._participants.pop(said.id, None)
        elif isinstance(said, Announcement) and said.paused is not None:
            # Who does not say whether it is paused cannot be told anything.
            self._participants[said.definition.id] = said.definition.role
        self._news.set()


# Putting together.


def _order(span: Span) -> tuple[float, int, str]:
    return span.started, span.attempt, span.span


@dataclass(slots=True)
class Step:
    """A span, and what followed from it.

    Attributes:
        span: the span.
        next: what was handled of what was sent in it, by time.
    """

    span: Span
    next: list["Step"] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Step"]]:
        """Return this step and all that follow from it, each with its depth."""
        yield depth, self
        for step in self.next:
            yield from step.walk(depth + 1)


@dataclass(slots=True)
class Way:
    """All that is known of a trace.

    Attributes:
        trace: its id.
        begins: the steps that follow from none that is known, by time.
    """

    trace: str
    begins: list[Step] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """All its spans, in the order of the tree."""
        return [step.span for begin in self.begins for _, step in begin.walk()]

    @property
    def began(self) -> float:
        """When the broker had the first message, or else its handling began."""
        return min(span.queued or span.started for span in self.spans)

    @property
    def ended(self) -> float:
        """When the last handling ended."""
        return max(span.finished for span in self.spans)


def ways(spans: Iterable[Span]) -> list[Way]:
    """Put spans together: a way for each trace, by time.

    Spans that say they follow from each other in a ring, which none that is honest does, follow
    from nothing.
    """
    steps = {span.span: Step(span) for span in sorted(spans, key=_order)}
    found: dict[str, Way] = {}
    for step in steps.values():
        parent = steps.get(step.span.parent)
        if parent is None or parent.span.trace != step.span.trace or _comes_back(step, steps):
            found.setdefault(step.span.trace, Way(step.span.trace)).begins.append(step)
        else:
            parent.next.append(step)
    return sorted(found.values(), key=lambda way: way.began)


def _comes_back(step: Step, steps: dict[str, Step]) -> bool:
    seen: set[str] = set()
    while step.span.span not in seen:
        seen.add(step.span.span)
        above = steps.get(step.span.parent)
        if above is None:
            return False
        step = above
    return True


def way_lines(way: Way, *, mark: Sequence[str] = ()) -> Iterator[str]:
    """Return the lines that show a way: a tree, with when, how long queued, and how long it took.

    Args:
        way: what to show.
        mark: ids of messages to point at.
    """
    spans = way.spans
    began = way.began
    start = datetime.fromtimestamp(began).astimezone()
    took = _seconds(way.ended - began)
    yield f"trace {way.trace}: {len(spans)} step{'s' * (len(spans) != 1)} in {took} s"
    yield f"from {start:%Y-%m-%d %H:%M:%S}.{start.microsecond // 1000:03d} on"
    yield f"  {'AT':>9}  {'QUEUED':>9}  {'TOOK':>9}"
    for begin in way.begins:
        for depth, step in begin.walk():
            yield _line(step.span, depth, began, step.span.message in mark)
            if depth == 0 and step.span.parent:
                yield f"{'':37}(sent by somebody who does not remember it, or cannot be asked)"
            if step.span.error:
                yield f"{'':35}{'  ' * depth}  {step.span.error.splitlines()[0]}"


def _line(span: Span, depth: int, began: float, marked: bool) -> str:
    at = span.queued or span.started
    queued = _seconds(span.started - span.queued) if span.queued else ""
    took = "" if span.outcome == "sent" else _seconds(span.finished - span.started)
    attempt = f", attempt {span.attempt}" if span.attempt > 1 else ""
    return (
        f"{'>' if marked else ' '} {'+' + _seconds(at - began):>9}  {queued:>9}  {took:>9}  "
        f"{'  ' * depth}{span.role}.{span.instance} {span.port}: {span.outcome}{attempt}"
        f"  {span.message}"
    )


def _seconds(seconds: float) -> str:
    # Clocks of two machines differ; that is no reason to show a time below zero.
    return f"{max(seconds, 0.0):.3f}"
