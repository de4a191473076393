"""Connections that are made once, without anybody staying."""

import asyncio

import pytest

from msgflo.coordinator.setup import discover, set_up
from msgflo.errors import DiscoveryTimeout
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import Announcement, Definition, Port
from msgflo.flow.fbp import parse_fbp
from networks import Network

GRAPH = parse_fbp("""
web JOB -> IN share(msgflo/RoundRobin)
share OUT -> IN work(Work)
share DEADLETTER -> IN failed(Failed)
web(Web) JOB -> IN log(Log)
""")

BY_CONVENTION = [
    Binding(Kind.PUBSUB, "web.JOB", "log.IN"),
    Binding(Kind.DEADLETTER, "work.IN", "failed.IN"),
    Binding(Kind.ROUNDROBIN, "web.JOB", "work.IN"),
]


async def test_what_a_graph_asks_for_is_bound_by_convention_before_anybody_is_there(
    network: Network,
):
    done = await set_up(GRAPH, network.broker)
    assert done.bindings == tuple(BY_CONVENTION)
    assert done.problems == ()
    assert await network.broker.bindings() == sorted(BY_CONVENTION)
    assert await set_up(GRAPH, network.broker) == done
    assert await network.broker.bindings() == sorted(BY_CONVENTION)


async def test_bindings_beyond_the_graph_are_made_too_and_others_are_left(network: Network):
    theirs = Binding(Kind.PUBSUB, "x.OUT", "y.IN")
    await network.broker.bind(theirs)
    extra = [Binding(Kind.PUBSUB, "work.OUT", "web-1.RESULT"), BY_CONVENTION[0]]
    done = await set_up(GRAPH, network.broker, extra=extra)
    assert done.bindings == (*BY_CONVENTION, extra[0])
    assert theirs in await network.broker.bindings()


async def test_what_cannot_be_bound_is_said_and_stops_nothing_else(network: Network):
    graph = parse_fbp("a(A) OUT -> IN b(B)\na OUT -> UP share(msgflo/RoundRobin)")
    done = await set_up(graph, network.broker)
    assert done.bindings == (Binding(Kind.PUBSUB, "a.OUT", "b.IN"),)
    [problem] = done.problems
    assert problem.startswith("a OUT -> UP share: ")


async def test_queues_are_as_they_are_announced_when_that_is_waited_for(network: Network):
    client = await network.client()
    tasks = set()

    def answer(_: bytes) -> None:
        for role in ("web", "log"):
            ports = (Port("in", queue=f"/{role}/in"),), (Port("job", queue=f"/{role}/job"),)
            said = Announcement(Definition(role, role, role.title(), "", "", *ports))
            tasks.add(asyncio.ensure_future(client.announce(said.encode())))

    client.on_told(answer)
    graph = parse_fbp("web(Web) JOB -> IN log(Log)")
    definitions = await discover(graph, network.broker, 10)
    done = await set_up(graph, network.broker, definitions)
    assert done.bindings == (Binding(Kind.PUBSUB, "/web/job", "/log/in"),)


async def test_who_does_not_announce_himself_in_time_is_named(network: Network):
    graph = parse_fbp("ghost(Ghost) OUT -> IN web(Web)")
    with pytest.raises(DiscoveryTimeout, match="announced ghost, web within"):
        await discover(graph, network.broker, 0.01)
