"""The coordinator's side of an AMQP broker: bindings, discovery, statistics, taps, dead letters.

A broker tells, in AMQP, how many messages wait in a queue, and how many consumers it has. What is
in flight, and what waits for a retry, is asked of the clients; what other clients hold nobody
knows. How old the oldest waiting message is can be told only from what was seen before: it is at
least as old as the time that it has been seen waiting.
"""
# ruff: noqa: D102 - what the methods of Broker promise is said once, in contract.py

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from msgflo.errors import ConnectFailed, ConnectionLost, DefinitionError, TransportError
from msgflo.flow.binding import Binding
from msgflo.flow.discovery import Announcement, Definition, parse_discovery, queue_of_place
from msgflo.transport import contract
from msgflo.transport.amqp_frames import destination, publication, write_content
from msgflo.transport.amqp_letters import Letters
from msgflo.transport.amqp_link import Arrived, Channel, Link, spec
from msgflo.transport.amqp_outbox import Outbox
from msgflo.transport.amqp_topology import DISCOVERY, SEEN, TELLING, Address, Record, checked_name
from msgflo.transport.amqp_wiring import Wiring
from msgflo.transport.contract import (
    MESSAGE_ID,
    DeadLetter,
    QueueStats,
    Tap,
    Tapped,
    redacted,
    requeued_headers,
)

__all__ = ["Broker"]

log = logging.getLogger("msgflo.transport.amqp")

_CENSUS_QUIET = 0.04
_CENSUS_LONGEST = 0.4
"""Seconds: clients that do not answer in this time are not counted."""

_MOST_TAPPED = 10_000
"""Messages that wait for a tap that cannot keep up; older ones go first."""

_MOST_SIGHTINGS = 100


@dataclass(slots=True)
class _Held:
    """What the clients say of a queue."""

    in_flight: int = 0
    taking: int = 0
    ended: int = 0
    """Settled or buried since the last census."""
    waiting: int = 0
    oldest: float = 0.0


@dataclass(slots=True)
class _Seen:
    """What was seen of a queue before."""

    at: float = 0.0
    total: int = 0
    gone: int = 0
    """Messages that were settled or died, as far as was heard of them."""
    sightings: list[tuple[float, int]] = field(default_factory=list)
    """When it was looked at, and how many messages had come by then, in all."""

    def oldest(self, waiting: int, taken: int, now: float) -> float:
        """Return for how long at least the first waiting message has been there."""
        if not waiting:
            self.sightings.clear()
            return 0.0
        while self.sightings and self.sightings[0][1] <= taken:
            del self.sightings[0]
        self.sightings.append((now, waiting + taken))
        if len(self.sightings) > _MOST_SIGHTINGS:
            del self.sightings[1::2]
        return now - self.sightings[0][0]


