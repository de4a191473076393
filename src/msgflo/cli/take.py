"""``msgflo take``: what can be typed; :mod:`msgflo.cli.traffic` does it."""

from pathlib import Path

import click

from msgflo.cli.options import broker_option, project_option

__all__ = ["take"]


@click.command()
@click.argument("target", metavar="ROLE[.PORT]")
@click.option("--count", "-n", type=click.IntRange(1), help="End after so many messages.")
@click.option("--timeout", type=float, help="End after so many seconds.")
@click.option("--queue", is_flag=True, help="ROLE[.PORT] is a queue's name; nobody is asked.")
@broker_option
@project_option
def take(
    target: str,
    count: int | None,
    timeout: float | None,
    queue: bool,
    broker: str | None,
    project: Path | None,
) -> int:
    """Take messages of an inport away, and print their payloads: a line of JSON for each.

    It takes its turn among the participants of the role, and gets what is copied to each of them
    from now on. To look without taking: msgflo tail.

    Exit status 1 if --count messages did not come within --timeout.
    """
    from msgflo.cli.traffic import take_messages

    return take_messages(
        target,
        count=count,
        timeout=timeout,
        queue=queue,
        together=False,
        url=broker,
        project=project,
    )
