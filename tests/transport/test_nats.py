"""NATS, on real servers: the promises of the contract, and what is this transport's own."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from msgflo import conformance
from msgflo.errors import ConfigurationError, ConnectFailed, ConnectionLost, SendFailed
from msgflo.flow.binding import Binding, Kind
from msgflo.transport import contract
from msgflo.transport.contract import MESSAGE_ID, Death, Delivery, Inlet
from msgflo.transport.nats import Broker, Client
from proxy import proxied
from servers import NatsServer

TOO_LARGE = 9_000_000
"""The servers of these tests take 8 MB."""

SOON = "?redelivery=2"
"""So that what a dead participant had comes again within a test's patience."""


async def abandon(client: contract.Client) -> None:
    assert isinstance(client, Client)
    await client.abandon()


def checks(*, restart: bool) -> list[conformance.Check]:
    return [check for check in conformance.checks() if ("restart" in check.needs) is restart]


@pytest.mark.parametrize("check", checks(restart=False), ids=str)
async def test_it_keeps_the_promise(
    check: conformance.Check, nats_server_of_session: NatsServer, nats_server: str
) -> None:
    async with proxied(nats_server_of_session.port) as proxy:

        async def cut() -> None:
            proxy.cut()

        results = await conformance.check_transport(
            nats_server.replace(str(nats_server_of_session.port), str(proxy.port)) + SOON,
            only=[check.name],
            cut=cut,
            drop=abandon,
            too_large=TOO_LARGE,
            nowhere="nats://me:secret@127.0.0.1:1",
        )
    assert results[0].outcome is conformance.Outcome.KEPT


@pytest.mark.parametrize("check", checks(restart=True), ids=str)
async def test_it_keeps_the_promise_when_the_server_is_killed(
    check: conformance.Check, nats_server_process: NatsServer
) -> None:
    async def restart() -> None:
        nats_server_process.kill()
        await asyncio.to_thread(nats_server_process.start)

    results = await conformance.check_transport(
        nats_server_process.url + SOON, only=[check.name], restart=restart, drop=abandon
    )
    assert results[0].outcome is conformance.Outcome.KEPT


# What follows is this transport's own.

SOURCE, QUEUE = "feed.OUT", "work.IN"
SHARED = Binding(Kind.ROUNDROBIN, SOURCE, QUEUE)
COPIED = Binding(Kind.PUBSUB, SOURCE, QUEUE)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(50):
        while not condition():
            await asyncio.sleep(0.005)


class Worker:
    """A client that takes from the queue and settles, or holds."""

    def __init__(self, client: Client, instance: int = 1) -> None:
        self.client = client
        self.inlet = Inlet(QUEUE, instance)
        self.deliveries: list[Delivery] = []
        self.open: list[Delivery] = []
        self.holding = False
        self.told = asyncio.Event()

    async def take(self, prefetch: int = 1, *, hold: bool = False) -> None:
        self.holding = hold
        await self.client.declare([self.inlet], [])
        await self.client.consume(self.inlet, prefetch, self.deliver)

    def deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.holding:
            self.open.append(delivery)
        else:
            self.client.settle(delivery)

    def settle_all(self) -> None:
        self.holding = False
        while self.open:
            self.client.settle(self.open.pop())

    @property
    def numbers(self) -> list[int]:
        return [int(delivery.body) for delivery in self.deliveries]


