from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import SpecError
from msgflo.spec.suite import Fixture, fixture_of, parse_suites
from realgraphs import WHY_NOT, real_graphs

REAL = [path for pattern in ("*.yaml", "*.yml") for path in real_graphs(pattern)]

CASE = "name: n, assertion: a, inputs: {in: 1}, expect: {out: {equals: 1}}"


def test_a_suite_is_read_with_its_defaults():
    (suite,) = parse_suites(f"topic: Repeat\ncases:\n- {{{CASE}}}\n", "f.yaml")
    assert suite.name == "Repeat"
    assert suite.timeout == 2
    assert suite.fixture is None
    (case,) = suite.cases
    assert (case.name, case.assertion, case.timeout, case.line) == ("n", "a", 2, 3)
    assert case.steps[0].inputs == {"in": 1}
    assert suite.runs


def test_a_suite_without_cases_is_one():
    (suite,) = parse_suites("topic: Repeat", "f")
    assert suite.cases == ()
    assert not suite.runs


def test_timeouts_are_milliseconds_and_a_case_has_its_suites():
    text = f"topic: T\ntimeout: 500\ncases:\n- {{{CASE}}}\n- {{{CASE}, timeout: 80}}"
    (suite,) = parse_suites(text, "f")
    assert suite.timeout == 0.5
    assert [case.timeout for case in suite.cases] == [0.5, 0.08]


def test_sequences_are_steps():
    text = """
topic: T
cases:
- name: n
  assertion: a
  inputs: [{in: 1}, {in: 2}]
  expect: [{out: {equals: 1}}, {out: [{above: 1}, {below: 3}]}]
"""
    ((case,),) = [suite.cases for suite in parse_suites(text, "f")]
    assert [step.inputs for step in case.steps] == [{"in": 1}, {"in": 2}]
    assert len(case.steps[1].expect["out"]) == 2


def test_what_is_wrong_with_a_case_alone_fails_it_alone():
    text = """
topic: T
cases:
- {name: n, assertion: a, inputs: [{in: 1}], expect: [{out: {equals: 1}}, {out: {equals: 2}}]}
- {name: n, assertion: a, inputs: {in: 1}, expect: {out: {equal: 1}}}
- {name: n, assertion: a, inputs: {in: 1}, expect: {out: {equals: 1}}}
"""
    (suite,) = parse_suites(text, "f")
    assert suite.cases[0].problem == (
        "Test sequence length mismatch. Got 1 inputs and 2 expectations"
    )
    assert "Did you mean 'equals'" in suite.cases[1].problem
    assert suite.cases[2].problem == ""


def test_skipped_cases_and_suites_have_a_reason():
    text = f"topic: T\ncases:\n- {{{CASE}, skip: too slow}}\n- {{{CASE}, skip: true}}"
    (suite,) = parse_suites(text, "f")
    assert [case.skip for case in suite.cases] == ["too slow", "no reason given"]
    assert not suite.runs
    (suite,) = parse_suites(f"topic: T\nskip: not now\ncases: [{{{CASE}}}]", "f")
    assert suite.skip == "not now"
    assert not suite.runs


def test_several_documents_are_several_suites_and_empty_ones_are_none():
    suites = parse_suites("---\ntopic: A\n---\n---\ntopic: B\n", "f")
    assert [(suite.topic, suite.line) for suite in suites] == [("A", 2), ("B", 5)]


def test_ports_and_values_that_yaml_1_1_misreads_are_words():
    text = (
        "topic: T\ncases: [{name: on, assertion: a, inputs: {on: off}, expect: {no: {equals: y}}}]"
    )
    ((case,),) = [suite.cases for suite in parse_suites(text, "f")]
    assert case.name == "on"
    assert case.steps[0].inputs == {"on": "off"}
    assert list(case.steps[0].expect) == ["no"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "f:1: [\"a\"] is no suite"),
        ("name: T", "f:1: a suite has no topic; it has: name"),
        ("topic: [a]", "topic is [\"a\"]; expected a text"),
        ("topic: T\ncases: {}", "f:2: cases is {}; expected a list"),
        ("topic: T\ncase: []", "Did you mean 'cases'?"),
        ("topic: T\ncases:\n- {name: n}", "f:3: case 'n' has no assertion"),
        ("topic: T\ncases:\n- {name: n, assertion: a, input: {}, expect: {}}",
         "has no inputs. Did you mean 'inputs'?"),
        ("topic: T\ncases:\n- x", "f:3: \"x\" is no case"),
        ("topic: T\ncases:\n- name: n\n  assertion: a\n  inputs: 3\n  expect: {}",
         "f:5: inputs is 3; expected a map"),
        ("topic: T\ntimeout: fast", "f:2: timeout is \"fast\"; expected milliseconds"),
        ("topic: T\nfixture: x", "expected a map with type (fbp, json) and data"),
        ("topic: {", "not YAML"),
    ],
)  # fmt: skip
def test_what_is_no_suite_is_told_with_its_line(text, said):
    with pytest.raises(SpecError) as caught:
        parse_suites(text, "f")
    assert said in str(caught.value)


def test_a_fixture_is_a_graph():
    text = "topic: T\nfixture:\n  type: fbp\n  data: |\n    INPORT=a.IN:IN\n    a(T)\n"
    (suite,) = parse_suites(text, "f")
    graph = suite.graph()
    assert graph is not None
    assert list(graph.inports) == ["in"]
    text = "topic: T\nfixture: {type: json, data: {processes: {a: {component: T}}}}"
    (suite,) = parse_suites(text, "f")
    graph = suite.graph()
    assert graph is not None
    assert graph.nodes["a"].component == "T"


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("fbp", "a(", "the fixture of 'T' is no graph: the fixture:1:"),
        ("json", "{", "the fixture:1:"),
        ("xml", "<a/>", "is of type 'xml'; expected fbp or json"),
    ],
)
def test_a_fixture_that_is_no_graph_is_told(kind, data, said):
    (suite,) = parse_suites("topic: T", "f")
    with pytest.raises(SpecError) as caught:
        replace(suite, fixture=Fixture(kind, data)).graph()
    assert said in str(caught.value)


def test_a_fixture_is_made_of_a_topic_whose_ports_are_known():
    graph = fixture_of("c/T", ["in", "Width"], ["out"])
    assert {port: (it.node, it.port) for port, it in graph.inports.items()} == {
        "in": ("testee", "in"),
        "Width": ("testee", "Width"),
    }
    for inports, outports in (([], ["out"]), (["in"], [])):
        with pytest.raises(SpecError, match="'c/T' has no"):
            fixture_of("c/T", inports, outports)


@given(st.text(max_size=200))
def test_any_text_is_suites_or_an_error(text):
    try:
        parse_suites(text, "f")
    except SpecError:
        return


@pytest.mark.skipif(not REAL, reason=WHY_NOT)
def test_suites_of_real_projects_are_read():
    files = [path for path in REAL if "\ntopic:" in f"\n{path.read_text()}"]
    assert files
    suites = [suite for path in files for suite in parse_suites(path.read_text(), str(path))]
    for suite in suites:
        assert suite.cases
        wrong = [case.problem for case in suite.cases if "mismatch" not in case.problem]
        assert not any(wrong)
        graph = suite.graph()
        assert graph is None or (graph.inports and graph.outports)
