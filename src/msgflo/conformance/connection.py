"""Promises on being there: instance numbers, discovery, sending, pausing, and leaving."""
# ruff: noqa: B023, D205, D209 - what closes over a loop is called at once, and the docstring of a
# check is its promise: one sentence, as long as it needs to be

import asyncio

from msgflo.conformance.bench import Bench, Taker, check, numbered
from msgflo.errors import ConnectionLost
from msgflo.flow.binding import Kind

__all__: list[str] = []


@check()
async def instances_are_claimed(bench: Bench) -> None:
    """The lowest free instance number of a role is given to whoever asks, each to one, until its
    client closes; a number assigned from outside is simply returned."""
    role = bench.name("role ☃/x")
    first, second, third = [await bench.client() for _ in range(3)]
    claimed = [await first.claim(role), await second.claim(role)]
    bench.expect(claimed == [1, 2], f"two that asked got {claimed}")
    one, two = await asyncio.gather(third.claim(role), first.claim(role))
    bench.expect({one, two} == {3, 4}, f"two that asked at once got {one} and {two}")
    assigned = await second.claim(role, 7)
    bench.expect(assigned == 7, f"asked for 7, got {assigned}")
    other = await second.claim(bench.name("another"))
    bench.expect(other == 1, f"the first of another role got {other}")
    await second.close()
    fourth = await bench.client()
    freed = await fourth.claim(role)
    bench.expect(freed == 2, f"2 was given up; who asked then got {freed}")


@check("drop")
async def instances_of_the_dead_are_free(bench: Bench) -> None:
    """The instance number of a client that died can be claimed again."""
    role, dying, other = bench.name("role"), await bench.client(), await bench.client()
    await dying.claim(role)
    await bench.drop(dying)
    tried = []

    async def claim() -> int:
        tried.append(await bench.client())
        number = await tried[-1].claim(role)
        await tried[-1].close()
        return number

    await bench.eventually(claim, lambda number: number == 1, "the number is still held")
    bench.expect(other.connected, "another client is disconnected, too")


@check()
async def announcements_reach_all(bench: Bench) -> None:
    """What a participant announces is heard by every Broker that listens, as it was sent."""
    client = await bench.client()
    brokers = [await bench.new_broker() for _ in range(2)]
    heard: list[list[bytes]] = [[], []]
    mine = [f'{{"protocol": "check", "of": "{bench.prefix}", "n": {n}}}'.encode() for n in range(5)]
    for broker, messages in zip(brokers, heard, strict=True):

        def hear(message: bytes, messages: list[bytes] = messages) -> None:
            if bench.prefix.encode() in message:
                messages.append(message)
                bench.changed.set()

        await broker.listen(hear)
    for message in mine:
        await client.announce(message)
    for number in range(2):
        await bench.until(
            lambda: len(heard[number]) >= 5,
            lambda: f"Broker {number + 1} heard {heard[number]}",
        )
        bench.expect(heard[number] == mine, f"Broker {number + 1} heard {heard[number]}")


@check()
async def who_listens_asks(bench: Bench) -> None:
    """When a Broker starts to listen, all clients are asked to announce themselves."""
    clients = [await bench.client(), await bench.client()]
    asked = [0, 0]
    heard: list[bytes] = []
    for number, client in enumerate(clients):

        def answer(message: bytes, number: int = number) -> None:
            asked[number] += message == b""
            bench.changed.set()

        client.on_told(answer)
    for times in (1, 2):
        broker = await bench.new_broker()
        await broker.listen(heard.append)
        await bench.until(lambda: min(asked) >= times, f"asked {asked}")


@check()
async def all_clients_hear_what_is_told(bench: Bench) -> None:
    """What a Broker tells is heard by every client that is connected, whole and in order."""
    clients = [await bench.client(), await bench.client()]
    told: list[list[bytes]] = [[], []]
    mine = [f"{bench.prefix} {number}".encode() + b"\x00\xff" for number in range(5)]
    mine.append(mine[0] + b"." * 8000)
    for client, messages in zip(clients, told, strict=True):

        def hear(message: bytes, messages: list[bytes] = messages) -> None:
            if message.startswith(bench.prefix.encode()):
                messages.append(message)
                bench.changed.set()

        client.on_told(hear)
    broker = await bench.broker()
    for message in mine:
        await broker.tell(message)
    for number in range(2):
        await bench.until(
            lambda: len(told[number]) >= len(mine),
            lambda: f"client {number + 1} heard {told[number]}",
        )
        bench.expect(told[number] == mine, f"client {number + 1} heard {told[number]}")


@check()
async def unconfirmed_is_counted(bench: Bench) -> None:
    """What was sent counts as unconfirmed until it is confirmed; flush() waits for that."""
    client = await bench.client()
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), bench.name("IN"))
    bench.expect(client.unconfirmed == 0, f"before anything is sent: {client.unconfirmed}")
    sent = [bench.send(client, bench.name("OUT"), body) for body in numbered(500)]
    bench.expect(client.unconfirmed == 500, f"500 were just sent, {client.unconfirmed} count")
    await client.flush(bench.setting.patience)
    answered = [message.is_confirmed for message in sent]
    bench.expect(all(answered), f"after flush(), {answered.count(False)} are not confirmed")
    bench.expect(client.unconfirmed == 0, f"after flush(), {client.unconfirmed} are unconfirmed")
    await client.flush(bench.setting.patience)
    taker = await bench.take(await bench.client(), bench.inlet(bench.name("IN")), 100)
    await bench.got_all([taker], numbered(500))


