"""What a participant counts and remembers; and what of it arrives, on a broker that is one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

import msgflo
from msgflo import Out, participant, transport
from msgflo.failure import Failure, Kind
from msgflo.flow.binding import Binding
from msgflo.flow.binding import Kind as Sharing
from msgflo.flow.telemetry import (
    TELEMETRY,
    TRACEPARENT,
    TRACESTATE,
    Answer,
    Figures,
    Question,
    Span,
    parse_report,
    parse_traceparent,
    trace_of,
)
from msgflo.meter import Meter
from msgflo.transport.contract import MESSAGE_ID, Broker, Delivery, Inlet, Retry, Tapped

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FAILURE = Failure(Kind.ERROR, "ValueError", "broken")


class Work:
    """A handling, as a meter sees it."""

    def __init__(self, headers: dict[str, str] | None = None, **more: Any) -> None:
        self.delivery = Delivery(Inlet("b.IN", 1), "b.IN", b"", headers or {}, "job-1", **more)
        self.began = 12.0
        self.spot = None


class Clock:
    def __init__(self, now: float = 13.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def meter(**more: Any) -> Meter:
    said = {"participant": "b-1", "role": "b", "instance": 2, "clock": Clock()}
    return Meter(["in"], {"out": "b.OUT"}, **{**said, **more})


def sent(by: Meter, work: Work | None, message_id: str = "id") -> dict[str, str]:
    headers: dict[str, str] = {}
    by.headers("b.OUT", message_id, work, headers)
    return headers


def test_what_is_sent_while_handling_a_message_is_of_its_trace_and_has_its_span_as_parent():
    it = meter()
    work = Work({TRACEPARENT: f"00-{TRACE}-{SPAN}-01", TRACESTATE: "vendor=1"}, sent=11.0)
    first, second = sent(it, work), sent(it, work)
    assert first == second
    assert first[TRACESTATE] == "vendor=1"
    it.ended("in", work, "done", None)
    (span,) = it.spans()
    assert parse_traceparent(first[TRACEPARENT]) == (TRACE, span.span, "01")
    assert span == Span(
        *(TRACE, span.span, SPAN, "b", 2, "in", "job-1", 11.0, 12.0, 13.0, "done", 1, "")
    )


def test_a_message_that_says_nothing_begins_a_trace_the_same_one_when_it_comes_again():
    it, other = meter(), meter()
    first, again, elsewhere = (sent(by, Work())[TRACEPARENT] for by in (it, it, other))
    traces, spans = zip(
        *(parse_traceparent(it)[:2] for it in (first, again, elsewhere)), strict=True
    )
    assert set(traces) == {trace_of("job-1")}
    assert len(set(spans)) == 3, "each handling is a span of its own"


def test_a_packet_of_no_message_begins_a_trace_and_its_sending_is_a_span():
    it = meter()
    context = parse_traceparent(sent(it, None, "clock-1")[TRACEPARENT])
    (span,) = it.spans()
    assert context == (trace_of("clock-1"), span.span, "01")
    assert (span.port, span.message, span.outcome, span.started) == ("out", "clock-1", "sent", 13.0)


def test_what_is_not_sampled_is_passed_on_and_not_kept_unless_it_fails():
    it = meter()
    work = Work({TRACEPARENT: f"00-{TRACE}-{SPAN}-00"})
    assert sent(it, work)[TRACEPARENT].endswith("-00")
    it.ended("in", work, "done", None)
    assert list(it.spans()) == []
    it.ended("in", work, "retried", FAILURE)
    (span,) = it.spans()
    assert (span.trace, span.outcome, span.error) == (TRACE, "retried", "ValueError: broken")
    assert it.ins["in"].taken == 2


def test_of_the_traces_that_begin_here_so_many_a_second_are_kept():
    clock = Clock()
    it = meter(clock=clock, rate=3)
    flags = [sent(it, None, f"m-{number}")[TRACEPARENT][-2:] for number in range(5)]
    assert flags == ["01", "01", "01", "00", "00"]
    clock.now += 1
    assert sent(it, Work())[TRACEPARENT].endswith("-01")
    assert len(list(it.spans())) == 3


def test_an_error_of_any_text_can_be_told():
    it = meter()
    failure = Failure(Kind.ERROR, "OSError", "no such file: \ud800")
    it.ended("in", Work(), "dead", failure)
    (message,) = it.answer(Question("t", ("job-1",)))
    answer = parse_report(message)
    assert isinstance(answer, Answer)
    assert answer.spans[0].error == "OSError: no such file: ?"


def test_the_last_spans_are_kept():
    it = meter(spans=3)
    for number in range(5):
        sent(it, None, f"m-{number}")
    assert [span.message for span in it.spans()] == ["m-2", "m-3", "m-4"]


def test_an_export_gets_each_span_that_is_kept():
    exported: list[Span] = []
    it = meter(export=exported.append, rate=1)
    for number in range(3):
        sent(it, None, f"m-{number}")
    assert exported == list(it.spans())
    assert len(exported) == 1


def test_deliveries_are_counted_by_what_became_of_them():
    it = meter()
    for outcome, failure in [
        *(("done", None), ("retried", FAILURE), ("postponed", FAILURE), ("reported", FAILURE)),
        *(("dead", FAILURE), ("dead", FAILURE)),
    ]:
        it.ended("in", Work(sent=11.5), outcome, failure)
    sent(it, None)
    port = it.ins["in"]
    assert (port.taken, port.failed, port.retried, port.dead) == (6, 4, 1, 2)
    assert (port.busy_sum, port.waits_sum) == (6.0, 3.0)
    report = parse_report(it.report(final=True) or b"")
    assert report == Figures("b-1", "b", 2, {"in": port}, {"out": 1}, True)


def test_clocks_that_differ_do_not_make_time_run_backwards():
    it = meter(clock=Clock(5.0))
    it.ended("in", Work(sent=99.0), "done", None)
    assert (it.ins["in"].busy_sum, it.ins["in"].waits_sum) == (0, 0)


def test_a_report_with_nothing_new_is_left_out():
    it = meter()
    assert it.report(always=False) is not None
    assert it.report(always=False) is None
    sent(it, None)
    assert it.report(always=False) is not None
    assert it.report(always=True) is not None


# Participants at work.

_networks = count(1)


@pytest.fixture(params=["direct", "nats_server", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "direct":
        return f"direct://meter-{next(_networks)}"
    return str(request.getfixturevalue(request.param))


class Network:
    """Participants on a broker, and what they report."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.reports: list[Figures | Answer] = []
        self._news = asyncio.Event()

    def hear(self, message: Tapped) -> None:
        self.reports.append(parse_report(message.body))
        self._news.set()

    async def until(self, what: Callable[[], Any]) -> Any:
        while not (found := what()):
            self._news.clear()
            await self._news.wait()
        return found

    async def spans(self, *ids: str, participants: int) -> list[Span]:
        """Ask for spans until each participant has answered."""
        token = f"token-{len(self.reports)}"
        await self.broker.tell(Question(token, ids).encode())

        def all_answered() -> list[Answer]:
            found = [it for it in self.reports if isinstance(it, Answer) and it.token == token]
            return found if sum(it.last for it in found) == participants else []

        found = await self.until(all_answered)
        return sorted((s for it in found for s in it.spans), key=lambda s: (s.started, s.attempt))


