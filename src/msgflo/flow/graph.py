"""A graph: nodes, the connections between their ports, and every edit of it as a record.

An edit checks itself first: it raises a :exc:`~msgflo.errors.GraphError` and leaves the graph as it
was, or it is done whole. It returns what it did as a list of :class:`Change`, in the vocabulary of
the FBP protocol, so that an edit can be told to others, applied to a copy, and undone:

    >>> graph = Graph("main")
    >>> done = graph.add_node("resize", "images/Resize")
    >>> done[0].kind, done[0].payload
    ('addnode', {'id': 'resize', 'component': 'images/Resize'})
    >>> undone = graph.undo(done)
    >>> list(graph.nodes)
    []

Any text is a good name for a node, spaces and slashes included: nothing here ever joins names to
make a key. The records (:class:`Node`, :class:`Edge`, ...) are values. Their metadata must not be
changed in place; what is handed to an edit is copied.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from msgflo.errors import GraphError, UnknownNode, near
from msgflo.flow.parts import (
    Change,
    ChangeKind,
    Edge,
    Endpoint,
    Export,
    Group,
    Initial,
    Node,
    change,
)
from msgflo.flow.values import json_map, json_name, json_value, merged, same

__all__ = [
    "ANY",
    "Change",
    "ChangeKind",
    "Edge",
    "Endpoint",
    "Export",
    "Graph",
    "Group",
    "Initial",
    "Node",
]


class _Any:
    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any()
"""Stands for any data, where ``None`` is data like any other."""


class Graph:
    """A graph. Read it freely; change it only by its edits.

    Attributes:
        case_sensitive: whether ``OUT`` and ``out`` are two ports. Names are kept as written
            either way; only the .fbp language folds them.
        properties: what is said of the graph as a whole: ``name``, ``environment``, ...
        nodes: by id, in order.
        connections: edges and initial packets, in the order of the file.
        inports, outports: the exported ports by public name, in order.
        groups: in order.
        extra: keys of the JSON file that are not known here; they are written back.
        comments: what stands below everything in a .fbp text.
    """

    __slots__ = (
        "_edges",
        "_lists",
        "case_sensitive",
        "comments",
        "connections",
        "extra",
        "groups",
        "inports",
        "nodes",
        "outports",
        "properties",
    )

    def __init__(self, name: str = "", *, case_sensitive: bool = False) -> None:
        self.case_sensitive = case_sensitive
        self.properties: dict[str, Any] = {"name": name} if name else {}
        self.nodes: dict[str, Node] = {}
        self.connections: list[Edge | Initial] = []
        self.inports: dict[str, Export] = {}
        self.outports: dict[str, Export] = {}
        self.groups: list[Group] = []
        self.extra: dict[str, Any] = {}
        self.comments: tuple[str, ...] = ()
        self._edges: dict[tuple[Endpoint, Endpoint], int] | None = None
        self._lists: tuple[tuple[Edge, ...], tuple[Initial, ...]] | None = None

    # Reading.

    @property
    def name(self) -> str:
        """The graph's name from its properties, ``""`` if it has none."""
        name = self.properties.get("name")
        return name if isinstance(name, str) else ""

    @property
    def environment(self) -> str:
        """The kind of runtime that the graph is for, such as ``msgflo``; ``""`` if not said."""
        found = self.properties.get("environment")
        if isinstance(found, Mapping):
            for key in ("type", "runtime"):
                if isinstance(found.get(key), str):
                    return str(found[key])
        return ""

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges, in order."""
        return self._split()[0]

    @property
    def initials(self) -> tuple[Initial, ...]:
        """The initial packets, in order."""
        return self._split()[1]

    def edge(self, src: Endpoint, tgt: Endpoint) -> Edge | None:
        """Return the edge between two endpoints, ``None`` if there is none."""
        at = self._edge_places().get((src, tgt))
        if at is None:
            return None
        found = self.connections[at]
        assert isinstance(found, Edge)
        return found

    def group(self, name: str) -> Group | None:
        """Return the group of this name, ``None`` if there is none."""
        return next((group for group in self.groups if group.name == name), None)

    def copy(self) -> "Graph":
        """Return a graph of its own, equal to this one."""
        twin = Graph(case_sensitive=self.case_sensitive)
        twin.properties = dict(self.properties)
        twin.nodes = dict(self.nodes)
        twin.connections = list(self.connections)
        twin.inports = dict(self.inports)
        twin.outports = dict(self.outports)
        twin.groups = list(self.groups)
        twin.extra = dict(self.extra)
        twin.comments = self.comments
        return twin

    def __eq__(self, other: object) -> bool:
        """Compare everything but comments, the order of nodes, connections and ports included."""
        if not isinstance(other, Graph):
            return NotImplemented
        return (
            self.case_sensitive == other.case_sensitive
            and same(self.properties, other.properties)
            and same(self.extra, other.extra)
            and list(self.nodes.values()) == list(other.nodes.values())
            and self.connections == other.connections
            and list(self.inports.values()) == list(other.inports.values())
            and list(self.outports.values()) == list(other.outports.values())
            and self.groups == other.groups
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return (
            f"<Graph {self.name!r}: {len(self.nodes)} nodes, {len(self.edges)} edges, "
            f"{len(self.initials)} initial packets>"
        )

    # Nodes.

    def add_node(
        self, node: str, component: str, metadata: Mapping[str, Any] | None = None
    ) -> list[Change]:
        """Add a node at the end.

        Adding a node again changes its metadata if some are given that differ, or else nothing.

        Args:
            node: its id, any text but the empty one.
            component: its component.
            metadata: what is said of it; ``None``: nothing.

        Raises:
            GraphError: a node of this id and another component is there.
        """
        json_name(node, "the id of a node")
        json_name(component, f"the component of node {node!r}")
        told = json_map(metadata, f"the metadata of node {node!r}")
        there = self.nodes.get(node)
        if there is None:
            new = Node(node, component, told)
            return self._do(change("addnode", None, new, len(self.nodes), metadata is not None))
        if there.component != component:
            raise GraphError(
                f"there is a node {node!r} already; its component is {there.component!r}, "
                f"not {component!r}"
            )
        return self.change_node(node, told) if _adds(told, there) else []

    def remove_node(self, node: str) -> list[Change]:
        """Remove a node, and before it all that refers to it.

        Returns:
            A change for each edge, initial packet and exported port that goes with it; for each
            group that it was in, a ``removegroup``, and an ``addgroup`` with the nodes that
            remain, if any do; and in the end the ``removenode``.
        """
        there = self._node(node)
        done: list[Change] = []
        kinds: tuple[tuple[ChangeKind, type], ...] = (
            ("removeedge", Edge),
            ("removeinitial", Initial),
        )
        for kind, wanted in kinds:
            for at in range(len(self.connections) - 1, -1, -1):
                it = self.connections[at]
                ends = (it.src.node, it.tgt.node) if isinstance(it, Edge) else (it.tgt.node,)
                if isinstance(it, wanted) and node in ends:
                    done += self._do(change(kind, it, None, at))
        for port in [public for public, it in self.inports.items() if it.node == node]:
            done += self.remove_inport(port)
        for port in [public for public, it in self.outports.items() if it.node == node]:
            done += self.remove_outport(port)
        done += self._leave_groups(node)
        at = list(self.nodes).index(node)
        return done + self._do(change("removenode", there, None, at))

    def rename_node(self, node: str, to: str) -> list[Change]:
        """Give a node another id, in all that refers to it too. Its place stays.

        Raises:
            GraphError: a node of the new id is there already.
        """
        self._node(node)
        json_name(to, f"the new id of node {node!r}")
        if node == to:
            return []
        if to in self.nodes:
            raise GraphError(f"cannot rename node {node!r}: there is a node {to!r} already")
        # A group may name a node that is gone. The renamed one must not slip into its place.
        done = self._leave_groups(to)
        return done + self._do(Change("renamenode", {"from": node, "to": to}, node, to))

    def change_node(self, node: str, metadata: Mapping[str, Any]) -> list[Change]:
        """Merge metadata into a node's. A value of ``None`` removes its key.

        Returns:
            One change with all of the node's metadata, even if nothing is different now.
        """
        there = self._node(node)
        whole = merged(there.metadata, json_map(metadata, f"the metadata of node {node!r}"))
        at = list(self.nodes).index(node)
        return self._do(change("changenode", there, replace(there, metadata=whole), at, True))

    # Edges.

    def add_edge(
        self, src: Endpoint, tgt: Endpoint, metadata: Mapping[str, Any] | None = None
    ) -> list[Change]:
        """Add an edge at the end.

        Adding an edge again changes its metadata if some are given that differ, or else nothing.

        Raises:
            UnknownNode: one of its nodes is not there. (Ports are not checked: what ports a node
                has is known only once it runs.)
        """
        self._endpoint(src)
        self._endpoint(tgt)
        told = json_map(metadata, f"the metadata of edge {src} -> {tgt}")
        there = self.edge(src, tgt)
        if there is None:
            new, at = Edge(src, tgt, told), len(self.connections)
            return self._do(change("addedge", None, new, at, metadata is not None))
        return self.change_edge(src, tgt, told) if _adds(told, there) else []

    def remove_edge(self, src: Endpoint, tgt: Endpoint) -> list[Change]:
        """Remove an edge."""
        at = self._edge_place(src, tgt)
        return self._do(change("removeedge", self.connections[at], None, at))

    def change_edge(
        self, src: Endpoint, tgt: Endpoint, metadata: Mapping[str, Any]
    ) -> list[Change]:
        """Merge metadata into an edge's. As :meth:`change_node`."""
        at = self._edge_place(src, tgt)
        there = self.connections[at]
        whole = merged(there.metadata, json_map(metadata, f"the metadata of edge {src} -> {tgt}"))
        return self._do(change("changeedge", there, replace(there, metadata=whole), at, True))

    # Initial packets.

    def add_initial(
        self, data: Any, tgt: Endpoint, metadata: Mapping[str, Any] | None = None
    ) -> list[Change]:
        """Add an initial packet at the end. Two equal ones are two packets.

        Raises:
            GraphError: the data is not a JSON value.
            UnknownNode: its node is not there.
        """
        self._endpoint(tgt)
        told = json_map(metadata, f"the metadata of the initial packet of {tgt}")
        new = Initial(json_value(data, f"the initial packet of {tgt}"), tgt, told)
        at = len(self.connections)
        return self._do(change("addinitial", None, new, at, metadata is not None))

    def remove_initial(self, tgt: Endpoint, data: Any = ANY) -> list[Change]:
        """Remove the initial packets of a port.

        Args:
            tgt: the port.
            data: remove only those that carry this; :data:`ANY`: remove all of them.

        Returns:
            A change for each, with its data.

        Raises:
            GraphError: there is none.
        """
        done: list[Change] = []
        for at in range(len(self.connections) - 1, -1, -1):
            it = self.connections[at]
            if isinstance(it, Initial) and it.tgt == tgt and (data is ANY or same(it.data, data)):
                done += self._do(change("removeinitial", it, None, at))
        if not done:
            known = sorted({str(initial.tgt) for initial in self.initials})
            which = "" if data is ANY else f" with the data {data!r}"
            raise GraphError(f"{tgt} has no initial packet{which}.{near(str(tgt), known)}")
        return done

    # Exported ports.

    def add_inport(
        self, public: str, node: str, port: str, metadata: Mapping[str, Any] | None = None
    ) -> list[Change]:
        """Export an inport. Exporting it again as the same changes nothing.

        Raises:
            GraphError: another port is exported by this name.
        """
        return self._add_export("addinport", self.inports, public, node, port, metadata)

    def remove_inport(self, public: str) -> list[Change]:
        """No longer export an inport."""
        at, there = self._export(self.inports, "inport", public)
        return self._do(change("removeinport", there, None, at))

    def rename_inport(self, public: str, to: str) -> list[Change]:
        """Export an inport by another name. Its place stays."""
        return self._rename_export("renameinport", self.inports, "inport", public, to)

    def add_outport(
        self, public: str, node: str, port: str, metadata: Mapping[str, Any] | None = None
    ) -> list[Change]:
        """Export an outport. As :meth:`add_inport`."""
        return self._add_export("addoutport", self.outports, public, node, port, metadata)

    def remove_outport(self, public: str) -> list[Change]:
        """No longer export an outport."""
        at, there = self._export(self.outports, "outport", public)
        return self._do(change("removeoutport", there, None, at))

    def rename_outport(self, public: str, to: str) -> list[Change]:
        """Export an outport by another name. Its place stays."""
        return self._rename_export("renameoutport", self.outports, "outport", public, to)

    # Groups and the whole.

    def add_group(
        self, name: str, nodes: Iterable[str], metadata: Mapping[str, Any] | None = None
    ) -> list[Change]:
        """Add a group.

        Raises:
            GraphError: there is one of this name.
            UnknownNode: one of its nodes is not there.
        """
        json_name(name, "the name of a group")
        members = tuple(dict.fromkeys(self._node(node).id for node in nodes))
        if self.group(name) is not None:
            raise GraphError(f"there is a group {name!r} already")
        new = Group(name, members, json_map(metadata, f"the metadata of group {name!r}"))
        return self._do(change("addgroup", None, new, len(self.groups), metadata is not None))

    def remove_group(self, name: str) -> list[Change]:
        """Remove a group. Its nodes stay."""
        at, there = self._group(name)
        return self._do(change("removegroup", there, None, at))

    def rename_group(self, name: str, to: str) -> list[Change]:
        """Give a group another name."""
        at, there = self._group(name)
        json_name(to, f"the new name of group {name!r}")
        if name == to:
            return []
        if self.group(to) is not None:
            raise GraphError(f"cannot rename group {name!r}: there is a group {to!r} already")
        return self._do(change("renamegroup", there, replace(there, name=to), at))

    def change_group(self, name: str, metadata: Mapping[str, Any]) -> list[Change]:
        """Merge metadata into a group's. As :meth:`change_node`."""
        at, there = self._group(name)
        whole = merged(there.metadata, json_map(metadata, f"the metadata of group {name!r}"))
        return self._do(change("changegroup", there, replace(there, metadata=whole), at, True))

    def change_properties(self, properties: Mapping[str, Any]) -> list[Change]:
        """Merge properties into the graph's. A value of ``None`` removes its key."""
        whole = merged(self.properties, json_map(properties, "the properties"))
        return self._do(change("changeproperties", dict(self.properties), whole, 0))

    def clear(self) -> list[Change]:
        """Remove nodes, connections, exported ports, groups and properties."""
        return self._do(Change("clear", {"id": self.name}, tuple(self.changes())))

    # Changes.

    def changes(self) -> list[Change]:
        """Return the changes that make this graph from an empty one."""
        made: list[Change] = []
        if self.properties:
            made.append(change("changeproperties", {}, dict(self.properties), 0))
        for at, node in enumerate(self.nodes.values()):
            made.append(change("addnode", None, node, at))
        for at, it in enumerate(self.connections):
            kind: ChangeKind = "addedge" if isinstance(it, Edge) else "addinitial"
            made.append(change(kind, None, it, at))
        for at, export in enumerate(self.inports.values()):
            made.append(change("addinport", None, export, at))
        for at, export in enumerate(self.outports.values()):
            made.append(change("addoutport", None, export, at))
        for at, group in enumerate(self.groups):
            made.append(change("addgroup", None, group, at))
        return made

    def apply(self, done: Change) -> None:
        """Do what was done to an equal graph.

        Raises:
            GraphError: it does not fit: this graph is not as that one was. Nothing is changed.
        """
        if not self._fits(done):
            raise GraphError(
                f"cannot {done.kind} {dict(done.payload)}: this graph is not as it was then"
            )
        self._do(done)

    def undo(self, changes: Iterable[Change]) -> list[Change]:
        """Take changes back, the last one first. The graph is then as it was, order included.

        Args:
            changes: what edits returned, in the order in which they were done.

        Returns:
            What was done to that end, which can be undone in turn.

        Raises:
            GraphError: the graph was changed otherwise meanwhile, so that they do not fit. What
                had been taken back by then is done again: the graph is unchanged.
        """
        done: list[Change] = []
        try:
            for it in reversed(list(changes)):
                for inverse in it.inverse():
                    self.apply(inverse)
                    done.append(inverse)
        except GraphError:
            for it in reversed(done):
                for inverse in it.inverse():
                    self.apply(inverse)
            raise
        return done

    # Behind the edits.

    def _do(self, done: Change) -> list[Change]:
        """Carry out a change that is known to fit."""
        match done.kind:
            case "clear":
                for table in (self.properties, self.nodes, self.inports, self.outports):
                    table.clear()
                self.connections.clear()
                self.groups.clear()
                self._edges = self._lists = None
            case "changeproperties":
                self.properties.clear()
                self.properties.update(done.after)
            case "renamenode":
                self._rename(done.before, done.after)
            case _:
                self._put(done)
        return [done]

    def _put(self, done: Change) -> None:
        table = self._table(done.kind)
        last = done.before is None and done.at == len(table)
        if isinstance(table, dict) and last:
            table[done.after.key] = done.after  # the common case, done without going through all
            return
        if table is self.connections:
            self._lists = None
            if not last:
                self._edges = None
            elif self._edges is not None and isinstance(done.after, Edge):
                self._edges[done.after.key] = done.at
        records = table if isinstance(table, list) else list(table.values())
        if done.before is None:
            records.insert(done.at, done.after)
        elif done.after is None:
            del records[done.at]
        else:
            records[done.at] = done.after
        if isinstance(table, dict):
            table.clear()
            table.update((record.key, record) for record in records)

    def _table(self, kind: ChangeKind) -> Any:
        if kind.endswith("node"):
            return self.nodes
        if kind.endswith(("edge", "initial")):
            return self.connections
        if kind.endswith("inport"):
            return self.inports
        return self.outports if kind.endswith("outport") else self.groups

    def _rename(self, node: str, to: str) -> None:
        def end(it: Endpoint) -> Endpoint:
            return replace(it, node=to) if it.node == node else it

        def exports(table: dict[str, Export]) -> None:
            for public, it in table.items():
                if it.node == node:
                    table[public] = replace(it, node=to)

        nodes = [replace(it, id=to) if it.id == node else it for it in self.nodes.values()]
        self.nodes.clear()
        self.nodes.update((it.id, it) for it in nodes)
        self.connections[:] = [
            replace(it, src=end(it.src), tgt=end(it.tgt))
            if isinstance(it, Edge)
            else replace(it, tgt=end(it.tgt))
            for it in self.connections
        ]
        self._edges = self._lists = None
        exports(self.inports)
        exports(self.outports)
        self.groups[:] = [
            replace(it, nodes=tuple(to if member == node else member for member in it.nodes))
            for it in self.groups
        ]

    def _fits(self, done: Change) -> bool:
        match done.kind:
            case "clear":
                return bool(tuple(self.changes()) == done.before)
            case "changeproperties":
                return same(self.properties, done.before)
            case "renamenode":
                return done.before in self.nodes and done.after not in self.nodes
        records = list(self._table(done.kind))
        if isinstance(self._table(done.kind), dict):
            records = list(self._table(done.kind).values())
        if done.before is not None and records[done.at : done.at + 1] != [done.before]:
            return False
        if done.after is None:
            return done.kind != "removenode" or not self._refers(done.before.key)
        if done.before is None and not 0 <= done.at <= len(records):
            return False
        # Of initial packets there may be equal ones, and files have groups of one name.
        unique = not isinstance(done.after, Initial | Group)
        moved = done.before is None or done.before.key != done.after.key
        taken = unique and moved and any(it.key == done.after.key for it in records)
        return not taken and done.after.needs <= self.nodes.keys()

    def _refers(self, node: str) -> bool:
        return any(
            node in it.needs
            for it in (*self.connections, *self.inports.values(), *self.outports.values())
        )

    def _leave_groups(self, node: str) -> list[Change]:
        done: list[Change] = []
        for at in range(len(self.groups) - 1, -1, -1):
            there = self.groups[at]
            if node in there.nodes:
                rest = tuple(member for member in there.nodes if member != node)
                done += self._do(change("removegroup", there, None, at))
                if rest:
                    done += self._do(change("addgroup", None, replace(there, nodes=rest), at))
        return done

    def _node(self, node: str) -> Node:
        if not isinstance(node, str) or node not in self.nodes:
            raise UnknownNode(str(node), self.nodes)
        return self.nodes[node]

    def _endpoint(self, it: Endpoint) -> None:
        self._node(it.node)
        json_name(it.port, f"a port of node {it.node!r}")
        if it.index is not None and (
            not isinstance(it.index, int) or isinstance(it.index, bool) or it.index < 0
        ):
            raise GraphError(
                f"the index of {it.node}.{it.port} is {it.index!r}; it is a whole number from 0"
            )

    def _edge_places(self) -> dict[tuple[Endpoint, Endpoint], int]:
        if self._edges is None:
            self._edges = {
                (it.src, it.tgt): at
                for at, it in enumerate(self.connections)
                if isinstance(it, Edge)
            }
        return self._edges

    def _edge_place(self, src: Endpoint, tgt: Endpoint) -> int:
        at = self._edge_places().get((src, tgt))
        if at is None:
            wanted = f"{src} -> {tgt}"
            raise GraphError(f"there is no edge {wanted}.{near(wanted, map(str, self.edges))}")
        return at

    def _split(self) -> tuple[tuple[Edge, ...], tuple[Initial, ...]]:
        if self._lists is None:
            self._lists = (
                tuple(it for it in self.connections if isinstance(it, Edge)),
                tuple(it for it in self.connections if isinstance(it, Initial)),
            )
        return self._lists

    def _add_export(
        self,
        kind: ChangeKind,
        table: dict[str, Export],
        public: str,
        node: str,
        port: str,
        metadata: Mapping[str, Any] | None,
    ) -> list[Change]:
        direction = kind.removeprefix("add")
        json_name(public, f"the public name of an {direction}")
        self._endpoint(Endpoint(node, port))
        told = json_map(metadata, f"the metadata of {direction} {public!r}")
        there = table.get(public)
        if there is not None:
            if (there.node, there.port) == (node, port):
                return []
            raise GraphError(
                f"there is an {direction} {public!r} already; it is {there.node}.{there.port}"
            )
        new = Export(public, node, port, told)
        return self._do(change(kind, None, new, len(table), metadata is not None))

    def _rename_export(
        self, kind: ChangeKind, table: dict[str, Export], direction: str, public: str, to: str
    ) -> list[Change]:
        at, there = self._export(table, direction, public)
        json_name(to, f"the new name of {direction} {public!r}")
        if public == to:
            return []
        if to in table:
            raise GraphError(
                f"cannot rename {direction} {public!r}: there is an {direction} {to!r} already"
            )
        return self._do(change(kind, there, replace(there, public=to), at))

    def _export(self, table: dict[str, Export], direction: str, public: str) -> tuple[int, Export]:
        if public not in table:
            raise GraphError(f"the graph has no {direction} {public!r}.{near(public, table)}")
        return list(table).index(public), table[public]

    def _group(self, name: str) -> tuple[int, Group]:
        for at, it in enumerate(self.groups):
            if it.name == name:
                return at, it
        known = [it.name for it in self.groups]
        raise GraphError(f"the graph has no group {name!r}.{near(name, known)}")


def _adds(told: Mapping[str, Any], there: Node | Edge) -> bool:
    return not same(merged(there.metadata, told), there.metadata)
