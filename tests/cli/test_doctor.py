"""``msgflo doctor`` finds what is wrong."""

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from hello import make_project
from msgflo.cli.diagnosis import judged
from programs import msgflo, program


def diagnosed(folder: Path, *arguments: str, code: int, **env: str) -> str:
    done = msgflo("doctor", *arguments, cwd=folder, **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_without_a_network_it_looks_at_what_one_would_need(tmp_path: Path):
    folder = make_project(tmp_path / "project")
    (folder / "components" / "Half.py").write_text("def half(")
    said = diagnosed(folder, code=1)
    assert "ok   msgflo 1." in said
    assert "ok   nats-server" in said
    assert f"ok   project {folder}: 4 components" in said
    assert "bad  " in said
    assert "Half.py" in said
    assert f"no network runs in {folder}" in said
    assert "start it: msgflo run GRAPH" in said
    assert "port 3569" in said


def test_a_network_that_is_well_has_nothing_wrong_and_one_role_is_followed_upstream(
    tmp_path: Path,
):
    folder = make_project(tmp_path / "project")
    with program("msgflo", "run", "hello.fbp", "--port", "0", cwd=folder) as run:
        run.until("all running")
        run.until("Hello, World!")
        said = diagnosed(folder, code=0)
        assert "ok   2 of 2 roles are live" in said
        assert "ok   1 of 1 connections are bound" in said
        assert said.endswith("nothing is wrong\n")
        found = json.loads(diagnosed(folder, "show", "--json", code=0))
        assert {"state": "good", "text": "2 of 2 roles are live", "advice": ""} in found
        assert "1 of 1 roles are live" in diagnosed(folder, "greet", code=0)
        assert "Did you mean 'greet'?" in msgflo("doctor", "gret", cwd=folder).stderr
        run.send(signal.SIGKILL)
        run.wait()
    assert "; the last one was killed" in diagnosed(folder, code=1)


def test_what_is_broken_is_found_with_its_reason_and_what_to_do(tmp_path: Path):
    folder = make_project(tmp_path / "project")
    (folder / "hello.fbp").write_text(
        "greet(Greet) OUT -> IN show(Show)\ngreet OUT -> IN bad(Broken)\n"
    )
    arguments = ["--port", "0", "--restart", "never"]
    with program("msgflo", "run", "hello.fbp", *arguments, cwd=folder) as run:
        run.until("pending:")
        msgflo("send", "show", "5", cwd=folder)
        run.until("is a dead letter")
        said = diagnosed(folder, code=1)
        assert "bad  bad is not live" in said
        assert "it last said: ModuleNotFoundError: No module named 'no_such_module'" in said
        assert "see: msgflo logs bad" in said
        assert "bad  1 message of show could not be processed" in said
        assert "see: msgflo deadletters list show" in said
        assert "is not live" not in diagnosed(folder, "greet", code=0)


def test_a_broker_that_is_named_is_tried(tmp_path: Path, nats_server: str):
    folder = make_project(tmp_path / "project")
    assert "answers in" in diagnosed(folder, "--broker", nats_server, code=1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"nats://me:secret@127.0.0.1:{probe.getsockname()[1]}"
    said = diagnosed(folder, code=1, MSGFLO_BROKER=url)
    assert "is it running, and are host, port and password right?" in said
    assert "secret" not in said


def test_a_secret_that_is_needed_is_asked_for(tmp_path: Path):
    folder = make_project(tmp_path / "project")
    secrets = tmp_path / "secrets"
    secrets.write_text("read looking\n")
    arguments = ["--port", "0", "--secret-file", str(secrets), "--only", "show"]
    with program("msgflo", "run", "hello.fbp", *arguments, cwd=folder) as run:
        address = run.until("FBP protocol at").rpartition(" ")[2]
        run.until("ROLE ")
        said = diagnosed(tmp_path, "--address", address, code=1)
        assert "lets us see nothing" in said
        assert "say its secret: --secret-file" in said
        said = diagnosed(tmp_path, "--address", address, code=1, MSGFLO_SECRET="looking")
        assert "; we may look only" in said


def status(**more: Any) -> dict[str, Any]:
    said = {
        "broker": {"url": "nats://x", "connected": True},
        "started": True,
        "nodes": [],
        "edges": [],
        "pending": [],
        "found": [],
    }
    return said | more


def node(name: str, *instances: dict[str, Any], **more: Any) -> dict[str, Any]:
    said = {"node": name, "component": "C", "state": "live", "in_graph": True, "reason": ""}
    return said | {"instances": [*instances]} | more


LIVE = {"instance": 1, "state": "live", "paused": False}


def queue(kind: str = "work", **more: Any) -> dict[str, Any]:
    said = {"queue": "a.IN", "node": "a", "kind": kind, "instance": None, "waiting": 3}
    return said | {"in_flight": 0, "consumers": 1, "oldest": 1.0, "rate_out": 0.0} | more


@pytest.mark.parametrize(
    ("said", "queues", "state", "expected"),
    [
        (status(broker={"url": "nats://x", "connected": False}), [], "bad", "nats://x is lost"),
        (status(started=False), [], "bad", "the network is stopped"),
        (
            status(nodes=[node("a", {"instance": 1, "state": "live", "paused": True})]),
            [],
            "bad",
            "a takes no messages: it is paused",
        ),
        (
            status(nodes=[node("a", LIVE, {"instance": 2, "state": "failed", "paused": None})]),
            [],
            "bad",
            "a.2 failed, 1 live",
        ),
        (
            status(nodes=[node("a", LIVE | {"restarts": 4})]),
            [],
            "odd",
            "a was started again 4 times",
        ),
        (
            status(
                edges=[
                    {
                        "src": {"node": "a", "port": "out"},
                        "tgt": {"node": "b", "port": "in"},
                        "state": "wrong",
                        "reason": "there is no such port",
                    }
                ]
            ),
            [],
            "bad",
            "a.out -> b.in is wrong: there is no such port",
        ),
        (status(pending=["a in: not there"]), [], "bad", "an initial packet is not sent"),
        (status(found=[{}]), [], "odd", "1 binding that the graph does not ask for"),
        (status(nodes=[node("x", in_graph=False)]), [], "odd", "x (C) is there, and not in the"),
        (status(), [queue(consumers=0)], "bad", "3 messages in a.IN, and nobody takes from it"),
        (status(), [queue(oldest=300.0)], "odd", "the oldest of 3 in a.IN is 5 min old"),
        (status(), [queue("place", instance=4)], "odd", "3 messages for a.4, which is not"),
        (status(), [queue("dead")], "bad", "3 messages of a could not be processed"),
    ],
)
def test_each_thing_that_can_be_wrong_is_said(said, queues, state, expected):
    found = [it for it in judged(said, queues) if expected in it.text]
    assert [it.state for it in found] == [state]
    assert not any(expected in it.text for it in judged(status(), []))


def test_jetstream_that_is_missing_is_named(tmp_path: Path):
    folder = make_project(tmp_path / "project")
    with program("nats-server", "-a", "127.0.0.1", "-p", "-1", cwd=tmp_path) as server:
        line = server.until("Listening for client connections on")
        url = f"nats://{line.rpartition(' ')[2]}"
        server.until("Server is ready")
        said = diagnosed(folder, "--broker", url, code=1)
        assert "JetStream" in said
