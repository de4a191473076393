"""The classic way to write a component: a class with a definition, ``process``, ``send``, ``ack``.

It is the surface of the package ``msgflo`` 0.4, whose components run unchanged, on every
transport. What has become better: ``process`` is always told the port's name; a message may be
acknowledged from any thread, and is settled only when all that was sent before is confirmed;
``nack`` puts it into the dead letters; nothing is announced twice, and initial packets come once.
"""

import inspect
import threading
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from msgflo.declaration import Declaration, Entry
from msgflo.errors import ConnectionLost, DefinitionError, PayloadError, UnknownPort
from msgflo.flow.discovery import queue_name
from msgflo.payload import Payload, encode, plain
from msgflo.signature import Call, Context, Form, Inport, Outport
from msgflo.transport.contract import Retry

__all__ = ["Message", "Participant"]

EARLY = 1000
"""Packets that are kept while the participant does not run yet."""


class Message:
    """A message that came in, as :meth:`Participant.process` gets it.

    Attributes:
        buffer: the payload, as it was on the wire.
        headers: the metadata that came with it.
    """

    __slots__ = ("_context", "_data", "_decoded", "buffer", "headers")

    def __init__(
        self,
        buffer: bytes,
        headers: Mapping[str, str] | None = None,
        context: Context | None = None,
    ) -> None:
        self.buffer = buffer
        self.headers = headers or {}
        self._context = context
        self._decoded = False
        self._data: Any = None

    def __repr__(self) -> str:
        return f"<Message of {len(self.buffer)} bytes>"

    @property
    def data(self) -> Any:
        """The JSON value of the payload; its bytes, if it is not JSON."""
        if not self._decoded:
            try:
                self._data = plain(self.buffer, self.headers)
            except PayloadError:
                self._data = self.buffer
            self._decoded = True
        return self._data

    @property
    def json(self) -> Any:
        """The JSON value of the payload; if it is not JSON, the ValueError that says so."""
        try:
            return msgspec.json.decode(self.buffer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return ValueError(f"the payload is not JSON: {error}")


class Participant:
    """A component with a definition of its own, whose messages it acknowledges itself.

    ::

        class Repeat(msgflo.Participant):
            def __init__(self, role):
                definition = {
                    'component': 'Repeat', 'label': 'Repeats what comes in',
                    'inports': [{'id': 'in', 'type': 'any'}],
                    'outports': [{'id': 'out', 'type': 'any'}],
                }
                msgflo.Participant.__init__(self, definition, role)

            def process(self, inport, msg):
                self.send('out', msg.data)
                self.ack(msg)

    Args:
        definition: ``component``, and if wanted ``label``, ``icon``, ``inports`` and ``outports``:
            lists of ports, which have an ``id``, and may have ``type``, ``queue`` (where it is not
            to follow from role and port), ``description``, ``schema`` and ``hidden``. Without
            them the ports are ``in`` and ``out``, of type ``any``.
        role: the node of the graph.

    Attributes:
        definition: a copy of it, with what was left out.
        role: the node of the graph.
        concurrency: (of the class) how many calls of ``process`` may run at a time; 1, so that a
            component need not think of threads.
        prefetch: (of the class) how many messages are held at a time, those included that are not
            acknowledged yet; at least ``concurrency``. A component that goes on working after
            ``process`` has returned may want more than 1.
        retry: (of the class) how often a message is tried when ``process`` raises.

    Raises:
        DefinitionError: the definition is none; says what is wrong.
    """

    concurrency: int = 1
    prefetch: int = 1
    retry: Retry = Retry()

    definition: dict[str, Any]
    role: str

    def __init__(self, definition: Mapping[str, Any], role: str) -> None:
        if not isinstance(role, str) or not role:
            raise DefinitionError(f"a participant's role is {role!r}; expected a text")
        if not isinstance(definition, Mapping):
            raise DefinitionError(f"the definition of {role!r} is {definition!r}; expected a dict")
        self.role = role
        self.definition = {
            "component": type(self).__name__,
            "label": "",
            "icon": "file-word-o",
            **definition,
            "role": role,
        }
        for key, default in (("inports", "in"), ("outports", "out")):
            ports = definition.get(key)
            if ports is None:
                ports = [{"id": default, "type": "any"}]
            self.definition[key] = _ports(ports, key, role)
        self._lock = threading.RLock()
        self._engine: Any = None
        self._stopped = False
        self._early: deque[tuple[str, bytes, str]] = deque()

    def process(self, inport: str, msg: Message) -> None:
        """Handle a message; to be overridden. Runs in a thread, so that it may block.

        A message that is neither acked nor nacked stays in flight, and counts as one of those
        that may be held at a time; it comes again when the participant stops. If this raises
        before either, the message is tried again as ``retry`` says, and then is a dead letter.

        Args:
            inport: the name of the port, in the case of the definition.
            msg: what came.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override process()")

    def send(self, outport: str, data: Any) -> None:
        """Send a packet. May be called from any thread, and from :meth:`process`.

        Bytes are sent as they are, anything else as JSON. Waits while the outbox is full. What is
        sent before the participant runs is sent when it does.

        Raises:
            UnknownPort: there is no such outport.
            PayloadError: the data is neither bytes nor can it be said in JSON.
            ConnectionLost: the participant has stopped.
        """
        body, kind = encode(data)
        engine = self._engine
        if engine is None:
            with self._lock:
                self._find(outport)
                if self._engine is None:
                    if len(self._early) >= EARLY:
                        raise ConnectionLost(
                            f"{self.role!r} does not run, and {EARLY} packets wait already"
                        )
                    self._early.append((outport, body, kind))
                    return
                engine = self._engine
        if self._stopped:
            raise ConnectionLost(f"{self.role!r} has stopped")
        sender = engine.senders.get(outport)
        if sender is None:
            sender = engine.senders[self._find(outport)]
        sender.send(body, kind)

    def ack(self, msg: Message) -> None:
        """Say that a message is done. It is settled when all that was sent before is confirmed.

        May be called from any thread, and once; a second call has no effect.
        """
        if msg._context is not None:
            msg._context.ack()

    def nack(self, msg: Message) -> None:
        """Say that a message cannot be processed: it becomes a dead letter. Else as :meth:`ack`."""
        if msg._context is not None:
            msg._context.nack()

    @property
    def __msgflo__(self) -> Declaration:
        definition = self.definition
        if type(self).process is Participant.process and definition["inports"]:
            warnings.warn(
                f"{type(self).__name__} has inports but does not override process()", stacklevel=2
            )
        if inspect.iscoroutinefunction(type(self).process):
            raise DefinitionError(
                f"{type(self).__name__}.process() is async; expected def, or a class made from "
                f"msgflo.Component"
            )
        prefetch = max(self.prefetch, self.concurrency)
        entries = tuple(
            Entry(
                Call(
                    function=self._handler(port["id"]),
                    form=Form.PLAIN,
                    inport=Inport(
                        port["id"],
                        Payload(bytes, str(port["type"]), port.get("schema"), _as_it_came),
                        _queue(port),
                        port.get("description") or "",
                    ),
                    message="buffer",
                    context="context",
                ),
                retry=self.retry,
                concurrency=self.concurrency,
                prefetch=prefetch,
                ack="manual",
            )
            for port in definition["inports"]
        )
        return Declaration(
            component=str(definition["component"]),
            role=self.role,
            label=str(definition["label"] or ""),
            icon=str(definition["icon"] or "file-word-o"),
            entries=entries,
            outports=tuple(
                Outport(
                    port["id"],
                    Payload(Any, str(port["type"]), port.get("schema"), plain),
                    _queue(port),
                    port.get("description") or "",
                )
                for port in definition["outports"]
            ),
            attach=self._attach,
            at=type(self).__name__,
        )

    def _handler(self, inport: str) -> Callable[..., None]:
        def handle(buffer: bytes, context: Context) -> None:
            message = Message(buffer, context.headers, context)
            if self.concurrency > 1:
                self.process(inport, message)
            else:
                with self._lock:
                    self.process(inport, message)

        return handle

    def _attach(self, engine: Any) -> None:
        if engine is None:
            self._stopped = True
            return
        if self._engine is not None and not self._stopped:
            raise DefinitionError(
                f"{type(self).__name__} runs already as {self.role!r}; make another object of it"
            )
        self.definition["id"] = engine.definition.id
        with self._lock:
            while self._early:
                outport, body, kind = self._early.popleft()
                engine.senders[self._find(outport)].send(body, kind)
            self._engine = engine
            self._stopped = False

    def _find(self, outport: str) -> str:
        names = [port["id"] for port in self.definition["outports"]]
        for name in names:
            if name == outport or name.casefold() == str(outport).casefold():
                return str(name)
        raise UnknownPort(self.role, "outport", str(outport), names)


def _ports(ports: Any, key: str, role: str) -> list[dict[str, Any]]:
    if not isinstance(ports, list | tuple):
        raise DefinitionError(f"the definition of {role!r} has {key} {ports!r}; expected a list")
    found: list[dict[str, Any]] = []
    for port in ports:
        name = port.get("id") if isinstance(port, Mapping) else None
        if not isinstance(name, str) or not name:
            raise DefinitionError(
                f"the definition of {role!r} has {port!r} among its {key}; expected a dict with "
                f"an 'id'"
            )
        if any(other["id"] == name for other in found):
            raise DefinitionError(f"the definition of {role!r} has two {key} called {name!r}")
        copy = {"type": "any", **port}
        copy["queue"] = "" if port.get("hidden") else port.get("queue") or queue_name(role, name)
        found.append(copy)
    return found


def _queue(port: Mapping[str, Any]) -> str:
    queue: str = port["queue"]
    return queue


def _as_it_came(body: bytes, _headers: Mapping[str, str]) -> bytes:
    return body
