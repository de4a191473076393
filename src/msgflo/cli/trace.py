"""``msgflo trace``: what passed a network's connections, and the ways of messages."""

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click

from msgflo import transport
from msgflo.cli.connecting import connected, find_port, roles_heard
from msgflo.cli.options import broker_option, project_option
from msgflo.errors import ConfigurationError, MsgFloError, TraceError
from msgflo.flow.discovery import Definition
from msgflo.flow.graph import Graph
from msgflo.flow.graphjson import dump_json
from msgflo.flow.wiring import wire
from msgflo.project import load_graph
from msgflo.trace.flowtrace import (
    Event,
    Flowtrace,
    Recording,
    dump_flowtrace,
    event_lines,
    parse_flowtrace,
)
from msgflo.trace.recorder import Recorder, observed_graph, routes
from msgflo.trace.replay import Packet, packets_of, play
from msgflo.trace.ways import Inquirer, way_lines, ways
from msgflo.transport.contract import Broker, redacted

__all__ = ["trace", "write_trace"]

EVENTS = 10_000
"""Events that a recording keeps, unless said otherwise."""

LOOK_AGAIN = 2.0
"""Seconds between two looks at what is bound, for a recording."""

HEARD = 1.0
"""Seconds in which roles have to announce themselves when a recording begins."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def trace() -> None:
    """Record, show and replay what passes connections; find the way of a message."""


def write_trace(found: Flowtrace, path: Path) -> None:
    """Write a trace into a file, which is there as a whole or not at all.

    Raises:
        ConfigurationError: it cannot be written.
    """
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        making.write_text(dump_flowtrace(found), encoding="utf-8")
        making.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            making.unlink()
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from None


def _read(file: Path) -> Flowtrace:
    if str(file) == "-":
        return parse_flowtrace(sys.stdin.buffer.read(), "-")
    try:
        return parse_flowtrace(file.read_bytes(), str(file))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror or error}") from None


# record


@trace.command()
@click.argument("graph", required=False, type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write. [default: flowtrace-GRAPH-TIME.json]",
)
@click.option(
    "--events",
    type=click.IntRange(1),
    default=EVENTS,
    show_default=True,
    help="Keep so many events, the last ones.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="MB",
    help="Keep so much of them.",
)
@click.option("--count", "-n", type=click.IntRange(1), help="End after so many events.")
@click.option("--timeout", type=click.FloatRange(0), help="End after so many seconds.")
@broker_option
@project_option
def record(
    graph: Path | None,
    output: Path | None,
    events: int,
    size: int,
    count: int | None,
    timeout: float | None,
    broker: str | None,
    project: Path | None,
) -> int:
    """Record what passes the connections of a running network, until Ctrl-C.

    GRAPH says which connections; without it, all that are bound. Touches no traffic. On SIGUSR2
    writes what it has so far into a file, and goes on. Exit status 1 if --count events were not
    seen within --timeout.
    """
    drawn = load_graph(graph) if graph is not None else None
    name = (drawn.name if drawn else "") or (graph.stem if graph else "observed")
    metadata = {"label": name, "type": "msgflo"}
    ring = Recording(time.time(), events=events, size=size * 1024 * 1024, metadata=metadata)
    path = output or _default_path(name)
    if not path.parent.is_dir():  # told before, and not after, an hour of recording
        raise ConfigurationError(f"cannot write {path}: {path.parent} is no folder")
    return asyncio.run(_record(drawn, name, ring, path, count, timeout, broker, project))


def _default_path(name: str) -> Path:
    plain = re.sub(r"[^\w.-]", "_", name)
    return Path(f"flowtrace-{plain}-{time.strftime('%Y%m%d-%H%M%S')}.json")


async def _record(
    drawn: Graph | None,
    name: str,
    ring: Recording,
    path: Path,
    count: int | None,
    timeout: float | None,
    url: str | None,
    project: Path | None,
) -> int:
    broker = await connected(url, project)
    done = asyncio.Event()
    graphs: dict[str, Graph] = {}

    def enough() -> None:
        if count is not None and ring.recorded >= count:
            done.set()

    def write(to: Path) -> str:
        said = {name: _as_json(graph) for name, graph in graphs.items()}
        found = ring.flowtrace(time.time(), said, name)
        if count is not None:
            del found.events[count:]
        write_trace(found, to)
        dropped = f" ({ring.dropped} older ones did not fit)" if ring.dropped else ""
        return f"wrote {len(found.events)} events to {to}{dropped}"

    def dump() -> None:
        to = path.with_stem(f"{path.stem}-{time.strftime('%H%M%S')}")
        try:
            write(to)
            click.echo(f"Wrote flowtrace to: {to}", err=True)
        except MsgFloError as error:
            click.echo(f"msgflo: {error}", err=True)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, done.set)
    loop.add_signal_handler(signal.SIGUSR2, dump)
    recorder = Recorder(broker, ring, name, added=enough)
    following = asyncio.create_task(_follow(broker, recorder, drawn, name, graphs))
    ending = asyncio.create_task(done.wait())
    try:
        await asyncio.wait({following, ending}, timeout=timeout, return_when="FIRST_COMPLETED")
    finally:  # whatever has happened: what was recorded is written
        ending.cancel()
        following.cancel()
        results = await asyncio.gather(following, return_exceptions=True)
        with contextlib.suppress(MsgFloError):
            await recorder.close()
        await broker.close()
        if name in graphs:
            click.echo(write(path), err=True)
    if isinstance(results[0], Exception):
        raise results[0]
    return 1 if count is not None and ring.recorded < count else 0


async def _follow(
    broker: Broker,
    recorder: Recorder,
    drawn: Graph | None,
    name: str,
    graphs: dict[str, Graph],
) -> None:
    """Tap what is to be tapped, and look again and again for what has changed."""
    heard: dict[str, Definition] = await roles_heard(broker, lambda _: False, HEARD)
    told: set[str] = set()
    while True:
        with contextlib.suppress(MsgFloError):  # the broker is away; it is tried again
            graph = drawn or observed_graph(await broker.bindings(), heard)
            graphs[name] = graph
            within = {role: it for role, it in heard.items() if role in graph.nodes}
            wanted = routes(wire(graph, within).edges, within)
            await recorder.follow(wanted)
            if wanted.keys() != told:
                told = set(wanted)
                click.echo(f"recording {', '.join(sorted(told)) or 'nothing yet'}", err=True)
        await asyncio.sleep(LOOK_AGAIN)


def _as_json(graph: Graph) -> dict[str, object]:
    import json

    found: dict[str, object] = json.loads(dump_json(graph))
    return found


# show


@trace.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Show the packets of a trace, a line for each: as flowtrace-show does.

    FILE is a flowtrace; - is the standard input.
    """
    found = _read(file)
    if found.dropped:
        click.echo(f"{found.dropped} events before these did not fit into the recording", err=True)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in event_lines(found.events, colour=colour):
        click.echo(line)


