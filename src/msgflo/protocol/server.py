"""The runtime's endpoint: the FBP protocol over WebSocket, and HTTP, on one port.

What a client says is handled in :mod:`.session`; here are the connections, and their limits. A
client that does not take what it is sent is sent no pushes, then not listened to, then cut off.
None of that is felt by another client, or by the network.
"""

import asyncio
import contextlib
import html
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, Protocol
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from msgflo.errors import ConfigurationError
from msgflo.protocol.access import Access, Level, is_loopback, may_connect
from msgflo.protocol.messages import encode
from msgflo.protocol.session import Output, Session
from msgflo.protocol.workspace import Identity, Workspace

__all__ = ["DEFAULT_PORT", "Conversation", "Listener", "Routes", "Server", "live_url", "text_route"]

Routes = Sequence[BaseRoute]
"""What else is served by HTTP on the same port."""

DEFAULT_PORT: Final = 3569

LARGEST_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of a message that comes in; a component's code, or an initial packet, at most."""

MOST_CLIENTS: Final = 200

MESSAGE_RATE: Final = 2000.0
"""Messages a second that are taken from one client; those beyond wait in the connection."""

PUSHES_WAITING: Final = 2 * 1024 * 1024
"""Bytes waiting for a client beyond which it is sent no pushes."""

ANSWERS_WAITING: Final = 8 * 1024 * 1024
"""Bytes waiting for a client beyond which it is not listened to."""

PATIENCE: Final = 30.0
"""Seconds for a client to take something when so much is waiting."""


def live_url(host: str, port: int, identity: str, secret: str = "", ide: str = "") -> str:
    """Return the address at which noflo-ui, or Flowhub, opens a runtime.

    Args:
        host: where it listens.
        port: likewise.
        identity: its id, without which the tool makes up another one.
        secret: what the tool is to say; ``""``: nothing.
        ide: where the tool is served; by default the one at app.flowhub.io.
    """
    shown = "localhost" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - for showing
    address = f"ws://[{shown}]:{port}" if ":" in shown else f"ws://{shown}:{port}"
    said = f"protocol=websocket&address={address}&id={identity}"
    if secret:
        said += f"&secret={secret}"
    base = (ide or "http://app.flowhub.io").rstrip("/")
    return f"{base}#runtime/endpoint?{quote(said, safe='')}"


def text_route(
    path: str, text: Callable[[str], Awaitable[tuple[str, bytes]]], access: Access
) -> BaseRoute:
    """Return an HTTP route at which something can be read by whoever may read.

    Where there are secrets, one of them is to be said: ``Authorization: Bearer SECRET``.

    Args:
        path: where.
        text: returns content type and content, for the header ``Accept`` of the request.
        access: the secrets.
    """

    async def answer(request: Request) -> Response:
        listening, _ = request.scope["server"]
        if not may_connect(request.headers.get("origin"), request.headers.get("host"), listening):
            return Response("this web page may not look at it\n", 403, media_type="text/plain")
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if access.level(secret.strip() if kind.lower() == "bearer" else "") < Level.READ:
            return Response(
                "expected Authorization: Bearer and a secret of this runtime\n",
                401,
                {"WWW-Authenticate": "Bearer"},
                "text/plain",
            )
        content_type, content = await text(request.headers.get("accept", ""))
        # As it is: Starlette would say a charset for a second time.
        return Response(content, headers={"Content-Type": content_type})

    return Route(path, answer)


class Conversation(Protocol):
    """What is said to one client, and what is answered."""

    def receive(self, data: str | bytes) -> None:
        """Take a message. No message can make this raise."""

    def close(self) -> None:
        """The client has gone. Idempotent."""


