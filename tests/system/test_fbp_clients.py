"""What noflo-ui does, done again by a client as strict as its own: one command at a time, an answer
within a second, every message held to the schemas; against a real ``msgflo run``."""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from fbpschema import Schemas
from running import COMPONENTS, Run

PATIENCE = 1.0 if not os.environ.get("MSGFLO_SLOW_MACHINE") else 10.0
"""Seconds that fbp-client waits for an answer."""

WAIT = 60.0

ANSWERS = {
    "getruntime": "runtime",
    "list": "componentsready",
    "getsource": "source",
    "source": "component",
    "start": "started",
    "stop": "stopped",
    "getstatus": "status",
    "packet": "packetsent",
}


@pytest.fixture(scope="module")
def schemas():
    made = Schemas()
    yield made
    made.close()


class Strict:
    """fbp-client as noflo-ui uses it."""

    def __init__(self, socket: ClientConnection, schemas: Schemas) -> None:
        self._socket = socket
        self._schemas = schemas
        self.seen: list[dict[str, Any]] = []
        self.slowest = 0.0

    async def hear(self, timeout: float) -> dict[str, Any]:
        async with asyncio.timeout(timeout):
            text = await self._socket.recv()
        assert isinstance(text, str)
        self._schemas.check(text)
        message = json.loads(text)
        assert message["protocol"] != "msgflo"
        assert "secret" not in text
        self.seen.append(message)
        return message

    async def do(self, protocol: str, command: str, /, **payload: Any) -> Any:
        """Send a command and return the payload of its answer, which must come at once."""
        payload["secret"] = ""
        message = {"protocol": protocol, "command": command, "payload": payload}
        began = time.monotonic()
        await self._socket.send(json.dumps(message))
        wanted = ANSWERS.get(command, command)
        if (protocol, command) in {("trace", "start"), ("trace", "stop")}:
            wanted = command
        while True:
            found = await self.hear(PATIENCE)
            if found["protocol"] == protocol and found["command"] in (wanted, "error"):
                self.slowest = max(self.slowest, time.monotonic() - began)
                assert found["command"] != "error", (message, found)
                return found["payload"]

    async def hears_no(self, command: str, seconds: float) -> None:
        """Nothing of this kind comes for so long."""
        end = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while True:
                assert (await self.hear(max(0.01, end - time.monotonic())))["command"] != command

    async def until(self, command: str, matches: Callable[[Any], bool] = lambda _: True) -> Any:
        """Wait for a push."""
        end = time.monotonic() + WAIT
        while True:
            found = await self.hear(end - time.monotonic())
            if found["command"] == command and matches(found["payload"]):
                return found["payload"]


@pytest.fixture
async def client(run: Run, schemas: Schemas) -> AsyncIterator[Strict]:
    async with connect(run.url, subprotocols=["noflo"], max_size=None) as socket:
        assert socket.subprotocol == "noflo"
        yield Strict(socket, schemas)


GRAPH = """
# @name main
INPORT=repeat.IN:INTO
'first' -> IN repeat(core/Repeat)
repeat OUT -> IN drop(core/Drop)
"""

EDGE = {"src": {"node": "repeat", "port": "out"}, "tgt": {"node": "drop", "port": "in"}}


@pytest.fixture
def run(tmp_path: Path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "main.fbp").write_text(GRAPH)
    with Run(folder, "main.fbp") as made:
        yield made


async def connect_as_the_tool_does(client: Strict) -> dict[str, Any]:
    runtime = await client.do("runtime", "getruntime")
    source = await client.do("component", "getsource", name=runtime["graph"])
    graph = json.loads(source["code"])
    for _ in range(2):
        before = len(client.seen)
        count = await client.do("component", "list")
        listed = [m for m in client.seen[before:] if m["command"] == "component"]
        assert len(listed) >= count
    await client.do("network", "getstatus", graph=runtime["graph"])
    for message in listed:
        name = message["payload"]["name"]
        if name.partition("/")[0] == runtime["namespace"]:
            await client.do("component", "getsource", name=name)
    for node in graph["processes"]:
        metadata = {"x": 36.0, "y": 72, "width": 72, "height": 72, "label": node}
        answer = await client.do(
            "graph", "changenode", id=node, metadata=metadata, graph=runtime["graph"]
        )
        assert answer["metadata"]["x"] == 36
    return {**runtime, **graph}


