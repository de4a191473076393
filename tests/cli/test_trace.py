"""``msgflo trace``, on a network that runs, and on files."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Origin

from msgflo.flow.graphjson import load_json
from msgflo.flow.parts import Endpoint
from msgflo.trace.flowtrace import Event, Flowtrace, dump_flowtrace, parse_flowtrace
from programs import WAIT, Program, msgflo, program
from servers import NatsServer

COMPONENTS = """
import msgflo


@msgflo.component("Greet")
def greet(name: str) -> str:
    return f"Hello, {name}!"


@msgflo.component("Show", retry=msgflo.Retry(2, delay=0))
def show(text: str, ctx: msgflo.Context) -> None:
    if "Bad" in text:
        raise ValueError("bad text")
    print(text, "as", ctx.id, ctx.headers.get("Msgflo-Replayed", "new"), "end")
"""


def make_project(folder: Path) -> Path:
    (folder / "components").mkdir(parents=True)
    (folder / "components" / "all.py").write_text(COMPONENTS)
    (folder / "hello.fbp").write_text("greet(Greet) OUT -> IN show(Show)\n")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


@pytest.fixture(scope="module")
def broker(nats_server_of_session: NatsServer) -> str:
    return f"{nats_server_of_session.url}/trace"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Iterator[Program]:
    folder = make_project(tmp_path_factory.mktemp("trace"))
    with program("msgflo", "run", "hello.fbp", "--broker", broker, cwd=folder) as run:
        run.until("all running")
        yield run


def send(data: str, folder: Path, broker: str) -> None:
    done = msgflo("send", "greet", data, "--broker", broker, cwd=folder)
    assert done.returncode == 0, done.stderr


def record(folder: Path, broker: str, *messages: str, graph: str = "hello.fbp") -> Flowtrace:
    """Record what becomes of messages, each of which passes two connections."""
    command = ["msgflo", "trace", "record", *([graph] if graph else [])]
    options = ["-o", "it.json", "-n", str(2 * len(messages)), "--broker", broker]
    with program(*command, *options, cwd=folder) as recording:
        recording.until("recording greet.IN, greet.OUT, show.IN")
        for message in messages:
            send(message, folder, broker)
        assert recording.wait() == 0
        assert f"wrote {2 * len(messages)} events to it.json" in recording.text
    return parse_flowtrace((folder / "it.json").read_bytes())


def id_of(event: Event) -> str:
    found: str = event.payload["headers"]["Msgflo-Id"]
    return found


def test_what_was_recorded_is_shown_line_by_line(running: Program, project: Path, broker: str):
    trace = record(project, broker, "Ada")
    assert trace.main == "hello"
    assert "greet" in load_json(json.dumps(trace.graphs["hello"])).nodes
    done = msgflo("trace", "show", "it.json", cwd=project)
    assert done.stdout == '-> IN greet DATA "Ada"\ngreet OUT -> IN show DATA "Hello, Ada!"\n'
    again = msgflo("trace", "show", "-", cwd=project, stdin=(project / "it.json").read_bytes())
    assert again.stdout == done.stdout


def test_without_a_graph_all_that_is_bound_is_recorded(
    running: Program, project: Path, broker: str
):
    trace = record(project, broker, "Bea", graph="")
    graph = load_json(json.dumps(trace.graphs["observed"]))
    assert [(edge.src, edge.tgt) for edge in graph.edges] == [
        (Endpoint("greet", "out"), Endpoint("show", "in"))
    ]


def test_a_signal_writes_what_there_is_and_the_end_writes_it_all(
    running: Program, project: Path, broker: str
):
    command = ["msgflo", "trace", "record", "hello.fbp", "-o", "it.json", "--broker", broker]
    with program(*command, "--events", "3", cwd=project) as recording:
        recording.until("recording greet.IN, greet.OUT, show.IN")
        send("Cleo", project, broker)
        running.until("Hello, Cleo!")
        said: list[str] = []
        for number in range(1, 50):  # it is another process, and may be a moment behind
            recording.send(signal.SIGUSR2)
            line = recording.until("Wrote flowtrace to: ", times=number)
            written = project / line.partition(": ")[2]
            said = [it.payload["data"] for it in parse_flowtrace(written.read_bytes()).events]
            if len(said) == 2:
                break
        assert said == ["Cleo", "Hello, Cleo!"]
        send("Dan", project, broker)
        running.until("Hello, Dan!")
        assert recording.end(signal.SIGTERM) == 0
        recording.until("wrote 3 events to it.json (1 older ones did not fit)")
    trace = parse_flowtrace((project / "it.json").read_bytes())
    assert [it.payload["data"] for it in trace.events] == ["Hello, Cleo!", "Dan", "Hello, Dan!"]
    shown = msgflo("trace", "show", "it.json", cwd=project)
    assert shown.stderr == "1 events before these did not fit into the recording\n"


def test_what_is_not_seen_in_time_is_told_by_the_exit_status(
    running: Program, project: Path, broker: str
):
    options = ("-n", "1", "--timeout", "2.5", "-o", "none.json", "--broker", broker)
    done = msgflo("trace", "record", "hello.fbp", *options, cwd=project)
    assert done.returncode == 1, done.stderr
    assert parse_flowtrace((project / "none.json").read_bytes()).events == []


def test_the_way_of_a_message_is_shown_with_its_failures(
    running: Program, project: Path, broker: str
):
    first, second = record(project, broker, "Bad").events
    running.until("is a dead letter after attempt 2")
    for message in (id_of(first), id_of(second)):
        done = msgflo("trace", "message", message, "--broker", broker, cwd=project)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert "3 steps in" in lines[0]
        assert [line[35:].split("  ")[-2].strip() for line in lines if message in line]
        assert f"greet.1 in: done  {id_of(first)}" in done.stdout
        assert f"  show.1 in: retried  {id_of(second)}" in done.stdout
        assert f"  show.1 in: dead, attempt 2  {id_of(second)}" in done.stdout
        assert done.stdout.count("ValueError: bad text") == 2
    done = msgflo("trace", "message", id_of(first), "--json", "--broker", broker, cwd=project)
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(it["role"], it["outcome"]) for it in steps] == [
        ("greet", "done"),
        ("show", "retried"),
        ("show", "dead"),
    ]
    assert steps[1]["parent"] == steps[0]["span"]


def test_a_message_that_nobody_remembers_is_told(running: Program, project: Path, broker: str):
    done = msgflo("trace", "message", "never-heard-of", "--broker", broker, cwd=project)
    assert done.returncode == 1
    assert done.stderr == "no participant remembers never-heard-of\n"


def test_recorded_messages_are_sent_again_as_new_ones_or_as_what_they_were(
    running: Program, project: Path, broker: str
):
    _, event = record(project, broker, "Eve").events
    running.until(f"Hello, Eve! as {id_of(event)} new")

    def resend(*options: str) -> None:
        done = msgflo("trace", "resend", "it.json", *options, "--broker", broker, cwd=project)
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith("sent 1 of 1 messages\n")

    resend("--connection", "greet OUT -> IN show", "--speed", "0")
    running.until(f" {id_of(event)} end")  # of which it is a copy
    resend("-c", "show.in", "--through-source")
    running.until(f" {id_of(event)} end", times=2)
    before = running.text.count("Hello, Eve!")
    resend("-c", "show.in", "--through-source", "--same-ids")  # the broker has had it
    resend("-c", "-> in greet")
    running.until("Hello, Eve!", times=before + 1)
    assert running.text.count(f"as {id_of(event)} ") == 1
    resend("-c", "-> in greet", "--to", "show.in")
    running.until("Eve as replay-")


def test_which_connection_to_resend_must_be_clear(running: Program, project: Path, broker: str):
    record(project, broker, "Fay")
    done = msgflo("trace", "resend", "it.json", "--broker", broker, cwd=project)
    assert done.returncode == 1
    assert "say which connection" in done.stderr
    assert "  greet OUT -> IN show\n" in done.stderr
    wrong = ("--to", "show.in", "--through-source", "-c", "show.in")
    assert msgflo("trace", "resend", "it.json", *wrong, cwd=project).returncode == 2


def test_step_by_step_waits_for_enter_and_ends_with_the_input(
    running: Program, project: Path, broker: str
):
    record(project, broker, "Gil", "Hal")
    command = ("trace", "resend", "it.json", "-c", "show.in", "--step", "--broker", broker)
    done = msgflo(*command, cwd=project, stdin="\n")
    assert '1/2 greet OUT -> IN show DATA "Hello, Gil!"' in done.stderr
    assert "2/2" in done.stderr
    assert done.stderr.endswith("sent 1 of 2 messages\n")
    assert done.returncode == 130


def test_a_trace_is_replayed_for_whoever_connects(tmp_path: Path):
    ends = {"src": None, "tgt": {"node": "a", "port": "in"}}
    events = [Event("data", {**ends, "data": number}, "main", 1.0) for number in (1, 2)]
    graph = {"processes": {"a": {"component": "A"}}, "connections": []}
    (tmp_path / "it.json").write_text(dump_flowtrace(Flowtrace(events, {"main": graph})))
    command = ("msgflo", "trace", "replay", "it.json", "--port", "0")
    with program(*command, cwd=tmp_path) as replay:
        line = replay.until("Trace live URL: http://app.flowhub.io#runtime/endpoint?")
        replay.until("2 events of main; Ctrl-C stops it")
        address = parse_qs(unquote(line.partition("?")[2]))["address"][0]
        with connect(address, origin=Origin("http://app.flowhub.io")) as client:
            client.send('{"protocol":"network","command":"start","payload":{"graph":"main"}}')
            said = [json.loads(client.recv(timeout=WAIT)) for _ in range(4)]
        assert [it["command"] for it in said] == ["started", "data", "data", "stopped"]
        with pytest.raises(WebSocketException):
            connect(address, origin=Origin("http://elsewhere.example"))
        assert replay.end() == 0


def packets(file: Path) -> list[object]:
    trace = parse_flowtrace(file.read_bytes())
    return [it.payload["data"] for it in trace.events if it.command == "data"]


@pytest.mark.parametrize("serving", [["--port", "0"], ["--no-serve"]])
def test_a_run_that_is_traced_writes_its_last_packets_when_asked_and_when_a_process_fails(
    project: Path, nats_server: str, serving: list[str]
):
    command = ("msgflo", "run", "hello.fbp", "--trace", "--broker", nats_server, *serving)
    with program(*command, cwd=project) as run:
        run.until("all running")
        said: list[object] = []
        for number in range(1, 50):  # what is recorded is looked at a moment after the start
            send("Ida", project, nats_server)
            run.until("Hello, Ida!", times=number)
            run.send(signal.SIGUSR2)
            line = run.until("Wrote flowtrace to: ", times=number)
            said = packets(project / line.partition(": ")[2])
            if {"Ida", "Hello, Ida!"} <= set(said):
                break
        assert said.count("Ida") <= number
        wrote = run.text.count("Wrote flowtrace to: ")
        for number in range(30):  # of earlier days
            old = project / ".msgflo" / f"flowtrace-hello-20200101-0000{number:02}-1.json"
            old.write_text("{}")
            os.utime(old, (number, number))
        os.kill(pid_of("greet", run), signal.SIGKILL)
        line = run.until("Wrote flowtrace to: ", times=wrote + 1)
        trace = parse_flowtrace((project / line.partition(": ")[2]).read_bytes())
        errors = [it.payload for it in trace.events if it.command == "processerror"]
        assert {it["id"] for it in errors} == {"greet"}
        assert any("SIGKILL" in it["error"] for it in errors)
        kept = sorted((project / ".msgflo").glob("flowtrace-*"))
        assert len(kept) == 20
        assert project / ".msgflo" / "flowtrace-hello-20200101-000000-1.json" not in kept


def pid_of(role: str, run: Program) -> int:
    """The process of a role that a run has started."""
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"MSGFLO_ROLE={role}".encode() in environment:
            return int(child)
    raise AssertionError(f"{role} is none of {children}")


def test_a_run_that_is_not_traced_says_how_to(project: Path, nats_server: str):
    with program("msgflo", "run", "hello.fbp", "--broker", nats_server, cwd=project) as run:
        run.until("all running")
        run.send(signal.SIGUSR2)
        run.until("nothing is recorded; run with --trace")


def test_what_a_runtime_has_recorded_is_fetched(project: Path, nats_server: str):
    command = ("msgflo", "run", "hello.fbp", "--trace", "--port", "0", "--broker", nats_server)
    with program(*command, cwd=project, MSGFLO_SECRET_READ="look", MSGFLO_SECRET="all") as run:
        run.until("all running")
        address = run.until("FBP protocol at ").partition("protocol at ")[2].split()[0]
        options = ("--address", address, "-o", "it.json")
        for number in range(1, 50):
            send("Jon", project, nats_server)
            run.until("Hello, Jon!", times=number)
            done = msgflo("trace", "dump", *options, cwd=project, MSGFLO_SECRET="look")
            assert done.returncode == 0, done.stderr
            if "Hello, Jon!" in packets(project / "it.json"):
                break
        assert parse_flowtrace((project / "it.json").read_bytes()).main == "hello"
        done = msgflo("trace", "dump", "hello", "--address", address, "-o", "-", cwd=project)
        assert done.returncode == 1, "without a secret"
        # What was fetched is whole: it can be sent again.
        again = ("it.json", "-c", "show.in", "--speed", "0", "--broker", nats_server)
        assert msgflo("trace", "resend", *again, cwd=project).returncode == 0


def test_a_runtime_that_is_not_there_is_told(tmp_path: Path):
    done = msgflo("trace", "dump", "--address", "ws://127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1
    assert "ws://127.0.0.1:1" in done.stderr


def test_a_file_that_is_no_trace_is_told(tmp_path: Path):
    (tmp_path / "no.json").write_text("{}")
    done = msgflo("trace", "show", "no.json", cwd=tmp_path)
    assert done.returncode == 1
    assert "no.json: this is no flowtrace" in done.stderr
    done = msgflo("trace", "show", "gone.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot read gone.json: No such file" in done.stderr


def test_colours_are_for_terminals(tmp_path: Path):
    event = Event("data", {"src": None, "tgt": {"node": "a", "port": "in"}, "data": 1})
    (tmp_path / "it.json").write_text(dump_flowtrace(Flowtrace([event])))
    with program("msgflo", "trace", "show", "it.json", cwd=tmp_path, terminal=True) as shown:
        shown.wait()
        assert "\x1b[3m\x1b[34m-> IN a\x1b[39m" in shown.text
    assert msgflo("trace", "show", "it.json", cwd=tmp_path).stdout == "-> IN a DATA 1\n"


def test_a_trace_that_cannot_be_written_is_told(running: Program, project: Path, broker: str):
    target = str(project / "components" / "all.py" / "x.json")  # a file is no folder
    options = ("--timeout", "1.5", "-o", target, "--broker", broker)
    done = msgflo("trace", "record", "hello.fbp", *options, cwd=project)
    assert done.returncode == 2
    assert "cannot write" in done.stderr
