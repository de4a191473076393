"""What ports a Python component has, as far as its file says without being run. Pure.

A tool that draws graphs wants to know the ports of a component before one of it runs. Running the
file would tell exactly, and would do whatever the file does; reading it tells nearly always the
same. What is read here is only a first guess: what a participant announces counts.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgflo.flow.discovery import Port

__all__ = ["Shape", "shapes_in"]

_TYPES = {
    "str": "string",
    "bytes": "buffer",
    "bytearray": "buffer",
    "int": "int",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "set": "array",
    "frozenset": "array",
    "List": "array",
    "Tuple": "array",
    "Set": "array",
    "FrozenSet": "array",
    "Sequence": "array",
    "dict": "object",
    "Mapping": "object",
}
_STREAMS = {
    *("Iterator", "Iterable", "Generator"),
    *("AsyncIterator", "AsyncIterable", "AsyncGenerator"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A component as its file draws it.

    Attributes:
        name: as the file says it, or that of its function or class.
        inports, outports: without queues.
        icon: ``""`` if none is said.
        label: the first line of its docstring, or what it says of itself.
    """

    name: str
    inports: tuple[Port, ...] = ()
    outports: tuple[Port, ...] = ()
    icon: str = ""
    label: str = ""


def shapes_in(code: str) -> list[Shape]:
    """Return the components of a Python file, in their order.

    Raises:
        SyntaxError: it is not Python. Strange input may raise ValueError, RecursionError or
            MemoryError too.
    """
    found = []
    tree = ast.parse(code)
    _resolve(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for kind, call in _decorators(node):
                if kind in {"component", "source"}:
                    found.append(_of_function(node, kind == "source", call))
                    break
        elif isinstance(node, ast.ClassDef):
            bases = {_last(base) for base in node.bases}
            if "Participant" in bases:
                found.append(_of_classic(node))
            elif "Component" in bases or any(k == "component" for k, _ in _decorators(node)):
                found.append(_of_class(node))
    return found


def _resolve(tree: ast.Module) -> None:
    """Call things by their own names, where a file has given them others."""
    known: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "msgflo":
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            # Another name for a type; or a type that is made, which may be of any kind.
            value = node.value
            known[node.targets[0].id] = value.id if isinstance(value, ast.Name) else "Any"
        elif isinstance(node, ast.ClassDef) and any("Enum" in _last(it) for it in node.bases):
            known[node.name] = "Any"
    for name in ast.walk(tree):
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load):
            name.id = known.get(name.id, name.id)


_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class _Ports:
    inports: list[Port] = field(default_factory=list)
    outports: list[Port] = field(default_factory=list)

    def add_in(self, port: Port) -> None:
        if all(port.id != known.id for known in self.inports):
            self.inports.append(port)

    def add_out(self, port: Port) -> None:
        """Add an outport; one that is there with another type may have any."""
        for number, known in enumerate(self.outports):
            if known.id == port.id:
                if known.type != port.type:
                    self.outports[number] = Port(port.id)
                return
        self.outports.append(port)


def _of_function(node: _Function, source: bool, call: ast.Call | None) -> Shape:
    ports = _Ports()
    _read(node, ports, source=source)
    return Shape(
        _first_text(call) or node.name,
        tuple(ports.inports),
        tuple(ports.outports),
        _text(_keyword(call, "icon")),
        _text(_keyword(call, "label")) or _docline(node),
    )


def _read(
    node: _Function,
    ports: _Ports,
    *,
    source: bool,
    method: bool = False,
    name: str = "",
) -> None:
    arguments = [*node.args.posonlyargs, *node.args.args][1 if method else 0 :]
    has_outs = False
    for argument in [*arguments, *node.args.kwonlyargs]:
        kind, inner, said = _unwrap(argument.annotation)
        bare = argument.arg.rstrip("_") or argument.arg
        if kind == "Context":
            continue
        if kind == "Out":
            has_outs = True
            ports.add_out(Port(said or bare, _type(inner)))
        elif kind == "Param":
            ports.add_in(Port(said or bare, _type(inner)))
        elif not source:
            ports.add_in(Port(said or name or "in", _type(inner)))
    if node.returns is None:
        if _yields(node) or not (has_outs or method):
            ports.add_out(Port("out"))
        return
    kind, inner, said = _unwrap(node.returns)
    if inner is not None and _last(inner) in {"NoReturn", "Never"}:
        return
    if isinstance(inner, ast.Subscript) and _last(inner.value) in _STREAMS:
        inner = _arguments(inner)[0]
    elif inner is not None and _is_none(inner) and not said:
        return
    ports.add_out(Port(said or "out", _type(inner)))


