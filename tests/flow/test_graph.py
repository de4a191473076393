import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import msgflo.flow.graph
from msgflo.errors import GraphError, UnknownNode
from msgflo.flow.graph import Change, Edge, Endpoint, Graph, Group, Node
from msgflo.flow.graphjson import dump_json
from msgflo.flow.values import same


def small() -> Graph:
    graph = Graph("small")
    graph.add_node("a", "Source")
    graph.add_node("b", "Sink", {"x": 1})
    graph.add_edge(Endpoint("a", "out"), Endpoint("b", "in"), {"route": 5})
    graph.add_initial("go", Endpoint("a", "in"))
    graph.add_inport("start", "a", "in")
    graph.add_outport("stop", "b", "out")
    graph.add_group("both", ["a", "b"], {"description": "all there is"})
    return graph


def kinds(changes: list[Change]) -> list[str]:
    return [change.kind for change in changes]


def test_the_example_of_the_module_does_what_it_says() -> None:
    assert doctest.testmod(msgflo.flow.graph).failed == 0


def test_an_added_node_is_told_in_the_words_of_the_protocol() -> None:
    graph = Graph()
    [plain] = graph.add_node("a", "A")
    [described] = graph.add_node("b", "B", {})
    assert plain.payload == {"id": "a", "component": "A"}
    assert described.payload == {"id": "b", "component": "B", "metadata": {}}


def test_adding_a_node_again_changes_nothing_and_with_other_metadata_changes_those() -> None:
    graph = small()
    assert graph.add_node("b", "Sink") == []
    assert graph.add_node("b", "Sink", {"x": 1}) == []
    assert kinds(graph.add_node("b", "Sink", {"x": True})) == ["changenode"]
    with pytest.raises(GraphError, match="its component is 'Sink', not 'Source'"):
        graph.add_node("b", "Source")


@pytest.mark.parametrize(
    "name", ["bitraf/guestbutton/lab", "2floor", "two words", "a -> b", "ä.ö", "a\nb", "()"]
)
def test_any_text_is_the_name_of_a_node(name: str) -> None:
    graph = small()
    graph.add_node(name, "Any")
    graph.add_edge(Endpoint("a", "out"), Endpoint(name, "some port", 3))
    graph.rename_node("a", f"{name} {name}")
    assert graph.edges[1] == Edge(Endpoint(f"{name} {name}", "out"), Endpoint(name, "some port", 3))
    assert kinds(graph.remove_node(name)) == ["removeedge", "removenode"]


def test_names_that_would_be_equal_if_joined_are_not_confused() -> None:
    graph = Graph()
    for node in ("a", "a b", "c", "b c"):
        graph.add_node(node, "X")
    graph.add_edge(Endpoint("a", "b c"), Endpoint("c", "d"))
    graph.add_edge(Endpoint("a b", "c"), Endpoint("c", "d"))
    assert len(graph.edges) == 2


@pytest.mark.parametrize("name", ["", None, 5, "\ud800"])
def test_what_is_no_text_is_no_name(name: str) -> None:
    graph = small()
    before = graph.copy()
    with pytest.raises(GraphError):
        graph.add_node(name, "X")
    with pytest.raises(GraphError):
        graph.rename_node("a", name)
    with pytest.raises(GraphError):
        graph.add_edge(Endpoint("a", name), Endpoint("b", "in"))
    assert graph == before


def test_removing_a_node_removes_what_refers_to_it_first() -> None:
    graph = small()
    done = graph.remove_node("a")
    assert [(change.kind, change.payload) for change in done] == [
        ("removeedge", {"src": {"node": "a", "port": "out"}, "tgt": {"node": "b", "port": "in"}}),
        ("removeinitial", {"src": {"data": "go"}, "tgt": {"node": "a", "port": "in"}}),
        ("removeinport", {"public": "start"}),
        ("removegroup", {"name": "both"}),
        (
            "addgroup",
            {"name": "both", "nodes": ["b"], "metadata": {"description": "all there is"}},
        ),
        ("removenode", {"id": "a"}),
    ]
    assert kinds(graph.remove_node("b")) == ["removeoutport", "removegroup", "removenode"]


