"""The runtime within this process, and the rules of running that show there."""

import json

import pytest

from msgflo.spec.inprocess import InProcess
from msgflo.spec.report import exit_status
from msgflo.spec.runner import Status, run_suites
from msgflo.spec.suite import parse_suites


async def run(runtime, text):
    (result,) = await run_suites(runtime, parse_suites(text, "f.yaml"))
    return result


async def errors(runtime, text):
    result = await run(runtime, text)
    assert not result.problem, result.problem
    return [case.error for case in result.cases]


def suite(topic, *cases, fixture="", timeout=20_000):
    """A suite of cases (inputs, expect), in YAML's flow style."""
    text = f"topic: {topic}\ntimeout: {timeout}\n"
    if fixture:
        text += "fixture:\n  type: fbp\n  data: |\n"
        text += "".join(f"    {line}\n" for line in fixture.strip().splitlines())
    text += "cases:\n"
    for inputs, expect in cases:
        text += f"- {{name: n, assertion: a, inputs: {inputs}, expect: {expect}}}\n"
    return text


async def test_a_component_is_run_by_its_topic(runtime):
    text = suite("core/Repeat", ("{in: [1, a]}", "{out: {equals: [1, a]}}"))
    assert await errors(runtime, text) == [""]


@pytest.mark.parametrize("value", ["0", "false", '""', "null", "[]", "{}"])
async def test_values_that_are_false_are_packets(runtime, value):
    text = suite("Classic", (f"{{in: {value}}}", f"{{out: {{equals: {value}}}}}"))
    assert await errors(runtime, text) == [""]


async def test_a_fixture_of_several_nodes_is_wired(runtime):
    fixture = """
INPORT=it.IN:IN
OUTPORT=f.OUT:OUT
it(core/Repeat) OUT -> IN rr(msgflo/RoundRobin) OUT -> IN f(Add)
5 -> MORE f
"""
    text = suite("a graph", ("{in: 3}", "{out: {equals: 8}}"), fixture=fixture)
    assert await errors(runtime, text) == [""]


async def test_names_of_ports_match_in_any_case(runtime):
    fixture = "INPORT=it.IN:IN\nOUTPORT=it.OUT:OUT\nit(core/Repeat)"
    text = suite("T", ("{IN: 3}", "{Out: {equals: 3}}"), fixture=fixture)
    assert await errors(runtime, text) == [""]


async def test_a_classic_participant_is_run(runtime):
    text = suite("Classic", ("{in: {a: 1}}", "{out: {equals: {a: 1}}}"))
    assert await errors(runtime, text) == [""]


@pytest.mark.parametrize("program", ["python3", "/usr/bin/python3.11", "msgflo-python"])
async def test_a_component_that_is_configured_as_a_command_of_python_is_run(project, program):
    (project / "elsewhere").mkdir()
    (project / "components" / "Classic.py").rename(project / "elsewhere" / "mine.py")
    config = {"components": {"c/Mine": f"{program} elsewhere/mine.py #ROLE", "c/Sh": "sh -c true"}}
    (project / "msgflo.json").write_text(json.dumps(config))
    runtime = InProcess(project)
    assert await errors(runtime, suite("c/Mine", ("{in: 1}", "{out: {equals: 1}}"))) == [""]
    result = await run(runtime, suite("c/Sh", ("{in: 1}", "{out: {equals: 1}}")))
    assert "says to start it by the command 'sh -c true'" in result.problem


async def test_state_is_kept_between_the_cases_of_a_suite_and_not_beyond(runtime):
    text = suite(
        "Counter",
        ("[{in: 1}, {in: 2}]", "[{out: {equals: 1}}, {out: {equals: 3}}]"),
        ("{in: 4}", "{out: {equals: 7}}"),
    )
    for _ in range(2):
        assert await errors(runtime, text) == ["", ""]


async def test_a_step_ends_by_the_names_of_ports_not_by_their_number(runtime):
    """A packet on a port that nothing is expected of stands for none that is."""
    assert await errors(runtime, suite("Aside", ("{in: 1}", "{out: {equals: 1}}"))) == [""]


async def test_the_last_packet_of_each_port_counts(runtime):
    text = suite("Both", ("{in: 1}", "{left: {equals: [1, last]}, right: {equals: 1}}"))
    assert await errors(runtime, text) == [""]


async def test_a_missing_packet_fails_its_case_when_its_time_is_up_and_the_next_is_run(runtime):
    case = "name: n, assertion: a, inputs: {in: 1}"
    text = (
        "topic: Silent\ntimeout: 20000\ncases:\n"
        f"- {{{case}, expect: {{out: {{equals: 1}}}}, timeout: 60}}\n- {{{case}, expect: {{}}}}\n"
    )
    assert await errors(runtime, text) == [
        "expected data within 0.06 s: No data received on port out",
        "",
    ]


async def test_a_handler_that_raises_fails_its_case_at_once_with_where(runtime):
    text = suite("Picky", ("{in: -1}", "{out: {equals: -1}}"), ("{in: 2}", "{out: {equals: 2}}"))
    result = await run(runtime, text)
    failed, passed = result.cases
    assert failed.error == "testee: ValueError: -1 is negative"
    assert "Traceback" in failed.detail
    assert passed.status is Status.PASSED


async def test_a_handler_that_raises_after_it_has_sent_fails_its_case_too(runtime):
    (error,) = await errors(runtime, suite("SendsAndFails", ("{in: 1}", "{out: {equals: 1}}")))
    assert error == "testee: ValueError: too late"


