"""The ``msgflo`` command.

Each subcommand is a module of its own, imported when it is used: help has to answer at once.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from msgflo.errors import ConfigurationError, MsgFloError

__all__ = ["main", "msgflo", "run_command"]

_COMMANDS = {
    "add": ("msgflo.cli.change", "Add a role to a running network."),
    "bindings": ("msgflo.cli.look", "List what the broker has bound, wanted or orphaned."),
    "completion": ("msgflo.cli.completion", "Print what makes a shell complete commands."),
    "components": ("msgflo.cli.library", "List the components of a project's library."),
    "connect": ("msgflo.cli.change", "Connect two ports of a running network."),
    "deadletters": ("msgflo.cli.deadletters", "Messages that could not be processed."),
    "disconnect": ("msgflo.cli.change", "Remove a connection of a running network."),
    "doctor": ("msgflo.cli.doctor", "Find out why nothing arrives."),
    "export": ("msgflo.cli.export", "Write a network for Compose, Kubernetes or systemd to run."),
    "graph": ("msgflo.cli.graph", "Check, convert and draw graph files."),
    "logs": ("msgflo.cli.look", "Show what the processes of a running network have printed."),
    "new": ("msgflo.cli.new", "Make a project that runs and tests itself."),
    "participant": ("msgflo.cli.participant", "Run the component in a Python file as a role."),
    "queues": ("msgflo.cli.look", "List the queues of a running network."),
    "redo": ("msgflo.cli.change", "Make an edit again that was taken back."),
    "remove": ("msgflo.cli.change", "Remove a role from a running network."),
    "restart": ("msgflo.cli.change", "Start roles of a running network anew."),
    "register": ("msgflo.cli.register", "Announce participants that cannot do so themselves."),
    "run": ("msgflo.cli.run", "Run a graph: broker, processes and connections."),
    "scale": ("msgflo.cli.change", "Run more or fewer instances of roles."),
    "send": ("msgflo.cli.messages", "Send a message to an inport."),
    "status": ("msgflo.cli.look", "Explain how a running network is."),
    "setup": ("msgflo.cli.setup", "Make a graph's connections on a broker, without staying."),
    "tail": ("msgflo.cli.messages", "Watch what passes a port."),
    "take": ("msgflo.cli.take", "Take messages out of an inport's queue, and print them."),
    "test": ("msgflo.cli.test", "Run suites of tests in the format of fbp-spec."),
    "top": ("msgflo.cli.look", "Watch a running network live: rates, latency, waiting, dead."),
    "trace": ("msgflo.cli.trace", "Record, show and replay packets; the way of a message."),
    "undo": ("msgflo.cli.change", "Take the last edit of a running network back."),
}


_CLASSIC = "classic"


class _Commands(click.Group):
    """Knows its commands by name and a line each, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_COMMANDS)

    def get_command(  # click's signature
        self,
        ctx: click.Context,  # noqa: ARG002
        name: str,
    ) -> click.Command | None:
        if name not in _COMMANDS and name != _CLASSIC:
            return None
        where = "msgflo.cli.classic" if name == _CLASSIC else _COMMANDS[name][0]
        module = importlib.import_module(where)
        found: click.Command = getattr(module, name)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take options without a subcommand for those of the original command."""
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help", "--version"):
            args = [_CLASSIC, *args]
        return super().parse_args(ctx, args)

    def format_commands(  # click's signature
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(_COMMANDS.items())])


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="msgflo", message="%(package)s %(version)s")
def msgflo() -> None:
    """Flow-based programming over message brokers.

    Any process is a node, any queue is an edge.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 on success, 1 when the work failed, 2 on wrong use."""
    run_command(msgflo, arguments, "msgflo")


def run_command(command: click.Command, arguments: Sequence[str] | None, name: str) -> NoReturn:
    """Run a command under a name and exit, as :func:`main` does; ``None``: with what was typed."""
    try:
        result: Any = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone. Nothing more can be said, not even at exit.
        sys.stderr.close()
        sys.exit(0)
    except MsgFloError as error:
        click.echo(f"msgflo: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    sys.exit(result if isinstance(result, int) else 0)
