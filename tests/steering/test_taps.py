import asyncio
import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.flow.fbp import parse_fbp
from msgflo.flow.graph import Endpoint
from msgflo.steering.taps import SHOWN_BYTES, shown, sources_of
from msgflo.transport import client as transport_client
from msgflo.transport.contract import MESSAGE_ID

WAIT = 60.0
EDGE = {"src": {"node": "a", "port": "out"}, "tgt": {"node": "b", "port": "in"}}


def test_what_passes_a_virtual_node_comes_from_all_that_leads_into_it():
    graph = parse_fbp(
        """
        a(A) OUT -> IN one(msgflo/RoundRobin) OUT -> IN two(msgflo/PubSub) OUT -> IN z(Z)
        b(B) OUT -> IN one
        c(C) MORE -> IN two
        two OUT -> IN one
        one DEADLETTER -> IN dead(D)
        """
    )

    def found(node, port="out"):
        return {str(end) for end in sources_of(graph, Endpoint(node, port))}

    assert found("a") == {"a.out"}
    assert found("two") == {"a.out", "b.out", "c.more"}
    assert found("one") == {"a.out", "b.out", "c.more"}
    assert found("one", "deadletter") == set()
    assert found("nobody") == set()


def test_payloads_are_shown_as_what_people_can_look_at():
    assert shown(b'{"a": [0, null]}') == {"a": [0, None]}
    assert shown(b"plain text") == "plain text"
    assert shown(b"\x89PNG\x00") == {"base64": "iVBORwA="}
    large = shown(json.dumps("x" * 100_000).encode())
    assert large.startswith('"xxx')
    assert large.endswith("... (100002 bytes)")
    assert len(large) < SHOWN_BYTES + 100
    assert shown(b"\x00" * 100_000) == "<100000 bytes>"


@given(st.binary(max_size=300))
def test_any_payload_can_be_shown(body):
    json.dumps(shown(body), allow_nan=False)


async def test_what_nobody_looks_at_is_not_tapped(steering):
    async with steering() as it:
        await it.complete()
        taps = it.service.desk._taps
        # The exported outport, which is told to every client.
        await taps.settle(WAIT)
        assert set(taps._looks) == {"b.OUT"}
        await it.client.command("network", "edges", graph="main", edges=[EDGE])
        await taps.settle(WAIT)
        assert set(taps._looks) == {"a.OUT", "b.OUT"}
        await it.client.command("graph", "removeoutport", public="result", graph="main")
        await it.client.command("network", "edges", graph="main", edges=[])
        await taps.settle(WAIT)
        assert not taps._looks


@pytest.mark.timeout(180)
async def test_a_flood_is_sampled_and_delays_no_command(steering):
    """10 000 messages, as fast as they go, past an edge that a client looks at."""
    async with steering() as it:
        await it.complete()
        await it.client.command("graph", "removeoutport", public="result", graph="main")
        await it.client.command("network", "edges", graph="main", edges=[EDGE])
        await it.service.desk._taps.settle(WAIT)
        sender = transport_client(it.runtime.url)
        await sender.connect()
        numbers = itertools.count()
        slowest = 0.0
        try:
            for _ in range(10):
                for _ in range(1000):
                    headers = {MESSAGE_ID: f"flood-{next(numbers)}"}
                    sender.send("a.OUT", b'"flood"', headers, lambda _error: None)
                began = time.monotonic()
                await it.client.command("network", "getstatus", graph="main")
                slowest = max(slowest, time.monotonic() - began)
            await sender.flush(WAIT)
        finally:
            await sender.close()
        heard = 0
        try:
            async with asyncio.timeout(1.0):
                async for push in it.client.pushes():
                    heard += push.command == "data"
        except TimeoutError:
            pass
        assert 0 < heard < 2000
        assert slowest < 10
