"""What is expected of a packet's data, and whether it is so. Pure.

=============  ==============================================================================
operator       holds for
=============  ==============================================================================
equals         the same JSON value; ``1`` is ``1.0`` but neither ``"1"`` nor ``true``
above, below   a number that is greater, or less, than the operand
type           data of this JSON type: object, array, string, number, boolean, null
haveKeys       an object with these keys and no others
includeKeys    an object with these keys, and maybe others
contains       a string with this part; an array with this element; an object with these entries
noterror       anything but an object with a ``message``
=============  ==============================================================================

All operators of an expectation count. With ``path``, a JSONPath, it is about the values that the
path selects: each of them, and there must be one.

Where npm ``fbp-spec`` judges otherwise: it checks the first operator alone; ``contains`` finds no
objects in arrays and compares no objects in objects there; a path of a value that is no object
fails there, whatever it is.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from msgflo.errors import SpecError, near
from msgflo.flow.values import same
from msgflo.spec.jsonpath import Path, parse_path

__all__ = ["OPERATORS", "Expectation", "judge", "parse_expectation", "shown", "type_of"]

_LONGEST: Final = 300

Problem: TypeAlias = str
"""What is wrong, as a sentence; ``""``: nothing."""


def shown(value: Any) -> str:
    """Return a value as JSON, cut to a length that fits a line or two."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def type_of(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list | tuple):
        return "array"
    return "object" if isinstance(value, Mapping) else type(value).__name__


_TYPES: Final = ("object", "array", "string", "number", "boolean", "null")


def _equals(actual: Any, operand: Any) -> Problem:
    return "" if same(actual, operand) else f"expected {shown(actual)} to equal {shown(operand)}"


def _above(actual: Any, operand: Any) -> Problem:
    if type_of(actual) != "number":
        return f"expected {shown(actual)} to be a number above {shown(operand)}"
    return "" if actual > operand else f"expected {shown(actual)} to be above {shown(operand)}"


def _below(actual: Any, operand: Any) -> Problem:
    if type_of(actual) != "number":
        return f"expected {shown(actual)} to be a number below {shown(operand)}"
    return "" if actual < operand else f"expected {shown(actual)} to be below {shown(operand)}"


def _type(actual: Any, operand: Any) -> Problem:
    found = type_of(actual)
    if found == operand.casefold():
        return ""
    return f"expected {shown(actual)} to be of type {operand}, got {found}"


def _keys(actual: Any) -> list[str] | None:
    """The keys of an object; of an array and a text, as in JavaScript, its places."""
    if isinstance(actual, Mapping):
        return list(actual)
    if isinstance(actual, list | tuple | str):
        return [str(place) for place in range(len(actual))]
    return None


def _names(operand: Any) -> list[str]:
    return [operand] if isinstance(operand, str) else [_word(key) for key in operand]


