"""What edits do to a network that runs: to its processes, and to the messages on their way."""

import asyncio
import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from msgflo import transport
from msgflo.coordinator.network import Event, Life
from msgflo.errors import ComponentError
from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Graph
from msgflo.live import LiveNetwork, RoleView
from msgflo.processes.library import Library
from msgflo.processes.restarts import Limits
from msgflo.processes.supervisor import ProcessState, State, Supervisor
from msgflo.transport import nats
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Broker
from programs import runs

WAIT = 60.0
LIMITS = Limits(tries=3, first=0.01, longest=0.02)

COMPONENTS = {
    "Greet": """
@msgflo.component
def Greet(name: str, greeting: msgflo.Param[str] = "Hello") -> str:
    return f"{greeting}, {name}!"
""",
    "Show": """
@msgflo.component
def Show(text: str, ctx: msgflo.Context) -> None:
    print(f"shown by {ctx.instance}: {text}", flush=True)
""",
    "Work": """
@msgflo.component
def Work(number: int) -> int:
    print(f"began {number}", flush=True)
    while number >= 1000 and not pathlib.Path(f"open-{number}").exists():
        time.sleep(0.01)
    print(f"did {number}", flush=True)
    return number
""",
}
"""A number of 1000 or more is worked on until there is a file that lets it go."""

HEAD = "import pathlib, time\nimport msgflo\n"

LAMP = "component: Lamp\ninports:\n  in: {queue: lamp.%s, type: boolean}\n"

PLAIN = """
import asyncio, os
from msgflo import transport
from msgflo.flow.discovery import Announcement, Definition, Port

async def main():
    client = transport.client(os.environ["MSGFLO_BROKER"])
    await client.connect()
    ports = (Port("in", queue="a.IN"),)
    said = Announcement(Definition(f"plain{os.getpid()}", "a", "Plain", inports=ports), instance=1)
    await client.announce(said.encode())
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
"""A participant that has never heard of pausing, nor of saying goodbye."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "components").mkdir(parents=True)
    for name, code in COMPONENTS.items():
        (folder / "components" / f"{name}.py").write_text(HEAD + code)
    return folder


class Net:
    """A live network, what its processes printed and what it told; and ways to wait for that."""

    def __init__(self, text: str, broker: Broker, url: str, root: Path, options: Any) -> None:
        self.lines: list[str] = []
        self.events: list[Event] = []
        self.seen: list[ProcessState] = []
        self.root = root
        self._new = asyncio.Event()
        self._ids = itertools.count(1)
        self.broker = broker
        grace = options.pop("grace", WAIT)
        self.supervisor = Supervisor(self._line, self._changed, grace=grace, limits=LIMITS)
        self.live = LiveNetwork(
            parse_fbp(text),
            broker=broker,
            url=url,
            library=Library.load(root),
            supervisor=self.supervisor,
            told=self._told,
            **options,
        )

    def _line(self, role: str, instance: int, stream: str, line: str) -> None:
        self.lines.append(f"{role}.{instance}: {line}")
        self._new.set()

    def _changed(self, state: ProcessState) -> None:
        self.seen.append(state)
        self.live.process_changed(state)
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
        try:
            await self.until(lambda: text in self.lines)
        except TimeoutError:
            raise AssertionError(f"no line {text!r} in: {self.lines}") from None

    async def complete(self) -> None:
        await self.live.coordinator.until(lambda _: self.live.status().complete, WAIT)

    async def edit(self, text: str) -> None:
        """Have another graph, and wait until it is there."""
        self.live.change(parse_fbp(text))
        await self.live.until_brought()
        await self.complete()

    def role(self, name: str) -> RoleView:
        return next(r for r in self.live.status().roles if r.network.role == name)

    async def alive(self, role: str, *instances: int) -> None:
        """Wait until these instances of a role are live, and no others."""

        def so(_: object = None) -> bool:
            found = [it.instance for it in self.role(role).instances if it.state == Life.LIVE]
            return found == list(instances)

        await self.live.until_brought()
        await self.live.coordinator.until(so, WAIT)

    def pid(self, role: str, instance: int = 1) -> int:
        state = self.supervisor.process(role, instance)
        assert state is not None
        assert state.pid is not None
        return state.pid

    def running(self) -> list[str]:
        return [state.name for state in self.supervisor.processes() if state.alive]

    async def send(self, queue: str, *values: object) -> None:
        for value in values:
            id_ = f"sent{next(self._ids)}"
            headers = {MESSAGE_ID: id_, CONTENT_TYPE: "application/json"}
            await self.broker.enqueue(queue, json.dumps(value).encode(), headers)

    def did(self) -> Counter[int]:
        said = [line.partition(": did ")[2] for line in self.lines if ": did " in line]
        return Counter(map(int, said))

    def let_go(self, number: int) -> None:
        (self.root / f"open-{number}").touch()

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)


