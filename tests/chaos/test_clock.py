"""Clocks that jump: participants with another idea of what time it is, and it changes."""

import asyncio
import shutil
from pathlib import Path

import pytest

from chaos.brokers import BrokerUnderTest
from chaos.scene import Scene
from chaos.table import Table

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


def faketime() -> str:
    found = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    assert found, "libfaketime is not installed: sudo apt-get install libfaketime"
    return str(found[0])


async def test_clocks_jump(
    broker: BrokerUnderTest, tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "time"
    said.write_text("+0")
    monkeypatch.setenv("LD_PRELOAD", faketime())
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(said))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    scene = Scene(tmp_path, 6000, broker.network)

    async def harm() -> None:
        for part, jump in ((0.1, "+2h"), (0.3, "-3h"), (0.5, "+40d"), (0.7, "-40d")):
            await scene.reaches(part)
            said.with_suffix(".new").write_text(jump)
            shutil.move(said.with_suffix(".new"), said)
            await asyncio.sleep(0.5)
            await scene.kill_somebody()

    count = await scene.run(harm, pace=1000)

    table("the participants' clocks jump by hours and weeks, both ways", count)