# message


@trace.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print each step as a line of JSON.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Seconds that participants have to answer.",
)
@broker_option
@project_option
def message(
    ids: tuple[str, ...],
    as_json: bool,
    timeout: float,
    broker: str | None,
    project: Path | None,
) -> int:
    """Show the way of a message through the network: who handled it and what followed, when.

    ID is a message's id (of a log, a dead letter, msgflo tail --json), or a trace's. Participants
    remember the last 2000 messages or so. Exit status 1 if none remembers this one.
    """
    return asyncio.run(_message(ids, as_json, timeout, broker, project))


async def _message(
    ids: tuple[str, ...], as_json: bool, timeout: float, url: str | None, project: Path | None
) -> int:
    broker = await connected(url, project)
    try:
        inquirer = Inquirer(broker)
        await inquirer.start()
        spans = await inquirer.find(*ids, patience=timeout)
        await inquirer.close()
    finally:
        await broker.close()
    if inquirer.silent:
        click.echo(f"did not answer: {', '.join(inquirer.silent)}", err=True)
    if not spans:
        click.echo(f"no participant remembers {' or '.join(ids)}", err=True)
        return 1
    if as_json:
        import msgspec

        for span in spans:
            click.echo(msgspec.json.encode(msgspec.structs.asdict(span)).decode())
        return 0
    for number, way in enumerate(ways(spans)):
        if number:
            click.echo()
        for line in way_lines(way, mark=ids):
            click.echo(line)
    return 0


# replay


