"""What all clients of a runtime share: its graphs, their histories, and who looks at what. Pure.

A graph here is the truth: an edit is done at once, told to every other client, and carried out
behind by whoever runs the graph (the :class:`Desk`). Edits come one after the other, from whichever
client, so all clients end with the same graph. Each can be undone, by anybody.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from msgflo.errors import GraphError, MsgFloError, near
from msgflo.flow.becoming import become
from msgflo.flow.graph import Graph
from msgflo.flow.graphjson import dump_json
from msgflo.flow.parts import Change, Edge, Endpoint
from msgflo.protocol.messages import Message

__all__ = [
    "Audience",
    "Desk",
    "EdgeKey",
    "Identity",
    "Kind",
    "Packet",
    "Port",
    "Sheet",
    "Source",
    "Workspace",
    "date",
]

EdgeKey = tuple[Endpoint | None, Endpoint]
"""An edge; from ``None``: the initial packets of a port."""

MOST_GRAPHS: Final = 200
MOST_PARTS: Final = 20_000
"""Of nodes, connections, exported ports and groups together, in one graph. The largest drawn by
hand have some hundreds."""

UNDOABLE: Final = 200
"""So many edits of a graph can be undone."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a component, as clients are told of it."""

    id: str
    type: str = "any"
    description: str = ""
    required: bool = False

    def payload(self) -> dict[str, Any]:
        """Return it as the FBP protocol writes it."""
        said: dict[str, Any] = {
            "id": self.id,
            "type": self.type,
            "addressable": False,
            "required": self.required,
        }
        return said | ({"description": self.description} if self.description else {})


@dataclass(frozen=True, slots=True)
class Kind:
    """A component, as clients are told of it.

    Attributes:
        name: with its namespace.
        inports, outports: as far as known.
        subgraph: whether it is a graph.
    """

    name: str
    inports: tuple[Port, ...] = ()
    outports: tuple[Port, ...] = ()
    description: str = ""
    icon: str = ""
    subgraph: bool = False

    def payload(self) -> dict[str, Any]:
        """Return it as the FBP protocol writes it."""
        said: dict[str, Any] = {
            "name": self.name,
            "subgraph": self.subgraph,
            "inPorts": [port.payload() for port in self.inports],
            "outPorts": [port.payload() for port in self.outports],
            "description": self.description,
        }
        return said | ({"icon": self.icon} if self.icon else {})


@dataclass(frozen=True, slots=True)
class Source:
    """The code of a component."""

    name: str
    library: str
    language: str
    code: str
    tests: str = ""

    def payload(self) -> dict[str, Any]:
        """Return it as the FBP protocol writes it."""
        return {
            "name": self.name,
            "library": self.library,
            "language": self.language,
            "code": self.code,
            "tests": self.tests,
        }


@dataclass(frozen=True, slots=True)
class Identity:
    """What a runtime says of itself.

    Attributes:
        id: the same over restarts.
        namespace: of its components.
        label: a line for people.
        repository: where the project's source lives; ``""`` if nobody says.
    """

    id: str
    namespace: str
    label: str = ""
    repository: str = ""


@dataclass(slots=True)
class Packet:
    """Something that passed an edge, or an exported outport.

    Attributes:
        graph: the graph's id.
        src: where from; ``None`` for an initial packet.
        tgt: where to; ``None`` for what left by an exported outport.
        data: the value, cut to a size for showing.
        time: when it was seen, in seconds since 1970.
        sequence: it is the how-many-eth that was seen there, from 1.
        size: bytes of its payload on the wire.
        public: the name of the exported outport.
        id: the message's id; ``""`` if it has none.
        instance: which participant of the sending role it came from; 0 if that is not said.
    """

    graph: str
    src: Endpoint | None
    tgt: Endpoint | None
    data: Any
    time: float
    sequence: int = 0
    size: int = 0
    public: str = ""
    id: str = ""
    instance: int = 0


