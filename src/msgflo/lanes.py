"""How the messages of one inport are handled: in the event loop, in threads, or in processes.

A lane takes deliveries and calls the handler with them, at most ``concurrency`` at a time, in the
order of their arrival. There is no task, no thread and no future for each message: a few workers,
started when they are first needed, take what waits until nothing does.
"""

import asyncio
import inspect
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Protocol

from msgflo.declaration import Entry
from msgflo.errors import ConnectionLost, PayloadError
from msgflo.failure import Failure, poison
from msgflo.log import ParticipantLog
from msgflo.outbox import CURRENT, Handling, Outbox, Sender
from msgflo.signature import Call, Context, Form
from msgflo.transport.contract import Delivery

if TYPE_CHECKING:
    from msgflo.child import Child

__all__ = [
    "CANCEL_TIME",
    "AsyncLane",
    "Host",
    "Lane",
    "ProcessLane",
    "Resumed",
    "Runner",
    "ThreadLane",
    "acknowledge",
    "context_of",
    "exit_code",
    "lane_for",
]

CANCEL_TIME = 1.0
"""Seconds that a handler has to clean up when it is cancelled at the end of the grace."""

ACK_PATIENCE = 30.0
"""Seconds after which it is told that a handler has returned and nobody has acked its message:
then, most likely, nobody will."""


class Host(Protocol):
    """The participant that a lane belongs to."""

    @property
    def role(self) -> str:
        """The node of the graph."""

    @property
    def instance(self) -> int:
        """Which participant of that role."""

    @property
    def log(self) -> ParticipantLog:
        """What it writes."""

    @property
    def outbox(self) -> Outbox:
        """Where its packets leave by."""

    @property
    def senders(self) -> Mapping[str, Sender]:
        """Its outports, by name."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of its settings, by port: the same mapping all the time."""

    @property
    def settings(self) -> Mapping[str, tuple[bytes, Mapping[str, str]]]:
        """Their payloads and headers, as they came: another mapping after each change."""

    @property
    def thing(self) -> Any:
        """The object that the functions are methods of, or None."""

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""

    @property
    def resumed(self) -> "Resumed":
        """What to wait for before anything is begun: while it is paused, it begins nothing."""

    def end(self, lane: "Lane", handling: Handling) -> None:
        """Settle a delivery, or do what its failure demands."""

    def leave(self, code: int) -> None:
        """Stop the participant, because a handler wants the process to exit."""


class Resumed:
    """Whether a participant may begin something; set from the event loop, waited for anywhere."""

    def __init__(self) -> None:
        self._threads = threading.Event()
        self._loop = asyncio.Event()
        self.set()

    def set(self) -> None:
        """Let everything go on."""
        self._threads.set()
        self._loop.set()

    def clear(self) -> None:
        """Hold up whoever waits from now on."""
        self._threads.clear()
        self._loop.clear()

    def is_set(self) -> bool:
        """Tell whether nobody has to wait."""
        return self._loop.is_set()

    async def wait(self) -> None:
        """Wait until it is set, in the event loop."""
        await self._loop.wait()

    def wait_in_thread(self) -> None:
        """Wait until it is set, in a thread."""
        self._threads.wait()


