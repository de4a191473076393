"""The names that the tools of the original MsgFlo have, for scripts that call them.

Each does what a command of ``msgflo`` does, and takes the options, prints the output and ends with
the exit status that it always had. As the originals do, they take the broker from ``--broker``,
``MSGFLO_BROKER``, ``CLOUDAMQP_URL``, or else ``amqp://localhost``, and paths from the working
folder. What was plainly a fault is none here: ``--forever=false`` ends.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from msgflo.cli import run_command

__all__ = [
    "dump_message",
    "procfile",
    "register",
    "register_foreign",
    "send_message",
    "setup",
]

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}

_broker_option = click.option("--broker", default="", help="URL of the broker.")


def _switch(name: str, default: bool, text: str) -> Callable[..., Any]:
    """An option that is true when it is there, unless its value says otherwise."""
    return click.option(
        f"--{name}",
        is_flag=False,
        flag_value="true",
        default=str(default).lower(),
        type=click.BOOL,
        metavar="[BOOL]",
        help=text,
    )


def _broker(given: str = "") -> str:
    environ = os.environ
    return (
        given or environ.get("MSGFLO_BROKER") or environ.get("CLOUDAMQP_URL") or "amqp://localhost"
    )


def plain_arguments(given: Iterable[str], switches: Iterable[str]) -> list[str]:
    """Return arguments in which options that took ``true`` or ``false`` are there, or are not."""
    names = {f"--{name}" for name in switches}
    plain: list[str] = []
    pending = ""
    for argument in given:
        if pending:
            option, pending = pending, ""
            if argument.lower() in _FALSE:
                continue
            plain.append(option)
            if argument.lower() in _TRUE:
                continue
        option, equals, value = argument.partition("=")
        if option not in names:
            plain.append(argument)
        elif not equals:
            pending = option
        elif value.lower() not in _FALSE:
            plain.append(option)
    return [*plain, *([pending] if pending else [])]


def _has(arguments: Iterable[str], *options: str) -> bool:
    return any(argument.partition("=")[0] in options for argument in arguments)


def setup() -> NoReturn:
    """``msgflo-setup``: as ``msgflo setup``."""
    from msgflo.cli.setup import setup as command

    given = [*sys.argv[1:]]
    for number, argument in enumerate(given):
        if argument.partition("=")[0] == "--shell":
            # Commands are split by a shell's rules, and need none.
            del given[number : number + (1 if "=" in argument else 2)]
            break
    arguments = plain_arguments(given, ["participants", "discover", "forever"])
    if not _has(arguments, "--broker", "--help", "-h"):
        arguments += ["--broker", _broker()]
    if not _has(arguments, "--project"):
        arguments += ["--project", "."]
    run_command(command, arguments, "msgflo-setup")


def procfile() -> NoReturn:
    """``msgflo-procfile``: as ``msgflo export procfile``."""
    from msgflo.cli.export import procfile as command

    arguments = sys.argv[1:]
    if not _has(arguments, "--project"):
        arguments += ["--project", "."]
    run_command(command, arguments, "msgflo-procfile")


@click.command()
@_broker_option
@click.option("--queue", default="", help="Queue to send the message to.")
@click.option("--json", "data", default="", help="The message. Must be valid JSON.")
def _send(broker: str, queue: str, data: str) -> int:
    """Send a message to a queue."""
    # Said on the standard output, as the original does.
    if not queue:
        click.echo("Missing queue to send to (--queue)")
        return 1
    if not data:
        click.echo("Missing message payload (--json)")
        return 1
    try:
        json.loads(data)
    except ValueError as error:
        click.echo(f"Invalid JSON: {error}")
        return 1
    from msgflo.cli.traffic import send_messages

    send_messages(queue, [(data.encode(), "application/json")], True, _broker(broker), None)
    return 0


def send_message() -> NoReturn:
    """``msgflo-send-message``: as ``msgflo send --queue``."""
    run_command(_send, None, "msgflo-send-message")


@click.command()
@_broker_option
@click.option("--queue", default="", help="Queue to take messages from.")
@click.option("--amount", type=click.IntRange(1), default=1, help="How many messages to take.")
def _dump(broker: str, queue: str, amount: int) -> int:
    """Take messages from a queue, and print them: one as JSON, several as a JSON list."""
    if not queue:
        raise click.UsageError("Missing queue to dump messages from (--queue)")
    from msgflo.cli.traffic import take_messages

    return take_messages(
        queue,
        count=amount,
        timeout=None,
        queue=True,
        together=amount > 1,
        url=_broker(broker),
        project=None,
    )


def dump_message() -> NoReturn:
    """``msgflo-dump-message``: as ``msgflo take --queue``."""
    run_command(_dump, None, "msgflo-dump-message")


@click.command()
@_broker_option
@click.option("--role", "roles", multiple=True, help="ROLE:FILE of a definition; repeatable.")
@click.option("--interval", type=float, default=60.0, help="How often to announce, in seconds.")
@_switch("forever", True, "Keep running.")
def _register(broker: str, roles: tuple[str, ...], interval: float, forever: bool) -> None:
    """Announce participants that cannot do so themselves."""
    if not roles:
        raise click.UsageError("give at least one --role ROLE:FILE")
    from msgflo.cli.registering import register_files

    register_files(
        [], roles, interval=interval, once=not forever, url=_broker(broker), project=None
    )


def register() -> NoReturn:
    """``msgflo-register``: as ``msgflo register``."""
    run_command(_register, None, "msgflo-register")


@click.command()
@_broker_option
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--role", default="", help="The role, if the file does not say.")
@click.option("--interval", type=float, default=60.0, help="How often to announce, in seconds.")
@_switch("forever", False, "Keep running.")
def _register_foreign(broker: str, file: Path, role: str, interval: float, forever: bool) -> None:
    """Announce a participant that cannot do so itself."""
    click.echo(
        "DEPRECATED: Instead use msgflo-register --role A:./filename.yaml"
        " - which also supports multiple roles",
        err=True,
    )
    from msgflo.cli.registering import register_files

    register_files(
        [] if role else [file],
        [f"{role}:{file}"] if role else [],
        interval=interval,
        once=not forever,
        url=_broker(broker),
        project=None,
    )


def register_foreign() -> NoReturn:
    """``msgflo-register-foreign``: as ``msgflo register FILE --once``."""
    run_command(_register_foreign, None, "msgflo-register-foreign")
