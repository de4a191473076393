"""What participants say of themselves: definitions, and the messages that announce them.

An announcement is a JSON object ``{"protocol": "discovery", "command": "participant",
"payload": definition}``, the format of every MsgFlo client since the first. Its definition has
exactly the seven keys that they know. What is new is said beside it, under the key ``msgflo``,
where they do not look::

    {"protocol": "discovery", "command": "participant",
     "payload": {"id": "resize-1-x7f3", "role": "resize", "component": "images/Resize",
                 "label": "", "icon": "compress",
                 "inports": [{"id": "in", "type": "object", "queue": "resize.IN"}],
                 "outports": [{"id": "out", "type": "any", "queue": "resize.OUT"}]},
     "msgflo": {"instance": 1, "places": true, "period": 60.0, "initials": ["size"]}}

There, ``"paused": true`` or ``false`` says that a participant can be paused, and whether it is.

A participant that stops says ``{"protocol": "discovery", "command": "goodbye", "payload":
{"id": ..., "role": ...}}``; clients that know nothing of it ignore it.

What a coordinator says to participants is an :class:`Instruction`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from msgflo.errors import DefinitionError

__all__ = [
    "DEFAULT_PERIOD",
    "PERIODS_TO_LIVE",
    "UNKNOWN_PERIOD",
    "Announcement",
    "Definition",
    "Goodbye",
    "Instruction",
    "Port",
    "parse_discovery",
    "parse_instruction",
    "place_of",
    "queue_name",
    "queue_of_place",
]

DEFAULT_PERIOD = 60.0
"""Seconds: a participant announces itself at least this often."""

UNKNOWN_PERIOD = 600.0
"""Seconds: what is assumed of a participant that does not say its period."""

LONGEST_PERIOD = 86400.0
"""Seconds: who says that it will be silent for longer counts as saying this."""

PERIODS_TO_LIVE = 2.5
"""A participant that was silent for so many of its periods is lost."""


def queue_name(role: str, port: str) -> str:
    """Return the name that a port's queue has unless its participant says otherwise.

    It is the convention of the Node.js client (``role.PORT``), on which tools rely that wire a
    network without having heard an announcement.
    """
    return f"{role}.{port.upper()}"


def place_of(queue: str, instance: int) -> str:
    """Return the name of an instance's own queue for the inport whose work queue is ``queue``."""
    return f"{queue}@{instance}"


def queue_of_place(place: str) -> tuple[str, int | None]:
    """Split a place's name into its work queue and instance; ``(place, None)`` if it is none."""
    queue, at, instance = place.rpartition("@")
    if at and queue and instance.isascii() and instance.isdecimal() and instance[0] != "0":
        return queue, int(instance)
    return place, None


