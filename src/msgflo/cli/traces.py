"""What ``msgflo trace`` does: records, shows, replays and sends again."""

import asyncio
import contextlib
import json
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
import msgspec

from msgflo import transport
from msgflo.cli.connecting import connected, find_port, roles_heard
from msgflo.errors import ConfigurationError, MsgFloError, TraceError
from msgflo.flow.discovery import Definition
from msgflo.flow.graph import Graph
from msgflo.flow.graphjson import dump_json
from msgflo.flow.wiring import wire
from msgflo.project import load_graph, write_atomically
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

__all__ = ["fetch", "record_network", "replay_for_ui", "resend_packets", "show_file", "show_way"]

LOOK_AGAIN = 2.0
"""Seconds between two looks at what is bound, for a recording."""

HEARD = 1.0
"""Seconds in which roles have to announce themselves when a recording begins."""


def _write(found: Flowtrace, path: Path) -> None:
    """Write a trace into a file, which is there as a whole or not at all.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        write_atomically(path, dump_flowtrace(found).encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from None


def _read(file: Path) -> Flowtrace:
    if str(file) == "-":
        return parse_flowtrace(sys.stdin.buffer.read(), "-")
    try:
        return parse_flowtrace(file.read_bytes(), str(file))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror or error}") from None


# record


def record_network(
    file: Path | None,
    output: Path | None,
    *,
    events: int,
    size: int,
    count: int | None,
    timeout: float | None,
    url: str | None,
    project: Path | None,
) -> int:
    """Record what passes a network's connections until a signal, and write it.

    Args:
        file: the graph that says which connections; ``None``: all that are bound.
        output: the file to write; ``None``: one named after graph and time.
        events: how many events to keep.
        size: how many bytes of them.
        count: end after so many events.
        timeout: end after so many seconds.
        url: the broker's; ``None``: that of the environment, or of the project's run.
        project: its folder; ``None``: the one around the working folder.

    Returns:
        The exit status: 1 if ``count`` events were not seen, else 0.

    Raises:
        MsgFloError: there is no broker, the graph is wrong, or the file cannot be written.
    """
    drawn = load_graph(file) if file is not None else None
    name = (drawn.name if drawn else "") or (file.stem if file else "observed")
    metadata = {"label": name, "type": "msgflo"}
    ring = Recording(time.time(), events=events, size=size, metadata=metadata)
    path = output or _default_path(name)
    if not path.parent.is_dir():  # told before, and not after, an hour of recording
        raise ConfigurationError(f"cannot write {path}: {path.parent} is no folder")
    return asyncio.run(_record(drawn, name, ring, path, count, timeout, url, project))


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
        _write(found, to)
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
    found: dict[str, object] = json.loads(dump_json(graph))
    return found


# show


def show_file(file: Path) -> None:
    """Print a line for each packet of a trace.

    Raises:
        MsgFloError: the file cannot be read, or is none.
    """
    found = _read(file)
    if found.dropped:
        click.echo(f"{found.dropped} events before these did not fit into the recording", err=True)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in event_lines(found.events, colour=colour):
        click.echo(line)


# message


def show_way(
    ids: tuple[str, ...],
    *,
    as_json: bool,
    timeout: float,
    url: str | None,
    project: Path | None,
) -> int:
    """Print the ways of messages.

    Args:
        ids: of messages or traces.
        as_json: print a line of JSON for each step.
        timeout: seconds that participants have to answer.
        url: the broker's; ``None``: that of the environment, or of the project's run.
        project: its folder; ``None``: the one around the working folder.

    Returns:
        The exit status: 1 if nobody remembers any of them, else 0.

    Raises:
        MsgFloError: there is no broker.
    """
    return asyncio.run(_message(ids, as_json, timeout, url, project))


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


def replay_for_ui(
    file: Path, *, host: str, port: int, ide: str, opened: bool, speed: float, step: bool
) -> None:
    """Serve a trace as a runtime until a signal.

    Args:
        file: the trace.
        host: where to listen.
        port: likewise; 0: any that is free.
        ide: the web page that may connect, and to which the printed address leads.
        opened: open that in a browser.
        speed: how many times faster than it was; 0: all at once.
        step: one event at a time, each when a line is typed.

    Raises:
        MsgFloError: the file is no trace, or the address cannot be listened at.
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


def fetch(graph: str | None, output: Path | None, address: str, secret: str) -> None:
    """Fetch what a runtime has recorded, and write it.

    Args:
        graph: the graph's id; ``None``: the main one's.
        output: the file to write, ``-`` for the standard output; ``None``: one named after graph
            and time.
        address: the runtime's WebSocket URL.
        secret: what it wants to hear.

    Raises:
        MsgFloError: there is no runtime, nothing was recorded, or the file cannot be written.
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
    _write(found, path)
    click.echo(f"wrote {len(found.events)} events to {path}", err=True)


# resend


def resend_packets(
    file: Path,
    connection: str,
    *,
    to: str | None,
    through_source: bool,
    same_ids: bool,
    speed: float,
    step: bool,
    url: str | None,
    project: Path | None,
) -> None:
    """Send recorded packets into a running network once more.

    Args:
        file: the trace.
        connection: which packets, as :func:`msgflo.trace.replay.packets_of` has it.
        to: the inport, as ``ROLE.PORT``; ``None``: the one that they went to.
        through_source: send them as their source did, instead.
        same_ids: with their old ids.
        speed: how many times faster than it was; 0: without pauses.
        step: one at a time, each when a line is typed.
        url: the broker's; ``None``: that of the environment, or of the project's run.
        project: its folder; ``None``: the one around the working folder.

    Raises:
        MsgFloError: the file is no trace, it is not clear what to send or where, or the broker
            does not take it; what was sent before an error stays sent.
    """
    packets = packets_of(_read(file), connection)
    asyncio.run(_resend(packets, to, through_source, same_ids, speed, step, url, project))


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
