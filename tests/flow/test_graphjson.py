import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgflo.errors import GraphError, GraphSyntaxError
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.graphjson import dump_json, load_json
from realgraphs import WHY_NOT, real_graphs

GRAPHS = Path(__file__).parent / "graphs"


@pytest.mark.parametrize("path", sorted(GRAPHS.glob("*.json")), ids=lambda path: path.stem)
def test_loading_and_saving_changes_nothing(path: Path) -> None:
    graph = load_json(path.read_text(), path.name)
    saved = dump_json(graph)
    again = load_json(saved)
    assert again == graph
    assert dump_json(again) == saved
    assert graph.nodes


@pytest.mark.skipif(not real_graphs("*.json"), reason=WHY_NOT)
def test_graphs_found_in_practice_load_and_save_unchanged() -> None:
    loaded = 0
    for path in real_graphs("*.json"):
        found = json.loads(path.read_text())
        if "processes" not in found:
            continue
        graph = load_json(path.read_text(), path.name)
        assert len(graph.nodes) == len(found["processes"])
        assert len(graph.connections) == len(found["connections"])
        assert load_json(dump_json(graph)) == graph
        loaded += 1
    assert loaded


def test_a_graph_without_most_keys_loads() -> None:
    graph = load_json((GRAPHS / "sparse.json").read_text())
    assert graph.environment == "msgflo"
    assert [type(it).__name__ for it in graph.connections] == ["Initial", "Edge", "Edge"]
    assert graph.initials[0].data == "World"


def test_lists_for_maps_and_null_for_numbers_load() -> None:
    graph = load_json((GRAPHS / "deployment.json").read_text())
    assert graph.inports == {}
    assert graph.outports == {}
    assert graph.edges[0].metadata == {"route": None}
    assert "club/guestbutton/lab" in graph.nodes
    assert "2floor" in graph.nodes
    assert graph.nodes["xdk.8c8b"].component == "hono/xdk.8c8b"
    assert graph.groups[0].nodes == ("2floor", "gone")
    assert [it.data for it in graph.initials] == [True, 2, "EDDT", None, {"deep": [1.5]}]


def test_unknown_keys_survive() -> None:
    text = (GRAPHS / "editor.json").read_text()
    saved = json.loads(dump_json(load_json(text)))
    assert saved["participants"] == {"kept": ["as", "it", "is"]}
    assert saved["processes"]["core/Split_6qj2j"]["since"] == 2015
    assert saved["connections"][0]["secure"] is True
    assert saved["inports"]["canvas"]["colour"] == "red"
    assert saved["groups"][0]["hidden"] is False
    assert saved == json.loads(text)


def test_exports_in_a_list_are_understood() -> None:
    graph = load_json(
        '{"processes": {"a": {"component": "A"}},'
        ' "inports": [{"public": "start", "process": "a", "port": "in"}]}'
    )
    assert graph.inports["start"].port == "in"


def test_names_are_kept_as_written() -> None:
    graph = load_json(
        '{"processes": {"A": {"component": "C"}}, "connections":'
        ' [{"src": {"process": "A", "port": "PrintDone"}, "tgt": {"process": "A", "port": "On"}}]}'
    )
    assert graph.edges[0].src == Endpoint("A", "PrintDone")


def test_an_edge_that_is_there_twice_is_one() -> None:
    edge = {"src": {"process": "a", "port": "o"}, "tgt": {"process": "a", "port": "i"}}
    text = json.dumps({"processes": {"a": {"component": "A"}}, "connections": [edge, edge]})
    assert len(load_json(text).edges) == 1


@pytest.mark.parametrize("text", ["{}", '\ufeff{"processes": {}}', '{"connections": []}'])
def test_an_empty_graph_is_a_graph(text: str) -> None:
    assert load_json(text) == Graph()


