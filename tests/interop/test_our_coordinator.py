"""Participants of the original clients in a network that ours coordinates, on a real RabbitMQ."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.mixed import make_mixed, surroundings
from programs import WAIT, Program, msgflo, program
from rabbitmq import RabbitMQ

pytestmark = pytest.mark.timeout(300)

GRAPH = """
greet(Greet) OUT -> IN through(Through) OUT -> IN exclaim(Exclaim) OUT -> IN show(Show)
jobs(Greet) OUT -> IN share(msgflo/RoundRobin) OUT -> IN work(Exclaim) OUT -> IN done(Show)
share DEADLETTER -> IN failed(Show)
"""


@pytest.fixture(scope="module")
def broker(rabbitmq_of_session: RabbitMQ) -> Iterator[str]:
    url = rabbitmq_of_session.vhost()
    yield url
    rabbitmq_of_session.drop_vhost(url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, modules: Path) -> Path:
    folder = make_mixed(tmp_path_factory.mktemp("ours") / "mixed", modules)
    (folder / "all.fbp").write_text(GRAPH)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path, modules: Path, broker: str) -> Iterator[Program]:
    """One network for all tests here: NoFlo takes long to start."""
    options = ("--broker", broker, "--port", "0", "--scale", "work=2")
    with program("msgflo", "run", "all.fbp", *options, cwd=folder, **surroundings(modules)) as run:
        run.until("all running", patience=200)
        yield run


def send(running: Program, broker: str, role: str, *texts: str) -> None:
    lines = "".join(f"{text}\n" for text in texts)
    options = ("--lines", "-f", "-", "--broker", broker)
    assert msgflo("send", role, *options, cwd=Path("/"), stdin=lines).returncode == 0


def test_they_are_started_by_the_default_handlers_and_announced(running: Program):
    assert "noflo-runtime-msgflo started: through(Through)" in running.text
    assert "exclaim connected to amqp://" in running.text
    for role, live in (("through", 1), ("exclaim", 1), ("work", 2)):
        assert any(f"  {role} " in line and f"{live} live" in line for line in running.lines)


def test_messages_go_from_ours_through_noflo_and_nodejs_to_ours(running: Program, broker: str):
    send(running, broker, "greet", "World", "ä€😀")
    assert running.until("shown: Hello, ä€😀!").startswith("show.1 ")
    assert running.until("shown: Hello, World!").startswith("show.1 ")


def test_original_participants_share_the_work_of_a_round_robin(running: Program, broker: str):
    send(running, broker, "jobs", *(f"job-{n}" for n in range(20)), "last")
    assert running.until("shown: Hello, last!").startswith("done.1 ")
    for n in range(20):
        running.until(f"shown: Hello, job-{n}!")
    done = Counter(line for line in running.lines if line.startswith("done.1"))
    assert max(done.values()) == 1


def test_what_an_original_participant_cannot_process_goes_to_our_dead_letters(
    running: Program, broker: str
):
    send(running, broker, "jobs", "bad one")
    assert running.until("shown: Hello, bad one").startswith("failed.1")


def test_what_ours_cannot_process_is_kept_with_its_reason(
    running: Program, broker: str, folder: Path
):
    send(running, broker, "jobs", "worse")

    def kept() -> str:
        done = msgflo("deadletters", "list", "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    end = time.monotonic() + WAIT
    while "worse than bad" not in (listed := kept()):
        assert time.monotonic() < end, listed
