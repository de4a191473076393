import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from msgflo.errors import GraphError
from msgflo.flow.becoming import become
from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.graphjson import load_json


def kinds(before: str, after: str) -> list[str]:
    graph, like = parse_fbp(before), parse_fbp(after)
    done = [change.kind for change in become(graph, like)]
    assert alike(graph, like)
    return done


def alike(one: Graph, other: Graph) -> bool:
    """All the same but the order, and what is null."""

    def told(metadata):
        return {key: value for key, value in metadata.items() if value is not None}

    def said(graph: Graph):
        return (
            told(graph.properties),
            {node.id: (node.component, told(node.metadata)) for node in graph.nodes.values()},
            {edge.key: told(edge.metadata) for edge in graph.edges},
            sorted((str(it.tgt), repr(it.data)) for it in graph.initials),
            graph.inports,
            graph.outports,
            {group.name: (set(group.nodes), group.metadata) for group in graph.groups},
        )

    return said(one) == said(other)


def test_what_is_the_same_stays_untouched():
    text = "'x' -> IN a(A) OUT -> IN b(B)\nINPORT=a.IN:INTO\nOUTPORT=b.OUT:RESULT"
    assert kinds(text, text) == []


def test_only_what_differs_is_edited():
    assert kinds("a(A) OUT -> IN b(B)", "a(A) OUT -> IN b(B)\na OUT -> IN c(C)") == [
        "addnode",
        "addedge",
    ]
    assert kinds("a(A) OUT -> IN b(B)\na OUT -> IN c(C)", "a(A) OUT -> IN b(B)") == [
        "removeedge",
        "removenode",
    ]
    assert kinds("a(A) OUT -> IN b(B)", "a(A) OUT -> IN b(C)") == [
        "removeedge",
        "removenode",
        "addnode",
        "addedge",
    ]
    assert kinds("'x' -> IN a(A)", "'y' -> IN a(A)") == ["removeinitial", "addinitial"]
    assert kinds("'x' -> IN a(A)", "'x' -> IN a(A)\n'y' -> IN a") == ["addinitial"]
    assert kinds("INPORT=a.IN:X\na(A) OUT -> IN b(B)", "INPORT=b.IN:X\na(A) OUT -> IN b(B)") == [
        "removeinport",
        "addinport",
    ]
    assert kinds("a(A:x=1) OUT -> IN b(B)", "a(A:x=2) OUT -> IN b(B)") == ["changenode"]


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@example(33, 1906)  # a group whose node is made anew
@settings(max_examples=200, deadline=None)
def test_any_graph_becomes_any_other_and_can_be_undone(one, other):
    graph, like = drawn(one), drawn(other)
    before = graph.copy()
    changes = become(graph, like)
    assert alike(graph, like)
    assert become(graph, like) == []
    graph.undo(changes)
    assert graph == before


def drawn(seed: int) -> Graph:
    rng = random.Random(seed)
    graph = Graph(rng.choice(["", "one", "two"]))
    for _ in range(25):
        a, b = rng.choice("abcd"), rng.choice("abcd")
        src, tgt = Endpoint(a, "out"), Endpoint(b, "in", rng.choice([None, 0]))
        try:
            rng.choice(
                [
                    lambda a=a: graph.add_node(a, rng.choice("XY"), {"x": rng.randrange(2)}),
                    lambda s=src, t=tgt: graph.add_edge(s, t, {"route": rng.randrange(2)}),
                    lambda t=tgt: graph.add_initial(rng.choice([0, False, "x", None]), t),
                    lambda a=a, b=b: graph.add_inport(a, b, "in"),
                    lambda a=a, b=b: graph.add_outport(a, b, "out"),
                    lambda a=a, b=b: graph.add_group(a, [a, b]),
                ]
            )()
        except GraphError:
            continue
    return graph


def test_null_in_metadata_is_the_same_as_nothing():
    graph = load_json('{"processes": {"a": {"component": "A"}}, "connections": []}')
    like = load_json(
        '{"processes": {"a": {"component": "A", "metadata": {"x": null}}}, "connections": []}'
    )

    assert become(graph, like) == []
