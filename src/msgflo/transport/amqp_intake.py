"""Taking messages from an inport's place and work queue, and settling them.

Each of the two is a *feed*: a consumer on the inport's channel, with a prefetch of its own, as
brokers have none for two consumers together. So they may bring more than there is room for. What
comes from the place then waits here, as nobody else could have it. What comes from the work queue
is given back, and that consumer is cancelled until there is room.

Settlements leave once per turn of the event loop: one for everything up to the oldest message that
is not finished, and one for each finished message beyond it.

A channel that ends takes its numbers with it. What is in work goes on, and is known again by its
identity when the broker delivers it once more; what was finished meanwhile is settled then. What a
place delivers again right after its channel has ended, and was never seen here, had not arrived:
nobody had it, and it keeps its turn.
"""

import asyncio
import logging
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgflo.errors import TransportError
from msgflo.transport.amqp_frames import Content, acknowledgement
from msgflo.transport.amqp_link import Arrived, Channel, spec
from msgflo.transport.amqp_topology import ATTEMPTS, DUE, POSTPONED, SOURCE, identity
from msgflo.transport.contract import Delivery, Inlet

if TYPE_CHECKING:
    from msgflo.transport.amqp import Client

__all__ = ["AmqpDelivery", "Feed", "Intake", "Settlements"]

log = logging.getLogger("msgflo.transport.amqp")

_HAND_BACK_AFTER = 0.02
"""Seconds that a message of the work queue may wait here for room, and that there may be none
before the work queue's consumer is cancelled: quick handlers make room at once."""

_SOON = 0.1
_AGAIN_AFTER = 0.5
"""Seconds before a consumer is begun anew that could not be."""

_EARLY = 0.01
"""Seconds that a message may be early: clocks differ more."""

_REMEMBERED = 20_000
_REMEMBERED_FOR = 120.0
"""So many finished messages of a queue are known by their identity, for so many seconds, to drop
those that a sender sends again, and to settle those that are delivered again."""

Identity = tuple[str, ...] | None


class AmqpDelivery(Delivery):
    """A delivery, and what is needed to end it."""

    __slots__ = (
        "acked",
        "channel",
        "consumer",
        "ended",
        "feed",
        "finished",
        "identity",
        "ours",
        "source",
        "tag",
    )

    feed: "Feed"
    channel: "Settlements"
    """Where it is to be settled."""
    tag: int
    identity: Identity
    source: str
    ours: bool
    consumer: int
    """Which of the feed's consumers brought it."""
    ended: bool
    """Whether the participant has done with it."""
    finished: bool
    """Whether the broker may forget it."""
    acked: bool


class Settlements:
    """What was delivered on one channel and is not settled there."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._open: deque[AmqpDelivery] = deque()
        self._beyond: list[AmqpDelivery] = []
        self._due = False
        self._loop = asyncio.get_running_loop()

    @property
    def alive(self) -> bool:
        """Whether the channel is open."""
        return self._channel.open

    def add(self, delivery: AmqpDelivery) -> None:
        """Note what was delivered, in the order of the channel's numbers."""
        self._open.append(delivery)

    def finish(self, delivery: AmqpDelivery) -> None:
        """Have a message settled in this turn of the event loop."""
        delivery.finished = True
        self._beyond.append(delivery)
        if not self._due:
            self._due = True
            self._loop.call_soon(self.flush)

    def requeue_later(self, delivery: AmqpDelivery, pause: float) -> None:
        """Have the broker deliver a message again, in so many seconds."""
        self._loop.call_later(pause, self._requeue, delivery)

    def _requeue(self, delivery: AmqpDelivery) -> None:
        delivery.finished = delivery.acked = True
        self._channel.tell(spec.Basic.Nack(delivery_tag=delivery.tag, requeue=True))

    def flush(self) -> None:
        """Tell the broker what is finished."""
        self._due = False
        beyond, self._beyond = self._beyond, []
        if not self._channel.open:
            return
        waiting = self._open
        last, count = 0, 0
        while waiting and waiting[0].finished:
            delivery = waiting.popleft()
            if not delivery.acked:
                # Only a number that is not settled yet may be the last of several.
                delivery.acked = True
                last = delivery.tag
                count += 1
        number = self._channel.number
        if last:
            self._channel.write(acknowledgement(number, last, multiple=count > 1))
        for delivery in beyond:
            if not delivery.acked:
                delivery.acked = True
                self._channel.write(acknowledgement(number, delivery.tag, multiple=False))


