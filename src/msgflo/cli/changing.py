"""Changes of a network that runs, each told to it, waited for, and saved into its graph's file."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from msgflo.cli.network import changes_of, live, no_node, steer
from msgflo.cli.options import Where
from msgflo.errors import ConfigurationError, ProtocolError, near
from msgflo.protocol.client import Client

__all__ = ["add", "connect", "disconnect", "move", "remove", "restart", "scale"]

UNTIL_WRONG = 3.0
"""Seconds after which what cannot be carried out yet is told, and left to the network."""


def scale(where: Where, counts: tuple[str, ...], *, save: bool, wait: bool) -> int:
    """Run so many instances of roles.

    Args:
        where: the network.
        counts: each ``ROLE=N``.
        save: write the graph's file.
        wait: return when they run.

    Returns:
        The exit status: 1 if one of them does not run.
    """
    wanted: dict[str, int] = {}
    for item in counts:
        role, equals, number = item.rpartition("=")
        if not equals or not role or not (number.isascii() and number.isdecimal()):
            raise ConfigurationError(f"{item!r}: expected ROLE=N, such as resize=4")
        wanted[role] = int(number)

    async def work(client: Client) -> int:
        before = _nodes(await client.ask("status"))
        for role, number in wanted.items():
            await client.ask("scale", node=role, instances=number)
        for role, number in wanted.items():
            was = before.get(role, {}).get("wanted", 0)
            click.echo(f"{role}: {was} -> {number} instance{'s' * (number != 1)}")
        status = await _saved(client, save)
        return max(status, await _until_live(client, wanted) if wait else 0)

    return steer(where, work)


def restart(where: Where, targets: tuple[str, ...], *, wait: bool) -> int:
    """Start roles, or instances of them, anew. Returns 1 if one does not run afterwards."""

    async def work(client: Client) -> int:
        nodes = _nodes(status := await client.ask("status"))
        meant: dict[str, list[int | None]] = {}
        for target in targets:
            role, dot, number = target.rpartition(".")
            if target in nodes:
                meant.setdefault(target, []).append(None)
            elif dot and role in nodes and number.isdecimal():
                meant.setdefault(role, []).append(int(number))
            else:
                raise no_node(target, status)
        old = {
            (role, one["instance"]): one.get("pid")
            for role, numbers in meant.items()
            for one in nodes[role]["instances"]
            if None in numbers or one["instance"] in numbers
        }
        for role, numbers in meant.items():
            for instance in numbers:
                said = {} if instance is None else {"instance": instance}
                await client.ask("restart", node=role, **said)
        if not wait:
            click.echo(f"restarting {', '.join(targets)}")
            return 0

        def anew(node: Mapping[str, Any]) -> bool:
            return all(
                one.get("pid") != old.get((node["node"], one["instance"]), 0)
                for one in node["instances"]
            )

        return await _until_live(client, meant, anew, "restarted", targets)

    return steer(where, work)


def connect(where: Where, connection: str, *, save: bool, wait: bool) -> int:
    """Connect two ports. Returns 1 if that can never be."""
    src, tgt = _ends(connection)

    async def work(client: Client) -> int:
        status = await client.ask("status")
        _check_end(status, src, "outports")
        _check_end(status, tgt, "inports")
        if _edge(status, src, tgt) is not None:
            click.echo(f"{_shown(src, tgt)} is there already")
            return await _saved(client, save)
        await client.command("graph", "addedge", src=src, tgt=tgt, graph=status["graph"])
        if wait:
            status = await changes_of(
                client,
                lambda status: (
                    (edge := _edge(status, src, tgt)) is not None and edge["state"] != "pending"
                ),
                f"connecting {_shown(src, tgt)}",
                UNTIL_WRONG,
            )
            edge = _edge(status, src, tgt)
            if edge is not None and edge["state"] == "wrong":
                await client.command("graph", "removeedge", src=src, tgt=tgt, graph=status["graph"])
                raise ProtocolError(f"{_shown(src, tgt)} cannot be: {edge['reason']}")
            reason = f", but is pending: {edge['reason']}" if edge and edge["reason"] else ""
            click.echo(f"connected {_shown(src, tgt)}{reason}")
        return await _saved(client, save)

    return steer(where, work)


def disconnect(where: Where, connection: str, *, save: bool, wait: bool) -> int:
    """Remove a connection. Returns 1 if the broker has it still."""
    src, tgt = _ends(connection)

    async def work(client: Client) -> int:
        status = await client.ask("status")
        edge = _edge(status, src, tgt)
        if edge is None:
            known = [_shown(it["src"], it["tgt"]) for it in status["edges"]]
            raise ProtocolError(
                f"there is no connection {_shown(src, tgt)}; there are: "
                f"{', '.join(known) or 'none'}.{near(_shown(src, tgt), known)}"
            )
        await client.command(
            "graph", "removeedge", src=edge["src"], tgt=edge["tgt"], graph=status["graph"]
        )
        if wait:
            kept = {_binding(it) for it in edge["bindings"]}

            def gone(status: dict[str, Any]) -> bool:
                wanted = {_binding(b) for it in status["edges"] for b in it["bindings"]}
                found = {_binding(it) for it in status["found"]}
                return _edge(status, src, tgt) is None and not (kept - wanted) & found

            await changes_of(client, gone, f"disconnecting {_shown(src, tgt)}")
        click.echo(f"disconnected {_shown(src, tgt)}; what was sent before still arrives")
        return await _saved(client, save)

    return steer(where, work)


def add(
    where: Where,
    role: str,
    component: str,
    instances: int | None,
    initial: tuple[str, ...],
    elsewhere: bool,
    *,
    save: bool,
    wait: bool,
) -> int:
    """Add a role. Returns 1 if it does not run.

    Args:
        where: the network.
        role: its name.
        component: which.
        instances: how many; ``None``: it is not said.
        initial: initial packets, each ``PORT=DATA``.
        elsewhere: nothing here is to start it.
        save: write the graph's file.
        wait: return when it runs.
    """
    packets = [_packet(item) for item in initial]

    async def work(client: Client) -> int:
        status = await client.ask("status")
        if role in _nodes(status) and _nodes(status)[role]["in_graph"]:
            raise ProtocolError(f"graph {status['graph']!r} has a node {role!r} already")
        graph = status["graph"]
        metadata = {"instances": str(instances)} if instances is not None else {}
        await client.command(
            "graph", "addnode", id=role, component=component, metadata=metadata, graph=graph
        )
        if not elsewhere:
            await _check_known(client, role, graph)
        for port, data in packets:
            await client.command(
                "graph",
                "addinitial",
                src={"data": data},
                tgt={"node": role, "port": port},
                metadata={},
                graph=graph,
            )
        click.echo(f"added {role}, a {component}")
        code = await _saved(client, save)
        return max(code, await _until_live(client, [role]) if wait and not elsewhere else 0)

    return steer(where, work)


async def _check_known(client: Client, role: str, graph: str) -> None:
    """Take a role out again if nothing here can start it.

    Raises:
        ProtocolError: with the reason.
    """

    def judged(status: dict[str, Any]) -> bool:
        node = _nodes(status).get(role)
        if node is None:
            return False
        return node["state"] == "virtual" or bool(node["instances"]) or _is_unknown(node)

    status = await changes_of(client, judged, f"starting {role}", UNTIL_WRONG)
    node = _nodes(status).get(role)
    if node is not None and _is_unknown(node):
        await client.command("graph", "removenode", id=role, graph=graph)
        raise ProtocolError(
            f"{node['reason']}\n"
            f"Nothing was changed. If it is started somewhere else, say --elsewhere"
        )


def _is_unknown(node: Mapping[str, Any]) -> bool:
    return not node["started_here"] and node["state"] == "pending" and not node["instances"]


def remove(where: Where, role: str, *, save: bool, wait: bool) -> int:
    """Remove a role. Returns 1 if its processes do not end."""

    async def work(client: Client) -> int:
        status = await client.ask("status")
        if not _nodes(status).get(role, {}).get("in_graph"):
            raise no_node(role, status)
        edges = [it for it in status["edges"] if role in (it["src"]["node"], it["tgt"]["node"])]
        await client.command("graph", "removenode", id=role, graph=status["graph"])
        code = await _saved(client, save)
        if wait:

            def gone(status: dict[str, Any]) -> bool:
                node = _nodes(status).get(role)
                return node is None or not any(it.get("pid") for it in node["instances"])

            after = await changes_of(client, gone, f"ending {role}")
            code = code if gone(after) else 1
        number = len(edges)
        click.echo(f"removed {role} and {number} connection{'s' * (number != 1)} of it")
        return code

    return steer(where, work)


def move(where: Where, command: str, steps: int, *, save: bool) -> int:
    """Undo or redo edits. Returns the exit status."""

    async def work(client: Client) -> int:
        for _ in range(steps):
            done = await client.ask(command)
            for change in done["changes"]:
                click.echo(said_of_change(change["command"], change["payload"]))
            left = f"{done['undoable']} can be undone, {done['redoable']} redone"
        click.echo(left, err=True)
        return await _saved(client, save)

    return steer(where, work)


def said_of_change(command: str, payload: Mapping[str, Any]) -> str:
    """Return an edit in words."""
    src, tgt = payload.get("src") or {}, payload.get("tgt") or {}
    match command:
        case "addnode":
            return f"added {payload['id']}, a {payload['component']}"
        case "removenode":
            return f"removed {payload['id']}"
        case "renamenode":
            return f"{payload['from']} is named {payload['to']} now"
        case "changenode":
            metadata = payload.get("metadata") or {}
            said = ", ".join(f"{key} {value}" for key, value in sorted(metadata.items()))
            return f"{payload['id']}: {said or 'no metadata'}"
        case "addedge":
            return f"connected {_shown(src, tgt)}"
        case "removeedge":
            return f"disconnected {_shown(src, tgt)}"
        case "addinitial" | "removeinitial":
            verb = "added" if command == "addinitial" else "removed"
            data = json.dumps(src.get("data"), ensure_ascii=False)
            return f"{verb} the initial packet {data[:60]} of {tgt.get('node')}.{tgt.get('port')}"
    return f"{command} {payload.get('public') or payload.get('name') or payload.get('id') or ''}"


async def _saved(client: Client, save: bool) -> int:
    """Save the graph if that is wanted; what cannot be saved is told, and is so all the same."""
    if not save:
        return 0
    try:
        await client.command("network", "persist")
    except ProtocolError as error:
        click.echo(f"msgflo: the network is changed, but {error}", err=True)
        return 1
    return 0


async def _until_live(
    client: Client,
    roles: Any,
    also: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    verb: str = "live",
    named: tuple[str, ...] = (),
) -> int:
    """Wait for roles to be live; say so, in the names that were given, or why one is not."""
    began = time.monotonic()

    def bad(node: Mapping[str, Any]) -> bool:
        return not node["started_here"] or any(
            it["state"] in ("failed", "exited") for it in node["instances"]
        )

    def enough(status: dict[str, Any]) -> bool:
        nodes = [node for role in roles if (node := _nodes(status).get(role)) is not None]
        return len(nodes) == len(roles) and all(
            (live(node) and also(node)) or bad(node) for node in nodes
        )

    names = ", ".join(roles)
    nodes = _nodes(await changes_of(client, enough, f"waiting for {names}"))
    code = 0
    for role in roles:
        node = nodes.get(role)
        if node is not None and live(node) and also(node):
            number = len(node["instances"])
            took = f"{verb} after {time.monotonic() - began:.1f} s"
            single = [name for name in named if name.rpartition(".")[0] == role]
            if single and role not in named:
                click.echo(f"{', '.join(single)}: {took}")
            else:
                click.echo(f"{role}: {number} instance{'s' * (number != 1)} {took}")
            continue
        code = 1
        reason = node["reason"] if node is not None else "it is not there"
        click.echo(f"{role}: not live: {reason or 'some of its instances are not'}", err=True)
        for one in node["instances"] if node is not None else ():
            if one["state"] != "live":
                click.echo(f"  {role}.{one['instance']} {one['state']}: {one['reason']}", err=True)
                for line in one.get("last_lines", [])[-5:]:
                    click.echo(f"    {line}", err=True)
    return code


def _ends(connection: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two ends of what was typed: ``a.out -> b.in``, or ``a OUT -> IN b``."""
    parts = connection.split("->")
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise ConfigurationError(f"{connection!r}: expected 'ROLE.PORT -> ROLE.PORT'")
    left, right = parts[0].split(), parts[1].split()
    if len(left) == 2:  # as a .fbp file has it
        left = [f"{left[0]}.{left[1]}"]
    if len(right) == 2:
        right = [f"{right[1]}.{right[0]}"]
    if len(left) != 1 or len(right) != 1:
        raise ConfigurationError(f"{connection!r}: expected 'ROLE.PORT -> ROLE.PORT'")
    return _end(left[0], "out"), _end(right[0], "in")


