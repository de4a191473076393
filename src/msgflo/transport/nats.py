"""``nats://``: NATS with JetStream, from nats-server 2.11.

``nats://[user:password@]host[:port][,host2...][/namespace][?replicas=3&redelivery=10&ca=FILE]``,
``tls://`` likewise. Networks in different namespaces do not see each other (default: ``msgflo``).
``replicas`` is on how many servers of a cluster messages are stored (default 1), ``redelivery``
after how many seconds a message is delivered again whose participant vanished (default 10), ``ca``
a file of certificates to trust.

How the words of the contract are carried out is said in :mod:`msgflo.transport.nats_topology`.
Other programs can take part without this package: what they publish at ``msgflo.out.SOURCE``
travels like what one of our outports sends, and what they publish at ``msgflo.in.QUEUE`` gets
into that work queue.
"""
# ruff: noqa: D102 - what the methods of Client and Broker promise is said once, in contract.py

import asyncio
import json
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgflo.errors import ConnectFailed, ConnectionLost, SendFailed, TransportError, UnknownQueue
from msgflo.flow.binding import Kind
from msgflo.transport import contract
from msgflo.transport.contract import (
    MESSAGE_ID,
    REQUEUED,
    Confirmed,
    Death,
    Delivery,
    Inlet,
    redacted,
)
from msgflo.transport.nats_broker import Broker
from msgflo.transport.nats_intake import ACK, Counts, Feed, Intake, NatsDelivery
from msgflo.transport.nats_link import ApiError, Link, NoResponders, encode_headers
from msgflo.transport.nats_outbox import Outbox
from msgflo.transport.nats_topology import Address, Names, token
from msgflo.transport.nats_wiring import Wiring

__all__ = ["Broker", "Client", "backlog"]

log = logging.getLogger("msgflo.transport.nats")

_CLAIM_PATIENCE = (0.0, 0.3, 0.7)
"""Seconds before each look whether the holder of an instance number is alive: it may be about to
reconnect, as all do when the broker was restarted."""

_RESERVE = 16 * 1024
"""Bytes below the broker's limit that a message must stay, so that it can become a dead letter,
which says in its headers why."""

_FAILED_BURIAL = 60.0
"""Seconds before a message comes again that the broker would not take as a dead letter."""


