"""``direct://NAME``: a broker within this process, over the rules of :mod:`.queues`.

It is a transport like the others: payloads are bytes, headers are checked, sizes are limited;
what fails is retried and dead-lettered; what a participant held when it died is delivered again.
It keeps nothing on disk.

``NAME`` names a :class:`Hub`. It is made when first used and lives, with all that waits in it,
until :func:`forget` is called or the process ends, so that clients can come and go. A hub is used
from one event loop at a time: when that loop is closed, or nobody is connected to it any more,
another one may follow (of clients that a closed loop left behind, what they held is delivered
again). Nothing here is to be called from another thread than the loop's.

Confirmations, deliveries and what a tap sees are called from the event loop, all that came
together in one turn of it. For tests, a hub can do what befalls real brokers: :meth:`Hub.cut` and
:meth:`Hub.restore` a connection, :meth:`Hub.drop` a client, :meth:`Hub.stop` and
:meth:`Hub.start` all of it.
"""
# ruff: noqa: D102 - what the methods of Client and Broker promise is said once, in contract.py

import asyncio
import itertools
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from msgflo.errors import (
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    SendFailed,
    TransportError,
)
from msgflo.flow.binding import Binding
from msgflo.transport import contract
from msgflo.transport.contract import (
    MESSAGE_ID,
    Confirmed,
    DeadLetter,
    Death,
    Delivery,
    Inlet,
    QueueStats,
    Tapped,
)
from msgflo.transport.queues import Consumer, Handed, Queues

__all__ = ["MAX_PAYLOAD", "Broker", "Client", "Hub", "Link", "forget", "hub"]

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes: a message that is larger, its headers included, is refused."""

PATIENCE = 10.0
"""Seconds that a call waits for a connection that was cut, before it raises ConnectionLost."""

_HEADER_NAME = re.compile(r"[!-9;-~]+")  # what every broker can carry: RFC 7230 without the colon

_hubs: dict[str, "Hub"] = {}


def hub(name: str) -> "Hub":
    """Return the hub of ``direct://name``, made where missing."""
    found = _hubs.get(name)
    if found is None:
        found = _hubs[name] = Hub(name)
    return found


def forget(name: str) -> None:
    """Throw a hub away with all that waits in it. Who is connected to it loses the connection."""
    found = _hubs.pop(name, None)
    if found is not None:
        found.stop("the hub was thrown away")


