"""A whole network in one process: broker, processes, coordinator.

What ``msgflo run`` does, for use from Python::

    async with Runtime(load_graph(path), root=find_root(path)) as runtime:
        await runtime.until_complete(timeout=30)
        print(runtime.status())

Nothing that one role does wrong stops another: a component that is missing, a process that does
not start, an edge that cannot be bound are part of the status, with their reasons.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from msgflo import transport
from msgflo.broker import EmbeddedBroker
from msgflo.coordinator.coordinator import Coordinator
from msgflo.coordinator.network import Event, Life
from msgflo.errors import ConfigurationError, MsgFloError, near
from msgflo.flow.graph import Graph
from msgflo.flow.telemetry import TELEMETRY, Figures
from msgflo.flow.wiring import is_virtual
from msgflo.live import InstanceStatus, LiveNetwork, RoleView, RuntimeStatus
from msgflo.processes.journal import Journal, Line
from msgflo.processes.library import Library
from msgflo.processes.restarts import Limits
from msgflo.processes.supervisor import ProcessState, Supervisor
from msgflo.project import STATE, state_folder
from msgflo.trace.metrics import Metrics
from msgflo.transport.contract import Broker, QueueStats, redacted

__all__ = ["InstanceStatus", "RoleView", "Runtime", "RuntimeStatus"]


LOGS = "logs"
"""The folder, in the state folder, of what processes print."""

METRICS_TIMEOUT = 3.0
"""Seconds that the broker has to say how its queues are: who asks for metrics waits no longer."""


class Runtime:
    """Runs a graph.

    Args:
        graph: what to run.
        root: the project's folder, for components and state.
        broker: a broker's URL; ``None``: an embedded one is started, with its store in
            ``.msgflo/`` of the project, and stopped with the run.
        library: the components; ``None``: those of the project.
        scale: how many instances of a role, where it is not one; 0 starts none.
        only: start only these roles; ``None``: all.
        ignore: do not start these roles; they are wired when they announce themselves.
        restart: which processes are started again when they end: ``on-failure``, ``always``,
            ``never``.
        limits: how often and how soon processes are started again; ``None``: the usual.
        grace: seconds that processes have to end by themselves when they are stopped.
        output: called with each line that a process prints: role, instance, stream, line.
        told: called with what people would want to hear.
        strict: whether connections are refused whose types can never match; else that is told.

    Raises:
        ConfigurationError: a role is named that the graph does not have.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        root: Path,
        broker: str | None = None,
        library: Library | None = None,
        scale: Mapping[str, int] | None = None,
        only: frozenset[str] | None = None,
        ignore: frozenset[str] = frozenset(),
        restart: str = "on-failure",
        limits: Limits | None = None,
        grace: float = 10.0,
        output: Callable[[str, int, str, str], None] = lambda *_: None,
        told: Callable[[Event], None] = lambda _: None,
        strict: bool = False,
    ) -> None:
        self.graph = graph
        self._strict = strict
        self.root = root
        self.library = library if library is not None else Library.load(root)
        self._url = broker
        self._restart = restart
        self._listeners = [told]
        self._embedded: EmbeddedBroker | None = None
        self._broker: Broker | None = None
        self.journal = Journal(root / STATE / LOGS)
        self._printers: list[Callable[[Line], None]] = []
        self._output = output
        self._supervisor = Supervisor(
            self._printed, self._process_changed, grace=grace, limits=limits
        )
        self._closing = False
        scale = dict(scale or {})
        for role in (*scale, *(only or ()), *ignore):
            self._check_role(role)
        self._scale, self._only, self._ignore = scale, only, ignore
        self._metrics = Metrics()
        self._main: LiveNetwork | None = None
        self._others: dict[str, LiveNetwork] = {}

    def _check_role(self, role: str) -> None:
        names = [n.id for n in self.graph.nodes.values() if not is_virtual(n.component)]
        if role not in names:
            raise ConfigurationError(
                f"the graph has no role {role!r}; its roles are: {', '.join(names) or 'none'}."
                f"{near(role, names)}"
            )

    @property
    def url(self) -> str:
        """The broker's URL, with its password; empty before :meth:`start`."""
        return self._url or ""

    @property
    def address(self) -> str:
        """The broker's URL as it may be shown."""
        return redacted(self.url)

    @property
    def embedded(self) -> bool:
        """Whether this run has a broker of its own."""
        return self._embedded is not None

    @property
    def broker_pid(self) -> int | None:
        """The process of the embedded broker; ``None`` if there is none, or while it is down."""
        return self._embedded.pid if self._embedded is not None else None

    @property
    def broker(self) -> Broker:
        """The coordinator's side of the broker; from :meth:`start` on."""
        assert self._broker is not None, "the runtime was not started"
        return self._broker

    @property
    def coordinator(self) -> Coordinator:
        """The coordinator; from :meth:`start` on."""
        return self.main.coordinator

    @property
    def main(self) -> LiveNetwork:
        """The main graph, live; from :meth:`start` on."""
        assert self._main is not None, "the runtime was not started"
        return self._main

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the broker if there is none, the coordinator, then the processes.

        Returns when the processes are being started, not when they are ready: see
        :meth:`until_complete`.

        Raises:
            BrokerError: the embedded broker does not start; AlreadyRunning if another run has it.
            ConnectFailed: the broker cannot be reached.
            ConfigurationError: the state folder cannot be written.
        """
        try:
            folder = state_folder(self.root)
            if self._url is None:
                self._embedded = EmbeddedBroker(folder, on_event=self._broker_event)
                self._url = await self._embedded.start()
            self._broker = transport.broker(self._url)
            await self._broker.connect()
            if self._embedded is None:  # which tells itself, and sooner
                self._broker.on_lost(lambda why: self._tell("broker", f"the broker is lost: {why}"))
                self._broker.on_restored(lambda: self._tell("broker", "the broker is back"))
            # Before anybody is asked who is there: whoever answers says its figures too.
            await self._broker.tap(TELEMETRY, self._metrics.hear)
            self._main = LiveNetwork(
                self.graph,
                broker=self._broker,
                url=self._url,
                library=self.library,
                supervisor=self._supervisor,
                told=self._heard,
                memory=folder / f"network-{_slug(self.graph.name or 'main')}.json",
                scale=self._scale,
                only=self._only,
                ignore=self._ignore,
                restart=self._restart,
                strict=self._strict,
            )
            await self._main.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop the processes, then the coordinator, then the broker if it is ours. Idempotent."""
        self._closing = True
        await self._supervisor.close()
        self.journal.close()
        for network in self.networks.values():
            await network.close(leave_processes=True)
        if self._broker is not None:
            await self._broker.close()
        if self._embedded is not None:
            await self._embedded.stop()

    async def until_complete(self, timeout: float | None = None) -> RuntimeStatus:
        """Wait until everything that this run should start is live and every edge works.

        Raises:
            TimeoutError: not in this time (seconds).
        """
        await self.coordinator.until(lambda _: self.status().complete, timeout)
        return self.status()

    async def queues(self) -> list[QueueStats]:
        """Return how the graph's queues are doing, places and dead letters included."""
        return await self.broker.queues(self.main.queues())

    async def metrics(self, accept: str = "") -> tuple[str, bytes]:
        """Return how all that runs is doing, in the format of Prometheus.

        A broker that does not say within some seconds how its queues are is left out of it.

        Args:
            accept: the header ``Accept`` of whoever asks.

        Returns:
            The content type, and the text.
        """
        ports: dict[str, tuple[str, str]] = {}
        states: dict[str, dict[str, int]] = {}
        for network in self.networks.values():
            for role in network.status().roles:
                if role.network.life is Life.VIRTUAL:
                    continue
                name = role.network.role
                counts = states.setdefault(name, {str(Life.LIVE): 0})
                for instance in role.instances:
                    counts[str(instance.state)] = counts.get(str(instance.state), 0) + 1
                definition = network.definition(name)
                for port in definition.inports if definition is not None else ():
                    if port.queue:
                        ports[port.queue] = (name, port.id)
        queues: list[QueueStats] | None = None
        if self._broker is not None:
            with contextlib.suppress(MsgFloError, TimeoutError):
                async with asyncio.timeout(METRICS_TIMEOUT):
                    queues = await self._broker.queues(ports)
        return self._metrics.text(queues, ports, states, accept)

    def status(self) -> RuntimeStatus:
        """Return the whole network as it is now."""
        return self.main.status()

    # Other graphs.

    async def open(self, name: str, graph: Graph) -> LiveNetwork:
        """Run a further graph beside the main one, on the same broker, paused at first.

        Its roles are named ``NAME/NODE`` in the broker, so that two graphs do not meet.

        Args:
            name: what tells it from the others.
            graph: what to run.

        Raises:
            TransportError: the broker cannot be listened to.
        """
        network = LiveNetwork(
            graph,
            broker=self.broker,
            url=self.url,
            library=self.library,
            supervisor=self._supervisor,
            told=self._heard,
            memory=state_folder(self.root) / f"network-{_slug(name)}.graph.json",
            scope=f"{name}/",
            restart=self._restart,
            strict=self._strict,
            paused=True,
        )
        self._others[name] = network
        try:
            await network.start()
        except BaseException:
            await self.shut(name)
            raise
        return network

    async def shut(self, name: str) -> None:
        """Stop running a further graph; what is bound stays so. Idempotent."""
        network = self._others.pop(name, None)
        if network is not None:
            await network.close()

    @property
    def networks(self) -> dict[str, LiveNetwork]:
        """What runs, by name; the main graph is ``""``."""
        main = {"": self._main} if self._main is not None else {}
        return {**main, **self._others}

    def on_told(self, told: Callable[[Event], None]) -> None:
        """Have ``told`` called too with what people would want to hear."""
        self._listeners.append(told)

    def on_printed(self, printed: Callable[[Line], None]) -> None:
        """Have ``printed`` called with each line that a process prints."""
        self._printers.append(printed)

    def _printed(self, role: str, instance: int, stream: str, text: str) -> None:
        line = self.journal.add(role, instance, stream, text)
        for printed in self._printers:
            printed(line)
        self._output(role, instance, stream, text)

    def figures(self) -> Sequence[Figures]:
        """Return what each participant has said last of what it has done."""
        return self._metrics.figures

    def _process_changed(self, state: ProcessState) -> None:
        for network in self.networks.values():
            if network.has(state.role):
                network.process_changed(state)

    # What is heard.

    def _heard(self, event: Event) -> None:
        if not self._closing:
            for told in self._listeners:
                told(event)

    def _broker_event(self, text: str) -> None:
        if not self._closing:
            self._tell("broker", text)

    def _tell(self, kind: str, text: str, role: str = "") -> None:
        self._heard(Event(kind, role, text))


def _slug(name: str) -> str:
    """Return a file name for a graph: readable where it can be, and always different."""
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:60]
    return plain if plain == name else f"{plain}-{uuid.uuid5(uuid.NAMESPACE_OID, name).hex[:8]}"
