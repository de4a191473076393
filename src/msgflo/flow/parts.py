"""What a graph is made of: nodes, edges, initial packets, exported ports, groups, and changes.

All of them are values. Their metadata must not be changed in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

__all__ = [
    "Change",
    "ChangeKind",
    "Edge",
    "Endpoint",
    "Export",
    "Group",
    "Initial",
    "Node",
    "Record",
    "change",
]

ChangeKind = Literal[
    "addnode",
    "removenode",
    "renamenode",
    "changenode",
    "addedge",
    "removeedge",
    "changeedge",
    "addinitial",
    "removeinitial",
    "addinport",
    "removeinport",
    "renameinport",
    "addoutport",
    "removeoutport",
    "renameoutport",
    "addgroup",
    "removegroup",
    "renamegroup",
    "changegroup",
    "changeproperties",
    "clear",
]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A port of a node.

    Attributes:
        node: the id of the node.
        port: the name of the port.
        index: which slot of an addressable port, from 0; ``None``: the port is not addressed so.
    """

    node: str
    port: str
    index: int | None = None

    def __str__(self) -> str:
        return f"{self.node}.{self.port}" + ("" if self.index is None else f"[{self.index}]")

    def payload(self) -> dict[str, Any]:
        """Return it as the FBP protocol writes it."""
        found: dict[str, Any] = {"node": self.node, "port": self.port}
        if self.index is not None:
            found["index"] = self.index
        return found


def _map() -> Any:
    return field(default_factory=dict, hash=False)


def _comments() -> Any:
    return field(default=(), compare=False)


# In all records: `extra` has the keys of a JSON file that we do not know, to be written back.
# `comments` are the lines that stand above it in a .fbp text: comments with their `#`, and ""
# for an empty line. They take no part in comparisons: what is said of a thing is not the thing.


@dataclass(frozen=True, slots=True)
class Node:
    """A node: the role that a participant takes.

    Attributes:
        id: its name, unique in the graph.
        component: what it is a kind of.
        metadata: where it is drawn, its label, and what else is said of it.
        alone: whether its .fbp text declares it on a line of its own.
    """

    id: str
    component: str
    metadata: Mapping[str, Any] = _map()
    extra: Mapping[str, Any] = _map()
    comments: tuple[str, ...] = _comments()
    alone: bool = field(default=False, compare=False)

    @property
    def key(self) -> str:
        """What it is known by among its like."""
        return self.id

    @property
    def needs(self) -> frozenset[str]:
        """The nodes that must be there for it."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection from an outport to an inport. There is at most one between two endpoints.

    Attributes:
        src: where packets come from.
        tgt: where they go.
        chained: whether its .fbp text continues the line of the connection before it.
    """

    src: Endpoint
    tgt: Endpoint
    metadata: Mapping[str, Any] = _map()
    extra: Mapping[str, Any] = _map()
    comments: tuple[str, ...] = _comments()
    chained: bool = field(default=False, compare=False)

    @property
    def key(self) -> tuple[Endpoint, Endpoint]:
        """What it is known by among its like."""
        return (self.src, self.tgt)

    @property
    def needs(self) -> frozenset[str]:
        """The nodes that must be there for it."""
        return frozenset((self.src.node, self.tgt.node))

    def __str__(self) -> str:
        return f"{self.src} -> {self.tgt}"


@dataclass(frozen=True, slots=True)
class Initial:
    """An initial packet, sent to an inport when its node starts. A port may have several.

    Attributes:
        data: any JSON value, ``None`` included.
        tgt: where it goes.
    """

    data: Any = field(hash=False)
    tgt: Endpoint
    metadata: Mapping[str, Any] = _map()
    extra: Mapping[str, Any] = _map()
    comments: tuple[str, ...] = _comments()

    @property
    def key(self) -> None:
        """Nothing: there may be two that are equal."""
        return None

    @property
    def needs(self) -> frozenset[str]:
        """The nodes that must be there for it."""
        return frozenset((self.tgt.node,))

    def __str__(self) -> str:
        return f"{msgspec.json.encode(self.data).decode()} -> {self.tgt}"


