"""Graphs as .fbp text, so that reading the text gives the graph back.

The text has each node's component at the first mention of the node, ports in capitals, initial
packets that may have any data, and the comments and chains of the text that was read. It is
understood by the reference reader, npm ``fbp`` 1.8, in the same way.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgflo.errors import GraphError
from msgflo.flow.graph import Graph
from msgflo.flow.parts import Edge, Endpoint, Export, Initial, Node

__all__ = ["dump_fbp", "unsayable"]

NODE: Final = re.compile("[a-zA-Z_][a-zA-Z0-9_-]*")
PORT: Final = re.compile("[a-zA-Z_][a-zA-Z0-9_.]*")
COMPONENT: Final = re.compile("[a-zA-Z0-9_/-]+")
METADATA: Final = re.compile("[a-zA-Z0-9_/]*")
KEY: Final = re.compile("[a-zA-Z0-9_-]+")
VALUE: Final = re.compile("[a-zA-Z0-9_.-][a-zA-Z0-9_. -]*")
ANNOTATION: Final = re.compile("# +@[a-zA-Z0-9_-]+ +[a-zA-Z0-9_.-][a-zA-Z0-9_. -]*")
# What a text in single quotes cannot say, or should not: ends and changes of lines, and a last
# backslash, which would take the closing quote for its own.
UNQUOTABLE: Final = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]|\\\\\\Z")


def unsayable(graph: Graph) -> list[str]:
    """Return what of a graph a .fbp text cannot say, each as a sentence; empty: it can say all.

    Comments, and whether case matters, are not among it. A text does not say the latter: read it
    back with the same ``case_sensitive``.
    """
    return [problem for problem, _ in _problems(graph)]


def dump_fbp(graph: Graph, *, lossy: bool = False) -> str:
    """Return a graph as .fbp text.

    Args:
        graph: the graph.
        lossy: leave out what the language cannot say, and fold port names to lower case. Names
            cannot be left out: a graph with a node ``2floor`` is refused all the same.

    Raises:
        GraphError: the language cannot say all of it; with what it cannot.
    """
    problems = [problem for problem, needed in _problems(graph) if needed or not lossy]
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise GraphError(
            "this graph cannot be said as .fbp text (it can as JSON):\n  "
            + "\n  ".join(problems[:10])
            + more
        )
    return _Writer(graph).text()


def _problems(graph: Graph) -> Iterator[tuple[str, bool]]:
    """Yield what cannot be said, and whether there is no text without it."""
    for node in graph.nodes.values():
        what = f"node {node.id!r}"
        if not NODE.fullmatch(node.id):
            yield f"{what}: names start with a letter or _; then letters, digits, _ and -", True
        if not COMPONENT.fullmatch(node.component):
            yield f"{what}: component {node.component!r}: letters, digits, _, / and - only", True
        for key, value in node.metadata.items():
            if not _metadata_item(key, value):
                yield f"{what}: metadata {key} = {_short(value)}", False
        yield from _unknown(what, node.extra)
    for it in graph.connections:
        ends = (it.src, it.tgt) if isinstance(it, Edge) else (it.tgt,)
        what = f"edge {it}" if isinstance(it, Edge) else f"initial packet of {it.tgt}"
        for end in ends:
            yield from _port(what, end.port, graph.case_sensitive)
        if it.metadata:
            yield f"{what}: metadata {_short(it.metadata)}", False
        yield from _unknown(what, it.extra)
    for direction, table in (("inport", graph.inports), ("outport", graph.outports)):
        for export in table.values():
            what = f"exported {direction} {export.public!r}"
            yield from _port(what, export.public, graph.case_sensitive)
            yield from _port(what, export.port, graph.case_sensitive)
            if export.metadata:
                yield f"{what}: metadata {_short(export.metadata)}", False
            yield from _unknown(what, export.extra)
    for group in graph.groups:
        yield f"group {group.name!r}: there are no groups", False
    for key, value in graph.properties.items():
        if _annotation(key, value) is None:
            yield f"property {key!r} = {_short(value)}: letters, digits, space, _, . and -", False
    yield from _unknown("the graph", graph.extra)


def _port(what: str, port: str, case_sensitive: bool) -> Iterator[tuple[str, bool]]:
    if not PORT.fullmatch(port):
        yield f"{what}: port {port!r}: a letter or _; then letters, digits, _ and .", True
    elif not case_sensitive and port != port.lower():
        yield f"{what}: port {port!r} would be read as {port.lower()!r}", False


def _unknown(what: str, extra: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    for key, value in extra.items():
        yield f"{what}: {key!r} = {_short(value)}", False


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _metadata_item(key: str, value: Any) -> str | None:
    """Return one item of a node's metadata as text, ``None`` if it cannot be said."""
    if not METADATA.fullmatch(key):
        return None
    if key in {"x", "y"}:
        sayable = type(value) in {int, float} and 0 <= value < 2**53 and int(value) == value
        return f"{key}={int(value)}" if sayable else None
    if not isinstance(value, str) or not METADATA.fullmatch(value):
        return None
    return f"{key}={value}"


