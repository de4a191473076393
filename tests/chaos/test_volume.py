"""Many messages, over many steps."""

import asyncio
import os
from pathlib import Path

import pytest

from chaos.brokers import BrokerUnderTest
from chaos.scene import Scene
from chaos.table import Table

MESSAGES = {"nats": 1_000_000, "amqp": 200_000}
FEWER = int(os.environ.get("MSGFLO_CHAOS_MESSAGES", "1000000"))
"""At most so many, to try the test."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

STEP = """
import msgflo

@msgflo.component("Work", concurrency=500)
async def work(number: int) -> int:
    return number
"""

FOUR = """
feed(Feed) OUT -> IN s1(msgflo/RoundRobin) OUT -> IN one(work)
one OUT -> IN s2(msgflo/RoundRobin) OUT -> IN two(work)
two OUT -> IN s3(msgflo/RoundRobin) OUT -> IN three(work)
three OUT -> IN s4(msgflo/RoundRobin) OUT -> IN four(work)
four OUT -> IN s5(msgflo/RoundRobin) OUT -> IN done(Done)
failed(Failed)
"""


async def test_very_many_messages_through_four_roles(
    broker: BrokerUnderTest, tmp_path: Path, table: Table
) -> None:
    messages = min(MESSAGES[broker.scheme], FEWER)
    scene = Scene(tmp_path, messages, broker.network, work=STEP, graph=FOUR, instances=1)

    async def harm() -> None:
        while scene.accounted < scene.messages * 0.9:
            await asyncio.sleep(20)
            await scene.kill_somebody()

    count = await scene.run(harm, pace=20_000, patience=120)

    table("four roles, one behind the other; now and then one is killed", count)