@trace.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=3333, show_default=True)
@click.option("--ide", default="http://app.flowhub.io", show_default=True, help="The UI to use.")
@click.option(
    "--open/--no-open", "-o/-n", "opened", default=False, help="Open it in a browser. [default: no]"
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="So many times faster than it was; 0: all at once.",
)
@click.option("--step", is_flag=True, help="One event at a time, each when Enter is pressed.")
def replay(
    file: Path, host: str, port: int, ide: str, opened: bool, speed: float, step: bool
) -> None:
    """Let a UI see a trace: as a runtime whose network does once more what it did.

    Whoever connects to it and starts the network sees the recorded packets pass. Nothing of it can
    be changed. To send recorded messages into a network that runs, see msgflo trace resend.
    """
    asyncio.run(_replay(_read(file), host, port, ide, opened, speed, step))


async def _replay(
    found: Flowtrace, host: str, port: int, ide: str, opened: bool, speed: float, step: bool
) -> None:
    # Imported here: the other commands need no web server.
    from msgflo.protocol.replay import Replay
    from msgflo.protocol.server import Listener, live_url

    def show_event(event: Event) -> None:
        for line in event_lines([event]):
            click.echo(line if len(line) < 200 else f"{line[:200]}…", err=True)

    made = Replay(
        found, speed=speed, step=step, shown=show_event if step else lambda _: None, now=time.time
    )
    parts = urlsplit(ide)
    listener = Listener(
        lambda: made.identity,
        made.converse,
        guarded=True,  # there is nothing that a client could change, or start
        host=host,
        port=port,
        ide=ide,
        origins=[f"{parts.scheme}://{parts.netloc}"],
    )
    await listener.start()
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    if step:
        threading.Thread(target=_lines, args=[loop, made.advance, done.set], daemon=True).start()
    try:
        url = live_url(host, listener.port, made.identity.id, ide=ide)
        click.echo(f"Trace live URL: {url}")
        click.echo(f"{len(made.events)} events of {made.main}; Ctrl-C stops it", err=True)
        if made.untold:
            click.echo(f"{made.untold} events cannot be told to a UI", err=True)
        if opened:
            click.launch(url)
        await done.wait()
    finally:
        await listener.close()


