"""``msgflo run``: what it shows, what it makes of bad input, and how it ends."""

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from programs import WAIT, Program, msgflo, program, runs

LOCK = ".msgflo/run.lock"


def run(project: Path, *arguments: str, **options):
    return program("msgflo", "run", *arguments, cwd=project, **options)


def send(project: Path, *arguments: str) -> None:
    done = msgflo("send", *arguments, cwd=project)
    assert done.returncode == 0, done.stderr


def processes_of(started: Program) -> list[int]:
    """A run, and all that it has started: their environments are marked, or it is their parent."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
                found += [(int(entry.name), int(stat.rpartition(")")[2].split()[1]))]
            except (OSError, ValueError):
                continue
    ours = {started.pid}
    while True:
        more = {pid for pid, parent in found if parent in ours} | ours
        if more == ours:
            return sorted(ours)
        ours = more


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + WAIT
    # Nobody tells us of the end of a process that is not our child.
    while any(runs(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# What it shows


def test_it_shows_the_roles_then_what_they_print_and_ends_at_ctrl_c(project: Path):
    with run(project, "hello.fbp", "--scale", "show=2") as started:
        started.until("all running after")
        # An instance that comes later than the first message has no place for it yet.
        started.until("Hello, World!")
        assert "msgflo | hello.fbp: 2 nodes, 1 connection" in started.lines
        assert re.fullmatch(
            r"msgflo \| broker nats://msgflo:\*\*\*@127\.0\.0\.1:\d+ "
            r"\(embedded, keeps its messages in \.msgflo\)",
            started.until("| broker "),
        )
        assert "msgflo |   ROLE   COMPONENT  INSTANCES" in started.lines
        assert "msgflo |   greet  Greet      1 live" in started.lines
        assert "msgflo |   show   Show       2 live" in started.lines
        assert any(re.fullmatch(r"show\.[12] +\| Hello, World!", line) for line in started.lines)
        password = json.loads((project / LOCK).read_text())["url"].split(":")[2].split("@")[0]
        assert password not in started.text
        pids = processes_of(started)
        assert len(pids) >= 5
        for pid in pids:
            assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert started.end(signal.SIGINT) == 0
        assert started.lines[-1].endswith("stopping ...") or "stopping ..." in started.text
        assert gone(pids)


def test_quiet_hides_what_participants_print(project: Path):
    with run(project, "hello.fbp", "--quiet", "--only", "greet,show") as started:
        started.until("all running")
        send(project, "show", "not to be seen")
        assert started.end() == 0
        assert all(line.startswith("msgflo |") for line in started.lines)


def test_a_summary_of_rates_waiting_and_dead_comes_on_request_and_regularly(project: Path):
    with run(project, "hello.fbp", "--scale", "show=0") as started:
        started.until("msgflo |   show   Show       none")
        started.until("msgflo |   show: scaled to 0 instances")
        for name in ("Ada", "Bo"):
            send(project, "greet", name)
        send(project, "greet", '{"not": "a name"}')
        end = time.monotonic() + WAIT
        summary = ""
        while "waiting 3" not in summary or "dead 1" not in summary:
            assert time.monotonic() < end, started.text
            started.send(signal.SIGUSR1)
            summary = started.until("roles live", times=started.text.count("roles live") + 1)
        assert re.fullmatch(
            r"msgflo \| 1/2 roles live · in \d+/s · out \d+/s · waiting 3 · in flight 0 · dead 1"
            r" · longest queue show\.IN@1 \(3\)",
            summary,
        )
        assert started.end() == 0
    with run(project, "hello.fbp", "--summary", "0.1") as started:
        started.until("2/2 roles live", times=2)


def test_a_terminal_gets_colours_unless_no_color_is_set(project: Path, nats_server: str):
    with run(project, "hello.fbp", "--broker", nats_server, terminal=True) as started:
        started.until("all running")
        started.until("Hello, World!")
        assert "\x1b[1mmsgflo\x1b[0m | " in started.text
        assert re.search(r"\x1b\[\d+mshow\.1 +\x1b\[\d+m \|\x1b\[0m Hello, World!", started.text)
    with run(project, "hello.fbp", "--broker", nats_server, terminal=True, NO_COLOR="1") as started:
        started.until("all running")
        assert "\x1b" not in started.text


# What is wrong, and why; the rest goes on


def test_pending_roles_are_explained_and_the_rest_works(project: Path):
    (project / "odd.fbp").write_text(
        "'World' -> IN greet(Greet) OUT -> IN show(Show)\n"
        "greet OUT -> IN shout(Shuot)\n"
        "greet OUT -> IN broken(Broken)\n"
        "greet OTU -> IN show\n"
    )
    with run(project, "odd.fbp", "--ignore", "nobody") as started:
        assert started.wait() == 2
        assert "the graph has no role 'nobody'" in started.text
    with run(project, "odd.fbp", "--restart", "never") as started:
        started.until("Hello, World!")
        started.until("pending:")
        started.until("no outport 'otu'")
        assert "'Shuot'" in started.text
        assert "Did you mean 'Show'?" in started.until("|   shout: ")
        assert "exited with status 1" in started.until("|   broken: ")
        started.until("|       ModuleNotFoundError: No module named 'no_such_module'")
        send(project, "greet", "Ada")
        started.until("Hello, Ada!")
        assert started.end() == 0


def test_a_role_that_is_not_started_is_waited_for_and_all_runs_when_it_comes(project: Path):
    with run(project, "hello.fbp", "--ignore", "show") as started:
        started.until("|   show: not started here; waits for somebody to announce it")
        url = json.loads((project / LOCK).read_text())["url"]
        with program(
            "msgflo", "participant", "components/Show.py", "show", cwd=project, MSGFLO_BROKER=url
        ) as other:
            started.until("all running after")
            other.until("Hello, World!")
            assert other.end() == 0


def test_a_killed_participant_is_told_and_all_runs_again(project: Path, nats_server: str):
    with run(project, "hello.fbp", "--broker", nats_server) as started:
        started.until("all running")
        pids = [
            pid
            for pid in processes_of(started)
            if b"components/Show.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(pids[0], signal.SIGKILL)
        started.until("killed by SIGKILL")
        started.until("show(Show) running on", times=2)


def test_a_killed_broker_is_told_started_again_and_nothing_is_lost(project: Path):
    with run(project, "hello.fbp") as started:
        started.until("all running")
        broker = int((project / ".msgflo/nats/nats.pid").read_text())
        os.kill(broker, signal.SIGKILL)
        started.until("the broker ended (SIGKILL); starting it again")
        started.until("the broker is back after")
        send(project, "greet", "Ada")
        started.until("Hello, Ada!")


def test_a_network_whose_terminal_or_reader_goes_is_ended_or_goes_on(project: Path):
    with run(project, "hello.fbp", terminal=True) as started:
        started.until("all running")
        pids = processes_of(started)
        assert started.hang_up() == 0
        assert gone(pids)
    with run(project, "hello.fbp") as started:
        started.until("all running")
        pids = processes_of(started)
        os.close(started._output)  # as of a pipe into head
        started._open = False
        send(project, "greet", "unheard")
        send(project, "greet", "unheard")
        started.send(signal.SIGUSR1)
        with program("msgflo", "tail", "greet", "-n", "1", cwd=project) as tail:
            tail.until("watching")
            send(project, "greet", "still there")
            tail.until("still there")
        started.send(signal.SIGTERM)
        assert started._process.wait(WAIT) == 0
        assert gone(pids)


# What cannot run at all


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ("a(A) OUT -> IN\n", "wrong.fbp:1:"),
        ("a(A) OUT -> IN b(B)\nb OUT => IN a\n", "wrong.fbp:2:"),
        ("a OUT -> IN b\n", "wrong.fbp"),
    ],
)
def test_a_wrong_graph_is_refused_with_its_place_and_nothing_is_started(
    project: Path, graph: str, expected: str
):
    (project / "wrong.fbp").write_text(graph)
    done = msgflo("run", "wrong.fbp", cwd=project)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / ".msgflo").exists()


@pytest.mark.parametrize("scale", ["show", "show=", "=2", "show=-1", "show=x", "shwo=2"])
def test_a_wrong_scale_is_wrong_use(project: Path, scale: str):
    done = msgflo("run", "hello.fbp", "--scale", scale, cwd=project)
    assert done.returncode == 2
    assert ("expected ROLE=N" in done.stderr) or ("Did you mean 'show'?" in done.stderr)


def test_a_broker_that_cannot_be_reached_is_an_error_without_its_password(project: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = msgflo("run", "hello.fbp", "--broker", f"nats://me:secret@127.0.0.1:{port}", cwd=project)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    for url, status, expected in (
        ("gopher://x", 1, "gopher"),
        ("nats://127.0.0.1:99999", 2, "99999"),
    ):
        done = msgflo("run", "hello.fbp", "--broker", url, cwd=project)
        assert done.returncode == status
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_an_error(project: Path):
    (project / ".msgflo").write_text("a file")
    done = msgflo("run", "hello.fbp", cwd=project)
    assert done.returncode == 2
    assert "cannot keep state in" in done.stderr
    assert "--project" in done.stderr


def test_a_second_run_in_the_folder_is_refused_and_told_what_it_can_do(project: Path):
    with run(project, "hello.fbp") as started:
        started.until("all running")
        done = msgflo("run", "hello.fbp", cwd=project)
        assert done.returncode == 1
        assert f"Process {started.pid}" in done.stderr
        for way in ("msgflo send", "kill ", "--project", "--broker"):
            assert way in done.stderr
        send(project, "greet", "Ada")
        started.until("Hello, Ada!")


# How it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_all_that_it_started(project: Path, number: signal.Signals):
    with run(project, "hello.fbp") as started:
        started.until("all running")
        pids = processes_of(started)
        assert started.end(number) == 0
        assert gone(pids)


def test_a_signal_while_it_starts_ends_it_too(project: Path):
    with run(project, "hello.fbp", "--scale", "show=4") as started:
        started.until("embedded")
        pids = processes_of(started)
        assert started.end(signal.SIGINT) == 0
        assert gone(pids)


def test_killed_it_leaves_no_orphan_and_the_next_run_finds_what_waits(project: Path):
    with run(project, "hello.fbp", "--scale", "show=0") as started:
        started.until("pending:")
        for name in ("Ada", "Bo"):
            send(project, "greet", name)
        end = time.monotonic() + WAIT
        summary = ""
        while "waiting 3" not in summary:
            assert time.monotonic() < end
            started.send(signal.SIGUSR1)
            summary = started.until("roles live", times=started.text.count("roles live") + 1)
        pids = processes_of(started)
        assert len(pids) >= 4  # the run, the broker, greet, and a watchdog or two
        assert started.end(signal.SIGKILL) == -signal.SIGKILL
        assert gone(pids)
    with run(project, "hello.fbp") as started:
        for name in ("World", "Ada", "Bo"):
            started.until(f"Hello, {name}!")
        started.until("all running")
