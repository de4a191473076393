import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import ConfigurationError, TransportError
from msgflo.flow.binding import Binding, Kind
from msgflo.transport.amqp_topology import (
    ATTEMPTS,
    POSTPONED,
    SOURCE,
    Address,
    Record,
    Way,
    checked_name,
    delay_leg,
    delay_level,
    identity,
    place_arguments,
    queue_arguments,
    ways_of,
)
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, REQUEUED

# URLs.


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h/%2f", "/"),
        ("amqp://h/%2F/", "/"),
        ("amqp://h//", "/"),
        ("amqp://h/app", "app"),
        ("amqp://h/app/", "app"),
        ("amqp://h/a%2fb", "a/b"),
        ("amqp://h/%C3%A4", "ä"),
    ],
)
def test_a_path_is_a_virtual_host(url, vhost):
    assert Address.parse(url).vhost == vhost


def test_what_a_url_leaves_out_is_what_brokers_have():
    assert Address.parse("amqp://") == Address((("localhost", 5672),), "/", "guest", "guest")
    assert Address.parse("amqps://h").servers == (("h", 5671),)
    assert Address.parse("amqps://h:5000").servers == (("h", 5000),)


def test_a_url_can_name_the_nodes_of_a_cluster():
    found = Address.parse("amqp://me:pass@a,b:5000,[::1]:6000/v")
    assert found.servers == (("a", 5672), ("b", 5000), ("::1", 6000))
    assert (found.user, found.password, found.vhost) == ("me", "pass", "v")


def test_a_url_can_say_everything():
    found = Address.parse(
        "AMQPS://me%40home:p%3Ass@[::1]:5000/v?ca=/ca&cert=/c&key=/k&sni=b&heartbeat=5&name=n"
        "&queues=quorum"
    )
    assert found == Address(
        servers=(("::1", 5000),),
        vhost="v",
        user="me@home",
        password="p:ss",
        tls=True,
        ca="/ca",
        cert="/c",
        key="/k",
        sni="b",
        heartbeat=5,
        name="n",
        quorum=True,
    )


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("amqp://h:x", "cannot be read"),
        ("amqp://h/a/b", "one virtual host, in which a slash is written %2f"),
        ("amqp://h?heartbeet=5", "Did you mean 'heartbeat'"),
        ("amqp://h?heartbeat=-1", "expected a number from 0 to 3600"),
        ("amqp://h?queues=fast", "expected classic or quorum"),
        ("amqp://h?ca=/x", "'ca', which needs amqps://"),
        ("amqps://h?cert=/x", "needs both options, cert and key"),
    ],
)
def test_a_url_that_is_wrong_is_refused_with_the_reason(url, problem):
    with pytest.raises(ConfigurationError) as caught:
        Address.parse(url.replace("://", "://me:hush@"))
    assert problem in str(caught.value)
    assert "hush" not in str(caught.value)


# Names and arguments.


@pytest.mark.parametrize("name", ["", "amq.fanout", "x" * 256, "ä" * 120, "a\nb"])
def test_a_name_that_no_broker_can_have_is_refused(name):
    with pytest.raises(TransportError):
        checked_name(name)


def test_a_work_queue_is_declared_as_the_nodejs_client_does():
    assert queue_arguments("R.IN", quorum=False) == {"x-dead-letter-exchange": "dead-R.IN"}


def test_a_place_expires_but_for_the_first():
    assert "x-expires" not in place_arguments("R.IN", 1, 60, quorum=False)
    assert place_arguments("R.IN", 2, 60, quorum=False)["x-expires"] == 60_000


# Delays.


@given(st.floats(0, 1e6))
def test_a_delay_is_rounded_up_by_a_third_at_most(seconds):
    level = delay_level(seconds)
    assert level >= seconds * 1000 * 0.999_999
    assert level <= max(10, seconds * 1000 * 1.34)


@pytest.mark.parametrize(
    "seconds", [0.01, 0.1, 0.5, 1, 1.5, 2, 3, 5, 10, 15, 30, 60, 120, 300, 600]
)
def test_what_people_choose_is_exact(seconds):
    assert delay_level(seconds) == seconds * 1000


def test_there_are_few_delays():
    assert len({delay_level(number / 100) for number in range(1, 400_000)}) <= 60


