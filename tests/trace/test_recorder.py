import asyncio
from itertools import count

import pytest

from msgflo import transport
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Definition, Port
from msgflo.flow.fbp import dump_fbp, parse_fbp
from msgflo.flow.wiring import wire
from msgflo.trace.flowtrace import Recording, event_lines, packet_data
from msgflo.trace.recorder import Recorder, observed_graph, routes
from msgflo.transport.contract import MESSAGE_ID

_numbers = count(1)


def role(name: str, ins: str = "", outs: str = "", **queues: str) -> tuple[str, Definition]:
    def ports(names: str) -> tuple[Port, ...]:
        return tuple(Port(it, queue=queues.get(it, f"{name}.{it.upper()}")) for it in names.split())

    return name, Definition(
        f"{name}-1", name, name.title(), inports=ports(ins), outports=ports(outs)
    )


ROLES = dict(
    [role("read", "path", "out"), role("show", "in"), role("keep", "in"), role("late", "in")]
)
GRAPH = parse_fbp(
    """
    'a.txt' -> PATH read(Read)
    read OUT -> IN show(Show)
    read OUT -> IN share(msgflo/RoundRobin)
    share OUT -> IN keep(Keep)
    share DEADLETTER -> IN late(Late)
    """,
    "g.fbp",
)


def end(node: str, port: str) -> dict[str, str]:
    return {"node": node, "port": port}


def test_what_passes_a_source_has_passed_each_edge_that_it_carries():
    found = routes(wire(GRAPH, ROLES).edges, ROLES)
    assert found["read.OUT"] == [
        (end("read", "out"), end("show", "in")),
        (end("read", "out"), end("share", "in")),
        (end("share", "out"), end("keep", "in")),
    ]
    assert found["show.IN"] == [(None, end("show", "in"))]
    assert found.keys() == {"read.OUT", "read.PATH", "show.IN", "keep.IN", "late.IN"}


def test_where_source_and_inport_have_one_name_a_message_is_recorded_once():
    roles = dict([role("a", "", "out", out="t"), role("b", "in", **{"in": "t"})])
    graph = parse_fbp("a(A) OUT -> IN b(B)", "g.fbp")
    assert routes(wire(graph, roles).edges, roles) == {"t": [(end("a", "out"), end("b", "in"))]}


def test_the_graph_of_what_is_bound_is_bound_in_the_same_way():
    wiring = wire(GRAPH, ROLES)
    seen = observed_graph(wiring.bindings, ROLES)
    assert wire(seen, ROLES).bindings == wiring.bindings
    assert not any(edge.reason for edge in wire(seen, ROLES).edges)
    assert "keep_in(msgflo/RoundRobin)" in dump_fbp(seen)


def test_what_is_bound_to_somebody_unknown_is_left_out_of_it():
    seen = observed_graph([Binding(Kind.PUBSUB, "read.OUT", "gone.IN")], ROLES)
    assert seen.edges == ()
    assert sorted(seen.nodes) == sorted(ROLES)


class Network:
    """Sources and queues on a broker, and a recorder."""

    def __init__(self, url: str) -> None:
        self.broker = transport.broker(url)
        self.client = transport.client(url)
        self.ring = Recording(0)
        self.news = asyncio.Event()
        self.recorder = Recorder(self.broker, self.ring, "main", added=self.news.set)

    async def __aenter__(self) -> "Network":
        await self.client.connect()
        await self.broker.connect()
        await self.client.declare([], ["read.OUT", "other.OUT"])
        for binding in wire(GRAPH, ROLES).bindings:
            await self.broker.bind(binding)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.broker.close()

    async def send(self, source: str, body: bytes) -> None:
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.client.send(source, body, {MESSAGE_ID: f"id-{next(_numbers)}"}, done.set_result)
        assert await done is None

    async def until(self, number: int) -> list[str]:
        while self.ring.recorded < number:
            self.news.clear()
            await self.news.wait()
        return list(event_lines(self.ring.flowtrace(1, {}).events))


@pytest.fixture(params=["direct", "nats_server", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "direct":
        return f"direct://recorder-{next(_numbers)}"
    return str(request.getfixturevalue(request.param))


async def test_packets_are_recorded_at_each_connection_as_they_were(url):
    async with Network(url) as it:
        await it.recorder.follow(routes(wire(GRAPH, ROLES).edges, ROLES))
        await it.send("read.OUT", b'{"n":1}')
        await it.broker.enqueue("show.IN", b"\xff", {MESSAGE_ID: "from-outside"})
        lines = await it.until(4)
        assert sorted(lines) == [
            '-> IN show DATA "/w=="',
            'read OUT -> IN share DATA {"n":1}',
            'read OUT -> IN show DATA {"n":1}',
            'share OUT -> IN keep DATA {"n":1}',
        ]
        events = it.ring.flowtrace(1, {}).events
        outside = next(event for event in events if event.payload["src"] is None)
        assert packet_data(outside.payload) == b"\xff"
        assert outside.payload["headers"][MESSAGE_ID] == "from-outside"
        assert outside.graph == "main"
        assert (outside.time or 0) > 1.7e9
        stats = {queue.queue: queue for queue in await it.broker.queues(["keep.IN"])}
        assert stats["keep.IN"].waiting == 1, "recording takes nothing away"


async def test_a_network_that_changes_is_followed(url):
    async with Network(url) as it:
        await it.recorder.follow({"read.OUT": [(end("read", "out"), end("show", "in"))]})
        await it.send("read.OUT", b"1")
        await it.until(1)
        await it.recorder.follow({"other.OUT": [(end("other", "out"), None)]})
        await it.send("read.OUT", b"2")
        await it.send("other.OUT", b"3")
        assert await it.until(2) == ["read OUT -> IN show DATA 1", "other OUT -> DATA 3"]
        await it.recorder.close()
        await it.recorder.close()
        await it.send("other.OUT", b"4")
        assert len(it.ring) == 2


async def test_other_events_can_be_recorded_too():
    ring = Recording(0)
    broker = transport.broker("direct://none")
    recorder = Recorder(broker, ring, "main", clock=lambda: 7.0)
    recorder.event("processerror", {"id": "read", "error": "broken"})
    (event,) = ring.flowtrace(8, {}).events
    assert (event.command, event.graph, event.time) == ("processerror", "main", 7.0)
