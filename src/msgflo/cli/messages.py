"""``msgflo send`` and ``msgflo tail``: messages in and out of a running network by hand."""

import asyncio
import contextlib
import json
import secrets
import signal
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from msgflo.cli.connecting import broker_option, connected, find_port, project_option, roles_heard
from msgflo.errors import ConfigurationError
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Broker, Tapped

__all__ = ["send", "tail"]


@click.command()
@click.argument("target", metavar="ROLE[.PORT]")
@click.argument("data", required=False)
@click.option("--text", is_flag=True, help="DATA is a text, even if it looks like JSON.")
@click.option(
    "--file",
    "-f",
    type=click.File("rb"),
    help="Send a file's content, byte for byte; - is the standard input.",
)
@click.option("--lines", is_flag=True, help="With --file: one message for each line, as DATA.")
@click.option("--queue", is_flag=True, help="ROLE[.PORT] is a queue's name; nobody is asked.")
@broker_option
@project_option
def send(
    target: str,
    data: str | None,
    text: bool,
    file: Any,
    lines: bool,
    queue: bool,
    broker: str | None,
    project: Path | None,
) -> None:
    """Send a message to an inport; one participant of the role gets it.

    DATA is JSON, or a text if it is not JSON: msgflo send greet.in World. Without PORT it goes to
    the port `in`, or the only one.
    """
    if (data is None) == (file is None):
        raise click.UsageError("give the message as DATA, or with --file")
    if lines and file is None:
        raise click.UsageError("--lines goes with --file")
    if file is None:
        bodies: Iterable[tuple[bytes, str]] = [_encoded(data or "", text)]
    elif lines:
        bodies = (_encoded(line.decode().rstrip("\r\n"), text) for line in file)
    else:
        bodies = [(file.read(), "application/octet-stream")]
    asyncio.run(_send(target, bodies, queue, broker, project))


def _encoded(data: str, text: bool) -> tuple[bytes, str]:
    if not text:
        with contextlib.suppress(ValueError):
            json.loads(data)
            return data.encode(), "application/json"
    return msgspec.json.encode(data), "application/json"


async def _send(
    target: str,
    bodies: Iterable[tuple[bytes, str]],
    queue: bool,
    url: str | None,
    project: Path | None,
) -> None:
    broker = await connected(url, project)
    try:
        name = target if queue else (await find_port(broker, target, ("inport",)))[1].queue
        prefix = secrets.token_hex(8)
        count = 0
        for count, (body, kind) in enumerate(bodies, 1):
            await broker.enqueue(name, body, {MESSAGE_ID: f"{prefix}-{count}", CONTENT_TYPE: kind})
        click.echo(f"sent {count} message{'' if count == 1 else 's'} to {name}", err=True)
    finally:
        await broker.close()


@click.command()
@click.argument("targets", metavar="[ROLE[.PORT]]...", nargs=-1)
@click.option("--count", "-n", type=click.IntRange(1), help="End after so many messages.")
@click.option("--timeout", type=float, help="End after so many seconds.")
@click.option("--full", is_flag=True, help="Show messages whole, however long.")
@click.option("--json", "as_json", is_flag=True, help="Print each message as a line of JSON.")
@broker_option
@project_option
def tail(
    targets: tuple[str, ...],
    count: int | None,
    timeout: float | None,
    full: bool,
    as_json: bool,
    broker: str | None,
    project: Path | None,
) -> int:
    """Watch what passes ports, from now on, without touching it.

    Of an outport: what it sends. Of an inport: what is sent to it, over all its connections.
    Without any: all outports of the roles that are there. Exit status 1 if --count messages were
    not seen within --timeout.
    """
    return asyncio.run(_tail(targets, count, timeout, full, as_json, broker, project))


async def _tail(
    targets: tuple[str, ...],
    count: int | None,
    timeout: float | None,
    full: bool,
    as_json: bool,
    url: str | None,
    project: Path | None,
) -> int:
    broker = await connected(url, project)
    seen = 0
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)

    def show(message: Tapped) -> None:
        nonlocal seen
        if count is not None and seen >= count:
            return
        seen += 1
        click.echo(_as_json(message) if as_json else _as_line(message, full))
        if seen == count:
            done.set()

    try:
        sources = await _sources(broker, targets)
        for source in sources:
            await broker.tap(source, show)
        click.echo(f"watching {', '.join(sources)}", err=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), timeout)
    finally:
        await broker.close()
    return 1 if count is not None and seen < count else 0


async def _sources(broker: Broker, targets: tuple[str, ...]) -> list[str]:
    if not targets:
        heard = await roles_heard(broker, lambda _: False, patience=1.0)
        sources = [port.queue for role in heard.values() for port in role.outports if port.queue]
        if not sources:
            raise ConfigurationError("no participant with an outport announced itself")
        return sorted(set(sources))
    sources = []
    for target in targets:
        direction, port = await find_port(broker, target, ("outport", "inport"))
        sources.append(port.queue)
        if direction == "inport":
            bindings = await broker.bindings()
            sources += [b.source for b in bindings if b.target == port.queue]
    return sorted(set(sources))


def _payload(message: Tapped) -> Any:
    try:
        return msgspec.json.decode(message.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _as_json(message: Tapped) -> str:
    value = _payload(message)
    said: dict[str, Any] = {"queue": message.queue, "time": message.time}
    if value is None and message.body != b"null":
        said["base64"] = message.body
    else:
        said["data"] = value
    said["headers"] = dict(message.headers)
    return msgspec.json.encode(said).decode()


def _as_line(message: Tapped, full: bool) -> str:
    when = datetime.fromtimestamp(message.time or time.time()).astimezone()
    try:
        text = message.body.decode()
        if not text.isprintable():
            text = json.dumps(text)
    except UnicodeDecodeError:
        text = f"{len(message.body)} bytes: {message.body[:64].hex(' ')}"
    if not full and len(text) > 160:
        text = f"{text[:160]}… ({len(message.body)} bytes)"
    colour = sys.stdout.isatty()
    queue = click.style(message.queue, fg="cyan") if colour else message.queue
    return f"{when:%H:%M:%S.%f} {queue} {text}"
