"""Hundreds of thousands of messages, most of them wrong, at a real ``msgflo run``: it stays up,
within its memory, and correct."""

import asyncio
import contextlib
import json
import random

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from msgflo.protocol.client import Client
from msgflo.protocol.session import _COMMANDS, EXTENSIONS
from running import Run

MESSAGES = 40_000
CLIENTS = 5
MOST_MEMORY = 250 * 1024 * 1024
"""Bytes that a runtime may grow by: 200 graphs of some hundred nodes, each with its history."""

KINDS = [*_COMMANDS, *(("msgflo", command) for command in EXTENSIONS)]
NAMES = ["a", "b", "c", "x/y z", "", "core/None", "msgflo/PubSub", "ü" * 50]
GRAPHS = ["g1", "g2", "g3", "none", ""]
KEYS = [
    *("id", "component", "graph", "metadata", "from", "to", "src", "tgt", "public", "node", "port"),
    *("name", "nodes", "secret", "event", "payload", "language", "edges", "enable", "topics"),
    *("instances", "key", "keys", "all", "queue", "limit", "after", "buffersize", "type"),
]


def value(rng: random.Random, depth: int = 0):
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return rng.choice(NAMES)
    if kind == 2:
        return rng.choice([None, True, False, 0, -1, 1.5, 10**30])
    if kind < 6:
        return rng.choice(GRAPHS)
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def payload(rng: random.Random):
    """One that is nearly right, for one that is all wrong gets nowhere."""
    end = {"node": rng.choice(NAMES), "port": rng.choice(["in", "out"])}
    found = {
        "id": rng.choice(NAMES), "component": rng.choice(["core/None", "msgflo/PubSub"]),
        "graph": rng.choice(GRAPHS), "metadata": {"x": rng.randrange(9), "t": "x" * 300},
        "from": rng.choice(NAMES), "to": rng.choice(NAMES),
        "src": rng.choice([{"data": value(rng)}, {**end}]), "tgt": end,
        "public": rng.choice(NAMES), "node": rng.choice(NAMES), "port": rng.choice(NAMES),
        "name": rng.choice(NAMES), "nodes": [rng.choice(NAMES)], "event": "data",
        "payload": value(rng), "language": "none", "code": "x", "edges": [], "enable": True,
    }  # fmt: skip
    for _ in range(rng.randrange(3)):
        found[rng.choice(KEYS)] = value(rng)
    if rng.random() < 0.3:
        found.pop(rng.choice(list(found)))
    return found


def text(rng: random.Random):
    chance = rng.random()
    if chance < 0.05:
        return rng.randbytes(rng.randrange(60))
    if chance < 0.1:
        return rng.choice(["", "{", "[]", "null", "1", '{"protocol": "graph"}', "[" * 5000, "\0"])
    protocol, command = rng.choice(KINDS)
    clears = (protocol, command) == ("graph", "clear")
    said = {"id": rng.choice(GRAPHS)} if clears else payload(rng)
    message = {"protocol": protocol, "command": command, "payload": said}
    if chance < 0.2:
        message[rng.choice(list(message))] = value(rng)
    return json.dumps(message)


async def rave(url: str, seed: int, count: int) -> int:
    """Send so many messages; return how many answers and pushes came."""
    rng = random.Random(seed)
    heard = 0
    while count > 0:
        async with connect(url, max_size=None, open_timeout=120, close_timeout=120) as socket:
            done = asyncio.Event()
            listening = asyncio.create_task(listen(socket, done))
            with contextlib.suppress(ConnectionClosed):
                for number in range(min(count, rng.randrange(2000, 20_000))):
                    await socket.send(text(rng))
                    count -= 1
                    if number % 20 == 0:
                        await asyncio.sleep(0)
                if rng.random() < 0.2:
                    socket.transport.abort()
                else:
                    await socket.send(LAST)
                    async with asyncio.timeout(600):
                        await done.wait()
                    await socket.close()
            heard += await listening
    return heard


LAST = json.dumps(
    {"protocol": "network", "command": "getstatus", "payload": {"graph": "main"}, "requestId": "z"}
)


async def listen(socket, done: asyncio.Event) -> int:
    heard = 0
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            heard += 1
            if json.loads(message).get("responseTo") == "z":
                done.set()
    done.set()
    return heard


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_runtime_survives_any_messages(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    graph = "INPORT=a.IN:INTO\nOUTPORT=b.OUT:RESULT\na(core/Repeat) OUT -> IN b(core/Repeat)"
    (folder / "main.fbp").write_text(graph)
    with Run(folder, "main.fbp", "--quiet") as run:
        run.said("all running")
        before = run.memory()
        heard = await asyncio.gather(
            *(rave(run.url, seed, MESSAGES // CLIENTS) for seed in range(CLIENTS))
        )
        assert sum(heard) > MESSAGES / 2
        assert run.process.poll() is None
        grown = run.memory() - before
        assert grown < MOST_MEMORY, f"{grown / 2**20:.0f} MB more than before"
        async with Client(run.url, timeout=30.0) as client:
            runtime = await client.command("runtime", "getruntime")
            assert runtime["graph"] == "main"
            # Nobody could name the main graph: it is as it was, and works.
            source = json.loads(
                (await client.command("component", "getsource", name="main"))["code"]
            )
            assert list(source["processes"]) == ["a", "b"]
            await client.command("network", "start", graph="main")
            packet = {"port": "into", "event": "data", "payload": "still", "graph": "main"}
            await client.command("runtime", "packet", **packet)
            while (await client.until("runtime", "packet", 60))["payload"] != "still":
                pass
            async with asyncio.timeout(60):
                while not (await client.ask("status"))["complete"]:
                    await asyncio.sleep(0.1)
    assert "Traceback" not in run.log.read_text()
