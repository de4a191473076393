import itertools
from collections.abc import Callable, Iterable

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msgflo.coordinator.initials import SendInitial
from msgflo.coordinator.network import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    TELL_AGAIN,
    Bind,
    Life,
    Memory,
    Network,
    Order,
    Pause,
    Unbind,
)
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Announcement, Definition, Goodbye, Port
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.wiring import PUBSUB, ROUNDROBIN

SHORT = {"rr": ROUNDROBIN, "ps": PUBSUB}


def drawn(edges: Iterable[str] = (), initials: Iterable[tuple[str, str, object]] = ()) -> Graph:
    """A graph of the roles a, b and c, with edges like ``a OUT -> IN b``."""
    graph = Graph("drawn")
    for node in "abc":
        graph.add_node(node, "some/Thing")
    for line in edges:
        src, out, _, into, tgt = line.split()
        for node in (src, tgt):
            if node not in graph.nodes:
                graph.add_node(node, SHORT[node[:2]])
        graph.add_edge(Endpoint(src, out), Endpoint(tgt, into))
    for node, port, data in initials:
        graph.add_initial(data, Endpoint(node, port))
    return graph


def announcing(
    role: str,
    id_: str = "",
    instance: int | None = None,
    queue: str = "",
    period: float = 60.0,
    **beside: object,
) -> Announcement:
    definition = Definition(
        id=id_ or f"{role}-1",
        role=role,
        component="some/Thing",
        inports=(Port("in", queue=queue or f"{role}.IN"),),
        outports=(Port("out", queue=f"{role}.OUT"),),
    )
    return Announcement(
        definition, instance=instance, places=instance is not None, period=period, **beside
    )


def bound(text: str) -> Bind:
    return Bind(_binding(text))


def unbound(text: str) -> Unbind:
    return Unbind(_binding(text))


def _binding(text: str) -> Binding:
    kind, source, _, target = text.split()
    return Binding(Kind(kind), source, target)


def settle(
    network: Network, orders: list[Order], there: set[Binding] | None = None
) -> set[Binding]:
    """Carry out all orders, and what they lead to."""
    there = set() if there is None else there
    orders = list(orders)
    while orders:
        order = orders.pop(0)
        if isinstance(order, Bind):
            there.add(order.binding)
        elif isinstance(order, Unbind):
            there.discard(order.binding)
        orders += network.done(order, 0.0)
    return there


def complete(graph: Graph, *announcements: Announcement) -> tuple[Network, set[Binding]]:
    """A network in which everybody was heard and everything is bound."""
    network = Network(graph)
    orders = network.found(())
    for announcement in announcements or map(announcing, "abc"):
        orders += network.heard(announcement, 0.0)
    there = settle(network, orders)
    network.events.clear()
    return network, there


def events(network: Network) -> list[str]:
    told = [f"{event.kind}: {event.text}" for event in network.events]
    network.events.clear()
    return told


A_TO_B = "pubsub a.OUT -> b.IN"
A_TO_C = "pubsub a.OUT -> c.IN"
SHARED = "roundrobin a.OUT -> b.IN"


# Edges.


def test_nothing_is_ordered_before_the_broker_has_said_what_is_bound():
    network = Network(drawn(["a OUT -> IN b"]))
    assert network.heard(announcing("a"), 0.0) == []
    assert network.heard(announcing("b"), 0.0) == []
    assert network.found([]) == [bound(A_TO_B)]


def test_an_edge_is_bound_when_the_second_of_its_roles_is_heard():
    network = Network(drawn(["a OUT -> IN b"]))
    assert network.found([]) == []
    assert network.heard(announcing("b"), 0.0) == []
    (edge,) = network.status().edges
    assert edge.reason == "role 'a' has not been announced yet"
    assert network.heard(announcing("a"), 0.0) == [bound(A_TO_B)]
    assert network.status().edges[0].reason == "being bound"
    assert not network.status().complete
    assert network.done(bound(A_TO_B), 0.0) == []
    assert network.status().edges[0].reason == ""
    assert network.heard(announcing("c"), 0.0) == []
    assert network.status().complete


def test_an_order_that_is_out_is_not_given_again():
    network = Network(drawn(["a OUT -> IN b"]))
    network.heard(announcing("a"), 0.0)
    network.heard(announcing("b"), 0.0)
    assert network.found([]) == [bound(A_TO_B)]
    assert network.found([]) == []
    assert network.heard(announcing("b", "b-2"), 1.0) == []
    assert network.change_graph(drawn(["a OUT -> IN b"])) == []


