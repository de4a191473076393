import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import YamlError
from msgflo.flow.yamltext import dump_yaml, load_yaml, load_yaml_documents


def test_words_that_were_booleans_in_yaml_1_1_are_words():
    assert load_yaml("on: [on, off, yes, no, y, n]", "f") == {
        "on": ["on", "off", "yes", "no", "y", "n"]
    }


def test_numbers_are_what_yaml_1_2_says():
    assert load_yaml('[0xFFEE, "0x44", 0o17, 1.5, -3, true, null, ~]', "f") == [
        0xFFEE, "0x44", 15, 1.5, -3, True, None, None,
    ]  # fmt: skip


def test_a_date_is_its_text():
    assert load_yaml("[2020-01-02, 2001-12-14t21:59:43.10-05:00]", "f") == [
        "2020-01-02",
        "2001-12-14t21:59:43.10-05:00",
    ]


def test_keys_are_texts_as_they_are_written():
    assert load_yaml("{1: a, true: b, 0x1: c}", "f") == {"1": "a", "true": "b", "0x1": "c"}


def test_anchors_and_merged_maps_are_followed():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}"
    assert load_yaml(text, "f") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2, "z": 4},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "f:1:5: not YAML"),
        ("a: 1\na: 2", "f:2:1: not YAML: the key 'a' is there twice (line 1)"),
        ("? [a]\n: 1", "a key is a map or a list"),
        ("a: &a [*a]", "it contains itself"),
        ("a: !!python/object:os.system x", "nobody knows what"),
        ("a\n---\nb", "several documents"),
        ("[" * 101 + "]" * 101, "nested"),
        ("a: b: c", "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_what_is_wrong_has_a_place(text, said):
    with pytest.raises(YamlError) as caught:
        load_yaml(text, "f")
    assert said in str(caught.value)


def test_documents_know_the_lines_of_their_maps_and_entries():
    first, second = load_yaml_documents("a:\n  - x: 1\n  - y: 2\n---\nb: {}\n", "f")
    assert first.line(first.value) == 1
    assert first.line(first.value["a"], 1) == 3
    assert first.line(first.value["a"][1], "y") == 3
    assert second.line(second.value, "b") == 5
    assert second.line(second.value, "not there") == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
    | st.text(st.characters(blacklist_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(blacklist_categories=("Cs",)), max_size=8), inner,
                      max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(json_values, min_size=1, max_size=3))
def test_what_is_written_is_read_again(values):
    values = [value for value in values if value is not None] or [0]
    assert [it.value for it in load_yaml_documents(dump_yaml(values), "f")] == values


def test_texts_of_several_lines_are_written_as_they_are_and_maps_in_their_order():
    assert dump_yaml([{"b": "x\ny\n", "a": ["on", "2020-01-01", "1"]}]) == (
        "b: |\n  x\n  y\na:\n- on\n- '2020-01-01'\n- '1'\n"
    )
