import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from msgflo.coordinator.coordinator import Coordinator
from msgflo.coordinator.network import Event, Life, NetworkStatus
from msgflo.errors import ConfigurationError, ConnectionLost
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Announcement, Definition, Goodbye, Port
from msgflo.flow.graph import Endpoint, Graph
from msgflo.flow.wiring import ROUNDROBIN
from msgflo.transport import direct
from msgflo.transport.contract import MESSAGE_ID, Delivery, Inlet

numbers = itertools.count(1)
A_TO_B = Binding(Kind.PUBSUB, "a.OUT", "b.IN")


@pytest.fixture
def url():
    name = f"coordinator-{next(numbers)}"
    yield f"direct://{name}"
    direct.forget(name)


@pytest.fixture
def hub(url: str) -> direct.Hub:
    return direct.hub(url.removeprefix("direct://"))


def chain(*initials: object) -> Graph:
    """a OUT -> IN b"""
    graph = Graph("chain")
    graph.add_node("a", "some/Source")
    graph.add_node("b", "some/Sink")
    graph.add_edge(Endpoint("a", "OUT"), Endpoint("b", "IN"))
    for data in initials:
        graph.add_initial(data, Endpoint("b", "OPTIONS"))
    return graph


class ByHand:
    """A participant that does everything by hand."""

    def __init__(self, url: str, role: str, instance: int = 1, id_: str = "") -> None:
        self.client = direct.Client(url)
        self.announcement = Announcement(
            Definition(
                id=id_ or f"{role}-{instance}",
                role=role,
                component="some/Thing",
                inports=tuple(
                    Port(name, queue=f"{role}.{name.upper()}") for name in ("in", "options")
                ),
                outports=(Port("out", queue=f"{role}.OUT"),),
            ),
            instance=instance,
            places=True,
            period=60.0,
        )
        self.got: asyncio.Queue[Delivery] = asyncio.Queue()

    async def start(self) -> "ByHand":
        await self.client.connect()
        definition = self.announcement.definition
        instance = self.announcement.instance or 1
        inlets = [Inlet(port.queue, instance) for port in definition.inports]
        await self.client.declare(inlets, [port.queue for port in definition.outports])
        for inlet in inlets:
            await self.client.consume(inlet, 10, self.got.put_nowait)
        self.client.on_told(lambda _: self.announce())
        self.announce()
        return self

    def announce(self) -> None:
        self._announcing = asyncio.ensure_future(self.client.announce(self.announcement.encode()))

    async def send(self, data: object) -> None:
        confirmed = asyncio.get_running_loop().create_future()
        queue = self.announcement.definition.outports[0].queue
        body = json.dumps(data).encode()
        self.client.send(queue, body, {MESSAGE_ID: f"m{next(numbers)}"}, confirmed.set_result)
        assert await asyncio.wait_for(confirmed, 5) is None

    async def receive(self) -> tuple[str, object]:
        delivery = await asyncio.wait_for(self.got.get(), 5)
        self.client.settle(delivery)
        return delivery.queue, json.loads(delivery.body)

    async def stop(self) -> None:
        definition = self.announcement.definition
        await self.client.announce(Goodbye(definition.id, definition.role).encode())
        await self.client.close()


@asynccontextmanager
async def coordinating(
    url: str, graph: Graph, memory: Path | None = None, told: Callable[[Event], None] = print
) -> AsyncIterator[Coordinator]:
    broker = direct.Broker(url)
    await broker.connect()
    coordinator = Coordinator(broker, graph, memory=memory, told=told)
    try:
        await coordinator.start()
        yield coordinator
    finally:
        await coordinator.close()
        await broker.close()


def is_complete(status: NetworkStatus) -> bool:
    return status.complete


async def bindings(url: str) -> list[Binding]:
    broker = direct.Broker(url)
    await broker.connect()
    found = await broker.bindings()
    await broker.close()
    return found


async def test_participants_are_joined_as_the_graph_says(url):
    async with coordinating(url, chain({"size": 3})) as coordinator:
        assert not coordinator.status().complete
        a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
        await coordinator.until(is_complete, 5)
        await a.send(0)
        assert sorted([await b.receive(), await b.receive()]) == [
            ("b.IN@1", 0),
            ("b.OPTIONS@1", {"size": 3}),
        ]
        await a.stop()
        await b.stop()
        status = await coordinator.until(lambda now: now.roles[1].life is Life.PENDING, 5)
        assert status.edges[0].reason == ""


async def test_participants_that_were_there_before_are_asked_who_they_are(url):
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    async with coordinating(url, chain()) as coordinator:
        await coordinator.until(is_complete, 5)
    await a.client.close()
    await b.client.close()


