"""Brokers that are killed, hang, are full, or are out of reach."""

import asyncio
from pathlib import Path

import pytest

from chaos.brokers import NatsUnderTest
from chaos.scene import Scene
from chaos.table import Table
from proxy import proxied
from servers import NatsCluster

SLOW = """
import asyncio

import msgflo

@msgflo.component("Work", concurrency=4)
async def work(number: int) -> int:
    await asyncio.sleep(0.02)
    return number
"""

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


async def test_killed_three_times(broker: NatsUnderTest, tmp_path: Path, table: Table) -> None:
    scene = Scene(tmp_path, 20_000, broker.network)

    async def harm() -> None:
        for part in (0.1, 0.4, 0.7):
            await scene.reaches(part)
            broker.kill()
            await asyncio.sleep(1)
            await asyncio.to_thread(broker.start)

    count = await scene.run(harm)

    table("the broker killed and started again", count, "3 times")


async def test_frozen(broker: NatsUnderTest, tmp_path: Path, table: Table) -> None:
    scene = Scene(tmp_path, 10_000, broker.network)

    async def harm() -> None:
        for part in (0.2, 0.6):
            await scene.reaches(part)
            broker.freeze()
            try:
                await asyncio.sleep(20)  # longer than any connection's patience
            finally:
                broker.thaw()

    count = await scene.run(harm)

    table("the broker stopped (SIGSTOP) for 20 s", count, "twice")


async def test_connections_cut(broker: NatsUnderTest, tmp_path: Path, table: Table) -> None:
    async with proxied(broker.port) as proxy:
        scene = Scene(
            tmp_path, 10_000, broker.network_at(proxy.port), edges=broker.network, instances=3
        )
        cuts = 0

        async def harm() -> None:
            nonlocal cuts
            while scene.accounted < scene.messages * 0.9:
                await asyncio.sleep(0.5)
                proxy.cut()
                cuts += 1

        count = await scene.run(harm, pace=1500)

    assert cuts > 3
    table("all connections of the network cut", count, f"{cuts} times")


async def test_connections_held(broker: NatsUnderTest, tmp_path: Path, table: Table) -> None:
    async with proxied(broker.port) as proxy:
        scene = Scene(tmp_path, 6_000, broker.network_at(proxy.port), edges=broker.network)

        async def harm() -> None:
            for part, seconds in ((0.2, 1.0), (0.4, 4.0), (0.6, 25.0)):
                await scene.reaches(part)
                proxy.hold()
                await asyncio.sleep(seconds)
                proxy.release()

        count = await scene.run(harm)

    table("nothing gets through for 1, 4 and 25 s, and then it does", count)


async def test_disk_full(broker: NatsUnderTest, tmp_path: Path, table: Table) -> None:
    if not isinstance(broker, NatsUnderTest):
        pytest.skip("this is how a nats-server runs out of room")
    broker.kill()
    broker.configure(jetstream="max_file_store: 300KB")
    broker.start()
    # Nobody works yet, so that what is sent stays.
    scene = Scene(tmp_path, 10_000, broker.network, work=SLOW)

    async def harm() -> None:
        full = scene.confirmed
        while True:  # until the broker has taken nothing more for a while
            await asyncio.sleep(2)
            if scene.confirmed == full and full:
                break
            full = scene.confirmed
        assert full < scene.messages
        broker.kill()
        broker.configure()
        await asyncio.to_thread(broker.start)

    count = await scene.run(harm, pace=5000)

    table("the disk full, until room was made", count)


async def test_cluster_loses_one_node_after_another(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path)
    cluster.start()
    try:
        url = f"{cluster.url}/chaos?replicas=3&redelivery=2"
        scene = Scene(tmp_path, 20_000, url)

        async def harm() -> None:
            for part, node in zip((0.1, 0.4, 0.7), cluster.nodes, strict=True):
                await scene.reaches(part)
                node.kill()
                await scene.reaches(part + 0.1)
                await asyncio.to_thread(node.start)

        count = await scene.run(harm, pace=1000)
    finally:
        cluster.kill()

    Table("nats, 3 nodes, replicas=3")("one node after another killed under load", count)
