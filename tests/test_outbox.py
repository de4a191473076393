"""What a participant sends: who waits for it, under which id, and how much may be on its way."""

import asyncio
import threading

import pytest

from msgflo.errors import ConnectionLost
from msgflo.failure import Failure, Kind
from msgflo.log import ParticipantLog
from msgflo.outbox import CURRENT, Handling, Outbox, Sender
from msgflo.transport.contract import Delivery, Inlet
from networks import HoldingClient, turns, until

JSON = "application/json"


class Owner:
    """Is told of each handling that is over."""

    def __init__(self):
        self.ended = []

    def end(self, handling):
        self.ended.append(handling.failure)


def delivery(message_id="m1", queue="r.IN"):
    return Delivery(Inlet("r.IN", 1), queue, b"1", {}, message_id)


@pytest.fixture
async def client(network):
    return await network.client(HoldingClient)


@pytest.fixture
async def outbox(client):
    return Outbox(client, ParticipantLog("r", 1), limit=3, limit_bytes=1000)


# When a message is over.


def test_a_message_is_over_when_its_handler_and_all_its_packets_are():
    owner = Owner()
    handling = Handling(delivery(), owner)
    handling.sending()
    handling.sending()
    handling.sent(None)
    handling.finish()
    assert owner.ended == []
    handling.sent(None)
    assert owner.ended == [None]
    handling.finish(Failure.nack("too late"))
    assert owner.ended == [None]


def test_a_packet_that_is_not_taken_fails_the_message_that_caused_it():
    owner = Owner()
    handling = Handling(delivery(), owner)
    handling.sending()
    handling.finish()
    handling.sent(ConnectionLost("gone"))
    (failure,) = owner.ended
    assert (failure.kind, failure.error, failure.text) == (Kind.ERROR, "ConnectionLost", "gone")


# The ids of what is sent.


def ids(packets, message_id="m1", queue="r.IN"):
    handling = Handling(delivery(message_id, queue), Owner())
    return [handling.next_id(outport, body) for outport, body in packets]


def test_a_message_that_is_handled_again_sends_the_same_ids():
    packets = [("r.OUT", b"1"), ("r.OUT", b"2"), ("r.ERROR", b"1"), *3 * [("r.OUT", b"1")]]
    assert ids(packets) == ids(packets)
    assert len(set(ids(packets))) == 6, "equal packets are several"


def test_a_handler_that_does_something_else_the_second_time_loses_nothing():
    assert not set(ids([("r.OUT", b"1")])) & set(ids([("r.OUT", b"2"), ("r.ERROR", b"1")]))
    # What it did before, in another order, is still known.
    assert set(ids([("r.OUT", b"2"), ("r.OUT", b"1")])) == set(
        ids([("r.OUT", b"1"), ("r.OUT", b"2")])
    )


def test_what_two_messages_or_two_places_of_one_cause_is_not_the_same():
    packet = [("r.OUT", b"1")]
    assert len({*ids(packet), *ids(packet, "m2"), *ids(packet, queue="r.IN@1")}) == 3


# Whose a packet is.


async def test_a_packet_belongs_to_the_message_that_is_handled(outbox, client):
    owner = Owner()
    handling = Handling(delivery(), owner)
    CURRENT.set(handling)
    Sender(outbox, "out", "r.OUT")(1)
    handling.finish()
    Sender(outbox, "out", "r.OUT")(2)  # too late: it belongs to nobody
    await until(lambda: len(client.held) == 2)
    assert owner.ended == []
    confirmed, error = client.held.pop(0)
    confirmed(error)
    assert owner.ended == [None]
    client.let_go()
    assert owner.ended == [None]


async def test_a_packet_that_belongs_to_nobody_and_is_not_taken_is_told(outbox, client, caplog):
    Sender(outbox, "out", "r.OUT")(b"x" * 9_000_000)
    await until(lambda: client.held)
    client.let_go()
    assert "a packet was not sent: a message has 9000" in caplog.text


async def test_an_acknowledged_message_waits_for_what_was_sent_for_nobody_knows_which(client):
    outbox = Outbox(client, ParticipantLog("r", 1), remember_loose=True)
    owner = Owner()
    handling = Handling(delivery(), owner, manual=True)
    out = Sender(outbox, "out", "r.OUT")
    out("before")
    outbox.wait_for_loose(handling)
    handling.finish()
    out("after")
    await until(lambda: len(client.held) == 2)
    confirmed, error = client.held.pop(0)
    assert owner.ended == []
    confirmed(error)
    assert owner.ended == [None], "what was sent afterwards is not waited for"
    client.let_go()


async def test_nothing_can_be_connected_to_a_hidden_port(outbox, client):
    Sender(outbox, "out", "")(1)
    await turns(5)
    assert client.unconfirmed == 0


# How much may be on its way.


async def test_who_awaits_sending_waits_while_the_outbox_is_full(outbox, client):
    out = Sender(outbox, "out", "r.OUT")
    for number in range(2):
        await out(number)
    waiting = asyncio.ensure_future(out(2))
    await until(lambda: len(client.held) == 3)
    await turns(5)
    assert not waiting.done()
    confirmed, error = client.held.pop(0)
    confirmed(error)
    await waiting


async def test_many_bytes_fill_it_as_well(outbox, client):
    waiting = asyncio.ensure_future(Sender(outbox, "out", "r.OUT")(b"x" * 1000))
    await until(lambda: client.held)
    assert not waiting.done()
    client.let_go()
    await waiting


async def test_a_thread_waits_while_the_outbox_is_full_and_its_packets_keep_their_order(
    outbox, client, network
):
    collected = await network.collect()
    started = []

    def work():
        for number in range(20):
            started.append(number)
            Sender(outbox, "out", "r.OUT")(number)

    thread = threading.Thread(target=work)
    thread.start()
    await until(lambda: len(client.held) == 3)
    await turns(20)
    assert len(started) <= 4, "three are unconfirmed, and with the fourth it waits"
    while thread.is_alive() or client.held:
        client.let_go()
        await asyncio.sleep(0.001)
    await until(lambda: len(collected) == 20)
    assert collected == list(range(20))


async def test_who_waits_for_room_is_let_go_when_the_participant_stops(outbox, client):
    raised = []

    def work():
        try:
            for number in range(20):
                Sender(outbox, "out", "r.OUT")(number)
        except ConnectionLost as error:
            raised.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    await until(lambda: len(client.held) == 3)
    waiting = asyncio.ensure_future(outbox)
    await turns(2)
    outbox.close()
    await waiting
    await until(lambda: not thread.is_alive())
    assert raised == ["the participant has stopped"]


# Calls from threads.


async def test_a_call_from_a_thread_that_fails_does_not_stop_the_others(outbox, caplog):
    done = []

    def work():
        outbox.call(lambda: 1 / 0)
        outbox.call(done.append, 1)

    await outbox.in_thread(work, "t")
    await until(lambda: done)
    assert "ZeroDivisionError" in caplog.text


async def test_what_a_function_in_a_thread_returns_or_raises_comes_back(outbox):
    assert await outbox.in_thread(lambda: threading.current_thread().name, "mine") == "mine"
    with pytest.raises(ZeroDivisionError):
        await outbox.in_thread(lambda: 1 / 0, "t")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await outbox.in_thread(lambda: next(iter(())), "t")
