"""``msgflo export``: a network for other tools to run.

Each command imports what it needs when it runs: help has to answer at once.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from msgflo.errors import ConfigurationError

if TYPE_CHECKING:
    from msgflo.processes.export import Plan
    from msgflo.processes.library import Library

__all__ = ["export"]

_OPTIONS = (
    click.argument("file", metavar="GRAPH", type=click.Path(path_type=Path)),
    click.option(
        "--project",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="The folder with the components. [default: the one around GRAPH]",
    ),
    click.option(
        "--library",
        "config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="The only configuration file to read, instead of the usual ones.",
    ),
    click.option(
        "--components",
        type=click.Path(path_type=Path),
        help="The folder of components, instead of the usual ones.",
    ),
    click.option(
        "--ignore", multiple=True, metavar="ROLES", help="Leave these (a,b) out; repeatable."
    ),
    click.option(
        "--scale", "-s", multiple=True, metavar="ROLE=N", help="N instances of a role; repeatable."
    ),
    click.option("--name", default="", help="The network's name. [default: the graph's]"),
    click.option(
        "--output",
        "-o",
        type=click.Path(path_type=Path),
        help="Write there. [default: to the standard output]",
    ),
)


def _planned(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that :func:`_plan` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_BROKER = click.option(
    "--broker",
    envvar="MSGFLO_BROKER",
    help="The broker's URL, of which nothing but its kind is written. [env: MSGFLO_BROKER]",
)


@click.group()
def export() -> None:
    """Write what other tools need to run a graph: Compose, Kubernetes, systemd, a Procfile."""


@export.command()
@_planned
@click.option("--include", multiple=True, metavar="LINE", help="Add a line as it is; repeatable.")
def procfile(include: tuple[str, ...], **options: Any) -> None:
    """A Procfile, for foreman, honcho and Heroku: a line for each role.

    The processes find the broker in MSGFLO_BROKER. Their connections: msgflo setup GRAPH.
    """
    from msgflo.processes import export as exporting

    plan, _ = _plan(**options)
    several = [f"{it.role}={it.instances}" for it in plan.roles if it.instances != 1]
    if several:
        formation = ",".join(["all=1", *several])
        click.echo(f"msgflo: a Procfile does not say how many: start -m {formation}", err=True)
    _write(exporting.procfile(plan, include), options["output"])


@export.command()
@_planned
@_BROKER
@click.option("--image", default="", help="An image that is there, instead of one that is built.")
@click.option(
    "--install",
    default="msgflo>=1.0.0.dev0",
    show_default=True,
    help="How pip is asked for msgflo when an image is built. [there: MSGFLO]",
)
def compose(broker: str | None, image: str, install: str, **options: Any) -> None:
    """A file for docker compose: a broker, the connections and a service for each role.

    Saved as compose.yaml in the project's folder, docker compose up starts it all, its broker
    included: NATS, or RabbitMQ with --broker amqp://. A --broker with a host is taken to be there;
    its URL is then read from MSGFLO_BROKER when Compose starts.
    """
    from msgflo.processes import export as exporting

    scheme, host = _kind(broker or "nats://")
    plan, _ = _plan(**options)
    text = exporting.compose(
        plan, scheme=scheme, own_broker=not host, image=image, requirement=install
    )
    _write(text, options["output"])


@export.command()
@_planned
@_BROKER
@click.option("--image", help="The image. [default: NAME:latest]")
@click.option(
    "--monitoring",
    default="",
    metavar="HOST:PORT",
    help="Where KEDA finds the monitoring of NATS. [default: port 8222 of the broker's host]",
)
def kubernetes(broker: str | None, image: str | None, monitoring: str, **options: Any) -> None:
    """Manifests for kubectl apply: a workload for each role.

    A role behind msgflo/RoundRobin is scaled by KEDA with the length of its queue, on RabbitMQ or
    NATS JetStream. The broker's URL comes from a Secret, which the first lines say how to make.
    """
    from msgflo import transport
    from msgflo.processes import export as exporting

    scheme, host = _kind(broker or "nats://nats")
    url = broker if broker and host else f"{scheme}://{scheme}"
    plan, _ = _plan(**options)
    text = exporting.kubernetes(
        plan,
        scheme=scheme,
        image=image or f"{plan.name}:latest",
        monitoring=monitoring or f"{host or scheme}:8222",
        backlog=lambda queue: transport.backlog(url, queue),
    )
    _write(text, options["output"])


@export.command()
@_planned
@click.option(
    "--environment-file",
    default="",
    metavar="FILE",
    help="Holds MSGFLO_BROKER=URL there. [default: /etc/msgflo/NAME.env]",
)
def systemd(environment_file: str, **options: Any) -> None:
    """Units for systemd: a target, its connections, and a template for each role.

    They are for the project where it is, and for the programs as they are found here. --output is
    a folder, such as /etc/systemd/system; then: systemctl enable --now NAME.target
    """
    from msgflo.processes import export as exporting
    from msgflo.processes.command import search_path

    plan, library = _plan(**options)
    root = library.root.absolute()

    def program(name: str) -> str:
        found = shutil.which(name if "/" not in name else str(root / name), path=search_path(root))
        if found is None:
            click.echo(f"msgflo: there is no program {name} here", err=True)
        return str(Path(found).absolute()) if found else name

    units = exporting.systemd(
        plan,
        folder=str(root),
        environment_file=environment_file or f"/etc/msgflo/{plan.name}.env",
        program=program,
    )
    folder: Path | None = options["output"]
    if folder is None:
        for name, text in units.items():
            click.echo(f"# {name}\n{text}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in units.items():
        _write(text, folder / name)


def _kind(broker: str) -> tuple[str, str]:
    """Return the scheme and the host of a URL."""
    try:
        split = urlsplit(broker)
        return split.scheme.lower(), split.hostname or ""
    except ValueError:
        raise ConfigurationError("--broker is no URL; expected such as nats://host") from None


def _plan(
    file: Path,
    project: Path | None,
    config: Path | None,
    components: Path | None,
    ignore: Iterable[str],
    scale: Iterable[str],
    name: str,
    output: Path | None,  # noqa: ARG001 - it is for the caller
) -> "tuple[Plan, Library]":
    from msgflo.cli.run import names, numbers
    from msgflo.live import instances_said
    from msgflo.processes.export import plan
    from msgflo.processes.library import Library
    from msgflo.project import find_root, load_graph

    graph = load_graph(file)
    root = project or find_root(file)
    library = Library.load(
        root,
        component_dirs=[components.absolute()] if components else None,
        config=config.absolute() if config else None,
    )
    said = {node.id: instances_said(node) for node in graph.nodes.values()}
    planned = plan(
        graph,
        library,
        name=name or graph.name or file.stem,
        file=os.path.relpath(file, root),
        ignore=names(ignore),
        scale={**{it: number for it, number in said.items() if number}, **numbers(scale)},
    )
    for problem in (*library.problems, *planned.warnings):
        click.echo(f"msgflo: {problem}", err=True)
    return planned, library


def _write(text: str, path: Path | None) -> None:
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from None
