"""One graph, live: its coordinator, and the processes of its roles, both following its edits.

What should run is compared with what does, role by role, whenever either changes; no edit waits
for a process, and no role for another.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from msgflo.coordinator.coordinator import Coordinator
from msgflo.coordinator.network import Event, Life, NetworkStatus, RoleStatus
from msgflo.errors import ComponentError, ConfigurationError, UnknownComponent
from msgflo.flow.discovery import Definition
from msgflo.flow.graph import Graph
from msgflo.flow.parts import Edge, Endpoint, Node
from msgflo.flow.wiring import by_convention, is_virtual
from msgflo.processes.announcing import Announcer
from msgflo.processes.command import Command
from msgflo.processes.foreign import Foreign
from msgflo.processes.library import Component, Library
from msgflo.processes.supervisor import ProcessState, State, Supervisor
from msgflo.transport.contract import Broker

__all__ = [
    "INSTANCES",
    "InstanceStatus",
    "LiveNetwork",
    "RoleView",
    "RuntimeStatus",
    "instances_said",
]

INSTANCES = "instances"
"""The key of a node's metadata that says how many instances of it to run."""

MOST_INSTANCES = 1000
"""A graph that wants more of a node has a slip in it."""

WIRING_TIMEOUT = 5.0
"""Seconds that the start of a role's processes waits for the broker to bind what they send to."""


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """A participant, or a process that is to become one.

    Attributes:
        instance: its number; ``None`` if it never said.
        state: ``live``, ``lost``, or its process's state, such as ``starting`` or ``failed``.
        reason: why it is not live, in words; ``""`` if it is.
        process: its process, if it was started here.
        paused: whether it takes no messages; ``None`` if it cannot be told to, or has not said.
    """

    instance: int | None
    state: str
    reason: str = ""
    process: ProcessState | None = None
    paused: bool | None = None


@dataclass(frozen=True, slots=True)
class RoleView:
    """A role with all that is known of it.

    Attributes:
        network: what the coordinator sees.
        instances: its participants and processes.
        started_here: whether this run starts its processes.
        reason: why no participant of it is live, in words; ``""`` if one is.
        wanted: how many processes of it are to run here.
    """

    network: RoleStatus
    instances: tuple[InstanceStatus, ...]
    started_here: bool
    reason: str
    wanted: int = 0


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
    component: str
    instances: int = 1
    problem: str = ""
    foreign: Foreign | None = None
    gone: bool = False
    states: dict[int, ProcessState] = field(default_factory=dict)
    have: dict[int, tuple[str, int]] = field(default_factory=dict)  # what each was started as
    turns: dict[int, int] = field(default_factory=dict)  # how often each was to be started anew
    edited: bool = False  # its component's code is not what its processes run
    task: asyncio.Task[None] | None = None


