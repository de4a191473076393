"""A connection to a runtime, as a client of the FBP protocol has it over WebSocket.

One command is under way at a time, as the protocol has no other way to know its answer: the next
message of the same protocol with the command that answers it, or its ``error``. All else that
comes meanwhile is told to whoever listens.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from msgflo.errors import SpecError

__all__ = ["Connection", "Heard", "Refused"]

Heard = Callable[[str, str, Mapping[str, Any]], None]
"""Called with protocol, command and payload of a message that is no answer."""

_ANSWERS: Final = {
    ("runtime", "getruntime"): "runtime",
    ("runtime", "packet"): "packetsent",
    ("component", "list"): "componentsready",
    ("component", "getsource"): "source",
    ("component", "source"): "component",
    ("network", "start"): "started",
    ("network", "stop"): "stopped",
    ("network", "getstatus"): "status",
}

_LARGEST: Final = 64 * 1024 * 1024


class Refused(SpecError):
    """The runtime answered a command with an error, or not in time."""


class Connection:
    """A connection to one runtime. Make one with :meth:`open`.

    Attributes:
        address: where the runtime is.
        runtime: what it said of itself.
    """

    def __init__(self, address: str, socket: Any, secret: str, timeout: float) -> None:
        self.address = address
        self.runtime: Mapping[str, Any] = {}
        self._socket = socket
        self._secret = secret
        self._timeout = timeout
        self._listeners: list[Heard] = []
        self._lost: list[Callable[[str], None]] = []
        self._turn = asyncio.Lock()
        self._waiting: tuple[str, str, asyncio.Future[Any]] | None = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, address: str, secret: str = "", timeout: float = 3.0) -> "Connection":
        """Connect, and ask the runtime who it is.

        Args:
            address: ``ws://host:port``.
            secret: what it wants to hear with each command; ``""``: nothing.
            timeout: seconds for connecting, and for each command.

        Raises:
            SpecError: nobody is there, or does not answer as a runtime does.
        """
        # Loaded on use: suites that run in this process need none of it.
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidURI, WebSocketException
        from websockets.typing import Subprotocol

        try:
            async with asyncio.timeout(timeout):
                socket = await connect(
                    address,
                    subprotocols=[Subprotocol("noflo")],
                    max_size=_LARGEST,
                    proxy=None,
                    ping_interval=None,  # a runtime may be one that is stopped in a debugger
                )
        except InvalidURI:
            raise SpecError(f"{address!r} is no address; expected ws://HOST:PORT") from None
        except (OSError, WebSocketException, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise SpecError(f"cannot connect to the runtime at {address}: {reason}") from None
        connection = cls(address, socket, secret, timeout)
        try:
            connection.runtime = await connection.command("runtime", "getruntime", {})
        except BaseException:
            await connection.close()
            raise
        return connection

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the runtime says that it can do."""
        found = self.runtime.get("capabilities")
        return tuple(str(it) for it in found) if isinstance(found, list) else ()

    @property
    def version(self) -> float:
        """The version of the protocol that it speaks."""
        try:
            return float(str(self.runtime.get("version")))
        except ValueError:
            return 0.7

    def listen(self, heard: Heard, lost: Callable[[str], None]) -> Callable[[], None]:
        """Hear what comes that is no answer, and of the connection's end.

        Returns:
            What ends that.
        """
        self._listeners.append(heard)
        self._lost.append(lost)

        def unlisten() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(heard)
                self._lost.remove(lost)

        return unlisten

    async def command(
        self, protocol: str, command: str, payload: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            Refused: the runtime said no, did not answer in time, or the connection is lost.
        """
        async with self._turn:
            answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            waits = self.version >= 0.7 or (protocol, command) != ("runtime", "packet")
            self._waiting = (protocol, _ANSWERS.get((protocol, command), command), answered)
            try:
                # A runtime that answers nothing for long has its reasons where a library is read.
                timeout = None if protocol == "component" else self._timeout
                async with asyncio.timeout(timeout):
                    await self._send(protocol, command, payload)
                    found = await answered if waits else {}
            except TimeoutError:
                raise Refused(
                    f"the runtime at {self.address} did not answer {protocol}:{command} within "
                    f"{self._timeout:g} s"
                ) from None
            finally:
                self._waiting = None
        if isinstance(found, str):
            raise Refused(f"the runtime refused {protocol}:{command}: {found}")
        return found if isinstance(found, Mapping) else {}

    async def _send(self, protocol: str, command: str, payload: Mapping[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed

        message = {
            "protocol": protocol,
            "command": command,
            "payload": {**payload, "secret": self._secret},
        }
        try:
            await self._socket.send(msgspec.json.encode(message).decode())
        except ConnectionClosed:
            raise Refused(f"the connection to the runtime at {self.address} is lost") from None

    async def close(self) -> None:
        """Close it. Idempotent."""
        self._lost.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._socket.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        reason = "it closed the connection"
        try:
            async for text in self._socket:
                self._take(text)
        except Exception as error:  # the library's, of a connection that broke
            reason = str(error) or type(error).__name__
        said = f"the connection to the runtime at {self.address} is lost: {reason}"
        if self._waiting is not None and not self._waiting[2].done():
            self._waiting[2].set_result(said)
        for lost in tuple(self._lost):
            lost(said)

    def _take(self, text: str | bytes) -> None:
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return  # nobody could be told; a command that waits for it runs out of time
        if not isinstance(message, dict):
            return
        protocol, command = message.get("protocol"), message.get("command")
        payload = message.get("payload")
        if not isinstance(protocol, str) or not isinstance(command, str):
            return
        said = payload if isinstance(payload, dict) else {}
        if self._waiting is not None and self._waiting[0] == protocol:
            _, expected, answered = self._waiting
            if command in (expected, "error") and not answered.done():
                wrong = str(said.get("message") or "it gave no reason")
                answered.set_result(wrong if command == "error" else said)
                return
        for heard in tuple(self._listeners):
            heard(protocol, command, said)
