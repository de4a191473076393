import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.layout import Item, Layout, layout, spread


def names(made: Layout) -> list[list[str]]:
    return [sorted(item.name for item in layer if item.kind == "node") for layer in made.layers]


def test_each_node_is_one_layer_behind_what_leads_to_it() -> None:
    made = layout(parse_fbp("a(A) -> b(B) -> c(C)\na -> c"))
    assert names(made) == [["a"], ["b"], ["c"]]
    [long] = [link for link in made.links if link.via]
    assert [item.kind for item in long.path] == ["node", "via", "node"]


def test_a_cycle_is_cut_where_it_comes_back_to_what_the_author_begins_with() -> None:
    made = layout(parse_fbp("web -> work(W) -> store(S)\nstore -> RESULT web\nweb(Web)"))
    assert names(made) == [["web"], ["work"], ["store"]]
    assert [link.target.name for link in made.links if link.back] == ["web"]


def test_a_self_loop_leads_back() -> None:
    made = layout(parse_fbp("a(A) -> a"))
    assert names(made) == [["a"]]
    assert made.links[0].back


def test_exported_ports_stand_beside_their_nodes() -> None:
    made = layout(parse_fbp("INPORT=b.IN:URL\nOUTPORT=b.OUT:DONE\na(A) -> b(B)"))
    number = made.layer_of()
    assert number[Item("inport", "url")] == 0
    assert number[Item("node", "b")] == 1
    assert number[Item("outport", "done")] == 2


def test_lines_that_need_not_cross_do_not() -> None:
    made = layout(parse_fbp("a(A) -> z(Z)\nb(B) -> y(Y)\nc(C) -> x(X)\n"))
    first, second = ([item.name for item in layer] for layer in made.layers)
    assert [{"a": "z", "b": "y", "c": "x"}[name] for name in first] == second


def test_an_empty_graph_has_no_layers() -> None:
    assert layout(Graph()).layers == []


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph()
    nodes = [f"n{at}" for at in range(draw(st.integers(1, 9)))]
    for node in nodes:
        graph.add_node(node, "C" * draw(st.integers(1, 9)))
    ends = st.builds(Endpoint, st.sampled_from(nodes), st.sampled_from(["a", "port", "long-port"]))
    for src, tgt in draw(st.lists(st.tuples(ends, ends), max_size=14)):
        graph.add_edge(src, tgt)
    for end in draw(st.lists(ends, max_size=2, unique_by=lambda end: end.port)):
        graph.add_inport(f"i {end.port}", end.node, end.port)
        graph.add_outport(f"o {end.port}", end.node, end.port)
        graph.add_initial({"some": ["data"]}, end)
    return graph


@settings(deadline=None)
@given(graphs())
def test_every_link_goes_one_layer_at_a_time_and_nothing_overlaps(graph: Graph) -> None:
    made = layout(graph)
    number = made.layer_of()
    everything = [item for layer in made.layers for item in layer]
    assert len(everything) == len(set(everything))
    assert {item.name for item in everything if item.kind == "node"} == set(graph.nodes)
    assert len(made.links) == len(graph.edges) + len(graph.inports) + len(graph.outports)
    for link in made.links:
        if link.back:
            assert number[link.source] >= number[link.target]
            continue
        for one, two in itertools.pairwise(link.path):
            assert number[two] == number[one] + 1
    for whole in (False, True):
        at = spread(made, lambda _: 5, lambda *_: 2, lambda *_: 1, whole=whole)
        assert min(at.values()) == 0
        for layer in made.layers:
            for one, two in itertools.pairwise(layer):
                assert at[two] - at[one] >= 7 - 1e-6
        assert not whole or all(place == int(place) for place in at.values())
    assert layout(graph) == made


def test_a_chain_is_straight() -> None:
    made = layout(parse_fbp("a(A) -> b(B) -> c(C)\na X -> y(Y)\na Z -> Z c"))
    at = spread(made, lambda _: 10, lambda *_: 3, lambda *_: 4, whole=True)
    assert at[Item("node", "b")] == at[Item("node", "c")]