def test_what_is_bound_already_is_not_bound_again():
    network = Network(drawn(["a OUT -> IN b"]))
    network.found([_binding(A_TO_B)])
    assert network.heard(announcing("a"), 0.0) + network.heard(announcing("b"), 0.0) == []
    assert network.status().edges[0].reason == ""


def test_what_others_bound_is_shown_and_left_alone():
    network = Network(drawn())
    other = _binding("pubsub x.OUT -> y.IN")
    assert network.found([other]) == []
    assert network.status().found == (other,)
    assert network.change_graph(drawn(["a OUT -> IN b"])) == []


def test_an_edge_that_is_removed_is_unbound():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    assert network.change_graph(drawn()) == [unbound(A_TO_B)]
    assert network.done(unbound(A_TO_B), 0.0) == []
    assert network.memory.bindings == []


def test_the_old_way_stays_until_the_new_one_is_bound():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    assert network.change_graph(drawn(["a OUT -> IN c"])) == [bound(A_TO_C)]
    assert network.done(bound(A_TO_C), 0.0) == [unbound(A_TO_B)]


def test_an_edge_changes_its_kind_without_a_gap():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    orders = network.change_graph(drawn(["a OUT -> IN rr", "rr OUT -> IN b"]))
    assert orders == [bound(SHARED)]
    assert network.done(bound(SHARED), 0.0) == [unbound(A_TO_B)]


def test_an_edge_that_comes_back_while_it_is_unbound_is_bound_after_that():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    assert network.change_graph(drawn()) == [unbound(A_TO_B)]
    assert network.change_graph(drawn(["a OUT -> IN b"])) == []
    assert network.done(unbound(A_TO_B), 0.0) == [bound(A_TO_B)]


def test_an_edge_that_goes_while_it_is_bound_is_unbound_after_that():
    network, _ = complete(drawn())
    assert network.change_graph(drawn(["a OUT -> IN b"])) == [bound(A_TO_B)]
    assert network.change_graph(drawn()) == []
    assert network.done(bound(A_TO_B), 0.0) == [unbound(A_TO_B)]


def test_a_change_and_its_undoing_leave_no_gap_though_the_unbinding_is_under_way():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    network.change_graph(drawn(["a OUT -> IN c"]))
    assert network.done(bound(A_TO_C), 0.0) == [unbound(A_TO_B)]
    # Unbinding c now would leave nothing when the unbinding of b is done.
    assert network.change_graph(drawn(["a OUT -> IN b"])) == []
    assert network.done(unbound(A_TO_B), 0.0) == [bound(A_TO_B)]
    assert network.done(bound(A_TO_B), 0.0) == [unbound(A_TO_C)]


def test_a_pending_edge_does_not_keep_another_from_being_removed():
    network, _ = complete(drawn(["a OUT -> IN b"]), announcing("a"), announcing("b"))
    assert network.change_graph(drawn(["a OUT -> IN c"])) == [unbound(A_TO_B)]


# Orders that fail.


def test_a_failure_is_tried_again_after_growing_pauses():
    network = Network(drawn(["a OUT -> IN b"]))
    network.found([])
    network.heard(announcing("a", period=1e5), 0.0)
    (order,) = network.heard(announcing("b", period=1e5), 0.0)
    now, pauses = 0.0, []
    for _ in range(10):
        assert network.failed(order, "the broker is away", now) == []
        assert network.status().edges[0].reason == "the broker is away"
        deadline = network.next_deadline()
        pauses.append(deadline - now)
        assert network.tick(deadline - 0.01) == []
        now = deadline
        assert network.tick(now) == [order]
    assert pauses[:4] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4, FIRST_PAUSE * 8]
    assert max(pauses) == LONGEST_PAUSE
    assert events(network).count(f"failed: cannot bind {order.binding}: the broker is away") == 1
    network.done(order, 0.0)
    assert network.status().edges[0].reason == ""


def test_a_failure_that_nobody_wants_any_more_leaves_no_deadline_behind():
    network, _ = complete(drawn())
    network = Network(drawn())
    network.found([])
    for role in "ab":
        network.heard(announcing(role, period=1e5), 0.0)
    (order,) = network.change_graph(drawn(["a OUT -> IN b"]))
    silent = network.next_deadline()
    network.change_graph(drawn())
    assert network.failed(order, "away", 0.0) == [unbound(A_TO_B)]
    assert network.next_deadline() == silent


