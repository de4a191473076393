"""One graph, live: processes and bindings follow its edits. (Most of it: tests/steering.)"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msgflo import transport
from msgflo.coordinator.network import Event, Life
from msgflo.errors import ComponentError
from msgflo.flow.fbp import parse_fbp
from msgflo.live import LiveNetwork
from msgflo.processes.library import Library
from msgflo.processes.supervisor import Supervisor

WAIT = 60.0

REPEAT = """
import msgflo


@msgflo.component("Repeat")
async def repeat(text: str) -> str:
    return text
"""
FOREIGN = "component: Lamp\ninports:\n  on: {queue: lamp.on, type: boolean}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "Repeat.py").write_text(REPEAT)
    (tmp_path / "components" / "Lamp.yaml").write_text(FOREIGN)
    return tmp_path


@asynccontextmanager
async def live(url: str, project: Path, text: str, **options) -> AsyncIterator[LiveNetwork]:
    events: list[Event] = []
    broker = transport.broker(url)
    await broker.connect()
    made: list[LiveNetwork] = []
    supervisor = Supervisor(
        lambda *_: None, lambda state: made[0].process_changed(state), grace=3.0
    )
    network = LiveNetwork(
        parse_fbp(text),
        broker=broker,
        url=url,
        library=Library.load(project),
        supervisor=supervisor,
        told=events.append,
        **options,
    )
    made.append(network)
    network.events = events
    try:
        await network.start()
        yield network
    finally:
        await network.close()
        await network.close()
        assert not [one for one in supervisor.processes() if one.alive]
        await supervisor.close()
        await broker.close()


async def until(network: LiveNetwork, true: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT):
        while not true():
            await asyncio.sleep(0.02)


def lives(network: LiveNetwork) -> dict[str, Life]:
    return {role.network.role: role.network.life for role in network.status().roles}


async def test_an_edit_starts_and_ends_processes(nats_server, project):
    async with live(nats_server, project, "a(Repeat) OUT -> IN b(Repeat)") as network:
        await until(network, lambda: network.status().complete)
        pid = network.status().roles[0].instances[0].process.pid
        network.change(parse_fbp("a(Repeat) OUT -> IN c(Repeat)"))
        await until(network, lambda: lives(network).get("c") is Life.LIVE)
        await network.until_brought()
        await until(network, lambda: "b" not in lives(network))
        assert network.status().roles[0].instances[0].process.pid == pid
        assert not network.has("b")


async def test_another_component_in_a_role_is_another_process(nats_server, project):
    async with live(nats_server, project, "a(Repeat)") as network:
        await until(network, lambda: network.status().complete)
        network.change(parse_fbp("a(Lamp)"))
        await until(
            network,
            lambda: (
                not network.status().roles[0].instances
                or network.status().roles[0].instances[0].process is None
            ),
        )
        await until(network, lambda: lives(network)["a"] is Life.LIVE)
        network.change(parse_fbp("a(None)"))
        await until(network, lambda: "no component 'None'" in network.status().roles[0].reason)
        network.change(parse_fbp("a(Repeat)"))
        await until(
            network, lambda: any(one.process for one in network.status().roles[0].instances)
        )


async def test_many_edits_at_once_end_as_the_last_one_wants(nats_server, project):
    async with live(nats_server, project, "a(Repeat)") as network:
        for number in range(30):
            network.change(parse_fbp(f"n{number % 3}(Repeat)" if number % 2 else "a(Repeat)"))
        network.change(parse_fbp("a(Repeat) OUT -> IN n1(Repeat)"))
        await until(network, lambda: network.status().complete)
        await network.until_brought()
        assert [s.name for s in network._supervisor.processes() if s.alive] == ["a.1", "n1.1"]


async def test_a_scope_keeps_two_graphs_apart(nats_server, project):
    async with (
        live(nats_server, project, "a(Repeat) OUT -> IN b(Repeat)", scope="x/") as one,
        live(nats_server, project, "a(Repeat)") as two,
    ):
        await until(one, lambda: one.status().complete)
        await until(two, lambda: two.status().complete)
        assert [role.network.role for role in one.status().roles if role.network.wanted] == [
            "x/a",
            "x/b",
        ]
        assert one.queues() == {"x/a.IN", "x/b.IN"}


async def test_what_is_not_started_here_cannot_be_scaled_or_restarted(nats_server, project):
    async with live(nats_server, project, "a(Lamp)\nb(Repeat)", ignore={"b"}) as network:
        with pytest.raises(ComponentError, match="runs somewhere else"):
            network.restart("a")
        with pytest.raises(ComponentError, match="no role 'b' is started here"):
            network.scale("b", 2)


async def test_a_participant_that_cannot_be_paused_is_ended_and_started_again(nats_server, project):
    """One in another language, by hand: it announces itself without a word of pausing."""
    (project / "components" / "plain.py").write_text(
        "import asyncio, os\n"
        "from msgflo import transport\n"
        "from msgflo.flow.discovery import Announcement, Definition, Port\n"
        "async def main():\n"
        "    client = transport.client(os.environ['MSGFLO_BROKER'])\n"
        "    await client.connect()\n"
        "    ports = (Port('in', queue='a.IN'),)\n"
        "    said = Announcement(Definition('one', 'a', 'Plain', inports=ports), instance=1)\n"
        "    await client.announce(said.encode())\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    (project / "msgflo.json").write_text('{"components": {"Plain": "python components/plain.py"}}')
    async with live(nats_server, project, "a(Plain)") as network:
        await until(network, lambda: lives(network)["a"] is Life.LIVE)
        network.pause(True)
        await network.until_brought()
        assert not [one for one in network._supervisor.processes() if one.alive]
        assert network.status().roles[0].reason in ("the network is stopped", "")
        network.pause(False)
        await network.until_brought()
        assert [one.name for one in network._supervisor.processes() if one.alive] == ["a.1"]
        await asyncio.sleep(0)
