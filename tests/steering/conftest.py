"""A runtime with its service, in the test's own process, on a real broker; and a client of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Graph
from msgflo.protocol.client import Client
from msgflo.runtime import Runtime
from msgflo.steering.service import Service

WAIT = 60.0

COMPONENTS = {
    "Repeat": """
import msgflo
from typing import Any


@msgflo.component("Repeat", icon="forward")
async def repeat(packet: Any) -> Any:
    "Repeats."
    return packet
""",
    "Fail": """
import msgflo
from typing import Any


@msgflo.component("Fail")
async def fail(packet: Any) -> Any:
    raise ValueError(f"not {packet}")
""",
    "Broken": "import no_such_module",
}

LINE = "INPORT=a.in:into\nOUTPORT=b.out:result\na(Repeat) out -> in b(Repeat)"


class Steered:
    """A runtime, its service and a client."""

    def __init__(self, runtime: Runtime, service: Service, client: Client) -> None:
        self.runtime = runtime
        self.service = service
        self.client = client

    @property
    def workspace(self):
        return self.service.workspace

    async def until(
        self, true: Callable[[dict[str, Any]], object], **payload: Any
    ) -> dict[str, Any]:
        """Ask for the status until it is so."""
        async with asyncio.timeout(WAIT):
            while not true(status := await self.client.ask("status", **payload)):
                await asyncio.sleep(0.05)
        return status

    async def complete(self, **payload: Any) -> dict[str, Any]:
        return await self.until(lambda status: status["complete"], **payload)

    async def send(self, data: Any, port: str = "into", graph: str = "main") -> None:
        await self.client.command(
            "runtime", "packet", port=port, event="data", payload=data, graph=graph
        )

    async def result(self) -> Any:
        """Wait for what leaves by an exported outport."""
        while True:
            found = await self.client.until("runtime", "packet", WAIT)
            if found["event"] == "data":
                return found["payload"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "components").mkdir(parents=True)
    for name, code in COMPONENTS.items():
        (folder / "components" / f"{name}.py").write_text(code)
    return folder


@pytest.fixture
def steering(project: Path, nats_server: str):
    @asynccontextmanager
    async def steering(graph: str = LINE, **options: Any) -> AsyncIterator[Steered]:
        drawn = parse_fbp(graph) if graph else Graph()
        if not drawn.name:
            drawn.change_properties({"name": "main"})
        runtime = Runtime(drawn, root=project, broker=nats_server, grace=3.0)
        service = Service(runtime, port=0, **options)
        await service.start()
        client = Client(service.address)
        try:
            await client.connect()
            await client.command("runtime", "getruntime")
            await runtime.start()
            service.runtime_started()
            yield Steered(runtime, service, client)
        finally:
            await client.close()
            await service.close()
            await runtime.close()

    return steering
