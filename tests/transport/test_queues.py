"""The rules of queues, one by one, and all of them against a model that knows every copy."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from msgflo.errors import TransportError
from msgflo.flow.binding import Binding, Kind
from msgflo.transport.contract import REQUEUED, Death, Inlet
from msgflo.transport.queues import DUPLICATE_WINDOW, Consumer, Handed, QueueCount, Queues

START = 1_700_000_000.0


class Bench:
    """An engine with a clock, and short words for what tests do with it."""

    def __init__(self) -> None:
        self.queues = Queues()
        self.now = START
        self.sent = 0

    def bind(self, kind: Kind, source: str, target: str) -> Binding:
        binding = Binding(kind, source, target)
        self.queues.bind(binding, self.now)
        return binding

    def send(self, source: str, *bodies: str) -> None:
        for body in bodies:
            self.sent += 1
            self.queues.send(source, body.encode(), {}, str(self.sent), self.now)

    def enqueue(self, queue: str, *bodies: str) -> None:
        for body in bodies:
            self.sent += 1
            self.queues.enqueue(queue, body.encode(), {}, str(self.sent), self.now)

    def consume(
        self, queue: str, instance: int = 1, prefetch: int = 1, holder: str = "", kept: float = 600
    ) -> Consumer:
        return self.queues.consume(
            holder or f"holder of {queue}@{instance}",
            Inlet(queue, instance, kept),
            prefetch,
            self.now,
        )

    def handed(self) -> list[Handed]:
        told = list(self.queues.handed)
        self.queues.handed.clear()
        return told

    def bodies(self) -> list[str]:
        return [handed.body.decode() for handed in self.handed()]

    def drain(self) -> list[str]:
        """Settle everything that is handed out, until nothing comes any more."""
        bodies = []
        while told := self.handed():
            for handed in told:
                bodies.append(handed.body.decode())
                self.queues.settle(handed)
        return bodies

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.queues.tick(self.now)

    def count(self, queue: str) -> QueueCount:
        return next(count for count in self.queues.counts(None, self.now) if count.queue == queue)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def death(handed: Handed, error: str = "ValueError") -> Death:
    return Death(queue=handed.queue, role="r", instance=1, error=error, died=START)


def test_consumers_of_a_work_queue_take_turns_while_they_have_room(bench: Bench) -> None:
    consumers = [bench.consume("q", number, 2) for number in (1, 2, 3)]
    bench.enqueue("q", *"abcdefgh")
    told = bench.handed()
    assert [handed.consumer for handed in told] == [*consumers, *consumers]
    assert [handed.body for handed in told] == [b"a", b"b", b"c", b"d", b"e", b"f"]
    bench.queues.settle(told[4])
    (more,) = bench.handed()
    assert (more.consumer, more.body) == (consumers[1], b"g")


def test_place_and_work_queue_are_served_by_turns_within_one_prefetch(bench: Bench) -> None:
    bench.enqueue("q@1", "p1", "p2", "p3")
    bench.enqueue("q", "w1", "w2", "w3")
    consumer = bench.consume("q", 1, 2)
    assert len(consumer.out) == 2
    bodies = bench.drain()
    assert sorted(bodies[:4]) == ["p1", "p2", "w1", "w2"]
    assert sorted(bodies[4:]) == ["p3", "w3"]


def test_a_participant_that_is_full_leaves_shared_messages_to_others(bench: Bench) -> None:
    full, free = bench.consume("q", 1), bench.consume("q", 2)
    bench.enqueue("q@1", "own")
    bench.enqueue("q", "a")
    assert [(h.consumer, h.body) for h in bench.handed()] == [(full, b"own"), (free, b"a")]


def test_what_comes_back_is_handed_out_before_what_came_later(bench: Bench) -> None:
    consumer = bench.consume("q", 1, 3)
    bench.enqueue("q", *"abcde")
    bench.handed()
    bench.queues.vanish(consumer.holder, bench.now)
    bench.consume("q", 2, 1)
    assert bench.drain() == ["a", "b", "c", "d", "e"]


def test_what_nobody_was_told_of_is_no_attempt_when_its_consumer_goes(bench: Bench) -> None:
    consumer = bench.consume("q", 1, 2)
    bench.enqueue("q", "told")
    bench.handed()
    bench.enqueue("q", "untold")
    bench.queues.vanish(consumer.holder, bench.now)
    bench.consume("q", 2, 2)
    assert [(h.body, h.attempt) for h in bench.handed()] == [(b"told", 2), (b"untold", 1)]


def test_pausing_takes_back_what_nobody_was_told_of_and_gives_it_to_others(bench: Bench) -> None:
    first = bench.consume("q", 1, 2)
    bench.enqueue("q", "a", "b")
    bench.queues.pause(first)
    assert bench.bodies() == []
    second = bench.consume("q", 2, 2)
    assert [(h.consumer, h.body, h.attempt) for h in bench.handed()] == [
        (second, b"a", 1),
        (second, b"b", 1),
    ]


def test_a_copy_goes_to_a_twin_of_its_instance_when_its_holder_goes(bench: Bench) -> None:
    first = bench.consume("q", 1)
    bench.enqueue("q@1", "copy")
    bench.handed()
    twin, _ = bench.consume("q", 1, holder="twin"), bench.consume("q", 2)
    bench.queues.vanish(first.holder, bench.now)
    assert [(h.consumer, h.attempt) for h in bench.handed()] == [(twin, 2)]


def test_an_untold_shared_message_goes_to_an_idle_participant_at_once(bench: Bench) -> None:
    first = bench.consume("q", 1, 1)
    bench.enqueue("q", "shared")
    second = bench.consume("q", 2, 1)
    bench.queues.pause(first)
    assert [(h.consumer, h.attempt) for h in bench.handed()] == [(second, 1)]


def test_what_a_paused_participant_gives_back_goes_to_an_idle_one_at_once(bench: Bench) -> None:
    first = bench.consume("q", 1, 1)
    bench.enqueue("q", "shared")
    (handed,) = bench.handed()
    second = bench.consume("q", 2, 1)
    bench.queues.pause(first)
    bench.queues.retry(handed, 0.0, True, bench.now)
    assert [(h.consumer, h.attempt) for h in bench.handed()] == [(second, 2)]


def test_routes_follow_places_and_bindings_between_messages(bench: Bench) -> None:
    binding = bench.bind(Kind.PUBSUB, "s", "q")
    bench.send("s", "1")
    bench.queues.declare("h", Inlet("q", 2, 5), bench.now)
    bench.send("s", "2")
    assert (bench.count("q@1").waiting, bench.count("q@2").waiting) == (2, 1)
    bench.queues.vanish("h", bench.now)
    bench.wait(5)
    bench.send("s", "3")
    bench.queues.declare("h", Inlet("q", 2, 5), bench.now)
    assert (bench.count("q@1").waiting, bench.count("q@2").waiting) == (3, 0)
    bench.queues.unbind(binding, bench.now)
    bench.send("s", "4")
    shared = bench.bind(Kind.ROUNDROBIN, "s", "q")
    bench.send("s", "5")
    bench.queues.unbind(shared, bench.now)
    bench.send("s", "6")
    assert [bench.count(name).waiting for name in ("q", "q@1", "q@2")] == [1, 3, 0]


def test_what_is_open_when_a_consumer_pauses_counts_when_it_goes_on(bench: Bench) -> None:
    consumer = bench.consume("q", 1, 2)
    bench.enqueue("q", *"abc")
    first, _ = bench.handed()
    bench.queues.pause(consumer)
    assert bench.consume("q", 1, 2) is consumer
    assert bench.bodies() == []
    bench.queues.settle(first)
    assert bench.bodies() == ["c"]


def test_a_delayed_retry_is_overtaken_and_comes_when_it_is_due(bench: Bench) -> None:
    bench.consume("q")
    bench.enqueue("q", "later", "b")
    (handed,) = bench.handed()
    bench.queues.retry(handed, 5.0, True, bench.now)
    assert bench.queues.next_deadline() == START + 5
    assert bench.drain() == ["b"]
    bench.wait(4.999)
    assert bench.drain() == []
    bench.wait(0.001)
    (again,) = bench.handed()
    assert (again.body, again.attempt, again.postponed) == (b"later", 2, 0)
    assert bench.queues.next_deadline() is None


def test_several_that_are_due_come_in_their_old_order(bench: Bench) -> None:
    bench.consume("q", 1, 3)
    bench.enqueue("q", *"abc")
    for handed, delay in zip(bench.handed(), (3.0, 2.0, 1.0), strict=True):
        bench.queues.retry(handed, delay, True, bench.now)
    bench.wait(10)
    assert bench.drain() == ["a", "b", "c"]


def test_hand_backs_and_attempts_are_counted_apart(bench: Bench) -> None:
    bench.consume("q")
    bench.enqueue("q", "a")
    seen = []
    for counts in (False, True, False, True):
        (handed,) = bench.handed()
        seen.append((handed.attempt, handed.postponed))
        bench.queues.retry(handed, 0.0, counts, bench.now)
    assert seen == [(1, 0), (1, 1), (2, 1), (2, 2)]


def test_what_was_ended_is_not_ended_again(bench: Bench) -> None:
    bench.consume("q")
    bench.enqueue("q", "a")
    (handed,) = bench.handed()
    assert bench.queues.settle(handed)
    assert not bench.queues.settle(handed)
    assert not bench.queues.retry(handed, 0.0, True, bench.now)
    assert not bench.queues.bury(handed, death(handed), bench.now)
    assert bench.count("q").left == 1
    assert bench.count("dead-q").waiting == 0


def test_what_a_vanished_consumer_held_cannot_be_ended_by_it(bench: Bench) -> None:
    consumer = bench.consume("q")
    bench.enqueue("q", "a")
    (handed,) = bench.handed()
    bench.queues.vanish(consumer.holder, bench.now)
    assert not bench.queues.settle(handed)
    assert bench.count("q").waiting == 1


def test_an_id_is_known_for_two_minutes_at_its_source_alone(bench: Bench) -> None:
    send = bench.queues.send
    bench.bind(Kind.ROUNDROBIN, "s", "q")
    bench.bind(Kind.ROUNDROBIN, "t", "q")
    assert send("s", b"", {}, "id", START)
    assert not send("s", b"", {}, "id", START + DUPLICATE_WINDOW)
    assert send("t", b"", {}, "id", START + 1)
    assert bench.queues.enqueue("q", b"", {}, "id", START + 1)
    assert not bench.queues.enqueue("q", b"", {}, "id", START + 2)
    assert send("s", b"", {}, "id", START + DUPLICATE_WINDOW + 0.01)
    assert bench.count("q").waiting == 4


@pytest.mark.parametrize("quiet", [1.0, 60.0, 119.0])
def test_an_id_is_known_however_the_generations_of_ids_fall(bench: Bench, quiet: float) -> None:
    now = START
    for number in range(10):
        assert bench.queues.send("s", b"", {}, str(number), now)
        now += quiet
        assert not bench.queues.send("s", b"", {}, str(number), now)
        assert bench.queues.send("s", b"", {}, str(number), now + DUPLICATE_WINDOW + 1)
        now += 2 * DUPLICATE_WINDOW + 2


def test_memory_for_ids_is_bounded() -> None:
    queues = Queues(remembered=10)
    for number in range(20):
        queues.send("s", b"", {}, str(number), START)
    assert not queues.send("s", b"", {}, "10", START), "the last ten are known"
    for number in range(20, 30):
        queues.send("s", b"", {}, str(number), START)
    assert queues.send("s", b"", {}, "0", START), "more than twenty are not"


def test_a_place_is_given_up_when_nobody_declared_it_for_its_retention(bench: Bench) -> None:
    bench.bind(Kind.PUBSUB, "s", "q")
    consumer = bench.consume("q", 2, kept=60)
    bench.queues.vanish(consumer.holder, bench.now)
    bench.send("s", "missed")
    assert bench.queues.next_deadline() == START + 60
    bench.wait(59)
    bench.consume("q", 2, kept=60)
    assert bench.drain() == ["missed"]
    bench.wait(100)
    bench.queues.vanish(consumer.holder, bench.now)
    bench.send("s", "lost with its place")
    bench.wait(60)
    assert bench.queues.next_deadline() is None
    bench.consume("q", 2, kept=60)
    assert bench.drain() == []
    bench.send("s", "new")
    assert bench.drain() == ["new"]


def test_the_first_place_is_kept_as_long_as_it_is_bound(bench: Bench) -> None:
    first = bench.bind(Kind.PUBSUB, "s", "q")
    second = bench.bind(Kind.PUBSUB, "t", "q")
    bench.send("s", "a")
    bench.wait(100_000)
    bench.queues.unbind(first, bench.now)
    bench.wait(100_000)
    assert bench.count("q@1").waiting == 1
    bench.queues.unbind(second, bench.now)
    bench.wait(599)
    assert bench.count("q@1").waiting == 1
    bench.wait(1)
    assert [count.queue for count in bench.queues.counts(None, bench.now)] == ["dead-q", "q"]


def test_what_waits_for_a_retry_in_a_place_goes_with_it(bench: Bench) -> None:
    consumer = bench.consume("q", 2, kept=5)
    bench.enqueue("q@2", "a")
    (handed,) = bench.handed()
    bench.queues.retry(handed, 100, True, bench.now)
    bench.queues.vanish(consumer.holder, bench.now)
    bench.wait(5)
    assert bench.queues.next_deadline() is None
    bench.consume("q", 2)
    bench.wait(200)
    assert bench.bodies() == []


def test_dead_letters_go_where_they_are_bound_to(bench: Bench) -> None:
    binding = bench.bind(Kind.DEADLETTER, "q", "failed")
    bench.consume("q")
    bench.enqueue("q", "a", "b")
    (handed,) = bench.handed()
    bench.queues.bury(handed, death(handed, "Reject"), bench.now)
    assert bench.count("dead-q").waiting == 0
    assert bench.count("failed").waiting == 1
    bench.queues.unbind(binding, bench.now)
    (handed,) = bench.handed()
    bench.queues.bury(handed, death(handed), bench.now)
    assert [letter.body for letter in bench.queues.dead_letters("q", 10)] == [b"b"]
    bench.consume("failed")
    (routed,) = bench.handed()
    said = Death.from_headers(routed.headers)
    assert said is not None
    assert (said.error, said.queue, routed.id) == ("Reject", "q", "1")


def test_a_requeued_letter_goes_back_under_its_id_and_starts_anew(bench: Bench) -> None:
    bench.consume("q", 2)
    bench.enqueue("q@2", "a")
    for times in (None, "1", "2"):
        (handed,) = bench.handed()
        assert (handed.queue, handed.attempt, handed.id) == ("q@2", 1, "1")
        assert handed.headers.get(REQUEUED) == times
        bench.queues.bury(handed, death(handed), bench.now)
        (letter,) = bench.queues.dead_letters("q", 10)
        assert bench.queues.requeue("q", [letter.key, letter.key, "77", "x"], None, bench.now) == 1
    assert bench.queues.dead_letters("q", 10) == []


def test_a_key_that_never_was_one_is_refused_for_reading_on(bench: Bench) -> None:
    with pytest.raises(TransportError, match="'x' is not the key"):
        bench.queues.dead_letters("q", 10, "x")


def test_counts_tell_the_age_of_the_oldest_wherever_it_is(bench: Bench) -> None:
    bench.enqueue("q", "a")
    bench.wait(2)
    bench.enqueue("q", "b", "c")
    bench.wait(1)
    assert bench.count("q").oldest == 3
    bench.consume("q", 1, 1)
    (handed,) = bench.handed()
    assert bench.count("q").oldest == 3
    assert (bench.count("q").in_flight, bench.count("q").waiting) == (1, 2)
    bench.queues.retry(handed, 60, True, bench.now)
    assert bench.count("q").oldest == 3
    assert (bench.count("q").in_flight, bench.count("q").waiting) == (1, 2)
    assert bench.drain() == ["b", "c"]
    bench.wait(60)
    assert bench.drain() == ["a"]
    count = bench.count("q")
    assert (count.oldest, count.arrived, count.left, count.consumers) == (0, 3, 3, 1)


def test_a_prefetch_below_one_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="prefetch is 0"):
        bench.consume("q", 1, 0)


# Everything at once, against a model.

INPORTS = ("a", "b")
SOURCES = ("s", "t")
HOLDERS = ("h1", "h2", "h3")
RETENTION = 10.0

inports = st.sampled_from(INPORTS)
sources = st.sampled_from(SOURCES)
holders = st.sampled_from(HOLDERS)
instances = st.integers(1, 2)
kinds = st.sampled_from((Kind.PUBSUB, Kind.ROUNDROBIN))


@dataclass(eq=False)
class ModelCopy:
    queue: str
    id: str
    order: int
    attempts: int = 0
    postponed: int = 0
    due: float | None = None  # waits for a retry
    handed: Handed | None = None  # in flight


@dataclass
class ModelPlace:
    holders: set[str] = field(default_factory=set)
    retention: float = 600.0
    expires: float | None = None


class QueuesMachine(RuleBasedStateMachine):
    """Each copy of each message is waiting, delayed, in flight, settled or dead: exactly one."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = Queues()
        self.now = START
        self.order = 0
        self.copies: list[ModelCopy] = []  # neither settled nor dead
        self.dead: dict[str, list[ModelCopy]] = {name: [] for name in INPORTS}
        self.bound: set[Binding] = set()
        self.places: dict[tuple[str, int], ModelPlace] = {}
        self.consumers: dict[tuple[str, str, int], Consumer] = {}
        self.active: set[Consumer] = set()

    # The model's own rules, written the plain way.

    def place(self, inport: str, instance: int) -> ModelPlace:
        if (inport, instance) not in self.places:
            self.places[inport, instance] = ModelPlace(expires=self.now + 600)
        return self.places[inport, instance]

    def review(self) -> None:
        for (inport, instance), place in self.places.items():
            kept = instance == 1 and any(
                b.kind is Kind.PUBSUB and b.target == inport for b in self.bound
            )
            if place.holders or kept:
                place.expires = None
            elif place.expires is None:
                place.expires = self.now + place.retention

    def arrive(self, queue: str, id_: str) -> None:
        self.order += 1
        self.copies.append(ModelCopy(queue, id_, self.order))

    def put(self, queue: str, id_: str) -> None:
        inport, at, instance = queue.partition("@")
        if at:
            self.place(inport, int(instance))
        self.arrive(queue, id_)

    def waiting(self, queue: str) -> list[ModelCopy]:
        return [
            copy
            for copy in self.copies
            if copy.queue == queue and copy.due is None and copy.handed is None
        ]

    def in_flight(self) -> list[ModelCopy]:
        return [copy for copy in self.copies if copy.handed is not None]

    def collect(self, ordered: bool = True) -> None:
        """Take what is handed out, and check that the model would have handed it out, too."""
        while self.queues.handed:
            handed = self.queues.handed.popleft()
            candidates = self.waiting(handed.queue)
            assert candidates, f"{handed} was handed out, and nothing waits in its queue"
            copy = min(candidates, key=lambda copy: copy.order)
            if not ordered:
                copy = next(copy for copy in candidates if copy.id == handed.id)
            assert handed.id == copy.id, f"{handed} overtook {copy}"
            assert (handed.attempt, handed.postponed) == (copy.attempts + 1, copy.postponed)
            assert handed.queue in (handed.inlet.queue, handed.inlet.place)
            assert handed.consumer in self.active, f"{handed} went to one that does not consume"
            copy.handed = handed
            out = [c for c in self.in_flight() if c.handed.consumer is handed.consumer]
            assert len(out) <= handed.consumer.prefetch

    # What may happen.

    @initialize(bindings=st.sets(st.tuples(kinds, sources, inports), max_size=6))
    def start(self, bindings: set[tuple[Kind, str, str]]) -> None:
        for kind, source, inport in sorted(bindings):
            self.bind(kind, source, inport)

    @rule(holder=holders, inport=inports, instance=instances, prefetch=st.integers(1, 3))
    def consume(self, holder: str, inport: str, instance: int, prefetch: int) -> None:
        place = self.place(inport, instance)
        place.holders.add(holder)
        place.retention = RETENTION
        inlet = Inlet(inport, instance, RETENTION)
        consumer = self.queues.consume(holder, inlet, prefetch, self.now)
        self.consumers[holder, inport, instance] = consumer
        self.active.add(consumer)
        self.review()
        self.collect()

    @rule(holder=holders, inport=inports, instance=instances)
    def declare(self, holder: str, inport: str, instance: int) -> None:
        place = self.place(inport, instance)
        place.holders.add(holder)
        place.retention = RETENTION
        self.queues.declare(holder, Inlet(inport, instance, RETENTION), self.now)
        self.review()

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        consumer = self.consumers[data.draw(st.sampled_from(sorted(self.consumers)))]
        self.active.discard(consumer)
        self.queues.pause(consumer)
        self.collect()

    def leave(self, holder: str, ordered: bool = True) -> None:
        for key in [key for key in self.consumers if key[0] == holder]:
            consumer = self.consumers.pop(key)
            self.active.discard(consumer)
            for copy in self.in_flight():
                if copy.handed.consumer is consumer:
                    copy.handed = None
                    copy.attempts += 1
        for place in self.places.values():
            place.holders.discard(holder)
        self.queues.vanish(holder, self.now)
        self.review()
        self.collect(ordered)

    @rule(holder=holders)
    def vanish(self, holder: str) -> None:
        self.leave(holder)

    @rule(kind=kinds, source=sources, inport=inports)
    def bind(self, kind: Kind, source: str, inport: str) -> None:
        binding = Binding(kind, source, inport)
        self.bound.add(binding)
        if kind is Kind.PUBSUB:
            self.place(inport, 1)
        self.queues.bind(binding, self.now)
        self.review()

    @rule()
    def route_dead_letters(self) -> None:
        binding = Binding(Kind.DEADLETTER, "a", "b")
        self.bound.add(binding)
        self.queues.bind(binding, self.now)

    @precondition(lambda self: self.bound)
    @rule(data=st.data())
    def unbind(self, data: st.DataObject) -> None:
        binding = data.draw(st.sampled_from(sorted(self.bound)))
        self.bound.remove(binding)
        self.queues.unbind(binding, self.now)
        self.review()

    def routed(self, source: str) -> None:
        for binding in self.bound:
            if binding.source != source:
                continue
            if binding.kind is Kind.ROUNDROBIN:
                self.arrive(binding.target, str(self.order_id))
            elif binding.kind is Kind.PUBSUB:
                for inport, instance in self.places:
                    if inport == binding.target:
                        self.arrive(f"{inport}@{instance}", str(self.order_id))

    order_id = 0

    @rule(source=sources, count=st.integers(1, 4), leaving=st.none() | holders)
    def send(self, source: str, count: int, leaving: str | None) -> None:
        for _ in range(count):
            self.order_id += 1
            self.routed(source)
            assert self.queues.send(source, b"", {}, str(self.order_id), self.now)
        if leaving is not None:
            # Before anybody was told: that is no attempt. What is handed to others already is not
            # taken from them in favour of what comes back only now.
            self.leave(leaving, ordered=False)
        self.collect()

    @rule(inport=inports, instance=st.none() | instances, leaving=st.none() | holders)
    def enqueue(self, inport: str, instance: int | None, leaving: str | None) -> None:
        self.order_id += 1
        queue = inport if instance is None else f"{inport}@{instance}"
        self.put(queue, str(self.order_id))
        assert self.queues.enqueue(queue, b"", {}, str(self.order_id), self.now)
        self.review()
        if leaving is not None:
            self.leave(leaving, ordered=False)
        self.collect()

    def draw_open(self, data: st.DataObject) -> tuple[ModelCopy, Handed]:
        copy = data.draw(st.sampled_from(self.in_flight()))
        assert copy.handed is not None
        return copy, copy.handed

    @precondition(lambda self: self.in_flight())
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        copy, handed = self.draw_open(data)
        self.copies.remove(copy)
        assert self.queues.settle(handed)
        self.collect()

    @precondition(lambda self: self.in_flight())
    @rule(data=st.data(), delay=st.sampled_from((0.0, 0.0, 1.0, 30.0)), counts=st.booleans())
    def retry(self, data: st.DataObject, delay: float, counts: bool) -> None:
        copy, handed = self.draw_open(data)
        copy.handed = None
        copy.attempts += counts
        copy.postponed += not counts
        copy.due = self.now + delay if delay else None
        assert self.queues.retry(handed, delay, counts, self.now)
        self.collect()

    @precondition(lambda self: self.in_flight())
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        copy, handed = self.draw_open(data)
        self.copies.remove(copy)
        inport = handed.inlet.queue
        if Binding(Kind.DEADLETTER, inport, "b") in self.bound:
            self.put("b", copy.id)
        else:
            self.dead[inport].append(copy)
        assert self.queues.bury(handed, death(handed), self.now)
        self.collect()

    @precondition(lambda self: any(self.dead.values()))
    @rule(data=st.data(), back=st.booleans())
    def raise_dead(self, data: st.DataObject, back: bool) -> None:
        inport = data.draw(st.sampled_from([name for name in INPORTS if self.dead[name]]))
        number = data.draw(st.integers(0, len(self.dead[inport]) - 1))
        copy = self.dead[inport].pop(number)
        key = self.queues.dead_letters(inport, 1000)[number].key
        if back:
            self.put(copy.queue, copy.id)
            assert self.queues.requeue(inport, [key], None, self.now) == 1
            self.review()
        else:
            assert self.queues.discard(inport, [key]) == 1
        self.collect()

    @rule(seconds=st.sampled_from((0.5, 1.0, 9.0, 11.0, 700.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for copy in self.copies:
            if copy.due is not None and copy.due <= self.now:
                copy.due = None
        for (inport, instance), place in list(self.places.items()):
            if place.expires is not None and place.expires <= self.now:
                del self.places[inport, instance]
                name = f"{inport}@{instance}"
                self.copies = [copy for copy in self.copies if copy.queue != name]
        self.queues.tick(self.now)
        self.collect()

    # What must always hold.

    @invariant()
    def every_copy_is_in_one_state(self) -> None:
        counts = {count.queue: count for count in self.queues.counts(None, self.now)}
        for inport in INPORTS:
            names = [inport, *(f"{i}@{n}" for i, n in self.places if i == inport)]
            for name in names:
                mine = [copy for copy in self.copies if copy.queue == name]
                flying = sum(copy.handed is not None for copy in mine)
                if mine:
                    count = counts[name]
                    assert (count.waiting, count.in_flight) == (len(mine) - flying, flying), name
                elif name in counts:
                    assert (counts[name].waiting, counts[name].in_flight) == (0, 0), name
            letters = self.queues.dead_letters(inport, 1000)
            assert [letter.id for letter in letters] == [copy.id for copy in self.dead[inport]]
        places = {name for name in counts if "@" in name}
        assert places == {f"{inport}@{instance}" for inport, instance in self.places}

    @invariant()
    def nothing_waits_while_somebody_has_room(self) -> None:
        for consumer in self.active:
            for queue in (consumer.inlet.queue, consumer.inlet.place):
                if self.waiting(queue):
                    out = [c for c in self.in_flight() if c.handed.consumer is consumer]
                    assert len(out) >= consumer.prefetch, f"{queue} waits for nothing"

    @invariant()
    def the_deadline_is_the_next_thing_to_happen(self) -> None:
        due = [copy.due for copy in self.copies if copy.due is not None]
        due += [place.expires for place in self.places.values() if place.expires is not None]
        assert self.queues.next_deadline() == min(due, default=None)

    def teardown(self) -> None:
        """Whatever happened: in the end, all that should be there comes, once."""
        for holder in HOLDERS:
            self.leave(holder)
        wanted = sorted((copy.queue, copy.id) for copy in self.copies)
        got = []
        for inport in INPORTS:
            for instance in (1, 2):
                self.queues.consume("end", Inlet(inport, instance), 1, self.now)
        for seconds in (0.0, 31.0):
            self.queues.tick(self.now + seconds)
            while self.queues.handed:
                handed = self.queues.handed.popleft()
                got.append((handed.queue, handed.id))
                assert self.queues.settle(handed)
        assert sorted(got) == wanted


TestQueuesMachine = QueuesMachine.TestCase
TestQueuesMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