class Hub:
    """The broker behind ``direct://name``.

    Attributes:
        name: which one.
        queues: the rules, and all that waits.
        running: whether it can be reached.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.queues = Queues()
        self.running = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._links: dict[Link, None] = {}
        self._claims: dict[str, dict[int, set[Link]]] = {}
        self._taps: dict[str, list[_Tap]] = {}
        self._confirmations: deque[tuple[Client, Confirmed, Exception | None]] = deque()
        self._calls: deque[tuple[Link, Callable[[], None]]] = deque()
        self._awake = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._ids = itertools.count(1)
        self._id_prefix = uuid.uuid4().hex[:12]
        self._epoch = time.time() - time.monotonic()

    def __repr__(self) -> str:
        return f"<msgflo.transport.direct.Hub {self.name!r}, {len(self._links)} connected>"

    # What befalls real brokers.

    def cut(self, connection: "Link", reason: str = "the connection was cut") -> None:
        """Break a connection, as a network does; it comes back by :meth:`restore`.

        What its participants hold is delivered again, to others or to them. What they send
        meanwhile waits in their outboxes. Nothing happens if it is not connected.
        """
        if connection._up:
            connection._up = False
            connection._was_cut = True
            connection._reached.clear()
            self.queues.vanish(connection, self._now())
            self._call(connection, partial(connection._tell_lost, reason))

    def restore(self, connection: "Link") -> None:
        """Mend a connection that was cut. Nothing happens if it was not, or was closed."""
        if self.running and not connection._up and connection in self._links:
            connection._link()
            if connection._was_cut:
                self._call(connection, connection._tell_restored)

    def drop(self, connection: "Link") -> None:
        """Let a client die as if its process was killed: nothing of it is called any more."""
        connection._closed = connection._dead = True
        self._leave(connection)

    def stop(self, reason: str = "the broker stopped") -> None:
        """Break all connections; none can be made until :meth:`start`. What waits is kept."""
        self.running = False
        for connection in list(self._links):
            self.cut(connection, reason)

    def start(self) -> None:
        """Let connections be made again, and mend those that were broken."""
        self.running = True
        for connection in list(self._links):
            self.restore(connection)

    # For the two classes below.

    def _now(self) -> float:
        return self._epoch + time.monotonic()  # never goes back, as time.time() does

    def _new_id(self) -> str:
        return f"{self._id_prefix}-{next(self._ids)}"

    def _enter(self, link: "Link") -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._links and not self._loop.is_closed():
                raise TransportError(
                    f"direct://{self.name} is in use by another event loop; "
                    f"close what is connected there first, or use another name"
                )
            for left in list(self._links):
                self.drop(left)
            if self._timer is not None and self._loop is not None and not self._loop.is_closed():
                self._timer.cancel()
            self._loop = loop
            self._awake = False
            self._timer = self._armed = None
            self._confirmations.clear()
            self._calls.clear()
            self.queues.tick(self._now())
        self._links[link] = None

    def _leave(self, link: "Link") -> None:
        if link not in self._links:
            return
        del self._links[link]
        link._up = False
        link._reached.clear()
        self.queues.vanish(link, self._now())
        for tap in [tap for taps in self._taps.values() for tap in taps if tap.broker is link]:
            self._untap(tap)
        for held in self._claims.values():
            for number in [number for number, holders in held.items() if link in holders]:
                held[number].discard(link)
                if not held[number]:
                    del held[number]
        self._wake()

    def _claim(self, link: "Link", role: str, instance: int | None) -> int:
        held = self._claims.setdefault(role, {})
        if instance is None:
            instance = next(number for number in itertools.count(1) if number not in held)
        held.setdefault(instance, set()).add(link)
        return instance

    def _tap(self, tap: "_Tap") -> None:
        self._taps.setdefault(tap.source, []).append(tap)
        self.queues.tap(tap.source)

    def _untap(self, tap: "_Tap") -> None:
        if tap in self._taps.get(tap.source, ()):
            self._taps[tap.source].remove(tap)
            self.queues.untap(tap.source)

    def _announce(self, message: bytes) -> None:
        for link in self._links:
            if isinstance(link, Broker) and link._up:
                for heard in link._heard:
                    self._call(link, partial(heard, message))

    def _tell(self, message: bytes) -> None:
        for link in self._links:
            if isinstance(link, Client) and link._up:
                for told in link._told:
                    self._call(link, partial(told, message))

    def _call(self, link: "Link", call: Callable[[], None]) -> None:
        self._calls.append((link, call))
        self._wake()

    def _wake(self) -> None:
        """Have everything told in the next turn of the event loop."""
        if not self._awake and self._loop is not None and not self._loop.is_closed():
            self._awake = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        # What these calls cause is told in the turn after, so that other tasks have theirs.
        self._awake = False
        confirmations = self._confirmations
        for _ in range(len(confirmations)):
            client, confirmed, error = confirmations.popleft()
            if not client._dead:
                client._unconfirmed -= 1
                try:
                    confirmed(error)
                except Exception as raised:
                    self._complain(raised, confirmed)
        queues = self.queues
        for _ in range(len(queues.handed)):
            if not queues.handed:  # whoever was just called has cut or paused the rest
                break
            handed = queues.handed.popleft()
            try:
                handed.consumer.deliver(handed)
            except Exception as raised:
                self._complain(raised, handed.consumer.deliver)
        while queues.tapped:
            seen = queues.tapped.popleft()
            for tap in tuple(self._taps.get(seen.queue, ())):
                if tap.broker._up:
                    try:
                        tap.seen(seen)
                    except Exception as raised:
                        self._complain(raised, tap.seen)
        for _ in range(len(self._calls)):
            link, call = self._calls.popleft()
            if not link._dead:
                try:
                    call()
                except Exception as raised:
                    self._complain(raised, call)
        self._arm()

    def _complain(self, raised: Exception, call: Callable[..., Any]) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler(
            {"message": f"{call!r}, called by {self!r}, failed", "exception": raised}
        )

    def _arm(self) -> None:
        deadline = self.queues.next_deadline()
        if deadline == self._armed or self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed = deadline
        if deadline is not None:
            # At least a millisecond, because an event loop's clock may be as coarse as that.
            wait = max(0.001, deadline - self._now())
            self._timer = self._loop.call_later(wait, self._due)

    def _due(self) -> None:
        self._timer = self._armed = None
        self.queues.tick(self._now())
        self._wake()
        self._arm()


class Link(contract.Connection):
    """What both sides have in common: they are connected, or cut, or closed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        parts = urlsplit(url)
        name = unquote(parts.netloc + parts.path).strip("/")
        if not name:
            raise ConfigurationError(f"{url!r} names no hub; expected direct://NAME")
        self._hub = hub(name)
        self._up = False
        self._was_cut = False
        self._closed = False
        self._dead = False
        self._reached = asyncio.Event()

    async def connect(self, timeout: float = 10.0) -> None:
        if self._closed:
            raise ConnectFailed(self.url, "it was closed; make another one")
        if self._up:
            return
        entered = self in self._hub._links
        if not entered:
            self._hub._enter(self)
            if self._hub.running:
                self._link()
                return
        try:
            async with asyncio.timeout(timeout):
                await self._reached.wait()
        except TimeoutError:
            why = "the connection was cut" if self._hub.running else "the broker is stopped"
            raise ConnectFailed(self.url, why) from None
        finally:
            if not self._up and not entered:
                self._hub._leave(self)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._abandon()
        self._hub._leave(self)
        # One turn of the event loop, in which all that is confirmed is told.
        await asyncio.sleep(0)

    @property
    def connected(self) -> bool:
        return self._up

    def _link(self) -> None:
        self._up = True
        self._reached.set()
        self._resume()
        self._hub._wake()

    def _resume(self) -> None:
        """Take up again what was going on before the connection broke."""

    def _abandon(self) -> None:
        """Let go of what cannot be finished any more."""

    async def _reach(self) -> None:
        """Wait until the hub can be reached."""
        if self._up:
            return
        if self._closed or self not in self._hub._links:
            raise ConnectionLost(f"{self!r} is {'closed' if self._closed else 'not connected'}")
        try:
            await asyncio.wait_for(self._reached.wait(), PATIENCE)
        except TimeoutError:
            raise ConnectionLost(f"{self!r} has been cut off for {PATIENCE:g} s") from None