def _annotation(key: str, value: Any) -> str | None:
    """Return a property as an annotation, ``None`` if it cannot be said."""
    if key == "environment" and isinstance(value, Mapping):
        if list(value) != ["type"]:
            return None
        key, value = "runtime", value["type"]
    elif key == "runtime":
        return None  # it would be read as the environment
    sayable = KEY.fullmatch(key) and isinstance(value, str) and VALUE.fullmatch(value)
    return f"# @{key} {value}" if sayable else None


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lines: list[str] = []
        self.waiting = list(graph.nodes.values())  # not declared yet, in order
        self.waiting.reverse()

    def text(self) -> str:
        graph = self.graph
        for key, value in graph.properties.items():
            annotation = _annotation(key, value)
            if annotation is not None:
                self.lines.append(annotation)
        self.gap()
        for keyword, table in (("INPORT", graph.inports), ("OUTPORT", graph.outports)):
            for export in table.values():
                self.comments(export.comments)
                self.lines.append(self.export(keyword, export))
        self.gap()
        last: Edge | Initial | None = None
        for it in graph.connections:
            self.connection(it, last)
            last = it
        if self.waiting:
            self.declare(self.waiting[0])
        self.comments(graph.comments)
        while self.lines and not self.lines[-1]:
            self.lines.pop()
        return "".join(f"{line}\n" for line in self.lines)

    def gap(self) -> None:
        if self.lines and self.lines[-1]:
            self.lines.append("")

    def comments(self, comments: tuple[str, ...]) -> None:
        for comment in comments:
            if not comment:
                self.gap()
            elif ANNOTATION.fullmatch(comment):
                self.lines.append(f" {comment}")  # a comment is no annotation if indented
            else:
                self.lines.append(comment)

    def export(self, keyword: str, it: Export) -> str:
        return f"{keyword}={it.node}.{self.case(it.port)}:{self.case(it.public)}"

    def connection(self, it: Edge | Initial, last: Edge | Initial | None) -> None:
        nodes = (it.src.node, it.tgt.node) if isinstance(it, Edge) else (it.tgt.node,)
        declared = self.declare_before(nodes)
        goes_on = (
            isinstance(it, Edge)
            and it.chained
            and last is not None
            and last.tgt.node == it.src.node
            and not declared
            and not it.comments
        )
        if goes_on:
            assert isinstance(it, Edge)
            self.lines[-1] += f" {self.port(it.src)} -> {self.port(it.tgt)} {self.node(it.tgt)}"
            return
        self.comments(it.comments)
        if isinstance(it, Edge):
            start = f"{self.node(it.src)} {self.port(it.src)}"
        else:
            start = _packet(it.data)
        self.lines.append(f"{start} -> {self.port(it.tgt)} {self.node(it.tgt)}")

    def declare_before(self, nodes: tuple[str, ...]) -> bool:
        """Declare nodes on lines of their own, so that all are declared in the graph's order.

        Those of a connection that are next in order need no line of their own.
        """
        waiting = {node.id for node in self.waiting}
        new = [node for node in dict.fromkeys(nodes) if node in waiting]
        declared = False
        while new and not self.are_next(new):
            node = self.waiting[-1]
            self.declare(node)
            new = [it for it in new if it != node.id]
            declared = True
        return declared

    def are_next(self, new: list[str]) -> bool:
        coming = self.waiting[: -len(new) - 1 : -1]
        return [node.id for node in coming] == new and not any(
            node.alone or node.comments for node in coming
        )

    def declare(self, last: Node) -> None:
        while True:
            node = self.waiting.pop()
            self.comments(node.comments)
            self.lines.append(f"{node.id}{_component(node)}")
            if node is last:
                return

    def node(self, end: Endpoint) -> str:
        if self.waiting and self.waiting[-1].id == end.node:
            return f"{end.node}{_component(self.waiting.pop())}"
        return end.node

    def port(self, end: Endpoint) -> str:
        return self.case(end.port) + ("" if end.index is None else f"[{end.index}]")

    def case(self, port: str) -> str:
        return port if self.graph.case_sensitive else port.upper()


def _component(node: Node) -> str:
    items = [_metadata_item(key, value) for key, value in node.metadata.items()]
    said = ",".join(item for item in items if item is not None)
    return f"({node.component}:{said})" if said else f"({node.component})"


def _packet(data: Any) -> str:
    """Return the data of an initial packet as both readers take it."""
    if isinstance(data, str) and not UNQUOTABLE.search(data):
        quoted = data.replace("'", "\\'")
        return f"'{quoted}'"
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    for newline in "\x85\u2028\u2029":
        text = text.replace(newline, f"\\u{ord(newline):04x}")
    # A word would be a node's name. After a tab, which only a JSON value may follow, it is none.
    return f"\t{text}" if data is None or isinstance(data, bool) else text
