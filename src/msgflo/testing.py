"""Components under test: one of them, in memory, and the packets that it sends.

What needs nothing but the function is tested by calling the function. This is for the rest:
settings, outports, retries, state, what happens to a payload that does not fit::

    async def test_resize():
        async with msgflo.testing.run(resize, params={"quality": 50}) as running:
            await running.send(Image(url="..."))
            assert await running.out.get() == b"..."

    def test_split():
        assert msgflo.testing.collect(split, "a b", "c") == {"word": ["a", "b", "c"], "empty": []}

It is the real thing: a participant on a ``direct://`` broker of its own. What a handler raises, the
test gets to see.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgflo.classic import Participant
from msgflo.declaration import Declaration, declared
from msgflo.engine import Engine
from msgflo.errors import MsgFloError, PayloadError, Reject, UnknownPort
from msgflo.failure import Failure, Kind
from msgflo.flow.binding import Binding
from msgflo.flow.binding import Kind as BindingKind
from msgflo.payload import encode
from msgflo.transport import direct
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Delivery, Inlet

__all__ = ["Packets", "Running", "collect", "run"]

PATIENCE = 5.0
"""Seconds that a test waits for a packet, unless it says otherwise."""

_numbers = itertools.count(1)


class Packets:
    """The packets that one outport has sent, in their order."""

    def __init__(self, running: "Running", name: str) -> None:
        self._running = running
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.name = name

    def __repr__(self) -> str:
        return f"<{self._queue.qsize()} packets of outport {self.name!r}>"

    async def get(self, timeout: float = PATIENCE) -> Any:
        """Wait for the next packet and return its value, in the type that the port declares.

        Raises:
            TimeoutError: none came in so many seconds.
            PayloadError: it is not of the type that the port declares.
            Exception: what a handler has raised, if one has failed before a packet came.
        """
        waiting = asyncio.ensure_future(self._queue.get())
        failed = self._running._failed
        await asyncio.wait({waiting, failed}, timeout=timeout, return_when="FIRST_COMPLETED")
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        self._running.check()
        raise TimeoutError(f"outport {self.name!r} sent nothing for {timeout:g} s")

    def all(self) -> list[Any]:
        """Take what has come by now."""
        return [self._queue.get_nowait() for _ in range(self._queue.qsize())]

    def empty(self) -> bool:
        """Tell whether there is nothing to take now."""
        return self._queue.empty()


class Running:
    """A component that runs in a test. Its outports are attributes: ``running.out``.

    Attributes:
        ports: the outports by name, for names that cannot be attributes.
        thing: the component's object, if it is a class.
    """

    def __init__(self, declaration: Declaration, role: str) -> None:
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._raised: list[BaseException] = []
        self._declaration = declaration
        self._role = role
        self._open = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._broker: direct.Broker
        self._engine: Engine
        self._ids = itertools.count(1)
        self.ports = {port.name: Packets(self, port.name) for port in declaration.outports}

    def __getattr__(self, name: str) -> Packets:
        ports: dict[str, Packets] = self.__dict__.get("ports", {})
        found = ports.get(name) or ports.get(name.rstrip("_"))
        if found is None:
            raise AttributeError(f"there is no outport {name!r}; there are: {', '.join(ports)}")
        return found

    @property
    def thing(self) -> Any:
        """The component's object, if it is a class."""
        return self._engine.thing

    async def send(
        self, value: Any, inport: str = "", *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message to the component. Returns when it is on its way, not when it is handled.

        Args:
            value: what to send; bytes as they are, anything else as JSON.
            inport: where; may be left out if there is one that triggers, or one called ``in``.
            headers: metadata beside what a sender adds; ``{"Content-Type": ""}`` leaves that out,
                as foreign senders do.
        """
        port = self._inport(inport)
        body, kind = encode(value)
        all_headers = {CONTENT_TYPE: kind, MESSAGE_ID: f"test-{next(self._ids)}", **(headers or {})}
        if not all_headers[CONTENT_TYPE]:
            del all_headers[CONTENT_TYPE]
        self._open += 1
        self._quiet.clear()
        await self._broker.enqueue(port, body, all_headers)

    async def settled(self, timeout: float = PATIENCE) -> None:
        """Wait until everything that was sent is handled, and what came of it has arrived.

        Raises:
            TimeoutError: it was not in so many seconds.
            Exception: what a handler has raised.
        """
        async with asyncio.timeout(timeout):
            await self._quiet.wait()
            queues = [_taken_by(self._role, name) for name in self.ports]
            # What is settled has been sent; the broker has it, and hands it over soon.
            while any(  # noqa: ASYNC110 - a loop without clock: each turn lets the others run
                q.waiting or q.in_flight for q in await self._broker.queues(queues)
            ):
                await asyncio.sleep(0)
        self.check()

    def check(self) -> None:
        """Raise what a handler has raised, if one has."""
        if self._raised:
            error = self._raised.pop(0)
            if not self._raised and self._failed.done():
                self._failed = asyncio.get_running_loop().create_future()
            raise error

    def _inport(self, name: str) -> str:
        definition = self._engine.definition
        if not name:
            triggers = [entry.port.name for entry in self._declaration.entries]
            name = triggers[0] if len(triggers) == 1 else "in"
        port = definition.inport(name)
        if port is None or not port.queue:
            raise UnknownPort(self._role, "inport", name, [p.id for p in definition.inports])
        return port.queue

    def _observe(self, _delivery: Delivery, failure: Failure | None, over: bool) -> None:
        if not over:
            return
        if failure is not None:
            self._fail(_error_of(failure))
        self._open -= 1
        if self._open <= 0:
            self._quiet.set()

    def _fail(self, error: BaseException) -> None:
        self._raised.append(error)
        if not self._failed.done():
            self._failed.set_result(None)

    async def _start(
        self, url: str, client: direct.Client, params: Mapping[str, Any] | None
    ) -> None:
        self._engine = Engine(
            self._declaration,
            client,
            self._role,
            initials=params,
            observer=self._observe,
            restart_sources=False,
        )
        self._open += len(self._engine._initials)
        if self._open:
            self._quiet.clear()
        self._broker = direct.Broker(url)
        await self._broker.connect()
        collector = direct.Client(url)
        await collector.connect()
        for port in self._engine.definition.outports:
            if port.queue:
                await self._collect(collector, port.id, port.queue)
        await self._engine.start()

    async def _collect(self, collector: direct.Client, name: str, source: str) -> None:
        packets = self.ports[name]
        declared_port = next(port for port in self._declaration.outports if port.name == name)
        decode = declared_port.payload.decode
        inlet = Inlet(_taken_by(self._role, name), 1)

        def deliver(delivery: Delivery) -> None:
            try:
                packets._queue.put_nowait(decode(delivery.body, delivery.headers))
            except PayloadError as error:
                self._fail(PayloadError(f"what outport {name!r} sent is not of its type: {error}"))
            collector.settle(delivery)

        await collector.declare([inlet], [])
        await self._broker.bind(Binding(BindingKind.ROUNDROBIN, source, inlet.queue))
        await collector.consume(inlet, 1000, deliver)

    async def _sources_done(self) -> None:
        await self._engine.sources_done()


def _taken_by(role: str, port: str) -> str:
    return f"testing.{role}.{port}"


def _error_of(failure: Failure) -> BaseException:
    """Return what to raise in the test: what was raised in the handler, where that is known."""
    if failure.kind is Kind.REJECT and failure.raised is None:
        return Reject(failure.text)
    return failure.raised or MsgFloError(f"{failure.error}: {failure.text}\n{failure.traceback}")


@asynccontextmanager
async def run(
    component: Any, *, params: Mapping[str, Any] | None = None, role: str = "test"
) -> AsyncIterator[Running]:
    """Run a component in memory, for the length of an ``async with``.

    Args:
        component: a decorated function, a class or an object of one.
        params: values for its settings.
        role: the role it has.

    Raises:
        Exception: (at the end) what a handler has raised that the test has not seen.
    """
    if isinstance(component, Participant):
        role = component.role
    elif isinstance(component, type) and issubclass(component, Participant):
        make: Any = component
        component = make(role)
    name = f"testing-{next(_numbers)}"
    url = f"direct://{name}"
    client = direct.Client(url)
    await client.connect()
    running = Running(declared(component), role)
    try:
        await running._start(url, client, params)
        yield running
        running.check()
    finally:
        engine: Engine | None = running.__dict__.get("_engine")
        if engine is not None:
            await engine.stop(1.0)
            await engine.close()
        await client.close()
        direct.forget(name)


def collect(
    component: Any,
    *inputs: Any,
    inport: str = "",
    params: Mapping[str, Any] | None = None,
    limit: int = 1000,
    timeout: float = PATIENCE,
) -> dict[str, list[Any]]:
    """Run a component with these messages, and return the values that each outport has sent.

    A component with sources, given no messages, is run until its sources have ended or have sent
    ``limit`` packets.

    Args:
        component: a decorated function, a class or an object of one.
        inputs: the messages, in their order.
        inport: where they go; may be left out if there is one that triggers, or one called ``in``.
        params: values for its settings.
        limit: of sources that do not end: how many packets to wait for.
        timeout: seconds for all of it.

    Raises:
        TimeoutError: it took longer.
        Exception: what a handler has raised.
    """

    async def work() -> dict[str, list[Any]]:
        async with run(component, params=params) as running:
            if inputs or not running._declaration.sources:
                for value in inputs:
                    await running.send(value, inport)
                await running.settled(timeout)
            else:
                await _until_enough(running, limit, timeout)
                running.check()
            return {name: packets.all()[:limit] for name, packets in running.ports.items()}

    return asyncio.run(work())


async def _until_enough(running: Running, limit: int, timeout: float) -> None:
    sources = asyncio.ensure_future(running._sources_done())
    try:
        async with asyncio.timeout(timeout):
            while not sources.done() and _count(running.ports.values()) < limit:
                await asyncio.wait({sources}, timeout=0.001)
    finally:
        ended = sources.done()
        if not ended:
            sources.cancel()
    if ended:
        sources.result()
        await running._engine._client.flush(timeout)
        await running.settled(timeout)


def _count(ports: Iterable[Packets]) -> int:
    return sum(packets._queue.qsize() for packets in ports)
