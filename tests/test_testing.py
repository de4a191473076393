"""Components under test, as their authors test them."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import TypedDict

import msgspec
import pydantic
import pytest

import msgflo
from msgflo import Out, Param
from msgflo.errors import PayloadError, Reject, UnknownPort
from msgflo.testing import collect, run


class Image(msgspec.Struct):
    url: str
    width: int = 800


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Options(TypedDict):
    size: int


class Model(pydantic.BaseModel):
    name: str


@msgflo.component
def split(line: str, word: Out[str], empty: Out[None]):
    for part in line.split(" "):
        word(part) if part else empty()


@msgflo.component
async def double(x: int, factor: Param[int] = 2) -> int:
    return x * factor


@msgflo.component
async def choosy(x: int) -> int:
    if x < 0:
        raise ValueError("negative")
    if x == 0:
        raise Reject("zero")
    return x


# collect(): messages in, packets out.


def test_the_packets_of_each_outport_are_collected():
    assert collect(split, "a b", "", "c") == {"word": ["a", "b", "c"], "empty": [None]}
    assert collect(double, 1, 2, params={"factor": 3}) == {"out": [3, 6]}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Image, Image("u", 3)),
        (Point, Point(1, 2)),
        (Options, {"size": 3}),
        (Model, Model(name="n")),
        (bytes, b"\xff\x00"),
        (list[Point], [Point(1, 2)]),
        (dict[str, Image], {"a": Image("u")}),
        (Image | None, Image("u")),
    ],
)
def test_typed_ports_get_and_give_objects_of_their_type(kind, value):
    seen = []

    async def repeat(x):
        seen.append(x)
        return x

    repeat.__annotations__.update({"x": kind, "return": kind})
    assert collect(msgflo.component(repeat), value) == {"out": [value]}
    assert seen == [value]
    assert type(seen[0]) is type(value)


def test_what_a_handler_raises_the_test_gets_to_see():
    with pytest.raises(ValueError, match="negative"):
        collect(choosy, 1, -1)
    with pytest.raises(Reject, match="zero"):
        collect(choosy, 0)
    with pytest.raises(PayloadError, match=r"\$: expected int, got str"):
        collect(choosy, "x")


def test_what_a_component_sends_must_be_of_the_type_that_it_declares():
    @msgflo.component
    async def wrong(x: int) -> str:
        return x  # type: ignore[return-value]

    with pytest.raises(PayloadError, match="what outport 'out' sent is not of its type"):
        collect(wrong, 1)


def test_a_source_is_run_to_its_end_or_until_there_is_enough():
    @msgflo.source
    async def three() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    @msgflo.source
    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    @msgflo.source
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise OSError("no sensor")

    assert collect(three) == {"out": [0, 1, 2]}
    assert collect(endless, limit=5) == {"out": [0, 1, 2, 3, 4]}
    with pytest.raises(OSError, match="no sensor"):
        collect(broken)


def test_the_classic_class_is_a_component_like_any_other():
    class Repeat(msgflo.Participant):
        def __init__(self, role):
            msgflo.Participant.__init__(self, {"component": "Repeat"}, role)

        def process(self, inport, msg):
            if msg.data == "bad":
                self.nack(msg)
                return
            self.send("out", msg.data)
            self.ack(msg)

    assert collect(Repeat, 0, None, {"a": 1}) == {"out": [0, None, {"a": 1}]}
    with pytest.raises(Reject, match="nacked"):
        collect(Repeat("r"), "bad")


def test_a_message_that_is_tried_again_is_seen_only_when_it_is_over():
    attempts = []

    @msgflo.component(retry=msgflo.Retry(3, delay=0))
    async def flaky(x: int) -> int:
        attempts.append(x)
        if len(attempts) < 3:
            raise ValueError("not yet")
        return x

    assert collect(flaky, 1) == {"out": [1]}
    assert attempts == [1, 1, 1]


def test_it_does_not_wait_for_ever():
    @msgflo.component
    async def hangs(x: int) -> int:
        await asyncio.Event().wait()
        return x

    with pytest.raises(TimeoutError):
        collect(hangs, 1, timeout=0.05)


# run(): step by step.


async def test_packets_are_had_one_by_one():
    async with run(split) as running:
        await running.send("a b")
        assert await running.word.get() == "a"
        assert await running.word.get() == "b"
        with pytest.raises(TimeoutError, match=r"outport 'empty' sent nothing for 0\.01 s"):
            await running.empty.get(timeout=0.01)
        await running.send("")
        await running.settled()
        assert not running.empty.empty()
        assert running.empty.all() == [None]
        assert running.ports["word"].all() == []


async def test_a_failure_is_raised_where_the_test_waits_and_the_test_may_go_on():
    async with run(choosy) as running:
        await running.send(-1)
        with pytest.raises(ValueError, match="negative"):
            await running.out.get()
        await running.send(1)
        assert await running.out.get() == 1


async def test_a_failure_that_nobody_looked_at_fails_the_test_in_the_end():
    async def test() -> None:
        async with run(choosy) as running:
            await running.send(-1)
            await asyncio.wait_for(running._quiet.wait(), 10)

    with pytest.raises(ValueError, match="negative"):
        await test()


async def test_an_object_can_be_looked_at_and_is_started_and_stopped():
    events = []

    class Sum(msgflo.Component):
        total = 0
        changed = Out(int)

        async def start(self):
            events.append("start")

        async def stop(self):
            events.append("stop")

        @msgflo.inport
        async def add(self, x: int):
            self.total += x
            self.changed(self.total)

        @msgflo.inport
        async def reset(self, _: None):
            self.total = 0

    async with run(Sum, role="sum") as running:
        await running.send(2, "add")
        await running.send(3, "ADD")
        await running.settled()
        assert running.thing.total == 5
        assert running.thing.context.role == "sum"
        await running.send(None, "reset")
        await running.settled()
        assert running.thing.total == 0
        assert running.changed.all() == [2, 5]
        with pytest.raises(UnknownPort, match="'ad'"):
            await running.send(1, "ad")
    assert events == ["start", "stop"]


async def test_a_payload_may_come_as_foreign_senders_send_it():
    async with run(split) as running:
        await running.send(b"not json", headers={"Content-Type": ""})
        assert [await running.word.get(), await running.word.get()] == ["not", "json"]


async def test_a_port_that_is_not_there_says_which_are():
    async with run(split) as running:
        with pytest.raises(AttributeError, match="no outport 'words'; there are: word, empty"):
            running.words  # noqa: B018
