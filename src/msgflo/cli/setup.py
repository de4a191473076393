"""``msgflo setup``: what can be typed; :mod:`msgflo.cli.settingup` does it."""

from pathlib import Path

import click

from msgflo.cli.options import broker_option

__all__ = ["setup"]


@click.command()
@click.argument("file", metavar="GRAPH", type=click.Path(path_type=Path))
@broker_option
@click.option("--participants", is_flag=True, help="Start the participants too, and stay.")
@click.option("--only", multiple=True, metavar="ROLES", help="Start only these (a,b); repeatable.")
@click.option("--ignore", multiple=True, metavar="ROLES", help="Do not start these; repeatable.")
@click.option(
    "--discover",
    is_flag=True,
    help="Wait for what the participants announce, instead of naming queues by convention.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    help="Seconds to wait for participants.",
)
@click.option("--forever", is_flag=True, help="Stay, and connect whoever comes, until stopped.")
@click.option(
    "--forward",
    multiple=True,
    metavar="STREAMS",
    help="Show what participants print: stdout, stderr or both (a,b).",
)
@click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder with the components. [default: the one around GRAPH]",
)
@click.option(
    "--library",
    "config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The only configuration file to read, instead of the usual ones.",
)
@click.option(
    "--components",
    "--componentdir",
    type=click.Path(path_type=Path),
    help="The folder of components, instead of the usual ones.",
)
def setup(
    file: Path,
    broker: str | None,
    participants: bool,
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    discover: bool,
    timeout: float,
    forever: bool,
    forward: tuple[str, ...],
    project: Path | None,
    config: Path | None,
    components: Path | None,
) -> int:
    """Make the connections of GRAPH on a broker, and say which they are; then end.

    They stay, whoever is there. Queues are named by convention, ROLE.PORT, or as the library says;
    with --discover, as the participants say. To do it again changes nothing.

    Exit status 1 if a connection cannot be made, or a participant does not come.
    """
    from msgflo.cli.run import names
    from msgflo.cli.settingup import set_up_graph

    return set_up_graph(
        file,
        url=broker,
        participants=participants,
        only=names(only),
        ignore=names(ignore),
        wait=discover,
        timeout=timeout,
        forever=forever,
        forward=names(forward),
        project=project,
        config=config,
        components=components,
    )
