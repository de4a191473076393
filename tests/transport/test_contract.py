import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.transport import contract
from msgflo.transport.contract import (
    MESSAGE_ID,
    REQUEUED,
    DeadLetter,
    Death,
    Delivery,
    Inlet,
    Retry,
    redacted,
    requeued_headers,
)

# Retries.


def test_by_default_nothing_is_tried_again():
    assert Retry().attempts == 1


def test_pauses_grow_up_to_the_longest():
    retry = Retry(5, delay=1, backoff=3, jitter=0, longest=20)
    assert [retry.pause(attempt) for attempt in (1, 2, 3, 4)] == [1, 3, 9, 20]


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": 1001},
        {"attempts": 2.5},
        {"attempts": True},
        {"delay": -1},
        {"delay": math.nan},
        {"backoff": 0.5},
        {"jitter": 1.5},
        {"longest": -1},
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(wrong):
    with pytest.raises(ValueError, match=f"Retry: {next(iter(wrong))}"):
        Retry(**wrong)


@given(
    retry=st.builds(
        Retry,
        attempts=st.integers(1, 1000),
        delay=st.floats(0, 1e300),
        backoff=st.floats(1, 1e300),
        jitter=st.floats(0, 1),
        longest=st.floats(0, 1e9),
    ),
    attempt=st.integers(1, 1000),
    chance=st.floats(0, 1),
)
def test_a_pause_is_never_negative_nor_longer_than_the_longest(retry, attempt, chance):
    pause = retry.pause(attempt, chance)
    assert 0 <= pause <= retry.longest
    plain = retry.pause(attempt)
    assert pause >= plain * (1 - retry.jitter) * 0.999
    if retry.jitter == 0:
        assert retry.pause(attempt) <= retry.pause(attempt + 1)


def test_no_delay_stays_none_however_it_grows():
    assert Retry(delay=0, backoff=math.inf).pause(1000) == 0
    assert Retry(delay=0, backoff=1e300).pause(1000) == 0


# Deaths.

TEXT = st.text(max_size=200)
TIME = st.floats(0, 2e9).map(lambda time: round(time, 3))
DEATHS = st.builds(
    Death,
    queue=st.text(min_size=1, max_size=50),
    role=TEXT,
    instance=st.integers(0, 10**6),
    attempts=st.integers(1, 1000),
    error=TEXT,
    text=TEXT,
    traceback=TEXT,
    first_seen=TIME,
    died=TIME,
)


@given(DEATHS)
def test_a_death_is_read_from_the_headers_that_say_it(death):
    headers = death.to_headers()
    assert Death.from_headers(headers) == death
    for value in headers.values():
        assert value.isascii()
        assert value == "" or value.isprintable()
        assert value == value.strip()


@given(DEATHS, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_stripping_leaves_what_was_there_before(death, headers):
    assert Death.strip(headers | death.to_headers()) == headers


@pytest.mark.parametrize("character", ["x", "\n", "é", "語", "\N{PILE OF POO}", "\\", " "])
def test_a_long_error_is_cut_so_that_every_broker_carries_it(character):
    whole = Death("q", text="first" + character * 9000, traceback=character * 9000 + "last")
    headers = whole.to_headers()
    assert all(len(value) <= 8200 for value in headers.values())
    read = Death.from_headers(headers)
    assert read.text.startswith("first")
    assert whole.text.startswith(read.text)
    assert read.traceback.endswith("last")
    assert whole.traceback.endswith(read.traceback)
    assert len(read.traceback) >= 8192 // 10 - 1


@pytest.mark.parametrize("number", ["", "x", "nan", "inf", "-inf", "1e999", "٣x"])
def test_headers_that_somebody_else_wrote_do_no_harm(number):
    headers = Death("q", text="t").to_headers() | {
        "Msgflo-Death-Instance": number,
        "Msgflo-Death-Died": number,
        "Msgflo-Death-Text": r"C:\dir \N{x} \U00110000 \ud8 é \q",
        "Msgflo-Death-Error": "\\",
    }
    death = Death.from_headers(headers)
    assert (death.instance, death.died) == (0, 0.0)
    assert death.text == r"C:\dir \N{x} \U00110000 \ud8 é \q"
    assert death.error == "\\"


def test_a_message_that_has_not_died_has_no_death():
    assert Death.from_headers({"Msgflo-Id": "1"}) is None


def test_what_is_missing_from_the_headers_is_empty():
    assert Death.from_headers({"Msgflo-Death-Queue": "q"}) == Death("q", attempts=0)


@pytest.mark.parametrize(
    ("before", "after"), [({}, "1"), ({REQUEUED: "4"}, "5"), ({REQUEUED: "x"}, "1")]
)
def test_a_requeued_message_keeps_its_id_and_counts(before, after):
    letter = DeadLetter("k", "q", "the-id", b"", before | {"Other": "o"}, Death("q"))
    assert requeued_headers(letter) == {"Other": "o", REQUEUED: after, MESSAGE_ID: "the-id"}
    assert letter.headers == before | {"Other": "o"}


# The rest.


def test_a_place_is_named_after_its_queue_and_instance():
    assert Inlet("resize.IN", 3).place == "resize.IN@3"


def test_a_delivery_shows_what_it_is():
    delivery = Delivery(Inlet("q", 1), "q@1", b"", {}, "the-id", attempt=2)
    assert repr(delivery) == "<Delivery the-id at q@1, attempt 2>"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://localhost:4222", "nats://localhost:4222"),
        ("nats://[::1]:4222/net", "nats://[::1]:4222/net"),
        ("direct://name", "direct://name"),
        ("localhost:4222", "localhost:4222"),
        ("nats://user:hush@h:4222/net", "nats://user:***@h:4222/net"),
        (
            "nats://user:hush@h1:4222,h2:4222/net?replicas=3",
            "nats://user:***@h1:4222,h2:4222/net?replicas=3",
        ),
        ("nats://hush@h", "nats://***@h"),
        ("TLS://hush@h", "TLS://***@h"),
        ("amqp://user@h/vhost", "amqp://user@h/vhost"),
        ("amqp://:hush@h/%2f", "amqp://:***@h/%2f"),
        ("amqp://user:hu:hush@[::1]:5672", "amqp://user:***@[::1]:5672"),
        ("nats://user:hush@h1,nats://user:hush@h2", "nats://***@h2"),
        ("nats://user:hu@sh@h", "nats://***@h"),
        ("nats://user:hu/sh@h", "nats://***@h"),
        ("nats://user:hu?sh@h", "nats://***@h"),
        ("nats://user:12/hush@h", "nats://***@h"),
        ("nats://user:hush", "nats://***"),
        ("user:hush@h", "***@h"),
        ("nats://h?token=hush&ca=/x", "nats://h?token=***&ca=/x"),
        ("mqtt://h/a?ca=/x&Password=hush", "mqtt://h/a?ca=/x&Password=***"),
        ("nats://[::1", "nats://***"),
        ("", ""),
    ],
)
def test_no_password_is_ever_shown(url, shown):
    assert redacted(url) == shown
    assert "hush" not in redacted(url)


def test_what_is_public_is_there_and_described():
    for name in contract.__all__:
        assert getattr(contract, name) is not None
    described = [contract.Client, contract.Broker, contract.Connection, contract.Tap]
    for it in described:
        for name in it.__abstractmethods__:
            assert getattr(it, name).__doc__ or getattr(it, name).fget.__doc__, name
