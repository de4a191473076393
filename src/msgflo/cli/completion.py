"""``msgflo completion``: what a shell needs to complete commands, roles and components."""

import contextlib
from pathlib import Path

import click

__all__ = ["complete_components", "complete_roles", "completion"]

PATIENCE = 1.0
"""Seconds: who presses the tabulator waits no longer."""

_INSTALLED = {
    "bash": 'eval "$(msgflo completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(msgflo completion zsh)"    # in ~/.zshrc',
    "fish": "msgflo completion fish | source   # in ~/.config/fish/config.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(sorted(_INSTALLED)))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, and the roles of the running network.

    \b
      bash:  eval "$(msgflo completion bash)"   # in ~/.bashrc
      zsh:   eval "$(msgflo completion zsh)"    # in ~/.zshrc
      fish:  msgflo completion fish | source    # in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from msgflo.cli import msgflo

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(msgflo, {}, "msgflo", "_MSGFLO_COMPLETE").source())


def complete_roles(
    ctx: click.Context,
    param: click.Parameter,  # noqa: ARG001 - click's signature
    incomplete: str,
) -> list[str]:
    """Return the roles of the network that runs here, and their ports behind a dot."""
    with contextlib.suppress(Exception):  # a completion has nobody to complain to
        import asyncio

        async def names() -> list[str]:
            async with asyncio.timeout(PATIENCE):
                return await _names(ctx, incomplete)

        return [name for name in asyncio.run(names()) if name.startswith(incomplete)]
    return []


async def _names(ctx: click.Context, incomplete: str) -> list[str]:
    from msgflo.cli.network import reach
    from msgflo.cli.options import Where

    options = ctx.params
    where = Where(options.get("address"), options.get("secret_file"), options.get("project"))
    async with reach(where) as client:
        nodes = (await client.ask("status"))["nodes"]
        names = [node["node"] for node in nodes]
        if "." in incomplete:
            names += [
                f"{node['node']}.{port['id']}"
                for node in nodes
                for port in [*node.get("inports", []), *node.get("outports", [])]
            ]
    return names


def complete_components(
    ctx: click.Context,
    param: click.Parameter,  # noqa: ARG001 - click's signature
    incomplete: str,
) -> list[str]:
    """Return the components of the project."""
    with contextlib.suppress(Exception):
        from msgflo.processes.library import Library
        from msgflo.project import find_root

        library = Library.load(ctx.params.get("project") or find_root(Path.cwd()))
        names = [component.name for component in library.components()]
        return [name for name in names if name.startswith(incomplete)]
    return []
