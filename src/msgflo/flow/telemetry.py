"""What participants say of their work: trace context, spans, figures.

**Trace context.** A message carries, in its headers, which trace it belongs to and which span it
was sent in (W3C Trace Context: ``traceparent``, ``tracestate``). A *trace* is all that one message
from outside has caused; a *span* is one handling of one message, or the sending of a message that
belongs to no other. A message that says nothing of it begins a trace, whose id follows from the
message's: so redelivered, or handled by several roles, it stays one trace. A span's id is new each
time: two attempts are two spans.

**Spans and figures** travel on a source of their own, :data:`TELEMETRY`, that nothing is bound to:
who wants to know taps it, and if nobody does, a broker keeps nothing. Participants send their
figures there by themselves, now and then; they keep their spans, the last of them, until somebody
asks (:class:`Question`, told to all participants) for those of a message::

    {"protocol": "trace", "command": "find", "payload": {"token": "f81d", "ids": ["job-17"]}}

and each answers on :data:`TELEMETRY`, with as many messages as it takes.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import msgspec

from msgflo.errors import DefinitionError

__all__ = [
    "BUCKETS",
    "TELEMETRY",
    "TRACEPARENT",
    "TRACESTATE",
    "Answer",
    "Figures",
    "InFigures",
    "Question",
    "Span",
    "answers",
    "parse_question",
    "parse_report",
    "parse_traceparent",
    "trace_of",
]

TRACEPARENT = "traceparent"
"""Header: ``00-TRACE-SPAN-FLAGS``, in lower-case hex of 32, 16 and 2 digits."""

TRACESTATE = "tracestate"
"""Header: what tracing systems add for themselves; passed on as it is."""

TELEMETRY = "msgflo.telemetry"
"""The source that participants send figures and spans to."""

BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Seconds: the upper bounds of what durations are counted in; one more is without bound."""

ANSWER_SIZE = 64 * 1024
"""Bytes of spans in one message of an answer, about: small enough for any broker."""


# Trace context.


def parse_traceparent(header: str | None) -> tuple[str, str, str] | None:
    """Read a header ``traceparent``.

    Returns:
        The trace, the span that the message was sent in, and the flags, as they stand there;
        ``None`` if there is no such header, or it is not one.
    """
    if header is None:
        return None
    found = _version_00(header)
    if found is None:
        found = _higher_version(header)
        if found is None:
            return None
        # What is known of a higher version is read; of its flags the meaning of one is known.
        trace, span, flags = found.groups()
        flags = f"{int(flags, 16) & 1:02x}"
    else:
        trace, span, flags = found.groups()
    # "All bytes as zero is considered an invalid value", of both ids.
    if trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return trace, span, flags


_version_00 = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})").fullmatch
# "Version ff is invalid."
_higher_version = re.compile(
    r"(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
).fullmatch
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

_is_trace = re.compile(r"(?!0{32})[0-9a-f]{32}").fullmatch


def trace_of(message_id: str) -> str:
    """Return the id of the trace that a message begins which says nothing of one.

    It is the message's id, if that is of its form, as the ids that participants give are.
    """
    if _is_trace(message_id):
        return message_id
    return blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


# Spans.


class Span(msgspec.Struct, frozen=True, array_like=True):
    """One handling of one message by one participant; or the sending of one, from a source.

    Attributes:
        trace: the trace it belongs to.
        span: its own id.
        parent: the span that the message was sent in; ``""`` if nobody said.
        role: who handled it.
        instance: which participant of that role.
        port: the inport; of a sending the outport.
        message: the message's id.
        queued: when the broker got the message, seconds since 1970; 0 if nobody knows.
        started: when its handler began; of a sending, when that was.
        finished: when it was over: settled, given back, or dead.
        outcome: ``done``, ``retried`` (failed, and is tried again), ``postponed``, ``reported``
            (failed, and was told to the outport ``error``), ``dead``; or ``sent``.
        attempt: the how manieth attempt at this message it was.
        error: why it failed; ``""`` if it did not.
    """

    trace: str
    span: str
    parent: str
    role: str
    instance: int
    port: str
    message: str
    queued: float
    started: float
    finished: float
    outcome: str
    attempt: int = 1
    error: str = ""


