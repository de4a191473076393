"""The supervisor, with real processes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from msgflo.errors import StartFailed
from msgflo.processes import reaper
from msgflo.processes.command import Command
from msgflo.processes.restarts import Exit, Limits
from msgflo.processes.supervisor import ProcessState, State, Supervisor

WAIT = 20.0
QUICK = Limits(quick=10, tries=3, first=0.01, longest=0.02, announce=WAIT)


class Heard:
    """What a supervisor said, and a way to wait for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, str, str]] = []
        self.changes: list[ProcessState] = []
        self._new = asyncio.Event()

    def output(self, role: str, instance: int, stream: str, line: str) -> None:
        self.lines.append((role, instance, stream, line))
        self._new.set()

    def change(self, state: ProcessState) -> None:
        self.changes.append(state)
        self._new.set()

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not true():
                self._new.clear()
                await self._new.wait()

    async def line(self, text: str) -> None:
        await self.until(lambda: any(line[3] == text for line in self.lines))

    async def state(self, role: str, state: State) -> ProcessState:
        def found() -> list[ProcessState]:
            return [said for said in self.changes if (said.role, said.state) == (role, state)]

        await self.until(found)
        return found()[-1]

    def states(self, role: str) -> list[str]:
        return [str(said.state) for said in self.changes if said.role == role]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def supervisor(heard):
    async with asyncio.timeout(2 * WAIT), supervise(heard) as made:
        yield made


@contextlib.asynccontextmanager
async def supervise(heard: Heard, grace: float = WAIT, limits: Limits = QUICK):
    made = Supervisor(heard.output, heard.change, grace=grace, limits=limits)
    try:
        yield made
    finally:
        await made.close()


def sh(script: str, **env: str) -> Command:
    return Command(("sh", "-c", script), env)


def python(code: str) -> Command:
    return Command((sys.executable, "-I", "-S", "-u", "-c", code))


def runs(pid: int) -> bool:
    """Tell whether a process runs: it is there, and no zombie that nobody asks about."""
    try:
        os.kill(pid, 0)
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return False


# Starting and being ready


async def test_a_process_is_ready_when_it_is_announced_and_not_when_it_prints(supervisor, heard):
    made = await supervisor.start("web", 1, sh("echo hello; exec sleep 60"))
    assert made.state is State.STARTING
    assert runs(made.pid)
    await heard.line("hello")
    assert supervisor.process("web", 1).state is State.STARTING
    assert supervisor.announced("web", 1)
    ready = supervisor.process("web", 1)
    assert ready.state is State.RUNNING
    assert 0 < ready.ready_in < WAIT
    assert supervisor.announced("web", 1)
    assert heard.states("web") == ["starting", "running"]


async def test_an_announcement_without_an_instance_means_the_first_that_is_waited_for(supervisor):
    await supervisor.start("web", 1, sh("exec sleep 60"))
    await supervisor.start("web", 2, sh("exec sleep 60"))
    assert supervisor.announced("web")
    assert [said.state for said in supervisor.processes()] == ["running", "starting"]
    assert supervisor.announced("web")
    assert [said.state for said in supervisor.processes()] == ["running", "running"]
    assert supervisor.announced("web")
    assert not supervisor.announced("other")
    assert not supervisor.announced("other", 1)


async def test_a_process_that_is_not_announced_in_time_is_shown_as_such_and_left_running(heard):
    limits = Limits(announce=0.05)
    async with supervise(heard, limits=limits) as supervisor:
        await supervisor.start("slow", 1, sh("echo loading; exec sleep 60"))
        await heard.line("loading")
        await heard.until(lambda: heard.changes[-1].reason)
        late = supervisor.process("slow", 1)
        assert late.state is State.STARTING
        assert late.reason == "not announced after 0.05 s"
        assert late.last_lines == ("loading",)
        assert runs(late.pid)
        assert supervisor.announced("slow", 1)
        assert supervisor.process("slow", 1).reason == ""


