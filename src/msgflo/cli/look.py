"""``msgflo status`` and what else tells of a running network; :mod:`.looking` does it."""

import click

from msgflo.cli.completion import complete_roles
from msgflo.cli.options import Where, json_option, network_options

__all__ = ["bindings", "logs", "queues", "status", "top"]


@click.command()
@network_options
@json_option
def status(where: Where, as_json: bool) -> int:
    """Explain how the network is: what runs, what is pending, and why.

    Exit status 1 if something that should run does not, or a connection does not work.
    """
    from msgflo.cli import looking

    return looking.status(where, as_json)


@click.command()
@click.argument("roles", metavar="[ROLE]...", nargs=-1, shell_complete=complete_roles)
@click.option("--all", "-a", "everything", is_flag=True, help="Those that are empty too.")
@network_options
@json_option
def queues(roles: tuple[str, ...], everything: bool, where: Where, as_json: bool) -> int:
    """List the queues of roles: what waits, is in work, comes in and goes out.

    A work queue is shared by a role's instances; a place is one instance's own; in dead wait the
    messages that could not be processed (msgflo deadletters).
    """
    from msgflo.cli import looking

    return looking.queues(where, roles, everything, as_json)


@click.command()
@click.option("--remove-orphaned", is_flag=True, help="Remove what no graph here asks for.")
@network_options
@json_option
def bindings(remove_orphaned: bool, where: Where, as_json: bool) -> int:
    """List what the broker has bound: wanted by the graph, not bound yet, or orphaned.

    Orphaned is what is bound and this graph does not ask for. It may be another network's on the
    same broker: look before you remove it.
    """
    from msgflo.cli import looking

    return looking.bindings(where, remove_orphaned, as_json)


@click.command()
@click.argument("targets", metavar="[ROLE[.N]]...", nargs=-1, shell_complete=complete_roles)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is printed from now on.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0, 10_000),
    default=50,
    show_default=True,
    help="So many of the last lines.",
)
@network_options
@json_option
def logs(targets: tuple[str, ...], follow: bool, lines: int, where: Where, as_json: bool) -> int:
    """Show what the processes of roles, or of single instances, have printed; of all, without any.

    It is kept in .msgflo/logs of the project, up to 2 MB of each instance.
    """
    from msgflo.cli import looking

    return looking.logs(where, targets, follow, lines, as_json)


@click.command()
@click.option(
    "--every",
    type=click.FloatRange(0.2),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often it is drawn anew.",
)
@click.option("--once", is_flag=True, help="Print it once, after SECONDS, and end.")
@network_options
@json_option
def top(every: float, once: bool, where: Where, as_json: bool) -> int:
    """Watch the network live: roles, instances, CPU and memory, rates, latency, waiting, dead.

    q or Ctrl-C quits. Where the output is no terminal it is printed once.
    """
    from msgflo.cli import overview

    return overview.top(where, every, once, as_json)
