"""The classic class, as its users know it, without its known faults."""

import contextlib
import itertools
import threading

import msgspec
import pytest

import msgflo
from msgflo.classic import EARLY, Message
from msgflo.declaration import declared
from msgflo.errors import ConnectionLost, DefinitionError, PayloadError, UnknownPort
from networks import HoldingClient, turns, until


class Repeat(msgflo.Participant):
    def __init__(self, role):
        self.seen = []
        d = {
            "component": "PythonRepeat",
            "label": "Repeat input data without change",
        }
        msgflo.Participant.__init__(self, d, role)

    def process(self, inport, msg):
        self.seen.append((inport, msg.data))
        self.send("out", msg.data)
        self.ack(msg)


def make(process, definition=None, role="r", **attributes):
    """An object of a class with this ``process(self, inport, msg)``."""
    cls = type("Classic", (msgflo.Participant,), {"process": process, **attributes})
    return cls(definition or {"component": "Classic"}, role)


# What it says of itself.


async def test_a_definition_without_ports_has_in_and_out(network):
    await network.start(Repeat, "myrole")
    await turns(3)
    (said,) = network.heard
    assert said["payload"] == {
        "id": said["payload"]["id"],
        "role": "myrole",
        "component": "PythonRepeat",
        "label": "Repeat input data without change",
        "icon": "file-word-o",
        "inports": [{"id": "in", "type": "any", "queue": "myrole.IN"}],
        "outports": [{"id": "out", "type": "any", "queue": "myrole.OUT"}],
    }


async def test_a_port_may_name_its_queue_and_one_that_is_hidden_has_none(network):
    thing = make(
        Repeat.process,
        {
            "component": "Door",
            "inports": [{"id": "open", "type": "boolean", "queue": "/doors/3/open"}],
            "outports": [{"id": "out", "schema": {"type": "number"}}, {"id": "x", "hidden": True}],
        },
    )
    await network.start(thing)
    await turns(3)
    (said,) = network.heard
    assert said["payload"]["inports"] == [
        {"id": "open", "type": "boolean", "queue": "/doors/3/open"}
    ]
    assert said["payload"]["outports"] == [
        {"id": "out", "type": "any", "queue": "r.OUT", "schema": {"type": "number"}}
    ]
    assert thing.definition["id"] == said["payload"]["id"]


@pytest.mark.parametrize(
    ("definition", "role", "said"),
    [
        ("Repeat", "r", "the definition of 'r' is 'Repeat'; expected a dict"),
        ({}, "", "a participant's role is ''; expected a text"),
        ({"inports": {"in": "any"}}, "r", "expected a list"),
        ({"inports": ["in"]}, "r", "has 'in' among its inports; expected a dict with an 'id'"),
        ({"outports": [{"id": "a"}, {"id": "a"}]}, "r", "has two outports called 'a'"),
    ],
)
def test_a_wrong_definition_says_what_is_wrong(definition, role, said):
    with pytest.raises(DefinitionError) as caught:
        msgflo.Participant(definition, role)
    assert said in str(caught.value)


def test_the_definition_that_was_given_is_not_changed():
    definition = {"component": "C", "inports": [{"id": "in"}]}
    msgflo.Participant(definition, "r")
    assert definition == {"component": "C", "inports": [{"id": "in"}]}


# Messages.


@pytest.mark.parametrize("value", [{"bar": "foo"}, 42, 0, False, "", None, [], "text"])
async def test_what_comes_in_is_repeated(network, value):
    collected = await network.collect()
    thing = Repeat("r")
    await network.start(thing)
    await network.put(value)
    await until(lambda: collected)
    assert msgspec.json.encode(collected[0]) == msgspec.json.encode(value)
    assert thing.seen == [("in", value)], "process is told the name of the port"
    await network.until_empty()


async def test_bytes_that_are_no_json_are_bytes_both_ways(network):
    collected = await network.collect()
    await network.start(Repeat)
    await network.put(b"\xff\x00\x01")
    await until(lambda: collected == [b"\xff\x00\x01"])


def test_a_message_has_its_data_as_json_as_bytes_and_as_it_came():
    message = Message(b'{"a": 1}')
    assert (message.data, message.json, message.buffer) == ({"a": 1}, {"a": 1}, b'{"a": 1}')
    message = Message(b"\xff")
    assert (message.data, message.buffer) == (b"\xff", b"\xff")
    assert isinstance(message.json, ValueError)
    assert "the payload is not JSON" in str(message.json)
    assert Message(b"", {}).data == b""


async def test_the_ports_of_one_object_are_told_apart_and_it_handles_one_at_a_time(network):
    seen, met = [], []
    meeting = threading.Barrier(2)

    def process(self, inport, msg):
        if msg.data == 0:  # would the other port's thread come in, too?
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(0.1)
                met.append(inport)
        seen.append((inport, msg.data))
        self.ack(msg)

    definition = {"component": "C", "inports": [{"id": "one"}, {"id": "Two"}]}
    await network.start(make(process, definition))
    for number in range(50):
        await network.put(number, "r.ONE")
        await network.put(number, "r.TWO")
    await until(lambda: len(seen) == 100)
    assert met == []
    assert [data for port, data in seen if port == "one"] == list(range(50))
    assert [data for port, data in seen if port == "Two"] == list(range(50))


# Acknowledging.


