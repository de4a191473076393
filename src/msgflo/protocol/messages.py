"""The messages of the FBP runtime protocol: read strictly, written strictly. Pure.

What comes in is judged by what it must have; keys that are not known are passed over. What goes out
has the keys that the schemas of the protocol (npm ``fbp-protocol`` 0.9) allow and no other, because
clients drop, or fail at, messages that do not fit them. Only messages of the protocol ``msgflo``
(docs/protocol.md), which nobody gets who did not ask, are free.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from msgflo.errors import ProtocolError

__all__ = [
    "EVENTS",
    "EXTENSION",
    "OUTPUT",
    "Malformed",
    "Message",
    "encode",
    "expect",
    "parse",
    "shaped",
]

EXTENSION: Final = "msgflo"
"""The protocol of what is ours."""

EVENTS: Final = ("connect", "begingroup", "data", "endgroup", "disconnect")
"""What a ``runtime:packet`` can be."""

_LONGEST_NAME = 40
_PROTOCOLS = ("runtime", "component", "graph", "network", "trace", EXTENSION)


class Malformed(ProtocolError):
    """A message that is no message of the protocol.

    Attributes:
        protocol: the protocol in which to say so.
    """

    def __init__(self, text: str, protocol: str = "network") -> None:
        self.protocol = protocol
        super().__init__(text)


class Message(msgspec.Struct, frozen=True):
    """A message that came in.

    Attributes:
        protocol, command: what it is.
        payload: its content, the secret left out.
        secret: what it says to be allowed.
        request: its ``requestId``, to be answered with.
    """

    protocol: str
    command: str
    payload: Mapping[str, Any]
    secret: str = ""
    request: str = ""


def parse(data: str | bytes) -> Message:
    """Read a message.

    Raises:
        Malformed: it is not JSON, or not a message.
    """
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"this is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("expected a JSON object with protocol, command and payload")
    protocol, command, payload = (found.get(key) for key in ("protocol", "command", "payload"))
    known = protocol if isinstance(protocol, str) and protocol in _PROTOCOLS else "network"
    if not isinstance(protocol, str) or not isinstance(command, str):
        raise Malformed("expected the texts protocol and command", known)
    if known != protocol:
        raise Malformed(
            f"there is no protocol {_short(protocol)}; there are: {', '.join(_PROTOCOLS)}"
        )
    if payload is None:
        payload = {}
    if not isinstance(payload, dict):
        raise Malformed(
            f"{_short(f'{protocol}:{command}')} has a payload of type {_kind(payload)}; "
            f"expected an object",
            known,
        )
    secret = payload.pop("secret", None) or found.get("secret")
    request = found.get("requestId")
    return Message(
        protocol,
        command,
        payload,
        secret if isinstance(secret, str) else "",
        request if isinstance(request, str) else "",
    )


class _End(msgspec.Struct):
    node: str
    port: str
    index: int | None = None


class _Data(msgspec.Struct):
    data: Any


class _Edge(msgspec.Struct):
    src: _End | None = None
    tgt: _End | None = None


_Metadata = dict[str, Any] | None

# What a command must have, beside `graph`, and of what type. What may be missing has a default.
_FIELDS: Final[dict[str, dict[str, list[Any]]]] = {
    "runtime": {
        "getruntime": [],
        "packet": [
            ("port", str),
            ("event", str),
            ("payload", Any, None),
            ("graph", str | None, None),
        ],
    },
    "component": {
        "list": [],
        "getsource": [("name", str)],
        "source": [
            ("name", str),
            ("language", str),
            ("code", str),
            ("library", str | None, None),
            ("tests", str | None, None),
        ],
    },
    "graph": {
        "clear": [
            ("id", str),
            ("name", str | None, None),
            ("library", str | None, None),
            ("main", bool | None, None),
            ("icon", str | None, None),
            ("description", str | None, None),
        ],
        "addnode": [("id", str), ("component", str), ("metadata", _Metadata, None)],
        "removenode": [("id", str)],
        "renamenode": [("from", str), ("to", str)],
        "changenode": [("id", str), ("metadata", dict[str, Any])],
        "addedge": [("src", _End), ("tgt", _End), ("metadata", _Metadata, None)],
        "removeedge": [("src", _End), ("tgt", _End)],
        "changeedge": [("src", _End), ("tgt", _End), ("metadata", dict[str, Any])],
        "addinitial": [("src", _Data), ("tgt", _End), ("metadata", _Metadata, None)],
        "removeinitial": [("tgt", _End), ("src", dict[str, Any] | None, None)],
        **{
            f"add{side}": [
                ("public", str),
                ("node", str),
                ("port", str),
                ("metadata", _Metadata, None),
            ]
            for side in ("inport", "outport")
        },
        **{f"remove{side}": [("public", str)] for side in ("inport", "outport")},
        **{f"rename{side}": [("from", str), ("to", str)] for side in ("inport", "outport")},
        "addgroup": [("name", str), ("nodes", list[str]), ("metadata", _Metadata, None)],
        "removegroup": [("name", str)],
        "renamegroup": [("from", str), ("to", str)],
        "changegroup": [("name", str), ("metadata", dict[str, Any])],
    },
    "network": {
        "start": [],
        "stop": [],
        "getstatus": [],
        "debug": [("enable", bool)],
        "persist": [],
        "edges": [("edges", list[_Edge])],
    },
    "trace": {
        "start": [("buffersize", int | None, None)],
        "stop": [],
        "clear": [],
        "dump": [("type", str | None, None)],
    },
}

_INPUT: Final[dict[tuple[str, str], type[msgspec.Struct]]] = {
    (protocol, command): msgspec.defstruct(f"{protocol}_{command}", fields, kw_only=True)
    for protocol, commands in _FIELDS.items()
    for command, fields in commands.items()
}


def expect(message: Message) -> Any:
    """Return the payload of a message as what its command must have.

    Raises:
        Malformed: there is no such command, or something is missing or of another type.
    """
    kind = _INPUT.get((message.protocol, message.command))
    if kind is None:
        known = ", ".join(name for protocol, name in _INPUT if protocol == message.protocol)
        raise Malformed(
            f"{message.protocol} has no command {_short(message.command)}; it has: {known}",
            message.protocol,
        )
    try:
        return msgspec.convert(message.payload, kind)
    except msgspec.ValidationError as error:
        raise Malformed(
            f"{message.protocol}:{message.command}: {error}", message.protocol
        ) from None


# What may be in a payload that goes out; what must be comes first, behind it what may.
OUTPUT: Final[dict[tuple[str, str], tuple[str, str]]] = {
    ("runtime", "runtime"): (
        "version capabilities type",
        "id label allCapabilities graph namespace repository repositoryVersion",
    ),
    ("runtime", "ports"): ("graph inPorts outPorts", ""),
    ("runtime", "packet"): ("port event graph", "type schema payload"),
    ("runtime", "packetsent"): ("port event graph", "type schema payload"),
    ("runtime", "error"): ("message", ""),
    ("component", "component"): ("name subgraph inPorts outPorts", "description icon"),
    ("component", "source"): ("name language code", "library tests"),
    ("component", "error"): ("message", ""),
    ("graph", "clear"): ("id", "name library main icon description"),
    ("graph", "addnode"): ("id component graph", "metadata"),
    ("graph", "removenode"): ("id graph", ""),
    ("graph", "renamenode"): ("from to graph", ""),
    ("graph", "changenode"): ("id metadata graph", ""),
    ("graph", "addedge"): ("src tgt graph", "metadata"),
    ("graph", "removeedge"): ("src tgt graph", ""),
    ("graph", "changeedge"): ("src tgt metadata graph", ""),
    ("graph", "addinitial"): ("src tgt graph", "metadata"),
    ("graph", "removeinitial"): ("tgt graph", "src"),
    ("graph", "addinport"): ("public node port graph", "metadata"),
    ("graph", "addoutport"): ("public node port graph", "metadata"),
    ("graph", "removeinport"): ("public graph", ""),
    ("graph", "removeoutport"): ("public graph", ""),
    ("graph", "renameinport"): ("from to graph", ""),
    ("graph", "renameoutport"): ("from to graph", ""),
    ("graph", "addgroup"): ("name nodes graph", "metadata"),
    ("graph", "removegroup"): ("name graph", ""),
    ("graph", "renamegroup"): ("from to graph", ""),
    ("graph", "changegroup"): ("name metadata graph", ""),
    ("graph", "error"): ("message", ""),
    ("network", "started"): ("graph", "time started running debug"),
    ("network", "stopped"): ("graph", "time uptime started running debug"),
    ("network", "status"): ("graph running", "uptime started debug"),
    ("network", "edges"): ("graph edges", ""),
    ("network", "connect"): ("id tgt graph", "src subgraph"),
    ("network", "begingroup"): ("id tgt graph group", "src subgraph"),
    ("network", "data"): ("id tgt graph data", "src subgraph"),
    ("network", "endgroup"): ("id tgt graph group", "src subgraph"),
    ("network", "disconnect"): ("id tgt graph", "src subgraph"),
    ("network", "output"): ("message", "type url"),
    ("network", "error"): ("message", "stack graph"),
    ("network", "processerror"): ("id error graph", ""),
    ("network", "icon"): ("id icon graph", ""),
    # Answers that the schemas leave out, though clients wait for them.
    ("network", "debug"): ("enable graph", ""),
    ("network", "persist"): ("", ""),
    ("trace", "start"): ("graph", "buffersize"),
    ("trace", "stop"): ("graph", ""),
    ("trace", "clear"): ("graph", ""),
    ("trace", "dump"): ("graph type flowtrace", ""),
    ("trace", "error"): ("message", ""),
}

_KEYS: Final = {
    kind: (frozenset(needed.split()), frozenset((*needed.split(), *allowed.split())))
    for kind, (needed, allowed) in OUTPUT.items()
}


def shaped(protocol: str, command: str, payload: Any) -> Any:
    """Return a payload as the schemas have it: keys that they do not allow are left out.

    Raises:
        ValueError: there is no such message, or something that it must have is missing.
    """
    if protocol == EXTENSION or (protocol, command) == ("component", "componentsready"):
        return payload
    try:
        needed, allowed = _KEYS[protocol, command]
    except KeyError:
        raise ValueError(f"{protocol}:{command} is no message that a runtime sends") from None
    if not needed <= payload.keys():
        missing = ", ".join(sorted(needed - payload.keys()))
        raise ValueError(f"{protocol}:{command} needs {missing}")
    kept = {key: value for key, value in payload.items() if key in allowed}
    if "metadata" in kept:
        kept["metadata"] = _metadata(kept["metadata"])
    return kept


def _metadata(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metadata whose coordinates are whole numbers, as the schemas want them."""
    said = dict(found or {})
    for key in ("x", "y", "route"):
        if key in said and type(said[key]) is not int:
            if type(said[key]) is float:
                said[key] = round(said[key])
            else:
                del said[key]
    for key, kind in (("schema", str), ("description", str), ("secure", bool)):
        if key in said and not isinstance(said[key], kind):
            del said[key]
    return said


def encode(protocol: str, command: str, payload: Any, request: str = "") -> str:
    """Return a message as it goes over the wire.

    Raises:
        ValueError: see :func:`shaped`.
    """
    message = {
        "protocol": protocol,
        "command": command,
        "payload": shaped(protocol, command, payload),
    }
    if request:
        message["responseTo"] = request
    return msgspec.json.encode(message).decode()


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}...")


def _kind(value: Any) -> str:
    return {list: "list", str: "text", bool: "boolean"}.get(type(value), "number")
