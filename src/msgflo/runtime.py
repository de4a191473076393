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
import json
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from msgflo import transport
from msgflo.broker import EmbeddedBroker
from msgflo.coordinator.coordinator import Coordinator
from msgflo.coordinator.network import Event, Life, NetworkStatus, RoleStatus
from msgflo.errors import ComponentError, ConfigurationError, MsgFloError, near
from msgflo.flow.discovery import DEFAULT_PERIOD, Announcement, Definition, Goodbye
from msgflo.flow.graph import Graph
from msgflo.flow.wiring import by_convention, is_virtual
from msgflo.processes.foreign import Foreign
from msgflo.processes.library import Library
from msgflo.processes.restarts import Limits
from msgflo.processes.supervisor import ProcessState, State, Supervisor
from msgflo.project import state_folder
from msgflo.transport.contract import Broker, QueueStats, redacted

__all__ = ["InstanceStatus", "RoleView", "Runtime", "RuntimeStatus"]

WIRING_TIMEOUT = 5.0
"""Seconds that the start of the processes waits for the broker to bind what is known."""


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """A participant, or a process that is to become one.

    Attributes:
        instance: its number; ``None`` if it never said.
        state: ``live``, ``lost``, or its process's state, such as ``starting`` or ``failed``.
        reason: why it is not live, in words; ``""`` if it is.
        process: its process, if it was started here.
    """

    instance: int | None
    state: str
    reason: str = ""
    process: ProcessState | None = None


@dataclass(frozen=True, slots=True)
class RoleView:
    """A role with all that is known of it.

    Attributes:
        network: what the coordinator sees.
        instances: its participants and processes.
        started_here: whether this run starts its processes.
        reason: why no participant of it is live, in words; ``""`` if one is.
    """

    network: RoleStatus
    instances: tuple[InstanceStatus, ...]
    started_here: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """The whole network at one moment."""

    roles: tuple[RoleView, ...]
    network: NetworkStatus

    @property
    def complete(self) -> bool:
        """Whether all that this run should start is live, and every edge works."""
        return self.network.complete and all(
            instance.state == Life.LIVE
            for role in self.roles
            for instance in role.instances
            if role.started_here
        )