def _end(text: str, usual: str) -> dict[str, Any]:
    node, dot, port = text.rpartition(".")
    return {"node": node, "port": port.lower()} if dot else {"node": text, "port": usual}


def _check_end(status: dict[str, Any], end: dict[str, Any], direction: str) -> None:
    """Refuse an end that is not there, as far as that is known; a node without a port is taken."""
    nodes = _nodes(status)
    whole = f"{end['node']}.{end['port']}"
    if end["node"] not in nodes and whole in nodes:
        end["node"], end["port"] = whole, "out" if direction == "outports" else "in"
    node = nodes.get(end["node"])
    if node is None or not node["in_graph"]:
        raise no_node(end["node"], status)
    known = [port["id"] for port in node.get(direction, [])]
    same = [name for name in known if name.casefold() == end["port"].casefold()]
    if known and not same:
        raise ProtocolError(
            f"{end['node']} has no {direction[:-1]} {end['port']!r}; it has: {', '.join(known)}."
            f"{near(end['port'], known)}"
        )
    if same:
        end["port"] = same[0]


def _edge(
    status: dict[str, Any], src: Mapping[str, Any], tgt: Mapping[str, Any]
) -> dict[str, Any] | None:
    def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        ports = one["port"].casefold(), other["port"].casefold()
        return bool(one["node"] == other["node"] and ports[0] == ports[1])

    for edge in status["edges"]:
        if same(edge["src"], src) and same(edge["tgt"], tgt):
            found: dict[str, Any] = edge
            return found
    return None


def _nodes(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["node"]: node for node in status["nodes"]}


def _binding(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return one["kind"], one["source"], one["target"]


def _shown(src: Mapping[str, Any], tgt: Mapping[str, Any]) -> str:
    return f"{src.get('node')}.{src.get('port')} -> {tgt.get('node')}.{tgt.get('port')}"


def _packet(item: str) -> tuple[str, Any]:
    port, equals, data = item.partition("=")
    if not equals or not port:
        raise ConfigurationError(f"--initial {item}: expected PORT=DATA")
    try:
        return port, json.loads(data)
    except ValueError:
        return port, data