class Feed:
    """One queue that an inport takes from."""

    def __init__(self, intake: "Intake", queue: str, *, shared: bool) -> None:
        self.intake = intake
        self.client = intake.client
        self.queue = queue
        self.shared = shared
        self.in_flight: dict[Any, AmqpDelivery] = {}
        """What a participant has, or waits here for it, by identity."""
        self.leaving: dict[Any, AmqpDelivery] = {}
        """What is given back and is not safe in its queue yet."""
        self.ended = 0
        """How many messages were settled or buried here, ever."""
        self.credit = 0
        """So many messages our consumers may have under way."""
        self.under_way = 0
        """So many of them are not finished."""
        self._consumers: dict[int, int] = {}
        self._number = 0
        # Its oldest entry is found at once; in a dict, behind the gaps of all that left: 2 us.
        self._finished: OrderedDict[Identity, float] = OrderedDict()
        self._untouched: set[Identity] = set()
        self._resuming = False
        """Whether what is delivered again had been on its way to us when the channel ended."""

    # The consumers: one, and more for room that comes later, as a credit cannot be changed.

    async def start(self, channel: Channel, settlements: Settlements, credit: int) -> None:
        """Begin to receive, so many messages more than before.

        Raises:
            TransportError: the queue is gone, or the channel.
        """
        self._number += 1
        number, tag = self._number, self._tag(self._number)

        def receive(arrived: Arrived) -> None:
            self._receive(arrived, settlements, number)

        self._consumers[number] = credit
        self.credit += credit
        channel.consumers[tag.encode()] = receive
        try:
            channel.ask(spec.Basic.Qos(prefetch_count=min(credit, 65535)))
            await channel.call(spec.Basic.Consume(queue=self.queue, consumer_tag=tag, arguments={}))
        except BaseException:
            self.lost(tag)
            channel.consumers.pop(tag.encode(), None)
            raise

    def _tag(self, number: int) -> str:
        return f"{'work' if self.shared else 'place'}-{number}"

    def lost(self, tag: str) -> bool:
        """Note that a consumer has ended; ``False`` if it was none of ours."""
        for number, credit in self._consumers.items():
            if self._tag(number) == tag:
                del self._consumers[number]
                self.credit -= credit
                if not self._consumers:
                    self.under_way = 0
                return True
        return False

    async def stop(self, channel: Channel | None) -> None:
        """Receive nothing more; returns when nothing is on its way any more."""
        numbers = list(self._consumers)
        self._no_consumers()
        for number in numbers:
            tag = self._tag(number)
            if channel is not None and channel.open:
                try:
                    await channel.call(spec.Basic.Cancel(consumer_tag=tag))
                except TransportError as error:
                    log.debug("cancelling a consumer of %s: %s", self.queue, error)
                channel.consumers.pop(tag.encode(), None)

    def _no_consumers(self) -> None:
        self._consumers.clear()
        self.credit = self.under_way = 0

    def cut_off(self) -> None:
        """Note that the channel has ended: what waits here untouched comes again."""
        self._no_consumers()
        self._untouched.clear()
        self._resuming = not self.shared
        for delivery in self.intake.held:
            if delivery.feed is self:
                self._untouched.add(delivery.identity)

    # Receiving.

    def _receive(self, arrived: Arrived, settlements: Settlements, number: int) -> None:
        content = arrived.content
        headers = content.headers
        id_ = content.id or headers.get("Msgflo-Id", "")
        known = identity(arrived.exchange, headers, id_, ours=content.ours)
        attempt, postponed, due, source = 1, 0, 0, arrived.exchange
        if len(headers) > 2 or not id_:
            id_ = id_ or f"amqp-{uuid.uuid4().hex}"
            attempt += _number(headers.pop(ATTEMPTS, ""))
            postponed = _number(headers.pop(POSTPONED, ""))
            due = _number(headers.pop(DUE, ""))
            source = headers.pop(SOURCE, source)
        delivery = AmqpDelivery(
            self.intake.inlet,
            self.queue,
            arrived.body,
            headers,
            id_,
            attempt + content.delivered,
            postponed,
            content.sent,
        )
        delivery.feed = self
        delivery.channel = settlements
        delivery.tag = arrived.tag
        delivery.identity = known
        delivery.source = source
        delivery.ours = content.ours or not content.id
        delivery.consumer = number
        delivery.ended = delivery.finished = delivery.acked = False
        settlements.add(delivery)
        if number in self._consumers:
            self.under_way += 1
        if self._resuming and not arrived.redelivered:
            self._resuming = False
        if (
            arrived.redelivered
            or (known is not None and (known in self._finished or known in self.in_flight))
        ) and not self._is_new(delivery, arrived, content):
            return
        if due and (early := due / 1000 - time.time()) > _EARLY:
            self.give_back(delivery, attempt - 1, early)
            return
        self.in_flight[known or delivery] = delivery
        self.intake.offer(delivery)

    def _is_new(self, delivery: AmqpDelivery, arrived: Arrived, content: Content) -> bool:
        """Tell whether a message that looks as if it had been here is to be delivered."""
        known = delivery.identity
        if known is not None:
            there = self.in_flight.get(known) or self.leaving.get(known)
            if there is not None:
                if there.channel.alive:
                    # Sent twice: the one that is here is enough.
                    self.finish(delivery)
                else:
                    self._take_up(there, delivery)
                return False
            if known in self._finished:
                self.finish(delivery)
                return False
            if known in self._untouched:
                self._untouched.discard(known)
                return True
        if arrived.redelivered and not content.delivered and not self._resuming:
            # Whoever had it died. The count must be safe before anybody has it again.
            self.give_back(delivery, delivery.attempt)
            return False
        return True

    def give_back(self, delivery: AmqpDelivery, attempts: int, delay: float = 0.0) -> None:
        """Have a message that no participant has seen delivered again, to anybody."""
        known = delivery.identity or delivery
        self.leaving[known] = delivery

        def done() -> None:
            self.leaving.pop(known, None)
            self.finish(delivery)

        self.client.give_back(delivery, attempts, delivery.postponed, delay, done)

    def requeue(self, delivery: AmqpDelivery, pause: float) -> None:
        """Have the broker itself deliver a message again that could not be given back."""
        if self.leaving.pop(delivery.identity or delivery, None) is None:
            self.intake.ended(delivery)
        if delivery.consumer in self._consumers:
            self.under_way -= 1
        delivery.channel.requeue_later(delivery, pause)

    def _take_up(self, there: AmqpDelivery, again: AmqpDelivery) -> None:
        """Have what is in work here settled where it was delivered again."""
        settlements = again.channel
        settlements._open.pop()
        there.channel = settlements
        there.tag = again.tag
        there.consumer = again.consumer
        there.acked = there.finished = False
        settlements.add(there)

    # Ending.

    def finish(self, delivery: AmqpDelivery) -> None:
        """Have the broker forget a message, which makes room for another."""
        delivery.channel.finish(delivery)
        if delivery.consumer in self._consumers:
            self.under_way -= 1

    def remember(self, delivery: AmqpDelivery) -> None:
        """Note that a message is done with, in case it comes again."""
        known = delivery.identity
        if known is None:
            return
        finished = self._finished
        finished[known] = self.intake.now()
        if len(finished) > _REMEMBERED:
            finished.popitem(last=False)

    def forget(self) -> None:
        """Forget what was done with long ago."""
        limit = self.intake.now() - _REMEMBERED_FOR
        for known in [known for known, at in self._finished.items() if at < limit]:
            del self._finished[known]