class LiveNetwork:
    """Runs a graph on a broker.

    Args:
        graph: what to run, not changed here; :meth:`change` says that it was edited.
        broker: connected; not closed here.
        url: the broker's, for the processes.
        library: the components.
        supervisor: runs the processes; not closed here. Whoever made it passes on what it says of
            our roles to :meth:`process_changed`.
        told: called with what people would want to hear.
        memory: the file that outlives the network's coordinator.
        scope: put before the nodes' names to make roles, for graphs that share a broker.
        scale: how many instances of a role, whatever the graph says at first; 0 starts none.
        only: start only these roles; ``None``: all.
        ignore: do not start these roles.
        restart: which processes are started again when they end.
        strict: refuse connections of ports whose types can never match, instead of warning.
        paused: its participants take no messages before it is resumed; ``None``: as it was when
            the coordinator was there last.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        broker: Broker,
        url: str,
        library: Library,
        supervisor: Supervisor,
        told: Callable[[Event], None],
        memory: Path | None = None,
        scope: str = "",
        scale: Mapping[str, int] | None = None,
        only: frozenset[str] | None = None,
        ignore: frozenset[str] = frozenset(),
        restart: str = "on-failure",
        strict: bool = False,
        paused: bool | None = None,
    ) -> None:
        self.scope = scope
        self.graph = _scoped(graph, scope)
        self.library = library
        self._url = url
        self._broker = broker
        self._supervisor = supervisor
        self._told = told
        self._scale = dict(scale or {})
        self._only = only
        self._ignore = ignore
        self._restart = restart
        self._roles: dict[str, _Role] = {}
        self._started = False
        self._closing = False
        self._announcer = Announcer(
            url,
            lambda why: self._tell("failed", f"cannot announce foreign participants: {why}"),
        )
        self._assumed: dict[str, Definition] = {}
        self._take_roles(self.graph)
        self._assume()
        self.coordinator = Coordinator(
            broker,
            self.graph,
            memory=memory,
            assumed=self._assumed,
            told=self._heard,
            strict=strict,
        )
        if paused is not None:
            self.coordinator.network.pause(paused)

    # From outside.

    @property
    def paused(self) -> bool:
        """Whether its participants are to take no messages."""
        return self.coordinator.network.paused

    def has(self, role: str) -> bool:
        """Tell whether a role's processes are started here."""
        return role in self._roles

    async def start(self) -> None:
        """Start the coordinator, then the processes.

        Returns when the processes are being started, not when they are ready.

        Raises:
            TransportError: the broker cannot be listened to.
        """
        self._started = True
        self._bring_all()  # each waits until what it sends has somewhere to go
        await self.coordinator.start()
        await self.until_brought()

    async def until_brought(self) -> None:
        """Wait until what should run has been started, and what should not has ended."""
        while tasks := [role.task for role in self._roles.values() if role.task is not None]:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, *, leave_processes: bool = False) -> None:
        """Stop the processes, then the coordinator. What is bound stays so. Idempotent.

        Args:
            leave_processes: the supervisor has ended them already.
        """
        self._closing = True
        await self._announcer.close()
        tasks = [role.task for role in self._roles.values() if role.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not leave_processes:
            await asyncio.gather(
                *(self._supervisor.stop(name) for name in self._roles), return_exceptions=True
            )
            for name, role in self._roles.items():
                for instance in list(role.have):
                    self._supervisor.forget(name, instance)
        # Who ends a network in good order starts it next time, whatever it was told before.
        self.coordinator.network.pause(False)
        await self.coordinator.close()

    def change(self, graph: Graph) -> None:
        """Tell that the graph was edited. Idempotent."""
        before, self.graph = self.graph, _scoped(graph, self.scope)
        self._take_roles(before)
        self._assume()
        self.coordinator.change_graph(self.graph)
        self._bring_all()

    def pause(self, paused: bool) -> None:
        """Have the participants take no messages, or take them again. Idempotent.

        Processes of participants that cannot be told are ended, and started again. What failed, and
        what runs code that was edited meanwhile, is started anew.
        """
        resumed = self.paused and not paused
        self.coordinator.pause(paused)
        if resumed:
            for role in self._roles.values():
                for instance, state in role.states.items():
                    if role.edited or state.state is State.FAILED:
                        role.turns[instance] = role.turns.get(instance, 0) + 1
                role.edited = False
        self._bring_all()

    def scale(self, role: str, instances: int) -> None:
        """Run so many instances of a role.

        Raises:
            ComponentError: nothing of it is started here.
            ValueError: ``instances`` is less than 0.
        """
        found = self._role(role)
        if instances < 0:
            raise ValueError(f"instances is {instances}; expected 0 or more")
        found.instances = instances
        self._bring_soon(role)

    def restart(self, role: str, instance: int | None = None) -> None:
        """Start the processes of a role anew, or that of one instance, with the code as it is now.

        Where the component could not be found, it is looked for again.

        Raises:
            ComponentError: it is not started here.
        """
        found = self._role(role, repairable=True)
        if instance is not None and instance not in range(1, found.instances + 1):
            raise ComponentError(
                f"{role} has no instance {instance} here; it has {found.instances}"
            )
        for number in range(1, found.instances + 1):
            if instance in (None, number):
                found.turns[number] = found.turns.get(number, 0) + 1
        if instance is None:
            found.edited = False
        found.problem = ""
        self._bring_soon(role)

    def component_written(self, component: str) -> None:
        """Tell that a component's code is new. Processes that run well are left alone."""
        for name, role in self._roles.items():
            with contextlib.suppress(ComponentError):
                if self.library.get(role.component).name != component:
                    continue
                role.edited = True
                role.problem = ""
                for instance, state in role.states.items():
                    if state.state in (State.FAILED, State.BACKING_OFF):
                        role.turns[instance] = role.turns.get(instance, 0) + 1
                self._bring_soon(name)
        self._assume()
        self.coordinator.change_graph(self.graph)

    def _role(self, name: str, *, repairable: bool = False) -> _Role:
        found = self._roles.get(name)
        if found is None or found.gone:
            known = ", ".join(self._roles) or "none"
            raise ComponentError(f"no role {name!r} is started here; started are: {known}")
        if found.foreign is not None:
            raise ComponentError(f"{name} runs somewhere else")
        if found.problem and not repairable:
            raise ComponentError(found.problem)
        return found

    def queues(self) -> set[str]:
        """Return the names of its inports' work queues, as far as they are known."""
        names: set[str] = set()
        for node in self.graph.nodes:
            definition = self.definition(node)
            if definition is not None:
                names.update(port.queue for port in definition.inports if port.queue)
        return names

    def definition(self, role: str) -> Definition | None:
        """Return what a role is, or is taken to be until it says so."""
        return self.coordinator.network.definition(role) or self._assumed.get(role)

    def status(self) -> RuntimeStatus:
        """Return the whole network as it is now."""
        network = self.coordinator.status()
        return RuntimeStatus(tuple(self._view(role) for role in network.roles), network)

    # What should run.

    def _take_roles(self, before: Graph) -> None:
        """Want what the graph has, which was another one before."""
        for node in self.graph.nodes.values():
            skipped = node.id in self._ignore or (
                self._only is not None and node.id not in self._only
            )
            if is_virtual(node.component) or skipped:
                continue
            role = self._roles.get(node.id)
            if role is None:
                said = instances_said(node)
                usual = 1 if said is None else said
                self._roles[node.id] = _Role(node.component, self._scale.get(node.id, usual))
                continue
            if role.gone or role.component != node.component:
                role.component, role.problem = node.component, ""
            known = before.nodes.get(node.id)
            said = instances_said(node)
            if known is None or instances_said(known) != said:
                role.instances = self._scale.get(node.id, 1) if said is None else said
        for name, role in self._roles.items():
            there = self.graph.nodes.get(name)
            role.gone = there is None or is_virtual(there.component)

    def _assume(self) -> None:
        """Take roles to be something until they say so, as far as the library has them.

        Those that are not started here too: what is sent before they come then waits for them.
        But not those that might find what was made for them to be wrong.
        """
        usual = by_convention(self.graph)
        self._assumed.clear()
        for node in self.graph.nodes.values():
            with contextlib.suppress(ComponentError):  # told when it is to be started
                component = self.library.get(node.component)
                if component.foreign is not None:
                    self._assumed[node.id] = component.foreign.definition(node.id)
                elif component.starts and (component.client or not self._broker.exacting):
                    self._assumed[node.id] = usual[node.id]

    async def _until_wired(self, name: str) -> None:
        """Wait until what a role sends has somewhere to go, as far as it can be bound.

        A broker that does not manage it in time holds up nothing but the first messages.
        """

        def wired(status: NetworkStatus) -> bool:
            definition = self.definition(name)
            sources = {port.queue for port in definition.outports} if definition else set()
            return not any(
                edge.reason and not edge.wrong and any(it.source in sources for it in edge.bindings)
                for edge in status.edges
            )

        with contextlib.suppress(TimeoutError):
            await self.coordinator.until(wired, WIRING_TIMEOUT)

    # Bringing it about.

    def _bring_all(self) -> None:
        for name in list(self._roles):
            self._bring_soon(name)

    def _bring_soon(self, name: str) -> None:
        role = self._roles[name]
        # One that is done, and not yet known to be, has not seen what changed since.
        busy = role.task is not None and not role.task.done()
        if self._started and not self._closing and not busy:
            role.task = asyncio.get_running_loop().create_task(
                self._bring(name, role), name=f"run {name}"
            )
            role.task.add_done_callback(lambda task: self._brought(name, role, task))

    def _brought(self, name: str, role: _Role, task: asyncio.Task[None]) -> None:
        if role.task is task:
            role.task = None
            if role.gone and not role.have and self._roles.get(name) is role:
                del self._roles[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the processes of {name} could not be managed", "exception": error}
            )

    async def _bring(self, name: str, role: _Role) -> None:
        """Start and end processes of a role until those run that should."""
        waited = False
        while not self._closing:
            wanted = self._wanted(name, role)
            stale = [i for i, known in role.have.items() if wanted.get(i) != known]
            if stale:
                await asyncio.gather(*(self._supervisor.stop(name, i) for i in stale))
                for instance in stale:
                    self._supervisor.forget(name, instance)
                    role.have.pop(instance, None)
                    role.states.pop(instance, None)
                continue
            missing = {i: what for i, what in wanted.items() if i not in role.have}
            if not missing:
                self._renew(name, role)
                return
            if not waited and not (self.paused and self._is_ours(role.component)):
                waited = True
                await self._until_wired(name)
                continue  # as it is wanted now
            try:
                command = self._command(name, role)
            except ComponentError as error:
                role.problem = str(error)
                self._tell("wrong", f"{name}: {error}", name)
                continue
            if command is None:
                role.problem = f"nothing here starts {role.component}"
                continue
            role.have |= missing
            results = await asyncio.gather(
                *(
                    self._supervisor.start(
                        name, instance, _of_instance(command, instance), restart=self._restart
                    )
                    for instance in missing
                ),
                return_exceptions=True,
            )
            for result in results:
                # One that cannot be started is told, and shown, through process_changed.
                if isinstance(result, BaseException) and not isinstance(result, ComponentError):
                    raise result

    def _renew(self, name: str, role: _Role) -> None:
        """Have those that run, should they die, be started with what is said now.

        Their initial packets may be others since, and they may be told to pause.
        """
        with contextlib.suppress(ComponentError):
            if role.have and (command := self._command(name, role)) is not None:
                for instance in role.have:
                    self._supervisor.renew(name, instance, _of_instance(command, instance))

    def _wanted(self, name: str, role: _Role) -> dict[int, tuple[str, int]]:
        """Return which instances should run, each with what it is to be started as."""
        if role.gone:
            self._set_foreign(role, None)
            return {}
        if role.problem:
            return {}
        try:
            component = self._component(role.component)
        except ComponentError as error:
            self._set_foreign(role, None)
            role.problem = str(error)
            self._tell("wrong", f"{name}: {error}", name)
            return {}
        self._set_foreign(role, component.foreign)
        if component.foreign is not None or (self.paused and not self._can_be_paused(name)):
            return {}
        return {
            instance: (role.component, role.turns.get(instance, 0))
            for instance in range(1, role.instances + 1)
        }

    def _component(self, name: str) -> Component:
        """Return a component; its file may have been written since the library was read."""
        try:
            return self.library.get(name)
        except UnknownComponent:
            with contextlib.suppress(ConfigurationError):
                self.library.refresh()
            found = self.library.get(name)
        self._assume()
        self.coordinator.change_graph(self.graph)
        return found

    def _can_be_paused(self, name: str) -> bool:
        """Tell whether a role's participants can; who has never said so may be able to."""
        said = [
            participant.announcement.paused
            for participant in self.coordinator.network.participants(name)
        ]
        return not said or any(one is not None for one in said)

    def _is_ours(self, component: str) -> bool:
        """Tell whether a component is run by our own participant, which can be paused."""
        try:
            found = self.library.get(component)
        except ComponentError:
            return False
        return found.path is not None and found.path.suffix == ".py" and found.origin == found.path

    def _command(self, name: str, role: _Role) -> Command | None:
        initials = self._initials(name)
        command = self.library.command(role.component, name, initials)
        if command is None:
            return None
        said = {"MSGFLO_BROKER": self._url, "MSGFLO_ROLE": name, "PYTHONUNBUFFERED": "1"}
        if initials:
            said["MSGFLO_IIPS"] = json.dumps(initials)
        if self.paused:
            said["MSGFLO_PAUSED"] = "1"
        return command.with_env(said)

    def _initials(self, role: str) -> dict[str, object]:
        """Return a role's initial packets by port, those of ports that have just one."""
        packets: dict[str, list[object]] = {}
        for initial in self.graph.initials:
            if initial.tgt.node == role:
                packets.setdefault(initial.tgt.port, []).append(initial.data)
        return {port: data[0] for port, data in packets.items() if len(data) == 1}

    # Participants that cannot announce themselves.

    def _set_foreign(self, role: _Role, foreign: Foreign | None) -> None:
        if role.foreign == foreign:
            return
        role.foreign = foreign
        self._announcer.announce(
            {
                name: other.foreign.definition(name)
                for name, other in self._roles.items()
                if other.foreign is not None
            }
        )

    # How it is.

    def _view(self, status: RoleStatus) -> RoleView:
        role = self._roles.get(status.role)
        instances: dict[int, InstanceStatus] = {}
        unnumbered: list[InstanceStatus] = []  # other clients' participants do not say which
        for participant in status.participants:
            announcement = participant.announcement
            reason = "" if participant.life is Life.LIVE else "silent for too long"
            seen = InstanceStatus(
                announcement.instance, participant.life, reason, paused=announcement.paused
            )
            if seen.instance is None:
                unnumbered.append(seen)
            else:
                instances[seen.instance] = seen
        if role is not None:
            unnumbered.sort(key=lambda it: it.state == Life.LIVE)
            ours = False
            for number, state in role.states.items():
                there = instances.get(number)
                if there is None and unnumbered and state.state is State.RUNNING:
                    there, ours = unnumbered.pop(), True
                if there is not None and there.state == Life.LIVE:
                    instances[number] = replace(there, instance=number, process=state)
                else:
                    instances[number] = InstanceStatus(
                        number, str(state.state), state.reason, state
                    )
            if ours:
                unnumbered.clear()  # those of processes that we have started before
        ordered = (*(it for _, it in sorted(instances.items())), *unnumbered[-1:])
        started_here = role is not None and not role.problem
        return RoleView(
            status,
            ordered,
            started_here,
            self._why(status, role, ordered),
            role.instances if role is not None and started_here and not role.foreign else 0,
        )

    def _why(
        self, status: RoleStatus, role: _Role | None, instances: tuple[InstanceStatus, ...]
    ) -> str:
        if status.life in (Life.LIVE, Life.VIRTUAL):
            return ""
        if role is not None and role.problem:
            return role.problem
        if role is not None and self.paused and not self._can_be_paused(status.role):
            return "the network is stopped"
        reasons = [instance.reason for instance in instances if instance.reason]
        if reasons:
            return reasons[0]
        if role is None:
            return "not started here; waits for somebody to announce it"
        if role.instances == 0:
            return "scaled to 0 instances"
        return "starting"

    # What is heard.

    def process_changed(self, state: ProcessState) -> None:
        """Hear from the supervisor what a process of ours does."""
        role = self._roles.get(state.role)
        if role is None:
            return
        role.states[state.instance] = state
        if self._closing:
            return
        if state.state in (State.BACKING_OFF, State.FAILED, State.EXITED):
            self.coordinator.vanished(state.role, state.instance)
            self._tell("failed", str(state), state.role)
        elif state.state is State.STOPPED and state.exit is not None and state.exit.signal:
            # Killed, it has not said goodbye.
            self.coordinator.vanished(state.role, state.instance)

    def _heard(self, event: Event) -> None:
        if event.kind == "live":
            self._supervisor.announced(event.role, event.instance)
            if event.role in self._roles and self._started and self.paused:
                self._bring_soon(event.role)  # one that cannot be paused is ended
        self._told(event)

    def _tell(self, kind: str, text: str, role: str = "") -> None:
        self._told(Event(kind, role, text))


def _of_instance(command: Command, instance: int) -> Command:
    return command.with_env({"MSGFLO_INSTANCE": str(instance)})


def instances_said(node: Node) -> int | None:
    """Return how many instances a graph wants of a node; ``None``: it says nothing of it."""
    said = node.metadata.get(INSTANCES)
    text = str(said)
    if isinstance(said, bool) or not (text.isascii() and text.isdecimal()):
        return None
    return min(int(text), MOST_INSTANCES)


def _scoped(graph: Graph, scope: str) -> Graph:
    """Return a copy of a graph, its nodes named with a scope before their names."""
    copy = graph.copy()
    if scope:
        copy.nodes = {
            scope + node.id: replace(node, id=scope + node.id) for node in graph.nodes.values()
        }
        copy.connections = [
            replace(it, src=_end(it.src, scope), tgt=_end(it.tgt, scope))
            if isinstance(it, Edge)
            else replace(it, tgt=_end(it.tgt, scope))
            for it in graph.connections
        ]
        for table in (copy.inports, copy.outports):
            for public, it in table.items():
                table[public] = replace(it, node=scope + it.node)
        copy.groups = []
    return copy


def _end(end: Endpoint, scope: str) -> Endpoint:
    return replace(end, node=scope + end.node)
