"""``msgflo participant``: one component by itself, for a network elsewhere."""

import signal
from pathlib import Path

import pytest

from programs import msgflo, program


def test_it_runs_as_its_role_until_it_is_stopped_and_exits_0(project: Path, nats_server: str):
    for number in (signal.SIGTERM, signal.SIGINT):
        with program(
            *("msgflo", "participant", "components/Greet.py", "hello", "--broker", nats_server),
            cwd=project,
        ) as started:
            assert started.until("running on") == "hello(Greet) running on nats://127.0.0.1"
            assert started.end(number) == 0


def test_role_broker_and_packets_come_from_the_environment_too(project: Path, nats_server: str):
    environment = {"MSGFLO_BROKER": nats_server, "MSGFLO_ROLE": "shown"}
    command = ("msgflo", "participant", "components/Show.py", "--iips", '{"in": "at once"}')
    with program(*command, cwd=project, **environment) as started:
        started.until("shown(Show) running on")
        started.until("at once")
        assert started.end() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["components/No.py", "x"], 2, "there is no file 'components/No.py'"),
        (["components/Greet.py", "x", "--component", "Grete"], 1, "Did you mean 'greet'?"),
        (["components/Greet.py", "x", "--iips", "{"], 2, "--iips is '{', which is not JSON"),
        (["components/Greet.py", "x", "--iips", "3"], 2, "expected a JSON object"),
        (["components/Greet.py", "x", "--instance", "0"], 2, "0 is not in the range"),
        (["components/Broken.py", "x"], 1, "No module named 'no_such_module'"),
    ],
)
def test_what_cannot_run_says_why(project: Path, nats_server, arguments, status, expected):
    done = msgflo("participant", *arguments, cwd=project, MSGFLO_BROKER=nats_server)
    assert expected in done.stderr
    assert done.returncode == status


def test_without_a_broker_it_says_how_to_name_one(project: Path):
    done = msgflo("participant", "components/Greet.py", "x", cwd=project)
    assert done.returncode == 2
    assert "no broker is named; expected --broker or MSGFLO_BROKER" in done.stderr


def test_a_component_that_cannot_be_imported_is_shown_from_its_own_first_line(
    project: Path, nats_server: str
):
    arguments = ("participant", "components/Broken.py", "x")
    done = msgflo(*arguments, cwd=project, MSGFLO_BROKER=nats_server)
    told = done.stderr.splitlines()
    assert told[0] == "Traceback (most recent call last):"
    assert told[1].endswith('/components/Broken.py", line 5, in <module>')
    assert told[-1] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "msgflo/participant.py" not in done.stderr
    assert "importlib" not in done.stderr


def test_it_is_only_loaded_when_that_is_asked(project: Path):
    done = msgflo("participant", "components/Greet.py", "--check", cwd=project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = msgflo("participant", "components/Broken.py", "--check", cwd=project)
    assert done.returncode == 1
    assert "no_such_module" in done.stderr
