"""Promises on who gets a message: once, in order, byte for byte, whoever has room."""
# ruff: noqa: B023, D205 - what closes over a loop is called at once, and the docstring of a
# check is its promise: one sentence, as long as it needs to be

import asyncio

from msgflo.conformance.bench import Bench, Broken, Taker, check, numbered
from msgflo.errors import SendFailed
from msgflo.flow.binding import Kind
from msgflo.flow.discovery import place_of
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Delivery

__all__: list[str] = []

MANY = 10_000

SHORT_RETENTION = 1.0
"""Seconds: the shortest that every broker can do."""

BODIES = (
    b"",
    b"0",
    b"false",
    b"null",
    b'""',
    b"[]",
    b"{}",
    b" ",
    b"\n",
    b"\x00",
    bytes(range(256)),
    "ä☃𝄞".encode(),
    bytes(range(251)) * 4178,  # 1 MB
)

HEADERS = {
    "Plain": "value",
    "Empty": "",
    "x-Mixed-CASE": "Mixed CASE",
    "Blanks-Inside": "two  blanks, and a: colon; = %20 \\n",
    "Unicode": "äöü ☃ 𝄞 Ελλάδα",
    "Quotes": "\"double\" 'single'",
    "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Long": "x" * 4096,
}

NAMES = (
    "a.b",
    "a b",
    "a/b",
    "a_b",
    "a-b",
    "A.B",
    "a..b",
    "a%b",
    "a%2Eb",
    "a@b",
    "a*b",
    "a.>",
    "a.*",
    "a#b",
    "a+b",
    "$a",
    "2nd",
    "ünïcödé ☃",
    "long" * 20,
)


@check()
async def send_to_nobody_is_confirmed(bench: Bench) -> None:
    """A message from a source that is bound to nothing is confirmed, and gone."""
    client = await bench.client()
    await bench.sent(client, bench.name("OUT"), *numbered(3))
    taker = await bench.take(client, bench.inlet(bench.name("IN")))
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), bench.name("IN"))
    await bench.sent(client, bench.name("OUT"), b'"bound"')
    await bench.got(taker, b'"bound"')


@check()
async def pubsub_copies_to_every_instance(bench: Bench) -> None:
    """Publish-subscribe gives each instance of a role its own copy of each message, once."""
    sender, queue = await bench.client(), bench.name("IN")
    takers = [
        await bench.take(await bench.client(), bench.inlet(queue, number)) for number in (1, 2, 3)
    ]
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    sent = await bench.sent(sender, bench.name("OUT"), *numbered(20))
    for taker in takers:
        await bench.got(taker, *numbered(20))
        bench.expect(
            [delivery.id for delivery in taker.deliveries] == [message.id for message in sent],
            lambda: f"other ids than those that were sent: {taker.deliveries}",
        )
        bench.expect(
            {delivery.queue for delivery in taker.deliveries} == {taker.inlet.place},
            lambda: f"copies do not say that they waited in a place: {taker.deliveries}",
        )
    await bench.drained(queue)


@check()
async def roundrobin_gives_each_message_to_one(bench: Bench) -> None:
    """RoundRobin gives each message to exactly one participant of the role."""
    sender, queue = await bench.client(), bench.name("IN")
    takers = [
        await bench.take(await bench.client(), bench.inlet(queue, number)) for number in (1, 2, 3)
    ]
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), queue)
    await bench.sent(sender, bench.name("OUT"), *numbered(60))
    await bench.got_all(takers, numbered(60))
    for taker in takers:
        bench.expect(
            {delivery.queue for delivery in taker.deliveries} <= {queue},
            lambda: f"messages do not say that they waited in the work queue: {taker.deliveries}",
        )
    await bench.drained(queue)
    await bench.got_all(takers, numbered(60))