async def test_a_process_gets_the_commands_environment_and_folder_and_no_input(
    supervisor, heard, tmp_path
):
    script = 'echo "$MSGFLO_ROLE $HOME $(pwd -P)"; cat; echo end'
    command = Command(("sh", "-c", script), {"MSGFLO_ROLE": "web"}, tmp_path)
    await supervisor.start("web", 1, command, "never")
    await heard.line("end")
    assert heard.lines[0][3] == f"web {os.environ['HOME']} {tmp_path.resolve()}"


async def test_many_are_started_at_once_and_soon(supervisor, heard):
    async with asyncio.timeout(5):
        await asyncio.gather(
            *(supervisor.start("many", n, sh("exec sleep 60")) for n in range(1, 21))
        )
    assert len({said.pid for said in supervisor.processes()}) == 20
    assert all(runs(said.pid) for said in supervisor.processes())


async def test_starting_what_runs_does_nothing_and_another_command_replaces_it(supervisor, heard):
    slow_to_end = sh("trap 'sleep 0.2; exit 0' TERM; echo up; while :; do sleep 0.02; done")
    first = await supervisor.start("web", 1, slow_to_end)
    await heard.line("up")
    again = await supervisor.start("web", 1, slow_to_end)
    assert again.pid == first.pid
    other = await supervisor.start("web", 1, sh("exec sleep 61"))
    assert other.pid != first.pid
    assert not runs(first.pid)
    assert len(supervisor.processes()) == 1


async def test_starting_the_same_at_the_same_time_starts_one(supervisor):
    made = await asyncio.gather(*(supervisor.start("a", 1, sh("exec sleep 60")) for _ in range(5)))
    assert len({said.pid for said in made}) == 1


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: Command(("no-such-program", "x")), "there is no program 'no-such-program'"),
        (lambda folder: Command(("./no", "x"), cwd=folder), "there is no program './no' in "),
        (lambda folder: Command(("true",), cwd=folder / "nope"), "nope is not there"),
        (lambda folder: Command((str(folder / "plain"),)), "may not be run"),
        (lambda folder: Command((str(folder / "lost"),)), "the interpreter that its first line"),
    ],
)
async def test_a_program_that_cannot_be_run_is_an_error_and_a_failed_instance(
    supervisor, heard, tmp_path, make, expected
):
    (tmp_path / "plain").write_text("x")
    (tmp_path / "lost").write_text("#!/no/such/interpreter\n")
    (tmp_path / "lost").chmod(0o755)
    with pytest.raises(StartFailed, match=expected):
        await supervisor.start("web", 1, make(tmp_path))
    failed = supervisor.process("web", 1)
    assert failed.state is State.FAILED
    assert expected in failed.reason
    assert heard.states("web") == ["failed"]


@pytest.mark.parametrize("wrong", [{"instance": 0}, {"restart": "sometimes"}])
async def test_wrong_arguments_are_refused(supervisor, wrong):
    said = {"instance": 1, "restart": "never"} | wrong
    with pytest.raises(ValueError):
        await supervisor.start("web", said["instance"], sh("true"), said["restart"])
    assert supervisor.processes() == []


# Ends


async def test_a_good_end_is_left_alone(supervisor, heard):
    await supervisor.start("job", 1, sh("exit 0"))
    done = await heard.state("job", State.EXITED)
    assert done.exit == Exit(0)
    assert done.pid is None
    assert not done.alive


async def test_a_failing_process_is_tried_again_until_it_is_given_up_with_its_last_words(
    supervisor, heard
):
    code = "import sys; print('trying'); sys.exit('ModuleNotFoundError: no PIL')"
    await supervisor.start("bad", 1, python(code))
    failed = await heard.state("bad", State.FAILED)
    assert failed.exit == Exit(1)
    assert failed.tries == 3
    assert failed.restarts == 2
    assert "exited with status 1; it ended 3 times in a row" in failed.reason
    assert sorted(failed.last_lines) == ["ModuleNotFoundError: no PIL", "trying"]
    assert heard.states("bad") == ["starting", "backing-off"] * 2 + ["starting", "failed"]
    assert sum(line[3] == "trying" for line in heard.lines) == 3
    backing = [said for said in heard.changes if said.state is State.BACKING_OFF]
    assert [said.tries for said in backing] == [1, 2]
    assert all(said.retry_at >= said.since for said in backing)
    assert backing[0].reason == "exited with status 1"


