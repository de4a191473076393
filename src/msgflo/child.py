"""The process behind ``executor="process"``: it calls one function with one message at a time.

Parent and child talk over a socket pair. The parent says what to call with; the child answers with
each packet as it is sent, and at the end with how it went. A child whose parent is gone ends. One
that dies has failed with the one message that it had.
"""

import contextlib
import inspect
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from msgflo.declaration import declared
from msgflo.errors import PayloadError
from msgflo.failure import Failure, Kind
from msgflo.loading import reference, resolve
from msgflo.log import ParticipantLog
from msgflo.payload import encode
from msgflo.signature import Call, Context
from msgflo.transport.contract import Delivery

__all__ = ["Child"]

PARENT_CHECK = 1.0
"""Seconds after which a child at work notices that its parent is gone."""


class Child:
    """The parent's side: a process that is started when it is first needed, and after a death."""

    def __init__(self, call: Call, role: str, instance: int) -> None:
        self._reference = reference(call.function)
        self._about = (role, instance)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._settings: Mapping[str, tuple[bytes, Mapping[str, str]]] | None = None

    def call(
        self,
        delivery: Delivery,
        settings: Mapping[str, tuple[bytes, Mapping[str, str]]],
        send: Callable[[str, bytes, str], None],
    ) -> Failure | None:
        """Have a message handled. Blocks; called from one thread.

        Args:
            delivery: the message.
            settings: the payloads and headers of all settings that came, by port.
            send: called with outport, payload and content type of each packet.

        Returns:
            Why it failed, or None.
        """
        try:
            if self._connection is None:
                self._start()
            connection = self._connection
            assert connection is not None
            # The same object as long as nothing has changed.
            changed = None
            if settings is not self._settings:
                changed = {
                    name: (body, dict(headers)) for name, (body, headers) in settings.items()
                }
            connection.send(
                (
                    delivery.body,
                    dict(delivery.headers),
                    delivery.attempt,
                    delivery.id,
                    delivery.sent,
                    changed,
                )
            )
            self._settings = settings
            while True:
                message = connection.recv()
                if message[0] == "send":
                    send(*message[1:])
                elif message[1] is None:
                    return None
                else:
                    kind, *rest = message[1]
                    return Failure(Kind(kind), *rest)
        except (EOFError, OSError):
            return Failure(Kind.CRASH, "ProcessDied", self._how_it_died())

    def close(self) -> None:
        """End the process after what it does now; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        process, self._process = self._process, None
        if process is not None:
            process.wait()

    def kill(self) -> None:
        """End the process at once, from another thread; what it does has failed."""
        process = self._process
        if process is not None:
            process.kill()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, this module
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        self._settings = None
        level = logging.getLogger().getEffectiveLevel()
        self._connection.send((os.getpid(), sys.path, self._reference, self._about, level))

    def _how_it_died(self) -> str:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        process, self._process = self._process, None
        if process is None:
            return "the process that handled it could not be started"
        try:
            status = process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"the process that handled it was killed by {signal.Signals(-status).name}"
        return f"the process that handled it ended, with exit status {status}"


_PROGRAM = "import sys; from msgflo.child import serve; serve(int(sys.argv[1]))"


def serve(fd: int) -> None:
    """Be the child: handle what comes until the parent closes the connection."""
    # Ctrl-C and a supervisor's SIGTERM go to the whole group; the parent decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(fd)
    try:
        parent, path, found_by, about, level = connection.recv()
    except EOFError:
        return
    threading.Thread(target=_watch, args=[parent], daemon=True).start()
    logging.basicConfig(level=level, format="%(levelname).1s %(message)s")
    sys.path[:] = path
    broken: Failure | None = None
    try:
        work = _Work(connection, resolve(*found_by), *about)
    except BaseException as error:
        broken = Failure.of(error)
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return
        failure = broken or work.handle(*message)
        said = failure and (
            failure.kind.value,
            failure.error,
            failure.text,
            failure.traceback,
            failure.delay,
        )
        try:
            connection.send(("done", said))
        except OSError:
            return


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os._exit(1)


class _Work:
    def __init__(self, connection: Connection, function: Any, role: str, instance: int) -> None:
        self._connection = connection
        (entry,) = declared(function).entries
        self._call = entry.call
        self._decode = entry.port.payload.decode
        self._outs = {key: self._sender(port.name) for key, port in self._call.outs.items()}
        self._result = self._sender(self._call.result.name) if self._call.result else None
        self._params = {
            key: parameter.default
            for key, parameter in self._call.params.items()
            if parameter.default is not inspect.Parameter.empty
        }
        self._about = {"role": role, "instance": instance, "inport": entry.port.name}
        self._log = ParticipantLog(role, instance)

    def _sender(self, name: str) -> Callable[[Any], Any]:
        def send(value: Any = None) -> None:
            packet = ("send", name, *encode(value))
            try:
                self._connection.send(packet)
            except OSError:
                os._exit(1)  # the parent is gone, and whatever the handler does is for nothing

        return send

    def handle(
        self,
        body: bytes,
        headers: Mapping[str, str],
        attempt: int,
        message_id: str,
        sent: float,
        settings: Mapping[str, tuple[bytes, Mapping[str, str]]] | None,
    ) -> Failure | None:
        try:
            for key, parameter in self._call.params.items():
                if settings and parameter.name in settings:
                    self._params[key] = parameter.payload.decode(*settings[parameter.name])
            value = self._decode(body, headers)
        except PayloadError as error:
            return Failure.unfit(error)
        try:
            keywords: dict[str, Any] = {**self._outs, **self._params, self._call.message: value}
            if self._call.context:
                keywords[self._call.context] = Context(
                    headers=headers,
                    attempt=attempt,
                    id=message_id,
                    sent=sent,
                    log=self._log,
                    **self._about,  # type: ignore[arg-type]
                )
            positional = [keywords.pop(self._call.message)] if self._call.positional else []
            result = self._call.function(*positional, **keywords)
            for item in result if isinstance(result, Iterator) else (result,):
                if item is None and not self._call.sends_none:
                    continue
                if self._result is None:
                    raise PayloadError(
                        "a value was returned, but there is no outport 'out'; annotate what the "
                        "function returns"
                    )
                self._result(item)
        except BaseException as error:
            return Failure.of(error)
        return None