@check()
async def an_idle_participant_gets_the_next(bench: Bench) -> None:
    """RoundRobin gives the next message to a participant that has room, not to a busy one."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), queue)
    takers = [
        await bench.take(await bench.client(), bench.inlet(queue, number), 1, Taker.hold)
        for number in (1, 2, 3)
    ]
    await bench.sent(sender, bench.name("OUT"), *numbered(3))
    await bench.got_all(takers, numbered(3))
    bench.expect(
        [len(taker.deliveries) for taker in takers] == [1, 1, 1],
        lambda: f"three idle participants got {[taker.bodies for taker in takers]}",
    )


@check()
async def a_busy_participant_gets_nothing_more(bench: Bench) -> None:
    """While one participant is busy with all it can take, another one gets all there is."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), queue)
    busy = await bench.take(await bench.client(), bench.inlet(queue, 1), 2, Taker.hold)
    await bench.sent(sender, bench.name("OUT"), b'"a"', b'"b"')
    await bench.got(busy, b'"a"', b'"b"')
    idle = await bench.take(await bench.client(), bench.inlet(queue, 2), 2)
    await bench.sent(sender, bench.name("OUT"), *numbered(30))
    await bench.got_all([idle], numbered(30))
    await bench.got(busy, b'"a"', b'"b"')
    busy.settle_all()
    await bench.drained(queue)


@check()
async def place_and_work_queue_share_the_room(bench: Bench) -> None:
    """A participant that is busy with a copy of its own keeps no shared message from others."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("COPIES"), queue)
    await bench.bind(Kind.ROUNDROBIN, bench.name("SHARED"), queue)
    busy = await bench.take(await bench.client(), bench.inlet(queue, 1), 1, Taker.hold)
    idle = await bench.take(await bench.client(), bench.inlet(queue, 2), 1)
    await bench.sent(sender, bench.name("COPIES"), b'"copy"')
    await bench.got(busy, b'"copy"')
    await bench.got(idle, b'"copy"')
    await bench.sent(sender, bench.name("SHARED"), *numbered(20))
    # In any order: what was on its way to the busy one when it became busy comes back later.
    await bench.got_all([idle], [b'"copy"', *numbered(20)])
    bench.expect(busy.most == 1, lambda: f"prefetch is 1, but {busy.most} were open")
    busy.settle_all()
    await bench.sent(sender, bench.name("COPIES"), b'"end"')
    await bench.got(busy, b'"copy"', b'"end"')
    await bench.drained(queue)


@check()
async def a_slow_participant_slows_nobody(bench: Bench) -> None:
    """While one participant does not end what it has, its copies wait, and everybody else gets
    all of theirs; it finds its own when it goes on.
    """
    sender, outport, queue = await bench.client(), bench.name("OUT"), bench.name("IN")
    await bench.bind(Kind.PUBSUB, outport, queue)
    await bench.bind(Kind.PUBSUB, outport, bench.name("OTHER"))
    stuck = await bench.take(await bench.client(), bench.inlet(queue, 1), 3, Taker.hold)
    twin = await bench.take(await bench.client(), bench.inlet(queue, 2), 3)
    other = await bench.take(await bench.client(), bench.inlet(bench.name("OTHER")), 3)
    await bench.sent(sender, outport, *numbered(1000))
    for taker in (twin, other):
        await bench.got(taker, *numbered(1000))
    await bench.got(stuck, *numbered(3))
    stuck.settle_all()
    await bench.got_all([stuck], numbered(1000))
    await bench.drained(queue)


@check()
async def prefetch_is_never_exceeded(bench: Bench) -> None:
    """At most prefetch deliveries are open at an inport, from place and work queue together."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("COPIES"), queue)
    await bench.bind(Kind.ROUNDROBIN, bench.name("SHARED"), queue)
    taker = await bench.take(client, bench.inlet(queue), 3, Taker.hold)
    witness = await bench.take(client, bench.inlet(bench.name("WITNESS")))
    copies, shared = numbered(20), numbered(20, 100)
    await bench.sent(client, bench.name("COPIES"), *copies)
    await bench.sent(client, bench.name("SHARED"), *shared)
    for count in range(3, 41):
        await bench.until(
            lambda: len(taker.deliveries) >= count,
            lambda: f"{len(taker.deliveries)} of 40 came, with {len(taker.open)} of 3 open",
        )
        if count % 10 == 0:
            await bench.enqueue(witness.inlet.queue, b"%d" % count)
            await bench.got(witness, *(b"%d" % number for number in range(10, count + 1, 10)))
        bench.expect(taker.most <= 3, lambda: f"prefetch is 3, but {taker.most} were open")
        taker.settle(taker.open[0])
    taker.settle_all()
    await bench.got_all([taker], copies + shared)
    await bench.drained(queue)


