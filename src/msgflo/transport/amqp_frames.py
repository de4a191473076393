"""AMQP frames as bytes: what is read and written for every message. Nothing here does I/O.

The client library makes and reads a handful of objects for each frame; at our load that is most of
the time that there is. So the frames of the hot path (publish, deliver, confirm, settle) are made
and read here, in one go, and the library does the rest.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from msgflo.errors import TransportError
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID

__all__ = [
    "FRAME",
    "OURS",
    "Content",
    "acknowledgement",
    "destination",
    "publication",
    "read_content",
    "write_content",
]

FRAME = struct.Struct(">BHI")
"""Type, channel and size, in front of each frame."""

METHOD, HEADER, BODY = 1, 2, 3

OURS = "msgflo"
"""The property ``app_id`` of what we send: whoever says it gives each message an id of its own."""

_END = b"\xce"
_PUBLISH = struct.Struct(">HHH")
_ACK = struct.Struct(">BHIHHQBB")
_CONTENT = struct.Struct(">HHQH")
_LONG = struct.Struct(">I")
_STAMP = struct.Struct(">Q")

_CONTENT_TYPE, _ENCODING, _HEADERS, _MODE = 0x8000, 0x4000, 0x2000, 0x1000
_PRIORITY, _CORRELATION, _REPLY_TO, _EXPIRATION = 0x0800, 0x0400, 0x0200, 0x0100
_ID, _TIMESTAMP, _TYPE, _USER, _APP, _CLUSTER = 0x0080, 0x0040, 0x0020, 0x0010, 0x0008, 0x0004

_BROKERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
"""Headers that the broker itself adds."""

Table = Callable[[bytes, int], tuple[dict[Any, Any], int]]
"""Reads a table of headers at an offset; returns it and the offset behind it."""


class Content:
    """What comes with a payload.

    Attributes:
        headers: the metadata; content type and message id among them.
        id: the message's id; ``""`` if it has none.
        ours: whether one of our clients sent it.
        sent: when, in seconds since 1970; 0 if it does not say.
        reply_to: where an answer goes; ``""``: nowhere.
        delivered: how often a quorum queue says that it was delivered before; 0 otherwise.
        death: what the broker says of how the message died, the last death first; may be empty.
    """

    __slots__ = ("death", "delivered", "headers", "id", "ours", "reply_to", "sent")

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.id = ""
        self.ours = False
        self.sent = 0.0
        self.reply_to = ""
        self.delivered = 0
        self.death: list[dict[str, Any]] = []


def read_content(block: bytes, table: Table) -> Content:
    """Read the content header of a message.

    Args:
        block: the payload of its frame.
        table: reads the headers among it.
    """
    flags = block[12] << 8 | block[13]
    at = 14
    found = Content()
    headers = found.headers
    if flags & _CONTENT_TYPE:
        text, at = _text(block, at)
        headers[CONTENT_TYPE] = text
    if flags & _ENCODING:
        _, at = _text(block, at)
    if flags & _HEADERS:
        said, at = table(block, at)
        _read_headers(found, said)
    if flags & _MODE:
        at += 1
    if flags & _PRIORITY:
        at += 1
    if flags & _CORRELATION:
        _, at = _text(block, at)
    if flags & _REPLY_TO:
        found.reply_to, at = _text(block, at)
    if flags & _EXPIRATION:
        _, at = _text(block, at)
    if flags & _ID:
        found.id, at = _text(block, at)
    if flags & _TIMESTAMP:
        found.sent = float(_STAMP.unpack_from(block, at)[0])
        at += 8
    if flags & _TYPE:
        _, at = _text(block, at)
    if flags & _USER:
        _, at = _text(block, at)
    if flags & _APP:
        app, at = _text(block, at)
        found.ours = app == OURS
    if found.id:
        headers[MESSAGE_ID] = found.id
    elif found.ours:
        found.id = headers.get(MESSAGE_ID, "")
    return found


def _text(block: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + block[at]
    return block[at + 1 : end].decode("utf-8", "replace"), end


def _read_headers(found: Content, said: Mapping[Any, Any]) -> None:
    for key, value in said.items():
        name = key if isinstance(key, str) else key.decode("utf-8", "replace")
        if name.startswith("x-") and name.startswith(_BROKERS):
            if name == "x-delivery-count" and isinstance(value, int):
                found.delivered = value
            elif name == "x-death" and isinstance(value, list):
                found.death = [death for death in value if isinstance(death, dict)]
        elif isinstance(value, str):
            found.headers[name] = value
        elif isinstance(value, bytes):
            found.headers[name] = value.decode("utf-8", "replace")
        elif isinstance(value, bool):
            found.headers[name] = "true" if value else "false"
        elif value is not None and not isinstance(value, dict | list):
            found.headers[name] = str(value)


def write_content(
    size: int,
    headers: Mapping[str, str],
    sent: float,
    *,
    ours: bool = True,
    lasting: bool = True,
    expires: float = 0.0,
    reply_to: str = "",
) -> bytes:
    """Return the payload of a content header's frame.

    Args:
        size: of the message's payload, in bytes.
        headers: its metadata.
        sent: when, in seconds since 1970.
        ours: whether its id is its own.
        lasting: whether it outlives a restart of the broker.
        expires: in how many seconds; 0: never.
        reply_to: a queue for answers.

    Raises:
        TransportError: a header's name is too long.
    """
    flags = _MODE | _TIMESTAMP
    kind = headers.get(CONTENT_TYPE)
    id_ = headers.get(MESSAGE_ID)
    parts = [b""]
    left = len(headers)
    if kind is not None:
        encoded = kind.encode("utf-8", "replace")
        if len(encoded) < 256:
            flags |= _CONTENT_TYPE
            parts.append(bytes((len(encoded),)) + encoded)
            left -= 1
        else:
            kind = None
    mark = b""
    if id_ is not None:
        mark = id_.encode("utf-8", "replace")
        if 0 < len(mark) < 256:
            flags |= _ID
            mark = bytes((len(mark),)) + mark
            left -= 1
        else:
            mark, id_ = b"", None
    if left:
        flags |= _HEADERS
        parts.append(_table(headers, with_type=kind is None, with_id=id_ is None))
    parts.append(b"\x02" if lasting else b"\x01")
    if reply_to:
        flags |= _REPLY_TO
        encoded = reply_to.encode()
        parts.append(bytes((len(encoded),)) + encoded)
    if expires > 0:
        flags |= _EXPIRATION
        encoded = b"%d" % max(1, int(expires * 1000))
        parts.append(bytes((len(encoded),)) + encoded)
    parts.append(mark)
    parts.append(_STAMP.pack(int(sent)))
    if ours:
        flags |= _APP
        parts.append(b"\x06msgflo")
    parts[0] = _CONTENT.pack(60, 0, size, flags)
    return b"".join(parts)


def _table(headers: Mapping[str, str], *, with_type: bool, with_id: bool) -> bytes:
    parts = []
    for name, value in headers.items():
        if (name == CONTENT_TYPE and not with_type) or (name == MESSAGE_ID and not with_id):
            continue
        key = name.encode("utf-8", "replace")
        if len(key) > 255:
            raise TransportError(
                f"{name[:60]!r}... cannot be the name of a header: it has {len(key)} bytes, "
                f"and may have 255"
            )
        data = value.encode("utf-8", "replace")
        parts.append(b"%c%b\x53%b%b" % (len(key), key, _LONG.pack(len(data)), data))
    table = b"".join(parts)
    return _LONG.pack(len(table)) + table


def destination(exchange: str, key: str, *, mandatory: bool) -> bytes:
    """Return the payload of a publish method's frame."""
    to, by = exchange.encode(), key.encode()
    return b"".join(
        (
            _PUBLISH.pack(60, 40, 0),
            bytes((len(to),)),
            to,
            bytes((len(by),)),
            by,
            b"\x01" if mandatory else b"\x00",
        )
    )


def publication(channel: int, where: bytes, content: bytes, body: bytes, most: int) -> bytes:
    """Return a message as it goes over the wire.

    Args:
        channel: its number.
        where: from :func:`destination`.
        content: from :func:`write_content`.
        body: the payload.
        most: bytes of a frame.
    """
    parts = [
        FRAME.pack(METHOD, channel, len(where)),
        where,
        _END,
        FRAME.pack(HEADER, channel, len(content)),
        content,
        _END,
    ]
    size = len(body)
    most -= 8
    if 0 < size <= most:
        parts += (FRAME.pack(BODY, channel, size), body, _END)
    else:
        for start in range(0, size, most):
            piece = body[start : start + most]
            parts += (FRAME.pack(BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


def acknowledgement(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return a settlement as it goes over the wire."""
    return _ACK.pack(METHOD, channel, 13, 60, 80, tag, multiple, 0xCE)
