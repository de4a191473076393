"""YAML, as definitions and test suites are written: text to values with their lines, and back.

It is read as YAML 1.2, and of that what JSON can say: ``on``, ``off``, ``yes`` and ``no`` are
words, keys are texts as they are written (a port may be called ``1``), and a date is its text.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgflo.errors import YamlError

__all__ = ["Document", "dump_yaml", "load_yaml", "load_yaml_documents"]

_DEEPEST = 100
"""The loader's time grows with the square of the depth, and no file of ours is anywhere near."""

_MOST = 100_000
"""A few lines of aliases can stand for more values than there is memory."""

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Document:
    """One document of a text.

    Attributes:
        value: what it says, as JSON has it.
        name: the file, for errors.
    """

    value: Any
    name: str
    _lines: Mapping[tuple[int, str | int | None], int] = field(default_factory=dict, repr=False)

    def line(self, container: object, key: str | int | None = None) -> int:
        """Return the line, from 1, at which a map or list of it, or an entry of one, begins."""
        return self._lines.get((id(container), key)) or self._lines.get((id(container), None), 1)


def load_yaml(text: str, name: str) -> Any:
    """Return the value of a text that is one document; ``None`` for an empty one.

    Args:
        text: the text of the file.
        name: the file, for errors.

    Raises:
        YamlError: it is not YAML, or more than one document.
    """
    documents = load_yaml_documents(text, name)
    if len(documents) > 1:
        raise YamlError("it has several documents; expected one", name=name)
    return documents[0].value if documents else None


def load_yaml_documents(text: str, name: str) -> list[Document]:
    """Return the documents of a text.

    Raises:
        YamlError: it is not YAML.
    """
    if _depth(text) > _DEEPEST:
        raise YamlError(f"brackets are nested more than {_DEEPEST} deep", name=name)
    # Loaded on use: importing it takes longer than all of MsgFlo.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.error import YAMLError as AnyError

    # Pure, whatever else is installed: the loader in C reads YAML 1.1, to which `on` is true.
    loader = YAML(typ="safe", pure=True)
    try:
        nodes = list(loader.compose_all(io.StringIO(text)))
        return [_Reader(loader.constructor, name).document(node) for node in nodes]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        problem = error.problem or error.context or "it cannot be read"
        raise YamlError(problem, name=name, line=line, column=column) from None
    except (AnyError, ValueError, RecursionError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise YamlError(reason[0], name=name) from None


def dump_yaml(documents: Iterable[Any]) -> str:
    """Return documents as text: maps in their order, texts of several lines as they are."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - ruamel's signature
            return True

        def text(self, data: str) -> Any:
            style = None
            if not data.isprintable():
                lines = data.removesuffix("\n").split("\n")
                as_it_is = all(it.isprintable() and it == it.strip() for it in lines)
                as_it_is = as_it_is and bool(lines[0]) and bool(lines[-1])
                style = "|" if as_it_is else '"'
            return self.represent_scalar(f"{_TAG}str", data, style=style)

    Representer.add_representer(str, Representer.text)
    writer: Any = YAML(typ="safe", pure=True)
    writer.Representer = Representer
    writer.default_flow_style = False
    writer.allow_unicode = True
    writer.width = 100
    writer.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    writer.dump_all(list(documents), stream)
    return stream.getvalue()


def _depth(text: str) -> int:
    """Return how deep brackets are nested, at most; those in quotes count too."""
    depth = deepest = 0
    for bracket in re.findall(r"[][{}]", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


class _Reader:
    """Makes values of the loader's nodes, and notes their lines."""

    def __init__(self, constructor: Any, name: str) -> None:
        self.constructor = constructor
        self.name = name
        self.lines: dict[tuple[int, str | int | None], int] = {}
        self.count = 0

    def document(self, node: Any) -> Document:
        value = None if node is None else self.value(node, ())
        return Document(value, self.name, self.lines)

    def value(self, node: Any, within: tuple[Any, ...]) -> Any:
        self.count += 1
        if self.count > _MOST:
            raise self.wrong(node, f"it is too large: it stands for more than {_MOST} values")
        if any(node is outer for outer in within):
            raise self.wrong(node, "it contains itself")
        if len(within) > _DEEPEST:
            raise self.wrong(node, f"it is nested more than {_DEEPEST} deep")
        kind = type(node).__name__
        if kind == "ScalarNode":
            return self.scalar(node)
        if kind == "SequenceNode":
            return self.list_of(node, (*within, node))
        found: dict[str, Any] = {}
        self.fill(found, node, (*within, node), {})
        return found

    def scalar(self, node: Any) -> Any:
        tag = str(node.tag).removeprefix(_TAG)
        if tag == "null":
            return None
        if tag == "bool":
            return bool(self.constructor.construct_yaml_bool(node))
        if tag == "int":
            return int(self.constructor.construct_yaml_int(node))
        if tag == "float":
            return float(self.constructor.construct_yaml_float(node))
        if tag in {"str", "timestamp", "binary", "merge", "value"}:
            return str(node.value)
        raise self.wrong(node, f"nobody knows what {node.tag} is")

    def list_of(self, node: Any, within: tuple[Any, ...]) -> list[Any]:
        found: list[Any] = []
        self.lines[id(found), None] = node.start_mark.line + 1
        for number, item in enumerate(node.value):
            found.append(self.value(item, within))
            self.lines[id(found), number] = item.start_mark.line + 1
        return found

    def fill(
        self, found: dict[str, Any], node: Any, within: tuple[Any, ...], said: dict[str, int]
    ) -> None:
        self.lines.setdefault((id(found), None), node.start_mark.line + 1)
        merges = []
        for key_node, value_node in node.value:
            if type(key_node).__name__ != "ScalarNode":
                raise self.wrong(key_node, "a key is a map or a list; expected a text")
            if key_node.tag == f"{_TAG}merge":
                merges.append(value_node)
                continue
            key = str(key_node.value)
            if key in said:
                raise self.wrong(key_node, f"the key {key!r} is there twice (line {said[key]})")
            said[key] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, within)
            self.lines[id(found), key] = said[key]
        for merged in merges:
            for key, value in self.merged(merged, within):
                found.setdefault(key, value)

    def merged(self, node: Any, within: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
        """What ``<<`` brings in: the entries of a map, or of a list of maps."""
        value = self.value(node, within)
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise self.wrong(node, "what is merged is no map")
            yield from part.items()

    def wrong(self, node: Any, problem: str) -> YamlError:
        mark = node.start_mark
        return YamlError(problem, name=self.name, line=mark.line + 1, column=mark.column + 1)