@asynccontextmanager
async def running(
    text: str, url: str, root: Path, *, broker: Broker | None = None, **options: Any
) -> AsyncIterator[Net]:
    broker = broker or transport.broker(url)
    await broker.connect()
    before = asyncio.all_tasks()
    net = Net(text, broker, url, root, options)
    try:
        yield net
    finally:
        await net.live.close()
        alive, left = net.running(), asyncio.all_tasks() - before
        pids = {state.pid for state in net.seen if state.pid is not None}
        await net.supervisor.close()
        await broker.close()
    assert alive == []
    assert not [pid for pid in pids if runs(pid)]
    ours = [task.get_name() for task in left if not task.done()]
    assert not [name for name in ours if name.startswith(("run ", "process ", "announce"))]


# Nodes come and go.


async def test_what_is_drawn_runs_and_what_is_erased_ends_and_the_rest_is_not_touched(
    nats_server, project
):
    line = "greet(Greet) OUT -> IN show(Show)"
    async with running(line, nats_server, project) as net:
        await net.live.start()
        await net.complete()
        greet, show = net.pid("greet"), net.pid("show")
        await net.edit(f"{line}\ngreet OUT -> IN more(Show)")
        await net.send("greet.IN", "Ada")
        await net.line("show.1: shown by 1: Hello, Ada!")
        await net.line("more.1: shown by 1: Hello, Ada!")
        more = net.pid("more")
        await net.edit("greet(Greet) OUT -> IN shown(Show)\ngreet OUT -> IN more(Show)")
        await net.send("greet.IN", "Eve")
        await net.line("shown.1: shown by 1: Hello, Eve!")
        await net.line("more.1: shown by 1: Hello, Eve!")
        assert not runs(show)
        assert (net.pid("greet"), net.pid("more")) == (greet, more)
        assert "show" not in [role.network.role for role in net.live.status().roles]
        assert net.count("show.1: shown by") == 1


async def test_what_was_sent_to_a_node_that_was_erased_is_there_when_it_is_drawn_again(
    nats_server, project
):
    line = "greet(Greet) OUT -> IN show(Show)"
    async with running(line, nats_server, project) as net:
        await net.live.start()
        await net.complete()
        await net.edit("greet(Greet)")
        await net.send("show.IN", "meanwhile")
        await net.edit(line)
        await net.line("show.1: shown by 1: meanwhile")


async def test_a_node_begins_only_when_what_it_sends_has_somewhere_to_go(nats_server, project):
    """Else what it sends first would be lost."""

    class Slow(nats.Broker):
        let = asyncio.Event()

        async def bind(self, binding):
            await self.let.wait()
            await super().bind(binding)

    broker = Slow(nats_server)
    async with running("", nats_server, project, broker=broker) as net:
        await net.live.start()
        net.live.change(parse_fbp("'World' -> IN greet(Greet) OUT -> IN show(Show)"))
        await net.until(lambda: "show.1" in net.running())
        assert net.running() == ["show.1"]
        broker.let.set()
        await net.line("show.1: shown by 1: Hello, World!")


@pytest.mark.parametrize("turns", range(4))
async def test_an_edit_is_heeded_whatever_the_one_before_is_at(nats_server, project, turns):
    async with running("show(Show)", nats_server, project, scale={"show": 0}) as net:
        await net.live.start()
        net.live.change(parse_fbp("show(Show)"))
        for _ in range(turns):
            await asyncio.sleep(0)
        net.live.scale("show", 1)
        await net.live.until_brought()
        assert net.running() == ["show.1"]


async def test_two_edits_fast_behind_one_another_end_as_the_last_one_wants(nats_server, project):
    async with running("a(Show)\nb(Show)", nats_server, project) as net:
        await net.live.start()
        await net.complete()
        pid = net.pid("a")
        net.live.change(Graph())
        net.live.change(parse_fbp("a(Show)"))
        await net.live.until_brought()
        assert net.running() == ["a.1"]
        assert net.pid("a") == pid
        net.live.change(parse_fbp("a(Work)"))
        await asyncio.sleep(0)
        net.live.change(parse_fbp("a(Greet)"))
        net.live.scale("a", 2)
        await net.live.until_brought()
        assert net.running() == ["a.1", "a.2"]
        assert "Greet.py" in net.supervisor.process("a", 1).command


