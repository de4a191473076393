"""What was sent and is not confirmed yet.

Messages leave at once, one behind the other, on one channel, and confirmations come back by
number: there is no task and no future for a message. When the channel ends, whatever is not
confirmed goes out again on the next, in its order.

Publishing to an exchange that is not there ends the channel, so each is seen to first; what is
meant for a queue by its name is *mandatory*: the broker returns it when there is no such queue, and
then the queue is made and the message sent again.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import chain

from msgflo.errors import ConnectionLost, SendFailed, TransportError
from msgflo.transport.amqp_frames import publication
from msgflo.transport.amqp_link import PUBLISHING, Arrived, Channel, Link, Refused, spec
from msgflo.transport.contract import Confirmed

__all__ = ["Outbox"]

log = logging.getLogger("msgflo.transport.amqp")

_AGAIN_AFTER = 0.25
"""Seconds before a message is sent again that the broker could not take (a full queue, a node
that went away)."""

_MOST_RETURNS = 10
"""So often a queue is made again that keeps vanishing before its message arrives."""

_MOST_REFUSALS = 3
"""So often a channel may end on a message before it counts as the message's fault."""

_TOO_LARGE = re.compile(r"message size (\d+) is larger than configured max size (\d+)")


class _Entry:
    __slots__ = (
        "body",
        "confirmed",
        "content",
        "counts",
        "exchange",
        "id",
        "key",
        "make",
        "refusals",
        "returned",
        "returns",
        "what",
        "where",
    )

    where: bytes
    content: bytes
    body: bytes
    exchange: str
    key: str
    id: str
    what: str
    confirmed: Confirmed
    make: Callable[[], Awaitable[None]] | None
    counts: bool
    returned: bool
    returns: int
    refusals: int


