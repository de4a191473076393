"""Any runtime that speaks the FBP protocol: one that runs somewhere, or is started by a command."""

import asyncio
import contextlib
import os
import secrets
import signal
import string
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgflo.errors import ProtocolError, SpecError, UnknownComponent
from msgflo.flow.graph import Graph
from msgflo.processes.command import Command
from msgflo.processes.spawn import Spawned, spawn, why_not
from msgflo.protocol.client import Client
from msgflo.spec.runner import MAIN, Fault, Network, Packet, Runtime
from msgflo.spec.suite import Suite, parse_suites
from msgflo.trace.flowtrace import Recording

__all__ = ["DEFAULT_ADDRESS", "Remote"]

DEFAULT_ADDRESS: Final = "ws://localhost:3569"

_NEEDED: Final = ("protocol:graph", "protocol:network", "protocol:runtime")
_RECORDED: Final = frozenset(
    ("connect", "begingroup", "data", "endgroup", "disconnect", "error", "processerror", "icon")
)

_PAUSE: Final = 0.1
"""Seconds between two attempts to connect to a runtime that is starting."""

_GRACE: Final = 10.0
"""Seconds that a runtime has to end, with all its processes, before it is killed."""


class Remote(Runtime):
    """Runs fixtures on a runtime elsewhere. :meth:`open` makes one."""

    def __init__(
        self,
        client: Client,
        runtime: Mapping[str, Any],
        patience: float,
        printed: Callable[[str], None],
        child: "_Child | None",
    ) -> None:
        self.patience = patience
        self._client = client
        self._runtime = runtime
        self._printed = printed
        self._child = child
        self._components: dict[str, Mapping[str, Any]] | None = None
        self._networks: list[RemoteNetwork] = []
        self._hearing = asyncio.create_task(self._hear())

    @classmethod
    async def open(
        cls,
        address: str = DEFAULT_ADDRESS,
        *,
        secret: str = "",
        command: str = "",
        start_timeout: float = 10.0,
        command_timeout: float = 3.0,
        printed: Callable[[str], None] = lambda _line: None,
    ) -> "Remote":
        """Connect to a runtime, started first if a command is given.

        Args:
            address: where it is.
            secret: what it wants to hear; ``""``: nothing.
            command: a line for the shell that starts it; it is ended by :meth:`close`.
            start_timeout: seconds until it must be there.
            command_timeout: seconds for each of its answers.
            printed: called for each line that the started runtime, or a network, prints.

        Raises:
            SpecError: it is not there in time, or cannot run graphs.
        """
        if not address.startswith(("ws://", "wss://")):
            raise SpecError(f"{address!r} is no address of a runtime; expected ws://HOST:PORT")
        child = None
        if command:
            if await _listens(address):
                raise SpecError(
                    f"something listens at {address} already, so that {command!r} would not be "
                    f"what is tested; stop it, or leave out --command"
                )
            child = await _Child.start(command, printed)
        client = None
        try:
            client = await _connected(address, secret, start_timeout, command_timeout, child)
            runtime = await client.command("runtime", "getruntime")
            _check(runtime, address)
            return cls(client, runtime, start_timeout, printed, child)
        except BaseException:
            if client is not None:
                await client.close()
            if child is not None:
                await child.end()
            raise

    async def _hear(self) -> None:
        """Hand on what the runtime says without being asked."""
        try:
            async for push in self._client.pushes():
                said = push.payload if isinstance(push.payload, dict) else {}
                if (push.protocol, push.command) == ("network", "output") and said.get("message"):
                    self._printed(str(said["message"]))
                for network in self._networks:
                    network.heard(push.protocol, push.command, said)
        except ProtocolError as error:
            for network in self._networks:
                network.happened.put_nowait(Fault(str(error)))

    async def ports(self, component: str) -> tuple[list[str], list[str]]:
        """Return the names of a component's inports and outports, as the runtime lists them."""
        components = await self._list()
        base = component.rpartition("/")[2]
        alike = [name for name in components if name.rpartition("/")[2] == base]
        # Some runtimes find a component under any namespace, and list it under one of them.
        named = component if component in components else alike[0] if len(alike) == 1 else ""
        if not named:
            raise UnknownComponent(component, components, "(asked the runtime)")
        found = components[named]
        return _ids(found.get("inPorts")), _ids(found.get("outPorts"))

    async def _list(self) -> dict[str, Mapping[str, Any]]:
        if self._components is None:
            listed = await self._client.command("component", "list")
            self._components = {str(it["name"]): it for it in listed if _is_named(it)}
        return self._components

    async def start(self, graph: Graph, recording: Recording | None = None) -> "RemoteNetwork":
        """Build a graph in the runtime, and start it."""
        alphabet = string.ascii_letters + string.digits
        name = f"fixture.{''.join(secrets.choice(alphabet) for _ in range(10))}"
        command = self._client.command
        answered = _version(self._runtime) >= 0.7
        forgets = self._runtime.get("type") == "msgflo"
        network = RemoteNetwork(
            graph, self._client, name, recording, answered=answered, forgets=forgets
        )
        # One at a time: of what is heard now, nothing is about a network before it.
        self._networks[:] = [network]
        try:
            described = {"name": graph.name or name, "library": "", "icon": "", "description": ""}
            await command("graph", "clear", id=name, main=False, **described)
            for change in graph.changes():
                if change.kind not in ("changeproperties", "addgroup"):
                    payload = {"metadata": {}, **change.payload, "graph": name}
                    await command("graph", change.kind, **payload)
            await command("network", "start", graph=name)
            if recording is not None:
                await network.watch()
        except BaseException:
            await network.stop()
            raise
        return network

    async def component_suites(self) -> list[Suite]:
        """Return the suites that the sources of its components come with."""
        if "component:getsource" not in self._runtime["capabilities"]:
            return []
        suites: list[Suite] = []
        for component in await self._list():
            # One has no source to show; or its tests are of another kind.
            with contextlib.suppress(ProtocolError, SpecError):
                source = await self._client.command("component", "getsource", name=component)
                suites += parse_suites(str(source.get("tests") or ""), f"{component}, its tests")
        return suites

    async def close(self) -> None:
        """Disconnect, and end the runtime if it was started here. Idempotent."""
        self._networks.clear()
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
        await self._client.close()
        if self._child is not None:
            await self._child.end()


