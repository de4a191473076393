"""The hold on the watchdog: it is there when there is something to watch."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from msgflo.processes.watchdog import Watchdog

WAIT = 20.0


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT)


async def until(true) -> None:
    async with asyncio.timeout(WAIT):
        # Nobody tells us of the end of another one's child.
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
def watchdog() -> Watchdog:
    return Watchdog("test-watchdog/", 10.0)


async def test_it_is_started_at_the_first_need_and_goes_when_it_is_sent_away(watchdog):
    assert watchdog.pid is None
    watchdog.close()
    with sleeper() as first, sleeper() as second:
        watchdog.add(first.pid)
        pid = watchdog.pid
        assert pid is not None
        watchdog.add(second.pid)
        assert watchdog.pid == pid
        watchdog.remove(first.pid)
        watchdog.close()
        assert watchdog.pid is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert first.poll() is second.poll() is None
        watchdog.close()
        watchdog.add(first.pid)  # closed is not for ever
        assert watchdog.pid not in (None, pid)
        watchdog.close()


async def test_it_ends_what_was_added_and_not_removed_when_its_holder_is_gone(watchdog):
    with sleeper() as ours, sleeper() as removed:
        watchdog.add(ours.pid)
        watchdog.add(removed.pid)
        watchdog.remove(removed.pid)
        # As the kernel does it for one that is killed.
        asyncio.get_running_loop().remove_reader(watchdog._socket.fileno())
        watchdog._socket.close()
        await until(lambda: ours.poll() is not None)
        assert ours.returncode == -signal.SIGTERM
        assert removed.poll() is None
        watchdog._socket = None
        watchdog.close()


async def test_one_that_ends_is_replaced_and_told_everything(watchdog, caplog):
    with sleeper() as ours:
        watchdog.add(ours.pid)
        first = watchdog.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: watchdog.pid not in (None, first))
        assert "another one is started" in caplog.text
        asyncio.get_running_loop().remove_reader(watchdog._socket.fileno())
        watchdog._socket.close()
        await until(lambda: ours.poll() is not None)
        watchdog._socket = None
        watchdog.close()


async def test_one_that_ends_again_and_again_is_given_up_and_that_is_said(watchdog, caplog):
    with sleeper() as ours:
        watchdog.add(ours.pid)
        for _ in range(5):
            pid = watchdog.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: watchdog.pid != pid)
        assert watchdog.pid is None
        assert "processes may outlive us" in caplog.text
        watchdog.remove(ours.pid)
        watchdog.close()


async def test_the_rest_goes_on_where_none_can_be_started(watchdog, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    with sleeper() as ours:
        watchdog.add(ours.pid)
        assert watchdog.pid is None
        assert "no watchdog: processes may outlive us" in caplog.text
        watchdog.remove(ours.pid)
        watchdog.close()
