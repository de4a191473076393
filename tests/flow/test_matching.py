"""Whether what one port sends can be what another one takes."""

import dataclasses
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import PayloadError
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Definition, Port
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.matching import mismatch, mismatches, without
from msgflo.flow.wiring import ROUNDROBIN, wire
from msgflo.payload import encode, payload_of


class Image(msgspec.Struct):
    url: str
    width: int = 800


class Job(msgspec.Struct):
    image: Image
    id: str


class Numbered(msgspec.Struct):
    id: int


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Tree(msgspec.Struct):
    left: "Tree | None"


@dataclasses.dataclass
class Picture:
    url: str


def port(kind: Any, queue: str = "q") -> Port:
    payload = payload_of(kind)
    return Port("p", payload.type, queue, schema=payload.schema)


@pytest.mark.parametrize(
    ("sent", "taken", "why"),
    [
        (str, int, "$: string is sent, number is taken"),
        (str | None, int, "$: null or string is sent, number is taken"),
        (None, str, "$: null is sent, string is taken"),
        (list[int], dict[str, int], "$: array is sent, object is taken"),
        (Image, str, "$: object is sent, string is taken"),
        (Literal["a", "b"], int, "$: string is sent, number is taken"),
        (bool, float, "$: boolean is sent, number is taken"),
        (Job, Numbered, "$.id: string is sent, number is taken"),
        (Closed, Image, "$.url: nothing is sent, 'url' is required"),
    ],
)
def test_types_that_can_never_match(sent, taken, why):
    assert mismatch(port(sent), port(taken)) == why


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (str, str),
        (int, float),
        (float, int),  # it may be whole
        (str | int, int | None),
        (Any, int),
        (int, Any),
        (bytes, str),  # JSON is bytes too
        (str, bytes),
        (str, None),  # a bang takes anything
        (Image, Picture),
        (Picture, Image),
        (Image, dict[str, Any]),
        (Image, Numbered),  # nothing says that there is no id
        (Tree, Tree),
    ],
)
def test_types_that_may_match(sent, taken):
    assert mismatch(port(sent), port(taken)) == ""


@pytest.mark.parametrize("kind", ["color", "all", "any", "", "text/markdown"])
def test_types_that_somebody_invented_may_be_anything(kind):
    assert mismatch(Port("a", kind), port(int)) == ""
    assert mismatch(port(int), Port("a", kind)) == ""


@pytest.mark.parametrize(
    "schema",
    [
        True,
        [],
        {},
        {"type": 3},
        {"type": ["string", 3]},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"anyOf": "x"},
        {"anyOf": [{}]},
        {"type": "object", "required": 3, "properties": []},
    ],
)
def test_a_schema_that_is_none_excludes_nothing(schema):
    assert mismatch(Port("a", "any", schema=schema), port(Job)) == ""
    assert mismatch(port(Job), Port("a", "any", schema=schema)) == ""


TYPES = [None, bool, int, float, str, bytes, Image, Picture, Job, Numbered, Closed, list[int]]
TYPES += [dict[str, int], str | None, int | str, Any]
VALUES = [None, True, 0, 1.0, "x", b"x", Image("u"), Picture("u"), Job(Image("u"), "1")]
VALUES += [Numbered(1), Closed("n"), [1], {"a": 1}]


@given(st.sampled_from(TYPES), st.sampled_from(TYPES), st.sampled_from(VALUES))
def test_what_is_said_to_be_impossible_never_happens(sent, taken, value):
    """No value that the one port may send is accepted by the other."""
    body, kind = encode(value)
    headers = {"Content-Type": kind}
    try:
        payload_of(sent).decode(body, headers)
        payload_of(taken).decode(body, headers)
    except PayloadError:
        return
    if sent is None and value is not None:
        return  # a bang accepts anything, and sends null
    assert mismatch(port(sent), port(taken)) == ""


def network() -> tuple[Graph, dict[str, Definition]]:
    graph = Graph("g")
    for node in ("a", "b", "c"):
        graph.add_node(node, "C")
    graph.add_node("rr", ROUNDROBIN)
    graph.add_edge(Endpoint("a", "out"), Endpoint("b", "in"))
    graph.add_edge(Endpoint("a", "out"), Endpoint("rr", "in"))
    graph.add_edge(Endpoint("rr", "out"), Endpoint("c", "in"))
    definitions = {
        "a": Definition("a-1", "a", "C", outports=(Port("out", "string", "a.OUT"),)),
        "b": Definition("b-1", "b", "C", inports=(Port("in", "string", "b.IN"),)),
        "c": Definition("c-1", "c", "C", inports=(Port("in", "int", "c.IN"),)),
    }
    return graph, definitions


def test_a_connection_through_a_roundrobin_is_one_from_end_to_end():
    graph, definitions = network()
    found = mismatches(wire(graph, definitions), definitions)
    assert found == {
        Binding(Kind.ROUNDROBIN, "a.OUT", "c.IN"): "a OUT -> IN c: $: string is sent, number is "
        "taken, so that no message can fit"
    }


def test_what_is_refused_leaves_the_rest_as_it_was():
    graph, definitions = network()
    wiring = wire(graph, definitions)
    strict = without(wiring, mismatches(wiring, definitions))
    assert strict.bindings == {Binding(Kind.PUBSUB, "a.OUT", "b.IN")}
    assert [edge.wrong for edge in strict.edges] == [False, True, True]
    assert "string is sent, number is taken" in strict.edges[1].reason
