"""The options by which a run is served to other programs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from msgflo.runtime import Runtime
    from msgflo.steering.service import Service

__all__ = ["serve", "serving_options"]

_OPTIONS = (
    click.option(
        "--host", default="127.0.0.1", show_default=True, help="The address to listen at."
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        help="The port to listen at; 0: any. [default: 3569, or the next that is free]",
    ),
    click.option(
        "--secret-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Secrets that clients must say: a level (read, rewire, code) and a secret on each "
        "line. [env: MSGFLO_SECRET, MSGFLO_SECRET_REWIRE, MSGFLO_SECRET_READ]",
    ),
    click.option(
        "--secret", help="One that opens all. Other users of this machine can see it here."
    ),
    click.option(
        "--allow-origin",
        multiple=True,
        metavar="URL",
        help="A web page's origin that may connect, beside those on this machine; repeatable.",
    ),
    click.option("--auto-save", is_flag=True, help="Save the graph's file after each edit."),
    click.option(
        "--runtime-id",
        envvar="MSGFLO_RUNTIME_ID",
        default="",
        help="The runtime's id. [env: MSGFLO_RUNTIME_ID; default: the one kept in .msgflo/]",
    ),
    click.option("--ide", default="", metavar="URL", help="Where noflo-ui is served."),
    click.option("--no-serve", is_flag=True, help="Do not listen."),
)


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that :func:`serve` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def serve(
    runtime: "Runtime",
    file: Path | None,
    *,
    tell: Callable[[str], None],
    host: str,
    port: int | None,
    secret_file: Path | None,
    secret: str | None,
    allow_origin: tuple[str, ...],
    auto_save: bool,
    runtime_id: str,
    ide: str,
    no_serve: bool,
    classic: bool = False,
    ping: tuple[str, str, float] = ("", "", 0.0),
) -> "Service | None":
    """Return what serves a runtime, as the options want it; ``None``: nothing does.

    Raises:
        ConfigurationError: the options do not go together, or the secrets cannot be read.
    """
    if no_serve:
        return None
    from msgflo.steering.endpoint import read_secrets
    from msgflo.steering.service import Service

    return Service(
        runtime,
        file=file,
        auto_save=auto_save,
        secrets=read_secrets(secret_file, os.environ, secret or ""),
        host=host,
        port=port,
        origins=allow_origin,
        runtime_id=runtime_id,
        ide=ide,
        tell=tell,
        classic=classic,
        ping=ping,
    )