def _lines(
    loop: asyncio.AbstractEventLoop, each: Callable[[], None], end: Callable[[], object]
) -> None:
    """Call back for each line of the standard input, and at its end."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: it is over
        for _ in sys.stdin:
            loop.call_soon_threadsafe(each)
        loop.call_soon_threadsafe(end)


# dump


@trace.command()
@click.argument("graph", required=False)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write. [default: flowtrace-GRAPH-TIME.json; -: standard output]",
)
@click.option(
    "--address",
    default="ws://localhost:3569",
    show_default=True,
    help="The runtime. [env: MSGFLO_ADDRESS]",
    envvar="MSGFLO_ADDRESS",
)
@click.option("--secret", default="", envvar="MSGFLO_SECRET", help="[env: MSGFLO_SECRET]")
def dump(graph: str | None, output: Path | None, address: str, secret: str) -> None:
    """Fetch what a runtime has recorded, which goes on recording.

    The runtime records from the start with msgflo run --trace, or since a tool asked it to. GRAPH
    is the id of the graph; without it the main one is meant. Works with any runtime of the FBP
    protocol that traces.
    """
    asyncio.run(_dump(graph, output, address, secret))


async def _dump(graph: str | None, output: Path | None, address: str, secret: str) -> None:
    from msgflo.protocol.client import Client

    async with Client(address, secret=secret) as client:
        if graph is None:
            runtime = await client.command("runtime", "getruntime")
            graph = str(runtime.get("graph") or "")
            if not graph:
                raise ConfigurationError(f"{address} has no main graph; say which graph is meant")
        said = await client.command("trace", "dump", graph=graph, type="flowtrace.json")
    found = parse_flowtrace(said.get("flowtrace") or "", address)
    if str(output) == "-":
        click.echo(dump_flowtrace(found), nl=False)
        return
    path = output or _default_path(graph)
    write_trace(found, path)
    click.echo(f"wrote {len(found.events)} events to {path}", err=True)


# resend


@trace.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--connection",
    "-c",
    default="",
    metavar="CONNECTION",
    help="Which packets: 'a OUT -> IN b', or one end of it, b.in.",
)
@click.option(
    "--to",
    metavar="ROLE.PORT",
    help="Send them here. [default: where the connection led to]",
)
@click.option(
    "--through-source",
    is_flag=True,
    help="Send them as their source did, to all that it is connected to.",
)
@click.option(
    "--same-ids",
    is_flag=True,
    help="With their old ids: what the broker had within two minutes is dropped.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="So many times faster than it was; 0: without pauses.",
)
@click.option("--step", is_flag=True, help="One at a time, each when Enter is pressed.")
@broker_option
@project_option
def resend(
    file: Path,
    connection: str,
    to: str | None,
    through_source: bool,
    same_ids: bool,
    speed: float,
    step: bool,
    broker: str | None,
    project: Path | None,
) -> None:
    """Send the recorded messages of a connection into a running network once more.

    They go into the work queue of the inport that they went to: one participant gets each. They
    are new messages, with new ids; a header says which message each is a copy of.
    """
    packets = packets_of(_read(file), connection)
    if through_source and to:
        raise click.UsageError("--to and --through-source exclude each other")
    asyncio.run(_resend(packets, to, through_source, same_ids, speed, step, broker, project))


async def _resend(
    packets: list[Packet],
    to: str | None,
    through_source: bool,
    same_ids: bool,
    speed: float,
    step: bool,
    url: str | None,
    project: Path | None,
) -> None:
    broker = await connected(url, project)
    run = f"replay-{secrets.token_hex(6)}"
    chosen = _through_source(packets) if through_source else packets
    by_event = {id(packet.event): packet for packet in chosen}
    sent = 0
    try:
        async with contextlib.AsyncExitStack() as stack:
            if through_source:
                send = await _source_of(broker, chosen, stack)
            else:
                send = await _target_of(broker, chosen, to)

            async def do(event: Event) -> None:
                nonlocal sent
                packet = by_event[id(event)]
                headers = packet.headers("" if same_ids else f"{run}-{sent + 1}")
                await send(packet.body, headers)
                sent += 1

            events = [packet.event for packet in chosen]
            await play(events, do, speed=speed, ready=_enter(events) if step else None)
    finally:
        await broker.close()
        click.echo(f"sent {sent} of {len(chosen)} messages", err=True)


def _through_source(packets: list[Packet]) -> list[Packet]:
    """Return what one source sent, each message once, however many connections it passed."""
    sources = {packet.src for packet in packets}
    if len(sources) != 1 or None in sources:
        raise TraceError("these packets do not come from one source; expected one outport")
    first = packets[0].tgt
    return [packet for packet in packets if packet.tgt == first]


_Send = Callable[[bytes, dict[str, str]], Awaitable[None]]


async def _source_of(
    broker: Broker, packets: list[Packet], stack: contextlib.AsyncExitStack
) -> _Send:
    src = packets[0].src
    assert src is not None
    _, port = await find_port(broker, ".".join(src), ("outport",))
    client = transport.client(broker.url)
    await client.connect()
    stack.push_async_callback(client.close)
    await client.declare([], [port.queue])
    click.echo(f"sending as {port.queue} on {redacted(broker.url)}", err=True)

    async def send(body: bytes, headers: dict[str, str]) -> None:
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def over(error: Exception | None) -> None:
            if confirmed.done():
                return
            if error is None:
                confirmed.set_result(None)
            else:
                confirmed.set_exception(error)

        client.send(port.queue, body, headers, over)
        await confirmed

    return send


async def _target_of(broker: Broker, packets: list[Packet], to: str | None) -> _Send:
    if to is None:
        targets = {packet.tgt for packet in packets}
        target = packets[0].tgt
        if len(targets) != 1 or target is None:
            raise TraceError("these packets went to several inports; say one with --to")
        to = ".".join(target)
    _, port = await find_port(broker, to, ("inport",))
    click.echo(f"sending to {port.queue} on {redacted(broker.url)}", err=True)

    async def send(body: bytes, headers: dict[str, str]) -> None:
        await broker.enqueue(port.queue, body, headers)

    return send


def _enter(events: list[Event]) -> Callable[[Event], Awaitable[None]]:
    """Return what shows the next event and waits for Enter; the end of the input ends it."""
    numbers: Iterator[int] = iter(range(1, len(events) + 1))

    async def wait(event: Event) -> None:
        (line,) = event_lines([event])
        text = line if len(line) < 100 else f"{line[:100]}…"
        click.echo(f"{next(numbers)}/{len(events)} {text}", nl=False, err=True)
        if not await asyncio.to_thread(sys.stdin.readline):
            raise click.Abort

    return wait
