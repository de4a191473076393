"""Recording of graphs that run, on participants in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import msgflo
from msgflo import participant
from msgflo.flow.fbp import parse_fbp
from msgflo.runtime import Runtime
from msgflo.steering.recordings import Recordings
from msgflo.trace.flowtrace import Flowtrace, event_lines
from msgflo.transport.contract import MESSAGE_ID

GRAPH = "greet(Greet) OUT -> IN show(Show)"
SIZE = 1_000_000
_numbers = count(1)


@msgflo.component("Greet")
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@msgflo.component("Show")
async def show(text: str) -> None:
    pass


class Network:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.recordings = Recordings(
            lambda graph: runtime.networks.get("" if graph == "main" else graph),
            lambda: runtime.broker,
        )

    async def send(self, queue: str, text: str) -> None:
        headers = {MESSAGE_ID: f"id-{next(_numbers)}"}
        await self.runtime.broker.enqueue(queue, f'"{text}"'.encode(), headers)

    def trace(self, graph: str = "main") -> Flowtrace:
        network = self.runtime.networks["" if graph == "main" else graph]
        found = self.recordings.flowtrace(graph, network.graph)
        assert found is not None
        return found

    async def until(self, enough: Callable[[list[str]], bool], graph: str = "main") -> list[str]:
        async with asyncio.timeout(30):
            while not enough(lines := list(event_lines(self.trace(graph).events))):
                await asyncio.sleep(0.002)
        return lines


@asynccontextmanager
async def running(folder: Path, scope: str = "") -> AsyncIterator[Network]:
    url = f"direct://recordings-{next(_numbers)}"
    runtime = Runtime(parse_fbp(GRAPH, "main.fbp"), root=folder, broker=url, only=frozenset())
    stop, started = asyncio.Event(), asyncio.Event()
    roles = {f"{scope}greet": greet, f"{scope}show": show}
    serving = asyncio.create_task(
        participant.serve(
            roles, broker=url, stop=stop, started=lambda _: started.set(), environment={}
        )
    )
    await started.wait()
    async with runtime:
        network = Network(runtime)
        yield network
        await network.recordings.close()
    stop.set()
    await serving


async def test_all_packets_of_a_graph_are_recorded_whole(tmp_path):
    async with running(tmp_path) as it:
        await it.runtime.until_complete(30)
        it.recordings.start("main", 100, SIZE, {"label": "try"})
        await it.recordings.settle(30)
        await it.send("greet.IN", "Ada")
        lines = await it.until(lambda lines: len(lines) == 2)
        assert lines == ['-> IN greet DATA "Ada"', 'greet OUT -> IN show DATA "Hello, Ada!"']
        trace = it.trace()
        assert (trace.main, trace.metadata["label"]) == ("main", "try")
        assert trace.graphs["main"]["processes"].keys() == {"greet", "show"}
        assert trace.events[1].payload["headers"][MESSAGE_ID]


async def test_what_is_stopped_is_kept_and_what_is_cleared_is_gone(tmp_path):
    async with running(tmp_path) as it:
        await it.runtime.until_complete(30)
        assert it.recordings.flowtrace("main", it.runtime.graph) is None
        it.recordings.start("main", 100, SIZE, {})
        await it.recordings.settle(30)
        await it.send("greet.IN", "Ada")
        await it.until(lambda lines: len(lines) == 2)
        it.recordings.stop("main")
        await it.recordings.settle(30)
        await it.send("greet.IN", "Bea")
        it.recordings.start("main", 100, SIZE, {})
        await it.recordings.settle(30)
        await it.send("greet.IN", "Cleo")
        lines = await it.until(lambda lines: any("Hello, Cleo" in line for line in lines))
        assert not any("-> IN greet" in line and "Bea" in line for line in lines)
        assert lines[0] == '-> IN greet DATA "Ada"'
        it.recordings.clear("main")
        assert it.trace().events == []
        it.recordings.start("main", 3, SIZE, {})
        await it.recordings.settle(30)
        assert it.trace().events == [], "another size is another ring"
        for name in ("Dan", "Eve"):
            await it.send("greet.IN", name)
        lines = await it.until(lambda lines: 'greet OUT -> IN show DATA "Hello, Eve!"' in lines)
        assert len(lines) == 3
        assert it.trace().dropped == 1, "each of the four was recorded once"


async def test_an_edit_of_the_graph_is_followed(tmp_path):
    async with running(tmp_path) as it:
        await it.runtime.until_complete(30)
        it.recordings.start("main", 100, SIZE, {})
        await it.recordings.settle(30)
        (edge,) = it.runtime.graph.edges
        it.runtime.graph.remove_edge(edge.src, edge.tgt)
        it.runtime.main.change(it.runtime.graph)
        await it.runtime.coordinator.until(
            lambda _: not it.runtime.coordinator.network.memory.bindings, 30
        )
        it.recordings.change()
        await it.recordings.settle(30)
        await it.send("greet.IN", "Ada")
        await it.send("show.IN", "the end")
        lines = await it.until(lambda lines: '-> IN show DATA "the end"' in lines)
        assert not any("greet OUT" in line for line in lines)


async def test_other_events_are_recorded_while_packets_are(tmp_path):
    async with running(tmp_path) as it:
        it.recordings.event("main", "processerror", {"id": "greet", "error": "too early"})
        it.recordings.start("main", 100, SIZE, {})
        it.recordings.event("main", "processerror", {"id": "greet", "error": "x", "graph": "main"})
        (event,) = it.trace().events
        assert (event.command, event.graph) == ("processerror", "main")
        assert event.payload == {"id": "greet", "error": "x"}


async def test_nodes_of_a_further_graph_have_the_names_that_they_have_in_it(tmp_path):
    async with running(tmp_path, scope="other/") as it:
        network = await it.runtime.open("other", parse_fbp(GRAPH, "other.fbp"))
        network.pause(False)
        await network.coordinator.until(lambda status: status.complete, 30)
        it.recordings.start("other", 100, SIZE, {})
        await it.recordings.settle(30)
        await it.send("other/greet.IN", "Ada")
        lines = await it.until(lambda lines: len(lines) >= 2, "other")
        assert lines == ['-> IN greet DATA "Ada"', 'greet OUT -> IN show DATA "Hello, Ada!"']
