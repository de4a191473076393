"""What is told to the broker of what was delivered: the rules, without one."""

import asyncio
from typing import Any

import pika.frame
from hypothesis import given
from hypothesis import strategies as st

from msgflo.transport.amqp_intake import AmqpDelivery, Settlements
from msgflo.transport.amqp_link import Channel
from msgflo.transport.contract import Inlet


class Wire:
    """Takes down what is written."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.most = 131072
        self.blocked = ""
        self.written: list[Any] = []

    def put(self, data: bytes) -> None:
        _, frame = pika.frame.decode_frame(data)
        self.written.append(frame.method)

    def forget(self, channel: Channel) -> None:
        pass


class Broker:
    """What the broker makes of it: numbers that it has delivered and that are not settled."""

    def __init__(self, count: int) -> None:
        self.open = set(range(1, count + 1))

    def settle(self, tag: int, multiple: bool) -> set[int]:
        settled = {it for it in self.open if it <= tag} if multiple else self.open & {tag}
        assert tag in settled, f"{tag} is no open number: the broker would close the channel"
        self.open -= settled
        return settled


def delivered(settlements: Settlements, tag: int) -> AmqpDelivery:
    delivery = AmqpDelivery(Inlet("q", 1), "q", b"", {}, str(tag))
    delivery.channel = settlements
    delivery.tag = tag
    delivery.ended = delivery.finished = delivery.acked = False
    settlements.add(delivery)
    return delivery


@given(st.data(), st.integers(1, 30))
def test_what_is_settled_is_what_is_finished_in_any_order(data: st.DataObject, count: int) -> None:
    order = data.draw(st.permutations(range(1, count + 1)))
    pauses = data.draw(st.sets(st.integers(0, count)))

    async def run() -> None:
        wire, broker = Wire(), Broker(count)
        settlements = Settlements(Channel(wire, 3))
        deliveries = {tag: delivered(settlements, tag) for tag in range(1, count + 1)}
        finished: set[int] = set()
        seen = 0

        def look() -> None:
            nonlocal seen
            for method in wire.written[seen:]:
                settled = broker.settle(method.delivery_tag, method.multiple)
                assert settled <= finished, "settled before it was finished"
            seen = len(wire.written)

        for number, tag in enumerate(order):
            settlements.finish(deliveries[tag])
            finished.add(tag)
            if number in pauses:
                before = len(wire.written)
                await asyncio.sleep(0)
                look()
                # All of a turn that is in one piece takes one settlement.
                assert broker.open == set(deliveries) - finished
                assert len(wire.written) - before <= len(finished)
        await asyncio.sleep(0)
        look()
        assert broker.open == set()

    asyncio.run(run())


async def test_all_that_is_finished_in_one_turn_is_settled_at_once() -> None:
    wire = Wire()
    settlements = Settlements(Channel(wire, 3))
    deliveries = [delivered(settlements, tag) for tag in range(1, 101)]
    for delivery in reversed(deliveries[:99]):
        settlements.finish(delivery)
    await asyncio.sleep(0)
    assert [(it.delivery_tag, it.multiple) for it in wire.written] == [(99, True)]


async def test_nothing_is_settled_on_a_channel_that_has_ended() -> None:
    wire = Wire()
    channel = Channel(wire, 3)
    settlements = Settlements(channel)
    delivery = delivered(settlements, 1)
    channel.abandon(ConnectionError("gone"))
    settlements.finish(delivery)
    settlements.flush()
    await asyncio.sleep(0)
    assert wire.written == []


async def test_what_cannot_be_given_back_is_requeued_by_the_broker_itself() -> None:
    wire = Wire()
    settlements = Settlements(Channel(wire, 3))
    first, second = delivered(settlements, 1), delivered(settlements, 2)
    settlements.requeue_later(first, 0.0)
    settlements.finish(second)
    await asyncio.sleep(0.01)
    nack, ack = sorted(wire.written, key=lambda method: method.delivery_tag)
    assert (nack.NAME, nack.delivery_tag, nack.requeue) == ("Basic.Nack", 1, True)
    assert (ack.NAME, ack.delivery_tag, ack.multiple) == ("Basic.Ack", 2, False)
