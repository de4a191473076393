"""The rules of queues: who gets which message, when, and what becomes of it. Pure.

This is the broker of ``direct://``: no I/O, no clock, no randomness. Whoever runs it feeds it
(:meth:`Queues.send`, :meth:`~Queues.settle`, ...), then asks what is to be delivered
(:attr:`Queues.handed`) and when something will happen by itself (:meth:`Queues.next_deadline`).
``now`` is always in seconds since 1970 and never goes back.

A copy of a message in a queue is in exactly one state::

                     send, enqueue                      settle
                           |                    .---------------------> gone
                           v                    |
      .--------------> waiting ---- handed -> in flight
      |                 ^   ^                 |   |   |
      | due             |   '-- retry(0), ----'   |   '--- bury ---> dead ---> gone (discard)
      |                 |       vanish            |                   |
      '---- delayed     '-------------------------|-------------------'
               ^                 requeue          |
               '------------ retry(delay) --------'

What comes back takes its old place in the order of its queue, so that what nobody delays is
handed out in the order in which it came, however often participants come and go. A place that is
given up (nobody declared it for its retention) takes what it holds with it.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from msgflo.errors import TransportError
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import place_of, queue_of_place
from msgflo.transport.contract import (
    DEFAULT_RETENTION,
    MESSAGE_ID,
    DeadLetter,
    Death,
    Delivery,
    Inlet,
    Tapped,
    requeued_headers,
)

__all__ = ["DUPLICATE_LIMIT", "DUPLICATE_WINDOW", "Consumer", "Handed", "QueueCount", "Queues"]

DUPLICATE_WINDOW = 120.0
"""Seconds: a message whose id came by the same way so recently is not taken again."""

DUPLICATE_LIMIT = 500_000
"""At least so many ids are remembered for each source, and at most twice as many: at more than
4 000 messages a second the window is shorter, in place of memory that grows by gigabytes."""


@dataclass(frozen=True, slots=True)
class QueueCount:
    """What a queue holds and has seen. See :class:`msgflo.transport.contract.QueueStats`.

    Attributes:
        queue, waiting, in_flight, consumers, oldest: as there.
        arrived: messages that came in since the queue was made.
        left: messages that were settled or died since then.
    """

    queue: str
    waiting: int
    in_flight: int
    consumers: int
    oldest: float
    arrived: int
    left: int


class _Copy:
    """A message in one queue. Copies of one message share their body and headers."""

    __slots__ = ("attempts", "body", "headers", "id", "order", "postponed", "queue", "sent")

    def __init__(
        self,
        queue: "_Queue",
        order: int,
        body: bytes,
        headers: Mapping[str, str],
        id: str,  # noqa: A002
        sent: float,
    ) -> None:
        self.queue = queue
        self.order = order
        self.body = body
        self.headers = headers
        self.id = id
        self.sent = sent
        self.attempts = 0
        self.postponed = 0


class Handed(Delivery):
    """A copy in the hands of a consumer. Once ended, or once its consumer vanished, it is stale."""

    __slots__ = ("consumer", "copy")

    def __init__(self, consumer: "Consumer", copy: _Copy) -> None:
        # Written out, because this runs once for each delivery.
        self.inlet = consumer.inlet
        self.queue = copy.queue.name
        self.body = copy.body
        self.headers = copy.headers
        self.id = copy.id
        self.attempt = copy.attempts + 1
        self.postponed = copy.postponed
        self.sent = copy.sent
        self.consumer = consumer
        self.copy = copy


class Consumer:
    """A participant's inport: what takes from one place and one work queue.

    Attributes:
        inlet: which inport.
        prefetch: at most so many are out.
        deliver: for whoever runs the engine to remember whom to call; never called here.
        out: what is out, in the order in which it was handed out.
    """

    __slots__ = ("active", "deliver", "holder", "inlet", "out", "place", "prefetch", "turn", "work")

    def __init__(
        self, holder: Hashable, inlet: Inlet, place: "_Queue", work: "_Queue", prefetch: int
    ) -> None:
        self.holder = holder
        self.inlet = inlet
        self.place = place
        self.work = work
        self.prefetch = prefetch
        self.out: dict[Handed, None] = {}
        self.deliver: Callable[[Delivery], Any] = _nowhere
        self.active = False
        self.turn = False  # whose turn it is where both queues have something: the work queue's?


class _Queue:
    """A work queue (``instance`` is None) or a place."""

    __slots__ = (
        "arrived",
        "consumers",
        "delayed",
        "expires",
        "gone",
        "holders",
        "in_flight",
        "inport",
        "instance",
        "left",
        "name",
        "retention",
        "returned",
        "waiting",
    )

    def __init__(self, inport: "_Inport", name: str, instance: int | None) -> None:
        self.inport = inport
        self.name = name
        self.instance = instance
        self.waiting: deque[_Copy] = deque()
        # What came back, by its old order, all of it older than anything in `waiting`.
        self.returned: list[tuple[int, _Copy]] = []
        self.delayed = 0
        self.in_flight = 0
        self.consumers: deque[Consumer] = deque()
        self.arrived = 0
        self.left = 0
        self.holders: set[Hashable] = set()
        self.retention = DEFAULT_RETENTION
        self.expires: float | None = None
        self.gone = False

    def take(self) -> _Copy:
        return heappop(self.returned)[1] if self.returned else self.waiting.popleft()


class _Inport:
    __slots__ = ("buried", "dead", "name", "places", "raised", "routes", "sources", "work")

    def __init__(self, name: str) -> None:
        self.name = name
        self.work = _Queue(self, name, None)
        self.places: dict[int, _Queue] = {}
        self.sources: set[_Source] = set()  # those that are bound by pubsub
        self.routes: set[str] = set()  # the inports that get its dead letters
        self.dead: dict[int, _Copy] = {}
        self.buried = 0
        self.raised = 0  # dead letters that were requeued or discarded


class _Source:
    __slots__ = ("bindings", "routes", "seen")

    def __init__(self, remembered: int) -> None:
        self.bindings: set[Binding] = set()
        self.routes: tuple[_Queue, ...] | None = ()  # None: to be worked out again
        self.seen = _Seen(remembered)


class _Seen:
    """The ids of the last two minutes, in two generations, so that forgetting costs nothing."""

    __slots__ = ("limit", "old", "since", "young")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.young: dict[str, float] = {}
        self.old: dict[str, float] = {}
        self.since = 0.0

    def is_new(self, id: str, now: float) -> bool:  # noqa: A002
        if now - self.since > DUPLICATE_WINDOW or len(self.young) >= self.limit:
            self.old = self.young
            self.young = {}
            self.since = now
        at = self.young.get(id)
        if at is None:
            at = self.old.get(id)
        if at is not None and now - at <= DUPLICATE_WINDOW:
            return False
        self.young[id] = now
        return True


class Queues:
    """All queues of one broker. Not safe for use by several threads at once.

    Args:
        remembered: how many ids are remembered at least for each source, 1 or more.

    Attributes:
        handed: what is to be delivered, in order. Whoever runs this takes it from the left; what
            is still here was not told to its consumer.
        tapped: what passed a tap, likewise.
    """

    def __init__(self, remembered: int = DUPLICATE_LIMIT) -> None:
        self._remembered = remembered
        self._sources: dict[str, _Source] = {}
        self._inports: dict[str, _Inport] = {}
        self._bindings: set[Binding] = set()
        self._consumers: dict[Hashable, dict[tuple[str, int], Consumer]] = {}
        self._held: dict[Hashable, set[_Queue]] = {}
        self._enqueued: dict[str, _Seen] = {}
        self.handed: deque[Handed] = deque()
        self._taps: dict[str, int] = {}
        self.tapped: deque[Tapped] = deque()
        self._delayed: list[tuple[float, int, _Copy]] = []
        self._expiring: list[tuple[float, int, _Queue]] = []
        self._order = 0

    # What is there.

    def declare(self, holder: Hashable, inlet: Inlet, now: float) -> None:
        """Make an inport's work queue and place; the place is held until ``holder`` vanishes."""
        place = self._place(inlet.queue, inlet.instance, now)
        place.retention = inlet.retention
        place.holders.add(holder)
        self._held.setdefault(holder, set()).add(place)
        self._review(place, now)

    def bind(self, binding: Binding, now: float) -> None:
        """Carry out a connection; make what is missing. Idempotent."""
        if binding in self._bindings:
            return
        self._bindings.add(binding)
        target = self._inport(binding.target)
        if binding.kind is Kind.DEADLETTER:
            self._inport(binding.source).routes.add(binding.target)
            return
        source = self._source(binding.source)
        source.bindings.add(binding)
        source.routes = None
        if binding.kind is Kind.PUBSUB:
            target.sources.add(source)
            self._review(self._place(binding.target, 1, now), now)

    def unbind(self, binding: Binding, now: float) -> None:
        """Remove a connection; what is in queues stays there. Idempotent."""
        if binding not in self._bindings:
            return
        self._bindings.remove(binding)
        if binding.kind is Kind.DEADLETTER:
            self._inports[binding.source].routes.discard(binding.target)
            return
        source = self._sources[binding.source]
        source.bindings.remove(binding)
        source.routes = None
        if binding.kind is Kind.PUBSUB:
            target = self._inports[binding.target]
            target.sources.discard(source)
            if 1 in target.places:
                self._review(target.places[1], now)

    def bindings(self) -> list[Binding]:
        """Return all that is bound, sorted."""
        return sorted(self._bindings)

    def is_bound(self, source: str) -> bool:
        """Tell whether any connection leads away from this source."""
        return source in self._sources and bool(self._sources[source].bindings)

    # What comes in.

    def send(
        self,
        source: str,
        body: bytes,
        headers: Mapping[str, str],
        id: str,  # noqa: A002
        now: float,
    ) -> bool:
        """Put a copy into each queue that the source is bound to.

        Args:
            source: the outport's queue name.
            body: the payload.
            headers: kept as they are, and shared by all copies: not to be changed any more.
            id: the message's id.
            now: the time.

        Returns:
            Whether it was taken; ``False``: its id came from this source within the last two
            minutes.
        """
        found = self._sources.get(source)
        if found is None:
            found = self._source(source)
        if not found.seen.is_new(id, now):
            return False
        routes = found.routes
        if routes is None:
            routes = self._routes(found)
        for queue in routes:
            self._order += 1
            self._put(queue, _Copy(queue, self._order, body, headers, id, now))
        if source in self._taps:
            self.tapped.append(Tapped(source, body, headers, now))
        return True

    def enqueue(
        self,
        queue: str,
        body: bytes,
        headers: Mapping[str, str],
        id: str,  # noqa: A002
        now: float,
    ) -> bool:
        """Put a message into a work queue or a place, made where missing. See :meth:`send`."""
        seen = self._enqueued.get(queue)
        if seen is None:
            seen = self._enqueued[queue] = _Seen(self._remembered)
        if not seen.is_new(id, now):
            return False
        self._insert(queue, body, headers, id, now)
        return True

    # Who takes it out.

    def consume(self, holder: Hashable, inlet: Inlet, prefetch: int, now: float) -> Consumer:
        """Take from an inport's place and work queue until :meth:`pause` or :meth:`vanish`.

        What the same holder still has out from this inport counts towards ``prefetch``. A
        holder's second call for an inport changes the prefetch of the first.

        Raises:
            ValueError: the prefetch is less than 1.
        """
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}; expected 1 or more")
        self.declare(holder, inlet, now)
        mine = self._consumers.setdefault(holder, {})
        consumer = mine.get((inlet.queue, inlet.instance))
        if consumer is None:
            inport = self._inports[inlet.queue]
            consumer = Consumer(holder, inlet, inport.places[inlet.instance], inport.work, prefetch)
            mine[inlet.queue, inlet.instance] = consumer
        consumer.prefetch = prefetch
        if not consumer.active:
            consumer.active = True
            consumer.place.consumers.append(consumer)
            consumer.work.consumers.append(consumer)
        self._fill(consumer)
        return consumer

    def pause(self, consumer: Consumer) -> None:
        """Hand nothing more to a consumer; what is still in :attr:`handed` is taken back."""
        if consumer.active:
            self._stop(consumer)
            self._pump(consumer.place)
            self._pump(consumer.work)

    def vanish(self, holder: Hashable, now: float) -> None:
        """Give up all that a holder has: places, consumers, and what it holds in flight.

        What it was told of and did not end is waiting again, and that counts as an attempt.
        """
        freed: dict[_Queue, None] = {}
        for consumer in self._consumers.pop(holder, {}).values():
            if consumer.active:
                self._stop(consumer)
            freed[consumer.place] = freed[consumer.work] = None
            for handed in consumer.out:
                handed.copy.attempts += 1
                self._give_back(handed.copy)
            consumer.out.clear()
        for queue in freed:
            self._pump(queue)
        for place in self._held.pop(holder, ()):
            place.holders.discard(holder)
            self._review(place, now)

    # How it ends.

    def settle(self, handed: Handed) -> bool:
        """End a delivery: the copy is gone. Returns False, and does nothing, if it is stale."""
        consumer = handed.consumer
        if handed not in consumer.out:
            return False
        del consumer.out[handed]
        queue = handed.copy.queue
        queue.in_flight -= 1
        queue.left += 1
        self._fill(consumer)
        return True

    def retry(self, handed: Handed, delay: float, counts: bool, now: float) -> bool:
        """End a delivery: the copy waits again, not before ``delay`` seconds.

        Returns:
            False, and does nothing, if it is stale.
        """
        consumer = handed.consumer
        if handed not in consumer.out:
            return False
        del consumer.out[handed]
        copy = handed.copy
        if counts:
            copy.attempts += 1
        else:
            copy.postponed += 1
        if delay > 0:
            copy.queue.in_flight -= 1
            copy.queue.delayed += 1
            heappush(self._delayed, (now + delay, copy.order, copy))
        else:
            self._give_back(copy)
            self._pump(copy.queue)
        self._fill(consumer)
        return True

    def bury(self, handed: Handed, death: Death, now: float) -> bool:
        """End a delivery: it is a dead letter of its inport, or goes where those are bound to.

        Returns:
            False, and does nothing, if it is stale.
        """
        consumer = handed.consumer
        if handed not in consumer.out:
            return False
        del consumer.out[handed]
        copy = handed.copy
        queue, inport = copy.queue, copy.queue.inport
        queue.in_flight -= 1
        queue.left += 1
        headers = {**Death.strip(copy.headers), **death.to_headers(), MESSAGE_ID: copy.id}
        for target in sorted(inport.routes):
            self._insert(target, copy.body, headers, copy.id, now)
        if not inport.routes:
            self._order += 1
            inport.dead[self._order] = _Copy(queue, self._order, copy.body, headers, copy.id, now)
            inport.buried += 1
        self._fill(consumer)
        return True

    # Time.

    def tick(self, now: float) -> None:
        """Do what is due: delayed messages wait again, places that nobody wants are given up."""
        woken: dict[_Queue, None] = {}
        while self._delayed and self._delayed[0][0] <= now:
            copy = heappop(self._delayed)[2]
            if not copy.queue.gone:
                copy.queue.delayed -= 1
                heappush(copy.queue.returned, (copy.order, copy))
                woken[copy.queue] = None
        for queue in woken:
            self._pump(queue)
        while self._expiring and self._expiring[0][0] <= now:
            due, _, place = heappop(self._expiring)
            if place.expires == due and not place.gone:
                self._give_up(place)

    def next_deadline(self) -> float | None:
        """Return when :meth:`tick` will have something to do; ``None``: not by itself."""
        while self._delayed and self._delayed[0][2].queue.gone:
            heappop(self._delayed)
        while self._expiring and self._expiring[0][2].expires != self._expiring[0][0]:
            heappop(self._expiring)
        due = [heap[0][0] for heap in (self._delayed, self._expiring) if heap]
        return min(due, default=None)

    # Looking.

    def tap(self, name: str) -> None:
        """Note in :attr:`tapped` what passes a source, or is put into a queue directly."""
        self._taps[name] = self._taps.get(name, 0) + 1

    def untap(self, name: str) -> None:
        """Undo one :meth:`tap`."""
        self._taps[name] -= 1
        if not self._taps[name]:
            del self._taps[name]

    def counts(self, names: Iterable[str] | None, now: float) -> list[QueueCount]:
        """Return what queues hold, sorted by name.

        Args:
            names: work queues, whose places and dead letters are included; those that are not
                there are passed over. ``None``: all.
            now: the time.
        """
        wanted = self._inports if names is None else dict.fromkeys(names)
        since: dict[_Queue, float] = {}
        for _, _, copy in self._delayed:
            since[copy.queue] = min(since.get(copy.queue, now), copy.sent)
        for mine in self._consumers.values():
            for consumer in mine.values():
                for handed in consumer.out:
                    queue = handed.copy.queue
                    since[queue] = min(since.get(queue, now), handed.copy.sent)
        counts = []
        for name in wanted:
            if name not in self._inports:
                continue
            inport = self._inports[name]
            for queue in (inport.work, *inport.places.values()):
                oldest = since.get(queue, now)
                if queue.waiting:
                    oldest = min(oldest, queue.waiting[0].sent)
                for _, copy in queue.returned:
                    oldest = min(oldest, copy.sent)
                counts.append(
                    QueueCount(
                        queue.name,
                        len(queue.waiting) + len(queue.returned) + queue.delayed,
                        queue.in_flight,
                        len(queue.consumers),
                        max(0.0, now - oldest),
                        queue.arrived,
                        queue.left,
                    )
                )
            first = next(iter(inport.dead.values()), None)
            age = 0.0 if first is None else max(0.0, now - first.sent)
            dead = len(inport.dead)
            counts.append(QueueCount(f"dead-{name}", dead, 0, 0, age, inport.buried, inport.raised))
        return sorted(counts, key=lambda count: count.queue)

    # Dead letters.

    def dead_letters(self, queue: str, limit: int, after: str = "") -> list[DeadLetter]:
        """Return dead letters of an inport, oldest first.

        Raises:
            TransportError: ``after`` is not the key of a dead letter.
        """
        last = _key(after) if after else 0
        if last is None:
            raise TransportError(f"{after!r} is not the key of a dead letter")
        letters: list[DeadLetter] = []
        if queue in self._inports:
            for key, copy in self._inports[queue].dead.items():
                if len(letters) >= limit:
                    break
                if key > last:
                    letters.append(_letter(key, queue, copy))
        return letters

    def requeue(self, queue: str, keys: Iterable[str], body: bytes | None, now: float) -> int:
        """Put dead letters back where they died. Returns how many were there."""
        count = 0
        for key, copy in self._unearth(queue, keys):
            letter = _letter(key, queue, copy)
            headers = requeued_headers(letter)
            self._insert(
                letter.death.queue or queue,
                letter.body if body is None else body,
                headers,
                letter.id,
                now,
            )
            count += 1
        return count

    def discard(self, queue: str, keys: Iterable[str]) -> int:
        """Delete dead letters for good. Returns how many were there."""
        return len(self._unearth(queue, keys))

    def _unearth(self, queue: str, keys: Iterable[str]) -> list[tuple[int, _Copy]]:
        inport = self._inports.get(queue)
        found = []
        if inport is not None:
            for text in keys:
                key = _key(text)
                if key is not None and key in inport.dead:
                    found.append((key, inport.dead.pop(key)))
            inport.raised += len(found)
        return found

    # Inside.

    def _source(self, name: str) -> _Source:
        found = self._sources.get(name)
        if found is None:
            found = self._sources[name] = _Source(self._remembered)
        return found

    def _inport(self, name: str) -> _Inport:
        found = self._inports.get(name)
        if found is None:
            found = self._inports[name] = _Inport(name)
        return found

    def _place(self, queue: str, instance: int, now: float) -> _Queue:
        inport = self._inport(queue)
        place = inport.places.get(instance)
        if place is None:
            place = inport.places[instance] = _Queue(inport, place_of(queue, instance), instance)
            for source in inport.sources:
                source.routes = None
            self._review(place, now)
        return place

    def _review(self, place: _Queue, now: float) -> None:
        """Note from when on nobody wants a place."""
        if place.holders or (place.instance == 1 and place.inport.sources):
            place.expires = None
        elif place.expires is None:
            place.expires = now + place.retention
            self._order += 1
            heappush(self._expiring, (place.expires, self._order, place))

    def _give_up(self, place: _Queue) -> None:
        place.gone = True
        inport = place.inport
        if place.instance is not None:
            del inport.places[place.instance]
        for source in inport.sources:
            source.routes = None
        self._enqueued.pop(place.name, None)

    def _routes(self, source: _Source) -> tuple[_Queue, ...]:
        routes: list[_Queue] = []
        for binding in sorted(source.bindings):
            target = self._inports[binding.target]
            if binding.kind is Kind.PUBSUB:
                routes.extend(target.places.values())
            else:
                routes.append(target.work)
        source.routes = tuple(routes)
        return source.routes

    def _insert(
        self,
        name: str,
        body: bytes,
        headers: Mapping[str, str],
        id: str,  # noqa: A002
        now: float,
    ) -> None:
        inport, instance = queue_of_place(name)
        queue = self._inport(name).work if instance is None else self._place(inport, instance, now)
        self._order += 1
        self._put(queue, _Copy(queue, self._order, body, headers, id, now))
        if name in self._taps:
            self.tapped.append(Tapped(name, body, headers, now))

    # After each call, no queue has something waiting while one of its consumers has room.

    def _put(self, queue: _Queue, copy: _Copy) -> None:
        queue.arrived += 1
        # If something is waiting, then nobody has room.
        if queue.consumers and not queue.waiting and not queue.returned:
            consumer = self._with_room(queue)
            if consumer is not None:
                self._hand(consumer, copy)
                return
        queue.waiting.append(copy)

    def _with_room(self, queue: _Queue) -> Consumer | None:
        """Return the next consumer in turn that has room."""
        ring = queue.consumers
        for _ in range(len(ring)):
            consumer = ring[0]
            ring.rotate(-1)
            if len(consumer.out) < consumer.prefetch:
                return consumer
        return None

    def _pump(self, queue: _Queue) -> None:
        while queue.returned or queue.waiting:
            consumer = self._with_room(queue)
            if consumer is None:
                return
            self._hand(consumer, queue.take())

    def _fill(self, consumer: Consumer) -> None:
        """Give a consumer what it has room for, from its place and its work queue by turns."""
        if not consumer.active:
            return
        place, work = consumer.place, consumer.work
        while len(consumer.out) < consumer.prefetch:
            in_place = place.waiting or place.returned
            in_work = work.waiting or work.returned
            if in_place and in_work:
                consumer.turn = not consumer.turn
                queue = work if consumer.turn else place
            elif in_place:
                queue = place
            elif in_work:
                queue = work
            else:
                return
            self._hand(consumer, queue.take())

    def _hand(self, consumer: Consumer, copy: _Copy) -> None:
        handed = Handed(consumer, copy)
        copy.queue.in_flight += 1
        consumer.out[handed] = None
        self.handed.append(handed)

    def _give_back(self, copy: _Copy) -> None:
        """Make what was in flight wait again."""
        copy.queue.in_flight -= 1
        heappush(copy.queue.returned, (copy.order, copy))

    def _stop(self, consumer: Consumer) -> None:
        """Hand nothing more to it, and take back what it was not told of: that was no attempt."""
        consumer.active = False
        consumer.place.consumers.remove(consumer)
        consumer.work.consumers.remove(consumer)
        for _ in range(len(self.handed)):
            handed = self.handed.popleft()
            if handed.consumer is consumer:
                del consumer.out[handed]
                self._give_back(handed.copy)
            else:
                self.handed.append(handed)


def _nowhere(delivery: Delivery) -> None:
    """Stand for a consumer's ``deliver`` until it is set."""


def _key(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


def _letter(key: int, queue: str, copy: _Copy) -> DeadLetter:
    death = Death.from_headers(copy.headers)
    assert death is not None, "bury() writes it"
    return DeadLetter(str(key), queue, copy.id, copy.body, Death.strip(copy.headers), death)
