"""A network that is stopped takes no messages and loses none; started, it goes on where it was."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

import msgflo
from msgflo import transport
from msgflo.coordinator.coordinator import Coordinator
from msgflo.coordinator.network import NetworkStatus
from msgflo.flow.fbp import parse_fbp
from msgflo.participant import serve
from msgflo.transport import direct
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID

numbers = itertools.count(1)


@pytest.fixture(params=["direct", "nats"])
def url(request: pytest.FixtureRequest):
    if request.param == "nats":
        yield request.getfixturevalue("nats_server")
        return
    name = f"pausing-{next(numbers)}"
    yield f"direct://{name}"
    direct.forget(name)


@asynccontextmanager
async def coordinating(url: str, memory: Path, graph: str) -> AsyncIterator[Coordinator]:
    broker = transport.broker(url)
    await broker.connect()
    coordinator = Coordinator(broker, parse_fbp(graph), memory=memory)
    try:
        await coordinator.start()
        yield coordinator
    finally:
        await coordinator.close()
        await broker.close()


@asynccontextmanager
async def serving(component: object, url: str, **environment: str) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(
        serve(component, broker=url, stop=stop, grace=5.0, environment=environment)
    )
    try:
        yield
    finally:
        stop.set()
        await task


def paused(role: str, wanted: bool) -> Callable[[NetworkStatus], bool]:
    def condition(status: NetworkStatus) -> bool:
        found = [
            participant.announcement.paused
            for listed in status.roles
            if listed.role == role
            for participant in listed.participants
        ]
        return bool(found) and all(one is wanted for one in found)

    return condition


async def send(coordinator: Coordinator, queue: str, body: str) -> None:
    headers = {MESSAGE_ID: f"message-{next(numbers)}", CONTENT_TYPE: "application/json"}
    await coordinator._broker.enqueue(queue, body.encode(), headers)


class Collector:
    def __init__(self) -> None:
        self.got: list[int] = []
        self.changed = asyncio.Event()
        collector = self

        @msgflo.component("Collect")
        async def collect(number: int) -> None:
            collector.got.append(number)
            collector.changed.set()

        self.component = {"collect": collect}

    async def until(self, wanted: list[int]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while self.got != wanted:
                    self.changed.clear()
                    await self.changed.wait()
        assert self.got == wanted


async def test_what_arrives_while_a_network_is_stopped_waits(url: str, tmp_path: Path) -> None:
    collector = Collector()
    async with (
        coordinating(url, tmp_path / "memory", "collect(Collect)") as coordinator,
        serving(collector.component, url),
    ):
        await coordinator.until(paused("collect", False), 20)
        await send(coordinator, "collect.IN", "1")
        await collector.until([1])
        coordinator.pause(True)
        await coordinator.until(paused("collect", True), 20)
        await send(coordinator, "collect.IN", "2")
        await send(coordinator, "collect.IN", "3")
        stats = await coordinator._broker.queues(["collect.IN"])
        assert sum(queue.waiting for queue in stats) == 2
        assert collector.got == [1]
        coordinator.pause(False)
        await collector.until([1, 2, 3])


async def test_who_comes_while_a_network_is_stopped_is_paused_too(url: str, tmp_path: Path) -> None:
    collector = Collector()
    async with coordinating(url, tmp_path / "memory", "collect(Collect)") as coordinator:
        coordinator.pause(True)
        async with serving(collector.component, url):
            await coordinator.until(paused("collect", True), 20)


async def test_a_coordinator_that_comes_back_still_wants_it_stopped(
    url: str, tmp_path: Path
) -> None:
    collector = Collector()
    async with coordinating(url, tmp_path / "memory", "collect(Collect)") as coordinator:
        coordinator.pause(True)
    async with (
        serving(collector.component, url),
        coordinating(url, tmp_path / "memory", "collect(Collect)") as coordinator,
    ):
        await coordinator.until(paused("collect", True), 20)
        assert coordinator.status().paused


async def test_a_participant_started_for_a_stopped_network_takes_nothing_before_it_is_told(
    url: str, tmp_path: Path
) -> None:
    collector = Collector()
    async with coordinating(url, tmp_path / "memory", "collect(Collect)") as coordinator:
        coordinator.pause(True)
        await send(coordinator, "collect.IN", "1")
        async with serving(collector.component, url, MSGFLO_PAUSED="1", MSGFLO_IIPS='{"in": 0}'):
            await coordinator.until(paused("collect", True), 20)
            assert collector.got == []
            coordinator.pause(False)
            await collector.until([0, 1])


async def test_a_source_holds_still_while_its_network_is_stopped(url: str, tmp_path: Path) -> None:
    sent: list[int] = []
    going = asyncio.Event()

    @msgflo.source("Count")
    async def count():
        for number in itertools.count():
            sent.append(number)
            going.set()
            yield number
            await asyncio.sleep(0)

    async with (
        coordinating(url, tmp_path / "memory", "count(Count)") as coordinator,
        serving({"count": count}, url),
    ):
        await asyncio.wait_for(going.wait(), 20)
        coordinator.pause(True)
        await coordinator.until(paused("count", True), 20)
        for _ in range(100):
            await asyncio.sleep(0)
        there = list(sent)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert sent == there
        going.clear()
        coordinator.pause(False)
        await asyncio.wait_for(going.wait(), 20)
        assert sent[len(there)] == len(there)