async def test_a_killed_process_names_its_signal_and_comes_back_with_another_pid(supervisor, heard):
    first = await supervisor.start("web", 1, sh("exec sleep 60"))
    supervisor.announced("web", 1)
    os.kill(first.pid, signal.SIGKILL)
    backing = await heard.state("web", State.BACKING_OFF)
    assert backing.exit.signal == "SIGKILL"
    await heard.until(lambda: heard.states("web")[-1] == "starting")
    second = supervisor.process("web", 1)
    assert second.pid != first.pid
    assert second.ready_in is None
    assert second.restarts == 1


async def test_policies_never_and_always(supervisor, heard):
    await supervisor.start("never", 1, sh("exit 4"), "never")
    await supervisor.start("always", 1, sh("exit 0"), "always")
    never = await heard.state("never", State.FAILED)
    assert str(never.exit) == "exited with status 4"
    assert heard.states("never") == ["starting", "failed"]
    await heard.state("always", State.FAILED)
    assert heard.states("always").count("starting") == 3


async def test_a_failed_instance_can_be_started_again_with_a_clean_record(supervisor, heard):
    await supervisor.start("bad", 1, sh("exit 1"), "never")
    await heard.state("bad", State.FAILED)
    again = await supervisor.restart("bad", 1)
    assert again.state is State.STARTING
    assert again.tries == 0


async def test_one_that_runs_is_started_with_a_renewed_command_the_next_time(supervisor, heard):
    await supervisor.start("web", 1, sh("echo $SAID; exec sleep 60", SAID="old"))
    await heard.line("old")
    supervisor.renew("web", 1, sh("echo $SAID; exec sleep 61", SAID="new"))
    supervisor.renew("web", 2, sh("echo no such instance"))
    before = supervisor.process("web", 1)
    assert runs(before.pid)
    assert before.command == "sh -c 'echo $SAID; exec sleep 60'"
    os.kill(before.pid, signal.SIGKILL)
    await heard.line("new")
    assert supervisor.process("web", 1).command == "sh -c 'echo $SAID; exec sleep 61'"
    assert [line[3] for line in heard.lines] == ["old", "new"]


async def test_what_a_process_leaves_behind_is_ended_before_it_is_started_again(supervisor, heard):
    script = "sleep 60 & echo group $!; setsid sleep 60 & echo stray $!; sleep 0.2; exit 1"
    await supervisor.start("messy", 1, sh(script), "never")
    await heard.state("messy", State.FAILED)
    pids = [int(line[3].split()[1]) for line in heard.lines]
    assert len(pids) == 2
    assert not any(runs(pid) for pid in pids)


# Stopping


async def test_stop_asks_and_waits(supervisor, heard):
    code = (
        "import signal, sys, threading\n"
        "def end(*_): print('tidy'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up'); threading.Event().wait()"
    )
    made = await supervisor.start("web", 1, python(code))
    await heard.line("up")
    await supervisor.stop("web", 1)
    assert ("web", 1, "stdout", "tidy") in heard.lines
    assert not runs(made.pid)
    stopped = supervisor.process("web", 1)
    assert stopped.state is State.STOPPED
    assert stopped.exit == Exit(0)
    assert heard.states("web") == ["starting", "stopping", "stopped"]
    await supervisor.stop("web", 1)
    await supervisor.stop("nobody")
    assert heard.states("web")[-1] == "stopped"


