"""Promises on connections: made, removed and moved under traffic; looked at; counted."""
# ruff: noqa: B023, D205, D209 - what closes over a loop is called at once, and the docstring of a
# check is its promise: one sentence, as long as it needs to be

import asyncio

from msgflo.conformance.bench import Bench, Sent, Taker, check, numbered
from msgflo.flow.binding import Binding, Kind
from msgflo.transport.contract import MESSAGE_ID, Tapped

__all__: list[str] = []

BOTH = (Kind.PUBSUB, Kind.ROUNDROBIN)


@check()
async def bindings_are_listed(bench: Bench) -> None:
    """Bindings are listed, sorted, whoever made them, until they are removed."""
    wanted = [
        Binding(Kind.DEADLETTER, bench.name("B.IN"), bench.name("A.IN")),
        Binding(Kind.PUBSUB, bench.name("A.OUT"), bench.name("B.IN")),
        Binding(Kind.ROUNDROBIN, bench.name("A.OUT"), bench.name("A.IN")),
        Binding(Kind.ROUNDROBIN, bench.name("A.OUT"), bench.name("C IN")),
    ]
    other = await bench.new_broker()
    for binding in reversed(wanted):
        await bench.bind(binding.kind, binding.source, binding.target)

    async def listed() -> list[Binding]:
        return [
            binding for binding in await other.bindings() if binding.source.startswith(bench.prefix)
        ]

    bench.expect(await listed() == wanted, f"{await listed()}; expected {wanted}")
    await other.unbind(wanted[1])
    del wanted[1]
    bench.expect(await listed() == wanted, f"{await listed()}; expected {wanted}")


@check()
async def binding_twice_is_binding_once(bench: Bench) -> None:
    """A connection made again is still one; one removed again stays removed."""
    client, other = await bench.client(), await bench.new_broker()
    for kind in BOTH:
        queue, outport = bench.name(f"{kind}.IN"), bench.name(f"{kind}.OUT")
        await bench.bind(Kind.PUBSUB, bench.name(f"{kind}.MARK"), queue)
        taker = await bench.take(client, bench.inlet(queue), 1)
        binding = await bench.bind(kind, outport, queue)
        await bench.bind(kind, outport, queue)
        await other.bind(binding)
        await bench.sent(client, outport, b"1")
        await bench.got(taker, b"1")
        for _ in range(2):
            await bench.unbind(binding)
        await other.unbind(binding)
        await bench.sent(client, outport, b"2")
        await bench.sent(client, bench.name(f"{kind}.MARK"), b'"end"')
        await bench.got(taker, b"1", b'"end"')
        await bench.bind(kind, outport, queue)
        await bench.sent(client, outport, b"3")
        await bench.got(taker, b"1", b'"end"', b"3")


@check()
async def bindings_outlive_who_made_them(bench: Bench) -> None:
    """Messages go on travelling when the Broker that made the connections is gone."""
    client, maker = await bench.client(), await bench.new_broker()
    for kind in BOTH:
        queue, outport = bench.name(f"{kind}.IN"), bench.name(f"{kind}.OUT")
        binding = Binding(kind, outport, queue)
        await maker.bind(binding)
        taker = await bench.take(client, bench.inlet(queue), 1)
        await bench.sent(client, outport, b"1")
        await bench.got(taker, b"1")
        await maker.close()
        await bench.sent(client, outport, b"2")
        await bench.got(taker, b"1", b"2")
        maker = await bench.new_broker()
        bench.expect(binding in await maker.bindings(), f"{binding} is not listed any more")
        await maker.unbind(binding)


@check()
async def a_source_may_have_the_name_of_its_target(bench: Bench) -> None:
    """A role that has an inport and an outport of one name can be joined to itself: each message
    comes once, and goes round in no ring."""
    client = await bench.client()
    for kind in BOTH:
        name = bench.name(f"{kind}.LOOP")
        await bench.bind(kind, name, name)
        taker = await bench.take(client, bench.inlet(name), 1)
        await bench.sent(client, name, *numbered(3))
        await bench.got(taker, *numbered(3))
        await bench.drained(name)
        await bench.got(taker, *numbered(3))


