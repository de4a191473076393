"""From packets that were seen to a suite."""

import itertools

import pytest

from msgflo.flow.discovery import Definition, Port
from msgflo.flow.yamltext import dump_yaml
from msgflo.outbox import Handling
from msgflo.payload import encode
from msgflo.spec.recording import Recording
from msgflo.spec.suite import parse_suites
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Delivery, Inlet, Tapped

IN, MORE = Port("in", queue="r.IN"), Port("more", queue="r.MORE")
OUT, LOG = Port("out", queue="r.OUT"), Port("log", queue="r.LOG")

_ids = itertools.count(1)


def definition(component="c/Role", role="r"):
    return Definition(
        id="r", role=role, component=component, inports=(IN, MORE), outports=(OUT, LOG)
    )


def seen(data, message_id=None, trace=None):
    body, kind = encode(data)
    headers = {CONTENT_TYPE: kind}
    if message_id:
        headers[MESSAGE_ID] = message_id
    if trace:
        headers["traceparent"] = f"00-{trace:032x}-{next(_ids):016x}-01"
    return Tapped("q", body, headers, 0.0)


class Nobody:
    def end(self, handling): ...


def handling(message_id, queue="r.IN@1"):
    return Handling(Delivery(Inlet("r.IN", 1), queue, b"", {}, message_id), Nobody())


def sent_by(work, port, data):
    return seen(data, work.next_id(port.queue, encode(data)[0]))


def suite_of(recording, count=10, initials=None):
    (suite,) = parse_suites(dump_yaml([recording.suite(count, initials)]), "f")
    return suite


def pairs(recording):
    steps = [case.steps[0] for case in suite_of(recording).cases]
    return [
        (
            dict(step.inputs),
            {port: expected.checks[0][1] for port, (expected,) in step.expect.items()},
        )
        for step in steps
    ]


def test_packets_are_joined_by_their_ids_whatever_their_order():
    recording = Recording(definition())
    for number in (1, 2, 3):
        recording.went_in(IN, seen(number, f"m{number}"))
    for number, queue in ((3, "r.IN@2"), (1, "r.IN"), (2, "r.IN@1")):
        recording.came_out(OUT, sent_by(handling(f"m{number}", queue), OUT, number * 10))
    assert recording.answered == 3
    assert pairs(recording) == [({"in": n}, {"out": n * 10}) for n in (1, 2, 3)]


def test_what_came_of_nothing_that_was_seen_is_in_no_case():
    recording = Recording(definition())
    recording.went_in(IN, seen(1, "m1"))
    recording.came_out(OUT, sent_by(handling("before"), OUT, 5))
    assert recording.lost == 1
    assert recording.suite(10) is None


def test_a_flood_is_joined_too_in_bounded_room():
    recording = Recording(definition())
    for number in range(3000):
        recording.went_in(IN, seen(number, f"m{number}"))
        if number % 2:
            recording.came_out(OUT, sent_by(handling(f"m{number}", "r.IN@7"), OUT, number * 10))
    assert recording.answered == 1500
    assert recording.lost == 0
    assert len(recording._inputs) <= 1500 + 200
    assert pairs(recording)[:2] == [({"in": 1}, {"out": 10}), ({"in": 3}, {"out": 30})]


def test_packets_without_ids_of_ours_are_joined_by_the_trace():
    recording = Recording(definition())
    recording.went_in(IN, seen("a", "x", trace=1))
    recording.went_in(IN, seen("b", "y", trace=2))
    recording.came_out(OUT, seen("B", "foreign", trace=2))
    recording.came_out(OUT, seen("A", "foreign too", trace=1))
    assert pairs(recording) == [({"in": "a"}, {"out": "A"}), ({"in": "b"}, {"out": "B"})]


def test_packets_without_any_id_are_joined_by_order():
    recording = Recording(definition())
    for data in ("a", "b"):
        recording.went_in(IN, seen(data))
    for port, data in ((OUT, "A"), (LOG, "la"), (OUT, "B"), (LOG, "lb")):
        recording.came_out(port, seen(data))
    assert pairs(recording) == [
        ({"in": "a"}, {"out": "A", "log": "la"}),
        ({"in": "b"}, {"out": "B", "log": "lb"}),
    ]


def test_equal_cases_are_one_and_there_are_no_more_than_asked_for():
    recording = Recording(definition())
    for number, data in enumerate([1, 1, True, 2, 3]):
        recording.went_in(IN, seen(data, f"m{number}"))
        recording.came_out(OUT, sent_by(handling(f"m{number}"), OUT, data))
    assert [case.steps[0].inputs["in"] for case in suite_of(recording, 3).cases] == [1, True, 2]


def test_several_packets_of_a_port_are_skipped_with_the_reason():
    recording = Recording(definition())
    recording.went_in(IN, seen(1, "m"))
    work = handling("m")
    for data in ("same", "same", "other"):
        recording.came_out(OUT, sent_by(work, OUT, data))
    assert recording.lost == 0
    (case,) = suite_of(recording).cases
    assert "several packets to out" in case.skip


def test_what_json_cannot_say_is_in_no_case():
    recording = Recording(definition())
    for number, (data, answer) in enumerate([(b"\xff", 1), (2, b"\xff"), (3, 30)]):
        recording.went_in(IN, seen(data, f"m{number}"))
        recording.came_out(OUT, sent_by(handling(f"m{number}"), OUT, answer))
    assert pairs(recording) == [({"in": 3}, {"out": 30})]


def test_settings_are_initial_packets_of_the_fixture():
    recording = Recording(definition())
    recording.went_in(MORE, seen(7, "s"))
    recording.went_in(IN, seen(1, "m"))
    recording.came_out(OUT, sent_by(handling("m"), OUT, 8))
    suite = suite_of(recording, initials={"LIMIT": [100]})
    graph = suite.graph()
    assert {(it.tgt.port, it.data) for it in graph.initials} == {("more", 7), ("limit", 100)}
    assert set(graph.inports) == {"in", "more"}
    assert set(graph.outports) == {"out", "log"}
    assert suite.topic == "c/Role"
    assert not suite.cases[0].skip


def test_settings_that_changed_meanwhile_make_no_case_that_would_fail():
    recording = Recording(definition())
    recording.went_in(MORE, seen(7, "s"))
    recording.went_in(IN, seen(1, "m"))
    recording.came_out(OUT, sent_by(handling("m"), OUT, 8))
    recording.went_in(MORE, seen(9, "t"))
    (case,) = suite_of(recording).cases
    assert "more was sent other values" in case.skip


@pytest.mark.parametrize("role", ["r", "2nd role", "a.b"])
def test_any_role_has_a_fixture(role):
    recording = Recording(definition(role=role))
    recording.went_in(IN, seen(1))
    recording.came_out(OUT, seen(2))
    suite = suite_of(recording)
    assert suite.graph().nodes[role].component == "c/Role"
