"""What happens to a message whose handling failed. Pure: facts in, an order out.

====================  ==========================================  =========================
what happened         as long as                                  then
====================  ==========================================  =========================
ERROR: it raised      attempt < attempts: again, after a pause    dead
CRASH: its process    attempt < attempts + POISON_LIMIT: again,   dead
died                  after a pause
LATER: RetryLater     postponed < POSTPONE_LIMIT: again, in its   dead
                      own time; this is no attempt
REJECT: Reject, nack                                              dead at once
UNFIT: the payload                                                dead at once
is not of the type
POISON: delivered                                                 dead on arrival
too often
====================  ==========================================  =========================

*Dead* is a dead letter; or, where the component has an outport called ``error`` and something is
connected to it, an :func:`error_packet` there.

A message that takes its whole process down leaves nobody who could judge it. It is counted by the
broker: more deliveries than attempts, and POISON_LIMIT beyond, and it is taken out on arrival.
"""

import base64
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any

from msgflo.errors import PayloadError, Reject, RetryLater
from msgflo.payload import plain
from msgflo.transport.contract import POISON_LIMIT, POSTPONE_LIMIT, Death, Delivery, Retry

__all__ = ["Again", "Dead", "Failure", "Kind", "death_of", "decide", "error_packet", "poison"]


class Kind(Enum):
    """What happened."""

    ERROR = "error"
    CRASH = "crash"
    LATER = "later"
    REJECT = "reject"
    UNFIT = "unfit"
    POISON = "poison"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message was not processed.

    Attributes:
        kind: what happened.
        error: the error's type, such as ``ValueError``.
        text: what it said.
        traceback: where it happened; may be empty.
        delay: of LATER: in how many seconds.
        raised: the exception itself, where there is one in this process.
    """

    kind: Kind
    error: str
    text: str
    traceback: str = ""
    delay: float = 0.0
    raised: BaseException | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, raised: BaseException) -> "Failure":
        """Return what it means that a handler raised this."""
        name = type(raised).__name__
        if isinstance(raised, RetryLater):
            return cls(Kind.LATER, name, str(raised), delay=raised.delay, raised=raised)
        if isinstance(raised, Reject):
            return cls(Kind.REJECT, name, raised.reason, raised=raised)
        return cls(Kind.ERROR, name, _text(raised), traceback_of(raised), raised=raised)

    @classmethod
    def nack(cls, reason: str) -> "Failure":
        """Return what it means that a handler has nacked its message."""
        return cls(Kind.REJECT, "Nack", reason)

    @classmethod
    def unfit(cls, raised: PayloadError) -> "Failure":
        """Return what it means that the payload of a message is not what its port takes."""
        return cls(Kind.UNFIT, type(raised).__name__, str(raised), raised=raised)


@dataclass(frozen=True, slots=True)
class Again:
    """Order: give it back, not before ``delay`` seconds; ``counts``: this was an attempt."""

    delay: float
    counts: bool


@dataclass(frozen=True, slots=True)
class Dead:
    """Order: it is not tried again. ``failure``: why."""

    failure: Failure


def decide(
    failure: Failure, attempt: int, postponed: int, retry: Retry, chance: float
) -> Again | Dead:
    """Return what is to be done with a message that failed.

    Args:
        failure: why.
        attempt: which attempt this was, from 1.
        postponed: how often it was postponed before.
        retry: the port's rule.
        chance: a random number from 0 to 1, for the jitter.
    """
    if failure.kind is Kind.LATER:
        if postponed < POSTPONE_LIMIT:
            return Again(failure.delay, counts=False)
        text = f"postponed {postponed} times, and then asked for later again: {failure.text}"
        return Dead(Failure(failure.kind, failure.error, text))
    if failure.kind is Kind.ERROR and attempt < retry.attempts:
        return Again(retry.pause(attempt, chance), counts=True)
    if failure.kind is Kind.CRASH and attempt < retry.attempts + POISON_LIMIT:
        return Again(retry.pause(attempt, chance), counts=True)
    return Dead(failure)


def poison(attempt: int, retry: Retry) -> Failure | None:
    """Return why a message must not even be tried once more; None if it may be.

    Args:
        attempt: which delivery this is, from 1.
        retry: the port's rule.
    """
    if attempt <= retry.attempts + POISON_LIMIT:
        return None
    return Failure(
        Kind.POISON,
        "Poison",
        f"delivered {attempt - 1} times and never finished: its handler kills or hangs the process",
    )


def death_of(failure: Failure, delivery: Delivery, role: str, instance: int, now: float) -> Death:
    """Return what the dead letter says.

    Args:
        failure: why.
        delivery: the message.
        role: whose participant it was.
        instance: which one.
        now: seconds since 1970.
    """
    return Death(
        queue=delivery.queue,
        role=role,
        instance=instance,
        attempts=delivery.attempt,
        error=failure.error,
        text=failure.text,
        traceback=failure.traceback,
        first_seen=delivery.sent,
        died=now,
    )


def error_packet(
    failure: Failure,
    body: bytes,
    headers: Mapping[str, str],
    *,
    id: str,  # noqa: A002 - the word that everybody uses
    role: str,
    inport: str,
    attempts: int,
) -> dict[str, Any]:
    """Return what is sent to an outport ``error``.

    ``payload`` is the original one: its JSON value; else its text; else, with ``encoding`` saying
    ``base64``, its bytes. ``error`` has ``type``, ``message`` and ``traceback``. ``id``, ``role``,
    ``inport`` and ``attempts`` say which message it was, where, and how often it was tried.
    """
    payload: Any
    encoding = ""
    try:
        payload = plain(body, headers)
    except PayloadError:
        payload = body
    if isinstance(payload, bytes):
        try:
            payload = payload.decode()
        except UnicodeDecodeError:
            payload, encoding = base64.b64encode(payload).decode(), "base64"
    packet: dict[str, Any] = {"payload": payload}
    if encoding:
        packet["encoding"] = encoding
    packet["error"] = {
        "type": failure.error,
        "message": failure.text,
        "traceback": failure.traceback,
    }
    packet |= {"id": id, "role": role, "inport": inport, "attempts": attempts}
    return packet


def _text(raised: BaseException) -> str:
    try:
        return str(raised)
    except Exception as error:  # an author's __str__ may do anything
        return f"(its text cannot be had: {type(error).__name__})"


_OURS = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - compared with texts, often


_NOT_THEIRS = (_OURS, "<frozen importlib")


def traceback_of(raised: BaseException) -> str:
    """Return the traceback from the author's first line on."""
    start: TracebackType | None = raised.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename.startswith(_NOT_THEIRS):
        start = start.tb_next
    try:
        lines = traceback.format_exception(type(raised), raised, start)
    except Exception:  # for the same reason
        lines = traceback.format_tb(start)
    return "".join(lines)