@given(st.floats(0, 1e8), st.floats(0.1, 1e5))
def test_nothing_waits_for_a_place_longer_than_that_lives(seconds, lives):
    level, whole = delay_leg(seconds, lives)
    assert level <= max(10, lives * 500)
    assert whole is (level >= seconds * 1000)


@given(st.floats(0, 1e6))
def test_where_a_queue_stays_a_delay_is_one_leg(seconds):
    assert delay_leg(seconds, 0) == (delay_level(seconds), True)


# Bindings.

PUBSUB = Binding(Kind.PUBSUB, "A.OUT", "B.IN")
SHARED = Binding(Kind.ROUNDROBIN, "A.OUT", "B.IN")
DEAD = Binding(Kind.DEADLETTER, "B.IN", "C.IN")


def test_copies_go_to_the_exchange_of_those_who_have_places():
    assert ways_of(PUBSUB, places=True) == [Way("A.OUT", "B.IN", to_queue=False)]
    assert ways_of(PUBSUB, places=False) == [Way("A.OUT", "B.IN", to_queue=True)]
    assert ways_of(SHARED, places=True) == [Way("A.OUT", "B.IN", to_queue=True)]
    assert ways_of(DEAD, places=True) == [Way("dead-B.IN", "C.IN", to_queue=True)]


def test_an_exchange_is_not_bound_to_itself():
    assert ways_of(Binding(Kind.PUBSUB, "X", "X"), places=True) == []


BINDINGS = st.builds(
    Binding, st.sampled_from(Kind), st.sampled_from(["A", "B", "ü☃"]), st.sampled_from("BCD")
)


@given(
    st.dictionaries(BINDINGS, st.booleans(), max_size=6),
    st.lists(st.sampled_from(["B", "B@1", "C@2", "D@17"]), max_size=5),
)
def test_a_record_is_read_as_it_was_written(bindings, places):
    record = Record()
    for binding, with_places in bindings.items():
        record = record.bound(binding, places=with_places)
    for place in places:
        record = record.with_place(place, 60.0)
    assert Record.decode(record.encode()) == record
    for binding in bindings:
        record = record.unbound(binding)
    assert not record.bindings
    assert record.ways() == set()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"bindings":[["nonsense","a","b"]]}'])
def test_what_is_no_record_is_none(data):
    assert Record.decode(data) is None


def test_a_record_knows_what_leads_where():
    record = Record().bound(PUBSUB, places=True).bound(DEAD, places=True).with_place("B.IN@2", 5.0)
    assert record.is_source("A.OUT")
    assert not record.is_source("B.IN")
    assert record.is_routed("B.IN")
    assert record.has_copies("B.IN")
    assert record.queues(["B.IN"]) == ["B.IN", "dead-B.IN", "B.IN@2"]
    assert record.queues(["B.IN@2"]) == record.queues(["B.IN"])
    assert record.queues(["nobody"]) == []
    assert record.retention("B.IN@2") == 5.0


def test_a_first_place_stays_as_long_as_something_is_bound_to_it():
    record = Record().bound(PUBSUB, places=True).with_place("B.IN@1", 5.0)
    assert record.retention("B.IN@1") == 0.0
    assert record.unbound(PUBSUB).retention("B.IN@1") == 5.0


# Messages.


def test_a_message_is_known_by_its_id_and_its_source():
    plain = {CONTENT_TYPE: "application/json", MESSAGE_ID: "1"}
    assert identity("A.OUT", plain, "1", ours=True) == identity("A.OUT", plain, "1", ours=True)
    assert identity("A.OUT", plain, "1", ours=True) != identity("B.OUT", plain, "1", ours=True)


def test_what_was_given_back_or_requeued_is_not_a_duplicate():
    plain = {CONTENT_TYPE: "application/json", MESSAGE_ID: "1"}
    again = {**plain, SOURCE: "A.OUT", ATTEMPTS: "1", POSTPONED: "0"}
    later = {**plain, SOURCE: "A.OUT", ATTEMPTS: "1", POSTPONED: "1"}
    requeued = {**plain, REQUEUED: "1"}
    known = [identity("A.OUT", it, "1", ours=True) for it in (plain, again, later, requeued)]
    assert len(set(known)) == 4


def test_what_others_say_of_their_ids_is_not_relied_on():
    assert identity("A.OUT", {MESSAGE_ID: "1"}, "1", ours=False) is None
    assert identity("A.OUT", {}, "", ours=True) is None