@check()
async def a_source_knows_whether_it_is_bound(bench: Bench) -> None:
    """A participant can ask whether any connection leads away from its outport."""
    client, outport = await bench.client(), bench.name("OUT")
    await client.declare([], [outport])
    seen = [await client.is_bound(outport)]
    one = await bench.bind(Kind.PUBSUB, outport, bench.name("A.IN"))
    seen.append(await client.is_bound(outport))
    two = await bench.bind(Kind.ROUNDROBIN, outport, bench.name("B.IN"))
    await bench.unbind(one)
    seen.append(await client.is_bound(outport))
    await bench.unbind(two)
    seen.append(await client.is_bound(outport))
    expected = [False, True, True, False]
    bench.expect(seen == expected, f"is_bound() said {seen}; expected {expected}")


@check()
async def connections_are_independent(bench: Bench) -> None:
    """A source can lead to several inports in both ways, an inport can have several sources, and
    removing one connection leaves the others."""
    client = await bench.client()
    takers = {
        name: await bench.take(client, bench.inlet(bench.name(name)), 1) for name in ("A", "B", "C")
    }
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), bench.name("A"))
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), bench.name("B"))
    last = await bench.bind(Kind.PUBSUB, bench.name("OUT"), bench.name("C"))
    await bench.bind(Kind.PUBSUB, bench.name("OTHER"), bench.name("C"))
    await bench.sent(client, bench.name("OUT"), b"1")
    await bench.sent(client, bench.name("OTHER"), b"2")
    await bench.got(takers["C"], b"1", b"2")
    await bench.unbind(last)
    await bench.sent(client, bench.name("OUT"), b"3")
    await bench.sent(client, bench.name("OTHER"), b"4")
    await bench.got(takers["A"], b"1", b"3")
    await bench.got(takers["B"], b"1", b"3")
    await bench.got(takers["C"], b"1", b"2", b"4")


@check()
async def unbinding_takes_nothing_from_the_busy(bench: Bench) -> None:
    """What was sent before a connection was removed still arrives at a participant that is behind;
    what is sent after does not, and neither does it when the connection is made again later."""
    sender = await bench.client()
    for kind in BOTH:
        queue, outport = bench.name(f"{kind}.IN"), bench.name(f"{kind}.OUT")
        binding = await bench.bind(kind, outport, queue)
        taker = await bench.take(await bench.client(), bench.inlet(queue), 1, Taker.hold)
        await bench.sent(sender, outport, *numbered(5))
        await bench.got(taker, b"0")
        await bench.unbind(binding)
        await bench.sent(sender, outport, b'"between"', b'"between"')
        await bench.bind(kind, outport, queue)
        await bench.sent(sender, outport, b'"after"')
        taker.settle_all()
        await bench.got(taker, *numbered(5), b'"after"')
        await bench.drained(queue)
        await bench.got(taker, *numbered(5), b'"after"')


@check()
async def unbinding_takes_nothing_from_the_absent(bench: Bench) -> None:
    """What was sent before a connection was removed waits for a participant that is away; what was
    sent while it was removed is not there, even if it is made again before that one comes."""
    sender = await bench.client()
    for kind in BOTH:
        for again in (False, True):
            queue = bench.name(f"{kind}.{again}.IN")
            outport, mark = bench.name(f"{kind}.{again}.OUT"), bench.name(f"{kind}.{again}.MARK")
            binding = await bench.bind(kind, outport, queue)
            await bench.bind(kind, mark, queue)
            leaving = await bench.client()
            taker = await bench.take(leaving, bench.inlet(queue), 1, Taker.hold)
            await bench.sent(sender, outport, b"0")
            await bench.got(taker, b"0")
            taker.settle_all()
            await leaving.flush(bench.setting.patience)
            await leaving.close()
            await bench.sent(sender, outport, *numbered(4, 1))
            await bench.unbind(binding)
            await bench.sent(sender, outport, b'"between"')
            if again:
                await bench.bind(kind, outport, queue)
            await bench.sent(sender, mark, b'"end"')
            taker = await bench.take(await bench.client(), bench.inlet(queue), 1)
            await bench.got(taker, *numbered(4, 1), b'"end"')
            await bench.drained(queue)
            await bench.got(taker, *numbered(4, 1), b'"end"')


@check()
async def unbinding_leaves_what_comes_another_way(bench: Bench) -> None:
    """A source bound to an inport in both ways goes on by the one that is left."""
    sender, queue, outport = await bench.client(), bench.name("IN"), bench.name("OUT")
    first = await bench.bind(Kind.PUBSUB, outport, queue)
    await bench.bind(Kind.ROUNDROBIN, outport, queue)
    taker = await bench.take(await bench.client(), bench.inlet(queue), 10)
    await bench.sent(sender, outport, b"1")
    await bench.got(taker, b"1", b"1")
    await bench.unbind(first)
    await bench.sent(sender, outport, b"2")
    await bench.enqueue(taker.inlet.place, b'"end"')
    await bench.got_all([taker], [b"1", b"1", b"2", b'"end"'])


