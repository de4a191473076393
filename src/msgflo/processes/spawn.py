"""One process, with all that it starts: made, listened to, and ended."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import time
from collections.abc import Callable

from msgflo.processes import reaper
from msgflo.processes.command import Command
from msgflo.processes.output import LONGEST_LINE, Lines
from msgflo.processes.restarts import Exit

__all__ = ["Spawned", "spawn", "why_not"]

# How often it is looked for what an ended process left: soon at first, since most often it is gone
# in no time, then seldom, since looking reads through all processes.
_POLL_FIRST, _POLL_LAST = 0.02, 0.25
# How long what a process printed before its end may take to arrive.
_DRAIN = 1.0

_NAMES = {1: "stdout", 2: "stderr"}

Heard = Callable[[str, str], None]
"""Called with ``"stdout"`` or ``"stderr"`` and a line, safe for a terminal."""


async def spawn(command: Command, mark: str, heard: Heard) -> "Spawned":
    """Make a process that leads a session and a process group of its own.

    It gets our environment, and what the command adds; its standard input is empty. Should this be
    cancelled, there is no process.

    Args:
        command: what to run.
        mark: what marks it, and all that it starts, in their environment.
        heard: called in the event loop for each line that it prints; must not raise.

    Raises:
        OSError: it cannot be made; :func:`why_not` makes a sentence of it.
    """
    made = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Pipes(heard),
        *command.argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        cwd=command.cwd,
        env={**os.environ, **command.env, reaper.MARK: mark},
    )
    return Spawned(*made, mark)


def why_not(command: Command, error: OSError) -> str:
    """Return why a command cannot be run, as a sentence for whoever wrote it."""
    program, folder = command.argv[0], command.cwd
    if folder is not None and not folder.is_dir():
        return f"its folder {folder} is not there"
    if error.errno == errno.ENOENT:
        path = command.env.get("PATH", os.environ.get("PATH"))
        if shutil.which(program, path=path) or (folder and (folder / program).exists()):
            return f"{program} is there, but the interpreter that its first line names is not"
        where = f"in {folder or 'this folder'}" if "/" in program else "on the PATH"
        return f"there is no program {program!r} {where} (the command is: {command})"
    if error.errno == errno.EACCES:
        return f"{program} may not be run: is it executable?"
    if error.errno == errno.ENOEXEC:
        return f"{program} is no program: does its first line name an interpreter?"
    return f"{program}: {error.strerror or error}"


class Spawned:
    """A process that was made.

    Attributes:
        pid: its process id, and the id of its group.
        exited: its exit status (negative: the signal that killed it), once it ended.
    """

    def __init__(self, transport: asyncio.SubprocessTransport, pipes: "_Pipes", mark: str) -> None:
        self._transport = transport
        self._pipes = pipes
        self._mark = mark
        self.pid: int = transport.get_pid()
        self.exited = pipes.exited

    async def end(self, grace: float) -> Exit:
        """End it, as far as it has not, and all that it started; and wait for it.

        Args:
            grace: seconds between asking (SIGTERM) and killing (SIGKILL).

        Returns:
            How the process itself ended. All that it printed was heard by then.
        """
        try:
            deadline = time.monotonic() + grace
            ending = reaper.Ending({self.pid}, self._mark, deadline)
            poll = _POLL_FIRST
            while not ending.step(time.monotonic()):
                if self.exited.done():
                    await asyncio.sleep(poll)
                    poll = min(poll * 2, _POLL_LAST)
                else:
                    left = max(_POLL_LAST, deadline - time.monotonic())
                    await asyncio.wait([self.exited], timeout=left)
            # Whoever waits for the process tells us of its end a moment after it is gone.
            await asyncio.wait([self.exited], timeout=_DRAIN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN):
                    await asyncio.shield(self._pipes.drained)
            self._pipes.flush()
            return Exit(self.exited.result() if self.exited.done() else -signal.SIGKILL)
        finally:
            self._transport.close()


class _Pipes(asyncio.SubprocessProtocol):
    """What a process prints, as lines; and its end."""

    def __init__(self, heard: Heard) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self._heard = heard
        self._lines = {1: Lines(LONGEST_LINE), 2: Lines(LONGEST_LINE)}
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is one in all but its base class.
        self._transport = transport  # type: ignore[assignment]

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        # Heard at once and never kept waiting: a process is not held up by what it prints.
        lines = self._lines.get(fd)
        if lines is not None:
            for line in lines.feed(data if isinstance(data, bytes) else data.encode()):
                self._heard(_NAMES[fd], line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        self._close(fd)

    def process_exited(self) -> None:
        assert self._transport is not None
        status = self._transport.get_returncode()
        if not self.exited.done():
            self.exited.set_result(-signal.SIGKILL if status is None else status)

    def flush(self) -> None:
        """Give out lines whose end somebody still holds back, and take no more."""
        for fd in list(self._lines):
            self._close(fd)

    def _close(self, fd: int) -> None:
        lines = self._lines.pop(fd, None)
        for line in lines.end() if lines else ():
            self._heard(_NAMES[fd], line)
        if not self._lines and not self.drained.done():
            self.drained.set_result(None)
