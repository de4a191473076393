"""One Repeat participant on NATS JetStream: stored, confirmed, and settled after the confirmation.

Each way of doing it gets the same: a file stream with interest retention, a queue that was filled
before it starts, and a target that somebody waits for, so that what is sent is stored too. The
driver reads from the server how much has arrived, and takes part in nothing while it is measured.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
from nats.js import api

from benchmarks.figures import percentile
from benchmarks.processes import Worker
from msgflo import transport
from msgflo.flow.binding import Binding, Kind
from msgflo.transport.nats_topology import Names
from servers import NatsServer

SIZE = 200
LATENCY_SECONDS = 5.0


def payload(size: int, **more: float) -> bytes:
    """Return a JSON object of so many bytes."""
    value = {"id": 123456, "sensor": "hall/north/temperature", "value": 21.75, **more, "pad": ""}
    value["pad"] = "x" * max(0, size - len(json.dumps(value)))
    return json.dumps(value).encode()


@dataclass(frozen=True)
class Lane:
    """A way from one subject to another."""

    stream: str
    source: str
    target: str
    sink: str
    start: Callable[[], Worker]


class Nats:
    """A server of its own, with lanes on it."""

    def __init__(self, folder: Path) -> None:
        self.server = NatsServer(folder)
        self._lanes = 0

    def __enter__(self) -> "Nats":
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()

    async def msgflo(self, form: str = "any_value") -> Lane:
        """Return a new lane with a MsgFlo participant in it."""
        self._lanes += 1
        namespace = f"lane{self._lanes}"
        url = f"{self.server.url}/{namespace}"
        broker = transport.broker(url)
        await broker.connect()
        await broker.bind(Binding(Kind.ROUNDROBIN, "feed.OUT", "work.IN"))
        await broker.bind(Binding(Kind.ROUNDROBIN, "work.OUT", "sink.IN"))
        await broker.close()
        names = Names(namespace)
        return Lane(
            names.stream,
            names.out("feed.OUT"),
            names.out("work.OUT"),
            names.consumer("sink.IN"),
            lambda: Worker.python("msgflo_repeat.py", form, "work", MSGFLO_BROKER=url),
        )

    async def peer(self, file: str) -> Lane:
        """Return a new lane with a worker that is not MsgFlo's."""
        self._lanes += 1
        name = f"lane{self._lanes}"
        connection = await nats.connect(self.server.url)
        jetstream = connection.jetstream()
        await jetstream.add_stream(
            name=name, subjects=[f"{name}.>"], retention=api.RetentionPolicy.INTEREST
        )
        for durable, subject in (("work", f"{name}.in.work"), ("sink", f"{name}.out.work")):
            await jetstream.add_consumer(
                name,
                durable_name=durable,
                filter_subject=subject,
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=10,
                max_ack_pending=100_000,
                deliver_policy=api.DeliverPolicy.NEW,
            )
        await connection.close()
        target = f"{name}.out.work"
        return Lane(
            name,
            f"{name}.in.work",
            target,
            "sink",
            lambda: Worker.python(file, name, "work", target, BROKER=self.server.url),
        )

    @contextmanager
    def _workers(self, lane: Lane, count: int) -> Iterator[list[Worker]]:
        workers: list[Worker] = []
        try:
            for _ in range(count):
                workers.append(lane.start())
            yield workers
        finally:
            for worker in workers:
                worker.stop()

    async def throughput(
        self, lane: Lane, messages: int, size: int = SIZE, workers: int = 1
    ) -> tuple[float, float]:
        """Return messages a second, and microseconds of the workers' processor a message."""
        connection = await nats.connect(self.server.url)
        jetstream = connection.jetstream(publish_async_max_pending=500)
        body = payload(size)
        for number in range(messages):
            headers = {"Msgflo-Id": f"m{number}", "Content-Type": "application/json"}
            await jetstream.publish_async(lane.source, body, headers=headers)
        await jetstream.publish_async_completed()
        with self._workers(lane, workers) as running:
            first = last = 0.0
            done = begun = 0
            cpu = 0.0
            while done < messages:
                await asyncio.sleep(0.02)
                info = await jetstream.consumer_info(lane.stream, lane.sink)
                done = info.num_pending or 0
                now = time.perf_counter()
                if not begun and done >= messages // 10:
                    first, begun = now, done
                    cpu = sum(worker.cpu for worker in running)
                last = now
                for worker in running:
                    worker.check()
            cpu = sum(worker.cpu for worker in running) - cpu
        await connection.close()
        return (done - begun) / (last - first), cpu / (done - begun) * 1e6

    async def watched(self, messages: int) -> float:
        """Return messages a second of a MsgFlo participant whose outport is looked at."""
        lane = await self.msgflo()
        url = f"{self.server.url}/{lane.stream}"
        with Worker.python("tapper.py", "work.OUT", MSGFLO_BROKER=url) as tapper:
            tapper.wait_for("running")
            rate, _ = await self.throughput(lane, messages)
        return rate

    async def latency(self, lane: Lane, rate: float, size: int = SIZE) -> tuple[float, float]:
        """Return milliseconds from the sender through one worker to a receiver: p50 and p99."""
        connection = await nats.connect(self.server.url)
        times: list[float] = []

        async def arrived(message: object) -> None:
            sent = json.loads(message.data)["sent"]  # type: ignore[attr-defined]
            times.append((time.perf_counter() - sent) * 1e3)

        await connection.subscribe(lane.target, cb=arrived)
        await connection.flush()
        count = int(rate * LATENCY_SECONDS)
        with lane.start() as worker:
            worker.wait_for("running")
            for _ in range(20):  # until everything is loaded and known
                await connection.publish(lane.source, payload(size, sent=time.perf_counter()))
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            times.clear()
            start = time.perf_counter()
            for number in range(count):
                due = start + number / rate
                if (ahead := due - time.perf_counter()) > 0:
                    await asyncio.sleep(ahead)
                # From when it was due, so that a sender that is late hides nothing.
                await connection.publish(lane.source, payload(size, sent=due))
            end = time.perf_counter() + 20
            while len(times) < count and time.perf_counter() < end:
                await asyncio.sleep(0.02)
        await connection.close()
        if len(times) < count:
            raise RuntimeError(f"{count - len(times)} of {count} messages did not arrive")
        return percentile(times, 50), percentile(times, 99)
