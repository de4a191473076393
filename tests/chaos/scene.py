"""What every chaos test does: numbers go in, work is done on them, and each is accounted for.

The network: ``feed`` sends numbers, several instances of ``work`` share them out, ``done`` takes
what they send, ``failed`` what they could not do. ``feed``, ``done`` and ``failed`` are played by
the test itself, on a connection that nobody harms, so that they can count; ``work`` are processes,
run as users run them. While the numbers pass, something terrible happens.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from msgflo import transport
from msgflo.coordinator.network import Event
from msgflo.errors import ConnectionLost
from msgflo.flow.discovery import Announcement, Definition, Port
from msgflo.flow.fbp import parse_fbp
from msgflo.processes.restarts import Limits
from msgflo.runtime import Runtime
from msgflo.transport.contract import MESSAGE_ID, Client, Delivery, Inlet

__all__ = ["Count", "Scene"]

PATIENCE = 60.0
"""Seconds without any progress after which what is missing counts as lost."""

WORK = """
import asyncio
import os

import msgflo

@msgflo.component("Work", concurrency=4)
async def work(number: int) -> int:
    await asyncio.sleep(0.002)
    if number % 100 == 99:
        raise msgflo.Reject("one in a hundred is rejected")
    return number
"""

SHARED = """
feed(Feed) OUT -> IN share(msgflo/RoundRobin)
share OUT -> IN work(work)
share DEADLETTER -> IN failed(Failed)
work OUT -> IN gather(msgflo/RoundRobin)
gather OUT -> IN done(Done)
"""


@dataclass(frozen=True)
class Count:
    """How it ended."""

    sent: int
    processed: int
    duplicates: int
    dead: int
    lost: int

    def __str__(self) -> str:
        return (
            f"sent {self.sent}, processed {self.processed}, duplicates {self.duplicates}, "
            f"dead {self.dead}, lost {self.lost}"
        )


class Scene:
    """A network, the numbers that pass through it, and the means to harm it.

    Args:
        folder: the project's folder.
        messages: how many numbers.
        broker: the broker's URL for the network.
        edges: the broker's URL for those who count; ``""``: the same.
        work: the file of the component ``work``.
        graph: the graph; ``feed``, ``done`` and ``failed`` are ours.
        instances: of each role that is not ours.

    Attributes:
        kills: how many processes were killed by :meth:`kill_somebody`.
        deaths: how many ended by SIGKILL, whoever did it.
        complaints: what is wrong with the network, as it says itself.
    """

    def __init__(
        self,
        folder: Path,
        messages: int,
        broker: str,
        *,
        edges: str = "",
        work: str = WORK,
        graph: str = SHARED,
        instances: int = 2,
    ) -> None:
        self.folder = folder
        self.messages = messages
        self.kills = 0
        self.deaths = 0
        self.complaints: list[str] = []
        (folder / "components").mkdir(exist_ok=True)
        (folder / "components" / "work.py").write_text(work)
        parsed = parse_fbp(graph, "chaos.fbp")
        ours = {"feed", "done", "failed"} & set(parsed.nodes)
        theirs = [
            node.id
            for node in parsed.nodes.values()
            if node.id not in ours and not node.component.startswith("msgflo/")
        ]
        self.runtime = Runtime(
            parsed,
            root=folder,
            broker=broker,
            scale=dict.fromkeys(theirs, instances),
            ignore=frozenset(ours),
            limits=Limits(tries=100_000, first=0.05, longest=0.3),
            told=self._told,
        )
        self._client: Client = transport.client(edges or broker)
        self._done = bytearray(messages)
        self._failed = bytearray(messages)
        self._confirmed = 0
        self._duplicates = 0
        self._open = messages
        self._waits: list[tuple[int, asyncio.Event]] = []  # for how many to be open, the most last
        self._tasks: set[asyncio.Task[None]] = set()

    def _told(self, event: Event) -> None:
        if event.kind == "wrong":
            self.complaints.append(event.text)
        self.deaths += "SIGKILL" in event.text

    @property
    def accounted(self) -> int:
        """How many numbers came out at one end or the other."""
        return self.messages - self._open

    @property
    def confirmed(self) -> int:
        """How many numbers the broker has taken from us."""
        return self._confirmed

    async def run(
        self, *harm: Callable[[], Awaitable[None]], pace: float = 2000.0, patience: float = PATIENCE
    ) -> Count:
        """Send all numbers while something terrible happens, and wait until all are accounted for.

        Args:
            harm: each runs once, while the numbers pass; is cancelled when all are accounted for.
            pace: at most so many numbers a second are sent.
            patience: seconds without progress after which the rest counts as lost.
        """
        async with self.runtime, self._edges():
            await self.runtime.until_complete(timeout=60)
            harming = [asyncio.create_task(each()) for each in harm]
            feeding = asyncio.create_task(self._feed(pace))
            try:
                await self._until_accounted(harming, patience)
                await asyncio.wait_for(feeding, 30)
            finally:
                feeding.cancel()
                for task in harming:
                    task.cancel()
                results = await asyncio.gather(*harming, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result
        assert not self.complaints, self.complaints
        return self.count()

    def count(self) -> Count:
        """Return how it stands."""
        dead = sum(f and not d for d, f in zip(self._done, self._failed, strict=True))
        return Count(self._confirmed, sum(self._done), self._duplicates, dead, self._open)

    # Harm.

    def pids(self) -> list[int]:
        """Return the processes of the network."""
        return [
            instance.process.pid
            for role in self.runtime.status().roles
            for instance in role.instances
            if instance.process is not None and instance.process.pid is not None
        ]

    async def kill_somebody(self) -> None:
        """Kill one process of the network, if one is there."""
        pids = self.pids()
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(pids), signal.SIGKILL)
                self.kills += 1

    async def kill_at_random(self, every: float) -> None:
        """Kill processes at random moments, until all is accounted for but the last twentieth."""
        while self.accounted < self.messages * 0.95:
            await asyncio.sleep(random.uniform(0, 2 * every))
            await self.kill_somebody()

    async def reaches(self, part: float) -> None:
        """Wait until a part of all numbers, from 0 to 1, is accounted for."""
        await self._until_open(self.messages - int(self.messages * part))

    # The edges.

    @contextlib.asynccontextmanager
    async def _edges(self) -> AsyncIterator[None]:
        client = self._client
        await client.connect()
        done, failed = Inlet("done.IN", 1), Inlet("failed.IN", 1)
        await client.declare([done, failed], ["feed.OUT"])
        await client.consume(done, 1000, self._taker(self._done))
        await client.consume(failed, 1000, self._taker(self._failed))
        client.on_told(lambda _: self._announce())
        client.on_restored(self._announce)
        self._announce()
        try:
            yield
        finally:
            with contextlib.suppress(ConnectionLost):
                await client.flush()
            await client.close()

    def _taker(self, into: bytearray) -> Callable[[Delivery], None]:
        def take(delivery: Delivery) -> None:
            number = msgspec.json.decode(delivery.body)
            if self._done[number] or self._failed[number]:
                self._duplicates += 1
            else:
                self._open -= 1
                while self._waits and self._open <= self._waits[-1][0]:
                    self._waits.pop()[1].set()
            into[number] = 1
            self._client.settle(delivery)

        return take

    def _announce(self) -> None:
        for role, ports in {"feed": "out", "done": "in", "failed": "in"}.items():
            port = (Port(ports, queue=f"{role}.{ports.upper()}"),)
            definition = Definition(
                id=f"{role}-1",
                role=role,
                component=role.title(),
                inports=port if ports == "in" else (),
                outports=port if ports == "out" else (),
            )
            said = Announcement(definition, instance=1, places=True, period=60).encode()
            task = asyncio.create_task(self._client.announce(said))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _feed(self, pace: float) -> None:
        def confirmed(error: Exception | None) -> None:
            assert error is None, error
            self._confirmed += 1

        step = max(1, int(pace / 100))
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number in range(self.messages):
            headers = {MESSAGE_ID: f"feed-{number}"}
            self._client.send("feed.OUT", msgspec.json.encode(number), headers, confirmed)
            if number % step == 0:
                due = max(due + step / pace, loop.time() - 1)
                await asyncio.sleep(max(0.0, due - loop.time()))
                while self._client.unconfirmed > 2000:
                    await asyncio.sleep(0.01)
        while self._client.unconfirmed:
            await asyncio.sleep(0.01)

    async def _until_open(self, most: int) -> None:
        """Wait until at most so many are not accounted for."""
        if self._open > most:
            reached = asyncio.Event()
            self._waits.append((most, reached))
            self._waits.sort(key=lambda wait: wait[0])
            await reached.wait()

    async def _until_accounted(self, harming: list[asyncio.Task[None]], patience: float) -> None:
        over = asyncio.create_task(self._until_open(0))
        waiting = {over, *harming}
        while not over.done():
            before = self._open
            done, waiting = await asyncio.wait(
                waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            failed = any(task.exception() is not None for task in done)
            if failed or (not done and self._open == before):
                over.cancel()
                return