@check()
async def order_is_kept(bench: Bench) -> None:
    """With prefetch 1, messages come in the order in which they were sent, in both queues."""
    sender = await bench.client()
    for kind in (Kind.PUBSUB, Kind.ROUNDROBIN):
        queue, outport = bench.name(f"{kind}.IN"), bench.name(f"{kind}.OUT")
        await bench.bind(kind, outport, queue)
        taker = await bench.take(await bench.client(), bench.inlet(queue), 1)
        await bench.sent(sender, outport, *numbered(300))
        await bench.got(taker, *numbered(300))


@check()
async def order_is_kept_over_fan_in(bench: Bench) -> None:
    """What two outports send to one inport comes in the order in which it was confirmed."""
    senders = [await bench.client(), await bench.client()]
    for kind in (Kind.PUBSUB, Kind.ROUNDROBIN):
        queue = bench.name(f"{kind}.IN")
        outports = [bench.name(f"{kind}.A"), bench.name(f"{kind}.B")]
        for outport in outports:
            await bench.bind(kind, outport, queue)
        bodies = numbered(40)
        for number, body in enumerate(bodies):
            await bench.sent(senders[number % 2], outports[number % 2], body)
        taker = await bench.take(await bench.client(), bench.inlet(queue), 1)
        await bench.got(taker, *bodies)


@check()
async def a_work_queue_waits_for_participants(bench: Bench) -> None:
    """What is sent through RoundRobin while nobody of the role runs waits in the work queue."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), queue)
    await bench.sent(sender, bench.name("OUT"), *numbered(5))
    taker = await bench.take(await bench.client(), bench.inlet(queue, 4), 1)
    await bench.got(taker, *numbered(5))
    await bench.drained(queue)


@check()
async def the_first_place_waits_for_its_participant(bench: Bench) -> None:
    """What is published before any participant of the role exists waits for the first instance."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    await bench.sent(sender, bench.name("OUT"), *numbered(5))
    taker = await bench.take(await bench.client(), bench.inlet(queue, 1), 1)
    await bench.got(taker, *numbered(5))
    await bench.drained(queue)


@check()
async def a_new_instance_gets_what_comes_after(bench: Bench) -> None:
    """A new instance's place has what is published after it was declared, and nothing older."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    await bench.sent(sender, bench.name("OUT"), b'"before"')
    second = await bench.take(await bench.client(), bench.inlet(queue, 2), 1)
    await bench.sent(sender, bench.name("OUT"), b'"after"')
    await bench.got(second, b'"after"')
    first = await bench.take(await bench.client(), bench.inlet(queue, 1), 1)
    await bench.got(first, b'"before"', b'"after"')


@check()
async def a_place_is_found_again(bench: Bench) -> None:
    """A participant that comes back as the same instance finds what it missed, in order."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    for instance in (1, 2):
        leaving = await bench.client()
        await bench.take(leaving, bench.inlet(queue, instance))
        await bench.sent(sender, bench.name("OUT"), b"%d" % instance)
        await bench.place_drained(place_of(queue, instance))
        await leaving.close()
    await bench.sent(sender, bench.name("OUT"), b'"missed"', b'"too"')
    second = await bench.take(await bench.client(), bench.inlet(queue, 2), 1)
    await bench.got(second, b'"missed"', b'"too"')
    first = await bench.take(await bench.client(), bench.inlet(queue, 1), 1)
    await bench.got(first, b"2", b'"missed"', b'"too"')