def test_a_refusal_waits_for_a_change_of_the_graph():
    network = Network(drawn(["a OUT -> IN rr", "rr OUT -> IN b"]))
    network.found([])
    network.heard(announcing("a"), 0.0)
    (order,) = network.heard(announcing("b"), 0.0)
    assert network.failed(order, "no work queues here", 0.0, final=True) == []
    (edge, _) = network.status().edges
    assert edge.wrong
    assert edge.reason == "no work queues here"
    assert network.tick(100.0) == []
    assert network.found([]) == []
    assert network.memory.bindings == []
    assert network.change_graph(network.graph) == [order]


def test_what_failed_for_want_of_the_broker_is_tried_at_once_when_it_answers():
    network = Network(drawn(["a OUT -> IN b"]))
    network.found([])
    network.heard(announcing("a"), 0.0)
    (order,) = network.heard(announcing("b"), 0.0)
    network.failed(order, "away", 0.0)
    assert network.found([]) == [order]


def test_a_binding_that_may_have_been_made_is_removed_if_it_is_not_wanted():
    network, _ = complete(drawn())
    (order,) = network.change_graph(drawn(["a OUT -> IN b"]))
    network.change_graph(drawn())
    assert network.failed(order, "nobody knows", 0.0) == [unbound(A_TO_B)]
    assert network.done(unbound(A_TO_B), 0.0) == []
    assert network.memory.bindings == []


def test_a_binding_that_may_have_been_removed_is_made_again_if_it_is_wanted():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    (order,) = network.change_graph(drawn())
    network.change_graph(drawn(["a OUT -> IN b"]))
    assert network.failed(order, "nobody knows", 0.0) == [bound(A_TO_B)]


def test_an_answer_that_was_under_way_does_not_undo_what_was_done_meanwhile():
    network, there = complete(drawn(["a OUT -> IN b"]))
    network.asking()
    answer = list(there)
    network.change_graph(drawn())
    network.done(unbound(A_TO_B), 0.0)
    network.found(answer)  # from before
    assert network.status().found == ()
    assert network.change_graph(drawn(["a OUT -> IN b"])) == [bound(A_TO_B)]
    network.asking()
    network.done(bound(A_TO_B), 0.0)
    assert network.found([]) == []
    assert network.status().edges[0].reason == ""


def test_a_binding_is_not_removed_while_it_is_being_made_once_more():
    network, _ = complete(drawn())
    (order,) = network.change_graph(drawn(["a OUT -> IN b"]))
    network.failed(order, "nobody knows", 0.0)
    assert network.tick(1.0) == [order]
    assert network.change_graph(drawn()) == []
    assert network.done(order, 0.0) == [unbound(A_TO_B)]


def test_an_answer_that_was_under_way_says_nothing_of_what_may_have_been_done_meanwhile():
    network, _ = complete(drawn())
    network.asking()
    (order,) = network.change_graph(drawn(["a OUT -> IN b"]))
    network.failed(order, "nobody knows", 0.0)
    assert network.found([]) == [order]
    network.failed(order, "nobody knows", 0.0)
    network.asking()
    assert network.tick(20.0) == [order]
    assert network.failed(order, "nobody knows", 20.0) == []
    network.change_graph(drawn(["a OUT -> IN b"]))
    network.found([])
    network.failed(order, "nobody knows", 20.0)
    assert network.change_graph(drawn()) == [unbound(A_TO_B)]


def test_an_answer_leaves_unsure_what_was_tried_meanwhile():
    network, _ = complete(drawn())
    network.asking()
    (order,) = network.change_graph(drawn(["a OUT -> IN b"]))
    network.failed(order, "refused, or not", 0.0)
    network.change_graph(drawn())
    # The unbinding of what may be there is out; it fails, and the old answer comes.
    assert network.failed(unbound(A_TO_B), "nobody knows", 0.0) == []
    assert network.found([]) == [unbound(A_TO_B)]


def test_what_was_found_as_the_graph_wants_it_is_ours_from_then_on():
    network = Network(drawn(["a OUT -> IN b"]))
    network.found([_binding(A_TO_B)])
    for role in "ab":
        assert network.heard(announcing(role), 0.0) == []
    assert network.change_graph(drawn()) == [unbound(A_TO_B)]


def test_what_somebody_else_removed_is_bound_again():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    assert network.found([]) == [bound(A_TO_B)]


# Participants.


def test_a_heartbeat_changes_nothing_and_costs_no_wiring():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    wiring, changes = network.wiring(), network.changes
    for beat in range(100):
        assert network.heard(announcing("b"), float(beat)) == []
    assert network.wiring() is wiring
    assert network.changes == changes
    assert events(network) == []


def test_a_further_participant_with_the_same_ports_costs_no_wiring():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    wiring = network.wiring()
    assert network.heard(announcing("b", "b-2", 2), 1.0) == []
    assert network.wiring() is wiring
    assert events(network) == ["live: b.2 is live"]