def test_an_edge_to_itself_is_removed_once_with_its_node() -> None:
    graph = Graph()
    graph.add_node("a", "A")
    graph.add_edge(Endpoint("a", "out"), Endpoint("a", "in"))
    assert kinds(graph.remove_node("a")) == ["removeedge", "removenode"]


def test_renaming_a_node_renames_it_everywhere_and_keeps_its_place() -> None:
    graph = small()
    [change] = graph.rename_node("a", "c")
    assert (change.kind, change.payload) == ("renamenode", {"from": "a", "to": "c"})
    assert list(graph.nodes) == ["c", "b"]
    assert graph.edges[0].src.node == graph.initials[0].tgt.node == graph.inports["start"].node
    assert graph.groups[0].nodes == ("c", "b")
    with pytest.raises(GraphError, match="there is a node 'b' already"):
        graph.rename_node("c", "b")


def test_renaming_to_a_name_that_a_group_still_has_can_be_undone() -> None:
    graph = small()
    graph.groups.append(Group("old", ("gone", "a")))
    before = graph.copy()
    done = graph.rename_node("a", "gone")
    assert graph.group("old") == Group("old", ("gone",))
    graph.undo(done)
    assert graph == before


def test_metadata_merge_none_removes_a_key_and_the_change_has_all_of_them() -> None:
    graph = Graph()
    graph.add_node("a", "A", {})
    steps = [
        ({"sort": 1}, {"sort": 1}),
        ({"tag": "awesome"}, {"sort": 1, "tag": "awesome"}),
        ({}, {"sort": 1, "tag": "awesome"}),
        ({"sort": None, "tag": None, "never": None}, {}),
    ]
    for given_, expected in steps:
        [change] = graph.change_node("a", given_)
        assert change.payload == {"id": "a", "metadata": expected}


def test_an_edge_added_twice_is_one_edge() -> None:
    graph = small()
    src, tgt = Endpoint("a", "out"), Endpoint("b", "in")
    assert graph.add_edge(src, tgt) == []
    assert graph.add_edge(src, tgt, {"route": 5}) == []
    [change] = graph.add_edge(src, tgt, {"route": 6})
    assert (change.kind, change.payload["metadata"]) == ("changeedge", {"route": 6})
    [other] = graph.add_edge(src, Endpoint("b", "in", 0))
    assert other.payload["tgt"] == {"node": "b", "port": "in", "index": 0}


def test_an_edge_of_an_unknown_node_is_refused_with_what_is_near() -> None:
    graph = Graph()
    graph.add_node("resize", "images/Resize")
    with pytest.raises(UnknownNode, match="Did you mean 'resize'"):
        graph.add_edge(Endpoint("resize", "out"), Endpoint("resise", "in"))


@pytest.mark.parametrize("index", [-1, True, 1.0, "0"])
def test_an_index_is_a_whole_number_from_0(index: int) -> None:
    with pytest.raises(GraphError, match="whole number"):
        small().add_edge(Endpoint("a", "out", index), Endpoint("b", "in"))


def test_removing_what_is_not_there_says_so() -> None:
    graph = small()
    before = graph.copy()
    with pytest.raises(GraphError, match=r"no edge a.out -> b.on.+Did you mean 'a.out -> b.in'"):
        graph.remove_edge(Endpoint("a", "out"), Endpoint("b", "on"))
    with pytest.raises(GraphError, match=r"no inport 'strat'.+Did you mean 'start'"):
        graph.remove_inport("strat")
    with pytest.raises(GraphError, match="no outport"):
        graph.rename_outport("x", "y")
    with pytest.raises(GraphError, match=r"no group 'bath'.+Did you mean 'both'"):
        graph.remove_group("bath")
    with pytest.raises(GraphError, match="no initial packet"):
        graph.remove_initial(Endpoint("b", "in"))
    with pytest.raises(UnknownNode):
        graph.remove_node("c")
    assert graph == before


