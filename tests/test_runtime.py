"""A whole network, with real processes: what runs, what does not and why, and what is left."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from msgflo import transport
from msgflo.coordinator.network import Event, Life
from msgflo.errors import AlreadyRunning, ConfigurationError, ConnectFailed, ConnectionLost
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Announcement, Definition, Port
from msgflo.flow.fbp import parse_fbp
from msgflo.processes.restarts import Limits
from msgflo.processes.supervisor import State
from msgflo.runtime import RoleView, Runtime, RuntimeStatus
from msgflo.transport.contract import Delivery, Inlet

WAIT = 45.0
LIMITS = Limits(tries=2, first=0.01, longest=0.02)

COMPONENTS = {
    "Greet.py": """
        import msgflo

        @msgflo.component("Greet")
        def greet(name: str, greeting: msgflo.Param[str] = "Hello") -> str:
            return f"{greeting}, {name}!"
    """,
    "Show.py": """
        import msgflo

        @msgflo.component("Show")
        def show(text: str, ctx: msgflo.Context) -> None:
            print(f"shown by {ctx.instance}: {text}")
    """,
    "Broken.py": """
        import msgflo
        print("about to import")
        import no_such_module

        @msgflo.component("Broken")
        def broken(text: str) -> None: ...
    """,
    "Siren.yml": """
        component: Siren
        label: a siren on the roof
        inports:
          in: {queue: "roof/#ROLE/on", type: boolean}
    """,
}

HELLO = "'World' -> IN greet(Greet) OUT -> IN show(Show)"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "components").mkdir(parents=True)
    for name, code in COMPONENTS.items():
        lines = code.strip("\n").splitlines()
        (folder / "components" / name).write_text("\n".join(line[8:] for line in lines) + "\n")
    return folder


class Network:
    """A runtime, what its processes printed and what it told; and ways to wait for that."""

    def __init__(self, graph: str, root: Path, broker: str | None, **options) -> None:
        self.lines: list[str] = []
        self.events: list[Event] = []
        self._new = asyncio.Event()
        self.runtime = Runtime(
            parse_fbp(graph, "test.fbp"),
            root=root,
            broker=broker,
            **{"output": self._output, "told": self._told, "limits": LIMITS, **options},
        )

    def _output(self, role: str, instance: int, stream: str, line: str) -> None:
        self.lines.append(f"{role}.{instance}: {line}")
        self._new.set()

    def _told(self, event: Event) -> None:
        self.events.append(event)
        self._new.set()

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not true():
                self._new.clear()
                await self._new.wait()

    async def line(self, text: str) -> None:
        await self.until(lambda: text in self.lines)

    def shown(self) -> list[str]:
        return [line for line in self.lines if "shown by" in line]

    async def complete(self) -> RuntimeStatus:
        return await self.runtime.until_complete(WAIT)

    async def told(self, text: str) -> Event:
        await self.until(lambda: any(text in event.text for event in self.events))
        return next(event for event in self.events if text in event.text)

    def role(self, name: str) -> RoleView:
        return next(r for r in self.runtime.status().roles if r.network.role == name)

    def pid(self, role: str, instance: int = 1) -> int:
        found = [i.process for i in self.role(role).instances if i.instance == instance]
        assert found
        assert found[0] is not None
        assert found[0].pid is not None
        return found[0].pid


@asynccontextmanager
async def network(graph: str, root: Path, broker: str | None, **options):
    made = Network(graph, root, broker, **options)
    async with made.runtime:
        yield made


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def send(runtime: Runtime, queue: str, value: object) -> None:
    """Put a message into a queue, as soon as there is a connection."""
    async with asyncio.timeout(WAIT):
        while True:
            try:
                return await runtime.broker.enqueue(queue, msgspec.json.encode(value), {})
            except ConnectionLost:
                await asyncio.sleep(0.02)


# What runs


async def test_a_graph_runs_on_a_broker_of_its_own_and_nothing_of_it_is_left(project):
    async with network(HELLO, project, None) as net:
        runtime = net.runtime
        status = await net.complete()
        assert status.complete
        await net.line("show.1: shown by 1: Hello, World!")
        assert runtime.embedded
        assert runtime.url.startswith("nats://msgflo:")
        password = runtime.url.partition("msgflo:")[2].partition("@")[0]
        assert password not in runtime.address
        pids = [runtime.broker_pid, net.pid("greet"), net.pid("show")]
        assert all(runs(pid) for pid in pids)
        greet = net.role("greet")
        assert (greet.network.component, greet.network.life, greet.reason) == ("Greet", "live", "")
        assert [(i.instance, i.state, i.reason) for i in greet.instances] == [(1, "live", "")]
        assert greet.started_here
    assert not any(runs(pid) for pid in pids)
    assert (project / ".msgflo" / ".gitignore").read_text() == "*\n"


async def test_closing_again_or_unstarted_is_no_error(project, nats_server):
    runtime = Runtime(parse_fbp(HELLO, "a.fbp"), root=project, broker=nats_server)
    assert (runtime.url, runtime.embedded, runtime.broker_pid) == (nats_server, False, None)
    await runtime.close()
    await runtime.close()


async def test_what_waits_in_the_embedded_broker_is_there_at_the_next_run(project):
    async with network(HELLO, project, None, scale={"show": 0}) as net:
        await net.until(lambda: net.role("greet").network.life is Life.LIVE)
        assert net.role("show").reason == "scaled to 0 instances"
        await send(net.runtime, "greet.IN", "Ada")

        async def greeted() -> int:
            queues = await net.runtime.queues()
            return sum(q.waiting for q in queues if q.queue.startswith("show.IN"))

        async with asyncio.timeout(WAIT):
            while await greeted() < 2:
                await asyncio.sleep(0.05)
    async with network(HELLO, project, None) as net:
        await net.line("show.1: shown by 1: Hello, World!")
        await net.line("show.1: shown by 1: Hello, Ada!")
        await net.complete()


async def test_instances_share_a_round_robin_and_each_have_a_copy_otherwise(project, nats_server):
    graph = """
    greet(Greet) OUT -> IN share(msgflo/RoundRobin) OUT -> IN show(Show)
    greet OUT -> IN all(Show)
    """
    scale = {"show": 2, "all": 2}
    async with network(graph, project, nats_server, scale=scale) as net:
        await net.complete()
        assert len(net.role("show").instances) == 2
        assert net.role("share").network.life is Life.VIRTUAL
        await send(net.runtime, "greet.IN", "A")
        await net.line("all.1: shown by 1: Hello, A!")
        await net.line("all.2: shown by 2: Hello, A!")
        await net.until(lambda: any(line.startswith("show.") for line in net.shown()))
        await send(net.runtime, "greet.IN", "B")
        await net.line("all.1: shown by 1: Hello, B!")
        await net.until(lambda: len(net.shown()) == 6)
        assert len([line for line in net.shown() if line.startswith("show.")]) == 2


async def test_initial_packets_of_one_are_there_before_the_first_message(project, nats_server):
    graph = "'Hi' -> GREETING greet(Greet)\n" + HELLO.replace("(Greet)", "")
    async with network(graph, project, nats_server) as net:
        await net.line("show.1: shown by 1: Hi, World!")


async def test_a_killed_participant_comes_back_and_finds_what_was_sent_meanwhile(
    project, nats_server
):
    async with network(HELLO, project, nats_server, limits=Limits(first=0.01)) as net:
        await net.complete()
        before = net.pid("show")
        os.kill(before, signal.SIGKILL)
        event = await net.told("killed by SIGKILL")
        assert (event.kind, event.role) == ("failed", "show")
        await send(net.runtime, "greet.IN", "Bo")
        await net.line("show.1: shown by 1: Hello, Bo!")
        await net.complete()
        assert net.pid("show") != before


async def test_the_broker_is_killed_and_the_network_goes_on(project):
    async with network(HELLO, project, None) as net:
        await net.complete()
        before = net.runtime.broker_pid
        os.kill(before, signal.SIGKILL)
        await net.told("the broker is back after")
        await send(net.runtime, "greet.IN", "Cy")
        await net.line("show.1: shown by 1: Hello, Cy!")
        assert net.runtime.broker_pid not in (None, before)


async def test_foreign_participants_are_announced_wired_and_said_goodbye(project, nats_server):
    graph = "greet(Greet) OUT -> IN roof(Siren)"
    async with network(graph, project, nats_server) as net:
        await net.complete()
        roof = net.role("roof")
        assert roof.network.life is Life.LIVE
        assert net.runtime.status().network.edges[0].bindings == (
            Binding(Kind.PUBSUB, "greet.OUT", "roof/roof/on"),
        )
        assert all(instance.process is None for instance in roof.instances)
        heard: list[bytes] = []
        listener = transport.broker(nats_server)
        await listener.connect()
        await listener.listen(heard.append)
    try:
        async with asyncio.timeout(WAIT):
            while not any(b'"roof"' in data and b"goodbye" in data.lower() for data in heard):
                await asyncio.sleep(0.02)
    finally:
        await listener.close()


# What does not run, and why; the rest goes on


async def test_an_unknown_component_is_pending_with_its_reason_and_the_rest_goes_on(
    project, nats_server
):
    graph = HELLO + "\nshout(Grete) OUT -> IN show"
    async with network(graph, project, nats_server) as net:
        await net.line("show.1: shown by 1: Hello, World!")
        shout = net.role("shout")
        assert shout.network.life is Life.PENDING
        assert not shout.started_here
        assert "'Grete'" in shout.reason
        assert "Did you mean 'Greet'?" in shout.reason
        assert any(e.kind == "wrong" and e.role == "shout" for e in net.events)
        assert not net.runtime.status().complete


async def test_a_component_that_fails_at_import_shows_status_and_last_lines(project, nats_server):
    graph = HELLO + "\nshow OUT -> IN broken(Broken)"
    async with network(graph, project, nats_server) as net:
        await net.line("show.1: shown by 1: Hello, World!")
        await net.until(lambda: net.role("broken").instances[0].state == State.FAILED)
        (instance,) = net.role("broken").instances
        assert "exited with status 1" in net.role("broken").reason
        assert "2 times in a row" in instance.reason
        assert instance.process.last_lines[0] == "about to import"
        assert "no_such_module" in instance.process.last_lines[-1]
        event = next(e for e in net.events if e.kind == "failed" and e.role == "broken")
        assert "No module named 'no_such_module'" in event.text


async def test_an_edge_to_a_port_that_is_not_there_is_pending_and_the_rest_goes_on(
    project, nats_server
):
    graph = HELLO + "\ngreet OTU -> IN show"
    async with network(graph, project, nats_server) as net:
        await net.line("show.1: shown by 1: Hello, World!")
        await net.until(
            lambda: [e.reason for e in net.runtime.status().network.edges if e.wrong] != []
        )
        right, wrong = net.runtime.status().network.edges
        assert right.reason == ""
        assert "otu" in wrong.reason.lower()
        assert "out" in wrong.reason
        assert not net.runtime.status().complete


async def test_roles_that_are_not_started_here_are_wired_when_they_announce_themselves(
    project, nats_server
):
    async with network(HELLO, project, nats_server, ignore=frozenset({"show"})) as net:
        await net.until(lambda: net.role("greet").network.life is Life.LIVE)
        show = net.role("show")
        assert not show.started_here
        assert show.instances == ()
        assert show.reason == "not started here; waits for somebody to announce it"
        with pytest.raises(TimeoutError):
            await net.runtime.until_complete(0.01)
        got: asyncio.Queue[bytes] = asyncio.Queue()
        client = transport.client(nats_server)
        await client.connect()

        def take(delivery: Delivery) -> None:
            got.put_nowait(delivery.body)
            client.settle(delivery)

        await client.declare([Inlet("mine.IN", 1)], [])
        await client.consume(Inlet("mine.IN", 1), 1, take)
        definition = Definition("show-1", "show", "Show", inports=(Port("in", queue="mine.IN"),))
        await client.announce(Announcement(definition, instance=1, places=True).encode())
        await net.complete()
        await send(net.runtime, "greet.IN", "Di")
        async with asyncio.timeout(WAIT):
            while await got.get() != b'"Hello, Di!"':
                pass
        await client.close()


async def test_only_starts_these_alone(project, nats_server):
    async with network(HELLO, project, nats_server, only=frozenset({"show"})) as net:
        await net.until(lambda: net.role("show").network.life is Life.LIVE)
        assert net.role("greet").reason.startswith("not started here")
        assert [p.role for p in net.runtime._supervisor.processes()] == ["show"]


async def test_a_malformed_announcement_is_told_and_stops_nothing(project, nats_server):
    client = transport.client(nats_server)
    await client.connect()
    async with network(HELLO, project, nats_server) as net:
        await net.complete()
        await client.announce(b'{"protocol": "discovery", "command": "participant", "payload": 3}')
        await client.announce(b"\xff\x00")
        event = await net.told("passed over")
        assert event.kind == "wrong"
        await send(net.runtime, "greet.IN", "Ed")
        await net.line("show.1: shown by 1: Hello, Ed!")
        assert net.runtime.status().complete
    await client.close()


async def test_a_payload_that_does_not_fit_is_a_dead_letter_and_the_next_is_handled(
    project, nats_server
):
    async with network(HELLO, project, nats_server) as net:
        await net.complete()
        await send(net.runtime, "greet.IN", {"no": "text"})
        await send(net.runtime, "greet.IN", "Flo")
        await net.line("show.1: shown by 1: Hello, Flo!")
        queues = {stats.queue: stats for stats in await net.runtime.queues()}
        assert queues["dead-greet.IN"].waiting == 1


# What cannot start at all


@pytest.mark.parametrize(
    "options", [{"scale": {"gret": 2}}, {"only": {"gret"}}, {"ignore": {"gret"}}]
)
def test_a_role_that_the_graph_does_not_have_is_refused(project, options):
    with pytest.raises(ConfigurationError, match=r"no role 'gret'.*greet, show.*mean 'greet'"):
        Runtime(parse_fbp(HELLO, "a.fbp"), root=project, **options)


def test_a_virtual_node_is_no_role_to_scale(project):
    graph = "a(Greet) OUT -> IN rr(msgflo/RoundRobin) OUT -> IN b(Show)"
    with pytest.raises(ConfigurationError, match="no role 'rr'"):
        Runtime(parse_fbp(graph, "a.fbp"), root=project, scale={"rr": 2})


async def test_a_second_run_in_the_folder_is_refused_and_the_first_goes_on(project):
    async with network(HELLO, project, None) as net:
        await net.complete()
        second = Runtime(parse_fbp(HELLO, "a.fbp"), root=project)
        with pytest.raises(AlreadyRunning, match="--project") as caught:
            await second.start()
        assert caught.value.pid == os.getpid()
        await send(net.runtime, "greet.IN", "Gus")
        await net.line("show.1: shown by 1: Hello, Gus!")


async def test_a_broker_that_is_not_there_is_an_error_with_its_address(project):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runtime = Runtime(
        parse_fbp(HELLO, "a.fbp"), root=project, broker=f"nats://me:secret@127.0.0.1:{port}"
    )
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}") as caught:
        await runtime.start()
    assert "secret" not in str(caught.value)
    assert runtime._supervisor.processes() == []


async def test_a_state_folder_that_cannot_be_written_is_an_error(project):
    (project / ".msgflo").write_text("a file")
    runtime = Runtime(parse_fbp(HELLO, "a.fbp"), root=project)
    with pytest.raises(ConfigurationError, match=r"cannot keep state in .*--project"):
        await runtime.start()


# What outlives a run


async def test_a_connection_that_the_graph_no_longer_has_is_removed_at_the_next_run(
    project, nats_server
):
    both = HELLO + "\ngreet OUT -> IN other(Show)"
    async with network(both, project, nats_server) as net:
        await net.complete()
    async with network(HELLO, project, nats_server) as net:
        await net.complete()
        bindings = await net.runtime.broker.bindings()
        assert bindings == [Binding(Kind.PUBSUB, "greet.OUT", "show.IN")]


async def test_graphs_of_different_names_remember_apart(project, nats_server):
    async with network(HELLO, project, nats_server) as net:
        await net.complete()
    graph = parse_fbp("'World' -> IN hi(Greet)", "x.fbp")
    graph.properties["name"] = "../a b"
    async with Runtime(graph, root=project, broker=nats_server) as runtime:
        await runtime.until_complete(WAIT)
        # What the other one bound is shown, and left alone.
        assert runtime.status().network.found == (Binding(Kind.PUBSUB, "greet.OUT", "show.IN"),)
    files = sorted(path.name for path in (project / ".msgflo").glob("network-*.json"))
    assert len(files) == 2
    assert all("/" not in name and " " not in name for name in files)
