"""The coordinator's side of ``nats://``; see :mod:`msgflo.transport.nats`."""
# ruff: noqa: D102 - what the methods of Client and Broker promise is said once, in contract.py

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from msgflo.errors import ConnectFailed, ConnectionLost, SendFailed, TransportError
from msgflo.flow.binding import Binding
from msgflo.flow.discovery import queue_of_place
from msgflo.transport import contract
from msgflo.transport.contract import (
    MESSAGE_ID,
    DeadLetter,
    Death,
    QueueStats,
    Tap,
    Tapped,
    redacted,
    requeued_headers,
)
from msgflo.transport.nats_link import ApiError, Link, Subscription, read_headers
from msgflo.transport.nats_topology import Address, Names, token
from msgflo.transport.nats_wiring import Stored, Wiring, stored_message

__all__ = ["Broker"]

log = logging.getLogger("msgflo.transport.nats")

_CENSUS_QUIET = 0.03
_CENSUS_LONGEST = 0.3
"""Seconds: clients that do not answer in this time are not counted."""

_PATIENCE = 10.0
"""Seconds that a call waits for a connection that broke, before it raises ConnectionLost."""

_DEAD = "dead-"


@dataclass(slots=True)
class _Held:
    """What the clients say of a queue."""

    in_flight: int = 0
    taking: int = 0
    ended: int = 0
    """Settled or buried since the last census."""


@dataclass(slots=True)
class _Seen:
    """How a queue was when it was looked at last."""

    at: float
    total: int


