"""A flowtrace as a runtime: a UI connects to it, sees its graphs, and what passed them once more.

Nothing can be changed in what has been. Each client that starts the network sees all of it from
the beginning, at its times, faster, or one event after the other as somebody asks for them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from msgflo.errors import MsgFloError
from msgflo.flow.parts import Endpoint
from msgflo.protocol.messages import Malformed, encode, parse
from msgflo.protocol.server import Conversation
from msgflo.protocol.session import VERSION, Output
from msgflo.protocol.workspace import Identity, Kind, Port, Source, date
from msgflo.trace.flowtrace import Event, Flowtrace, connection_text
from msgflo.trace.replay import play

__all__ = ["Replay"]

CAPABILITIES: Final = (
    "protocol:component",
    "component:getsource",
    "protocol:network",
    "network:status",
    "network:data",
    "network:control",
)
"""Read only: no graph can be edited, no packet sent."""

_PACKETS: Final = frozenset({"connect", "begingroup", "data", "endgroup", "disconnect"})


class Replay:
    """What all clients of one replay share.

    Attributes:
        trace: what is replayed.
        main: the id of the graph that clients see first.
        identity: what it says of itself.
        untold: how many events no client can be told of, because the protocol has no message for
            them: packets that left by an exported outport.
    """

    def __init__(
        self,
        trace: Flowtrace,
        *,
        speed: float = 1.0,
        step: bool = False,
        shown: Callable[[Event], None] = lambda _: None,
        now: Callable[[], float],
    ) -> None:
        """Make one that nobody has started.

        Args:
            trace: what to replay.
            speed: how many times faster than it was; 0: all at once.
            step: wait for :meth:`advance` before each event.
            shown: called with each event that is told to a client.
            now: tells the seconds since 1970.
        """
        self.trace = trace
        self.main = trace.main_graph
        label = trace.metadata.get("label")
        self.identity = Identity(
            id=str(trace.metadata.get("runtime") or f"flowtrace-{self.main}"),
            namespace=str(trace.metadata.get("namespace") or ""),
            label=f"Replay of {label if isinstance(label, str) and label else self.main}",
        )
        self.events = [event for event in trace.events if _message(event, self.main) is not None]
        self.untold = sum(
            event.protocol == "network" and event.command in _PACKETS for event in trace.events
        ) - sum(event.command in _PACKETS for event in self.events)
        self.now = now
        self._speed = speed
        self._step = step
        self._shown = shown
        self._steps = asyncio.Semaphore(0)
        self._waiting = 0

    @property
    def waiting(self) -> bool:
        """Whether a client waits for :meth:`advance`."""
        return self._waiting > 0

    def advance(self) -> None:
        """Let each client that waits see its next event."""
        for _ in range(self._waiting):
            self._steps.release()

    def converse(self, output: Output) -> Conversation:
        """Return the conversation with one client."""
        return _Session(self, output)

    async def play(self, tell: Callable[[str], None]) -> None:
        """Tell all events, in their time."""

        async def do(event: Event) -> None:
            message = _message(event, self.main)
            assert message is not None
            tell(message)
            self._shown(event)

        async def ready(_: Event) -> None:
            self._waiting += 1
            try:
                await self._steps.acquire()
            finally:
                self._waiting -= 1

        await play(self.events, do, speed=self._speed, ready=ready if self._step else None)

    def kinds(self) -> list[Kind]:
        """Return the components that its graphs use, with the ports that they use of them."""
        ports: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
        for graph in self.trace.graphs.values():
            components = _components(graph)
            for name in components.values():
                ports.setdefault(name, ({}, {}))
            for node, port, inward in _used(graph):
                if node in components:
                    ports[components[node]][0 if inward else 1][port] = None
        return [
            Kind(
                name,
                tuple(Port(it, "all") for it in inports),
                tuple(Port(it, "all") for it in outports),
                icon="cog",
                subgraph=name in self.trace.graphs,
            )
            for name, (inports, outports) in ports.items()
        ]

    def source(self, name: str) -> Source:
        """Return the code of a graph.

        Raises:
            MsgFloError: there is no such graph in the trace.
        """
        graph = self.trace.graphs.get(name)
        if graph is None:
            graph = self.trace.graphs.get(name.removeprefix(f"{self.identity.namespace}/"))
        if graph is None:
            raise MsgFloError(
                f"the trace has no graph {name!r}; it has: {', '.join(self.trace.graphs) or 'none'}"
            )
        library, slash, plain = name.partition("/")
        if not slash:
            library, plain = "", name
        return Source(plain, library, "json", msgspec.json.encode(graph).decode())


def _components(graph: Mapping[str, Any]) -> dict[str, str]:
    """Return the component of each node of a graph, which may be anything that JSON can say."""
    processes = graph.get("processes")
    if not isinstance(processes, Mapping):
        return {}
    return {
        node: it["component"]
        for node, it in processes.items()
        if isinstance(it, Mapping) and isinstance(it.get("component"), str) and it["component"]
    }


def _used(graph: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Return the ports that a graph uses: node, port, and whether it is an inport."""
    found: list[tuple[str, str, bool]] = []

    def use(end: Any, inward: bool) -> None:
        if isinstance(end, Mapping) and end.get("process") and end.get("port"):
            found.append((str(end["process"]), str(end["port"]), inward))

    connections = graph.get("connections")
    for connection in connections if isinstance(connections, list) else ():
        if isinstance(connection, Mapping):
            use(connection.get("src"), False)
            use(connection.get("tgt"), True)
    for key, inward in (("inports", True), ("outports", False)):
        exports = graph.get(key)
        for it in exports.values() if isinstance(exports, Mapping) else ():
            use(it, inward)
    return found


