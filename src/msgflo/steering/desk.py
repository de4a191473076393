"""What clients want of a runtime, carried out on it.

Each method returns at once. What takes time is done behind, in the order in which it was wanted; if
it goes wrong, everybody is told.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from msgflo.coordinator.network import Event, Life
from msgflo.errors import ConfigurationError, MsgFloError, TraceError, TransportError
from msgflo.flow.discovery import queue_name
from msgflo.flow.graph import Graph
from msgflo.flow.parts import Change, Endpoint, Initial
from msgflo.flow.wiring import is_virtual
from msgflo.live import INSTANCES, LiveNetwork
from msgflo.processes.journal import Line
from msgflo.processes.supervisor import State
from msgflo.project import state_folder, write_atomically
from msgflo.protocol.messages import Message
from msgflo.protocol.session import Session
from msgflo.protocol.workspace import Identity, Kind, Port, Sheet, Source, Workspace
from msgflo.runtime import Runtime
from msgflo.steering.catalogue import Catalogue
from msgflo.steering.entering import Entrances
from msgflo.steering.operations import (
    PATIENCE,
    Operations,
    line_json,
    queues_json,
    status_json,
)
from msgflo.steering.recordings import Recordings
from msgflo.steering.taps import Taps, headers_of, initial_packets
from msgflo.trace.flowtrace import DEFAULT_EVENTS, DEFAULT_SIZE, dump_flowtrace
from msgflo.transport.contract import Broker

__all__ = ["RuntimeDesk", "identity_of"]

TOGETHER = 10.0
"""Seconds that a graph which a client starts waits for all its participants that are coming, so
that the first packet finds them there. It does not wait for those that have failed."""

_IN_TROUBLE = {State.BACKING_OFF, State.FAILED, State.EXITED, State.STOPPED}

UNBINDING = 2.0
"""Seconds that a graph which is removed waits for the broker to take its bindings out."""

LOOK_EVERY = 1.0
"""Seconds between looks at the queues of networks that run, while somebody may ask."""

TELL_EVERY = 0.5
"""Seconds between looks at what those want to know who have subscribed to it."""

FLOWTRACE = "flowtrace.json"

MOST_EVENTS = 100_000
"""So many events a client can have recorded of a graph."""

MOST_SENDING = 10_000
"""So many packets from clients wait to be put into queues."""

_UNSEEN = {"changenode", "changeedge", "addgroup", "removegroup", "renamegroup", "changegroup"}
"""Edits that no participant notices."""


def identity_of(root: Path, given: str = "") -> str:
    """Return a runtime's id: the one that is given, or that of earlier runs in the same folder.

    Raises:
        ConfigurationError: the state folder cannot be written.
    """
    if given:
        return given
    file = state_folder(root) / "runtime-id"
    with contextlib.suppress(OSError, ValueError):
        return str(uuid.UUID(file.read_text(encoding="ascii").strip()))
    made = str(uuid.uuid4())
    with contextlib.suppress(OSError):
        write_atomically(file, f"{made}\n".encode())
    return made


class RuntimeDesk:
    """Carries out on a runtime what its clients want.

    Args:
        runtime: not started yet, or started.
        main: the id of its graph.
        identity: the runtime's id.
        label: a line for people.
        persist: writes the graphs into their files.
        edited: called with each graph that was edited.
    """

    def __init__(
        self,
        runtime: Runtime,
        main: str,
        identity: str,
        *,
        label: str = "",
        persist: Callable[[], None] = lambda: None,
        edited: Callable[[Sheet], None] = lambda _: None,
    ) -> None:
        self._runtime = runtime
        self._persist = persist
        self._told_edited = edited
        self.catalogue = Catalogue(runtime.library)
        self._identity = Identity(
            identity, self.catalogue.namespace, label, runtime.library.repository
        )
        self.workspace = Workspace(main, runtime.graph, self, time.time)
        self.workspace.main.started = True
        self.workspace.main.since = time.time()
        self._taps = Taps(self.workspace, self._broker, self.network)
        self.recordings = Recordings(self._network_of, self._broker)
        self._ready = False
        self._stale: set[str] = set()
        self._flushing: asyncio.Handle | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sending: asyncio.Queue[tuple[str, bytes, str]] = asyncio.Queue(MOST_SENDING)
        self._busy: dict[str, bool] = {}
        self._entrances = Entrances(
            self._broker,
            lambda: self.network(self.workspace.main),
            lambda: f"client-{uuid.uuid4()}",
            self._say,
        )
        self._operations = Operations(self.workspace, runtime, self.network)

    # Its own life.

    def begin(self) -> None:
        """Begin; before the runtime has started, in the event loop."""
        self._runtime.on_told(self._heard)
        self._runtime.on_printed(self._printed)
        self._taps.start()
        self._spawn("send", self._send_all())
        self._spawn("look", self._look())
        self._spawn("tell", self._tell_changes())

    def runtime_started(self) -> None:
        """The runtime has started: what clients did meanwhile is carried out now."""
        self._ready = True
        main = self.workspace.main
        network = self._runtime.main
        if not main.started:
            network.pause(True)
        elif network.paused:
            # It was stopped when the runtime was killed, and is as it was then.
            self.workspace.stop(main)
        for sheet in self.workspace.sheets.values():
            self._stale.add(sheet.id)
            if not sheet.main and sheet.started:
                self._arrange(sheet)
        self._flush()

    async def close(self) -> None:
        """Let go of everything, before the runtime is closed. Idempotent."""
        self._ready = False
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        await self._operations.close()
        await self._entrances.close()
        await self._taps.close()
        await self.recordings.close()

    def _spawn(self, name: str, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[name] = task

    def _broker(self) -> Broker | None:
        return self._runtime.broker if self._ready else None

    def network(self, sheet: Sheet) -> LiveNetwork | None:
        """Return what runs of a graph; ``None``: nothing does."""
        if not self._ready:
            return None
        return self._runtime.networks.get("" if sheet.main else sheet.id)

    def _network_of(self, graph: str) -> LiveNetwork | None:
        sheet = self.workspace.sheets.get(graph)
        return None if sheet is None else self.network(sheet)

    # What the workspace asks for.

    @property
    def identity(self) -> Identity:
        """What the runtime says of itself."""
        return self._identity

    def edited(self, sheet: Sheet, changes: Iterable[Change]) -> None:
        """Carry out an edit of a graph."""
        changes = list(changes)
        self._told_edited(sheet)
        if sheet.started:
            added = [
                change.after
                for change in changes
                if change.kind == "addinitial" and isinstance(change.after, Initial)
            ]
            if added:
                self._show_initials(sheet, added)
        if not any(_is_seen(change) for change in changes):
            return
        self._stale.add(sheet.id)
        if self._ready and self._flushing is None:
            # Clients send many edits in a row; they are carried out together.
            self._flushing = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = None
        stale, self._stale = self._stale, set()
        for name in stale:
            sheet = self.workspace.sheets.get(name)
            network = self.network(sheet) if sheet is not None else None
            if sheet is not None and network is not None:
                network.change(sheet.graph)
        self._taps.change()
        self.recordings.change()

    def start(self, sheet: Sheet) -> None:
        """Run the network of a graph."""
        if self._ready:
            self._arrange(sheet)

    def stop(self, sheet: Sheet) -> None:
        """Have the network of a graph stand still."""
        if self._ready:
            self._arrange(sheet)

    def _arrange(self, sheet: Sheet) -> None:
        if sheet.main:
            self._runtime.main.pause(not sheet.started)
            return
        name = f"arrange {sheet.id}"
        running = self._tasks.get(name)
        if running is None or running.done():
            self._spawn(name, self._arrange_other(sheet))

    async def _arrange_other(self, sheet: Sheet) -> None:
        """Run a further graph, or stop it, until it is as its sheet says."""
        try:
            while sheet.started != (sheet.id in self._runtime.networks):
                if sheet.started:
                    network = await self._runtime.open(sheet.id, sheet.graph)
                    await self._begin(sheet, network)
                else:
                    if not sheet.graph.nodes:
                        await self._until_unbound(self._runtime.networks[sheet.id])
                    await self._runtime.shut(sheet.id)
        except MsgFloError as error:
            self._say(f"graph {sheet.id} cannot be run: {error}")

    async def _until_unbound(self, network: LiveNetwork) -> None:
        """Give a graph that was emptied the time to take its bindings out of the broker."""
        network.change(Graph())
        with contextlib.suppress(TimeoutError):
            await network.coordinator.until(
                lambda _: not network.coordinator.network.memory.bindings, UNBINDING
            )

    async def _begin(self, sheet: Sheet, network: LiveNetwork) -> None:
        """Have all participants of a graph take messages at once, when all of them are there."""
        network.change(sheet.graph)
        self._taps.change()
        self.recordings.change()

        def coming() -> bool:
            return sheet.started and any(
                role.started_here
                and role.network.life not in (Life.LIVE, Life.VIRTUAL)
                and not any(one.state in _IN_TROUBLE for one in role.instances)
                for role in network.status().roles
            )

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOGETHER):
                while coming():  # noqa: ASYNC110 - of processes too, which are no events here
                    await asyncio.sleep(0.02)
        await self._taps.settle(TOGETHER)
        await self.recordings.settle(TOGETHER)
        if sheet.started:
            self._show_initials(sheet)
            network.pause(False)

    def _show_initials(self, sheet: Sheet, added: Iterable[Initial] = ()) -> None:
        for packet in initial_packets(sheet, time.time(), added):
            self.workspace.saw(packet)
            if packet.tgt is not None:
                said = {"src": None, "tgt": packet.tgt.payload(), "data": packet.data}
                self.recordings.event(sheet.id, "data", said)

    def busy(self, sheet: Sheet) -> bool:
        """Tell whether a started network has anything to do, as far as was seen last."""
        return self._busy.get(sheet.id, False)

    def send(self, sheet: Sheet, tgt: Endpoint, data: Any) -> None:
        """Send something to an inport."""
        role, network = tgt.node, self.network(sheet)
        node = sheet.graph.nodes.get(tgt.node)
        if node is not None and is_virtual(node.component):
            raise MsgFloError(f"{tgt.node} is carried out by the broker; nothing can be sent to it")
        if not sheet.main:
            role = f"{sheet.id}/{role}"
        definition = network.definition(role) if network is not None else None
        port = definition.inport(tgt.port) if definition is not None else None
        queue = port.queue if port is not None and port.queue else queue_name(role, tgt.port)
        body = msgspec.json.encode(data)
        try:
            self._sending.put_nowait((queue, body, f"client-{uuid.uuid4()}"))
        except asyncio.QueueFull:
            raise MsgFloError(
                f"{MOST_SENDING} packets wait to be sent already; the broker does not take them"
            ) from None

    def watch(self) -> None:
        """Look at the edges that somebody wants to see."""
        self._taps.change()

    def persist(self) -> None:
        """Write the graphs into their files."""
        self._persist()

    def kinds(self) -> Iterable[Kind]:
        """Return the components of the library, as its files are now."""
        with contextlib.suppress(ConfigurationError):
            self._runtime.library.refresh()
        return self.catalogue.kinds()

    def port(self, component: str, name: str, inward: bool) -> Port | None:
        """Return what is known of a component's port."""
        return self.catalogue.port(component, name, inward)

    def source(self, name: str) -> Source:
        """Return a component's code."""
        return self.catalogue.source(name)

    def write(self, name: str, library: str, language: str, code: str) -> Kind:
        """Write a component's code; what runs well with the code before goes on with it."""
        kind = self.catalogue.write(name, library, language, code)
        for network in self._runtime.networks.values():
            network.component_written(kind.name)
        return kind

    # Behind.

    async def _send_all(self) -> None:
        while True:
            queue, body, message = await self._sending.get()
            while True:
                broker = self._broker()
                try:
                    if broker is None:
                        raise TransportError("the runtime is starting")
                    await broker.enqueue(queue, body, headers_of(message))
                    break
                except TransportError as error:
                    if broker is not None and broker.connected:
                        self._say(f"a packet for {queue} could not be sent: {error}")
                        break
                    await asyncio.sleep(0.2)  # it has the same id then

    async def _look(self) -> None:
        """Look from time to time whether there is anything left to do."""
        seen: set[str] = set()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            broker = self._broker()
            if broker is None or not self.workspace.audience:
                continue
            for sheet in list(self.workspace.sheets.values()):
                network = self.network(sheet)
                if network is None or not sheet.started:
                    self._busy.pop(sheet.id, None)
                    continue
                try:
                    stats = await broker.queues(network.queues())
                except TransportError:
                    continue
                anything = any(
                    queue.waiting or queue.in_flight
                    for queue in stats
                    if not queue.queue.startswith("dead-")
                )
                # What is seen once has gone by when somebody asks.
                self._busy[sheet.id] = anything and sheet.id in seen
                (seen.add if anything else seen.discard)(sheet.id)

    # What is heard of the network.

    def _heard(self, event: Event) -> None:
        for one in self.workspace.audience:
            if isinstance(one, Session):
                said = {"kind": event.kind, "role": event.role, "text": event.text}
                one.extended("events", "event", {**said, "instance": event.instance})
        where = self._place(event.role)
        if where is None:
            if event.kind in ("broker", "failed", "wrong"):
                self._say(event.text)
            return
        sheet, network, node = where
        match event.kind:
            case "live" | "changed":
                definition = network.definition(event.role)
                if definition is not None and event.kind == "live":
                    self._icon(sheet, node.id, definition.icon)
                if definition is not None and (
                    kind := self.catalogue.heard(definition, self._listed(node.component))
                ):
                    self.workspace.tell("component", "component", kind.payload())
                self._taps.change()
            case "failed" | "wrong" | "lost":
                self._trouble(sheet, node.id, event.text)
            case _:
                pass

    def _printed(self, line: Line) -> None:
        listeners = [it for it in self.workspace.audience if "logs" in _topics(it)]
        where = self._place(line.role) if listeners else None
        if where is None:
            return
        said = {"graph": where[0].id, "node": where[2].id, **line_json(line)}
        for one in listeners:
            if isinstance(one, Session):
                one.extended("logs", "log", said)

    def _place(self, role: str) -> tuple[Sheet, LiveNetwork, Any] | None:
        if role and self._ready:
            for sheet in self.workspace.sheets.values():
                network = self.network(sheet)
                if network is not None and role.startswith(network.scope):
                    node = sheet.graph.nodes.get(role.removeprefix(network.scope))
                    if node is not None:
                        return sheet, network, node
        return None

    def _listed(self, component: str) -> str:
        """Return the name under which the library lists a graph's component."""
        with contextlib.suppress(MsgFloError):
            return self._runtime.library.get(component).name
        return component

    def _trouble(self, sheet: Sheet, node: str, text: str) -> None:
        said = {"id": node, "error": text[:2000], "graph": sheet.id}
        self.workspace.tell("network", "processerror", said)
        self.recordings.event(sheet.id, "processerror", said)
        self._icon(sheet, node, "exclamation-triangle")

    def _icon(self, sheet: Sheet, node: str, icon: str) -> None:
        self.workspace.tell("network", "icon", {"id": node, "icon": icon, "graph": sheet.id})

    def _say(self, text: str) -> None:
        self.workspace.tell("network", "output", {"message": text[:2000], "type": "message"})

    # Traces.

    def trace(self, command: str, sheet: Sheet, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Start, stop, clear or dump a trace.

        Raises:
            TraceError: nothing is recorded that could be dumped, or there is no such format.
        """
        match command:
            case "start":
                events = max(1, min(int(payload.get("buffersize", DEFAULT_EVENTS)), MOST_EVENTS))
                self.recordings.start(sheet.id, events, DEFAULT_SIZE, self._about(sheet))
                return {"buffersize": events}
            case "stop":
                self.recordings.stop(sheet.id)
                return {}
            case "clear":
                self.recordings.clear(sheet.id)
                return {}
        kind = payload.get("type", FLOWTRACE)
        if kind != FLOWTRACE:
            raise TraceError(f"a trace cannot be dumped as {kind!r}; expected {FLOWTRACE!r}")
        found = self.recordings.flowtrace(sheet.id, sheet.graph)
        if found is None:
            raise TraceError(f"nothing was recorded of {sheet.id!r}; send trace:start first")
        return {"type": FLOWTRACE, "flowtrace": dump_flowtrace(found)}

    def start_trace(self, events: int, size: int) -> None:
        """Record the main graph from now on, as if a client had asked for it, but more of it.

        Args:
            events: how many events to keep.
            size: how many bytes of them.
        """
        main = self.workspace.main
        self.recordings.start(main.id, events, size, self._about(main))

    def _about(self, sheet: Sheet) -> dict[str, Any]:
        identity = self._identity
        said = {"label": sheet.id, "runtime": identity.id, "type": "msgflo"}
        said["namespace"] = identity.namespace
        return said | ({"repository": identity.repository} if identity.repository else {})

    # Participants that are graphs.

    def forward(self, graph: str, message: Message, reply: Callable[[str, str, Any], None]) -> bool:
        """Pass a message on to a participant that is a graph of this name, if there is one."""
        return self._entrances.forward(graph, message, reply)

    def leave(self, reply: Callable[[str, str, Any], None]) -> None:
        """No longer call ``reply``."""
        self._entrances.leave(reply)

    # The protocol msgflo.

    def ask(
        self,
        command: str,
        payload: Mapping[str, Any],
        answer: Callable[[dict[str, Any] | MsgFloError], None],
    ) -> None:
        """Do what a command of the protocol ``msgflo`` wants."""
        if not self._ready:
            raise ConfigurationError("the runtime is starting; ask again in a moment")
        self._operations.ask(command, payload, answer)

    async def _tell_changes(self) -> None:
        """Tell those who want to know how the networks and their queues are, when it is news."""
        told: dict[tuple[str, str], Any] = {}
        while True:
            await asyncio.sleep(TELL_EVERY)
            topics = {topic for one in self.workspace.audience for topic in _topics(one)}
            if not self._ready or topics.isdisjoint({"status", "queues"}):
                told.clear()
                continue
            for sheet in list(self.workspace.sheets.values()):
                network = self.network(sheet)
                if "status" in topics:
                    said = status_json(sheet, network, self._runtime, self.workspace)
                    news = {key: said[key] for key in said if key not in ("time", "uptime")}
                    self._tell_news(told, "status", sheet, news, said)
                if "queues" in topics and network is not None:
                    try:
                        async with asyncio.timeout(PATIENCE):
                            stats = await self._runtime.broker.queues(network.queues())
                    except (MsgFloError, TimeoutError):
                        continue
                    said = queues_json(sheet, network, stats)
                    self._tell_news(told, "queues", sheet, said["queues"], said)

    def _tell_news(
        self,
        told: dict[tuple[str, str], Any],
        topic: str,
        sheet: Sheet,
        news: Any,
        said: dict[str, Any],
    ) -> None:
        if told.get((topic, sheet.id)) != news:
            told[topic, sheet.id] = news
            for one in self.workspace.audience:
                if isinstance(one, Session):
                    one.extended(topic, f"{topic}:changed", said)


def _is_seen(change: Change) -> bool:
    """Tell whether participants, or their number, can be other by an edit."""
    if change.kind == "changenode":
        before, after = (getattr(it, "metadata", {}) for it in (change.before, change.after))
        return bool(before.get(INSTANCES) != after.get(INSTANCES))
    return change.kind not in _UNSEEN


def _topics(one: object) -> Iterable[str]:
    return one.topics if isinstance(one, Session) else ()
