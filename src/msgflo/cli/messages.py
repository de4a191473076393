"""``msgflo send`` and ``msgflo tail``: what can be typed; :mod:`msgflo.cli.traffic` does it."""

import contextlib
import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import click

from msgflo.cli.completion import complete_roles
from msgflo.cli.options import broker_option, project_option
from msgflo.errors import ConfigurationError

__all__ = ["send", "tail"]


@click.command()
@click.argument("target", metavar="ROLE[.PORT]", shell_complete=complete_roles)
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
@click.option(
    "--id",
    "message_id",
    metavar="TEXT",
    help="The message's id, by which msgflo trace message finds it. Sent again within two minutes, "
    "it counts as sent. With --lines: TEXT-1, TEXT-2 ...",
)
@broker_option
@project_option
def send(
    target: str,
    data: str | None,
    text: bool,
    file: Any,
    lines: bool,
    queue: bool,
    message_id: str | None,
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
        bodies = (_encoded(_text_of(line), text) for line in file)
    else:
        bodies = [(file.read(), "application/octet-stream")]
    from msgflo.cli.traffic import send_messages

    if message_id is None:
        send_messages(target, bodies, queue, broker, project)
    else:
        ids = (f"{message_id}-{number}" for number in count(1)) if lines else iter([message_id])
        send_messages(target, bodies, queue, broker, project, ids)


def _encoded(data: str, text: bool) -> tuple[bytes, str]:
    if not text:
        with contextlib.suppress(ValueError):
            json.loads(data)
            return data.encode(), "application/json"
    return json.dumps(data, ensure_ascii=False).encode(), "application/json"


def _text_of(line: bytes) -> str:
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"a line is not text in UTF-8: {line[:40]!r}; without --lines, a file is sent as it is"
        ) from None


@click.command()
@click.argument("targets", metavar="[PORT|CONNECTION]...", nargs=-1, shell_complete=complete_roles)
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
    """Watch what passes ports and connections, from now on, without touching it.

    A port is ROLE.PORT, or a ROLE alone for its usual one. Of an outport: what it sends. Of an
    inport: what is sent to it, over all its connections. A connection is 'ROLE.PORT -> ROLE.PORT'.
    Without any: all outports of the roles that are there.

    Exit status 1 if --count messages were not seen within --timeout.
    """
    from msgflo.cli.traffic import watch

    return watch(
        targets,
        count=count,
        timeout=timeout,
        full=full,
        as_json=as_json,
        url=broker,
        project=project,
    )