@check()
async def sending_waits_for_the_connection(bench: Bench) -> None:
    """What is sent before connect() goes out, in order, once connected."""
    queue = bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    client = bench.setting.client(bench.setting.url)
    sent = [bench.send(client, bench.name("OUT"), body) for body in numbered(20)]
    bench.expect(client.unconfirmed == 20, f"20 were sent, {client.unconfirmed} count")
    await client.connect(bench.setting.patience)
    try:
        await bench.confirmed(sent)
        taker = await bench.take(await bench.client(), bench.inlet(queue), 1)
        await bench.got(taker, *numbered(20))
    finally:
        await client.close()


@check()
async def each_send_is_answered_once(bench: Bench) -> None:
    """A client that closes answers each send exactly once: it is confirmed, and then it arrives,
    or it is ConnectionLost."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), queue)
    sent = [bench.send(client, bench.name("OUT"), body) for body in numbered(300)]
    await client.close()
    sent.append(bench.send(client, bench.name("OUT"), b'"closed"'))
    await bench.until(
        lambda: all(message.answers for message in sent),
        lambda: f"{sum(not message.answers for message in sent)} were never answered",
    )
    bench.expect(client.unconfirmed == 0, f"{client.unconfirmed} still count as unconfirmed")
    wrong = [
        message.answers[0]
        for message in sent
        if not message.is_confirmed and not isinstance(message.answers[0], ConnectionLost)
    ]
    bench.expect(not wrong, f"answered with {wrong[:3]}")
    bench.expect(
        isinstance(sent[-1].answers[0], ConnectionLost),
        lambda: f"what was sent after close() was answered with {sent[-1].answers}",
    )
    confirmed = {message.body for message in sent if message.is_confirmed}
    taker = await bench.take(await bench.client(), bench.inlet(queue), 100)
    await bench.until(
        lambda: confirmed <= set(taker.bodies),
        lambda: f"confirmed and lost: {sorted(confirmed - set(taker.bodies))[:20]}",
    )
    await bench.drained(queue)
    bench.expect(len(set(taker.bodies)) == len(taker.bodies), "some came twice")


@check()
async def pausing_stops_deliveries(bench: Bench) -> None:
    """A paused inport gets nothing more, others do; what it holds can still be ended, and it goes
    on where it was when it consumes again."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("COPIES"), queue)
    await bench.bind(Kind.ROUNDROBIN, bench.name("SHARED"), queue)
    client = await bench.client()
    paused = await bench.take(client, bench.inlet(queue, 1), 2, Taker.hold)
    await bench.sent(sender, bench.name("COPIES"), *numbered(4))
    await bench.until(lambda: len(paused.open) == 2, lambda: f"{len(paused.open)} of 2 came")
    await paused.pause()
    await paused.pause()
    paused.settle_all()
    other = await bench.take(await bench.client(), bench.inlet(queue, 2), 2)
    await bench.sent(sender, bench.name("SHARED"), *numbered(10, 100))
    await bench.sent(sender, bench.name("COPIES"), b'"end"')
    await bench.got_all([other], [*numbered(10, 100), b'"end"'])
    await client.flush(bench.setting.patience)
    bench.expect(
        len(paused.deliveries) == 2, lambda: f"after pause(), {paused.bodies[2:]} were delivered"
    )
    await client.consume(paused.inlet, 1, paused.deliver)
    await bench.got(paused, *numbered(4), b'"end"')
    bench.expect(
        {delivery.attempt for delivery in paused.deliveries} == {1},
        lambda: f"pausing counted as an attempt: {paused.deliveries}",
    )
    await bench.drained(queue)


@check()
async def what_is_open_counts_after_a_pause(bench: Bench) -> None:
    """What was delivered before a pause and is still open counts towards the prefetch."""
    client, queue = await bench.client(), bench.name("IN")
    taker = await bench.take(client, bench.inlet(queue), 2, Taker.hold)
    witness = await bench.take(client, bench.inlet(bench.name("WITNESS")))
    await bench.enqueue(queue, *numbered(6))
    await bench.got(taker, b"0", b"1")
    await taker.pause()
    await client.consume(taker.inlet, 2, taker.deliver)
    await bench.enqueue(witness.inlet.queue, b'"seen"')
    await bench.got(witness, b'"seen"')
    taker.settle(taker.open[0])
    await bench.until(lambda: len(taker.deliveries) >= 3, "nothing came after one was settled")
    bench.expect(taker.most <= 2, lambda: f"prefetch is 2, but {taker.most} were open")
    taker.settle_all()
    await bench.got_all([taker], numbered(6))
    await bench.drained(queue)


@check()
async def closing_twice_is_closing_once(bench: Bench) -> None:
    """close() can be called again, and before connect(); what is closed is not connected."""
    client, broker = await bench.client(), await bench.new_broker()
    for connection in (client, broker):
        bench.expect(connection.connected, "it was connected, and says it is not")
        await connection.close()
        await connection.close()
        bench.expect(not connection.connected, "it was closed, and says it is connected")
    await bench.setting.client(bench.setting.url).close()
    await bench.setting.broker(bench.setting.url).close()
