"""Flowtraces: files of what passed the connections of a network, and the ring they come from.

The format is that of the npm package ``flowtrace``. A trace has a header (what was recorded, and
the graphs) and events, oldest first, each with the name and the payload of the message of the FBP
runtime protocol that would have told it::

    {"header": {"metadata": {"label": "...", "start": "2026-01-31T12:00:00.000Z", "end": "..."},
                "graphs": {"main": {"processes": {...}, "connections": [...]}},
                "main": "main"},
     "events": [{"protocol": "network", "command": "data", "graph": "main",
                 "time": "2026-01-31T12:00:00.125Z",
                 "payload": {"src": {"node": "read", "port": "out"},
                             "tgt": {"node": "show", "port": "in"}, "data": 42}}]}

Older files have no ``main``, no metadata, and an event's time, graph and error inside its payload:
both kinds are read, the newer is written. Where there is no ``src`` the packet came from outside
(an initial packet, an exported inport); where there is no ``tgt`` it left. What other tools do not
look at says what they cannot: ``metadata.dropped``, how many events the ring had no room for; in
a payload ``headers``, a message's metadata; and ``encoding: "base64"`` where ``data`` is the
base64 text of bytes that are not JSON.
"""

import base64
import binascii
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from msgflo.errors import TraceError

__all__ = [
    "DEFAULT_EVENTS",
    "DEFAULT_SIZE",
    "Event",
    "Flowtrace",
    "Recording",
    "connection_text",
    "dump_flowtrace",
    "event_line",
    "event_lines",
    "json_text",
    "packet_data",
    "packet_payload",
    "parse_flowtrace",
]

DEFAULT_EVENTS = 400
"""Events in a ring, unless said otherwise: as many as the other recorders keep."""

DEFAULT_SIZE = 16 * 1024 * 1024
"""Bytes in a ring, unless said otherwise."""

