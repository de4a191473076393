"""AMQP treated badly: by its broker, its network, and by resources that run out."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from msgflo import conformance
from msgflo.errors import ConnectFailed, ConnectionLost
from msgflo.flow.binding import Binding, Kind
from msgflo.transport.amqp import Broker, Client
from msgflo.transport.amqp_link import spec
from msgflo.transport.contract import MESSAGE_ID, Death, Delivery, Inlet
from proxy import proxied
from rabbitmq import RabbitMQ

PATIENCE = 30.0
INLET = Inlet("work.IN", 1)
SHARED = Binding(Kind.ROUNDROBIN, "feed.OUT", "work.IN")


class Taker:
    """Notes what it gets, and holds it until it is told to settle."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.got: list[Delivery] = []
        self.settles = True

    async def take(self, inlet: Inlet = INLET, prefetch: int = 10) -> None:
        await self.client.declare([inlet], [])
        await self.client.consume(inlet, prefetch, self.deliver)

    def deliver(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        if self.settles:
            self.client.settle(delivery)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.got]


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


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


async def put(broker: Broker, *numbers: int) -> None:
    for number in numbers:
        await broker.enqueue("work.IN", b"%d" % number, {MESSAGE_ID: f"id-{number}"})


async def drained(broker: Broker, queue: str = "work.IN") -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = {one.queue: one for one in await broker.queues([queue])}
            if not any(
                one.waiting + one.in_flight for one in found.values() if one.queue[:5] != "dead-"
            ):
                return
            await asyncio.sleep(0.05)


async def test_a_channel_that_the_broker_closes_is_opened_anew_and_loses_nothing(
    client: Client, broker: Broker
) -> None:
    taker = Taker(client)
    taker.settles = False
    await taker.take(prefetch=3)
    await put(broker, 1, 2, 3, 4)
    await until(lambda: len(taker.got) == 3)
    channel = client._intakes["work.IN", 1].channel
    assert channel is not None
    channel.tell(spec.Basic.Ack(delivery_tag=9999))  # the broker has no such number: 406
    await until(lambda: not channel.open)
    client.settle(taker.got[0])
    taker.settles = True
    for delivery in taker.got[1:]:
        client.settle(delivery)
    await until(lambda: len(taker.got) == 4)
    await drained(broker)
    assert sorted(taker.bodies) == [b"1", b"2", b"3", b"4"]


async def test_a_connection_that_the_broker_closes_is_made_again(
    client: Client, broker: Broker, rabbitmq: str, rabbitmq_of_session: RabbitMQ
) -> None:
    reasons: list[str] = []
    back = asyncio.Event()
    client.on_lost(reasons.append)
    client.on_restored(back.set)
    taker = Taker(client)
    await taker.take()
    # The management notices a connection after some seconds; this is the broker's own way.
    client.link._wire.put(b"\x01\x00\x63\x00\x00\x00\x04\xff\xff\xff\xff\xce")  # no such method
    async with asyncio.timeout(PATIENCE):
        await back.wait()
    assert len(reasons) == 1
    assert "the broker closed" in reasons[0]
    await put(broker, 1)
    await until(lambda: taker.bodies == [b"1"])


async def test_a_consumer_whose_queue_is_deleted_makes_it_again(
    client: Client, broker: Broker
) -> None:
    taker = Taker(client)
    await taker.take()
    for queue in ("work.IN", "work.IN@1"):
        await broker.link.call(spec.Queue.Delete(queue=queue))
        await until(lambda: client._intakes["work.IN", 1].place.credit)
        await broker.enqueue(queue, queue.encode(), {MESSAGE_ID: queue})
        await until(lambda: queue.encode() in taker.bodies)  # noqa: B023 - called at once


async def test_a_dead_letter_makes_the_queue_again_that_is_missing(
    client: Client, broker: Broker
) -> None:
    taker = Taker(client)
    taker.settles = False
    await taker.take()
    await put(broker, 1)
    await until(lambda: taker.got)
    await broker.link.call(spec.Queue.Delete(queue="dead-work.IN"))
    client.bury(taker.got[0], Death("work.IN", error="ValueError"))
    await client.flush(PATIENCE)
    assert [letter.body for letter in await broker.dead_letters("work.IN")] == [b"1"]
    await drained(broker)


async def test_a_source_whose_exchange_is_deleted_is_made_again(
    client: Client, broker: Broker
) -> None:
    taker = Taker(client)
    await taker.take()
    await broker.bind(SHARED)
    client.send("feed.OUT", b"1", {MESSAGE_ID: "1"}, lambda error: None)
    await until(lambda: taker.bodies == [b"1"])
    await broker.link.call(spec.Exchange.Delete(exchange="feed.OUT"))
    answers: list[Exception | None] = []
    client.send("feed.OUT", b"2", {MESSAGE_ID: "2"}, answers.append)
    await until(lambda: answers)
    assert answers == [None]
    await broker.bind(SHARED)
    client.send("feed.OUT", b"3", {MESSAGE_ID: "3"}, answers.append)
    await until(lambda: taker.bodies == [b"1", b"3"])


async def test_a_delay_that_outlasts_a_place_is_waited_for_in_legs(
    client: Client, broker: Broker
) -> None:
    taker = Taker(client)
    taker.settles = False
    inlet = Inlet("work.IN", 2, 1.0)
    await taker.take(inlet)
    await broker.enqueue(inlet.place, b"1", {MESSAGE_ID: "1"})
    await until(lambda: taker.got)
    loop = asyncio.get_running_loop()
    started = loop.time()
    client.retry(taker.got[0], 2.0)
    taker.settles = True
    await until(lambda: len(taker.got) == 2)
    assert loop.time() - started >= 1.9
    assert (taker.got[1].attempt, taker.got[1].postponed) == (2, 0)


