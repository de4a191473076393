"""A participant that declares as the existing C++ library does, beside ours, on a real RabbitMQ.

Whoever declares what is there with other arguments is refused by the broker (406) and loses its
channel; so this participant would end with an error.
"""

import json
import sys
from pathlib import Path

import pytest

from interop.mixed import HERE
from programs import msgflo, program

pytestmark = pytest.mark.timeout(200)

CHAIN = "greet(Greet) OUT -> IN pass(Pass) OUT -> IN show(Show)\n"
SHARED = """
greet(Greet) OUT -> IN share(msgflo/RoundRobin) OUT -> IN pass(Pass)
pass OUT -> IN show(Show)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "components").mkdir(parents=True)
    for name in ("components/Greet.py", "components/Show.py", "as_cpp.py"):
        (folder / name).write_text((HERE / "project" / name).read_text())
    # A program of nobody knows what kind.
    (folder / "pass").write_text(f'#!/bin/sh\nexec {sys.executable} as_cpp.py "$1"\n')
    (folder / "pass").chmod(0o755)
    (folder / "msgflo.json").write_text(json.dumps({"components": {"Pass": "./pass #ROLE"}}))
    return folder


def send(text: str, broker: str) -> None:
    options = ("--queue", "--broker", broker)
    assert msgflo("send", "greet.IN", text, *options, cwd=Path("/")).returncode == 0


@pytest.mark.parametrize("graph", [CHAIN, SHARED], ids=["copies", "shared"])
def test_one_that_was_there_first_is_connected_by_our_coordinator(
    project: Path, rabbitmq: str, graph: str
):
    (project / "g.fbp").write_text(graph)
    command = (sys.executable, "as_cpp.py", "pass")
    options = ("--broker", rabbitmq, "--no-serve", "--ignore", "pass")
    with program(*command, cwd=project, MSGFLO_BROKER=rabbitmq) as theirs:
        theirs.until("pass is ready")
        with program("msgflo", "run", "g.fbp", *options, cwd=project) as run:
            run.until("all running")
            send("Ada", rabbitmq)
            run.until("shown: Hello, Ada")
            assert run.end() == 0
        assert "406" not in theirs.text
        # It goes on, though our side has ended.
        assert theirs.runs


def test_one_that_our_coordinator_starts_makes_its_queue_in_its_own_way(
    project: Path, rabbitmq: str
):
    (project / "g.fbp").write_text(CHAIN)
    options = ("--broker", rabbitmq, "--no-serve")
    with program("msgflo", "run", "g.fbp", *options, cwd=project) as run:
        run.until("all running")
        send("Ada", rabbitmq)
        run.until("shown: Hello, Ada")
        assert "406" not in run.text
        assert run.end() == 0
