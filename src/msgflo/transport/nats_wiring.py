"""The binding records of a namespace, and the consumers that have to agree with them.

Everything that several processes may change at once is here. Records live in a key-value bucket;
the server tells everybody who listens of each change. The consumers of one inport (work queue,
places, keepers) are only changed by whoever holds the inport's lock, a key that expires by itself
should its holder die.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgflo.errors import ConnectionLost, TransportError
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import place_of, queue_of_place
from msgflo.transport.contract import DEFAULT_RETENTION
from msgflo.transport.nats_link import (
    ApiError,
    Link,
    Reply,
    encode_headers,
    read_headers,
    status_of,
)
from msgflo.transport.nats_topology import (
    DUPLICATE_WINDOW,
    Names,
    Record,
    Sieve,
    consumer_config,
    filters_of,
    is_drained,
    leads_to_place,
)

__all__ = ["Stored", "Wiring", "stored_message"]

_LOCK_SECONDS = 10
"""Then a lock expires. Whoever holds it stops before."""

_LOCK_WAIT = 20.0
_TOLD_WITHIN = 1.0
"""Seconds in which the server tells of a record that was stored, unless the connection breaks."""

_ATTEMPTS_SECONDS = 7 * 86400
_CONSUMER_NOT_FOUND = 10014
_CONSUMER_EXISTS = (10013, 10105, 10148)
_NOT_LAST = 10071
_STREAM_DIFFERS = 10058
_NO_MESSAGE = 10037


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it lies in a stream."""

    sequence: int
    subject: str
    headers: dict[str, str]
    body: bytes
    time: str


