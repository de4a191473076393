"""What is told of a network that runs: its status in words, its queues, bindings and logs."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any

import click

from msgflo.cli.network import live, no_node, steer
from msgflo.cli.options import Where
from msgflo.processes.output import Prefixed, clean, plain
from msgflo.protocol.client import Client

__all__ = ["aged", "bindings", "end_of", "logs", "print_json", "queues", "status", "table"]


def print_json(value: Any) -> None:
    """Print a value as people and programs can read it."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(heads: Iterable[str], rows: Iterable[Iterable[object]], right: str = "") -> None:
    """Print rows in columns, under their heads.

    Args:
        heads: a column's name each.
        rows: their cells.
        right: for each column, ``>`` if it is a number's; the others are a text's.
    """
    cells = [[*heads], *([plain(clean(str(cell))) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = right.ljust(len(widths))
    for number, row in enumerate(cells):
        line = "  ".join(
            cell.rjust(width) if side == ">" else cell.ljust(width)
            for cell, width, side in zip(row, widths, sides, strict=True)
        ).rstrip()
        click.echo(click.style(line, dim=True) if number == 0 else line)


def aged(seconds: float) -> str:
    """Return a duration in its largest unit, such as ``3 min``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def end_of(end: Mapping[str, Any]) -> str:
    """Return a port of a node as people write it."""
    return f"{end['node']}.{end['port']}"


# Status.


def status(where: Where, as_json: bool) -> int:
    """Explain a network. Returns 1 if it is not as it should be."""

    async def work(client: Client) -> int:
        said = await client.ask("status")
        if as_json:
            print_json(said)
        else:
            for line in explained(said):
                click.echo(line)
        return 0 if said["complete"] else 1

    return steer(where, work)


def explained(said: Mapping[str, Any]) -> list[str]:
    """Return in words how a network is."""
    nodes = [node for node in said["nodes"] if node["in_graph"]]
    real = [node for node in nodes if node["state"] != "virtual"]
    lines = [f"{said['graph']}: {_state(said)}, for {aged(said['uptime'])}"]
    broker = said["broker"]
    whose = "its own" if broker["embedded"] else "a"
    lost = "" if broker["connected"] else "; it cannot be reached now, what is sent waits"
    lines.append(f"It runs on {whose} broker, {broker['url']}{lost}.")
    instances = sum(len(node["instances"]) for node in real)
    alive = sum(live(node) for node in real)
    lines.append(
        f"{alive} of {len(real)} role{'s' * (len(real) != 1)} live, "
        f"{instances} instance{'s' * (instances != 1)}; "
        f"{sum(edge['state'] == 'bound' for edge in said['edges'])} of {len(said['edges'])} "
        f"connection{'s' * (len(said['edges']) != 1)} bound."
    )
    pending = [line for node in real for line in _role_explained(node)]
    for edge in said["edges"]:
        if edge["state"] != "bound":
            verb = "is wrong" if edge["state"] == "wrong" else "waits"
            name = f"{end_of(edge['src'])} -> {end_of(edge['tgt'])}"
            pending.append(f"{name} {verb}: {edge['reason']}")
    pending += said["pending"]
    if pending:
        lines += ["", "What is pending:", *(f"  {line}" for line in pending)]
    restarted = [
        f"{node['node']}.{one['instance']} {one['restarts']} times"
        for node in real
        for one in node["instances"]
        if one.get("restarts")
    ]
    if restarted:
        lines += ["", f"Started again by itself: {', '.join(restarted)} (see: msgflo logs)."]
    strangers = [node["node"] for node in said["nodes"] if not node["in_graph"]]
    if strangers:
        lines += ["", f"Heard of, and not in the graph: {', '.join(strangers)}."]
    if said["found"]:
        number = len(said["found"])
        lines += ["", f"{number} binding{'s' * (number != 1)} that the graph does not ask for "]
        lines[-1] += f"{'are' if number != 1 else 'is'} in the broker (see: msgflo bindings)."
    return [plain(clean(line)) for line in lines]


def _state(said: Mapping[str, Any]) -> str:
    if not said["started"]:
        return "stopped; what arrives waits"
    return "complete" if said["complete"] else "not complete"


def _role_explained(node: Mapping[str, Any]) -> Iterable[str]:
    if live(node):
        return
    name = node["node"]
    if node["state"] != "live":
        yield f"{name} ({node['component']}): {node['reason'] or node['state']}"
    elif node["started_here"]:
        there = sum(one["state"] == "live" for one in node["instances"])
        yield f"{name}: {there} of {node['wanted']} instances live"
    for one in node["instances"]:
        if one["state"] == "live":
            continue
        said = f"  {name}.{one['instance']} is {one['state']}"
        if one["reason"] and one["reason"] != node["reason"]:
            said += f": {one['reason']}"
        yield said
        for line in [line for line in one.get("last_lines", []) if line.strip()][-3:]:
            yield f"      {line}"


# Queues.


def queues(where: Where, roles: tuple[str, ...], everything: bool, as_json: bool) -> int:
    """List queues, those of some roles or of all."""

    async def work(client: Client) -> int:
        await check_roles(client, roles)
        found = [
            queue
            for queue in (await client.ask("queues"))["queues"]
            if not roles or queue["node"] in roles
        ]
        if as_json:
            print_json(found)
            return 0
        shown = [it for it in found if everything or it["kind"] != "dead" or it["waiting"]]
        rows = [
            (
                it["queue"],
                it["kind"],
                it["waiting"],
                it["in_flight"],
                it["consumers"] if it["kind"] != "dead" else "",
                aged(it["oldest"]) if it["waiting"] or it["in_flight"] else "",
                f"{it['rate_in']:.1f}/s",
                f"{it['rate_out']:.1f}/s",
            )
            for it in shown
        ]
        heads = ("QUEUE", "KIND", "WAITING", "IN WORK", "TAKERS", "OLDEST", "IN", "OUT")
        table(heads, rows, "  >>>>>>")
        dead = sum(it["waiting"] for it in found if it["kind"] == "dead")
        if dead:
            click.echo(f"{dead} dead; see: msgflo deadletters list", err=True)
        return 0

    return steer(where, work)


async def check_roles(client: Client, roles: Iterable[str]) -> None:
    """Refuse names that are no roles of the network.

    Raises:
        ProtocolError: with what is near.
    """
    if roles:
        said = await client.ask("status")
        known = {node["node"] for node in said["nodes"]}
        for role in roles:
            if role not in known:
                raise no_node(role, said)


# Bindings.


def bindings(where: Where, remove_orphaned: bool, as_json: bool) -> int:
    """List bindings; remove orphaned ones if that is wanted. Returns 1 if one is not bound."""

    async def work(client: Client) -> int:
        said = await client.ask("status")
        rows = [
            {"state": edge["state"], "edge": _edge(edge), **one, "reason": edge["reason"]}
            for edge in said["edges"]
            for one in edge["bindings"]
        ]
        rows += [
            {"state": "orphaned", "edge": "", **one, "reason": "the graph does not ask for it"}
            for one in said["found"]
        ]
        if remove_orphaned:
            if said["found"]:
                await client.ask("unbind", bindings=said["found"])
            for row in rows:
                if row["state"] == "orphaned":
                    row["state"] = "removed"
        if as_json:
            print_json(rows)
        else:
            table(
                ("STATE", "KIND", "FROM", "TO", "CONNECTION"),
                ((it["state"], it["kind"], it["source"], it["target"], it["edge"]) for it in rows),
            )
            for it in rows:
                if it["state"] in ("pending", "wrong"):
                    click.echo(f"{it['edge']}: {it['reason']}", err=True)
        return 1 if any(it["state"] in ("pending", "wrong") for it in rows) else 0

    return steer(where, work)


def _edge(edge: Mapping[str, Any]) -> str:
    return f"{end_of(edge['src'])} -> {end_of(edge['tgt'])}"


# Logs.


def logs(where: Where, targets: tuple[str, ...], follow: bool, lines: int, as_json: bool) -> int:
    """Show what processes have printed, and what they print from now on."""
    show = Prefixed()

    def one(line: Mapping[str, Any]) -> None:
        if as_json:
            click.echo(json.dumps(line, ensure_ascii=False))
            return
        when = datetime.fromtimestamp(line["time"]).astimezone()
        text = clean(line["text"])
        if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
            text = f"\x1b[2m{when:%H:%M:%S}\x1b[0m {text}"
        else:
            text = f"{when:%Y-%m-%d %H:%M:%S} {text}"
        show(line["node"], line["instance"], line["stream"], text)

    async def work(client: Client) -> int:
        wanted = await _instances(client, targets)
        if follow:
            await client.ask("subscribe", topics=["logs"])
        found: list[Mapping[str, Any]] = []
        for node, number in wanted or {("", None)}:
            said: dict[str, Any] = {"node": node} if node else {}
            if number is not None:
                said["instance"] = number
            found += (await client.ask("logs", lines=lines, **said))["lines"]
        found.sort(key=lambda line: line["time"])
        found = found[-lines:] if lines else []
        show.know(f"{line['node']}.{line['instance']}" for line in found)
        for line in found:
            one(line)
        if not found and not follow:
            click.echo("nothing was printed", err=True)
        latest = found[-1]["time"] if found else 0.0
        if follow:
            await _until_signal(_followed(client, wanted, latest, one))
        return 0

    return steer(where, work)


async def _followed(
    client: Client,
    wanted: set[tuple[str, int | None]],
    latest: float,
    show: Callable[[Mapping[str, Any]], None],
) -> None:
    """Show lines as they are printed, those that are later than what was shown already."""
    async for push in client.pushes():
        if push.command != "log" or push.payload["time"] <= latest:
            continue
        line = {key: value for key, value in push.payload.items() if key != "graph"}
        if not wanted or wanted & {(line["node"], None), (line["node"], line["instance"])}:
            show(line)


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Work until Ctrl-C or SIGTERM, which are how people say that they have seen enough."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _instances(client: Client, targets: Iterable[str]) -> set[tuple[str, int | None]]:
    """Return what ``ROLE`` and ``ROLE.N`` name."""
    if not targets:
        return set()
    said = await client.ask("status")
    known = {node["node"] for node in said["nodes"]}
    found: set[tuple[str, int | None]] = set()
    for target in targets:
        role, dot, number = target.rpartition(".")
        if target in known:
            found.add((target, None))
        elif dot and role in known and number.isdecimal():
            found.add((role, int(number)))
        else:
            raise no_node(target, said)
    return found
