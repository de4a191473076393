"""Graphs as JSON, as the FBP tools write them and as they are found in practice.

:func:`load_json` takes what is found: missing keys, ``inports`` that are an empty list, ``null``
where a map should be. What it does not know it keeps, and :func:`dump_json` writes it back.
Saving what was loaded gives an equal graph, and saving that again the same text.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn, cast

from msgflo.errors import GraphError, GraphSyntaxError, near
from msgflo.flow.graph import Graph
from msgflo.flow.parts import Edge, Endpoint, Export, Group, Initial, Node
from msgflo.flow.values import json_value

__all__ = ["dump_json", "load_json"]

KNOWN: Final = (
    "caseSensitive",
    "properties",
    "inports",
    "outports",
    "groups",
    "processes",
    "connections",
)


def load_json(text: str, name: str = "<graph>") -> Graph:
    """Return the graph that a JSON text is.

    Names are kept as written, whatever ``caseSensitive`` says. An edge that is there twice is
    one edge. The old ``exports`` list is kept as it is, and not understood.

    Args:
        text: the text of the file.
        name: the file, for errors.

    Raises:
        GraphSyntaxError: the text is not JSON: with line and column.
        GraphError: it is, but no graph: with the path of what is wrong, such as
            ``connections[3].tgt.port``.
    """
    found = _decode(text.removeprefix("\ufeff"), name)
    try:
        return _Reader().graph(found)
    except GraphError as error:
        raise GraphError(f"{name}: {error}") from None


def dump_json(graph: Graph) -> str:
    """Return a graph as JSON text: indented by two spaces, a newline at the end.

    Everything is in the graph's order, so that the same graph is always the same text. Comments
    of a .fbp text cannot be said in JSON and are left out.
    """
    found: dict[str, Any] = {
        "caseSensitive": graph.case_sensitive,
        "properties": graph.properties,
        "inports": {public: _export(it) for public, it in graph.inports.items()},
        "outports": {public: _export(it) for public, it in graph.outports.items()},
        "groups": [_with(it, {"name": it.name, "nodes": list(it.nodes)}) for it in graph.groups],
        "processes": {it.id: _with(it, {"component": it.component}) for it in graph.nodes.values()},
        "connections": [_connection(it) for it in graph.connections],
        **graph.extra,
    }
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _with(record: Node | Edge | Initial | Export | Group, found: dict[str, Any]) -> dict[str, Any]:
    metadata = {"metadata": dict(record.metadata)} if record.metadata else {}
    return {**found, **metadata, **record.extra}


def _export(it: Export) -> dict[str, Any]:
    return _with(it, {"process": it.node, "port": it.port})


def _connection(it: Edge | Initial) -> dict[str, Any]:
    if isinstance(it, Edge):
        return _with(it, {"src": _end(it.src), "tgt": _end(it.tgt)})
    return _with(it, {"data": it.data, "tgt": _end(it.tgt)})


def _end(it: Endpoint) -> dict[str, Any]:
    index = {} if it.index is None else {"index": it.index}
    return {"process": it.node, "port": it.port, **index}


def _decode(text: str, name: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise GraphError(f"{name}: {constant} is no JSON value")

    def number(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            raise GraphError(f"{name}: the number {digits} is too large")
        return value

    try:
        return json.loads(text, parse_constant=refuse, parse_float=number)
    except json.JSONDecodeError as error:
        lines = text.splitlines() or [""]
        source = lines[error.lineno - 1] if error.lineno <= len(lines) else ""
        problem = f"this is not JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        if not text.strip():
            problem = "this is not JSON: the file is empty"
        raise GraphSyntaxError(
            problem, name=name, line=error.lineno, column=error.colno, source=source
        ) from None
    except RecursionError:
        raise GraphError(f"{name}: this is nested too deep for a graph") from None
    except ValueError as error:  # more digits than Python converts
        raise GraphError(f"{name}: {error}") from None


class _Reader:
    """Reads a decoded graph. Errors have the path of what is wrong."""

    def __init__(self) -> None:
        self.made = Graph()

    def graph(self, found: Any) -> Graph:
        top = _map(found, "the graph")
        if top and top.keys().isdisjoint(KNOWN):
            raise GraphError(
                f"this is no graph: expected some of {', '.join(KNOWN)}; got {_short(list(top))}"
            )
        made = self.made
        made.case_sensitive = _flag(top.get("caseSensitive"), "caseSensitive")
        made.properties = _free(top.get("properties"), "properties")
        made.extra = _extra(top, KNOWN, "the graph")
        for key, value in _map(top.get("processes"), "processes", empty=True).items():
            made.nodes[key] = self.node(key, value, f"processes[{key!r}]")
        seen: set[tuple[Endpoint, Endpoint]] = set()
        for at, value in enumerate(_list(top.get("connections"), "connections")):
            it = self.connection(value, f"connections[{at}]")
            if isinstance(it, Edge):
                if it.key in seen:
                    continue
                seen.add(it.key)
            made.connections.append(it)
        for table, direction in ((made.inports, "inports"), (made.outports, "outports")):
            for public, value, path in _exports(top.get(direction), direction):
                table[public] = self.export(public, value, path)
        for at, value in enumerate(_list(top.get("groups"), "groups")):
            made.groups.append(self.group(value, f"groups[{at}]"))
        return made

    def node(self, key: str, value: Any, path: str) -> Node:
        found = _map(value, path)
        if not key:
            raise GraphError("processes: a node has no name")
        _free({key: None}, "processes")
        component = _text(found.get("component"), f"{path}.component")
        return Node(key, component, *_rest(found, ("component",), path))

    def connection(self, value: Any, path: str) -> Edge | Initial:
        found = _map(value, path)
        if found.get("tgt") is None:
            raise GraphError(f"{path}: it has no tgt, so it leads nowhere")
        tgt = self.end(found["tgt"], f"{path}.tgt")
        if found.get("src") is not None:
            if found.get("data") is not None:
                raise GraphError(
                    f"{path}: it has both src and data; it is an edge or an initial packet"
                )
            src = self.end(found["src"], f"{path}.src")
            return Edge(src, tgt, *_rest(found, ("src", "tgt", "data"), path))
        if "data" not in found:
            raise GraphError(f"{path}: it has neither src nor data, so nothing comes from it")
        data = json_value(found["data"], f"{path}.data")
        return Initial(data, tgt, *_rest(found, ("src", "tgt", "data"), path))

    def end(self, value: Any, path: str) -> Endpoint:
        found = _map(value, path)
        node = self.known(found.get("process"), f"{path}.process")
        port = _text(found.get("port"), f"{path}.port")
        index = found.get("index")
        if index is not None and (type(index) is not int or index < 0):
            raise GraphError(f"{path}.index: expected a whole number from 0, got {_short(index)}")
        return Endpoint(node, port, index)

    def export(self, public: str, value: Any, path: str) -> Export:
        found = _map(value, path)
        _text(public, f"{path}.public")
        node = self.known(found.get("process"), f"{path}.process")
        port = _text(found.get("port"), f"{path}.port")
        return Export(public, node, port, *_rest(found, ("process", "port", "public"), path))

    def group(self, value: Any, path: str) -> Group:
        found = _map(value, path)
        name = _text(found.get("name"), f"{path}.name")
        nodes = tuple(
            _text(node, f"{path}.nodes[{at}]")
            for at, node in enumerate(_list(found.get("nodes"), f"{path}.nodes"))
        )
        return Group(name, nodes, *_rest(found, ("name", "nodes"), path))

    def known(self, value: Any, path: str) -> str:
        node = _text(value, path)
        if node not in self.made.nodes:
            raise GraphError(
                f"{path}: there is no node {node!r} in processes.{near(node, self.made.nodes)}"
            )
        return node


def _exports(value: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    if isinstance(value, list):
        for at, item in enumerate(value):
            found = _map(item, f"{path}[{at}]")
            yield cast("str", found.get("public")), found, f"{path}[{at}]"
    else:
        for public, item in _map(value, path, empty=True).items():
            yield public, item, f"{path}[{public!r}]"


def _rest(
    found: Mapping[str, Any], known: tuple[str, ...], path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata and the unknown keys of a record."""
    metadata = _free(found.get("metadata"), f"{path}.metadata")
    return metadata, _extra(found, (*known, "metadata"), path)


def _extra(found: Mapping[str, Any], known: tuple[str, ...], path: str) -> dict[str, Any]:
    return _free({key: value for key, value in found.items() if key not in known}, path)


def _free(value: Any, path: str) -> dict[str, Any]:
    found = _map(value, path, empty=True)
    return cast("dict[str, Any]", json_value(found, path))


def _map(value: Any, path: str, *, empty: bool = False) -> dict[str, Any]:
    if empty and (value is None or value == []):
        return {}
    if not isinstance(value, dict):
        raise GraphError(f"{path}: expected a map, got {_short(value)}")
    return value


def _list(value: Any, path: str) -> list[Any]:
    if value is None or value == {}:
        return []
    if not isinstance(value, list):
        raise GraphError(f"{path}: expected a list, got {_short(value)}")
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str) or not value:
        raise GraphError(f"{path}: expected a text that is not empty, got {_short(value)}")
    return cast("str", json_value(value, path))


def _flag(value: Any, path: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise GraphError(f"{path}: expected true or false, got {_short(value)}")
    return bool(value)


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