class Wiring:
    """The records of a namespace as one process knows them, and the means to change them.

    Args:
        link: the connection.
        names: the namespace's.
    """

    def __init__(self, link: Link, names: Names) -> None:
        self.link = link
        self.names = names
        self.epoch = ""
        self.records: dict[str, Record] = {}
        self._revisions: dict[str, int] = {}
        self._bucket: Any = None
        self._heard = 0
        self._news = asyncio.Event()
        self._sieves: dict[str, Sieve] = {}
        self._watch = link.subscribe(f"{names.rewired}.>", self._changed)

    # The streams.

    async def open_within(self, timeout: float) -> None:
        """Do :meth:`open`, again if the connection breaks meanwhile.

        Raises:
            TransportError: not in this time (seconds), or it cannot be done.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return await self.open()
                    except ConnectionLost:
                        await self.link.ready(timeout)
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise ConnectionLost(f"JetStream did not answer for {timeout:g} s") from None

    async def open(self) -> None:
        """Make the streams of the namespace where missing, and read the records. Idempotent.

        Raises:
            TransportError: a stream is there that is no use to us, or it cannot be made.
        """
        address = self.link.address
        names = self.names
        main = await self._stream(
            {
                "name": names.stream,
                "description": "what is under way between MsgFlo participants",
                "subjects": names.subjects,
                "retention": "interest",
                "storage": "file",
                "num_replicas": address.replicas,
                "duplicate_window": int(DUPLICATE_WINDOW * 1e9),
                "allow_direct": True,
            }
        )
        if main["config"].get("retention") != "interest":
            raise TransportError(
                f"the broker has a stream {names.stream!r} that is not MsgFlo's (its retention is "
                f"{main['config'].get('retention')}, not interest); use another namespace: put "
                f"its name behind the host in the URL, as in nats://host:4222/NAME"
            )
        self.epoch = str(main.get("created", ""))
        bucket = {
            "max_msgs_per_subject": 1,
            "storage": "file",
            "num_replicas": address.replicas,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
        }
        start = f"$KV.{names.wiring}"
        made = await self._stream(
            bucket
            | {
                "name": f"KV_{names.wiring}",
                "description": "MsgFlo: what is bound to what, and who is who",
                "subjects": [f"{start}.>"],
                "discard": "new",
                "allow_msg_ttl": True,
                "republish": {"src": f"{start}.binding.>", "dest": f"{names.rewired}.>"},
            }
        )
        await self._stream(
            bucket
            | {
                "name": f"KV_{names.attempts}",
                "description": "MsgFlo: how often messages were tried that were given back",
                "subjects": [f"$KV.{names.attempts}.>"],
                "discard": "old",
                "max_age": _ATTEMPTS_SECONDS * 10**9,
                "max_msgs": 1_000_000,
            }
        )
        if made.get("created") != self._bucket:
            # Another bucket than before: its revisions begin anew.
            self._bucket = made.get("created")
            self._revisions.clear()
            self._heard = 0
            self.records.clear()
        await self.load()

    async def _stream(self, config: dict[str, Any]) -> dict[str, Any]:
        name = config["name"]
        try:
            return await self.link.api(f"STREAM.CREATE.{name}", config)
        except ApiError as error:
            if error.number != _STREAM_DIFFERS:
                raise TransportError(
                    f"the broker cannot make the stream {name!r}: {error.description}"
                ) from None
        # Another replica count, or limits that an administrator has set: it is used as it is.
        return await self.link.api(f"STREAM.INFO.{name}")

    async def last_sequence(self) -> int:
        """Return the number of the last message that the stream took."""
        info = await self.link.api(f"STREAM.INFO.{self.names.stream}")
        return int(info["state"]["last_seq"])

    # The records.

    async def load(self) -> None:
        """Read all records anew."""
        before = {key: self._revisions.get(key, 0) for key in self.records}
        found: dict[str, tuple[Record, int]] = {}
        start = f"$KV.{self.names.wiring}."
        async for stored in self.read(f"KV_{self.names.wiring}", f"{start}binding.>"):
            if "KV-Operation" not in stored.headers:
                record = Record.decode(stored.body)
                if record is not None:
                    key = stored.subject.removeprefix(start)
                    found[key] = record.in_epoch(self.epoch), stored.sequence
        # What the server told meanwhile may be newer than what was read.
        for key, (record, revision) in found.items():
            if revision >= self._revisions.get(key, 0):
                self.records[key] = record
                self._revisions[key] = revision
        for key, revision in before.items():
            if key not in found and self._revisions.get(key, 0) == revision:
                self.records.pop(key, None)
        self._sieves.clear()

    def _changed(self, _subject: bytes, _reply: bytes, body: bytes, block: bytes) -> None:
        headers = read_headers(block)
        key = headers.get("Nats-Subject", "").removeprefix(f"$KV.{self.names.wiring}.")
        try:
            revision = int(headers.get("Nats-Sequence", ""))
        except ValueError:
            return
        self._heard = max(self._heard, revision)
        self._news.set()
        self._note(key, None if "KV-Operation" in headers else Record.decode(body), revision)

    def _note(self, key: str, record: Record | None, revision: int) -> None:
        if revision <= self._revisions.get(key, 0):
            return
        self._revisions[key] = revision
        if record is None:
            self.records.pop(key, None)
        else:
            self.records[key] = record.in_epoch(self.epoch)
        self._sieves.clear()

    async def store(self, record: Record) -> None:
        """Write a record; everybody is told."""
        await self._put(self.names.record(record.binding), record)

    async def forget(self, binding: Binding) -> None:
        """Delete a record."""
        await self._put(self.names.record(binding), None)

    async def _put(self, key: str, record: Record | None) -> None:
        headers = {} if record is not None else {"KV-Operation": "DEL"}
        revision = await self.put(
            self.names.wiring, key, record.encode() if record is not None else b"", headers
        )
        self._note(key, record, revision)
        # Whoever takes messages is told when we are, and so before what is sent from now on.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TOLD_WITHIN):
                while self._heard < revision:
                    self._news.clear()
                    await self._news.wait()

    def sieve(self, queue: str) -> Sieve:
        """Return which messages belong to a work queue or place, as far as is known now."""
        found = self._sieves.get(queue)
        if found is None:
            found = self._sieves[queue] = Sieve(self.names, queue, self.records.values())
        return found

    def open_records(self) -> list[Record]:
        """Return the records that are in force."""
        return [record for record in self.records.values() if record.open]

    def is_routed(self, queue: str) -> bool:
        """Tell whether the dead letters of an inport go to another inport."""
        return any(
            record.binding.kind is Kind.DEADLETTER and record.binding.source == queue
            for record in self.open_records()
        )

    def is_place_bound(self, target: str) -> bool:
        """Tell whether anything leads into the places of an inport."""
        return any(
            record.binding.target == target and leads_to_place(record.binding)
            for record in self.open_records()
        )

    # Keys and messages.

    async def put(
        self, bucket: str, key: str, value: bytes, headers: dict[str, str] | None = None
    ) -> int:
        """Store a value and return its revision.

        Raises:
            ApiError: refused; number 10071 if it was to follow a revision that is not the last.
        """
        return await self.store_message(f"$KV.{bucket}.{key}", value, headers or {})

    async def store_message(
        self, subject: str, body: bytes, headers: Mapping[str, str], timeout: float = 15.0
    ) -> int:
        """Publish a message into a stream, and return its number when it is stored.

        One that the server knows again by its ``Nats-Msg-Id`` is published again if the connection
        breaks.

        Raises:
            ApiError: refused.
            ConnectionLost: nobody knows.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        block = encode_headers(headers) if headers else b""
        while True:
            await self.link.ready(max(0.01, end - loop.time()))
            try:
                reply = await self.link.request(subject, body, 5.0, block)
            except TransportError as error:
                unknown = isinstance(error, ConnectionLost) and "Nats-Msg-Id" not in headers
                if unknown or loop.time() + 0.2 >= end or self.link.closed:
                    raise
                await asyncio.sleep(0.1)  # or no stream takes it (yet)
                continue
            answer = json.loads(reply.body)
            if "error" in answer:
                raise ApiError(f"a message at {subject}", answer["error"])
            return int(answer.get("seq", 0))

    async def get(self, stream: str, subject: str) -> Stored | None:
        """Return the last message of a subject."""
        reply = await self.link.ask(f"$JS.API.DIRECT.GET.{stream}.{subject}")
        return stored_message(reply)

    async def read(
        self, stream: str, subject: str, first: int = 1, batch: int = 500
    ) -> AsyncIterator[Stored]:
        """Yield the messages of a stream on a subject, in order, from a number on."""
        loop = asyncio.get_running_loop()
        more, end = True, 0.0
        while more:
            end = end or loop.time() + 15.0
            await self.link.ready(max(0.01, end - loop.time()))
            try:
                found, more = await self._read_some(stream, subject, first, batch)
            except ConnectionLost:
                if loop.time() + 0.1 >= end or self.link.closed:
                    raise
                await asyncio.sleep(0.1)
                continue
            end = 0.0
            for stored in found:
                yield stored
                first = stored.sequence + 1

    async def _read_some(
        self, stream: str, subject: str, first: int, batch: int
    ) -> tuple[list[Stored], bool]:
        found: list[Stored] = []

        def heard(_subject: bytes, _reply: bytes, body: bytes, block: bytes) -> None:
            status, text = status_of(block)
            if status:
                if not done.done():
                    if status in {204, 404}:
                        done.set_result(int(read_headers(block).get("Nats-Num-Pending", "0")))
                    else:
                        done.set_exception(
                            TransportError(f"the broker cannot read {subject}: {status} {text}")
                        )
                return
            stored = stored_message(Reply(body, read_headers(block), 0))
            if stored is not None:
                found.append(stored)

        with self.link.awaiting() as (number, done):
            inbox = f"{self.link.inbox}.b.{number}"
            subscription = self.link.subscribe(inbox, heard)
            try:
                # Batches of large messages end early, by the server's own bound.
                query = {"seq": max(1, first), "batch": batch, "next_by_subj": subject}
                if not self.link.publish(
                    f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode(), inbox
                ):
                    raise ConnectionLost("no connection to the broker")
                async with asyncio.timeout(10):
                    more: int = await done
            except TimeoutError:
                raise ConnectionLost(f"the broker did not read {subject} in 10 s") from None
            finally:
                self.link.cancel(subscription)
        return found, bool(found) and more > 0

    # Consumers.

    @contextlib.asynccontextmanager
    async def locked(self, *queues: str) -> AsyncIterator[None]:
        """Hold the locks of these inports; waits for whoever has them.

        Raises:
            ConnectionLost: not to be had in 20 seconds; or what is done with them takes so long
                that somebody else may have them by then.
        """
        held: list[int] = []
        try:
            for queue in sorted(set(queues)):
                held.append(await self._lock(queue))
            async with asyncio.timeout(_LOCK_SECONDS - 2):
                yield
        except TimeoutError:
            raise ConnectionLost("the broker is too slow to change what is bound") from None
        finally:
            for revision in held:
                with contextlib.suppress(TransportError):
                    await self.link.api(
                        f"STREAM.MSG.DELETE.KV_{self.names.wiring}",
                        {"seq": revision, "no_erase": True},
                        timeout=2,
                    )

    async def _lock(self, queue: str) -> int:
        loop = asyncio.get_running_loop()
        end = loop.time() + _LOCK_WAIT
        pause = 0.005
        while True:
            try:
                return await self.put(
                    self.names.wiring,
                    self.names.lock(queue),
                    self.link.inbox.encode(),
                    {
                        "Nats-Expected-Last-Subject-Sequence": "0",
                        "Nats-TTL": f"{_LOCK_SECONDS}s",
                    },
                )
            except ApiError as error:
                if error.number != _NOT_LAST:
                    raise
            if loop.time() > end:
                raise ConnectionLost(f"somebody else has been rewiring {queue!r} for too long")
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not for secrecy
            pause = min(0.1, pause * 1.5)

    async def info(self, consumer: str) -> dict[str, Any] | None:
        """Return the state of a consumer; ``None`` if there is none of this name."""
        try:
            return await self.link.api(f"CONSUMER.INFO.{self.names.stream}.{consumer}")
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def consumers(self) -> list[dict[str, Any]]:
        """Return the states of all consumers."""
        found: list[dict[str, Any]] = []
        while True:
            page = await self.link.api(f"CONSUMER.LIST.{self.names.stream}", {"offset": len(found)})
            some = page.get("consumers") or []
            found += some
            if not some or len(found) >= int(page.get("total", 0)):
                return found

    async def places(self, target: str) -> list[str]:
        """Return the places that an inport has."""
        start = self.names.consumer(target) + "@"
        found: list[str] = []
        offset = 0
        while True:
            page = await self.link.api(f"CONSUMER.NAMES.{self.names.stream}", {"offset": offset})
            some = page.get("consumers") or []
            offset += len(some)
            found += [
                place_of(target, int(name[len(start) :]))
                for name in some
                if name.startswith(start) and name[len(start) :].isdecimal()
            ]
            if not some or offset >= int(page.get("total", 0)):
                return found

    async def ensure(self, queue: str, retention: float | None) -> float:
        """Make a work queue (and its keeper of dead letters) or a place, as the records want it.

        Args:
            queue: the work queue or place.
            retention: seconds that a place outlives its participant; ``None``: as it is, or the
                default. For places only.

        Returns:
            The redelivery time of the consumer, in seconds.
        """
        target, instance = queue_of_place(queue)
        if instance is None:
            target = queue
        info = await self._fits(queue, retention)
        if info is None:
            async with self.locked(target):
                await self.load()
                info = await self._make(queue, retention)
                if instance is None and not self.is_routed(queue):
                    await self._make_keeper(queue)
        return int(info["config"].get("ack_wait", 0)) / 1e9 or self.link.address.redelivery

    async def _fits(self, queue: str, retention: float | None) -> dict[str, Any] | None:
        """Return the state of a consumer that needs no change."""
        await self.load()
        _, instance = queue_of_place(queue)
        info = await self.info(self.names.consumer(queue))
        wanted = filters_of(self.names, queue, self.open_records())
        if info is None or not set(wanted) <= set(_filters(info)):
            return None
        if instance is None:
            if not self.is_routed(queue) and await self.info(self.names.keeper(queue)) is None:
                return None
        else:
            retention = _retention_of(info) if retention is None else retention
            # Of a place that is kept for now the retention counts once its binding is removed.
            if (self._inactive(queue, retention), retention) != (
                _inactive_of(info),
                _retention_of(info),
            ):
                return None
        return info

    def _inactive(self, queue: str, retention: float) -> float:
        target, instance = queue_of_place(queue)
        if instance is None or (instance == 1 and self.is_place_bound(target)):
            return 0.0
        return retention

    async def _make(self, queue: str, retention: float | None = None) -> dict[str, Any]:
        """Make a consumer, or give it what it lacks. To be called with the lock.

        Args:
            queue: the work queue or place.
            retention: seconds; ``None``: as it is, or the default.
        """
        name = self.names.consumer(queue)
        address = self.link.address
        info = await self.info(name)
        if info is None:
            retention = DEFAULT_RETENTION if retention is None else retention
            config = consumer_config(
                name,
                queue,
                filters_of(self.names, queue, self.open_records()),
                redelivery=address.redelivery,
                replicas=address.replicas,
                inactive=self._inactive(queue, retention),
                retention=retention,
            )
            return await self._create(config, "create")
        if retention is None:
            retention = _retention_of(info)
        wanted = filters_of(self.names, queue, self.records.values())
        filters = sorted({*_filters(info), *wanted})
        return await self._update(info, filters, self._inactive(queue, retention), retention)

    async def _create(self, config: dict[str, Any], action: str) -> dict[str, Any]:
        stream = self.names.stream
        return await self.link.api(
            f"CONSUMER.CREATE.{stream}.{config['name']}",
            {"stream_name": stream, "config": config, "action": action},
        )

    async def _update(
        self, info: dict[str, Any], filters: list[str], inactive: float, retention: float
    ) -> dict[str, Any]:
        if (
            filters == sorted(_filters(info))
            and inactive == _inactive_of(info)
            and retention == _retention_of(info)
        ):
            return info
        config = dict(info["config"])
        config["metadata"] = dict(config.get("metadata") or {}) | {
            "msgflo.retention": str(retention)
        }
        config.setdefault("name", info["name"])
        config.pop("filter_subject", None)
        config["filter_subjects"] = filters
        config.pop("inactive_threshold", None)
        if inactive > 0:
            config["inactive_threshold"] = int(inactive * 1e9)
        return await self._create(config, "update")

    async def _make_keeper(self, queue: str, *, kept: bool = False) -> int:
        """Make the keeper of an inport's dead letters. To be called with the lock.

        Returns:
            The last number that it does not keep, if it was made just now.
        """
        names = self.names
        name = names.keeper(queue, kept=kept)
        info = await self.info(name)
        if info is None:
            address = self.link.address
            config = consumer_config(
                name,
                f"dead-{queue}",
                [names.kept(queue) if kept else names.dead(queue)],
                redelivery=address.redelivery,
                replicas=address.replicas,
            )
            info = await self._create(config, "create")
        return int(info["delivered"]["stream_seq"])

    # Binding.

    async def bind(self, binding: Binding) -> None:
        """Carry out a binding. Idempotent; finishes what another began and did not finish."""
        target = binding.target
        queues = [target]
        if binding.kind is Kind.DEADLETTER:
            queues.append(binding.source)
        async with self.locked(*queues):
            await self.load()
            await self._make(target)
            if not self.is_routed(target):
                await self._make_keeper(target)
            known = self.records.get(self.names.record(binding))
            record = known or Record(binding, self.epoch)
            if not record.open:
                record = record.opened(await self.last_sequence() + 1)
                await self.store(record)
            if leads_to_place(binding):
                for place in {place_of(target, 1), *await self.places(target)}:
                    await self._make(place)
            else:
                await self._make(target)
            if binding.kind is Kind.DEADLETTER:
                await self._route_deadletters(binding.source, record)

    async def unbind(self, binding: Binding) -> None:
        """Remove a binding. Idempotent."""
        queues = [binding.target]
        if binding.kind is Kind.DEADLETTER:
            queues.append(binding.source)
        async with self.locked(*queues):
            await self.load()
            record = self.records.get(self.names.record(binding))
            if record is None:
                return
            if record.open:
                if binding.kind is Kind.DEADLETTER and not any(
                    other.binding.kind is Kind.DEADLETTER
                    and other.binding.source == binding.source
                    and other.binding != binding
                    for other in self.open_records()
                ):
                    # What comes from the moment on at which the keeper is there is its own.
                    last = await self._make_keeper(binding.source)
                else:
                    last = await self.last_sequence()
                await self.store(record.closed(last))
            await self._tidy(binding.target)

    async def tidy(self, target: str) -> None:
        """Take away the filters of removed bindings whose messages are all processed."""
        if any(
            record.binding.target == target and not record.open for record in self.records.values()
        ):
            async with self.locked(target):
                await self.load()
                await self._tidy(target)

    async def _tidy(self, target: str) -> None:
        closed = [
            record
            for record in self.records.values()
            if record.binding.target == target and not record.open
        ]
        if not closed:
            return
        places = await self.places(target)
        remaining: set[str] = set()
        for queue in [target, *places]:
            mine = [
                record for record in closed if leads_to_place(record.binding) == (queue != target)
            ]
            info = await self.info(self.names.consumer(queue)) if mine else None
            if info is None:
                continue
            drained = {
                self.names.source(record.binding)
                for record in mine
                if is_drained(info, record.last)
            }
            filters = filters_of(self.names, queue, self.records.values(), drained)
            retention = _retention_of(info)
            inactive = self._inactive(queue, retention)
            await self._update(info, filters, inactive, retention)
            remaining |= {self.names.source(record.binding) for record in mine} - drained
        for record in closed:
            if self.names.source(record.binding) not in remaining:
                await self.forget(record.binding)

    # Dead letters.

    async def _route_deadletters(self, source: str, record: Record) -> None:
        """Let future dead letters of an inport go to where they are bound; keep what is there."""
        names = self.names
        name = names.keeper(source)
        if await self.info(name) is None:
            return
        first = record.spans[-1][0]
        subject = names.dead(source)
        async for stored in self.read(names.stream, subject):
            if stored.sequence >= first:
                break
            if not self._kept_here(source, stored.sequence):
                continue
            await self._make_keeper(source, kept=True)
            headers = dict(stored.headers)
            headers["Nats-Msg-Id"] = f"kept:{source}:{stored.sequence}"
            await self.store_message(names.kept(source), stored.body, headers)
            await self.delete(stored.sequence)
        with contextlib.suppress(ApiError):
            await self.link.api(f"CONSUMER.DELETE.{names.stream}.{name}")

    def _kept_here(self, queue: str, sequence: int) -> bool:
        """Tell whether a dead letter waits in its own queue, not on its way elsewhere."""
        return not any(
            record.binding.kind is Kind.DEADLETTER
            and record.binding.source == queue
            and record.wants(sequence)
            for record in self.records.values()
        )

    async def dead_letters(
        self, queue: str, first: int = 1, batch: int = 500
    ) -> AsyncIterator[Stored]:
        """Yield the dead letters that wait in an inport's dead-letter queue, oldest first."""
        for subject in (self.names.kept(queue), self.names.dead(queue)):
            async for stored in self.read(self.names.stream, subject, first, batch):
                if self._is_letter(queue, stored):
                    yield stored

    async def dead_letter(self, queue: str, sequence: int) -> Stored | None:
        """Return the dead letter of this number, if it waits in this inport's queue."""
        if sequence < 1:
            return None
        reply = await self.link.ask(
            f"$JS.API.DIRECT.GET.{self.names.stream}", json.dumps({"seq": sequence}).encode()
        )
        found = stored_message(reply)
        return found if found is not None and self._is_letter(queue, found) else None

    def _is_letter(self, queue: str, stored: Stored) -> bool:
        if stored.subject == self.names.kept(queue):
            return True
        return stored.subject == self.names.dead(queue) and self._kept_here(queue, stored.sequence)

    async def delete(self, sequence: int) -> bool:
        """Delete a message of the stream; ``False`` if there was none."""
        try:
            await self.link.api(
                f"STREAM.MSG.DELETE.{self.names.stream}", {"seq": sequence, "no_erase": True}
            )
        except ApiError:
            return False
        return True


def _filters(info: dict[str, Any]) -> Iterable[str]:
    config = info["config"]
    several = config.get("filter_subjects")
    if several:
        return list(several)
    one = config.get("filter_subject")
    return [one] if one else []


def _inactive_of(info: dict[str, Any]) -> float:
    return int(info["config"].get("inactive_threshold") or 0) / 1e9


def _retention_of(info: dict[str, Any]) -> float:
    try:
        found = float((info["config"].get("metadata") or {}).get("msgflo.retention", ""))
    except ValueError:
        return DEFAULT_RETENTION
    return found or DEFAULT_RETENTION


def stored_message(reply: Reply) -> Stored | None:
    """Read the answer to a question for a message; ``None`` if there is none."""
    headers = dict(reply.headers)
    if reply.status:
        return None
    try:
        sequence = int(headers.pop("Nats-Sequence", ""))
    except ValueError:
        return None
    subject = headers.pop("Nats-Subject", "")
    time = headers.pop("Nats-Time-Stamp", "")
    for name in ("Nats-Stream", "Nats-Num-Pending", "Nats-Last-Sequence"):
        headers.pop(name, None)
    return Stored(sequence, subject, headers, reply.body, time)
