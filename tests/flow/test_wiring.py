import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Definition, Port
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.wiring import PUBSUB, ROUNDROBIN, EdgeWiring, by_convention, is_virtual, wire

SHORT = {"rr": ROUNDROBIN, "ps": PUBSUB}


def drawn(*edges: str) -> Graph:
    """A graph from lines like ``a OUT -> IN b``; nodes called rr... and ps... are virtual."""
    graph = Graph("drawn")
    for line in edges:
        src, out, _, into, tgt = line.split()
        for node in (src, tgt):
            if node not in graph.nodes:
                graph.add_node(node, SHORT.get(node[:2], "some/Thing"))
        graph.add_edge(Endpoint(src, out), Endpoint(tgt, into))
    return graph


def wired(*edges: str) -> dict[str, EdgeWiring]:
    graph = drawn(*edges)
    wiring = wire(graph, by_convention(graph))
    return dict(zip(edges, wiring.edges, strict=True))


def said(bindings: Iterable[Binding]) -> list[str]:
    return sorted(str(binding) for binding in bindings)


def bound(*edges: str) -> list[str]:
    graph = drawn(*edges)
    return said(wire(graph, by_convention(graph)).bindings)


def role(name: str, inports: Iterable[Port] = (), outports: Iterable[Port] = ()) -> Definition:
    return Definition(
        id=f"{name}-1",
        role=name,
        component="some/Thing",
        inports=tuple(inports),
        outports=tuple(outports),
    )


# What carries an edge.


def test_an_edge_copies_to_every_participant():
    assert bound("a OUT -> IN b") == ["PUBSUB: a.OUT -> b.IN"]


def test_an_edge_through_a_pubsub_is_like_one_without():
    assert bound("a OUT -> IN ps", "ps OUT -> IN b", "ps OUT -> IN c") == [
        "PUBSUB: a.OUT -> b.IN",
        "PUBSUB: a.OUT -> c.IN",
    ]


def test_an_edge_through_a_roundrobin_goes_to_the_work_queue():
    assert bound("a OUT -> IN rr", "rr OUT -> IN b") == ["ROUNDROBIN: a.OUT -> b.IN"]


def test_every_source_and_every_target_of_a_roundrobin_are_joined():
    assert bound("a OUT -> IN rr", "b OUT -> IN rr", "rr OUT -> IN c", "rr OUT -> IN d") == [
        "ROUNDROBIN: a.OUT -> c.IN",
        "ROUNDROBIN: a.OUT -> d.IN",
        "ROUNDROBIN: b.OUT -> c.IN",
        "ROUNDROBIN: b.OUT -> d.IN",
    ]


@pytest.mark.parametrize(
    "chain", [["ps1", "rr", "ps2"], ["rr", "ps"], ["ps", "rr"], ["rr1", "rr2"]]
)
def test_one_roundrobin_anywhere_on_the_way_makes_it_a_work_queue(chain):
    nodes = ["a", *chain, "b"]
    edges = [f"{src} OUT -> IN {tgt}" for src, tgt in itertools.pairwise(nodes)]
    assert bound(*edges) == ["ROUNDROBIN: a.OUT -> b.IN"]
    assert all(not wiring.reason and wiring.bindings for wiring in wired(*edges).values())


def test_two_ways_of_two_kinds_are_two_bindings():
    assert bound("a OUT -> IN b", "a OUT -> IN rr", "rr OUT -> IN b") == [
        "PUBSUB: a.OUT -> b.IN",
        "ROUNDROBIN: a.OUT -> b.IN",
    ]


def test_an_edge_between_virtual_nodes_lists_all_that_passes_it():
    wiring = wired("a OUT -> IN ps", "ps OUT -> IN rr", "rr OUT -> IN b", "ps OUT -> IN c")
    assert said(wiring["a OUT -> IN ps"].bindings) == [
        "PUBSUB: a.OUT -> c.IN",
        "ROUNDROBIN: a.OUT -> b.IN",
    ]
    assert said(wiring["ps OUT -> IN rr"].bindings) == ["ROUNDROBIN: a.OUT -> b.IN"]
    assert said(wiring["ps OUT -> IN c"].bindings) == ["PUBSUB: a.OUT -> c.IN"]


def test_a_role_can_be_joined_to_itself_even_by_ports_of_one_name():
    assert bound("a OUT -> IN a") == ["PUBSUB: a.OUT -> a.IN"]
    assert bound("a DATA -> DATA a") == ["PUBSUB: a.DATA -> a.DATA"]