async def test_a_network_that_lets_nothing_through_is_noticed_by_its_heartbeat(
    rabbitmq: str, rabbitmq_of_session: RabbitMQ
) -> None:
    async with proxied(rabbitmq_of_session.port) as proxy:
        url = rabbitmq.replace(str(rabbitmq_of_session.port), str(proxy.port))
        client = Client(url + "?heartbeat=1")
        await client.connect(PATIENCE)
        lost = asyncio.Event()
        client.on_lost(lambda reason: lost.set())
        proxy.hold()
        async with asyncio.timeout(PATIENCE):
            await lost.wait()
        with pytest.raises(ConnectionLost, match="there is no connection to it"):
            await client.flush(0.5)
        proxy.cut()
        proxy.release()
        await until(lambda: client.connected)
        await client.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace("guest:guest", "guest:wrong"), "the user or password in the URL"),
        (lambda url: f"{url}-not", "virtual host in the URL does not exist"),
        (lambda url: url.replace("amqp:", "amqps:"), "the encrypted connection failed"),
    ],
)
async def test_a_broker_that_refuses_us_is_not_asked_again_and_again(
    change: Callable[[str], str], reason: str, rabbitmq: str
) -> None:
    client = Client(change(rabbitmq))
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(ConnectFailed) as caught:
        await client.connect(PATIENCE)
    assert reason in str(caught.value)
    assert "wrong" not in str(caught.value).replace("is wrong or missing", "")
    assert loop.time() - started < PATIENCE
    await client.close()


async def test_instance_numbers_are_kept_while_their_holder_reconnects(rabbitmq: str) -> None:
    holder, other = Client(rabbitmq), Client(rabbitmq)
    await holder.connect(PATIENCE)
    await other.connect(PATIENCE)
    assert await holder.claim("role") == 1
    back = asyncio.Event()
    holder.on_restored(back.set)
    holder.link._wire.abort()
    assert await other.claim("role") == 2
    async with asyncio.timeout(PATIENCE):
        await back.wait()
    await holder.close()
    await other.close()


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "pubsub_copies_to_every_instance",
        "never_ended_counts",
        "a_delayed_retry_waits",
        "a_hand_back_is_remembered",
        "dead_letters_are_read_page_by_page",
        "a_dead_letter_is_requeued",
        "bindings_are_listed",
    ],
)
async def test_quorum_queues_keep_the_promise(name: str, rabbitmq: str) -> None:
    results = await conformance.check_transport(
        f"{rabbitmq}?queues=quorum", only=[name], patience=24.0
    )
    assert results[0].outcome is conformance.Outcome.KEPT


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_broker_without_memory_takes_messages_when_it_has_some_again(
    rabbitmq_process: RabbitMQ,
) -> None:
    url = rabbitmq_process.vhost()
    client, broker = Client(url), Broker(url)
    await client.connect(PATIENCE)
    await broker.connect(PATIENCE)
    await broker.bind(SHARED)
    taker = Taker(client)
    await taker.take()
    await asyncio.to_thread(rabbitmq_process.control, "set_vm_memory_high_watermark", "0.000001")
    answers: list[Exception | None] = []
    for number in range(50):
        client.send("feed.OUT", b"%d" % number, {MESSAGE_ID: str(number)}, answers.append)
        await asyncio.sleep(0.002)
    await until(lambda: client.link.blocked)
    with pytest.raises(ConnectionLost, match="takes no messages now: low on memory"):
        await client.flush(0.5)
    await asyncio.to_thread(rabbitmq_process.control, "set_vm_memory_high_watermark", "0.6")
    await until(lambda: len(answers) == 50)
    assert answers == [None] * 50
    await until(lambda: len(taker.got) == 50)
    assert sorted(map(int, taker.bodies)) == list(range(50))
    await client.close()
    await broker.close()


# Encrypted.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates by it for the broker and for a client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("broker.test", "client"):
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.req", "-subj", f"/CN={name}")
        (folder / "more").write_text(f"subjectAltName=DNS:{name}\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.req", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "more", "-out", f"{name}.pem"),
        )
    return folder


@pytest.fixture(scope="module")
def encrypted(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq-tls"), certificates=certificates)
    server.start()
    yield server
    server.stop()


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_connection_is_encrypted_and_both_sides_are_known(
    encrypted: RabbitMQ, certificates: Path
) -> None:
    url = f"amqps://guest:guest@127.0.0.1:{encrypted.tls_port}"
    ca = f"ca={certificates / 'ca.pem'}"
    ours = f"cert={certificates / 'client.pem'}&key={certificates / 'client.key'}"
    client = Client(f"{url}?{ca}&{ours}&sni=broker.test")
    await client.connect(PATIENCE)
    taker = Taker(client)
    await taker.take()
    client.send("work.IN", b"x" * 300_000, {MESSAGE_ID: "1"}, lambda error: None)
    await until(lambda: [len(body) for body in taker.bodies] == [300_000])
    await client.close()
    for wrong, reason in (
        (f"{ca}&{ours}", "its certificate is not to be trusted"),  # it is for another name
        (f"{ours}&sni=broker.test", "its certificate is not to be trusted"),
        (f"{ca}&sni=broker.test", "refused|closed the connection"),  # the broker wants ours
    ):
        client = Client(f"{url}?{wrong}")
        with pytest.raises(ConnectFailed, match=reason):
            await client.connect(3)
        await client.close()