def _word(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def _have_keys(actual: Any, operand: Any) -> Problem:
    wanted, found = _names(operand), _keys(actual)
    if found is not None and set(found) == set(wanted):
        return ""
    return f"expected {shown(actual)} to have the keys {', '.join(wanted)} and no others"


def _include_keys(actual: Any, operand: Any) -> Problem:
    wanted, found = _names(operand), _keys(actual)
    missing = [key for key in wanted if key not in (found or ())]
    if found is not None and not missing:
        return ""
    return f"expected {shown(actual)} to have the keys {', '.join(wanted)}" + (
        f"; missing: {', '.join(missing)}" if found is not None else ""
    )


def _contains(actual: Any, operand: Any) -> Problem:
    problem = f"expected {shown(actual)} to contain {shown(operand)}"
    if isinstance(actual, str):
        scalar = operand is None or isinstance(operand, str | int | float)
        return "" if scalar and _word(operand) in actual else problem
    if isinstance(actual, list | tuple):
        return "" if any(same(item, operand) for item in actual) else problem
    if isinstance(actual, Mapping) and isinstance(operand, Mapping):
        held = all(key in actual and same(actual[key], operand[key]) for key in operand)
        return "" if held else problem
    return problem


def _no_error(actual: Any, _operand: Any) -> Problem:
    message = actual.get("message") if isinstance(actual, Mapping) else None
    return f"expected no error, got: {message}" if message else ""


OPERATORS: Final[Mapping[str, Callable[[Any, Any], Problem]]] = {
    "type": _type,
    "equals": _equals,
    "above": _above,
    "below": _below,
    "haveKeys": _have_keys,
    "includeKeys": _include_keys,
    "contains": _contains,
    "noterror": _no_error,
}
"""What each operator finds wrong with data, given its operand."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected of one packet.

    Attributes:
        checks: operators and their operands, at least one.
        path: what they are about; ``None``: the data as a whole.
    """

    checks: tuple[tuple[str, Any], ...]
    path: Path | None = None

    def problem(self, data: Any) -> Problem:
        """Return the first thing that is wrong with data; ``""``: nothing."""
        values = [data]
        if self.path is not None:
            values = self.path.select(data)
            if not values:
                return f"expected JSONPath '{self.path}' to match data in {shown(data)}"
        for value in values:
            for name, operand in self.checks:
                problem = OPERATORS[name](value, operand)
                if problem:
                    return f"{problem} (at {self.path})" if self.path is not None else problem
        return ""


def parse_expectation(said: Any) -> Expectation:
    """Read an expectation as a suite has it.

    Keys that are not known are passed over, as long as they do not look like an operator that was
    misspelt.

    Raises:
        SpecError: there is no operator, or an operand or the path is wrong.
    """
    if not isinstance(said, Mapping):
        raise SpecError(
            f"{shown(said)} is no expectation; expected a map with an operator: "
            f"{', '.join(OPERATORS)}"
        )
    known = [name for name in said if name in OPERATORS]
    for key in said:
        hint = near(key, [*OPERATORS, "path"])
        if key not in OPERATORS and key != "path" and (hint or not known):
            raise SpecError(
                f"there is no operator {key!r} to expect something with.{hint} "
                f"There are: {', '.join(OPERATORS)}"
            )
    if not known:
        raise SpecError(f"an expectation has no operator; expected one of: {', '.join(OPERATORS)}")
    checks = tuple((name, _operand(name, said[name])) for name in known)
    path = said.get("path")
    if path is None or path == "":
        return Expectation(checks)
    if not isinstance(path, str):
        raise SpecError(f"path is {shown(path)}; expected a JSONPath such as '$.a.b'")
    return Expectation(checks, parse_path(path))


def _operand(name: str, operand: Any) -> Any:
    kind = type_of(operand)
    match name:
        case "above" | "below" if kind != "number":
            raise SpecError(f"{name} is {shown(operand)}; expected a number")
        case "type" if kind != "string" or operand.casefold() not in _TYPES:
            raise SpecError(
                f"type is {shown(operand)}; expected one of: {', '.join(_TYPES)}"
                + (near(operand, _TYPES) if kind == "string" else "")
            )
        case "haveKeys" | "includeKeys":
            if kind == "object":
                return list(operand)
            if kind not in ("array", "string") or not operand:
                raise SpecError(f"{name} is {shown(operand)}; expected a list of keys, not empty")
    return operand


def judge(expected: Mapping[str, tuple[Expectation, ...]], packets: Mapping[str, Any]) -> Problem:
    """Return the first thing that is wrong with the packets of a step; ``""``: nothing.

    Args:
        expected: expectations by port.
        packets: the data of the last packet of each port that sent one.
    """
    for port, expectations in expected.items():
        if port not in packets:
            return f"expected data: No data received on port {port}"
        for expectation in expectations:
            problem = expectation.problem(packets[port])
            if problem:
                return problem if len(expected) == 1 else f"{port}: {problem}"
    return ""