class Broker(contract.Broker):
    """The coordinator's and the tools' side of a NATS server or cluster.

    Args:
        url: as for a Client.

    Raises:
        ConfigurationError: the URL is wrong.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.address = Address.parse(url)
        self.names = Names(self.address.namespace)
        self.link = Link(self.address, redacted(url), f"msgflo broker {os.getpid()}")
        self.wiring = Wiring(self.link, self.names)
        self._listening = False
        self._counted: dict[tuple[str, str], int] = {}
        self._seen: dict[str, _Seen] = {}
        self._lock = asyncio.Lock()
        self._number = 0
        self._made: set[str] = set()
        self.link.lost = self._tell_lost
        self.link.restoring = self._restore
        self.link.restored = self._tell_restored

    # Connection.

    async def connect(self, timeout: float = 10.0) -> None:
        await self.link.connect(timeout)
        try:
            await self.wiring.open_within(timeout)
        except TransportError as error:
            await self.link.disconnect()
            raise ConnectFailed(redacted(self.url), str(error)) from None

    async def close(self) -> None:
        if self.link.connected:
            try:
                await self.link.barrier(2)
            except TransportError as error:
                log.debug("closing: %s", error)
        await self.link.close()

    @property
    def connected(self) -> bool:
        return self.link.connected

    async def _restore(self) -> None:
        self._made.clear()
        await self.wiring.open()
        if self._listening:
            self._ask()

    # Discovery.

    async def listen(self, heard: Callable[[bytes], None]) -> None:
        def received(_subject: bytes, _reply: bytes, body: bytes, _block: bytes) -> None:
            heard(body)

        self.link.subscribe(self.names.discovery, received)
        self._listening = True
        await self._sure_of(self._ask)

    async def tell(self, message: bytes) -> None:
        await self.link.ready(_PATIENCE)
        self.link.publish(self.names.telling, message)
        await self.link.barrier()

    async def _sure_of(self, write: Callable[[], object]) -> None:
        """Return when the server has taken what is written, and all that was before.

        Written again after a reconnect, so it must be something that can be.

        Raises:
            ConnectionLost: there was no connection for too long.
        """
        while True:
            await self.link.ready(_PATIENCE)
            broken = self.link.opened
            write()
            try:
                return await self.link.barrier()
            except ConnectionLost:
                if self.link.connected and self.link.opened == broken:
                    raise  # it hangs

    def _ask(self) -> None:
        self.link.publish(self.names.telling, b"")

    # Bindings. One after the other: what one process does at once would only meet its own locks.

    async def bind(self, binding: Binding) -> None:
        async with self._lock:
            await self.wiring.bind(binding)

    async def unbind(self, binding: Binding) -> None:
        async with self._lock:
            await self.wiring.unbind(binding)

    async def bindings(self) -> list[Binding]:
        await self.wiring.load()
        await self._tidy()
        return sorted(record.binding for record in self.wiring.open_records())

    async def _tidy(self) -> None:
        async with self._lock:
            for target in {
                record.binding.target for record in self.wiring.records.values() if not record.open
            }:
                await self.wiring.tidy(target)

    # Messages.

    async def enqueue(self, queue: str, body: bytes, headers: Mapping[str, str]) -> None:
        await self._ensure(queue)
        sent = dict(headers)
        if MESSAGE_ID in sent:
            sent["Nats-Msg-Id"] = f"in:{token(queue)}:{sent[MESSAGE_ID]}"
        await self._store(self.names.direct(queue), body, sent, f"a message to {queue!r}")

    async def _ensure(self, queue: str) -> None:
        """Make a queue where missing. A place can vanish at any time, a work queue does not."""
        if queue not in self._made:
            await self.wiring.ensure(queue, None)
            if queue_of_place(queue)[1] is None:
                self._made.add(queue)

    async def _store(
        self, subject: str, body: bytes, headers: Mapping[str, str], what: str
    ) -> None:
        size = len(body) + sum(len(key) + len(value) + 4 for key, value in headers.items()) + 16
        if size > self.link.max_payload:
            raise SendFailed(
                f"{what} has {size} bytes with its headers; the broker takes at most "
                f"{self.link.max_payload} (its setting max_payload)"
            )
        try:
            await self.wiring.store_message(subject, body, headers)
        except ApiError as error:
            raise SendFailed(f"{what}: the broker refused it: {error.description}") from None

    async def tap(self, source: str, seen: Callable[[Tapped], None]) -> Tap:
        def received(_subject: bytes, _reply: bytes, body: bytes, block: bytes) -> None:
            headers = read_headers(block) if block else {}
            headers.pop("Nats-Msg-Id", None)
            seen(Tapped(source, body, headers, time.time()))

        tap = _Tap(
            self.link,
            [
                self.link.subscribe(subject, received)
                for subject in (self.names.out(source), self.names.direct(source))
            ],
        )
        await self._sure_of(lambda: None)
        return tap

    # How queues are doing.

    async def queues(self, names: Iterable[str] | None = None) -> list[QueueStats]:
        wanted = None if names is None else set(names)
        held = await self._census()
        infos = await self.wiring.consumers()
        await self.wiring.load()
        now = time.time()
        found: dict[str, QueueStats] = {}
        for info in infos:
            queue = (info["config"].get("metadata") or {}).get("msgflo.queue")
            if not queue:
                continue
            keeper = info["name"].startswith((_DEAD, "kept-"))
            work = queue.removeprefix(_DEAD) if keeper else queue_of_place(queue)[0]
            if wanted is not None and work not in wanted and queue not in wanted:
                continue
            stats = await self._stats(info, queue, held.get(queue, _Held()), now, keeper=keeper)
            if queue in found:  # the two keepers of one inport
                stats = _joined(found[queue], stats)
            found[queue] = stats
        for stats in found.values():
            self._rate(found, stats, held.get(stats.queue, _Held()), now)
        return sorted(found.values(), key=lambda stats: stats.queue)

    async def _stats(
        self, info: Mapping[str, Any], queue: str, held: _Held, now: float, *, keeper: bool
    ) -> QueueStats:
        pending = int(info.get("num_pending", 0))
        taken = int(info.get("num_ack_pending", 0))
        # Messages that wait for a retry count as taken at the server; those that a participant
        # had that died do too, and wait.
        in_flight = min(held.in_flight, taken)
        oldest = 0.0
        if pending or taken:
            last = info["ack_floor"] if taken else info["delivered"]
            oldest = await self._oldest(info, int(last["stream_seq"]) + 1, now)
        return QueueStats(
            queue,
            waiting=pending + taken - in_flight,
            in_flight=in_flight,
            consumers=0 if keeper else max(held.taking, 1 if info.get("num_waiting") else 0),
            oldest=oldest,
        )

    async def _oldest(self, info: Mapping[str, Any], first: int, now: float) -> float:
        config = info["config"]
        subjects = config.get("filter_subjects") or [config.get("filter_subject")]
        oldest: Stored | None = None
        for subject in subjects:
            query = {"seq": max(1, first), "next_by_subj": subject}
            reply = await self.link.ask(
                f"$JS.API.DIRECT.GET.{self.names.stream}", json.dumps(query).encode()
            )
            stored = stored_message(reply)
            if stored is not None and (oldest is None or stored.sequence < oldest.sequence):
                oldest = stored
        return max(0.0, now - _seconds(oldest.time)) if oldest is not None else 0.0

    def _rate(
        self, found: dict[str, QueueStats], stats: QueueStats, held: _Held, now: float
    ) -> None:
        there = stats.waiting + stats.in_flight
        before = self._seen.get(stats.queue)
        self._seen[stats.queue] = _Seen(now, there)
        if before is not None and now > before.at:
            span = now - before.at
            more = there - before.total
            out = held.ended if not stats.queue.startswith(_DEAD) else max(0, -more)
            found[stats.queue] = QueueStats(
                stats.queue,
                stats.waiting,
                stats.in_flight,
                stats.consumers,
                stats.oldest,
                rate_in=max(0.0, (more + out) / span),
                rate_out=out / span,
            )

    async def _census(self) -> dict[str, _Held]:
        """Ask all clients what they hold: the server cannot tell a retry from work in progress."""
        found: dict[str, _Held] = {}
        heard = asyncio.Event()

        def received(_subject: bytes, _reply: bytes, body: bytes, _block: bytes) -> None:
            try:
                answer = json.loads(body)
                client = str(answer["client"])
                queues = [
                    (str(queue), int(flying), int(ended), int(taking))
                    for queue, (flying, ended, taking) in answer["queues"].items()
                ]
            except (ValueError, KeyError, TypeError, AttributeError):
                return
            for queue, flying, ended, taking in queues:
                held = found.setdefault(queue, _Held())
                held.in_flight += flying
                held.taking += taking
                held.ended += max(0, ended - self._counted.get((client, queue), 0))
                self._counted[client, queue] = ended
            heard.set()

        self._number += 1
        inbox = f"{self.link.inbox}.c.{self._number}"
        subscription = self.link.subscribe(inbox, received)
        try:
            await self._sure_of(lambda: self.link.publish(self.names.census, b"", inbox))
            end = asyncio.get_running_loop().time() + _CENSUS_LONGEST
            while (left := end - asyncio.get_running_loop().time()) > 0:
                heard.clear()
                try:
                    async with asyncio.timeout(min(left, _CENSUS_QUIET)):
                        await heard.wait()
                except TimeoutError:
                    break
        finally:
            self.link.cancel(subscription)
        return found

    # Dead letters.

    async def dead_letters(self, queue: str, limit: int = 100, after: str = "") -> list[DeadLetter]:
        first = _sequence(after) + 1
        if after and first == 1:
            raise TransportError(f"{after!r} is not the key of a dead letter")
        await self.wiring.load()
        found: list[DeadLetter] = []
        async for stored in self.wiring.dead_letters(queue, first, batch=min(limit, 500)):
            found.append(_letter(queue, stored))
            if len(found) >= limit:
                break
        return found

    async def requeue(self, queue: str, keys: Iterable[str], body: bytes | None = None) -> int:
        done = 0
        made: set[str] = set()
        async for stored in self._letters(queue, keys):
            letter = _letter(queue, stored)
            headers = requeued_headers(letter)
            # The number of the dead letter makes it one message however often this is begun, and
            # another one than what was there before.
            headers["Nats-Msg-Id"] = f"requeue:{stored.sequence}:{letter.id}"
            target = letter.death.queue or queue
            if target not in made:
                await self._ensure(target)
                made.add(target)
            await self._store(
                self.names.direct(target),
                letter.body if body is None else body,
                headers,
                f"dead letter {letter.key} of {queue!r}",
            )
            done += await self.wiring.delete(stored.sequence)
        return done

    async def discard(self, queue: str, keys: Iterable[str]) -> int:
        done = 0
        async for stored in self._letters(queue, keys):
            done += await self.wiring.delete(stored.sequence)
        return done

    async def _letters(self, queue: str, keys: Iterable[str]) -> AsyncIterator[Stored]:
        await self.wiring.load()
        for key in keys:
            stored = await self.wiring.dead_letter(queue, _sequence(key))
            if stored is not None:
                yield stored


class _Tap(Tap):
    def __init__(self, link: Link, subscriptions: list[Subscription]) -> None:
        self._link = link
        self._subscriptions = subscriptions

    async def close(self) -> None:
        for subscription in self._subscriptions:
            self._link.cancel(subscription)


def _letter(queue: str, stored: Stored) -> DeadLetter:
    headers = {
        key: value
        for key, value in Death.strip(stored.headers).items()
        if not key.startswith("Nats-")
    }
    return DeadLetter(
        key=str(stored.sequence),
        queue=queue,
        id=headers.get(MESSAGE_ID, ""),
        body=stored.body,
        headers=headers,
        death=Death.from_headers(stored.headers)
        or Death(queue, text="put here by somebody else", died=_seconds(stored.time)),
    )


def _sequence(key: str) -> int:
    """Read a dead letter's key; 0 for what is none."""
    return int(key) if key.isascii() and key.isdecimal() else 0


def _seconds(stamp: str) -> float:
    """Read the server's time stamp, which has nanoseconds."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    try:
        at = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
        return at + (float(f"0.{fraction}") if fraction else 0.0)
    except ValueError:
        return 0.0


def _joined(one: QueueStats, other: QueueStats) -> QueueStats:
    return QueueStats(
        one.queue,
        one.waiting + other.waiting,
        one.in_flight + other.in_flight,
        max(one.consumers, other.consumers),
        max(one.oldest, other.oldest),
    )
