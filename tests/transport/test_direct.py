"""direct:// keeps every promise of a transport, and does what befalls real brokers on demand."""

import asyncio
import itertools
import random
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from msgflo import conformance, transport
from msgflo.errors import (
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    SendFailed,
    TransportError,
)
from msgflo.flow.binding import Binding, Kind
from msgflo.transport import direct
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Client, Death, Delivery, Inlet

numbers = itertools.count(1)


@pytest.fixture
def name() -> AsyncIterator[str]:
    name = f"test-{next(numbers)}"
    yield name
    direct.forget(name)


@pytest.fixture
def url(name: str) -> str:
    return f"direct://{name}"


@pytest.fixture
async def client(url: str) -> AsyncIterator[direct.Client]:
    client = direct.Client(url)
    await client.connect()
    yield client
    await client.close()


@pytest.fixture
async def broker(url: str) -> AsyncIterator[direct.Broker]:
    broker = direct.Broker(url)
    await broker.connect()
    yield broker
    await broker.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def headers(number: int) -> dict[str, str]:
    return {MESSAGE_ID: f"id-{number}"}


@pytest.mark.parametrize("check", conformance.checks(), ids=str)
async def test_it_keeps_the_promise(check: conformance.Check, name: str, url: str) -> None:
    hub = direct.hub(name)

    async def restart() -> None:
        hub.stop()
        # Some turns of the loop, in which everybody notices and goes on sending.
        for _ in range(20):
            await asyncio.sleep(0)
        hub.start()

    async def drop(client: Client) -> None:
        assert isinstance(client, direct.Client)
        hub.drop(client)

    nowhere = direct.hub(f"{name}-stopped")
    nowhere.stop()
    results = await conformance.check_transport(
        url,
        only=[check.name],
        restart=restart,
        cut=restart,
        drop=drop,
        too_large=direct.MAX_PAYLOAD + 1,
        nowhere=f"direct://{nowhere.name}",
    )
    direct.forget(nowhere.name)
    assert [str(result.outcome) for result in results] == ["kept"]


async def test_urls_name_hubs(name: str) -> None:
    assert isinstance(transport.client(f"direct://{name}"), direct.Client)
    assert isinstance(transport.broker(f"direct://{name}"), direct.Broker)
    assert direct.hub(name) is direct.hub(name)
    with pytest.raises(ConfigurationError, match="names no hub; expected direct://NAME"):
        transport.client("direct://")


async def test_a_hub_outlives_its_clients_until_it_is_forgotten(name: str, url: str) -> None:
    async def waiting() -> int:
        broker = direct.Broker(url)
        await broker.connect()
        found = sum(stats.waiting for stats in await broker.queues())
        await broker.close()
        return found

    broker = direct.Broker(url)
    await broker.connect()
    await broker.enqueue("q", b"1", headers(1))
    await broker.close()
    assert await waiting() == 1
    direct.forget(name)
    assert await waiting() == 0


async def test_who_is_connected_to_a_forgotten_hub_loses_the_connection(name: str) -> None:
    client = direct.Client(f"direct://{name}")
    await client.connect()
    reasons: list[str] = []
    client.on_lost(reasons.append)
    direct.forget(name)
    await until(lambda: reasons)
    assert reasons == ["the hub was thrown away"]
    assert not client.connected
    await client.close()


def test_another_event_loop_can_follow_one_that_was_closed(name: str, url: str) -> None:
    async def leave_something_open() -> None:
        client = direct.Client(url)
        await client.connect()
        inlet, got = Inlet("q", 1), asyncio.Event()
        await client.declare([inlet], [])
        await client.consume(inlet, 1, lambda delivery: got.set())
        broker = direct.Broker(url)
        await broker.connect()
        await broker.enqueue("q", b"1", headers(1))
        await got.wait()

    async def find_it() -> Delivery:
        client = direct.Client(url)
        await client.connect()
        got: asyncio.Queue[Delivery] = asyncio.Queue()
        await client.consume(Inlet("q", 1), 1, got.put_nowait)
        delivery = await asyncio.wait_for(got.get(), 10)
        await client.close()
        return delivery

    asyncio.run(leave_something_open())
    delivery = asyncio.run(find_it())
    assert (delivery.body, delivery.attempt) == (b"1", 2)


