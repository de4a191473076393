"""The connections of a graph, made on a broker from outside; and who stays to look after them."""

import asyncio
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from msgflo import transport
from msgflo.cli.connecting import broker_url
from msgflo.coordinator.network import Event
from msgflo.coordinator.setup import discover, set_up
from msgflo.errors import DiscoveryTimeout
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.graph import Graph
from msgflo.flow.wiring import is_virtual
from msgflo.processes.export import assumed
from msgflo.processes.library import Library
from msgflo.project import find_root, load_graph
from msgflo.runtime import Runtime

__all__ = ["set_up_graph"]


def set_up_graph(
    file: Path,
    *,
    url: str | None,
    participants: bool,
    only: Sequence[str],
    ignore: Sequence[str],
    wait: bool,
    timeout: float,
    forever: bool,
    forward: Sequence[str],
    project: Path | None,
    config: Path | None,
    components: Path | None,
) -> int:
    """Set up a graph, and say what was. Returns the exit status.

    Args:
        file: the graph.
        url: the broker's; ``None``: that of the environment, or of the project's run.
        participants: start them too, and stay until a signal.
        only: start these alone; empty: all.
        ignore: do not start these.
        wait: for what the participants announce.
        timeout: seconds to wait for them.
        forever: stay until a signal.
        forward: of ``stdout`` and ``stderr``, what to show of what participants print.
        project: the folder of the components; ``None``: the one around the graph.
        config: the only configuration file to read; ``None``: the usual ones.
        components: the folder of components; ``None``: the usual ones.

    Raises:
        MsgFloError: it cannot be done.
    """
    graph = load_graph(file)
    root = project or find_root(file)
    library = Library.load(
        root,
        component_dirs=[components.absolute()] if components else None,
        config=config.absolute() if config else None,
    )
    broker = broker_url(url, project or find_root(file))
    if not participants and not forever:
        return asyncio.run(_once(graph, broker, library, wait, timeout))
    roles = [node.id for node in graph.nodes.values() if not is_virtual(node.component)]
    chosen = [it for it in only or roles if it not in ignore] if participants else []

    def show(role: str, instance: int, stream: str, line: str) -> None:  # noqa: ARG001
        if stream in forward:
            print(line, file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)

    def told(event: Event) -> None:
        if event.kind in {"lost", "failed", "wrong", "unfit", "broker"}:
            click.echo(f"msgflo: {event.text}", err=True)

    runtime = Runtime(
        graph,
        root=root,
        broker=broker,
        library=library,
        only=frozenset(chosen),
        output=show,
        told=told,
    )
    return asyncio.run(_stay(graph, runtime, library, chosen, wait, timeout))


async def _once(graph: Graph, url: str, library: Library, wait: bool, timeout: float) -> int:
    broker = transport.broker(url)
    await broker.connect(timeout=min(timeout, 10.0))
    try:
        definitions = assumed(graph, library)
        if wait:
            definitions = await discover(graph, broker, timeout)
        done = await set_up(graph, broker, definitions)
    finally:
        await broker.close()
    _say([], done.bindings)
    for problem in done.problems:
        click.echo(f"msgflo: {problem}", err=True)
    return 1 if done.problems else 0


async def _stay(
    graph: Graph,
    runtime: Runtime,
    library: Library,
    chosen: Sequence[str],
    wait: bool,
    timeout: float,
) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with runtime:
        if not chosen and not wait:
            # There whoever comes or not, as without staying.
            done = await set_up(graph, runtime.broker, assumed(graph, library))
            _say(chosen, done.bindings)
        else:
            waiting = asyncio.create_task(runtime.until_complete(timeout))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                waiting.cancel()
                return 0
            stopping.cancel()
            try:
                await waiting
            except TimeoutError:
                raise DiscoveryTimeout(_why(runtime, timeout)) from None
            edges = runtime.status().network.edges
            _say(chosen, dict.fromkeys(it for edge in edges for it in edge.bindings))
        click.echo("--forever enabled, keeping alive")
        await stop.wait()
    return 0


def _why(runtime: Runtime, timeout: float) -> str:
    status = runtime.status()
    reasons = [f"{it.network.role}: {it.reason}" for it in status.roles if it.reason]
    reasons += [edge.reason for edge in status.network.edges if edge.reason]
    return f"not set up within {timeout:g} s: {'; '.join(dict.fromkeys(reasons))}"


def _say(started: Sequence[str], bindings: Iterable[Binding]) -> None:
    names = ", ".join(f"'{role}'" for role in started)
    if started:
        click.echo(f"Set up participants [ {names} ]")
    else:
        click.echo("Set up participants []")
    order = (Kind.PUBSUB, Kind.DEADLETTER, Kind.ROUNDROBIN)
    listed = sorted(bindings, key=lambda binding: order.index(binding.kind))
    lines = "\n".join(f"{_HEADS[it.kind]} {it.source} -> {it.target}" for it in listed)
    click.echo(f"Set up bindings:\n {lines}")


# As the original prints them, blank and tab.
_HEADS = {
    Kind.PUBSUB: "PUBSUB: \t",
    Kind.ROUNDROBIN: "ROUNDROBIN:\t",
    Kind.DEADLETTER: "DEADLETTER:\t",
}
