"""A runtime within this process: a project's Python components, wired over ``direct://``.

It is the real thing: participants with their queues, retries and dead letters, in milliseconds.
A message that ends as a dead letter, which nothing in the fixture takes, is a failure of its case.
"""

import asyncio
import base64
import itertools
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgflo.classic import Participant
from msgflo.declaration import Declaration, declared
from msgflo.engine import Engine
from msgflo.errors import (
    ComponentError,
    MsgFloError,
    PayloadError,
    SpecError,
    TransportError,
    UnknownComponent,
)
from msgflo.failure import Failure
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Definition, Port, queue_of_place
from msgflo.flow.graph import Export, Graph
from msgflo.flow.wiring import is_virtual, wire
from msgflo.loading import choose, find, load_components
from msgflo.payload import encode, plain
from msgflo.processes.library import Component, Library
from msgflo.spec.files import load_suites, suite_files
from msgflo.spec.runner import ERROR, MAIN, Fault, Network, Packet, Runtime
from msgflo.spec.suite import TESTEE, Suite
from msgflo.trace.flowtrace import Recording
from msgflo.trace.recorder import Recorder, Route, routes
from msgflo.transport import direct
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Delivery, Inlet

__all__ = ["InProcess"]

_numbers = itertools.count(1)

_OTHERWISE = "run the suite on a runtime: --command 'msgflo run' or --address URL"