async def test_two_event_loops_at_once_are_refused(client: direct.Client, url: str) -> None:
    errors: list[Exception] = []

    async def connect() -> None:
        try:
            await direct.Client(url).connect()
        except TransportError as error:
            errors.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(connect()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "in use by another event loop" in str(errors[0])
    assert client.connected


async def test_a_payload_cannot_be_changed_after_it_was_sent(
    client: direct.Client, broker: direct.Broker
) -> None:
    await broker.bind(Binding(Kind.ROUNDROBIN, "out", "q"))
    body, said = bytearray(b"before"), {**headers(1), "x": "before"}
    got: list[Delivery] = []
    client.send("out", body, said, lambda error: None)  # type: ignore[arg-type]
    body[:] = b"after!"
    said["x"] = "after"
    await client.consume(Inlet("q", 1), 1, got.append)
    await until(lambda: got)
    assert (got[0].body, got[0].headers["x"]) == (b"before", "before")
    with pytest.raises(TypeError):
        got[0].headers["x"] = "after"  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "extra", "why"),
    [
        ("text", {}, "a payload is str; expected bytes"),
        (b"", {"a b": "c"}, "a header is called 'a b'"),
        (b"", {"": "c"}, "a header is called ''"),
        (b"", {"ä": "c"}, "a header is called 'ä'"),
        (b"", {"a:b": "c"}, "a header is called 'a:b'"),
        (b"", {"a": "line\nbreak"}, "a header holds a line break"),
        (b"", {"a": "line\rbreak"}, "a header holds a line break"),
        (b"", {"a": "\ud800"}, "expected texts only"),
        (b"", {"a": 1}, "expected texts only"),
        (b"x" * direct.MAX_PAYLOAD, {}, "bytes; at most"),
    ],
)
async def test_what_no_broker_could_carry_is_refused(
    client: direct.Client, broker: direct.Broker, body: bytes, extra: dict[str, str], why: str
) -> None:
    answers: list[Exception | None] = []
    client.send("out", body, {**headers(1), **extra}, answers.append)
    assert answers == []
    await client.flush()
    assert isinstance(answers[0], SendFailed)
    assert why in str(answers[0])
    with pytest.raises(SendFailed, match=why):
        await broker.enqueue("q", body, {**headers(2), **extra})


async def test_a_payload_of_the_size_limit_is_taken(client: direct.Client) -> None:
    answers: list[Exception | None] = []
    said = headers(1)
    rest = sum(len(key) + len(value) for key, value in said.items())
    client.send("out", bytes(direct.MAX_PAYLOAD - rest), said, answers.append)
    client.send("out", bytes(direct.MAX_PAYLOAD - rest + 1), said, answers.append)
    await client.flush()
    assert {type(answer) for answer in answers} == {type(None), SendFailed}


async def test_everything_that_comes_together_is_told_in_one_turn(
    client: direct.Client, broker: direct.Broker
) -> None:
    turns = 0
    told: list[tuple[str, int]] = []
    running = True

    def turn() -> None:
        nonlocal turns
        turns += 1
        if running:
            asyncio.get_running_loop().call_soon(turn)

    await broker.bind(Binding(Kind.ROUNDROBIN, "out", "q"))
    await client.consume(Inlet("q", 1), 100, lambda delivery: told.append(("got", turns)))
    await asyncio.sleep(0)
    turn()
    for number in range(100):
        client.send("out", b"", headers(number), lambda error: told.append(("has", turns)))
    assert told == []
    await until(lambda: len(told) == 200)
    running = False
    assert {turn for _, turn in told} == {told[0][1]}


async def test_a_callback_that_fails_stops_nobody_else(
    client: direct.Client, broker: direct.Broker
) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: complaints.append(repr(context["exception"]))
    )

    def fail(*_: object) -> None:
        raise RuntimeError("mine")

    answers: list[Exception | None] = []
    got: list[Delivery] = []
    await broker.bind(Binding(Kind.PUBSUB, "out", "q"))
    await broker.tap("out", fail)
    client.on_told(fail)
    await broker.listen(fail)
    await client.consume(Inlet("q", 1), 1, fail)
    await client.consume(Inlet("q", 2), 1, got.append)
    client.send("out", b"1", headers(1), fail)
    client.send("out", b"2", headers(2), answers.append)
    await client.announce(b"me")
    await until(lambda: answers and got and len(complaints) == 6)
    assert complaints == ["RuntimeError('mine')"] * 6, "two at the tap, one each elsewhere"
    await client.flush()


async def test_foreign_deliveries_are_refused(client: direct.Client) -> None:
    with pytest.raises(TypeError, match="did not come from direct://"):
        client.settle(Delivery(Inlet("q", 1), "q", b"", {}, "id"))


# What befalls real brokers.