class Client(contract.Client):
    """A participant's side of a NATS server or cluster.

    Args:
        url: see the module.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.address = Address.parse(url)
        self.names = Names(self.address.namespace)
        self.link = Link(self.address, redacted(url), f"msgflo client {os.getpid()}")
        self.wiring = Wiring(self.link, self.names)
        self._outbox = Outbox(self.link, self.make_home)
        self._burying = 0
        self._giving_back = 0
        self._late: list[bytes] = []
        self._intakes: dict[tuple[str, int], Intake] = {}
        self._told: list[Callable[[bytes], None]] = []
        self._subjects: dict[str, tuple[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._tidying: set[str] = set()
        self._making_home = False
        self._claimed: dict[str, int] = {}
        self._closed = False
        self.link.lost = self._tell_lost
        self.link.restoring = self._restore
        self.link.restored = self._back
        self.link.subscribe(self.names.telling, self._on_told)
        self.link.subscribe(self.names.census, self._on_census)

    # Connection.

    async def connect(self, timeout: float = 10.0) -> None:
        await self.link.connect(timeout)
        try:
            await self.wiring.open_within(timeout)
        except TransportError as error:
            await self.link.disconnect()
            raise ConnectFailed(redacted(self.url), str(error)) from None
        self._outbox.resend()
        self._tick()

    def _in_flight(self) -> list[NatsDelivery]:
        return [
            delivery
            for intake in self._intakes.values()
            for feed in intake.feeds
            for delivery in feed.in_flight.values()
            if not delivery.ended
        ]

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.link.connected:
            try:
                async with asyncio.timeout(2):
                    await asyncio.gather(*(intake.stop() for intake in self._intakes.values()))
                    for delivery in self._in_flight():
                        self.acknowledge(delivery.reply, b"-NAK")
                    for key, revision in self._claimed.items():
                        await self.wiring.put(
                            self.names.wiring,
                            key,
                            b"",
                            {"Nats-Expected-Last-Subject-Sequence": str(revision)},
                        )
                    await self._outbox.empty()
                await self.link.barrier(2)
            except (TimeoutError, TransportError) as error:
                log.debug("closing: %s", error)
        await self._stop()
        await self.link.close()

    async def abandon(self) -> None:
        """Break off for good without a word to the broker, as if the process had died.

        For tests of what becomes then of what was in flight.
        """
        self._closed = True
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

    async def _restore(self) -> None:
        await self._reopen()
        late, self._late = self._late, []
        for data in late:
            self.link.write(data)
        self._outbox.resend()
        for intake in self._intakes.values():
            for feed in intake.feeds:
                for reply in feed.settled.values():
                    # The last settlements may have been lost with the connection.
                    self.acknowledge(reply, ACK)
                feed.redelivery = await self.wiring.ensure(feed.queue, intake.inlet.retention)
            await intake.restart()

    def _back(self) -> None:
        self._tell_restored()
        # A coordinator that was back before us has asked already.
        for call in self._told:
            call(b"")

    async def _reopen(self) -> None:
        epoch = self.wiring.epoch
        await self.wiring.open()
        if epoch != self.wiring.epoch:
            # Another stream than before: its numbers say nothing of what is here.
            self._late.clear()
            for intake in self._intakes.values():
                intake.forget()

    def make_home(self) -> None:
        """Make the stream again that somebody deleted, and send again what had no home."""
        if not self._making_home and not self._closed:
            self._making_home = True
            self.find_out(self._make_home())

    async def _make_home(self) -> None:
        try:
            await asyncio.sleep(0.1)
            await self._reopen()
            # What nobody waits for is not stored: the queues first.
            for record in self.wiring.open_records():
                await self.wiring.bind(record.binding)
            self._outbox.resend()
        except TransportError as error:
            log.warning("no stream takes what is sent: %s", error)
        finally:
            self._making_home = False

    # Who is who.

    async def claim(self, role: str, instance: int | None = None) -> int:
        if instance is not None:
            return instance
        number = 1
        while not await self._claim(role, number):
            number += 1
        return number

    async def _claim(self, role: str, number: int) -> bool:
        names = self.names
        key = names.claim(role, number)
        subject = names.holder(role, number)
        stored = await self.wiring.get(f"KV_{names.wiring}", f"$KV.{names.wiring}.{key}")
        for pause in _CLAIM_PATIENCE:
            await asyncio.sleep(pause)
            try:
                await self.link.request(subject, timeout=1.0)
            except NoResponders:
                if stored is None or not stored.body:
                    break
            except ConnectionLost:
                await self.link.ready(10.0)
                return False  # it is there, though it hangs
            else:
                return False
        # Whoever comes next must find us from the moment on at which the key is ours.
        answering = self.link.subscribe(subject, self._on_holder)
        try:
            await self.link.barrier()
            self._claimed[key] = await self.wiring.put(
                names.wiring,
                key,
                self.link.inbox.encode(),
                {"Nats-Expected-Last-Subject-Sequence": str(stored.sequence if stored else 0)},
            )
        except ApiError:
            self.link.cancel(answering)
            return False
        except BaseException:
            self.link.cancel(answering)
            raise
        return True

    def _on_holder(self, _subject: bytes, reply: bytes, _body: bytes, _block: bytes) -> None:
        if reply:
            self.link.publish(reply.decode(), b"")

    async def announce(self, message: bytes) -> None:
        self.link.publish(self.names.discovery, message)

    def on_told(self, call: Callable[[bytes], None]) -> None:
        self._told.append(call)

    def _on_told(self, _subject: bytes, _reply: bytes, body: bytes, _block: bytes) -> None:
        for call in self._told:
            call(body)

    def _on_census(self, _subject: bytes, reply: bytes, _body: bytes, _block: bytes) -> None:
        """Tell a Broker what is held here: the server does not know what waits for a retry."""
        held: dict[str, tuple[int, int, int]] = {}
        for intake in self._intakes.values():
            for feed in intake.feeds:
                flying, ended, taking = held.get(feed.queue, (0, 0, 0))
                held[feed.queue] = (
                    flying + len(feed.in_flight),
                    ended + feed.ended,
                    taking + intake.active,
                )
        if reply and held:
            answer = {"client": self.link.inbox, "queues": held}
            self.link.publish(reply.decode(), json.dumps(answer).encode())

    async def declare(self, inlets: Sequence[Inlet], outports: Sequence[str]) -> None:
        for inlet in inlets:
            intake = self._intakes.get((inlet.queue, inlet.instance))
            if intake is None:
                intake = Intake(self, inlet)
            intake.inlet = inlet
            for feed in intake.feeds:
                feed.redelivery = await self.wiring.ensure(feed.queue, inlet.retention)
            self._intakes[inlet.queue, inlet.instance] = intake
        self._tick()
        for outport in outports:
            self._subject(outport)

    # Sending.

    def _subject(self, outport: str) -> tuple[str, str]:
        found = self._subjects.get(outport)
        if found is None:
            mark = token(outport)
            found = self._subjects[outport] = (self.names.out(outport), f"Nats-Msg-Id: {mark}:")
        return found

    def send(
        self, outport: str, body: bytes, headers: Mapping[str, str], confirmed: Confirmed
    ) -> None:
        subject, mark = self._subjects.get(outport) or self._subject(outport)
        try:
            block = encode_headers(headers, f"{mark}{headers[MESSAGE_ID]}\r\n")
        except (TransportError, KeyError) as error:
            asyncio.get_running_loop().call_soon(
                confirmed, SendFailed(f"a message of outport {outport!r}: {error}")
            )
            return
        if len(body) + len(block) > self.link.max_payload - _RESERVE:
            asyncio.get_running_loop().call_soon(
                confirmed,
                SendFailed(
                    f"a message of outport {outport!r} has {len(body)} bytes and {len(block)} of "
                    f"headers; with this broker they can be {self.link.max_payload - _RESERVE} "
                    f"together (its setting max_payload less {_RESERVE})"
                ),
            )
            return
        self._outbox.put(subject, body, block, outport, confirmed)

    @property
    def unconfirmed(self) -> int:
        return len(self._outbox) - self._burying - self._giving_back

    async def is_bound(self, outport: str) -> bool:
        return any(
            record.binding.source == outport and record.binding.kind is not Kind.DEADLETTER
            for record in self.wiring.open_records()
        )

    async def flush(self, timeout: float = 10.0) -> None:
        try:
            async with asyncio.timeout(timeout):
                while len(self._outbox) or self._late:
                    await self._outbox.empty()
                    await self.link.ready(timeout)
                    await asyncio.sleep(0.001)  # until what is late was written
                await self.link.ready(timeout)
                await self.link.barrier(timeout)
        except TimeoutError:
            raise ConnectionLost(
                f"{len(self._outbox)} messages were not confirmed by the broker at "
                f"{redacted(self.url)} within {timeout:g} s"
            ) from None

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
        if found is None:
            return
        self.acknowledge(found.reply, ACK)
        self._end(found)

    def retry(self, delivery: Delivery, delay: float = 0.0, *, counts: bool = True) -> None:
        found = _ours(delivery)
        if found is None:
            return
        self.give_back(
            found.queue,
            found.sequence,
            found.reply,
            found.counts.again(found.delivered, delay, counts=counts),
            delay,
            lambda: found.feed.intake.ended(found.feed, found),
        )

    def bury(self, delivery: Delivery, death: Death) -> None:
        found = _ours(delivery)
        if found is None:
            return
        queue = found.inlet.queue
        requeued = found.headers.get(REQUEUED, "0")
        mark = f"Nats-Msg-Id: dead:{token(found.queue)}:{found.sequence}:{found.id}:{requeued}\r\n"
        original = Death.strip(found.headers) | {MESSAGE_ID: found.id}
        block = encode_headers(original | death.to_headers(), mark)
        if len(block) + len(found.body) > self.link.max_payload:
            # Only a foreign sender's message can be as large as the limit.
            short = replace(death, text=death.text[:100], traceback="")
            block = encode_headers(original | short.to_headers(), mark)
        self._burying += 1

        def buried(error: Exception | None) -> None:
            self._burying -= 1
            if error is None:
                self.acknowledge(found.reply, ACK)
                self._end(found)
            else:
                closed = isinstance(error, ConnectionLost)
                if not closed:
                    log.error("%s cannot become a dead letter: %s", found, error)
                self.acknowledge(found.reply, _nak(0.0 if closed else _FAILED_BURIAL))
                found.feed.intake.ended(found.feed, found)

        self._outbox.put(
            self.names.dead(queue), found.body, block, f"a dead letter of {queue!r}", buried
        )

    def _end(self, delivery: NatsDelivery) -> None:
        feed: Feed = delivery.feed
        feed.ended += 1
        feed.remember(delivery)
        if delivery.attempt > 1 or delivery.postponed:
            self._forget_counts(delivery)
        feed.intake.ended(feed, delivery)

    def acknowledge(self, reply: bytes, what: bytes, *, now_or_never: bool = False) -> None:
        """Tell the server what became of a delivery, after a reconnect if there is need."""
        data = b"PUB %b  %d\r\n%b\r\n" % (reply, len(what), what)
        if not self.link.write(data) and not now_or_never:
            self._late.append(data)

    # What is given back.

    def give_back(
        self,
        queue: str,
        sequence: int,
        reply: bytes,
        counts: Counts,
        delay: float,
        done: Callable[[], None],
    ) -> None:
        """Have a message delivered again, its counts stored first."""
        self._giving_back += 1

        def stored(error: Exception | None) -> None:
            self._giving_back -= 1
            if isinstance(error, SendFailed):
                log.warning("%s: the attempts cannot be counted: %s", queue, error)
            self.acknowledge(reply, _nak(delay))
            done()

        self._outbox.put(
            self._counts_at(queue, sequence),
            counts.encode(),
            b"",
            f"the attempts at a message of {queue!r}",
            stored,
        )

    def _counts_at(self, queue: str, sequence: int | str) -> str:
        return f"$KV.{self.names.attempts}.{token(queue)}.{sequence}"

    async def read_counts(self, queue: str, sequence: int) -> Counts:
        """Return what is stored of a message that was given back."""
        subject = self._counts_at(queue, sequence)
        stored = await self.wiring.get(f"KV_{self.names.attempts}", subject)
        return Counts.decode(stored.body if stored is not None else b"")

    async def stored_counts(self, queue: str) -> dict[int, Counts]:
        """Return what is stored of all messages of a queue that were given back."""
        subject = self._counts_at(queue, "*")
        return {
            int(stored.subject.rpartition(".")[2]): Counts.decode(stored.body)
            async for stored in self.wiring.read(f"KV_{self.names.attempts}", subject)
        }

    def _forget_counts(self, delivery: NatsDelivery) -> None:
        what = {"filter": self._counts_at(delivery.queue, delivery.sequence)}
        self.link.publish(
            f"$JS.API.STREAM.PURGE.KV_{self.names.attempts}",
            json.dumps(what).encode(),
            self.link.nowhere,
        )

    # For the intakes.

    def number(self) -> int:
        """Return a number that was not returned before."""
        self._numbers += 1
        return self._numbers

    def find_out(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that an intake waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stale(self, target: str) -> None:
        """Note that messages of a removed binding arrive: its filter can perhaps go."""
        if target not in self._tidying and not self._closed:
            self._tidying.add(target)
            self.find_out(self._tidy(target))

    async def _tidy(self, target: str) -> None:
        try:
            await asyncio.sleep(1.0)
            await self.wiring.tidy(target)
        except TransportError as error:
            log.debug("tidying %s: %s", target, error)
        finally:
            self._tidying.discard(target)

    def _tick(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        loop = asyncio.get_running_loop()
        if self.link.connected:
            now = loop.time()
            for intake in self._intakes.values():
                intake.tick(now)
        shortest = min(
            (
                seconds
                for intake in self._intakes.values()
                for seconds in (intake.inlet.retention, *(f.redelivery for f in intake.feeds))
            ),
            default=self.address.redelivery,
        )
        if not self._closed:
            self._ticker = loop.call_later(shortest / 3, self._tick)


def backlog(url: str, queue: str) -> Mapping[str, str]:
    """Return the stream and the consumer by which others find what waits in a work queue."""
    names = Names(Address.parse(url).namespace)
    return {"stream": names.stream, "consumer": names.consumer(queue)}


def _ours(delivery: Delivery) -> NatsDelivery | None:
    """Mark a delivery as ended and return it; ``None`` if it was before."""
    if not isinstance(delivery, NatsDelivery):
        raise TypeError(f"{delivery} did not come from this transport")
    if delivery.ended:
        return None
    delivery.ended = True
    return delivery


def _nak(delay: float) -> bytes:
    return b'-NAK {"delay": %d}' % int(delay * 1e9) if delay > 0 else b"-NAK"
