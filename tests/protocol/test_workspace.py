import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgflo.errors import GraphError
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.graphjson import load_json
from msgflo.protocol import workspace as module
from msgflo.protocol.workspace import Workspace

A, B = Endpoint("a", "out"), Endpoint("b", "in")


def draw(workspace: Workspace) -> None:
    main = workspace.main
    workspace.edit(main, lambda graph: graph.add_node("a", "demo/Repeat"))
    workspace.edit(main, lambda graph: graph.add_node("b", "demo/Repeat"))
    workspace.edit(main, lambda graph: graph.add_edge(A, B))


def test_an_edit_is_carried_out_and_can_be_undone_and_redone(workspace, paper):
    draw(workspace)
    before = workspace.main.graph.copy()
    workspace.edit(workspace.main, lambda graph: graph.remove_node("a"))
    after = workspace.main.graph.copy()
    assert [one.kind for one in workspace.undo(workspace.main)] == ["addnode", "addedge"]
    assert workspace.main.graph == before
    workspace.redo(workspace.main)
    assert workspace.main.graph == after
    assert paper.done[-1] == ("edited", "main", ["removeedge", "removenode"])
    for _ in range(4):
        workspace.undo(workspace.main)
    assert not workspace.main.graph.nodes
    with pytest.raises(GraphError, match="nothing to undo"):
        workspace.undo(workspace.main)


def test_an_edit_that_changes_nothing_is_nothing_to_undo(workspace):
    draw(workspace)
    done = len(workspace.main.done)
    workspace.edit(workspace.main, lambda graph: graph.change_node("a", {}))
    workspace.edit(workspace.main, lambda graph: graph.add_node("a", "demo/Repeat"))
    assert len(workspace.main.done) == done


def test_a_new_edit_makes_what_was_undone_unreachable(workspace):
    draw(workspace)
    workspace.undo(workspace.main)
    workspace.edit(workspace.main, lambda graph: graph.add_node("c", "demo/Repeat"))
    with pytest.raises(GraphError, match="nothing to redo"):
        workspace.redo(workspace.main)


def test_the_history_has_an_end(workspace, monkeypatch):
    monkeypatch.setattr(module, "UNDOABLE", 5)
    for number in range(20):
        workspace.edit(workspace.main, lambda graph, n=number: graph.add_node(f"n{n}", "c"))
    assert len(workspace.main.done) == 5


def test_a_graph_cannot_grow_without_end(workspace, monkeypatch):
    monkeypatch.setattr(module, "MOST_PARTS", 10)
    for number in range(10):
        workspace.edit(workspace.main, lambda graph, n=number: graph.add_node(f"n{n}", "c"))
    before = workspace.main.graph.copy()
    with pytest.raises(GraphError, match="at most 10 parts"):
        workspace.edit(workspace.main, lambda graph: graph.add_node("more", "c"))
    assert workspace.main.graph == before
    workspace.edit(workspace.main, lambda graph: graph.remove_node("n0"))
    workspace.edit(workspace.main, lambda graph: graph.add_node("more", "c"))


def test_there_are_not_any_number_of_graphs(workspace, monkeypatch):
    monkeypatch.setattr(module, "MOST_GRAPHS", 3)
    workspace.clear("one", {})
    workspace.clear("two", {})
    with pytest.raises(GraphError, match="no more fit"):
        workspace.clear("three", {})
    workspace.remove("one")
    workspace.clear("three", {})
    with pytest.raises(GraphError, match="main graph"):
        workspace.remove("main")


def test_clearing_a_graph_touches_no_other(workspace, paper):
    draw(workspace)
    workspace.clear("py/second", {"main": True})
    assert list(workspace.main.graph.nodes) == ["a", "b"]
    assert workspace.main.main
    assert not workspace.sheets["py/second"].main
    workspace.clear("main", {})
    assert not workspace.main.graph.nodes
    assert workspace.main.graph.name == "main"
    workspace.undo(workspace.main)
    assert list(workspace.main.graph.nodes) == ["a", "b"]


def test_a_graph_is_code_too(workspace):
    draw(workspace)
    source = workspace.source("main")
    assert (source.name, source.library, source.language) == ("main", "demo", "json")
    read = load_json(source.code)
    assert list(read.nodes) == ["a", "b"]
    assert json.loads(source.code)["properties"]["environment"] == {"type": "msgflo"}
    workspace.clear("py/second", {})
    source = workspace.source("py/second")
    assert (source.name, source.library) == ("second", "py")


def test_a_graph_is_a_component_with_its_exported_ports(workspace):
    draw(workspace)
    workspace.edit(workspace.main, lambda graph: graph.add_inport("into", "a", "in"))
    workspace.edit(workspace.main, lambda graph: graph.add_outport("result", "b", "out"))
    kind = next(kind for kind in workspace.kinds() if kind.name == "main")
    assert kind.subgraph
    assert [(port.id, port.type) for port in kind.inports] == [("into", "any")]
    assert [(port.id, port.type) for port in kind.outports] == [("result", "string")]


def test_starting_and_stopping_say_so_and_happen_once(workspace, paper, clock):
    sheet = workspace.clear("other", {})
    assert workspace.start(sheet)["started"]
    workspace.start(sheet)
    assert [one for one in paper.done if one[0] == "start"] == [("start", "other")]
    clock.now += 12.5
    paper.works = True
    assert workspace.status(sheet) == {
        "graph": "other",
        "running": True,
        "started": True,
        "uptime": 12,
    }
    paper.works = False
    assert workspace.status(sheet) == {"graph": "other", "running": False, "started": True}
    assert workspace.stop(sheet)["uptime"] == 12
    assert workspace.status(sheet) == {"graph": "other", "running": False, "started": False}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_undoing_everything_leads_back_to_the_beginning(seed):
    workspace = Workspace("main", Graph("main"), _Nothing(), lambda: 0.0)
    rng = random.Random(seed)
    states = [workspace.main.graph.copy()]
    for _ in range(30):
        done = len(workspace.main.done)
        try:
            workspace.edit(workspace.main, _some_edit(rng))
        except GraphError:
            continue
        if len(workspace.main.done) > done:
            states.append(workspace.main.graph.copy())
    for state in reversed(states[:-1]):
        workspace.undo(workspace.main)
        assert workspace.main.graph == state
    for state in states[1:]:
        workspace.redo(workspace.main)
        assert workspace.main.graph == state


class _Nothing:
    def __getattr__(self, name):
        return lambda *_: None


def _some_edit(rng):
    a, b = rng.choice("abcd"), rng.choice("abcd")
    src, tgt = Endpoint(a, "out"), Endpoint(b, "in")
    edits = [
        lambda g: g.add_node(a, rng.choice("XY")),
        lambda g: g.add_node(b, "X", {"x": rng.randrange(3)}),
        lambda g: g.remove_node(a),
        lambda g: g.rename_node(a, b),
        lambda g: g.change_node(a, {"x": rng.choice([None, 1, 2])}),
        lambda g: g.add_edge(src, tgt, {"route": 1}),
        lambda g: g.remove_edge(src, tgt),
        lambda g: g.add_initial(rng.randrange(2), tgt),
        lambda g: g.remove_initial(tgt),
        lambda g: g.add_inport(a, b, "in"),
        lambda g: g.remove_inport(a),
        lambda g: g.rename_inport(a, b),
        lambda g: g.add_group(a, [b]),
        lambda g: g.remove_group(a),
        lambda g: g.clear(),
    ]
    return rng.choice(edits)