async def test_a_cut_client_keeps_what_it_sends_and_goes_on_when_restored(
    client: direct.Client, broker: direct.Broker, name: str
) -> None:
    hub = direct.hub(name)
    said: list[str] = []
    client.on_lost(said.append)
    client.on_restored(lambda: said.append("restored"))
    await broker.bind(Binding(Kind.PUBSUB, "out", "q"))
    got: list[Delivery] = []
    await client.consume(Inlet("q", 1), 2, got.append)
    await broker.enqueue("q", b"open", headers(0))
    await until(lambda: got)

    hub.cut(client, "a digger")
    await until(lambda: said)
    assert not client.connected
    answers: list[Exception | None] = []
    for number in range(1, 4):
        client.send("out", b"%d" % number, headers(number), answers.append)
    client.settle(got[0])  # too late: it is given to others
    with pytest.raises(ConnectionLost, match="3 messages"):
        await client.flush(0.01)
    assert (answers, client.unconfirmed, len(got)) == ([], 3, 1)

    hub.restore(client)
    await until(lambda: len(got) == 3)
    assert said == ["a digger", "restored"]
    assert answers == [None] * 3
    assert sorted((d.body, d.attempt) for d in got[1:]) == [(b"1", 1), (b"open", 2)]
    for delivery in got[1:]:
        client.settle(delivery)
    await until(lambda: len(got) == 5)
    assert [d.body for d in got[3:]] == [b"2", b"3"]


async def test_calls_wait_for_a_connection_that_was_cut(
    client: direct.Client, broker: direct.Broker, name: str
) -> None:
    hub = direct.hub(name)
    hub.cut(client)
    hub.cut(broker)
    waiting = [
        asyncio.ensure_future(call)
        for call in (
            client.claim("role"),
            client.declare([Inlet("q", 1)], []),
            client.is_bound("out"),
            broker.bindings(),
            broker.enqueue("q", b"1", headers(1)),
        )
    ]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    hub.restore(client)
    hub.restore(broker)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting) == [1, None, False, [], None]


