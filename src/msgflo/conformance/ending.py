"""Promises on how a delivery ends: settled, again, later, dead, or not at all."""
# ruff: noqa: B023, D205, D209 - what closes over a loop is called at once, and the docstring of a
# check is its promise: one sentence, as long as it needs to be

import time
from collections.abc import Awaitable, Callable

from msgflo.conformance.bench import Bench, Broken, Taker, check, numbered
from msgflo.errors import MsgFloError
from msgflo.flow.binding import Kind
from msgflo.transport.contract import REQUEUED, DeadLetter, Death, Delivery

__all__: list[str] = []

_Leave = Callable[[Bench, Taker], Awaitable[None]]

DELAY = 0.6
"""Seconds of a delayed retry: long enough that others can overtake it."""

EARLY = 0.02
"""Seconds that a clock may be wrong."""


async def _attempts(bench: Bench, taker: Taker, *expected: tuple[int, int]) -> None:
    """Wait for deliveries of one message, and compare (attempt, postponed) of each."""
    await bench.until(
        lambda: len(taker.deliveries) >= len(expected),
        lambda: f"{len(taker.deliveries)} of {len(expected)} deliveries came",
    )
    got = [(delivery.attempt, delivery.postponed) for delivery in taker.deliveries]
    bench.expect(got == list(expected), lambda: f"(attempt, postponed) {got}; not {expected}")


async def _letters(bench: Bench, queue: str, count: int) -> list[DeadLetter]:
    """Wait for as many dead letters."""
    broker = await bench.broker()
    return await bench.eventually(
        lambda: broker.dead_letters(queue),
        lambda letters: len(letters) == count,
        f"dead_letters({queue!r}) does not list {count}",
    )