class Port(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port as it is announced.

    Attributes:
        id: its name, in the case its author gave it.
        type: its FBP type, such as ``any``, ``string``, ``object``.
        queue: the name by which the broker knows it; ``""`` for a hidden port, which no
            connection can reach.
        description: a sentence for people.
        schema: a JSON Schema of its payloads, as far as known.
    """

    id: str
    type: str = "any"
    queue: str = ""
    description: str = ""
    schema: Any = None
    hidden: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the port as announcements have it: id, type, queue, and what else is set."""
        said: dict[str, Any] = {"id": self.id, "type": self.type, "queue": self.queue}
        if self.description:
            said["description"] = self.description
        if self.schema is not None:
            said["schema"] = self.schema
        return said


class Definition(msgspec.Struct, frozen=True):
    """What a participant is: its role, its component, its ports.

    Attributes:
        id: one running process; another after each start.
        role: the node of the graph that it fills.
        component: the kind of node.
        label: a line for people.
        icon: a FontAwesome name.
    """

    id: str
    role: str
    component: str
    label: str = ""
    icon: str = "file-o"
    inports: tuple[Port, ...] = ()
    outports: tuple[Port, ...] = ()

    def inport(self, name: str) -> Port | None:
        """Return the inport of this name, or the one whose name differs in case alone."""
        return _find(self.inports, name)

    def outport(self, name: str) -> Port | None:
        """Return the outport of this name, or the one whose name differs in case alone."""
        return _find(self.outports, name)

    def to_json(self) -> dict[str, Any]:
        """Return the seven keys of an announcement's payload; ports without queue are left out."""
        return {
            "id": self.id,
            "icon": self.icon,
            "role": self.role,
            "component": self.component,
            "label": self.label,
            "inports": [port.to_json() for port in self.inports if port.queue],
            "outports": [port.to_json() for port in self.outports if port.queue],
        }

    def same_ports(self, other: "Definition") -> bool:
        """Tell whether two participants of a role look the same from outside."""
        return (self.component, self.label, self.icon, self.inports, self.outports) == (
            other.component,
            other.label,
            other.icon,
            other.inports,
            other.outports,
        )


def _find(ports: Iterable[Port], name: str) -> Port | None:
    folded = None
    for port in ports:
        if port.id == name:
            return port
        if folded is None and port.id.casefold() == name.casefold():
            folded = port
    return folded


class Announcement(msgspec.Struct, frozen=True):
    """A definition, with what only our own participants say beside it.

    Attributes:
        definition: who announces itself.
        instance: which of its role's participants it is, from 1; ``None`` if it does not say.
        places: whether each of its inports has a place of its own beside the work queue.
        period: it announces itself at least this often, in seconds.
        initials: inports whose initial packet it was given at its start.
        paused: whether it was told to take no messages; ``None``: it cannot be told.
        runtime: what kind of runtime it is, such as ``noflo``, if it is a graph itself and speaks
            the FBP protocol; else ``""``.
        inqueue, outqueue: the queues by which it does.
        details: anything else that it says of itself (process id, host, version).
    """

    definition: Definition
    instance: int | None = None
    places: bool = False
    period: float = UNKNOWN_PERIOD
    initials: tuple[str, ...] = ()
    paused: bool | None = None
    runtime: str = ""
    inqueue: str = ""
    outqueue: str = ""
    details: Mapping[str, Any] = {}

    @property
    def time_to_live(self) -> float:
        """Seconds of silence after which the participant counts as lost."""
        return self.period * PERIODS_TO_LIVE

    def encode(self) -> bytes:
        """Return the announcement as it goes over the wire."""
        beside = dict(self.details)
        if self.instance is not None:
            beside["instance"] = self.instance
        beside["places"] = self.places
        beside["period"] = self.period
        if self.initials:
            beside["initials"] = list(self.initials)
        if self.paused is not None:
            beside["paused"] = self.paused
        return msgspec.json.encode(
            {
                "protocol": "discovery",
                "command": "participant",
                "payload": self.definition.to_json() | self._entrance(),
                "msgflo": beside,
            }
        )

    def _entrance(self) -> dict[str, str]:
        if not self.runtime:
            return {}
        return {"type": self.runtime, "inqueue": self.inqueue, "outqueue": self.outqueue}


class Goodbye(msgspec.Struct, frozen=True):
    """A participant stops, of its own accord."""

    id: str
    role: str

    def encode(self) -> bytes:
        """Return the message as it goes over the wire."""
        return msgspec.json.encode(
            {
                "protocol": "discovery",
                "command": "goodbye",
                "payload": {"id": self.id, "role": self.role},
            }
        )


class Instruction(msgspec.Struct, frozen=True):
    """What a coordinator tells participants.

    Attributes:
        command: ``announce``: say who you are. ``pause``: take no messages until you are told to
            ``resume``; what is in work is finished. Whoever does so announces itself, and being
            told again changes nothing.
        roles: whom it is for; empty: all. A participant passes over what is not for its role.
    """

    command: Literal["announce", "pause", "resume"]
    roles: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the message as it goes over the wire: ``b""`` to ask everybody who is there."""
        if self.command == "announce" and not self.roles:
            return b""
        return msgspec.json.encode(
            {
                "protocol": "discovery",
                "command": self.command,
                "payload": {"roles": list(self.roles)},
            }
        )

    def concerns(self, role: str) -> bool:
        """Tell whether it is for this role."""
        return not self.roles or role in self.roles


def parse_instruction(data: bytes) -> Instruction:
    """Read what a coordinator tells participants.

    Raises:
        DefinitionError: it is no instruction, or one that this version does not know.
    """
    if not data:
        return Instruction("announce")
    try:
        message = msgspec.json.decode(data)
        command, roles = message["command"], message["payload"]["roles"]
        if message["protocol"] != "discovery":
            raise ValueError
        return msgspec.convert({"command": command, "roles": roles}, Instruction)
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
        raise DefinitionError(
            f"not an instruction (expected a discovery message that says announce, pause or "
            f"resume, and to which roles): {_cut(data)}"
        ) from None


def parse_discovery(data: bytes) -> Announcement | Goodbye:
    """Read a message from the discovery channel, as strictly as its senders are careful.

    Accepted beyond the letter: a missing ``label`` or ``icon`` (or ``null``), a missing or empty
    ``id`` (microcontrollers have none; it is the role then), ports without a ``type`` (they are
    ``any``), unknown keys. Ports without a queue are kept, and cannot be wired.

    Raises:
        DefinitionError: with the reason, and the sender's role as far as it can be told.
    """
    try:
        message = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DefinitionError(f"an announcement is not JSON ({error}): {_cut(data)}") from None
    if not isinstance(message, dict) or message.get("protocol") != "discovery":
        raise DefinitionError(
            f"not a discovery message (expected a JSON object with protocol 'discovery'): "
            f"{_cut(data)}"
        )
    command = message.get("command")
    payload = message.get("payload")
    if not isinstance(payload, dict):
        raise DefinitionError(f"a discovery message has no payload object: {_cut(data)}")
    if command == "goodbye":
        role = _text(payload, "role")
        return Goodbye(id=_optional_text(payload, "id") or role, role=role)
    if command != "participant":
        raise DefinitionError(
            f"a discovery message has command {command!r}; expected 'participant' or 'goodbye'"
        )
    role = _text(payload, "role")
    definition = Definition(
        id=_optional_text(payload, "id") or role,
        role=role,
        component=_text(payload, "component", role),
        label=_optional_text(payload, "label"),
        icon=_optional_text(payload, "icon") or "file-o",
        inports=_ports(payload, "inports", role),
        outports=_ports(payload, "outports", role),
    )
    runtime = _optional_text(payload, "type")
    inqueue = outqueue = ""
    if runtime:
        inqueue = _optional_text(payload, "inqueue") or f".fbp.{definition.id}.receive"
        outqueue = _optional_text(payload, "outqueue") or f".fbp.{definition.id}.send"
    beside = message.get("msgflo")
    if not isinstance(beside, dict):
        return Announcement(definition, runtime=runtime, inqueue=inqueue, outqueue=outqueue)
    details = {
        key: value
        for key, value in beside.items()
        if key not in {"instance", "places", "period", "initials", "paused"}
    }
    instance = beside.get("instance")
    period = beside.get("period")
    initials = beside.get("initials")
    paused = beside.get("paused")
    return Announcement(
        definition,
        instance=instance if type(instance) is int and instance > 0 else None,
        places=beside.get("places") is True,
        period=float(min(period, LONGEST_PERIOD))
        if isinstance(period, int | float) and not isinstance(period, bool) and period > 0
        else UNKNOWN_PERIOD,
        initials=tuple(name for name in initials if isinstance(name, str))
        if isinstance(initials, list)
        else (),
        paused=paused if isinstance(paused, bool) else None,
        runtime=runtime,
        inqueue=inqueue,
        outqueue=outqueue,
        details=details,
    )


def _cut(data: bytes) -> str:
    shown = data[:120].decode("utf-8", "replace")
    return repr(shown) + (" ..." if len(data) > 120 else "")


def _of(role: str) -> str:
    return f" of role {role!r}" if role else ""


def _text(payload: Mapping[str, Any], key: str, role: str = "") -> str:
    value = payload.get(key)
    if not isinstance(value, str) or not value:
        raise DefinitionError(
            f"a discovery message{_of(role)} has {key} {value!r}; expected a text that is not empty"
        )
    return value


def _optional_text(payload: Mapping[str, Any], key: str) -> str:
    value = payload.get(key)
    return value if isinstance(value, str) else ""


def _ports(payload: Mapping[str, Any], key: str, role: str) -> tuple[Port, ...]:
    listed = payload.get(key)
    if listed is None:
        raise DefinitionError(f"the announcement{_of(role)} has no {key}; expected a list of ports")
    if not isinstance(listed, list):
        raise DefinitionError(
            f"the announcement{_of(role)} has {key} of type {type(listed).__name__}; "
            f"expected a list of ports"
        )
    ports = []
    for number, port in enumerate(listed):
        if not isinstance(port, dict) or not isinstance(port.get("id"), str) or not port["id"]:
            raise DefinitionError(
                f"the announcement{_of(role)} has {key}[{number}] = {_cut(repr(port).encode())}; "
                f"expected an object with an id"
            )
        queue = port.get("queue")
        kind = port.get("type")
        ports.append(
            Port(
                id=port["id"],
                type=kind if isinstance(kind, str) and kind else "any",
                queue=queue if isinstance(queue, str) else "",
                description=_optional_text(port, "description"),
                schema=port.get("schema"),
                hidden=port.get("hidden") is True,
            )
        )
    return tuple(ports)
