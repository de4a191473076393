import json
from bisect import bisect_left

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import DefinitionError
from msgflo.flow.telemetry import (
    BUCKETS,
    Answer,
    Figures,
    InFigures,
    Question,
    Span,
    answers,
    parse_question,
    parse_report,
    parse_traceparent,
    trace_of,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def span(message: str, trace: str = TRACE, own: str = SPAN, error: str = "") -> Span:
    return Span(trace, own, "", "resize", 1, "in", message, 1.0, 2.0, 3.0, "done", 1, error)


# Trace context, as https://www.w3.org/TR/trace-context/ has it.


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-03", "03"),
        (f"01-{TRACE}-{SPAN}-03", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", "01"),
    ],
)
def test_a_traceparent_is_read(header, flags):
    assert parse_traceparent(header) == (TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "00", "garbage", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1"),
        *(f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-01-"),
        *(f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"01-{TRACE}-{SPAN}-01."),
        *(f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE[:-1]}g-{SPAN}-01", f" 00-{TRACE}-{SPAN}-01"),
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_what_is_no_traceparent_counts_as_none(header):
    assert parse_traceparent(header) is None


@given(st.text())
def test_no_traceparent_does_harm(header):
    parse_traceparent(header)


@given(st.text())
def test_a_message_without_one_begins_a_trace_that_follows_from_its_id(message_id):
    trace = trace_of(message_id)
    assert parse_traceparent(f"00-{trace}-{SPAN}-01") == (trace, SPAN, "01")
    assert trace_of(message_id) == trace
    assert trace_of(trace) == trace
    assert trace_of(message_id + "x") != trace


# Questions and answers.


def test_a_question_arrives_as_it_was_asked():
    question = Question("f81d", ("job-17", TRACE))
    assert parse_question(question.encode()) == question
    assert json.loads(question.encode())["protocol"] == "trace"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{}", b'"trace"', b'{"trace": 1}', b'\xff"trace"'),
        b'{"protocol": "discovery", "command": "pause", "payload": {"roles": ["trace", "x"]}}',
    ],
)
def test_other_things_that_are_told_are_no_questions(data):
    assert parse_question(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"protocol": "trace", "command": "find"}',
        b'{"protocol": "trace", "command": "find", "payload": {"token": "a", "ids": 3}}',
        b'{"protocol": "trace", "command": "forget", "payload": {"token": "a", "ids": []}}',
    ],
)
def test_a_question_that_makes_no_sense_is_told(data):
    with pytest.raises(DefinitionError, match="not a question for spans"):
        parse_question(data)


def told(question: Question, spans: list[Span]) -> list[Answer]:
    found = [parse_report(message) for message in answers("resize-1", question, spans)]
    assert all(isinstance(it, Answer) and it.token == question.token for it in found)
    return found  # type: ignore[return-value]


def test_an_answer_has_the_spans_of_a_message_a_trace_or_a_span():
    spans = [span("a"), span("b", trace="1" * 32, own="2" * 16), span("c", trace="3" * 32)]
    assert told(Question("t", ("a",)), spans)[0].spans == (spans[0],)
    assert told(Question("t", ("a", "1" * 32)), spans)[0].spans == tuple(spans[:2])
    assert told(Question("t", ("2" * 16,)), spans)[0].spans == (spans[1],)


def test_who_knows_nothing_says_so():
    (answer,) = told(Question("t", ("a",)), [])
    assert answer == Answer("resize-1", "t", (), True)


def test_a_long_answer_comes_in_pieces_and_the_last_one_says_so():
    spans = [span("a", error="x" * 500) for _ in range(500)]
    messages = list(answers("resize-1", Question("t", ("a",)), spans))
    assert len(messages) > 3
    assert max(map(len, messages)) < 100_000
    found = told(Question("t", ("a",)), spans)
    assert [it.last for it in found] == [False] * (len(found) - 1) + [True]
    assert [it for answer in found for it in answer.spans] == spans


# Figures.


@given(st.lists(st.tuples(st.floats(0, 1000), st.none() | st.floats(0, 1000))))
def test_each_delivery_is_counted_in_one_bucket(deliveries):
    figures = InFigures()
    for busy, wait in deliveries:
        figures.add(busy, wait)
    waits = [wait for _, wait in deliveries if wait is not None]
    assert figures.taken == len(deliveries) == sum(figures.busy)
    assert len(waits) == sum(figures.waits)
    assert figures.busy_sum == pytest.approx(sum(busy for busy, _ in deliveries))
    assert figures.waits_sum == pytest.approx(sum(waits))
    for bucket, bound in enumerate(BUCKETS):
        within = sum(busy <= bound for busy, _ in deliveries)
        assert sum(figures.busy[: bucket + 1]) == within
    assert bisect_left(BUCKETS, 1e9) == len(figures.busy) - 1


def test_figures_arrive_as_they_were_sent():
    port = InFigures()
    port.add(0.02, 0.5)
    figures = Figures("resize-1", "resize", 2, {"in": port}, {"out": 3})
    assert parse_report(msgspec.json.encode(figures)) == figures


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"\xff",
            b"{}",
            b"[" * 100_000,
            b'{"telemetry": "other"}',
            b'{"telemetry": "spans"}',
        ),
        b'{"telemetry":"figures","id":"a","role":"a","instance":1,"ins":{"in":{"busy":[1]}}}',
    ],
)
def test_what_is_no_report_is_told(data):
    with pytest.raises(DefinitionError):
        parse_report(data)
