"""``amqp://`` and ``amqps://``: AMQP 0-9-1 on RabbitMQ, from 3.10.

``amqp://[user:password@]host[:port][,host2[:port]][/vhost][?option=value]``: several hosts are the
nodes of a cluster, any of which will do. The options, each described at
:class:`msgflo.transport.amqp_topology.Address`: ``heartbeat`` and ``name`` of the connection;
``ca``, ``cert``, ``key`` and ``sni`` for TLS; ``queues=quorum`` for queues that are replicated in a
cluster. Networks in different virtual hosts do not see each other.

How the words of the contract are carried out, and which names are used, is said in
:mod:`msgflo.transport.amqp_topology`: other clients take part without this package.

What AMQP brokers cannot do is done at this end as far as it goes. They do not look at message ids:
a message that comes twice is dropped by the participant that gets both, within two minutes and its
last 20 000 messages; two participants that share a work queue may each get one. And a message
without an id, which only other clients send, has another one after its participant has died.
"""
# ruff: noqa: D102 - what the methods of Client and Broker promise is said once, in contract.py

import asyncio
import heapq
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgflo.errors import ConnectFailed, ConnectionLost, SendFailed, TransportError, UnknownQueue
from msgflo.transport import contract
from msgflo.transport.amqp_broker import Broker
from msgflo.transport.amqp_frames import destination, write_content
from msgflo.transport.amqp_intake import AmqpDelivery, Intake
from msgflo.transport.amqp_link import Arrived, Channel, Link, Refused, spec
from msgflo.transport.amqp_outbox import Outbox
from msgflo.transport.amqp_topology import (
    ATTEMPTS,
    DISCOVERY,
    DUE,
    LETTER,
    POSTPONED,
    SOURCE,
    TELLING,
    Address,
    checked_name,
    claim_lock,
    claim_marker,
    dead,
    delay_leg,
    delay_queue,
)
from msgflo.transport.amqp_wiring import Wiring
from msgflo.transport.contract import (
    MESSAGE_ID,
    Confirmed,
    Death,
    Delivery,
    Inlet,
    redacted,
)

__all__ = ["Broker", "Client"]

log = logging.getLogger("msgflo.transport.amqp")

_TICK = 10.0
_CLAIM_KEPT = 30.0
"""Seconds that an instance number stays marked whose holder is gone."""

_CLAIM_PATIENCE = (0.0, 0.3, 0.7)
"""Seconds before each look whether the holder of a marked instance number is alive: it may be
about to reconnect, as all do when the broker was restarted."""

_ANNOUNCEMENT_KEPT = 120.0
"""Seconds that an announcement waits in queue ``fbp`` for a coordinator that reads only there."""

_GHOST = 120.0
"""Seconds until a broker has noticed that a connection is dead."""

_AGAIN = 0.5
"""Seconds before something is tried again that the broker could not do."""

_FAILED = 5.0
"""Seconds before a message comes again that the broker would not take back."""

_MOST_HEADERS = 120_000
"""Bytes of a message's headers, so that it can become a dead letter, which says why in more."""