class Runner:
    """A function of the component, with all its arguments but the message filled in.

    Attributes:
        call: calls it with ``(value, handling)``.
        emit: sends one result.
    """

    def __init__(self, host: Host, call: Call) -> None:
        function = call.function
        if host.thing is not None:
            function = function.__get__(host.thing)
        outs = {key: host.senders[port.name] for key, port in call.outs.items()}
        params = {key: parameter.name for key, parameter in call.params.items()}
        values = host.values
        port = call.inport.name if call.inport else ""
        self._at = call.function.__qualname__
        self._result = host.senders[call.result.name] if call.result else None
        self._sends_none = call.sends_none

        def full(value: Any, handling: Handling | None) -> Any:
            keywords: dict[str, Any] = dict(outs)
            for key, name in params.items():
                keywords[key] = values[name]
            if call.context:
                keywords[call.context] = context_of(host, port, handling)
            if call.inport is None:
                return function(**keywords)
            if call.positional:
                return function(value, **keywords)
            keywords[call.message] = value
            return function(**keywords)

        def bare(value: Any, _handling: Handling | None) -> Any:
            return function(value)

        simple = call.inport and call.positional and not (outs or params or call.context)
        self.call: Callable[[Any, Handling | None], Any] = bare if simple else full

    def emit(self, item: Any) -> None:
        """Send what was returned or yielded.

        Raises:
            PayloadError: there is no outport for it, or JSON cannot say it.
        """
        if item is None and not self._sends_none:
            return
        if self._result is None:
            raise PayloadError(
                f"{self._at} returned a {type(item).__name__}, but there is no outport 'out'; "
                f"annotate what it returns, or return None"
            )
        self._result(item)

    def emit_all(self, items: Iterator[Any], wanted: Callable[[], bool] | None = None) -> None:
        """Send what an iterator gives, as long as it is wanted. A generator is closed in the end.

        Raises:
            PayloadError: as :meth:`emit`.
        """
        try:
            for item in items:
                if wanted is not None and not wanted():
                    return
                self.emit(item)
        finally:
            if isinstance(items, Generator):
                items.close()


def context_of(host: Host, port: str, handling: Handling | None) -> Context:
    """Return what is known of a message, for its handler."""
    if handling is None:
        return Context(role=host.role, instance=host.instance, inport=port, log=host.log)
    delivery = handling.delivery
    return Context(
        headers=delivery.headers,
        attempt=delivery.attempt,
        id=delivery.id,
        role=host.role,
        instance=host.instance,
        inport=port,
        sent=delivery.sent,
        log=host.log,
        end=lambda reason: acknowledge(host.outbox, handling, reason),
    )


def acknowledge(outbox: Outbox, handling: Handling, reason: str | None) -> None:
    """End a message whose port has ``ack="manual"``, from any thread; others it leaves alone.

    Args:
        outbox: of the participant.
        handling: the message.
        reason: None: it is done; else why it cannot be processed.
    """
    failure = None if reason is None else Failure.nack(reason)
    with suppress(ConnectionLost):  # too late: it will come again
        outbox.call_here_or_soon(_acknowledge, outbox, handling, failure)


def _acknowledge(outbox: Outbox, handling: Handling, failure: Failure | None) -> None:
    if handling.manual and not handling.finished:
        outbox.wait_for_loose(handling)
        handling.finish(failure)


class Lane(ABC):
    """How the messages of one inport are handled.

    Attributes:
        entry: the inport.
        open: the messages that are here: waiting, in work, or not wholly confirmed.
    """

    def __init__(self, host: Host, entry: Entry) -> None:
        self.entry = entry
        self.open: set[Handling] = set()
        self._host = host
        self._manual = entry.ack == "manual"
        self._told_of_ack = False
        self._decode = entry.port.payload.decode

    def deliver(self, delivery: Delivery) -> None:
        """Take a message."""
        handling = Handling(delivery, self, self._manual)
        self.open.add(handling)
        if delivery.attempt > 1:
            failure = poison(delivery.attempt, self.entry.retry)
            if failure is not None:
                handling.finish(failure)
                return
        self._take(handling)

    def end(self, handling: Handling) -> None:
        """Hear that a message is over."""
        self._host.end(self, handling)

    @abstractmethod
    def _take(self, handling: Handling) -> None:
        """Have a message handled as soon as possible."""

    @abstractmethod
    def untaken(self) -> list[Handling]:
        """Take the messages away whose handling has not begun."""

    @abstractmethod
    async def abandon(self) -> list[Handling]:
        """Stop the workers, whatever they do. What they have in work does not end.

        Returns:
            The messages of which it is certain that nobody works on them any more.
        """

    def _failed(self, handling: Handling, raised: BaseException) -> None:
        """Fail a message. Called from the event loop."""
        if handling.finished:
            self._host.log.error(
                "%s failed after its message was acknowledged: %s",
                self.entry.port.name,
                raised,
                exc_info=raised,
            )
        else:
            handling.finish(Failure.of(raised))
        if isinstance(raised, SystemExit | KeyboardInterrupt):
            self._host.leave(exit_code(raised))

    def _returned(self, handling: Handling) -> None:
        """Note that a handler has returned. Called from the event loop."""
        handling.returned = True
        if not self._manual:
            handling.finish()
        elif not (handling.finished or self._told_of_ack):
            asyncio.get_running_loop().call_later(ACK_PATIENCE, self._check_ack, handling)

    def _check_ack(self, handling: Handling) -> None:
        if not (handling.finished or self._told_of_ack or self._host.stopping):
            self._told_of_ack = True
            self._host.log.warning(
                "%s: message %s was neither acked nor nacked %g s after its handler has returned; "
                "no more than %d such messages are held at a time, and then none comes any more",
                self.entry.port.name,
                handling.delivery.id,
                ACK_PATIENCE,
                self.entry.prefetch,
            )