@check()
async def a_place_lasts_for_its_retention(bench: Bench) -> None:
    """A place that nobody came back to for its retention is given up, with what waits in it; the
    first instance's is kept for as long as anything is bound to it, and so is that of whoever is
    there, however idle.
    """
    sender, queue, outport = await bench.client(), bench.name("IN"), bench.name("OUT")
    binding = await bench.bind(Kind.PUBSUB, outport, queue)
    inlets = [bench.inlet(queue, number, SHORT_RETENTION) for number in (1, 2, 3)]
    leaving = await bench.client()
    for inlet in inlets[:2]:
        await bench.take(leaving, inlet, 1)
    idle = await bench.client()
    await idle.declare(inlets[2:], [])
    await leaving.close()
    await bench.sent(sender, outport, b'"missed"')

    async def places() -> list[str]:
        stats = await (await bench.broker()).queues([queue])
        return [one.queue for one in stats if "@" in one.queue[len(queue) :]]

    kept = [inlets[0].place, inlets[2].place]
    await bench.eventually(
        places, lambda found: found == kept, f"place 2 is given up and {kept} are kept"
    )
    again = await bench.take(await bench.client(), inlets[1], 1)
    await bench.sent(sender, outport, b'"new"')
    await bench.got(again, b'"new"')
    await bench.got(await bench.take(idle, inlets[2], 1), b'"missed"', b'"new"')
    first = await bench.client()
    await bench.got(await bench.take(first, inlets[0], 1), b'"missed"', b'"new"')
    await bench.place_drained(inlets[0].place)
    await bench.unbind(binding)
    await first.close()
    await bench.eventually(
        places,
        lambda found: found == [inlets[1].place, inlets[2].place],
        "place 1 is given up, now that nothing is bound to it",
    )


@check()
async def many_are_sent_without_waiting(bench: Bench) -> None:
    """Ten thousand messages sent at once are confirmed, and each is delivered once."""
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), queue)
    takers = [
        await bench.take(await bench.client(), bench.inlet(queue, number), 500) for number in (1, 2)
    ]
    sent = []
    for number, body in enumerate(numbered(MANY)):
        sent.append(bench.send(sender, bench.name("OUT"), body))
        if number % 1000 == 999:
            await asyncio.sleep(0)
    await bench.confirmed(sent)
    await bench.got_all(takers, numbered(MANY))
    await bench.drained(queue)
    await bench.got_all(takers, numbered(MANY))


@check()
async def one_client_serves_two_participants(bench: Bench) -> None:
    """Two inports, and two instances of one, on one client get what is theirs, independently."""
    client = await bench.client()
    queues = [bench.name("A"), bench.name("B")]
    for queue in queues:
        await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    stuck = await bench.take(client, bench.inlet(queues[0], 1), 1, Taker.hold)
    other = await bench.take(client, bench.inlet(queues[0], 2), 1)
    another = await bench.take(client, bench.inlet(queues[1], 1), 1)
    await bench.sent(client, bench.name("OUT"), *numbered(10))
    await bench.got(other, *numbered(10))
    await bench.got(another, *numbered(10))
    await bench.got(stuck, b"0")
    stuck.settle_all()
    await bench.got(stuck, *numbered(10))
    await bench.drained(*queues)