def test_a_large_network_takes_heartbeats_without_thinking():
    roles = [f"r{n}" for n in range(200)]
    graph = Graph("large")
    for role in roles:
        graph.add_node(role, "some/Thing")
        graph.add_initial(1, Endpoint(role, "in"))
    for one, other in itertools.pairwise(roles):
        graph.add_edge(Endpoint(one, "out"), Endpoint(other, "in"))
    network = Network(graph)
    orders = network.found([])
    everybody = [announcing(role, f"{role}-{n}", n) for role in roles for n in range(1, 6)]
    for announcement in everybody:
        orders += network.heard(announcement, 0.0)
    settle(network, orders)
    assert network.status().complete
    wiring, changes = network.wiring(), network.changes
    for beat in range(1, 11):
        for announcement in everybody:
            assert network.heard(announcement, beat * 60.0) == []
            assert network.next_deadline() >= beat * 60.0
    assert network.wiring() is wiring
    assert network.changes == changes
    assert network.next_deadline() == 600.0 + 150.0


def test_a_lost_participant_changes_nothing_for_its_role():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    assert network.next_deadline() == 150.0
    assert network.tick(150.0) == []
    assert {role.life for role in network.status().roles} == {Life.LOST}
    assert network.status().edges[0].reason == ""
    assert network.heard(announcing("b"), 160.0) == []
    assert "live: b is live again" in events(network)


def test_a_goodbye_leaves_the_bindings():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    assert network.left(Goodbye("b-1", "b")) == []
    assert network.left(Goodbye("nobody", "b")) == []
    assert network.status().roles[1].life is Life.PENDING
    assert network.status().edges[0].reason == ""


def test_a_role_that_is_not_in_the_graph_is_shown():
    network, _ = complete(drawn())
    network.heard(announcing("stranger"), 0.0)
    stranger = network.status().roles[-1]
    assert (stranger.role, stranger.wanted, stranger.life) == ("stranger", False, Life.LIVE)


def test_ports_that_change_are_wired_anew_without_a_gap():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    there = bound("pubsub a.OUT -> b/in")
    assert network.heard(announcing("b", queue="b/in"), 1.0) == [there]
    assert network.done(there, 0.0) == [unbound(A_TO_B)]
    assert "changed: b has changed ports" in events(network)


def test_participants_that_disagree_do_not_make_the_wiring_flap():
    network, _ = complete(drawn(["a OUT -> IN b"]))
    orders = network.heard(announcing("b", "b-other", queue="b/in"), 1.0)
    settle(network, orders)
    changes = network.changes
    for beat in range(5):
        assert network.heard(announcing("b"), 60.0 * beat) == []
        assert network.heard(announcing("b", "b-other", queue="b/in"), 60.0 * beat) == []
    assert network.changes == changes
    (told,) = [event for event in network.events if event.kind == "wrong"]
    assert told.text == (
        "participants of role 'b' disagree on the queue of port 'in': "
        "it is 'b.IN' to 'b-1', but 'b/in' is used"
    )


def test_when_the_one_that_disagrees_leaves_the_others_count():
    network, there = complete(drawn(["a OUT -> IN b"]))
    settle(network, network.heard(announcing("b", "b-other", queue="b/in"), 1.0), there)
    assert there == {_binding("pubsub a.OUT -> b/in")}
    assert network.left(Goodbye("b-other", "b")) == [bound(A_TO_B)]


def test_two_roles_may_have_participants_of_one_id():
    network, _ = complete(
        drawn(["a OUT -> IN b"]), announcing("a", "same"), announcing("b", "same")
    )
    assert [role.life for role in network.status().roles[:2]] == [Life.LIVE, Life.LIVE]
    network.left(Goodbye("same", "b"))
    assert [role.life for role in network.status().roles[:2]] == [Life.LIVE, Life.PENDING]


def test_a_wrong_edge_is_told_once():
    network, _ = complete(drawn(["a NOPE -> IN b"]))
    for beat in range(3):
        network.heard(announcing("c", f"c-{beat}"), 1.0)
        network.change_graph(network.graph)
    assert [it for it in events(network) if it.startswith("wrong")] == []
    network.change_graph(drawn())
    network.change_graph(drawn(["a NOPE -> IN b"]))
    (told,) = [it for it in events(network) if it.startswith("wrong")]
    assert told.startswith("wrong: a NOPE -> IN b: role 'a' (some/Thing) has no outport 'NOPE'")


# Initial packets.


