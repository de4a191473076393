"""``msgflo --graph ... --port ...``, as the users of the original call it."""

import json
import time

from websockets.sync.client import connect

from programs import msgflo, program
from running import COMPONENTS

GRAPH = {
    "processes": {"a": {"component": "Repeat"}, "b": {"component": "Drop"}},
    "connections": [
        {"src": {"process": "a", "port": "out"}, "tgt": {"process": "b", "port": "in"}}
    ],
}


def test_it_does_with_the_originals_options_what_the_original_did(tmp_path):
    (tmp_path / "participants").mkdir()
    for name, code in COMPONENTS.items():
        (tmp_path / "participants" / name).write_text(code)
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    (tmp_path / "package.json").write_text('{"name": "mine", "msgflo": {"repository": "x/y"}}')
    began = time.monotonic()
    with program(
        "msgflo",
        *("--graph", "graph.json", "--host", "127.0.0.1", "--port", "0"),
        *("--library", "package.json", "--componentdir", "participants"),
        *("--runtime-id", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "--ide", "http://ide"),
        *("--auto-save", "true", "--wait-timeout", "10", "--forward", "stdout"),
        cwd=tmp_path,
    ) as run:
        line = run.until("msgflo started on ws://127.0.0.1:")
        took = time.monotonic() - began
        url = line.split()[-1]
        assert "id%3D3f2504e0" in run.until("Open in Flowhub: http://ide#runtime/endpoint?")
        with connect(url, subprotocols=["noflo"]) as client:

            def ask(protocol, command, **payload):
                message = {"protocol": protocol, "command": command, "payload": payload}
                client.send(json.dumps({**message, "requestId": "x"}))
                while True:
                    answer = json.loads(client.recv(timeout=30))
                    if answer.get("responseTo") == "x":
                        return answer["payload"]

            runtime = ask("runtime", "getruntime")
            assert runtime["id"] == "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
            assert (runtime["namespace"], runtime["repository"]) == ("mine", "x/y")
            run.until("all running")
            ask("graph", "addnode", id="c", component="mine/Drop", graph=runtime["graph"])
        end = time.monotonic() + 30
        while "mine/Drop" not in (tmp_path / "graph.json").read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
    assert took < 30  # 1.5 s where nothing else runs


def test_what_it_does_not_know_is_said(tmp_path):
    done = msgflo("--grahp", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert "No such option" in done.stderr
    done = msgflo("--library", "none.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "none.json" in done.stderr


def test_help_and_subcommands_are_as_ever(tmp_path):
    assert "Commands" in msgflo("--help", cwd=tmp_path).stdout
    assert "classic" not in msgflo("--help", cwd=tmp_path).stdout
    assert msgflo("--version", cwd=tmp_path).returncode == 0