@check()
async def payloads_are_kept(bench: Bench) -> None:
    """A payload arrives byte for byte, be it empty, falsy, binary, or a megabyte."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    taker = await bench.take(client, bench.inlet(queue), 1)
    await bench.sent(client, bench.name("OUT"), *BODIES)
    await bench.got(taker, *BODIES)
    await bench.enqueue(queue, *BODIES)
    await bench.got(taker, *BODIES, *BODIES)


@check()
async def headers_are_kept(bench: Bench) -> None:
    """Headers arrive as they were sent: their case, empty values, blanks, any script."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    taker = await bench.take(client, bench.inlet(queue), 1)
    sent = bench.send(client, bench.name("OUT"), b"1", HEADERS)
    await bench.confirmed([sent])
    await bench.got(taker, b"1")
    broker = await bench.broker()
    await broker.enqueue(queue, b"2", {**HEADERS, MESSAGE_ID: bench.new_id()})
    await bench.got(taker, b"1", b"2")
    for delivery in taker.deliveries:
        wrong = {
            name: (delivery.headers.get(name), value)
            for name, value in HEADERS.items()
            if delivery.headers.get(name) != value
        }
        bench.expect(not wrong, lambda: f"headers (got, sent): {wrong}")
    first = taker.deliveries[0]
    bench.expect(
        first.headers.get(CONTENT_TYPE) == "application/json"
        and first.headers.get(MESSAGE_ID) == first.id == sent.id,
        lambda: f"{first.id!r} came with {dict(first.headers)}; it was sent as {sent.id!r}",
    )


@check()
async def names_are_free(bench: Bench) -> None:
    """Any text can be the name of a queue, and no two names are taken for one another."""
    client, broker = await bench.client(), await bench.broker()
    takers = {}
    for name in NAMES:
        queue, outport = bench.name(f"{name} IN"), bench.name(f"{name} OUT")
        await bench.bind(Kind.PUBSUB, outport, queue)
        await bench.bind(Kind.ROUNDROBIN, outport, queue)
        takers[name] = await bench.take(client, bench.inlet(queue), 1)
    listed = {binding.target for binding in await broker.bindings()}
    unlisted = [name for name in NAMES if bench.name(f"{name} IN") not in listed]
    bench.expect(not unlisted, f"bindings() does not list {unlisted}")
    for name in NAMES:
        await bench.sent(client, bench.name(f"{name} OUT"), name.encode())
    for name, taker in takers.items():
        await bench.got(taker, name.encode(), name.encode())
        queues = sorted(delivery.queue for delivery in taker.deliveries)
        bench.expect(
            queues == [taker.inlet.queue, taker.inlet.place],
            f"{name!r} came by {queues}",
        )
        bench.expect(
            (await bench.stats(taker.inlet.queue)).queue == taker.inlet.queue,
            f"queues() does not know {taker.inlet.queue!r}",
        )