async def test_it_is_settled_when_it_is_acked_and_all_that_was_sent_before_is_confirmed(network):
    client = await network.client(HoldingClient)
    collected = await network.collect()
    messages = []

    def process(self, inport, msg):
        # From a thread of the component's own, which no message is known to belong to.
        thread = threading.Thread(target=self.send, args=("out", msg.data))
        thread.start()
        thread.join()
        messages.append(msg)

    thing = make(process)
    await network.start(thing, client=client)
    await network.put(1)
    await until(lambda: collected == [1] and messages)
    thing.ack(messages[0])
    await turns(20)
    assert (await network.stats()).in_flight == 1
    client.let_go()
    await network.until_empty()


async def test_nack_makes_a_dead_letter_and_the_second_word_counts_nothing(network):
    def process(self, inport, msg):
        self.nack(msg)
        self.ack(msg)

    await network.start(make(process))
    await network.put(1)
    (letter,) = await network.until_dead()
    assert (letter.body, letter.death.error) == (b"1", "Nack")


async def test_a_process_that_raises_is_tried_again_as_its_class_says(network):
    calls = []

    def process(self, inport, msg):
        calls.append(msg.data)
        raise ValueError("no")

    await network.start(make(process, retry=msgflo.Retry(3, delay=0)))
    await network.put(1)
    (letter,) = await network.until_dead()
    assert calls == [1, 1, 1]
    assert letter.death.text == "no"


async def test_what_is_never_acked_is_not_lost(network):
    def process(self, inport, msg):
        self.seen = msg.data

    first = make(process, prefetch=3)
    engine = await network.start(first)
    for number in range(5):
        await network.put(number)
    await until(lambda: getattr(first, "seen", None) == 2)
    stats = await network.stats()
    assert (stats.in_flight, stats.waiting) == (3, 2)
    await engine.stop(0.0)
    thing = Repeat("r")
    await network.start(thing)
    await until(lambda: len(thing.seen) == 5)
    assert sorted(data for _, data in thing.seen) == [0, 1, 2, 3, 4]


# Sending.


async def test_what_is_sent_before_it_runs_is_sent_when_it_does(network):
    collected = await network.collect()
    thing = Repeat("r")
    thing.send("out", 1)
    thing.send("OUT", 2)
    with pytest.raises(UnknownPort, match=r"'otu'.*Did you mean 'out'"):
        thing.send("otu", 3)
    with pytest.raises(PayloadError, match="cannot send a value of type object"):
        thing.send("out", object())
    await network.start(thing)
    thing.send("out", 3)
    await until(lambda: collected == [1, 2, 3])
    with pytest.raises(UnknownPort):
        thing.send("otu", 3)


async def test_one_that_never_runs_does_not_collect_for_ever():
    thing = Repeat("r")
    for number in range(EARLY):
        thing.send("out", number)
    with pytest.raises(ConnectionLost, match="'r' does not run, and 1000 packets wait already"):
        thing.send("out", 0)


async def test_a_thread_that_sends_periodically_ends_with_the_participant(network):
    """The idiom of sensors: a loop of their own, in a thread that the constructor starts."""
    ended = []

    class Sensor(msgflo.Participant):
        def __init__(self, role):
            self.more = threading.Event()
            msgflo.Participant.__init__(self, {"component": "Sensor", "inports": []}, role)
            threading.Thread(target=self.loop, daemon=True).start()

        def loop(self):
            try:
                for number in itertools.count():
                    self.send("out", number)
                    if number == 10:
                        self.more.wait(20)
            except ConnectionLost as error:
                ended.append(str(error))

    collected = await network.collect()
    thing = Sensor("r")
    engine = await network.start(thing)
    thing.more.set()
    await until(lambda: len(collected) > 2000)
    assert collected[:2000] == list(range(2000)), "none is lost and none overtakes"
    await engine.stop(1.0)
    await engine.close()
    await until(lambda: ended)


async def test_an_object_that_runs_cannot_run_twice_and_the_first_goes_on(network):
    collected = await network.collect()
    thing = Repeat("r")
    await network.start(thing)
    other = await network.make(thing, "r", 2)
    with pytest.raises(DefinitionError, match="Repeat runs already as 'r'; make another object"):
        await other.start()
    await other.stop(0.0)
    await other.close()
    await network.put(1)
    await until(lambda: collected == [1])


# Initial packets and reconnects.


async def test_initial_packets_come_through_process_once_also_when_the_connection_is_lost(
    network,
):
    thing = Repeat("r")
    client = await network.client()
    await network.start(thing, client=client, initials={"in": {"size": 0}}, period=1000.0)
    await until(lambda: thing.seen == [("in", {"size": 0})])
    network.hub.cut(client)
    await turns(5)
    network.hub.restore(client)
    await network.put(2)
    await until(lambda: len(thing.seen) == 2)
    assert thing.seen == [("in", {"size": 0}), ("in", 2)]
    assert len(network.heard) == 1


def test_an_async_process_is_refused_before_messages_are_lost_on_it():
    async def process(self, inport, msg): ...

    with pytest.raises(DefinitionError, match=r"Classic\.process\(\) is async; expected def"):
        declared(make(process))


async def test_a_class_that_does_not_override_process_is_told(network):
    class Empty(msgflo.Participant):
        pass

    with pytest.warns(UserWarning, match="Empty has inports but does not override process"):
        await network.start(Empty({"component": "Empty"}, "r"))
    await network.put(1)
    (letter,) = await network.until_dead()
    assert letter.death.error == "NotImplementedError"