def sent(orders: Iterable[Order]) -> list[tuple[str, str, bytes]]:
    return [(o.participant, o.queue, o.body) for o in orders if isinstance(o, SendInitial)]


def test_each_participant_is_given_its_initial_packet_once():
    network = Network(drawn(initials=[("b", "IN", {"x": 1})]))
    one = network.heard(announcing("b", "b-1", 1), 0.0)
    other = network.heard(announcing("b", "b-2", 2), 0.0)
    assert sent(one) == [("b-1", "b.IN@1", b'{"x":1}')]
    assert sent(other) == [("b-2", "b.IN@2", b'{"x":1}')]
    assert one[0].id != other[0].id
    assert network.done(one[0], 0.0) == []
    assert network.heard(announcing("b", "b-1", 1), 60.0) == []
    assert network.change_graph(network.graph) == []


def test_the_packets_of_a_port_are_sent_one_after_the_other():
    packets = [("b", "IN", n) for n in (1, 2, 2, 1)]
    network = Network(drawn(initials=packets))
    orders, bodies, ids = network.heard(announcing("b"), 0.0), [], set()
    while orders:
        (order,) = orders
        bodies.append(order.body)
        ids.add(order.id)
        assert network.failed(order, "away", 0.0) == []  # those behind it wait
        assert network.tick(1.0) == [order]
        orders = network.done(order, 0.0)
    assert bodies == [b"1", b"2", b"2", b"1"]
    assert len(ids) == 4


def test_a_packet_that_cannot_be_sent_is_shown():
    network, _ = complete(drawn(initials=[("b", "IN", 1)]), announcing("a"), announcing("c"))
    (order,) = network.heard(announcing("b"), 0.0)
    network.failed(order, "too large", 0.0)
    assert network.status().initials == ("b in: too large",)
    assert not network.status().complete
    assert events(network)[-1].startswith("failed: cannot send the initial packet of b in to b.IN")


def test_an_edit_gives_the_new_packet_and_undoing_it_the_old_one_again():
    network = Network(drawn(initials=[("b", "IN", 1)]))
    (first,) = network.heard(announcing("b", initials=("in",)), 0.0) or [None]
    assert first is None  # given at its start
    (second,) = network.change_graph(drawn(initials=[("b", "IN", 2)]))
    network.done(second, 0.0)
    (third,) = network.change_graph(drawn(initials=[("b", "IN", 1)]))
    network.done(third, 0.0)
    (fourth,) = network.change_graph(drawn(initials=[("b", "IN", 2)]))
    assert [order.body for order in (second, third, fourth)] == [b"2", b"1", b"2"]
    assert len({second.id, third.id, fourth.id}) == 3


def test_a_participant_that_was_started_with_an_old_packet_is_given_the_new_one():
    network = Network(drawn(initials=[("b", "IN", 1)]))
    network.change_graph(drawn(initials=[("b", "IN", 2)]))
    orders = network.heard(announcing("b", initials=("in",)), 0.0)
    assert sent(orders) == [("b-1", "b.IN", b"2")]


def test_nothing_is_sent_to_a_participant_that_is_lost():
    network = Network(drawn())
    network.heard(announcing("b"), 0.0)
    network.tick(150.0)
    graph = drawn(initials=[("b", "IN", 1)])
    assert network.change_graph(graph) == []
    assert sent(network.heard(announcing("b"), 160.0)) == [("b-1", "b.IN", b"1")]


# What outlives a coordinator.


def again(network: Network, graph: Graph) -> Network:
    memory = msgspec.json.encode(network.memory)
    return Network(graph, msgspec.json.decode(memory, type=Memory))


def test_after_a_restart_nothing_is_done_twice_and_nothing_undone():
    graph = drawn(["a OUT -> IN b"], [("b", "IN", 1)])
    network, there = complete(graph)
    network = again(network, graph)
    assert network.status().edges[0].bindings == (_binding(A_TO_B),)
    assert network.found(there) == []
    for role in "bac":
        assert network.heard(announcing(role), 1.0) == []
    assert network.status().complete


def test_the_goodbye_of_one_does_not_forget_what_another_was_given():
    graph = drawn(initials=[("b", "IN", 1)])
    network, _ = complete(graph, announcing("a"), announcing("b"))
    network = again(network, graph)
    network.heard(announcing("a"), 0.0)
    network.left(Goodbye("a-1", "a"))
    assert network.heard(announcing("b"), 1.0) == []


def test_an_edge_that_was_removed_while_nobody_looked_is_unbound():
    network, there = complete(drawn(["a OUT -> IN b"]))
    network = again(network, drawn())
    assert network.found(there) == [unbound(A_TO_B)]


