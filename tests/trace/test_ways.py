import asyncio
from itertools import count
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from msgflo import transport
from msgflo.flow.discovery import Announcement, Definition, Goodbye
from msgflo.flow.telemetry import TELEMETRY, Answer, Span, answers, parse_question, trace_of
from msgflo.trace.ways import Inquirer, way_lines, ways
from msgflo.transport.contract import MESSAGE_ID, Client

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_numbers = count(1)


def span(own: str, parent: str = "", role: str = "a", **more: Any) -> Span:
    said: dict[str, Any] = {
        "trace": TRACE,
        "span": own,
        "parent": parent,
        "role": role,
        "instance": 1,
        "port": "in",
        "message": f"m-{own}",
        "queued": 1000.0,
        "started": 1000.5,
        "finished": 1001.0,
        "outcome": "done",
    }
    return Span(**{**said, **more})


# Putting together.


def test_a_way_is_drawn_with_times_and_queueing():
    spans = [
        span("3", "2", "store", queued=1002.0, started=1002.25, finished=1002.5, attempt=2),
        span("1", "", "clock", port="out", queued=0, started=1000, finished=1000, outcome="sent"),
        span("2", "1", "fetch", queued=1000.001, started=1000.5, finished=1002.0),
        span("4", "2", "store", started=1001, outcome="retried", error="ValueError: no\nmore"),
    ]
    (way,) = ways(spans)
    head, since, *lines = way_lines(way, mark=["m-2"])
    assert head == f"trace {TRACE}: 4 steps in 2.500 s"
    assert since.startswith("from ")
    assert lines == [
        "         AT     QUEUED       TOOK",
        "     +0.000                        clock.1 out: sent  m-1",
        ">    +0.001      0.499      1.500    fetch.1 in: done  m-2",
        "     +0.000      1.000      0.000      store.1 in: retried  m-4",
        "                                         ValueError: no",
        "     +2.000      0.250      0.250      store.1 in: done, attempt 2  m-3",
    ]


def test_what_follows_from_something_unknown_is_shown_and_says_so():
    (way,) = ways([span("2", "gone")])
    assert any("does not remember it" in line for line in way_lines(way))
    assert not any("does not remember" in line for line in way_lines(ways([span("2")])[0]))


def test_each_trace_has_a_way_of_its_own():
    other = "1" * 32
    found = ways([span("1", started=2000, queued=0), span("2", "1", trace=other)])
    assert [way.trace for way in found] == [other, TRACE]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), unique_by=lambda it: it[0]))
def test_every_span_is_on_its_way_once_whatever_spans_claim(pairs):
    spans = [span(str(own), str(parent)) for own, parent in pairs]
    on_ways = [it for way in ways(spans) for it in way.spans]
    assert sorted(it.span for it in on_ways) == sorted(it.span for it in spans)


# Asking.


class Participant:
    """One that announces itself and answers, by hand."""

    def __init__(self, client: Client, role: str, spans: list[Span], *, mute: bool = False) -> None:
        self.definition = Definition(f"{role}-x", role, "Any")
        self.client = client
        self.spans = spans
        self.mute = mute
        client.on_told(self.told)

    def told(self, message: bytes) -> None:
        question = parse_question(message)
        if question is None:
            said = Announcement(self.definition, instance=1, paused=False)
            self._spawn(self.client.announce(said.encode()))
        elif not self.mute:
            for body in answers(self.definition.id, question, self.spans):
                self.say(body)

    def say(self, body: bytes) -> None:
        headers = {MESSAGE_ID: f"{self.definition.role}-{next(_numbers)}"}
        self.client.send(TELEMETRY, body, headers, lambda _: None)

    def _spawn(self, coroutine: Any) -> None:
        self.task = asyncio.get_running_loop().create_task(coroutine)


async def network(**roles: Participant | list[Span]) -> tuple[Inquirer, dict[str, Participant]]:
    url = f"direct://ways-{next(_numbers)}"
    there = {}
    for role, spans in roles.items():
        client = transport.client(url)
        await client.connect()
        await client.declare([], [TELEMETRY])
        there[role] = Participant(client, role, spans)  # type: ignore[arg-type]
    broker = transport.broker(url)
    await broker.connect()
    inquirer = Inquirer(broker)
    await inquirer.start()
    return inquirer, there


async def test_all_participants_are_asked_for_the_whole_trace_of_a_message():
    first = span("1", message="job-1", started=1)
    second = span("2", "1", message="other id", started=2)
    elsewhere = span("3", trace="1" * 32, message="job-2")
    inquirer, _ = await network(a=[first, elsewhere], b=[second], c=[])
    assert await inquirer.find("job-1") == [first, second]
    assert await inquirer.find("other id") == [first, second]
    assert await inquirer.find(TRACE) == [first, second]
    assert await inquirer.find("never heard of") == []
    assert inquirer.silent == []
    await inquirer.close()


async def test_a_trace_that_follows_from_the_id_is_found_when_nobody_remembers_the_message():
    later = span("2", "1", trace=trace_of("job-1"), message="other id")
    inquirer, _ = await network(a=[later])
    assert await inquirer.find("job-1") == [later]


async def test_who_does_not_answer_is_named_and_the_others_are_heard():
    one = span("1", message="job-1")
    inquirer, there = await network(a=[one], b=[])
    there["b"].mute = True
    assert await inquirer.find("job-1", patience=0.2) == [one]
    assert inquirer.silent == ["b"]


async def test_nobody_waits_for_a_participant_that_has_left():
    one = span("1", message="job-1")
    inquirer, there = await network(a=[one], b=[])
    there["b"].mute = True
    gone = there["b"].definition
    await there["b"].client.announce(Goodbye(gone.id, gone.role).encode())
    async with asyncio.timeout(20):
        assert await inquirer.find("job-1", patience=30) == [one]
    assert inquirer.silent == []


async def test_answers_to_other_questions_and_nonsense_are_passed_over():
    one = span("1", message="job-1")
    inquirer, there = await network(a=[one])
    there["a"].say(b"nonsense")
    there["a"].say(msgspec.json.encode(Answer("a-x", "another question", (span("9"),))))
    assert await inquirer.find("job-1") == [one]
