"""``msgflo test``: what can be typed; :mod:`msgflo.cli.suites` does it."""

from pathlib import Path

import click

__all__ = ["test"]


@click.command()
@click.argument("files", metavar="[FILE|FOLDER|URL|ROLE]...", nargs=-1)
@click.option("--address", help="Run them on the runtime there, such as ws://localhost:3569.")
@click.option("--command", help="Run them on a runtime that this command line starts.")
@click.option(
    "--secret", envvar="MSGFLO_SECRET", default="", help="The runtime's. [env: MSGFLO_SECRET]"
)
@click.option(
    "--start-timeout",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Seconds for the runtime, and then for each fixture's processes, to start.",
)
@click.option(
    "--command-timeout",
    type=click.FloatRange(0),
    default=3.0,
    show_default=True,
    help="Seconds for each answer of the runtime.",
)
@click.option("--record", is_flag=True, help="Write suites of what passes ROLEs that run.")
@click.option(
    "--into", type=click.Path(path_type=Path), help="With --record: the file. [spec/ROLE.yaml]"
)
@click.option(
    "--count",
    "-n",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="With --record: cases of each role.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="With --record: seconds to wait for them.",
)
@click.option(
    "--graph",
    type=click.Path(path_type=Path),
    help="With --record: the graph that runs, for its initial packets.",
)
@click.option("--broker", help="With --record: the broker's URL. [env: MSGFLO_BROKER]")
@click.option("--component-tests", is_flag=True, help="Run the suites of the components too.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML to this file.")
@click.option("--json", "json_output", is_flag=True, help="Print the results as JSON instead.")
@click.option("--trace", is_flag=True, help="Write a flowtrace of each case into .flowtrace/.")
@click.option("--verbose", "-v", is_flag=True, help="Say more of what failed (standard error).")
@click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder of the project. [default: the one around each file]",
)
def test(
    files: tuple[str, ...],
    address: str | None,
    command: str | None,
    secret: str,
    start_timeout: float,
    command_timeout: float,
    record: bool,
    into: Path | None,
    count: int,
    timeout: float,
    graph: Path | None,
    broker: str | None,
    component_tests: bool,
    junit: Path | None,
    json_output: bool,
    trace: bool,
    verbose: bool,
    project: Path | None,
) -> int:
    """Run suites of tests in the format of fbp-spec.

    Without FILE: those in the folder `spec` of the project. The project's Python components are
    run in this process, over queues in memory; with --address or --command, whatever a runtime of
    the FBP protocol has.

    With --record: watch the ROLEs of a network that runs (without any: all of them), and write
    what goes in and what comes out as suites.

    Exit status: 0 if all passed, 2 if some failed, 1 if some could not be set up.
    """
    from msgflo.cli import suites

    return suites.run_tests(
        files,
        address=address,
        command=command,
        secret=secret,
        start_timeout=start_timeout,
        command_timeout=command_timeout,
        record=record,
        into=into,
        count=count,
        timeout=timeout,
        graph=graph,
        broker=broker,
        component_tests=component_tests,
        junit=junit,
        json_output=json_output,
        trace=trace,
        verbose=verbose,
        project=project,
    )