class Feed:
    """A client that sends numbers and knows which were confirmed."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sent = 0
        self.confirmed: list[int] = []

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            number = self.sent
            self.sent += 1
            self.client.send(
                SOURCE, b"%d" % number, {MESSAGE_ID: f"feed-{number}"}, self.answer(number)
            )

    def answer(self, number: int) -> Callable[[Exception | None], None]:
        def call(error: Exception | None) -> None:
            assert error is None or isinstance(error, ConnectionLost), error
            if error is None:
                self.confirmed.append(number)

        return call

    async def flow(self) -> None:
        """Send on and on, as fast as the broker confirms."""
        while True:
            if self.client.unconfirmed < 1000:
                self.send(20)
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def network(url: str, workers: int = 1) -> AsyncIterator[tuple[Broker, Feed, list[Worker]]]:
    """A Broker, a client that sends, and some that work, all connected."""
    broker = Broker(url)
    clients = [Client(url) for _ in range(workers + 1)]
    try:
        await broker.connect()
        for client in clients:
            await client.connect()
        yield (
            broker,
            Feed(clients[0]),
            [Worker(client, number) for number, client in enumerate(clients[1:], 1)],
        )
    finally:
        for connection in (*clients, broker):
            await connection.close()


@contextlib.asynccontextmanager
async def meanwhile(work) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def accounted_for(feed: Feed, workers: list[Worker]) -> None:
    """Wait until everything that was sent is confirmed and has come."""
    await until(lambda: len(feed.confirmed) == feed.sent)
    await until(lambda: {*range(feed.sent)} <= {n for worker in workers for n in worker.numbers})


async def room_is_whole(broker: Broker, worker: Worker, prefetch: int) -> None:
    """See that a worker holds as many as it said, and no fewer: no slot was lost on the way."""
    worker.holding = True
    for number in range(3 * prefetch):
        await broker.enqueue(worker.inlet.place, b"0", {MESSAGE_ID: f"room-{number}"})
    await until(lambda: len(worker.open) == prefetch)
    worker.settle_all()


# The server is treated badly.


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_server_that_ends_under_load_again_and_again_loses_nothing(
    nats_server_process: NatsServer, how: str
):
    prefetch = 50
    async with network(nats_server_process.url + SOON, workers=2) as (broker, feed, workers):
        await broker.bind(SHARED)
        for worker in workers:
            await worker.take(prefetch)
        async with meanwhile(feed.flow()):
            for _ in range(3):
                reached = len(feed.confirmed) + 500
                await until(lambda reached=reached: len(feed.confirmed) >= reached)
                getattr(nats_server_process, how)()
                await asyncio.to_thread(nats_server_process.start)
                await until(lambda: all(worker.client.connected for worker in workers))
        await accounted_for(feed, workers)
        for worker in workers:
            await room_is_whole(broker, worker, prefetch)


async def test_what_is_held_while_the_server_is_killed_takes_no_room_for_ever(
    nats_server_process: NatsServer,
):
    async with network(nats_server_process.url + SOON) as (broker, feed, [worker]):
        await broker.bind(COPIED)
        await worker.take(5, hold=True)
        for _ in range(3):
            feed.send(20)
            await until(lambda: len(worker.open) == 5)
            nats_server_process.kill()
            await asyncio.to_thread(nats_server_process.start)
            await until(lambda: worker.client.connected)
        worker.settle_all()
        await accounted_for(feed, [worker])
        await room_is_whole(broker, worker, 5)


async def test_a_server_that_is_frozen_for_a_while_loses_nothing(nats_server_process: NatsServer):
    async with network(nats_server_process.url + SOON) as (broker, feed, [worker]):
        await broker.bind(SHARED)
        await worker.take(20)
        async with meanwhile(feed.flow()):
            await until(lambda: len(worker.deliveries) > 100)
            nats_server_process.freeze()
            # Longer than the redelivery time.
            await until(lambda: feed.client.unconfirmed >= 1000)
            await asyncio.sleep(2.5)
            nats_server_process.thaw()
            seen = len(worker.deliveries)
            await until(lambda: len(worker.deliveries) > seen + 1000)
        await accounted_for(feed, [worker])
        await room_is_whole(broker, worker, 20)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_server_that_hangs_is_noticed_and_left(nats_server_process: NatsServer):
    async with network(nats_server_process.url + SOON) as (broker, feed, [worker]):
        await broker.bind(SHARED)
        await worker.take(1)
        lost: list[str] = []
        feed.client.on_lost(lost.append)
        nats_server_process.freeze()
        feed.send(10)
        await until(lambda: lost)
        assert "stopped answering" in lost[0]
        with pytest.raises(ConnectionLost, match="10 messages were not confirmed"):
            await feed.client.flush(0.5)
        nats_server_process.thaw()
        await accounted_for(feed, [worker])


async def test_who_closes_while_the_server_hangs_does_not_hang_too(nats_server_process: NatsServer):
    async with network(nats_server_process.url) as (_, _, [worker]):
        await worker.take(1)
        nats_server_process.freeze()
        started = time.monotonic()
        await worker.client.close()
        # Not five seconds for each question that it asks.
        assert time.monotonic() - started < 9
        nats_server_process.thaw()


async def test_a_network_that_drops_everything_for_a_while_loses_nothing(
    nats_server_of_session: NatsServer, nats_server: str
):
    async with proxied(nats_server_of_session.port) as proxy:
        url = nats_server.replace(str(nats_server_of_session.port), str(proxy.port)) + SOON
        async with network(url, workers=2) as (broker, feed, workers):
            await broker.bind(SHARED)
            for worker in workers:
                await worker.take(20)
            async with meanwhile(feed.flow()):
                for _ in range(5):
                    reached = len(feed.confirmed) + 300
                    await until(lambda reached=reached: len(feed.confirmed) >= reached)
                    before = proxy.connections
                    proxy.accepting = False
                    proxy.cut()
                    await until(lambda before=before: proxy.connections > before + 3)
                    proxy.accepting = True
            await accounted_for(feed, workers)
            for worker in workers:
                await room_is_whole(broker, worker, 20)


async def test_a_delayed_retry_keeps_its_time_when_the_server_is_killed(
    nats_server_process: NatsServer,
):
    async with network(nats_server_process.url + "?redelivery=1") as (broker, feed, [worker]):
        await broker.bind(SHARED)
        await worker.take(1, hold=True)
        feed.send()
        await until(lambda: worker.open)
        worker.client.retry(worker.open.pop(), 4.0)
        due = time.time() + 4.0
        await worker.client.flush()
        nats_server_process.kill()
        await asyncio.to_thread(nats_server_process.start)
        await until(lambda: worker.open)
        assert time.time() >= due - 0.1
        assert (worker.open[0].attempt, worker.open[0].postponed) == (2, 0)
        worker.settle_all()


async def test_work_that_takes_longer_than_the_redelivery_time_is_not_given_to_others(
    nats_server: str,
):
    async with network(nats_server + "?redelivery=1", workers=2) as (broker, feed, workers):
        await broker.bind(SHARED)
        slow, other = workers
        await slow.take(1, hold=True)
        feed.send()
        await until(lambda: slow.open)
        await other.take(1)
        held, until_then = slow.open[0], time.monotonic() + 3.5
        number = 0
        while time.monotonic() < until_then:
            number += 1
            await broker.enqueue(QUEUE, b"%d" % number, {MESSAGE_ID: f"other-{number}"})
            await until(lambda number=number: len(other.deliveries) == number)
        assert slow.deliveries == [held]
        assert 0 not in other.numbers
        slow.settle_all()


async def test_the_place_of_a_participant_that_died_keeps_its_order(nats_server: str):
    """Though the server would not deliver what was open for another ten seconds."""
    async with network(nats_server) as (broker, feed, [worker]):
        await broker.bind(COPIED)
        await worker.take(3, hold=True)
        feed.send(6)
        await until(lambda: len(worker.open) == 3)
        await worker.client.abandon()
        again = Worker(Client(nats_server))
        await again.client.connect()
        await again.take(1)
        await until(lambda: len(again.deliveries) >= 6)
        assert again.numbers == [0, 1, 2, 3, 4, 5]
        assert [delivery.attempt for delivery in again.deliveries] == [2, 2, 2, 1, 1, 1]
        await again.client.close()


async def test_a_stream_that_somebody_deletes_is_made_again(nats_server: str):
    async with network(nats_server) as (broker, feed, [worker]):
        await broker.bind(SHARED)
        await worker.take(2, hold=True)
        feed.send(5)
        await until(lambda: len(worker.open) == 2)
        await broker.link.api(f"STREAM.DELETE.{broker.names.stream}")
        worker.holding = False
        feed.send(20)
        await until(lambda: len(feed.confirmed) == feed.sent)
        worker.settle_all()
        await until(lambda: {*range(5, 25)} <= {*worker.numbers})
        await room_is_whole(broker, worker, 2)


async def test_who_only_takes_finds_a_stream_that_was_deleted_too(nats_server: str):
    async with network(nats_server) as (broker, _, [worker]):
        await broker.bind(SHARED)
        await worker.take(1)
        await broker.link.api(f"STREAM.DELETE.{broker.names.stream}")
        consumer = broker.names.consumer(QUEUE)
        async with asyncio.timeout(30):
            while await broker.wiring.info(consumer) is None:
                await asyncio.sleep(0.05)
        await broker.enqueue(QUEUE, b"1", {MESSAGE_ID: "1"})
        await until(lambda: worker.numbers == [1])


async def test_what_is_put_into_a_queue_while_the_server_is_killed_gets_there(
    nats_server_process: NatsServer,
):
    async with network(nats_server_process.url + SOON) as (broker, _, [worker]):
        await worker.take(10)

        async def put() -> int:
            number = 0
            while True:
                await broker.enqueue(QUEUE, b"%d" % number, {MESSAGE_ID: f"put-{number}"})
                number += 1
                if number >= 200 and killed.is_set():
                    return number

        killed = asyncio.Event()
        putting = asyncio.create_task(put())
        for times in (1, 2):
            await until(lambda times=times: len(worker.deliveries) > 50 * times)
            nats_server_process.kill()
            await asyncio.to_thread(nats_server_process.start)
        killed.set()
        async with asyncio.timeout(40):
            count = await putting
        await until(lambda: {*worker.numbers} == {*range(count)})


async def test_questions_wait_for_a_server_that_is_about_to_be_back(
    nats_server_process: NatsServer,
):
    async with network(nats_server_process.url) as (broker, feed, [worker]):
        await broker.bind(SHARED)
        await worker.take(1)
        nats_server_process.kill()
        await until(lambda: not broker.connected and not feed.client.connected)
        heard: list[bytes] = []
        asked = [
            asyncio.create_task(question)
            for question in (
                broker.queues(),
                broker.bindings(),
                broker.dead_letters(QUEUE),
                broker.listen(heard.append),
                broker.tap(SOURCE, lambda tapped: None),
                broker.bind(COPIED),
                broker.enqueue(QUEUE, b"1", {MESSAGE_ID: "1"}),
                feed.client.declare([Inlet("other.IN", 1)], []),
                feed.client.claim("role"),
            )
        ]
        await asyncio.to_thread(nats_server_process.start)
        async with asyncio.timeout(40):
            answers = await asyncio.gather(*asked)
        assert SHARED in answers[1]
        assert answers[-1] == 1


# Under load.


async def test_moving_a_connection_to_and_fro_under_load_misses_and_misroutes_nothing(
    nats_server: str,
):
    async with network(nats_server, workers=2) as (broker, feed, [here, there]):
        there.inlet = Inlet("other.IN", 1)
        moved = Binding(Kind.ROUNDROBIN, SOURCE, "other.IN")
        await broker.bind(SHARED)
        for worker in (here, there):
            await worker.take(50)
        only: dict[Worker, set[int]] = {here: set(), there: set()}
        async with meanwhile(feed.flow()):
            for _ in range(4):
                for old, new, worker in ((SHARED, moved, there), (moved, SHARED, here)):
                    await broker.bind(new)
                    await broker.unbind(old)
                    first = feed.sent
                    await until(lambda first=first: feed.sent > first + 200)
                    only[worker] |= {*range(first, feed.sent)}
        await accounted_for(feed, [here, there])
        assert not only[here] & {*there.numbers}
        assert not only[there] & {*here.numbers}
        assert len(here.numbers) == len({*here.numbers})
        assert len(there.numbers) == len({*there.numbers})


async def test_a_tap_of_what_goes_nowhere_keeps_nothing_and_touches_nothing(nats_server: str):
    async with network(nats_server) as (broker, feed, [worker]):
        seen: list[bytes] = []
        tap = await broker.tap(SOURCE, lambda tapped: seen.append(tapped.body))
        before = await broker.wiring.consumers()
        feed.send(500)
        await until(lambda: len(seen) == 500)
        info = await broker.link.api(f"STREAM.INFO.{broker.names.stream}")
        assert info["state"]["messages"] == 0
        assert await broker.wiring.consumers() == before
        await tap.close()
        await broker.bind(SHARED)
        await worker.take(100)
        feed.send(500)
        await until(lambda: len(worker.deliveries) == 500)
        assert len(seen) == 500


# Dead letters.


def death(delivery: Delivery, text: str = "bad") -> Death:
    return Death(
        delivery.queue, "work", 1, delivery.attempt, "ValueError", text, text * 9, 1.0, 2.0
    )


async def test_more_dead_letters_than_one_answer_holds_are_paged_requeued_and_discarded(
    nats_server: str,
):
    count = 1200
    async with network(nats_server) as (broker, feed, [worker]):
        await broker.bind(SHARED)
        worker.deliver = lambda delivery: worker.client.bury(delivery, death(delivery))
        await worker.take(100)
        feed.send(count)
        letters: list[contract.DeadLetter] = []
        async with asyncio.timeout(50):
            while len(letters) < count:
                letters = await broker.dead_letters(QUEUE, 5000)
        assert {int(letter.body) for letter in letters} == {*range(count)}
        keys = [letter.key for letter in letters]
        assert len({*keys}) == count
        paged: list[str] = []
        while page := await broker.dead_letters(QUEUE, 700, paged[-1] if paged else ""):
            paged += [letter.key for letter in page]
        assert paged == keys
        assert await broker.discard(QUEUE, keys[:600]) == 600
        await worker.client.pause(worker.inlet)
        del worker.deliver
        await worker.client.consume(worker.inlet, 100, worker.deliver)
        assert await broker.requeue(QUEUE, keys) == 600
        await until(lambda: len(worker.deliveries) == 600)
        assert {*worker.numbers} == {int(letter.body) for letter in letters[600:]}
        assert await broker.dead_letters(QUEUE) == []


async def test_the_largest_message_that_can_be_sent_can_die(nats_server: str):
    async with network(nats_server) as (broker, feed, [worker]):
        await broker.bind(SHARED)
        said: list[Exception | None] = []
        headers = {MESSAGE_ID: "largest"}
        size = 8 * 1024 * 1024
        feed.client.send(SOURCE, bytes(size), headers, said.append)
        await until(lambda: said)
        assert isinstance(said[0], SendFailed)
        most = int(re.search(r"they can be (\d+) together", str(said[0]))[1])
        overhead = int(re.search(r"and (\d+) of headers", str(said[0]))[1])
        feed.client.send(SOURCE, bytes(most - overhead), headers, said.append)
        feed.client.send(SOURCE, bytes(most - overhead + 1), headers, said.append)
        await until(lambda: len(said) == 3)
        assert [type(error) for error in said] == [SendFailed, SendFailed, type(None)]
        await worker.take(1, hold=True)
        await until(lambda: worker.open)
        worker.client.bury(worker.open.pop(), death(worker.deliveries[0], "☃" * 5000))
        await worker.client.flush()
        [letter] = await broker.dead_letters(QUEUE)
        assert len(letter.body) == most - overhead
        assert letter.death.text.startswith("☃☃☃")


# Who may, and with whom.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Starts servers with a configuration of the test's own."""
    started: list[NatsServer] = []

    def start(**configuration: str) -> NatsServer:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(NatsServer(folder))
        started[-1].configure(**configuration)
        started[-1].start()
        return started[-1]

    yield start
    for found in started:
        found.kill()