class Outbox:
    """Messages on their way to the broker, in order.

    Args:
        link: the connection.
        prepare: makes an exchange, if it is missing, before something is published there.
    """

    def __init__(self, link: Link, prepare: Callable[[str], Awaitable[None]]) -> None:
        self._link = link
        self._prepare = prepare
        self._channel: Channel | None = None
        self._number = 0
        self._open: dict[int, _Entry] = {}
        self._held: deque[_Entry] = deque()
        self._later = 0
        self._known: set[str] = {""}
        self._worker: asyncio.Task[None] | None = None
        self._making: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.sent = 0
        """How many that count are not confirmed."""
        self.largest = 0
        """Bytes that the broker takes as one message; 0 as long as we have not been told."""

    def __len__(self) -> int:
        return len(self._open) + len(self._held) + self._later

    def put(
        self,
        exchange: str,
        where: bytes,
        content: bytes,
        body: bytes,
        what: str,
        confirmed: Confirmed,
        *,
        key: str = "",
        id: str = "",  # noqa: A002 - the word that everybody uses
        make: Callable[[], Awaitable[None]] | None = None,
        counts: bool = False,
    ) -> None:
        """Send a message.

        Args:
            exchange: to where.
            where: the same, with the routing key, as it goes over the wire.
            content: the content header.
            body: the payload.
            what: how to call it in an error.
            confirmed: called once, from the event loop.
            key: the routing key, if the message is mandatory.
            id: the message's id, likewise.
            make: makes the queue that is missing when a mandatory message is returned.
            counts: whether it counts as sent by a participant.
        """
        if self._closed:
            asyncio.get_running_loop().call_soon(
                confirmed, ConnectionLost(f"{what}: the client was closed")
            )
            return
        problem = ""
        if len(content) > self._link.most - 8:
            problem = (
                f"has {len(content)} bytes of headers; this broker takes at most "
                f"{self._link.most - 8} (its setting frame_max)"
            )
        elif self.largest and len(body) > self.largest:
            problem = _too_large(len(body), self.largest)
        if problem:
            asyncio.get_running_loop().call_soon(confirmed, SendFailed(f"{what} {problem}"))
            return
        entry = _Entry()
        channel = self._channel
        entry.where = where
        entry.content = content
        entry.body = body
        entry.exchange = exchange
        entry.key = key
        entry.id = id
        entry.what = what
        entry.confirmed = confirmed
        entry.make = make
        entry.counts = counts
        entry.returned = False
        entry.returns = entry.refusals = 0
        if counts:
            self.sent += 1
        if self._idle.is_set():
            self._idle.clear()
        if (
            channel is not None
            and not self._held
            and exchange in self._known
            and not self._link.blocked
        ):
            self._write(channel, entry)
        else:
            self._held.append(entry)
            self.resume()

    def resume(self) -> None:
        """Send what waits, now that it may be possible."""
        if self._held and not self._closed and (self._worker is None or self._worker.done()):
            self._worker = asyncio.get_running_loop().create_task(
                self._work(), name="msgflo amqp outbox"
            )

    async def _work(self) -> None:
        try:
            while self._held and self._link.connected and not self._link.blocked:
                if self._channel is None:
                    await self._open_channel()
                entry = self._held[0]
                if entry.exchange not in self._known:
                    try:
                        await self._prepare(entry.exchange)
                    except ConnectionLost:
                        raise
                    except TransportError as error:
                        if self._held and self._held[0] is entry:
                            self._held.popleft()
                        self._answer(entry, SendFailed(f"{entry.what}: {error}"))
                        continue
                    self._known.add(entry.exchange)
                while self._held and self._channel is not None:
                    entry = self._held[0]
                    if entry.exchange not in self._known or self._link.blocked:
                        break
                    self._held.popleft()
                    self._write(self._channel, entry)
        except TransportError as error:
            log.debug("the outbox waits: %s", error)
            if self._link.connected and not self._closed:
                asyncio.get_running_loop().call_later(_AGAIN_AFTER, self.resume)

    def _write(self, channel: Channel, entry: _Entry) -> None:
        self._number += 1
        self._open[self._number] = entry
        channel.write(publication(PUBLISHING, entry.where, entry.content, entry.body, channel.most))

    async def _open_channel(self) -> None:
        channel = await self._link.channel(PUBLISHING)
        await channel.call(spec.Confirm.Select())
        if not channel.open:
            return
        channel.confirmed = self._confirmed
        channel.returned = self._returned
        channel.ended = self._ended
        self._number = 0
        self._channel = channel

    # Answers.

    def _confirmed(self, number: int, multiple: bool, taken: bool) -> None:
        entries = self._open
        if multiple:
            numbers = []
            for each in entries:
                if each > number:
                    break
                numbers.append(each)
            for each in numbers:
                self._done(entries.pop(each), taken=taken)
        else:
            entry = entries.pop(number, None)
            if entry is not None:
                self._done(entry, taken=taken)
        if not entries and not len(self):
            self._idle.set()

    def _done(self, entry: _Entry, *, taken: bool) -> None:
        if taken and not entry.returned:
            if entry.counts:
                self.sent -= 1
            entry.confirmed(None)
            return
        self._later += 1
        if not taken:
            log.warning("%s: the broker cannot take it now", entry.what)
            asyncio.get_running_loop().call_later(_AGAIN_AFTER, self._again, entry)
            return
        task = asyncio.get_running_loop().create_task(
            self._make(entry), name="msgflo amqp missing queue"
        )
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    async def _make(self, entry: _Entry) -> None:
        """Make the queue that a message was meant for, and send it again."""
        entry.returned = False
        entry.returns += 1
        problem: Exception | None = None
        if entry.make is None or entry.returns > _MOST_RETURNS:
            problem = SendFailed(f"{entry.what}: there is no queue for it at the broker")
        else:
            try:
                await entry.make()
            except asyncio.CancelledError:
                entry.confirmed(_closed(entry))
                raise
            except ConnectionLost:
                pass  # it is returned once more, after the reconnect
            except TransportError as error:
                problem = SendFailed(f"{entry.what}: {error}")
        if problem is None:
            self._again(entry)
        elif not self._closed:
            self._later -= 1
            self._answer(entry, problem)

    def _again(self, entry: _Entry) -> None:
        self._later -= 1
        if self._closed:
            self._answer(entry, _closed(entry))
        else:
            self._held.append(entry)
            self.resume()

    def _answer(self, entry: _Entry, error: Exception) -> None:
        if entry.counts and not self._closed:
            self.sent -= 1
        if not len(self):
            self._idle.set()
        entry.confirmed(error)

    def _returned(self, arrived: Arrived) -> None:
        for entry in self._open.values():
            if (
                entry.key == arrived.key
                and entry.exchange == arrived.exchange
                and entry.id == arrived.content.id
                and entry.make is not None
                and not entry.returned
            ):
                entry.returned = True
                return
        log.warning("a message to %r was returned: %s", arrived.key, arrived.text)

    # The end of a channel.

    def _ended(self, reason: Exception) -> None:
        self._channel = None
        self._known = {""}
        entries = list(self._open.values())
        self._open.clear()
        faulty: list[_Entry] = []
        if isinstance(reason, Refused):
            log.warning("the broker closed the channel for sending: %s", reason.text)
            faulty = self._at_fault(entries, reason)
        for entry in reversed(entries):
            entry.returned = False
            if entry not in faulty:
                self._held.appendleft(entry)
        loop = asyncio.get_running_loop()
        for entry in faulty:
            problem = reason.text if isinstance(reason, Refused) else str(reason)
            if self.largest and len(entry.body) > self.largest:
                problem = _too_large(len(entry.body), self.largest)
            loop.call_soon(self._answer, entry, SendFailed(f"{entry.what}: {problem}"))
        self.resume()

    def _at_fault(self, entries: list[_Entry], reason: Refused) -> list[_Entry]:
        """Find the messages because of which a channel was closed."""
        large = _TOO_LARGE.search(reason.text)
        if large:
            self.largest = int(large[2])
            return [entry for entry in entries if len(entry.body) > self.largest]
        named = [entry for entry in entries if f"'{entry.exchange}'" in reason.text] or entries[:1]
        if not named:
            return []
        named[0].refusals += 1
        if named[0].refusals < _MOST_REFUSALS:
            return []
        return named

    async def empty(self) -> None:
        """Wait until everything is confirmed."""
        while len(self):
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Give up: what is not confirmed is lost, as far as is known here. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
        for task in self._making:
            task.cancel()
        entries = list(chain(self._open.values(), self._held))
        self._open.clear()
        self._held.clear()
        if self._channel is not None:
            self._channel.ended = None
        self._channel = None
        self.sent = 0
        self._idle.set()
        loop = asyncio.get_running_loop()
        for entry in entries:
            loop.call_soon(entry.confirmed, _closed(entry))


def _closed(entry: _Entry) -> ConnectionLost:
    return ConnectionLost(f"{entry.what}: the client was closed before it was confirmed")


def _too_large(size: int, most: int) -> str:
    return f"has {size} bytes; this broker takes at most {most} (its setting max_message_size)"
