"""One participant at work: what becomes of its messages, whatever happens to it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

import msgflo
from msgflo import Context, Out, Param
from msgflo.declaration import Component, inport
from msgflo.errors import ConnectionLost, DefinitionError, PayloadError, UnknownPort
from msgflo.outbox import LIMIT
from msgflo.transport import direct
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, POISON_LIMIT
from networks import HoldingClient, turns, until

NOW = 0.0


class Image(msgspec.Struct):
    url: str
    width: int = 800


@msgflo.component
async def double(x: int) -> int:
    return 2 * x


@msgflo.component
def double_in_thread(x: int) -> int:
    return 2 * x


# Settled when it is safe.


async def test_a_message_is_settled_only_when_what_it_caused_is_confirmed(network):
    client = await network.client(HoldingClient)
    await network.start(double, client=client)
    collected = await network.collect()
    await network.put(21)
    await until(lambda: collected == [42])
    assert (await network.stats()).in_flight == 1, "sent, but not confirmed"
    client.let_go()
    await network.until_empty()


async def test_a_message_whose_packets_the_broker_refuses_is_not_settled_but_dead(network):
    @msgflo.component
    async def blow_up(x: int) -> bytes:
        return b"x" * 9_000_000

    await network.start(blow_up)
    await network.put(1)
    (letter,) = await network.until_dead()
    assert letter.death.error == "SendFailed"
    assert "at most" in letter.death.text


@msgflo.component
async def several(x: int, more: Out[str]) -> AsyncIterator[int]:
    more(f"a{x}")
    await asyncio.sleep(0)
    yield x
    await asyncio.sleep(0)
    more(f"b{x}")
    yield -x


@msgflo.component
def several_in_thread(x: int, more: Out[str]) -> Iterator[int]:
    more(f"a{x}")
    yield x
    more(f"b{x}")
    yield -x


@msgflo.component(concurrency=3)
async def several_at_once(x: int, more: Out[str]) -> AsyncIterator[int]:
    for _ in range(4 - x):  # the last one is the first to end
        await asyncio.sleep(0)
    more(f"a{x}")
    yield x
    await asyncio.sleep(0)
    more(f"b{x}")
    yield -x


@pytest.mark.parametrize("component", [several, several_in_thread, several_at_once])
@pytest.mark.parametrize("moment", [*range(24), 40, 80])
async def test_a_participant_killed_at_any_point_loses_nothing_and_its_successor_repeats_nothing(
    network, component, moment
):
    """Everything arrives, and once: the packets of the second handling have the ids of the first,
    and the broker drops them."""
    out, more = await network.collect(), await network.collect("r.MORE")
    victim = await network.start(component)
    for number in range(1, 4):
        await network.put(number)
    await turns(moment)
    network.kill(victim)
    await network.start(component)
    await network.until_empty()
    await until(lambda: len(out) >= 6 and len(more) >= 6)
    assert sorted(out) == [-3, -2, -1, 1, 2, 3]
    assert sorted(more) == ["a1", "a2", "a3", "b1", "b2", "b3"]


async def test_a_message_that_kills_its_process_again_and_again_ends_as_a_dead_letter(network):
    calls = []

    @msgflo.component(retry=2)
    async def deadly(x: int) -> None:
        calls.append(x)
        await asyncio.Event().wait()

    await network.put(1)
    for count in range(1, 2 + POISON_LIMIT + 1):
        engine = await network.start(deadly)
        await until(lambda: len(calls) == count)  # noqa: B023
        network.kill(engine)
    await network.start(deadly)
    (letter,) = await network.until_dead()
    assert letter.death.error == "Poison"
    assert len(calls) == 2 + POISON_LIMIT


# Failures.


async def test_a_message_that_fails_is_tried_as_often_as_the_port_says(network):
    attempts = []

    @msgflo.component(retry=msgflo.Retry(3, delay=NOW))
    async def flaky(x: int, ctx: Context) -> int:
        attempts.append((ctx.attempt, ctx.id))
        if ctx.attempt < x:
            raise ValueError(f"not at attempt {ctx.attempt}")
        return x

    collected = await network.collect()
    await network.start(flaky)
    await network.put(3, message_id="a")
    await until(lambda: collected == [3])
    assert attempts == [(1, "a"), (2, "a"), (3, "a")]
    await network.put(4, message_id="b")
    (letter,) = await network.until_dead()
    assert (letter.id, letter.body) == ("b", b"4")
    assert (letter.death.attempts, letter.death.error) == (3, "ValueError")
    assert letter.death.text == "not at attempt 3"
    assert "raise ValueError" in letter.death.traceback
    assert (letter.death.role, letter.death.instance) == ("r", 1)


async def test_later_is_no_attempt_and_reject_needs_no_other(network):
    seen = []

    @msgflo.component(retry=3)
    async def choosy(x: int, ctx: Context) -> int:
        seen.append(ctx.attempt)
        if len(seen) < 5:
            raise msgflo.RetryLater(NOW)
        raise msgflo.Reject("not an image")

    await network.start(choosy)
    await network.put(1)
    (letter,) = await network.until_dead()
    assert seen == [1, 1, 1, 1, 1]
    assert (letter.death.error, letter.death.text) == ("Reject", "not an image")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"url": "u", "width": "wide"}', "$.width: expected int, got str"),
        (b'{"width": 1}', "$: object missing required field url"),
        (b"{", "$: expected Image, got 1 bytes that are not JSON ('{')"),
        (b"", "$: expected Image, got an empty payload"),
        (b"\xff", "$: expected Image, got 1 bytes that are not JSON ('\\\\xff')"),
    ],
)
async def test_a_payload_that_does_not_fit_is_dead_with_the_path_of_what_is_wrong(
    network, body, said
):
    seen = []

    @msgflo.component(retry=5)
    async def resize(image: Image) -> str:
        seen.append(image.url)
        return image.url

    collected = await network.collect()
    await network.start(resize)
    await network.put(body)
    await network.put({"url": "good"})
    (letter,) = await network.until_dead()
    assert letter.body == body
    assert (letter.death.error, letter.death.attempts) == ("PayloadError", 1)
    assert letter.death.text == said
    await until(lambda: collected == ["good"])
    assert seen == ["good"], "the rest goes on, and the handler never saw it"


@pytest.mark.parametrize("value", [0, 0.0, False, "", None, [], {}])
async def test_falsy_values_are_messages_like_any_other(network, value):
    @msgflo.component
    async def repeat(value, out: Out):
        out(value)

    collected = await network.collect()
    await network.start(repeat)
    await network.put(value)
    await until(lambda: collected)
    assert msgspec.json.encode(collected[0]) == msgspec.json.encode(value)


async def test_bytes_travel_as_they_are(network):
    every_byte = bytes(range(256))

    @msgflo.component
    async def repeat(block: bytes) -> bytes:
        assert type(block) is bytes
        return block

    collected = await network.collect()
    await network.start(repeat)
    await network.put(every_byte)
    await until(lambda: collected == [every_byte])
    assert collected.headers[0][CONTENT_TYPE] == "application/octet-stream"


# The port error.


class Failing(Component):
    error = Out(dict)

    @inport("in", retry=msgflo.Retry(2, delay=NOW))
    async def handle(self, x: str) -> str:
        if x.startswith("bad"):
            raise ValueError(f"{len(x)} letters")
        return x


async def test_the_port_error_gets_what_failed_in_place_of_the_dead_letters(network):
    errors = await network.collect("r.ERROR")
    await network.start(Failing)
    message_id = await network.put("bad")
    await until(lambda: errors)
    assert errors[0]["payload"] == "bad"
    assert errors[0]["error"]["type"] == "ValueError"
    assert errors[0]["error"]["message"] == "3 letters"
    assert (errors[0]["id"], errors[0]["attempts"], errors[0]["inport"]) == (message_id, 2, "in")
    await network.until_empty()
    assert await network.dead() == []


async def test_a_port_error_that_leads_nowhere_hides_nothing(network):
    await network.start(Failing)
    await network.put("bad")
    (letter,) = await network.until_dead()
    assert letter.death.error == "ValueError"


async def test_what_the_port_error_cannot_carry_is_dead_for_its_first_reason(network):
    await network.collect("r.ERROR")
    await network.start(Failing)
    # With the error beside it, it is larger than a message may be.
    await network.put("bad" + "x" * (8 * 1024 * 1024 - 100))
    (letter,) = await network.until_dead()
    assert (letter.death.error, letter.death.attempts) == ("ValueError", 2)
    await network.until_empty()


# Settings.


@msgflo.component
async def scaled(x: int, factor: Param[int], offset: Param[int] = 0) -> int:
    return x * factor + offset


async def test_the_last_value_of_a_setting_is_the_one_that_is_used(network):
    collected = await network.collect()
    await network.start(scaled, initials={"FACTOR": 2})
    await network.put(1)
    await until(lambda: collected == [2])
    await network.put(5, "r.FACTOR")
    await network.put(7, "r.FACTOR")
    await network.put(1, "r.OFFSET")
    await network.until_empty("r.FACTOR")
    await network.until_empty("r.OFFSET")
    await network.put(1)
    await until(lambda: collected == [2, 8])


async def test_a_setting_that_is_an_attribute_of_an_object_is_always_up_to_date(network):
    class Scale(Component):
        factor: Param[int] = 1

        async def start(self):
            self.at_start = self.factor

        @inport("in")
        async def handle(self, x: int) -> int:
            return x * self.factor

    collected = await network.collect()
    first = await network.start(Scale, initials={"factor": 2})
    assert first.thing.at_start == 2
    await network.start(Scale, "other")
    await network.put(1)
    await until(lambda: collected == [2])
    await network.put(3, "r.FACTOR")
    await network.until_empty("r.FACTOR")
    await network.put(1)
    await until(lambda: collected == [2, 3])
    assert Scale.factor == 1, "others of its class have their own"


async def test_no_message_is_handled_before_every_setting_is_known(network):
    collected = await network.collect()
    await network.start(scaled)
    await network.put(1)
    await turns(50)
    stats = await network.stats()
    assert (stats.waiting, stats.in_flight) == (1, 0), "it waits in the broker, for whoever is able"
    await network.put(3, "r.FACTOR")
    await until(lambda: collected == [3])


async def test_a_setting_that_does_not_fit_is_dead_and_the_old_one_stays(network):
    collected = await network.collect()
    await network.start(scaled, initials={"factor": 2})
    await network.put("many", "r.FACTOR")
    (letter,) = await network.until_dead(queue="r.FACTOR")
    assert letter.death.text == "$: expected int, got str"
    await network.put(1)
    await until(lambda: collected == [2])


async def test_a_source_waits_for_the_settings_that_it_needs(network):
    @msgflo.source
    async def count(until: Param[int]) -> AsyncIterator[int]:
        for number in range(until):
            yield number

    collected = await network.collect()
    engine = await network.start(count)
    await turns(20)
    assert not engine._sources
    await network.put(3, "r.UNTIL")
    await until(lambda: collected == [0, 1, 2])


class RefusingClient(direct.Client):
    """A connection that is away just when the participant wants to take messages."""

    refused = 0

    async def consume(self, inlet, prefetch, deliver):
        if inlet.queue == "r.IN" and not self.refused:
            self.refused += 1
            raise ConnectionLost("it is away")
        await super().consume(inlet, prefetch, deliver)


async def test_the_last_setting_may_come_while_the_connection_is_away(network):
    collected = await network.collect()
    client = await network.client(RefusingClient)
    await network.start(scaled, client=client)
    await network.put(2, "r.FACTOR")
    await network.put(4)
    await until(lambda: collected == [8])
    assert client.refused


class SlowClient(direct.Client):
    """A connection on which taking messages takes its time."""

    def __init__(self, url):
        super().__init__(url)
        self.asked, self.allowed = asyncio.Event(), asyncio.Event()

    async def consume(self, inlet, prefetch, deliver):
        if inlet.queue == "r.IN":
            self.asked.set()
            await self.allowed.wait()
        await super().consume(inlet, prefetch, deliver)


async def test_a_stop_in_the_middle_of_beginning_leaves_nothing_begun(network):
    client = await network.client(SlowClient)
    engine = await network.start(scaled, client=client)
    await network.put(1)
    await network.put(2, "r.FACTOR")
    await client.asked.wait()
    stopping = asyncio.ensure_future(engine.stop(10.0))
    await turns(10)
    client.allowed.set()
    await stopping
    await turns(10)
    stats = {it.queue: it for it in await network.broker.queues(["r.IN"])}
    assert stats["r.IN"].consumers == 0
    assert stats["r.IN"].waiting == 1


# Initial packets.


async def test_an_initial_packet_for_a_port_that_triggers_comes_before_all_messages(network):
    seen = []

    @msgflo.component
    async def note(x: int) -> None:
        seen.append(x)

    await network.put(2)
    await network.start(note, initials={"in": 1})
    await until(lambda: seen == [1, 2])
    assert network.heard[-1]["msgflo"]["initials"] == ["in"]


async def test_an_initial_packet_is_tried_again_as_the_port_says(network, caplog):
    attempts = []

    @msgflo.component(retry=msgflo.Retry(2, delay=NOW))
    async def note(x: int, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise ValueError("no")

    await network.start(note, initials={"in": 1})
    await until(lambda: "the initial packet is given up after attempt 2" in caplog.text)
    assert attempts == [1, 2]


async def test_an_initial_packet_must_have_a_port_and_fit_it(network):
    with pytest.raises(UnknownPort, match=r"'factr'.*Did you mean 'factor'"):
        await network.make(scaled, initials={"factr": 1})
    with pytest.raises(PayloadError, match=r"packet for 'factor' of 'r': \$: expected int, got s"):
        await network.make(scaled, initials={"factor": "many"})
    with pytest.raises(PayloadError, match=r"packet for 'in' of 'r': \$: expected int, got str"):
        await network.make(scaled, initials={"in": "x"})


# Starting and stopping.


class Recording(Component):
    def __init__(self):
        self.events = []
        self.allowed = asyncio.Event()

    async def start(self):
        self.events.append(f"start {self.context.role}.{self.context.instance}")

    def stop(self):
        self.events.append("stop")

    @inport("in")
    async def handle(self, x: int) -> int:
        self.events.append(x)
        await self.allowed.wait()
        return x


async def test_start_comes_before_the_first_message_and_stop_after_the_last(network):
    recording = Recording()
    await network.put(1)
    engine = await network.start(recording, "r", 2)
    await until(lambda: len(recording.events) == 2)
    stopping = asyncio.ensure_future(engine.stop(10.0))
    await turns(10)
    assert not stopping.done(), "what is in work is finished first"
    recording.allowed.set()
    assert await stopping
    assert recording.events == ["start r.2", 1, "stop"]
    await network.until_empty()


async def test_a_component_that_cannot_start_takes_nothing_and_is_not_there(network):
    class Broken(Recording):
        async def start(self):
            raise OSError("no disk")

    broken = Broken()
    await network.put(1)
    engine = await network.make(broken)
    with pytest.raises(OSError, match="no disk"):
        await engine.start()
    await engine.stop(1.0)
    await turns(5)
    assert broken.events == [], "and stop() has nothing to clean up"
    assert network.heard == []
    assert (await network.stats()).waiting == 1


async def test_a_stop_finishes_what_is_in_work_and_hands_back_what_is_not(network):
    begun, allowed = [], asyncio.Event()

    @msgflo.component(prefetch=5)
    async def slow(x: int) -> int:
        begun.append(x)
        await allowed.wait()
        return x

    collected = await network.collect()
    engine = await network.start(slow)
    for number in range(4):
        await network.put(number)
    await until(lambda: begun)
    stopping = asyncio.ensure_future(engine.stop(10.0))
    await turns(10)
    stats = await network.stats()
    assert (stats.waiting, stats.in_flight) == (3, 1), "others can have them at once"
    allowed.set()
    assert await stopping
    await until(lambda: collected == [0])
    await network.start(slow)
    await until(lambda: collected == [0, 1, 2, 3])


async def test_what_is_not_finished_in_the_grace_comes_again_to_somebody_else(network):
    attempts, cleaned = [], []

    @msgflo.component(retry=2)
    async def stuck(x: int, ctx: Context) -> int:
        attempts.append(ctx.attempt)
        try:
            if ctx.attempt == 1:
                await asyncio.Event().wait()
        finally:
            cleaned.append(ctx.attempt)
        return x

    collected = await network.collect()
    engine = await network.start(stuck)
    await network.put(1)
    await until(lambda: attempts)
    assert not await engine.stop(0.0)
    assert cleaned == [1], "a handler that is cancelled may clean up"
    # The connection is still open: it is not by its end that the message comes back.
    await network.start(stuck)
    await until(lambda: collected == [1])
    assert attempts == [1, 2]


async def test_a_thread_that_goes_on_after_the_end_can_harm_nobody(network):
    begun, go_on, ended = threading.Event(), threading.Event(), []

    @msgflo.component
    def stuck(x: int, ctx: Context, out: Out[int]):
        if ctx.attempt == 1:
            begun.set()
            go_on.wait(20)
            try:
                out(666)
            except msgflo.ConnectionLost as error:
                ended.append(str(error))
        else:
            out(x)

    collected = await network.collect()
    engine = await network.start(stuck)
    await network.put(1)
    await until(begun.is_set)
    assert not await engine.stop(0.0)
    await engine.close()
    network.kill(engine)
    go_on.set()
    await until(lambda: ended == ["the participant has stopped"])
    await network.start(stuck)
    await until(lambda: collected == [1])


async def test_a_setting_that_comes_during_a_stop_is_left_to_the_successor(network):
    allowed = asyncio.Event()

    @msgflo.component
    async def slow(x: int, size: Param[int] = 1) -> int:
        await allowed.wait()
        return x * size

    collected = await network.collect()
    engine = await network.start(slow)
    await network.put(1)
    await until(lambda: engine.lanes[0].open)
    stopping = asyncio.ensure_future(engine.stop(10.0))
    await turns(3)
    await network.put(5, "r.SIZE")
    await turns(10)
    assert (await network.stats("r.SIZE")).waiting == 1
    allowed.set()
    await stopping
    await network.start(slow)
    await network.until_empty("r.SIZE")
    await network.put(2)
    await until(lambda: collected == [1, 10])


# Telling the network.


async def test_it_announces_the_seven_keys_that_everybody_knows_and_the_rest_beside_them(network):
    engine = await network.start(double, "r", 3, period=30.0)
    await turns(3)
    (said,) = network.heard
    assert said.keys() == {"protocol", "command", "payload", "msgflo"}
    assert said["payload"].keys() == {
        "id",
        "icon",
        "role",
        "component",
        "label",
        "inports",
        "outports",
    }
    assert said["payload"]["inports"] == [
        {"id": "in", "type": "int", "queue": "r.IN", "schema": {"type": "integer"}}
    ]
    beside = said["msgflo"]
    assert (beside["instance"], beside["period"], beside["places"]) == (3, 30.0, True)
    await engine.stop(1.0)
    await turns(3)
    assert network.heard[1] == {
        "protocol": "discovery",
        "command": "goodbye",
        "payload": {"id": said["payload"]["id"], "role": "r"},
    }


async def test_it_announces_itself_more_than_twice_in_a_period_with_one_id(network):
    await network.start(double, period=0.02)
    await until(lambda: len(network.heard) >= 4)
    assert len({said["payload"]["id"] for said in network.heard}) == 1


async def test_two_of_a_role_are_two_with_places_of_their_own(network):
    seen = []

    @msgflo.component
    async def note(x: int, ctx: Context) -> None:
        seen.append((ctx.instance, x))

    await network.connect("feed.OUT", "r.IN")
    await network.start(note, "r", 1)
    await network.start(note, "r", 2)
    feed = await network.client()
    feed.send("feed.OUT", b"7", {MESSAGE_ID: "a"}, lambda error: None)
    await until(lambda: sorted(seen) == [(1, 7), (2, 7)])


# Limits.


async def test_a_handler_that_sends_without_end_is_held_up_while_nothing_is_confirmed(network):
    sent = []

    @msgflo.component
    async def endless(x: int) -> AsyncIterator[int]:
        for number in range(3 * LIMIT):
            sent.append(number)
            yield number

    client = await network.client(HoldingClient)
    engine = await network.start(endless, client=client)
    collected = await network.collect()
    await network.put(1)
    await until(lambda: engine.outbox.full)
    await turns(50)
    assert LIMIT <= len(sent) <= LIMIT + 1
    while len(collected) < 3 * LIMIT:
        client.let_go()
        await turns(5)
    assert collected == list(range(3 * LIMIT))


async def test_no_more_messages_are_here_than_are_asked_for(network):
    allowed = asyncio.Event()

    @msgflo.component(concurrency=2, prefetch=5)
    async def slow(x: int) -> None:
        await allowed.wait()

    await network.start(slow)
    for number in range(9):
        await network.put(number)
    await turns(50)
    stats = await network.stats()
    assert (stats.in_flight, stats.waiting) == (5, 4)
    allowed.set()
    await network.until_empty()


async def test_a_broken_connection_is_no_failure_of_the_message(network):
    """What was in work is delivered again when the connection is back; its end counts once."""
    calls, allowed = [], asyncio.Event()

    @msgflo.component
    async def slow(x: int) -> int:
        calls.append(x)
        await allowed.wait()
        return x

    client = await network.client()
    collected = await network.collect()
    await network.start(slow, client=client)
    await network.put(1)
    await until(lambda: calls)
    network.hub.cut(client)
    allowed.set()
    await turns(10)
    network.hub.restore(client)
    await network.until_empty()
    await until(lambda: collected)
    await turns(20)
    assert collected == [1], "the second time it sends the same id"
    assert await network.dead() == []


async def test_one_object_cannot_be_two_participants(network):
    recording = Recording()
    await network.make(recording)
    with pytest.raises(DefinitionError, match="one object of it cannot be two participants"):
        await network.make(recording, "r", 2)


async def test_a_handler_that_wants_the_process_to_end_is_heard(network):
    codes = []

    @msgflo.component
    async def leave(x: int) -> None:
        raise SystemExit(x)

    await network.start(leave, leave=codes.append)
    await network.put(3)
    await until(lambda: codes == [3])
    (letter,) = await network.until_dead()
    assert letter.death.error == "SystemExit"
