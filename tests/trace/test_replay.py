import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import TraceError
from msgflo.trace.flowtrace import Event, Flowtrace, packet_payload
from msgflo.trace.replay import REPLAYED, offsets, packets_of, play
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, REQUEUED, Death


def at(when: float | None, **payload: object) -> Event:
    return Event("data", payload, "main", when)


def packet(src: str, tgt: str, body: bytes = b"1", headers: dict[str, str] | None = None) -> Event:
    def end(said: str) -> dict[str, str] | None:
        node, _, port = said.partition(".")
        return {"node": node, "port": port} if said else None

    return Event("data", packet_payload(end(src), end(tgt), body, headers), "main", 1.0)


def test_events_happen_at_their_times_from_the_first_one_on():
    events = [at(None), at(100.0), at(100.5), at(None), at(102.0)]
    assert offsets(events) == [0, 0, 0.5, 0.5, 2.0]
    assert offsets(events, 4) == [0, 0, 0.125, 0.125, 0.5]
    assert offsets(events, 0) == [0] * 5


@given(st.lists(st.none() | st.floats(0, 1e10)), st.floats(0.01, 100))
def test_time_never_runs_backwards(times, speed):
    found = offsets([at(when) for when in times], speed)
    assert found == sorted(found)
    assert len(found) == len(times)


async def played(events: list[Event], **more: object) -> list[float | None]:
    seen: list[float | None] = []

    async def do(event: Event) -> None:
        seen.append(event.time)

    await play(events, do, **more)  # type: ignore[arg-type]
    return seen


async def test_play_keeps_order_and_takes_as_long_as_it_did():
    began = time.monotonic()
    assert await played([at(5.0), at(5.05), at(5.2)], speed=2) == [5.0, 5.05, 5.2]
    assert time.monotonic() - began >= 0.1
    assert await played([at(5.0), at(1e9)], speed=0) == [5.0, 1e9]


async def test_step_by_step_each_event_waits_to_be_asked_for():
    asked: asyncio.Queue[None] = asyncio.Queue()
    seen: list[Event] = []

    async def do(event: Event) -> None:
        seen.append(event)
        stepped.set()

    async def ready(_: Event) -> None:
        await asked.get()

    stepped = asyncio.Event()
    events = [at(1.0), at(1e9)]
    playing = asyncio.create_task(play(events, do, ready=ready))
    for number in (1, 2):
        assert len(seen) == number - 1
        asked.put_nowait(None)
        await stepped.wait()
        stepped.clear()
    await playing
    assert seen == events


# Packets to send again.

TRACE = Flowtrace(
    [
        packet("read.out", "show.in"),
        packet("read.out", "keep.in"),
        packet("", "keep.in", b"2"),
        packet("Odd.Role.out", "show.in", b"3"),
        Event("started"),
        Event("data", {"error": "unserialisable"}, error="unserialisable"),
    ]
)


@pytest.mark.parametrize(
    ("connection", "bodies"),
    [
        ("read OUT -> IN show", [b"1"]),
        ("  READ out  ->  in SHOW ", [b"1"]),
        ("read.out", [b"1", b"1"]),
        ("show.in", [b"1"]),
        ("KEEP.IN", [b"1", b"2"]),
        ("-> IN keep", [b"2"]),
    ],
)
def test_packets_are_chosen_by_their_connection_or_one_end_of_it(connection, bodies):
    trace = Flowtrace(TRACE.events[:3])
    assert [it.body for it in packets_of(trace, connection)] == bodies


def test_without_a_connection_there_must_be_only_one():
    assert len(packets_of(Flowtrace(TRACE.events[:1]))) == 1
    with pytest.raises(TraceError, match=r"say which(.|\n)*IN show\n  read OUT -> IN k"):
        packets_of(TRACE)


def test_a_connection_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(TraceError, match=r"'x.y'(.|\n)*-> IN keep"):
        packets_of(TRACE, "x.y")
    with pytest.raises(TraceError, match="no packets"):
        packets_of(Flowtrace(), "x.y")


HEADERS = {
    MESSAGE_ID: "job-1",
    CONTENT_TYPE: "image/png",
    REQUEUED: "2",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "Tenant": "7",
    **Death("b.IN").to_headers(),
}


def test_a_copy_has_an_id_of_its_own_and_says_whose_copy_it_is():
    (it,) = packets_of(Flowtrace([packet("a.out", "b.in", b"\xff", HEADERS)]))
    assert it.headers("replay-1") == {
        MESSAGE_ID: "replay-1",
        REPLAYED: "job-1",
        CONTENT_TYPE: "image/png",
        "Tenant": "7",
    }
    assert it.body == b"\xff"


def test_with_its_old_id_it_is_what_it_was():
    (it,) = packets_of(Flowtrace([packet("a.out", "b.in", b"1", HEADERS)]))
    said = it.headers()
    assert said[MESSAGE_ID] == "job-1"
    assert "traceparent" in said
    assert REPLAYED not in said
    assert not any(name.startswith("Msgflo-Death") for name in said)


def test_packets_of_others_are_json_and_have_no_ids():
    (it,) = packets_of(Flowtrace([packet("a.out", "b.in", b'{"a": 1}')]))
    assert it.headers("replay-1") == {MESSAGE_ID: "replay-1", CONTENT_TYPE: "application/json"}
    with pytest.raises(TraceError, match="no message ids"):
        it.headers()