def test_addressed_ports_share_the_queue_of_their_port():
    graph = drawn("a OUT -> IN b")
    graph.add_edge(Endpoint("a", "OUT", 3), Endpoint("b", "IN", 1))
    wiring = wire(graph, by_convention(graph))
    assert said(wiring.bindings) == ["PUBSUB: a.OUT -> b.IN"]
    assert not any(edge.reason for edge in wiring.edges)


def test_ports_are_found_in_any_case_but_exactly_if_possible():
    graph = drawn("a Out -> iN b")
    definitions = {
        "a": role("a", outports=[Port("out", queue="one"), Port("Out", queue="two")]),
        "b": role("b", inports=[Port("IN", queue="three")]),
    }
    assert said(wire(graph, definitions).bindings) == ["PUBSUB: two -> three"]


def test_the_announced_queue_counts_and_not_the_convention():
    graph = drawn("a OUT -> IN b")
    definitions = {
        "a": role("a", outports=[Port("out", queue="/a/out")]),
        "b": role("b", inports=[Port("in", queue="b/in")]),
    }
    assert said(wire(graph, definitions).bindings) == ["PUBSUB: /a/out -> b/in"]


# Dead letters.


def test_the_deadletter_port_is_about_what_the_roles_behind_cannot_process():
    wiring = wired("a OUT -> IN rr", "rr OUT -> IN b", "rr OUT -> IN c", "rr DEADLETTER -> IN d")
    assert said(wiring["rr DEADLETTER -> IN d"].bindings) == [
        "DEADLETTER: b.IN -> d.IN",
        "DEADLETTER: c.IN -> d.IN",
    ]
    assert said(wiring["rr OUT -> IN b"].bindings) == ["ROUNDROBIN: a.OUT -> b.IN"]


def test_the_deadletter_port_may_be_written_in_any_case():
    assert "DEADLETTER: b.IN -> d.IN" in bound(
        "a OUT -> IN rr", "rr out -> IN b", "rr deadLetter -> IN d"
    )


def test_dead_letters_can_lead_into_another_roundrobin_with_its_own_dead_letters():
    edges = (
        "a OUT -> IN rr1",
        "rr1 OUT -> IN b",
        "rr1 DEADLETTER -> IN rr2",
        "rr2 OUT -> IN c",
        "rr2 DEADLETTER -> IN d",
    )
    assert bound(*edges) == [
        "DEADLETTER: b.IN -> c.IN",
        "DEADLETTER: c.IN -> d.IN",
        "ROUNDROBIN: a.OUT -> b.IN",
    ]
    assert not any(wiring.reason for wiring in wired(*edges).values())


def test_dead_letters_of_roles_behind_further_virtual_nodes_count_too():
    assert "DEADLETTER: b.IN -> d.IN" in bound(
        "a OUT -> IN rr", "rr OUT -> IN ps", "ps OUT -> IN b", "rr DEADLETTER -> IN d"
    )


def test_dead_letters_never_come_back_to_where_they_died():
    wiring = wired("a OUT -> IN rr", "rr OUT -> IN b", "rr DEADLETTER -> IN b")
    refused = wiring["rr DEADLETTER -> IN b"]
    assert not refused.bindings
    assert refused.wrong
    assert "would come back" in refused.reason
    assert not wiring["rr OUT -> IN b"].reason


def test_dead_letters_never_go_round_in_a_longer_ring():
    edges = (
        "a OUT -> IN rr1",
        "rr1 OUT -> IN b",
        "rr1 DEADLETTER -> IN rr2",
        "rr2 OUT -> IN c",
        "rr2 DEADLETTER -> IN b",
    )
    wiring = wired(*edges)
    assert "DEADLETTER: b.IN -> c.IN" in bound(*edges)
    assert "DEADLETTER: c.IN -> b.IN" not in bound(*edges)
    assert "would come back" in wiring["rr2 DEADLETTER -> IN b"].reason
    assert not wiring["rr2 OUT -> IN c"].reason


def test_a_deadletter_port_with_nothing_that_can_fail_is_wrong():
    wiring = wired("a OUT -> IN rr", "rr DEADLETTER -> IN d")
    assert wiring["rr DEADLETTER -> IN d"].reason == (
        "nothing leads on from 'rr', so nothing there can fail"
    )
    assert wiring["rr DEADLETTER -> IN d"].wrong
    assert wiring["a OUT -> IN rr"].reason == "nothing leads on from 'rr'"