class Broker(contract.Broker):
    """The coordinator's and the tools' side of an AMQP broker.

    Args:
        url: as for a Client.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    exacting = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.address = Address.parse(url)
        self.link = Link(self.address, redacted(url), f"msgflo broker {os.getpid()}")
        self.wiring = Wiring(self.link, quorum=self.address.quorum)
        self._outbox = Outbox(self.link, self.wiring.source)
        self._letters = Letters(self.link, self.wiring, quorum=self.address.quorum)
        self._channel: Channel | None = None
        self._answers = ""
        self._heard: list[Callable[[bytes], None]] = []
        self._taps: dict[_Tap, None] = {}
        self._counted: dict[tuple[str, str], int] = {}
        self._seen: dict[str, _Seen] = {}
        self._absent: dict[str, float] = {}
        self._made: set[str] = set()
        self._with_places: set[str] = set()
        self._others: set[str] = set()
        self._census_heard: Callable[[Arrived], None] | None = None
        self._counting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self.link.lost = self._lost
        self.link.restoring = self._restore
        self.link.restored = self._tell_restored
        self.link.unblocked = self._outbox.resume

    # Connection.

    async def connect(self, timeout: float = 10.0) -> None:
        await self.link.connect(timeout)
        if self._channel is not None:
            return
        try:
            await self._open()
        except TransportError as error:
            raise ConnectFailed(redacted(self.url), str(error)) from None

    async def _open(self) -> None:
        await self.wiring.open()
        channel = await self.link.channel()
        self._answers = await self._own_queue(channel, "answers", self._on_answer)
        self._channel = channel

    async def _own_queue(
        self, channel: Channel, tag: str, receive: Callable[[Arrived], None], most: int = 0
    ) -> str:
        """Make a queue that goes with the connection, and take what comes there."""
        name: str = (
            await channel.call(
                spec.Queue.Declare(
                    queue="",
                    exclusive=True,
                    auto_delete=True,
                    arguments={"x-max-length": most} if most else {},
                )
            )
        ).queue
        channel.consumers[tag.encode()] = receive
        await channel.call(
            spec.Basic.Consume(queue=name, consumer_tag=tag, no_ack=True, arguments={})
        )
        return name

    def _live(self) -> Channel:
        if self._channel is None or not self._channel.open:
            raise ConnectionLost(f"no connection to the broker at {redacted(self.url)}")
        return self._channel

    async def close(self) -> None:
        self._outbox.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close()

    @property
    def connected(self) -> bool:
        return self.link.connected

    def _lost(self, reason: str) -> None:
        self._channel = None
        self._tell_lost(reason)

    async def _restore(self) -> None:
        self._made.clear()
        self.wiring.forget()
        await self._open()
        self._outbox.resume()
        for tap in self._taps:
            await tap.open(self._live())
        if self._heard:
            await self.wiring.carry_out()
            await self._listen()

    # Discovery.

    async def listen(self, heard: Callable[[bytes], None]) -> None:
        self._heard.append(heard)
        if len(self._heard) == 1:
            await self.wiring.carry_out()
            await self._listen()
        else:
            self._ask()

    async def _listen(self) -> None:
        channel = self._live()
        name = await self._own_queue(channel, "discovery", self._on_announced)
        await channel.call(
            spec.Queue.Bind(queue=name, exchange=DISCOVERY, routing_key="", arguments={})
        )
        channel.consumers[b"legacy"] = self._on_legacy
        await channel.call(spec.Basic.Qos(prefetch_count=100))
        await channel.call(spec.Basic.Consume(queue=DISCOVERY, consumer_tag="legacy", arguments={}))
        self._ask()

    def _ask(self) -> None:
        self._live().publish(TELLING, "", b"", expires=5.0)

    async def tell(self, message: bytes) -> None:
        await self.link.ready(10.0)
        channel = self._live()
        channel.publish(TELLING, "", message, expires=5.0)
        await channel.call(spec.Basic.Qos(prefetch_count=100))  # when it answers, it has it

    def _on_announced(self, arrived: Arrived) -> None:
        self._note_places(arrived.body)
        for heard in self._heard:
            heard(arrived.body)

    def _on_legacy(self, arrived: Arrived) -> None:
        """Pass on what other clients say to the one queue, so that all listeners hear it."""
        channel = self._channel
        if channel is not None:
            if not arrived.content.ours:
                channel.publish(DISCOVERY, "", arrived.body, expires=60.0)
            channel.tell(spec.Basic.Ack(delivery_tag=arrived.tag))

    def _note_places(self, body: bytes) -> None:
        """Note which inports are of participants that have places."""
        try:
            said = parse_discovery(body)
        except DefinitionError:
            return  # whoever listens says so
        if not isinstance(said, Announcement):
            return
        definition = said.definition
        queues = {port.queue for port in definition.inports if port.queue}
        if said.places:
            self._with_places |= queues
            return
        self.wiring.others |= queues | {port.queue for port in definition.outports if port.queue}
        self.wiring.others -= self._with_places
        if definition.id not in self._others:
            self._others.add(definition.id)
            task = asyncio.get_running_loop().create_task(self._adapt(definition))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _adapt(self, definition: Definition) -> None:
        """Carry out, in its way, what is bound to the ports of another client's participant."""
        names = {port.queue for port in (*definition.inports, *definition.outports) if port.queue}
        inports = {port.queue for port in definition.inports} - self._with_places
        try:
            record = await self.wiring.read()
            for binding, places in sorted(record.bindings.items()):
                if places and binding.target in inports:
                    await self.wiring.bind(binding, places=False)
                    await self.wiring.pour_place(binding.target)
            await self.wiring.carry_out(names)
        except TransportError as error:
            self._others.discard(definition.id)  # once more, when it is heard again
            log.warning("the connections of %s: %s", definition.role, error)

    # Bindings.

    async def bind(self, binding: Binding) -> None:
        places: bool | None = None
        if binding.target in self._with_places:
            places = True
        elif binding.target in self.wiring.others:
            places = False
        await self.wiring.bind(binding, places=places)

    async def unbind(self, binding: Binding) -> None:
        await self.wiring.unbind(binding)

    async def bindings(self) -> list[Binding]:
        return sorted((await self.wiring.read()).bindings)

    # Messages.

    async def enqueue(self, queue: str, body: bytes, headers: Mapping[str, str]) -> None:
        checked_name(queue)
        if queue not in self._made:
            await self.wiring.ensure(queue)
            if queue_of_place(queue)[1] is None:
                self._made.add(queue)
        ours = MESSAGE_ID in headers
        await self._put(queue, body, headers, time.time(), f"a message to {queue!r}", ours=ours)
        # For taps: nobody but they can miss it.
        channel = self._channel
        if channel is not None and len(body) < 1_000_000:
            where = destination(SEEN, queue, mandatory=False)
            content = write_content(len(body), headers, time.time(), ours=ours, lasting=False)
            channel.write(publication(channel.number, where, content, body, channel.most))

    async def _put(
        self,
        queue: str,
        body: bytes,
        headers: Mapping[str, str],
        sent: float,
        what: str,
        *,
        ours: bool,
    ) -> None:
        """Put a message into a queue, and wait until it is safe there.

        Raises:
            SendFailed: the broker will not have it.
            ConnectionLost: nobody knows whether it is in.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def confirmed(error: Exception | None) -> None:
            if not stored.done():
                if error is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(error)

        self._outbox.put(
            "",
            destination("", queue, mandatory=True),
            write_content(len(body), headers, sent, ours=ours),
            body,
            what,
            confirmed,
            key=queue,
            id=headers.get(MESSAGE_ID, ""),
            make=lambda: self.wiring.ensure(queue),
        )
        try:
            async with asyncio.timeout(30):
                await stored
        except TimeoutError:
            blocked = f": {self.link.blocked}" if self.link.blocked else ""
            raise ConnectionLost(f"{what} was not confirmed within 30 s{blocked}") from None

    async def tap(self, source: str, seen: Callable[[Tapped], None]) -> Tap:
        record = await self.wiring.read()
        work = queue_of_place(source)[0]
        inport = source in record.inports or (work != source and work in record.inports)
        exchanges = [(SEEN, source)]
        if not inport or record.is_source(source):
            await self.wiring.exchange(checked_name(source))
            exchanges.append((source, ""))
        self._numbers += 1
        tap = _Tap(self, source, seen, exchanges, f"tap-{self._numbers}")
        await tap.open(self._live())
        self._taps[tap] = None
        return tap

    # How queues are doing.

    async def queues(self, names: Iterable[str] | None = None) -> list[QueueStats]:
        async with self._counting:
            record: Record = await self.wiring.read()
            held = await self._census()
            found: list[QueueStats] = []
            for queue in record.queues(names):
                there = await self.wiring.look(queue)
                if there is None:
                    self._seen.pop(queue, None)
                    self._absent.pop(queue, None)
                elif await self._is_over(queue, record, there[1], queue in held):
                    continue
                else:
                    found.append(self._stats(queue, *there, held.get(queue, _Held())))
        return sorted(found, key=lambda stats: stats.queue)

    async def _is_over(self, queue: str, record: Record, consumers: int, claimed: bool) -> bool:
        """Give up a place that nobody came back to: for the broker, looking at it is using it."""
        retention = record.retention(queue)
        if not retention or consumers or claimed:
            self._absent.pop(queue, None)
            return False
        now = time.monotonic()
        if now - self._absent.setdefault(queue, now) < retention:
            return False
        await self.wiring.drop_place(queue)
        return True

    def _stats(self, queue: str, messages: int, consumers: int, held: _Held) -> QueueStats:
        now = time.monotonic()
        seen = self._seen.setdefault(queue, _Seen())
        waiting = messages + held.waiting
        there = waiting + held.in_flight
        rate_in = rate_out = 0.0
        if seen.at:
            span = max(1e-6, now - seen.at)
            more = there - seen.total
            out = max(held.ended, -more)
            rate_in, rate_out = max(0.0, (more + out) / span), out / span
            seen.gone += out
        seen.at, seen.total = now, there
        oldest = seen.oldest(messages, seen.gone + held.in_flight, now)
        return QueueStats(
            queue,
            waiting=waiting,
            in_flight=held.in_flight,
            consumers=max(held.taking, min(consumers, 1) if held.taking else consumers),
            oldest=max(oldest, held.oldest if held.in_flight else 0.0),
            rate_in=rate_in,
            rate_out=rate_out,
        )

    async def _census(self) -> dict[str, _Held]:
        """Ask all clients what they hold."""
        found: dict[str, _Held] = {}
        heard = asyncio.Event()

        def received(arrived: Arrived) -> None:
            try:
                answer = json.loads(arrived.body)
                client = str(answer["client"])
                queues = [
                    (str(queue), int(flying), int(ended), int(taking), float(oldest), int(waiting))
                    for queue, (flying, ended, taking, oldest, waiting) in answer["queues"].items()
                ]
            except (ValueError, KeyError, TypeError, AttributeError):
                return
            for queue, flying, ended, taking, oldest, waiting in queues:
                held = found.setdefault(queue, _Held())
                held.in_flight += flying
                held.taking += taking
                held.waiting += waiting
                held.oldest = max(held.oldest, oldest)
                held.ended += max(0, ended - self._counted.get((client, queue), 0))
                self._counted[client, queue] = ended
            heard.set()

        channel = self._live()
        self._census_heard = received
        try:
            loop = asyncio.get_running_loop()
            channel.publish(TELLING, "", b"", expires=5.0, reply_to=self._answers)
            end = loop.time() + _CENSUS_LONGEST
            await channel.call(spec.Basic.Qos(prefetch_count=100))
            while (left := end - loop.time()) > 0:
                heard.clear()
                try:
                    async with asyncio.timeout(min(left, _CENSUS_QUIET)):
                        await heard.wait()
                except TimeoutError:
                    break
        finally:
            self._census_heard = None
        return found

    def _on_answer(self, arrived: Arrived) -> None:
        if self._census_heard is not None:
            self._census_heard(arrived)

    # Dead letters.

    async def dead_letters(self, queue: str, limit: int = 100, after: str = "") -> list[DeadLetter]:
        return await self._letters.read(queue, limit, after)

    async def requeue(self, queue: str, keys: Iterable[str], body: bytes | None = None) -> int:
        made: set[str] = set()

        async def put_back(letter: DeadLetter, arrived: Arrived) -> None:
            target = letter.death.queue or queue
            if target not in made:
                await self.wiring.ensure(target)
                made.add(target)
            headers = requeued_headers(letter)
            if not letter.id:
                del headers[MESSAGE_ID]
            await self._put(
                target,
                letter.body if body is None else body,
                headers,
                arrived.content.sent,
                f"dead letter {letter.key} of {queue!r}",
                ours=arrived.content.ours,
            )

        return await self._letters.take(queue, keys, put_back)

    async def discard(self, queue: str, keys: Iterable[str]) -> int:
        async def nothing(_letter: DeadLetter, _arrived: Arrived) -> None:
            pass

        return await self._letters.take(queue, keys, nothing)

    # For taps.

    async def open_tap(self, channel: Channel, tap: "_Tap") -> None:
        """Begin to look, on this channel."""
        name = await self._own_queue(channel, tap.tag, tap.receive, _MOST_TAPPED)
        for exchange, key in tap.exchanges:
            await channel.call(
                spec.Queue.Bind(queue=name, exchange=exchange, routing_key=key, arguments={})
            )

    async def close_tap(self, tap: "_Tap") -> None:
        """Look no more."""
        if self._taps.pop(tap, tap) is tap:
            return
        channel = self._channel
        if channel is not None and channel.open:
            try:
                await channel.call(spec.Basic.Cancel(consumer_tag=tap.tag))
            except TransportError as error:
                log.debug("closing a tap: %s", error)
            channel.consumers.pop(tap.tag.encode(), None)


class _Tap(Tap):
    def __init__(
        self,
        broker: Broker,
        source: str,
        seen: Callable[[Tapped], None],
        exchanges: list[tuple[str, str]],
        tag: str,
    ) -> None:
        self._broker = broker
        self._source = source
        self._seen = seen
        self.exchanges = exchanges
        self.tag = tag

    async def open(self, channel: Channel) -> None:
        await self._broker.open_tap(channel, self)

    def receive(self, arrived: Arrived) -> None:
        self._seen(Tapped(self._source, arrived.body, arrived.content.headers, time.time()))

    async def close(self) -> None:
        await self._broker.close_tap(self)
