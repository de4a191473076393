import msgspec

from msgflo.coordinator.initials import Given, Initials
from msgflo.flow.discovery import Announcement, Definition, Port
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.wiring import Wiring, wire


def drawn(*values: object, port: str = "in") -> Graph:
    graph = Graph("drawn")
    graph.add_node("b", "some/Thing")
    for value in values:
        graph.add_initial(value, Endpoint("b", port))
    return graph


B = Announcement(
    Definition(
        "b-1",
        "b",
        "some/Thing",
        inports=(Port("in", queue="b.IN"), Port("options", queue="b.OPTIONS")),
    ),
    instance=2,
    places=True,
)


def wired(graph: Graph, known: bool = True) -> Wiring:
    return wire(graph, {"b": B.definition} if known else {})


def wanting(*values: object) -> Initials:
    initials = Initials(drawn(*values), {})
    initials.want(wired(drawn(*values)))
    initials.appeared(B)
    return initials


def give_all(initials: Initials) -> list[object]:
    given = []
    while orders := list(initials.due(B)):
        for order in orders:
            given.append(msgspec.json.decode(order.body))
            initials.done(order)
    return given


def edit(initials: Initials, *values: object) -> None:
    initials.change_graph(drawn(*values))
    initials.want(wired(drawn(*values)))


def test_packets_come_in_the_order_of_the_graph_and_equal_ones_are_several():
    assert give_all(wanting(1, 2, 1, 1)) == [1, 2, 1, 1]


def test_falsy_packets_are_packets():
    assert give_all(wanting(None, 0, False, "", [])) == [None, 0, False, "", []]


def test_the_packets_of_two_ports_do_not_wait_for_each_other():
    graph = drawn(1, 2)
    graph.add_initial(3, Endpoint("b", "options"))
    initials = Initials(graph, {})
    initials.want(wired(graph))
    initials.appeared(B)
    assert [(o.port, o.body) for o in initials.due(B)] == [("in", b"1"), ("options", b"3")]


def test_a_packet_goes_to_the_place_or_where_there_is_none_to_the_work_queue():
    (order,) = wanting(1).due(B)
    assert order.queue == "b.IN@2"
    (order,) = wanting(1).due(msgspec.structs.replace(B, places=False))
    assert order.queue == "b.IN"


def test_it_is_the_same_order_until_it_is_done():
    initials = wanting(1, 2)
    (first,) = initials.due(B)
    assert list(initials.due(B)) == [first]
    edit(initials, 1, 2, 3)
    assert list(initials.due(B)) == [first]
    initials.done(first)
    (second,) = initials.due(B)
    assert second.body == b"2"


def test_what_an_edit_adds_is_given_and_what_stays_is_not_given_again():
    initials = wanting(1, 2)
    give_all(initials)
    edit(initials, 2, 1, 2)
    assert give_all(initials) == [2]
    edit(initials, 2)
    assert give_all(initials) == []


def test_what_comes_back_after_an_edit_is_another_message():
    initials = wanting(1)
    (first,) = initials.due(B)
    initials.done(first)
    edit(initials, 2)
    edit(initials, 1)
    (again,) = initials.due(B)
    assert again.body == first.body
    assert again.id != first.id


def test_what_was_sent_though_it_was_not_wanted_any_more_is_another_message_too():
    initials = wanting(1)
    (first,) = initials.due(B)
    edit(initials)
    initials.done(first)
    edit(initials, 1)
    (again,) = initials.due(B)
    assert again.id != first.id


def test_what_was_given_at_the_start_is_not_sent_unless_it_was_edited_or_one_of_several():
    started = msgspec.structs.replace(B, initials=("IN",))

    def due(graph: Graph, *before: object) -> list[bytes]:
        initials = Initials(drawn(*before) if before else graph, {})
        initials.change_graph(graph)
        initials.want(wired(graph))
        initials.appeared(started)
        return [order.body for order in initials.due(started)]

    assert due(drawn(1)) == []
    assert due(drawn(1), 0) == [b"1"]
    assert due(drawn(1, 2)) == [b"1"]
    assert due(drawn(1, port="options")) == [b"1"]


def test_what_was_given_is_remembered_and_not_forgotten_while_its_port_is_unknown():
    initials = wanting(1)
    give_all(initials)
    remembered = msgspec.json.decode(
        msgspec.json.encode(initials.given), type=dict[str, dict[str, Given]]
    )
    initials = Initials(drawn(1), remembered)
    initials.want(wired(drawn(1), known=False))
    initials.want(wired(drawn(1)))
    initials.appeared(B)
    assert give_all(initials) == []


def test_the_gone_are_forgotten_those_that_are_only_remembered_when_all_must_have_been_heard():
    initials = wanting(1)
    give_all(initials)
    initials.forget(lambda role, id_: False, True)
    assert initials.given.keys() == {"b"}
    remembered = Initials(drawn(1), initials.given)
    remembered.forget(lambda role, id_: True, False)
    assert remembered.given == initials.given
    remembered.forget(lambda role, id_: True, True)
    assert remembered.given == {}
    initials.forget(lambda role, id_: (role, id_) == ("b", "b-1"), False)
    assert initials.given == {}
    initials.done(next(iter(wanting(1).due(B))))  # nobody is there any more


def test_a_participant_that_was_given_nothing_is_not_remembered():
    assert wanting().given == {}
