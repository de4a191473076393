"""``msgflo --graph FILE ...``: the command as its users know it, without a subcommand."""

import os
from pathlib import Path

import click

from msgflo.errors import ConfigurationError

__all__ = ["classic"]


@click.command(hidden=True)
@click.option("--graph", type=click.Path(path_type=Path), help="The graph file.")
@click.option("--broker", help="The broker's URL.")
@click.option("--host", default="localhost", show_default=True, help="The address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=3569, show_default=True, help="The port."
)
@click.option(
    "--library",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The configuration of the components. [default: package.json and its like]",
)
@click.option("--componentdir", default="", help="The folder of the components.")
@click.option("--ignore", multiple=True, metavar="PROCESS", help="Do not start; repeatable.")
@click.option(
    "--forward",
    default="stderr,stdout",
    show_default=True,
    help="What of the participants' output is shown.",
)
@click.option(
    "--auto-save",
    is_flag=False,
    flag_value="true",
    default="false",
    help="Save the graph after each edit.",
)
@click.option("--wait-timeout", type=float, default=45.0, help="Accepted; nothing times out here.")
@click.option("--runtime-id", envvar="MSGFLO_RUNTIME_ID", default="", help="The runtime's id.")
@click.option("--ide", default="http://app.flowhub.io", help="Where noflo-ui is served.")
@click.option(
    "--ping-url",
    envvar="MSGFLO_PING_URL",
    default="https://api.flowhub.io/runtimes/$RUNTIME_ID",
    help="What to tell that the runtime is there.",
)
@click.option("--ping-method", envvar="MSGFLO_PING_METHOD", default="POST")
@click.option(
    "--ping-interval",
    envvar="MSGFLO_PING_INTERVAL",
    type=float,
    default=0.0,
    help="Seconds between pings; 0: never.",
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Secrets that clients must say.",
)
def classic(
    graph: Path | None,
    broker: str | None,
    host: str,
    port: int,
    library: Path | None,
    componentdir: str,
    ignore: tuple[str, ...],
    forward: str,
    auto_save: str,
    wait_timeout: float,  # noqa: ARG001 - accepted, because others pass it
    runtime_id: str,
    ide: str,
    ping_url: str,
    ping_method: str,
    ping_interval: float,
    secret_file: Path | None,
) -> int:
    """Do what the original ``msgflo`` does with these options; ``msgflo run`` can do more."""
    from msgflo.cli.running import run_graph
    from msgflo.processes.library import Library
    from msgflo.project import find_root

    root = _root(library, componentdir, graph) or find_root(graph or Path.cwd())
    folders = [Path(componentdir).absolute()] if componentdir else None
    components = Library.load(
        root,
        component_dirs=folders,
        config=library.absolute() if library is not None else None,
    )
    for name in ignore:
        if not name:
            raise ConfigurationError("--ignore has no name; expected that of a process")
    return run_graph(
        graph,
        root,
        summary=None,
        quiet=not forward,
        serving={
            "host": host,
            "port": port,
            "secret_file": secret_file,
            "secret": None,
            "allow_origin": (),
            "auto_save": auto_save.strip().lower() not in {"", "0", "false", "no", "off"},
            "runtime_id": runtime_id,
            "ide": ide,
            "no_serve": False,
            "classic": True,
            "ping": (ping_url, ping_method, ping_interval),
        },
        broker=broker or os.environ.get("MSGFLO_BROKER") or os.environ.get("CLOUDAMQP_URL"),
        library=components,
        ignore=frozenset(ignore),
    )


def _root(library: Path | None, componentdir: str, graph: Path | None) -> Path | None:
    """Return the project's folder: the working folder, where any of the files is in it."""
    here = Path.cwd()
    for path in (library, Path(componentdir) if componentdir else None, graph):
        if path is not None and path.absolute().is_relative_to(here):
            return here
    return None
