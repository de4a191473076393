"""What happens to a message whose handling failed: the rules."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import PayloadError, Reject, RetryLater
from msgflo.failure import Again, Dead, Failure, Kind, death_of, decide, error_packet, poison
from msgflo.transport.contract import (
    CONTENT_TYPE,
    POISON_LIMIT,
    POSTPONE_LIMIT,
    Delivery,
    Inlet,
    Retry,
)

THREE = Retry(3, delay=1.0, backoff=2.0, jitter=0.0)

ERROR = Failure(Kind.ERROR, "ValueError", "no")
CRASH = Failure(Kind.CRASH, "ProcessDied", "killed")
LATER = Failure(Kind.LATER, "RetryLater", "busy", delay=30.0)
REJECT = Failure(Kind.REJECT, "Reject", "no image")
UNFIT = Failure(Kind.UNFIT, "PayloadError", "$: no")
POISON = Failure(Kind.POISON, "Poison", "too often")


@pytest.mark.parametrize(
    ("failure", "attempt", "postponed", "order"),
    [
        (ERROR, 1, 0, Again(1.0, counts=True)),
        (ERROR, 2, 0, Again(2.0, counts=True)),
        (ERROR, 3, 0, Dead(ERROR)),
        (ERROR, 4, 0, Dead(ERROR)),
        (CRASH, 3, 0, Again(4.0, counts=True)),
        (CRASH, 3 + POISON_LIMIT - 1, 0, Again(64.0, counts=True)),
        (CRASH, 3 + POISON_LIMIT, 0, Dead(CRASH)),
        (LATER, 3, 0, Again(30.0, counts=False)),
        (LATER, 99, POSTPONE_LIMIT - 1, Again(30.0, counts=False)),
        (REJECT, 1, 0, Dead(REJECT)),
        (UNFIT, 1, 0, Dead(UNFIT)),
        (POISON, 1, 0, Dead(POISON)),
    ],
)
def test_the_table(failure, attempt, postponed, order):
    assert decide(failure, attempt, postponed, THREE, 0.5) == order


def test_what_is_postponed_for_ever_is_dead_at_last_and_says_so():
    order = decide(LATER, 1, POSTPONE_LIMIT, THREE, 0.5)
    assert isinstance(order, Dead)
    assert order.failure.text == (
        f"postponed {POSTPONE_LIMIT} times, and then asked for later again: busy"
    )


@given(
    kinds=st.lists(st.sampled_from([ERROR, CRASH, LATER]), min_size=1, max_size=5),
    attempts=st.integers(1, 20),
)
def test_no_message_loops_for_ever(kinds, attempts):
    """Whatever a handler does, in whatever order, one day the message is dead."""
    attempt, postponed = 1, 0
    retry = Retry(attempts, delay=0)
    for turn in range(attempts + POISON_LIMIT + POSTPONE_LIMIT + 2):
        order = decide(kinds[turn % len(kinds)], attempt, postponed, retry, 0.5)
        if isinstance(order, Dead) or poison(attempt, retry):
            return
        attempt += order.counts
        postponed += not order.counts
    raise AssertionError("it is still alive")


def test_a_message_is_poison_when_it_came_more_often_than_any_handler_could_have_failed():
    assert poison(3 + POISON_LIMIT, THREE) is None
    failure = poison(3 + POISON_LIMIT + 1, THREE)
    assert failure is not None
    assert failure.kind is Kind.POISON
    assert "delivered 8 times and never finished" in failure.text


def test_what_a_handler_raises_says_what_is_meant():
    assert Failure.of(RetryLater(5, "busy")) == Failure(Kind.LATER, "RetryLater", "busy", delay=5)
    assert Failure.of(Reject("no image")) == Failure(Kind.REJECT, "Reject", "no image")
    assert Failure.unfit(PayloadError("$: no")).kind is Kind.UNFIT
    # A handler's own PayloadError, of what it sends, is no fault of the message.
    assert Failure.of(PayloadError("cannot send")).kind is Kind.ERROR
    assert Failure.of(SystemExit(3)).kind is Kind.ERROR


def test_the_traceback_begins_at_the_authors_code():
    def handler():
        raise ValueError("no")

    try:
        handler()
    except ValueError as error:
        failure = Failure.of(error)
    assert failure.traceback.startswith("Traceback (most recent call last):")
    assert 'raise ValueError("no")' in failure.traceback
    assert failure.traceback.endswith("ValueError: no\n")


def test_an_exception_that_cannot_say_its_text_fails_nothing_else():
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError

    assert Failure.of(Odd()).text == "(its text cannot be had: RuntimeError)"


def test_a_dead_letter_says_who_could_not_process_it_and_why():
    delivery = Delivery(Inlet("r.IN", 2), "r.IN@2", b"1", {}, "m1", attempt=3, sent=10.0)
    death = death_of(ERROR, delivery, "r", 2, 20.0)
    assert (death.queue, death.role, death.instance, death.attempts) == ("r.IN@2", "r", 2, 3)
    assert (death.error, death.text) == ("ValueError", "no")
    assert (death.first_seen, death.died) == (10.0, 20.0)


@pytest.mark.parametrize(
    ("body", "headers", "payload", "encoding"),
    [
        (b'{"a":1}', {CONTENT_TYPE: "application/json"}, {"a": 1}, None),
        (b"0", {}, 0, None),
        (b"null", {}, None, None),
        (b"", {}, "", None),
        (b"hello", {}, "hello", None),
        (b"{", {CONTENT_TYPE: "application/json"}, "{", None),
        (b"\xff\x00", {CONTENT_TYPE: "application/octet-stream"}, "/wA=", "base64"),
    ],
)
def test_the_port_error_gets_the_original_payload_and_the_reason(body, headers, payload, encoding):
    packet = error_packet(ERROR, body, headers, id="m1", role="r", inport="in", attempts=3)
    assert msgspec.json.decode(msgspec.json.encode(packet)) == packet
    assert packet["payload"] == payload
    assert packet.get("encoding") == encoding
    assert packet["error"] == {"type": "ValueError", "message": "no", "traceback": ""}
    assert (packet["id"], packet["role"], packet["inport"], packet["attempts"]) == (
        "m1",
        "r",
        "in",
        3,
    )
