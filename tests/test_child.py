"""Handlers in processes of their own: real ones, which can be killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import msgflo
from msgflo.errors import DefinitionError
from msgflo.loading import load_components
from msgflo.transport.contract import POISON_LIMIT
from networks import until

FILE = """
import os, signal, sys, time
from collections.abc import Iterator
from pathlib import Path
import msgflo
from msgflo import Context, Out, Param

@msgflo.component(executor="process", retry=msgflo.Retry(1, delay=0), concurrency=2)
def work(x: object, ctx: Context, more: Out[object], factor: Param[int] = 2) -> Iterator[object]:
    match x:
        case int():
            more({"pid": os.getpid(), "attempt": ctx.attempt, "id": ctx.id, "role": ctx.role})
            yield x * factor
            yield None
        case "raise":
            yield "before"
            raise ValueError("no")
        case "reject":
            raise msgflo.Reject("not this")
        case "later":
            if not Path(__file__).with_suffix(".later").exists():
                Path(__file__).with_suffix(".later").touch()
                raise msgflo.RetryLater(0)
            yield "later"
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die once":
            if ctx.attempt == 1:
                yield "half"
                os._exit(3)
            yield "whole"
        case "exit":
            sys.exit(5)
        case "hang":
            Path(__file__).with_suffix(".pid").write_text(str(os.getpid()))
            time.sleep(600)
        case "unsendable":
            yield object()

@msgflo.component(executor="process")
def block(data: bytes) -> bytes:
    return data[::-1]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "works.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def work(file):
    return load_components(file)[0]


async def test_a_process_does_what_a_thread_would_do(network, work):
    out, more = await network.collect(), await network.collect("r.MORE")
    await network.start(work)
    await network.put(21, message_id="a")
    await until(lambda: out == [42])
    assert more[0] == {"pid": more[0]["pid"], "attempt": 1, "id": "a", "role": "r"}
    assert more[0]["pid"] != os.getpid()
    await network.put(7, "r.FACTOR")
    await network.until_empty("r.FACTOR")
    await network.put(3)
    await until(lambda: out == [42, 21])
    await network.until_empty()


async def test_bytes_go_through(network, file):
    collected = await network.collect()
    await network.start(load_components(file)[1])
    await network.put(bytes(range(256)) * 1000)
    await until(lambda: collected == [(bytes(range(256)) * 1000)[::-1]])


async def test_what_it_raises_has_the_authors_traceback(network, work):
    collected = await network.collect()
    await network.start(work)
    for value in ("raise", "reject", "unsendable", "exit"):
        await network.put(value)
    letters = {letter.body: letter.death for letter in await network.until_dead(4)}
    assert letters[b'"raise"'].text == "no"
    assert 'raise ValueError("no")' in letters[b'"raise"'].traceback
    assert "child.py" not in letters[b'"raise"'].traceback
    assert (letters[b'"reject"'].error, letters[b'"reject"'].text) == ("Reject", "not this")
    assert "cannot send a value of type object" in letters[b'"unsendable"'].text
    assert letters[b'"exit"'].error == "SystemExit"
    await until(lambda: collected == ["before"])
    await network.put("later")
    await until(lambda: collected == ["before", "later"])


async def test_a_process_that_dies_takes_one_message_with_it_which_is_tried_again(network, work):
    out = await network.collect()
    await network.start(work)
    await network.put("die once")
    for number in range(10):
        await network.put(number)
    await until(lambda: len(out) == 12)
    assert sorted(map(str, out)) == sorted(
        ["half", "whole", *(str(2 * number) for number in range(10))]
    )
    assert await network.dead() == []


async def test_a_message_that_always_kills_its_process_is_a_dead_letter_that_says_how(
    network, work
):
    await network.start(work)
    await network.put("die")
    (letter,) = await network.until_dead()
    assert letter.death.error == "ProcessDied"
    assert letter.death.text == "the process that handled it was killed by SIGKILL"
    assert letter.death.attempts == 1 + POISON_LIMIT


async def test_a_process_that_is_still_at_work_after_the_grace_is_killed(network, work, file):
    engine = await network.start(work)
    await network.put("hang")
    pid_file = file.with_suffix(".pid")
    await until(lambda: pid_file.exists() and pid_file.read_text())
    pid = int(pid_file.read_text())
    assert not await engine.stop(0.0)
    await engine.close()
    await until(lambda: gone(pid))
    assert (await network.stats()).waiting == 1, "the message comes again, to whoever takes it"


async def test_the_processes_end_when_their_parent_is_killed(file, nats_server):
    """A parent that is killed cannot tell them: they notice, idle or at work."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "msgflo", "participant", str(file), "--component", "work"],
        env={**os.environ, "MSGFLO_BROKER": nats_server},
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"work(work) running")
        broker = msgflo.transport.broker(nats_server)
        await broker.connect()
        await broker.enqueue("work.IN", b'"hang"', {"Msgflo-Id": "a"})
        pid_file = file.with_suffix(".pid")
        await until(lambda: pid_file.exists() and pid_file.read_text())
        pid = int(pid_file.read_text())
        parent.send_signal(signal.SIGKILL)
        await until(lambda: gone(pid))
        await broker.close()
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


async def test_a_function_that_another_process_cannot_find_is_refused_at_the_start(network):
    with pytest.raises(DefinitionError, match="executor='process' needs a function at the top lev"):

        @msgflo.component(executor="process")
        def local(x: int) -> int:
            return x