class Client(Link, contract.Client):
    """A participant's side of a hub. See :class:`msgflo.transport.contract.Client`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._unconfirmed = 0
        self._outbox: deque[tuple[str, bytes, Mapping[str, str], str, Confirmed]] = deque()
        self._told: list[Callable[[bytes], None]] = []
        self._inlets: dict[tuple[str, int], Inlet] = {}
        self._wanted: dict[tuple[str, int], tuple[Inlet, int, Callable[[Delivery], None]]] = {}
        self._consumers: dict[tuple[str, int], Consumer] = {}

    def _resume(self) -> None:
        now = self._hub._now()
        for told in self._told:
            self._hub._call(self, partial(told, b""))  # we may have been asked meanwhile
        self._consumers.clear()
        for inlet in self._inlets.values():
            self._hub.queues.declare(self, inlet, now)
        for wanted in self._wanted.values():
            self._consume(*wanted)
        while self._outbox:
            outport, body, headers, id, confirmed = self._outbox.popleft()  # noqa: A001
            self._hub.queues.send(outport, body, headers, id, now)
            self._hub._confirmations.append((self, confirmed, None))

    def _abandon(self) -> None:
        self._wanted.clear()
        while self._outbox:
            self._refuse(self._outbox.popleft()[-1], ConnectionLost("the client was closed"))

    def _refuse(self, confirmed: Confirmed, error: Exception) -> None:
        def tell() -> None:
            if not self._dead:
                self._unconfirmed -= 1
                confirmed(error)

        asyncio.get_running_loop().call_soon(tell)

    async def claim(self, role: str, instance: int | None = None) -> int:
        await self._reach()
        return self._hub._claim(self, role, instance)

    async def declare(self, inlets: Sequence[Inlet], outports: Sequence[str]) -> None:  # noqa: ARG002
        # A source needs no making: it is where something is bound, or is sent to nobody.
        await self._reach()
        for inlet in inlets:
            self._inlets[inlet.queue, inlet.instance] = inlet
            self._hub.queues.declare(self, inlet, self._hub._now())
        self._hub._wake()

    async def announce(self, message: bytes) -> None:
        if self._up:
            self._hub._announce(bytes(message))

    def on_told(self, call: Callable[[bytes], None]) -> None:
        self._told.append(call)

    def send(
        self, outport: str, body: bytes, headers: Mapping[str, str], confirmed: Confirmed
    ) -> None:
        self._unconfirmed += 1
        hub = self._hub
        if self._closed:
            self._refuse(confirmed, ConnectionLost("the client was closed"))
            return
        try:
            body, headers = _checked(body, headers)
        except SendFailed as error:
            self._refuse(confirmed, error)
            return
        id = headers.get(MESSAGE_ID) or hub._new_id()  # noqa: A001
        if not self._up:
            self._outbox.append((outport, body, headers, id, confirmed))
            return
        hub.queues.send(outport, body, headers, id, hub._now())
        hub._confirmations.append((self, confirmed, None))
        hub._wake()

    @property
    def unconfirmed(self) -> int:
        return self._unconfirmed

    async def consume(
        self, inlet: Inlet, prefetch: int, deliver: Callable[[Delivery], None]
    ) -> None:
        await self._reach()
        self._consume(inlet, prefetch, deliver)
        self._inlets[inlet.queue, inlet.instance] = inlet
        self._wanted[inlet.queue, inlet.instance] = (inlet, prefetch, deliver)
        self._hub._wake()

    def _consume(self, inlet: Inlet, prefetch: int, deliver: Callable[[Delivery], None]) -> None:
        consumer = self._hub.queues.consume(self, inlet, prefetch, self._hub._now())
        consumer.deliver = deliver
        self._consumers[inlet.queue, inlet.instance] = consumer

    async def pause(self, inlet: Inlet) -> None:
        key = (inlet.queue, inlet.instance)
        self._wanted.pop(key, None)
        if self._up and key in self._consumers:
            self._hub.queues.pause(self._consumers[key])
            self._hub._wake()

    def settle(self, delivery: Delivery) -> None:
        self._hub.queues.settle(_mine(delivery))
        self._hub._wake()

    def retry(self, delivery: Delivery, delay: float = 0.0, *, counts: bool = True) -> None:
        self._hub.queues.retry(_mine(delivery), delay, counts, self._hub._now())
        self._hub._wake()

    def bury(self, delivery: Delivery, death: Death) -> None:
        self._hub.queues.bury(_mine(delivery), death, self._hub._now())
        self._hub._wake()

    async def is_bound(self, outport: str) -> bool:
        await self._reach()
        return self._hub.queues.is_bound(outport)

    async def flush(self, timeout: float = 10.0) -> None:
        # What was ended is known to the hub already, and so is what was sent while connected: it
        # is confirmed in the next turn of the event loop.
        try:
            async with asyncio.timeout(timeout):
                while self._unconfirmed:
                    if self._outbox:
                        await self._reached.wait()
                    await asyncio.sleep(0)
        except TimeoutError:
            raise ConnectionLost(
                f"{self._unconfirmed} messages of {self!r} were not confirmed in {timeout:g} s"
            ) from None


class Broker(Link, contract.Broker):
    """The coordinator's side of a hub. See :class:`msgflo.transport.contract.Broker`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._heard: list[Callable[[bytes], None]] = []
        self._counted: dict[str, tuple[float, int, int]] = {}

    def _resume(self) -> None:
        if self._heard:
            self._hub._tell(b"")

    async def listen(self, heard: Callable[[bytes], None]) -> None:
        await self._reach()
        self._heard.append(heard)
        self._hub._tell(b"")

    async def tell(self, message: bytes) -> None:
        await self._reach()
        self._hub._tell(bytes(message))

    async def bind(self, binding: Binding) -> None:
        await self._reach()
        self._hub.queues.bind(binding, self._hub._now())
        self._hub._wake()

    async def unbind(self, binding: Binding) -> None:
        await self._reach()
        self._hub.queues.unbind(binding, self._hub._now())
        self._hub._wake()

    async def bindings(self) -> list[Binding]:
        await self._reach()
        return self._hub.queues.bindings()

    async def enqueue(self, queue: str, body: bytes, headers: Mapping[str, str]) -> None:
        await self._reach()
        body, headers = _checked(body, headers)
        id = headers.get(MESSAGE_ID) or self._hub._new_id()  # noqa: A001
        self._hub.queues.enqueue(queue, body, headers, id, self._hub._now())
        self._hub._wake()

    async def tap(self, source: str, seen: Callable[[Tapped], None]) -> contract.Tap:
        await self._reach()
        tap = _Tap(self, source, seen)
        self._hub._tap(tap)
        return tap

    async def queues(self, names: Iterable[str] | None = None) -> list[QueueStats]:
        await self._reach()
        now = self._hub._now()
        stats = []
        for count in self._hub.queues.counts(names, now):
            rate_in = rate_out = 0.0
            if count.queue in self._counted:
                then, arrived, left = self._counted[count.queue]
                # A place may have been given up and made again in between.
                passed = max(now - then, 1e-6)
                rate_in = max(0, count.arrived - arrived) / passed
                rate_out = max(0, count.left - left) / passed
            self._counted[count.queue] = (now, count.arrived, count.left)
            stats.append(
                QueueStats(
                    count.queue,
                    count.waiting,
                    count.in_flight,
                    count.consumers,
                    count.oldest,
                    rate_in,
                    rate_out,
                )
            )
        return stats

    async def dead_letters(self, queue: str, limit: int = 100, after: str = "") -> list[DeadLetter]:
        await self._reach()
        return self._hub.queues.dead_letters(queue, limit, after)

    async def requeue(self, queue: str, keys: Iterable[str], body: bytes | None = None) -> int:
        await self._reach()
        if body is not None:
            body, _ = _checked(body, {})
        count = self._hub.queues.requeue(queue, keys, body, self._hub._now())
        self._hub._wake()
        return count

    async def discard(self, queue: str, keys: Iterable[str]) -> int:
        await self._reach()
        return self._hub.queues.discard(queue, keys)


