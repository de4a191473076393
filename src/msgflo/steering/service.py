"""A runtime that others can look at and steer: the server, its desk, and the graph's file."""

import asyncio
import os
import re
import secrets as random_secrets
import urllib.request
from collections.abc import Callable, Collection, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote

from msgflo.errors import MsgFloError
from msgflo.flow.graph import Graph
from msgflo.protocol.access import Access, Level
from msgflo.protocol.server import DEFAULT_PORT, Routes, Server, live_url, text_route
from msgflo.protocol.workspace import Sheet
from msgflo.runtime import Runtime
from msgflo.steering.desk import RuntimeDesk, identity_of
from msgflo.steering.endpoint import Endpoint, forget_endpoint, write_endpoint
from msgflo.steering.files import GraphFile

__all__ = ["Service", "graph_name"]

PORTS_TRIED = 50
"""So many ports behind the usual one are tried, if nobody has asked for a port."""


def graph_name(graph: Graph, file: Path | None) -> str:
    """Return the id by which clients know the main graph: a text without a slash."""
    name = graph.name or (file.stem if file is not None else "")
    return re.sub(r"[/\s]+", "-", name).strip("-") or "main"


class Service:
    """Serves a runtime to its clients, from before it starts until after it stops.

    ::

        service = Service(runtime)
        await service.start()       # it listens; clients can connect
        await runtime.start()
        service.runtime_started()
        ...
        await service.close()
        await runtime.close()

    Args:
        runtime: not started.
        file: the graph's file, which clients save it into; ``None``: ``main.json`` in the
            project's folder.
        auto_save: save the graph after each edit.
        secrets: what each secret opens; none: everybody may do everything.
        host, port: where to listen. A port of ``None``: the usual one, or the next that is free.
        origins: web pages that may connect beside those from this machine.
        runtime_id: the runtime's id; ``""``: that of earlier runs in the same folder.
        ide: where noflo-ui is served.
        routes: further HTTP routes.
        classic: whether it greets in the words of the original.
        ping: a URL in which ``$RUNTIME_ID`` stands for the id, an HTTP method, and how often
            (seconds) it is told there that the runtime is there; 0: never.
        tell: called with what people in front of the terminal should hear.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        file: Path | None = None,
        auto_save: bool = False,
        secrets: Mapping[str, Level] | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        origins: Collection[str] = (),
        runtime_id: str = "",
        ide: str = "",
        routes: Routes = (),
        classic: bool = False,
        ping: tuple[str, str, float] = ("", "", 0.0),
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._tell = tell
        self._ide = ide
        self.classic = classic
        self._ping = ping
        self._pinging: asyncio.Task[None] | None = None
        self._secrets = dict(secrets or {})
        self._runtime = runtime
        # For the commands of whoever may read the project's state.
        self._owners = random_secrets.token_urlsafe() if secrets else ""
        self._endpoint: Endpoint | None = None
        self.desk = RuntimeDesk(
            runtime,
            graph_name(runtime.graph, file),
            identity_of(runtime.root, runtime_id),
            label=f"{runtime.root.absolute().name} (MsgFlo)",
            persist=self._persist,
            edited=self._edited,
        )
        self.workspace = self.desk.workspace
        self.file = GraphFile(
            lambda: self.workspace.main.graph,
            file if file is not None else runtime.root / "main.json",
            runtime.root,
            auto=auto_save,
            changed=self._file_changed,
            tell=self._complain,
        )
        access = Access({**self._secrets, self._owners: Level.CODE} if secrets else None)
        self.server = Server(
            self.workspace,
            access,
            host=host,
            port=DEFAULT_PORT if port is None else port,
            others=PORTS_TRIED if port is None else 0,
            origins=origins,
            ide=ide,
            routes=[text_route("/metrics", runtime.metrics, access), *routes],
        )

    @property
    def address(self) -> str:
        """Where it listens, as a WebSocket URL."""
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return f"ws://{host}:{self.server.port}"

    def live_url(self, *, secret: bool = True) -> str:
        """Return the address at which noflo-ui opens it.

        Args:
            secret: put the secret into it that opens most, if there is one.
        """
        best = max(self._secrets.items(), key=lambda item: item[1], default=("", Level.NONE))[0]
        return live_url(
            self.server.host,
            self.server.port,
            self.desk.identity.id,
            best if secret else "",
            self._ide,
        )

    async def start(self) -> None:
        """Listen. What clients do before the runtime has started is carried out then.

        Raises:
            ConfigurationError: it cannot listen there.
        """
        self.desk.begin()
        self.file.start()
        await self.server.start()
        if self._ping[2] > 0:
            self._pinging = asyncio.create_task(self._ping_again(), name="ping")
        self._endpoint = Endpoint(
            _reached(self.address),
            self.desk.identity.id,
            os.getpid(),
            self._owners,
            self._runtime.url,  # an embedded one has none yet
        )
        write_endpoint(self._runtime.root, self._endpoint)

    def runtime_started(self) -> None:
        """Tell that the runtime has started."""
        self.desk.runtime_started()

    async def close(self) -> None:
        """Cut off all clients, and save what is to be saved. Idempotent."""
        if self._pinging is not None:
            self._pinging.cancel()
        if self._endpoint is not None:
            forget_endpoint(self._runtime.root, self._endpoint)
        await self.server.close()
        await self.file.close()
        await self.desk.close()

    def greeting(self) -> list[str]:
        """Return what to say when it listens."""
        if self.classic:
            return [f"msgflo started on {self.address}", f"Open in Flowhub: {self.live_url()}"]
        return [f"FBP protocol at {self.address}", f"open in noflo-ui: {self.live_url()}"]

    async def _ping_again(self) -> None:
        address, method, interval = self._ping
        address = address.replace("$RUNTIME_ID", quote(self.desk.identity.id, safe=""))
        complaint = ""
        while True:
            try:
                await asyncio.to_thread(_request, address, method)
                complaint = ""
            except (OSError, ValueError, HTTPException) as error:
                if complaint != str(error):
                    complaint = str(error)
                    self._tell(f"cannot ping {address}: {error}")
            await asyncio.sleep(interval)

    def _persist(self) -> None:
        self.file.save()

    def _edited(self, sheet: Sheet) -> None:
        if sheet.main:
            self.file.edited()

    def _file_changed(self, graph: Graph) -> None:
        try:
            self.workspace.replace(self.workspace.main, graph)
        except MsgFloError as error:
            self._complain(f"{self.file.path} was changed, and cannot be used: {error}")

    def _complain(self, text: str) -> None:
        self._tell(text)
        self.workspace.tell("network", "output", {"message": text[:2000], "type": "message"})


def _request(address: str, method: str) -> None:
    if not address.startswith(("http://", "https://")):
        raise ValueError("expected an http or https URL")
    request = urllib.request.Request(address, data=b"", method=method.upper())  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - checked above
        pass


def _reached(address: str) -> str:
    """Return where a runtime that listens everywhere is reached on this machine."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