class Question(msgspec.Struct, frozen=True):
    """Somebody asks all participants for spans.

    Attributes:
        token: names the question, in the answers.
        ids: of messages, traces or spans: spans are wanted whose message, trace or span is one.
    """

    token: str
    ids: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the message as a coordinator tells it."""
        payload = {"token": self.token, "ids": list(self.ids)}
        return msgspec.json.encode({"protocol": "trace", "command": "find", "payload": payload})


class _Message(msgspec.Struct):
    protocol: str
    command: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"null")


def parse_question(data: bytes) -> Question | None:
    """Read what participants are told; ``None`` if it is something else.

    Raises:
        DefinitionError: it is of this protocol, and cannot be understood.
    """
    if b'"trace"' not in data:
        return None
    try:
        message = msgspec.json.decode(data, type=_Message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if message.protocol != "trace":
        return None
    try:
        if message.command != "find":
            raise ValueError(f"the command {message.command!r} is not known")
        return msgspec.json.decode(message.payload, type=Question)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DefinitionError(f"not a question for spans: {error}") from None


# What participants send.


class InFigures(msgspec.Struct):
    """How an inport is doing, since its participant started.

    Attributes:
        taken: deliveries that ended here, each attempt counted.
        failed: those whose handler failed.
        retried: those that were given back to be tried again.
        dead: those that became dead letters.
        busy: how many took so long, from the handler's start until all was confirmed, by
            :data:`BUCKETS`: each counts in one bucket.
        busy_sum: seconds, of all of them.
        waits: how many waited so long, from the broker's having it until the handler's start.
        waits_sum: seconds, of all of them.
    """

    taken: int = 0
    failed: int = 0
    retried: int = 0
    dead: int = 0
    busy: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    busy_sum: float = 0.0
    waits: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    waits_sum: float = 0.0

    def add(self, busy: float, wait: float | None) -> None:
        """Count a delivery: how long it took, and how long it waited, in seconds."""
        self.taken += 1
        self.busy[bisect_left(BUCKETS, busy)] += 1
        self.busy_sum += busy
        if wait is not None:
            self.waits[bisect_left(BUCKETS, wait)] += 1
            self.waits_sum += wait


class Figures(msgspec.Struct, frozen=True, tag="figures", tag_field="telemetry"):
    """What one participant has done since it started.

    Attributes:
        id: which running process it is.
        role: its role.
        instance: which participant of that role.
        ins: its inports, by name.
        outs: how many packets it sent, by outport.
        final: whether it has stopped, and this is the last of it.
    """

    id: str
    role: str
    instance: int
    ins: dict[str, InFigures] = {}
    outs: dict[str, int] = {}
    final: bool = False


class Answer(msgspec.Struct, frozen=True, tag="spans", tag_field="telemetry"):
    """Spans that somebody asked for.

    Attributes:
        id: which participant answers.
        token: the question's.
        spans: what it found.
        last: whether this is all of it.
    """

    id: str
    token: str
    spans: tuple[Span, ...]
    last: bool = True


def answers(participant: str, question: Question, spans: Iterable[Span]) -> Iterator[bytes]:
    """Return the messages of an answer, the last one marked; at least one.

    Args:
        participant: who answers.
        question: what was asked.
        spans: what it has.
    """
    ids = frozenset(question.ids)
    batch: list[Span] = []
    size = 0
    for span in spans:
        if not ids.isdisjoint((span.message, span.trace, span.span)):
            batch.append(span)
            size += len(span.error) + 250
            if size > ANSWER_SIZE:
                yield msgspec.json.encode(Answer(participant, question.token, tuple(batch), False))
                batch, size = [], 0
    yield msgspec.json.encode(Answer(participant, question.token, tuple(batch)))


def parse_report(data: bytes) -> Figures | Answer:
    """Read a message of :data:`TELEMETRY`.

    Raises:
        DefinitionError: it is none.
    """
    try:
        found = msgspec.json.decode(data, type=Figures | Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DefinitionError(f"not a report of a participant: {error}") from None
    if isinstance(found, Figures):
        buckets = len(BUCKETS) + 1
        for name, port in found.ins.items():
            if len(port.busy) != buckets or len(port.waits) != buckets:
                raise DefinitionError(
                    f"the figures of {found.role} {name} have {len(port.busy)} and "
                    f"{len(port.waits)} buckets; expected {buckets}"
                )
    return found
