"""``msgflo components``: what a network can be made of.

It imports what it needs when it runs: help has to answer at once.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from msgflo.processes.library import Component

__all__ = ["components"]


@click.command()
@click.argument("name", required=False)
@click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The project's folder. [default: the one around the working folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def components(name: str | None, project: Path | None, as_json: bool) -> int:
    """List the components that graphs of a project can use, or tell all about one of them.

    Files that cannot be understood are reported on the error output; exit status 1 if there are.
    """
    from msgflo.processes.library import Library
    from msgflo.project import find_root

    library = Library.load(project or find_root(Path.cwd()))
    listed = [library.get(name)] if name else library.components()
    if as_json:
        click.echo(json.dumps([_as_json(component) for component in listed], indent=2))
    elif name:
        for key, value in _as_json(listed[0]).items():
            if value:
                click.echo(f"{key + ':':<13}{value}")
    elif listed:
        width = max(len(component.name) for component in listed)
        for component in listed:
            line = component.description or component.command
            click.echo(f"{component.name:<{width}}  {component.language:<12} {line}".rstrip())
    else:
        folders = " or ".join(str(folder) for folder in library.folders)
        click.echo(f"no components in {folders}", err=True)
    for problem in library.problems:
        click.echo(f"problem: {problem}", err=True)
    return 1 if library.problems else 0


def _as_json(component: "Component") -> dict[str, object]:
    return {
        "name": component.name,
        "description": component.description,
        "language": component.language,
        "path": str(component.path) if component.path else None,
        "command": component.command,
        "virtual": component.virtual,
        "foreign": component.foreign is not None,
    }
