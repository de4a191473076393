"""What was sent and is not confirmed yet.

Messages leave at once, one behind the other, and confirmations come back by number: there is no
task and no future for a message. What is not confirmed is written again after a reconnect, in its
order; the broker recognises by its id what it has already.
"""

import asyncio
import json
import logging
from collections.abc import Callable

from msgflo.errors import ConnectionLost, SendFailed
from msgflo.transport.contract import Confirmed
from msgflo.transport.nats_link import Link, publication, status_of

__all__ = ["Outbox"]

log = logging.getLogger("msgflo.transport.nats")

_RESEND_AFTER = 5.0
"""Seconds without a confirmation after which a message is written again, though the connection
stands: the server may have refused it while it elected a leader."""

_TICK = 1.0


class _Entry:
    __slots__ = ("confirmed", "data", "since", "what")

    def __init__(self, data: bytes, what: str, confirmed: Confirmed, since: float) -> None:
        self.data = data
        self.what = what
        self.confirmed = confirmed
        self.since = since


class Outbox:
    """Messages on their way into a stream, in order.

    Args:
        link: the connection.
        homeless: called when no stream takes a message; it may be made then.
    """

    def __init__(self, link: Link, homeless: Callable[[], None]) -> None:
        self._link = link
        self._homeless = homeless
        self._entries: dict[int, _Entry] = {}
        self._next = 0
        self._prefix = f"{link.inbox}.a."
        self._cut = len(self._prefix)
        self._subscription = link.subscribe(f"{self._prefix}*", self._answered)
        self._timer: asyncio.TimerHandle | None = None
        self._written_to = 0
        """To which of the link's connections, by their number, everything here was written."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def put(
        self, subject: str, body: bytes, headers: bytes, what: str, confirmed: Confirmed
    ) -> None:
        """Send a message.

        Args:
            subject: where to.
            body: the payload.
            headers: the header block; may be empty.
            what: how to call it in an error.
            confirmed: called once, from the event loop.
        """
        loop = asyncio.get_running_loop()
        size = len(headers) + len(body)
        if self._closed:
            loop.call_soon(confirmed, ConnectionLost(f"{what}: the client was closed"))
            return
        if size > self._link.max_payload:
            loop.call_soon(
                confirmed,
                SendFailed(
                    f"{what} has {size} bytes with its headers; the broker takes at most "
                    f"{self._link.max_payload} (its setting max_payload)"
                ),
            )
            return
        self._next += 1
        data = publication(subject, f"{self._prefix}{self._next}", body, headers)
        self._entries[self._next] = _Entry(data, what, confirmed, loop.time())
        if self._written_to == self._link.opened:
            self._link.write(data)
        # Else resend() writes it, behind what came before it.
        if self._timer is None:
            self._idle.clear()
            self._timer = loop.call_later(_TICK, self._tick)

    def _answered(self, subject: bytes, _reply: bytes, body: bytes, block: bytes) -> None:
        number = int(subject[self._cut :])
        entry = self._entries.get(number)
        if entry is None:
            return
        error: Exception | None = None
        if block and status_of(block)[0] == 503:
            self._homeless()
            return
        if b'"error"' in body:
            error = _refusal(entry.what, body)
            if error is None:
                return
        del self._entries[number]
        if not self._entries:
            self._idle.set()
        entry.confirmed(error)

    def resend(self, older_than: float = 0.0) -> None:
        """Write again what is not confirmed.

        Args:
            older_than: only what was written last so many seconds ago.
        """
        self._written_to = self._link.opened
        now = asyncio.get_running_loop().time()
        for entry in self._entries.values():
            if now - entry.since >= older_than:
                entry.since = now
                self._link.write(entry.data)

    def _tick(self) -> None:
        self._timer = None
        if self._entries and not self._closed:
            if self._link.connected and self._written_to == self._link.opened:
                self.resend(_RESEND_AFTER)
            self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)

    async def empty(self) -> None:
        """Wait until everything is confirmed."""
        while self._entries:
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Give up: what is not confirmed is lost, as far as is known here. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._link.cancel(self._subscription)
        entries, self._entries = self._entries, {}
        self._idle.set()
        loop = asyncio.get_running_loop()
        for entry in entries.values():
            loop.call_soon(
                entry.confirmed,
                ConnectionLost(f"{entry.what}: the client was closed before it was confirmed"),
            )


def _refusal(what: str, body: bytes) -> Exception | None:
    """Return the error of a confirmation that is none; ``None`` if trying again may help."""
    try:
        error = json.loads(body).get("error")
    except ValueError:
        return SendFailed(f"{what}: the broker answered {body[:100]!r}")
    if not error:
        return SendFailed(f"{what}: the broker answered {body[:100]!r}")
    code = int(error.get("code", 0))
    description = error.get("description", "no reason given")
    if code >= 500:
        # Storage is full, a leader is elected: it waits here, and its sender with it.
        log.warning("%s: the broker cannot take it now: %s", what, description)
        return None
    return SendFailed(f"{what}: the broker refused it: {description}")