def _check(runtime: Any, address: str) -> None:
    """Refuse a runtime that cannot run suites."""
    said = runtime if isinstance(runtime, dict) else {}
    capabilities = said.get("capabilities")
    if not isinstance(capabilities, list) or not capabilities:
        raise SpecError(
            f"the runtime at {address} provides no capabilities; is it a secret that it wants "
            f"(--secret)?"
        )
    missing = [it for it in _NEEDED if it not in capabilities]
    if missing:
        raise SpecError(
            f"the runtime at {address} cannot run suites: it lacks {', '.join(missing)}"
        )


def _version(runtime: Mapping[str, Any]) -> float:
    try:
        return float(str(runtime.get("version")))
    except ValueError:
        return 0.7


def _is_named(component: Any) -> bool:
    return isinstance(component, dict) and "name" in component


def _ids(ports: Any) -> list[str]:
    listed = ports if isinstance(ports, list) else []
    return [str(port["id"]) for port in listed if isinstance(port, dict) and "id" in port]


class RemoteNetwork(Network):
    """A fixture that runs in a runtime elsewhere."""

    def __init__(
        self,
        graph: Graph,
        client: Client,
        name: str,
        recording: Recording | None = None,
        *,
        answered: bool,
        forgets: bool,
    ) -> None:
        super().__init__(graph, recording)
        self._forgets = forgets
        self._client = client
        self._name = name
        self._answered = answered
        self._running = True

    def heard(self, protocol: str, command: str, payload: Mapping[str, Any]) -> None:
        """Take what the runtime says without being asked, as far as it is about this network."""
        mine = payload.get("graph") == self._name
        if protocol == "network" and mine and command in _RECORDED:
            self._record(command, {k: it for k, it in payload.items() if k != "graph"})
        match protocol, command:
            case "runtime", "packet" if mine and payload.get("event") == "data":
                port, data = str(payload.get("port")), payload.get("payload")
                self.happened.put_nowait(Packet(port, data))
                export = self.graph.outports.get(port)
                if export is not None:
                    src = {"node": export.node, "port": export.port}
                    self._record("data", {"src": src, "data": data})
            case "network", "error" if mine or not payload.get("graph"):
                text = str(payload.get("message") or "the network failed")
                self.happened.put_nowait(Fault(text, str(payload.get("stack") or "")))
            case "network", "processerror" if mine or not payload.get("graph"):
                text = f"{payload.get('id')}: {payload.get('error')}"
                self.happened.put_nowait(Fault(text))

    async def watch(self) -> None:
        """Ask for what passes all edges, to be recorded; not all runtimes show that."""
        edges = [{"src": it.src.payload(), "tgt": it.tgt.payload()} for it in self.graph.edges]
        with contextlib.suppress(ProtocolError):
            await self._client.command("network", "edges", graph=self._name, edges=edges)

    def _record(self, command: str, payload: Mapping[str, Any]) -> None:
        if self.recording is not None:
            self.recording.add(command, payload, time=time.time(), graph=MAIN)

    async def send(self, port: str, data: Any) -> None:
        """Send a packet to an exported inport."""
        export = self.graph.inports[port]
        self._record("data", {"tgt": {"node": export.node, "port": export.port}, "data": data})
        packet = {"port": port, "event": "data", "payload": data, "graph": self._name}
        if self._answered:
            await self._client.command("runtime", "packet", **packet)
        else:  # before version 0.7 of the protocol
            await self._client.tell("runtime", "packet", **packet)

    async def settled(self) -> None:
        """Return at once: no message of the protocol tells of it."""

    async def stop(self) -> None:
        """Stop it. In a runtime that is not ours the graph stays: the protocol cannot end it."""
        if self._running:
            self._running = False
            with contextlib.suppress(ProtocolError):
                await self._client.command("network", "stop", graph=self._name)
                if self._forgets:
                    await self._client.ask("remove", graph=self._name)


