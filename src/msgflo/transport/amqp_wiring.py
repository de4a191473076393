"""What there is on the broker, and what is bound: made, removed, and kept in a record.

Entities are declared as this transport wants them. One that is there already with other
arguments, because somebody else's client made it, is used as it is.

Whoever changes bindings holds a lock, an exclusive queue, which the broker takes away with the
connection; so nobody holds it for ever. The record is changed last when something is bound, so that
what it says is really so; and whoever begins to coordinate carries out once more what it says.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgflo.errors import ConnectionLost, TransportError
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import place_of, queue_of_place
from msgflo.transport.amqp_frames import destination, publication, write_content
from msgflo.transport.amqp_link import Arrived, Channel, Link, Refused, spec
from msgflo.transport.amqp_topology import (
    DISCOVERY,
    RECORD,
    SEEN,
    TELLING,
    Record,
    Way,
    checked_name,
    dead,
    delay_arguments,
    delay_queue,
    is_bound_marker,
    kept_arguments,
    lock_queue,
    place_arguments,
    queue_arguments,
    ways_of,
)
from msgflo.transport.contract import DEFAULT_RETENTION

__all__ = ["Holder", "Wiring"]

log = logging.getLogger("msgflo.transport.amqp")

_LOCK_PATIENCE = 30.0
"""Seconds: whoever holds a lock has little to do, or is gone when its heartbeat fails."""

_QUORUM_SAFE = 1.2
"""Seconds until a new quorum queue is safe."""

_DELAY = delay_queue(0)[:-1]

Counted = tuple[int, int]
"""How many messages wait in a queue, and how many consumers it has."""


class Holder:
    """The record in the hands of whoever may change it."""

    def __init__(self, channel: Channel, record: Record, tag: int) -> None:
        self._channel = channel
        self._tag = tag
        self.record = record

    async def store(self, record: Record) -> None:
        """Replace the record; what was there goes when the new one is safe."""
        if record == self.record:
            return
        record = Record(self.record.version + 1, record.bindings, record.inports)
        body = record.encode()
        content = write_content(len(body), {"Content-Type": "application/json"}, 0.0)
        await _store(self._channel, RECORD, content, body)
        self.record = record
        if self._tag:
            self._channel.tell(spec.Basic.Ack(delivery_tag=self._tag, multiple=True))
        self._tag = 0


async def _store(channel: Channel, queue: str, content: bytes, body: bytes) -> None:
    """Put one message into a queue, and wait until it is safe there.

    Raises:
        ConnectionLost: nobody knows whether it is.
    """
    confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answered(_number: int, _multiple: bool, taken: bool) -> None:
        if not confirmed.done():
            confirmed.set_result(taken)

    def failed(reason: Exception) -> None:
        if not confirmed.done():
            confirmed.set_exception(reason)

    channel.confirmed, channel.ended = answered, failed
    where = destination("", queue, mandatory=True)
    channel.write(publication(channel.number, where, content, body, channel.most))
    try:
        async with asyncio.timeout(20):
            if not await confirmed:
                raise ConnectionLost(f"the broker could not store a message in {queue!r}")
    except TimeoutError:
        raise ConnectionLost(f"the broker did not confirm a message to {queue!r}") from None
    finally:
        channel.ended = None


class Wiring:
    """Entities and bindings on one broker.

    Args:
        link: the connection.
        quorum: whether missing queues are made as quorum queues.
    """

    def __init__(self, link: Link, *, quorum: bool) -> None:
        self._link = link
        self._quorum = quorum
        self._locks: dict[str, asyncio.Lock] = {}
        self._own = False
        self.others: set[str] = set()
        """Queue names of ports of participants that are not ours, who make them themselves."""
        self._noted: defaultdict[str, set[float]] = defaultdict(set)
        """How long first places are to live that were made by somebody else, and that was noted."""

    # Entities.

    async def exchange(
        self, name: str, kind: str = "fanout", arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Make a durable exchange, or use one of this name that is there already."""
        try:
            await self._link.call(
                spec.Exchange.Declare(
                    exchange=name, type=kind, durable=True, arguments=dict(arguments or {})
                )
            )
        except Refused as refused:
            if refused.code != 406:
                raise
            log.info("exchange %r is used as it is: %s", name, refused.text)

    async def queue(self, name: str, arguments: Mapping[str, Any]) -> Counted:
        """Make a durable queue, or use one of this name that is there already."""
        new = arguments.get("x-queue-type") == "quorum" and await self.look(name) is None
        try:
            made = await self._link.call(
                spec.Queue.Declare(queue=name, durable=True, arguments=dict(arguments))
            )
        except Refused as refused:
            if refused.code != 406:
                raise
            found = await self.look(name)
            if found is None:
                raise
            log.info("queue %r is used as it is: %s", name, refused.text)
            return found
        if new:
            # RabbitMQ notes half a second later which quorum queues there are. One that it has
            # not noted when it is killed comes back empty.
            await asyncio.sleep(_QUORUM_SAFE)
        return made.message_count, made.consumer_count

    async def look(self, queue: str) -> Counted | None:
        """Return how many messages and consumers a queue has; ``None`` if there is none."""
        try:
            found = await self._link.call(spec.Queue.Declare(queue=queue, passive=True))
        except Refused as refused:
            if refused.code == 404:
                return None
            raise
        return found.message_count, found.consumer_count

    async def has_exchange(self, name: str) -> bool:
        """Tell whether there is an exchange of this name."""
        try:
            await self._link.call(spec.Exchange.Declare(exchange=name, passive=True))
        except Refused as refused:
            if refused.code == 404:
                return False
            raise
        return True

    async def bind_queue(self, queue: str, exchange: str, key: str = "") -> None:
        """Have an exchange's messages go into a queue. Idempotent."""
        await self._link.call(
            spec.Queue.Bind(queue=queue, exchange=exchange, routing_key=key, arguments={})
        )

    async def open(self) -> None:
        """Make what is the transport's own. Idempotent."""
        if self._own:
            return
        await self.exchange(DISCOVERY)
        await self.queue(DISCOVERY, {})
        await self.exchange(TELLING)
        await self.exchange(SEEN, "direct")
        self._own = True

    def forget(self) -> None:
        """Note that the broker may be another one now, or may have lost everything."""
        self._own = False

    async def source(self, name: str) -> None:
        """Make an exchange that is about to be published to, if it is missing."""
        if name.startswith(_DELAY) and name[len(_DELAY) :].isdecimal():
            await self.delay(int(name[len(_DELAY) :]))
        else:
            await self.exchange(checked_name(name))

    async def delay(self, level: int) -> None:
        """Make the queue in which messages wait for so many milliseconds."""
        name = delay_queue(level)
        async with self._locks.setdefault(name, asyncio.Lock()):
            await self.exchange(name)
            await self.queue(name, delay_arguments(level))
            await self.bind_queue(name, name)

    # Inports.

    async def inport(self, queue: str, *, routed: bool) -> None:
        """Make a work queue and what belongs to it.

        Args:
            queue: the work queue.
            routed: whether its dead letters are bound to go elsewhere.
        """
        checked_name(queue)
        await self._letters(queue, routed=routed)
        await self.exchange(queue)
        await self.queue(queue, queue_arguments(queue, quorum=self._quorum))
        # A Node.js participant binds its queue to its exchange, where our copies arrive.
        await self._link.call(
            spec.Queue.Unbind(queue=queue, exchange=queue, routing_key="", arguments={})
        )

    async def _letters(self, queue: str, *, routed: bool) -> None:
        """Make what holds an inport's dead letters."""
        letters = dead(queue)
        await self.exchange(letters)
        await self.queue(letters, kept_arguments(quorum=self._quorum))
        if not routed:
            await self.bind_queue(letters, letters)

    async def place(self, place: str, retention: float) -> None:
        """Make a place; its inport is there."""
        queue, instance = queue_of_place(place)
        assert instance is not None
        await self.queue(place, place_arguments(queue, instance, retention, quorum=self._quorum))
        await self.bind_queue(place, queue)

    async def ensure(self, queue: str, retention: float | None = None) -> None:
        """Make a work queue or place where missing, and note it in the record."""
        name, instance = queue_of_place(queue)
        there = await self.look(queue)
        if there is None:
            async with self.record() as holder:
                kept = retention or DEFAULT_RETENTION
                await holder.store(holder.record.with_place(queue, kept))
                await self.inport(name, routed=holder.record.is_routed(name))
                if instance is not None:
                    await self.place(queue, kept)
        elif instance is not None:
            kept = retention or DEFAULT_RETENTION
            await self.place(queue, kept)
            if instance == 1 and kept not in {DEFAULT_RETENTION, *self._noted[queue]}:
                async with self.record() as holder:
                    await holder.store(holder.record.with_place(queue, kept))
                self._noted[queue].add(kept)

    async def mend_letters(self, queue: str) -> None:
        """Give an inport's dead letters somewhere to go again, where they had nowhere."""
        async with self.record() as holder:
            for binding in holder.record.bindings:
                if binding.kind is Kind.DEADLETTER and binding.source == queue:
                    await self._carry_out(binding, holder.record)
            await self._letters(queue, routed=holder.record.is_routed(queue))

    async def is_bound(self, source: str) -> bool:
        """Tell whether any connection leads away from a source."""
        return await self.has_exchange(is_bound_marker(source))

    # The record.

    @asynccontextmanager
    async def locked(self, what: str) -> AsyncIterator[None]:
        """Hold a lock that one process in the network can hold at a time.

        Raises:
            ConnectionLost: somebody else holds it for too long.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _LOCK_PATIENCE
        name = lock_queue(what)
        async with self._locks.setdefault(what, asyncio.Lock()):
            pause = 0.005
            while True:
                try:
                    await self._link.call(
                        spec.Queue.Declare(
                            queue=name, exclusive=True, auto_delete=True, arguments={}
                        )
                    )
                    break
                except Refused as refused:
                    if refused.code != 405:
                        raise
                if loop.time() > end:
                    raise ConnectionLost(
                        f"somebody else has been changing {what!r} for {_LOCK_PATIENCE:g} s"
                    )
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
                pause = min(0.2, pause * 1.5)
            try:
                yield
            finally:
                try:
                    await self._link.call(spec.Queue.Delete(queue=name))
                except TransportError as error:
                    log.debug("giving up the lock of %s: %s", what, error)

    @asynccontextmanager
    async def record(self) -> AsyncIterator[Holder]:
        """Hold the record, alone."""
        async with self.locked("record"):
            await self.queue(RECORD, kept_arguments(quorum=self._quorum))
            channel = await self._link.channel()
            try:
                await channel.call(spec.Confirm.Select())
                found, last = Record(), 0
                while True:
                    got: Arrived | None = await channel.call(spec.Basic.Get(queue=RECORD))
                    if got is None:
                        break
                    last = got.tag
                    read = Record.decode(got.body)
                    # Two, if somebody died between storing the new one and removing the old.
                    if read is not None and read.version >= found.version:
                        found = read
                yield Holder(channel, found, last)
            finally:
                try:
                    await channel.close()
                except TransportError as error:
                    log.debug("closing a channel: %s", error)

    async def read(self) -> Record:
        """Return the record as it is now."""
        async with self.record() as holder:
            return holder.record

    # Bindings.

    async def bind(self, binding: Binding, *, places: bool | None = None) -> None:
        """Carry out a binding. Idempotent.

        Args:
            binding: what to carry out.
            places: whether the target's participants have places; ``None``: as it is known of
                other bindings to it, or else they have.
        """
        checked_name(binding.source)
        checked_name(binding.target)
        async with self.record() as holder:
            record = holder.record
            was = record.bindings.get(binding)
            if places is None:
                places = record.has_places(binding.target)
            record = record.with_place(
                place_of(binding.target, 1)
                if binding.kind is Kind.PUBSUB and places
                else binding.target
            )
            if binding.kind is Kind.DEADLETTER:
                record = record.with_place(binding.source)
            new = record.bound(binding, places=places)
            await self._carry_out(binding, new)
            if was is not None and was != places:
                await self._take_away(ways_of(binding, places=was), new)
            await holder.store(new)

    async def _carry_out(self, binding: Binding, record: Record) -> None:
        places = record.bindings[binding]
        source, target = binding.source, binding.target
        if binding.kind is not Kind.DEADLETTER:
            await self.exchange(is_bound_marker(source))
        if await self._is_awaited(binding, places=places):
            # Whoever it belongs to makes it in another way, and would fail if we had made it.
            log.info("%s is carried out when its participants are back", binding)
            return
        if binding.kind is Kind.DEADLETTER and source in self.others:
            await self._letters(source, routed=True)
        elif binding.kind is Kind.DEADLETTER:
            await self.inport(source, routed=True)
        else:
            await self.exchange(source)
        if target in self.others or not places:
            await self._letters(target, routed=record.is_routed(target))
        else:
            await self.inport(target, routed=record.is_routed(target))
        if binding.kind is Kind.PUBSUB and places:
            await self.place(place_of(target, 1), DEFAULT_RETENTION)
        for way in ways_of(binding, places=places):
            if way.to_queue:
                await self.bind_queue(way.target, way.source)
            else:
                await self._link.call(
                    spec.Exchange.Bind(
                        destination=way.target, source=way.source, routing_key="", arguments={}
                    )
                )
        if binding.kind is Kind.DEADLETTER:
            letters = dead(binding.source)
            await self._link.call(
                spec.Queue.Unbind(queue=letters, exchange=letters, routing_key="", arguments={})
            )

    async def _is_awaited(self, binding: Binding, *, places: bool) -> bool:
        """Tell whether an end of a binding is missing that others have to make."""
        source, target = binding.source, binding.target
        if (target in self.others or not places) and await self.look(target) is None:
            return True
        return (
            binding.kind is not Kind.DEADLETTER
            and source in self.others
            and not await self.has_exchange(source)
        )

    async def unbind(self, binding: Binding) -> None:
        """Remove a binding. Idempotent."""
        async with self.record() as holder:
            was = holder.record.bindings.get(binding)
            if was is None:
                return
            record = holder.record.unbound(binding)
            if binding.kind is Kind.DEADLETTER and not record.is_routed(binding.source):
                await self._letters(binding.source, routed=False)
            await self._take_away(ways_of(binding, places=was), record)
            if binding.kind is not Kind.DEADLETTER and not record.is_source(binding.source):
                await self._link.call(
                    spec.Exchange.Delete(exchange=is_bound_marker(binding.source))
                )
            await holder.store(record)
            if binding.kind is Kind.PUBSUB and was and not record.has_copies(binding.target):
                # It does not expire by itself.
                await self.drop_place(place_of(binding.target, 1), if_empty=True)

    async def _take_away(self, ways: Iterable[Way], record: Record) -> None:
        """Remove the broker's bindings that the record does not want."""
        wanted = record.ways()
        for way in ways:
            if way in wanted:
                continue
            if way.to_queue:
                method = spec.Queue.Unbind(
                    queue=way.target, exchange=way.source, routing_key="", arguments={}
                )
            else:
                method = spec.Exchange.Unbind(
                    destination=way.target, source=way.source, routing_key="", arguments={}
                )
            await self._link.call(method)

    async def drop_place(self, place: str, *, if_empty: bool = False) -> None:
        """Delete a place that nobody takes from."""
        if self._quorum:
            # Brokers cannot look and delete at once where there are copies.
            if if_empty or not await self._is_unused(place):
                return
            method = spec.Queue.Delete(queue=place)
        else:
            method = spec.Queue.Delete(queue=place, if_unused=True, if_empty=if_empty)
        try:
            await self._link.call(method)
        except Refused as refused:
            log.debug("%s stays: %s", place, refused.text)

    async def pour_place(self, queue: str) -> None:
        """Move what waits in the first instance's place into the work queue."""
        place = place_of(queue, 1)
        if await self.look(place) is None:
            return
        async with self.locked(place):
            channel = await self._link.channel()
            try:
                await channel.call(spec.Confirm.Select())
                while (got := await channel.call(spec.Basic.Get(queue=place))) is not None:
                    content = got.content
                    await _store(
                        channel,
                        queue,
                        write_content(
                            len(got.body), content.headers, content.sent, ours=content.ours
                        ),
                        got.body,
                    )
                    channel.tell(spec.Basic.Ack(delivery_tag=got.tag))
            finally:
                await channel.close()
        await self.drop_place(place, if_empty=True)

    async def _is_unused(self, queue: str) -> bool:
        there = await self.look(queue)
        return there is not None and there[1] == 0

    async def carry_out(self, sources: Iterable[str] | None = None) -> None:
        """Carry out once more what the record says.

        Somebody may have died half way, and entities of other clients, which do not outlive a
        restart of the broker, lose their bindings with it.

        Args:
            sources: only the bindings of these queue names; ``None``: all.
        """
        named = None if sources is None else set(sources)
        async with self.record() as holder:
            for binding in sorted(holder.record.bindings):
                if named is None or binding.source in named or binding.target in named:
                    try:
                        await self._carry_out(binding, holder.record)
                    except Refused as refused:
                        log.warning("%s cannot be carried out: %s", binding, refused)
