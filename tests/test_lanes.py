"""How handlers are called: in the event loop and in threads, how many at a time, in what order."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import pytest

import msgflo
from msgflo import Context, lanes
from msgflo.declaration import Component, inport
from networks import turns, until


class Gates:
    """Handlers that wait until a test lets them go on, one by one."""

    def __init__(self):
        self.waiting = {}
        self.most = 0

    async def wait(self, number):
        self.waiting[number] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.waiting))
        await self.waiting[number]
        del self.waiting[number]

    def wait_in_thread(self, number):
        event = self.waiting[number] = threading.Event()
        self.most = max(self.most, len(self.waiting))
        assert event.wait(20)
        del self.waiting[number]

    def open(self, number):
        gate = self.waiting[number]
        if isinstance(gate, threading.Event):
            gate.set()
        else:
            gate.set_result(None)


@pytest.fixture
def gates():
    return Gates()


@pytest.fixture(params=["async", "thread"])
def make(request, gates):
    """A component that is async, or a plain function that runs in a thread."""

    def make(**options):
        if request.param == "async":

            @msgflo.component(**options)
            async def work(x: int) -> int:
                await gates.wait(x)
                return x

        else:

            @msgflo.component(**options)
            def work(x: int) -> int:
                gates.wait_in_thread(x)
                return x

        return work

    return make


async def test_one_at_a_time_keeps_the_order(network, make, gates):
    collected = await network.collect()
    await network.start(make(prefetch=10))
    for number in range(5):
        await network.put(number)
    for number in range(5):
        await until(lambda: gates.waiting)
        assert list(gates.waiting) == [number]
        gates.open(number)
        await until(lambda: len(collected) == number + 1)  # noqa: B023
    assert collected == [0, 1, 2, 3, 4]
    assert gates.most == 1


async def test_several_at_a_time_end_in_any_order_and_each_is_settled_when_it_ends(
    network, make, gates
):
    collected = await network.collect()
    await network.start(make(concurrency=3))
    for number in range(6):
        await network.put(number)
    await until(lambda: len(gates.waiting) == 3)
    for number in (2, 0, 3, 5, 1, 4):
        await until(lambda: number in gates.waiting)  # noqa: B023
        gates.open(number)
        await until(lambda: number in collected)  # noqa: B023
    assert collected == [2, 0, 3, 5, 1, 4]
    assert gates.most == 3
    await network.until_empty()


async def test_one_that_fails_or_hangs_does_not_hold_up_the_others(network, make, gates):
    collected = await network.collect()
    await network.start(make(concurrency=2))
    await network.put(0)  # hangs
    await until(lambda: 0 in gates.waiting)
    await network.put("no number")
    for number in range(1, 20):
        await network.put(number)
        await until(lambda: number in gates.waiting)  # noqa: B023
        gates.open(number)
    await until(lambda: len(collected) == 19)
    assert len(await network.until_dead()) == 1
    gates.open(0)
    await until(lambda: len(collected) == 20)


async def test_a_burst_that_waits_for_nothing_is_done_in_order(network):
    @msgflo.component(concurrency=100)
    async def quick(x: int) -> int:
        return x

    collected = await network.collect()
    await network.start(quick)
    for number in range(1000):
        await network.put(number)
    await until(lambda: len(collected) == 1000)
    assert collected == list(range(1000))


async def test_each_inport_of_a_class_has_its_own_concurrency_and_they_share_the_object(network):
    class Web(Component):
        def __init__(self):
            self.seen = []
            self.allowed = asyncio.Event()

        @inport
        async def slow(self, x: int):
            await self.allowed.wait()
            self.seen.append(x)

        @inport
        def other(self, x: int):
            self.seen.append(-x)

    web = Web()
    await network.start(web)
    await network.put(1, "r.SLOW")
    await network.put(2, "r.OTHER")
    await until(lambda: web.seen == [-2])
    web.allowed.set()
    await until(lambda: web.seen == [-2, 1])


# What handlers return and yield.


async def results(network, component, *values):
    collected = await network.collect()
    await network.start(component)
    for value in values:
        await network.put(value)
    await network.until_empty()
    # What a message has caused was in its queue before the message was settled.
    await network.until_empty("collected.r.OUT")
    return list(collected)


async def test_none_is_sent_only_where_it_is_the_declared_type(network):
    @msgflo.component
    async def positive(x: int) -> int | None:
        return x if x > 0 else None

    assert await results(network, positive, -1, 1, 0, 2) == [1, 2]


async def test_a_port_whose_type_is_none_tells_when_a_message_is_done(network):
    @msgflo.component
    async def done(x: int) -> Annotated[None, msgflo.Out(name="out")]: ...

    assert await results(network, done, 1, 2) == [None, None]


async def test_a_plain_function_may_return_any_iterator(network):
    @msgflo.component
    def thrice(x: int) -> Iterator[int]:
        return iter([x, x, x])

    assert await results(network, thrice, 1, 2) == [1, 1, 1, 2, 2, 2]


async def test_an_async_function_may_return_an_async_generator(network):
    async def generate(x):
        yield x
        yield -x

    @msgflo.component
    async def both(x: int) -> AsyncIterator[int]:
        return generate(x)

    assert await results(network, both, 1) == [1, -1]


async def test_a_generator_that_fails_half_way_fails_the_message_and_is_closed(network):
    closed = []

    @msgflo.component
    async def generate(x: int) -> AsyncIterator[int]:
        try:
            yield x
            raise ValueError("half way")
        finally:
            closed.append(x)

    await network.start(generate)
    await network.put(1)
    (letter,) = await network.until_dead()
    assert letter.death.text == "half way"
    assert closed == [1]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_generator_is_closed_when_what_it_yields_cannot_be_sent(network, kind):
    closed = []

    if kind == "async":

        @msgflo.component
        async def generate(x: int) -> AsyncIterator[object]:
            try:
                yield object()
            finally:
                closed.append(x)

    else:

        @msgflo.component
        def generate(x: int) -> Iterator[object]:
            try:
                yield object()
            finally:
                closed.append(x)

    await network.start(generate)
    await network.put(1)
    (letter,) = await network.until_dead()
    assert "cannot send a value of type object" in letter.death.text
    assert closed == [1]


async def test_what_cannot_be_sent_says_whose_fault_it_is(network):
    @msgflo.component
    async def sink(x: int) -> None:
        return x  # type: ignore[return-value]

    @msgflo.component
    def forgot(x: int) -> int:
        async def work():
            return x

        return work()  # type: ignore[return-value]

    await network.start(sink, "a")
    await network.start(forgot, "b")
    await network.put(1, "a.IN")
    await network.put(1, "b.IN")
    (letter,) = await network.until_dead(queue="a.IN")
    assert "sink returned a int, but there is no outport 'out'" in letter.death.text
    (letter,) = await network.until_dead(queue="b.IN")
    assert letter.death.text.endswith("forgot returned something to await; make it async def")


# Exceptions that mean more than a failure.


async def test_a_handler_that_is_cancelled_from_inside_has_failed_and_the_next_one_is_handled(
    network,
):
    @msgflo.component
    async def wait(x: int) -> int:
        if x == 1:
            task = asyncio.ensure_future(asyncio.Event().wait())
            task.cancel()
            await task
        return x

    collected = await network.collect()
    await network.start(wait)
    await network.put(1)
    await network.put(2)
    (letter,) = await network.until_dead()
    assert letter.death.error == "CancelledError"
    await until(lambda: collected == [2])


@pytest.mark.parametrize(("raised", "code"), [(SystemExit(4), 4), (KeyboardInterrupt(), 130)])
async def test_a_thread_that_wants_the_process_to_end_is_heard(network, raised, code):
    codes = []

    @msgflo.component
    def leave(x: int) -> None:
        raise raised

    await network.start(leave, leave=codes.append)
    await network.put(1)
    await until(lambda: codes == [code])


# Acknowledging by hand.


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_with_manual_ack_a_message_is_done_when_its_handler_says_so(network, kind):
    contexts = {}

    if kind == "async":

        @msgflo.component(ack="manual", prefetch=10)
        async def later(x: int, ctx: Context) -> int:
            contexts[x] = ctx
            return x

    else:

        @msgflo.component(ack="manual", prefetch=10)
        def later(x: int, ctx: Context) -> int:
            contexts[x] = ctx
            return x

    collected = await network.collect()
    await network.start(later)
    for number in range(4):
        await network.put(number)
    await until(lambda: len(collected) == 4)
    await turns(20)
    assert (await network.stats()).in_flight == 4
    contexts[2].ack()
    contexts[2].nack("too late")
    threading.Thread(target=contexts[0].ack).start()
    contexts[1].nack("not this one")
    (letter,) = await network.until_dead()
    assert (letter.body, letter.death.text) == (b"1", "not this one")
    async with asyncio.timeout(20):
        while (await network.stats()).in_flight != 1:
            await asyncio.sleep(0.001)
    contexts[3].ack()
    await network.until_empty()


async def test_what_is_not_acknowledged_comes_again_when_the_participant_stops(network):
    seen = []

    @msgflo.component(ack="manual")
    async def forgets(x: int, ctx: Context):
        seen.append((x, ctx.attempt))

    engine = await network.start(forgets)
    await network.put(1)
    await until(lambda: seen)
    assert not await engine.stop(0.0)
    await network.start(forgets)
    await until(lambda: len(seen) == 2)
    assert seen == [(1, 1), (1, 1)], "it was handed back: that is no attempt"


async def test_a_message_that_nobody_seems_to_acknowledge_is_told_once(
    network, caplog, monkeypatch
):
    monkeypatch.setattr(lanes, "ACK_PATIENCE", 0.01)
    contexts = []

    @msgflo.component(ack="manual", prefetch=2)
    async def forgets(x: int, ctx: Context):
        contexts.append(ctx)

    await network.start(forgets)
    await network.put(1, message_id="a")
    await network.put(2, message_id="b")
    await until(lambda: "in: message a was neither acked nor nacked" in caplog.text)
    contexts[0].ack()
    await network.put(3, message_id="c")
    await until(lambda: len(contexts) == 3)
    await asyncio.sleep(0.02)  # longer than its patience
    assert caplog.text.count("neither acked nor nacked") == 1


async def test_a_handler_that_raises_before_it_acknowledges_has_failed(network):
    @msgflo.component(ack="manual")
    async def raises(x: int, ctx: Context):
        if x == 2:
            ctx.ack()
        raise ValueError("no")

    await network.start(raises)
    await network.put(1)
    await network.put(2)
    (letter,) = await network.until_dead()
    assert letter.body == b"1"
    await network.until_empty()
    assert len(await network.dead()) == 1, "what is acknowledged is done, whatever comes after"


async def test_ack_has_no_effect_where_a_message_is_done_when_its_handler_returns(network):
    @msgflo.component
    async def nacks(x: int, ctx: Context) -> int:
        ctx.nack("no")
        return x

    assert await results(network, nacks, 1) == [1]
    assert await network.dead() == []
