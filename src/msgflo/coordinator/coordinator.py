"""The coordinator: carries out on a real broker what :mod:`msgflo.coordinator.network` orders.

It is never in the path of a message. While it is gone, what is bound stays bound; when it comes
back, it asks the broker what is bound and the participants who they are, and goes on.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec

from msgflo.coordinator.network import (
    Bind,
    Event,
    Memory,
    Network,
    NetworkStatus,
    Order,
    SendInitial,
    Unbind,
)
from msgflo.errors import ConfigurationError, DefinitionError, MsgFloError, UnsupportedBinding
from msgflo.flow.discovery import Goodbye, parse_discovery
from msgflo.flow.graph import Graph
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Broker

__all__ = ["Coordinator"]

ASK_AGAIN = 0.5
"""Seconds until the broker is asked again what is bound, after it could not say."""


class Coordinator:
    """Keeps a network like its graph, until it is closed.

    Args:
        broker: connected; the coordinator does not close it.
        graph: what is wanted.
        memory: the file that outlives the coordinator; ``None``: nothing does.
        told: called, from the event loop, with what people would want to hear.
    """

    def __init__(
        self,
        broker: Broker,
        graph: Graph,
        *,
        memory: Path | None = None,
        told: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._broker = broker
        self._file = memory
        self._told = told
        self._written = b""
        self.network = Network(graph, self._remember())
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._finding: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._changed = asyncio.Condition()
        self._notifying: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Begin: ask the broker what is bound and the participants who they are.

        Raises:
            TransportError: the broker cannot be listened to.
        """
        self._broker.on_restored(self._find)
        self._find()
        await self._broker.listen(self._heard)
        self._after([])

    async def close(self) -> None:
        """Stop coordinating. What is bound stays so. Idempotent."""
        self._closed = True
        for timer in (self._ticking, self._again):
            if timer is not None:
                timer.cancel()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._write()

    def status(self) -> NetworkStatus:
        """Return the whole network as it is now."""
        return self.network.status()

    def change_graph(self, graph: Graph) -> None:
        """Want another graph from now on, or tell that the same one was edited."""
        self._after(self.network.change_graph(graph))

    def vanished(self, role: str, instance: int) -> None:
        """Tell that a participant's process ended; one that said goodbye is not affected."""
        self.network.vanished(role, instance)
        self._after([])

    async def until(
        self, condition: Callable[[NetworkStatus], bool], timeout: float | None = None
    ) -> NetworkStatus:
        """Wait until the network's status fulfils a condition; return that status.

        Args:
            condition: asked after each change.
            timeout: seconds; ``None``: no limit.

        Raises:
            TimeoutError: it did not, in this time.
        """
        async with asyncio.timeout(timeout):
            async with self._changed:
                while True:
                    status = self.status()
                    if condition(status):
                        return status
                    await self._changed.wait()

    # Facts.

    def _heard(self, data: bytes) -> None:
        try:
            said = parse_discovery(data)
        except DefinitionError as error:
            self._told(Event("wrong", "", f"passed over: {error}"))
            return
        if isinstance(said, Goodbye):
            self._after(self.network.left(said))
        else:
            self._after(self.network.heard(said, time.monotonic()))

    def _find(self) -> None:
        """Ask the broker what is bound; again and again until it says."""
        if self._closed or (self._finding is not None and not self._finding.done()):
            return

        async def ask() -> None:
            try:
                bindings = await self._broker.bindings()
            except MsgFloError as error:
                self._told(Event("failed", "", f"cannot ask the broker what is bound: {error}"))
                self._again = asyncio.get_running_loop().call_later(ASK_AGAIN, self._find)
            else:
                self._after(self.network.found(bindings))

        self._finding = self._spawn(ask(), "ask what is bound")

    def _tick(self) -> None:
        self._after(self.network.tick(time.monotonic()))

    # Orders.

    def _after(self, orders: list[Order]) -> None:
        """Carry out orders, tell events, write down what changed, set the clock."""
        for order in orders:
            self._spawn(self._carry_out(order), str(order))
        events, self.network.events = self.network.events, []
        for event in events:
            self._told(event)
        if events or orders:
            self._write()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        deadline = self.network.next_deadline()
        if deadline is not None and not self._closed:
            delay = max(0.0, deadline - time.monotonic())
            self._ticking = asyncio.get_running_loop().call_later(delay, self._tick)
        if self._notifying is None or self._notifying.done():
            self._notifying = self._spawn(self._notify(), "tell waiters")

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _carry_out(self, order: Order) -> None:
        try:
            match order:
                case Bind(binding):
                    await self._broker.bind(binding)
                case Unbind(binding):
                    await self._broker.unbind(binding)
                case SendInitial():
                    await self._broker.enqueue(
                        order.queue,
                        order.body,
                        {MESSAGE_ID: order.id, CONTENT_TYPE: "application/json"},
                    )
        except MsgFloError as error:
            final = isinstance(error, UnsupportedBinding)
            self._after(self.network.failed(order, str(error), time.monotonic(), final=final))
        else:
            self._after(self.network.done(order))
            self._write()

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the coordinator could not {task.get_name()}", "exception": error}
            )

    # Memory.

    def _remember(self) -> Memory:
        if self._file is None:
            return Memory()
        try:
            self._written = self._file.read_bytes()
            return msgspec.json.decode(self._written, type=Memory)
        except FileNotFoundError:
            return Memory()
        except OSError as error:
            raise ConfigurationError(f"cannot read {self._file}: {error.strerror}") from None
        except msgspec.DecodeError as error:
            # It holds nothing that discovery does not bring again; only bindings that were
            # removed from the graph meanwhile will be shown instead of removed.
            self._told(Event("failed", "", f"{self._file} is damaged and is ignored: {error}"))
            return Memory()

    def _write(self) -> None:
        if self._file is None:
            return
        data = msgspec.json.encode(self.network.memory, order="sorted")
        if data == self._written:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(self._file, data)
        except OSError as error:
            self._told(Event("failed", "", f"cannot write {self._file}: {error.strerror}"))
        else:
            self._written = data


def _write_atomically(file: Path, data: bytes) -> None:
    """Replace a file so that whoever reads it sees the old or the new one, whole."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