@check()
async def settled_is_gone(bench: Bench) -> None:
    """What was settled never comes again, to nobody, and is not in the queue any more."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("COPIES"), queue)
    await bench.bind(Kind.ROUNDROBIN, bench.name("SHARED"), queue)
    taker = await bench.take(client, bench.inlet(queue), 10)
    sender = await bench.client()
    await bench.sent(sender, bench.name("COPIES"), *numbered(5))
    await bench.sent(sender, bench.name("SHARED"), *numbered(5, 10))
    await bench.got_all([taker], numbered(5) + numbered(5, 10))
    await client.flush(bench.setting.patience)
    await client.close()
    again = await bench.take(await bench.client(), bench.inlet(queue), 1)
    await bench.sent(sender, bench.name("COPIES"), b'"end"')
    await bench.sent(sender, bench.name("SHARED"), b'"end"')
    await bench.got(again, b'"end"', b'"end"')
    await bench.drained(queue)
    await bench.got(again, b'"end"', b'"end"')


@check()
async def unended_comes_again_after_close(bench: Bench) -> None:
    """What a client did not end when it closes is delivered again, as a further attempt."""
    await _unended(bench, _close)


@check("drop")
async def unended_comes_again_after_death(bench: Bench) -> None:
    """What a client did not end when its process dies is delivered again, as a further attempt."""
    await _unended(bench, _die)


async def _close(_bench: Bench, taker: Taker) -> None:
    await taker.client.close()


async def _die(bench: Bench, taker: Taker) -> None:
    await bench.drop(taker.client)


async def _unended(bench: Bench, leave: _Leave) -> None:
    sender, queue = await bench.client(), bench.name("IN")
    await bench.bind(Kind.PUBSUB, bench.name("COPIES"), queue)
    await bench.bind(Kind.ROUNDROBIN, bench.name("SHARED"), queue)
    dying = await bench.take(await bench.client(), bench.inlet(queue, 1), 4, Taker.hold)
    await bench.sent(sender, bench.name("COPIES"), b'"copy 1"', b'"copy 2"')
    await bench.sent(sender, bench.name("SHARED"), b'"shared 1"', b'"shared 2"')
    bodies = [b'"copy 1"', b'"copy 2"', b'"shared 1"', b'"shared 2"']
    await bench.got_all([dying], bodies)
    ended = next(held for held in dying.open if held.body == b'"copy 1"')
    dying.settle(ended)
    await dying.client.flush(bench.setting.patience)
    ids = {held.body: held.id for held in dying.open}
    await leave(bench, dying)
    # The shared ones go to whoever is there; the copy waits for its instance.
    other = await bench.take(await bench.client(), bench.inlet(queue, 2), 10)
    await bench.got_all([other], bodies[2:])
    same = await bench.take(await bench.client(), bench.inlet(queue, 1), 10)
    await bench.got(same, b'"copy 2"')
    for delivery in other.deliveries + same.deliveries:
        bench.expect(
            (delivery.attempt, delivery.postponed) == (2, 0),
            lambda: f"{delivery!r}, postponed {delivery.postponed}; expected attempt 2",
        )
        bench.expect(
            delivery.id == ids[delivery.body],
            lambda: f"{delivery!r} was {ids[delivery.body]!r} before",
        )
    await bench.drained(queue)
    bench.expect(
        len(dying.deliveries) == 4, lambda: f"the one that left got {dying.bodies[4:]} after that"
    )


@check()
async def never_ended_counts(bench: Bench) -> None:
    """A message that no participant lives to end says so: its attempts go up each time."""
    queue = bench.name("IN")
    await bench.enqueue(queue, b'"poison"')
    for attempt in (1, 2, 3, 4):
        client = await bench.client()
        taker = await bench.take(client, bench.inlet(queue), 1, Taker.hold)
        await _attempts(bench, taker, (attempt, 0))
        await client.close()
    taker = await bench.take(await bench.client(), bench.inlet(queue), 1)
    await _attempts(bench, taker, (5, 0))
    await bench.drained(queue)


@check("drop")
async def dying_counts(bench: Bench) -> None:
    """A message that kills each process that takes it says so, and can be made a dead letter."""
    queue = bench.name("IN")
    await bench.enqueue(queue, b'"poison"')
    for attempt in (1, 2):
        client = await bench.client()
        taker = await bench.take(client, bench.inlet(queue), 1, Taker.hold)
        await _attempts(bench, taker, (attempt, 0))
        await bench.drop(client)
    taker = await bench.take(await bench.client(), bench.inlet(queue), 1, _bury)
    await _attempts(bench, taker, (3, 0))
    await _letters(bench, queue, 1)
    await bench.drained(queue)


@check()
async def a_chain_loses_nothing(bench: Bench) -> None:
    """When a participant settles what it took after what it sent is confirmed, and is closed in
    the middle of work, again and again, every message gets through, and is known by its id."""
    await _chain(bench, 4, _close)


@check("drop")
async def a_chain_of_the_dying_loses_nothing(bench: Bench) -> None:
    """The same when its process dies in the middle of work, again and again."""
    await _chain(bench, 2, _die)


async def _chain(bench: Bench, rounds: int, leave: _Leave) -> None:
    sender = await bench.client()
    middle, end = bench.name("MIDDLE"), bench.name("END")
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), middle)
    await bench.bind(Kind.PUBSUB, bench.name("MIDDLE.OUT"), end)
    sink = await bench.take(await bench.client(), bench.inlet(end), 50)
    await bench.sent(sender, bench.name("OUT"), *numbered(400))

    def repeat(taker: Taker, delivery: Delivery) -> None:
        sent = bench.send(taker.client, bench.name("MIDDLE.OUT"), delivery.body, id=delivery.id)

        def confirmed(error: Exception | None) -> None:
            if error is None and delivery in taker.open:
                taker.settle(delivery)

        sent.also = confirmed

    for round_ in range(rounds):
        client = await bench.client()
        taker = await bench.take(client, bench.inlet(middle, round_ + 1), 20, repeat)
        await bench.until(
            lambda: len(taker.deliveries) > 50,
            lambda: f"only {len(taker.deliveries)} came to the middle",
        )
        await leave(bench, taker)
    await bench.take(await bench.client(), bench.inlet(middle), 20, repeat)
    missing: set[bytes] = set()

    def complete() -> bool:
        missing.clear()
        missing.update(set(numbered(400)) - set(sink.bodies))
        return not missing

    await bench.until(complete, lambda: f"{len(missing)} of 400 are lost: {sorted(missing)[:20]}")
    by_id = {delivery.id: delivery.body for delivery in sink.deliveries}
    bench.expect(len(by_id) == 400, lambda: f"400 messages came with {len(by_id)} ids")
    await bench.drained(middle, end)


@check()
async def a_retry_comes_again(bench: Bench) -> None:
    """What is to be tried again is delivered again, at once, with attempts that count up."""
    queue = bench.name("IN")

    def thrice(taker: Taker, delivery: Delivery) -> None:
        if delivery.attempt < 3:
            taker.retry(delivery)
        else:
            taker.settle(delivery)

    taker = await bench.take(await bench.client(), bench.inlet(queue), 1, thrice)
    for put in (queue, taker.inlet.place):
        taker.deliveries.clear()
        await bench.enqueue(put, b"1")
        await _attempts(bench, taker, (1, 0), (2, 0), (3, 0))
        bench.expect(
            len({delivery.id for delivery in taker.deliveries}) == 1
            and {delivery.queue for delivery in taker.deliveries} == {put},
            lambda: f"the deliveries differ: {taker.deliveries}",
        )
    await bench.drained(queue)


@check()
async def a_retry_goes_to_any_participant(bench: Bench) -> None:
    """What one participant gives back, another one of the role can have."""
    queue = bench.name("IN")
    first = await bench.take(await bench.client(), bench.inlet(queue, 1), 1, Taker.hold)
    await bench.enqueue(queue, b"1")
    await bench.got(first, b"1")
    await first.pause()
    first.retry(first.open[0])
    second = await bench.take(await bench.client(), bench.inlet(queue, 2), 1)
    await _attempts(bench, second, (2, 0))
    await bench.drained(queue)
    await bench.got(first, b"1")


@check()
async def a_delayed_retry_waits(bench: Bench) -> None:
    """A retry with a delay does not come before it, and others overtake it meanwhile."""
    client, queue = await bench.client(), bench.name("IN")
    given_back: dict[str, float] = {}
    came: dict[str, float] = {}

    def later(taker: Taker, delivery: Delivery) -> None:
        if delivery.body == b'"later"' and delivery.attempt == 1:
            given_back[delivery.queue] = time.monotonic()
            taker.retry(delivery, DELAY)
        else:
            came[delivery.queue] = time.monotonic()
            taker.settle(delivery)

    taker = await bench.take(client, bench.inlet(queue), 1, later)
    for put in (queue, taker.inlet.place):
        taker.deliveries.clear()
        await bench.enqueue(put, b'"later"', *numbered(5))
        await bench.got(taker, b'"later"', *numbered(5), b'"later"')
        waited = came[put] - given_back[put]
        bench.expect(waited >= DELAY - EARLY, f"it came after {waited:.3f} s instead of {DELAY}")
        attempt = taker.deliveries[-1].attempt
        bench.expect(attempt == 2, f"it came as attempt {attempt} after one retry")
    await bench.drained(queue)


@check()
async def a_delayed_retry_outlives_its_participant(bench: Bench) -> None:
    """A retry that waits for its time is not lost, and not forgotten to be one, when the
    participant goes: whoever comes gets it when it is due."""
    queue = bench.name("IN")
    client = await bench.client()
    taker = await bench.take(client, bench.inlet(queue), 1, Taker.hold)
    await bench.enqueue(queue, b"1")
    await bench.got(taker, b"1")
    started = time.monotonic()
    taker.retry(taker.open[0], DELAY)
    await client.flush(bench.setting.patience)
    await client.close()
    taker = await bench.take(await bench.client(), bench.inlet(queue, 2), 1)
    await _attempts(bench, taker, (2, 0))
    waited = time.monotonic() - started
    bench.expect(waited >= DELAY - EARLY, f"it came after {waited:.3f} s instead of {DELAY}")
    await bench.drained(queue)


@check()
async def a_hand_back_is_not_counted(bench: Bench) -> None:
    """What is handed back or postponed comes again with the same attempt, and one more in
    ``postponed``; real attempts in between are counted on their own."""
    queue = bench.name("IN")
    ends = iter([(0.0, False), (0.0, True), (0.05, False), (0.05, True), (0.0, False)])

    def end(taker: Taker, delivery: Delivery) -> None:
        planned = next(ends, None)
        if planned is None:
            taker.settle(delivery)
        else:
            taker.retry(delivery, planned[0], counts=planned[1])

    taker = await bench.take(await bench.client(), bench.inlet(queue), 1, end)
    await bench.enqueue(queue, b"1")
    await _attempts(bench, taker, (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3))
    await bench.drained(queue)


@check()
async def a_hand_back_is_remembered(bench: Bench) -> None:
    """The counts of attempts and of hand-backs stay right when the participant goes."""
    queue = bench.name("IN")
    await bench.enqueue(queue, b"1")
    for number, expected in enumerate([(1, 0), (1, 1), (2, 1)]):
        client = await bench.client()
        taker = await bench.take(client, bench.inlet(queue), 1, Taker.hold)
        await _attempts(bench, taker, expected)
        if number == 0:
            await taker.pause()
            taker.retry(taker.open[0], counts=False)
            await client.flush(bench.setting.patience)
        await client.close()
    taker = await bench.take(await bench.client(), bench.inlet(queue), 1)
    await _attempts(bench, taker, (3, 1))
    await bench.drained(queue)


@check()
async def a_dead_letter_is_complete(bench: Bench) -> None:
    """A dead letter has the original payload and headers, and says why, where and when it died;
    it is not in its queue any more."""
    client, queue = await bench.client(), bench.name("IN")
    deaths: dict[bytes, Death] = {}

    def bury(taker: Taker, delivery: Delivery) -> None:
        deaths[delivery.body] = taker.bury(delivery, "ValueError", "line\nbreak, 'ä' ☃ \\n")

    await bench.bind(Kind.PUBSUB, bench.name("COPIES"), queue)
    await bench.bind(Kind.ROUNDROBIN, bench.name("SHARED"), queue)
    taker = await bench.take(client, bench.inlet(queue), 1, bury)
    headers = {"Custom": "kept ☃", "Empty": ""}
    sent = {}
    for number, outport in enumerate(("COPIES", "SHARED")):
        body = bytes(range(256)) + b"%d" % number
        sent[body] = bench.send(client, bench.name(outport), body, headers)
        await bench.confirmed([sent[body]])
        await _letters(bench, queue, number + 1)
    letters = await _letters(bench, queue, 2)
    bench.expect(len({letter.key for letter in letters}) == 2, "two letters have one key")
    for letter, place in zip(letters, (taker.inlet.place, queue), strict=True):
        bench.expect(letter.body in sent, lambda: f"another payload: {letter.body!r}")
        bench.expect(
            (letter.queue, letter.id) == (queue, sent[letter.body].id),
            lambda: f"queue and id are {letter.queue!r}, {letter.id!r}",
        )
        wrong = {name: letter.headers.get(name) for name in headers}
        bench.expect(wrong == headers, f"headers {wrong}; expected {headers}")
        noise = [name for name in letter.headers if name.startswith("Msgflo-Death")]
        bench.expect(not noise, f"headers of the death are among those of the message: {noise}")
        said = deaths[letter.body]
        bench.expect(said.queue == place, f"died in {said.queue}, waited in {place}")
        bench.expect(_same(letter.death, said), lambda: f"got {letter.death}; said was {said}")
    stats = await bench.stats(f"dead-{queue}")
    bench.expect(stats.waiting == 2, f"queues() says {stats}")
    await bench.drained(queue)


def _same(got: Death, said: Death) -> bool:
    # Times travel with three decimals.
    return (
        abs(got.first_seen - said.first_seen) < 0.01
        and abs(got.died - said.died) < 0.01
        and (got.queue, got.role, got.instance, got.attempts, got.error, got.text, got.traceback)
        == (
            said.queue,
            said.role,
            said.instance,
            said.attempts,
            said.error,
            said.text,
            said.traceback,
        )
    )


def _bury(taker: Taker, delivery: Delivery) -> None:
    taker.bury(delivery)


@check()
async def dead_letters_are_read_page_by_page(bench: Bench) -> None:
    """Dead letters are listed oldest first, at most as many as asked for, and on from a key."""
    client, queue = await bench.client(), bench.name("IN")
    await bench.take(client, bench.inlet(queue), 1, _bury)
    await bench.enqueue(queue, *numbered(7))
    everything = await _letters(bench, queue, 7)
    broker = await bench.broker()
    bench.expect(
        [letter.body for letter in everything] == numbered(7),
        lambda: f"the order is {[letter.body for letter in everything]}",
    )
    pages, after = [], ""
    while page := await broker.dead_letters(queue, 3, after):
        pages.append([letter.body for letter in page])
        after = page[-1].key
        if len(pages) == 1:
            # Reading on works from a key that is gone, too.
            await broker.discard(queue, [after])
    bench.expect(
        pages == [numbered(3), numbered(3, 3), numbered(1, 6)], f"pages of three are {pages}"
    )
    nobody = await broker.dead_letters(bench.name("NOBODY"))
    bench.expect(nobody == [], f"an inport that is not there has {nobody}")


@check()
async def a_dead_letter_is_requeued(bench: Bench) -> None:
    """A dead letter goes back to the queue where it died, under its id, counted, and is tried
    from the first attempt; it is in the dead letters no more."""
    client, queue = await bench.client(), bench.name("IN")
    broker = await bench.broker()
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    second = await bench.take(client, bench.inlet(queue, 2), 1, _bury)
    first = await bench.take(client, bench.inlet(queue, 1), 1)
    sent = (await bench.sent(client, bench.name("OUT"), b'"copy"'))[0]
    await bench.got(first, b'"copy"')
    for times in (1, 2):
        letter = (await _letters(bench, queue, 1))[0]
        count = await broker.requeue(queue, [letter.key, "0", "no such key"])
        bench.expect(count == 1, f"requeue() of one letter says {count}")
        await bench.until(
            lambda: len(second.deliveries) == times + 1,
            lambda: f"place 2 got {second.bodies}",
        )
        again = second.deliveries[-1]
        said = (again.id, again.queue, again.attempt, again.body, again.headers.get(REQUEUED))
        expected = (sent.id, second.inlet.place, 1, b'"copy"', str(times))
        bench.expect(
            said == expected,
            f"(id, queue, attempt, body, {REQUEUED}) is {said}; expected {expected}",
        )
        death = Death.from_headers(again.headers)
        bench.expect(death is None, f"it still says how it died: {death}")
    second.then = Taker.settle
    letter = (await _letters(bench, queue, 1))[0]
    await broker.requeue(queue, [letter.key])
    await bench.drained(queue)
    await _letters(bench, queue, 0)
    await bench.got(first, b'"copy"')


@check()
async def a_dead_letter_is_edited(bench: Bench) -> None:
    """A dead letter can be put back with another payload, and keeps its headers and id."""
    client, queue = await bench.client(), bench.name("IN")

    def mind(taker: Taker, delivery: Delivery) -> None:
        if delivery.body == b"bad":
            taker.bury(delivery)
        else:
            taker.settle(delivery)

    taker = await bench.take(client, bench.inlet(queue), 1, mind)
    await bench.bind(Kind.ROUNDROBIN, bench.name("OUT"), queue)
    sent = bench.send(client, bench.name("OUT"), b"bad", {"Custom": "kept"})
    await bench.confirmed([sent])
    letter = (await _letters(bench, queue, 1))[0]
    await (await bench.broker()).requeue(queue, [letter.key], b"good")
    await bench.got(taker, b"bad", b"good")
    again = taker.deliveries[-1]
    bench.expect(
        (again.id, again.queue, again.headers.get("Custom")) == (sent.id, queue, "kept"),
        lambda: f"{again!r} has headers {dict(again.headers)}",
    )
    await _letters(bench, queue, 0)
    await bench.drained(queue)


@check()
async def a_dead_letter_is_discarded(bench: Bench) -> None:
    """A discarded dead letter is gone; keys that are not there are passed over."""
    client, queue = await bench.client(), bench.name("IN")
    broker = await bench.broker()
    taker = await bench.take(client, bench.inlet(queue), 1, _bury)
    await bench.enqueue(queue, *numbered(3))
    letters = await _letters(bench, queue, 3)
    count = await broker.discard(queue, [letters[1].key, "0", "no such key"])
    bench.expect(count == 1, f"discard() of one letter says {count}")
    count = await broker.discard(queue, [letters[1].key])
    bench.expect(count == 0, f"discard() of one that is gone says {count}")
    left = await _letters(bench, queue, 2)
    bench.expect(
        [letter.body for letter in left] == [b"0", b"2"],
        lambda: f"left are {[letter.body for letter in left]}",
    )
    count = await broker.requeue(queue, [letters[1].key])
    bench.expect(count == 0, f"requeue() of one that is gone says {count}")
    await bench.got(taker, *numbered(3))


@check()
async def dead_letters_are_routed(bench: Bench) -> None:
    """A dead-letter binding gives dead letters to another role, with payload, headers and why;
    without it they wait in the dead letters again."""
    client, queue, other = await bench.client(), bench.name("IN"), bench.name("FAILED")
    binding = await bench.bind(Kind.DEADLETTER, queue, other)
    broken = await bench.take(client, bench.inlet(queue), 1, _bury)
    mender = await bench.take(client, bench.inlet(other), 1)
    await bench.bind(Kind.PUBSUB, bench.name("OUT"), queue)
    sent = bench.send(client, bench.name("OUT"), b'"routed"', {"Custom": "kept ☃"})
    await bench.confirmed([sent])
    await bench.got(mender, b'"routed"')
    delivery = mender.deliveries[0]
    death = Death.from_headers(delivery.headers)
    bench.expect(death is not None, f"the headers say nothing of its death: {delivery.headers}")
    assert death is not None
    bench.expect(
        (death.queue, death.error, death.role) == (broken.inlet.place, "ValueError", "checked"),
        f"it says {death}",
    )
    bench.expect(
        (delivery.id, delivery.queue, delivery.attempt, delivery.headers.get("Custom"))
        == (sent.id, other, 1, "kept ☃"),
        lambda: f"{delivery!r} has headers {dict(delivery.headers)}",
    )
    await _letters(bench, queue, 0)
    await bench.unbind(binding)
    await bench.enqueue(queue, b'"kept"')
    letter = (await _letters(bench, queue, 1))[0]
    bench.expect(letter.body == b'"kept"', f"the dead letter is {letter}")
    await bench.got(mender, b'"routed"')
    await bench.drained(queue, other)


@check()
async def routing_is_for_what_dies_while_it_is_bound(bench: Bench) -> None:
    """What died before its dead letters were bound elsewhere stays where it is, and what died
    while they were arrives, even if that is removed before anybody comes for it."""
    client, queue, other = await bench.client(), bench.name("IN"), bench.name("FAILED")
    broken = await bench.take(client, bench.inlet(queue), 1, _bury)
    await bench.enqueue(queue, b'"before"')
    await _letters(bench, queue, 1)
    binding = await bench.bind(Kind.DEADLETTER, queue, other)
    await bench.enqueue(queue, b'"while"')
    await bench.got(broken, b'"before"', b'"while"')
    await client.flush(bench.setting.patience)
    await bench.drained(queue)
    await bench.unbind(binding)
    await bench.enqueue(queue, b'"after"')
    letters = await _letters(bench, queue, 2)
    bench.expect(
        [letter.body for letter in letters] == [b'"before"', b'"after"'],
        lambda: f"the dead letters are {letters}",
    )
    mender = await bench.take(await bench.client(), bench.inlet(other), 1)
    await bench.got(mender, b'"while"')
    broken.then = Taker.settle
    count = await (await bench.broker()).requeue(queue, [letter.key for letter in letters])
    bench.expect(count == 2, f"requeue() of both says {count}")
    await bench.got_all([broken], [b'"before"', b'"while"', b'"after"', b'"before"', b'"after"'])
    await bench.drained(queue, other)
    await bench.got(mender, b'"while"')


@check()
async def a_delivery_is_ended_once(bench: Bench) -> None:
    """Ending a delivery a second time changes nothing: it is neither doubled nor revived."""
    client, queue = await bench.client(), bench.name("IN")
    taker = await bench.take(client, bench.inlet(queue), 2, Taker.hold)
    await bench.enqueue(queue, b"1")
    await bench.got(taker, b"1")
    delivery = taker.open[0]
    taker.settle(delivery)
    try:
        client.settle(delivery)
        client.retry(delivery)
    except MsgFloError as error:
        raise Broken(f"ending a delivery twice raised {error!r}") from error
    taker.then = Taker.settle
    await bench.enqueue(queue, b'"end"')
    await bench.got(taker, b"1", b'"end"')
    await bench.drained(queue)
    await bench.got(taker, b"1", b'"end"')