def exit_code(raised: BaseException) -> int:
    """Return the exit code that an exception asks for."""
    if isinstance(raised, KeyboardInterrupt):
        return 130
    code = getattr(raised, "code", None)
    return code if isinstance(code, int) else int(code is not None)


def lane_for(host: Host, entry: Entry) -> Lane:
    """Return the lane that suits an inport."""
    if entry.call.form.is_async:
        return AsyncLane(host, entry)
    if entry.executor == "process":
        return ProcessLane(host, entry)
    return ThreadLane(host, entry)


class AsyncLane(Lane):
    """Handles messages in the event loop."""

    def __init__(self, host: Host, entry: Entry) -> None:
        super().__init__(host, entry)
        self._runner = Runner(host, entry.call)
        self._awaits = entry.call.form is Form.ASYNC
        self._waiting: deque[Handling] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._parked: list[asyncio.Future[None]] = []
        self._cancelled: list[Handling] = []
        self._roused = False

    def _take(self, handling: Handling) -> None:
        self._waiting.append(handling)
        if not self._roused:
            self._rouse()

    def _rouse(self) -> None:
        """Have one more worker look for work. Who finds more than it takes rouses the next.

        So a burst of messages whose handlers do not wait for anything is done by one worker in
        one go, and one whose handlers do wait is spread over as many as may be.
        """
        if self._parked:
            self._parked.pop().set_result(None)
        elif len(self._workers) < self.entry.concurrency:
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        else:
            return  # all are at work, and look here when they have finished
        self._roused = True

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        outbox = self._host.outbox
        waiting = self._waiting
        begin = outbox.meter.begin
        self._roused = False
        while True:
            while waiting:
                handling = waiting.popleft()
                if waiting and not self._roused:
                    self._rouse()
                CURRENT.set(handling)
                begin(handling)
                await self._handle(handling)
                if outbox.full:
                    await outbox
            CURRENT.set(None)
            parked = loop.create_future()
            self._parked.append(parked)
            await parked
            self._roused = False

    async def _handle(self, handling: Handling) -> None:
        delivery = handling.delivery
        runner = self._runner
        try:
            try:
                value = self._decode(delivery.body, delivery.headers)
            except PayloadError as error:
                handling.finish(Failure.unfit(error))
                return
            result = runner.call(value, handling)
            if self._awaits:
                result = await result
            # The attribute first: to ask the abstract class of each result takes four times longer.
            if hasattr(result, "asend") and isinstance(result, AsyncGenerator):
                async with aclosing(result) as items:
                    async for item in items:
                        runner.emit(item)
                        if self._host.outbox.full:
                            await self._host.outbox
            else:
                runner.emit(result)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                self._cancelled.append(handling)
                raise  # by abandon(): it is not over, and comes again
            self._failed(handling, error)
        except BaseException as error:
            self._failed(handling, error)
        else:
            self._returned(handling)

    def untaken(self) -> list[Handling]:
        """Take the messages away whose handling has not begun."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    async def abandon(self) -> list[Handling]:
        """Cancel the workers; one that will not be cancelled is left alone."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers, timeout=CANCEL_TIME)
        return [handling for handling in self._cancelled if not handling.finished]


