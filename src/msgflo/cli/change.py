"""``msgflo scale`` and other changes of a network: what can be typed; :mod:`.changing` does it."""

from collections.abc import Callable
from typing import Any

import click

from msgflo.cli.completion import complete_components, complete_roles
from msgflo.cli.options import Where, network_options

__all__ = ["add", "connect", "disconnect", "redo", "remove", "restart", "scale", "undo"]

_NOT_SAVED = "Do not save the graph's file."
_NO_WAIT = "Do not wait until the network is so."


def _changing(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--no-wait", is_flag=True, help=_NO_WAIT)(command)
    return click.option("--no-save", is_flag=True, help=_NOT_SAVED)(network_options(command))


@click.command()
@click.argument(
    "counts", metavar="ROLE=N...", nargs=-1, required=True, shell_complete=complete_roles
)
@_changing
def scale(counts: tuple[str, ...], where: Where, no_save: bool, no_wait: bool) -> int:
    """Run N instances of roles, from now on.

    The graph's file says it then: resize(images/Resize:instances=4). Instances that are too many
    finish what they have begun; what waits for the role waits for those that are left.
    """
    from msgflo.cli import changing

    return changing.scale(where, counts, save=not no_save, wait=not no_wait)


@click.command()
@click.argument(
    "targets", metavar="ROLE[.N]...", nargs=-1, required=True, shell_complete=complete_roles
)
@network_options
@click.option("--no-wait", is_flag=True, help=_NO_WAIT)
def restart(targets: tuple[str, ...], where: Where, no_wait: bool) -> int:
    """Start the processes of roles, or single instances, anew, with their code as it is now.

    They finish what they have begun; what is sent meanwhile waits for them.
    """
    from msgflo.cli import changing

    return changing.restart(where, targets, wait=not no_wait)


@click.command()
@click.argument("connection", metavar="'ROLE.PORT -> ROLE.PORT'")
@_changing
def connect(connection: str, where: Where, no_save: bool, no_wait: bool) -> int:
    """Connect an outport to an inport: msgflo connect 'fetch.out -> resize.in'.

    Without PORT, it is out, and in. What is sent from now on travels by it.
    """
    from msgflo.cli import changing

    return changing.connect(where, connection, save=not no_save, wait=not no_wait)


@click.command()
@click.argument("connection", metavar="'ROLE.PORT -> ROLE.PORT'")
@_changing
def disconnect(connection: str, where: Where, no_save: bool, no_wait: bool) -> int:
    """Remove a connection.

    What was sent by it before still arrives.
    """
    from msgflo.cli import changing

    return changing.disconnect(where, connection, save=not no_save, wait=not no_wait)


@click.command()
@click.argument("role")
@click.argument("component", shell_complete=complete_components)
@click.option("--instances", type=click.IntRange(0), help="Run so many of it.")
@click.option(
    "--initial", multiple=True, metavar="PORT=DATA", help="An initial packet; repeatable."
)
@click.option("--elsewhere", is_flag=True, help="Its participants are started somewhere else.")
@_changing
def add(
    role: str,
    component: str,
    instances: int | None,
    initial: tuple[str, ...],
    elsewhere: bool,
    where: Where,
    no_save: bool,
    no_wait: bool,
) -> int:
    """Add a role to the network, filled by a component (msgflo components lists them).

    DATA of an initial packet is JSON, or a text if it is not JSON.
    """
    from msgflo.cli import changing

    return changing.add(
        where, role, component, instances, initial, elsewhere, save=not no_save, wait=not no_wait
    )


@click.command()
@click.argument("role", shell_complete=complete_roles)
@_changing
def remove(role: str, where: Where, no_save: bool, no_wait: bool) -> int:
    """Remove a role and its connections from the network; its processes end.

    What waits in its queues stays in the broker: a role of this name that is added again finds it.
    """
    from msgflo.cli import changing

    return changing.remove(where, role, save=not no_save, wait=not no_wait)


@click.command()
@click.option("--steps", "-n", type=click.IntRange(1), default=1, help="So many edits.")
@network_options
@click.option("--no-save", is_flag=True, help=_NOT_SAVED)
def undo(steps: int, where: Where, no_save: bool) -> int:
    """Take the last edit of the graph back, whoever made it."""
    from msgflo.cli import changing

    return changing.move(where, "undo", steps, save=not no_save)


@click.command()
@click.option("--steps", "-n", type=click.IntRange(1), default=1, help="So many edits.")
@network_options
@click.option("--no-save", is_flag=True, help=_NOT_SAVED)
def redo(steps: int, where: Where, no_save: bool) -> int:
    """Make again the edit that was taken back last."""
    from msgflo.cli import changing

    return changing.move(where, "redo", steps, save=not no_save)