async def test_what_does_not_listen_is_killed_after_the_grace_grandchildren_included(heard):
    async with supervise(heard, grace=0.2) as supervisor:
        script = (
            "trap '' TERM; sh -c \"trap '' TERM; sleep 60\" & echo $!;"
            " setsid sh -c \"trap '' TERM; echo \\$\\$; sleep 60\" & wait"
        )
        made = await supervisor.start("deaf", 1, sh(script))
        await heard.until(lambda: len(heard.lines) == 2)
        await supervisor.stop("deaf")
        assert supervisor.process("deaf", 1).exit.signal == "SIGKILL"
        assert not any(runs(pid) for pid in [made.pid, *(int(line[3]) for line in heard.lines)])


async def test_stop_of_a_role_stops_all_its_instances_and_no_others(supervisor):
    for role, instance in (("a", 1), ("a", 2), ("b", 1)):
        await supervisor.start(role, instance, sh("exec sleep 60"))
    await supervisor.stop("a")
    states = {said.name: said.state for said in supervisor.processes()}
    assert states == {"a.1": "stopped", "a.2": "stopped", "b.1": "starting"}
    supervisor.forget("a", 1)
    supervisor.forget("b", 1)
    assert [said.name for said in supervisor.processes()] == ["a.2", "b.1"]


async def test_stop_ends_the_waiting_for_another_try(heard):
    async with supervise(heard, limits=Limits(first=600, longest=600)) as supervisor:
        await supervisor.start("bad", 1, sh("exit 1"))
        await heard.state("bad", State.BACKING_OFF)
        async with asyncio.timeout(5):
            await supervisor.stop("bad")
        assert supervisor.process("bad", 1).state is State.STOPPED


async def test_cancelling_a_stop_does_not_keep_the_process_alive(heard):
    async with supervise(heard, grace=0.3) as supervisor:
        made = await supervisor.start("deaf", 1, sh("trap '' TERM; echo up; sleep 60"))
        await heard.line("up")
        stop = asyncio.create_task(supervisor.stop("deaf"))
        await heard.state("deaf", State.STOPPING)
        stop.cancel()
        await heard.state("deaf", State.STOPPED)
        assert not runs(made.pid)


async def test_close_ends_everything_at_once_and_the_watchdog_and_refuses_new_ones(heard):
    async with supervise(heard, grace=1) as supervisor:
        for instance in range(1, 6):
            await supervisor.start("deaf", instance, sh("trap '' TERM; echo up; sleep 60"))
        await heard.until(lambda: len(heard.lines) == 5)
        watchdog = supervisor.watchdog_pid
        assert runs(watchdog)
        pids = [said.pid for said in supervisor.processes()]
        async with asyncio.timeout(4):
            await supervisor.close()
        assert not any(runs(pid) for pid in [*pids, watchdog])
        await supervisor.close()
        with pytest.raises(RuntimeError, match="closed"):
            await supervisor.start("late", 1, sh("true"))


def test_a_loop_that_ends_without_close_ends_the_processes_gracefully():
    pid = 0

    async def main() -> None:
        nonlocal pid
        heard = Heard()
        supervisor = Supervisor(heard.output, heard.change, grace=5)
        script = "trap 'echo tidy; exit 0' TERM; echo up; while :; do sleep 0.02; done"
        pid = (await supervisor.start("a", 1, sh(script))).pid
        await heard.line("up")
        asyncio.get_running_loop().call_soon(supervisor._house.watchdog.close)

    asyncio.run(main())
    assert not runs(pid)


# Output


async def test_both_streams_are_heard_and_the_last_lines_kept_without_colours(supervisor, heard):
    script = r"""
        n=1; while [ $n -le 25 ]; do echo "line $n"; n=$((n+1)); done
        printf '\033[31mred\033[2J\033[0m' >&2; exit 1"""
    await supervisor.start("talk", 1, sh(script), "never")
    failed = await heard.state("talk", State.FAILED)
    assert ("talk", 1, "stderr", "\x1b[31mred\x1b[0m") in heard.lines
    assert sum(line[2] == "stdout" for line in heard.lines) == 25
    assert len(failed.last_lines) == 20
    assert "red" in failed.last_lines
    assert "line 25" in failed.last_lines
    assert "last line: " in str(failed)