def _of_class(node: ast.ClassDef) -> Shape:
    ports = _Ports()
    call = next((c for kind, c in _decorators(node) if kind == "component"), None)
    said = {it.arg: _text(_value(it.value)) for it in node.keywords}
    icon = _text(_keyword(call, "icon")) or said.get("icon", "")
    label = _text(_keyword(call, "label")) or said.get("label", "")
    name = _first_text(call) or said.get("name", "")
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            attribute, value = item.targets[0].id, item.value
            if isinstance(value, ast.Call) and _last(value.func) == "Out":
                port = _text(_keyword(value, "name")) or attribute.rstrip("_")
                ports.add_out(Port(port, _type(value.args[0] if value.args else None)))
            elif isinstance(value, ast.Constant) and isinstance(value.value, str):
                icon = value.value if attribute == "icon" else icon
                label = value.value if attribute == "label" else label
                name = value.value if attribute in {"component", "name"} else name
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            kind, inner, port = _unwrap(item.annotation)
            if kind == "Out":
                ports.add_out(Port(port or item.target.id.rstrip("_"), _type(inner)))
            elif kind == "Param":
                ports.add_in(Port(port or item.target.id.rstrip("_"), _type(inner)))
        elif isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            for kind, found in _decorators(item):
                if kind in {"inport", "source"}:
                    _read(
                        item,
                        ports,
                        source=kind == "source",
                        method=True,
                        name=_first_text(found) or item.name.rstrip("_") or item.name,
                    )
    return Shape(
        name or node.name,
        tuple(ports.inports),
        tuple(ports.outports),
        icon,
        label or _docline(node),
    )


_IN, _OUT = (Port("in"),), (Port("out"),)


def _of_classic(node: ast.ClassDef) -> Shape:
    """Read the definition that a classic class gives to ``Participant.__init__``."""
    for item in ast.walk(node):
        if isinstance(item, ast.Dict):
            said = {
                key.value: value
                for key, value in zip(item.keys, item.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
            if "component" in said or "inports" in said or "outports" in said:
                # The class is what a graph names; what it calls its component is for announcing.
                return Shape(
                    node.name,
                    tuple(_literal_ports(said["inports"])) if "inports" in said else _IN,
                    tuple(_literal_ports(said["outports"])) if "outports" in said else _OUT,
                    _text(_value(said.get("icon"))),
                    _text(_value(said.get("label"))) or _docline(node),
                )
    return Shape(node.name, _IN, _OUT, "", _docline(node))


def _literal_ports(node: ast.expr | None) -> Iterator[Port]:
    listed = _value(node)
    if isinstance(listed, list):
        for port in listed:
            if isinstance(port, dict) and isinstance(port.get("id"), str):
                kind = port.get("type")
                yield Port(
                    port["id"],
                    kind if isinstance(kind, str) else "any",
                    description=_text(port.get("description")),
                )


def _value(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return None


def _decorators(
    node: _Function | ast.ClassDef,
) -> Iterable[tuple[str, ast.Call | None]]:
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        yield _last(call.func if call else decorator), call


def _last(node: ast.expr) -> str:
    """Return the last part of what is named, such as ``Out`` of ``msgflo.Out[str]``."""
    if isinstance(node, ast.Subscript):
        return _last(node.value)
    if isinstance(node, ast.Call):
        return _last(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _unwrap(annotation: ast.expr | None) -> tuple[str, ast.expr | None, str]:
    """Return which of ours an annotation is (or ``""``), the type in it, and the name it says."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError):
            return "", None, ""
    if annotation is None:
        return "", None, ""
    said = ""
    if isinstance(annotation, ast.Subscript) and _last(annotation.value) == "Annotated":
        wrapped, *extras = _arguments(annotation)
        for extra in extras:
            if isinstance(extra, ast.Call) and _last(extra.func) in {"In", "Out"}:
                said = _first_text(extra) or _text(_keyword(extra, "name")) or said
        kind, inner, deeper = _unwrap(wrapped)
        return kind, inner, said or deeper
    kind = _last(annotation)
    if kind in {"Out", "Param", "Context"}:
        of = _arguments(annotation)[0] if isinstance(annotation, ast.Subscript) else None
        return kind, of, said
    return "", annotation, said


def _arguments(node: ast.Subscript) -> list[ast.expr]:
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _type(node: ast.expr | None) -> str:
    if isinstance(node, ast.BinOp):  # A | None
        return _one([node.left, node.right])
    if isinstance(node, ast.Subscript) and _last(node.value) in {"Optional", "Union"}:
        return _one(_arguments(node))
    if isinstance(node, ast.Subscript) and _last(node.value) == "Literal":
        kinds = {type(_value(one)).__name__ for one in _arguments(node)}
        return _TYPES.get(kinds.pop(), "any") if len(kinds) == 1 else "any"
    if node is None:
        return "any"
    if _is_none(node):
        return "bang"
    name = _last(node)
    if name in {"Any", ""}:
        return "any"
    return _TYPES.get(name, "object" if name[0].isupper() else "any")


def _one(sides: list[ast.expr]) -> str:
    """Return the type of all these, ``None`` left out; ``any`` if they differ."""
    kinds = {_type(side) for side in sides if not _is_none(side)}
    return kinds.pop() if len(kinds) == 1 else "any"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _yields(node: ast.AST) -> bool:
    """Tell whether a function yields; what is defined within it is another one."""
    return any(
        isinstance(inner, ast.Yield | ast.YieldFrom)
        or (not isinstance(inner, _Function | ast.Lambda | ast.ClassDef) and _yields(inner))
        for inner in ast.iter_child_nodes(node)
    )


def _keyword(call: ast.Call | None, name: str) -> Any:
    for keyword in call.keywords if call else ():
        if keyword.arg == name:
            return _value(keyword.value)
    return None


def _first_text(call: ast.Call | None) -> str:
    if call is None:
        return ""
    first = _value(call.args[0]) if call.args else _keyword(call, "name")
    return _text(first)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _docline(node: _Function | ast.ClassDef) -> str:
    said = ast.get_docstring(node) or ""
    return said.strip().splitlines()[0] if said.strip() else ""
