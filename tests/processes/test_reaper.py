"""What ends processes: found by group and by mark, asked, then killed."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msgflo.processes import reaper

WAIT = 20.0

LINUX = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@contextmanager
def shell(script: str, mark: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, that has printed a line."""
    environ = {**os.environ, reaper.MARK: mark} if mark else None
    process = subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True, env=environ
    )
    try:
        yield process
    finally:
        reaper.send(signal.SIGKILL, {process.pid}, set())
        process.wait(WAIT)
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], WAIT)[0], "it says nothing"
    return process.stdout.readline().strip()


def finish(ending: reaper.Ending, process: subprocess.Popen[str], now: float) -> None:
    """Step at one moment of time until nothing is left."""
    end = time.monotonic() + WAIT
    while not ending.step(now):
        process.poll()  # or it would stay a zombie
        assert time.monotonic() < end, "it does not end"
        time.sleep(0.01)


def until(true) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.01)


def test_a_group_lives_as_long_as_a_member_that_is_no_zombie():
    with shell("echo up; exec sleep 60") as process:
        said(process)
        assert reaper.living({process.pid}, "") == ({process.pid}, set())
        process.kill()
        # Nobody has asked how it ended: it is a zombie now, and that is not living.
        until(lambda: reaper.living({process.pid}, "") == (set(), set()))
        process.wait(WAIT)
        assert reaper.living({process.pid}, "") == (set(), set())


@LINUX
def test_what_left_the_group_is_found_by_the_mark_it_inherited():
    with shell("setsid sleep 60 & echo $!; wait", mark="test-run/1/") as process:
        stray = int(said(process))
        until(lambda: reaper.living({process.pid}, "test-run/1/")[1] == {stray})
        assert reaper.living(set(), "test-run/") == (set(), {process.pid, stray})
        assert reaper.living(set(), "test-run/12/") == (set(), set())
        assert reaper.living(set(), "other/") == (set(), set())
        reaper.send(signal.SIGKILL, set(), {stray})


def test_what_is_gone_is_no_error_to_signal():
    with shell("echo up") as process:
        said(process)
        process.wait(WAIT)
        reaper.send(signal.SIGTERM, {process.pid}, {process.pid})


def test_it_is_asked_before_the_deadline_and_asked_once():
    with shell("trap 'echo asked' TERM; echo up; while :; do sleep 0.02; done") as process:
        said(process)
        ending = reaper.Ending({process.pid}, "", deadline=100)
        assert not ending.step(0)
        assert said(process) == "asked"
        assert not ending.step(99)
        assert process.poll() is None
        finish(ending, process, 100)
        assert process.wait(WAIT) == -signal.SIGKILL
        assert process.stdout.read() == ""


def test_what_is_polite_is_never_killed():
    with shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done") as process:
        said(process)
        finish(reaper.Ending({process.pid}, "", deadline=100), process, 0)
        assert process.wait(WAIT) == 7


def test_a_stopped_process_is_killed_too():
    with shell("echo up; exec sleep 60") as process:
        said(process)
        ending = reaper.Ending({process.pid}, "", deadline=0)
        process.send_signal(signal.SIGSTOP)
        finish(ending, process, 0)
        assert process.wait(WAIT) == -signal.SIGKILL


class Watch:
    """The watchdog program, spoken to by hand."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__], stdin=subprocess.PIPE
        )

    def say(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.process.stdin.flush()

    def hang_up(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(WAIT)


def test_the_watchdog_ends_what_it_was_told_of_when_its_input_ends():
    with shell("echo up; exec sleep 60") as ours, shell("echo up; exec sleep 60") as taken_back:
        said(ours)
        said(taken_back)
        watch = Watch()
        watch.say(f"= run/ 10 {os.getpid()}", f"+ {ours.pid}", f"+ {taken_back.pid}")
        watch.say(f"- {taken_back.pid}")
        assert watch.process.poll() is None
        assert watch.hang_up() == 0
        assert ours.wait(WAIT) == -signal.SIGTERM
        assert taken_back.poll() is None


def test_the_watchdog_kills_what_does_not_listen_after_the_grace():
    with shell("trap '' TERM; echo up; while :; do sleep 0.02; done") as deaf:
        said(deaf)
        watch = Watch()
        watch.say(f"= run/ 0.1 {os.getpid()}", f"+ {deaf.pid}")
        assert watch.hang_up() == 0
        assert deaf.wait(WAIT) == -signal.SIGKILL


@LINUX
def test_the_watchdog_is_not_ended_by_what_ends_its_parent_and_goes_when_it_is_told():
    with shell("echo up; exec sleep 60") as ours:
        said(ours)
        watch = Watch()
        watch.say(f"= run/ 10 {os.getpid()}", f"+ {ours.pid}")
        status = Path(f"/proc/{watch.process.pid}/status")
        until(lambda: int(status.read_text().partition("SigIgn:")[2].split()[0], 16) & 1 << 14)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            watch.process.send_signal(number)
        watch.say(f"- {ours.pid}", ".")
        assert watch.process.wait(WAIT) == 0
        assert ours.poll() is None
        assert watch.hang_up() == 0


def test_the_watchdog_imports_next_to_nothing():
    code = (
        "import sys; source = open(sys.argv[1]).read(); exec(source, {'__name__': 'watchdog'});"
        "print(*{'asyncio', 'subprocess', 'pathlib', 're', 'msgflo'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, reaper.__file__],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    assert done.stdout.strip() == ""