class _Tap(contract.Tap):
    def __init__(self, broker: Broker, source: str, seen: Callable[[Tapped], None]) -> None:
        self.broker = broker
        self.source = source
        self.seen = seen

    async def close(self) -> None:
        self.broker._hub._untap(self)


def _mine(delivery: Delivery) -> Handed:
    if isinstance(delivery, Handed):
        return delivery
    raise TypeError(f"{delivery!r} did not come from direct://")


def _checked(body: bytes, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
    """Return both as they are kept: nobody can change them any more.

    Raises:
        SendFailed: another broker could not carry it either.
    """
    if type(body) is not bytes:
        if not isinstance(body, bytes | bytearray | memoryview):
            raise SendFailed(f"a payload is {type(body).__name__}; expected bytes")
        body = bytes(body)
    if not headers:
        return body, _NO_HEADERS
    try:
        names, values = tuple(headers), "".join(headers.values())
        named = _known_names.get(names) or len("".join(names))
        size = len(body) + named + (len(values) if values.isascii() else len(values.encode()))
    except (TypeError, UnicodeEncodeError):
        raise SendFailed(f"headers are {headers!r}; expected texts only") from None
    if names not in _known_names:
        for name in headers:
            if not _HEADER_NAME.fullmatch(name):
                raise SendFailed(
                    f"a header is called {name!r}; expected printable ASCII without blanks and ':'"
                )
        if len(_known_names) < 1000:
            _known_names[names] = named
    if "\n" in values or "\r" in values or "\0" in values:
        raise SendFailed("a header holds a line break or NUL; expected a single line")
    if size > MAX_PAYLOAD:
        raise SendFailed(f"a message has {size} bytes; at most {MAX_PAYLOAD} can be sent")
    return body, MappingProxyType(dict(headers))


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_known_names: dict[tuple[str, ...], int] = {}
"""How long the names of a message's headers are together, of those that were seen to be right."""