@dataclass(slots=True)
class Sheet:
    """A graph, and what clients know of it beside.

    Attributes:
        id: by which clients name it.
        graph: the truth.
        said: what a client said of it when it made it: library, icon, description.
        main: whether it is the one that the runtime is for.
        started: whether its network is to run.
        since: when that was last changed, in seconds since 1970.
        debug: whether a client wants errors told. They always are.
        edits: how often it was edited, undone or redone.
    """

    id: str
    graph: Graph
    said: Mapping[str, Any] = field(default_factory=dict)
    main: bool = False
    started: bool = False
    since: float = 0.0
    debug: bool = False
    edits: int = 0
    done: list[tuple[Change, ...]] = field(default_factory=list)
    undone: list[tuple[Change, ...]] = field(default_factory=list)

    def source(self, namespace: str) -> Source:
        """Return the graph as code."""
        drawn = self.graph.copy()
        name = self.id.rpartition("/")[2]
        drawn.change_properties({"name": self.id, "environment": {"type": "msgflo"}})
        library = self.id.rpartition("/")[0] or str(self.said.get("library") or namespace)
        return Source(name, library, "json", dump_json(drawn))

    def kind(self, ports: "Callable[[Sheet, Endpoint, bool], Port | None]") -> Kind:
        """Return it as a component that others can use.

        Args:
            ports: returns what is known of an inner port: of this sheet, which, and whether it is
                an inport.
        """

        def exported(inward: bool) -> tuple[Port, ...]:
            table = self.graph.inports if inward else self.graph.outports
            found = []
            for public, it in table.items():
                inner = ports(self, Endpoint(it.node, it.port), inward) or Port(it.port)
                found.append(Port(public, inner.type, inner.description))
            return tuple(found)

        return Kind(
            self.id,
            exported(True),
            exported(False),
            str(self.said.get("description") or self.graph.properties.get("description") or ""),
            str(self.said.get("icon") or ""),
            subgraph=True,
        )


class Audience(Protocol):
    """A client, as the workspace tells it what others do."""

    def told(self, protocol: str, command: str, payload: Any) -> None:
        """Push a message of the FBP protocol."""

    def edited(self, sheet: Sheet, changes: Iterable[Change]) -> None:
        """Tell what somebody did to a graph."""

    def began(self, sheet: Sheet) -> None:
        """Tell that a network was started."""

    def saw(self, packet: Packet) -> None:
        """Tell of a packet."""

    def wants(self, sheet: Sheet) -> Iterable[EdgeKey] | None:
        """Return the edges whose packets it wants to see; ``None``: those of all edges."""


