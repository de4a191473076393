"""Promises on what an interruption leaves: of the broker, of the network between, of nothing else.

Whether the broker was killed or only the connection was cut is the same to those who are connected,
so most of these are checked with both.
"""
# ruff: noqa: B023, D205, D209 - what closes over a loop is called at once, and the docstring of a
# check is its promise: one sentence, as long as it needs to be

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from msgflo.conformance.bench import Bench, Broken, Sent, Taker, check, numbered
from msgflo.errors import ConnectFailed
from msgflo.flow.binding import Kind
from msgflo.transport.contract import Client, Delivery, Tapped

__all__: list[str] = []

_Interrupt = Callable[[], Awaitable[None]]


@check("restart")
async def a_restart_loses_nothing_that_waits(bench: Bench) -> None:
    """When the broker is killed and starts again, all that it had confirmed is still there:
    bindings, what waits in places and work queues, what waits for a retry, dead letters."""
    queue, outport, mark = bench.name("IN"), bench.name("OUT"), bench.name("MARK")
    bound = [
        await bench.bind(Kind.PUBSUB, outport, queue),
        await bench.bind(Kind.ROUNDROBIN, mark, queue),
    ]
    client = await bench.client()

    def end(taker: Taker, delivery: Delivery) -> None:
        if delivery.body == b'"dead"':
            taker.bury(delivery)
        else:
            taker.retry(delivery, 0.2)

    taker = await bench.take(client, bench.inlet(queue), 10, end)
    await bench.enqueue(queue, b'"dead"', b'"retried"')
    await bench.until(lambda: len(taker.deliveries) >= 2, "nothing was delivered")
    await client.flush(bench.setting.patience)
    await client.close()
    sender = await bench.client()
    await bench.sent(sender, outport, *numbered(20))
    await bench.sent(sender, mark, *numbered(20, 100))
    await bench.restart()
    broker = await bench.broker()
    await bench.until(lambda: broker.connected, "the Broker is not connected again")
    listed = await bench.eventually(broker.bindings, lambda found: found, "no bindings are left")
    bench.expect(set(bound) <= set(listed), f"of {bound}, only {listed} are left")
    taker = await bench.take(await bench.client(), bench.inlet(queue), 5)
    await bench.got_all([taker], [b'"retried"', *numbered(20), *numbered(20, 100)])
    letters = await broker.dead_letters(queue)
    bench.expect([letter.body for letter in letters] == [b'"dead"'], f"dead letters: {letters}")
    again = next(delivery for delivery in taker.deliveries if delivery.body == b'"retried"')
    bench.expect(again.attempt >= 2, f"what was retried comes as attempt {again.attempt}")
    await bench.drained(queue)


@check("restart")
async def a_restart_loses_nothing_that_flows(bench: Bench) -> None:
    """While the broker is killed and starts again, clients keep what they send and deliver it
    then, consumers go on by themselves, and both say that they were cut off and are back."""
    await _flow_on(bench, bench.restart)


@check("cut")
async def a_cut_loses_nothing_that_flows(bench: Bench) -> None:
    """When connections are cut under traffic, clients connect again by themselves, deliver what
    they were sent meanwhile, go on consuming, and say that they were cut off and are back."""
    await _flow_on(bench, bench.cut)


