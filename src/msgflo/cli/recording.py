"""``msgflo test --record``: from live traffic to suites of tests."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from msgflo.cli.connecting import connected, roles_heard
from msgflo.errors import ConfigurationError, SpecError, near
from msgflo.flow.discovery import Definition
from msgflo.flow.graph import Graph
from msgflo.flow.yamltext import dump_yaml
from msgflo.project import find_root, load_graph, write_atomically
from msgflo.spec.recording import Recording
from msgflo.transport.contract import Broker, Tapped

__all__ = ["record"]

HEARD = 1.0
"""Seconds in which roles have to announce themselves."""

AFTERWARDS = 0.5
"""Seconds for what else comes out of the last packet that went in."""


async def record(
    roles: tuple[str, ...],
    *,
    count: int,
    timeout: float,
    into: Path | None,
    graph: Path | None,
    url: str | None,
    project: Path | None,
) -> int:
    """Watch what passes roles, and write a suite of each.

    Args:
        roles: which; none: all that have inports and outports.
        count: cases of each role, at most.
        timeout: seconds to wait for them.
        into: the file for all suites; ``None``: ``spec/ROLE.yaml`` of the project for each.
        graph: a file that has the roles' initial packets, if it is known.
        url: the broker's.
        project: its folder.

    Returns:
        The exit status: 0 if there is a case of each role.
    """
    initials = load_graph(graph) if graph is not None else None
    folder = (project or find_root(Path.cwd())) / "spec"
    broker = await connected(url, project)
    try:
        definitions = await _definitions(broker, roles)
        files = {it.role: into or folder / f"{_slug(it.role)}.yaml" for it in definitions}
        for file in files.values():
            if file.exists():
                raise SpecError(f"{file} is there already; remove it, or name another with --into")
        recordings = [Recording(it) for it in definitions]
        await _watch(broker, recordings, count, timeout)
    finally:
        await broker.close()
    suites: dict[Path, list[Any]] = {}
    missing = []
    for it in recordings:
        role = it.definition.role
        suite = it.suite(count, _initials(initials, role))
        if suite is None:
            missing.append(role)
            continue
        suites.setdefault(files[role], []).append(suite)
        number = len(suite["cases"])
        click.echo(f"{role}: {number} case{'' if number == 1 else 's'}", err=True)
        if it.lost:
            click.echo(f"{role}: {it.lost} packets came of nothing that was seen", err=True)
    for role in missing:
        click.echo(f"{role}: nothing that was sent to it was answered", err=True)
    for file, its in suites.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, dump_yaml(its).encode())
        except OSError as error:
            raise SpecError(f"cannot write {file}: {error.strerror or error}") from None
        with contextlib.suppress(ValueError):
            file = file.absolute().relative_to(Path.cwd())
        click.echo(f"wrote {file}; run it with: msgflo test {file}")
    return 1 if missing else 0


async def _definitions(broker: Broker, roles: tuple[str, ...]) -> list[Definition]:
    wanted = set(roles)
    heard = await roles_heard(
        broker, lambda heard: bool(wanted) and wanted <= heard.keys(), patience=HEARD
    )
    for role in roles:
        if role not in heard:
            raise ConfigurationError(
                f"no participant announced role {role!r} within {HEARD:g} s; announced were: "
                f"{', '.join(sorted(heard)) or 'none'}.{near(role, heard)}"
            )
    found = []
    for role in roles or sorted(heard):
        ways = (heard[role].inports, heard[role].outports)
        if all(any(port.queue for port in ports) for ports in ways):
            found.append(heard[role])
        elif roles:
            raise ConfigurationError(f"role {role!r} has not both inports and outports to record")
    if not found:
        raise ConfigurationError("no role with inports and outports announced itself")
    return found


async def _watch(broker: Broker, recordings: list[Recording], count: int, timeout: float) -> None:
    enough = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, enough.set)
    takers: dict[str, list[Callable[[Tapped], None]]] = {}
    bindings = await broker.bindings()
    for it in recordings:
        for port in it.definition.outports:
            if port.queue:
                takers.setdefault(port.queue, []).append(partial(it.came_out, port))
        for port in it.definition.inports:
            sources = {binding.source for binding in bindings if binding.target == port.queue}
            for queue in sorted({port.queue, *sources} - {""}):
                # First what goes in: of a loop, a packet is both.
                takers.setdefault(queue, []).insert(0, partial(it.went_in, port))

    def seen(taken: Iterable[Callable[[Tapped], None]], packet: Tapped) -> None:
        for take in taken:
            take(packet)
        if all(it.answered >= count for it in recordings):
            enough.set()

    for queue, taken in sorted(takers.items()):
        await broker.tap(queue, partial(seen, taken))
    names = ", ".join(it.definition.role for it in recordings)
    click.echo(f"recording {names} for {timeout:g} s, or until Ctrl-C", err=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(enough.wait(), timeout)
        await asyncio.sleep(AFTERWARDS)


def _initials(graph: Graph | None, role: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for initial in graph.initials if graph is not None else ():
        if initial.tgt.node == role:
            found.setdefault(initial.tgt.port, []).append(initial.data)
    return found


def _slug(role: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in role) or "role"
