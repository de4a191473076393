"""Definitions of foreign participants, which run somewhere else and cannot announce themselves.

Somebody who can describes them in a YAML file::

    component: c-flo/Vacuum
    label: station vacuum cleaner
    icon: trash-o
    inports: {}
    outports:
      on:
        queue: c-base/#ROLE/on
        type: boolean

Ports are a map by name, or a list of maps with an ``id``. ``#ROLE`` in a queue stands for the role
that the definition is used for, so that one file describes many devices. Keys that are not known
are passed over. It is read as YAML 1.2: ``on``, ``off``, ``yes`` and ``no`` are names like others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgflo.errors import DefinitionError, YamlError
from msgflo.flow.discovery import Definition, Port, queue_name
from msgflo.flow.yamltext import load_yaml

__all__ = ["Foreign", "parse_foreign", "read_foreign"]

_LARGEST = 256 * 1024


@dataclass(frozen=True)
class Foreign:
    """A definition as its file has it, with ``#ROLE`` not yet put in.

    Attributes:
        component: the kind of node.
        label: a line for people.
        icon: a FontAwesome name, or ``""``.
        inports: its inports; a port without a queue gets the usual one of its role.
        outports: its outports.
        role: the role that the file names, if it does.
        id: the id that the file names, if it does; else the role stands for it.
    """

    component: str
    label: str = ""
    icon: str = ""
    inports: tuple[Port, ...] = ()
    outports: tuple[Port, ...] = ()
    role: str | None = None
    id: str | None = None

    def definition(self, role: str | None = None) -> Definition:
        """Return what is to be announced for a role.

        Args:
            role: the node of the graph; ``None``: the one that the file names.

        Raises:
            DefinitionError: neither the caller nor the file says a role.
        """
        used = role or self.role
        if not used:
            raise DefinitionError(
                f"the definition of {self.component!r} names no role, and none was given"
            )
        return Definition(
            id=_with_role(self.id, used) if self.id else used,
            role=used,
            component=self.component,
            label=self.label,
            icon=self.icon or "file-o",
            inports=tuple(_for_role(port, used) for port in self.inports),
            outports=tuple(_for_role(port, used) for port in self.outports),
        )


def _with_role(text: str, role: str) -> str:
    return text.replace("#ROLE", role)


def _for_role(port: Port, role: str) -> Port:
    queue = "" if port.hidden else _with_role(port.queue, role) or queue_name(role, port.id)
    return Port(
        id=port.id,
        type=port.type,
        queue=queue,
        description=port.description,
        schema=port.schema,
        hidden=port.hidden,
    )


def read_foreign(path: Path) -> Foreign:
    """Read a definition from a file.

    Raises:
        DefinitionError: it cannot be read, is no YAML or no definition.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise DefinitionError(f"{path} has {size} bytes; expected at most {_LARGEST}")
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise DefinitionError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not UTF-8: {error}") from None
    return parse_foreign(text, str(path))


def parse_foreign(text: str, name: str = "<definition>") -> Foreign:
    """Read a definition from a text.

    Args:
        text: one YAML document (JSON is YAML too).
        name: what errors call it.

    Raises:
        DefinitionError: it is no YAML (with line and column) or no definition (with what was
            expected).
    """
    try:
        loaded = load_yaml(text, name)
    except YamlError as error:
        raise DefinitionError(str(error)) from None
    if not isinstance(loaded, dict):
        raise DefinitionError(
            f"{name}: holds {_shown(loaded)}; expected a definition with component, inports, "
            f"outports"
        )
    component = _text(loaded.get("component"))
    if not component:
        raise DefinitionError(
            f"{name}: component is {_shown(loaded.get('component'))}; expected the component's name"
        )
    return Foreign(
        component=component,
        label=_text(loaded.get("label")),
        icon=_text(loaded.get("icon")),
        inports=_ports(loaded.get("inports"), "inports", name),
        outports=_ports(loaded.get("outports"), "outports", name),
        role=_text(loaded.get("role")) or None,
        id=_text(loaded.get("id")) or None,
    )


def _ports(listed: Any, key: str, name: str) -> tuple[Port, ...]:
    if listed is None:
        return ()
    pairs: list[tuple[str, Any]]
    if isinstance(listed, dict):
        pairs = [(_text(port), settings) for port, settings in listed.items()]
    elif isinstance(listed, list):
        pairs = []
        for number, settings in enumerate(listed):
            if not isinstance(settings, dict) or not _text(settings.get("id")):
                raise DefinitionError(
                    f"{name}: {key}[{number}] is {_shown(settings)}; expected a map with an id"
                )
            pairs.append((_text(settings["id"]), settings))
    else:
        raise DefinitionError(
            f"{name}: {key} is {_shown(listed)}; expected a map of ports by name, or a list of them"
        )
    ports: dict[str, Port] = {}
    for port, settings in pairs:
        if not port:
            raise DefinitionError(f"{name}: a port of {key} has no name")
        if port in ports:
            raise DefinitionError(f"{name}: {key} has two ports {port!r}")
        ports[port] = _port(port, settings, f"{name}: {key}, {port!r}")
    return tuple(ports.values())


def _port(port: str, settings: Any, where: str) -> Port:
    if settings is None:
        return Port(id=port)
    if not isinstance(settings, dict):
        raise DefinitionError(f"{where}: is {_shown(settings)}; expected a map with a queue")
    queue = settings.get("queue")
    if isinstance(queue, dict | list):
        raise DefinitionError(f"{where}: queue is {_shown(queue)}; expected a text")
    return Port(
        id=port,
        # Files of devices that predate the key's name say `datatype`.
        type=_text(settings.get("type")) or _text(settings.get("datatype")) or "any",
        queue=_text(queue),
        description=_text(settings.get("description")),
        schema=_plain(settings.get("schema"), where),
        hidden=settings.get("hidden") is True,
    )


def _text(value: Any) -> str:
    """Return a scalar as its author most likely wrote it: a name may look like a number."""
    if value is None or isinstance(value, dict | list):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _plain(value: Any, where: str) -> Any:
    """Return what JSON can say of a value; a date becomes its text."""
    # A few lines of YAML aliases can stand for more values than there is memory.
    left = 10_000

    def plain(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise DefinitionError(f"{where}: schema is too large")
        if isinstance(value, Mapping):
            return {_text(key): plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return str(value)

    try:
        return plain(value)
    except RecursionError:
        raise DefinitionError(f"{where}: schema is nested too deeply") from None


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