def _message(event: Event, main: str) -> str | None:
    """Return an event as the protocol's message; ``None`` if it has none for it.

    That the network was started or stopped is not told again: this is said by the replay itself.
    """
    if event.protocol != "network" or event.error or event.command in {"started", "stopped"}:
        return None
    said = dict(event.payload)
    said["graph"] = event.graph or main
    if event.command in _PACKETS:
        said["id"] = connection_text(event.payload)
        for which in ("src", "tgt"):
            end = _endpoint(said.pop(which, None))
            if end is not None:
                said[which] = end
    elif event.command == "icon":
        said.setdefault("id", said.get("node"))
    elif event.command == "output" and "previewurl" in said:
        said.setdefault("url", said["previewurl"])
    try:
        return encode("network", event.command, said)
    except (ValueError, TypeError):
        return None


def _endpoint(found: Any) -> dict[str, Any] | None:
    if not isinstance(found, Mapping) or not found.get("node"):
        return None
    index = found.get("index")
    return Endpoint(
        str(found["node"]), str(found.get("port", "")), index if type(index) is int else None
    ).payload()


class _Session:
    """The conversation with one client of a replay."""

    def __init__(self, replay: Replay, output: Output) -> None:
        self._replay = replay
        self._output = output
        self._playing: asyncio.Task[None] | None = None
        self._started = False
        self._commands: dict[tuple[str, str], Callable[[Mapping[str, Any]], None]] = {
            ("runtime", "getruntime"): self._getruntime,
            ("component", "list"): self._list,
            ("component", "getsource"): self._getsource,
            ("network", "getstatus"): self._getstatus,
            ("network", "edges"): self._edges,
            ("network", "debug"): self._debug,
            ("network", "start"): self._start,
            ("network", "stop"): self._stop,
        }

    def receive(self, data: str | bytes) -> None:
        """Take a message, and answer it."""
        try:
            message = parse(data)
        except Malformed as error:
            self._answer(error.protocol, "error", {"message": str(error)})
            return
        command = self._commands.get((message.protocol, message.command))
        try:
            if command is None:
                raise MsgFloError(
                    f"this is a replay, which has no {message.protocol}:{message.command[:40]}"
                )
            command(message.payload)
        except MsgFloError as error:
            self._answer(message.protocol, "error", {"message": str(error)[:2000]})

    def close(self) -> None:
        """The client has gone."""
        if self._playing is not None:
            self._playing.cancel()

    def _answer(self, protocol: str, command: str, payload: Any) -> None:
        # An error in a protocol that has none is one of the network.
        known = protocol if protocol in {"runtime", "component", "graph", "trace"} else "network"
        self._output.answer(encode(known, command, payload))

    def _getruntime(self, _: Mapping[str, Any]) -> None:
        identity = self._replay.identity
        said: dict[str, Any] = {
            "id": identity.id,
            "type": "flowtrace-replay",
            "version": VERSION,
            "capabilities": list(CAPABILITIES),
            "allCapabilities": list(CAPABILITIES),
            "graph": self._replay.main,
            "label": identity.label,
        }
        if identity.namespace:
            said["namespace"] = identity.namespace
        self._answer("runtime", "runtime", said)

    def _list(self, _: Mapping[str, Any]) -> None:
        kinds = self._replay.kinds()
        for kind in kinds:
            self._answer("component", "component", kind.payload())
        self._answer("component", "componentsready", len(kinds))

    def _getsource(self, payload: Mapping[str, Any]) -> None:
        self._answer("component", "source", self._replay.source(str(payload.get("name"))).payload())

    @property
    def _status(self) -> dict[str, Any]:
        running = self._playing is not None and not self._playing.done()
        return {"graph": self._replay.main, "started": self._started, "running": running}

    def _getstatus(self, _: Mapping[str, Any]) -> None:
        self._answer("network", "status", self._status)

    def _edges(self, payload: Mapping[str, Any]) -> None:
        edges = payload.get("edges")
        said = [
            {which: end for which in ("src", "tgt") if (end := _endpoint(edge.get(which)))}
            for edge in (edges if isinstance(edges, list) else [])
            if isinstance(edge, Mapping)
        ]
        graph = str(payload.get("graph") or self._replay.main)
        self._answer("network", "edges", {"graph": graph, "edges": said})

    def _debug(self, payload: Mapping[str, Any]) -> None:
        graph = str(payload.get("graph") or self._replay.main)
        said = {"graph": graph, "enable": bool(payload.get("enable"))}
        self._answer("network", "debug", said)

    def _start(self, _: Mapping[str, Any]) -> None:
        """Begin, from the first event on, whatever was shown before."""
        self.close()
        self._started = True
        said = {"time": date(self._replay.now()), "started": True, "running": True}
        self._answer("network", "started", {"graph": self._replay.main, **said})
        self._playing = asyncio.get_running_loop().create_task(self._play(), name="replay")

    async def _play(self) -> None:
        try:
            await self._replay.play(self._output.answer)
        except Exception:
            logging.getLogger("msgflo").exception("the replay failed")
        self._stopped(started=True)

    def _stop(self, _: Mapping[str, Any]) -> None:
        self.close()
        self._started = False
        self._stopped(started=False)

    def _stopped(self, *, started: bool) -> None:
        said = {"time": date(self._replay.now()), "started": started, "running": False}
        self._answer("network", "stopped", {"graph": self._replay.main, **said})
