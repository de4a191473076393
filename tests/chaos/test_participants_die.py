"""Participants that are killed, hang, or are killed by what they are given."""

import os
import signal
from pathlib import Path

import pytest

from chaos import faults
from chaos.brokers import BrokerUnderTest
from chaos.scene import Scene
from chaos.table import Table

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

HANGS = """
import asyncio

import msgflo

@msgflo.component("Work", concurrency=4)
async def work(number: int) -> int:
    if number == 333:
        await asyncio.Event().wait()
    await asyncio.sleep(0.002)
    return number
"""

POISON = """
import os
import signal

import msgflo

@msgflo.component("Work", concurrency=4)
async def work(number: int) -> int:
    if number in (7, 777):
        os.kill(os.getpid(), signal.SIGKILL)
    return number
"""


async def test_killed_at_random_moments(
    broker: BrokerUnderTest, tmp_path: Path, table: Table
) -> None:
    scene = Scene(tmp_path, 20_000, broker.network, instances=4)

    count = await scene.run(lambda: scene.kill_at_random(0.4), pace=1500)

    assert scene.kills > 5
    table("participants killed at random moments", count, f"{scene.kills} kills, 4 instances")


@pytest.mark.parametrize("step", faults.STEPS)
async def test_killed_at_a_step(
    broker: BrokerUnderTest,
    tmp_path: Path,
    table: Table,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MSGFLO_TEST_FAULT", f"{step} 100")
    components = tmp_path / "components"
    (components / "faults").mkdir(parents=True)
    (components / "faults" / "__init__.py").write_text(faults.FAULTS)
    scene = Scene(tmp_path, 1000, broker.network, work=faults.WORK)

    count = await scene.run(pace=500)

    assert scene.deaths >= 5
    table(f"participants killed {step}", count, f"{scene.deaths} died, each at its 100th message")


async def test_a_participant_that_never_finishes(
    broker: BrokerUnderTest, tmp_path: Path, table: Table
) -> None:
    scene = Scene(tmp_path, 3000, broker.network, work=HANGS)

    async def end_it() -> None:
        await scene.reaches((scene.messages - 1) / scene.messages)  # all others have gone by
        (tmp_path / "components" / "work.py").write_text(HANGS.replace("333", "-1"))
        for pid in scene.pids():
            os.kill(pid, signal.SIGKILL)

    count = await scene.run(end_it)

    table("a message whose handling never ends, then its participant killed", count)


async def test_a_message_that_kills(broker: BrokerUnderTest, tmp_path: Path, table: Table) -> None:
    scene = Scene(tmp_path, 1500, broker.network, work=POISON)

    count = await scene.run(pace=1000, patience=120)

    assert count.dead >= 2
    table("two messages that kill whoever handles them", count)