@check()
async def a_known_id_is_not_delivered_again(bench: Bench) -> None:
    """A message whose id came by this source a moment ago is confirmed and not delivered again."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    taker = await bench.take(await bench.client(), bench.inlet(queue), 1)
    first = bench.send(client, bench.name("OUT"), b"1")
    again = bench.send(client, bench.name("OUT"), b"1", id=first.id)
    await bench.confirmed([first, again])
    await client.close()
    client = await bench.client()
    await bench.confirmed([bench.send(client, bench.name("OUT"), b"1", id=first.id)])
    await bench.sent(client, bench.name("OUT"), b'"end"')
    await bench.got(taker, b"1", b'"end"')
    broker, headers = await bench.broker(), {MESSAGE_ID: bench.new_id()}
    await broker.enqueue(queue, b"2", headers)
    await broker.enqueue(queue, b"2", headers)
    await bench.enqueue(queue, b'"end"')
    await bench.got(taker, b"1", b'"end"', b"2", b'"end"')


@check()
async def ids_are_known_by_source(bench: Bench) -> None:
    """One id sent by two outports, or enqueued to two inports, is two messages."""
    client, id_ = await bench.client(), bench.new_id()
    takers = []
    for name in ("A", "B"):
        await bench.bind(Kind.PUBSUB, bench.name(f"{name}.OUT"), bench.name(f"{name}.IN"))
        takers.append(await bench.take(client, bench.inlet(bench.name(f"{name}.IN")), 1))
        await bench.confirmed([bench.send(client, bench.name(f"{name}.OUT"), b"1", id=id_)])
    broker = await bench.broker()
    for taker in takers:
        await bench.got(taker, b"1")
        await broker.enqueue(taker.inlet.queue, b"2", {MESSAGE_ID: id_})
    for taker in takers:
        await bench.got(taker, b"1", b"2")


@check()
async def messages_can_be_enqueued(bench: Bench) -> None:
    """What is put into a work queue goes to one participant, into a place to its instance."""
    queue = bench.name("IN")
    await bench.enqueue(queue, b'"early"')
    await bench.enqueue(bench.inlet(queue, 2).place, b'"early, 2"')
    second = await bench.take(await bench.client(), bench.inlet(queue, 2), 5)
    await bench.got_all([second], [b'"early"', b'"early, 2"'])
    first = await bench.take(await bench.client(), bench.inlet(queue, 1), 5)
    await bench.enqueue(queue, *numbered(10))
    await bench.enqueue(first.inlet.place, b'"1"')
    await bench.enqueue(second.inlet.place, b'"2"')
    await bench.got_all([first, second], [b'"early"', b'"early, 2"', *numbered(10), b'"1"', b'"2"'])
    bench.expect(
        b'"1"' in first.bodies and b'"2"' in second.bodies,
        lambda: f"put into places 1 and 2; they got {first.bodies} and {second.bodies}",
    )
    await bench.drained(queue)


@check()
async def a_delivery_says_when_it_was_sent(bench: Bench) -> None:
    """A delivery's time is when the broker got it, in seconds since 1970, or 0."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    taker = await bench.take(client, bench.inlet(queue))
    await bench.sent(client, bench.name("OUT"), b"1")
    await bench.got(taker, b"1")
    sent = taker.deliveries[0].sent
    bench.expect(sent == 0 or sent > 1_600_000_000, f"sent is {sent!r}")


@check("too_large")
async def too_large_a_message_is_refused(bench: Bench) -> None:
    """A message that is too large for the broker is answered with SendFailed; others go on."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    taker = await bench.take(client, bench.inlet(queue), 1)
    size = bench.setting.too_large
    assert size is not None
    before = bench.send(client, bench.name("OUT"), b'"before"')
    large = bench.send(client, bench.name("OUT"), bytes(size))
    after = bench.send(client, bench.name("OUT"), b'"after"')
    await bench.confirmed([before, after])
    await bench.until(lambda: large.answers, f"{size} bytes were neither taken nor refused")
    bench.expect(
        isinstance(large.answers[0], SendFailed), f"{size} bytes: answered {large.answers[0]!r}"
    )
    await bench.got(taker, b'"before"', b'"after"')
    bench.expect(client.unconfirmed == 0, f"unconfirmed is {client.unconfirmed}")
    broker = await bench.broker()
    try:
        await broker.enqueue(queue, bytes(size), {MESSAGE_ID: bench.new_id()})
    except SendFailed:
        return
    raise Broken(f"enqueue() of {size} bytes was not refused")


@check()
async def messages_without_headers_are_taken(bench: Bench) -> None:
    """A message that has no headers arrives, with an id that a redelivery has too."""
    queue, broker = bench.name("IN"), await bench.broker()
    await broker.enqueue(queue, b"1", {})

    def once_more(taker: Taker, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            taker.retry(delivery)
        else:
            taker.settle(delivery)

    taker = await bench.take(await bench.client(), bench.inlet(queue), 1, once_more)
    await bench.got(taker, b"1", b"1")
    ids = {delivery.id for delivery in taker.deliveries}
    bench.expect(len(ids) == 1 and ids != {""}, f"the ids are {ids}")
