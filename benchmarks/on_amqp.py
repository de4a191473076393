"""One Repeat participant on RabbitMQ, in two forms.

*Quick*: transient messages, nothing is confirmed, the input is settled once the output was written
to the socket; so does the original Node.js client. *Safe*: durable queues, persistent messages, the
input is settled after the broker has confirmed the output.

Each way of doing it gets a virtual host of its own with a queue that is filled before, in the form
that it sends itself, and a queue for what it sends. The driver looks with passive declarations at
how much has arrived, and takes part in nothing while it is measured.
"""

import asyncio
import json
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dramatiq
import pika
from celery import Celery
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.figures import percentile
from benchmarks.on_nats import LATENCY_SECONDS, SIZE, payload
from benchmarks.processes import WORKERS, Worker
from msgflo import transport
from msgflo.flow.binding import Binding, Kind
from rabbitmq import RabbitMQ

Wrap = Callable[[bytes], tuple[bytes, pika.BasicProperties]]

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
LONGEST = 120.0
"""Seconds without anything arriving after which something is wrong."""


@dataclass(frozen=True)
class Lane:
    """A way from one queue to another.

    Attributes:
        url: of the broker, with the virtual host.
        safe: whether messages are persistent.
        start: starts a worker.
        wrap: makes what the worker reads of a payload, and its properties.
        source: the queue that the worker reads.
        sink: the queue that gets what it sends.
    """

    url: str
    safe: bool
    start: Callable[[], Worker]
    wrap: Wrap = field(kw_only=True)
    source: str = "work"
    sink: str = "sink"