async def test_an_edit_rewires_what_runs(url):
    graph = chain()
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    async with coordinating(url, graph) as coordinator:
        await coordinator.until(is_complete, 5)
        graph.remove_edge(Endpoint("a", "OUT"), Endpoint("b", "IN"))
        graph.add_node("rr", ROUNDROBIN)
        graph.add_edge(Endpoint("a", "OUT"), Endpoint("rr", "IN"))
        graph.add_edge(Endpoint("rr", "OUT"), Endpoint("b", "IN"))
        coordinator.change_graph(graph)
        await coordinator.until(lambda now: now.complete and not now.found, 5)
        assert await bindings(url) == [Binding(Kind.ROUNDROBIN, "a.OUT", "b.IN")]
        await a.send("x")
        assert await b.receive() == ("b.IN", "x")
    await a.client.close()
    await b.client.close()


async def test_a_coordinator_that_comes_back_finds_the_network_as_it_was(url, tmp_path):
    memory = tmp_path / "new" / "memory.json"
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    async with coordinating(url, chain(1), memory) as coordinator:
        await coordinator.until(is_complete, 5)
        assert await b.receive() == ("b.OPTIONS@1", 1)
    await a.send("while it is away")
    assert await b.receive() == ("b.IN@1", "while it is away")
    told: list[Event] = []
    async with coordinating(url, chain(1), memory, told.append) as coordinator:
        assert coordinator.status().edges[0].bindings == (A_TO_B,)
        await coordinator.until(is_complete, 5)
        assert [event.kind for event in told] == ["live", "live"]
        await a.send("and after")
        assert await b.receive() == ("b.IN@1", "and after")
    assert b.got.empty()
    await a.client.close()
    await b.client.close()


async def test_a_coordinator_that_comes_back_removes_what_was_edited_away(url, tmp_path):
    memory = tmp_path / "memory.json"
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    async with coordinating(url, chain(), memory) as coordinator:
        await coordinator.until(is_complete, 5)
    graph = chain()
    graph.remove_edge(Endpoint("a", "OUT"), Endpoint("b", "IN"))
    async with coordinating(url, graph, memory) as coordinator:
        await coordinator.until(lambda now: now.complete and not now.found, 5)
        assert await bindings(url) == []
    await a.client.close()
    await b.client.close()


async def test_a_binding_is_written_down_before_it_is_made(url, tmp_path):
    memory = tmp_path / "memory.json"
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    written: list[str] = []

    def told(event: Event) -> None:
        if event.kind == "bound":
            written.append(memory.read_text())

    async with coordinating(url, chain(), memory, told) as coordinator:
        await coordinator.until(is_complete, 5)
    assert "a.OUT" in written[0]
    assert json.loads(written[0])["bindings"] == [["pubsub", "a.OUT", "b.IN"]]
    await a.client.close()
    await b.client.close()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'"\xff"',
        b"[" * 100_000,
        b"[]",
        b'{"bindings": [["nonsense", "a", "b"]]}',
        b'{"definitions": {"b": {"id": 5}}}',
    ],
    ids=lambda damage: repr(damage[:12]),
)
async def test_a_damaged_memory_is_told_and_the_network_found_again(url, tmp_path, damage):
    memory = tmp_path / "memory.json"
    memory.write_bytes(damage)
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    told: list[Event] = []
    async with coordinating(url, chain(), memory, told.append) as coordinator:
        assert "is damaged and is ignored" in told[0].text
        await coordinator.until(is_complete, 5)
    assert json.loads(memory.read_bytes())["bindings"] == [["pubsub", "a.OUT", "b.IN"]]
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]
    await a.client.close()
    await b.client.close()


async def test_a_memory_that_cannot_be_read_is_an_error_of_whoever_named_it(url, tmp_path):
    broker = direct.Broker(url)
    with pytest.raises(ConfigurationError, match="cannot read"):
        Coordinator(broker, chain(), memory=tmp_path)


async def test_a_memory_that_cannot_be_written_is_told_once_and_stops_nothing(url, tmp_path):
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    told: list[Event] = []
    memory = tmp_path / "sealed" / "memory.json"
    async with coordinating(url, chain(), memory, told.append) as coordinator:
        (tmp_path / "sealed").write_text("in the way")
        await coordinator.until(is_complete, 5)
        coordinator.vanished("b", 1)
        coordinator.change_graph(chain(5))
    assert sum("cannot write" in event.text for event in told) == 1
    await a.client.close()
    await b.client.close()