# What does not work yet, or not at all.


def test_an_edge_waits_for_both_roles():
    graph = drawn("a OUT -> IN b")
    definitions = by_convention(graph)
    for missing in ("a", "b"):
        known = {name: it for name, it in definitions.items() if name != missing}
        (edge,) = wire(graph, known).edges
        assert edge.reason == f"role {missing!r} has not been announced yet"
        assert not edge.wrong
        assert not edge.bindings


def test_what_is_known_behind_a_virtual_node_is_bound_while_the_rest_waits():
    graph = drawn("a OUT -> IN ps", "ps OUT -> IN b", "ps OUT -> IN c")
    definitions = by_convention(graph)
    del definitions["c"]
    into, to_b, to_c = wire(graph, definitions).edges
    assert said(into.bindings) == ["PUBSUB: a.OUT -> b.IN"]
    assert into.reason == "role 'c' has not been announced yet"
    assert not to_b.reason
    assert to_c.reason


def test_a_port_that_is_not_there_is_wrong_and_the_near_one_is_named():
    graph = drawn("a OUT -> IMGAE b")
    definitions = {
        "a": role("a", outports=[Port("out", queue="a.OUT")]),
        "b": role("b", inports=[Port("image", queue="b.IMAGE"), Port("options", queue="b.O")]),
    }
    (edge,) = wire(graph, definitions).edges
    assert edge.wrong
    assert edge.reason == (
        "role 'b' (some/Thing) has no inport 'IMGAE'; its inports are: image, options. "
        "Did you mean 'image'?"
    )


def test_a_hidden_port_cannot_be_wired():
    graph = drawn("a OUT -> IN b")
    definitions = by_convention(graph) | {"b": role("b", inports=[Port("IN")])}
    (edge,) = wire(graph, definitions).edges
    assert edge.reason == "inport 'IN' of role 'b' is hidden: it has no queue"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a OUT -> INN rr", "'rr' (msgflo/RoundRobin) has no inport 'INN'; there is: in"),
        (
            "ps DEADLETTER -> IN a",
            "'ps' (msgflo/PubSub) has no outport 'DEADLETTER'; there is: out",
        ),
        ("rr BACK -> IN rr", "'rr' (msgflo/RoundRobin) has no outport 'BACK'"),
        ("rr OUT -> BACK rr", "'rr' (msgflo/RoundRobin) has no inport 'BACK'"),
    ],
)
def test_a_port_that_a_virtual_node_has_not_is_wrong_and_carries_nothing(line, reason):
    wiring = wired("x OUT -> IN rr", "rr OUT -> IN y", "x OUT -> IN ps", "ps OUT -> IN z", line)[
        line
    ]
    assert wiring.wrong
    assert reason in wiring.reason
    assert not wiring.bindings


def test_what_must_be_put_right_is_told_before_what_time_will_tell():
    graph = drawn("a OUT -> IN ps", "ps OUT -> IN b", "ps OUT -> NOPE c")
    definitions = by_convention(graph)
    del definitions["b"]
    definitions["c"] = role("c", inports=[Port("in", queue="c.IN")])
    into = wire(graph, definitions).edges[0]
    assert into.wrong
    assert "NOPE" in into.reason


def test_loose_ends_of_virtual_nodes_are_wrong():
    wiring = wired("a OUT -> IN ps1", "ps2 OUT -> IN b")
    assert wiring["a OUT -> IN ps1"].reason == "nothing leads on from 'ps1'"
    assert wiring["ps2 OUT -> IN b"].reason == "nothing leads into 'ps2'"
    assert all(edge.wrong for edge in wiring.values())


def test_dead_letters_lead_nothing_into_a_roundrobin():
    wiring = wired("rr OUT -> IN b", "rr DEADLETTER -> IN c")
    assert wiring["rr OUT -> IN b"].reason == "nothing leads into 'rr'"
    assert said(wiring["rr DEADLETTER -> IN c"].bindings) == ["DEADLETTER: b.IN -> c.IN"]