async def test_a_flood_is_heard_in_full_and_an_endless_line_is_cut(supervisor, heard):
    code = (
        "import sys\n"
        "for n in range(20000): print(n)\n"
        "sys.stdout.write('x' * 10_000_000); sys.stdout.flush()"
    )
    await supervisor.start("flood", 1, python(code), "never")
    await heard.state("flood", State.EXITED)
    assert [line[3] for line in heard.lines[:-1]] == [str(n) for n in range(20000)]
    assert heard.lines[-1][3].endswith(" more bytes)")
    assert len(heard.lines[-1][3]) < 70_000


async def test_listeners_that_raise_stop_nothing(caplog):
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    heard = Heard()
    async with supervise(heard) as supervisor:
        supervisor._house.on_output = broken
        supervisor._house.on_change = broken
        await supervisor.start("a", 1, sh("echo x; exit 0"))
        async with asyncio.timeout(WAIT):
            await asyncio.wait([supervisor._instances["a", 1].task])
        assert supervisor.process("a", 1).state is State.EXITED
    assert "could not be shown" in caplog.text


# No orphans

PARENT = """
import asyncio, os, sys
from msgflo.processes.command import Command
from msgflo.processes.supervisor import Supervisor

CHILD = '''
trap "" TERM
sleep 600 &
echo $!
setsid sh -c "trap '' TERM; echo \\\\$\\\\$; sleep 600" &
echo $$
wait
'''

async def main():
    pids = []
    done = asyncio.Event()
    def heard(role, instance, stream, line):
        pids.append(line)
        if len(pids) == 6:
            done.set()
    supervisor = Supervisor(heard, lambda state: None, grace=0.5)
    for instance in (1, 2):
        await supervisor.start("deaf", instance, Command(("sh", "-c", CHILD)))
    polite = await supervisor.start("polite", 1, Command(("sleep", "600")))
    await done.wait()
    print(supervisor.watchdog_pid, polite.pid, *pids, flush=True)
    await asyncio.Event().wait()

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(WAIT):
        # Nobody tells us of the end of a process that is not our child.
        while any(runs(pid) for pid in pids):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_nothing_is_left_however_the_parent_ends(loop, end):
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, loop, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WAIT):
        line = await parent.stdout.readline()
    pids = [int(pid) for pid in line.split()]
    assert len(pids) == 8
    assert all(runs(pid) for pid in pids)
    parent.send_signal(end)
    await parent.wait()
    await gone(pids)


async def test_a_watchdog_that_ends_is_replaced_and_knows_what_to_watch(heard):
    parent = PARENT.replace(
        "await done.wait()",
        "await done.wait()\n"
        "    first = supervisor.watchdog_pid\n"
        "    os.kill(first, 9)\n"
        "    while supervisor.watchdog_pid == first: await asyncio.sleep(0.01)",
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        parent,
        "asyncio",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(WAIT):
        line = await process.stdout.readline()
    pids = [int(pid) for pid in line.split()]
    assert runs(pids[0])
    process.kill()
    await process.wait()
    await gone(pids)


async def test_the_watchdog_hears_of_our_end_though_a_fork_of_ours_holds_its_input(tmp_path):
    parent = PARENT.replace(
        "    print(supervisor",
        "    fork = os.fork()\n"
        "    if fork == 0:\n"
        "        os.close(1)\n"
        "        import time; time.sleep(600)\n"
        "    print(fork, supervisor",
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", parent, "asyncio", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WAIT):
        line = await process.stdout.readline()
    fork, *pids = [int(pid) for pid in line.split()]
    try:
        process.kill()
        await process.wait()
        await gone(pids)
        assert runs(fork)
    finally:
        os.kill(fork, signal.SIGKILL)


async def test_without_proc_groups_are_found_all_the_same(supervisor, heard):
    made = await supervisor.start("a", 1, sh("exec sleep 60"))
    assert reaper._exists(made.pid)
    await supervisor.stop("a")
    assert not reaper._exists(made.pid)
