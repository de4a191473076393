"""What runs by itself."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import msgflo
from msgflo import Context, Out
from msgflo.declaration import Component, source
from msgflo.sources import next_tick
from networks import HoldingClient, turns, until


@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 2.0, 60.0]), st.floats(0, 0.99))
def test_ticks_are_whole_multiples_of_the_period_however_late_it_is(count, every, late):
    passed = (count + late) * every
    tick = next_tick(passed, every)
    assert tick == (count + 1) * every
    assert 0 < tick - passed <= every


async def test_a_generator_runs_to_its_end_and_that_is_it(network):
    @msgflo.source
    async def count() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    @msgflo.source
    def count_in_thread() -> Iterator[int]:
        yield from range(3)

    for role, component in (("a", count), ("b", count_in_thread)):
        collected = await network.collect(f"{role}.OUT")
        engine = await network.start(component, role)
        await engine.sources_done()
        await until(lambda: collected == [0, 1, 2])  # noqa: B023


async def test_a_function_is_called_again_and_again_and_lets_others_have_their_turn(network):
    calls = []

    @msgflo.source
    async def busy() -> int:
        calls.append(1)
        return len(calls)

    collected = await network.collect()
    engine = await network.start(busy)
    await until(lambda: len(collected) > 5)
    await engine.stop(1.0)
    stopped = len(calls)
    await turns(50)
    assert len(calls) == stopped


async def test_one_that_waits_for_nothing_and_sends_nothing_does_not_hold_up_the_rest(network):
    @msgflo.source
    async def idle(out: Out[int]) -> None: ...

    await asyncio.wait_for(network.start(idle), 20)
    await turns(20)


async def test_with_a_period_it_is_called_at_once_and_then_in_time(network):
    clock = asyncio.get_running_loop().time
    times = []

    @msgflo.source(every=0.01)
    async def tick() -> None:
        times.append(clock())

    start = clock()
    await network.start(tick)
    await until(lambda: len(times) == 5)
    assert times[4] - start >= 0.04


async def test_one_that_fails_with_a_period_is_called_at_the_next_tick(network, caplog):
    calls = []

    @msgflo.source(every=0.001)
    def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("no sensor")
        return len(calls)

    collected = await network.collect()
    await network.start(flaky)
    await until(lambda: collected)
    assert collected[0] == 3
    assert caplog.text.count("a source failed: no sensor") == 2


async def test_what_it_sends_belongs_to_no_message_and_has_ids_of_its_own(network):
    @msgflo.source
    async def same(ctx: Context, more: Out[int]) -> AsyncIterator[int]:
        assert ctx.inport == ""
        for _ in range(3):
            more(1)
            yield 1

    out, more = await network.collect(), await network.collect("r.MORE")
    await network.start(same)
    await until(lambda: len(out) == len(more) == 3)
    assert len({*out.ids, *more.ids}) == 6


async def test_an_object_with_a_source_and_an_inport(network):
    class Counter(Component):
        def __init__(self):
            self.step = 1

        @msgflo.inport
        async def by(self, step: int):
            self.step = step

        @source(every=0.001)
        async def count(self) -> int:
            return self.step

    collected = await network.collect()
    await network.start(Counter)
    await network.put(7, "r.BY")
    await until(lambda: collected and collected[-1] == 7)
    assert collected[0] == 1


async def test_it_is_held_up_while_the_outbox_is_full(network):
    sent = []

    @msgflo.source
    async def flood() -> AsyncIterator[int]:
        while True:
            sent.append(1)
            yield 1

    client = await network.client(HoldingClient)
    engine = await network.start(flood, client=client)
    await until(lambda: engine.outbox.full)
    count = len(sent)
    await turns(50)
    assert len(sent) == count


async def test_a_thread_ends_with_the_participant(network):
    ended = threading.Event()

    @msgflo.source
    def forever() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    collected = await network.collect()
    engine = await network.start(forever)
    await until(lambda: collected)
    await engine.stop(1.0)
    await engine.close()
    await until(ended.is_set)


async def test_an_async_one_has_cleaned_up_before_the_object_is_stopped(network):
    events = []

    class Sensor(Component):
        @source
        async def read(self) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
                    await asyncio.sleep(0)
            finally:
                await asyncio.sleep(0)
                events.append("read ended")

        async def stop(self):
            events.append("stop")

    collected = await network.collect()
    engine = await network.start(Sensor)
    await until(lambda: collected)
    await engine.stop(1.0)
    assert events == ["read ended", "stop"]


@pytest.mark.parametrize(("raised", "code"), [(SystemExit(4), 4), (KeyboardInterrupt(), 130)])
async def test_one_that_wants_the_process_to_end_is_heard(network, raised, code):
    codes = []

    @msgflo.source
    def leave() -> int:
        raise raised

    await network.start(leave, leave=codes.append)
    await until(lambda: codes == [code])