async def test_edits_while_it_starts_are_part_of_the_start(nats_server, project):
    async with running("a(Show)\nb(Show)", nats_server, project) as net:
        starting = asyncio.create_task(net.live.start())
        await asyncio.sleep(0)
        net.live.change(parse_fbp("'x' -> IN a(Greet) OUT -> IN c(Show)"))
        await starting
        await net.complete()
        await net.line("c.1: shown by 1: Hello, x!")
        assert net.running() == ["a.1", "c.1"]


@pytest.mark.parametrize("turns", [0, 1, 5, 200])
async def test_it_can_be_closed_while_it_starts(nats_server, project, turns):
    async with running("a(Greet) OUT -> IN b(Show)\nc(Show)", nats_server, project) as net:
        starting = asyncio.create_task(net.live.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        await net.live.close()
        await asyncio.gather(starting, return_exceptions=True)
        net.live.change(parse_fbp("d(Show)"))
        assert net.running() == []


# Instances.


async def test_each_message_is_handled_once_however_a_role_is_scaled_meanwhile(
    nats_server, project
):
    async with running("work(Work)", nats_server, project) as net:
        await net.live.start()
        await net.complete()
        numbers = iter(range(1000))
        sent = []
        for instances in (3, 1, 0, 2, 1):
            some = list(itertools.islice(numbers, 30))
            sent += some
            await net.send("work.IN", *some[:15])
            net.live.scale("work", instances)
            await net.send("work.IN", *some[15:])
            await net.alive("work", *range(1, instances + 1))
            assert net.role("work").wanted == instances
        await net.until(lambda: net.did().total() >= len(sent))
        await net.edit("work(Work)")
        assert net.did() == Counter(sent)
        (stats,) = [q for q in await net.broker.queues(["work.IN"]) if q.queue == "work.IN"]
        assert (stats.waiting, stats.in_flight) == (0, 0)


async def test_an_instance_that_goes_finishes_what_it_is_at(nats_server, project):
    async with running("work(Work)", nats_server, project) as net:
        await net.live.start()
        await net.complete()
        await net.send("work.IN", 1000, 1)
        await net.line("work.1: began 1000")
        net.live.scale("work", 0)
        await net.until(lambda: net.seen[-1].state is State.STOPPING)
        net.let_go(1000)
        await net.live.until_brought()
        assert net.did()[1000] == 1
        assert net.role("work").reason == "scaled to 0 instances"
        net.live.scale("work", 1)
        await net.line("work.1: did 1")
        assert net.did() == {1000: 1, 1: 1}


async def test_an_instance_that_does_not_finish_hands_back_what_it_is_at_and_is_not_live(
    nats_server, project
):
    async with running("work(Work)", nats_server, project, grace=0.5) as net:
        await net.live.start()
        await net.complete()
        await net.send("work.IN", 1000)
        await net.line("work.1: began 1000")
        net.live.scale("work", 0)
        await net.live.until_brought()
        assert net.did() == {}
        assert [it for it in net.role("work").instances if it.state == Life.LIVE] == []
        net.let_go(1000)
        net.live.scale("work", 1)
        await net.line("work.1: did 1000")


async def test_a_participant_that_ends_without_goodbye_is_not_shown_as_live(nats_server, project):
    (project / "msgflo.json").write_text('{"components": {"Plain": "python plain.py"}}')
    (project / "plain.py").write_text(PLAIN)
    async with running("a(Plain)", nats_server, project) as net:
        await net.live.start()
        await net.alive("a", 1)
        net.live.scale("a", 0)
        await net.alive("a")
        net.live.scale("a", 1)
        await net.alive("a", 1)
        # The supervisor has heard of it again, too.
        await net.until(lambda: net.seen[-1].state is State.RUNNING)


async def test_an_instance_that_comes_back_finds_its_copies(nats_server, project):
    line = "greet(Greet) OUT -> IN show(Show)"
    async with running(line, nats_server, project, scale={"show": 2}) as net:
        await net.live.start()
        await net.complete()
        await net.send("greet.IN", "Ada")
        await net.line("show.2: shown by 2: Hello, Ada!")
        net.live.scale("show", 1)
        await net.alive("show", 1)
        await net.send("greet.IN", "Eve")
        await net.line("show.1: shown by 1: Hello, Eve!")
        net.live.scale("show", 2)
        await net.line("show.2: shown by 2: Hello, Eve!")
        assert net.count("Hello, Ada!") == net.count("Hello, Eve!") == 2


async def test_one_instance_is_started_anew_and_the_others_are_not(nats_server, project):
    async with running("show(Show)", nats_server, project, scale={"show": 2}) as net:
        await net.live.start()
        await net.complete()
        one, two = net.pid("show", 1), net.pid("show", 2)
        net.live.restart("show", 2)
        await net.alive("show", 1, 2)
        assert net.pid("show", 1) == one
        assert net.pid("show", 2) != two
        net.live.restart("show")
        await net.alive("show", 1, 2)
        assert not runs(one)
        with pytest.raises(ComponentError, match="has no instance 3"):
            net.live.restart("show", 3)
        with pytest.raises(ValueError, match="expected 0 or more"):
            net.live.scale("show", -1)
        assert net.role("show").wanted == 2


async def test_one_that_is_killed_comes_back_with_what_is_drawn_now(nats_server, project):
    """Not with the initial packets of when it was started first."""
    line = "'Old' -> IN greet(Greet) OUT -> IN show(Show)"
    async with running(line, nats_server, project) as net:
        await net.live.start()
        await net.complete()
        await net.line("show.1: shown by 1: Hello, Old!")
        await net.edit("'Servus' -> GREETING greet(Greet) OUT -> IN show(Show)")
        os.kill(net.pid("greet"), signal.SIGKILL)
        await net.until(lambda: net.events[-1].text == "greet.1 is live")
        await net.send("greet.IN", "Ada")
        await net.line("show.1: shown by 1: Servus, Ada!")
        assert net.count("Old") == 1


# Components.


async def test_a_component_that_cannot_be_found_can_be_put_there(nats_server, project):
    def put(name: str) -> None:
        code = COMPONENTS["Show"].replace("Show", name)
        (project / "components" / f"{name}.py").write_text(HEAD + code)

    async with running("a(Late)\nb(Show)", nats_server, project) as net:
        await net.live.start()
        await net.alive("b", 1)
        assert "no component 'Late'" in net.role("a").reason
        with pytest.raises(ComponentError, match="no component 'Late'"):
            net.live.scale("a", 2)
        net.live.restart("a")
        await net.live.until_brought()
        assert "no component 'Late'" in net.role("a").reason
        put("Late")
        net.live.restart("a")
        await net.alive("a", 1)
        put("Later")
        await net.edit("a(Late)\nb(Show)\nc(Later)")


async def test_new_code_runs_where_the_old_one_failed_and_else_when_it_is_asked_for(
    nats_server, project
):
    file = project / "components" / "Show.py"
    good, bad = file.read_text(), "import no_such_module\n"
    file.write_text(bad)
    async with running("show(Show)", nats_server, project) as net:
        await net.live.start()
        await net.until(lambda: net.seen[-1].state is State.FAILED)
        assert "no_such_module" in "".join(net.supervisor.process("show", 1).last_lines)
        net.live.library.write("Show", "python", good)
        net.live.component_written("Show")
        await net.alive("show", 1)
        pid = net.pid("show")
        net.live.library.write("Show", "python", good.replace("shown", "SHOWN"))
        net.live.component_written("Show")
        net.live.component_written("Greet")
        await net.live.until_brought()
        await net.send("show.IN", "a")
        await net.line("show.1: shown by 1: a")
        assert net.pid("show") == pid
        net.live.restart("show")
        await net.live.until_brought()
        await net.send("show.IN", "b")
        await net.line("show.1: SHOWN by 1: b")
        assert net.count(" by 1: ") == 2


async def test_a_participant_elsewhere_is_announced_as_its_file_says_now(nats_server, project):
    file = project / "components" / "Lamp.yaml"
    file.write_text(LAMP % "one")
    async with running("lamp(Lamp)", nats_server, project) as net:
        await net.live.start()
        await net.alive("lamp", None)
        assert net.live.queues() == {"lamp.one"}
        net.live.library.write("Lamp", "yaml", LAMP % "two")
        net.live.component_written("Lamp")
        await net.live.coordinator.until(lambda _: "lamp.two" in net.live.queues(), WAIT)
        with pytest.raises(ComponentError, match="runs somewhere else"):
            net.live.restart("lamp")
        net.live.change(Graph())
        await net.until(lambda: net.events[-1].kind == "gone")


async def test_a_participant_elsewhere_is_announced_when_the_broker_is_back(
    nats_server_process, project
):
    (project / "components" / "Lamp.yaml").write_text(LAMP % "one")
    server = nats_server_process
    async with running("", server.url, project) as net:
        await net.live.start()
        server.kill()
        net.live.change(parse_fbp("lamp(Lamp)"))
        await net.until(lambda: any("cannot announce" in event.text for event in net.events))
        server.start()
        await net.alive("lamp", None)


# Stopped, and started.


async def test_stopped_from_the_start_it_begins_when_it_is_told(nats_server, project):
    line = "'World' -> IN greet(Greet) OUT -> IN show(Show)"
    async with running(line, nats_server, project, paused=True) as net:
        await net.live.start()
        await net.complete()
        await net.send("show.IN", "waits")
        assert net.live.paused
        assert [it.paused for role in net.live.status().roles for it in role.instances] == [
            True,
            True,
        ]
        assert net.count("shown by") == 0
        pid = net.pid("show")
        net.live.pause(False)
        await net.line("show.1: shown by 1: Hello, World!")
        await net.line("show.1: shown by 1: waits")
        assert net.pid("show") == pid


async def test_one_that_dies_while_it_is_stopped_comes_back_standing_still(nats_server, project):
    async with running("show(Show)", nats_server, project) as net:
        await net.live.start()
        await net.complete()
        net.live.pause(True)
        await net.live.coordinator.until(lambda _: net.role("show").instances[0].paused, WAIT)
        await net.send("show.IN", "waits")
        pid = net.pid("show")
        net.events.clear()
        os.kill(pid, signal.SIGKILL)
        await net.until(lambda: any(it.kind == "live" for it in net.events))
        assert net.role("show").instances[0].paused
        assert net.pid("show") != pid
        assert net.count("shown by") == 0
        net.live.pause(False)
        await net.line("show.1: shown by 1: waits")


async def test_what_cannot_stand_still_is_ended_and_stays_so_whatever_is_edited_meanwhile(
    nats_server, project
):
    (project / "msgflo.json").write_text('{"components": {"Plain": "python plain.py"}}')
    (project / "plain.py").write_text(PLAIN)
    async with running("a(Plain)\nb(Show)", nats_server, project) as net:
        await net.live.start()
        await net.alive("a", 1)
        await net.alive("b", 1)
        net.live.pause(True)
        await net.live.until_brought()
        assert net.running() == ["b.1"]
        assert net.role("a").reason == "the network is stopped"
        net.live.change(parse_fbp("a(Plain)\nb(Show)\nc(Show)"))
        net.live.restart("a")
        await net.alive("c", 1)
        assert net.running() == ["b.1", "c.1"]
        net.live.pause(False)
        await net.alive("a", 1)
        assert net.count("a.1: up") == 2


async def test_what_failed_and_what_was_edited_is_started_anew_with_the_network(
    nats_server, project
):
    (project / "components" / "Broken.py").write_text("import no_such_module\n")
    async with running("a(Show)\nb(Broken)\nc(Work)", nats_server, project) as net:
        await net.live.start()
        await net.until(lambda: any(it.state is State.FAILED for it in net.seen))
        await net.alive("a", 1)
        await net.alive("c", 1)
        a, c, failed = net.pid("a"), net.pid("c"), net.count("no_such_module")
        net.live.pause(True)
        net.live.component_written("Show")
        net.live.pause(False)
        await net.alive("a", 1)
        await net.alive("c", 1)
        await net.until(lambda: net.count("no_such_module") > failed)
        assert net.pid("a") != a
        assert net.pid("c") == c


async def test_what_others_start_is_left_to_them(nats_server, project):
    async with running("a(Show)\nb(Show)", nats_server, project, ignore=frozenset({"b"})) as net:
        await net.live.start()
        await net.alive("a", 1)
        assert net.running() == ["a.1"]
        assert net.role("b").reason == "not started here; waits for somebody to announce it"
        for wrong in (net.live.restart, lambda role: net.live.scale(role, 1)):
            with pytest.raises(ComponentError, match="no role 'b' is started here"):
                wrong("b")
        net.live.pause(True)
        net.live.change(parse_fbp("b(Greet)"))
        net.live.pause(False)
        await net.live.until_brought()
        assert net.running() == []
