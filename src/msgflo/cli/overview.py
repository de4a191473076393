"""``msgflo top``: a running network at a glance, drawn anew every second."""

import asyncio
import contextlib
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from msgflo.cli.looking import aged, print_json, table
from msgflo.cli.network import live, steer
from msgflo.cli.options import Where
from msgflo.processes.output import clean, plain
from msgflo.protocol.client import Client

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Overview", "Row", "percentile", "top"]

WINDOW = 15.0
"""Seconds over which latencies are told: participants say their figures every 5."""

HEADS = ("ROLE", "INSTANCES", "CPU", "MEMORY", "IN", "OUT", "P50", "P99", "WAITING", "WORK", "DEAD")
SIDES = " " + ">" * 10


@dataclass(slots=True)
class Row:
    """A role, or one of its instances.

    Attributes:
        name: of the role, or ``"role.2"``.
        role: whether it is a role.
        state: how many of its instances are live, or how the instance is.
        good: whether that is as it should be.
        cpu: of one processor, 1.0 is all of it; ``None``: not known, of none of our processes.
        memory: bytes, likewise.
        rate_in, rate_out: messages a second that come in, and that were worked off.
        p50, p99: seconds from a handler's start until all that it sent was confirmed; at most so
            long in half, and in 99 of 100 cases; ``None``: there were none.
        waiting, in_work, dead: messages.
    """

    name: str
    role: bool
    state: str
    good: bool
    cpu: float | None = None
    memory: int | None = None
    rate_in: float = 0.0
    rate_out: float = 0.0
    p50: float | None = None
    p99: float | None = None
    waiting: int = 0
    in_work: int = 0
    dead: int = 0

    def cells(self) -> list[str]:
        """Return it as texts, one for each of the heads."""
        texts = [
            self.name if self.role else f"  {self.name}",
            self.state,
            "" if self.cpu is None else f"{100 * self.cpu:.0f} %",
            "" if self.memory is None else f"{self.memory / 2**20:.0f} MB",
        ]
        if self.role:
            texts += [f"{self.rate_in:.1f}/s", f"{self.rate_out:.1f}/s"]
        else:
            texts += ["", ""]
        texts += [_duration(self.p50), _duration(self.p99)]
        numbers = (self.waiting, self.in_work, self.dead)
        texts += [str(number) if self.role else "" for number in numbers]
        return [plain(clean(text)) for text in texts]


Latencies = dict[tuple[str, int], list[int]]


@dataclass
class Overview:
    """Makes rows of what a runtime says, and remembers what it said before."""

    _cpu: dict[tuple[str, int, int], float] = field(default_factory=dict)
    _at: float = 0.0
    _busy: deque[tuple[float, Latencies]] = field(default_factory=deque)

    def rows(
        self,
        status: Mapping[str, Any],
        queues: Sequence[Mapping[str, Any]],
        said: Mapping[str, Any],
    ) -> list[Row]:
        """Return the rows.

        Args:
            status: the answer to ``status``.
            queues: of the answer to ``queues``.
            said: the answer to ``figures``.
        """
        took = said["time"] - self._at
        used = {(it["node"], it["instance"], it["pid"]): it for it in said["processes"]}
        shares: dict[tuple[str, int], tuple[float | None, int]] = {}
        for key, it in used.items():
            before = self._cpu.get(key)
            share = None if before is None or took <= 0 else max(0.0, it["cpu"] - before) / took
            shares[key[:2]] = (share, it["memory"])
        self._cpu = {key: it["cpu"] for key, it in used.items()}
        self._at = said["time"]
        busy = self._latencies(said)
        rows: list[Row] = []
        for node in status["nodes"]:
            if node["state"] != "virtual":
                rows += self._of_node(node, queues, shares, busy, said["buckets"])
        return rows

    def _of_node(
        self,
        node: Mapping[str, Any],
        queues: Sequence[Mapping[str, Any]],
        shares: Mapping[tuple[str, int], tuple[float | None, int]],
        busy: Latencies,
        buckets: Sequence[float],
    ) -> Iterator[Row]:
        name, instances = node["node"], node["instances"]
        there = sum(one["state"] == "live" for one in instances)
        wanted = node["wanted"] if node["started_here"] else max(1, len(instances))
        state = f"{there}" if there == wanted else f"{there} of {wanted}"
        row = Row(name, True, f"{state} live", live(node))
        of = [
            shares[name, one["instance"]] for one in instances if (name, one["instance"]) in shares
        ]
        if of:
            known = [share for share, _ in of if share is not None]
            row.cpu = sum(known) if known else None
            row.memory = sum(memory for _, memory in of)
        for queue in queues:
            if queue["node"] != name:
                continue
            if queue["kind"] == "dead":
                row.dead += queue["waiting"] + queue["in_flight"]
                continue
            row.waiting += queue["waiting"]
            row.in_work += queue["in_flight"]
            row.rate_in += queue["rate_in"]
            row.rate_out += queue["rate_out"]
        counted = [counts for (role, _), counts in busy.items() if role == name]
        if counted:
            together = [sum(column) for column in zip(*counted, strict=True)]
            row.p50 = percentile(together, buckets, 0.50)
            row.p99 = percentile(together, buckets, 0.99)
        yield row
        if len(instances) == 1 and row.good:
            return
        for one in instances:
            number = one["instance"]
            good = one["state"] == "live"
            own = Row(f"{name}.{number}", False, one["state"], good)
            own.cpu, own.memory = shares.get((name, number), (None, None))
            counts = busy.get((name, number), [])
            own.p50 = percentile(counts, buckets, 0.50)
            own.p99 = percentile(counts, buckets, 0.99)
            yield own

    def _latencies(self, said: Mapping[str, Any]) -> Latencies:
        """Return how long handlings took that ended within the window, by instance."""
        now: Latencies = {}
        for port in said["ports"]:
            key = (port["node"], port["instance"])
            known = now.get(key)
            now[key] = (
                [*port["busy"]]
                if known is None
                else [a + b for a, b in zip(known, port["busy"], strict=True)]
            )
        while len(self._busy) > 1 and self._busy[1][0] <= said["time"] - WINDOW:
            self._busy.popleft()
        earlier = self._busy[0][1] if self._busy else {}
        self._busy.append((said["time"], now))
        window = {}
        for key, counts in now.items():
            before = earlier.get(key, [0] * len(counts))
            fresh = [a - b for a, b in zip(counts, before, strict=True)]
            # One that was started anew counts from 0 again.
            window[key] = counts if min(fresh, default=0) < 0 else fresh
        return window