EVENT_OVERHEAD = 200
"""Bytes that an event takes beside its payload, about."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a network.

    Attributes:
        command: the message's name, such as ``data`` or ``started``.
        payload: the message's payload, a JSON map.
        graph: the graph it happened in; ``""`` if nobody said.
        time: seconds since 1970; ``None`` if nobody said.
        protocol: the message's protocol: ``network`` for all that the format names.
        error: why the recorder could not record it; ``""`` if it could.
    """

    command: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    graph: str = ""
    time: float | None = None
    protocol: str = "network"
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the event as it stands in a file."""
        found: dict[str, Any] = {
            "protocol": self.protocol,
            "command": self.command,
            "payload": dict(self.payload),
        }
        if self.graph:
            found["graph"] = self.graph
        if self.time is not None:
            found["time"] = _date(self.time)
        if self.error:
            found["error"] = self.error
        return found


@dataclass(slots=True)
class Flowtrace:
    """A trace, as a file has it.

    Attributes:
        events: oldest first.
        graphs: the graphs as FBP JSON, by name: the main one and those it uses.
        main: the name of the main graph; ``None`` if nobody said.
        metadata: label, runtime, type, address, namespace, repository, repositoryVersion, start
            and end (ISO dates), dropped, and what others put there.
    """

    events: list[Event] = field(default_factory=list)
    graphs: dict[str, dict[str, Any]] = field(default_factory=dict)
    main: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """How many events are missing at its start, because the ring had no room for them."""
        found = self.metadata.get("dropped", 0)
        return found if isinstance(found, int) and found > 0 else 0

    @property
    def main_graph(self) -> str:
        """The name of the main graph: the one that is said to be, else the first, else ``main``."""
        if self.main is not None and self.main in self.graphs:
            return self.main
        said = self.metadata.get("main")
        if isinstance(said, str) and said in self.graphs:
            return said
        return next(iter(self.graphs), self.main or "main")

    def to_json(self) -> dict[str, Any]:
        """Return the trace as a JSON map, in the newer form."""
        return {
            "header": {"metadata": self.metadata, "graphs": self.graphs, "main": self.main},
            "events": [event.to_json() for event in self.events],
        }


def dump_flowtrace(trace: Flowtrace) -> str:
    """Return a trace as the text of a file: a line for each event."""
    found = trace.to_json()
    events = ",\n".join(_json(event) for event in found["events"])
    header = json.dumps(found["header"], indent=1, ensure_ascii=False, allow_nan=False)
    return f'{{"header": {header},\n"events": [{events and chr(10)}{events}\n]}}\n'


def _json(value: Any) -> str:
    # Half a surrogate pair is no text, but other recorders write it: as an escape it can be said.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode()


def parse_flowtrace(found: str | bytes | Mapping[str, Any], name: str = "<flowtrace>") -> Flowtrace:
    """Return the trace that a file's text is, or the field ``flowtrace`` of a ``trace:dump``.

    Args:
        found: the text, or the JSON map that it would be decoded to; older or newer.
        name: the file, for errors.

    Raises:
        TraceError: it is none: with the path of what is wrong, such as ``events[3].payload``.
    """
    if not isinstance(found, Mapping):
        try:
            text = found.decode("utf-8-sig") if isinstance(found, bytes) else found
            found = json.loads(
                text.removeprefix("\ufeff"), parse_constant=_no_number, parse_float=_float
            )
        except UnicodeDecodeError as error:
            raise TraceError(f"{name}: this is not text: {error}") from None
        except json.JSONDecodeError as error:
            raise TraceError(
                f"{name}:{error.lineno}:{error.colno}: this is not JSON: {error.msg}"
            ) from None
        except RecursionError:
            raise TraceError(f"{name}: this is nested too deep") from None
        except ValueError as error:
            raise TraceError(f"{name}: {error}") from None
    reader = _Reader(name)
    return reader.trace(found)


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON value")


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits} is too large")
    return number


class _Reader:
    """Reads a decoded trace. Errors have the path of what is wrong."""

    def __init__(self, name: str) -> None:
        self._name = name

    def trace(self, found: Any) -> Flowtrace:
        whole = self._map(found, "the trace")
        if "events" not in whole:
            raise TraceError(
                f"{self._name}: this is no flowtrace: expected a map with header and events, "
                f"got one with {', '.join(map(repr, whole)) or 'nothing'}"
            )
        header = self._map(whole.get("header") or {}, "header")
        graphs = self._map(header.get("graphs") or {}, "header.graphs")
        main = header.get("main")
        if main is not None and not isinstance(main, str):
            self._wrong("header.main", main, "a graph's name")
        events = whole["events"]
        if not isinstance(events, list):
            self._wrong("events", events, "a list")
        return Flowtrace(
            events=[self._event(it, f"events[{at}]") for at, it in enumerate(events)],
            graphs={
                key: dict(self._map(graph, f"header.graphs.{key}")) for key, graph in graphs.items()
            },
            main=main,
            metadata=dict(self._map(header.get("metadata") or {}, "header.metadata")),
        )

    def _event(self, found: Any, path: str) -> Event:
        event = self._map(found, path)
        payload = event.get("payload")
        payload = {} if payload is None else self._map(payload, f"{path}.payload")
        for key in ("protocol", "command"):
            if not isinstance(event.get(key), str):
                self._wrong(f"{path}.{key}", event.get(key), "a text")
        time = event.get("time", payload.get("time"))
        graph = event.get("graph", payload.get("graph"))
        error = event.get("error")
        if error is None and isinstance(payload.get("error"), str) and "data" not in payload:
            # Where the older recorder put it. An event about an error has an error object.
            error = payload["error"] if event["command"] not in _ERRORS else None
        return Event(
            command=event["command"],
            payload=payload,
            graph=graph if isinstance(graph, str) else "",
            time=_time(time),
            protocol=event["protocol"],
            error="" if error is None else str(error),
        )

    def _map(self, found: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(found, Mapping):
            self._wrong(path, found, "a map")
        mapping: Mapping[str, Any] = found
        return mapping

    def _wrong(self, path: str, got: Any, expected: str) -> None:
        said = repr(got)
        raise TraceError(
            f"{self._name}: {path} is {said if len(said) < 60 else said[:60] + '…'}; "
            f"expected {expected}"
        )


_ERRORS = frozenset({"error", "processerror"})


def _time(said: Any) -> float | None:
    """Return the seconds since 1970 of an ISO date, or of JavaScript's milliseconds."""
    if isinstance(said, str):
        try:
            date = datetime.fromisoformat(said)
        except ValueError:
            return None
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if isinstance(said, int | float) and not isinstance(said, bool) and math.isfinite(said):
        return said / 1000
    return None


