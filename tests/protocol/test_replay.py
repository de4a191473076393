"""A trace as a runtime; beside the tool of npm flowtrace, which does the same."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

import npm
from fbpschema import Schemas
from msgflo.protocol.replay import Replay
from msgflo.protocol.server import Listener
from msgflo.trace.flowtrace import Event, Flowtrace, dump_flowtrace

HERE = Path(__file__).parent
SRC, TGT = {"node": "read", "port": "out"}, {"node": "show", "port": "in"}
MAIN = {
    "properties": {"name": "main"},
    "inports": {"file": {"process": "read", "port": "path"}},
    "outports": {"lines": {"process": "show", "port": "out"}},
    "processes": {
        "read": {"component": "files/Read"},
        "show": {"component": "sub/graph"},
        "alone": {"component": "Alone"},
    },
    "connections": [
        {"src": {"process": "read", "port": "out"}, "tgt": {"process": "show", "port": "in"}},
        {"data": "a.txt", "tgt": {"process": "read", "port": "path"}},
    ],
}
SUB = {
    "inports": {},
    "outports": {},
    "processes": {"x": {"component": "files/Read"}},
    "connections": [{"data": 1, "tgt": {"process": "x", "port": "speed"}}],
}


def at(offset: float, command: str, **payload: Any) -> Event:
    return Event(command, payload, "main", 1.5e9 + offset)


PACKETS = [
    at(0.00, "connect", src=SRC, tgt=TGT),
    at(0.01, "begingroup", src=SRC, tgt=TGT, group="a"),
    at(0.02, "data", src=SRC, tgt=TGT, data={"n": 1}),
    at(0.03, "data", src=None, tgt=TGT, data="outside"),
    at(0.04, "endgroup", src=SRC, tgt=TGT, group="a"),
    at(0.05, "disconnect", src=SRC, tgt=TGT),
]
TRACE = Flowtrace(PACKETS, {"main": MAIN, "sub/graph": SUB}, "main", {"label": "try"})


class Client:
    """A client that says what it likes, and reads what comes, which fits the schemas."""

    checks: ClassVar[list[Schemas]] = []  # of a test that looks at ours

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, protocol: str, command: str, **payload: Any) -> None:
        said = {"protocol": protocol, "command": command, "payload": payload}
        await self.connection.send(json.dumps(said))

    async def next(self) -> tuple[str, Any]:
        text = await asyncio.wait_for(self.connection.recv(decode=True), 20)
        for schemas in self.checks:
            schemas.check(text)
        message = json.loads(text)
        return f"{message['protocol']}:{message['command']}", message["payload"]

    async def ask(self, protocol: str, command: str, **payload: Any) -> tuple[str, Any]:
        await self.say(protocol, command, **payload)
        return await self.next()

    async def until(self, last: str) -> list[tuple[str, Any]]:
        found = [await self.next()]
        while found[-1][0] != last:
            found.append(await self.next())
        return found


@pytest.fixture(autouse=True)
def schemas_of_clients(request: pytest.FixtureRequest) -> Iterator[None]:
    if "reference" not in request.fixturenames:  # theirs do not
        Client.checks.append(request.getfixturevalue("schemas"))
    yield
    Client.checks.clear()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    async with connect(url, subprotocols=[Subprotocol("noflo")]) as connection:
        yield Client(connection)


@asynccontextmanager
async def replaying(trace: Flowtrace = TRACE, **more: Any) -> AsyncIterator[tuple[Replay, str]]:
    replay = Replay(trace, **{"speed": 0, "now": lambda: 1.6e9, **more})
    listener = Listener(lambda: replay.identity, replay.converse, port=0)
    await listener.start()
    try:
        yield replay, f"ws://127.0.0.1:{listener.port}"
    finally:
        await listener.close()


async def test_a_ui_that_connects_sees_a_runtime_with_the_graph():
    async with replaying() as (_, url), connected(url) as client:
        kind, runtime = await client.ask("runtime", "getruntime")
        assert kind == "runtime:runtime"
        assert (runtime["type"], runtime["graph"]) == ("flowtrace-replay", "main")
        assert runtime["label"] == "Replay of try"
        assert "protocol:graph" not in runtime["capabilities"]
        _, source = await client.ask("component", "getsource", name="main")
        assert json.loads(source["code"]) == MAIN
        _, source = await client.ask("component", "getsource", name="sub/graph")
        assert (source["library"], source["name"]) == ("sub", "graph")
        assert (await client.ask("network", "getstatus", graph="main"))[1] == {
            "graph": "main",
            "started": False,
            "running": False,
        }
        edges = [{"src": SRC, "tgt": TGT}]
        said = await client.ask("network", "edges", graph="main", edges=edges)
        assert said == ("network:edges", {"graph": "main", "edges": edges})
        said = await client.ask("network", "debug", graph="main", enable=True)
        assert said == ("network:debug", {"graph": "main", "enable": True})


async def test_who_starts_it_sees_all_packets_in_their_order_and_then_its_end():
    async with replaying() as (_, url), connected(url) as client:
        await client.say("network", "start", graph="main")
        first, *packets, last = await client.until("network:stopped")
        assert first[0] == "network:started"
        assert (first[1]["started"], first[1]["running"]) == (True, True)
        assert (last[1]["started"], last[1]["running"]) == (True, False)
        assert [kind for kind, _ in packets] == [f"network:{it.command}" for it in PACKETS]
        assert packets[2][1] == {
            "id": "read() OUT -> IN show()",
            "graph": "main",
            "src": SRC,
            "tgt": TGT,
            "data": {"n": 1},
        }
        assert packets[3][1]["id"] == "DATA -> IN show()"
        assert "src" not in packets[3][1]
        await client.say("network", "start", graph="main")
        assert len(await client.until("network:stopped")) == len(PACKETS) + 2, "once more"


async def test_each_client_has_a_replay_of_its_own():
    async with replaying() as (_, url), connected(url) as one, connected(url) as other:
        await one.say("network", "start", graph="main")
        await one.until("network:stopped")
        assert (await other.ask("network", "getstatus"))[1]["started"] is False


async def test_a_replay_keeps_time_and_can_be_stopped():
    events = [PACKETS[2], at(3600, "data", src=SRC, tgt=TGT, data=2)]
    trace = Flowtrace(events, {"main": MAIN})
    async with replaying(trace, speed=1) as (_, url), connected(url) as client:
        await client.say("network", "start", graph="main")
        await client.until("network:data")
        assert (await client.ask("network", "getstatus"))[1]["running"] is True
        kind, said = await client.ask("network", "stop", graph="main")
        assert (kind, said["started"], said["running"]) == ("network:stopped", False, False)
        assert (await client.ask("network", "getstatus"))[1]["running"] is False


async def test_step_by_step_each_event_waits_until_it_is_asked_for():
    shown: list[Event] = []
    async with replaying(step=True, shown=shown.append) as (replay, url), connected(url) as client:
        await client.say("network", "start", graph="main")
        assert (await client.next())[0] == "network:started"
        for event in PACKETS:
            async with asyncio.timeout(20):
                while not replay.waiting:
                    await asyncio.sleep(0.001)
            replay.advance()
            assert (await client.next())[0] == f"network:{event.command}"
        assert (await client.next())[0] == "network:stopped"
        assert shown == PACKETS


async def test_what_the_protocol_has_no_message_for_is_counted_and_the_rest_is_told():
    events = [
        at(0, "started"),
        at(0, "data", src=SRC, tgt=None, data=1),
        at(0, "icon", node="read", icon="cog"),
        at(0, "output", message="look", type="previewurl", previewurl="http://a/b.png"),
        at(0, "processerror", id="read", error="broken"),
        at(0, "processerror", stack="theirs, which says nothing of what the protocol wants"),
        Event("data", {"error": "circular"}, error="circular"),
        PACKETS[2],
    ]
    async with replaying(Flowtrace(events, {"main": MAIN})) as (replay, url):
        assert replay.untold == 2
        async with connected(url) as client:
            await client.say("network", "start", graph="main")
            said = dict((await client.until("network:stopped"))[1:-1])
    assert said.keys() == {
        "network:icon",
        "network:output",
        "network:processerror",
        "network:data",
    }
    assert said["network:icon"] == {"id": "read", "icon": "cog", "graph": "main"}
    assert said["network:output"]["url"] == "http://a/b.png"


@pytest.mark.parametrize(
    ("protocol", "command", "answer"),
    [
        ("component", "getsource", "component:error"),
        ("graph", "addnode", "graph:error"),
        ("runtime", "packet", "runtime:error"),
        ("network", "persist", "network:error"),
        ("trace", "start", "trace:error"),
        ("nonsense", "x", "network:error"),
    ],
)
async def test_nothing_of_the_past_can_be_changed_and_every_command_is_answered(
    protocol, command, answer
):
    async with replaying() as (_, url), connected(url) as client:
        kind, said = await client.ask(protocol, command, name="gone")
        assert kind == answer
        assert said["message"]
        await client.connection.send("nonsense")
        assert (await client.next())[0] == "network:error"


@pytest.mark.parametrize(
    "graph",
    [{}, {"processes": []}, {"processes": {"a": None, "b": {"component": 1}}, "connections": [1]}],
)
async def test_graphs_of_any_shape_do_no_harm(graph):
    assert Replay(Flowtrace([], {"g": graph}), now=lambda: 0).kinds() == []


# Beside the other tool.


async def answers_of(url: str) -> dict[str, Any]:
    """What a runtime says that replays, as far as it must be the same for all such runtimes."""
    async with connected(url) as client:
        _, runtime = await client.ask("runtime", "getruntime")
        await client.say("component", "list")
        *components, ready = await client.until("component:componentsready")
        sources = [
            (await client.ask("component", "getsource", name=name))[1]
            for name in ("main", "sub/graph")
        ]
        await client.say("network", "start", graph="main")
        events = (await client.until("network:stopped"))[1:-1]

    def ports(of: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return sorted((it["id"], it["type"]) for it in of)

    return {
        "graph": runtime["graph"],
        "type": runtime["type"],
        "components": sorted(
            (it["name"], it["subgraph"], it["icon"], ports(it["inPorts"]), ports(it["outPorts"]))
            for _, it in components
        ),
        "count": ready[1],
        "sources": [
            (it["name"], it.get("library") or "", it["language"], json.loads(it["code"]))
            for it in sources
        ],
        "events": [
            (kind, {key: value for key, value in said.items() if value is not None})
            for kind, said in events
        ],
    }


@pytest.fixture
def reference(tmp_path: Path):
    tools = npm.installed(HERE.parent / "trace" / "npm", "npm-flowtrace") / "flowtrace"
    file = tmp_path / "trace.json"
    file.write_text(dump_flowtrace(TRACE))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [npm.node(), tools / "bin" / "flowtrace-replay", file]
    options = ["--port", str(port), "--host", "127.0.0.1", "--no-open"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("Trace live URL:")
        yield f"ws://127.0.0.1:{port}"
        process.kill()


async def test_clients_are_told_the_same_as_by_flowtrace_replay(reference):
    theirs = await answers_of(reference)
    async with replaying() as (_, url):
        assert await answers_of(url) == theirs