@pytest.mark.parametrize("kind", [Client, Broker])
@pytest.mark.parametrize("login", ["me:wrong-one@", "", "wrong-one@", "somebody:right@"])
async def test_who_has_the_wrong_password_is_told_so_at_once_and_it_is_not_shown(
    server, kind, login: str
):
    port = server(more='authorization { user: me, password: "right" }').port
    connection = kind(f"nats://{login}127.0.0.1:{port}")
    with pytest.raises(ConnectFailed) as raised:
        async with asyncio.timeout(8):
            await connection.connect(30)
    said = f"{raised.value} {connection!r}"
    assert "refused: the user, password or token in the URL is wrong or missing" in said
    assert "wrong-one" not in said
    assert "right" not in said
    await connection.close()
    allowed = kind(f"nats://me:right@127.0.0.1:{port}")
    await allowed.connect()
    await allowed.close()


async def test_a_server_without_jetstream_is_told_how_to_have_it(server):
    url = server(jetstream="enabled: false").url
    with pytest.raises(
        ConnectFailed, match="JetStream not enabled; start it with: nats-server -js"
    ):
        await Client(url).connect()


async def test_a_server_that_is_too_old_is_refused(nats_server_of_session: NatsServer):
    async with proxied(nats_server_of_session.port) as proxy:
        proxy.rewrite = lambda data: re.sub(
            rb'"version":"([^"]*)"',
            lambda found: b'"version":"2.9.' + b"0" * (len(found[1]) - 4) + b'"',
            data,
        )
        with pytest.raises(ConnectFailed, match=r"nats-server 2\.9\.0+ is too old; 2\.11 or later"):
            await Client(f"nats://127.0.0.1:{proxy.port}").connect()


