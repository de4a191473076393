"""The coordinator: carries out on a real broker what :mod:`msgflo.coordinator.network` orders.

It is never in the path of a message. While it is gone, what is bound stays bound; when it comes
back, it asks the broker what is bound and the participants who they are, and goes on.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from msgflo.coordinator.network import (
    Bind,
    Event,
    Memory,
    Network,
    NetworkStatus,
    Order,
    Pause,
    SendInitial,
    Unbind,
)
from msgflo.errors import (
    ConfigurationError,
    ConnectionLost,
    DefinitionError,
    MsgFloError,
    UnsupportedBinding,
)
from msgflo.flow.discovery import Definition, Goodbye, Instruction, parse_discovery
from msgflo.flow.graph import Graph
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Broker

__all__ = ["Coordinator"]

ASK_AGAIN = 0.5
"""Seconds until the broker is asked again what is bound, after it could not say."""

ASK_EVERY = 60.0
"""Seconds until it is asked again after it said, because others can bind and unbind too."""

WRITE_AFTER = 0.2
"""Seconds: changes that come together are written down together. All that a sudden death in
between takes is heard again from the participants, or sent again with the same message id."""


class Coordinator:
    """Keeps a network like its graph, until it is closed.

    Args:
        broker: connected; the coordinator does not close it.
        graph: what is wanted.
        memory: the file that outlives the coordinator; ``None``: nothing does.
        assumed: what roles are taken to be until somebody announces them.
        told: called, from the event loop, with what people would want to hear.
        strict: whether connections are refused whose types can never match; else that is told.
    """

    def __init__(
        self,
        broker: Broker,
        graph: Graph,
        *,
        memory: Path | None = None,
        assumed: Mapping[str, Definition] = MappingProxyType({}),
        told: Callable[[Event], None] = lambda _: None,
        strict: bool = False,
    ) -> None:
        self._broker = broker
        self._file = memory
        self._told = told
        self._written = b""
        self.network = Network(graph, self._remember(), assumed, strict=strict)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._tick_at = float("inf")
        self._finding: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._ask_again = False
        self._complaint = ""  # why the broker could not be asked, told once
        self._changed = asyncio.Event()  # another one after each change
        self._changes = 0
        self._writing: asyncio.TimerHandle | None = None
        self._unwritable = ""
        self._closed = False

    async def start(self) -> None:
        """Begin: ask the broker what is bound and the participants who they are.

        Raises:
            TransportError: the broker cannot be listened to.
        """
        self._broker.on_restored(self._restored)
        self._find()
        await self._broker.listen(self._heard)
        self._after([])

    async def close(self) -> None:
        """Stop coordinating. What is bound stays so, what is being bound may be. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for timer in (self._ticking, self._again, self._writing):
            if timer is not None:
                timer.cancel()
        self._changed.set()
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

    def pause(self, paused: bool) -> None:
        """Have the participants take no messages from now on, or take them again."""
        self._after(self.network.pause(paused))

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
            ConnectionLost: the coordinator was closed before.
        """
        async with asyncio.timeout(timeout):
            while True:
                changed = self._changed
                status = self.status()
                if condition(status):
                    return status
                if self._closed:
                    raise ConnectionLost("the coordinator was closed, so nothing will change")
                await changed.wait()

    # Facts.

    def _heard(self, data: bytes) -> None:
        if self._closed:
            return
        try:
            said = parse_discovery(data)
        except DefinitionError as error:
            self._tell(Event("wrong", "", f"passed over: {error}"))
            return
        if isinstance(said, Goodbye):
            self._after(self.network.left(said))
        else:
            self._after(self.network.heard(said, time.monotonic()))

    def _restored(self) -> None:
        # An answer that is on its way may be from before.
        self._ask_again = True
        self._find()

    def _find(self) -> None:
        """Ask the broker what is bound; again and again until it says, and from time to time."""
        if self._closed or self._finding is not None:
            return
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._ask_again = False
        self.network.asking()
        self._finding = self._spawn(self._ask(), "ask what is bound")

    async def _ask(self) -> None:
        pause = ASK_EVERY
        try:
            bindings = await self._broker.bindings()
        except Exception as error:
            pause = ASK_AGAIN
            if self._complaint != (complaint := _reason(error)):
                self._complaint = complaint
                text = f"cannot ask the broker what is bound: {complaint}"
                self._tell(Event("failed", "", text))
            if not isinstance(error, MsgFloError):
                raise
        else:
            self._complaint = ""
            self._after(self.network.found(bindings))
        finally:
            self._finding = None
            if not self._closed:
                self._again = asyncio.get_running_loop().call_later(
                    0 if self._ask_again else pause, self._find
                )

    def _tick(self) -> None:
        self._ticking = None
        self._tick_at = float("inf")
        self._after(self.network.tick(time.monotonic()))

    # Orders.

    def _after(self, orders: list[Order]) -> None:
        """Carry out orders, tell events, write down what changed, set the clock."""
        if self._closed:
            return
        network = self.network
        if any(isinstance(order, Bind) for order in orders):
            # Before it is made, so that it is known as ours whatever happens in between.
            self._write()
        for order in orders:
            self._spawn(self._carry_out(order), str(order))
        events, network.events = network.events, []
        for event in events:
            self._tell(event)
        if network.changes != self._changes:
            self._changes = network.changes
            self._changed.set()
            self._changed = asyncio.Event()
            self._write_soon()
        deadline = network.next_deadline()
        # A timer that goes off too early does no harm, and each heartbeat moves the deadline.
        if deadline is not None and deadline < self._tick_at:
            if self._ticking is not None:
                self._ticking.cancel()
            delay = max(0.0, deadline - time.monotonic())
            self._tick_at = deadline
            self._ticking = asyncio.get_running_loop().call_later(delay, self._tick)

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
                case Pause(role, paused):
                    told = Instruction("pause" if paused else "resume", (role,))
                    await self._broker.tell(told.encode())
        except Exception as error:
            final = isinstance(error, UnsupportedBinding)
            now = time.monotonic()
            self._after(self.network.failed(order, _reason(error), now, final=final))
            if not isinstance(error, MsgFloError):
                raise
        else:
            self._after(self.network.done(order, time.monotonic()))

    def _tell(self, event: Event) -> None:
        try:
            self._told(event)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{self._told!r} could not be told {event}", "exception": error}
            )

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
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # It holds nothing that discovery does not bring again; only bindings that were
            # removed from the graph meanwhile will be shown instead of removed.
            self._tell(Event("failed", "", f"{self._file} is damaged and is ignored: {error}"))
            return Memory()

    def _write_soon(self) -> None:
        if self._file is not None and self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(WRITE_AFTER, self._write)

    def _write(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self._file is None:
            return
        data = msgspec.json.encode(self.network.memory)
        if data == self._written:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(self._file, data)
        except OSError as error:
            if self._unwritable != str(error):
                self._unwritable = str(error)
                self._tell(Event("failed", "", f"cannot write {self._file}: {error.strerror}"))
        else:
            self._written = data
            self._unwritable = ""


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, MsgFloError) else f"{type(error).__name__}: {error}"


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
