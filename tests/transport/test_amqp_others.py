"""AMQP beside clients that are not ours, which declare, send and fail in their own ways."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Announcement, Definition, Port
from msgflo.transport.amqp import Broker, Client
from msgflo.transport.amqp_frames import destination, publication, write_content
from msgflo.transport.amqp_link import Arrived, Channel, Link, Refused, spec
from msgflo.transport.amqp_topology import Address
from msgflo.transport.contract import MESSAGE_ID, Delivery, Inlet

PATIENCE = 20.0


class Other:
    """A client that knows nothing of us: it declares, publishes and consumes as it likes."""

    def __init__(self, link: Link, channel: Channel) -> None:
        self.link = link
        self.channel = channel
        self.got: asyncio.Queue[Arrived] = asyncio.Queue()

    async def queue(self, name: str, *, durable: bool = True, **arguments: str) -> None:
        await self.channel.call(
            spec.Queue.Declare(
                queue=name,
                durable=durable,
                arguments={key.replace("_", "-"): value for key, value in arguments.items()},
            )
        )

    async def exchange(self, name: str, *, durable: bool = True) -> None:
        await self.channel.call(
            spec.Exchange.Declare(exchange=name, type="fanout", durable=durable, arguments={})
        )

    async def bind(self, queue: str, exchange: str) -> None:
        await self.channel.call(
            spec.Queue.Bind(queue=queue, exchange=exchange, routing_key="", arguments={})
        )

    def publish(self, exchange: str, key: str, body: bytes) -> None:
        """As msgflo-nodejs does: without any property."""
        content = pika_content(len(body))
        where = destination(exchange, key, mandatory=False)
        self.channel.write(
            publication(self.channel.number, where, content, body, self.channel.most)
        )

    async def consume(self, queue: str) -> None:
        self.channel.consumers[queue.encode()] = self.got.put_nowait
        await self.channel.call(spec.Basic.Consume(queue=queue, consumer_tag=queue, arguments={}))

    async def next(self) -> Arrived:
        async with asyncio.timeout(PATIENCE):
            return await self.got.get()

    async def participant(self, queue: str, outport: str = "") -> None:
        """Declare what msgflo-nodejs declares for an inport and an outport."""
        await self.exchange(f"dead-{queue}")
        await self.queue(queue, x_dead_letter_exchange=f"dead-{queue}")
        await self.exchange(queue)
        await self.bind(queue, queue)
        if outport:
            await self.exchange(outport)

    def announce(self, role: str, queue: str, outport: str = "") -> None:
        definition = Definition(
            f"{role}-x",
            role,
            "other/Thing",
            inports=(Port("in", queue=queue),),
            outports=(Port("out", queue=outport),) if outport else (),
        )
        message = {
            "protocol": "discovery",
            "command": "participant",
            "payload": definition.to_json(),
        }
        self.publish("", "fbp", json.dumps(message).encode())


def pika_content(size: int) -> bytes:
    import pika.frame

    return pika.frame.Header(1, size, spec.BasicProperties()).marshal()[7:-1]


@pytest.fixture
async def other(rabbitmq: str) -> AsyncIterator[Other]:
    link = Link(Address.parse(rabbitmq), rabbitmq, "other")
    await link.connect(PATIENCE)
    yield Other(link, await link.channel())
    await link.close()


@pytest.fixture
async def client(rabbitmq: str) -> AsyncIterator[Client]:
    client = Client(rabbitmq)
    await client.connect(PATIENCE)
    yield client
    await client.close()


@pytest.fixture
async def broker(rabbitmq: str) -> AsyncIterator[Broker]:
    broker = Broker(rabbitmq)
    await broker.connect(PATIENCE)
    yield broker
    await broker.close()


class Taker:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.got: asyncio.Queue[Delivery] = asyncio.Queue()

    async def take(self, inlet: Inlet) -> None:
        await self.client.declare([inlet], [])
        await self.client.consume(inlet, 10, self.got.put_nowait)

    async def next(self) -> Delivery:
        async with asyncio.timeout(PATIENCE):
            delivery = await self.got.get()
        self.client.settle(delivery)
        return delivery


async def sent(client: Client, outport: str, body: bytes, id_: str = "1") -> None:
    answered: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    client.send(outport, body, {MESSAGE_ID: id_}, answered.set_result)
    async with asyncio.timeout(PATIENCE):
        assert await answered is None


async def heard(broker: Broker, role: str) -> None:
    """Listen until a role has been announced."""
    found = asyncio.Event()

    def hear(message: bytes) -> None:
        if json.loads(message)["payload"]["role"] == role:
            found.set()

    await broker.listen(hear)
    async with asyncio.timeout(PATIENCE):
        await found.wait()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


async def test_what_others_declared_differently_is_used_as_it_is(
    other: Other, client: Client, broker: Broker
) -> None:
    await other.queue("cpp.IN")  # msgflo-cpp: no dead-letter exchange
    await other.exchange("cpp.OUT", durable=False)
    taker = Taker(client)
    await taker.take(Inlet("cpp.IN", 1))
    await broker.bind(Binding(Kind.ROUNDROBIN, "cpp.OUT", "cpp.IN"))
    other.publish("cpp.OUT", "", b"1")
    other.publish("", "cpp.IN", b"2")
    assert [(await taker.next()).body, (await taker.next()).body] == [b"1", b"2"]
    await sent(client, "cpp.OUT", b"3")
    assert (await taker.next()).body == b"3"


async def test_others_can_redeclare_what_we_declared(other: Other, client: Client) -> None:
    await client.declare([Inlet("node.IN", 1)], ["node.OUT"])
    await other.participant("node.IN", "node.OUT")
    await other.queue("fbp")
    with pytest.raises(Refused, match="406"):
        await other.queue("node.IN", x_expires="wrong")


async def test_a_queue_that_a_nodejs_participant_left_gets_no_second_copy(
    other: Other, client: Client, broker: Broker
) -> None:
    await other.participant("both.IN")
    taker = Taker(client)
    await taker.take(Inlet("both.IN", 1))
    await broker.bind(Binding(Kind.PUBSUB, "src.OUT", "both.IN"))
    await sent(client, "src.OUT", b"1", "1")
    await sent(client, "src.OUT", b"2", "2")
    assert [(await taker.next()).body, (await taker.next()).body] == [b"1", b"2"]
    stats = {one.queue: one.waiting for one in await broker.queues(["both.IN"])}
    assert stats["both.IN"] == 0


async def test_every_broker_hears_what_others_say_to_the_one_queue(
    other: Other, broker: Broker, rabbitmq: str
) -> None:
    second = Broker(rabbitmq)
    await second.connect(PATIENCE)
    listening = [asyncio.create_task(heard(one, "node")) for one in (broker, second)]
    await until(lambda: broker._heard and second._heard)
    for _ in range(4):
        other.announce("node", "node.IN")
        await asyncio.sleep(0.05)
    await asyncio.gather(*listening)
    await second.close()


async def test_our_announcements_wait_for_others_in_the_one_queue_and_expire(
    other: Other, client: Client
) -> None:
    await client.announce(Announcement(Definition("a-1", "a", "A")).encode())
    await other.consume("fbp")
    arrived = await other.next()
    assert json.loads(arrived.body)["payload"]["role"] == "a"
    assert arrived.exchange == ""


async def test_copies_for_others_go_into_their_queue(
    other: Other, client: Client, broker: Broker
) -> None:
    await other.participant("node.IN")
    await other.consume("node.IN")
    other.announce("node", "node.IN")
    await heard(broker, "node")
    binding = Binding(Kind.PUBSUB, "src.OUT", "node.IN")
    await broker.bind(binding)
    await sent(client, "src.OUT", b"1")
    arrived = await other.next()
    assert (arrived.body, arrived.exchange) == (b"1", "src.OUT")
    await broker.unbind(binding)
    await sent(client, "src.OUT", b"2", "2")
    other.publish("", "node.IN", b"end")
    assert (await other.next()).body == b"end"
    assert await broker.bindings() == []


async def test_two_connections_that_share_one_way_are_removed_one_by_one(
    other: Other, client: Client, broker: Broker
) -> None:
    await other.participant("node.IN")
    await other.consume("node.IN")
    other.announce("node", "node.IN")
    await heard(broker, "node")
    copies, shared = (
        Binding(kind, "src.OUT", "node.IN") for kind in (Kind.PUBSUB, Kind.ROUNDROBIN)
    )
    await broker.bind(copies)
    await broker.bind(shared)
    await broker.unbind(copies)
    await sent(client, "src.OUT", b"1")
    assert (await other.next()).body == b"1"
    await broker.unbind(shared)
    await sent(client, "src.OUT", b"2", "2")
    other.publish("", "node.IN", b"end")
    assert (await other.next()).body == b"end"


async def test_connections_made_before_others_were_heard_reach_them_with_what_waited(
    other: Other, client: Client, broker: Broker
) -> None:
    await broker.bind(Binding(Kind.PUBSUB, "src.OUT", "node.IN"))
    await sent(client, "src.OUT", b"early")
    await other.participant("node.IN")
    await other.consume("node.IN")
    other.announce("node", "node.IN")
    await heard(broker, "node")
    assert (await other.next()).body == b"early"
    await until(lambda: not broker._tasks)
    await sent(client, "src.OUT", b"late", "2")
    assert (await other.next()).body == b"late"
    assert other.got.empty()


async def test_what_others_reject_is_a_dead_letter_that_can_be_requeued(
    other: Other, broker: Broker
) -> None:
    await other.participant("node.IN")
    await other.consume("node.IN")
    other.announce("node", "node.IN")
    await heard(broker, "node")
    await broker.bind(Binding(Kind.ROUNDROBIN, "src.OUT", "node.IN"))
    for _ in range(2):  # alike to the byte
        other.publish("", "node.IN", b'{"a": 1}')
    for _ in range(2):
        arrived = await other.next()
        other.channel.tell(spec.Basic.Nack(delivery_tag=arrived.tag, requeue=False))
    async with asyncio.timeout(PATIENCE):
        while len(letters := await broker.dead_letters("node.IN")) < 2:
            await asyncio.sleep(0.05)
    assert letters[0].key != letters[1].key
    assert letters[0].body == b'{"a": 1}'
    assert (letters[0].death.queue, letters[0].death.error) == ("node.IN", "rejected")
    assert letters[0].death.died > 1_600_000_000
    assert await broker.requeue("node.IN", [letter.key for letter in letters]) == 2
    assert (await other.next()).body == (await other.next()).body == b'{"a": 1}'
    assert await broker.dead_letters("node.IN") == []


async def test_dead_letters_of_others_are_routed(
    other: Other, client: Client, broker: Broker
) -> None:
    await other.participant("node.IN")
    await other.consume("node.IN")
    other.announce("node", "node.IN")
    await heard(broker, "node")
    await broker.bind(Binding(Kind.DEADLETTER, "node.IN", "mend.IN"))
    taker = Taker(client)
    await taker.take(Inlet("mend.IN", 1))
    other.publish("", "node.IN", b"bad")
    arrived = await other.next()
    other.channel.tell(spec.Basic.Nack(delivery_tag=arrived.tag, requeue=False))
    assert (await taker.next()).body == b"bad"


async def test_alike_messages_without_ids_are_each_delivered(other: Other, client: Client) -> None:
    taker = Taker(client)
    await taker.take(Inlet("in", 1))
    for _ in range(20):
        other.publish("", "in", b"1")
    got = [await taker.next() for _ in range(20)]
    assert len({delivery.id for delivery in got}) == 20


async def test_an_original_coordinator_binds_to_the_work_queue_and_misses_nothing(
    other: Other, client: Client
) -> None:
    taker = Taker(client)
    await taker.take(Inlet("ours.IN", 1))
    await other.exchange("node.OUT")
    await other.bind("ours.IN", "node.OUT")
    other.publish("node.OUT", "", b"1")
    assert (await taker.next()).body == b"1"


async def test_entities_that_do_not_outlive_a_listener_are_bound_again_when_announced(
    other: Other, client: Client, broker: Broker
) -> None:
    """msgflo-python's are gone when it goes, with what was bound to them."""
    await other.queue("py/in", durable=False)
    other.announce("py", "py/in")
    await heard(broker, "py")
    await broker.bind(Binding(Kind.PUBSUB, "src.OUT", "py/in"))
    await other.channel.call(spec.Queue.Delete(queue="py/in"))
    await broker.close()
    again = Broker(broker.url)
    await again.connect(PATIENCE)
    listening = asyncio.create_task(heard(again, "py"))
    await until(lambda: again._heard)
    await other.queue("py/in", durable=False)
    other.announce("py", "py/in")
    await listening
    await until(lambda: not again._tasks)
    await other.consume("py/in")
    await sent(client, "src.OUT", b"1")
    assert (await other.next()).body == b"1"
    await again.close()


def test_our_content_is_marked_as_ours() -> None:
    assert b"\x06msgflo" in write_content(0, {MESSAGE_ID: "1"}, 0.0)
    assert b"\x06msgflo" not in pika_content(0)