async def test_of_many_packets_that_end_a_step_counts_and_the_rest_is_not_of_the_next(runtime):
    text = suite("Many", ("{in: 3}", "{out: {equals: 0}}"), ("{in: 1}", "{out: {equals: 0}}"))
    assert await errors(runtime, text) == ["", ""]


async def test_a_payload_that_does_not_fit_its_port_fails_its_case(runtime):
    (error,) = await errors(runtime, suite("Picky", ("{in: x}", "{out: {equals: 1}}")))
    assert "expected int, got str" in error


async def test_a_packet_on_the_port_error_fails_a_case_that_does_not_expect_it(runtime):
    text = suite(
        "Kind",
        ("{in: -1}", "{out: {equals: 1}}"),
        ("{in: -1}", "{error: {path: $..message, contains: negative}}"),
    )
    unexpected, expected = await errors(runtime, text)
    assert "-1 is negative" in unexpected
    assert expected == ""


async def test_dead_letters_that_the_fixture_takes_are_no_failure(runtime):
    fixture = """
INPORT=rr.IN:IN
OUTPORT=dead.OUT:OUT
rr(msgflo/RoundRobin) OUT -> IN p(Picky)
rr DEADLETTER -> IN dead(core/Repeat)
"""
    fixture = fixture.replace("INPORT=rr.IN:IN", "INPORT=a.IN:IN\na(core/Repeat) OUT -> IN rr")
    text = suite("T", ("{in: -5}", "{out: {equals: -5}}"), fixture=fixture)
    assert await errors(runtime, text) == [""]


async def test_a_handler_that_ends_the_process_fails_its_case(runtime):
    (error,) = await errors(runtime, suite("Leaves", ("{in: 1}", "{out: {equals: 1}}")))
    assert "SystemExit: 3" in error


async def test_bytes_are_text_or_else_base64(runtime):
    text = suite(
        "Bytes", ("{in: '6869'}", "{out: {equals: hi}}"), ("{in: 'ff00'}", "{out: {equals: /wA=}}")
    )
    assert await errors(runtime, text) == ["", ""]


async def test_a_port_that_the_fixture_does_not_export_is_told(runtime):
    text = suite("core/Repeat", ("{inn: 1}", "{out: {equals: 1}}"), ("{in: 1}", "{x: {equals: 1}}"))
    assert await errors(runtime, text) == [
        "the fixture exports no inport 'inn'; expected one of: in. Did you mean 'in'?",
        "the fixture exports no outport 'x'; expected one of: out.",
    ]


@pytest.mark.parametrize(
    ("topic", "fixture", "said"),
    [
        ("Repeet", "", "the library has no component 'Repeet'"),
        ("Node", "", "Node.js is javascript; expected one in Python. To test it, run the suite"),
        ("Lamp", "", "describes a participant that runs somewhere else"),
        ("Fails", "", "cannot be imported: ModuleNotFoundError"),
        ("Unmade", "", "cannot be made: RuntimeError: no tools"),
        ("Broken", "", "did not start: RuntimeError: no licence"),
        ("T", "INPORT=a.NO:IN\nOUTPORT=a.OUT:OUT\na(core/Repeat)", "has no inport 'no'"),
        ("T", "INPORT=a.IN:IN\nOUTPORT=a.NO:OUT\na(core/Repeat)", "has no outport 'no'"),
        ("T", "INPORT=a.IN:IN\na(core/Repeat) NO -> IN b(core/Repeat)", "has no outport 'no'"),
        ("T", "INPORT=a.IN:IN\na(Picky)\n'x' -> IN a", "does not fit|expected int"),
        ("T", "a(core/Repeat", "is no graph"),
    ],
)
async def test_what_cannot_be_set_up_fails_its_cases_and_stops_no_other_suite(
    runtime, topic, fixture, said
):
    case = ("{in: 1}", "{out: {equals: 1}}")
    text = suite(topic, case, fixture=fixture) + "---\n" + suite("core/Repeat", case)
    broken, fine = await run_suites(runtime, parse_suites(text, "f.yaml"))
    assert any(part in broken.problem for part in said.split("|")), broken.problem
    assert [case.status for case in broken.cases] == [Status.FAILED]
    assert broken.cases[0].error == broken.problem
    assert [case.status for case in fine.cases] == [Status.PASSED]
    assert exit_status([broken, fine]) == 1


async def test_what_is_skipped_is_not_set_up(runtime):
    text = (
        "topic: Not There\ncases:\n"
        "- {name: n, assertion: a, inputs: {in: 1}, expect: {out: {equals: 1}}, skip: later}\n"
    )
    result = await run(runtime, text)
    assert [(case.status, case.error) for case in result.cases] == [(Status.SKIPPED, "later")]
    assert not result.problem
    result = await run(runtime, text.replace(", skip: later", "") + "skip: all of it\n")
    assert [(case.status, case.error) for case in result.cases] == [(Status.SKIPPED, "all of it")]


async def test_suites_that_are_called_as_components_are_theirs(project, runtime):
    (project / "spec").mkdir()
    case = ("{in: 1}", "{out: {equals: 1}}")
    (project / "spec" / "Classic.yaml").write_text(suite("Classic", case))
    (project / "spec" / "other.yaml").write_text(suite("core/Repeat", case))
    assert [it.topic for it in await runtime.component_suites()] == ["Classic"]
