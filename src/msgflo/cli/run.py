"""``msgflo run``: a graph, live."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msgflo.cli.serving import serve, serving_options
from msgflo.coordinator.network import Event, Life
from msgflo.errors import ConfigurationError, MsgFloError
from msgflo.flow.graph import Graph
from msgflo.processes.output import Prefixed
from msgflo.project import STATE, find_root, load_graph
from msgflo.runtime import RoleView, Runtime, RuntimeStatus
from msgflo.transport.contract import QueueStats

if TYPE_CHECKING:
    from msgflo.steering.service import Service

__all__ = ["run"]

SETTLED = 3.0
"""Seconds without a change after which what is still pending is explained."""


@click.command()
@click.argument("file", metavar="[GRAPH]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--broker",
    envvar="MSGFLO_BROKER",
    help="The broker's URL. [env: MSGFLO_BROKER; default: an embedded one is started]",
)
@click.option(
    "--scale", "-s", multiple=True, metavar="ROLE=N", help="Run N instances of a role; repeatable."
)
@click.option("--only", multiple=True, metavar="ROLES", help="Start only these (a,b); repeatable.")
@click.option("--ignore", multiple=True, metavar="ROLES", help="Do not start these; repeatable.")
@click.option(
    "--restart",
    type=click.Choice(["on-failure", "always", "never"]),
    default="on-failure",
    show_default=True,
    help="Which processes are started again when they end.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Seconds that processes have to finish what they do when they are stopped.",
)
@click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder with components and state. [default: the one around GRAPH]",
)
@click.option(
    "--summary",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Print a line of rates, waiting and dead messages this often (SIGUSR1: once).",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse connections whose types can never match, instead of warning of them.",
)
@click.option("--quiet", "-q", is_flag=True, help="Do not show what the participants print.")
@serving_options
def run(
    file: Path | None,
    broker: str | None,
    scale: tuple[str, ...],
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    restart: str,
    grace: float,
    project: Path | None,
    summary: float | None,
    strict: bool,
    quiet: bool,
    **serving: Any,
) -> int:
    """Run GRAPH (.fbp or .json): start its participants and connect them, until Ctrl-C.

    Shows the roles with their instances, what is pending and why, then what the participants
    print. Roles that are not started here are connected when they announce themselves.

    Other programs can look at the network and change it while it runs, by the FBP protocol at the
    address that is shown. Without GRAPH the network is empty at first.
    """
    graph = load_graph(file) if file is not None else Graph("main")
    root = project or find_root(file or Path.cwd())
    screen = _Screen(quiet)
    runtime = Runtime(
        graph,
        root=root,
        broker=broker,
        scale=_scale(scale),
        only=frozenset(_names(only)) if only else None,
        ignore=frozenset(_names(ignore)),
        restart=restart,
        grace=grace,
        output=screen.output,
        told=screen.told,
        strict=strict,
    )
    service = serve(runtime, file, tell=screen.say, **serving)
    return asyncio.run(_run(runtime, service, screen, file, summary))


def _names(given: Iterable[str]) -> list[str]:
    return [name for names in given for name in names.split(",") if name]


def _scale(given: Iterable[str]) -> dict[str, int]:
    scale = {}
    for item in given:
        role, equals, number = item.rpartition("=")
        if not equals or not role or not (number.isascii() and number.isdecimal()):
            raise ConfigurationError(f"--scale {item}: expected ROLE=N, such as resize=4")
        scale[role] = int(number)
    return scale


async def _run(
    runtime: Runtime,
    service: "Service | None",
    screen: "_Screen",
    file: Path | None,
    summary: float | None,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    began = time.monotonic()
    starting = asyncio.create_task(_start(runtime, service, screen, file))
    stopping = asyncio.create_task(stop.wait())
    tasks: list[asyncio.Task[None]] = []
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await starting
            loop.add_signal_handler(
                signal.SIGUSR1, lambda: tasks.append(loop.create_task(_summary(runtime, screen)))
            )
            tasks.append(loop.create_task(_explain(runtime, screen, began)))
            if summary is not None:
                tasks.append(loop.create_task(_summaries(runtime, screen, summary)))
            await stop.wait()
    finally:
        # A second signal ends us at once; the watchdog ends the processes then.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
        if stop.is_set():
            screen.say("stopping ...")
        for task in (starting, stopping, *tasks):
            task.cancel()
        await asyncio.gather(starting, stopping, *tasks, return_exceptions=True)
        if service is not None:
            await service.close()
        await runtime.close()
    return 0


async def _start(
    runtime: Runtime, service: "Service | None", screen: "_Screen", file: Path | None
) -> None:
    for problem in runtime.library.problems:
        screen.say(f"problem: {problem}")
    if service is not None:
        # First of all, so that tools which start us need not wait for the rest.
        await service.start()
        screen.say(f"FBP protocol at {service.address}")
        screen.say(f"open in noflo-ui: {service.live_url()}")
    await runtime.start()
    if service is not None:
        service.runtime_started()
    where = f"embedded, keeps its messages in {_near(runtime.root / STATE)}"
    screen.say(f"{_near(file) if file else 'no graph file'}: {_counted(runtime.graph)}")
    screen.say(f"broker {runtime.address}" + (f" ({where})" if runtime.embedded else ""))


def _near(path: Path) -> str:
    """Return a path as short as it can be said from the working folder."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _counted(graph: Graph) -> str:
    roles, edges = len(graph.nodes), len(graph.edges)
    return f"{roles} node{'s' * (roles != 1)}, {edges} connection{'s' * (edges != 1)}"


