"""What needs no broker: direct://, the cost of the framework itself, and imports."""

import asyncio
import subprocess
import sys
import time
from typing import Any

import msgflo
import msgflo.testing
from benchmarks.figures import percentile
from msgflo import Context, Param, Retry, transport
from msgflo.declaration import declared
from msgflo.engine import Engine
from msgflo.flow.binding import Binding, Kind
from msgflo.payload import payload_of
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Client, Inlet

BODY = b'{"id":123456,"sensor":"hall/north/temperature","value":21.75,"pad":"' + b"x" * 130 + b'"}'
HEADERS = {CONTENT_TYPE: "application/json"}


class Reading(msgflo.Struct):
    id: int
    sensor: str
    value: float
    pad: str


async def direct_throughput(messages: int) -> float:
    """Return messages a second through one Repeat participant on direct://, in one process."""
    url = f"direct://bench{time.perf_counter_ns()}"
    broker = transport.broker(url)
    client = transport.client(url)
    await broker.connect()
    await client.connect()

    @msgflo.component(concurrency=200)
    async def repeat(value: bytes) -> bytes:
        return value

    engine = Engine(declared(repeat), client, "work")
    await broker.bind(Binding(Kind.ROUNDROBIN, "feed.OUT", "work.IN"))
    await broker.bind(Binding(Kind.ROUNDROBIN, "work.OUT", "sink.IN"))
    sink = Inlet("sink.IN", 1)
    await client.declare([sink], ["feed.OUT"])
    for number in range(messages):
        client.send("feed.OUT", BODY, {**HEADERS, MESSAGE_ID: f"m{number}"}, lambda _: None)
    await client.flush(120)
    done = asyncio.Event()
    count = 0

    def take(delivery: Any) -> None:
        nonlocal count
        client.settle(delivery)
        count += 1
        if count == messages:
            done.set()

    await client.consume(sink, 1000, take)
    start = time.perf_counter()
    await engine.start()
    await done.wait()
    rate = messages / (time.perf_counter() - start)
    await engine.stop(1.0)
    await engine.close()
    await client.close()
    await broker.close()
    return rate


async def direct_latency(count: int) -> float:
    """Return milliseconds, p50, through one Repeat participant on direct://."""
    url = f"direct://latency{time.perf_counter_ns()}"
    broker, client = transport.broker(url), transport.client(url)
    await broker.connect()
    await client.connect()

    @msgflo.component
    async def repeat(value: bytes) -> bytes:
        return value

    engine = Engine(declared(repeat), client, "work")
    await broker.bind(Binding(Kind.ROUNDROBIN, "work.OUT", "sink.IN"))
    await broker.bind(Binding(Kind.ROUNDROBIN, "feed.OUT", "work.IN"))
    sink = Inlet("sink.IN", 1)
    await client.declare([sink], ["feed.OUT"])
    arrived = asyncio.Event()

    def take(delivery: Any) -> None:
        client.settle(delivery)
        arrived.set()

    await client.consume(sink, 1, take)
    await engine.start()
    times = []
    for number in range(count):
        start = time.perf_counter()
        client.send("feed.OUT", BODY, {**HEADERS, MESSAGE_ID: f"m{number}"}, lambda _: None)
        await arrived.wait()
        arrived.clear()
        times.append((time.perf_counter() - start) * 1e3)
    await engine.stop(1.0)
    await engine.close()
    await client.close()
    await broker.close()
    return percentile(times, 50)


class _Sink:
    """The least that a participant can stand on: it takes what is sent and confirms it at once.

    As transports do, it confirms in one turn of the event loop what was sent in the one before: a
    turn for each message would be most of what is measured.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._soon = loop.call_soon
        self._sent: list[Any] = []
        self.settled = 0
        self.deliver: Any = None

    async def declare(self, *_: object) -> None: ...

    async def announce(self, _: bytes) -> None: ...

    async def consume(self, _inlet: Inlet, _prefetch: int, deliver: Any) -> None:
        self.deliver = deliver

    async def pause(self, _: Inlet) -> None: ...

    def send(self, _out: str, _body: bytes, _headers: Any, confirmed: Any) -> None:
        if not self._sent:
            self._soon(self._confirm)
        self._sent.append(confirmed)

    def _confirm(self) -> None:
        sent, self._sent = self._sent, []
        for confirmed in sent:
            confirmed(None)

    def settle(self, _: Any) -> None:
        self.settled += 1


FORMS: dict[str, Any] = {}


def _form(name: str) -> Any:
    def keep(made: Any) -> Any:
        FORMS[name] = made
        return made

    return keep


@_form("bytes, untouched")
@msgflo.component(concurrency=200)
async def _raw(value: bytes) -> bytes:
    return value


@_form("any JSON value")
@msgflo.component(concurrency=200)
async def _any(value: Any) -> Any:
    return value


@_form("typed: a Struct of four fields")
@msgflo.component(concurrency=200)
async def _typed(value: Reading) -> Reading:
    return value


@_form("any value, with retries configured")
@msgflo.component(concurrency=200, retry=Retry(5))
async def _retried(value: Any) -> Any:
    return value


@_form("any value, with context and a setting")
@msgflo.component(concurrency=200)
async def _context(value: Any, ctx: Context, size: Param[int] = 1) -> Any:
    ctx.headers.get("Traceparent", size)
    return value


async def framework_cost(form: str, messages: int) -> float:
    """Return microseconds that the framework takes for a message in and a message out."""
    from msgflo.transport.contract import Delivery

    sink = _Sink(asyncio.get_running_loop())
    client: Client = sink  # type: ignore[assignment]
    engine = Engine(declared(FORMS[form]), client, "work")
    await engine.start()
    inlet = Inlet("work.IN", 1)
    spent = 0.0
    for batch in range(messages // 200):
        deliveries = [
            Delivery(inlet, "work.IN", BODY, HEADERS, f"m{batch}-{number}") for number in range(200)
        ]
        target = sink.settled + 200
        start = time.perf_counter()
        for delivery in deliveries:
            sink.deliver(delivery)
        while sink.settled < target:
            await asyncio.sleep(0)
        spent += time.perf_counter() - start
    await engine.stop(1.0)
    await engine.close()
    return spent / (messages // 200 * 200) * 1e6


def validation_cost(messages: int) -> float:
    """Return microseconds that checking a message costs beyond reading its JSON."""
    typed, plain = payload_of(Reading).decode, payload_of(Any).decode

    def time_of(decode: Any) -> float:
        start = time.perf_counter()
        for _ in range(messages):
            decode(BODY, HEADERS)
        return (time.perf_counter() - start) / messages * 1e6

    return time_of(typed) - time_of(plain)


def import_time() -> float:
    """Return milliseconds that ``import msgflo`` takes beyond the start of Python."""
    code = "import time; t = time.perf_counter(); import msgflo; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1e3


def help_time() -> float:
    """Return milliseconds that ``msgflo --help`` takes, as a process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "msgflo", "--help"], capture_output=True, check=True)
    return (time.perf_counter() - start) * 1e3