def test_a_binding_is_known_as_ours_before_it_is_made():
    network, _ = complete(drawn())
    (order,) = network.change_graph(drawn(["a OUT -> IN b"]))
    network = again(network, drawn())  # killed right after the broker bound it
    assert network.found([order.binding]) == [unbound(A_TO_B)]


def test_what_was_made_by_us_and_removed_by_others_is_theirs_when_it_comes_back():
    network, there = complete(drawn(["a OUT -> IN b"]))
    network = again(network, drawn())
    assert network.found([]) == []
    assert network.found(there) == []
    assert network.status().found == tuple(there)


def test_a_packet_that_was_edited_while_nobody_looked_is_sent():
    network, _ = complete(drawn(initials=[("b", "IN", 1)]))
    network = again(network, drawn(initials=[("b", "IN", 2)]))
    assert sent(network.heard(announcing("b"), 0.0)) == [("b-1", "b.IN", b"2")]


def test_participants_that_differ_are_not_unbound_until_all_were_heard_again():
    more = announcing("b", "b-more")
    port = Port("debug", queue="b.DEBUG")
    more = msgspec.structs.replace(
        more, definition=msgspec.structs.replace(more.definition, inports=(port,))
    )
    graph = drawn(["a OUT -> DEBUG b"])
    network, there = complete(graph, announcing("a"), announcing("b"), more)
    assert len(there) == 1
    network = again(network, graph)
    assert network.found(there) == []
    assert network.heard(announcing("b"), 0.0) == []
    assert network.status().edges[0].reason == ""


@pytest.mark.parametrize(
    "memory",
    [
        b'{"bindings": [["nonsense", "a", "b"]]}',
        b'{"bindings": [["pubsub", "a"]]}',
        b'{"given": {"b": {"b-1": {"packets": 5}}}}',
        b'{"definitions": {"b": 5}}',
    ],
)
def test_a_damaged_memory_is_noticed_when_it_is_read(memory):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(memory, type=Memory)


# Any sequence of facts.

EDGES = [
    "a OUT -> IN b",
    "a OUT -> IN c",
    "a OUT -> IN rr",
    "rr OUT -> IN b",
    "rr OUT -> IN c",
    "rr DEADLETTER -> IN a",
    "b OUT -> IN c",
]


def test_who_can_be_paused_is_told_to_until_it_says_that_it_is():
    network, _ = complete(
        drawn(), announcing("a", paused=False), announcing("b"), announcing("c", paused=True)
    )
    assert network.pause(True) == [Pause("a", True)]
    assert network.pause(True) == []
    assert network.done(Pause("a", True), 10.0) == []
    assert network.next_deadline() == 10.0 + TELL_AGAIN
    assert network.tick(10.0 + TELL_AGAIN) == [Pause("a", True)]
    network.done(Pause("a", True), 20.0)
    assert network.heard(announcing("a", paused=True), 20.0) == []
    assert network.next_deadline() > 20.0 + TELL_AGAIN
    assert network.status().paused
    assert set(network.pause(False)) == {Pause("a", False), Pause("c", False)}


def test_a_participant_that_was_not_paused_or_comes_back_unpaused_is_told_at_once():
    network, _ = complete(drawn(), announcing("a", paused=False))
    network.done(*network.pause(True), 0.0)
    network.heard(announcing("a", paused=True), 1.0)
    assert network.heard(announcing("a", "a-2", paused=False), 2.0) == [Pause("a", True)]


def test_start_and_stop_in_quick_succession_end_as_the_last_one_wanted():
    network, _ = complete(drawn(), announcing("a", paused=False))
    assert network.pause(True) == [Pause("a", True)]
    assert network.pause(False) == []
    assert network.heard(announcing("a", paused=True), 1.0) == []
    assert network.done(Pause("a", True), 1.0) == [Pause("a", False)]


def test_that_a_network_is_stopped_outlives_its_coordinator():
    network, _ = complete(drawn())
    network.pause(True)
    memory = msgspec.json.decode(msgspec.json.encode(network.memory), type=Memory)
    assert Network(drawn(), memory).heard(announcing("a", paused=False), 0.0) == [Pause("a", True)]