async def test_what_fails_while_the_broker_is_cut_off_is_done_when_it_is_back(url, hub):
    broker = direct.Broker(url)
    await broker.connect()
    graph = chain()
    coordinator = Coordinator(broker, graph)
    await coordinator.start()
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    await coordinator.until(is_complete, 5)
    hub.cut(broker)
    graph.add_edge(Endpoint("b", "OUT"), Endpoint("a", "IN"))
    coordinator.change_graph(graph)
    assert coordinator.status().edges[1].reason == "being bound"
    await b.stop()  # not heard
    b = await ByHand(url, "b", id_="b-again").start()
    hub.restore(broker)
    status = await coordinator.until(
        lambda now: (
            now.complete and now.roles[1].participants[0].announcement.definition.id == "b-again"
        ),
        5,
    )
    assert len(status.roles[1].participants) == 1, "it has taken the place of the other"
    await b.send("back")
    assert await a.receive() == ("a.IN@1", "back")
    await coordinator.close()
    for it in (a.client, b.client, broker):
        await it.close()


async def test_what_the_broker_forgot_is_bound_again_when_it_is_back(url, hub):
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    async with coordinating(url, chain()) as coordinator:
        await coordinator.until(is_complete, 5)
        hub.stop()
        hub.queues.unbind(A_TO_B, 0.0)
        hub.start()
        await coordinator.until(lambda now: A_TO_B in hub.queues.bindings(), 5)
        await coordinator.until(is_complete, 5)
    await a.client.close()
    await b.client.close()


async def test_a_malformed_announcement_is_told_and_stops_nothing(url):
    told: list[Event] = []
    async with coordinating(url, chain(), told=told.append) as coordinator:
        a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
        for nonsense in (b"", b"[" * 100_000, b'{"protocol": "discovery"}', b"\xff"):
            await a.client.announce(nonsense)
        await coordinator.until(is_complete, 5)
        a.announce()
        await coordinator.until(lambda _: sum(it.kind == "wrong" for it in told) == 4, 5)
        assert all(it.text.startswith("passed over: ") for it in told if it.kind == "wrong")
    await a.client.close()
    await b.client.close()


async def test_someone_who_cannot_bear_to_be_told_stops_nothing(url):
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def told(event: Event) -> None:
        raise ValueError(event.text)

    async with coordinating(url, chain(), told=told) as coordinator:
        a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
        await coordinator.until(is_complete, 5)
    assert {type(it["exception"]) for it in complaints} == {ValueError}
    await a.client.close()
    await b.client.close()


async def test_a_closed_coordinator_does_nothing_any_more(url):
    broker = direct.Broker(url)
    await broker.connect()
    told: list[Event] = []
    coordinator = Coordinator(broker, chain(), told=told.append)
    await coordinator.start()
    waiting = asyncio.ensure_future(coordinator.until(is_complete, 5))
    await asyncio.sleep(0)
    await coordinator.close()
    await coordinator.close()
    with pytest.raises(ConnectionLost, match="was closed"):
        await waiting
    told.clear()
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    coordinator.change_graph(chain(1))
    coordinator.vanished("b", 1)
    seen = direct.Broker(url)
    await seen.connect()
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await seen.listen(heard.put_nowait)
    for _ in "ab":
        await asyncio.wait_for(heard.get(), 5)
    assert told == []
    assert await seen.bindings() == []
    for it in (a.client, b.client, seen, broker):
        await it.close()


async def test_until_gives_up_after_its_time(url):
    async with coordinating(url, chain()) as coordinator:
        with pytest.raises(TimeoutError):
            await coordinator.until(is_complete, 0.01)


async def test_two_networks_on_one_broker_leave_each_other_alone(url):
    other = Graph("other")
    for node in "cd":
        other.add_node(node, "some/Thing")
    other.add_edge(Endpoint("c", "OUT"), Endpoint("d", "IN"))
    everybody = [await ByHand(url, role).start() for role in "abcd"]
    async with coordinating(url, chain()) as one, coordinating(url, other) as two:
        await one.until(is_complete, 5)
        await two.until(is_complete, 5)
        two.change_graph(Graph("empty"))
        one.change_graph(chain())
        await two.until(lambda _: len(direct.hub(url[9:]).queues.bindings()) == 1, 5)
        assert await bindings(url) == [A_TO_B]
        assert {role.role for role in one.status().roles if not role.wanted} == {"c", "d"}
    for it in everybody:
        await it.client.close()


async def test_a_participant_whose_process_ended_is_lost_at_once(url):
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    async with coordinating(url, chain()) as coordinator:
        await coordinator.until(is_complete, 5)
        coordinator.vanished("b", 1)
        status = await coordinator.until(lambda now: now.roles[1].life is Life.LOST, 5)
        assert status.edges[0].reason == ""
    await a.client.close()
    await b.client.close()


async def test_the_memory_is_replaced_whole(url, tmp_path):
    memory = tmp_path / "memory.json"
    a, b = await ByHand(url, "a").start(), await ByHand(url, "b").start()
    async with coordinating(url, chain(), memory) as coordinator:
        await coordinator.until(is_complete, 5)
        before = memory.stat().st_ino
        coordinator.change_graph(chain(7))
        await b.receive()
    assert memory.stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]
    await a.client.close()
    await b.client.close()
