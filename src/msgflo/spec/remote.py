"""Any runtime that speaks the FBP protocol: one that runs somewhere, or is started by a command."""

import asyncio
import contextlib
import os
import secrets
import signal
import string
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from msgflo.errors import SpecError, UnknownComponent
from msgflo.flow.graph import Graph
from msgflo.processes.command import Command
from msgflo.processes.spawn import Spawned, spawn, why_not
from msgflo.spec.connection import Connection, Refused
from msgflo.spec.runner import Fault, Network, Packet, Runtime
from msgflo.spec.suite import Suite, parse_suites

__all__ = ["DEFAULT_ADDRESS", "Remote"]

DEFAULT_ADDRESS: Final = "ws://localhost:3569"

_NEEDED: Final = ("protocol:graph", "protocol:network", "protocol:runtime")
_PAUSE: Final = 0.1
"""Seconds between two attempts to connect to a runtime that is starting."""

_GRACE: Final = 10.0
"""Seconds that a runtime has to end, with all its processes, before it is killed."""


class Remote(Runtime):
    """Runs fixtures on a runtime elsewhere. :meth:`open` makes one."""

    def __init__(self, connection: Connection, patience: float, child: "_Child | None") -> None:
        self.patience = patience
        self._connection = connection
        self._child = child
        self._components: dict[str, Mapping[str, Any]] | None = None

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
        child = None
        if command:
            if await _listens(address):
                raise SpecError(
                    f"something listens at {address} already, so that {command!r} would not be "
                    f"what is tested; stop it, or leave out --command"
                )
            child = await _Child.start(command, printed)
        try:
            connection = await _connect(address, secret, start_timeout, command_timeout, child)
            missing = [it for it in _NEEDED if it not in connection.capabilities]
            if missing:
                await connection.close()
                raise SpecError(
                    f"the runtime at {address} cannot run suites: it lacks {', '.join(missing)}"
                    if connection.capabilities
                    else f"the runtime at {address} provides no capabilities; is it a secret that "
                    f"it wants (--secret)?"
                )
        except BaseException:
            if child is not None:
                await child.end()
            raise

        def heard(protocol: str, command: str, payload: Mapping[str, Any]) -> None:
            if (protocol, command) == ("network", "output") and payload.get("message"):
                printed(str(payload["message"]))

        connection.listen(heard, lambda _reason: None)
        return cls(connection, start_timeout, child)

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
            found: dict[str, Mapping[str, Any]] = {}

            def heard(protocol: str, command: str, payload: Mapping[str, Any]) -> None:
                if (protocol, command) == ("component", "component"):
                    found[str(payload.get("name"))] = payload

            unlisten = self._connection.listen(heard, lambda _reason: None)
            try:
                await self._connection.command("component", "list", {})
            finally:
                unlisten()
            self._components = found
        return self._components

    async def start(self, graph: Graph) -> "RemoteNetwork":
        """Build a graph in the runtime, and start it."""
        alphabet = string.ascii_letters + string.digits
        name = f"fixture.{''.join(secrets.choice(alphabet) for _ in range(10))}"
        command = self._connection.command
        network = RemoteNetwork(graph, self._connection, name)
        try:
            described = {"name": graph.name or name, "library": "", "icon": "", "description": ""}
            await command("graph", "clear", {"id": name, "main": False, **described})
            for change in graph.changes():
                if change.kind not in ("changeproperties", "addgroup"):
                    payload = {"metadata": {}, **change.payload, "graph": name}
                    await command("graph", change.kind, payload)
            await command("network", "start", {"graph": name})
        except BaseException:
            await network.stop()
            raise
        return network

    async def component_suites(self) -> list[Suite]:
        """Return the suites that the sources of its components come with."""
        if "component:getsource" not in self._connection.capabilities:
            return []
        suites: list[Suite] = []
        for component in await self._list():
            with contextlib.suppress(SpecError):  # of no source; or tests of another kind
                source = await self._connection.command(
                    "component", "getsource", {"name": component}
                )
                suites += parse_suites(str(source.get("tests") or ""), f"{component}, its tests")
        return suites

    async def close(self) -> None:
        """Disconnect, and end the runtime if it was started here. Idempotent."""
        await self._connection.close()
        if self._child is not None:
            await self._child.end()


def _ids(ports: Any) -> list[str]:
    listed = ports if isinstance(ports, list) else []
    return [str(port["id"]) for port in listed if isinstance(port, dict) and "id" in port]


class RemoteNetwork(Network):
    """A fixture that runs in a runtime elsewhere."""

    def __init__(self, graph: Graph, connection: Connection, name: str) -> None:
        super().__init__(graph)
        self._connection = connection
        self._name = name
        self._running = True
        self._unlisten = connection.listen(
            self._heard, lambda reason: self.happened.put_nowait(Fault(reason))
        )

    def _heard(self, protocol: str, command: str, payload: Mapping[str, Any]) -> None:
        mine = payload.get("graph") == self._name
        match protocol, command:
            case "runtime", "packet" if mine and payload.get("event") == "data":
                self.happened.put_nowait(Packet(str(payload.get("port")), payload.get("payload")))
            case "network", "error" if mine or not payload.get("graph"):
                text = str(payload.get("message") or "the network failed")
                self.happened.put_nowait(Fault(text, str(payload.get("stack") or "")))
            case "network", "processerror" if mine or not payload.get("graph"):
                text = f"{payload.get('id')}: {payload.get('error')}"
                self.happened.put_nowait(Fault(text))

    async def send(self, port: str, data: Any) -> None:
        """Send a packet to an exported inport."""
        packet = {"port": port, "event": "data", "payload": data, "graph": self._name}
        await self._connection.command("runtime", "packet", packet)

    async def settled(self) -> None:
        """Return at once: no message of the protocol tells of it."""

    async def stop(self) -> None:
        """Stop it. The graph stays in the runtime: no message of the protocol removes one."""
        self._unlisten()
        if self._running:
            self._running = False
            with contextlib.suppress(Refused):
                await self._connection.command("network", "stop", {"graph": self._name})


async def _connect(
    address: str, secret: str, start_timeout: float, command_timeout: float, child: "_Child | None"
) -> Connection:
    deadline = asyncio.get_running_loop().time() + start_timeout
    while True:
        try:
            return await Connection.open(address, secret, command_timeout)
        except Refused:
            raise
        except SpecError as error:
            if child is not None and child.exited:
                raise SpecError(child.why()) from None
            if asyncio.get_running_loop().time() + _PAUSE > deadline:
                said = f" within {start_timeout:g} s (--start-timeout)" if child else ""
                printed = f"\n{child.why()}" if child is not None else ""
                raise SpecError(f"{error}{said}{printed}") from None
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
