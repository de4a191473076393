"""One client's conversation: what it says comes in as text, what it is told goes out. Pure.

Each command gets exactly one answer, in the order of the commands; what others do is pushed in
between. A client that says nothing of the protocol ``msgflo`` is told nothing in it. Only answers
of that protocol can come later than those of commands that were given after: they carry the number
that the client has given, under ``id``.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from msgflo.errors import GraphError, MsgFloError
from msgflo.flow.graph import ANY, Graph
from msgflo.flow.graphjson import load_json
from msgflo.flow.parts import Change, Endpoint
from msgflo.protocol.access import Access, Level
from msgflo.protocol.messages import EVENTS, EXTENSION, Malformed, Message, encode, expect, parse
from msgflo.protocol.workspace import EdgeKey, Packet, Sheet, Workspace, date

__all__ = ["FIRST_PACKETS", "Output", "Session"]

FIRST_PACKETS: Final = 100
"""So many packets of a network that was just started are shown to a client that has not said which
edges it wants to see."""

EDGE_RATE, EDGE_BURST = 25.0, 50.0
"""Packets of one edge that a client is shown: per second, and at once. What is beyond is passed
over. People read no faster, and a network sends 10 000 a second."""

CLIENT_RATE, CLIENT_BURST = 250.0, 500.0
"""The same for all edges that a client looks at together."""

PORT_RATE, PORT_BURST = 2000.0, 4000.0
"""The same for what leaves by exported outports, which tests want to see whole."""

MOST_EDGES = 2000
"""So many edges of one graph a client can look at."""

VERSION = "0.7"

CAPABILITIES: Final[Mapping[str, Level]] = {
    "protocol:runtime": Level.REWIRE,
    "protocol:graph": Level.REWIRE,
    "graph:readonly": Level.READ,
    "protocol:component": Level.READ,
    "component:getsource": Level.READ,
    "component:setsource": Level.CODE,
    "protocol:network": Level.REWIRE,
    "network:status": Level.READ,
    "network:data": Level.READ,
    "network:control": Level.REWIRE,
    "network:persist": Level.REWIRE,
    "protocol:trace": Level.READ,
}
"""What clients know parts of the protocol by, and who may use each."""

EXTENSIONS: Final[Mapping[str, Level]] = {
    "subscribe": Level.READ,
    "unsubscribe": Level.READ,
    "status": Level.READ,
    "queues": Level.READ,
    "figures": Level.READ,
    "logs": Level.READ,
    "history": Level.READ,
    "undo": Level.REWIRE,
    "redo": Level.REWIRE,
    "scale": Level.REWIRE,
    "restart": Level.REWIRE,
    "remove": Level.REWIRE,
    "unbind": Level.REWIRE,
    "deadletters:list": Level.READ,
    "deadletters:show": Level.READ,
    "deadletters:export": Level.READ,
    "deadletters:requeue": Level.REWIRE,
    "deadletters:edit": Level.REWIRE,
    "deadletters:purge": Level.REWIRE,
}
"""The commands of the protocol ``msgflo``, and who may use each. docs/protocol.md has them."""


class Output(Protocol):
    """Where messages to a client go."""

    def answer(self, message: str) -> None:
        """Send an answer; none is ever left out."""

    def push(self, message: str) -> None:
        """Send what was not asked for; left out while the client is too slow to take it."""


@dataclass(slots=True)
class _Bucket:
    """Lets so many pass per second, and so many at once."""

    rate: float
    burst: float
    left: float
    at: float = 0.0

    def take(self, now: float) -> bool:
        self.left = min(self.burst, self.left + max(0.0, now - self.at) * self.rate)
        self.at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


@dataclass(slots=True)
class _Watching:
    """What a client sees of one graph."""

    edges: frozenset[EdgeKey] | None  # None: it has not said
    first: int = 0  # packets to be shown to one that has not said


class Session:
    """One client.

    Args:
        workspace: what it shares with the others.
        access: the secrets.
        output: where messages to it go.
    """

    def __init__(self, workspace: Workspace, access: Access, output: Output) -> None:
        self._workspace = workspace
        self._access = access
        self._output = output
        self._level = Level.NONE  # nothing is pushed before it has said anything
        self._watching: dict[str, _Watching] = {}
        self._edges: dict[tuple[str, EdgeKey], _Bucket] = {}
        self._all_edges = _Bucket(CLIENT_RATE, CLIENT_BURST, CLIENT_BURST)
        self._ports = _Bucket(PORT_RATE, PORT_BURST, PORT_BURST)
        self._passed_over = 0
        self._topics: frozenset[str] = frozenset()
        self._closed = False
        workspace.audience.append(self)

    @property
    def level(self) -> Level:
        """The most that this client has shown itself to be allowed."""
        return self._level

    @property
    def topics(self) -> frozenset[str]:
        """What of the protocol ``msgflo`` it wants to be told."""
        return self._topics

    def close(self) -> None:
        """The client has gone. Idempotent."""
        if not self._closed:
            self._closed = True
            self._workspace.audience.remove(self)
            self._workspace.desk.leave(self._passed_on)
            self._workspace.desk.watch()

    # What comes in.

    def receive(self, data: str | bytes) -> None:
        """Take a message, and answer it. No message can make this raise."""
        try:
            message = parse(data)
        except Malformed as error:
            self._refuse(error.protocol, str(error))
            return
        level = self._access.level(message.secret)
        self._level = max(self._level, level)
        if message.protocol == EXTENSION:
            self._extension(message, level)
            return
        try:
            self._obey(message, level)
        except MsgFloError as error:
            self._refuse(message.protocol, str(error), message.request)

    def _obey(self, message: Message, level: Level) -> None:
        payload = expect(message)
        needed, method = _COMMANDS[message.protocol, message.command]
        if level < needed:
            raise MsgFloError(_not_allowed(f"{message.protocol}:{message.command}", needed))
        graph = message.payload.get("graph")
        if (
            message.protocol in ("graph", "network", "trace")
            and isinstance(graph, str)
            and graph not in self._workspace.sheets
            and self._workspace.desk.forward(graph, message, self._passed_on)
        ):
            return  # it is a participant, which answers for itself
        method(self, message, payload, level)

    def _passed_on(self, protocol: str, command: str, payload: Any) -> None:
        """Tell what a participant that is a graph has said."""
        with contextlib.suppress(ValueError):  # nothing that a client could take
            self._output.answer(encode(protocol, command, payload))

    def _refuse(self, protocol: str, text: str, request: str = "") -> None:
        if protocol == EXTENSION:
            self._output.answer(encode(EXTENSION, "error", {"id": None, "message": text}))
        else:
            self._output.answer(encode(protocol, "error", {"message": text[:2000]}, request))

    def _answer(self, message: Message, command: str, payload: Any) -> None:
        self._output.answer(encode(message.protocol, command, payload, message.request))

    # What goes out unasked.

    def told(self, protocol: str, command: str, payload: Any) -> None:
        """Push a message of the FBP protocol."""
        if self._level >= Level.READ:
            self._output.push(encode(protocol, command, payload))

    def edited(self, sheet: Sheet, changes: Iterable[Change]) -> None:
        """Tell what somebody else did to a graph."""
        if self._level < Level.READ:
            return
        for change in changes:
            if told := _change_message(sheet, change):
                self._output.push(encode("graph", *told))
        self._tell_ports(sheet, changes)

    def extended(self, topic: str, command: str, payload: Any) -> None:
        """Push a message of the protocol ``msgflo``, if the client wants to be told of this."""
        if topic in self._topics and self._level >= Level.READ:
            self._output.push(encode(EXTENSION, command, payload))

    def began(self, sheet: Sheet) -> None:
        """Tell that a network was started, whose first packets everybody sees."""
        watching = self._watching.setdefault(sheet.id, _Watching(None))
        if watching.edges is None and len(self._watching) <= MOST_EDGES:
            watching.first = FIRST_PACKETS

    def wants(self, sheet: Sheet) -> Iterable[EdgeKey] | None:
        """Return the edges whose packets it wants to see; ``None``: those of all edges."""
        watching = self._watching.get(sheet.id)
        if watching is None or self._level < Level.READ:
            return ()
        if watching.edges is not None:
            return watching.edges
        return None if watching.first else ()

    def saw(self, packet: Packet) -> None:
        """Show a packet, if the client wants to see it and has not seen too many."""
        if self._level < Level.READ:
            return
        if packet.tgt is None:
            if self._ports.take(packet.time):
                said = {
                    "port": packet.public,
                    "event": "data",
                    "payload": packet.data,
                    "graph": packet.graph,
                }
                self._output.push(encode("runtime", "packet", said))
            return
        if not self._shows(packet, packet.tgt):
            return
        tgt = {"node": packet.tgt.node, "port": packet.tgt.port}
        said = {"graph": packet.graph, "tgt": tgt, "data": packet.data}
        if packet.src is None:
            said["id"] = f"DATA -> {packet.tgt.port.upper()} {packet.tgt.node}()"
        else:
            said["src"] = {"node": packet.src.node, "port": packet.src.port}
            said["id"] = (
                f"{packet.src.node}() {packet.src.port.upper()} -> "
                f"{packet.tgt.port.upper()} {packet.tgt.node}()"
            )
        if "packets" in self._topics:
            more = {
                "time": packet.time,
                "sequence": packet.sequence,
                "size": packet.size,
                "message": packet.id,
                "instance": packet.instance or None,
                "passed_over": self._passed_over,
            }
            self._passed_over = 0
            self._output.push(encode(EXTENSION, "packet", {**said, **more}))
        else:
            self._output.push(encode("network", "data", said))

    def _shows(self, packet: Packet, tgt: Endpoint) -> bool:
        watching = self._watching.get(packet.graph)
        if watching is None:
            return False
        key = (packet.src, tgt)
        if watching.edges is None:
            if not watching.first:
                return False
            watching.first -= 1
            if not watching.first:
                self._workspace.desk.watch()
            return True
        if key not in watching.edges:
            return False
        bucket = self._edges.get((packet.graph, key))
        if bucket is None:
            bucket = _Bucket(EDGE_RATE, EDGE_BURST, EDGE_BURST)
            self._edges[packet.graph, key] = bucket
        if bucket.take(packet.time) and self._all_edges.take(packet.time):
            return True
        self._passed_over += 1
        return False

    # runtime

    def _getruntime(self, message: Message, _payload: Any, level: Level) -> None:
        desk, main = self._workspace.desk.identity, self._workspace.main
        said: dict[str, Any] = {
            "id": desk.id,
            "type": "msgflo",
            "version": VERSION,
            "capabilities": [name for name, needed in CAPABILITIES.items() if level >= needed],
            "allCapabilities": list(CAPABILITIES),
        }
        if level >= Level.READ:
            said |= {"graph": main.id, "namespace": desk.namespace, "label": desk.label}
            if desk.repository:
                said["repository"] = desk.repository
        self._answer(message, "runtime", said)
        if level >= Level.REWIRE:
            self._output.push(encode("runtime", "ports", self._ports_of(main)))

    def _ports_of(self, sheet: Sheet) -> dict[str, Any]:
        kind = self._workspace.kind(sheet).payload()
        return {
            "graph": sheet.id,
            "inPorts": kind["inPorts"],
            "outPorts": kind["outPorts"],
        }

    def _tell_ports(self, sheet: Sheet, changes: Iterable[Change]) -> None:
        if any(change.kind.endswith("port") for change in changes):
            self._output.push(encode("runtime", "ports", self._ports_of(sheet)))

    def _packet(self, message: Message, payload: Any, _level: Level) -> None:
        if payload.event not in EVENTS:
            raise GraphError(
                f"a packet has the event {payload.event!r}; expected one of {', '.join(EVENTS)}"
            )
        sheet = self._workspace.sheet(payload.graph)
        inner = self._workspace.exported(sheet, payload.port)
        if payload.event == "data":
            self._workspace.desk.send(sheet, inner, payload.payload)
        said = {"port": payload.port, "event": payload.event, "graph": sheet.id}
        for key in ("type", "schema"):
            if isinstance(message.payload.get(key), str):
                said[key] = message.payload[key]
        if "payload" in message.payload:
            said["payload"] = payload.payload
        self._answer(message, "packetsent", said)

    # component

    def _list(self, message: Message, _payload: Any, _level: Level) -> None:
        kinds = self._workspace.kinds()
        for kind in kinds:
            self._answer(message, "component", kind.payload())
        self._answer(message, "componentsready", len(kinds))

    def _getsource(self, message: Message, payload: Any, _level: Level) -> None:
        self._answer(message, "source", self._workspace.source(payload.name).payload())

    def _source(self, message: Message, payload: Any, _level: Level) -> None:
        workspace = self._workspace
        name = f"{payload.library}/{payload.name}" if payload.library else payload.name
        sheet = workspace.sheets.get(name) or workspace.sheets.get(payload.name)
        if sheet is not None and payload.language == "json":
            workspace.replace(sheet, load_json(payload.code, sheet.id))
            kind = workspace.kind(sheet)
        else:
            kind = workspace.desk.write(
                payload.name, payload.library or "", payload.language, payload.code
            )
        self._answer(message, "component", kind.payload())
        workspace.tell("component", "component", kind.payload(), self)

    # graph

    def _clear(self, message: Message, payload: Any, _level: Level) -> None:
        said = {
            key: value
            for key in ("name", "library", "main", "icon", "description")
            if (value := getattr(payload, key)) is not None
        }
        sheet = self._workspace.clear(payload.id, said, self)
        self._answer(message, "clear", {"id": sheet.id, **said})
        self._workspace.tell("component", "component", self._workspace.kind(sheet).payload(), self)

    def _edit(self, message: Message, payload: Any, _level: Level) -> None:
        sheet = self._workspace.sheet(message.payload.get("graph"))
        edit = _EDITS[message.command]
        changes = self._workspace.edit(sheet, lambda graph: edit(graph, payload), self)
        answered = False
        for change in changes:
            told = _change_message(sheet, change)
            if told is None:
                continue
            command, said = told
            if command == message.command and not answered:
                answered = True
                self._answer(message, command, said)
            elif command == message.command == "removeinitial":
                continue  # of a port that had several: one answer to one command
            else:
                self._output.push(encode("graph", command, said))
        if not answered:
            # It was so already. Whoever asks gets an answer all the same.
            said = {**message.payload, "graph": sheet.id}
            if said.get("metadata") is None:
                said.pop("metadata", None)
            for key in ("src", "tgt"):
                if hasattr(payload, key):
                    said[key] = _end(getattr(payload, key)).payload()
            self._answer(message, message.command, said)
        self._tell_ports(sheet, changes)

    # network

    def _start(self, message: Message, _payload: Any, _level: Level) -> None:
        sheet = self._workspace.sheet(message.payload.get("graph"))
        # Before the packets that it lets loose.
        self._answer(
            message,
            "started",
            {
                "graph": sheet.id,
                "time": date(self._workspace.now()),
                "started": True,
                "running": True,
            },
        )
        self._workspace.start(sheet, self)

    def _stop(self, message: Message, _payload: Any, _level: Level) -> None:
        sheet = self._workspace.sheet(message.payload.get("graph"))
        self._answer(message, "stopped", self._workspace.stop(sheet, self))

    def _getstatus(self, message: Message, _payload: Any, _level: Level) -> None:
        sheet = self._workspace.sheet(message.payload.get("graph"))
        self._answer(message, "status", self._workspace.status(sheet))

    def _debug(self, message: Message, payload: Any, _level: Level) -> None:
        sheet = self._workspace.sheet(message.payload.get("graph"))
        sheet.debug = payload.enable
        self._answer(message, "debug", {"enable": payload.enable, "graph": sheet.id})

    def _persist(self, message: Message, _payload: Any, _level: Level) -> None:
        self._workspace.desk.persist()
        self._answer(message, "persist", {})

    def _subscribe_edges(self, message: Message, payload: Any, _level: Level) -> None:
        sheet = self._workspace.sheet(message.payload.get("graph"))
        if len(payload.edges) > MOST_EDGES:
            raise GraphError(
                f"{len(payload.edges)} edges are too many to look at; at most {MOST_EDGES}"
            )
        edges: set[EdgeKey] = set()
        said = []
        for edge in payload.edges:
            if edge.tgt is None:
                continue
            tgt = Endpoint(edge.tgt.node, edge.tgt.port, edge.tgt.index)
            src = edge.src and Endpoint(edge.src.node, edge.src.port, edge.src.index)
            edges.add((src, tgt))
            if src:  # the schemas have no edge without
                said.append({"src": src.payload(), "tgt": tgt.payload()})
        self._watching[sheet.id] = _Watching(frozenset(edges))
        self._edges = {key: bucket for key, bucket in self._edges.items() if key[0] != sheet.id}
        self._answer(message, "edges", {"graph": sheet.id, "edges": said})
        self._workspace.desk.watch()

    # trace

    def _trace(self, message: Message, payload: Any, _level: Level) -> None:
        sheet = self._workspace.sheet(message.payload.get("graph"))
        asked = {
            key: value
            for key in ("buffersize", "type")
            if (value := getattr(payload, key, None)) is not None
        }
        said = self._workspace.desk.trace(message.command, sheet, asked)
        self._answer(message, message.command, {"graph": sheet.id, **said})

    # msgflo

    def _extension(self, message: Message, level: Level) -> None:
        payload = dict(message.payload)
        number = payload.pop("id", None)
        if not isinstance(number, int | str) or isinstance(number, bool):
            number = None
        command = message.command

        def answer(result: Mapping[str, Any] | MsgFloError) -> None:
            if self._closed:
                return
            said: dict[str, Any] = {"id": number}
            if isinstance(result, MsgFloError):
                said |= {"command": command[:64], "message": str(result)}
                self._output.answer(encode(EXTENSION, "error", said))
            else:
                self._output.answer(encode(EXTENSION, command, {**result, **said}))

        try:
            needed = EXTENSIONS.get(command)
            if needed is None:
                raise Malformed(
                    f"{EXTENSION} has no command {command[:40]!r}; it has: {', '.join(EXTENSIONS)}"
                )
            if level < needed:
                raise MsgFloError(_not_allowed(f"{EXTENSION}:{command}", needed))
            if command in _OWN:
                answer(_OWN[command](self, payload))
            else:
                self._workspace.desk.ask(command, payload, answer)
        except MsgFloError as error:
            answer(error)

    def _subscribe(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        wanted = payload.get("topics", sorted(_TOPICS - {"logs"}))
        if not isinstance(wanted, list) or not all(
            isinstance(topic, str) and topic in _TOPICS for topic in wanted
        ):
            raise Malformed(f"topics is {wanted!r}; expected some of {', '.join(sorted(_TOPICS))}")
        self._topics |= frozenset(wanted)
        self._workspace.desk.watch()
        return {"topics": sorted(self._topics)}

    def _unsubscribe(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        wanted = payload.get("topics", sorted(_TOPICS))
        if not isinstance(wanted, list):
            raise Malformed(f"topics is {wanted!r}; expected some of {', '.join(sorted(_TOPICS))}")
        self._topics -= {topic for topic in wanted if isinstance(topic, str)}
        self._workspace.desk.watch()
        return {"topics": sorted(self._topics)}

    def _undo(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        return self._moved(payload, self._workspace.undo)

    def _redo(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        return self._moved(payload, self._workspace.redo)

    def _moved(
        self, payload: Mapping[str, Any], move: Callable[[Sheet], list[Change]]
    ) -> dict[str, Any]:
        sheet = self._sheet(payload)
        # Not left out of the audience: it has not said what it wants changed, and learns it so.
        changes = move(sheet)
        told = [_change_message(sheet, change) for change in changes]
        return {
            "graph": sheet.id,
            "changes": [{"command": one[0], "payload": one[1]} for one in told if one],
            **_history(sheet),
        }

    def _tell_history(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        sheet = self._sheet(payload)
        return {"graph": sheet.id, **_history(sheet)}

    def _remove(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        sheet = self._sheet(payload)
        self._workspace.remove(sheet.id)
        return {"graph": sheet.id}

    def _sheet(self, payload: Mapping[str, Any]) -> Sheet:
        return self._workspace.sheet(payload.get("graph", self._workspace.main.id))


def _history(sheet: Sheet) -> dict[str, Any]:
    return {"undoable": len(sheet.done), "redoable": len(sheet.undone), "edits": sheet.edits}


def _not_allowed(command: str, needed: Level) -> str:
    return f"{command} is not allowed: it needs a secret of the level {needed}"


def _change_message(sheet: Sheet, change: Change) -> tuple[str, dict[str, Any]] | None:
    """Return a change as a message of the protocol ``graph``; ``None`` if it has none for it."""
    if change.kind == "changeproperties":
        return None
    if change.kind == "clear":
        return "clear", {"id": sheet.id, **sheet.said}
    said = {**change.payload, "graph": sheet.id}
    if change.kind.startswith("change"):
        said.setdefault("metadata", {})
    return change.kind, said


def _end(found: Any) -> Endpoint:
    return Endpoint(found.node, found.port, found.index)


def _remove_initial(graph: Graph, asked: Any) -> list[Change]:
    data = asked.src["data"] if asked.src and "data" in asked.src else ANY
    return graph.remove_initial(_end(asked.tgt), data)


_EDITS: Final[Mapping[str, Callable[[Graph, Any], list[Change]]]] = {
    "addnode": lambda graph, p: graph.add_node(p.id, p.component, p.metadata),
    "removenode": lambda graph, p: graph.remove_node(p.id),
    "renamenode": lambda graph, p: graph.rename_node(getattr(p, "from"), p.to),
    "changenode": lambda graph, p: graph.change_node(p.id, p.metadata),
    "addedge": lambda graph, p: graph.add_edge(_end(p.src), _end(p.tgt), p.metadata),
    "removeedge": lambda graph, p: graph.remove_edge(_end(p.src), _end(p.tgt)),
    "changeedge": lambda graph, p: graph.change_edge(_end(p.src), _end(p.tgt), p.metadata),
    "addinitial": lambda graph, p: graph.add_initial(p.src.data, _end(p.tgt), p.metadata),
    "removeinitial": _remove_initial,
    "addinport": lambda graph, p: graph.add_inport(p.public, p.node, p.port, p.metadata),
    "removeinport": lambda graph, p: graph.remove_inport(p.public),
    "renameinport": lambda graph, p: graph.rename_inport(getattr(p, "from"), p.to),
    "addoutport": lambda graph, p: graph.add_outport(p.public, p.node, p.port, p.metadata),
    "removeoutport": lambda graph, p: graph.remove_outport(p.public),
    "renameoutport": lambda graph, p: graph.rename_outport(getattr(p, "from"), p.to),
    "addgroup": lambda graph, p: graph.add_group(p.name, p.nodes, p.metadata),
    "removegroup": lambda graph, p: graph.remove_group(p.name),
    "renamegroup": lambda graph, p: graph.rename_group(getattr(p, "from"), p.to),
    "changegroup": lambda graph, p: graph.change_group(p.name, p.metadata),
}

_Method = Callable[[Session, Message, Any, Level], None]

_COMMANDS: Final[Mapping[tuple[str, str], tuple[Level, _Method]]] = {
    ("runtime", "getruntime"): (Level.NONE, Session._getruntime),
    ("runtime", "packet"): (Level.REWIRE, Session._packet),
    ("component", "list"): (Level.READ, Session._list),
    ("component", "getsource"): (Level.READ, Session._getsource),
    ("component", "source"): (Level.CODE, Session._source),
    ("graph", "clear"): (Level.REWIRE, Session._clear),
    **{("graph", command): (Level.REWIRE, Session._edit) for command in _EDITS},
    ("network", "start"): (Level.REWIRE, Session._start),
    ("network", "stop"): (Level.REWIRE, Session._stop),
    ("network", "getstatus"): (Level.READ, Session._getstatus),
    ("network", "debug"): (Level.REWIRE, Session._debug),
    ("network", "persist"): (Level.REWIRE, Session._persist),
    ("network", "edges"): (Level.READ, Session._subscribe_edges),
    **{
        ("trace", command): (Level.READ, Session._trace)
        for command in ("start", "stop", "clear", "dump")
    },
}

_OWN: Final[Mapping[str, Callable[[Session, Mapping[str, Any]], dict[str, Any]]]] = {
    "subscribe": Session._subscribe,
    "unsubscribe": Session._unsubscribe,
    "undo": Session._undo,
    "redo": Session._redo,
    "history": Session._tell_history,
    "remove": Session._remove,
}

_TOPICS: Final = frozenset({"status", "queues", "packets", "events", "logs"})
"""What a client of the protocol ``msgflo`` can be told of."""
