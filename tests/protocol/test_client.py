import asyncio
import json

import pytest
from websockets.asyncio.server import serve

from msgflo.errors import ProtocolError
from msgflo.protocol.access import Access, Level
from msgflo.protocol.client import Client, Push
from msgflo.protocol.server import Server


@pytest.fixture
async def server(workspace):
    made = Server(workspace, Access({"s": Level.CODE}), port=0)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def client(server):
    async with Client(f"ws://127.0.0.1:{server.port}", secret="s") as made:
        yield made


async def test_commands_are_answered(client):
    runtime = await client.command("runtime", "getruntime")
    assert runtime["graph"] == "main"
    node = {"id": "a", "component": "demo/Repeat", "graph": "main"}
    assert await client.command("graph", "addnode", **node) == node
    renamed = await client.command("graph", "renamenode", from_="a", to="b", graph="main")
    assert renamed == {"from": "a", "to": "b", "graph": "main"}
    listed = await client.command("component", "list")
    assert {one["name"] for one in listed} == {"demo/Repeat", "main"}


async def test_commands_at_once_are_each_given_their_own_answer(client):
    names = [f"n{number}" for number in range(50)]
    answers = await asyncio.gather(
        *(client.command("graph", "addnode", id=n, component="c", graph="main") for n in names)
    )
    assert [answer["id"] for answer in answers] == names


async def test_a_refusal_is_raised_in_the_runtimes_words(client, server):
    with pytest.raises(ProtocolError, match="Requested graph not found"):
        await client.command("network", "start", graph="none")
    with pytest.raises(ProtocolError, match="there is nothing to undo"):
        await client.ask("undo")
    async with Client(f"ws://127.0.0.1:{server.port}") as stranger:
        with pytest.raises(ProtocolError, match="needs a secret of the level read"):
            await stranger.command("component", "list")


async def test_what_others_do_is_pushed(client, server):
    await client.command("runtime", "getruntime")
    async with Client(f"ws://127.0.0.1:{server.port}", secret="s") as other:
        await other.command("graph", "addnode", id="a", component="c", graph="main")
        # A push of the very command that is open is not taken for its answer.
        mine, _ = await asyncio.gather(
            client.command("graph", "addnode", id="mine", component="c", graph="main"),
            other.command("graph", "addnode", id="theirs", component="c", graph="main"),
        )
        assert mine["id"] == "mine"
        heard = []
        async for push in client.pushes():
            if push.command == "addnode":
                heard.append(push.payload["id"])
            if len(heard) == 2:
                break
        assert heard == ["a", "theirs"]


async def test_questions_of_ours_are_answered_by_number(client, paper):
    questions = asyncio.gather(client.ask("queues"), client.ask("history"))
    while not paper.done or paper.done[-1][0] != "ask":
        await asyncio.sleep(0.01)
    paper.answer({"queues": [1]})
    queues, history = await questions
    assert queues["queues"] == [1]
    assert history["undoable"] == 0


async def test_a_runtime_that_goes_away_is_an_error_for_all_who_wait(client, server):
    asked = asyncio.create_task(client.ask("queues"))
    await client.command("runtime", "getruntime")
    await server.close()
    with pytest.raises(ProtocolError, match=r"closed the connection|is lost"):
        await asked
    with pytest.raises(ProtocolError):
        await client.command("runtime", "getruntime")
    with pytest.raises(ProtocolError):
        await client.until("network", "never")
    assert not client.connected


async def test_nobody_there_is_an_error():
    with pytest.raises(
        ProtocolError, match=r"cannot connect to the runtime at ws://127\.0\.0\.1:1"
    ):
        async with Client("ws://127.0.0.1:1"):
            pass
    with pytest.raises(ProtocolError):
        async with Client("nonsense"):
            pass


async def test_it_speaks_to_runtimes_that_know_nothing_of_request_ids():
    async def answer(socket):
        async for text in socket:
            message = json.loads(text)
            if message["command"] == "getruntime":
                await socket.send("no JSON")
                await socket.send('{"protocol": "network", "command": "icon", "payload": {}}')
                await socket.send(
                    '{"protocol": "runtime", "command": "runtime", "payload": {"v": 1}}'
                )

    async with serve(answer, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        async with Client(f"ws://127.0.0.1:{port}", timeout=0.5) as client:
            assert await client.command("runtime", "getruntime") == {"v": 1}
            assert await anext(client.pushes()) == Push("network", "icon", {})
            with pytest.raises(ProtocolError, match=r"has not answered network:start in 0\.5 s"):
                await client.command("network", "start", graph="x")
