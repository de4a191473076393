"""A process for each instance of a role: started, listened to, started again, and ended.

What is done after an end is decided in :mod:`.restarts`; here is what talks to the system. Each
process has a session, and so a process group, of its own: a terminal's Ctrl-C reaches us alone, and
a signal to the group reaches what the process has started. However we end, a watchdog
(:mod:`.watchdog`) ends what we leave behind.

====================  =============================================================================
state                 meaning
====================  =============================================================================
``starting``          the process runs, and has not announced itself yet
``running``           it has announced itself
``backing-off``       it ended, and is started again at ``retry_at``
``stopping``          it was asked to end
``stopped``           it ended because it was asked to
``exited``            it came to a good end by itself, and is left so
``failed``            it could not be started, or ended badly, and is not tried again
====================  =============================================================================
"""

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from msgflo.errors import StartFailed
from msgflo.processes.command import Command
from msgflo.processes.output import plain
from msgflo.processes.restarts import Again, Ended, Exit, GaveUp, Limits, Policy, Restarts
from msgflo.processes.spawn import spawn, why_not
from msgflo.processes.watchdog import Watchdog

__all__ = ["ProcessState", "State", "Supervisor"]

KEPT_LINES = 20
"""So many of an instance's last lines are kept, to show why it failed."""

_log = logging.getLogger("msgflo.processes")


class State(StrEnum):
    """What an instance's process is doing; the table above has the meanings."""

    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing-off"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXITED = "exited"
    FAILED = "failed"