class Intake:
    """What one inport takes."""

    def __init__(self, client: "Client", inlet: Inlet) -> None:
        self.client = client
        self.inlet = inlet
        self.prefetch = 0
        self.free = 0
        self.active = False
        self.deliver: Callable[[Delivery], None] = _nobody
        self.held: deque[AmqpDelivery] = deque()
        self.place = Feed(self, inlet.place, shared=False)
        self.work = Feed(self, inlet.queue, shared=True)
        self.feeds = (self.place, self.work)
        self.now = asyncio.get_running_loop().time
        self.channel: Channel | None = None
        self._settlements: Settlements | None = None
        self._starting = asyncio.Lock()
        self._look_due = False
        self._full_since = 0.0
        self._changing = False
        self._anew = False

    # Beginning and ending to take.

    async def start(self, prefetch: int, deliver: Callable[[Delivery], None]) -> None:
        """Take messages."""
        async with self._starting:
            await self._stop()
            self.prefetch = prefetch
            self.deliver = deliver
            self.active = True
            self._count()
            await self._begin()
        self._hand_out()

    def _count(self) -> None:
        out = sum(len(feed.in_flight) for feed in self.feeds) - len(self.held)
        self.free = self.prefetch - out

    async def _begin(self) -> None:
        if self.channel is None or not self.channel.open:
            self.channel = await self.client.link.channel()
            self.channel.ended = self._ended
            self.channel.cancelled = self._cancelled
            self._settlements = Settlements(self.channel)
        assert self._settlements is not None
        await self.client.wiring.ensure(self.inlet.place, self.inlet.retention)
        await self.client.wiring.ensure(self.inlet.queue)
        if not self.place.credit:
            await self.place.start(self.channel, self._settlements, self.prefetch)
        await self._fill(self.channel, self._settlements)

    async def _fill(self, channel: Channel, settlements: Settlements) -> None:
        """Let the work queue's messages have what room there is."""
        work = self.work
        room = self.free + work.under_way - work.credit
        if room > 0:
            await work.start(channel, settlements, room)

    async def stop(self) -> None:
        """Take nothing more, and give back what nobody has seen."""
        async with self._starting:
            await self._stop()

    async def _stop(self) -> None:
        self.active = False
        for feed in self.feeds:
            await feed.stop(self.channel)
        self._hand_back()

    async def restart(self) -> None:
        """Take messages again after the channel has ended."""
        async with self._starting:
            if self.channel is not None and self.channel.open:
                return
            if self.active:
                await self._begin()
        self._hand_out()

    def _cut_off(self) -> None:
        """Note that the channel has ended."""
        for feed in self.feeds:
            feed.cut_off()
        for delivery in self.held:
            delivery.feed.in_flight.pop(delivery.identity or delivery, None)
        self.held.clear()

    def _ended(self, reason: Exception) -> None:
        self._cut_off()
        if self.client.link.connected and not self.client.closed:
            log.warning("the broker closed the channel of %s: %s", self.inlet.queue, reason)
            self._begin_anew(_SOON)

    def _cancelled(self, tag: str) -> None:
        for feed in self.feeds:
            if feed.lost(tag):
                log.warning("the broker ended the consumer of %r; it is begun anew", feed.queue)
                self._begin_anew(_SOON)

    def _begin_anew(self, pause: float) -> None:
        if not self.client.closed and not self._anew:
            self._anew = True
            self.client.find_out(self._begun_anew(pause))

    async def _begun_anew(self, pause: float) -> None:
        await asyncio.sleep(pause)
        self._anew = False
        try:
            async with self._starting:
                if self.active and self.client.link.connected:
                    await self._begin()
        except TransportError as error:
            log.warning("%s: %s", self.inlet.queue, error)
            if self.client.link.connected:
                self._begin_anew(_AGAIN_AFTER)

    # Room.

    def offer(self, delivery: AmqpDelivery) -> None:
        """Deliver a message if there is room, or keep it until there is."""
        if self.free > 0 and self.active and not self.held:
            self._hand(delivery)
        elif not self.active and delivery.feed.shared:
            self._give_back(delivery)
        else:
            self.held.append(delivery)
            self._look_soon()

    def _hand(self, delivery: AmqpDelivery) -> None:
        self.free -= 1
        if self.free <= 0:
            self._full_since = self.now()
            work = self.work
            if work.credit > work.under_way:
                self._look_soon()
        try:
            self.deliver(delivery)
        except Exception:
            log.exception("%s could not be taken; it comes again", delivery)
            self.client.retry(delivery, 1.0)

    def ended(self, delivery: AmqpDelivery) -> None:
        """Note that a delivery is finished: there is room for another."""
        feed = delivery.feed
        feed.in_flight.pop(delivery.identity or delivery, None)
        self.free += 1
        if self.active:
            if self.held:
                self._hand_out()
            if self.work.credit < self.prefetch:
                self._widen()

    def _hand_out(self) -> None:
        while self.held and self.free > 0 and self.active:
            self._hand(self.held.popleft())

    def _look_soon(self) -> None:
        """Look in a moment whether the work queue's messages are better off elsewhere."""
        if not self._look_due:
            self._look_due = True
            asyncio.get_running_loop().call_later(_HAND_BACK_AFTER, self._look)

    def _look(self) -> None:
        self._look_due = False
        work = self.work
        if self.free > 0 or not self.active:
            return
        shared = any(delivery.feed.shared for delivery in self.held)
        if not shared and work.credit <= work.under_way:
            return
        if self.now() - self._full_since < _HAND_BACK_AFTER:
            self._look_soon()
        elif not self._changing:
            self._changing = True
            self.client.find_out(self._narrow())

    async def _narrow(self) -> None:
        """Have the work queue's messages go to others."""
        try:
            async with self._starting:
                if self.free <= 0 and self.active:
                    await self.work.stop(self.channel)
                    self._hand_back()
        finally:
            self._changing = False
        if self.free > 0:
            self._widen()

    def _widen(self) -> None:
        """Let the work queue's messages have the room that there is, if they have much less."""
        work = self.work
        room = self.free + work.under_way - work.credit
        if (
            room > 0
            and not self._changing
            and self.active
            and (not work.credit or 4 * room >= self.prefetch)
            and self.channel is not None
            and self.channel.open
        ):
            self._changing = True
            self.client.find_out(self._widened())

    async def _widened(self) -> None:
        try:
            async with self._starting:
                channel, settlements = self.channel, self._settlements
                if self.active and channel is not None and settlements is not None:
                    await self._fill(channel, settlements)
        except TransportError as error:
            log.debug("%s: %s", self.inlet.queue, error)
            if self.client.link.connected:
                self._begin_anew(_AGAIN_AFTER)
        finally:
            self._changing = False

    def _hand_back(self) -> None:
        """Give back what came from the work queue and waits for room."""
        kept: deque[AmqpDelivery] = deque()
        for delivery in self.held:
            if delivery.feed.shared:
                self._give_back(delivery)
            else:
                kept.append(delivery)
        self.held = kept

    def _give_back(self, delivery: AmqpDelivery) -> None:
        feed = delivery.feed
        feed.in_flight.pop(delivery.identity or delivery, None)
        feed.give_back(delivery, delivery.attempt - 1)

    def flush(self) -> None:
        """Tell the broker now what is finished."""
        if self._settlements is not None:
            self._settlements.flush()

    # From time to time.

    async def tick(self) -> None:
        """Forget what is old, and keep a place from expiring from which nothing is taken now."""
        for feed in self.feeds:
            feed.forget()
        if not self.place.credit and self.client.link.connected:
            await self.client.wiring.ensure(self.inlet.place, self.inlet.retention)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def _nobody(_delivery: Delivery) -> None:
    pass
