"""A client of the FBP runtime protocol, for our commands, for tests, and for other programs.

::

    async with Client("ws://localhost:3569", secret=secret) as client:
        runtime = await client.command("runtime", "getruntime")
        await client.command("graph", "addnode", id="a", component="Repeat", graph="main")
        status = await client.ask("status")
        async for message in client.pushes():
            ...

It speaks to any runtime; what :meth:`Client.ask` asks, only ours answers.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from msgflo.errors import ProtocolError
from msgflo.protocol.messages import EXTENSION

__all__ = ["Client", "Push"]

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a message; a trace may be large."""

MOST_PUSHES: Final = 10_000
"""So many pushes wait for who reads them; the oldest make room."""

# What a command is answered with, where it is not its own name.
_ANSWERS: Final = {
    ("runtime", "getruntime"): "runtime",
    ("runtime", "packet"): "packetsent",
    ("component", "getsource"): "source",
    ("component", "source"): "component",
    ("component", "list"): "componentsready",
    ("network", "start"): "started",
    ("network", "stop"): "stopped",
    ("network", "getstatus"): "status",
}


@dataclass(frozen=True, slots=True)
class Push:
    """A message that the runtime sent without being asked."""

    protocol: str
    command: str
    payload: Any


@dataclass(slots=True)
class _Open:
    """A command that has no answer yet."""

    protocol: str
    answer: str
    request: str
    future: asyncio.Future[Any]
    listed: list[Any]


