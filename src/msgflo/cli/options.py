"""Options that several commands have. Imports nothing heavy: help has to answer at once."""

from pathlib import Path

import click

__all__ = ["broker_option", "project_option"]

broker_option = click.option(
    "--broker", help="The broker's URL. [env: MSGFLO_BROKER; default: that of msgflo run here]"
)
project_option = click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder of the project that runs. [default: the one around the working folder]",
)