@pytest.mark.timeout(300)
async def test_a_day_in_the_life_of_a_drawing_tool(client: Strict, run: Run):
    assert run.listening_after < WAIT
    main = await connect_as_the_tool_does(client)
    assert main["id"] in run.said(r"open in noflo-ui: (\S+)")[1]
    graph = main["graph"]
    assert list(main["processes"]) == ["repeat", "drop"]

    # Select an edge, and see what passes.
    run.said(r"all running")
    await client.do("network", "edges", graph=graph, edges=[EDGE])
    packet = {"port": "into", "event": "data", "payload": {"n": 0}, "graph": graph}
    assert await client.do("runtime", "packet", **packet) == packet
    data = await client.until("data")
    assert data == {"id": "repeat() OUT -> IN drop()", **EDGE, "graph": graph, "data": {"n": 0}}

    # Add a node with a slash in its name, move it about, connect it.
    node = {"id": "core/Repeat_o01jn", "component": "core/Repeat", "graph": graph}
    await client.do("graph", "addnode", **node, metadata={"label": "Repeat", "x": 1, "y": 2})
    for x in range(19):
        await client.do(
            "graph", "changenode", id=node["id"], metadata={"x": x, "y": 2}, graph=graph
        )
    ends = {"src": {"node": "repeat", "port": "out"}, "tgt": {"node": node["id"], "port": "in"}}
    await client.do("graph", "addedge", **ends, metadata={"route": 0}, graph=graph)
    await client.until("icon", lambda said: said["id"] == node["id"])
    await client.do("network", "edges", graph=graph, edges=[ends])
    await client.do("runtime", "packet", **packet)
    assert (await client.until("data", lambda said: said["tgt"] == ends["tgt"]))["data"] == {"n": 0}

    # Type an initial packet: added, taken back and added again at each key.
    tgt = {"node": node["id"], "port": "in"}
    for text in ("h", "he", "hey", "hey"):
        await client.do(
            "graph", "addinitial", src={"data": text}, tgt=tgt, metadata={}, graph=graph
        )
        await client.do("graph", "removeinitial", src={"data": text}, tgt=tgt, graph=graph)

    # Export a port; each message comes as a packet.
    export = {"public": "out", "node": node["id"], "port": "out", "graph": graph}
    await client.do("graph", "addoutport", **export, metadata={"x": 1, "y": 1})
    await asyncio.sleep(0.5)
    await client.do("runtime", "packet", **packet)
    said = await client.until("packet")
    assert said == {"port": "out", "event": "data", "payload": {"n": 0}, "graph": graph}
    await client.do("graph", "removeoutport", public="out", graph=graph)

    # Stop: what is sent waits. Start: it goes on.
    stopped = await client.do("network", "stop", graph=graph)
    assert (stopped["started"], stopped["running"]) == (False, False)
    await asyncio.sleep(1.0)
    await client.do("runtime", "packet", **{**packet, "payload": "late"})
    await client.hears_no("data", 1.0)
    assert not (await client.do("network", "getstatus", graph=graph))["started"]
    started = await client.do("network", "start", graph=graph)
    assert started["started"]
    assert (await client.until("data"))["data"] == "late"

    # No edges, no packets.
    await client.do("network", "edges", graph=graph, edges=[])
    await client.do("runtime", "packet", **packet)
    await client.hears_no("data", 1.0)

    # Open a component and write into it, half-finished; what runs goes on.
    source = {"name": "Repeat", "library": "core", "language": "python", "tests": ""}
    code = COMPONENTS["Repeat.py"]
    for part in (code[: len(code) // 2], code):
        said = await client.do("component", "source", **source, code=part)
        assert said["name"] == "core/Repeat"
        assert [port["id"] for port in said["outPorts"]] == ["out"]
    new = {"name": "New", "library": "core", "language": "python", "tests": ""}
    await client.do("component", "source", **new, code=code.replace("Repeat", "New"))
    assert (run.folder / "components" / "New.py").exists()

    # A new graph does not touch the one that runs, and is listed.
    made = {"id": "core/second", "name": "core/second", "main": True, "library": "core"}
    assert await client.do("graph", "clear", **made) == made
    before = len(client.seen)
    await client.do("component", "list")
    kinds = {m["payload"]["name"]: m["payload"] for m in client.seen[before:-1]}
    assert kinds["core/second"]["subgraph"]
    assert await client.do("component", "getsource", name="core/second")
    await client.do("graph", "addnode", id="a", component="core/New", graph="core/second")

    # Remove an edge and a node: a change comes before each.
    await client.do("graph", "changeedge", **ends, metadata={"route": 1}, graph=graph)
    await client.do("graph", "removeedge", **ends, graph=graph)
    await client.do("graph", "changenode", id=node["id"], metadata={"x": 1}, graph=graph)
    await client.do("graph", "removenode", id=node["id"], graph=graph)
    source = await client.do("component", "getsource", name=graph)
    assert list(json.loads(source["code"])["processes"]) == ["repeat", "drop"]

    # What cannot run is told, and stops nothing.
    await client.do("graph", "addnode", id="wrong", component="core/None", graph=graph)
    trouble = await client.until("processerror")
    assert trouble["id"] == "wrong"
    assert "no component 'core/None'" in trouble["error"]
    await client.do("graph", "removenode", id="wrong", graph=graph)


@pytest.mark.timeout(300)
async def test_a_reload_finds_everything_and_no_subscription(client, run, schemas):
    await connect_as_the_tool_does(client)
    await client.do("network", "edges", graph="main", edges=[EDGE])
    async with connect(run.url, subprotocols=["noflo"]) as socket:
        again = Strict(socket, schemas)
        main = await connect_as_the_tool_does(again)
        assert main["processes"]["drop"]["metadata"]["x"] == 36
        packet = {"port": "into", "event": "data", "payload": 1, "graph": "main"}
        run.said(r"all running")
        await client.do("runtime", "packet", **packet)
        await client.until("data")
        await again.hears_no("data", 1.0)


@pytest.mark.timeout(300)
async def test_two_windows_agree(client, run, schemas):
    async with connect(run.url, subprotocols=["noflo"]) as socket:
        other = Strict(socket, schemas)
        for one in (client, other):
            await one.do("runtime", "getruntime")

        async def draw(who: Strict, letter: str) -> None:
            for number in range(20):
                name = f"{letter}{number}"
                await who.do("graph", "addnode", id=name, component="msgflo/PubSub", graph="main")
                if number % 3 == 0:
                    to = f"{letter}-{number}"
                    await who.do("graph", "renamenode", **{"from": name, "to": to}, graph="main")
                elif number % 3 == 1:
                    await who.do("graph", "removenode", id=name, graph="main")

        await asyncio.gather(draw(client, "c"), draw(other, "o"))
        await client.do("graph", "addnode", id="end", component="msgflo/PubSub", graph="main")
        await other.until("addnode", lambda said: said["id"] == "end")
        source = await client.do("component", "getsource", name="main")
        there = set(json.loads(source["code"])["processes"])
        for one in (client, other):
            nodes = {"repeat", "drop"}
            for message in one.seen:
                payload = message["payload"]
                if message["command"] == "addnode":
                    nodes.add(payload["id"])
                elif message["command"] == "removenode":
                    nodes.discard(payload["id"])
                elif message["command"] == "renamenode":
                    nodes.remove(payload["from"])
                    nodes.add(payload["to"])
            assert nodes == there


@pytest.mark.timeout(300)
async def test_what_somebody_writes_into_the_file_reaches_the_clients(client, run):
    await client.do("runtime", "getruntime")
    run.said("all running")
    (run.folder / "main.fbp").write_text(GRAPH + "\nrepeat OUT -> IN more(core/Drop)\n")
    added = await client.until("addnode")
    assert (added["id"], added["component"]) == ("more", "core/Drop")
    await client.until("icon", lambda said: said["id"] == "more")
    await client.do("graph", "removenode", id="drop", graph="main")
    await client.do("network", "persist")
    written = (run.folder / "main.fbp").read_text()
    assert "more" in written
    assert "drop" not in written
    kept = list((run.folder / ".msgflo" / "history").glob("main.*.fbp"))
    assert any("drop" in file.read_text() for file in kept)


@pytest.mark.timeout(300)
async def test_who_was_stopped_and_killed_comes_back_stopped(client, run, schemas):
    run.said("all running")
    await client.do("network", "stop", graph="main")
    await asyncio.sleep(1.0)
    run.kill()
    with Run(run.folder, "main.fbp") as again:
        again.said("all running")
        async with connect(again.url, subprotocols=["noflo"]) as socket:
            other = Strict(socket, schemas)
            assert not (await other.do("network", "getstatus", graph="main"))["started"]
            packet = {"port": "into", "event": "data", "payload": 1, "graph": "main"}
            await other.do("network", "edges", graph="main", edges=[EDGE])
            await other.do("runtime", "packet", **packet)
            await other.hears_no("data", 2.0)
            await other.do("network", "start", graph="main")
            await other.until("data", lambda said: said["data"] == 1)
        again.process.send_signal(signal.SIGINT)
        again.process.wait(WAIT)


@pytest.mark.timeout(300)
async def test_two_hundred_nodes_and_three_hundred_edges(tmp_path, schemas):
    """None of them is started, as it is the graph that is large here, and not the machine."""
    lines = ["# @name large"]
    lines += [f"n{n}(msgflo/PubSub) OUT -> IN n{n + 1}(msgflo/PubSub)" for n in range(199)]
    lines += [f"n{n} OUT -> IN n{(n * 7 + 2) % 200}" for n in range(101)]
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "large.fbp").write_text("\n".join(lines) + "\n")
    with Run(folder, "large.fbp") as run:
        async with connect(run.url, subprotocols=["noflo"], max_size=None) as socket:
            client = Strict(socket, schemas)
            began = time.monotonic()
            await client.do("runtime", "getruntime")
            source = await client.do("component", "getsource", name="large")
            took = time.monotonic() - began
            main = await connect_as_the_tool_does(client)
            whole = time.monotonic() - began - took
    assert len(main["processes"]) == 200
    assert len(main["connections"]) == 300
    assert len(json.loads(source["code"])["processes"]) == 200
    logging.getLogger(__name__).warning(
        "getsource %.0f ms, connecting %.2f s, slowest answer %.0f ms",
        took * 1000,
        whole,
        client.slowest * 1000,
    )


@pytest.mark.timeout(300)
async def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path):
    environment = {"MSGFLO_SECRET": "h-u-s-h", "MSGFLO_SECRET_READ": "r-e-a-d"}
    with Run(tmp_path / "project", environment=environment) as run:
        async with connect(run.url) as socket:

            async def ask(secret: str, command: str, **payload: Any) -> Any:
                message = {"protocol": "network", "command": command, "payload": payload}
                await socket.send(json.dumps({**message, "secret": secret}))
                while True:
                    text = await socket.recv()
                    assert secret not in str(text) or not secret
                    found = json.loads(text)
                    if found["protocol"] == "network":
                        return found["command"]

            assert await ask("", "getstatus", graph="main") == "error"
            assert await ask("wrong", "getstatus", graph="main") == "error"
            assert await ask("r-e-a-d", "getstatus", graph="main") == "status"
            assert await ask("r-e-a-d", "stop", graph="main") == "error"
            assert await ask("h-u-s-h", "stop", graph="main") == "stopped"
        arguments = Path(f"/proc/{run.process.pid}/cmdline").read_text()
        assert "h-u-s-h" not in arguments
        # In the address for the tool alone, which is printed to be opened.
        shown = [line for line in run.log.read_text().splitlines() if "h-u-s-h" in line]
        assert all(re.search("open in noflo-ui", line) for line in shown)
        assert len(shown) == 1
