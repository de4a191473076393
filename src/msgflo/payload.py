"""What may pass through a port: a Python type, as the wire, a schema and a graph see it.

On the wire a payload is exactly a value's JSON, or exactly some bytes; the header
``Content-Type`` tells which. Clients that send no such header are understood as far as it goes:
what parses as JSON is JSON, and anything else is text or bytes.
"""

import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from msgflo.errors import DefinitionError, PayloadError
from msgflo.transport.contract import CONTENT_TYPE

__all__ = ["ANY", "BYTES", "JSON", "Payload", "encode", "payload_of", "plain"]

JSON = "application/json"
"""The content type of a payload that is JSON."""

BYTES = "application/octet-stream"
"""The content type of a payload that is bytes."""

_RAW: dict[Any, Callable[[bytes], Any]] = {
    bytes: lambda body: body,
    bytearray: bytearray,
    memoryview: memoryview,
}

_any = msgspec.json.Decoder()


def encode(value: object) -> tuple[bytes, str]:
    """Return a value's payload and content type: bytes as they are, anything else as JSON.

    Raises:
        PayloadError: the value is neither bytes nor can it be said in JSON.
    """
    if type(value) is bytes:
        return value, BYTES
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), BYTES
    try:
        return _encoder.encode(value), JSON
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(
            f"cannot send a value of type {type(value).__name__}: {error}; expected bytes, or "
            f"something that JSON can say"
        ) from error


def plain(body: bytes, headers: Mapping[str, str]) -> Any:
    """Return the value of a payload of which nothing is known but its headers.

    A JSON value where it is one, text where the headers say text, else the bytes themselves.

    Raises:
        PayloadError: the headers say JSON, and it is not.
    """
    kind = headers.get(CONTENT_TYPE)
    if kind is None:
        try:
            return _any.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return body
    if kind == JSON or _is_json(kind):
        try:
            return _any.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise PayloadError(f"$: expected JSON, got {_shown(body)} ({error})") from None
    if kind.startswith("text/"):
        try:
            return body.decode()
        except UnicodeDecodeError:
            return body
    return body


class Payload:
    """The type of a port.

    Attributes:
        annotation: the Python type.
        type: its FBP type: ``string``, ``int``, ``number``, ``boolean``, ``object``, ``array``,
            ``buffer`` (bytes), ``bang`` (None), or ``any``.
        schema: its JSON Schema; None for anything, and for bytes.
        decode: gives the value of ``(body, headers)``, or raises a PayloadError that says where
            it does not fit, such as ``$.width: expected int, got str``.
    """

    __slots__ = ("annotation", "decode", "schema", "type")

    def __init__(
        self,
        annotation: Any,
        type: str,  # noqa: A002 - the word of the announcement
        schema: Any,
        decode: Callable[[bytes, Mapping[str, str]], Any],
    ) -> None:
        self.annotation = annotation
        self.type = type
        self.schema = schema
        self.decode = decode

    def __repr__(self) -> str:
        return f"<Payload {self.type}>"


ANY = Payload(Any, "any", None, plain)
"""Anything at all."""


def payload_of(annotation: Any) -> Payload:
    """Return how values of a Python type travel.

    ``bytes`` arrive untouched, whatever they are. ``None`` is a bang: any payload will do, its
    value is None. ``Any``, ``object`` and type variables take everything. A union with ``bytes``
    takes what fits the rest of it, and bytes.

    Raises:
        DefinitionError: a type that no payload can have.
    """
    if isinstance(annotation, TypeVar) or annotation in (Any, object):
        return ANY
    if annotation is None or annotation is NoneType:
        return Payload(None, "bang", {"type": "null"}, lambda _body, _headers: None)
    if annotation in _RAW:
        raw = _RAW[annotation]
        return Payload(annotation, "buffer", None, lambda body, _headers: raw(body))
    members = _members(annotation)
    if any(member in (Any, object) for member in members):
        return ANY
    taken = [member for member in members if member in _RAW]
    rest = Union[tuple(m for m in members if m not in _RAW)] if taken else annotation  # noqa: UP007
    schema = _schema(rest)
    try:
        decoder = msgspec.json.Decoder(rest, dec_hook=_from_plain)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"no payload can be of type {_named(annotation)}: {error}") from None
    return Payload(
        annotation,
        "any" if taken else _fbp(schema),
        None if taken else schema,
        _decode(
            decoder.decode,
            _named(annotation),
            text=any(member is str for member in members),
            raw=_RAW[taken[0]] if taken else None,
        ),
    )


