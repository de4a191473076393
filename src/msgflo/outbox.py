"""What a participant sends, and which message each packet belongs to.

A :class:`Handling` is one delivery in work. It ends when its handler has finished and everything
that it sent is confirmed; who that is waits for nothing and is no task: the confirmations count
down. The :class:`Outbox` is where packets leave by, from the event loop and from threads, and
bounds what is on its way.

The ids. A packet that a handler sends while it handles a message has an id that follows from that
message, where it waited, the outport, the payload, and how many equal ones were sent before it:
handled again after a crash, the message causes packets with the same ids, which brokers and
receivers can tell from new ones. A handler that does not do the same each time loses nothing by
it: other payloads have other ids.
"""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

from msgflo.errors import ConnectionLost
from msgflo.failure import Failure, Kind
from msgflo.meter import Meter, Spot
from msgflo.payload import encode
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Client, Delivery

__all__ = ["CURRENT", "Handling", "Outbox", "Sender"]

CURRENT: ContextVar["Handling | None"] = ContextVar("msgflo_handling", default=None)
"""The message that is being handled, in a handler and whatever it calls."""

LIMIT = 1000
"""Packets: an outbox with so many unconfirmed is full. Some thousand keep any broker busy."""

LIMIT_BYTES = 32 * 1024 * 1024
"""Bytes: so is one that holds so much; a single packet may be larger."""


class Ends(Protocol):
    """Who is told that a handling is over."""

    def end(self, handling: "Handling") -> None:
        """Settle the delivery, or do what its failure demands."""


class Handling:
    """One delivery in work. Used from the event loop alone.

    Attributes:
        delivery: the message.
        failure: why it failed; None as long as it has not.
        finished: whether its handler is done with it.
        manual: whether its handler says itself when it is done.
        returned: whether its handler has returned (with ``ack="manual"`` that is not the same).
        reported: the failure that was told to an outport ``error``, or should have been.
        began: when its handler began, seconds since 1970; 0 as long as it has not.
        spot: where in its trace it is, from when that is first needed.
    """

    __slots__ = (
        "_digests",
        "_owner",
        "_pending",
        "began",
        "delivery",
        "failure",
        "finished",
        "manual",
        "reported",
        "returned",
        "spot",
    )

    def __init__(self, delivery: Delivery, owner: Ends, manual: bool = False) -> None:
        self.delivery = delivery
        self.manual = manual
        self.failure: Failure | None = None
        self.finished = False
        self.returned = False
        self.reported: Failure | None = None
        self.began = 0.0
        self.spot: Spot | None = None
        self._owner = owner
        self._pending = 0
        self._digests: dict[bytes, int] | None = None

    def finish(self, failure: Failure | None = None) -> None:
        """Say that the handler is done with it; what it sent may be on its way. Idempotent."""
        if self.finished:
            return
        self.finished = True
        if failure is not None:
            self.failure = failure
        if not self._pending:
            self._owner.end(self)

    def reopen(self) -> None:
        """Take it up again, to send one more packet on its behalf; then :meth:`finish` again."""
        self.finished = False
        self.failure = None

    def sending(self) -> None:
        """Count a packet that must be confirmed before this is over."""
        self._pending += 1

    def sent(self, error: Exception | None) -> None:
        """Count a confirmation; a packet that the broker did not take fails the message."""
        self._pending -= 1
        if error is not None and self.failure is None:
            self.failure = Failure(Kind.ERROR, type(error).__name__, str(error))
        if self.finished and not self._pending:
            self._owner.end(self)

    def next_id(self, queue: str, body: bytes) -> str:
        """Return the id of the next packet."""
        delivery = self.delivery
        head = f"{delivery.id}\0{delivery.queue}\0{queue}\0".encode("utf-8", "surrogatepass")
        hashed = blake2b(head, digest_size=16)
        hashed.update(body)
        digest = hashed.digest()
        digests = self._digests
        if digests is None:
            self._digests = {digest: 1}
            return digest.hex()
        count = digests.get(digest, 0)
        digests[digest] = count + 1
        if not count:
            return digest.hex()
        return blake2b(digest + count.to_bytes(8), digest_size=16).hexdigest()