@check()
async def a_connection_changes_its_kind(bench: Bench) -> None:
    """When publish-subscribe is replaced by RoundRobin, copies that wait stay, each in its place,
    and what is sent after that is shared; nothing is lost by the change."""
    sender, queue, outport = await bench.client(), bench.name("IN"), bench.name("OUT")
    copied = await bench.bind(Kind.PUBSUB, outport, queue)
    takers = [
        await bench.take(await bench.client(), bench.inlet(queue, number), 2, Taker.hold)
        for number in (1, 2)
    ]
    await bench.sent(sender, outport, *numbered(5))
    for taker in takers:
        await bench.got(taker, *numbered(2))
    await bench.bind(Kind.ROUNDROBIN, outport, queue)
    await bench.unbind(copied)
    await bench.sent(sender, outport, *numbered(5, 100))
    for taker in takers:
        taker.settle_all()
    await bench.got_all(takers, [*numbered(5), *numbered(5), *numbered(5, 100)])
    for taker in takers:
        own = [held.body for held in taker.deliveries if held.queue == taker.inlet.place]
        bench.expect(own == numbered(5), f"in {taker.inlet.place} were {own}")
    await bench.drained(queue)


@check()
async def rewiring_under_traffic_loses_nothing(bench: Bench) -> None:
    """While messages flow, a connection is moved from one role to another: each message arrives
    at the old one or the new one; those after the change arrive at the new one alone."""
    sender, outport = await bench.client(), bench.name("OUT")
    for kind in BOTH:
        old, new = bench.name(f"{kind}.OLD"), bench.name(f"{kind}.NEW")
        was = await bench.bind(kind, outport, old)
        at_old = await bench.take(await bench.client(), bench.inlet(old), 50)
        at_new = await bench.take(await bench.client(), bench.inlet(new), 50)
        sent: list[Sent] = []

        async def stream(sent: list[Sent] = sent, kind: Kind = kind) -> None:
            while True:
                sent.append(bench.send(sender, outport, b"%d" % len(sent)))
                await bench.until(
                    lambda: sender.unconfirmed < 200,
                    lambda: f"{sender.unconfirmed} messages stay unconfirmed ({kind})",
                )
                await asyncio.sleep(0)

        async with bench.meanwhile(stream()):
            await bench.until(lambda: len(at_old.deliveries) > 100, "nothing flows to the old")
            now = await bench.bind(kind, outport, new)
            await bench.unbind(was)
            after = len(sent)
            await bench.until(
                lambda: len(sent) > after + 100,
                "sending does not go on",
            )
        await bench.confirmed(sent)
        await bench.drained(old, new)
        got_old, got_new = sorted(map(int, at_old.bodies)), sorted(map(int, at_new.bodies))
        lost = sorted(set(range(len(sent))) - set(got_old) - set(got_new))
        bench.expect(not lost, f"of {len(sent)} messages, {len(lost)} are lost: {lost[:20]}")
        for got in (got_old, got_new):
            bench.expect(len(set(got)) == len(got), "messages were delivered twice")
        strays = [number for number in got_old if number >= after]
        bench.expect(not strays, f"sent after {after}, and came to the old one: {strays[:20]}")
        bench.expect(
            set(range(after, len(sent))) <= set(got_new),
            f"not all that was sent after {after} came to the new one",
        )
        await bench.unbind(now)


@check()
async def a_source_is_tapped(bench: Bench) -> None:
    """A tap sees each message that passes a source, bound or not, and does not touch it; it sees
    nothing more once it is closed."""
    client, broker = await bench.client(), await bench.broker()
    queue, outport = bench.name("IN"), bench.name("OUT")
    seen: list[Tapped] = []
    also: list[Tapped] = []

    def note(tapped: Tapped) -> None:
        seen.append(tapped)
        bench.changed.set()

    def note_also(tapped: Tapped) -> None:
        also.append(tapped)
        bench.changed.set()

    tap = await broker.tap(outport, note)
    other = await (await bench.new_broker()).tap(outport, note_also)
    first = (await bench.sent(client, outport, b'"unbound"'))[0]
    await bench.bind(Kind.PUBSUB, outport, queue)
    taker = await bench.take(client, bench.inlet(queue), 1)
    await bench.sent(client, outport, *numbered(10))
    await bench.got(taker, *numbered(10))
    bodies = [b'"unbound"', *numbered(10)]
    for tapped in (seen, also):
        await bench.until(
            lambda: len(tapped) >= 11,
            lambda: f"a tap saw {len(tapped)} of 11",
        )
        got = [message.body for message in tapped]
        bench.expect(got == bodies, f"a tap saw {got}; expected {bodies}")
    bench.expect(
        (seen[0].queue, seen[0].headers.get(MESSAGE_ID)) == (outport, first.id)
        and seen[0].time > 1_600_000_000,
        lambda: f"the tap saw {seen[0]}",
    )
    await tap.close()
    await tap.close()
    await bench.sent(client, outport, b'"after"')
    await bench.until(lambda: len(also) == 12, "the other tap saw nothing more")
    bench.expect(len(seen) == 11, lambda: f"a closed tap saw {seen[11:]}")
    await other.close()
    await bench.got(taker, *numbered(10), b'"after"')
    await bench.drained(queue)


