"""JSON values, as data and metadata are: which are, which are the same, how they merge."""

import math
from collections.abc import Mapping
from typing import Any, Final, cast

from msgflo.errors import GraphError

__all__ = ["json_map", "json_name", "json_value", "merged", "same"]

MAX_DEPTH: Final = 100
"""How deep lists and maps may be nested. Deeper ones are an attack, or a bug."""


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same. ``True`` and ``1`` are not, unlike in Python.

    The order of a map's keys says nothing.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def json_value(value: Any, what: str, *, depth: int = 0) -> Any:
    """Return a copy of a JSON value that shares nothing with it.

    Args:
        value: what should be one.
        what: what it is, for the error.
        depth: how deep it is nested already.

    Raises:
        GraphError: it is not one, or is nested deeper than 100 levels.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise GraphError(f"{what} has {value}, which JSON cannot say")
        return value
    if isinstance(value, str):
        if not _is_unicode(value):
            raise GraphError(f"{what} has half a surrogate pair in {value!r}: it is no text")
        return value
    if depth >= MAX_DEPTH:
        raise GraphError(f"{what} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise GraphError(f"{what} has the key {wrong!r}; keys are texts")
        return {
            json_value(key, what): json_value(item, what, depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [json_value(item, what, depth=depth + 1) for item in value]
    raise GraphError(f"{what} has {value!r} of type {type(value).__name__}, which is no JSON value")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_name(name: str, what: str) -> str:
    """Return a name that may be given to something: a text that is not empty.

    Raises:
        GraphError: it is none.
    """
    if not isinstance(name, str) or not name:
        raise GraphError(f"{what} is {name!r}; it is a text that is not empty")
    return cast("str", json_value(name, what))


def json_map(metadata: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Return a copy of a map of JSON values; an empty one for ``None``.

    Raises:
        GraphError: it is none.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise GraphError(f"{what} are {metadata!r}; they are a map")
    return cast("dict[str, Any]", json_value(metadata, what))


def merged(there: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map with another merged into it, in which ``None`` removes a key.

    What is ``None`` already, and not spoken of, stays.
    """
    both = {**there, **new}
    return {key: both[key] for key in both if key not in new or new[key] is not None}