def _date(time: float) -> str:
    try:
        date = datetime.fromtimestamp(time, UTC)
    except (OverflowError, ValueError, OSError):
        date = datetime.fromtimestamp(0, UTC)
    return date.isoformat(timespec="microseconds").replace("+00:00", "Z")


# Packets and their payloads.


def packet_payload(
    src: Mapping[str, Any] | None,
    tgt: Mapping[str, Any] | None,
    body: bytes,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the payload of a ``network:data`` event for a message as it was on the wire.

    Args:
        src: where it came from: node, port, and index if there is one; ``None``: from outside.
        tgt: where it went, likewise.
        body: the message's payload; bytes that are not JSON become base64 text.
        headers: the message's metadata, kept as they are.
    """
    payload: dict[str, Any] = {"src": src, "tgt": tgt}
    try:
        payload["data"] = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        payload["data"] = base64.b64encode(body).decode()
        payload["encoding"] = "base64"
    if headers:
        payload["headers"] = dict(headers)
    return payload


def packet_data(payload: Mapping[str, Any]) -> bytes:
    """Return the message that :func:`packet_payload` was made from, or one of the same value.

    Raises:
        TraceError: it says that its data are base64, and they are not.
    """
    data = payload.get("data")
    if payload.get("encoding") == "base64" and isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise TraceError(f"the data of a packet are not base64: {error}") from None
    return _json(data).encode()


# The ring.


class Recording:
    """A ring of events: the last so many, and the last so many bytes of them.

    What is added is copied: its JSON is kept. What JSON cannot say is kept as the text
    ``DATA <its type>``.

    Attributes:
        events: the most events that it keeps, 1 or more.
        size: the most bytes that it keeps, about; a single event may be larger.
        dropped: how many events had to make room, since the last :meth:`clear`.
        recorded: how many events were added, since then.
    """

    def __init__(
        self,
        start: float,
        *,
        events: int = DEFAULT_EVENTS,
        size: int = DEFAULT_SIZE,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an empty one.

        Args:
            start: when recording began, seconds since 1970.
            events: how many events it keeps.
            size: how many bytes it keeps.
            metadata: label, runtime, type and so on, for the header.

        Raises:
            ValueError: it would have no room for anything.
        """
        if events < 1 or size < 1:
            raise ValueError(f"a ring of {events} events and {size} bytes; expected 1 or more")
        self.events = events
        self.size = size
        self.dropped = 0
        self.recorded = 0
        self._start = start
        self._metadata = dict(metadata or {})
        self._ring: deque[tuple[str, str, str, float, bytes]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def bytes(self) -> int:
        """How many bytes it holds, about."""
        return self._bytes

    def add(
        self,
        command: str,
        payload: Mapping[str, Any],
        *,
        time: float,
        graph: str = "",
        protocol: str = "network",
    ) -> None:
        """Add an event, the oldest making room.

        Args:
            command: the message's name.
            payload: its payload.
            time: when it happened, seconds since 1970.
            graph: the graph it happened in.
            protocol: the message's protocol.
        """
        self._ring.append((protocol, command, graph, time, _encoded(payload)))
        self.recorded += 1
        self._bytes += EVENT_OVERHEAD + len(self._ring[-1][4])
        while len(self._ring) > self.events or (self._bytes > self.size and len(self._ring) > 1):
            self._bytes -= EVENT_OVERHEAD + len(self._ring.popleft()[4])
            self.dropped += 1

    def clear(self, start: float) -> None:
        """Forget all events; recording begins anew at ``start``, seconds since 1970."""
        self._ring.clear()
        self._bytes = self.dropped = self.recorded = 0
        self._start = start

    def flowtrace(
        self, end: float, graphs: Mapping[str, dict[str, Any]], main: str | None = None
    ) -> Flowtrace:
        """Return what was recorded, which goes on undisturbed.

        Args:
            end: now, seconds since 1970.
            graphs: the graphs as FBP JSON, by name.
            main: the name of the main one.
        """
        metadata = {**self._metadata, "start": _date(self._start), "end": _date(end)}
        if self.dropped:
            metadata["dropped"] = self.dropped
        events = [
            Event(command, msgspec.json.decode(payload), graph, time, protocol)
            for protocol, command, graph, time, payload in self._ring
        ]
        return Flowtrace(events, dict(graphs), main, metadata)


def _encoded(payload: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(payload)
    except _UNSAYABLE:
        said: dict[str, Any] = {}
        for key, value in payload.items():
            try:
                said[key] = msgspec.Raw(msgspec.json.encode(value))
            except _UNSAYABLE:
                said[key] = f"DATA {type(value).__name__}"
        return msgspec.json.encode(said)


_UNSAYABLE = (TypeError, ValueError, OverflowError, RecursionError)


# As text.


def event_line(event: Event, *, colour: bool = False) -> str | None:
    """Return the line that ``flowtrace-show`` has for an event; ``None`` if it has none.

    Packets have one, and what opens and closes connections and groups.

    Args:
        event: what to show.
        colour: with the colours of a terminal.
    """
    if event.protocol != "network":
        return None
    if event.error:
        return f"TRACE ERROR: {event.error}"
    payload = event.payload
    match event.command:
        case "connect":
            said = _painted("CONN", 33, colour)
        case "disconnect":
            said = _painted("DISC", 33, colour)
        case "begingroup":
            said = _painted(f"< {_plain(payload, 'group')}", 36, colour)
        case "endgroup":
            said = _painted(f"> {_plain(payload, 'group')}", 36, colour)
        case "data":
            said = _painted("DATA", 32, colour)
            said += f" {json_text(payload['data'])}" if "data" in payload else " undefined"
        case _:
            return None
    where = _painted(_line_of(payload), 34, colour, italic=True)
    subgraph = payload.get("subgraph")
    if isinstance(subgraph, list) and subgraph:
        names = ":".join(map(str, subgraph))
        where = f"{_painted(names, 35, colour, italic=True)} {where}"
    return f"{where} {said}"


def event_lines(events: Iterable[Event], *, colour: bool = False) -> Iterator[str]:
    """Return the lines of events, as :func:`event_line` has them."""
    for event in events:
        line = event_line(event, colour=colour)
        if line is not None:
            yield line


def connection_text(payload: Mapping[str, Any]) -> str:
    """Return what ``network:data`` calls a connection: ``read() OUT -> IN show()``.

    ``DATA`` stands for a source outside, ``OUT`` for a target outside.
    """
    src, tgt = _end(payload, "src"), _end(payload, "tgt")
    left = f"{src[0]}() {src[1]}" if src else "DATA"
    right = f"{tgt[1]} {tgt[0]}()" if tgt else "OUT"
    return f"{left} -> {right}"


def _line_of(payload: Mapping[str, Any]) -> str:
    src, tgt = _end(payload, "src"), _end(payload, "tgt")
    if src and tgt:
        return f"{src[0]} {src[1]} -> {tgt[1]} {tgt[0]}"
    if src:
        return f"{src[0]} {src[1]} ->"
    return f"-> {tgt[1]} {tgt[0]}" if tgt else "UNKNOWN"


def _end(payload: Mapping[str, Any], which: str) -> tuple[str, str] | None:
    """Return the node and the port in capitals of one end of a connection."""
    found = payload.get(which)
    if not isinstance(found, Mapping) or not found.get("node"):
        return None
    return str(found["node"]), str(found.get("port", "")).upper()


def _plain(payload: Mapping[str, Any], key: str) -> str:
    found = payload.get(key)
    return found if isinstance(found, str) else json_text(found)


def _painted(text: str, code: int, colour: bool, *, italic: bool = False) -> str:
    if not colour:
        return text
    painted = f"\x1b[{code}m{text}\x1b[39m"
    return f"\x1b[3m{painted}\x1b[23m" if italic else painted


def json_text(value: Any) -> str:
    """Return a value's JSON as JavaScript writes it, which differs in its numbers."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{_json(str(key))}:{json_text(it)}' for key, it in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(json_text, value))}]"
    return _json(value)


def _number(value: float) -> str:
    """Return a number as ECMAScript's Number::toString does."""
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text = "".join(map(str, digits))
    point = len(text) + int(exponent)  # where the point is, counted from the first digit
    minus = "-" if sign else ""
    if len(text) <= point <= 21:
        return f"{minus}{text}{'0' * (point - len(text))}"
    if 0 < point <= 21:
        return f"{minus}{text[:point]}.{text[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{text}"
    rest = f".{text[1:]}" if len(text) > 1 else ""
    return f"{minus}{text[0]}{rest}e{point - 1:+d}"