def _decode(
    decode: Callable[[bytes], Any],
    name: str,
    *,
    text: bool,
    raw: Callable[[bytes], Any] | None,
) -> Callable[[bytes, Mapping[str, str]], Any]:
    """Make the one function that every message of a port passes through."""

    def value_of(body: bytes, headers: Mapping[str, str]) -> Any:
        kind = headers.get(CONTENT_TYPE)
        if kind is None or kind == JSON:
            try:
                return decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                return other(body, kind, error)
        if _is_json(kind):
            return value_of(body, {CONTENT_TYPE: JSON})
        return other(body, kind, None)

    def other(body: bytes, kind: str | None, error: Exception | None) -> Any:
        is_json = _parses(body)
        if kind is None and is_json is False:
            kind = "text/plain"
        if text and kind is not None and kind.startswith("text/"):
            try:
                return body.decode()
            except UnicodeDecodeError:
                pass
        if raw is not None and kind != JSON:
            return raw(body)
        if error is not None and is_json:
            raise PayloadError(_place(error)) from None
        said = "" if kind in (None, JSON) or error is not None else f" of content type {kind}"
        raise PayloadError(f"$: expected {name}, got {_shown(body)}{said}")

    return value_of


def _parses(body: bytes) -> bool:
    try:
        _any.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_json(kind: str) -> bool:
    essence = kind.partition(";")[0].strip().lower()
    return essence == JSON or essence.endswith("+json")


def _shown(body: bytes) -> str:
    if not body:
        return "an empty payload"
    start = body[:40].decode("ascii", "backslashreplace")
    return f"{len(body)} bytes that are not JSON ({start!r}{' ...' if len(body) > 40 else ''})"


_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)


def _place(error: Exception) -> str:
    """Turn ``Expected `int`, got `str` - at `$.width``` into ``$.width: expected int, got str``."""
    found = _AT.match(str(error))
    assert found
    what = found["what"].replace("`", "")
    path = found["path"] or "$"
    if what.startswith("$"):  # a hook has said the rest of the path
        return path + what[1:]
    return f"{path}: {what[:1].lower()}{what[1:]}"


def _members(annotation: Any) -> tuple[Any, ...]:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return tuple(inner for member in get_args(annotation) for inner in _members(member))
    return (annotation,)


def _named(annotation: Any) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return re.sub(r"[\w<>]+\.", "", str(annotation))


# Foreign models: whatever has pydantic's methods is taken, and pydantic is never imported.


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "model_validate")


def _to_plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"objects of type {type(value).__name__} are not supported")


_encoder = msgspec.json.Encoder(enc_hook=_to_plain)


def _from_plain(annotation: Any, value: Any) -> Any:
    try:
        return annotation.model_validate(value)
    except ValueError as error:
        listed = error.errors() if hasattr(error, "errors") else ()
        if not listed:
            raise
        first = listed[0]
        path = "".join(
            f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]
        )
        message = first["msg"]
        raise ValueError(f"${path}: {message[:1].lower()}{message[1:]}") from None


class _NoPayload(Exception):
    """A class of which nobody knows how it is said in JSON."""


def _model_schema(annotation: Any) -> dict[str, Any]:
    if not _is_model(annotation):
        raise _NoPayload(
            f"{_named(annotation)} is no type of payload; expected a Struct, dataclass, TypedDict, "
            f"pydantic model, bytes, or what JSON has"
        )
    schema: dict[str, Any] = annotation.model_json_schema()
    # References are from the root, which this is not when it stands inside another type.
    return {"type": "object"} if "$defs" in schema else schema


def _schema(annotation: Any) -> Any:
    if _is_model(annotation):
        return annotation.model_json_schema()
    try:
        schema = msgspec.json.schema(annotation, schema_hook=_model_schema)
    except _NoPayload as error:
        raise DefinitionError(str(error)) from None
    except (TypeError, ValueError, NameError) as error:
        raise DefinitionError(f"no payload can be of type {_named(annotation)}: {error}") from None
    parts = schema.get("$defs", {})
    if set(schema) == {"$ref", "$defs"}:
        name = schema["$ref"].removeprefix("#/$defs/")
        if f'"{schema["$ref"]}"' not in msgspec.json.encode(parts).decode():  # not recursive
            others = {key: part for key, part in parts.items() if key != name}
            return parts[name] | ({"$defs": others} if others else {})
    return schema


_FBP = {
    "string": "string",
    "integer": "int",
    "number": "number",
    "boolean": "boolean",
    "object": "object",
    "array": "array",
    "null": "bang",
}


def _fbp(schema: dict[str, Any]) -> str:
    kinds = _kinds(schema, schema.get("$defs", {}))
    kinds.discard("bang")  # of something optional, the something is what matters
    if kinds == {"int", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else "any"


def _kinds(schema: dict[str, Any], parts: dict[str, Any]) -> set[str]:
    if "$ref" in schema:
        return _kinds(parts.get(schema["$ref"].removeprefix("#/$defs/"), {}), parts)
    if "enum" in schema:
        return {_FBP_OF.get(type(value), "any") for value in schema["enum"]}
    if "anyOf" in schema:
        return set().union(*(_kinds(member, parts) for member in schema["anyOf"]))
    kind = schema.get("type")
    return {_FBP.get(kind, "any") if isinstance(kind, str) else "any"}


_FBP_OF: dict[type, str] = {str: "string", int: "int", float: "number", bool: "boolean"}