class InProcess(Runtime):
    """Runs fixtures of a project's Python components in this process."""

    def __init__(self, root: Path) -> None:
        """Make one.

        Args:
            root: the project's folder; its library has the components.

        Raises:
            ConfigurationError: a configuration file of it cannot be understood.
        """
        self.library = Library.load(root)
        self._things: dict[str, Any] = {}

    def thing(self, component: str) -> Any:
        """Return the function, class or object behind a component's name.

        Raises:
            SpecError: there is none, or it is not Python.
        """
        if component not in self._things:
            self._things[component] = self._load(component)
        return self._things[component]

    def _load(self, name: str) -> Any:
        try:
            found = self.library.get(name)
        except UnknownComponent as error:
            raise SpecError(str(error)) from None
        path = self._python_file(found)
        if path is None:
            raise SpecError(
                f"component {name!r} cannot be run in this process: {_what(found)}; expected one "
                f"in Python. To test it, {_OTHERWISE}"
            )
        try:
            things = load_components(path)
        except MsgFloError as error:
            raise SpecError(f"component {name!r}: {error}") from error
        except Exception as error:
            raise SpecError(
                f"component {name!r}: {path} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if len(things) > 1:
            for candidate in (name, name.rpartition("/")[2], found.name.rpartition("/")[2]):
                with suppress(UnknownComponent):
                    return find(things, candidate)
        try:
            return choose(things, path)
        except ComponentError as error:
            raise SpecError(f"component {name!r}: {error}") from None

    def _python_file(self, found: Component) -> Path | None:
        """Return the file of a component in Python; also where a command says to run such a one."""
        if found.language == "python" and found.path is not None and found.origin == found.path:
            return self.library.root / found.path
        command = self.library.command(found.name, TESTEE) if found.starts else None
        if command is None or len(command.argv) < 2:
            return None
        program, file = Path(command.argv[0]).name, command.argv[1]
        path = (command.cwd or self.library.root) / file
        runs_python = re.fullmatch(r"python[0-9.]*|msgflo-python", program) is not None
        return path if runs_python and path.suffix == ".py" and path.is_file() else None

    def declaration(self, component: str, role: str) -> Declaration:
        """Return the declaration of a component, for a participant of its own."""
        thing = self.thing(component)
        if isinstance(thing, type) and issubclass(thing, Participant):
            make: Any = thing
            try:
                thing = make(role)
            except Exception as error:
                raise SpecError(
                    f"component {component!r} cannot be made: {type(error).__name__}: {error}"
                ) from error
        return declared(thing)

    async def ports(self, component: str) -> tuple[list[str], list[str]]:
        """Return the names of a component's inports and outports."""
        definition = self.declaration(component, TESTEE).definition(TESTEE)
        return (
            [port.id for port in definition.inports if port.queue],
            [port.id for port in definition.outports if port.queue],
        )

    async def start(self, graph: Graph, recording: Recording | None = None) -> "InProcessNetwork":
        """Run a graph."""
        network = InProcessNetwork(graph, recording)
        try:
            await network.start(self.declaration)
        except BaseException as error:
            await network.stop()
            if isinstance(error, MsgFloError) or not isinstance(error, Exception):
                raise
            raise SpecError(
                f"a component did not start: {type(error).__name__}: {error}"
            ) from error
        return network

    async def component_suites(self) -> list[Suite]:
        """Return the suites in the folder ``spec`` that are called as components of the project."""
        suites = []
        for file in suite_files(self.library.root / "spec"):
            names = {component.name.rpartition("/")[2] for component in self.library.components()}
            if file.stem in names:
                suites += load_suites(str(file))
        return suites

    async def close(self) -> None:
        """Let go of it: there is nothing to be done."""


def _what(component: Component) -> str:
    if component.virtual:
        return "no process runs for it"
    if component.foreign is not None:
        return f"{component.path} describes a participant that runs somewhere else"
    if component.language and component.origin == component.path:
        return f"{component.path} is {component.language}"
    return f"{component.origin} says to start it by the command {component.command!r}"


class InProcessNetwork(Network):
    """A fixture that runs in this process, on a broker of its own."""

    def __init__(self, graph: Graph, recording: Recording | None = None) -> None:
        super().__init__(graph, recording)
        self._name = f"spec-{next(_numbers)}"
        url = f"direct://{self._name}"
        self._client = direct.Client(url)
        self._broker = direct.Broker(url)
        self._collector = direct.Client(url)
        self._engines: dict[str, Engine] = {}
        self._queues: dict[str, str] = {}
        self._told: set[str] = set()
        self._ids = itertools.count(1)
        self._watching: list[asyncio.Task[None]] = []

    async def start(self, declaration: Callable[[str, str], Declaration]) -> None:
        """Start all participants and connect them.

        Args:
            declaration: gives the declaration for a component and a role.
        """
        for link in (self._client, self._broker, self._collector):
            await link.connect()
        initials: dict[str, dict[str, list[Any]]] = {}
        for initial in self.graph.initials:
            ports = initials.setdefault(initial.tgt.node, {})
            ports.setdefault(initial.tgt.port, []).append(initial.data)
        for node in self.graph.nodes.values():
            if not is_virtual(node.component):
                single = {
                    port: data[0]
                    for port, data in initials.get(node.id, {}).items()
                    if len(data) == 1
                }
                self._engines[node.id] = Engine(
                    declaration(node.component, node.id),
                    self._client,
                    node.id,
                    initials=single,
                    leave=lambda code, role=node.id: self._left(role, code),  # type: ignore[misc]
                    observer=self._observer(node.id),
                    restart_sources=False,
                )
        definitions = {role: engine.definition for role, engine in self._engines.items()}
        await self._wire(definitions)
        for engine in self._engines.values():
            await engine.start()
            self._watching.append(asyncio.create_task(self._watch(engine)))
        for role, ports in initials.items():
            for port, data in ports.items():
                if len(data) > 1:
                    for value in data:
                        await self._enqueue(self._inport(definitions, role, port).queue, value)

    async def _wire(self, definitions: Mapping[str, Definition]) -> None:
        wiring = wire(self.graph, definitions)
        pending = [it.reason for it in wiring.edges] + [it.reason for it in wiring.initials]
        if any(pending):
            raise SpecError("; ".join(dict.fromkeys(filter(None, pending))))
        # All queues first: a copy goes only to places that are there.
        for definition in definitions.values():
            inlets = [Inlet(port.queue, 1) for port in definition.inports if port.queue]
            await self._client.declare(inlets, [port.queue for port in definition.outports])
        for binding in sorted(wiring.bindings):
            await self._broker.bind(binding)
            if binding.kind is Kind.DEADLETTER:
                self._told.add(binding.source)
        for public, export in self.graph.inports.items():
            self._queues[public] = self._inport(definitions, export.node, export.port).queue
        for public, export in self.graph.outports.items():
            await self._collect(public, self._outport(definitions, export))
        if self.recording is not None:
            passed = routes(wiring.edges, definitions)
            for export in self.graph.outports.values():
                way: Route = ({"node": export.node, "port": export.port}, None)
                passed.setdefault(self._outport(definitions, export).queue, []).append(way)
            await Recorder(self._broker, self.recording, MAIN).follow(passed)
        bound = {binding.source for binding in await self._broker.bindings()}
        for definition in definitions.values():
            error = definition.outport(ERROR)
            if error is not None and error.queue in bound:
                self._told |= {port.queue for port in definition.inports}

    def _inport(self, definitions: Mapping[str, Definition], role: str, name: str) -> Port:
        definition = definitions.get(role)
        found = definition.inport(name) if definition else None
        return _there(found, role, "inport", name, definition.inports if definition else ())

    def _outport(self, definitions: Mapping[str, Definition], export: Export) -> Port:
        definition = definitions.get(export.node)
        found = definition.outport(export.port) if definition else None
        ports = definition.outports if definition else ()
        return _there(found, export.node, "outport", export.port, ports)

    async def _collect(self, public: str, port: Port) -> None:
        inlet = Inlet(f"spec-collects.{public}", 1)

        def deliver(delivery: Delivery) -> None:
            try:
                data = plain(delivery.body, delivery.headers)
            except PayloadError as error:
                self.happened.put_nowait(Fault(f"outport {public!r} sent what is no JSON: {error}"))
            else:
                self.happened.put_nowait(Packet(public, _sayable(data)))
            self._collector.settle(delivery)

        await self._collector.declare([inlet], [])
        await self._broker.bind(Binding(Kind.ROUNDROBIN, port.queue, inlet.queue))
        await self._collector.consume(inlet, 1000, deliver)

    # What happens.

    def _observer(self, role: str) -> Callable[[Delivery, Failure | None, bool], None]:
        def observe(delivery: Delivery, failure: Failure | None, over: bool) -> None:
            if failure is not None and over:
                queue, _ = queue_of_place(delivery.queue)
                if queue not in self._told:
                    text = f"{role}: {failure.error}: {failure.text}"
                    self.happened.put_nowait(Fault(text, failure.traceback))

        return observe

    def _left(self, role: str, code: int) -> None:
        self.happened.put_nowait(Fault(f"{role}: asked for its process to exit with {code}"))

    async def _watch(self, engine: Engine) -> None:
        try:
            await engine.sources_done()
        except Exception as error:
            text = f"{engine.role}: a source failed: {type(error).__name__}: {error}"
            self.happened.put_nowait(Fault(text))

    async def send(self, port: str, data: Any) -> None:
        """Send a packet to an exported inport."""
        await self._enqueue(self._queues[port], data)

    async def _enqueue(self, queue: str, data: Any) -> None:
        body, kind = encode(data)
        headers = {CONTENT_TYPE: kind, MESSAGE_ID: f"{self._name}-{next(self._ids)}"}
        await self._broker.enqueue(queue, body, headers)

    async def settled(self) -> None:
        """Wait until nothing waits or is in flight any more, but for dead letters."""
        while any(  # noqa: ASYNC110 - a broker has nobody to tell of it
            (it.waiting or it.in_flight) and not it.queue.startswith("dead-")
            for it in await self._broker.queues()
        ):
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Stop all participants."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for engine in self._engines.values():
            with suppress(TransportError):
                await engine.stop(0.5)
            await engine.close()
        self._engines.clear()
        for link in (self._collector, self._client, self._broker):
            await link.close()
        direct.forget(self._name)


def _there(
    port: Port | None, role: str, direction: str, name: str, ports: tuple[Port, ...]
) -> Port:
    if port is None or not port.queue:
        known = ", ".join(it.id for it in ports if it.queue) or "none"
        raise SpecError(
            f"the fixture exports {role}.{name}, but {role!r} has no {direction} {name!r}; "
            f"its {direction}s are: {known}"
        )
    return port


def _sayable(data: Any) -> Any:
    """Return data as a suite can name it: bytes as text, or else in base64."""
    if not isinstance(data, bytes):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()