async def _explain(runtime: Runtime, screen: "_Screen", began: float) -> None:
    """Show the roles whenever the network has come to rest in another state than was shown."""
    shown = ""
    told_all = False
    while True:
        status = runtime.status()
        if status.complete and not told_all:
            screen.roles(status)
            screen.say(f"all running after {time.monotonic() - began:.1f} s; Ctrl-C stops it")
            told_all, shown = True, ""
        elif not status.complete:
            pending = "\n".join(_pending(status))
            before = screen.changes
            try:
                await asyncio.wait_for(screen.changed(before), SETTLED)
                continue
            except TimeoutError:
                if pending != shown:
                    if not told_all:
                        screen.roles(status)
                    screen.say("pending:")
                    for line in pending.splitlines():
                        screen.say(f"  {line}")
                    shown = pending
        before = screen.changes
        await screen.changed(before)


def _pending(status: RuntimeStatus) -> Iterable[str]:
    for role in status.roles:
        if role.reason and role.network.wanted:
            yield f"{role.network.role}: {role.reason}"
        for instance in role.instances:
            if role.network.life is Life.LIVE and instance.reason:
                yield f"{role.network.role}.{instance.instance}: {instance.reason}"
            if instance.process is not None and instance.state != Life.LIVE:
                for line in instance.process.last_lines[-5:]:
                    yield f"    {line}"
    for edge in status.network.edges:
        if edge.reason:
            src, tgt = edge.edge.src, edge.edge.tgt
            yield f"{src.node} {src.port.upper()} -> {tgt.port.upper()} {tgt.node}: {edge.reason}"
    yield from status.network.initials


async def _summaries(runtime: Runtime, screen: "_Screen", every: float) -> None:
    while True:
        await asyncio.sleep(every)
        await _summary(runtime, screen)


async def _summary(runtime: Runtime, screen: "_Screen") -> None:
    try:
        queues = await runtime.queues()
    except MsgFloError as error:
        screen.say(f"no summary: {error}")
        return
    status = runtime.status()
    live = sum(role.network.life is Life.LIVE for role in status.roles)
    wanted = sum(
        role.network.wanted and role.network.life is not Life.VIRTUAL for role in status.roles
    )
    screen.say(f"{live}/{wanted} roles live · {_figures(queues)}")


def _figures(queues: Iterable[QueueStats]) -> str:
    alive = [queue for queue in queues if not queue.queue.startswith("dead-")]
    dead = [queue for queue in queues if queue.queue.startswith("dead-")]
    parts = [
        f"in {sum(q.rate_in for q in alive):.0f}/s",
        f"out {sum(q.rate_out for q in alive):.0f}/s",
        f"waiting {sum(q.waiting for q in alive)}",
        f"in flight {sum(q.in_flight for q in alive)}",
        f"dead {sum(q.waiting + q.in_flight for q in dead)}",
    ]
    longest = max(alive, key=lambda q: q.waiting, default=None)
    if longest is not None and longest.waiting:
        parts.append(f"longest queue {longest.queue} ({longest.waiting})")
    return " · ".join(parts)


class _Screen:
    """What a run prints: our own lines in one voice, the participants' behind their names."""

    def __init__(self, quiet: bool) -> None:
        self._prefixed = Prefixed()
        self._quiet = quiet
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.changes = 0
        self._changed = asyncio.Condition()
        self._notifying: asyncio.Task[None] | None = None

    def say(self, text: str) -> None:
        mark = "\x1b[1mmsgflo\x1b[0m" if self._colour else "msgflo"
        for line in text.splitlines():
            print(f"{mark} | {line}", flush=True)  # noqa: T201 - this is the screen

    def output(self, role: str, instance: int, stream: str, line: str) -> None:
        if not self._quiet:
            self._prefixed(role, instance, stream, line)

    def told(self, event: Event) -> None:
        self.changes += 1
        self._notifying = asyncio.get_running_loop().create_task(self._notify())
        if event.kind in {"lost", "failed", "wrong", "unfit", "broker", "changed"}:
            self.say(event.text)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def changed(self, before: int) -> None:
        """Wait until something happened that was not counted in ``before``."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.changes != before)

    def roles(self, status: RuntimeStatus) -> None:
        rows = [("ROLE", "COMPONENT", "INSTANCES")]
        rows += [
            (role.network.role, role.network.component, _instances(role)) for role in status.roles
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        for row in rows:
            self.say(f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}")


def _instances(role: RoleView) -> str:
    if role.network.life is Life.VIRTUAL:
        return "carried out by the broker"
    states: dict[str, int] = {}
    for instance in role.instances:
        states[instance.state] = states.get(instance.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