def test_rings_of_virtual_nodes_end():
    ring = ("ps1 OUT -> IN ps2", "ps2 OUT -> IN rr", "rr OUT -> IN ps1")
    assert bound(*ring) == []
    assert all(edge.reason for edge in wired(*ring).values())
    assert bound("a OUT -> IN ps1", *ring, "ps2 OUT -> IN b") == [
        "PUBSUB: a.OUT -> b.IN",
        "ROUNDROBIN: a.OUT -> b.IN",
    ]
    assert bound("ps OUT -> IN ps", "a OUT -> IN ps", "ps OUT -> IN b") == ["PUBSUB: a.OUT -> b.IN"]


def test_a_long_chain_and_many_diamonds_of_virtual_nodes_are_no_burden():
    chain = ["a", *(f"ps{n}" for n in range(2000)), "b"]
    edges = [f"{src} OUT -> IN {tgt}" for src, tgt in itertools.pairwise(chain)]
    assert bound(*edges) == ["PUBSUB: a.OUT -> b.IN"]
    diamonds = ["a OUT -> IN ps0"]
    for n in range(40):  # 2 ** 40 ways
        for side in "lr":
            diamonds += [f"ps{n} OUT -> IN ps{n}{side}", f"ps{n}{side} OUT -> IN ps{n + 1}"]
    assert bound(*diamonds, "ps40 OUT -> IN b") == ["PUBSUB: a.OUT -> b.IN"]


# Initial packets.


def test_an_initial_packet_goes_to_the_queue_of_its_port():
    graph = drawn("a OUT -> IN b")
    graph.add_initial({"x": 1}, Endpoint("b", "Options"))
    definitions = by_convention(graph) | {
        "b": role("b", inports=[Port("options", queue="b/options")])
    }
    (initial,) = wire(graph, definitions).initials
    assert (initial.role, initial.port, initial.queue) == ("b", "options", "b/options")
    assert initial.data == {"x": 1}
    (initial,) = wire(graph, {}).initials
    assert (initial.port, initial.queue, initial.wrong) == ("Options", "", False)
    assert initial.reason == "role 'b' has not been announced yet"


def test_an_initial_packet_for_a_virtual_node_is_wrong():
    graph = drawn("a OUT -> IN rr", "rr OUT -> IN b")
    graph.add_initial(1, Endpoint("rr", "in"))
    (initial,) = wire(graph, by_convention(graph)).initials
    assert initial.wrong
    assert "msgflo/RoundRobin, which has no process" in initial.reason


# By convention.


def test_by_convention_every_port_that_is_mentioned_exists():
    graph = drawn("a Out -> IN rr", "rr OUT -> In b")
    graph.add_initial(1, Endpoint("a", "every"))
    graph.add_inport("start", "a", "go")
    graph.add_outport("end", "b", "done")
    definitions = by_convention(graph)
    assert set(definitions) == {"a", "b"}
    assert {port.id: port.queue for port in definitions["a"].inports} == {
        "every": "a.EVERY",
        "go": "a.GO",
    }
    assert {port.id: port.queue for port in definitions["b"].outports} == {"done": "b.DONE"}
    assert definitions["a"].component == "some/Thing"


def test_only_the_two_joints_are_virtual():
    assert is_virtual("msgflo/PubSub")
    assert is_virtual("msgflo/RoundRobin")
    assert not is_virtual("msgflo/roundrobin")


NODES = ["a", "b", "c", "rr1", "rr2", "ps1", "ps2"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NODES),
            st.sampled_from(["OUT", "DEADLETTER"]),
            st.sampled_from(NODES),
        ),
        max_size=12,
    )
)
def test_whatever_is_drawn_every_edge_is_carried_or_has_a_reason(lines):
    edges = dict.fromkeys(f"{src} {port} -> IN {tgt}" for src, port, tgt in lines)
    graph = drawn(*edges)
    wiring = wire(graph, by_convention(graph))
    assert len(wiring.edges) == len(edges)
    dead = [b for b in wiring.bindings if b.kind is Kind.DEADLETTER]
    for edge in wiring.edges:
        assert edge.bindings or edge.reason
        if not is_virtual(graph.nodes[edge.edge.src.node].component):
            source = f"{edge.edge.src.node}.{edge.edge.src.port}"
            assert {b.source for b in edge.bindings} <= {source}
    for letter in dead:  # no dead letter comes back
        reached, ahead = set(), [letter.target]
        while ahead:
            queue = ahead.pop()
            assert queue != letter.source
            new = {b.target for b in dead if b.source == queue} - reached
            reached |= new
            ahead += new
