"""Options that several commands have. Imports nothing heavy: help has to answer at once."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

__all__ = [
    "Chosen",
    "Where",
    "broker_option",
    "json_option",
    "network_options",
    "project_option",
]

broker_option = click.option(
    "--broker", help="The broker's URL. [env: MSGFLO_BROKER; default: that of msgflo run here]"
)
project_option = click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder of the project that runs. [default: the one around the working folder]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


@dataclass(frozen=True, slots=True)
class Where:
    """Which running network is meant.

    Attributes:
        address: of its FBP protocol; ``None``: that of the environment, or of the project's run.
        secret_file: with what it is to be told; ``None``: likewise.
        project: its folder; ``None``: the one around the working folder.
    """

    address: str | None = None
    secret_file: Path | None = None
    project: Path | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which dead letters are meant: all that fit.

    Attributes:
        targets: ``ROLE`` or ``ROLE.PORT``; none: of all roles.
        error: in the error's type or text, in any case of letters.
        older, newer: died so many seconds ago, at least or at most.
        ids: ids of messages, or their beginnings.
    """

    targets: tuple[str, ...] = ()
    error: str = ""
    older: float | None = None
    newer: float | None = None
    ids: tuple[str, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether nothing at all was said."""
        return self == Chosen()


_NETWORK = (
    click.option(
        "--address",
        metavar="URL",
        help="Where the network's FBP protocol is. [env: MSGFLO_ADDRESS; default: that of msgflo "
        "run here]",
    ),
    click.option(
        "--secret-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The secret that it wants, in a file as msgflo run has it. [env: MSGFLO_SECRET, "
        "MSGFLO_SECRET_REWIRE, MSGFLO_SECRET_READ]",
    ),
    project_option,
)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name a running network; it gets them as ``where``."""

    @functools.wraps(command)
    def called(
        *args: Any,
        address: str | None,
        secret_file: Path | None,
        project: Path | None,
        **options: Any,
    ) -> Any:
        return command(*args, where=Where(address, secret_file, project), **options)

    for option in reversed(_NETWORK):
        called = option(called)
    return called
