"""Our participants in a network that the original's coordinator or tools set up, on RabbitMQ."""

import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from interop.mixed import surroundings
from programs import WAIT, environment, msgflo, program

pytestmark = pytest.mark.timeout(300)

GRAPH = """
greet(Greet) OUT -> IN exclaim(Exclaim) OUT -> IN show(Show)
jobs(Exclaim) OUT -> IN share(msgflo/RoundRobin)
share OUT -> IN work(Greet) OUT -> IN done(Exclaim) OUT -> IN shown(Show)
share DEADLETTER -> IN failed(Show)
"""
ROLES = {
    "greet": "Greet.py",
    "exclaim": "Exclaim.js",
    "show": "Show.py",
    "jobs": "Exclaim.js",
    "work": "Greet.py",
    "done": "Exclaim.js",
    "shown": "Show.py",
    "failed": "Show.py",
}


def command(role: str) -> list[str]:
    """What the original starts a role with."""
    file = f"components/{ROLES[role]}"
    if file.endswith(".py"):
        return ["msgflo-python", file, role]
    return ["msgflo-nodejs", "--name", role, file]


@pytest.fixture
def around(modules: Path, rabbitmq: str) -> dict[str, str]:
    return {**surroundings(modules), "MSGFLO_BROKER": rabbitmq}


def send(role: str, text: str, around: dict[str, str]) -> None:
    done = msgflo("send", f"{role}.IN", text, "--queue", cwd=Path("/"), **around)
    assert done.returncode == 0, done.stderr


def call(folder: Path, name: str, *arguments: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [folder / name, *arguments],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bindings_printed(text: str) -> list[str]:
    return sorted(line.strip() for line in text.splitlines() if "->" in line)


def test_the_original_setup_connects_ours_and_theirs_both_ways(
    mixed: Path, modules: Path, around: dict[str, str]
):
    (mixed / "all.fbp").write_text(GRAPH)
    with ExitStack() as stack:
        started = {
            role: stack.enter_context(program(*command(role), cwd=mixed, **around))
            for role in ROLES
        }
        for role, it in started.items():
            it.until(f"{role} connected to" if ROLES[role].endswith(".js") else "running on")

        theirs = call(modules / ".bin", "msgflo-setup", "all.fbp", cwd=mixed, **around)
        send("greet", "World", around)
        started["show"].until("shown: Hello, World!")
        send("jobs", "job", around)
        started["shown"].until("shown: Hello, job!!")
        send("jobs", "worse", around)
        started["failed"].until("shown: worse!")

        # Our tool of the same name says in the same words that it makes the same connections.
        ours = call(Path(sys.executable).parent, "msgflo-setup", "all.fbp", cwd=mixed, **around)
        assert bindings_printed(ours) == bindings_printed(theirs)
        assert len(bindings_printed(ours)) == 6


def test_the_original_coordinator_starts_ours_by_its_default_handler_and_connects_them(
    mixed: Path, modules: Path, around: dict[str, str]
):
    # It knows no RoundRobin.
    (mixed / "chain.fbp").write_text(
        "greet(Greet) OUT -> IN exclaim(Exclaim) OUT -> IN show(Show)\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--graph", "chain.fbp", "--componentdir", "components", "--port", str(port))
    original = str(modules / ".bin" / "msgflo")
    more = ("--forward", "stdout,stderr", "--wait-timeout", "200")
    with program(original, *options, *more, cwd=mixed, **around) as coordinator:
        coordinator.until("show(Show) running on", patience=120)
        # It says nothing when it has connected what was announced: sent until it has.
        end = time.monotonic() + 120
        while "shown: Hello, World!" not in coordinator.text:
            assert time.monotonic() < end, coordinator.text
            send("greet", "World", around)
            coordinator.read(0.5)


def test_the_original_dump_takes_what_ours_has_sent(
    mixed: Path, modules: Path, around: dict[str, str]
):
    with program(*command("exclaim"), cwd=mixed, **around) as exclaim:
        exclaim.until("connected to")
    done = msgflo(
        "send", "exclaim.IN", '{"a": [0, false, null, ""]}', "--queue", cwd=mixed, **around
    )
    assert done.returncode == 0, done.stderr
    said = call(
        modules / ".bin", "msgflo-dump-message", "--queue", "exclaim.IN", cwd=mixed, **around
    )
    assert said == '{"a":[0,false,null,""]}\n'
