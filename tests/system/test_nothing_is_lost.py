"""The promise, on real parts: kill what you like, every message is processed or a dead letter."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from msgflo import transport
from msgflo.flow.discovery import Announcement, Definition, Port
from msgflo.flow.fbp import parse_fbp
from msgflo.processes.restarts import Limits
from msgflo.runtime import Runtime
from msgflo.transport.contract import MESSAGE_ID, Client, Delivery, Inlet

MESSAGES = 10_000

WORK = """
import asyncio
import msgflo

@msgflo.component(concurrency=16)
async def work(number: int) -> int:
    await asyncio.sleep(0.05)
    if number % 1000 == 999:
        raise msgflo.Reject("one in a thousand is rejected")
    return number
"""

GRAPH = """
feed(Feed) OUT -> IN share(msgflo/RoundRobin)
share OUT -> IN work(work)
share DEADLETTER -> IN failed(Failed)
work OUT -> IN done(Done)
"""


class Edges:
    """The roles at the edges of the network: feed sends, done and failed collect."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.done: list[int] = []
        self.failed: list[int] = []
        self.progress = asyncio.Condition()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.client.declare([Inlet("done.IN", 1), Inlet("failed.IN", 1)], ["feed.OUT"])
        await self.client.consume(Inlet("done.IN", 1), 500, self.take(self.done))
        await self.client.consume(Inlet("failed.IN", 1), 500, self.take(self.failed))
        self.client.on_told(lambda message: None if message else self.announce())
        self.client.on_restored(self.announce)
        self.announce()

    def take(self, into: list[int]):
        def deliver(delivery: Delivery) -> None:
            into.append(msgspec.json.decode(delivery.body))
            self.client.settle(delivery)
            self.later(self.notify())

        return deliver

    async def notify(self) -> None:
        async with self.progress:
            self.progress.notify_all()

    def later(self, work) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def announce(self) -> None:
        inport, outport = Port("in", queue=""), Port("out", queue="feed.OUT")
        for role in ("feed", "done", "failed"):
            definition = Definition(
                id=f"{role}-1",
                role=role,
                component=role.title(),
                inports=() if role == "feed" else (Port("in", queue=f"{role}.IN"),),
                outports=(outport,) if role == "feed" else (),
            )
            said = Announcement(definition, instance=1, places=True, period=60)
            self.later(self.client.announce(said.encode()))
        assert inport.queue == ""

    async def feed(self, confirmed: list[int]) -> None:
        def sent(number: int):
            def call(error: Exception | None) -> None:
                assert error is None, error
                confirmed.append(number)

            return call

        for number in range(MESSAGES):
            headers = {MESSAGE_ID: f"feed-{number}"}
            self.client.send("feed.OUT", msgspec.json.encode(number), headers, sent(number))
            if number % 50 == 0:
                # Spread over the killing, as far as the broker confirms.
                while self.client.unconfirmed > 500:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)

    async def until_all_are_accounted_for(self) -> None:
        async with self.progress:
            await self.progress.wait_for(lambda: len({*self.done, *self.failed}) == MESSAGES)


@pytest.mark.timeout(240)
async def test_10000_messages_survive_killed_instances_and_a_killed_broker(tmp_path: Path) -> None:
    components = tmp_path / "components"
    components.mkdir()
    (components / "work.py").write_text(WORK)
    complaints: list[str] = []
    runtime = Runtime(
        parse_fbp(GRAPH, "killed.fbp"),
        root=tmp_path,
        scale={"work": 4},
        ignore=frozenset({"feed", "done", "failed"}),
        limits=Limits(tries=1000, longest=0.5),
        told=lambda event: complaints.append(event.text) if event.kind == "wrong" else None,
    )
    kills = {"instances": 0, "broker": 0}

    async def kill(edges: Edges) -> None:
        while len({*edges.done, *edges.failed}) < MESSAGES * 9 // 10:
            await asyncio.sleep(1)
            processes = [
                instance.process
                for role in runtime.status().roles
                for instance in role.instances
                if instance.process is not None and instance.process.pid is not None
            ]
            victim = processes[kills["instances"] % len(processes)]
            os.kill(victim.pid, signal.SIGKILL)
            kills["instances"] += 1
            if kills["instances"] in (3, 7):
                os.kill(runtime.broker_pid, signal.SIGKILL)
                kills["broker"] += 1

    async with runtime:
        client = transport.client(runtime.url)
        await client.connect()
        edges = Edges(client)
        await edges.start()
        await runtime.until_complete(timeout=30)
        confirmed: list[int] = []
        killing = asyncio.create_task(kill(edges))
        await edges.feed(confirmed)
        await asyncio.wait_for(edges.until_all_are_accounted_for(), 150)
        await killing
        await client.flush()
        await client.close()

    assert kills["broker"] == 2
    assert kills["instances"] >= 7
    assert not complaints
    assert sorted(confirmed) == list(range(MESSAGES))
    lost = set(range(MESSAGES)) - set(edges.done) - set(edges.failed)
    assert lost == set()
    assert {number for number in range(MESSAGES) if number % 1000 == 999} <= set(edges.failed)