class Rabbit:
    """A RabbitMQ of its own, with lanes on it."""

    def __init__(self, folder: Path) -> None:
        self.server = RabbitMQ(folder)
        self._folder = folder

    def __enter__(self) -> "Rabbit":
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    # Lanes. The first word of each worker is the form.

    @contextmanager
    def msgflo(self, form: str = "any_value") -> Iterator[Lane]:
        """A new lane with a MsgFlo participant in it."""
        with self._host() as url:
            asyncio.run(_connect(url))
            yield Lane(
                url,
                True,
                lambda: Worker.python("msgflo_repeat.py", form, "work", MSGFLO_BROKER=url),
                wrap=_as_msgflo,
                source="work.IN",
                sink="sink.IN",
            )

    @contextmanager
    def bare(self, *, safe: bool) -> Iterator[Lane]:
        """A new lane with pika alone."""
        with self._peer("amqp_bare.py", safe) as lane:
            yield lane

    @contextmanager
    def faststream(self, *, safe: bool) -> Iterator[Lane]:
        """A new lane with FastStream."""
        with self._peer("amqp_faststream.py", safe) as lane:
            yield lane

    @contextmanager
    def celery(self, *, safe: bool) -> Iterator[Lane]:
        """A new lane with a Celery worker."""
        with self._peer("amqp_celery.py", safe) as lane:
            yield replace(lane, wrap=_as_celery(safe))

    @contextmanager
    def dramatiq(self, *, safe: bool) -> Iterator[Lane]:
        """A new lane with a Dramatiq worker."""
        with self._host() as url:
            broker = RabbitmqBroker(url=url)
            for queue in ("work", "sink"):
                broker.declare_queue(queue, ensure=True)
            broker.close()
            words = ("amqp_dramatiq.py", _word(safe), "work", "sink")
            yield Lane(
                url, safe, lambda: Worker.python(*words, BROKER=url), wrap=_as_dramatiq(safe)
            )

    @contextmanager
    def nodejs(self, prefetch: int = 0) -> Iterator[Lane]:
        """A new lane with the original Node.js client; prefetch 0: its default. Never safe."""
        modules = node_modules()
        with self._host() as url, _channel(url) as channel:
            channel.queue_declare(
                "work.IN", durable=True, arguments={"x-dead-letter-exchange": "dead-work.IN"}
            )
            channel.exchange_declare("work.OUT", "fanout", durable=True)
            channel.queue_declare("sink", durable=True)
            channel.queue_bind("sink", "work.OUT", "")
            more = [str(prefetch)] if prefetch else []
            words = ["node", str(WORKERS / "amqp_nodejs.js"), str(modules), "work", *more]
            yield Lane(
                url,
                False,
                lambda: Worker(words, {"BROKER": url}),
                wrap=_as_json(False),
                source="work.IN",
            )

    @contextmanager
    def limit(self, *, safe: bool, prefetch: int = 1000) -> Iterator[Lane]:
        """A new lane with frames written by a program in C: what the broker can do."""
        program = self._compiled()
        with self._peer("", safe) as lane:
            host = lane.url.rpartition("/")[2]
            words = [_word(safe), str(self.server.port), host, "work", "sink", str(prefetch)]
            yield replace(lane, start=lambda: Worker([str(program), *words], {}))

    @contextmanager
    def _peer(self, file: str, safe: bool) -> Iterator[Lane]:
        with self._host() as url, _channel(url) as channel:
            for queue in ("work", "sink"):
                channel.queue_declare(queue, durable=True)
            words = (file, _word(safe), "work", "sink")
            yield Lane(url, safe, lambda: Worker.python(*words, BROKER=url), wrap=_as_json(safe))

    @contextmanager
    def _host(self) -> Iterator[str]:
        """A new virtual host; gone afterwards, so that what is left in it burdens nobody."""
        url = self.server.vhost()
        try:
            yield url
        finally:
            self.server.drop_vhost(url)

    def _compiled(self) -> Path:
        program = self._folder / "amqp_limit"
        if not program.exists():
            source = WORKERS / "amqp_limit.c"
            subprocess.run(["gcc", "-O2", "-Wall", "-o", program, source], check=True)
        return program

    # Measuring.

    def throughput(
        self, lane: Lane, messages: int, size: int = SIZE, workers: int = 1
    ) -> tuple[float, float]:
        """Return messages a second, and microseconds of the workers' processor a message.

        The workers are stopped while the queue is filled, and measured from the moment that a tenth
        has come out: so neither how they start is in it, nor what filling costs.
        """
        with _channel(lane.url) as channel, _running(lane, workers) as running:
            for worker in running:
                worker.freeze()
            _fill(channel, lane, messages, payload(size))
            for worker in running:
                worker.thaw()
            first = last = cpu = 0.0
            done = begun = 0
            patience = time.perf_counter() + LONGEST
            while done < messages:
                time.sleep(0.02)
                before, done = done, _count(channel, lane.sink)
                last = time.perf_counter()
                if not begun and done >= messages // 10:
                    first, begun = last, done
                    cpu = sum(worker.cpu for worker in running)
                if done > before:
                    patience = last + LONGEST
                elif last > patience:
                    said = "\n".join(worker.said for worker in running)
                    raise RuntimeError(f"{done} of {messages} messages arrived:\n{said}")
                for worker in running:
                    worker.check()
            cpu = sum(worker.cpu for worker in running) - cpu
        if begun >= done:
            raise RuntimeError(
                f"{messages} messages are too few: all had arrived at the first look"
            )
        return (done - begun) / (last - first), cpu / (done - begun) * 1e6

    def latency(self, lane: Lane, rate: float, size: int = SIZE) -> tuple[float, float]:
        """Return milliseconds from the sender through one worker to a receiver: p50 and p99."""
        count = int(rate * LATENCY_SECONDS)
        with lane.start() as worker, _Receiver(lane) as receiver, _channel(lane.url) as channel:
            worker.wait_for("running")

            def send(due: float) -> None:
                body, properties = lane.wrap(payload(size, sent=due))
                channel.basic_publish("", lane.source, body, properties)

            for _ in range(20):  # until everything is loaded and known
                send(time.perf_counter())
                time.sleep(0.02)
            receiver.wait(20)
            receiver.times.clear()
            start = time.perf_counter()
            for number in range(count):
                due = start + number / rate
                if (ahead := due - time.perf_counter()) > 0:
                    time.sleep(ahead)
                # From when it was due, so that a sender that is late hides nothing.
                send(due)
            receiver.wait(count)
        return percentile(receiver.times, 50), percentile(receiver.times, 99)


