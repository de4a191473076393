import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from msgflo.errors import ConfigurationError
from msgflo.flow.graph import Graph
from msgflo.protocol.access import Level
from msgflo.protocol.client import Client
from msgflo.runtime import Runtime
from msgflo.steering.endpoint import read_secrets
from msgflo.steering.service import Service, graph_name


def test_secrets_come_from_the_environment_a_file_and_the_command_line(tmp_path):
    file = tmp_path / "secrets"
    file.write_text("# ours\nread abc\nREWIRE def\n\nghi\n")
    environment = {"MSGFLO_SECRET": "e", "MSGFLO_SECRET_READ": "r", "MSGFLO_SECRET_REWIRE": ""}
    assert read_secrets(file, environment, "given") == {
        "given": Level.CODE,
        "e": Level.CODE,
        "r": Level.READ,
        "abc": Level.READ,
        "def": Level.REWIRE,
        "ghi": Level.CODE,
    }
    assert read_secrets(None, {}) == {}
    for text, said in (("read a b", ":1: expected"), ("\nall x", ":2: expected")):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=said):
            read_secrets(file, {})
    with pytest.raises(ConfigurationError, match="cannot read the secrets"):
        read_secrets(tmp_path / "none", {})


def test_the_main_graph_has_a_name_without_a_slash(tmp_path):
    assert graph_name(Graph("one"), None) == "one"
    assert graph_name(Graph("a/b c"), None) == "a-b-c"
    assert graph_name(Graph(), tmp_path / "web.fbp") == "web"
    assert graph_name(Graph(), None) == "main"


async def test_it_listens_before_the_runtime_runs_and_answers_all(project):
    runtime = Runtime(Graph("main"), root=project)
    service = Service(runtime, port=0, classic=True)
    await service.start()
    try:
        async with Client(service.address) as client:
            assert (await client.command("runtime", "getruntime"))["graph"] == "main"
            await client.command("graph", "addnode", id="a", component="Repeat", graph="main")
            await client.command("graph", "clear", id="other")
            await client.command("network", "start", graph="other")
            assert not (await client.command("network", "getstatus", graph="main"))["running"]
            with pytest.raises(Exception, match="the runtime is starting"):
                await client.ask("status")
        assert service.greeting()[0] == f"msgflo started on {service.address}"
    finally:
        await service.close()
        await service.close()


async def test_it_pings_where_it_is_told_to(project):
    pinged: list[tuple[str, str]] = []
    there = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_PUT(self):
            pinged.append((self.command, self.path))
            self.send_response(200)
            self.end_headers()
            there.set()

        def log_message(self, *_):
            pass

    told: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/runtimes/$RUNTIME_ID"
        runtime = Runtime(Graph(), root=project)
        service = Service(
            runtime, port=0, runtime_id="a b", ping=(url, "put", 60.0), tell=told.append
        )
        await service.start()
        assert await asyncio.to_thread(there.wait, 30)
        await service.close()
        server.shutdown()
    assert pinged == [("PUT", "/runtimes/a%20b")]
    assert told == []


async def test_a_page_is_there_for_people(project):
    """And further routes beside it."""
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def more(_request):
        return PlainTextResponse("more")

    runtime = Runtime(Graph(), root=project)
    service = Service(runtime, port=0, routes=[Route("/more", more)])
    await service.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.port)
        writer.write(b"GET /more HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"more")
        writer.close()
    finally:
        await service.close()
