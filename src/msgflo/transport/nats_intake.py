"""Taking messages from an inport's place and work queue, as many as there is room for.

Each of the two is a *feed*: a consumer that is asked for so many messages as there is room. Both
share one prefetch, so that together they may bring more than there was room for. When the place
has filled the room, the request to the work queue is withdrawn: the server sees that nobody
listens where the messages should go, and gives them to others. What was on its way already is
given back; what came from the place waits here, as nobody else could have it.

The server forgets how often it delivered a message if it is killed at the wrong moment, and
counts deliveries that were no attempts. So whenever a message is given back the count is stored
first, and read again before the message is delivered.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from msgflo.errors import TransportError
from msgflo.transport.contract import MESSAGE_ID, Delivery, Inlet
from msgflo.transport.nats_link import ApiError, Subscription, read_headers, status_of
from msgflo.transport.nats_topology import read_ack

if TYPE_CHECKING:
    from msgflo.transport.nats import Client

__all__ = ["Counts", "Feed", "Intake", "NatsDelivery"]

log = logging.getLogger("msgflo.transport.nats")

ACK = b"+ACK"
_PROGRESS = b"+WPI"

_EXPIRES = 60.0
_HEARTBEAT = 15.0
_HAND_BACK_AFTER = 0.02
"""Seconds that a message of the work queue may wait here for room."""

_ASK_AGAIN = 0.5
"""Seconds before something is asked again that the broker could not answer."""

_WITHDRAW_EVERY = 0.005
"""Seconds between withdrawals: handlers that take less make room at once anyway."""

_REMEMBERED = 2000
"""So many settled messages are known by their number, in case their settlement was lost."""

_RECLAIMED = 10_000
"""Numbers of a stream among which to look for what a place has open."""

_MOST_BYTES = 32 * 1024 * 1024
"""Of one request: the server ends a connection whose client is behind by 64 MB."""


class Counts(NamedTuple):
    """What is stored of a message that was given back.

    Attributes:
        postponed: how often that was no attempt.
        attempts: how often it was tried.
        delivered: how often the server had delivered it by then.
        due: when it may be delivered again, in milliseconds since 1970: the server forgets that
            if it is killed.
    """

    postponed: int = 0
    attempts: int = 0
    delivered: int = 0
    due: int = 0

    def encode(self) -> bytes:
        """Return what is stored."""
        return b"%d %d %d %d" % self

    @classmethod
    def decode(cls, data: bytes) -> "Counts":
        """Read what is stored; nothing of it is zeros."""
        parts = data.split()
        if len(parts) != 4 or not all(part.isdigit() for part in parts):
            return NOT_COUNTED
        return cls(*map(int, parts))

    def attempt(self, delivered: int) -> int:
        """Return which attempt a delivery is, given how often the server says it was delivered."""
        return self.attempts + max(1, delivered - self.delivered)

    def again(self, delivered: int, delay: float, *, counts: bool) -> "Counts":
        """Return what is to be stored when a delivery is given back, for so many seconds."""
        attempt = self.attempt(delivered)
        due = int((time.time() + delay) * 1000) if delay > 0 else 0
        if counts:
            return Counts(self.postponed, attempt, delivered, due)
        return Counts(self.postponed + 1, attempt - 1, delivered, due)

    def early(self) -> float:
        """Return in how many seconds it is due; 0 if it is."""
        return max(0.0, self.due / 1000 - time.time()) if self.due else 0.0


NOT_COUNTED = Counts()


class NatsDelivery(Delivery):
    """A delivery, and what is needed to end it."""

    __slots__ = ("counts", "delivered", "ended", "feed", "reply", "sequence", "since")

    counts: Counts
    delivered: int

    feed: "Feed"
    reply: bytes
    sequence: int
    since: float
    ended: bool


class _Held:
    """A message that was received and not delivered yet."""

    __slots__ = (
        "asked",
        "block",
        "body",
        "counts",
        "feed",
        "reply",
        "sequence",
        "since",
        "subject",
        "sure",
    )

    def __init__(
        self, feed: "Feed", subject: str, reply: bytes, sequence: int, body: bytes, block: bytes
    ) -> None:
        self.feed = feed
        self.subject = subject
        self.reply = reply
        self.sequence = sequence
        self.body = body
        self.block = block
        self.since = feed.now()
        self.counts: Counts | None = None
        """What was stored of its earlier deliveries, once that is known."""
        self.sure = False
        """Whether the records were read anew for it, as nothing was known of its subject."""
        self.asked = False
        """Whether one of the two is being found out."""


class Feed:
    """One consumer, asked for messages."""

    def __init__(self, intake: "Intake", queue: str, *, shared: bool) -> None:
        self.intake = intake
        self.client = intake.client
        self.queue = queue
        self.shared = shared
        self.consumer = self.client.names.consumer(queue)
        self.redelivery = 10.0
        self.in_flight: dict[int, NatsDelivery] = {}
        # Its oldest entry is found at once; in a dict, behind the gaps of all that left: 2 us.
        self.settled: OrderedDict[int, bytes] = OrderedDict()
        self.counts: dict[int, Counts] = {}
        """What was stored of messages when we began to listen, or did again."""
        self.doubtful = 0
        """Up to this number a message may be one that is here or was settled, though the server
        says that it is new: it has forgotten that it had delivered it."""
        self.returning = 0
        """How many messages are on their way back; asked anew, we would get others before them."""
        self.ended = 0
        """How many messages were settled or buried here, ever."""
        self.outstanding = 0
        self.last_asked = 0.0
        self._requests: dict[int, int] = {}
        self._last_heard = 0.0
        self._next = 0
        self._inbox = ""
        self._cut = 0
        self._subscription: Subscription | None = None
        self._mending: asyncio.Task[None] | None = None
        link = self.client.link
        self._ask_at = f"$JS.API.CONSUMER.MSG.NEXT.{self.client.names.stream}.{self.consumer}"
        self._link = link
        self.now = asyncio.get_running_loop().time

    # Asking.

    def start(self) -> None:
        """Begin to receive."""
        if self._subscription is None:
            self._inbox = f"{self._link.inbox}.p.{self.client.number()}."
            self._cut = len(self._inbox)
            self._subscription = self._link.subscribe(f"{self._inbox}*", self._received)
        self.outstanding = 0
        self._requests.clear()
        self.doubtful = max((*self.in_flight, *self.settled), default=0)

    async def reclaim(self) -> None:
        """Have delivered at once what this place had delivered, and nobody has in hand.

        A participant that died had it, or a connection that broke. The server would wait for the
        redelivery time, and deliver what came later before. Only for places, which nobody shares.
        """
        info = await self.client.wiring.info(self.consumer)
        if info is None or not info["num_ack_pending"]:
            return
        first, last = info["ack_floor"]["stream_seq"] + 1, info["delivered"]["stream_seq"]
        if last - first > _RECLAIMED:
            return
        # The server takes no notice of those that are not open.
        held = {held.sequence for held in self.intake.held if held.feed is self}
        end = f"{info['delivered']['consumer_seq']}.0.0"
        open_ = [
            f"$JS.ACK.{self.client.names.stream}.{self.consumer}.1.{sequence}.{end}".encode()
            for sequence in range(first, last + 1)
            if sequence not in self.in_flight
            and sequence not in self.settled
            and sequence not in held
            and not self.counts.get(sequence, NOT_COUNTED).early()
        ]
        if open_:
            for reply in open_[:-1]:
                self.client.acknowledge(reply, b"-NAK", now_or_never=True)
            # When it answers to the last, it has heard all.
            await self._link.request(open_[-1].decode(), b"-NAK")

    def forget(self) -> int:
        """Forget what was taken from a stream that is gone. Returns how much was in flight."""
        count = len(self.in_flight)
        for delivery in self.in_flight.values():
            delivery.ended = True
        self.in_flight.clear()
        self.settled.clear()
        self.counts.clear()
        self.doubtful = 0
        return count

    def silence(self) -> Subscription | None:
        """Have no more sent; what is on its way still comes until the subscription is cancelled."""
        found, self._subscription = self._subscription, None
        if found is not None:
            self._link.silence(found)
        self.outstanding = 0
        self._requests.clear()
        return found

    def withdraw(self) -> None:
        """Take back what was asked for."""
        found = self.silence()
        if found is not None:
            self.client.find_out(self.retire(found))
        self.start()

    async def retire(self, subscription: Subscription) -> None:
        """Cancel a subscription when nothing is on its way to it any more."""
        try:
            await self._link.barrier()
        except TransportError as error:
            log.debug("%s: %s", self.queue, error)
        finally:
            self._link.cancel(subscription)

    def ask(self, free: int) -> None:
        """Ask for messages, so that as many are on their way as there is room for."""
        wanted = free - self.outstanding
        if wanted <= 0 or self._subscription is None or self._mending is not None:
            return
        if self.returning:
            return
        if self.outstanding and wanted * 2 < self.intake.prefetch:
            return  # soon, and more at once
        self._next += 1
        request = {
            "batch": wanted,
            "expires": int(_EXPIRES * 1e9),
            "idle_heartbeat": int(_HEARTBEAT * 1e9),
        }
        if wanted > 4:
            request["max_bytes"] = max(_MOST_BYTES, 2 * self._link.max_payload)
        if self._link.publish(
            self._ask_at, json.dumps(request).encode(), f"{self._inbox}{self._next}"
        ):
            # Requests that were filled are not heard of again.
            if not self.outstanding or len(self._requests) > 100:
                self._requests.clear()
            self._requests[self._next] = wanted
            self.outstanding += wanted
            self.last_asked = self._last_heard = self.now()

    def keep_alive(self, every: float) -> None:
        """Show the server that somebody is here though nothing was asked for lately.

        No message fits into one byte, so that none is taken.
        """
        if self.now() - self.last_asked > every:
            self.last_asked = self.now()
            self._link.publish(
                self._ask_at,
                b'{"batch":1,"no_wait":true,"max_bytes":1}',
                self._link.nowhere,
            )

    def check(self) -> None:
        """Ask anew if the server was silent where heartbeats were due."""
        if (
            self.outstanding
            and self._subscription is not None
            and self._link.connected
            and self.now() - self._last_heard > 2.5 * _HEARTBEAT
        ):
            self._mend()

    def _mend(self, pause: float = 0.0) -> None:
        """Make the consumer again if it vanished, then ask for all that there is room for."""
        self.outstanding = 0
        self._requests.clear()
        if self._mending is None:
            self._mending = asyncio.get_running_loop().create_task(
                self._mended(pause), name=f"msgflo nats consumer {self.queue}"
            )

    async def _mended(self, pause: float) -> None:
        try:
            await asyncio.sleep(pause)
            await self.client.wiring.ensure(self.queue, self.intake.inlet.retention)
        except TransportError as error:
            log.warning("%s: %s", self.queue, error)
            if isinstance(error, ApiError) and error.code == 404:
                self.client.make_home()  # the stream is gone, too
            await asyncio.sleep(_ASK_AGAIN)
        finally:
            self._mending = None
        self.intake.ask_soon()

    # Receiving.

    def _received(self, subject: bytes, reply: bytes, body: bytes, block: bytes) -> None:
        if not reply or (block and block[8:9] == b" "):
            self._status(subject, block)
            return
        if self.outstanding > 0:
            self.outstanding -= 1
        delivered, sequence, stored = read_ack(reply)
        if delivered == 1 and sequence > self.doubtful and not self.counts:
            since = self.client.wiring.sieve(self.queue).since.get(subject)
            if since is not None and sequence >= since:
                intake = self.intake
                if not intake.held and intake.free > 0 and intake.active:
                    self.deliver(reply, sequence, stored, body, block, 1, NOT_COUNTED)
                else:
                    held = _Held(self, subject.decode(), reply, sequence, body, block)
                    held.counts = NOT_COUNTED
                    intake.hold(held)
                return
        self._examine(subject.decode(), reply, delivered, sequence, body, block)

    def _examine(
        self, subject: str, reply: bytes, delivered: int, sequence: int, body: bytes, block: bytes
    ) -> None:
        """Receive what is not as usual: delivered before, or perhaps not ours."""
        held = _Held(self, subject, reply, sequence, body, block)
        held.counts = self.counts.pop(sequence, None)
        if delivered == 1 and held.counts is None:
            held.counts = NOT_COUNTED
        self.intake.hold(held)

    def has(self, held: _Held) -> bool:
        """Tell whether a message is one that is here or was settled here; the server is told."""
        there = self.in_flight.get(held.sequence)
        if there is not None:
            # It is still being worked on; the connection was away for too long.
            there.reply = held.reply
            return True
        if held.sequence in self.settled:
            self.client.acknowledge(held.reply, ACK)
            return True
        return False

    def deliver(
        self,
        reply: bytes,
        sequence: int,
        stored: int,
        body: bytes,
        block: bytes,
        delivered: int,
        counts: Counts,
    ) -> None:
        """Put a message into the hands of the participant."""
        headers = read_headers(block) if block else {}
        headers.pop("Nats-Msg-Id", None)
        delivery = NatsDelivery(
            self.intake.inlet,
            self.queue,
            body,
            headers,
            headers.get(MESSAGE_ID) or f"{self.client.names.namespace}-{sequence}",
            counts.attempt(delivered),
            counts.postponed,
            stored / 1e9,
        )
        delivery.feed = self
        delivery.reply = reply
        delivery.sequence = sequence
        delivery.since = self.now()
        delivery.delivered = delivered
        delivery.counts = counts
        delivery.ended = False
        self.in_flight[sequence] = delivery
        intake = self.intake
        intake.free -= 1
        if intake.free <= 0 and intake.work.outstanding:
            intake.withdraw()
        try:
            intake.deliver(delivery)
        except Exception:
            log.exception("%s could not be taken; it comes again", delivery)
            self.client.retry(delivery, 1.0)

    def remember(self, delivery: NatsDelivery) -> None:
        """Note that a message was settled, in case the server does not hear of it."""
        settled = self.settled
        settled[delivery.sequence] = delivery.reply
        if len(settled) > _REMEMBERED:
            settled.popitem(last=False)

    def _status(self, subject: bytes, block: bytes) -> None:
        status, text = status_of(block)
        self._last_heard = self.now()
        if status == 100:
            return
        try:
            batch = self._requests.pop(int(subject[self._cut :]), 0)
        except ValueError:
            batch = 0
        if not batch:
            return
        pending = read_headers(block).get("Nats-Pending-Messages", "")
        if status in {408, 404} or pending:
            self.outstanding -= int(pending) if pending.isdecimal() else batch
            self.outstanding = max(0, self.outstanding)
            self.intake.ask_soon()
        elif "MaxWaiting" in text:
            log.warning("%s: too many participants ask at once (%s)", self.queue, text)
            self._mend(1.0)
        else:
            # 503: no consumer; 409: deleted, or its leader changed; 400: nothing that we ask.
            log.log(logging.WARNING if status == 400 else logging.INFO, "%s: %s", self.queue, text)
            self._mend(0.1)


class Intake:
    """What one inport takes."""

    def __init__(self, client: "Client", inlet: Inlet) -> None:
        self.client = client
        self.inlet = inlet
        self.prefetch = 0
        self.free = 0
        self.active = False
        self.deliver: Callable[[Delivery], None] = _nobody
        self.held: deque[_Held] = deque()
        self.place = Feed(self, inlet.place, shared=False)
        self.work = Feed(self, inlet.queue, shared=True)
        self.feeds = (self.place, self.work)
        self._ask_due = False
        self._hand_back_due = False
        self._withdrawn = 0.0
        self._withdraw_due = False

    async def start(self, prefetch: int, deliver: Callable[[Delivery], None]) -> None:
        """Take messages."""
        self.prefetch = prefetch
        self.free = prefetch - sum(len(feed.in_flight) for feed in self.feeds)
        self.deliver = deliver
        for feed in self.feeds:
            feed.counts = await self.client.stored_counts(feed.queue)
        await self.place.reclaim()
        self.active = True
        for feed in self.feeds:
            feed.start()
        self._ask()

    async def stop(self) -> None:
        """Take nothing more, and give back what was not delivered."""
        self.active = False
        silenced = [(feed, feed.silence()) for feed in self.feeds]
        for feed, subscription in silenced:
            if subscription is not None:
                await feed.retire(subscription)
        while self.held:
            self._give_back(self.held.popleft())

    async def restart(self) -> None:
        """Ask anew after a reconnect."""
        if self.active:
            for feed in self.feeds:
                # The server may have lost its own counts.
                feed.counts = await self.client.stored_counts(feed.queue)
            await self.place.reclaim()
            for feed in self.feeds:
                feed.start()
            self._ask()
        self._drain()

    def forget(self) -> None:
        """Forget all that is here of a stream that is gone: it cannot be ended any more."""
        self.held.clear()
        self.free += sum(feed.forget() for feed in self.feeds)

    # Room.

    def ended(self, feed: Feed, delivery: NatsDelivery) -> None:
        """Note that a delivery is not in anybody's hands any more."""
        if feed.in_flight.pop(delivery.sequence, None) is not None:
            self.free += 1
            if not self._ask_due:
                self.ask_soon()

    def ask_soon(self) -> None:
        """Fill up, when all that happens in this turn of the event loop has happened."""
        if not self._ask_due:
            self._ask_due = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._ask_due = False
        if self.held:
            self._drain()
        if self.active:
            free = self.free - len(self.held)
            if free > 0:
                self.place.ask(free)
                self.work.ask(free)

    # What is not delivered at once.

    def withdraw(self) -> None:
        """Leave the work queue's messages to others, as there is no room."""
        now = self.place.now()
        if now - self._withdrawn >= _WITHDRAW_EVERY:
            self._withdrawn = now
            self.work.withdraw()
        elif not self._withdraw_due:
            self._withdraw_due = True
            asyncio.get_running_loop().call_later(_WITHDRAW_EVERY, self._withdraw_later)

    def _withdraw_later(self) -> None:
        self._withdraw_due = False
        if self.active and self.free <= 0 and self.work.outstanding:
            self.withdraw()

    def hold(self, held: _Held) -> None:
        """Keep a message until it is known whose it is, how often it came, and there is room."""
        self.held.append(held)
        self._drain()

    def _drain(self) -> None:
        held_back = False
        while self.held:
            held = self.held[0]
            if held.feed.has(held):
                self.held.popleft()
                self.ask_soon()
                continue
            verdict = self._verdict(held)
            if verdict is None:
                return  # in order: whoever is behind waits too
            if not verdict:
                self.held.popleft()
                self.client.acknowledge(held.reply, ACK)
                self.client.stale(self.inlet.queue)
                self.ask_soon()
                continue
            early = held.counts.early() if held.counts else 0.0
            if early or not self.active:
                self.held.popleft()
                self._give_back(held, early)
                continue
            if self.free <= 0:
                held_back = True
                break
            self.held.popleft()
            delivered, sequence, stored = read_ack(held.reply)
            held.feed.deliver(
                held.reply,
                sequence,
                stored,
                held.body,
                held.block,
                delivered,
                held.counts or NOT_COUNTED,
            )
        if held_back and not self._hand_back_due and any(h.feed.shared for h in self.held):
            self._hand_back_due = True
            asyncio.get_running_loop().call_later(_HAND_BACK_AFTER, self._hand_back)

    def _verdict(self, held: _Held) -> bool | None:
        """Tell whether a message is ours; ``None``: that is being found out."""
        wiring = self.client.wiring
        sieve = wiring.sieve(held.feed.queue)
        if held.asked:
            return None
        if not sieve.knows(held.subject):
            if not held.sure:
                held.asked = True
                self.client.find_out(self._read_records(held))
                return None
            sieve.admit(held.subject)
        if not sieve.passes(held.subject, held.sequence):
            if not held.sure:
                # Nothing is dropped for a record that may have changed since we heard of it.
                held.asked = True
                self.client.find_out(self._read_records(held))
                return None
            return False
        if held.counts is None:
            held.asked = True
            self.client.find_out(self._read_counts(held))
            return None
        return True

    async def _read_records(self, held: _Held) -> None:
        here = list(self.held)
        try:
            await self.client.wiring.load()
        except TransportError:
            await asyncio.sleep(_ASK_AGAIN)
        else:
            for other in here:
                other.sure = True
        held.asked = False
        self._drain()

    async def _read_counts(self, held: _Held) -> None:
        try:
            held.counts = await self.client.read_counts(held.feed.queue, held.sequence)
        except TransportError:
            await asyncio.sleep(_ASK_AGAIN)
        held.asked = False
        self._drain()

    def _hand_back(self) -> None:
        """Let another participant have what there is no room for here."""
        self._hand_back_due = False
        now = asyncio.get_running_loop().time()
        kept: deque[_Held] = deque()
        for held in self.held:
            if held.feed.shared and now - held.since >= _HAND_BACK_AFTER * 0.9:
                self._give_back(held)
            else:
                kept.append(held)
        self.held = kept
        self._drain()

    def _give_back(self, held: _Held, early: float = 0.0) -> None:
        delivered, _, _ = read_ack(held.reply)
        counts = held.counts or NOT_COUNTED
        if early:
            counts = counts._replace(delivered=delivered)  # nobody has seen it
        else:
            counts = counts.again(delivered, 0.0, counts=False)
        feed = held.feed
        feed.returning += 1

        def gone() -> None:
            feed.returning -= 1
            self.ask_soon()

        self.client.give_back(
            feed.queue,
            held.sequence,
            held.reply,
            counts,
            early,
            gone,
        )

    # Time.

    def tick(self, now: float) -> None:
        """Tell the server what is still worked on, and look after the consumers."""
        for feed in self.feeds:
            since = now - feed.redelivery / 4
            for delivery in feed.in_flight.values():
                if delivery.since <= since:
                    self.client.acknowledge(delivery.reply, _PROGRESS, now_or_never=True)
            feed.check()
        for held in self.held:
            if held.since <= now - held.feed.redelivery / 4:
                self.client.acknowledge(held.reply, _PROGRESS, now_or_never=True)
        self.place.keep_alive(self.inlet.retention / 4)


def _nobody(delivery: Delivery) -> None:
    raise AssertionError(f"{delivery} was delivered before anybody consumed")
