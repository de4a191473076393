"""``msgflo top``: what is worked out of what a runtime says, and how it is shown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hello import make_project
from msgflo.cli.overview import Overview, Row, percentile
from programs import Program, msgflo, program

BUCKETS = [0.001, 0.01, 0.1]


def node(name: str, *states: str, wanted: int | None = None, **more: Any) -> dict[str, Any]:
    instances = [{"instance": n, "state": state} for n, state in enumerate(states, 1)]
    return {
        "node": name,
        "state": "live",
        "started_here": True,
        "wanted": len(states) if wanted is None else wanted,
        "instances": instances,
        **more,
    }


def figures(at: float, cpu: float = 0.0, busy: tuple[int, ...] = (0, 0, 0, 0)) -> dict[str, Any]:
    process = {"node": "a", "instance": 1, "pid": 7, "cpu": cpu, "memory": 5 * 2**20}
    return {
        "time": at,
        "buckets": BUCKETS,
        "processes": [process],
        "ports": [{"node": "a", "instance": 1, "port": "in", "busy": list(busy)}],
    }


def queue(kind: str, waiting: int, **more: Any) -> dict[str, Any]:
    said = {"node": "a", "kind": kind, "waiting": waiting, "in_flight": 0}
    return {**said, "rate_in": 0.0, "rate_out": 0.0, **more}


def test_the_bound_below_which_a_share_lies():
    assert percentile([50, 50, 0, 0], BUCKETS, 0.5) == 0.001
    assert percentile([50, 49, 1, 0], BUCKETS, 0.99) == 0.01
    assert percentile([50, 48, 2, 0], BUCKETS, 0.99) == 0.1
    assert percentile([0, 0, 0, 1], BUCKETS, 0.5) == float("inf")
    assert percentile([0, 0, 0, 0], BUCKETS, 0.5) is None


def test_processor_time_is_a_share_of_the_time_between_two_looks():
    overview, status = Overview(), {"nodes": [node("a", "live")]}
    (row,) = overview.rows(status, [], figures(100.0, cpu=3.0))
    assert row.cpu is None  # nobody knows how fast it was spent
    assert row.memory == 5 * 2**20
    (row,) = overview.rows(status, [], figures(102.0, cpu=4.0))
    assert row.cpu == 0.5
    assert row.cells()[2:4] == ["50 %", "5 MB"]


def test_latencies_are_those_of_the_last_seconds():
    overview, status = Overview(), {"nodes": [node("a", "live")]}
    overview.rows(status, [], figures(100.0, busy=(1000, 0, 0, 0)))
    (row,) = overview.rows(status, [], figures(105.0, busy=(1000, 10, 0, 0)))
    assert (row.p50, row.p99) == (0.01, 0.01)
    (row,) = overview.rows(status, [], figures(120.0, busy=(1000, 10, 5, 0)))
    assert row.p50 == 0.1
    # A participant that was started anew counts from 0.
    (row,) = overview.rows(status, [], figures(121.0, busy=(3, 0, 0, 0)))
    assert row.p50 == 0.001


def test_queues_of_a_role_are_counted_together_and_dead_letters_apart():
    (row,) = Overview().rows(
        {"nodes": [node("a", "live")]},
        [
            queue("work", 3, rate_in=2.0, rate_out=1.0),
            queue("place", 4, rate_in=1.5, in_flight=2),
            queue("dead", 5),
            queue("work", 100) | {"node": "other"},
        ],
        figures(1.0),
    )
    assert (row.waiting, row.in_work, row.dead) == (7, 2, 5)
    assert (row.rate_in, row.rate_out) == (3.5, 1.0)


def test_instances_are_shown_where_there_are_several_or_one_is_not_well():
    status = {
        "nodes": [
            node("a", "live", "starting"),
            node("b", "failed", wanted=1, state="pending"),
            node("c", "live"),
            {"node": "share", "state": "virtual"},
        ]
    }
    rows = Overview().rows(status, [], figures(1.0))
    assert [(row.name, row.state, row.good) for row in rows] == [
        ("a", "1 of 2 live", False),
        ("a.1", "live", True),
        ("a.2", "starting", False),
        ("b", "0 of 1 live", False),
        ("b.1", "failed", False),
        ("c", "1 live", True),
    ]


def test_names_cannot_move_the_terminal():
    assert Row("a\x1b[2Jb", True, "1 live", True).cells()[0] == "ab"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("top") / "project")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Program]:
    with program("msgflo", "run", "hello.fbp", "--port", "0", cwd=folder) as run:
        run.until("all running")
        yield run


def test_piped_it_is_printed_once(running: Program, folder: Path):
    done = msgflo("top", "--every", "0.3", cwd=folder)
    assert done.returncode == 0, done.stderr
    head, columns, *rows = done.stdout.splitlines()
    assert head.startswith("hello · complete · up ")
    assert columns.split()[:4] == ["ROLE", "INSTANCES", "CPU", "MEMORY"]
    assert [row.split()[0] for row in rows] == ["greet", "show"]
    assert all(" MB" in row and " %" in row for row in rows)
    said = json.loads(msgflo("top", "--json", "--every", "0.3", cwd=folder).stdout)
    assert [row["name"] for row in said] == ["greet", "show"]


def test_on_a_terminal_it_is_drawn_again_until_q(running: Program, folder: Path):
    with program("msgflo", "top", "--every", "0.2", cwd=folder, terminal=True) as top:
        top.until("q quits", times=3)
        top.type("q")
        assert top.wait() == 0
        assert "\x1b[?1049h" in top.text  # a screen of its own
        assert "\x1b[?1049l" in top.text  # and the one from before again
        assert "Traceback" not in top.text