class ThreadLane(Lane):
    """Handles messages in threads of its own.

    They are daemons, because one that never ends must not keep the process from ending.
    """

    def __init__(self, host: Host, entry: Entry) -> None:
        super().__init__(host, entry)
        self._runner = Runner(host, entry.call)
        self._waiting: queue.SimpleQueue[Handling | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0

    def _take(self, handling: Handling) -> None:
        self._busy += 1
        if len(self._threads) < min(self._busy, self.entry.concurrency):
            name = f"{self._host.role}.{self._host.instance} {self.entry.port.name}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._waiting.put(handling)

    def _work(self) -> None:
        # What this thread sends and how it ends reach the event loop in the same order.
        call = self._host.outbox.call
        begin = self._host.outbox.meter.begin
        while (handling := self._waiting.get()) is not None:
            CURRENT.set(handling)
            begin(handling)
            try:
                failure = self._handle(handling)
            except BaseException as error:
                self._tell(call, self._over, handling, None, error)
            else:
                self._tell(call, self._over, handling, failure, None)
            CURRENT.set(None)
            del handling

    @staticmethod
    def _tell(call: Callable[..., None], *args: Any) -> None:
        with suppress(ConnectionLost):  # the participant has stopped: the message comes again
            call(*args)

    def _over(
        self, handling: Handling, failure: Failure | None, raised: BaseException | None
    ) -> None:
        self._busy -= 1
        if raised is not None:
            self._failed(handling, raised)
        elif failure is not None:
            handling.finish(failure)
        else:
            self._returned(handling)

    def _handle(self, handling: Handling) -> Failure | None:
        delivery = handling.delivery
        try:
            value = self._decode(delivery.body, delivery.headers)
        except PayloadError as error:
            return Failure.unfit(error)
        result = self._runner.call(value, handling)
        if isinstance(result, Iterator):
            self._runner.emit_all(result)
        elif inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise PayloadError(
                f"{self.entry.call.function.__qualname__} returned something to await; "
                f"make it async def"
            )
        else:
            self._runner.emit(result)
        return None

    def untaken(self) -> list[Handling]:
        """Take the messages away whose handling has not begun."""
        taken = []
        with suppress(queue.Empty):
            while True:
                handling = self._waiting.get_nowait()
                if handling is not None:
                    taken.append(handling)
        self._busy -= len(taken)
        return taken

    async def abandon(self) -> list[Handling]:
        """Have the threads end when they have finished what they do, if they ever do."""
        for _ in self._threads:
            self._waiting.put(None)
        return []


class ProcessLane(ThreadLane):
    """Handles messages in processes, each led by a thread."""

    def __init__(self, host: Host, entry: Entry) -> None:
        super().__init__(host, entry)
        self._own = threading.local()
        self._children: list[Child] = []
        # Made once here, so that what cannot be found in another process is told at the start.
        self._new_child()

    def _new_child(self) -> "Child":
        # Not needed, and not loaded, by participants without such a port.
        from msgflo.child import Child

        return Child(self.entry.call, self._host.role, self._host.instance)

    def _work(self) -> None:
        child = self._own.child = self._new_child()
        self._children.append(child)
        try:
            super()._work()
        finally:
            child.close()

    def _handle(self, handling: Handling) -> Failure | None:
        child: Child = self._own.child
        senders = self._host.senders
        return child.call(
            handling.delivery,
            self._host.settings,
            lambda name, body, kind: senders[name].send(body, kind),
        )

    async def abandon(self) -> list[Handling]:
        """Kill the processes that are still at work; the others end by themselves."""
        await super().abandon()
        if any(handling for handling in self.open if not handling.finished):
            for child in self._children:
                child.kill()
            # Their threads tell what became of the messages, and that is told before this returns.
            await self._host.outbox.in_thread(self._join, f"{self._host.role} join")
        return []

    def _join(self) -> None:
        end = time.monotonic() + CANCEL_TIME
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