@dataclass(frozen=True)
class ProcessState:
    """An instance's process at one moment. Times are those of the supervisor's clock, in seconds.

    Attributes:
        role: the node of the graph.
        instance: which of its participants, from 1.
        state: what it is doing.
        command: what it was started with, for people.
        since: when this state began.
        pid: its process, while there is one.
        ready_in: how long it took from its start until it announced itself; ``None`` if not yet.
        exit: how it ended the last time; ``None`` if it never did.
        tries: how many quick ends in a row there were.
        restarts: how often it was started again.
        retry_at: when it is started again, while it is backing off.
        reason: why it is in this state, or what is odd about it; ``""`` if nothing is to be said.
        last_lines: what it printed last, without colours, at most twenty lines.
    """

    role: str
    instance: int
    state: State
    command: str
    since: float
    pid: int | None = None
    ready_in: float | None = None
    exit: Exit | None = None
    tries: int = 0
    restarts: int = 0
    retry_at: float | None = None
    reason: str = ""
    last_lines: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The role and the instance, such as ``"resize.2"``."""
        return f"{self.role}.{self.instance}"

    @property
    def alive(self) -> bool:
        """Whether there is a process, or is to be one again soon."""
        return self.state not in _FINAL

    def __str__(self) -> str:
        said = f"{self.name} is {self.state}"
        if self.reason:
            said += f": {self.reason}"
        last = next((line for line in reversed(self.last_lines) if line.strip()), "")
        if last and self.state in (State.FAILED, State.BACKING_OFF):
            said += f"; last line: {last[:200]}"
        return said


_FINAL = frozenset({State.STOPPED, State.EXITED, State.FAILED})

OnOutput = Callable[[str, int, str, str], None]
"""Called with role, instance, ``"stdout"`` or ``"stderr"``, and a line, safe for a terminal."""

OnChange = Callable[[ProcessState], None]


@dataclass
class _House:
    """What the instances of a supervisor share."""

    on_output: OnOutput
    on_change: OnChange
    grace: float
    limits: Limits
    clock: Callable[[], float]
    run: str
    watchdog: Watchdog
    spawned: int = 0

    def mark(self) -> str:
        """Return what marks the next process."""
        self.spawned += 1
        return f"{self.run}/{self.spawned}/"


class Supervisor:
    """Runs the processes of a network. All its methods are to be called in one event loop.

    Args:
        on_output: called for each line that a process prints, in the event loop: it should not
            take long. What it raises is logged and stops nothing.
        on_change: called at each change of a process's state, likewise.
        grace: seconds from asking a process to end (SIGTERM) to killing it (SIGKILL).
        limits: how often and how soon a process is started again.
        clock: the time in seconds.
    """

    def __init__(
        self,
        on_output: OnOutput,
        on_change: OnChange,
        *,
        grace: float = 10.0,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        run = secrets.token_hex(8)
        self._house = _House(
            on_output=on_output,
            on_change=on_change,
            grace=grace,
            limits=limits or Limits(),
            clock=clock,
            run=run,
            watchdog=Watchdog(f"{run}/", grace),
        )
        self._instances: dict[tuple[str, int], _Instance] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def processes(self) -> list[ProcessState]:
        """Return the state of every instance that was started and not forgotten, by name."""
        return [instance.state for _, instance in sorted(self._instances.items())]

    def process(self, role: str, instance: int) -> ProcessState | None:
        """Return the state of one instance; ``None`` if it was never started."""
        found = self._instances.get((role, instance))
        return found.state if found else None

    @property
    def watchdog_pid(self) -> int | None:
        """The process that ends the others if we cannot; ``None`` while nothing was started."""
        return self._house.watchdog.pid

    async def start(
        self,
        role: str,
        instance: int,
        command: Command,
        restart: Policy | str = Policy.ON_FAILURE,
    ) -> ProcessState:
        """Start an instance's process, and keep it running.

        Returns once the process was made; it is ready when :meth:`announced` says so. Many can be
        started at the same time. If the instance runs already with this command, nothing is done;
        if with another, it is stopped first. Cancelling leaves what was started running.

        Args:
            role: the node of the graph.
            instance: which of its participants, 1 or more.
            command: what to start.
            restart: ``"never"``, ``"on-failure"`` or ``"always"``.

        Raises:
            StartFailed: its program is not there or cannot be run. The instance is ``failed``.
            ValueError: ``instance`` or ``restart`` is none of what is expected.
            RuntimeError: the supervisor is closed.
        """
        policy = Policy(restart)
        if instance < 1:
            raise ValueError(f"instance is {instance}; expected 1 or more")
        while True:
            if self._closed:
                raise RuntimeError(f"cannot start {role}.{instance}: the supervisor is closed")
            existing = self._instances.get((role, instance))
            if existing is None or existing.task.done():
                break
            if not existing.stopping.is_set() and existing.same(command, policy):
                await existing.begun()
                return existing.state
            await existing.stop()
        made = _Instance(self._house, role, instance, command, policy)
        self._instances[role, instance] = made
        await made.begun()
        return made.state

    async def stop(self, role: str, instance: int | None = None) -> None:
        """End an instance's process, or those of all instances of a role, and wait for it.

        Each is sent SIGTERM, with all that it has started, and after the grace SIGKILL. What does
        not run is no error. Cancelling stops the waiting, not the stopping.
        """
        await _all_stopped(
            found
            for (of, number), found in list(self._instances.items())
            if of == role and instance in (None, number)
        )

    async def restart(self, role: str, instance: int) -> ProcessState:
        """Stop an instance's process if it runs, and start it again with a clean record.

        Raises:
            KeyError: it was never started.
            StartFailed: see :meth:`start`.
        """
        found = self._instances[role, instance]
        await found.stop()
        return await self.start(role, instance, found.command, found.policy)

    def renew(self, role: str, instance: int, command: Command) -> None:
        """Have an instance started with another command from its next start on.

        What runs goes on as it is. An instance that was never started is no error. Idempotent.
        """
        found = self._instances.get((role, instance))
        if found is not None:
            found.command = command

    def announced(self, role: str, instance: int | None = None) -> bool:
        """Say that a participant announced itself: it is ready. Any number of times.

        Args:
            role: what it announced.
            instance: what it announced; ``None``: it did not say, and the first instance of the
                role that is waited for is meant.

        Returns:
            Whether it is one of ours that runs.
        """
        if instance is None:
            ours = [found for (of, _), found in sorted(self._instances.items()) if of == role]
            waiting = [found for found in ours if found.state.state is State.STARTING]
            running = [found for found in ours if found.state.state is State.RUNNING]
            return waiting[0].announced() if waiting else bool(running)
        found = self._instances.get((role, instance))
        return found.announced() if found else False

    def forget(self, role: str, instance: int) -> None:
        """Leave out of :meth:`processes` an instance that has ended; one that runs stays."""
        found = self._instances.get((role, instance))
        if found is not None and found.task.done():
            del self._instances[role, instance]

    async def close(self) -> None:
        """End all processes, all at once, and wait for it. Nothing can be started afterwards.

        Can be called again. If it is cancelled, the processes still end.
        """
        self._closed = True
        await _all_stopped(list(self._instances.values()))
        self._house.watchdog.close()


async def _all_stopped(instances: "Iterable[_Instance]") -> None:
    tasks = []
    for instance in instances:
        instance.stopping.set()
        tasks.append(instance.task)
    if tasks:
        await asyncio.wait(tasks)


class _Instance:
    """One instance, from its start to its final state."""

    def __init__(
        self, house: _House, role: str, instance: int, command: Command, policy: Policy
    ) -> None:
        self.command = command
        self.policy = policy
        self.stopping = asyncio.Event()
        self._house = house
        self._rules = Restarts(policy, house.limits)
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._started = house.clock()
        self._unannounced: asyncio.TimerHandle | None = None
        self._state = ProcessState(role, instance, State.STARTING, str(command), self._started)
        self._begun: asyncio.Future[StartFailed | None]
        self._begun = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._live(), name=f"process {self._state.name}")

    @property
    def state(self) -> ProcessState:
        return replace(self._state, last_lines=tuple(self._lines))

    def same(self, command: Command, policy: Policy) -> bool:
        return self.command == command and self.policy == policy

    async def begun(self) -> None:
        """Wait until the process was made for the first time; raise if it could not be."""
        error = await asyncio.shield(self._begun)
        if error is not None:
            raise error

    async def stop(self) -> None:
        await _all_stopped([self])

    def announced(self) -> bool:
        if self._state.state is State.STARTING and self._state.pid is not None:
            self._forget_deadline()
            self._set(State.RUNNING, ready_in=self._house.clock() - self._started)
        return self._state.state is State.RUNNING

    def _set(
        self,
        state: State,
        *,
        reason: str = "",
        pid: int | None = None,
        end: Exit | None = None,
        ready_in: float | None = None,
        retry_at: float | None = None,
    ) -> None:
        before = self._state
        gone = state in _FINAL or state is State.BACKING_OFF
        self._state = replace(
            before,
            state=state,
            since=before.since if state is before.state else self._house.clock(),
            pid=None if gone else pid or before.pid,
            ready_in=ready_in if state is State.STARTING else ready_in or before.ready_in,
            exit=end or before.exit,
            tries=self._rules.tries,
            retry_at=retry_at,
            reason=reason,
        )
        try:
            self._house.on_change(self.state)
        except Exception:
            _log.exception("what hears of changes failed at: %s", self._state)

    async def _live(self) -> None:
        try:
            await self._keep_running()
        except Exception as error:
            # Ours, not the process's: it must not take the other processes with it.
            _log.exception("supervising %s failed", self._state.name)
            self._set(State.FAILED, reason=f"supervising it failed: {error!r}")
        finally:
            self._forget_deadline()
            if not self._begun.done():
                self._begun.set_result(None)

    async def _keep_running(self) -> None:
        end: Exit | str | None = None
        while not self.stopping.is_set():
            self._started = self._house.clock()
            self._rules.started(self._started)
            try:
                end = await self._once()
            except OSError as error:
                end = why_not(self.command, error)
                if not self._begun.done():
                    # The program itself is wrong: trying again would not make it right.
                    self._set(State.FAILED, reason=end)
                    self._begun.set_result(StartFailed(f"cannot start {self._state.name}: {end}"))
                    return
            if self.stopping.is_set():
                break
            order = self._rules.ended(self._house.clock(), end, random.random())  # noqa: S311
            exited = end if isinstance(end, Exit) else None
            match order:
                case Ended():
                    self._set(State.EXITED, end=exited, reason=str(end))
                    return
                case GaveUp(reason):
                    self._set(State.FAILED, end=exited, reason=reason)
                    return
                case Again(at):
                    self._set(State.BACKING_OFF, end=exited, reason=str(end), retry_at=at)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, at - self._house.clock())):
                            await self.stopping.wait()
                    if not self.stopping.is_set():
                        self._state = replace(self._state, restarts=self._state.restarts + 1)
        self._set(State.STOPPED, end=end if isinstance(end, Exit) else None)

    async def _once(self) -> Exit:
        """Run the process until it has ended, with all that it started."""
        self._lines.clear()
        self._state = replace(self._state, command=str(self.command))
        process = await spawn(self.command, self._house.mark(), self._heard)
        self._house.watchdog.add(process.pid)
        limit = self._house.limits.announce
        loop = asyncio.get_running_loop()
        self._unannounced = loop.call_later(limit, self._not_announced, limit)
        self._set(State.STARTING, pid=process.pid)
        if not self._begun.done():
            self._begun.set_result(None)
        asked = asyncio.create_task(self.stopping.wait())
        waited: list[asyncio.Future[Any]] = [process.exited, asked]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The loop ends and nobody closed us: end the process as if somebody had.
            await process.end(self._house.grace)
            raise
        finally:
            asked.cancel()
        self._forget_deadline()
        if not process.exited.done():
            self._set(State.STOPPING)
        end = await process.end(self._house.grace)
        self._house.watchdog.remove(process.pid)
        return end

    def _heard(self, stream: str, line: str) -> None:
        self._lines.append(plain(line))
        try:
            self._house.on_output(self._state.role, self._state.instance, stream, line)
        except Exception:
            _log.exception("a line of %s could not be shown", self._state.name)

    def _not_announced(self, after: float) -> None:
        self._set(State.STARTING, reason=f"not announced after {after:g} s")

    def _forget_deadline(self) -> None:
        if self._unannounced is not None:
            self._unannounced.cancel()
            self._unannounced = None