async def _flow_on(bench: Bench, interrupt: _Interrupt) -> None:
    queue, outport = bench.name("IN"), bench.name("OUT")
    await bench.bind(Kind.ROUNDROBIN, outport, queue)
    sender, receiver = await bench.client(), await bench.client()
    events = {"sender": _said(bench, sender), "receiver": _said(bench, receiver)}
    taker = await bench.take(receiver, bench.inlet(queue), 20)
    sent: list[Sent] = []

    async def stream() -> None:
        while True:
            if sender.unconfirmed < 500:
                sent.append(bench.send(sender, outport, b"%d" % len(sent)))
            await asyncio.sleep(0.001)

    async with bench.meanwhile(stream()):
        await bench.until(lambda: len(taker.deliveries) > 20, "nothing flows")
        await interrupt()
        await bench.until(
            lambda: all(said[-1:] == ["restored"] for said in events.values()),
            lambda: f"the connections said {events}",
        )
        count = len(taker.deliveries)
        await bench.until(lambda: len(taker.deliveries) > count + 20, "nothing flows afterwards")
    await bench.confirmed(sent)
    for said in events.values():
        bench.expect(said == ["lost", "restored"] * (len(said) // 2), f"they said {events}")
    await bench.until(
        lambda: set(taker.bodies) >= {message.body for message in sent},
        lambda: (
            f"of {len(sent)} messages that were confirmed, lost are "
            f"{sorted({message.body for message in sent} - set(taker.bodies))[:20]}"
        ),
    )
    await bench.drained(queue)


def _said(bench: Bench, client: Client) -> list[str]:
    """Return a list in which a client notes that it was cut off, and that it is back."""
    said: list[str] = []

    def lost(reason: str) -> None:
        if not reason:
            bench.fault("on_lost was called without a reason")
        said.append("lost")
        bench.changed.set()

    def restored() -> None:
        if not client.connected:
            bench.fault("on_restored was called by a client that says it is not connected")
        said.append("restored")
        bench.changed.set()

    client.on_lost(lost)
    client.on_restored(restored)
    return said


@check("cut")
async def a_cut_keeps_the_order(bench: Bench) -> None:
    """What is sent while connections are cut again and again arrives in the order in which it was
    sent; if something comes twice, then behind what it came before."""
    queue, outport = bench.name("IN"), bench.name("OUT")
    await bench.bind(Kind.PUBSUB, outport, queue)
    sender = await bench.client()
    said = _said(bench, sender)
    taker = await bench.take(await bench.client(), bench.inlet(queue), 1)
    sent: list[Sent] = []
    for cuts in (1, 2, 3):
        sent += [bench.send(sender, outport, body) for body in numbered(100, len(sent))]
        await bench.until(lambda: sent[-60].answers, "not even the first of 100 were confirmed")
        async with bench.meanwhile(bench.cut()):
            for body in numbered(200, len(sent)):
                sent.append(bench.send(sender, outport, body))
                if "lost" in said[-1:]:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0)
            await bench.until(
                lambda: said.count("restored") >= cuts, lambda: f"the client that sends said {said}"
            )
    await bench.confirmed(sent)
    await bench.until(
        lambda: len(set(taker.bodies)) == len(sent),
        lambda: f"{len(set(taker.bodies))} of {len(sent)} have come",
    )
    first = list(dict.fromkeys(taker.bodies))
    wrong = [
        (before, after) for before, after in itertools.pairwise(first) if int(before) > int(after)
    ]
    bench.expect(not wrong, f"these came in the wrong order: {wrong[:5]}")
    await bench.drained(queue)


@check("restart")
async def a_restart_gives_back_what_is_open(bench: Bench) -> None:
    """What a participant holds while the broker is killed and starts again is ended then, or is
    delivered again and ended; it is not stuck."""
    await _end_what_is_open(bench, bench.restart)


@check("cut")
async def a_cut_gives_back_what_is_open(bench: Bench) -> None:
    """What a participant holds when its connection is cut is ended once it is back, or is
    delivered again and ended; it is not stuck, and it is not given up for settled."""
    await _end_what_is_open(bench, bench.cut)


async def _end_what_is_open(bench: Bench, interrupt: _Interrupt) -> None:
    client, queue = await bench.client(), bench.name("IN")
    said = _said(bench, client)
    taker = await bench.take(client, bench.inlet(queue), 5, Taker.hold)
    await bench.enqueue(queue, *numbered(10))
    await bench.until(lambda: len(taker.open) == 5, lambda: f"{len(taker.open)} of 5 came")
    await interrupt()
    await bench.until(lambda: "restored" in said, "the client is not connected again")

    def end(taker: Taker, delivery: Delivery) -> None:
        if delivery.body == b"0":
            taker.bury(delivery)
        else:
            taker.settle(delivery)

    taker.then = end
    # Whether these count, or others that come for them, the participant cannot know.
    for held in list(taker.open):
        end(taker, held)
    await bench.until(
        lambda: set(taker.bodies) == set(numbered(10)), lambda: f"only {taker.bodies} came"
    )
    await bench.drained(queue)
    letters = await (await bench.broker()).dead_letters(queue)
    bench.expect(
        {letter.body for letter in letters} == {b"0"},
        lambda: f"0 was buried; the dead letters are {letters}",
    )


@check("restart")
async def a_restart_keeps_listeners(bench: Bench) -> None:
    """A Broker that listens goes on doing so after a restart, and asks who is there; what it
    taps, it still sees."""
    await _listen_on(bench, bench.restart)


@check("cut")
async def a_cut_keeps_listeners(bench: Bench) -> None:
    """A Broker that listens goes on doing so when its connection was cut, and asks who is there;
    what it taps, it still sees."""
    await _listen_on(bench, bench.cut)


async def _listen_on(bench: Bench, interrupt: _Interrupt) -> None:
    client, broker = await bench.client(), await bench.broker()
    heard: list[bytes] = []
    seen: list[Tapped] = []
    asked = 0

    def hear(message: bytes) -> None:
        if bench.prefix.encode() in message:
            heard.append(message)
            bench.changed.set()

    def answer(message: bytes) -> None:
        nonlocal asked
        asked += message == b""
        bench.changed.set()

    client.on_told(answer)
    await broker.listen(hear)
    await broker.tap(bench.name("OUT"), seen.append)
    await bench.until(lambda: asked, "listening did not ask")
    asked = 0
    await interrupt()
    await bench.until(lambda: client.connected and broker.connected, "not connected again")

    async def announce() -> int:
        await client.announce(bench.prefix.encode())
        return len(heard)

    await bench.eventually(announce, lambda count: count, "the Broker hears nothing any more")
    await bench.until(lambda: asked, "the Broker did not ask afterwards, or nobody was asked")

    async def send() -> int:
        await bench.sent(client, bench.name("OUT"), b"1")
        return len(seen)

    await bench.eventually(send, lambda count: count, "the tap sees nothing any more")


@check("restart")
async def a_restart_keeps_instance_numbers(bench: Bench) -> None:
    """A client that comes back after a restart still holds its instance number."""
    await _hold_on(bench, bench.restart)


@check("cut")
async def a_cut_keeps_instance_numbers(bench: Bench) -> None:
    """A client whose connection was cut still holds its instance number when it is back."""
    await _hold_on(bench, bench.cut)


async def _hold_on(bench: Bench, interrupt: _Interrupt) -> None:
    role, client = bench.name("role"), await bench.client()
    await client.claim(role)
    said = _said(bench, client)
    await interrupt()
    await bench.until(lambda: "restored" in said, "the client is not connected again")
    number = await (await bench.client()).claim(role)
    bench.expect(number == 2, f"1 is held by a client that lives, and {number} was given")


@check("nowhere")
async def who_cannot_connect_says_why(bench: Bench) -> None:
    """Where nobody answers, connect() raises ConnectFailed when its time is over; the text shows
    where that was, and no password; and what never was connected can be closed."""
    url = bench.setting.nowhere
    assert url is not None
    for connection in (bench.setting.client(url), bench.setting.broker(url)):
        try:
            async with asyncio.timeout(bench.setting.patience):
                await connection.connect(0.3)
            raise Broken("connect() to where nobody answers returned")
        except ConnectFailed as error:
            _expect_nothing_secret(bench, url, f"{error}\n{error!r}\n{connection!r}")
        except TimeoutError:
            raise Broken("connect(0.3) to where nobody answers did not return") from None
        bench.expect(not connection.connected, "it failed to connect, and says it is connected")
        await connection.close()


def _expect_nothing_secret(bench: Bench, url: str, shown: str) -> None:
    password = urlsplit(url).password
    bench.expect(not password or password not in shown, "the password of the URL is shown")
    host = urlsplit(url).hostname or ""
    bench.expect(host in shown, lambda: f"the error does not say where: {shown}")