def test_what_is_not_json_has_line_column_and_caret() -> None:
    with pytest.raises(GraphSyntaxError) as caught:
        load_json('{\n  "processes": {,}\n}', "main.json")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("main.json:2:17: this is not JSON: ")
    assert lines[2] == "  " + " " * 16 + "^"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("[1]", "expected a map, got [1]"),
        ('{"components": {}}', "this is no graph"),
        ('{"processes": [1]}', "processes: expected a map, got [1]"),
        ('{"processes": {"a": {}}}', "processes['a'].component: expected a text"),
        ('{"processes": {"": {"component": "x"}}}', "processes: a node has no name"),
        ('{"processes": {"a": 5}}', "processes['a']: expected a map, got 5"),
        ('{"caseSensitive": 1}', "caseSensitive: expected true or false, got 1"),
        ('{"connections": {"a": 1}}', "connections: expected a list"),
        ('{"connections": [{"data": 1}]}', "connections[0]: it has no tgt"),
        ('{"groups": [{"nodes": []}]}', "groups[0].name: expected a text"),
        ('{"groups": [{"name": "g", "nodes": [5]}]}', "groups[0].nodes[0]: expected a text"),
        ('{"properties": {"x": 1e999}}', "the number 1e999 is too large"),
        ('{"properties": {"x": NaN}}', "NaN is no JSON value"),
        ('{"properties": {"x": "\\ud800"}}', "half a surrogate pair"),
        ('{"processes": ' + "[" * 100_000, "nested too deep"),
        ('{"properties": ' + '{"a":' * 200 + "1" + "}" * 201, "deeper than 100 levels"),
        ('{"properties": {"x": ' + "1" * 5000 + "}}", "Exceeds the limit"),
    ],
)
def test_what_is_no_graph_is_refused_with_its_path(text: str, problem: str) -> None:
    with pytest.raises(GraphError) as caught:
        load_json(text, "main.json")
    assert str(caught.value).startswith("main.json:")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("connection", "problem"),
    [
        ({"tgt": {"process": "a", "port": "i"}}, "connections[0]: it has neither src nor data"),
        ({"src": {"process": "a", "port": "o"}}, "connections[0]: it has no tgt"),
        (
            {"src": {"process": "b", "port": "o"}, "tgt": {"process": "a", "port": "i"}},
            "connections[0].src.process: there is no node 'b' in processes",
        ),
        ({"data": 1, "tgt": {"process": "a"}}, "connections[0].tgt.port: expected a text"),
        (
            {"data": 1, "tgt": {"process": "a", "port": "i", "index": "0"}},
            'connections[0].tgt.index: expected a whole number from 0, got "0"',
        ),
        (
            {
                "data": 1,
                "src": {"process": "a", "port": "o"},
                "tgt": {"process": "a", "port": "i"},
            },
            "it has both src and data",
        ),
        (
            {"data": 1, "tgt": {"process": "a", "port": "i"}, "metadata": "x"},
            'connections[0].metadata: expected a map, got "x"',
        ),
    ],
)
def test_a_connection_that_is_none_is_refused(connection: object, problem: str) -> None:
    text = json.dumps({"processes": {"a": {"component": "A"}}, "connections": [connection]})
    with pytest.raises(GraphError) as caught:
        load_json(text)
    assert problem in str(caught.value)


@pytest.mark.parametrize("text", [(GRAPHS / "editor.json").read_text()], ids=["editor"])
def test_a_text_that_ends_early_is_refused_wherever_it_ends(text: str) -> None:
    text = text.rstrip()
    for end in range(0, len(text), 7):
        with pytest.raises(GraphSyntaxError):
            load_json(text[:end])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "processes": st.dictionaries(
            st.sampled_from(["a", "b"]),
            st.fixed_dictionaries({"component": st.just("A")}, optional={"metadata": JSON}) | JSON,
        ),
        "connections": st.lists(
            st.fixed_dictionaries(
                {"tgt": st.just({"process": "a", "port": "in"}) | JSON},
                optional={"data": JSON, "src": st.just({"process": "b", "port": "out"}) | JSON},
            ),
            max_size=3,
        ),
        "inports": JSON,
        "groups": JSON,
        "properties": JSON,
    },
)


@settings(deadline=None)
@given(SHAPED | JSON)
def test_any_json_is_loaded_and_saved_unchanged_or_refused_with_a_graph_error(
    value: object,
) -> None:
    try:
        graph = load_json(json.dumps(value))
    except GraphError:
        return
    saved = dump_json(graph)
    assert load_json(saved) == graph
    assert dump_json(load_json(saved)) == saved
