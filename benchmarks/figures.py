"""Figures and how they are told: medians with their spread, and the machine they are of."""

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Figure:
    """One row of a table: a name, and what was measured of it, each in several rounds.

    Attributes:
        name: what was measured.
        unit: of all values.
        values: one of each round.
        target: what is to be reached, in words; "" if nothing was set.
        lower: whether less is better.
        digits: how many significant digits are told.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    target: str = ""
    lower: bool = False
    digits: int = 3

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def say(self, value: float) -> str:
        if value >= 10 ** (self.digits - 1):
            rounded = round(value, self.digits - len(str(int(value))))
            return f"{rounded:,.0f}".replace(",", " ")
        return f"{value:.{self.digits}g}"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of values, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(figures: Iterable[Figure]) -> str:
    """Return a Markdown table."""
    rows = ["| | median | lowest – highest | unit | to reach |", "|---|---:|---:|---|---|"]
    for figure in figures:
        if not figure.values:
            rows.append(f"| {figure.name} | not measured | | {figure.unit} | {figure.target} |")
            continue
        least, most = figure.say(min(figure.values)), figure.say(max(figure.values))
        rows.append(
            f"| {figure.name} | {figure.say(figure.median)} | {least} – {most} | {figure.unit} "
            f"| {figure.target} |"
        )
    return "\n".join(rows)


def machine(*programs: str) -> str:
    """Say what machine this is, and which versions of programs run on it."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    cores = len(os.sched_getaffinity(0))
    parts = [
        f"{cores} cores of {model}",
        f"{memory:.0f} GB",
        f"Linux {platform.release().partition('-')[0]}",
        f"{platform.python_implementation()} {platform.python_version()}",
        *programs,
    ]
    return ", ".join(parts)
