"""``msgflo send`` and ``msgflo tail``, on a network that runs."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hello import make_project
from programs import Program, msgflo, program
from servers import NatsServer


@pytest.fixture(scope="module")
def broker(nats_server_of_session: NatsServer) -> str:
    return f"{nats_server_of_session.url}/messages"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("messages"))


@pytest.fixture(scope="module")
def running(folder: Path, broker: str) -> Iterator[Program]:
    """``msgflo run`` of one network, for all tests here, on a broker that is named."""
    with program("msgflo", "run", "hello.fbp", "--broker", broker, cwd=folder) as run:
        run.until("all running")
        yield run


def test_what_is_sent_is_json_or_else_a_text(running: Program, project: Path, broker: str):
    def send(*arguments: str, stdin: bytes = b"") -> str:
        done = msgflo("send", *arguments, "--broker", broker, cwd=project, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert send("greet", "Ada") == "sent 1 message to greet.IN\n"
    running.until("Hello, Ada!")
    send("greet.in", '"Bo"')
    running.until("Hello, Bo!")
    send("greet.IN", "--text", "17")
    running.until("Hello, 17!")
    send("show.in", "-f", "-", stdin=b'"as it is"')
    running.until("as it is")
    assert send("show", "--lines", "-f", "-", stdin="eins\nzwei ü\n".encode()) == (
        "sent 2 messages to show.IN\n"
    )
    running.until("zwei ü")
    assert send("show.IN", "by queue", "--queue") == "sent 1 message to show.IN\n"
    running.until("by queue")


def test_a_message_with_an_id_is_sent_once_however_often(
    running: Program, project: Path, broker: str
):
    options = ("--id", "job-17", "--broker", broker)
    for _ in range(2):
        done = msgflo("send", "greet", "Only", *options, cwd=project)
        assert done.returncode == 0, done.stderr
    lines = ("--lines", "-f", "-", *options)
    assert msgflo("send", "greet", *lines, cwd=project, stdin="One\nTwo\n").returncode == 0
    running.until("Hello, Two!")
    assert running.text.count("Hello, Only!") == running.text.count("Hello, One!") == 1
    done = msgflo("trace", "message", "job-17-2", "--broker", broker, cwd=project)
    assert "greet.1 in: done  job-17-2" in done.stdout


def test_the_broker_is_found_in_the_environment_too(
    running: Program, project: Path, tmp_path: Path, broker: str
):
    assert msgflo("send", "greet", "Cy", cwd=tmp_path, MSGFLO_BROKER=broker).returncode == 0
    running.until("Hello, Cy!")


def test_the_broker_that_a_run_was_told_to_use_is_known_in_its_folder(
    running: Program, folder: Path
):
    done = msgflo("send", "greet", "Di", cwd=folder)
    assert done.returncode == 0, done.stderr
    running.until("Hello, Di!")


def test_a_role_or_port_that_is_not_there_says_what_is(
    running: Program, project: Path, broker: str
):
    done = msgflo("send", "gret.in", "x", "--broker", broker, cwd=project)
    assert done.returncode == 2
    assert "no participant announced role 'gret'" in done.stderr
    assert "announced were: greet, show. Did you mean 'greet'?" in done.stderr
    done = msgflo("send", "greet.im", "x", "--broker", broker, cwd=project)
    assert done.returncode == 1
    assert "'greet' has no inport 'im'" in done.stderr
    done = msgflo("tail", "show.up", "--broker", broker, cwd=project)
    assert done.returncode == 1
    assert "has no outport or inport 'up'" in done.stderr


def test_lines_that_are_no_text_are_refused_and_what_went_before_stays_sent(
    running: Program, project: Path, broker: str
):
    done = msgflo(
        "send",
        "show",
        "--lines",
        "-f",
        "-",
        "--broker",
        broker,
        cwd=project,
        stdin=b"fine\n\xff\xfe\n",
    )
    assert done.returncode == 2
    assert "not text in UTF-8" in done.stderr
    assert "sent 1 message to show.IN" in done.stderr
    running.until("fine")


def test_tail_shows_what_passes_a_port_from_either_side_and_a_connection(
    running: Program, project: Path, broker: str
):
    for target in ("greet", "greet.out", "show.in", "greet.out -> show.in", "greet->show"):
        with program("msgflo", "tail", target, "-n", "1", "--broker", broker, cwd=project) as tail:
            tail.until("watching ")
            msgflo("send", "greet", "Ada", "--broker", broker, cwd=project)
            line = tail.until("Hello")
            assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{6} greet\.OUT "Hello, Ada!"', line), target
            assert tail.wait() == 0


def test_tail_without_a_target_watches_all_outports_and_prints_json(
    running: Program, project: Path, broker: str
):
    with program("msgflo", "tail", "--json", "-n", "2", "--broker", broker, cwd=project) as tail:
        assert tail.until("watching ").startswith("watching greet.OUT")
        for name in ("A", "B"):
            msgflo("send", "greet", name, "--broker", broker, cwd=project)
        assert tail.wait() == 0
        said = [json.loads(line) for line in tail.lines if line.startswith("{")]
        assert [it["queue"] for it in said] == ["greet.OUT"] * 2
        assert [it["data"] for it in said] == ["Hello, A!", "Hello, B!"]
        assert all(it["headers"] and it["time"] > 0 for it in said)


def test_tail_ends_with_status_1_if_too_little_came_and_0_at_ctrl_c(
    running: Program, project: Path, broker: str
):
    done = msgflo("tail", "greet", "-n", "1", "--timeout", "0.1", "--broker", broker, cwd=project)
    assert done.returncode == 1
    with program("msgflo", "tail", "greet", "--broker", broker, cwd=project) as tail:
        tail.until("watching ")
        assert tail.end(signal.SIGINT) == 0


def test_a_connection_that_is_not_there_says_where_its_source_leads(
    running: Program, project: Path, broker: str
):
    done = msgflo("tail", "greet -> greet", "--broker", broker, cwd=project)
    assert done.returncode == 2
    assert "nothing connects greet.OUT to greet.IN" in done.stderr
    assert "greet.OUT is connected to: show.IN" in done.stderr
    assert msgflo("tail", "a -> b -> c", "--broker", broker, cwd=project).returncode == 2


def test_a_reader_of_tail_that_goes_away_ends_it(running: Program, project: Path, broker: str):
    command = f"msgflo tail greet --broker {broker} | head -n 1; echo over"
    with program("bash", "-c", command, cwd=project) as shell:
        shell.until("watching ")
        for _ in range(3):
            msgflo("send", "greet", "Ada", "--broker", broker, cwd=project)
        assert shell.wait() == 0
        assert shell.lines[-1] == "over"
        assert "Traceback" not in shell.text


def test_without_a_network_each_says_what_to_do(project: Path):
    for command in (["send", "greet", "x"], ["tail", "greet"]):
        done = msgflo(*command, cwd=project)
        assert done.returncode == 2
        assert f"no broker was named, and no network runs in {project}" in done.stderr


def test_a_broker_that_is_not_there_is_an_error(project: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"nats://me:secret@127.0.0.1:{probe.getsockname()[1]}"
    for command in (["send", "greet", "x"], ["tail", "greet"]):
        done = msgflo(*command, "--broker", url, cwd=project)
        assert done.returncode == 1
        assert "127.0.0.1" in done.stderr
        assert "secret" not in done.stderr
    assert msgflo("send", "greet", "x", "--broker", "gopher://x", cwd=project).returncode == 1
