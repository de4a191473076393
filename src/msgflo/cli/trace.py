"""``msgflo trace``: what can be typed; :mod:`msgflo.cli.traces` does it."""

from pathlib import Path

import click

from msgflo.cli.options import broker_option, project_option

__all__ = ["trace"]

EVENTS = 10_000
"""Events that a recording keeps, unless said otherwise."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def trace() -> None:
    """Record, show and replay what passes connections; find the way of a message."""


# record


@trace.command()
@click.argument("graph", required=False, type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write. [default: flowtrace-GRAPH-TIME.json]",
)
@click.option(
    "--events",
    type=click.IntRange(1),
    default=EVENTS,
    show_default=True,
    help="Keep so many events, the last ones.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="MB",
    help="Keep so much of them.",
)
@click.option("--count", "-n", type=click.IntRange(1), help="End after so many events.")
@click.option("--timeout", type=click.FloatRange(0), help="End after so many seconds.")
@broker_option
@project_option
def record(
    graph: Path | None,
    output: Path | None,
    events: int,
    size: int,
    count: int | None,
    timeout: float | None,
    broker: str | None,
    project: Path | None,
) -> int:
    """Record what passes the connections of a running network, until Ctrl-C.

    GRAPH says which connections; without it, all that are bound. Touches no traffic. On SIGUSR2
    writes what it has so far into a file, and goes on. Exit status 1 if --count events were not
    seen within --timeout.
    """
    from msgflo.cli.traces import record_network

    return record_network(
        graph,
        output,
        events=events,
        size=size * 1024 * 1024,
        count=count,
        timeout=timeout,
        url=broker,
        project=project,
    )


# show


@trace.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Show the packets of a trace, a line for each: as flowtrace-show does.

    FILE is a flowtrace; - is the standard input.
    """
    from msgflo.cli.traces import show_file

    show_file(file)


# message


@trace.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print each step as a line of JSON.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Seconds that participants have to answer.",
)
@broker_option
@project_option
def message(
    ids: tuple[str, ...],
    as_json: bool,
    timeout: float,
    broker: str | None,
    project: Path | None,
) -> int:
    """Show the way of a message through the network: who handled it and what followed, when.

    ID is a message's id (of a log, a dead letter, msgflo tail --json), or a trace's. Participants
    remember the last 2000 messages or so. Exit status 1 if none remembers this one.
    """
    from msgflo.cli.traces import show_way

    return show_way(ids, as_json=as_json, timeout=timeout, url=broker, project=project)


# replay


@trace.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=3333, show_default=True)
@click.option("--ide", default="http://app.flowhub.io", show_default=True, help="The UI to use.")
@click.option(
    "--open/--no-open", "-o/-n", "opened", default=False, help="Open it in a browser. [default: no]"
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="So many times faster than it was; 0: all at once.",
)
@click.option("--step", is_flag=True, help="One event at a time, each when Enter is pressed.")
def replay(
    file: Path, host: str, port: int, ide: str, opened: bool, speed: float, step: bool
) -> None:
    """Let a UI see a trace: as a runtime whose network does once more what it did.

    Whoever connects to it and starts the network sees the recorded packets pass. Nothing of it can
    be changed. To send recorded messages into a network that runs, see msgflo trace resend.
    """
    from msgflo.cli.traces import replay_for_ui

    replay_for_ui(file, host=host, port=port, ide=ide, opened=opened, speed=speed, step=step)


# dump


@trace.command()
@click.argument("graph", required=False)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write. [default: flowtrace-GRAPH-TIME.json; -: standard output]",
)
@click.option(
    "--address",
    default="ws://localhost:3569",
    show_default=True,
    help="The runtime. [env: MSGFLO_ADDRESS]",
    envvar="MSGFLO_ADDRESS",
)
@click.option("--secret", default="", envvar="MSGFLO_SECRET", help="[env: MSGFLO_SECRET]")
def dump(graph: str | None, output: Path | None, address: str, secret: str) -> None:
    """Fetch what a runtime has recorded, which goes on recording.

    The runtime records from the start with msgflo run --trace, or since a tool asked it to. GRAPH
    is the id of the graph; without it the main one is meant. Works with any runtime of the FBP
    protocol that traces.
    """
    from msgflo.cli.traces import fetch

    fetch(graph, output, address, secret)


# resend


@trace.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--connection",
    "-c",
    default="",
    metavar="CONNECTION",
    help="Which packets: 'a OUT -> IN b', or one end of it, b.in.",
)
@click.option(
    "--to",
    metavar="ROLE.PORT",
    help="Send them here. [default: where the connection led to]",
)
@click.option(
    "--through-source",
    is_flag=True,
    help="Send them as their source did, to all that it is connected to.",
)
@click.option(
    "--same-ids",
    is_flag=True,
    help="With their old ids: what the broker had within two minutes is dropped.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="So many times faster than it was; 0: without pauses.",
)
@click.option("--step", is_flag=True, help="One at a time, each when Enter is pressed.")
@broker_option
@project_option
def resend(
    file: Path,
    connection: str,
    to: str | None,
    through_source: bool,
    same_ids: bool,
    speed: float,
    step: bool,
    broker: str | None,
    project: Path | None,
) -> None:
    """Send the recorded messages of a connection into a running network once more.

    They go into the work queue of the inport that they went to: one participant gets each. They
    are new messages, with new ids; a header says which message each is a copy of.
    """
    if through_source and to:
        raise click.UsageError("--to and --through-source exclude each other")
    from msgflo.cli.traces import resend_packets

    resend_packets(
        file,
        connection,
        to=to,
        through_source=through_source,
        same_ids=same_ids,
        speed=speed,
        step=step,
        url=broker,
        project=project,
    )