class _Receiver:
    """Takes what arrives, in a thread, and notes how long it was under way."""

    _SENT = re.compile(rb'\\?"sent\\?": ?([0-9.]+)')

    def __init__(self, lane: Lane) -> None:
        self.times: list[float] = []
        self._connection = pika.BlockingConnection(pika.URLParameters(lane.url))
        self._channel = self._connection.channel()
        self._channel.basic_consume(lane.sink, self._arrived, auto_ack=True)
        self._thread = threading.Thread(target=self._channel.start_consuming)

    def _arrived(self, _channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        now = time.perf_counter()
        found = self._SENT.search(body)
        assert found is not None, body
        self.times.append((now - float(found[1])) * 1e3)

    def wait(self, count: int) -> None:
        end = time.perf_counter() + 20
        while len(self.times) < count:
            if time.perf_counter() > end:
                raise RuntimeError(f"{len(self.times)} of {count} messages arrived")
            time.sleep(0.02)

    def __enter__(self) -> "_Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.add_callback_threadsafe(self._channel.stop_consuming)
        self._thread.join(20)
        self._connection.close()


async def _connect(url: str) -> None:
    broker = transport.broker(url)
    await broker.connect()
    await broker.bind(Binding(Kind.ROUNDROBIN, "feed.OUT", "work.IN"))
    await broker.bind(Binding(Kind.ROUNDROBIN, "work.OUT", "sink.IN"))
    await broker.close()


@contextmanager
def _running(lane: Lane, count: int) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(lane.start())
        for worker in workers:
            worker.wait_for("running")
        yield workers
    finally:
        for worker in workers:
            worker.stop()


@contextmanager
def _channel(url: str) -> Iterator[Any]:
    """A channel of a connection that is never too quiet for the broker."""
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 0
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection.channel()
    finally:
        connection.close()


def _fill(channel: Any, lane: Lane, messages: int, body: bytes) -> None:
    for _ in range(messages):
        wrapped, properties = lane.wrap(body)
        channel.basic_publish("", lane.source, wrapped, properties)
    _count(channel, lane.source)  # what is answered after all that is in the queue


def _count(channel: Any, queue: str) -> int:
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count


def _word(safe: bool) -> str:
    return "safe" if safe else "quick"


# What each reads.


def _as_json(safe: bool) -> Wrap:
    properties = pika.BasicProperties(
        content_type="application/json", delivery_mode=2 if safe else 1
    )
    return lambda body: (body, properties)


def _as_msgflo(body: bytes) -> tuple[bytes, pika.BasicProperties]:
    return body, pika.BasicProperties(
        content_type="application/json",
        message_id=str(uuid.uuid4()),
        delivery_mode=2,
        timestamp=int(time.time()),
        app_id="msgflo",
    )


def _as_celery(safe: bool) -> Wrap:
    app = Celery("amqp_celery", set_as_current=False)

    def wrap(body: bytes) -> tuple[bytes, pika.BasicProperties]:
        message = app.amqp.as_task_v2(str(uuid.uuid4()), "repeat", (json.loads(body),))
        return json.dumps(message.body).encode(), pika.BasicProperties(
            content_type="application/json",
            content_encoding="utf-8",
            headers={name: value for name, value in message.headers.items() if value is not None},
            delivery_mode=2 if safe else 1,
            **message.properties,
        )

    return wrap


def _as_dramatiq(safe: bool) -> Wrap:
    # What it sends itself is always persistent.
    properties = pika.BasicProperties(delivery_mode=2 if safe else 1, priority=0)

    def wrap(body: bytes) -> tuple[bytes, pika.BasicProperties]:
        message: Any = dramatiq.Message("work", "repeat", (json.loads(body),), {}, {})
        return message.encode(), properties

    return wrap


def versions() -> str:
    """Say which versions are compared."""
    names = ("pika", "faststream", "aio-pika", "celery", "dramatiq")
    package = json.loads((HERE / "npm" / "package.json").read_text())
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    parts = [f"{name} {version(name)}" for name in names]
    parts += [f"{name} {it}" for name, it in package["dependencies"].items()]
    return ", ".join([*parts, f"Node.js {node.stdout.strip()[1:]}"])


def node_modules() -> Path:
    """Install what ``npm/package-lock.json`` names, unless it is; return where."""
    place, source = BUILD / "npm-benchmarks", HERE / "npm"
    lock = place / "package-lock.json"
    if not lock.exists() or lock.read_bytes() != (source / lock.name).read_bytes():
        shutil.rmtree(place, ignore_errors=True)
        making = place.with_name(f"{place.name}.new")
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(source, making)
        words = ["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(words, cwd=making, check=True)
        making.rename(place)
    return place / "node_modules"
