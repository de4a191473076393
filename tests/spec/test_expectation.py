import pytest

from msgflo.errors import SpecError
from msgflo.spec.expectation import judge, parse_expectation

HOLD = [
    ({"equals": {"a": [1, 2]}}, {"a": [1.0, 2]}),
    ({"equals": None}, None),
    ({"equals": False}, False),
    ({"above": 1}, 1.5),
    ({"below": 1}, -1),
    ({"type": "object"}, {}),
    ({"type": "Array"}, []),
    ({"type": "string"}, ""),
    ({"type": "number"}, 0),
    ({"type": "boolean"}, False),
    ({"type": "null"}, None),
    ({"haveKeys": ["b", "a"]}, {"a": 1, "b": 2}),
    ({"haveKeys": "a"}, {"a": 1}),
    ({"haveKeys": [0, 1]}, ["x", "y"]),
    ({"includeKeys": ["a"]}, {"a": 1, "b": 2}),
    ({"contains": "bc"}, "abcd"),
    ({"contains": 20}, "it is 20 degrees"),
    ({"contains": 2}, [1, 2]),
    ({"contains": {"a": [1]}}, [{"a": [1]}]),
    ({"contains": {"a": {"b": 1}}}, {"a": {"b": 1}, "c": 2}),
    ({"noterror": True}, {"value": 1}),
    ({"noterror": True}, None),
    ({"above": 1, "below": 3, "type": "number"}, 2),
    ({"path": "$.a", "equals": 1}, {"a": 1}),
    ({"path": "$..a", "type": "number"}, [{"a": 1}, {"a": 2}]),
    ({"equals": 1, "comment of its author": "it is so"}, 1),
]
DO_NOT = [
    ({"equals": 1}, "1"),
    ({"equals": 1}, True),
    ({"equals": True}, 1),
    ({"equals": [1, 2]}, [2, 1]),
    ({"equals": {"a": 1}}, {"a": 1, "b": 2}),
    ({"above": 1}, 1),
    ({"above": 1}, "2"),
    ({"above": 0}, True),
    ({"below": 1}, 1),
    ({"below": 1}, None),
    ({"type": "object"}, []),
    ({"type": "number"}, True),
    ({"haveKeys": ["a"]}, {"a": 1, "b": 2}),
    ({"haveKeys": ["a", "b"]}, {"a": 1}),
    ({"haveKeys": ["a"]}, None),
    ({"includeKeys": ["a", "c"]}, {"a": 1, "b": 2}),
    ({"contains": "x"}, "abc"),
    ({"contains": 3}, [1, 2]),
    ({"contains": 1}, [True]),
    ({"contains": {"a": 2}}, {"a": 1}),
    ({"contains": 2}, 12),
    ({"contains": "a"}, {"a": 1}),
    ({"noterror": True}, {"message": "it broke"}),
    ({"above": 1, "below": 3}, 4),
    ({"below": 3, "above": 1}, 0),
    ({"type": "object", "haveKeys": ["x"]}, {"foo": 1}),
    ({"path": "$.b", "equals": 1}, {"a": 1}),
    ({"path": "$.*.foo", "equals": "bar"}, {"x": {"foo": "bar"}, "y": {"foo": "bazz"}}),
    ({"path": "$.a", "equals": 1}, "a text"),
]


@pytest.mark.parametrize(("said", "data"), HOLD)
def test_holds(said, data):
    assert parse_expectation(said).problem(data) == ""


@pytest.mark.parametrize(("said", "data"), DO_NOT)
def test_does_not_hold_and_says_what_was_expected(said, data):
    assert "expect" in parse_expectation(said).problem(data)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({}, "has no operator"),
        ({"path": "$.a"}, "has no operator"),
        ({"equal": 1}, "no operator 'equal' to expect something with. Did you mean 'equals'?"),
        ({"equals": 1, "typ": "number"}, "Did you mean 'type'?"),
        ({"something": 1}, "There are: type, equals"),
        ({"above": "1"}, "expected a number"),
        ({"above": True}, "expected a number"),
        ({"type": "integer"}, "expected one of: object"),
        ({"haveKeys": []}, "expected a list of keys"),
        ({"includeKeys": 3}, "expected a list of keys"),
        ({"equals": 1, "path": 3}, "expected a JSONPath"),
        ({"equals": 1, "path": "$["}, "no JSONPath"),
        ("a text", "expected a map"),
    ],
)
def test_an_expectation_that_says_nothing_is_refused(said, text):
    with pytest.raises(SpecError) as caught:
        parse_expectation(said)
    assert text in str(caught.value)
    assert "expect" in str(caught.value)


def test_a_step_is_judged_port_by_port():
    expected = {
        "out": (parse_expectation({"equals": 0}),),
        "log": (parse_expectation({"type": "string"}), parse_expectation({"contains": "a"})),
    }
    assert judge(expected, {"out": 0, "log": "abc"}) == ""
    assert judge(expected, {"out": 1, "log": "abc"}) == "out: expected 1 to equal 0"
    assert judge(expected, {"out": 0, "log": "x"}) == 'log: expected "x" to contain "a"'
    assert judge(expected, {"out": 0}) == "expected data: No data received on port log"


def test_long_data_is_cut_in_what_is_said():
    problem = parse_expectation({"equals": 1}).problem("x" * 10_000)
    assert len(problem) < 500
    assert "10002 characters" in problem