class Client:
    """A connection to a runtime.

    Args:
        url: a WebSocket URL.
        secret: what it says to be allowed; ``""``: nothing.
        timeout: seconds for connecting, and for each answer.
    """

    def __init__(self, url: str, *, secret: str = "", timeout: float = 10.0) -> None:
        self.url = url
        self._secret = secret
        self._timeout = timeout
        self._connection: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._open: _Open | None = None
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = 0
        self._named = False  # whether the runtime says what its answers are answers to
        self._pushes: deque[Push] = deque(maxlen=MOST_PUSHES)
        self._pushed = asyncio.Event()
        self._lost = ""

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect.

        Raises:
            ProtocolError: nobody is there, or it does not let us in.
        """
        try:
            self._connection = await connect(
                self.url,
                subprotocols=[Subprotocol("noflo")],
                max_size=LARGEST,
                open_timeout=self._timeout,
            )
        except (OSError, TimeoutError, WebSocketException, ValueError) as error:
            raise ProtocolError(f"cannot connect to the runtime at {self.url}: {error}") from None
        self._reading = asyncio.get_running_loop().create_task(self._read(), name="FBP client")

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._connection is not None:
            with contextlib.suppress(WebSocketException, OSError):
                await self._connection.close()
        self._lose("the client was closed")

    @property
    def connected(self) -> bool:
        """Whether the connection works."""
        return self._connection is not None and not self._lost

    async def command(self, protocol: str, command: str, /, **payload: Any) -> Any:
        """Send a command, one at a time, and return the payload of its answer.

        Of ``component:list`` that is a list of the components.

        Args:
            protocol: ``runtime``, ``component``, ``graph``, ``network`` or ``trace``.
            command: its name.
            payload: its content. (Of renames, ``from`` is given as ``from_``.)

        Raises:
            ProtocolError: the runtime refuses it, does not answer, or is gone.
        """
        if "from_" in payload:
            payload["from"] = payload.pop("from_")
        async with self._turn:
            self._numbers += 1
            request = str(self._numbers)
            answer = _ANSWERS.get((protocol, command), command)
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._open = _Open(protocol, answer, request, future, [])
            try:
                await self._send(protocol, command, payload, request)
                async with asyncio.timeout(self._timeout):
                    return await future
            except TimeoutError:
                raise ProtocolError(
                    f"the runtime has not answered {protocol}:{command} in {self._timeout:g} s"
                ) from None
            finally:
                self._open = None

    async def tell(self, protocol: str, command: str, /, **payload: Any) -> None:
        """Send a message to which this runtime does not answer.

        Raises:
            ProtocolError: the connection is lost.
        """
        await self._send(protocol, command, payload)

    async def ask(self, command: str, /, **payload: Any) -> dict[str, Any]:
        """Send a command of the protocol ``msgflo``, and return its answer. Many at a time.

        Args:
            command: its name; docs/protocol.md has them.
            payload: its content.

        Raises:
            ProtocolError: the runtime refuses it, does not answer, or is gone.
        """
        self._numbers += 1
        number = self._numbers
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            await self._send(EXTENSION, command, {**payload, "id": number})
            # Longer than the runtime gives the broker, so that its reason is heard.
            async with asyncio.timeout(max(self._timeout, 20.0)):
                return await future
        except TimeoutError:
            raise ProtocolError(f"the runtime has not answered msgflo:{command}") from None
        finally:
            self._asked.pop(number, None)

    async def pushes(self) -> AsyncIterator[Push]:
        """Yield what the runtime sends without being asked, from the connection's beginning on.

        What nobody reads is kept, up to a number; the oldest make room.

        Raises:
            ProtocolError: the connection is lost.
        """
        while True:
            while self._pushes:
                yield self._pushes.popleft()
            if self._lost:
                raise ProtocolError(self._lost)
            self._pushed.clear()
            await self._pushed.wait()

    async def until(self, protocol: str, command: str, timeout: float | None = None) -> Any:
        """Read pushes until one of this kind, and return its payload; the others are left out.

        Raises:
            TimeoutError: none came in this time (seconds).
            ProtocolError: the connection is lost.
        """
        async with asyncio.timeout(timeout):
            async for push in self.pushes():
                if (push.protocol, push.command) == (protocol, command):
                    return push.payload
        raise AssertionError("pushes end by raising")

    async def _send(
        self, protocol: str, command: str, payload: dict[str, Any], request: str = ""
    ) -> None:
        if self._connection is None or self._lost:
            raise ProtocolError(self._lost or "the client is not connected")
        message: dict[str, Any] = {"protocol": protocol, "command": command, "payload": payload}
        if self._secret:
            # Ours reads either; most runtimes look into the payload.
            message["secret"] = self._secret
            message["payload"] = {**payload, "secret": self._secret}
        if request:
            message["requestId"] = request
        try:
            await self._connection.send(json.dumps(message))
        except (WebSocketException, OSError) as error:
            raise ProtocolError(f"the connection to {self.url} is lost: {error}") from None

    async def _read(self) -> None:
        assert self._connection is not None
        reason = "the runtime has closed the connection"
        try:
            async for data in self._connection:
                try:
                    message = json.loads(data)
                    protocol, command = message["protocol"], message["command"]
                except (ValueError, TypeError, KeyError):
                    continue  # some other runtime's fault; nothing of ours waits for it
                self._take(protocol, command, message.get("payload"), message.get("responseTo"))
        except (WebSocketException, OSError) as error:
            reason = f"the connection to {self.url} is lost: {error}"
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        waiting = [*self._asked.values(), *([self._open.future] if self._open else [])]
        for future in waiting:
            if not future.done():
                future.set_exception(ProtocolError(self._lost))
        self._pushed.set()

    def _take(self, protocol: str, command: str, payload: Any, request: str | None) -> None:
        if protocol == EXTENSION and isinstance(payload, dict) and payload.get("id") is not None:
            asked = self._asked.get(payload["id"])
            if asked is not None and not asked.done():
                if command == "error":
                    asked.set_exception(ProtocolError(str(payload.get("message"))))
                else:
                    asked.set_result(payload)
            return
        if not self._answers(protocol, command, payload, request):
            self._pushes.append(Push(protocol, command, payload))
            self._pushed.set()

    def _answers(self, protocol: str, command: str, payload: Any, request: str | None) -> bool:
        """Tell whether a message is an answer to the open command, or a part of it."""
        waiting = self._open
        self._named = self._named or request is not None
        if waiting is None or waiting.future.done():
            return False
        if self._named and request != waiting.request:
            return False
        if command == "error":
            # An error that says not what it is for may be about something that is not JSON.
            if protocol != waiting.protocol:
                return False
            text = payload.get("message") if isinstance(payload, dict) else payload
            waiting.future.set_exception(ProtocolError(str(text)))
            return True
        if protocol != waiting.protocol:
            return False
        if waiting.answer == "componentsready" and command == "component":
            waiting.listed.append(payload)
            return True
        if command != waiting.answer:
            return False
        waiting.future.set_result(waiting.listed if command == "componentsready" else payload)
        return True