class Outbox:
    """Where the packets of one participant leave by.

    Awaiting it waits while it is full.

    Attributes:
        meter: counts what leaves, and what is handled.
    """

    def __init__(
        self,
        client: Client,
        log: "logging.LoggerAdapter[logging.Logger]",
        meter: Meter | None = None,
        *,
        limit: int = LIMIT,
        limit_bytes: int = LIMIT_BYTES,
        remember_loose: bool = False,
    ) -> None:
        """Make one, in the event loop that it is for.

        Args:
            client: what it sends through.
            log: what is told of packets that belong to no message and are not taken.
            meter: counts the packets, and says which trace they belong to.
            limit: how many unconfirmed packets fill it.
            limit_bytes: how many bytes of payload fill it.
            remember_loose: have an acknowledged message wait for the packets, too, that were sent
                before by somebody who does not say for which message.
        """
        self._client = client
        self._log = log
        self.meter = meter or Meter()
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._fill = 0
        self._bytes = 0
        self._prefix = os.urandom(8).hex()
        self._count = 0
        self._loose: dict[int, list[Handling]] | None = {} if remember_loose else None
        self._rooms: list[asyncio.Future[None]] = []
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._called = False
        self._condition = threading.Condition()
        self._threads_waiting = 0
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether senders should wait."""
        return self._fill + len(self._calls) >= self._limit or self._bytes >= self._limit_bytes

    def send(self, queue: str, body: bytes, kind: str) -> None:
        """Send a packet, from any thread; belongs to the message that is being handled, if any.

        In a thread that is not the event loop's this waits while the outbox is full.

        Raises:
            ConnectionLost: (in a thread) the participant has stopped.
        """
        if threading.get_ident() == self._thread:
            self._send(queue, body, kind, CURRENT.get())
            return
        if self.full:
            self._wait_in_thread()
        self.call(self._send, queue, body, kind, CURRENT.get())

    def call(self, function: Callable[..., None], *args: Any) -> None:
        """Have a function called from the event loop, in the order of the calls; from any thread.

        Raises:
            ConnectionLost: the participant has stopped.
        """
        if self.closed:
            raise ConnectionLost("the participant has stopped")
        self._calls.append((function, args))
        if not self._called:
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self.drain)
            except RuntimeError:  # the loop is closed
                raise ConnectionLost("the participant has stopped") from None

    def call_here_or_soon(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function: now, if this is the event loop's thread, else as :meth:`call` does.

        Raises:
            ConnectionLost: (in a thread) the participant has stopped.
        """
        if threading.get_ident() == self._thread:
            self.drain()  # what threads asked for before comes before
            function(*args)
        else:
            self.call(function, *args)

    async def in_thread(self, function: Callable[[], Any], name: str) -> Any:
        """Call a function in a thread of its own, which the process need not wait for at its end.

        Args:
            function: what to call. Cancelling this leaves it running.
            name: the thread's name.

        Returns:
            What the function returns.

        Raises:
            BaseException: what the function raises.
        """
        done: asyncio.Future[Any] = self._loop.create_future()

        def over(result: Any, raised: BaseException | None) -> None:
            if done.done():
                return
            if raised is None:
                done.set_result(result)
            elif isinstance(raised, StopIteration):  # which no future can hold
                done.set_exception(RuntimeError(repr(raised)))
            else:
                done.set_exception(raised)

        def work() -> None:
            result, raised = None, None
            try:
                result = function()
            except BaseException as error:
                raised = error
            with suppress(ConnectionLost):  # the participant has stopped, and nobody waits
                self.call(over, result, raised)

        threading.Thread(target=work, name=name, daemon=True).start()
        return await done

    def drain(self) -> None:
        """Do what threads have asked for."""
        # Cleared first: what is added from now on is either seen below, or asks for another turn.
        self._called = False
        calls = self._calls
        while calls:
            function, args = calls.popleft()
            try:
                function(*args)
            except Exception:  # what others asked for is still to be done
                self._log.exception("a call from a thread failed")
        if self._threads_waiting or self._rooms:
            self._tell_room()

    def close(self) -> None:
        """Let nobody wait any more; from threads nothing is taken any more."""
        self.closed = True
        for room in self._rooms:
            if not room.done():
                room.set_result(None)
        self._rooms.clear()
        with self._condition:
            self._condition.notify_all()

    def wait_for_loose(self, handling: Handling) -> None:
        """Let a message end only after the packets that were sent for nobody knows which."""
        for waiting in (self._loose or {}).values():
            waiting.append(handling)
            handling.sending()

    def __await__(self) -> Generator[Any, None, None]:
        if threading.get_ident() != self._thread:
            return  # sending has waited already
        while self.full and not self.closed:
            room: asyncio.Future[None] = self._loop.create_future()
            self._rooms.append(room)
            yield from room

    def _send(self, queue: str, body: bytes, kind: str, handling: Handling | None) -> None:
        number = 0
        if handling is None or handling.finished:
            handling = None
            number = self._count = self._count + 1
            message_id = f"{self._prefix}-{number:x}"
        else:
            message_id = handling.next_id(queue, body)
        headers = {MESSAGE_ID: message_id, CONTENT_TYPE: kind}
        self.meter.headers(queue, message_id, handling, headers)
        self._client.send(
            queue,
            body,
            headers,
            partial(self._confirmed, len(body), handling, number),
        )
        self._fill += 1
        self._bytes += len(body)
        if handling is not None:
            handling.sending()
        elif self._loose is not None:
            self._loose[number] = []

    def _confirmed(
        self, size: int, handling: Handling | None, number: int, error: Exception | None
    ) -> None:
        self._fill -= 1
        self._bytes -= size
        if handling is not None:
            handling.sent(error)
        else:
            if error is not None and not self.closed:
                self._log.error("a packet was not sent: %s", error)
            if self._loose is not None:
                for waiting in self._loose.pop(number, ()):
                    waiting.sent(error)
        if self._threads_waiting or self._rooms:
            self._tell_room()

    def _tell_room(self) -> None:
        if self.full:
            return
        for room in self._rooms:
            if not room.done():
                room.set_result(None)
        self._rooms.clear()
        if self._threads_waiting:
            with self._condition:
                self._condition.notify_all()

    def _wait_in_thread(self) -> None:
        with self._condition:
            # Counted before looking: whoever makes room after the look sees that somebody waits.
            self._threads_waiting += 1
            try:
                while self.full and not self.closed:
                    self._condition.wait()
            finally:
                self._threads_waiting -= 1


class Sender:
    """An outport at work: what a component calls to send a packet."""

    __slots__ = ("_outbox", "_queue", "name")

    def __init__(self, outbox: Outbox, name: str, queue: str) -> None:
        self.name = name
        self._outbox = outbox
        self._queue = queue

    def __repr__(self) -> str:
        return f"<outport {self.name!r}>"

    def __call__(self, value: Any = None) -> Awaitable[None]:
        """Send a packet; see :class:`msgflo.signature.Out`."""
        self.send(*encode(value))
        return self._outbox

    def send(self, body: bytes, kind: str) -> None:
        """Send a payload of this content type."""
        if self._queue:  # nothing is connected to a hidden port
            self._outbox.send(self._queue, body, kind)