def percentile(counts: Sequence[int], buckets: Sequence[float], share: float) -> float | None:
    """Return the bound below which a share of what was counted lies.

    Args:
        counts: how many were in each bucket, and beyond the last.
        buckets: their upper bounds.
        share: such as 0.99.

    Returns:
        A bound; infinity if it is beyond the last; ``None`` if nothing was counted.
    """
    total = sum(counts)
    if not total:
        return None
    seen = 0
    for count, bound in zip(counts, (*buckets, float("inf")), strict=True):
        seen += count
        if seen >= share * total:
            return bound
    return float("inf")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds == float("inf"):
        return "> 5 min"
    return f"{1000 * seconds:g} ms" if seconds < 1 else f"{seconds:g} s"


def top(where: Where, every: float, once: bool, as_json: bool) -> int:
    """Show a network until it is enough.

    Args:
        where: the network.
        every: seconds between two looks.
        once: print what is seen at the second look, and end.
        as_json: likewise, as JSON.

    Returns:
        The exit status.
    """
    drawn = sys.stdout.isatty() and not once and not as_json

    async def work(client: Client) -> int:
        overview = Overview()
        said = await _ask(client)
        rows = overview.rows(*said)
        if drawn:
            return await _draw(client, overview, every, said[0], rows)
        await asyncio.sleep(every)
        said = await _ask(client)
        rows = overview.rows(*said)
        if as_json:
            print_json([{key: getattr(row, key) for key in Row.__slots__} for row in rows])
        else:
            click.echo(plain(clean(_headline(said[0]))))
            table(HEADS, [row.cells() for row in rows], SIDES)
        return 0

    return steer(where, work)


Said = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]


async def _ask(client: Client) -> Said:
    status, queues, figures = await asyncio.gather(
        client.ask("status"), client.ask("queues"), client.ask("figures")
    )
    return status, queues["queues"], figures


def _headline(status: Mapping[str, Any]) -> str:
    state = "complete" if status["complete"] else "not complete"
    state = state if status["started"] else "stopped"
    broker = "" if status["broker"]["connected"] else " · the broker is lost"
    return f"{status['graph']} · {state} · up {aged(status['uptime'])}{broker}"


async def _draw(
    client: Client, overview: Overview, every: float, status: Mapping[str, Any], rows: list[Row]
) -> int:
    from rich.live import Live

    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, enough.set)
    with _keys(enough), Live(_drawing(status, rows), screen=True, auto_refresh=False) as shown:
        while not enough.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await enough.wait()
                break
            said = await _ask(client)
            status, rows = said[0], overview.rows(*said)
            shown.update(_drawing(status, rows), refresh=True)
    return 0


@contextlib.contextmanager
def _keys(enough: asyncio.Event) -> Iterator[None]:
    """Have the key q end it, while it is drawn."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        if sys.stdin.read(1) in ("q", "Q", "\x1b", ""):
            enough.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _drawing(status: Mapping[str, Any], rows: Sequence[Row]) -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawing = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in HEADS:
        drawing.add_column(head, justify="left" if head == "ROLE" else "right", no_wrap=True)
    for row in rows:
        cells = [Text(cell, "" if row.role else "dim") for cell in row.cells()]
        if row.role:
            cells[0].stylize("bold")
        if not row.good:
            cells[1].stylize("yellow")
        if row.dead:
            cells[-1].stylize("red")
        if row.waiting:
            cells[-3].stylize("cyan")
        drawing.add_row(*cells)
    style = "" if status["complete"] and status["broker"]["connected"] else "yellow"
    reasons = [
        f"{node['node']}: {node['reason']}"
        for node in status["nodes"]
        if node["in_graph"] and node["reason"]
    ]
    pending = [Text(plain(clean(line)), "yellow") for line in reasons[:5]]
    return Group(
        Text(plain(clean(_headline(status))), f"bold {style}".strip()),
        Text(),
        drawing,
        Text(),
        *pending,
        Text("q quits", "dim"),
    )