def test_a_port_may_have_several_initial_packets_and_null_is_one() -> None:
    graph = small()
    port = Endpoint("b", "in")
    for data in (None, 1, True, None):
        graph.add_initial(data, port)
    [one] = graph.remove_initial(port, True)
    assert one.payload == {"src": {"data": True}, "tgt": {"node": "b", "port": "in"}}
    assert [it.data for it in graph.initials if it.tgt == port] == [None, 1, None]
    assert len(graph.remove_initial(port, None)) == 2
    assert len(graph.remove_initial(port)) == 1


@pytest.mark.parametrize("data", [float("nan"), {1: 2}, b"bytes", object(), [set()], "\udc00"])
def test_data_that_is_no_json_is_refused(data: object) -> None:
    graph = small()
    before = graph.copy()
    with pytest.raises(GraphError, match=r"the initial packet of b\.in"):
        graph.add_initial(data, Endpoint("b", "in"))
    assert graph == before


def test_data_nested_without_end_is_refused() -> None:
    data: list[object] = []
    data.append(data)
    with pytest.raises(GraphError, match="deeper than 100 levels"):
        small().add_initial(data, Endpoint("b", "in"))


def test_what_is_given_to_an_edit_may_be_changed_afterwards() -> None:
    graph = small()
    data = {"list": [1]}
    graph.add_initial(data, Endpoint("b", "in"))
    graph.change_node("a", data)
    data["list"].append(2)
    assert graph.initials[-1].data == {"list": [1]}
    assert graph.nodes["a"].metadata == {"list": [1]}


def test_exports_are_added_once_renamed_in_place_and_removed() -> None:
    graph = small()
    assert graph.add_inport("start", "a", "in") == []
    with pytest.raises(GraphError, match=r"there is an inport 'start' already; it is a\.in"):
        graph.add_inport("start", "b", "in")
    graph.add_inport("more", "b", "in", {"x": 1})
    [change] = graph.rename_inport("start", "begin")
    assert change.payload == {"from": "start", "to": "begin"}
    assert list(graph.inports) == ["begin", "more"]
    with pytest.raises(GraphError, match="already"):
        graph.rename_inport("begin", "more")
    [removed] = graph.remove_inport("more")
    assert removed.payload == {"public": "more"}
    assert removed.inverse()[0].payload == {
        "public": "more",
        "node": "b",
        "port": "in",
        "metadata": {"x": 1},
    }


def test_groups_are_renamed_and_changed() -> None:
    graph = small()
    assert graph.rename_group("both", "all")[0].payload == {"from": "both", "to": "all"}
    [change] = graph.change_group("all", {"description": None, "color": 3})
    assert change.payload == {"name": "all", "metadata": {"color": 3}}
    with pytest.raises(UnknownNode):
        graph.add_group("new", ["a", "z"])
    with pytest.raises(GraphError, match="already"):
        graph.add_group("all", [])


def test_the_environment_is_found_where_files_have_it() -> None:
    graph = Graph()
    assert (graph.name, graph.environment) == ("", "")
    graph.change_properties({"name": "g", "environment": {"runtime": "msgflo"}})
    assert (graph.name, graph.environment) == ("g", "msgflo")


def test_clearing_can_be_undone_in_the_words_of_the_protocol() -> None:
    graph = small()
    before = graph.copy()
    done = graph.clear()
    assert (done[0].kind, done[0].payload) == ("clear", {"id": "small"})
    assert not graph.nodes
    assert not graph.connections
    told = graph.undo(done)
    assert graph == before
    assert kinds(told)[:3] == ["changeproperties", "addnode", "addnode"]


def test_a_change_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    graph = small()
    [done] = graph.add_node("c", "C")
    with pytest.raises(GraphError, match="not as it was then"):
        graph.apply(done)
    first = graph.add_edge(Endpoint("c", "out"), Endpoint("b", "in"))
    graph.change_edge(Endpoint("c", "out"), Endpoint("b", "in"), {"route": 1})
    later = graph.add_initial(1, Endpoint("b", "in"))
    before = graph.copy()
    with pytest.raises(GraphError, match="not as it was then"):
        graph.undo(first + later)
    assert graph == before


