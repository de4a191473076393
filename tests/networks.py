"""A small network in memory: participants on a ``direct://`` broker, and what comes of them."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from msgflo.classic import Participant
from msgflo.declaration import declared
from msgflo.engine import Engine
from msgflo.flow.binding import Binding, Kind
from msgflo.transport import direct
from msgflo.transport.contract import MESSAGE_ID, Confirmed, DeadLetter, Delivery, Inlet, QueueStats

__all__ = ["Collected", "HoldingClient", "Network", "turns", "until"]

_numbers = itertools.count(1)


async def until(condition: Callable[[], object], timeout: float = 20) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


async def turns(count: int) -> None:
    """Let the event loop go round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


class HoldingClient(direct.Client):
    """A connection on which confirmations are late: they come when :meth:`let_go` is called."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.held: list[tuple[Confirmed, Exception | None]] = []

    def send(
        self, outport: str, body: bytes, headers: Mapping[str, str], confirmed: Confirmed
    ) -> None:
        super().send(outport, body, headers, lambda error: self.held.append((confirmed, error)))

    def let_go(self) -> None:
        while self.held:
            confirmed, error = self.held.pop(0)
            confirmed(error)


class Collected(list[Any]):
    """The values that a source has sent; ``ids`` are their messages' ids."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.headers: list[Mapping[str, str]] = []


class Network:
    """A broker of a test's own, and participants that a test starts, stops and kills."""

    def __init__(self) -> None:
        self.name = f"network-{next(_numbers)}"
        self.url = f"direct://{self.name}"
        self.hub = direct.hub(self.name)
        self.broker = direct.Broker(self.url)
        self.heard: list[dict[str, Any]] = []
        self.engines: list[Engine] = []
        self._clients: list[direct.Client] = []
        self._ids = itertools.count(1)

    async def __aenter__(self) -> "Network":
        await self.broker.connect()
        await self.broker.listen(lambda message: self.heard.append(msgspec.json.decode(message)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for engine in self.engines:
            if not engine.stopping:
                await engine.stop(0.0)
            await engine.close()
        for client in self._clients:
            await client.close()
        await self.broker.close()
        direct.forget(self.name)

    async def client(self, kind: type[direct.Client] = direct.Client) -> Any:
        client = kind(self.url)
        await client.connect()
        self._clients.append(client)
        return client

    async def start(
        self,
        component: Any,
        role: str = "r",
        instance: int = 1,
        *,
        client: direct.Client | None = None,
        **options: Any,
    ) -> Engine:
        """Start a participant, on a connection of its own unless one is given."""
        engine = await self.make(component, role, instance, client=client, **options)
        await engine.start()
        return engine

    async def make(
        self,
        component: Any,
        role: str = "r",
        instance: int = 1,
        *,
        client: direct.Client | None = None,
        **options: Any,
    ) -> Engine:
        if isinstance(component, type) and issubclass(component, Participant):
            component = component(role)  # type: ignore[arg-type]
        connection = client or await self.client()
        engine = Engine(declared(component), connection, role, instance, **options)
        self.engines.append(engine)
        return engine

    def kill(self, engine: Engine) -> None:
        """Have a participant's connection die as if its process was killed."""
        self.hub.drop(engine._client)  # type: ignore[arg-type]

    async def put(
        self,
        value: Any,
        queue: str = "r.IN",
        *,
        message_id: str = "",
        headers: Mapping[str, str] = {},
    ) -> str:
        """Put a message into a queue; bytes as they are, else JSON. Returns its id."""
        message_id = message_id or f"m{next(self._ids)}"
        body = value if isinstance(value, bytes) else msgspec.json.encode(value)
        await self.broker.enqueue(queue, body, {MESSAGE_ID: message_id, **headers})
        return message_id

    async def collect(self, source: str = "r.OUT") -> Collected:
        """Take what a source sends from now on."""
        collected = Collected()
        client = await self.client()
        inlet = Inlet(f"collected.{source}", 1)

        def deliver(delivery: Delivery) -> None:
            try:
                value: Any = msgspec.json.decode(delivery.body)
            except msgspec.DecodeError:
                value = delivery.body
            collected.append(value)
            collected.ids.append(delivery.id)
            collected.headers.append(delivery.headers)
            client.settle(delivery)

        await client.declare([inlet], [source])
        await self.broker.bind(Binding(Kind.ROUNDROBIN, source, inlet.queue))
        await client.consume(inlet, 1000, deliver)
        return collected

    async def connect(self, source: str, target: str) -> None:
        await self.broker.bind(Binding(Kind.PUBSUB, source, target))

    async def dead(self, queue: str = "r.IN") -> list[DeadLetter]:
        return await self.broker.dead_letters(queue)

    async def stats(self, queue: str = "r.IN") -> QueueStats:
        """Return how many wait and are in flight at an inport: its work queue and its places."""
        found = await self.broker.queues([queue])
        alive = [stats for stats in found if not stats.queue.startswith("dead-")]
        return QueueStats(queue, sum(it.waiting for it in alive), sum(it.in_flight for it in alive))

    async def until_dead(self, count: int = 1, queue: str = "r.IN") -> list[DeadLetter]:
        """Wait for so many dead letters of a queue, and return them."""
        await until(lambda: len(self.hub.queues.dead_letters(queue, 1000, "")) >= count)
        return await self.dead(queue)

    async def until_empty(self, queue: str = "r.IN") -> None:
        """Wait until nothing waits or is in flight in a queue."""
        async with asyncio.timeout(20):
            while (stats := await self.stats(queue)).waiting or stats.in_flight:
                await asyncio.sleep(0.001)
