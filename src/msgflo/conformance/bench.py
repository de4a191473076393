"""What a check works with: connections and names of its own, and ways to wait for a condition.

A check is a coroutine function that gets a :class:`Bench`, does to a transport what its docstring
promises, and raises :exc:`Broken` if something else is seen. No check sleeps: what is to happen is
waited for; that something does *not* happen is shown by a later message on the same way, which
arrives while the first has not.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from msgflo.errors import ConnectionLost
from msgflo.flow.binding import Binding, Kind
from msgflo.transport.contract import (
    CONTENT_TYPE,
    MESSAGE_ID,
    Broker,
    Client,
    Death,
    Delivery,
    Inlet,
    QueueStats,
)

__all__ = ["CHECKS", "Bench", "Broken", "Check", "Sent", "Setting", "Taker", "check", "numbered"]

POLL = 0.02
"""Seconds between two looks at something that does not tell when it changes."""

RETENTION = 120.0
"""Seconds: longer than a check takes, short enough that a broker soon forgets it."""

_Seen = TypeVar("_Seen")


class Broken(Exception):
    """Something else was seen than what was promised; the text says what."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is checked, and what the caller can do to it. See ``check_transport``."""

    url: str
    client: Callable[[str], Client]
    broker: Callable[[str], Broker]
    patience: float
    restart: Callable[[], Awaitable[None]] | None
    cut: Callable[[], Awaitable[None]] | None
    drop: Callable[[Client], Awaitable[None]] | None
    too_large: int | None
    nowhere: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, and how to see whether it is kept.

    Attributes:
        name: short, for choosing it.
        promise: a sentence.
        needs: which of the optional arguments of ``check_transport`` it cannot do without.
        run: does it.
    """

    name: str
    promise: str
    needs: tuple[str, ...]
    run: Callable[["Bench"], Awaitable[None]]

    def __str__(self) -> str:
        return self.name


CHECKS: list[Check] = []
"""All checks, in the order in which their modules are read."""

_Run = Callable[["Bench"], Awaitable[None]]


def check(*needs: str) -> Callable[[_Run], _Run]:
    """Make a check of a coroutine function: its name is the name, its docstring the promise."""

    def add(run: _Run) -> _Run:
        assert run.__doc__, "a check says what it checks"
        promise = re.sub(r"\s+", " ", run.__doc__).strip()
        CHECKS.append(Check(run.__name__, promise, needs, run))
        return run

    return add


def numbered(count: int, start: int = 0) -> list[bytes]:
    """Return payloads that can be told apart."""
    return [b"%d" % number for number in range(start, start + count)]


class Sent:
    """A message that was sent, and what the transport said to it.

    Attributes:
        id: its id.
        body: its payload.
        answers: what ``confirmed`` was called with, each time.
        also: to be called with the answer.
    """

    __slots__ = ("_bench", "also", "answers", "body", "id", "within")

    def __init__(self, bench: "Bench", id: str, body: bytes) -> None:  # noqa: A002
        self._bench = bench
        self.within = True  # whether send() has not returned yet
        self.also: Callable[[Exception | None], None] | None = None
        self.id = id
        self.body = body
        self.answers: list[Exception | None] = []

    def confirmed(self, error: Exception | None) -> None:
        """Note an answer. For ``send``."""
        if self.within:
            self._bench.fault(f"confirmed was called from within send() of {self.body[:40]!r}")
        if self.answers:
            self._bench.fault(f"confirmed was called again for {self.body[:40]!r}")
        self.answers.append(error)
        self._bench.changed.set()
        if self.also is not None:
            self.also(error)

    @property
    def is_confirmed(self) -> bool:
        """Whether the broker has it."""
        return self.answers == [None]


class Taker:
    """A participant's inport that notes all it gets.

    Attributes:
        client: whose it is.
        inlet: which inport.
        deliveries: all there were, in order.
        open: those that are not ended.
        most: how many were open at most.
        then: what is done with each; may be replaced at any time.
    """

    def __init__(
        self,
        bench: "Bench",
        client: Client,
        inlet: Inlet,
        then: Callable[["Taker", Delivery], None],
    ) -> None:
        self._bench = bench
        self.client = client
        self.inlet = inlet
        self.then = then
        self.deliveries: list[Delivery] = []
        self.open: list[Delivery] = []
        self.most = 0

    def deliver(self, delivery: Delivery) -> None:
        """Note a delivery, and do what is to be done with it. For ``consume``."""
        self.deliveries.append(delivery)
        self.open.append(delivery)
        self.most = max(self.most, len(self.open))
        if delivery.inlet != self.inlet:
            self._bench.fault(f"a delivery at {self.inlet} says that it is at {delivery.inlet}")
        self.then(self, delivery)
        self._bench.changed.set()

    @property
    def bodies(self) -> list[bytes]:
        """All payloads, in the order in which they came."""
        return [delivery.body for delivery in self.deliveries]

    def hold(self, delivery: Delivery) -> None:
        """Keep it open. For ``then``."""

    def settle(self, delivery: Delivery) -> None:
        """End it. For ``then``, and for what was held."""
        self.open.remove(delivery)
        self.client.settle(delivery)

    def settle_all(self) -> None:
        """End what is open, and from now on whatever comes."""
        self.then = Taker.settle
        while self.open:
            self.settle(self.open[0])

    def retry(self, delivery: Delivery, delay: float = 0.0, *, counts: bool = True) -> None:
        """Give it back."""
        self.open.remove(delivery)
        self.client.retry(delivery, delay, counts=counts)

    def bury(self, delivery: Delivery, error: str = "ValueError", text: str = "bad") -> Death:
        """End it as a dead letter. Returns what was said of it."""
        self.open.remove(delivery)
        death = Death(
            queue=delivery.queue,
            role="checked",
            instance=self.inlet.instance,
            attempts=delivery.attempt,
            error=error,
            text=text,
            traceback='Traceback:\n  File "ä.py", line 1\nValueError: bad\n',
            first_seen=delivery.sent,
            died=1_700_000_000.25,
        )
        self.client.bury(delivery, death)
        return death

    async def pause(self) -> None:
        """Take nothing more."""
        await self.client.pause(self.inlet)


class Bench:
    """The place of work of one check. What it makes ends with it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.prefix = f"check-{uuid.uuid4().hex[:10]}"
        self.changed = asyncio.Event()
        self._faults: list[str] = []
        self._connections: list[Client | Broker] = []
        self._bound: dict[Binding, None] = {}
        self._letters: set[str] = set()
        self._broker: Broker | None = None
        self._ids = 0

    # Who takes part.

    def name(self, text: str) -> str:
        """Return a queue name (or role) that nobody else uses."""
        return f"{self.prefix}.{text}"

    def inlet(self, queue: str, instance: int = 1, retention: float = RETENTION) -> Inlet:
        """Return an inport, whose dead letters are thrown away at the end."""
        self._letters.add(queue)
        return Inlet(queue, instance, retention)

    async def client(self) -> Client:
        """Return a new client, connected."""
        client = self.setting.client(self.setting.url)
        self._connections.append(client)
        await client.connect(self.setting.patience)
        return client

    async def new_broker(self) -> Broker:
        """Return another Broker, connected."""
        broker = self.setting.broker(self.setting.url)
        self._connections.append(broker)
        await broker.connect(self.setting.patience)
        return broker

    async def broker(self) -> Broker:
        """Return the check's Broker, connected."""
        if self._broker is None:
            self._broker = await self.new_broker()
        return self._broker

    async def bind(self, kind: Kind, source: str, target: str) -> Binding:
        """Bind, until the end of the check at the latest."""
        binding = Binding(kind, source, target)
        self._bound[binding] = None
        self._letters.add(target)
        await (await self.broker()).bind(binding)
        return binding

    async def unbind(self, binding: Binding) -> None:
        """Remove a connection."""
        await (await self.broker()).unbind(binding)

    async def take(
        self,
        client: Client,
        inlet: Inlet,
        prefetch: int = 10,
        then: Callable[[Taker, Delivery], None] = Taker.settle,
    ) -> Taker:
        """Declare an inport and consume from it."""
        taker = Taker(self, client, inlet, then)
        await client.declare([inlet], [])
        await client.consume(inlet, prefetch, taker.deliver)
        return taker

    # What befalls them.

    async def restart(self) -> None:
        """Kill the broker and start it again. For checks that need ``restart``."""
        assert self.setting.restart is not None
        await self.setting.restart()

    async def cut(self) -> None:
        """Cut all connections. For checks that need ``cut``."""
        assert self.setting.cut is not None
        await self.setting.cut()

    async def drop(self, client: Client) -> None:
        """Let a client die. For checks that need ``drop``."""
        assert self.setting.drop is not None
        await self.setting.drop(client)

    @contextlib.asynccontextmanager
    async def meanwhile(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Do something at the same time, until the end of the block. What it raises is a fault."""

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.fault(str(error))

        task = asyncio.create_task(work)
        task.add_done_callback(done)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # Messages.

    def send(
        self,
        client: Client,
        outport: str,
        body: bytes = b'"message"',
        headers: Mapping[str, str] | None = None,
        id: str = "",  # noqa: A002
    ) -> Sent:
        """Send, and do not wait."""
        sent = Sent(self, id or self.new_id(), body)
        said = {CONTENT_TYPE: "application/json", **(headers or {}), MESSAGE_ID: sent.id}
        client.send(outport, body, said, sent.confirmed)
        sent.within = False
        return sent

    async def sent(self, client: Client, outport: str, *bodies: bytes) -> list[Sent]:
        """Send one after the other, and wait until all are confirmed."""
        sent = [self.send(client, outport, body) for body in bodies]
        await self.confirmed(sent)
        return sent

    async def confirmed(self, sent: Iterable[Sent]) -> None:
        """Wait until the broker has them all."""
        open_ = list(sent)

        def all_answered() -> bool:
            while open_ and open_[-1].answers:
                self.expect(
                    open_[-1].answers[0] is None,
                    lambda: f"{open_[-1].body[:40]!r} was refused: {open_[-1].answers[0]!r}",
                )
                open_.pop()
            return not open_

        await self.until(all_answered, lambda: f"{len(open_)} messages were not confirmed")

    async def enqueue(self, queue: str, *bodies: bytes) -> None:
        """Put messages into a work queue or a place, one after the other."""
        broker = await self.broker()
        for body in bodies:
            await broker.enqueue(queue, body, {MESSAGE_ID: self.new_id()})

    def new_id(self) -> str:
        """Return a message id that nobody else uses."""
        self._ids += 1
        return f"{self.prefix}-{self._ids}"

    # Seeing.

    def fault(self, seen: str) -> None:
        """Note something that must never be seen; the check fails when it looks next."""
        self._faults.append(seen)
        self.changed.set()

    def expect(self, condition: object, seen: str | Callable[[], str]) -> None:
        """Raise if the condition does not hold.

        Raises:
            Broken: saying what was ``seen`` instead.
        """
        if self._faults:
            raise Broken(self._faults[0])
        if not condition:
            raise Broken(seen if isinstance(seen, str) else seen())

    async def until(
        self, condition: Callable[[], object], missing: str | Callable[[], str]
    ) -> None:
        """Wait until a condition holds that deliveries, confirmations or callbacks bring about.

        Raises:
            Broken: it does not within the patience; ``missing`` says what was missing.
        """
        end = asyncio.get_running_loop().time() + self.setting.patience
        while True:
            self.expect(True, "")
            if condition():
                return
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                text = missing if isinstance(missing, str) else missing()
                raise Broken(f"after {self.setting.patience:g} s, {text}")
            self.changed.clear()
            # Not everything that is waited for is told by an event.
            await self._changed_within(min(left, POLL))

    async def _changed_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            pass

    async def eventually(
        self,
        look: Callable[[], Awaitable[_Seen]],
        condition: Callable[[_Seen], object],
        missing: str,
    ) -> _Seen:
        """Look again and again until a condition holds; return what was seen then.

        Whoever looks may be about to connect again, so that ConnectionLost is no failure yet.

        Raises:
            Broken: it does not within the patience; says what was seen last.
        """
        end = asyncio.get_running_loop().time() + self.setting.patience
        while True:
            last: object
            try:
                last = seen = await look()
            except ConnectionLost as lost:
                last = lost
            else:
                self.expect(True, "")
                if condition(seen):
                    return seen
            if asyncio.get_running_loop().time() > end:
                raise Broken(f"after {self.setting.patience:g} s, {missing}; seen last: {last!r}")
            await asyncio.sleep(POLL)

    async def got(self, taker: Taker, *bodies: bytes) -> None:
        """Wait until as many came, and see that they are these, in this order, and no others."""
        await self.until(
            lambda: len(taker.deliveries) >= len(bodies),
            lambda: (
                f"{len(taker.deliveries)} of {len(bodies)} deliveries have come to "
                f"{taker.inlet.place}: {_few(taker.bodies)}; expected {_few(bodies)}"
            ),
        )
        self.expect(
            taker.bodies == list(bodies),
            lambda: f"{taker.inlet.place} got {_few(taker.bodies)}; expected {_few(bodies)}",
        )

    async def got_all(self, takers: Iterable[Taker], bodies: Iterable[bytes]) -> None:
        """Wait until these have come, each once, in any order, to any of the takers."""
        takers, wanted = list(takers), sorted(bodies)
        await self.until(
            lambda: sum(len(taker.deliveries) for taker in takers) >= len(wanted),
            lambda: (
                f"{sum(len(taker.deliveries) for taker in takers)} of {len(wanted)} "
                f"deliveries have come; missing are "
                f"{_few(sorted({*wanted} - {b for t in takers for b in t.bodies}))}"
            ),
        )
        got = sorted(body for taker in takers for body in taker.bodies)
        self.expect(got == wanted, lambda: f"got {_few(got)}; expected {_few(wanted)}")

    async def stats(self, queue: str) -> QueueStats:
        """Return how a work queue, a place, or dead letters are doing; zeros if it is not there."""
        work = queue.removeprefix("dead-").rpartition("@")[0] or queue.removeprefix("dead-")
        for stats in await (await self.broker()).queues([work]):
            if stats.queue == queue:
                return stats
        return QueueStats(queue)

    async def drained(self, *queues: str) -> None:
        """Wait until nothing waits or is in flight in these inports."""
        broker = await self.broker()

        async def look() -> list[QueueStats]:
            return [
                stats
                for stats in await broker.queues(queues)
                if not stats.queue.startswith("dead-") and (stats.waiting or stats.in_flight)
            ]

        await self.eventually(look, lambda busy: not busy, "not all that was ended is gone")

    async def place_drained(self, place: str) -> None:
        """Wait until nothing waits or is in flight in this place."""
        await self.eventually(
            lambda: self.stats(place),
            lambda stats: not stats.waiting and not stats.in_flight,
            f"not all that was ended is gone from {place}",
        )

    # Its end.

    async def close(self) -> None:
        """Undo what the check made, as far as the contract can, and disconnect all."""
        broker = self._broker
        if broker is not None and broker.connected:
            for binding in self._bound:
                await broker.unbind(binding)
            for queue in self._letters:
                await broker.discard(
                    queue, [letter.key for letter in await broker.dead_letters(queue, 1000)]
                )
        for connection in self._connections:
            await connection.close()

    async def abandon(self) -> None:
        """Close after a failure: what fails now tells nothing new."""
        for call in (self.close, *(connection.close for connection in self._connections)):
            try:
                async with asyncio.timeout(self.setting.patience):
                    await call()
            except Exception:  # noqa: S110
                pass


def _few(bodies: Any) -> str:
    shown = ", ".join(repr(body[:40])[1:] for body in list(bodies)[:20])
    return f"[{shown}{', ...' if len(bodies) > 20 else ''}] ({len(bodies)})"
