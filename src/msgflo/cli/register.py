"""``msgflo register``: what can be typed; :mod:`msgflo.cli.registering` does it."""

from pathlib import Path

import click

from msgflo.cli.options import broker_option, project_option

__all__ = ["register"]


@click.command()
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--role", "roles", multiple=True, metavar="ROLE:FILE", help="FILE for a role; repeatable."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="Seconds; each is announced a little more than twice in this time.",
)
@click.option("--once", is_flag=True, help="Announce them once, and end.")
@broker_option
@project_option
def register(
    files: tuple[Path, ...],
    roles: tuple[str, ...],
    interval: float,
    once: bool,
    broker: str | None,
    project: Path | None,
) -> None:
    """Announce participants that cannot do so themselves, until stopped.

    FILE is a definition in YAML: component, label, icon, inports and outports, each port with its
    queue. #ROLE in it stands for the role. Without ROLE: the file names its role.
    """
    if not files and not roles:
        raise click.UsageError("give a FILE that names its role, or --role ROLE:FILE")
    from msgflo.cli.registering import register_files

    register_files(files, roles, interval=interval, once=once, url=broker, project=project)
