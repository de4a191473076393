"""Messages in and out of a running network by hand."""

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from msgflo import transport
from msgflo.cli.connecting import broker_url, connected, find_port, roles_heard
from msgflo.errors import ConfigurationError
from msgflo.flow.discovery import queue_of_place
from msgflo.processes.output import clean, plain, wants_colour
from msgflo.transport.contract import (
    CONTENT_TYPE,
    MESSAGE_ID,
    Broker,
    Delivery,
    Inlet,
    Tapped,
)

__all__ = ["send_messages", "take_messages", "watch"]


def send_messages(
    target: str,
    bodies: Iterable[tuple[bytes, str]],
    queue: bool,
    url: str | None,
    project: Path | None,
    ids: Iterator[str] | None = None,
) -> None:
    """Put messages into a queue, and say how many and which.

    Args:
        target: the port, or the queue's name.
        bodies: payloads and their content types.
        queue: whether it is a queue's name.
        url: the broker's; ``None``: that of the environment, or of the project's run.
        project: its folder; ``None``: the one around the working folder.
        ids: of the messages; ``None``: ones that nobody has had.

    Raises:
        MsgFloError: there is no broker, role or port of this name; what was sent before an error
            stays sent.
    """
    if ids is None:
        prefix = secrets.token_hex(8)
        ids = (f"{prefix}-{number}" for number in itertools.count(1))
    asyncio.run(_send(target, bodies, ids, queue, url, project))


async def _send(
    target: str,
    bodies: Iterable[tuple[bytes, str]],
    ids: Iterator[str],
    queue: bool,
    url: str | None,
    project: Path | None,
) -> None:
    broker = await connected(url, project)
    try:
        name = target if queue else (await find_port(broker, target, ("inport",)))[1].queue
        count = 0
        try:
            for body, kind in bodies:
                about = {MESSAGE_ID: next(ids), CONTENT_TYPE: kind}
                await broker.enqueue(name, body, about)
                count += 1
        finally:
            click.echo(f"sent {count} message{'' if count == 1 else 's'} to {name}", err=True)
    finally:
        await broker.close()


def take_messages(
    target: str,
    *,
    count: int | None,
    timeout: float | None,
    queue: bool,
    together: bool,
    url: str | None,
    project: Path | None,
) -> int:
    """Take messages as a participant does, print their payloads as JSON, and settle them.

    A message is settled after it was printed: whoever is killed in between gets it again.

    Args:
        target: the port, or the queue's name.
        count: end after so many; ``None``: no limit.
        timeout: end after so many seconds; ``None``: no limit.
        queue: whether it is a queue's name.
        together: print one JSON list of them all at the end, instead of a line for each.
        url: the broker's; ``None``: that of the environment, or of the project's run.
        project: its folder; ``None``: the one around the working folder.

    Returns:
        The exit status: 1 if there were fewer than ``count``.

    Raises:
        MsgFloError: there is no broker, role or port of this name.
    """
    return asyncio.run(_take(target, count, timeout, queue, together, url, project))


_ONLOOKER = 999_999
"""The instance that a program is which takes a few messages and goes: nobody else's."""

_ITS_RETENTION = 1.0


async def _take(
    target: str,
    count: int | None,
    timeout: float | None,
    queue: bool,
    together: bool,
    url: str | None,
    project: Path | None,
) -> int:
    url = broker_url(url, project)
    name = target
    if not queue:
        broker = await connected(url, project)
        try:
            name = (await find_port(broker, target, ("inport",)))[1].queue
        finally:
            await broker.close()
    client = transport.client(url)
    await client.connect(timeout=5)
    name, instance = queue_of_place(name)
    inlet = Inlet(name, instance or _ONLOOKER, _ITS_RETENTION if instance is None else 600.0)
    taken: list[Delivery] = []
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)

    def deliver(delivery: Delivery) -> None:
        if done.is_set() or len(taken) == count:
            return  # given back when the connection is closed
        taken.append(delivery)
        if not together:
            click.echo(_body_as_json(delivery.body))
        if len(taken) == count:
            done.set()  # and not settled yet, or one more would come
        elif not together:
            client.settle(delivery)

    try:
        await client.declare([inlet], [])
        await client.consume(inlet, (count or 1) if together else 1, deliver)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await done.wait()
        await client.pause(inlet)
        if together:
            click.echo(f"[{','.join(_body_as_json(delivery.body) for delivery in taken)}]")
        for delivery in taken if together else taken[-1:]:
            client.settle(delivery)  # once only, whoever has done so before
        await client.flush()
    finally:
        await client.close()
    return 1 if count is not None and len(taken) < count else 0


def _body_as_json(body: bytes) -> str:
    """Return a payload as JSON on one line; what is no JSON is a text."""
    try:
        value = json.loads(body)
    except ValueError:
        value = body.decode(errors="replace")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def watch(
    targets: tuple[str, ...],
    *,
    count: int | None,
    timeout: float | None,
    full: bool,
    as_json: bool,
    url: str | None,
    project: Path | None,
) -> int:
    """Show messages as they pass. Returns the exit status: 1 if there were fewer than ``count``.

    Args:
        targets: ports and connections; none: all outports.
        count: end after so many; ``None``: no limit.
        timeout: end after so many seconds; ``None``: no limit.
        full: show payloads whole.
        as_json: a JSON object a line.
        url: the broker's; ``None``: that of the environment, or of the project's run.
        project: its folder; ``None``: the one around the working folder.

    Raises:
        MsgFloError: there is no broker, role, port or connection of this name.
    """
    return asyncio.run(_watch(targets, count, timeout, full, as_json, url, project))


async def _watch(
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
        try:
            click.echo(_as_json(message) if as_json else _as_line(message, full))
        except OSError:  # whoever read it has gone
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - or the exit would complain
            done.set()
        if seen == count:
            done.set()

    try:
        broker.on_lost(lambda why: click.echo(f"the broker is lost: {why}", err=True))
        broker.on_restored(lambda: click.echo("the broker is back", err=True))
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
        if "->" in target:
            sources.append(await _source_of(broker, target))
            continue
        direction, port = await find_port(broker, target, ("outport", "inport"))
        sources.append(port.queue)
        if direction == "inport":
            bindings = await broker.bindings()
            sources += [b.source for b in bindings if b.target == port.queue]
    return sorted(set(sources))


async def _source_of(broker: Broker, connection: str) -> str:
    """Return the queue that feeds a connection, if there is one between these ports."""
    ends = [end.strip() for end in connection.split("->")]
    if len(ends) != 2 or not all(ends):
        raise ConfigurationError(f"{connection!r}: expected 'ROLE.PORT -> ROLE.PORT'")
    _, source = await find_port(broker, ends[0], ("outport",))
    _, target = await find_port(broker, ends[1], ("inport",))
    led = [b.target for b in await broker.bindings() if b.source == source.queue]
    if target.queue not in led:
        raise ConfigurationError(
            f"nothing connects {source.queue} to {target.queue}; "
            f"{source.queue} is connected to: {', '.join(sorted(led)) or 'nothing'}"
        )
    return source.queue


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
    queue = plain(clean(message.queue))
    if wants_colour(sys.stdout, os.environ):
        queue = click.style(queue, fg="cyan")
    return f"{when:%H:%M:%S.%f} {queue} {text}"