class Desk(Protocol):
    """What the runtime does for its clients. All of it returns at once; it is carried out behind.

    What goes wrong behind is told with ``network:processerror`` and ``network:output``.
    """

    @property
    def identity(self) -> Identity:
        """What the runtime says of itself."""

    def edited(self, sheet: Sheet, changes: Iterable[Change]) -> None:
        """Carry out an edit of a graph."""

    def start(self, sheet: Sheet) -> None:
        """Run the network of a graph."""

    def stop(self, sheet: Sheet) -> None:
        """Have the network of a graph stand still."""

    def busy(self, sheet: Sheet) -> bool:
        """Tell whether a started network has anything to do, as far as is known now."""

    def send(self, sheet: Sheet, tgt: Endpoint, data: Any) -> None:
        """Send something to an inport."""

    def watch(self) -> None:
        """Look at the edges that the audience wants to see from now on, and at no other."""

    def persist(self) -> None:
        """Write the graphs into their files."""

    def kinds(self) -> Iterable[Kind]:
        """Return the components of the library."""

    def port(self, component: str, name: str, inward: bool) -> Port | None:
        """Return what is known of a component's port."""

    def source(self, name: str) -> Source:
        """Return a component's code.

        Raises:
            MsgFloError: there is none.
        """

    def write(self, name: str, library: str, language: str, code: str) -> Kind:
        """Write a component's code.

        Raises:
            MsgFloError: it cannot be written, or must not.
        """

    def trace(self, command: str, sheet: Sheet, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Start, stop, clear or dump a trace; return the answer's payload without ``graph``."""

    def forward(self, graph: str, message: Message, reply: Callable[[str, str, Any], None]) -> bool:
        """Pass a message on to a participant that is a graph of this name, if there is one.

        ``reply`` is called with protocol, command and payload of what it says from then on.
        """

    def leave(self, reply: Callable[[str, str, Any], None]) -> None:
        """No longer call ``reply``."""

    def ask(
        self,
        command: str,
        payload: Mapping[str, Any],
        answer: Callable[[dict[str, Any] | MsgFloError], None],
    ) -> None:
        """Do what a command of the protocol ``msgflo`` wants, and answer once, sooner or later."""


class Workspace:
    """The graphs of a runtime, shared by its clients.

    Args:
        main: the id of the graph that the runtime is for.
        graph: that graph; edited in place.
        desk: who carries out.
        now: the time, in seconds since 1970.
    """

    def __init__(self, main: str, graph: Graph, desk: Desk, now: Callable[[], float]) -> None:
        self.main = Sheet(main, graph, main=True)
        self.sheets: dict[str, Sheet] = {main: self.main}
        self.audience: list[Audience] = []
        self.desk = desk
        self.now = now

    def sheet(self, name: Any) -> Sheet:
        """Return the graph of an id, as a client has named it.

        Raises:
            GraphError: in the words by which clients know what is meant.
        """
        if not name:
            raise GraphError("No graph specified")
        if not isinstance(name, str):
            raise GraphError(f"graph is of type {type(name).__name__}; expected a text")
        found = self.sheets.get(name)
        if found is None:
            raise GraphError("Requested graph not found")
        return found

    # Editing.

    def edit(
        self, sheet: Sheet, edit: Callable[[Graph], list[Change]], by: Audience | None = None
    ) -> list[Change]:
        """Edit a graph, tell everybody else, and have it carried out.

        Raises:
            GraphError: it is wrong; nothing was changed.
        """
        graph = sheet.graph
        parts = len(graph.nodes) + len(graph.connections) + len(graph.groups)
        if parts + len(graph.inports) + len(graph.outports) >= MOST_PARTS:
            before = graph.copy()
            changes = edit(graph)
            if any(change.kind.startswith("add") for change in changes):
                become(graph, before)
                raise GraphError(f"a graph has at most {MOST_PARTS} parts here")
        else:
            changes = edit(graph)
        news = tuple(change for change in changes if not _says_nothing(change))
        if news:
            sheet.done.append(news)
            del sheet.done[:-UNDOABLE]
            sheet.undone.clear()
            self._edited(sheet, news, by)
        return changes

    def undo(self, sheet: Sheet, by: Audience | None = None) -> list[Change]:
        """Take the last edit back.

        Raises:
            GraphError: there is none.
        """
        return self._move(sheet, sheet.done, sheet.undone, "undo", by)

    def redo(self, sheet: Sheet, by: Audience | None = None) -> list[Change]:
        """Do again what was undone last.

        Raises:
            GraphError: there is nothing.
        """
        return self._move(sheet, sheet.undone, sheet.done, "redo", by)

    def _move(
        self,
        sheet: Sheet,
        source: list[tuple[Change, ...]],
        target: list[tuple[Change, ...]],
        word: str,
        by: Audience | None,
    ) -> list[Change]:
        if not source:
            raise GraphError(f"there is nothing to {word} in graph {sheet.id!r}")
        changes = sheet.graph.undo(source[-1])
        source.pop()
        target.append(tuple(changes))
        self._edited(sheet, changes, by)
        return changes

    def _edited(self, sheet: Sheet, changes: Iterable[Change], by: Audience | None) -> None:
        sheet.edits += 1
        changes = tuple(changes)
        for one in self.audience:
            if one is not by:
                one.edited(sheet, changes)
        self.desk.edited(sheet, changes)

    def clear(self, name: str, said: Mapping[str, Any], by: Audience | None = None) -> Sheet:
        """Make a graph, or empty the one of this id; no other is touched.

        Args:
            name: its id.
            said: what the client says of it.
            by: who does it.

        Raises:
            GraphError: the id is no name, or there are too many graphs.
        """
        sheet = self.sheets.get(name)
        if sheet is None:
            if not name:
                raise GraphError("the id of a graph is empty; expected a text")
            if len(self.sheets) >= MOST_GRAPHS:
                raise GraphError(f"there are {MOST_GRAPHS} graphs already, and no more fit")
            sheet = self.sheets[name] = Sheet(name, Graph(name))
        sheet.said = dict(said)

        def emptied(graph: Graph) -> list[Change]:
            kept: dict[str, Any] = {
                key: graph.properties[key]
                for key in ("name", "environment")
                if key in graph.properties
            }
            return [*graph.clear(), *graph.change_properties(kept or {"name": name})]

        self.edit(sheet, emptied, by)
        return sheet

    def replace(self, sheet: Sheet, graph: Graph, by: Audience | None = None) -> list[Change]:
        """Have a graph become like another, with as few edits as it takes."""
        return self.edit(sheet, lambda known: become(known, graph), by)

    def remove(self, name: str) -> None:
        """Forget a graph other than the main one; its network is stopped."""
        sheet = self.sheet(name)
        if sheet.main:
            raise GraphError(f"{name!r} is the main graph of this runtime; it cannot be removed")
        self.edit(sheet, lambda graph: graph.clear())
        self.stop(sheet)
        del self.sheets[name]

    # Running.

    def start(self, sheet: Sheet, by: Audience | None = None) -> dict[str, Any]:
        """Run a network; return what ``network:started`` says."""
        fresh = not sheet.started
        if fresh:
            sheet.started, sheet.since = True, self.now()
        said = {"graph": sheet.id, "time": date(self.now()), "started": True, "running": True}
        self.tell("network", "started", said, by)
        for one in self.audience:
            one.began(sheet)
        if fresh:
            self.desk.start(sheet)
        self.desk.watch()
        return said

    def stop(self, sheet: Sheet, by: Audience | None = None) -> dict[str, Any]:
        """Have a network stand still; return what ``network:stopped`` says."""
        said = {
            "graph": sheet.id,
            "time": date(self.now()),
            "uptime": self.uptime(sheet),
            "started": False,
            "running": False,
        }
        was = sheet.started
        sheet.started, sheet.since = False, self.now()
        self.tell("network", "stopped", said, by)
        if was:
            self.desk.stop(sheet)
            self.desk.watch()
        return said

    def status(self, sheet: Sheet) -> dict[str, Any]:
        """Return what ``network:status`` says."""
        running = sheet.started and self.desk.busy(sheet)
        said: dict[str, Any] = {"graph": sheet.id, "running": running, "started": sheet.started}
        if running:
            said["uptime"] = self.uptime(sheet)
        return said

    def uptime(self, sheet: Sheet) -> int:
        """Return for how many whole seconds a network has been running; 0 if it does not."""
        return max(0, int(self.now() - sheet.since)) if sheet.started else 0

    # Telling.

    def tell(self, protocol: str, command: str, payload: Any, but: Audience | None = None) -> None:
        """Push a message to everybody, one excepted."""
        for one in self.audience:
            if one is not but:
                one.told(protocol, command, payload)

    def saw(self, packet: Packet) -> None:
        """Show a packet to whoever wants to see it."""
        for one in self.audience:
            one.saw(packet)

    def wanted(self, sheet: Sheet) -> set[EdgeKey]:
        """Return the edges of a graph that somebody wants to see."""
        wanted: set[EdgeKey] = set()
        for one in self.audience:
            edges = one.wants(sheet)
            if edges is None:
                return {_key(it) for it in sheet.graph.connections}
            wanted.update(edges)
        return wanted

    # Components.

    def kind(self, sheet: Sheet) -> Kind:
        """Return a graph as a component."""

        def port(of: Sheet, inner: Endpoint, inward: bool) -> Port | None:
            node = of.graph.nodes.get(inner.node)
            return self.desk.port(node.component, inner.port, inward) if node else None

        return sheet.kind(port)

    def kinds(self) -> list[Kind]:
        """Return all components, the graphs among them."""
        listed = {kind.name: kind for kind in self.desk.kinds()}
        for sheet in self.sheets.values():
            listed[sheet.id] = self.kind(sheet)
        return list(listed.values())

    def source(self, name: str) -> Source:
        """Return the code of a component or a graph.

        Raises:
            MsgFloError: there is none.
        """
        sheet = self.sheets.get(name)
        if sheet is None:
            namespace = self.desk.identity.namespace
            sheet = self.sheets.get(name.removeprefix(f"{namespace}/"))
        if sheet is not None:
            return sheet.source(self.desk.identity.namespace)
        return self.desk.source(name)

    def exported(self, sheet: Sheet, public: str) -> Endpoint:
        """Return the inner port of an exported inport.

        Raises:
            GraphError: there is none.
        """
        found = sheet.graph.inports.get(public)
        if found is None:
            raise GraphError(
                f"Cannot find exported port {public}.{near(public, sheet.graph.inports)}"
            )
        return Endpoint(found.node, found.port)


def _key(it: Any) -> EdgeKey:
    return (it.src, it.tgt) if isinstance(it, Edge) else (None, it.tgt)


def _says_nothing(change: Change) -> bool:
    """Tell whether a change leaves everything as it was."""
    return change.before is not None and change.before == change.after


def date(seconds: float) -> str:
    """Return a time (seconds since 1970) as the FBP protocol writes it."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
