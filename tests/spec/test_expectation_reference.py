"""Our judgement of expectations beside that of the reference, npm fbp-spec 0.8."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npm
from msgflo.errors import SpecError
from msgflo.spec.expectation import judge, parse_expectation
from msgflo.spec.jsonpath import parse_path
from msgflo.spec.suite import parse_suites

HERE = Path(__file__).parent

Reference = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    """Ask the reference; one process for all questions."""
    node = npm.node()
    with subprocess.Popen(
        [node, HERE / "npm" / "reference.js", npm.installed(HERE / "npm", "npm-spec")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def ask(question: dict[str, Any]) -> dict[str, Any]:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            answer: dict[str, Any] = json.loads(stdout.readline())
            return answer

        yield ask
        stdin.close()


def ours(expect: dict[str, Any], data: Any) -> bool:
    try:
        expected = {"out": (parse_expectation(expect),)}
    except SpecError:
        return False
    return not judge(expected, {"out": data})


# Names of keys that are neither length (what JavaScript knows of lists) nor inherited.
NAMES = st.sampled_from(["a", "b", "c", "foo"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 1.5, -2.25])
    | st.sampled_from(["", "a", "ab", "abc", "1", "null"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
DICTIONARIES = st.dictionaries(NAMES, SCALARS, max_size=3)
NUMBERS = st.integers(-2, 2) | st.sampled_from([0.5, -1.5])
TEXTS = st.sampled_from(["", "a", "ab", "abc", "1", "null true"])
TYPES = ["object", "Array", "string", "number", "boolean", "null", "integer", "undefined"]


def said(operator: str, operands: Any, *data: Any) -> Any:
    """Expectations of an operator, each with data: any, and often data of the kinds given."""
    expectations = operands.map(lambda operand: {operator: operand})
    return st.tuples(expectations, st.one_of(VALUES, *data, *data))


JUDGED = st.one_of(
    VALUES.flatmap(lambda value: said("equals", st.just(value), st.just(value))),
    said("above", NUMBERS, NUMBERS),
    said("below", NUMBERS, NUMBERS),
    said("type", st.sampled_from(TYPES), SCALARS),
    said("haveKeys", st.lists(NAMES, max_size=3, unique=True), DICTIONARIES),
    said("includeKeys", st.lists(NAMES, max_size=3, unique=True), DICTIONARIES),
    said("contains", st.sampled_from(["a", "bc", "", 1, True, None]), TEXTS, st.lists(SCALARS)),
    said("contains", st.dictionaries(NAMES, SCALARS, min_size=1, max_size=2), DICTIONARIES),
    said("noterror", st.just(True), st.just({"message": "it broke"})),
)
STEPS = st.sampled_from(
    [".a", ".b", ".foo", "['a']", "[0]", "[1]", ".*", "[*]", "..a", "..*", "[0:2]", "[1:]",
     "[?(@.a)]", "[?(@.a===1 || @.b)]", "[0,1]",
     "['a','b']", ".0", ".length"]
)  # fmt: skip
PATHS = st.lists(STEPS, min_size=1, max_size=3).map(lambda steps: "$" + "".join(steps))


@settings(max_examples=500, deadline=None)
@given(JUDGED)
def test_one_operator_has_the_same_verdict(
    reference: Reference, judged: tuple[dict[str, Any], Any]
) -> None:
    expect, data = judged
    passed = "error" not in reference({"expect": {"out": expect}, "data": {"out": data}})
    if "contains" in expect and isinstance(data, list) and isinstance(expect["contains"], dict):
        # The one difference: it finds no objects in lists, we do.
        assert not passed or ours(expect, data)
    else:
        assert ours(expect, data) is passed


@settings(max_examples=500, deadline=None)
@given(PATHS, st.dictionaries(NAMES, VALUES, max_size=3) | st.lists(VALUES, max_size=4))
def test_a_path_selects_the_same(reference: Reference, path: str, data: Any) -> None:
    theirs = reference({"path": path, "data": data})["selected"]
    assert ordered(parse_path(path).select(data)) == ordered(theirs), theirs


COMPARISONS = st.sampled_from(
    [
        "@.a > 0",
        "@.a !== 1 && !(@.b > 0)",
        "@.a <= @.b",
        "@.a + @.b == 1",
        "@.a * 2 >= 1 && @.b != -1",
        "(@.a - @.b) / 2 < 1",
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(COMPARISONS, st.lists(st.fixed_dictionaries({"a": NUMBERS, "b": NUMBERS}), max_size=4))
def test_numbers_are_compared_and_counted_with_alike(
    reference: Reference, comparison: str, data: Any
) -> None:
    path = f"$[?({comparison})]"
    theirs = reference({"path": path, "data": data})["selected"]
    assert ordered(parse_path(path).select(data)) == ordered(theirs), theirs


def ordered(values: list[Any]) -> list[str]:
    """Values in an order that says nothing: a path selects a set. Each once: a union may repeat."""
    return sorted({json.dumps(value, sort_keys=True) for value in values})


@pytest.mark.parametrize(
    ("expect", "data", "why"),
    [
        ({"type": "object", "haveKeys": ["x"]}, {"a": 1}, "all operators count"),
        ({"equals": 1, "above": 3}, 1, "all operators count"),
    ],
)
def test_what_passes_there_and_not_here(
    reference: Reference, expect: dict[str, Any], data: Any, why: str
) -> None:
    assert "error" not in reference({"expect": {"out": expect}, "data": {"out": data}}), why
    assert not ours(expect, data)


@pytest.mark.parametrize(
    ("expect", "data", "why"),
    [
        ({"contains": {"a": [1]}}, [{"a": [1]}], "objects in lists are found"),
        ({"contains": {"a": {"b": 1}}}, {"a": {"b": 1}}, "objects in objects are compared"),
        ({"path": "$", "equals": 1}, 1, "a path of a value that is no object"),
        ({"path": "$.h.a-b", "equals": 1}, {"h": {"a-b": 1}}, "a hyphen in a name"),
        ({"path": "$[-1]", "equals": 2}, [1, 2], "counted from the end"),
        ({"path": "$[?@.a>1]", "type": "object"}, [{"a": 2}], "as RFC 9535 writes it"),
    ],
)
def test_what_passes_here_and_not_there(
    reference: Reference, expect: dict[str, Any], data: Any, why: str
) -> None:
    assert "error" in reference({"expect": {"out": expect}, "data": {"out": data}})
    assert ours(expect, data), why


@pytest.mark.parametrize("path", sorted((HERE / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_both_read_the_same_in_a_suite(reference: Reference, path: Path) -> None:
    text = path.read_text()
    theirs = reference({"yaml": text})["suites"]
    mine = parse_suites(text, path.name)
    assert [suite.name for suite in mine] == [suite["name"] for suite in theirs]
    for suite, other in zip(mine, theirs, strict=True):
        assert [case.name for case in suite.cases] == [case["name"] for case in other["cases"]]
        for case, that in zip(suite.cases, other["cases"], strict=True):
            if case.steps:
                inputs = that["inputs"] if isinstance(that["inputs"], list) else [that["inputs"]]
                assert [step.inputs for step in case.steps] == inputs