@check()
async def an_inport_is_tapped(bench: Bench) -> None:
    """A tap of a work queue or a place sees what is put into it directly."""
    client, broker = await bench.client(), await bench.broker()
    queue = bench.name("IN")
    taker = await bench.take(client, bench.inlet(queue), 1)
    for name in (queue, taker.inlet.place):
        seen: list[bytes] = []

        def note(tapped: Tapped, seen: list[bytes] = seen) -> None:
            seen.append(tapped.body)
            bench.changed.set()

        tap = await broker.tap(name, note)
        await bench.enqueue(name, *numbered(3))
        await bench.until(
            lambda: len(seen) == 3,
            lambda: f"a tap of {name} saw {seen}",
        )
        await tap.close()
    await bench.got(taker, *numbered(3), *numbered(3))
    await bench.drained(queue)


@check()
async def queues_are_counted(bench: Bench) -> None:
    """Statistics tell what waits, what is in flight, since when, and who takes from it."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("COPIES"), queue)
    await bench.bind(Kind.ROUNDROBIN, bench.name("SHARED"), queue)
    await bench.sent(client, bench.name("COPIES"), *numbered(3))
    await bench.sent(client, bench.name("SHARED"), *numbered(4))
    place = bench.inlet(queue).place
    broker = await bench.broker()
    for name, count in ((queue, 4), (place, 3)):
        await bench.eventually(
            lambda: bench.stats(name),
            lambda s: (s.waiting, s.in_flight, s.consumers) == (count, 0, 0) and s.oldest > 0,
            f"{name} has {count} waiting, 0 in flight, 0 consumers, an oldest",
        )
    names = [stats.queue for stats in await broker.queues()]
    bench.expect(names == sorted(names), "queues() is not sorted by name")
    bench.expect({queue, place} <= set(names), lambda: f"queues() lacks {queue} or {place}")
    taker = await bench.take(client, bench.inlet(queue), 7, Taker.hold)
    await bench.until(lambda: len(taker.open) == 7, lambda: f"{len(taker.open)} of 7 came")
    taker.retry(next(held for held in taker.open if held.queue == queue), 30.0, counts=False)
    for name, waiting, in_flight in ((queue, 1, 3), (place, 0, 3)):
        await bench.eventually(
            lambda: bench.stats(name),
            lambda s: (
                (s.waiting, s.in_flight) == (waiting, in_flight)
                and s.consumers >= 1
                and s.oldest > 0
            ),
            f"{name} has {waiting} waiting (for a retry), {in_flight} in flight, a consumer",
        )
    taker.settle_all()
    await bench.eventually(
        lambda: bench.stats(place),
        lambda s: (s.waiting, s.in_flight, s.oldest) == (0, 0, 0),
        f"{place} is empty",
    )


@check()
async def rates_are_measured(bench: Bench) -> None:
    """Rates tell what came in and what was ended since the same Broker was asked before."""
    client, queue, broker = await bench.client(), bench.name("IN"), await bench.new_broker()
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), queue)
    taker = await bench.take(client, bench.inlet(queue), 10)
    before = {stats.queue: stats for stats in await broker.queues([queue])}
    await bench.sent(client, bench.name("OUT"), *numbered(50))
    await bench.got_all([taker], numbered(50))
    await bench.drained(queue)
    after = {stats.queue: stats for stats in await broker.queues([queue])}
    bench.expect(
        before[queue].rate_in == before[queue].rate_out == 0,
        lambda: f"asked the first time: {before[queue]}",
    )
    bench.expect(
        after[queue].rate_in > 0 and after[queue].rate_out > 0,
        lambda: f"after 50 messages: {after[queue]}",
    )