class Life_of_a_network(RuleBasedStateMachine):
    """A network, a broker that does what it is told in any sequence, and everything else."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.there: set[Binding] = set()
        self.out: list[Order] = []
        self.got: dict[str, set[tuple[str, bytes]]] = {}
        self.drawn: tuple[frozenset[str], tuple[tuple[str, int], ...]] = (frozenset(), ())
        self.introduced: dict[tuple[str, bytes], int] = {}
        self.kept: set[str] = set()
        self.everybody: dict[str, Announcement] = {}
        self.numbers = 0
        self.network = Network(drawn())
        self.saved = msgspec.json.encode(self.network.memory)
        self.foreign = Binding(Kind.PUBSUB, "x.OUT", "y.IN")

    # How the coordinator and the broker act.

    def take(self, orders: list[Order]) -> None:
        for order in orders:
            assert order not in self.out, f"{order} is out already"
            if not isinstance(order, SendInitial):
                opposite = Unbind if isinstance(order, Bind) else Bind
                assert opposite(order.binding) not in self.out, "two orders undo each other"
        self.out += orders
        assert len(set(self.out)) == len(self.out)
        if any(isinstance(order, Bind) for order in orders):
            self.saved = msgspec.json.encode(self.network.memory)

    def do(self, order: Order) -> None:
        match order:
            case Bind(binding):
                self.there.add(binding)
            case Unbind(binding):
                assert binding != self.foreign, "what others bound is left alone"
                self.there.discard(binding)
            case SendInitial():
                self.got.setdefault(order.participant, set()).add((order.id, order.body))
        self.check_sources()

    def check_sources(self) -> None:
        by_source: dict[str, set[Binding]] = {}
        for binding in self.there:
            by_source.setdefault(binding.source, set()).add(binding)
        wanted = {binding.source for binding in self.network.wiring().bindings}
        for source in self.kept & wanted:
            assert by_source.get(source), f"{source} leads nowhere while it is wired anew"
        # Where all was to be unbound, and is wanted again meanwhile, there is a gap.
        going = {order.binding for order in self.out if isinstance(order, Unbind)}
        self.kept = {source for source in wanted & by_source.keys() if by_source[source] - going}

    def find(self, during: Callable[[], None] = lambda: None) -> None:
        self.network.asking()
        answer = set(self.there)
        during()
        self.take(self.network.found(answer))

    @initialize(early=st.booleans())
    def begin(self, early):
        if early:
            self.find()

    # What can happen.

    @rule(
        edges=st.frozensets(st.sampled_from(EDGES)),
        packets=st.lists(st.tuples(st.sampled_from("bc"), st.integers(1, 2)), max_size=3),
    )
    def edit(self, edges, packets):
        before: dict[tuple[str, bytes], int] = {}
        for role, value in self.drawn[1]:
            key = (role, b"%d" % value)
            before[key] = before.get(key, 0) + 1
        for role, value in packets:
            key = (role, b"%d" % value)
            if before.get(key, 0):
                before[key] -= 1
            else:
                self.introduced[key] = self.introduced.get(key, 0) + 1
        self.drawn = (edges, tuple(packets))
        self.take(self.network.change_graph(self.graph()))
        self.check_sources()

    def graph(self) -> Graph:
        edges, packets = self.drawn
        return drawn(sorted(edges), [(role, "in", value) for role, value in packets])

    @rule(
        role=st.sampled_from("abc"),
        instance=st.sampled_from([None, 1, 2]),
        queue=st.sampled_from(["", "", "", "other"]),
        period=st.sampled_from([20.0, 60.0]),
    )
    def appear(self, role, instance, queue, period):
        self.numbers += 1
        id_ = f"{role}-{self.numbers}"
        queue = f"{role}/in" if queue else ""
        self.everybody[id_] = announcing(role, id_, instance, queue, period)
        self.beat(self.everybody[id_])

    @precondition(lambda self: self.everybody)
    @rule(data=st.data())
    def beat_again(self, data):
        self.beat(self.everybody[data.draw(st.sampled_from(sorted(self.everybody)))])

    def beat(self, announcement: Announcement) -> None:
        self.take(self.network.heard(announcement, self.now))
        self.check_sources()

    @precondition(lambda self: self.everybody)
    @rule(data=st.data())
    def say_goodbye(self, data):
        id_ = data.draw(st.sampled_from(sorted(self.everybody)))
        gone = self.everybody.pop(id_)
        self.take(self.network.left(Goodbye(id_, gone.definition.role)))
        self.check_sources()

    @rule(role=st.sampled_from("abc"), instance=st.integers(1, 2))
    def vanish(self, role, instance):
        self.network.vanished(role, instance)

    @precondition(lambda self: self.now < 3500.0)
    @rule(seconds=st.sampled_from([0.1, 1.0, 40.0, 160.0]))
    def pass_time(self, seconds):
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        self.take(self.network.tick(self.now))
        deadline = self.network.next_deadline()
        assert deadline is None or deadline > self.now, "a deadline that never clears"

    @precondition(lambda self: self.out)
    @rule(data=st.data(), how=st.sampled_from(["done", "done", "done", "lost", "unknown", "never"]))
    def answer(self, data, how):
        order = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        if how in ("done", "unknown"):
            self.do(order)
        if how == "done":
            self.take(self.network.done(order, 0.0))
        else:
            final = how == "never" and isinstance(order, Bind)
            self.take(self.network.failed(order, how, self.now, final=final))

    @rule(data=st.data(), count=st.integers(0, 3))
    def ask(self, data, count):
        def during() -> None:
            for _ in range(count):
                if self.out:
                    self.answer(data, "done")

        self.find(during)

    @rule(here=st.booleans())
    def others_bind(self, here):
        (self.there.add if here else self.there.discard)(self.foreign)

    @rule(data=st.data(), fresh=st.booleans())
    def be_killed(self, data, fresh):
        for order in self.out:
            if data.draw(st.booleans()):
                self.do(order)
        self.out = []
        if fresh:
            self.saved = msgspec.json.encode(self.network.memory)
        self.kept = set()  # what is wanted may be known later again
        self.network = Network(self.graph(), msgspec.json.decode(self.saved, type=Memory))
        self.tick()
        self.find()

    # What must be so.

    @invariant()
    def no_answered_order_is_a_deadline(self):
        self.network.next_deadline()
        self.network.events.clear()
        self.network.status()

    @rule()
    def come_to_rest(self):
        self.take(self.network.change_graph(self.graph()))  # refusals count no more
        self.find()
        for _ in range(3):
            while self.out:
                order = self.out.pop(0)
                self.do(order)
                self.take(self.network.done(order, 0.0))
            self.tick()
        assert not self.out
        wiring = self.network.wiring()
        assert wiring.bindings <= self.there
        assert {Binding(*it) for it in self.network.memory.bindings} == wiring.bindings
        assert self.there <= wiring.bindings | {self.foreign}
        self.find()
        assert not self.out, "at rest there is nothing to do"
        status = self.network.status()
        assert [edge.reason for edge in status.edges] == [edge.reason for edge in wiring.edges]
        assert set(status.found) == self.there - wiring.bindings
        for role in status.roles:
            for participant in role.participants:
                if participant.life is Life.LIVE:
                    self.check_packets(role.role, participant.announcement.definition.id)

    def check_packets(self, role: str, id_: str) -> None:
        got = [body for _, body in self.got.get(id_, ())]
        drawn_here = [b"%d" % value for whose, value in self.drawn[1] if whose == role]
        for body in (b"1", b"2"):
            assert got.count(body) >= drawn_here.count(body), "an initial packet is missing"
            assert got.count(body) <= self.introduced.get((role, body), 0), "one was sent twice"


Life_of_a_network.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None
)
TestLifeOfANetwork = Life_of_a_network.TestCase


def typed(role: str, *, takes: str = "any", sends: str = "any") -> Announcement:
    definition = Definition(
        f"{role}-1",
        role,
        "some/Thing",
        inports=(Port("in", takes, f"{role}.IN"),),
        outports=(Port("out", sends, f"{role}.OUT"),),
    )
    return Announcement(definition, instance=1, places=True)


def test_a_connection_whose_types_can_never_match_is_made_and_told_once():
    network = Network(drawn(["a OUT -> IN b"]))
    network.found([])
    network.heard(typed("a", sends="string"), 0.0)
    orders = network.heard(typed("b", takes="int"), 0.0)
    assert Bind(Binding(Kind.PUBSUB, "a.OUT", "b.IN")) in orders
    network.heard(typed("b", takes="int"), 1.0)
    told = [event.text for event in network.events if event.kind == "unfit"]
    assert told == ["a OUT -> IN b: $: string is sent, number is taken, so that no message can fit"]


def test_a_strict_network_refuses_it_until_a_component_has_changed():
    network = Network(drawn(["a OUT -> IN b"]), strict=True)
    network.found([])
    network.heard(typed("a", sends="string"), 0.0)
    orders = network.heard(typed("b", takes="int"), 0.0)
    assert not any(isinstance(order, Bind) for order in orders)
    (edge,) = network.status().edges
    assert edge.wrong
    assert "string is sent, number is taken" in edge.reason
    assert [event.kind for event in network.events if event.kind in ("wrong", "unfit")] == ["wrong"]
    orders = network.heard(typed("b", takes="string"), 1.0)
    assert Bind(Binding(Kind.PUBSUB, "a.OUT", "b.IN")) in orders
