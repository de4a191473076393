"""One process: made, listened to, and ended with all that it started."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from msgflo.processes import reaper
from msgflo.processes.command import Command
from msgflo.processes.restarts import Exit
from msgflo.processes.spawn import Spawned, spawn, why_not

WAIT = 20.0


class Heard:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._new = asyncio.Event()

    def __call__(self, stream: str, line: str) -> None:
        self.lines.append((stream, line))
        self._new.set()

    async def lines_of(self, count: int) -> list[str]:
        async with asyncio.timeout(WAIT):
            while len(self.lines) < count:
                self._new.clear()
                await self._new.wait()
        return [line for _, line in self.lines]


@pytest.fixture
def heard() -> Heard:
    return Heard()


async def sh(script: str, heard: Heard, **env: str) -> Spawned:
    return await spawn(Command(("sh", "-c", script), env), "test-spawn/1/", heard)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_it_leads_a_session_and_a_group_and_is_marked(heard):
    process = await sh("echo $MSGFLO_SUPERVISED $MORE; exec sleep 60", heard, MORE="too")
    assert await heard.lines_of(1) == ["test-spawn/1/ too"]
    assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid
    assert reaper.MARK == "MSGFLO_SUPERVISED"
    await process.end(0)


async def test_its_end_is_heard_with_its_status(heard):
    process = await sh("exit 3", heard)
    async with asyncio.timeout(WAIT):
        assert await process.exited == 3
    assert await process.end(WAIT) == Exit(3)


async def test_all_that_it_printed_is_heard_before_its_end_is_told(heard):
    process = await sh("seq 1 5000; printf 'no end'", heard)
    await process.exited
    await process.end(WAIT)
    assert [line for _, line in heard.lines] == [*map(str, range(1, 5001)), "no end"]


async def test_end_asks_first_and_waits_for_a_tidy_end(heard):
    process = await sh(
        "trap 'echo tidy; exit 5' TERM; echo up; while :; do sleep 0.02; done", heard
    )
    await heard.lines_of(1)
    assert await process.end(WAIT) == Exit(5)
    assert heard.lines[-1] == ("stdout", "tidy")


async def test_end_kills_what_does_not_listen_and_what_it_started(heard):
    script = (
        "trap '' TERM; sleep 60 & echo $!; setsid sh -c \"trap '' TERM; echo \\$\\$; "
        'while :; do sleep 0.02; done" & while :; do sleep 0.02; done'
    )
    process = await sh(script, heard)
    pids = [int(line) for line in await heard.lines_of(2)]
    assert await process.end(0.1) == Exit(-signal.SIGKILL)
    assert not any(runs(pid) for pid in [process.pid, *pids])


async def test_a_child_that_keeps_the_pipe_does_not_keep_us(heard):
    # It leaves the group and the mark, as a daemon can: nobody may end it, and nobody waits for it.
    script = "env -u MSGFLO_SUPERVISED setsid sleep 60 & echo $!; printf 'last words'; exit 4"
    process = await sh(script, heard)
    async with asyncio.timeout(WAIT):
        await process.exited
        assert await process.end(5) == Exit(4)
    daemon = int(heard.lines[0][1])
    try:
        assert runs(daemon)
        assert heard.lines[-1] == ("stdout", "last words")
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda f: Command(("no-such",)), "there is no program 'no-such' on the PATH"),
        (lambda f: Command(("./no", "x"), cwd=f), "there is no program './no' in "),
        (lambda f: Command(("true",), cwd=f / "no"), "no is not there"),
        (lambda f: Command((str(f / "plain"),)), "is it executable?"),
        (lambda f: Command((str(f / "lost"),)), "the interpreter that its first line names is not"),
        (lambda f: Command((str(f / "binary"),)), "does its first line name an interpreter?"),
        (lambda f: Command(("true", "x" * 3_000_000)), "true: Argument list too long"),
    ],
)
async def test_why_it_cannot_be_made_is_a_sentence(tmp_path, heard, make, expected):
    (tmp_path / "plain").write_text("x")
    for name, text in (("lost", "#!/no/such/interpreter\n"), ("binary", "\x01\x02\x03")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    command = make(tmp_path)
    with pytest.raises(OSError) as caught:
        await spawn(command, "test-spawn/2/", heard)
    assert expected in why_not(command, caught.value)


async def test_cancelled_there_is_no_process(heard, tmp_path):
    mark = f"test-spawn/{tmp_path.name}/"
    making = asyncio.create_task(spawn(Command(("sleep", "60")), mark, heard))
    await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    async with asyncio.timeout(WAIT):
        while reaper.living(set(), mark)[1]:
            await asyncio.sleep(0.02)