class Listener:
    """Takes clients, and has a conversation with each, until it is closed.

    Args:
        identity: returns what the runtime says of itself, on its page.
        converse: makes the conversation with a client, to whom messages go by an output.
        guarded: whether a secret is needed.
        host: the address to listen at.
        port: the port; 0: any that is free.
        others: try so many ports behind it if it is taken.
        origins: web pages, other than those from here, that may connect.
        ide: where the tool is served to which the page refers.
        routes: further HTTP routes; they come before our own page.

    Raises:
        ConfigurationError: it would listen to others than this machine, without a secret.
    """

    def __init__(
        self,
        identity: Callable[[], Identity],
        converse: Callable[[Output], Conversation],
        *,
        guarded: bool = False,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        others: int = 0,
        origins: Collection[str] = (),
        ide: str = "",
        routes: Routes = (),
    ) -> None:
        if not is_loopback(host) and not guarded:
            raise ConfigurationError(
                f"the runtime would listen at {host} for everybody, and whoever reaches it can "
                f"start programs; set a secret, or listen at 127.0.0.1"
            )
        self._identity = identity
        self._converse = converse
        self.host = host
        self._port = port
        self._others = others
        self._origins = origins
        self._ide = ide
        self._clients: set[_Client] = set()
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        app = Starlette(
            routes=[
                WebSocketRoute("/{path:path}", self._connected),
                *routes,
                Route("/", self._page),
            ]
        )
        self._server = _Quiet(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="websockets-sansio",
                ws_max_size=LARGEST_MESSAGE,
                limit_concurrency=5 * MOST_CLIENTS,
                timeout_graceful_shutdown=1,
                proxy_headers=False,
                server_header=False,
            )
        )

    @property
    def port(self) -> int:
        """The port that it listens at, after :meth:`start`."""
        return self._port

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    async def start(self) -> None:
        """Listen. Connections are taken when this returns.

        Raises:
            ConfigurationError: the port is taken, or the address is not ours.
        """
        self._socket = self._bind()
        self._port = self._socket.getsockname()[1]
        self._serving = asyncio.get_running_loop().create_task(
            self._server.serve([self._socket]), name="serve the FBP protocol"
        )
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise ConfigurationError(f"the runtime could not listen at {self.host}")
            await asyncio.sleep(0.005)

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        for port in range(self._port, self._port + self._others + 1):
            try:
                return socket.create_server((self.host, port), family=family, backlog=512)
            except OSError as error:
                reason = error.strerror or str(error)
        raise ConfigurationError(
            f"cannot listen at {self.host}, port {self._port}: {reason}; choose another with --port"
        )

    async def close(self) -> None:
        """Cut all clients off, and listen no more. Idempotent."""
        if self._serving is None:
            return
        for client in list(self._clients):
            client.drop(1001, "the runtime stops")
        self._server.should_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)
        self._serving = None
        if self._socket is not None:
            self._socket.close()

    async def _connected(self, socket: WebSocket) -> None:
        headers = socket.headers
        if not may_connect(headers.get("origin"), headers.get("host"), self.host, self._origins):
            await socket.close(1008, "this web page may not connect; see --allow-origin")
            return
        if len(self._clients) >= MOST_CLIENTS:
            await socket.close(1013, f"{MOST_CLIENTS} clients are connected already")
            return
        asked = socket.scope.get("subprotocols", [])
        client = _Client(socket)
        self._clients.add(client)
        try:
            await socket.accept("noflo" if "noflo" in asked else None)
            await client.serve(self._converse(client))
        finally:
            self._clients.discard(client)

    async def _page(self, _request: Request) -> Response:
        identity = self._identity()
        url = live_url(self.host, self._port, identity.id, ide=self._ide)
        return HTMLResponse(
            f"<!doctype html><meta charset=utf-8><title>MsgFlo</title>"
            f"<h1>{html.escape(identity.label or 'MsgFlo')}</h1>"
            f"<p>A MsgFlo runtime, id {html.escape(identity.id)}. It speaks the FBP runtime "
            f"protocol on this address. <a id=flowhub_url href='{html.escape(url)}'>Open in "
            f"Flowhub</a></p>"
        )


class Server(Listener):
    """Serves a workspace until it is closed.

    Args:
        workspace: what clients share.
        access: the secrets.
        host, port, others, origins, ide, routes: as of a :class:`Listener`.

    Raises:
        ConfigurationError: it would listen to others than this machine, without a secret.
    """

    def __init__(
        self,
        workspace: Workspace,
        access: Access,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        others: int = 0,
        origins: Collection[str] = (),
        ide: str = "",
        routes: Routes = (),
    ) -> None:
        super().__init__(
            lambda: workspace.desk.identity,
            lambda output: Session(workspace, access, output),
            guarded=access.guarded,
            host=host,
            port=port,
            others=others,
            origins=origins,
            ide=ide,
            routes=routes,
        )


class _Quiet(uvicorn.Server):
    """A server inside another program, whose signals are its own business."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def] # as its base
        yield


class _Client:
    """A connection: takes messages, and sends as fast as the other side takes them."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._task: asyncio.Task[None] | None = None
        self._closing: tuple[int, str] | None = None

    # Output, for the session.

    def answer(self, message: str) -> None:
        """Send an answer."""
        self._waiting.append(message)
        self._bytes += len(message)
        self._more.set()
        if self._bytes > ANSWERS_WAITING:
            self._drained.clear()

    def push(self, message: str) -> None:
        """Send what was not asked for, unless too much is waiting."""
        if self._bytes <= PUSHES_WAITING:
            self.answer(message)

    def drop(self, code: int, reason: str) -> None:
        """Cut the client off."""
        if self._closing is None:
            self._closing = (code, reason)
            if self._task is not None:
                self._task.cancel()

    async def serve(self, session: Conversation) -> None:
        """Talk until either side has enough."""
        sending = asyncio.create_task(self._send())
        self._task = asyncio.create_task(self._receive(session))
        try:
            await asyncio.wait({sending, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.close()
            for task in (sending, self._task):
                task.cancel()
            results = await asyncio.gather(sending, self._task, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception) and not isinstance(
                    result, WebSocketDisconnect | OSError | RuntimeError
                ):
                    logging.getLogger("msgflo").error("a client failed", exc_info=result)
            code, reason = self._closing or (1000, "")
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await self._socket.close(code, reason)

    async def _receive(self, session: Conversation) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            message = await self._socket.receive()
            if message["type"] != "websocket.receive":
                return
            data = message.get("text")
            self._hear(session, message.get("bytes") or b"" if data is None else data)
            # Others have their turn after each; who says very much has fewer turns.
            due = max(due + 1 / MESSAGE_RATE, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not self._drained.is_set():
                try:
                    async with asyncio.timeout(PATIENCE):
                        await self._drained.wait()
                except TimeoutError:
                    self._closing = (1013, "too slow to take its answers")
                    return

    def _hear(self, session: Conversation, data: str | bytes) -> None:
        try:
            session.receive(data)
        except Exception:
            # Our fault. Its sender is told, and goes on; nobody else notices.
            logging.getLogger("msgflo").exception("a message could not be handled: %.500r", data)
            self.answer(encode("network", "error", {"message": "the runtime failed at this"}))

    async def _send(self) -> None:
        waiting = self._waiting
        while True:
            while waiting:
                message = waiting.popleft()
                async with asyncio.timeout(PATIENCE):
                    await self._socket.send_text(message)
                self._bytes -= len(message)
                if not self._drained.is_set() and self._bytes <= PUSHES_WAITING:
                    self._drained.set()
            self._more.clear()
            await self._more.wait()
