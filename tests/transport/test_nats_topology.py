"""Names, addresses and records of the NATS transport."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import ConfigurationError
from msgflo.flow.binding import Binding, Kind
from msgflo.transport.nats_topology import (
    Address,
    Names,
    Record,
    Sieve,
    consumer_config,
    filters_of,
    is_drained,
    read_ack,
    subject_part,
    token,
)

NAMES = Names("net")

any_text = st.text(st.characters(), max_size=300)
queue_names = st.one_of(st.text("a.*>@=01 é\x00", max_size=8), any_text)


@given(queue_names)
def test_a_token_is_fit_for_subjects_consumers_and_keys(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", token(name))


@given(queue_names, queue_names)
def test_two_names_never_share_a_token_or_subject(one: str, other: str) -> None:
    if one != other:
        assert token(one) != token(other)
        assert subject_part(one) != subject_part(other)
        assert NAMES.out(one) != NAMES.out(other)


@given(queue_names)
def test_a_subject_has_no_empty_tokens_blanks_or_wildcards(name: str) -> None:
    subject = subject_part(name)
    assert all(part and "*" not in part and ">" not in part for part in subject.split("."))
    assert subject.isascii()
    assert not re.search(r"\s", subject)


def test_usual_names_stay_readable() -> None:
    assert NAMES.out("resize.OUT") == "net.out.resize.OUT"
    assert NAMES.direct("resize.IN@2") == "net.in.resize.IN@2"
    assert subject_part("a..b") == "a=2E=2Eb"
    assert subject_part(".a.") == "=2Ea=2E"
    assert token("resize.IN") == "resize=2EIN"
    assert NAMES.consumer("resize.IN@12") == "in-resize=2EIN@12"


@given(queue_names, queue_names)
def test_two_queues_never_share_a_consumer(one: str, other: str) -> None:
    if one != other:
        assert NAMES.consumer(one) != NAMES.consumer(other)
    consumers = {
        NAMES.consumer(one),
        NAMES.keeper(one),
        NAMES.keeper(one, kept=True),
    }
    assert len(consumers) == 3


@pytest.mark.parametrize("name", ["q@01", "q@0", "q@", "@1", "q@x", "q@1@", "q@1 "])
def test_what_only_looks_like_a_place_is_a_work_queue(name: str) -> None:
    assert NAMES.consumer(name) not in {NAMES.consumer("q@1"), NAMES.consumer("q")}


@given(any_text, st.integers(1, 10**6))
def test_consumer_names_suit_the_server_and_its_file_system(name: str, instance: int) -> None:
    work, place = NAMES.consumer(name + "x"), NAMES.consumer(f"{name}x@{instance}")
    assert place == f"{work}@{instance}"
    assert re.fullmatch(r"[A-Za-z0-9_=@-]{1,150}", place)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://localhost", Address(("localhost:4222",))),
        ("nats://localhost:1234/", Address(("localhost:1234",))),
        ("nats://a,b:5,[::1]:6,[::2]", Address(("a:4222", "b:5", "[::1]:6", "[::2]:4222"))),
        ("nats://me:p%40ss@host", Address(("host:4222",), user="me", password="p@ss")),
        ("nats://s3cret@host", Address(("host:4222",), token="s3cret")),
        ("tls://host:1/net_2", Address(("host:1",), tls=True, namespace="net_2")),
        (
            "nats://h?replicas=3&redelivery=2.5&ca=/etc/ca.pem",
            Address(("h:4222",), replicas=3, redelivery=2.5, ca="/etc/ca.pem"),
        ),
    ],
)
def test_an_address_is_read(url: str, expected: Address) -> None:
    assert Address.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://host:port", "the port 'port'"),
        ("nats://host:70000", "the port '70000'"),
        ("nats://host/a/b", "namespace 'a/b'"),
        ("nats://host/a.b", "namespace 'a.b'"),
        ("nats://host?replica=3", "the option 'replica'; there are: ca, redelivery, replicas"),
        ("nats://host?replicas=9", "replicas='9'; expected a number from 1 to 5"),
        ("nats://host?redelivery=soon", "redelivery='soon'"),
        ("nats://me:secret@[host", "cannot be read"),
    ],
)
def test_a_wrong_address_is_explained(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)) as error:
        Address.parse(url)
    assert "secret" not in str(error.value)


BINDING = Binding(Kind.ROUNDROBIN, "a.OUT", "b.IN")


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 40))
def test_a_record_knows_when_its_binding_was_in_force(steps: list[int], asked: int) -> None:
    """Against a model that notes for each message whether the binding was there."""
    record, travelled, last = Record(BINDING, "e"), set(), 0
    for number, more in enumerate(steps):
        record = record.opened(last + 1) if number % 2 == 0 else record.closed(last)
        sent = range(last + 1, last + more + 1)
        if record.open:
            travelled.update(sent)
        last += more
    if asked <= last:
        assert record.wants(asked) == (asked in travelled)
    else:
        assert record.wants(asked) == record.open
    assert Record.decode(record.encode()) == record
    sieve = Sieve(NAMES, "b.IN", [record])
    assert sieve.passes(NAMES.out("a.OUT"), asked) == record.wants(asked)


def test_opening_and_closing_twice_changes_nothing() -> None:
    record = Record(BINDING, "e").opened(5)
    assert record.opened(9) is record
    assert record.closed(7).closed(8) == record.closed(7)
    assert record.closed(7).last == 7


def test_numbers_of_another_stream_mean_nothing() -> None:
    record = Record(BINDING, "old").opened(1000)
    assert record.in_epoch("new").wants(1)
    assert not record.closed(2000).in_epoch("new").wants(1500)
    assert record.in_epoch("old") is record


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"kind":"x"}', b'{"kind": 1}'])
def test_what_is_no_record_is_none(data: bytes) -> None:
    assert Record.decode(data) is None


def test_filters_are_those_of_the_bindings_that_lead_there() -> None:
    records = [
        Record(Binding(Kind.ROUNDROBIN, "shared", "q"), "e").opened(1),
        Record(Binding(Kind.PUBSUB, "copied", "q"), "e").opened(1),
        Record(Binding(Kind.DEADLETTER, "failing", "q"), "e").opened(1),
        Record(Binding(Kind.ROUNDROBIN, "gone", "q"), "e").opened(1).closed(9),
        Record(Binding(Kind.ROUNDROBIN, "never", "q"), "e"),
        Record(Binding(Kind.ROUNDROBIN, "shared", "other"), "e").opened(1),
    ]
    assert filters_of(NAMES, "q", records) == [
        "net.dead.failing",
        "net.in.q",
        "net.out.gone",
        "net.out.shared",
    ]
    assert "net.out.gone" not in filters_of(NAMES, "q", records, ["net.out.gone"])
    assert filters_of(NAMES, "q@3", records) == ["net.in.q@3", "net.out.copied"]


def test_what_nothing_is_known_of_passes_and_is_told_apart() -> None:
    sieve = Sieve(NAMES, "q", [])
    assert sieve.knows("net.in.q")
    assert not sieve.knows("net.out.mystery")
    assert sieve.passes("net.out.mystery", 1)
    sieve.admit("net.out.mystery")
    assert sieve.knows("net.out.mystery")


def test_a_queue_is_drained_when_its_floor_is_passed_or_nothing_is_left() -> None:
    assert is_drained({"num_pending": 0, "num_ack_pending": 0}, 100)
    assert not is_drained({"num_pending": 1, "ack_floor": {"stream_seq": 99}}, 100)
    assert is_drained({"num_pending": 1, "ack_floor": {"stream_seq": 100}}, 100)
    assert not is_drained({"num_ack_pending": 1}, 100)


def test_a_consumer_lasts_unless_it_is_told_not_to() -> None:
    lasting = consumer_config("in-q", "q", ["f"], redelivery=10, replicas=1)
    assert "inactive_threshold" not in lasting
    assert lasting["ack_wait"] == 10_000_000_000
    assert lasting["max_deliver"] == -1
    passing = consumer_config("in-q@2", "q@2", ["f"], redelivery=1, replicas=1, inactive=600)
    assert passing["inactive_threshold"] == 600_000_000_000


def test_both_forms_of_acknowledgements_are_read() -> None:
    short = b"$JS.ACK.net.in-q=2EIN@1.3.77.5.1795495553234825074.0"
    assert read_ack(short) == (3, 77, 1795495553234825074)
    long = b"$JS.ACK.hub.hash.net.in-q=2EIN@1.3.77.5.1795495553234825074.0.random"
    assert read_ack(long) == (3, 77, 1795495553234825074)