@asynccontextmanager
async def running(url: str, components: dict[str, Any], *pairs: str) -> AsyncIterator[Network]:
    broker = transport.broker(url)
    await broker.connect()
    network = Network(broker)
    await broker.tap(TELEMETRY, network.hear)
    for pair in pairs:
        source, target = pair.split(" -> ")
        await broker.bind(Binding(Sharing.PUBSUB, source, target))
    stop, started = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        participant.serve(
            components, broker=url, stop=stop, started=lambda _: started.set(), environment={}
        )
    )
    try:
        await asyncio.wait(
            {serving, asyncio.create_task(started.wait())}, return_when="FIRST_COMPLETED"
        )
        yield network
    finally:
        stop.set()
        await serving
        await broker.close()


@msgflo.component
async def twice(text: str, out: Out[str]) -> None:
    out(text)
    out(text)


@msgflo.component
def in_thread(text: str) -> str:
    return text + "!"


async def test_the_way_of_a_message_through_three_participants(url):
    done = asyncio.Event()
    seen: list[str] = []

    @msgflo.component
    async def last(text: str) -> None:
        seen.append(text)
        if len(seen) == 2:
            done.set()

    roles = {"a": twice, "b": in_thread, "c": last}
    async with running(url, roles, "a.OUT -> b.IN", "b.OUT -> c.IN") as network:
        await network.broker.enqueue("a.IN", b'"x"', {MESSAGE_ID: "job-1"})
        await done.wait()
        spans: list[Span] = []
        while len(spans) < 5:
            spans = await network.spans(trace_of("job-1"), participants=3)
        by_role = {role: [s for s in spans if s.role == role] for role in "abc"}
        assert [len(by_role[role]) for role in "abc"] == [1, 2, 2]
        (first,) = by_role["a"]
        assert (first.message, first.parent, first.outcome) == ("job-1", "", "done")
        assert {s.parent for s in by_role["b"]} == {first.span}
        assert {s.parent for s in by_role["c"]} == {s.span for s in by_role["b"]}
        for s in spans:
            assert s.started <= s.finished
            assert s.queued == 0 or s.queued <= s.started + 0.01
        # Asked for by the id of one message, only its own handlings come.
        (own,) = await network.spans(by_role["c"][0].message, participants=3)
        assert own == by_role["c"][0]


async def test_each_attempt_is_a_span_of_the_same_trace(url):
    done = asyncio.Event()

    @msgflo.component(retry=Retry(attempts=2, delay=0))
    async def fails(text: str, ctx: msgflo.Context) -> None:
        if ctx.attempt == 2:
            asyncio.get_running_loop().call_soon(done.set)
        raise ValueError("broken")

    async with running(url, {"a": fails}) as network:
        await network.broker.enqueue("a.IN", b'"x"', {MESSAGE_ID: "job-1"})
        await done.wait()
        spans: list[Span] = []
        while len(spans) < 2:
            spans = await network.spans("job-1", participants=1)
    assert [(s.attempt, s.outcome, s.trace) for s in spans] == [
        (1, "retried", trace_of("job-1")),
        (2, "dead", trace_of("job-1")),
    ]
    assert spans[0].span != spans[1].span
    assert spans[1].error == "ValueError: broken"


async def test_figures_are_told_at_the_start_and_at_the_end(url):
    async with running(url, {"a": twice}) as network:
        await network.until(lambda: network.reports)
        (first,) = network.reports
        assert isinstance(first, Figures)
        assert (first.role, first.instance, first.outs, first.final) == ("a", 1, {"out": 0}, False)
        assert first.ins["in"].taken == 0
        sent_two: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seen = []

        def see(_: Tapped) -> None:
            seen.append(1)
            if len(seen) == 2:
                sent_two.set_result(None)

        await network.broker.tap("a.OUT", see)
        await network.broker.enqueue("a.IN", b'"x"', {MESSAGE_ID: "job-1"})
        await sent_two
    last = network.reports[-1]
    assert isinstance(last, Figures)
    assert last.final
    assert last.ins["in"].taken == 1
    assert last.outs == {"out": 2}
