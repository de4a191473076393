"""A participant that is a graph itself is entered: as noflo-runtime-msgflo is one."""

import asyncio
import json
from contextlib import asynccontextmanager

from msgflo import transport
from msgflo.flow.discovery import Announcement, Definition
from msgflo.protocol.client import Client
from msgflo.transport.contract import MESSAGE_ID, Inlet

WAIT = 60.0


@asynccontextmanager
async def subgraph(url: str, role: str, **entrance: str):
    """Answers trace commands by its two queues."""
    client = transport.client(url)
    await client.connect()
    said = Announcement(Definition(f"{role}-1", role, "noflo/Graph"), runtime="noflo", **entrance)
    inlet = Inlet(said.inqueue, 1)
    got: list[dict] = []

    def deliver(delivery):
        message = json.loads(delivery.body)
        got.append(message)
        client.settle(delivery)
        if message["command"] == "dump":
            message["payload"]["flowtrace"] = "{}"
        body = json.dumps(message).encode()
        client.send(said.outqueue, body, {MESSAGE_ID: f"answer-{len(got)}"}, lambda _: None)

    await client.declare([inlet], [said.outqueue])
    await client.consume(inlet, 10, deliver)
    await client.announce(said.encode())
    try:
        yield got
    finally:
        await client.close()


async def test_what_is_said_to_it_is_passed_on_and_its_answers_come_back(steering):
    async with steering("a(Repeat)\nsub(noflo/Graph)") as it:
        queues = {"inqueue": ".fbp.sub-1.receive", "outqueue": ".fbp.sub-1.send"}
        async with (
            subgraph(it.runtime.url, "sub", **queues) as got,
            Client(it.service.address) as other,
        ):
            await it.until(
                lambda s: any(n["node"] == "sub" and n["state"] == "live" for n in s["nodes"])
            )
            await other.command("runtime", "getruntime")

            async def ask(command: str, **payload):
                await it.client._send("trace", command, payload)
                return await it.client.until("trace", command, WAIT)

            # By its node, and by its component as no other node has it.
            assert await ask("start", graph="sub", buffersize=9) == {
                "graph": "sub",
                "buffersize": 9,
            }
            answer = await ask("dump", graph="noflo/Graph", type="flowtrace.json")
            assert answer["flowtrace"] == "{}"
            assert [message["command"] for message in got] == ["start", "dump"]
            assert "secret" not in json.dumps(got)
            # The main graph is still ours.
            assert await it.client.command("trace", "start", graph="main")
            assert len(got) == 2
            # Who has not asked is told nothing of it.
            await other.command("network", "getstatus", graph="main")
            assert not [push for push in other._pushes if push.protocol == "trace"]
            await it.client.close()
            async with asyncio.timeout(WAIT):
                while it.service.desk._entrances._ways:
                    await asyncio.sleep(0.02)
