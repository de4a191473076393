"""Commands that tell of a network while it runs."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hello import make_project
from msgflo.cli.looking import aged, explained
from programs import Program, msgflo, program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("look") / "project")
    (folder / "hello.fbp").write_text(
        "'World' -> IN greet(Greet) OUT -> IN show(Show)\ngreet OUT -> IN absent(Nowhere)\n"
    )
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Program]:
    """A network in which one role is missing."""
    arguments = ["--port", "0", "--scale", "greet=2"]
    with program("msgflo", "run", "hello.fbp", *arguments, cwd=folder) as run:
        run.until("pending:")
        run.until("Hello, World!", times=2)
        yield run


def told(folder: Path, *arguments: str, code: int = 0) -> str:
    done = msgflo(*arguments, cwd=folder)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def test_status_explains_in_words_what_is_pending_and_why(running: Program, folder: Path):
    said = told(folder, "status", code=1)
    assert said.startswith("hello: not complete, for ")
    assert "It runs on its own broker, nats://msgflo:***@127.0.0.1:" in said
    assert "2 of 3 roles live, 3 instances; 1 of 2 connections bound." in said
    assert re.search(r"^  absent \(Nowhere\): .*no component 'Nowhere'", said, re.M)
    assert "greet.out -> absent.in waits:" in said


def test_status_as_json_is_what_the_protocol_says(running: Program, folder: Path):
    said = json.loads(told(folder, "status", "--json", code=1))
    assert {node["node"]: node["state"] for node in said["nodes"]} == {
        "greet": "live",
        "show": "live",
        "absent": "pending",
    }


def test_queues_are_listed_by_role_with_what_waits(running: Program, folder: Path):
    lines = told(folder, "queues", "greet", "--all").splitlines()
    assert lines[0].split() == [
        "QUEUE",
        "KIND",
        "WAITING",
        "IN",
        "WORK",
        "TAKERS",
        "OLDEST",
        "IN",
        "OUT",
    ]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["dead-greet.IN", "dead", "0", "0", "0.0/s"],
        ["greet.IN", "work", "0", "0", "2"],
        ["greet.IN@1", "place", "0", "0", "1"],
        ["greet.IN@2", "place", "0", "0", "1"],
    ]
    assert "dead-" not in told(folder, "queues")
    listed = json.loads(told(folder, "queues", "--json"))
    assert {it["node"] for it in listed} >= {"greet", "show"}
    done = msgflo("queues", "gret", cwd=folder)
    assert done.returncode == 1
    assert "Did you mean 'greet'?" in done.stderr


def test_bindings_are_wanted_or_orphaned_and_orphans_are_removed_when_that_is_asked(
    running: Program, folder: Path
):
    said = told(folder, "bindings")
    assert re.search(r"^bound +pubsub +greet\.OUT +show\.IN +greet\.out -> show\.in$", said, re.M)
    # Somebody else binds something in the same broker.
    code = (
        "import asyncio\n"
        "from pathlib import Path\n"
        "from msgflo import transport\n"
        "from msgflo.broker import running_url\n"
        "from msgflo.flow.binding import Binding, Kind\n"
        "async def main():\n"
        "    broker = transport.broker(running_url(Path('.msgflo')))\n"
        "    await broker.connect()\n"
        "    await broker.bind(Binding(Kind.PUBSUB, 'stray.OUT', 'show.IN'))\n"
        "    await broker.close()\n"
        "asyncio.run(main())\n"
    )
    with program("python", "-c", code, cwd=folder) as other:
        assert other.wait() == 0, other.text
    found = []
    while not found:
        listed = json.loads(told(folder, "bindings", "--json"))
        found = [it for it in listed if it["state"] == "orphaned"]
    assert [(it["source"], it["target"]) for it in found] == [("stray.OUT", "show.IN")]
    said = told(folder, "bindings", "--remove-orphaned")
    assert re.search(r"^removed +pubsub +stray\.OUT", said, re.M)
    while "stray" in told(folder, "bindings"):
        pass


def test_logs_show_what_processes_have_printed_and_print(running: Program, folder: Path):
    said = told(folder, "logs", "show.1")
    assert re.search(r"^show\.1 +\| \d{4}-\d\d-\d\d \d\d:\d\d:\d\d Hello, World!$", said, re.M)
    assert "greet" not in told(folder, "logs", "show")
    assert len(told(folder, "logs", "-n", "2").splitlines()) == 2
    lines = [json.loads(line) for line in told(folder, "logs", "greet", "--json").splitlines()]
    assert {(line["node"], line["stream"]) for line in lines} <= {
        ("greet", "stdout"),
        ("greet", "stderr"),
    }
    assert {line["instance"] for line in lines} == {1, 2}
    done = msgflo("logs", "shwo", cwd=folder)
    assert done.returncode == 1
    assert "Did you mean 'show'?" in done.stderr
    with program("msgflo", "logs", "show", "-f", "-n", "1", cwd=folder) as following:
        following.until("show.1")
        msgflo("send", "show", "as it comes", cwd=folder)
        following.until("as it comes")
        assert following.end(signal.SIGINT) == 0
        assert "Traceback" not in following.text


def test_logs_are_there_after_the_run_was_killed(tmp_path: Path):
    folder = make_project(tmp_path / "killed")
    with program("msgflo", "run", "hello.fbp", "--port", "0", cwd=folder) as run:
        run.until("Hello, World!")
        run.send(signal.SIGKILL)
        run.wait()
    assert "Hello, World!" in (folder / ".msgflo" / "logs" / "show.1.log").read_text()
    done = msgflo("status", cwd=folder)
    assert done.returncode == 2
    assert "the one that did was killed" in done.stderr


def test_a_duration_is_said_in_its_largest_unit():
    said = [aged(it) for it in (0.04, 9.96, 59.4, 119, 120, 7199, 7200, 172800)]
    assert said == ["0.0 s", "10.0 s", "59 s", "119 s", "2 min", "119 min", "2 h", "2 d"]


def test_a_status_tells_of_stops_restarts_strangers_and_a_lost_broker():
    said = "\n".join(
        explained(
            {
                "graph": "main",
                "started": False,
                "complete": False,
                "uptime": 5,
                "broker": {"url": "nats://x", "embedded": False, "connected": False},
                "nodes": [
                    {
                        "node": "a",
                        "component": "A",
                        "state": "live",
                        "in_graph": True,
                        "started_here": True,
                        "wanted": 2,
                        "reason": "",
                        "instances": [
                            {"instance": 1, "state": "live", "reason": "", "restarts": 3},
                            {
                                "instance": 2,
                                "state": "failed",
                                "reason": "exited with status 1",
                                "last_lines": ["one", "", "two\x1b[2J"],
                            },
                        ],
                    },
                    {"node": "b", "in_graph": False},
                ],
                "edges": [],
                "pending": [],
                "found": [{}, {}],
            }
        )
    )
    assert "main: stopped; what arrives waits, for 5.0 s" in said
    assert "a broker, nats://x; it cannot be reached now, what is sent waits." in said
    assert "a: 1 of 2 instances live" in said
    assert "a.2 is failed: exited with status 1\n        one\n        two\n" in said
    assert "Started again by itself: a.1 3 times" in said
    assert "Heard of, and not in the graph: b." in said
    assert "2 bindings that the graph does not ask for are in the broker" in said


def test_output_of_these_commands_can_be_cut_short(running: Program, folder: Path):
    with program("bash", "-c", "msgflo queues -a | head -n 1", cwd=folder) as shell:
        assert shell.wait() == 0
        assert "Traceback" not in shell.text
    assert os.environ.get("MSGFLO_ADDRESS") is None