async def test_a_client_that_pauses_while_it_is_cut_stays_paused(
    client: direct.Client, broker: direct.Broker, name: str
) -> None:
    hub = direct.hub(name)
    got: list[Delivery] = []
    await client.consume(Inlet("q", 1), 1, got.append)
    hub.cut(client)
    await client.pause(Inlet("q", 1))
    hub.restore(client)
    await broker.enqueue("q", b"1", headers(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert got == []
    assert (await broker.queues(["q"]))[1].waiting == 1


async def test_nothing_of_a_dropped_client_is_called_any_more(
    client: direct.Client, broker: direct.Broker, name: str
) -> None:
    called: list[object] = []
    client.on_lost(called.append)
    client.on_told(called.append)
    await client.consume(Inlet("q", 1), 5, called.append)
    await broker.enqueue("q", b"1", headers(1))
    await broker.listen(lambda message: None)
    client.send("out", b"2", headers(2), called.append)
    direct.hub(name).drop(client)
    assert not client.connected
    direct.hub(name).restore(client)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (called, client.connected) == ([], False)


async def test_while_the_broker_is_stopped_nobody_connects(name: str, url: str) -> None:
    hub = direct.hub(name)
    hub.stop()
    late, later = direct.Client(url), direct.Client(url)
    with pytest.raises(ConnectFailed, match="the broker is stopped"):
        await late.connect(0.01)
    said: list[str] = []
    later.on_restored(lambda: said.append("restored"))
    connecting = asyncio.ensure_future(later.connect(10))
    await asyncio.sleep(0)
    assert not connecting.done()
    hub.start()
    await connecting
    assert later.connected
    assert not late.connected, "it has given up"
    await asyncio.sleep(0)
    assert said == [], "it was not connected before"
    await late.connect()
    assert late.connected
    await late.close()
    await later.close()


async def test_what_is_closed_stays_closed(client: direct.Client, name: str) -> None:
    await client.close()
    with pytest.raises(ConnectFailed, match="it was closed"):
        await client.connect()
    with pytest.raises(ConnectionLost, match="is closed"):
        await client.is_bound("out")
    direct.hub(name).restore(client)
    assert not client.connected
    with pytest.raises(ConnectionLost, match="is not connected"):
        await direct.Client(f"direct://{name}").is_bound("out")


async def test_a_place_is_given_up_after_its_retention(
    client: direct.Client, broker: direct.Broker, url: str
) -> None:
    leaving = direct.Client(url)
    await leaving.connect()
    await leaving.declare([Inlet("q", 2, 0.02)], [])
    await client.declare([Inlet("q", 3)], [])
    await leaving.close()

    async def names() -> list[str]:
        return [stats.queue for stats in await broker.queues(["q"])]

    assert await names() == ["dead-q", "q", "q@2", "q@3"]
    async with asyncio.timeout(10):
        while "q@2" in await names():
            await asyncio.sleep(0.001)
    assert await names() == ["dead-q", "q", "q@3"]


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_befalls_a_chain_all_of_it_is_processed_or_dead(
    seed: int, name: str, url: str, broker: direct.Broker
) -> None:
    """Workers are cut off, die, close, fail, put off and bury, and the broker stops, at random."""
    chance = random.Random(seed)
    hub = direct.hub(name)
    count = 400
    await broker.bind(Binding(Kind.ROUNDROBIN, "feed", "work"))
    await broker.bind(Binding(Kind.PUBSUB, "work.out", "done"))
    feed, sink = direct.Client(url), direct.Client(url)
    done: list[Delivery] = []
    workers: list[direct.Client] = []

    def work(worker: direct.Client, delivery: Delivery) -> None:
        def confirmed(error: Exception | None) -> None:
            if error is None:
                worker.settle(delivery)

        match chance.choice(["send", "send", "send", "fail", "later", "back", "hold", "die"]):
            case "send":
                said = {MESSAGE_ID: f"{delivery.id}>"}
                worker.send("work.out", delivery.body, said, confirmed)
            case "fail" if delivery.attempt < 8:
                worker.retry(delivery, chance.choice([0, 0.01]))
            case "later" if delivery.postponed < 8:
                worker.retry(delivery, 0.01, counts=False)
            case "back" if delivery.postponed < 8:
                worker.retry(delivery, counts=False)
            case "die" | "fail" | "later" | "back":
                worker.bury(delivery, Death(delivery.queue, attempts=delivery.attempt))
            case _:
                pass  # until its worker goes

    async def hire() -> None:
        worker = direct.Client(url)
        workers.append(worker)
        await worker.connect()
        inlet = Inlet("work", await worker.claim("work"))
        await worker.declare([inlet], ["work.out"])
        await worker.consume(inlet, chance.choice([1, 5, 20]), partial(work, worker))

    def keep(delivery: Delivery) -> None:
        done.append(delivery)
        sink.settle(delivery)

    await feed.connect()
    await sink.connect()
    await sink.declare([Inlet("done", 1)], [])
    await sink.consume(Inlet("done", 1), 50, keep)
    confirmed: list[Exception | None] = []
    sent = 0

    async def complete() -> bool:
        letters = await broker.dead_letters("work", count)
        accounted = {int(d.body) for d in done} | {int(letter.body) for letter in letters}
        return sent == count and accounted == {*range(count)}

    async with asyncio.timeout(40):
        while not await complete():
            for _ in range(min(10, count - sent)):
                feed.send("feed", b"%d" % sent, headers(sent), confirmed.append)
                sent += 1
            while len(workers) < 3:
                await hire()
            victim = chance.choice(workers)
            match chance.choice(["cut", "die", "close", "stop", "sink", "feed", "nothing"]):
                case "die":
                    hub.drop(victim)
                    workers.remove(victim)
                case "close":
                    await victim.close()
                    workers.remove(victim)
                case "stop":
                    hub.stop()
                    hub.start()
                case "nothing":
                    pass
                case which:
                    cut = {"cut": victim, "sink": sink, "feed": feed}[which]
                    hub.cut(cut)
                    await asyncio.sleep(chance.choice([0, 0.002]))
                    hub.restore(cut)
            await asyncio.sleep(chance.choice([0, 0, 0.002]))
    await feed.flush()
    assert confirmed == [None] * count
    for client in (*workers, feed, sink):
        await client.close()
    for stats in await broker.queues(["done"]):
        assert (stats.waiting, stats.in_flight) == (0, 0), stats


async def test_a_repeat_loop_goes_round_and_round(
    client: direct.Client, broker: direct.Broker
) -> None:
    count, done = 20_000, asyncio.Event()
    await broker.bind(Binding(Kind.PUBSUB, "out", "q"))
    sent = itertools.count()

    def send(*_: object) -> None:
        number = next(sent)
        if number < count:
            said = {MESSAGE_ID: str(number), CONTENT_TYPE: "application/json"}
            client.send("out", b"x" * 200, said, lambda error: None)

    def deliver(delivery: Delivery) -> None:
        client.settle(delivery)
        send()
        if delivery.id == str(count - 1):
            done.set()

    await client.consume(Inlet("q", 1), 100, deliver)
    for _ in range(100):
        send()
    async with asyncio.timeout(20):
        await done.wait()