async def test_tls_is_insisted_on(nats_server_of_session: NatsServer):
    with pytest.raises(ConnectFailed, match="the server offers no encryption"):
        await Client(f"tls://me:secret@127.0.0.1:{nats_server_of_session.port}").connect()


async def test_a_stream_of_somebody_else_is_left_alone(nats_server: str):
    url = nats_server.replace("/test", "/other")
    async with network(nats_server) as (broker, _, _):
        name = Broker(url).names.stream
        await broker.link.api(
            f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name}.theirs"]}
        )
        with pytest.raises(ConnectFailed, match=r"is not MsgFlo's.*use another namespace"):
            await Client(url).connect()


async def test_two_networks_on_one_server_have_nothing_to_do_with_each_other(nats_server: str):
    other_url = nats_server.replace("/test", "/another")
    async with (
        network(nats_server) as (broker, feed, [worker]),
        network(other_url) as (other_broker, other_feed, [other_worker]),
    ):
        heard: list[bytes] = []
        tapped: list[object] = []
        await other_broker.listen(heard.append)
        await other_broker.tap(SOURCE, tapped.append)
        await broker.bind(SHARED)
        await worker.take(1)
        await other_worker.take(1)
        assert await other_broker.bindings() == []
        assert await feed.client.claim("role") == await other_feed.client.claim("role") == 1
        feed.send(5)
        await worker.client.announce(b"here")
        await until(lambda: len(worker.deliveries) == 5)
        await other_broker.bind(SHARED)
        other_feed.send(3)
        await other_feed.client.announce(b"there")
        await until(lambda: len(other_worker.deliveries) == 3 and heard)
        assert (heard, len(tapped)) == ([b"there"], 3)
        assert worker.numbers == [0, 1, 2, 3, 4]
        assert other_worker.numbers == [0, 1, 2]


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("nats://localhost:port", "port"),
        ("nats://localhost/a b", "namespace"),
        ("nats://localhost?replica=3", "option 'replica'"),
        ("nats://localhost?redelivery=0", "redelivery='0'"),
        ("nats://me:secret@localhost?ca=/nowhere/ca.pem", "ca.pem"),
    ],
)
async def test_a_wrong_url_says_what_is_wrong_with_it(url: str, wrong: str):
    with pytest.raises(ConfigurationError, match=wrong) as raised:
        await Client(url).connect(1)
    assert "secret" not in str(raised.value)