@dataclass(frozen=True, slots=True)
class Export:
    """A port of a node, offered as a port of the whole graph.

    Attributes:
        public: its name outside.
        node, port: what it is inside.
    """

    public: str
    node: str
    port: str
    metadata: Mapping[str, Any] = _map()
    extra: Mapping[str, Any] = _map()
    comments: tuple[str, ...] = _comments()

    @property
    def key(self) -> str:
        """What it is known by among its like."""
        return self.public

    @property
    def needs(self) -> frozenset[str]:
        """The nodes that must be there for it."""
        return frozenset((self.node,))


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that belong together in a picture.

    Attributes:
        nodes: their ids. Files have some that are no longer there.
    """

    name: str
    nodes: tuple[str, ...]
    metadata: Mapping[str, Any] = _map()
    extra: Mapping[str, Any] = _map()

    @property
    def key(self) -> str:
        """What it is known by among its like."""
        return self.name

    @property
    def needs(self) -> frozenset[str]:
        """No nodes: files have groups of nodes that are gone."""
        return frozenset()


Record = Node | Edge | Initial | Export | Group


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was done to a graph.

    Attributes:
        kind: what, as the command of the FBP protocol's ``graph`` is called. Only
            ``changeproperties`` (with payload ``{"properties": {...}}``) is not in that protocol.
        payload: the payload of that command without ``graph``. A changed thing's ``metadata`` is
            all of it, not the difference. ``removeinitial`` has the data that was there.
        before: what was there, ``None`` if nothing was.
        after: what is there now, ``None`` if nothing is.
        at: its place among its like, counted from 0.
    """

    kind: ChangeKind
    payload: Mapping[str, Any] = field(hash=False)
    before: Any = field(default=None, hash=False, repr=False)
    after: Any = field(default=None, hash=False, repr=False)
    at: int = field(default=0, repr=False)

    def inverse(self) -> "list[Change]":
        """Return the changes that take this one back, to be applied in their order.

        It is one change, except that taking back a ``clear`` adds everything again.
        """
        if self.kind == "clear":
            return list(self.before)
        if self.kind == "renamenode":
            swapped = {"from": self.payload["to"], "to": self.payload["from"]}
            return [Change("renamenode", swapped, self.after, self.before, self.at)]
        return [change(_INVERSE.get(self.kind, self.kind), self.after, self.before, self.at)]


_INVERSE: Final[dict[ChangeKind, ChangeKind]] = {
    "addnode": "removenode",
    "removenode": "addnode",
    "addedge": "removeedge",
    "removeedge": "addedge",
    "addinitial": "removeinitial",
    "removeinitial": "addinitial",
    "addinport": "removeinport",
    "removeinport": "addinport",
    "addoutport": "removeoutport",
    "removeoutport": "addoutport",
    "addgroup": "removegroup",
    "removegroup": "addgroup",
}


def change(kind: ChangeKind, before: Any, after: Any, at: int, told: bool = False) -> Change:
    """Return the change of a record, its payload made from the record.

    Args:
        kind: what was done; neither ``renamenode`` nor ``clear``.
        before: the record that was there, if any.
        after: the record that is there now, if any.
        at: its place among its like.
        told: whether metadata were given, so that they are in the payload even if there are none.
    """
    return Change(kind, _payload(kind, before, after, told), before, after, at)


def _payload(kind: ChangeKind, before: Any, after: Any, told: bool) -> dict[str, Any]:
    if kind == "changeproperties":
        return {"properties": dict(after)}
    if kind.startswith("rename"):
        return {"from": before.key, "to": after.key}
    found = _identity(before if after is None else after, whole=kind.startswith("add"))
    if kind == "removeinitial":
        found = {"src": {"data": before.data}, **found}
    if after is not None and (told or after.metadata or kind.startswith("change")):
        found["metadata"] = dict(after.metadata)
    return found


def _identity(record: Record, *, whole: bool) -> dict[str, Any]:
    match record:
        case Node():
            return {"id": record.id} | ({"component": record.component} if whole else {})
        case Edge():
            return {"src": record.src.payload(), "tgt": record.tgt.payload()}
        case Initial():
            src = {"src": {"data": record.data}} if whole else {}
            return src | {"tgt": record.tgt.payload()}
        case Export():
            inside = {"node": record.node, "port": record.port} if whole else {}
            return {"public": record.public} | inside
        case Group():
            return {"name": record.name} | ({"nodes": list(record.nodes)} if whole else {})
