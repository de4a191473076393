"""How values and payloads become each other."""

import contextlib
import dataclasses
from typing import Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import DefinitionError, PayloadError
from msgflo.payload import BYTES, JSON, encode, payload_of, plain

AS_JSON = {"Content-Type": JSON}
AS_BYTES = {"Content-Type": BYTES}
FOREIGN: dict[str, str] = {}


class Image(msgspec.Struct):
    url: str
    width: int = 800


class Tree(msgspec.Struct):
    children: "list[Tree]" = []


@dataclasses.dataclass
class Point:
    x: float


class Options(TypedDict):
    size: int


class Model(pydantic.BaseModel):
    size: int


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values)
def test_every_json_value_arrives_as_it_was_sent(value: object) -> None:
    body, kind = encode(value)
    assert kind == JSON
    assert msgspec.json.encode(payload_of(Any).decode(body, AS_JSON)) == msgspec.json.encode(value)


@given(st.binary())
def test_bytes_arrive_as_they_were_sent(value: bytes) -> None:
    body, kind = encode(value)
    assert (body, kind) == (value, BYTES)
    assert payload_of(bytes).decode(body, {"Content-Type": kind}) == value
    assert payload_of(Any).decode(body, {"Content-Type": kind}) == value


@given(st.binary())
def test_foreign_bytes_never_raise_anything_but_a_payload_error(body: bytes) -> None:
    for annotation in (Any, str, int, Image, bytes | Image, None, Model):
        for headers in (FOREIGN, AS_JSON, AS_BYTES, {"Content-Type": "text/plain"}):
            with contextlib.suppress(PayloadError):
                payload_of(annotation).decode(body, headers)


@pytest.mark.parametrize(
    ("annotation", "body", "value"),
    [
        (Image, b'{"url":"u"}', Image("u")),
        (Point, b'{"x":1}', Point(1.0)),
        (Options, b'{"size":1}', {"size": 1}),
        (Model, b'{"size":1}', Model(size=1)),
        (list[Model], b'[{"size":1}]', [Model(size=1)]),
        (str, b'"a"', "a"),
        (int | None, b"null", None),
        (None, b"17", None),
        (object, b"[]", []),
        (bytes | Image, b'{"url":"u"}', Image("u")),
        (bytes, b'{"url":"u"}', b'{"url":"u"}'),
        (float, b"1", 1.0),
    ],
)
def test_json_becomes_the_declared_type(annotation: Any, body: bytes, value: object) -> None:
    for headers in (AS_JSON, FOREIGN, {"Content-Type": "application/json; charset=utf-8"}):
        assert payload_of(annotation).decode(body, headers) == value


@pytest.mark.parametrize(
    ("annotation", "body", "said"),
    [
        (Image, b'{"url":"u","width":"x"}', "$.width: expected int, got str"),
        (Image, b"{}", "$: object missing required field url"),
        (list[Image], b'[{"url":3}]', "$[0].url: expected str, got int"),
        (int, b"true", "$: expected int, got bool"),
        (float, b"false", "$: expected float, got bool"),
        (str, b"0", "$: expected str, got int"),
        (Model, b'{"size":"x"}', "$.size: input should be a valid integer"),
        (list[Model], b'[{"size":"x"}]', "$[0].size: input should be a valid integer"),
        (Image, b"PNG", "$: expected Image, got 3 bytes that are not JSON ('PNG')"),
        (Image, b"", "$: expected Image, got an empty payload"),
    ],
)
def test_what_does_not_fit_is_told_by_its_path(annotation: Any, body: bytes, said: str) -> None:
    with pytest.raises(PayloadError) as caught:
        payload_of(annotation).decode(body, AS_JSON)
    assert str(caught.value).startswith(said)


def test_bytes_are_no_text_and_no_object() -> None:
    for annotation in (str, Image, int):
        with pytest.raises(PayloadError, match="of content type application/octet-stream"):
            payload_of(annotation).decode(b"hello", AS_BYTES)


def test_a_foreign_payload_that_is_not_json_is_text_where_text_is_wanted_and_bytes_elsewhere() -> (
    None
):
    assert payload_of(str).decode(b"hello", FOREIGN) == "hello"
    assert payload_of(int | str).decode(b"1 2", FOREIGN) == "1 2"
    assert payload_of(Any).decode(b"hello", FOREIGN) == b"hello"
    assert payload_of(bytes | Image).decode(b"hello", FOREIGN) == b"hello"
    assert payload_of(Any).decode(b"hello", {"Content-Type": "text/plain"}) == "hello"
    assert plain(b"0", FOREIGN) == 0


def test_malformed_json_is_said_to_be_malformed() -> None:
    with pytest.raises(PayloadError, match="expected JSON"):
        payload_of(Any).decode(b"{", AS_JSON)


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (str, "string"),
        (int, "int"),
        (float, "number"),
        (int | float, "number"),
        (bool, "boolean"),
        (Image, "object"),
        (Point, "object"),
        (Options, "object"),
        (Model, "object"),
        (Tree, "object"),
        (dict[str, int], "object"),
        (list[Image], "array"),
        (tuple[int, str], "array"),
        (bytes, "buffer"),
        (None, "bang"),
        (Any, "any"),
        (Image | None, "object"),
        (int | str, "any"),
        (Literal["a", "b"], "string"),
        (bytes | Image, "any"),
    ],
)
def test_a_type_has_the_name_that_graphs_use(annotation: Any, kind: str) -> None:
    assert payload_of(annotation).type == kind


def test_a_type_has_a_schema() -> None:
    assert payload_of(Image).schema == {
        "title": "Image",
        "type": "object",
        "properties": {"url": {"type": "string"}, "width": {"type": "integer", "default": 800}},
        "required": ["url"],
    }
    assert payload_of(Tree).schema["$ref"] == "#/$defs/Tree"
    assert payload_of(Model).schema["properties"]["size"]["type"] == "integer"
    assert payload_of(bytes).schema is None


@pytest.mark.parametrize("annotation", [pytest.Item, list[pytest.Item], Image | dict, open])
def test_a_type_that_no_payload_can_have_is_refused(annotation: Any) -> None:
    with pytest.raises(DefinitionError, match="payload"):
        payload_of(annotation)


def test_what_json_cannot_say_is_not_sent() -> None:
    for value in (object(), {1j: 2}, "\ud800"):
        with pytest.raises(PayloadError, match="cannot send a value of type"):
            encode(value)


def test_models_and_structs_are_sent_as_json() -> None:
    assert encode(Model(size=1)) == (b'{"size":1}', JSON)
    assert encode([Model(size=1)]) == (b'[{"size":1}]', JSON)
    assert encode(Image("u")) == (b'{"url":"u","width":800}', JSON)
    assert encode(memoryview(b"x")) == (b"x", BYTES)
