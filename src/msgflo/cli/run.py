"""``msgflo run``: what can be typed; :mod:`msgflo.cli.running` does it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from msgflo.cli.serving import serving_options
from msgflo.errors import ConfigurationError

__all__ = ["names", "numbers", "run"]


@click.command()
@click.argument("file", metavar="[GRAPH]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--broker",
    envvar=["MSGFLO_BROKER", "CLOUDAMQP_URL"],
    help="The broker's URL. [env: MSGFLO_BROKER; default: an embedded one is started]",
)
@click.option(
    "--scale", "-s", multiple=True, metavar="ROLE=N", help="Run N instances of a role; repeatable."
)
@click.option("--only", multiple=True, metavar="ROLES", help="Start only these (a,b); repeatable.")
@click.option("--ignore", multiple=True, metavar="ROLES", help="Do not start these; repeatable.")
@click.option(
    "--restart",
    type=click.Choice(["on-failure", "always", "never"]),
    default="on-failure",
    show_default=True,
    help="Which processes are started again when they end.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Seconds that processes have to finish what they do when they are stopped.",
)
@click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder with components and state. [default: the one around GRAPH]",
)
@click.option(
    "--summary",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Print a line of rates, waiting and dead messages this often (SIGUSR1: once).",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse connections whose types can never match, instead of warning of them.",
)
@click.option(
    "--trace",
    is_flag=True,
    help="Record the last packets of all connections. SIGUSR2, or a process that fails, writes "
    "them into .msgflo/; msgflo trace dump fetches them.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Start a role anew when its code changes. (A graph file that changes is followed always.)",
)
@click.option("--quiet", "-q", is_flag=True, help="Do not show what the participants print.")
@serving_options
def run(
    file: Path | None,
    broker: str | None,
    scale: tuple[str, ...],
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    restart: str,
    grace: float,
    project: Path | None,
    summary: float | None,
    strict: bool,
    trace: bool,
    watch: bool,
    quiet: bool,
    **serving: Any,
) -> int:
    """Run GRAPH (.fbp or .json): start its participants and connect them, until Ctrl-C.

    Shows the roles with their instances, what is pending and why, then what the participants
    print. Roles that are not started here are connected when they announce themselves.

    Other programs can look at the network and change it while it runs, by the FBP protocol at the
    address that is shown. Without GRAPH the network is empty at first.
    """
    from msgflo.cli.running import run_graph

    return run_graph(
        file,
        project,
        summary=summary,
        quiet=quiet,
        watch=watch,
        trace=trace,
        serving=serving,
        broker=broker,
        scale=numbers(scale),
        only=frozenset(names(only)) if only else None,
        ignore=frozenset(names(ignore)),
        restart=restart,
        grace=grace,
        strict=strict,
    )


def names(given: Iterable[str]) -> list[str]:
    """Return what an option names that can be repeated, and takes several with commas too."""
    return [name for names in given for name in names.split(",") if name]


def numbers(given: Iterable[str]) -> dict[str, int]:
    """Return what an option says that takes ROLE=N and can be repeated.

    Raises:
        ConfigurationError: it says something else.
    """
    scale = {}
    for item in given:
        role, equals, number = item.rpartition("=")
        if not equals or not role or not (number.isascii() and number.isdecimal()):
            raise ConfigurationError(f"--scale {item}: expected ROLE=N, such as resize=4")
        scale[role] = int(number)
    return scale