@dataclass(slots=True)
class _Role:
    instances: int
    problem: str = ""
    foreign: Foreign | None = None
    states: dict[int, ProcessState] = field(default_factory=dict)


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
        self._told = told
        self._embedded: EmbeddedBroker | None = None
        self._broker: Broker | None = None
        self._coordinator: Coordinator | None = None
        self._register: asyncio.Task[None] | None = None
        self._supervisor = Supervisor(output, self._process_changed, grace=grace, limits=limits)
        self._closing = False
        scale = dict(scale or {})
        for role in (*scale, *(only or ()), *ignore):
            self._check_role(role)
        self._roles: dict[str, _Role] = {}
        for node in graph.nodes.values():
            if is_virtual(node.component) or node.id in ignore:
                continue
            if only is None or node.id in only:
                self._roles[node.id] = _Role(scale.get(node.id, 1))

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
        assert self._coordinator is not None, "the runtime was not started"
        return self._coordinator

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
            self._coordinator = Coordinator(
                self._broker,
                self.graph,
                memory=folder / f"network-{_slug(self.graph.name or 'main')}.json",
                assumed=self._assumed(),
                told=self._heard,
                strict=self._strict,
            )
            await self._coordinator.start()
            await self._until_wired()
            await self._start_roles()
        except BaseException:
            await self.close()
            raise

    def _assumed(self) -> dict[str, Definition]:
        """Return what the roles that are started here are taken to be until they say so."""
        usual = by_convention(self.graph)
        assumed = {}
        for name in self._roles:
            with contextlib.suppress(ComponentError):  # told when it is to be started
                component = self.library.get(self.graph.nodes[name].component)
                if component.foreign is not None:
                    assumed[name] = component.foreign.definition(name)
                elif component.starts:
                    assumed[name] = usual[name]
        return assumed

    async def _until_wired(self) -> None:
        """Wait until what can be bound is, so that the first message finds its way.

        A broker that does not manage it in time holds up nothing but the first messages.
        """

        def wired(status: NetworkStatus) -> bool:
            return not any(
                edge.bindings and edge.reason and not edge.wrong for edge in status.edges
            )

        with contextlib.suppress(TimeoutError):
            await self.coordinator.until(wired, WIRING_TIMEOUT)

    async def close(self) -> None:
        """Stop the processes, then the coordinator, then the broker if it is ours. Idempotent."""
        self._closing = True
        if self._register is not None:
            self._register.cancel()
            await asyncio.gather(self._register, return_exceptions=True)
        await self._supervisor.close()
        if self._coordinator is not None:
            await self._coordinator.close()
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
        names: set[str] = set()
        for node in self.graph.nodes:
            definition = self.coordinator.network.definition(node)
            if definition is not None:
                names.update(port.queue for port in definition.inports if port.queue)
        return await self.broker.queues(names)

    def status(self) -> RuntimeStatus:
        """Return the whole network as it is now."""
        network = self.coordinator.status()
        return RuntimeStatus(tuple(self._view(role) for role in network.roles), network)

    # Roles and their processes.

    async def _start_roles(self) -> None:
        foreign: dict[str, Foreign] = {}
        starting: list[Coroutine[object, object, ProcessState]] = []
        for name, role in self._roles.items():
            node = self.graph.nodes[name]
            try:
                component = self.library.get(node.component)
                if component.foreign is not None:
                    role.foreign = foreign[name] = component.foreign
                    continue
                initials = self._initials(name)
                command = self.library.command(node.component, name, initials)
                if command is None:
                    role.problem = f"nothing here starts {node.component}"
                    continue
                common = {
                    "MSGFLO_BROKER": self.url,
                    "MSGFLO_ROLE": name,
                    "PYTHONUNBUFFERED": "1",
                }
                if initials:
                    common["MSGFLO_IIPS"] = json.dumps(initials)
                starting += [
                    self._supervisor.start(
                        name,
                        instance,
                        command.with_env({**common, "MSGFLO_INSTANCE": str(instance)}),
                        restart=self._restart,
                    )
                    for instance in range(1, role.instances + 1)
                ]
            except ComponentError as error:
                role.problem = str(error)
                self._tell("wrong", f"{name}: {error}", name)
        for result in await asyncio.gather(*starting, return_exceptions=True):
            # One that cannot be started is told, and shown, through _process_changed.
            if isinstance(result, BaseException) and not isinstance(result, ComponentError):
                raise result
        if foreign:
            self._register = asyncio.create_task(self._announce(foreign), name="announce foreign")

    def _initials(self, role: str) -> dict[str, object]:
        """Return a role's initial packets by port, those of ports that have just one."""
        packets: dict[str, list[object]] = {}
        for initial in self.graph.initials:
            if initial.tgt.node == role:
                packets.setdefault(initial.tgt.port, []).append(initial.data)
        return {port: data[0] for port, data in packets.items() if len(data) == 1}

    async def _announce(self, foreign: Mapping[str, Foreign]) -> None:
        """Announce participants that cannot do so themselves, for as long as we run."""
        client = transport.client(self.url)
        announcements = [
            Announcement(definition.definition(role), period=DEFAULT_PERIOD)
            for role, definition in foreign.items()
        ]
        asked = asyncio.Event()
        client.on_told(lambda _: asked.set())
        client.on_restored(asked.set)
        try:
            await client.connect()
            while True:
                asked.clear()
                for announcement in announcements:
                    await client.announce(announcement.encode())
                # As often as the original clients: a lost one or two must not matter.
                # (Not wait_for: until Python 3.12 it can swallow a cancellation.)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DEFAULT_PERIOD / 2.2):
                        await asked.wait()
        except MsgFloError as error:
            self._tell("failed", f"cannot announce foreign participants: {error}")
        finally:
            for announcement in announcements:
                definition = announcement.definition
                await client.announce(Goodbye(definition.id, definition.role).encode())
            await client.close()

    def _view(self, status: RoleStatus) -> RoleView:
        role = self._roles.get(status.role)
        instances: dict[int | None, InstanceStatus] = {}
        for participant in status.participants:
            number = participant.announcement.instance
            reason = "" if participant.life is Life.LIVE else "silent for too long"
            instances[number] = InstanceStatus(number, participant.life, reason)
        if role is not None:
            for number, state in role.states.items():
                there = instances.get(number) or (
                    instances.pop(None, None) if state.state is State.RUNNING else None
                )
                if there is not None and there.state == Life.LIVE:
                    instances[number] = InstanceStatus(number, Life.LIVE, process=state)
                else:
                    instances[number] = InstanceStatus(
                        number, str(state.state), state.reason, state
                    )
        ordered = tuple(sorted(instances.values(), key=lambda i: (i.instance is None, i.instance)))
        return RoleView(
            status, ordered, role is not None and not role.problem, self._why(status, role, ordered)
        )

    def _why(
        self, status: RoleStatus, role: _Role | None, instances: tuple[InstanceStatus, ...]
    ) -> str:
        if status.life in (Life.LIVE, Life.VIRTUAL):
            return ""
        if role is not None and role.problem:
            return role.problem
        reasons = [instance.reason for instance in instances if instance.reason]
        if reasons:
            return reasons[0]
        if role is None:
            return "not started here; waits for somebody to announce it"
        if role.instances == 0:
            return "scaled to 0 instances"
        return "starting"

    def _process_changed(self, state: ProcessState) -> None:
        role = self._roles[state.role]
        role.states[state.instance] = state
        if state.state in (State.BACKING_OFF, State.FAILED, State.EXITED) and not self._closing:
            if self._coordinator is not None:
                self._coordinator.vanished(state.role, state.instance)
            self._tell("failed", str(state), state.role)

    # What is heard.

    def _heard(self, event: Event) -> None:
        if event.kind == "live":
            self._supervisor.announced(event.role, event.instance)
        if not self._closing:
            self._told(event)

    def _broker_event(self, text: str) -> None:
        if not self._closing:
            self._tell("broker", text)

    def _tell(self, kind: str, text: str, role: str = "") -> None:
        if not self._closing:
            self._told(Event(kind, role, text))


def _slug(name: str) -> str:
    """Return a file name for a graph: readable where it can be, and always different."""
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:60]
    return plain if plain == name else f"{plain}-{uuid.uuid5(uuid.NAMESPACE_OID, name).hex[:8]}"
