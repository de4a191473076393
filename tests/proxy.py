"""A network that can be treated badly: a TCP proxy between a client and a real server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

__all__ = ["Proxy", "proxied"]


class Proxy:
    """Forwards connections to a server on loopback, until it is told otherwise.

    Attributes:
        port: where it listens.
        accepting: whether new connections get through; those that do not are closed at once.
        connections: how many were accepted, ever.
        rewrite: what is done to the data that the server sends.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.accepting = True
        self.connections = 0
        self.rewrite: Callable[[bytes], bytes] = bytes
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Break all connections, with whatever is on its way in them."""
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Let nothing through any more, and break nothing: a cable that is out."""
        self._flowing.clear()

    def release(self) -> None:
        """Let everything through again, what was held included."""
        self._flowing.set()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self.accepting:
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, forth}
        for source, target, change in ((reader, forth, bytes), (back, writer, self.rewrite)):
            task = asyncio.create_task(self._forward(source, target, change))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        change: Callable[[bytes], bytes],
    ) -> None:
        try:
            while data := await source.read(65536):
                await self._flowing.wait()
                target.write(change(data))
                await target.drain()
            target.close()
        except OSError:
            target.transport.abort()
        finally:
            self._writers.discard(target)


@contextlib.asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """Run a proxy to a port."""
    proxy = Proxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
