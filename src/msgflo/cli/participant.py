"""``msgflo participant``: one component of a Python file, as one role.

It imports what it needs when it runs: help has to answer at once.
"""

import click

__all__ = ["participant"]


@click.command()
@click.argument("file", type=click.Path())
@click.argument("role", required=False, envvar="MSGFLO_ROLE")
@click.option("--component", default="", help="Which of the file's components, if it has several.")
@click.option("--broker", envvar="MSGFLO_BROKER", help="The broker's URL. [env: MSGFLO_BROKER]")
@click.option("--instance", type=click.IntRange(1), help="Which of the role's participants it is.")
@click.option("--iips", "-i", help="Initial packets: a JSON object of port and value.")
@click.option("--check", is_flag=True, help="Load it, say what is wrong, and do not run it.")
def participant(
    file: str,
    role: str | None,
    component: str,
    broker: str | None,
    instance: int | None,
    iips: str | None,
    check: bool,
) -> None:
    """Run the component in FILE as the role ROLE, until it is stopped.

    It waits for its messages; a coordinator (msgflo run) connects it. SIGTERM and Ctrl-C let it
    finish what it has begun.
    """
    from msgflo.environment import parse_packets
    from msgflo.participant import check_file, leave, run_file

    if check:
        leave(check_file(file, component))
    packets = parse_packets(iips, "--iips") if iips is not None else None
    leave(run_file(file, role, component=component, broker=broker, instance=instance, iips=packets))