class Client(contract.Client):
    """A participant's side of an AMQP broker.

    Args:
        url: see the module.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.address = Address.parse(url)
        self.link = Link(self.address, redacted(url), f"msgflo client {os.getpid()}")
        self.wiring = Wiring(self.link, quorum=self.address.quorum)
        self.closed = False
        self._outbox = Outbox(self.link, self.wiring.source)
        self._intakes: dict[tuple[str, int], Intake] = {}
        self._told: list[Callable[[bytes], None]] = []
        self._places: dict[tuple[str, str], bytes] = {}
        self._postponed: dict[str, list[float]] = {}
        self._claimed: set[tuple[str, int]] = set()
        self._levels: set[int] = set()
        self._levels_due = 0
        self._ticking = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._channel: Channel | None = None
        self._name = uuid.uuid4().hex
        self._last_key = 0
        self.link.lost = self._lost
        self.link.restoring = self._restore
        self.link.restored = self._back
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
        self._outbox.resume()
        self._tick()

    async def _open(self) -> None:
        await self.wiring.open()
        channel = await self.link.channel()
        queue = (
            await channel.call(
                spec.Queue.Declare(queue="", exclusive=True, auto_delete=True, arguments={})
            )
        ).queue
        await channel.call(
            spec.Queue.Bind(queue=queue, exchange=TELLING, routing_key="", arguments={})
        )
        channel.consumers[b"told"] = self._on_told
        await channel.call(
            spec.Basic.Consume(queue=queue, consumer_tag="told", no_ack=True, arguments={})
        )
        self._channel = channel

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.link.connected:
            try:
                async with asyncio.timeout(3):
                    for intake in self._intakes.values():
                        await intake.stop()
                    await self._outbox.empty()
                    await self._barrier()
                    for role, number in self._claimed:
                        await self.link.call(spec.Queue.Delete(queue=claim_marker(role, number)))
            except (TimeoutError, TransportError) as error:
                log.debug("closing: %s", error)
        await self._stop()
        await self.link.close()

    async def abandon(self) -> None:
        """Break off for good without a word to the broker, as if the process had died.

        For tests of what becomes then of what was in flight.
        """
        self.closed = True
        await self.link.abandon()
        await self._stop()

    async def _stop(self) -> None:
        self._outbox.close()
        if self._ticker is not None:
            self._ticker.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connected(self) -> bool:
        return self.link.connected

    def _lost(self, reason: str) -> None:
        self._channel = None
        self._tell_lost(reason)

    async def _restore(self) -> None:
        self.wiring.forget()
        await self._open()
        for role, number in self._claimed:
            if not await self._take_claim(role, number):
                self.find_out(self._claim_back(role, number))
        self._outbox.resume()
        for intake in self._intakes.values():
            await self._ensure(intake.inlet)
            await intake.restart()

    def _back(self) -> None:
        self._tell_restored()
        # A coordinator that was back before us has asked already.
        for call in self._told:
            call(b"")

    # Who is who.

    async def claim(self, role: str, instance: int | None = None) -> int:
        if instance is not None:
            return instance
        number = 1
        while not await self._claim(role, number):
            number += 1
        return number

    async def _claim(self, role: str, number: int) -> bool:
        if (role, number) in self._claimed:
            return False
        self._claimed.add((role, number))  # two that ask at once
        try:
            marked = await self.wiring.look(claim_marker(role, number)) is not None
            for pause in _CLAIM_PATIENCE:
                await asyncio.sleep(pause)
                if not await self._take_claim(role, number, mark=not marked):
                    break
                if not marked:
                    return True
                # Its holder may be about to come back, and finds it free.
                if pause == _CLAIM_PATIENCE[-1]:
                    return await self._take_claim(role, number)
                await self.link.call(spec.Queue.Delete(queue=claim_lock(role, number)))
        except BaseException:
            self._claimed.discard((role, number))
            raise
        self._claimed.discard((role, number))
        return False

    async def _take_claim(self, role: str, number: int, *, mark: bool = True) -> bool:
        """Become the holder of an instance number, unless another connection is."""
        try:
            await self.link.call(
                spec.Queue.Declare(queue=claim_lock(role, number), exclusive=True, arguments={})
            )
        except Refused as refused:
            if refused.code != 405:
                raise
            return False
        if mark:
            await self._mark_claim(role, number)
        return True

    async def _claim_back(self, role: str, number: int) -> None:
        """Take an instance number again that our own last connection may hold at the broker."""
        end = time.monotonic() + _GHOST
        try:
            while time.monotonic() < end:
                await asyncio.sleep(_AGAIN)
                if await self._take_claim(role, number):
                    return
            log.error("instance %d of role %r is held by somebody else, too", number, role)
        except TransportError as error:
            log.debug("claiming instance %d of %s: %s", number, role, error)

    async def _mark_claim(self, role: str, number: int) -> None:
        await self.wiring.queue(claim_marker(role, number), {"x-expires": int(_CLAIM_KEPT * 1000)})

    async def announce(self, message: bytes) -> None:
        channel = self._channel
        if channel is None or not channel.open or self.link.blocked:
            return
        for exchange, key in ((DISCOVERY, ""), ("", DISCOVERY)):
            channel.publish(exchange, key, message, expires=_ANNOUNCEMENT_KEPT)

    def on_told(self, call: Callable[[bytes], None]) -> None:
        self._told.append(call)

    def _on_told(self, arrived: Arrived) -> None:
        if arrived.content.reply_to:
            self._tell_census(arrived.content.reply_to)
            return
        for call in self._told:
            call(arrived.body)

    def _tell_census(self, reply_to: str) -> None:
        """Tell a Broker what is held here: the server does not tell in AMQP."""
        now = time.time()
        held: dict[str, list[float]] = {}
        for intake in self._intakes.values():
            for feed in intake.feeds:
                flying, ended, taking, oldest, waiting = held.get(feed.queue, [0, 0, 0, 0.0, 0])
                out = [it for it in feed.in_flight.values() if not it.ended]
                sent = min((it.sent for it in out if it.sent), default=0.0)
                kept = sum(it.feed is feed for it in intake.held)
                held[feed.queue] = [
                    flying + len(out) - kept,
                    ended + feed.ended,
                    taking + intake.active,
                    max(oldest, now - sent if sent else 0.0),
                    waiting + kept + len(feed.leaving),
                ]
        for queue, due in self._postponed.items():
            if _not_due(due):
                held.setdefault(queue, [0, 0, 0, 0.0, 0])[4] += len(due)
        channel = self._channel
        if held and channel is not None:
            answer = json.dumps({"client": self._name, "queues": held}).encode()
            channel.publish("", reply_to, answer, expires=5.0)

    async def declare(self, inlets: Sequence[Inlet], outports: Sequence[str]) -> None:
        for inlet in inlets:
            await self._ensure(inlet)
            intake = self._intakes.get((inlet.queue, inlet.instance))
            if intake is None:
                intake = self._intakes[inlet.queue, inlet.instance] = Intake(self, inlet)
            intake.inlet = inlet
        if inlets:
            self._tick()
        for outport in outports:
            await self.wiring.source(outport)

    async def _ensure(self, inlet: Inlet) -> None:
        await self.wiring.ensure(inlet.place, inlet.retention)
        await self.wiring.ensure(inlet.queue)

    # Sending.

    def _where(self, exchange: str, key: str = "") -> bytes:
        where = self._places.get((exchange, key))
        if where is None:
            where = destination(exchange, key, mandatory=bool(key))
            if len(self._places) < 1000:
                self._places[exchange, key] = where
        return where

    def send(
        self, outport: str, body: bytes, headers: Mapping[str, str], confirmed: Confirmed
    ) -> None:
        try:
            where = self._places.get((outport, "")) or self._where(checked_name(outport))
            content = write_content(len(body), headers, time.time())
            if MESSAGE_ID not in headers:
                raise SendFailed(f"it has no header {MESSAGE_ID}")
            if len(content) > _MOST_HEADERS:
                raise SendFailed(
                    f"it has {len(content)} bytes of headers; at most {_MOST_HEADERS} can be sent"
                )
        except TransportError as error:
            asyncio.get_running_loop().call_soon(
                confirmed, SendFailed(f"a message of outport {outport!r}: {error}")
            )
            return
        self._outbox.put(
            outport,
            where,
            content,
            body,
            f"a message of outport {outport!r}",
            confirmed,
            counts=True,
        )

    @property
    def unconfirmed(self) -> int:
        return self._outbox.sent

    async def is_bound(self, outport: str) -> bool:
        return await self.wiring.is_bound(outport)

    async def flush(self, timeout: float = 10.0) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self._levels_due:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                await self._outbox.empty()
                await self.link.ready(timeout)
                await self._barrier()
        except TimeoutError:
            if self.link.connected:
                why = f" ({self.link.blocked})" if self.link.blocked else ""
            else:
                why = ", as there is no connection to it"
            raise ConnectionLost(
                f"{len(self._outbox)} messages were not confirmed by the broker at "
                f"{redacted(self.url)} within {timeout:g} s{why}"
            ) from None

    async def _barrier(self) -> None:
        """Return when the broker has taken all settlements."""
        for intake in self._intakes.values():
            channel = intake.channel
            if channel is not None and channel.open:
                intake.flush()
                await channel.call(spec.Basic.Qos(prefetch_count=1))

    # Taking.

    async def consume(
        self, inlet: Inlet, prefetch: int, deliver: Callable[[Delivery], None]
    ) -> None:
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}; expected 1 or more")
        await self._intake(inlet).start(prefetch, deliver)

    async def pause(self, inlet: Inlet) -> None:
        await self._intake(inlet).stop()

    def _intake(self, inlet: Inlet) -> Intake:
        found = self._intakes.get((inlet.queue, inlet.instance))
        if found is None:
            raise UnknownQueue(f"inport {inlet.queue!r} was not declared by this client")
        return found

    def settle(self, delivery: Delivery) -> None:
        found = _ours(delivery)
        if found is not None:
            self._end(found)

    def _end(self, delivery: AmqpDelivery) -> None:
        feed = delivery.feed
        feed.ended += 1
        feed.remember(delivery)
        feed.finish(delivery)
        feed.intake.ended(delivery)

    def retry(self, delivery: Delivery, delay: float = 0.0, *, counts: bool = True) -> None:
        found = _ours(delivery)
        if found is None:
            return
        attempts = found.attempt if counts else found.attempt - 1
        postponed = found.postponed if counts else found.postponed + 1
        feed = found.feed

        def done() -> None:
            feed.remember(found)
            feed.finish(found)
            feed.intake.ended(found)

        self.give_back(found, attempts, postponed, delay, done)

    def give_back(
        self,
        delivery: AmqpDelivery,
        attempts: int,
        postponed: int,
        delay: float,
        done: Callable[[], None],
    ) -> None:
        """Have a message delivered again: published anew with its counts, then ``done``.

        Args:
            delivery: what is given back.
            attempts: how often it was tried.
            postponed: how often it was handed back or postponed.
            delay: not before so many seconds.
            done: settles the old one. Not called if the client is closed before.
        """
        queue = delivery.queue
        headers = dict(delivery.headers)
        headers[MESSAGE_ID] = delivery.id
        headers[ATTEMPTS] = str(attempts)
        headers[POSTPONED] = str(postponed)
        headers[SOURCE] = delivery.source
        exchange = ""
        due = time.time() + delay
        if delay > 0:
            inlet = delivery.inlet
            lives = inlet.retention if queue == inlet.place and inlet.instance > 1 else 0.0
            level, whole = delay_leg(delay, lives)
            exchange = delay_queue(level)
            if not whole:
                headers[DUE] = str(int(due * 1000))

        def answered(error: Exception | None) -> None:
            if error is None:
                if delay > 0:
                    heapq.heappush(_not_due(self._postponed.setdefault(queue, [])), due)
                done()
            elif not isinstance(error, ConnectionLost):
                log.error("%s cannot be given back: %s", delivery, error)
                delivery.feed.requeue(delivery, _FAILED)

        def put() -> None:
            self._outbox.put(
                exchange,
                self._where(exchange, queue),
                write_content(len(delivery.body), headers, delivery.sent, ours=delivery.ours),
                delivery.body,
                f"a message given back to {queue!r}",
                answered,
                key=queue,
                id=delivery.id,
                make=lambda: self.wiring.ensure(queue, delivery.inlet.retention),
            )

        if delay > 0 and level not in self._levels:
            # A new one takes a second, and nothing else that is sent should wait for it.
            self.find_out(self._make_level(level, put))
            self._levels_due += 1
        else:
            put()

    async def _make_level(self, level: int, then: Callable[[], None]) -> None:
        while level not in self._levels:
            try:
                await self.wiring.delay(level)
                self._levels.add(level)
            except TransportError as error:
                log.debug("the queue for a delay of %d ms: %s", level, error)
                await asyncio.sleep(_AGAIN)
        self._levels_due -= 1
        then()

    def bury(self, delivery: Delivery, death: Death) -> None:
        found = _ours(delivery)
        if found is None:
            return
        queue = found.inlet.queue
        original = Death.strip(found.headers) | {
            MESSAGE_ID: found.id,
            LETTER: self._letter_key(),
        }
        content = write_content(
            len(found.body), original | death.to_headers(), found.sent, ours=found.ours
        )
        if len(content) > _MOST_HEADERS + 10_000:
            # Only a foreign sender's message can have as many.
            short = replace(death, text=death.text[:100], traceback="")
            content = write_content(
                len(found.body), original | short.to_headers(), found.sent, ours=found.ours
            )

        def buried(error: Exception | None) -> None:
            if error is None:
                self._end(found)
            elif not isinstance(error, ConnectionLost):
                log.error("%s cannot become a dead letter: %s", found, error)
                found.feed.requeue(found, _FAILED)

        letters = dead(queue)
        self._outbox.put(
            letters,
            destination(letters, "", mandatory=True),
            content,
            found.body,
            f"a dead letter of {queue!r}",
            buried,
            id=found.id,
            make=lambda: self.wiring.mend_letters(queue),
        )

    def _letter_key(self) -> str:
        """Return a key for a dead letter, behind all those before in the order of texts."""
        self._last_key = max(time.time_ns(), self._last_key + 1)
        return f"{self._last_key:020d}-{uuid.uuid4().hex[:16]}"

    # For the intakes.

    def find_out(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that an intake waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tick(self) -> None:
        if self.closed:
            return
        if self._ticker is not None:
            self._ticker.cancel()
        if self.link.connected and not self._ticking:
            self._ticking = True
            self.find_out(self._ticked())
        shortest = min((it.inlet.retention for it in self._intakes.values()), default=_TICK)
        pause = max(0.1, min(_TICK, shortest / 3))
        self._ticker = asyncio.get_running_loop().call_later(pause, self._tick)

    async def _ticked(self) -> None:
        try:
            for role, number in list(self._claimed):
                await self._mark_claim(role, number)
            for intake in list(self._intakes.values()):
                await intake.tick()
        except TransportError as error:
            log.debug("keeping what expires: %s", error)
        finally:
            self._ticking = False


def _not_due(times: list[float]) -> list[float]:
    """Take from a heap of times those that are over."""
    now = time.time()
    while times and times[0] <= now:
        heapq.heappop(times)
    return times


def _ours(delivery: Delivery) -> AmqpDelivery | None:
    """Mark a delivery as ended and return it; ``None`` if it was before."""
    if not isinstance(delivery, AmqpDelivery):
        raise TypeError(f"{delivery} did not come from this transport")
    if delivery.ended:
        return None
    delivery.ended = True
    return delivery
