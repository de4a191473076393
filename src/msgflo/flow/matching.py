"""Whether what one port sends can be what another one takes, as far as their announcements say.

Only what is certain is said: types that somebody invented, bytes, and whatever a schema does not
exclude may match.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Definition, Port
from msgflo.flow.wiring import Wiring

__all__ = ["mismatch", "mismatches", "without"]

_KINDS = {
    "string": "string",
    "int": "number",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "object": "object",
    "array": "array",
    "null": "null",
}
"""The types of ports and of schemas that say which JSON values there are. An integer may be sent
to a number, and a number may be whole."""

DEPTH = 8
"""So deep are schemas compared: they may mention themselves."""


def mismatch(sent: Port, taken: Port) -> str:
    """Return why nothing that the one sends can be what the other takes; ``""`` if something may.

    The reason is a path and two types, such as ``$.width: string is sent, number is taken``.
    """
    if taken.type == "bang":  # which any payload will do for
        return ""
    return _differ("$", _schema(sent), _schema(taken), sent.schema, taken.schema, DEPTH)


def mismatches(wiring: Wiring, definitions: Mapping[str, Definition]) -> dict[Binding, str]:
    """Return the bindings by which no message can ever fit, each with the reason.

    Args:
        wiring: what the graph asks for.
        definitions: what is known, by role.
    """
    sources = {port.queue: (role, port) for role, port in _ports(definitions, "outports")}
    targets = {port.queue: (role, port) for role, port in _ports(definitions, "inports")}
    found = {}
    for binding in sorted(wiring.bindings):
        if binding.kind is Kind.DEADLETTER or not (
            binding.source in sources and binding.target in targets
        ):
            continue
        (from_role, sent), (to_role, taken) = sources[binding.source], targets[binding.target]
        why = mismatch(sent, taken)
        if why:
            found[binding] = (
                f"{from_role} {sent.id.upper()} -> {taken.id.upper()} {to_role}: {why}, "
                f"so that no message can fit"
            )
    return found


def without(wiring: Wiring, refused: Mapping[Binding, str]) -> Wiring:
    """Return a wiring in which the edges that need these bindings are wrong, for that reason."""
    return replace(
        wiring,
        edges=tuple(
            replace(
                edge,
                bindings=tuple(it for it in edge.bindings if it not in refused),
                reason=next(refused[it] for it in edge.bindings if it in refused),
                wrong=True,
            )
            if any(it in refused for it in edge.bindings)
            else edge
            for edge in wiring.edges
        ),
    )


def _ports(definitions: Mapping[str, Definition], which: str) -> Iterator[tuple[str, Port]]:
    for role, definition in definitions.items():
        for port in getattr(definition, which):
            if port.queue:
                yield role, port


def _schema(port: Port) -> Any:
    return port.schema if isinstance(port.schema, dict) else {"type": port.type}


def _differ(path: str, sent: Any, taken: Any, sends: Any, takes: Any, depth: int) -> str:
    """Compare two schemas, whose references are looked up in ``sends`` and ``takes``."""
    sent, taken = _resolved(sent, sends), _resolved(taken, takes)
    there, here = _kinds(sent, sends), _kinds(taken, takes)
    if there is None or here is None:
        return ""
    if not there & here:
        return f"{path}: {_or(there)} is sent, {_or(here)} is taken"
    if there != {"object"} or here != {"object"} or not depth:
        return ""
    given, wanted = sent.get("properties"), taken.get("properties")
    if not isinstance(given, dict) or not isinstance(wanted, dict):
        return ""
    always = _names(sent.get("required"))
    for name in sorted(_names(taken.get("required"))):
        if name in always and name in given and name in wanted:
            why = _differ(f"{path}.{name}", given[name], wanted[name], sends, takes, depth - 1)
            if why:
                return why
        elif name not in given and sent.get("additionalProperties") is False:
            return f"{path}.{name}: nothing is sent, {name!r} is required"
    return ""


def _resolved(schema: Any, root: Any) -> Any:
    for _ in range(DEPTH):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        schema = root
        for step in reference[2:].split("/"):
            schema = schema.get(step) if isinstance(schema, dict) else None
    return None


def _kinds(schema: Any, root: Any, depth: int = DEPTH) -> frozenset[str] | None:
    """Return the kinds of values that fit a schema; None: nobody knows."""
    schema = _resolved(schema, root)
    if not isinstance(schema, dict) or not depth:
        return None
    if isinstance(schema.get("enum"), list):
        return frozenset(_kind_of(value) for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if isinstance(schema.get(several), list):
            all_kinds = [_kinds(it, root, depth - 1) for it in schema[several]]
            if any(kinds is None for kinds in all_kinds):
                return None
            return frozenset().union(*(kinds for kinds in all_kinds if kinds is not None))
    types = schema.get("type")
    names = types if isinstance(types, list) else [types]
    found = [_KINDS.get(name) if isinstance(name, str) else None for name in names]
    known = frozenset(kind for kind in found if kind is not None)
    return known if known and len(known) == len({*found}) else None


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _names(value: Any) -> set[str]:
    return {name for name in value if isinstance(name, str)} if isinstance(value, list) else set()


def _or(kinds: frozenset[str]) -> str:
    return " or ".join(sorted(kinds))
