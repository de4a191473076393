"""The endpoint itself, with real connections: what it lets in, and whom it lets suffer."""

import asyncio
import contextlib
import json
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from msgflo.errors import ConfigurationError
from msgflo.flow.graph import Endpoint
from msgflo.protocol import server as module
from msgflo.protocol.access import Access, Level
from msgflo.protocol.server import Server, live_url
from msgflo.protocol.workspace import Packet, Workspace

WAIT = 30.0

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@asynccontextmanager
async def serving(workspace: Workspace, **options: object) -> AsyncIterator[Server]:
    secrets = options.pop("secrets", {})
    made = Server(workspace, Access(secrets), **{"port": 0, **options})
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}"


async def say(socket, protocol: str, command: str, /, **payload: object) -> None:
    await socket.send(json.dumps({"protocol": protocol, "command": command, "payload": payload}))


async def hear(socket) -> dict:
    async with asyncio.timeout(WAIT):
        return json.loads(await socket.recv())


async def until(socket, command: str) -> dict:
    while (message := await hear(socket))["command"] != command:
        pass
    return message


async def works(server: Server) -> None:
    """A client that comes now is answered."""
    async with connect(url(server)) as client:
        await say(client, "network", "getstatus", graph="main")
        assert (await hear(client))["command"] == "status"


async def test_it_speaks_with_and_without_the_subprotocol(workspace):
    async with serving(workspace) as server:
        for offered, accepted in ((["noflo"], "noflo"), (["x", "noflo"], "noflo"), (None, None)):
            async with connect(url(server), subprotocols=offered) as client:
                assert client.subprotocol == accepted
                await say(client, "runtime", "getruntime")
                assert (await hear(client))["command"] == "runtime"
                await say(client, "runtime", "getruntime")
                await client.send(b'{"protocol": "network", "command": "persist"}')
                assert await until(client, "persist")


async def test_http_on_the_same_port_tells_where_to_go(workspace):
    async with serving(workspace) as server:
        address = f"http://127.0.0.1:{server.port}/"
        with await asyncio.to_thread(urllib.request.urlopen, address, timeout=WAIT) as answer:
            assert answer.status == 200
            assert answer.headers["content-type"].startswith("text/html")
            page = answer.read().decode()
    assert "flowhub_url" in page
    assert "id%3Df00" in page


def test_the_address_for_the_tool_is_encoded_once_and_has_id_and_secret():
    assert live_url("127.0.0.1", 3569, "f00", "s&c", "http://ide/") == (
        "http://ide#runtime/endpoint?protocol%3Dwebsocket%26address%3Dws%3A%2F%2F127.0.0.1%3A3569"
        "%26id%3Df00%26secret%3Ds%26c"
    )
    assert "ws%3A%2F%2F%5B%3A%3A1%5D%3A1%26" in live_url("::1", 1, "x")
    assert "localhost" in live_url("0.0.0.0", 1, "x")


async def test_a_port_that_is_taken_is_said_or_the_next_one_used(workspace):
    async with serving(workspace) as first:
        with pytest.raises(ConfigurationError, match=f"port {first.port}: .*choose another"):
            async with serving(workspace, port=first.port):
                pass
        async with serving(workspace, port=first.port, others=50) as second:
            assert second.port > first.port
            await works(second)


def test_it_listens_to_others_only_with_a_secret(workspace):
    with pytest.raises(ConfigurationError, match="set a secret"):
        Server(workspace, Access(), host="0.0.0.0")
    Server(workspace, Access({"s": Level.READ}), host="0.0.0.0")


async def test_web_pages_from_elsewhere_are_refused(workspace):
    async with serving(workspace, origins=["https://app.flowhub.io"]) as server:
        for origin in ("https://evil.example", "null"):
            with pytest.raises(InvalidStatus, match="403"):
                async with connect(url(server), origin=origin):
                    pass
        # A name of the attacker's that leads to this machine.
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(UPGRADE.replace(b"127.0.0.1", b"evil.example"))
        assert b"403" in await reader.readline()
        writer.close()
        for origin in ("http://localhost:8080", "https://app.flowhub.io"):
            async with connect(url(server), origin=origin):
                pass


async def test_a_huge_message_ends_its_own_connection_alone(workspace):
    async with serving(workspace) as server, connect(url(server)) as other:
        async with connect(url(server), max_size=None) as client:
            text = '{"protocol": "graph", "command": "' + "x" * module.LARGEST_MESSAGE + '"}'
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.gather(client.send(text), hear(client))
            assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
        await say(other, "network", "getstatus", graph="main")
        assert (await hear(other))["command"] == "status"


