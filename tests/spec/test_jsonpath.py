import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import SpecError
from msgflo.spec.jsonpath import parse_path

DATA = {
    "a": {"b": 1, "a-b": 2, "é": 3, "@type": 4},
    "list": [{"p": 1}, {"p": 3, "x": "q"}, {"p": 5, "x": ""}],
    "deep": [[1], [2, 3]],
    "0": "zero",
    "length": "a member",
}


@pytest.mark.parametrize(
    ("path", "selected"),
    [
        ("$", [DATA]),
        ("$.a.b", [1]),
        ("a.b", [1]),
        ("['a'].b", [1]),
        (" $.a.b ", [1]),
        ("$.a.a-b", [2]),
        ("$.a['a-b']", [2]),
        ('$.a["a\\u002db"]', [2]),
        ("$.a.é", [3]),
        ("$.a.@type", [4]),
        ("$.nothing", []),
        ("$.a.b.c", []),
        ("$.list[0].p", [1]),
        ("$.list.0.p", [1]),
        ("$.list[-1].p", [5]),
        ("$.list[7]", []),
        ("$.list.length", [3]),
        ("$.length", ["a member"]),
        ("$.0", ["zero"]),
        ("$[0]", ["zero"]),
        ("$.list[0:2].p", [1, 3]),
        ("$.list[::2].p", [1, 5]),
        ("$.list[-2:].p", [3, 5]),
        ("$.list[0,2].p", [1, 5]),
        ("$['0','length']", ["zero", "a member"]),
        ("$.list[*].p", [1, 3, 5]),
        ("$.a.*", [1, 2, 3, 4]),
        ("$..p", [1, 3, 5]),
        ("$..[0]", ["zero", {"p": 1}, [1], 1, 2]),
        ("$.deep..*", [[1], [2, 3], 1, 2, 3]),
        ("$.list[?(@.p>2)].p", [3, 5]),
        ("$.list[?@.p>2].p", [3, 5]),
        ("$.list[?(@.x)].p", [3]),
        ("$.list[?(!@.x)].p", [1, 5]),
        ("$.list[?(@.x === '' || @.p == 1)].p", [1, 5]),
        ("$.list[?(@.p >= 1 && @.p < 5)].p", [1, 3]),
        ("$.list[?(@.p-1 == 2)].p", [3]),
        ("$.list[?(@.p % 2 != 1)].p", []),
        ("$.list[?(@.p == $.deep[1][1])].p", [3]),
        ("$.list[?(@['x'] == \"q\")].p", [3]),
        ("$.list[?(@.x == undefined)].p", [1]),
        ("$.list[(@.length-1)].p", [5]),
        ("$.deep[?(@.length == 2)]", [[2, 3]]),
        ("$.list[?(@.p > 'a')]", []),
        ("$.list[?(@.p / 0 > 1)]", []),
        ("$.a[?(@ == 2)]", [2]),
    ],
)
def test_a_path_selects(path, selected):
    assert parse_path(path).select(DATA) == selected


def test_true_is_not_one():
    assert parse_path("$[?(@ == 1)]").select([True, 1, 1.0, "1"]) == [1, 1.0]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "expected a name, a number or '*'"),
        ("$.", "at column 3 is its end; expected a name"),
        ("$.a b", "at column 5 is 'b'; expected '.', '[' or the end"),
        ("$[", "expected a number, a name in quotes"),
        ("$[1", "expected ']'"),
        ("$[a]", "expected a number, a name in quotes"),
        ("$[1:2:0]", "a step that is not 0"),
        ("$[?(@.a]", "expected ')'"),
        ("$[?(alert)]", "expected a value"),
        ("$[?(@.a())]", "expected"),
        ("$[?(" + "(" * 200, "expected"),
    ],
)
def test_what_is_no_path_is_told_with_its_place(path, said):
    with pytest.raises(SpecError, match="no JSONPath") as caught:
        parse_path(path)
    assert said in str(caught.value)


@given(st.text("$@.[]()?*'\"0123456789abc-:,!<>=&|+ ", max_size=30))
def test_any_text_is_a_path_or_an_error(text):
    try:
        path = parse_path(text)
    except SpecError:
        return
    path.select(DATA)
    path.select([1, "a", None, {}])
    path.select("text")
