"""Brokers that are killed, hang, are full, or are out of reach."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.brokers import BrokerUnderTest, NatsUnderTest, RabbitUnderTest, rabbitmq_cluster
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


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsUnderTest]:
    (tmp_path / "broker").mkdir()
    server = NatsUnderTest(tmp_path / "broker")
    server.start()
    yield server
    server.end()


@pytest.fixture
def rabbit(tmp_path: Path) -> Iterator[RabbitUnderTest]:
    (tmp_path / "broker").mkdir()
    server = RabbitUnderTest(tmp_path / "broker")
    server.start()
    yield server
    server.end()


async def test_killed_three_times(broker: BrokerUnderTest, tmp_path: Path, table: Table) -> None:
    scene = Scene(tmp_path, 20_000, broker.network)

    async def harm() -> None:
        for part in (0.1, 0.4, 0.7):
            await scene.reaches(part)
            broker.kill()
            await asyncio.sleep(1)
            await asyncio.to_thread(broker.start)

    count = await scene.run(harm)

    table("the broker killed and started again", count, "3 times")


async def test_frozen(broker: BrokerUnderTest, tmp_path: Path, table: Table) -> None:
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


async def test_connections_cut(broker: BrokerUnderTest, tmp_path: Path, table: Table) -> None:
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


async def test_connections_held(broker: BrokerUnderTest, tmp_path: Path, table: Table) -> None:
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


async def test_disk_full_of_a_nats_server(tmp_path: Path, nats: NatsUnderTest) -> None:
    nats.kill()
    nats.configure(jetstream="max_file_store: 300KB")
    nats.start()
    # Hardly anybody works, so that what is sent stays.
    scene = Scene(tmp_path, 10_000, nats.network, work=SLOW)

    async def harm() -> None:
        full = scene.confirmed
        while True:  # until the broker has taken nothing more for a while
            await asyncio.sleep(2)
            if scene.confirmed == full and full:
                break
            full = scene.confirmed
        assert full < scene.messages
        nats.kill()
        nats.configure()
        await asyncio.to_thread(nats.start)

    count = await scene.run(harm, pace=5000)

    Table("nats")("the disk full, until room was made", count)


@pytest.mark.parametrize(
    ("alarm", "over"),
    [
        (("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.6")),
        (("set_disk_free_limit", "100000GB"), ("set_disk_free_limit", "50MB")),
    ],
    ids=["memory", "disk"],
)
async def test_alarm_of_a_rabbitmq(
    tmp_path: Path, rabbit: RabbitUnderTest, alarm: tuple[str, ...], over: tuple[str, ...]
) -> None:
    scene = Scene(tmp_path, 6000, rabbit.network)

    async def harm() -> None:
        await scene.reaches(0.2)
        await asyncio.to_thread(rabbit.control, *alarm)
        await asyncio.sleep(10)
        await scene.kill_somebody()
        await asyncio.sleep(5)
        await asyncio.to_thread(rabbit.control, *over)

    count = await scene.run(harm, pace=1500)

    what = alarm[0].split("_")[1].replace("vm", "memory")
    Table("amqp")(f"an alarm of the broker ({what}) for 15 s, a participant killed in it", count)


async def test_a_rabbitmq_closes_its_connections(tmp_path: Path, rabbit: RabbitUnderTest) -> None:
    scene = Scene(tmp_path, 20_000, rabbit.network, instances=3)
    closed = 0

    async def harm() -> None:
        nonlocal closed
        while scene.accounted < scene.messages * 0.9:
            await asyncio.sleep(1)
            await asyncio.to_thread(rabbit.control, "close_all_connections", "by hand")
            closed += 1

    count = await scene.run(harm, pace=1000)

    assert closed >= 1
    Table("amqp")("the server closes all connections", count, f"{closed} times")


async def test_a_cluster_with_quorum_queues_loses_a_node(tmp_path: Path) -> None:
    nodes = rabbitmq_cluster(RabbitUnderTest, tmp_path)
    try:
        for node in nodes:
            node.start()
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        scene = Scene(tmp_path, 10_000, f"amqp://guest:guest@{hosts}/?heartbeat=6&queues=quorum")

        async def harm() -> None:
            await scene.reaches(0.2)
            nodes[2].kill()
            await scene.reaches(0.5)
            await asyncio.to_thread(nodes[2].start)
            await scene.reaches(0.6)
            nodes[1].kill()
            await scene.reaches(0.9)

        count = await scene.run(harm, pace=500)
    finally:
        for node in nodes:
            node.kill()
        nodes[0].end()

    Table("amqp, 3 nodes, quorum queues")("one node after another killed under load", count)


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