async def test_programs_without_msgflo_take_part_by_subject(nats_server: str):
    async with network(nats_server) as (broker, _, [worker]):
        await broker.bind(SHARED)
        await worker.take(1, hold=True)
        namespace = broker.names.namespace
        broker.link.publish(f"{namespace}.out.{SOURCE}", b"1")
        await until(lambda: worker.open)
        first = worker.open.pop()
        worker.client.retry(first)
        await until(lambda: worker.open)
        assert worker.open[0].id == first.id != ""
        assert (worker.open[0].attempt, dict(worker.open[0].headers)) == (2, {})
        worker.settle_all()
        broker.link.publish(f"{namespace}.in.{QUEUE}", json.dumps(2).encode())
        await until(lambda: worker.numbers[-1] == 2)


async def test_what_a_participant_that_died_had_counts_as_waiting(nats_server: str):
    async with network(nats_server + "?redelivery=30", workers=2) as (broker, feed, workers):
        await broker.bind(SHARED)
        await workers[0].take(5, hold=True)
        feed.send(8)
        await until(lambda: len(workers[0].open) == 5)

        async def counted() -> tuple[int, int, int]:
            stats = {stats.queue: stats for stats in await broker.queues([QUEUE])}[QUEUE]
            return stats.waiting, stats.in_flight, stats.consumers

        assert await counted() == (3, 5, 1)
        await workers[0].client.abandon()
        async with asyncio.timeout(20):
            while await counted() != (8, 0, 0):
                await asyncio.sleep(0.05)
