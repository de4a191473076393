"""A graph that runs in front of somebody: what is shown, until it is stopped."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgflo.cli.serving import serve
from msgflo.cli.tracing import Tracing
from msgflo.coordinator.network import Event, Life
from msgflo.errors import MsgFloError
from msgflo.flow.graph import Graph
from msgflo.processes.output import Prefixed, clean, plain, wants_colour
from msgflo.project import STATE, find_root, load_graph
from msgflo.runtime import RoleView, Runtime, RuntimeStatus
from msgflo.steering.files import GraphFile
from msgflo.steering.watching import Watching
from msgflo.transport.contract import QueueStats

if TYPE_CHECKING:
    from msgflo.steering.service import Service

__all__ = ["run_graph"]

SETTLED = 3.0
"""Seconds without a change after which what is still pending is explained."""


def run_graph(
    file: Path | None,
    project: Path | None,
    *,
    summary: float | None,
    quiet: bool,
    serving: Mapping[str, Any],
    trace: bool = False,
    watch: bool = False,
    **options: Any,
) -> int:
    """Run a graph until a signal ends it. Returns the exit status.

    Args:
        file: the graph; ``None``: an empty one.
        project: its folder; ``None``: the one around the file.
        summary: print a line of figures this often (seconds); ``None``: only at SIGUSR1.
        quiet: do not show what the participants print.
        trace: record what passes the connections.
        watch: start roles anew whose code changes.
        serving: how other programs can look at it, as :func:`msgflo.cli.serving.serve` has it.
        **options: as :class:`msgflo.runtime.Runtime` has them.

    Raises:
        MsgFloError: it cannot run at all.
    """
    graph = load_graph(file) if file is not None else Graph("main")
    screen = _Screen(quiet)
    runtime = Runtime(
        graph,
        root=project or find_root(file or Path.cwd()),
        output=screen.output,
        told=screen.told,
        **options,
    )
    service = serve(runtime, file, tell=screen.say, **serving)
    name = file.stem if file is not None else ""
    tracing = Tracing(runtime, service, wanted=trace, say=screen.say, name=name)
    follows: list[Watching | GraphFile] = [Watching(runtime, screen.say)] if watch else []
    if watch and file is not None and service is None:
        follows.append(_following(runtime, file, screen))  # a service does so itself
    return asyncio.run(_run(runtime, service, tracing, follows, screen, file, summary))


def _following(runtime: Runtime, file: Path, screen: "_Screen") -> GraphFile:
    """Return what has a network follow its graph's file."""
    known = runtime.graph

    def changed(graph: Graph) -> None:
        nonlocal known
        known = graph
        runtime.main.change(graph)

    return GraphFile(
        lambda: known, file, runtime.root, auto=False, changed=changed, tell=screen.say
    )


async def _run(
    runtime: Runtime,
    service: "Service | None",
    tracing: Tracing,
    follows: Sequence[Watching | GraphFile],
    screen: "_Screen",
    file: Path | None,
    summary: float | None,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    began = time.monotonic()
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, asked.set)
    loop.add_signal_handler(signal.SIGUSR2, tracing.write)
    tracing.start()
    showing = asyncio.create_task(
        _show(runtime, service, tracing, follows, screen, file, began, asked, summary)
    )
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({showing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await showing  # it only ends by failing
    finally:
        # A second signal ends us at once; the watchdog ends the processes then.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
        if stop.is_set():
            screen.say("stopping ...")
        showing.cancel()
        stopping.cancel()
        await asyncio.gather(showing, stopping, return_exceptions=True)
        if not stop.is_set():  # we have failed ourselves
            tracing.failed()
        for it in follows:
            await it.close()
        await tracing.close()
        if service is not None:
            await service.close()
        await runtime.close()
    return 0


async def _show(
    runtime: Runtime,
    service: "Service | None",
    tracing: Tracing,
    follows: Sequence[Watching | GraphFile],
    screen: "_Screen",
    file: Path | None,
    began: float,
    asked: asyncio.Event,
    every: float | None,
) -> None:
    await _start(runtime, service, screen, file)
    tracing.started()
    for it in follows:
        it.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_explain(runtime, screen, began))
        tasks.create_task(_summaries(runtime, screen, asked, every))


async def _start(
    runtime: Runtime, service: "Service | None", screen: "_Screen", file: Path | None
) -> None:
    for problem in runtime.library.problems:
        screen.say(f"problem: {problem}")
    if service is not None:
        # First of all, so that tools which start us need not wait for the rest.
        await service.start()
        for line in service.greeting():
            screen.say(line, bare=service.classic)
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
    complete = 0  # how often it was
    shown = ""
    while True:
        before = screen.changes
        status = runtime.status()
        if status.complete:
            if not complete:
                screen.roles(status)
                took = time.monotonic() - began
                screen.say(f"all running after {took:.1f} s; Ctrl-C stops it")
            elif shown:
                screen.say("all running again")
            complete, shown = complete + 1, ""
            await screen.changed(before)
            continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLED):
                await screen.changed(before)
            continue
        pending = "\n".join(_pending(status))
        if pending != shown:
            if not complete:
                screen.roles(status)
            screen.say("pending:")
            for line in pending.splitlines():
                screen.say(f"  {line}")
            shown = pending
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


async def _summaries(
    runtime: Runtime, screen: "_Screen", asked: asyncio.Event, every: float | None
) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                await asked.wait()
        asked.clear()
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
        self._colour = wants_colour(sys.stdout, os.environ)
        self.changes = 0
        self._changed = asyncio.Condition()
        self._notifying: asyncio.Task[None] | None = None

    def say(self, text: str, *, bare: bool = False) -> None:
        mark = "\x1b[1mmsgflo\x1b[0m" if self._colour else "msgflo"
        # A terminal that was closed, or a reader that has gone, stops no network.
        with contextlib.suppress(OSError, ValueError):
            for line in text.splitlines():
                # What others said may be in it: it must not move or erase anything.
                said = plain(clean(line))
                sys.stdout.write(f"{said}\n" if bare else f"{mark} | {said}\n")
            sys.stdout.flush()

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