def test_a_node_that_is_still_connected_is_not_removed_by_an_undo() -> None:
    graph = Graph()
    done = graph.add_node("a", "A")
    graph.add_initial(1, Endpoint("a", "in"))
    with pytest.raises(GraphError):
        graph.undo(done)


def test_equality_sees_order_and_not_comments() -> None:
    one, other = Graph(), Graph()
    one.add_node("a", "A")
    one.add_node("b", "B")
    other.add_node("b", "B")
    other.add_node("a", "A")
    assert one != other
    assert Node("a", "A") == Node("a", "A", comments=("# seen",))


def test_json_values_are_compared_as_json_does() -> None:
    assert same({"a": [1, 2.0]}, {"a": [1.0, 2]})
    assert not same(1, True)
    assert not same([0], [False])
    assert not same({"a": 1}, {"a": 1, "b": None})


NAMES = st.sampled_from(["a", "b", "a b", "c/d", "2"])
PORTS = st.sampled_from(["in", "out", "x y"])
ENDS = st.builds(Endpoint, NAMES, PORTS, st.sampled_from([None, 0, 1]))
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
METADATA = st.dictionaries(st.sampled_from(["x", "y", "label"]), DATA, max_size=2)
EDITS = st.one_of(
    st.tuples(st.just("add_node"), NAMES, st.sampled_from(["A", "B"]), st.none() | METADATA),
    st.tuples(st.just("remove_node"), NAMES),
    st.tuples(st.just("rename_node"), NAMES, NAMES),
    st.tuples(st.just("change_node"), NAMES, METADATA),
    st.tuples(st.just("add_edge"), ENDS, ENDS, st.none() | METADATA),
    st.tuples(st.just("remove_edge"), ENDS, ENDS),
    st.tuples(st.just("change_edge"), ENDS, ENDS, METADATA),
    st.tuples(st.just("add_initial"), DATA, ENDS, st.none() | METADATA),
    st.tuples(st.just("remove_initial"), ENDS),
    st.tuples(st.just("add_inport"), PORTS, NAMES, PORTS),
    st.tuples(st.just("remove_inport"), PORTS),
    st.tuples(st.just("rename_inport"), PORTS, PORTS),
    st.tuples(st.just("add_outport"), PORTS, NAMES, PORTS, METADATA),
    st.tuples(st.just("remove_outport"), PORTS),
    st.tuples(st.just("rename_outport"), PORTS, PORTS),
    st.tuples(st.just("add_group"), NAMES, st.lists(NAMES, max_size=3), st.none() | METADATA),
    st.tuples(st.just("remove_group"), NAMES),
    st.tuples(st.just("rename_group"), NAMES, NAMES),
    st.tuples(st.just("change_group"), NAMES, METADATA),
    st.tuples(st.just("change_properties"), METADATA),
    st.tuples(st.just("clear")),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EDITS, max_size=25))
def test_edits_are_repeated_on_a_copy_and_undone_exactly(edits: list[tuple]) -> None:
    graph = Graph("g")
    for node in ("a", "b", "a b"):
        graph.add_node(node, "A")
    graph.add_group("b", ["a", "a b"])
    start, copy = graph.copy(), graph.copy()
    start_text = dump_json(start)
    done: list[Change] = []
    for name, *arguments in edits:
        before = graph.copy()
        try:
            changes = getattr(graph, name)(*arguments)
        except GraphError:
            assert graph == before
            continue
        for change in changes:
            copy.apply(change)
        done += changes
    assert copy == graph
    assert dump_json(copy) == dump_json(graph)
    assert set(graph.nodes) >= {it.tgt.node for it in graph.connections}
    redo = graph.undo(done)
    assert graph == start
    assert dump_json(graph) == start_text
    graph.undo(redo)
    assert graph == copy
    again = Graph(case_sensitive=graph.case_sensitive)
    for change in graph.changes():
        again.apply(change)
    assert again == graph
