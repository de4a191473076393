import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.errors import ProtocolError
from msgflo.protocol.messages import OUTPUT, Malformed, encode, expect, parse, shaped


def message(protocol: str, command: str, /, **payload: object) -> str:
    return json.dumps({"protocol": protocol, "command": command, "payload": payload})


def test_a_message_is_read_and_its_secret_taken_out():
    read = parse(
        '{"protocol": "graph", "command": "x", "payload": {"id": "a", "secret": "s"}, '
        '"secret": "t", "requestId": "7"}'
    )
    assert (read.protocol, read.command, read.payload) == ("graph", "x", {"id": "a"})
    assert read.secret == "s"
    assert read.request == "7"
    assert parse('{"protocol": "graph", "command": "x", "secret": "t"}').secret == "t"
    assert parse('{"protocol": "graph", "command": "x", "payload": {"secret": 3}}').secret == ""


@pytest.mark.parametrize(
    ("text", "protocol", "said"),
    [
        ("", "network", "not JSON"),
        ("{", "network", "not JSON"),
        (b"\xff", "network", "not JSON"),
        ("[" * 100_000, "network", "not JSON"),
        ("[]", "network", "expected a JSON object"),
        ('{"protocol": "graph"}', "graph", "texts protocol and command"),
        ('{"protocol": 1, "command": "x"}', "network", "texts protocol and command"),
        ('{"protocol": "grahp", "command": "x"}', "network", "there is no protocol 'grahp'"),
        ('{"protocol": "graph", "command": "x", "payload": []}', "graph", "payload of type list"),
    ],
)
def test_what_is_no_message_is_refused_in_the_protocol_it_names(text, protocol, said):
    with pytest.raises(Malformed, match=said) as caught:
        parse(text)
    assert caught.value.protocol == protocol
    assert isinstance(caught.value, ProtocolError)


def test_what_a_command_must_have_is_said():
    with pytest.raises(Malformed, match=r"graph:addnode: .*`component`"):
        expect(parse(message("graph", "addnode", id="a")))
    with pytest.raises(Malformed, match="Expected `str`, got `int`"):
        expect(parse(message("graph", "addnode", id=1, component="c")))
    with pytest.raises(Malformed, match=r"graph has no command 'addnoed'; it has: clear, addnode"):
        expect(parse(message("graph", "addnoed")))


def test_unknown_keys_are_passed_over():
    read = expect(parse(message("graph", "clear", id="foo", baseDir="/", main=True)))
    assert (read.id, read.main) == ("foo", True)


@given(st.binary() | st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_no_text_breaks_the_reader(text):
    with contextlib.suppress(Malformed):
        expect(parse(text))


def test_what_goes_out_has_the_keys_that_the_schemas_allow_and_no_other():
    said = {"id": "a", "component": "c", "graph": "g", "secret": "s", "extra": 1}
    assert shaped("graph", "addnode", said) == {"id": "a", "component": "c", "graph": "g"}
    with pytest.raises(ValueError, match="graph:addnode needs component, graph"):
        shaped("graph", "addnode", {"id": "a"})
    with pytest.raises(ValueError, match="no message that a runtime sends"):
        shaped("graph", "getruntime", {})


def test_coordinates_are_whole_numbers_on_the_wire():
    said = {"id": "a", "graph": "g", "metadata": {"x": 1.6, "y": "far", "route": 3, "z": 1.5}}
    assert shaped("graph", "changenode", said)["metadata"] == {"x": 2, "route": 3, "z": 1.5}


def test_an_answer_says_what_it_answers():
    assert json.loads(encode("network", "persist", {}, "7"))["responseTo"] == "7"
    assert "responseTo" not in json.loads(encode("network", "persist", {}))


def test_all_keys_are_those_of_the_schemas(schemas):
    """Each message with all its keys fits; that is, the table has none too many."""
    sample = {
        "id": "a", "component": "c", "graph": "g", "metadata": {}, "from": "a", "to": "b",
        "src": {"node": "a", "port": "p"}, "tgt": {"node": "b", "port": "p"}, "public": "p",
        "node": "a", "port": "p", "name": "n", "nodes": ["a"], "library": "l", "main": True,
        "icon": "i", "description": "d", "message": "m", "stack": "s", "error": "e",
        "time": "2026-01-01T00:00:00Z", "uptime": 1, "started": True, "running": False,
        "debug": True, "edges": [], "data": 1, "type": "message", "url": "http://x.y/z",
        "version": "0.7", "capabilities": [], "allCapabilities": [], "namespace": "n",
        "label": "l", "repository": "r", "repositoryVersion": "v", "inPorts": [], "outPorts": [],
        "event": "data", "payload": 1, "schema": "http://x.y/z", "subgraph": False,
        "language": "l", "code": "c", "tests": "t", "buffersize": 1, "flowtrace": "f",
        "enable": True, "group": "g",
    }  # fmt: skip
    for (protocol, command), (needed, allowed) in OUTPUT.items():
        payload = {key: sample[key] for key in f"{needed} {allowed}".split()}
        if command in ("addinitial", "removeinitial"):
            payload["src"] = {"data": 1}
        if command == "runtime":
            payload["type"] = "msgflo"
        if protocol == "network" and "subgraph" in payload:
            payload["subgraph"] = ["a"]
        if command == "dump":
            payload["type"] = "flowtrace.json"
        schemas.check(encode(protocol, command, payload))
    assert schemas.checked >= len(OUTPUT) - 2