async def _connected(
    address: str, secret: str, start_timeout: float, command_timeout: float, child: "_Child | None"
) -> Client:
    deadline = asyncio.get_running_loop().time() + start_timeout
    while True:
        client = Client(address, secret=secret, timeout=command_timeout)
        try:
            await client.connect()
        except ProtocolError as error:
            if child is not None and child.exited:
                raise SpecError(child.why()) from None
            if asyncio.get_running_loop().time() + _PAUSE > deadline:
                said = f" within {start_timeout:g} s (--start-timeout)" if child else ""
                printed = f"\n{child.why()}" if child is not None else ""
                raise SpecError(f"{error}{said}{printed}") from None
        else:
            return client
        await asyncio.sleep(_PAUSE)


async def _listens(address: str) -> bool:
    where = urlsplit(address)
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(where.hostname, where.port or 80)
    except (OSError, ValueError, TimeoutError):
        return False
    writer.close()
    return True


class _Child:
    """A runtime that was started here."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._lines: deque[str] = deque(maxlen=10)
        self._spawned: Spawned | None = None

    @classmethod
    async def start(cls, command: str, printed: Callable[[str], None]) -> "_Child":
        child = cls(command)

        def heard(_stream: str, line: str) -> None:
            child._lines.append(line)
            printed(line)

        shell = Command(("sh", "-c", command))
        try:
            child._spawned = await spawn(shell, f"msgflo-test-{secrets.token_hex(4)}", heard)
        except OSError as error:
            raise SpecError(f"cannot start {command!r}: {why_not(shell, error)}") from None
        return child

    @property
    def exited(self) -> bool:
        return self._spawned is None or self._spawned.exited.done()

    def why(self) -> str:
        """Say what is known of it: how it ended, and what it printed last."""
        state = "is running"
        if self._spawned is not None and self._spawned.exited.done():
            state = f"has ended with status {self._spawned.exited.result()}"
        said = "".join(f"\n  {line}" for line in self._lines) or " nothing"
        return f"{self.command!r} {state}; it printed last:{said}"

    async def end(self) -> None:
        spawned, self._spawned = self._spawned, None
        if spawned is not None:
            # The shell and what it runs first: a runtime ends its own processes in their order.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(spawned.pid, signal.SIGTERM)
            await asyncio.wait([spawned.exited], timeout=_GRACE)
            await spawned.end(0.5)