async def test_so_many_clients_and_no_more(workspace, monkeypatch):
    monkeypatch.setattr(module, "MOST_CLIENTS", 20)
    async with serving(workspace) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(connect(url(server)))
        for _ in range(3):
            with pytest.raises(InvalidStatus, match="403"):
                async with connect(url(server)):
                    pass
        assert server.clients == 20
        await stack.aclose()
        async with asyncio.timeout(WAIT):
            while server.clients:
                await asyncio.sleep(0.01)
        await works(server)
        assert len(workspace.audience) <= 1


async def test_a_client_that_does_not_read_misses_pushes_and_harms_nobody(workspace):
    """Its pushes stop waiting at some size; another client gets all its answers meanwhile."""
    workspace.edit(workspace.main, lambda graph: graph.add_node("a", "demo/Repeat"))
    async with serving(workspace) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(UPGRADE)
        assert b"101" in await reader.readline()
        writer.write(frame('{"protocol": "runtime", "command": "getruntime"}'))
        async with connect(url(server)) as other:
            await say(other, "runtime", "getruntime")
            assert await until(other, "runtime")
            async with asyncio.timeout(WAIT):
                while len(workspace.audience) < 2 or not workspace.audience[0].level:
                    await asyncio.sleep(0.01)
            for number in range(400):
                value = {"n": number, "text": "x" * 100_000}
                await say(other, "graph", "changenode", id="a", metadata=value, graph="main")
                assert (await until(other, "changenode"))["payload"]["metadata"]["n"] == number
            slow = next(one for one in server._clients if one._bytes > 100_000)
            assert slow._bytes <= module.PUSHES_WAITING + 200_000
        writer.close()
        await works(server)


async def test_a_client_that_asks_and_does_not_read_is_not_listened_to_and_then_cut_off(
    workspace, monkeypatch
):
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    metadata = {"text": "x" * 1_000_000}
    workspace.edit(workspace.main, lambda graph: graph.add_node("a", "c", metadata))
    async with serving(workspace) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(UPGRADE)
        assert b"101" in await reader.readline()
        ask = frame('{"protocol":"component","command":"getsource","payload":{"name":"main"}}')
        writer.write(ask * 500)
        worst = 0
        async with asyncio.timeout(WAIT):
            while not server.clients:
                await asyncio.sleep(0.01)
            while server.clients:
                worst = max(worst, *(one._bytes for one in server._clients))
                await asyncio.sleep(0.01)
        assert 0 < worst <= module.ANSWERS_WAITING + 2_000_000
        writer.close()
        await works(server)


def frame(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data


async def test_who_says_very_much_leaves_turns_to_others(workspace):
    """It is heard at a limited rate; who comes beside it is answered at once."""
    text = b'{"protocol":"network","command":"getstatus","payload":{"graph":"main"}}'
    flood = frame(text.decode()) * 100
    stop = threading.Event()
    answered = [0]

    def shout(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as loud:
            loud.sendall(UPGRADE)
            loud.settimeout(0.05)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    loud.sendall(flood)  # torn frames do not matter: it is cut off then
                with contextlib.suppress(TimeoutError):
                    answered[0] += loud.recv(1 << 20).count(b"getstatus") + 1

    async with serving(workspace) as server:
        shouting = asyncio.create_task(asyncio.to_thread(shout, server.port))
        try:
            for _ in range(10):
                async with asyncio.timeout(10):
                    await works(server)
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                await shouting
    assert answered[0]


async def test_packets_reach_a_client(workspace):
    edge = {"src": {"node": "a", "port": "out"}, "tgt": {"node": "b", "port": "in"}}
    async with serving(workspace) as server, connect(url(server)) as client:
        await say(client, "network", "edges", edges=[edge], graph="main")
        assert (await hear(client))["command"] == "edges"
        src, tgt = Endpoint("a", "out"), Endpoint("b", "in")
        workspace.saw(Packet("main", src, tgt, "x", 1.0))
        assert (await hear(client))["payload"]["data"] == "x"


async def test_closing_the_server_cuts_off_its_clients(workspace):
    async with serving(workspace) as server, connect(url(server)) as client:
        await say(client, "runtime", "getruntime")
        await until(client, "ports")
        await server.close()
        await server.close()
        with pytest.raises(ConnectionClosed):
            await hear(client)
    assert workspace.audience == []
