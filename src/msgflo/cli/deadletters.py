"""``msgflo deadletters``: what can be typed; :mod:`msgflo.cli.letters` does it."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from msgflo.cli.completion import complete_roles
from msgflo.cli.options import Chosen, Where, json_option, network_options

__all__ = ["deadletters"]


class _Duration(click.ParamType):  # type: ignore[type-arg] # of older click
    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?", value.strip())
        if found is None:
            self.fail(f"{value!r}: expected a duration such as 90s, 10min, 2h or 3d", param, ctx)
        unit = {"s": 1, None: 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[found[2]]
        return float(found[1]) * unit


_CHOOSING = (
    click.argument("targets", metavar="[ROLE[.PORT]]...", nargs=-1, shell_complete=complete_roles),
    click.option("--error", default="", metavar="TEXT", help="With this in the error."),
    click.option("--older", type=_Duration(), metavar="AGE", help="Died this long ago: 10min, 2h."),
    click.option("--newer", type=_Duration(), metavar="AGE", help="Died since then."),
    click.option("--id", "ids", multiple=True, metavar="ID", help="A message's id; repeatable."),
)


def _choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose dead letters; it gets them as ``chosen``."""

    @functools.wraps(command)
    def called(
        *args: Any,
        targets: tuple[str, ...],
        error: str,
        older: float | None,
        newer: float | None,
        ids: tuple[str, ...],
        **options: Any,
    ) -> Any:
        return command(*args, chosen=Chosen(targets, error, older, newer, ids), **options)

    for option in reversed(_CHOOSING):
        called = option(called)
    return network_options(called)


@click.group()
def deadletters() -> None:
    """Messages that could not be processed: look at them, repair them, put them back."""


@deadletters.command("list")
@_choosing
@json_option
def list_(chosen: Chosen, where: Where, as_json: bool) -> int:
    """List dead letters, oldest first, of roles or of all."""
    from msgflo.cli import letters

    return letters.list_letters(where, chosen, as_json)


@deadletters.command()
@click.argument("message", metavar="ID")
@network_options
@json_option
def show(message: str, where: Where, as_json: bool) -> int:
    """Show a dead letter whole: the error with its traceback, headers, payload.

    ID is the message's id, or enough of its beginning.
    """
    from msgflo.cli import letters

    return letters.show(where, message, as_json)


@deadletters.command()
@click.argument("message", metavar="ID")
@click.option("--data", metavar="DATA", help="The new payload, JSON, or a text if it is not JSON.")
@click.option("--file", "-f", type=click.File("rb"), help="The new payload, as a file has it.")
@network_options
def edit(message: str, data: str | None, file: Any, where: Where) -> int:
    """Change a dead letter's payload and put it back, its id unchanged.

    Without --data or --file it is opened in $VISUAL or $EDITOR. What is saved unchanged, or empty,
    is left where it is.
    """
    if data is not None and file is not None:
        raise click.UsageError("give the payload with --data or with --file")
    from msgflo.cli import letters

    return letters.edit(where, message, data, file.read() if file is not None else None)


@deadletters.command()
@_choosing
@click.option("--all", "-a", "everything", is_flag=True, help="All of them, of all roles.")
def requeue(chosen: Chosen, everything: bool, where: Where) -> int:
    """Put dead letters back into the queues where they died, their ids unchanged.

    Their role tries them again as if they were new; one that dies again says how often it was put
    back.
    """
    _meant(chosen, everything)
    from msgflo.cli import letters

    return letters.requeue(where, chosen)


@deadletters.command()
@_choosing
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="The file. [default: the standard output]",
)
def export(chosen: Chosen, output: Path | None, where: Where) -> int:
    """Write dead letters as JSON, one on each line, whole. They stay where they are."""
    from msgflo.cli import letters

    return letters.export(where, chosen, output)


@deadletters.command()
@_choosing
@click.option("--all", "-a", "everything", is_flag=True, help="All of them, of all roles.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def purge(chosen: Chosen, everything: bool, yes: bool, where: Where) -> int:
    """Delete dead letters for good (export keeps a copy)."""
    _meant(chosen, everything)
    from msgflo.cli import letters

    return letters.purge(where, chosen, yes)


def _meant(chosen: Chosen, everything: bool) -> None:
    if chosen.anything and not everything:
        raise click.UsageError("say which: ROLE, --error, --older, --newer, --id, or --all")
