"""One participant at work: a component, in a role, on a connection.

What happens, in this order: its queues are declared; initial packets for settings are applied; the
component's ``start`` is called; messages are taken; it announces itself; its sources run. At the
end: nothing more is taken; what is in work is finished, or comes again; ``stop`` is called; it
says goodbye.
"""

import asyncio
import logging
import os
import platform
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from msgflo.declaration import Declaration
from msgflo.errors import (
    DefinitionError,
    PayloadError,
    TransportError,
    UnknownPort,
)
from msgflo.failure import Again, Dead, Failure, death_of, decide, error_packet
from msgflo.flow.discovery import DEFAULT_PERIOD, Announcement, Goodbye
from msgflo.flow.telemetry import TELEMETRY, Question
from msgflo.lanes import CANCEL_TIME, Lane, Resumed, context_of, lane_for
from msgflo.log import ParticipantLog
from msgflo.meter import Handled, Meter, Spot
from msgflo.otel import Exporter
from msgflo.outbox import CURRENT, Handling, Outbox, Sender
from msgflo.payload import encode
from msgflo.signature import REQUIRED, Form, Parameter
from msgflo.sources import run_source
from msgflo.transport.contract import CONTENT_TYPE, MESSAGE_ID, Client, Delivery, Inlet

__all__ = ["Engine", "Observer"]

Observer = Callable[[Delivery, Failure | None, bool], None]
"""Told of each delivery that ended: the delivery, why it failed if it did, and whether the message
is over: settled, or dead, and not tried again."""

ANNOUNCEMENTS = 2.2
"""So often is a participant announced in each period: one may be lost without being missed."""

REPORT = 5.0
"""Seconds between two reports of figures, as long as there is something new."""

REPORTS_IDLE = 12
"""Every so manieth report is made even if nothing is new: who listens may have come later."""

SETTINGS_PREFETCH = 16
"""Messages for a setting are applied at once, and only the last of them matters."""

PAUSE = 1.0
"""Seconds before a participant tries again to take messages that the broker did not let."""

STOP_TIME = 2.0
"""Seconds that a component's ``stop`` has at least, when handlers have used up the grace."""


class _Initial(Delivery):
    """An initial packet for a port that triggers: a message that no broker has."""

    __slots__ = ()


class _Applied:
    """The handling of a message for a setting: over as soon as it has begun."""

    __slots__ = ("began", "delivery", "spot")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.began = time.time()
        self.spot: Spot | None = None


class Engine:
    """Runs one participant. All of it is used from one event loop.

    Attributes:
        declaration: the component.
        definition: what is announced.
        role: the node of the graph.
        instance: which participant of that role.
        log: what it writes.
        meter: what it counts and remembers of its work.
        thing: the component's object, or None.
        outbox: where its packets leave by.
        senders: its outports, by name.
        values: the values of its settings, by port.
        settings: their payloads and headers; another mapping after each change.
        stopping: whether it has been told to stop.
        resumed: set while it is not paused.
    """

    def __init__(
        self,
        declaration: Declaration,
        client: Client,
        role: str,
        instance: int = 1,
        *,
        initials: Mapping[str, Any] | None = None,
        period: float = DEFAULT_PERIOD,
        leave: Callable[[int], None] | None = None,
        observer: Observer | None = None,
        restart_sources: bool = True,
        paused: bool = False,
        exporter: Exporter | None = None,
    ) -> None:
        """Make one, in the event loop that it is for.

        Args:
            declaration: the component.
            client: the connection, not closed by this.
            role: the node of the graph.
            instance: which participant of that role, from 1.
            initials: initial packets: values by inport, in any case.
            period: seconds; it announces itself a little more than twice in each.
            leave: called with an exit code when a handler raises SystemExit.
            observer: told of each delivery that ended.
            restart_sources: try sources again that fail; else their failure is raised by
                :meth:`sources_done`.
            paused: take nothing before it is told to resume.
            exporter: where its spans go, beside its own memory.

        Raises:
            UnknownPort: an initial packet is for a port that there is not.
            PayloadError: an initial packet does not fit its port.
            DefinitionError: the component's object cannot be made.
        """
        self.declaration = declaration
        self.role = role
        self.instance = instance
        self.log = ParticipantLog(role, instance)
        self.definition = declaration.definition(role, f"{role}-{uuid.uuid4()}")
        queues = {port.id: port.queue for port in self.definition.inports if port.queue}
        outports = {port.id: port.queue for port in self.definition.outports if port.queue}
        export = None
        if exporter is not None:
            all_queues = {**queues, **outports}
            export = exporter.participant(role, instance, declaration.component, all_queues)
        self.meter = Meter(
            queues,
            outports,
            participant=self.definition.id,
            role=role,
            instance=instance,
            export=export,
            entering=None if exporter is None else exporter.entering(),
            around=None if exporter is None else exporter.around(),
        )
        self.outbox = Outbox(
            client,
            self.log,
            self.meter,
            remember_loose=any(entry.ack == "manual" for entry in declaration.entries),
        )
        self.senders: Mapping[str, Sender] = {
            port.id: Sender(self.outbox, port.id, port.queue) for port in self.definition.outports
        }
        self.values: dict[str, Any] = {
            parameter.name: parameter.default
            for parameter in declaration.parameters
            if parameter.default is not REQUIRED
        }
        self.settings: Mapping[str, tuple[bytes, Mapping[str, str]]] = {}
        self.stopping = False
        self.resumed = Resumed()
        if paused:
            self.resumed.clear()
        self._pausing = asyncio.Lock()
        self._client = client
        self._period = period
        self._leave = leave
        self._observer = observer
        self._restart_sources = restart_sources
        self._tasks: set[asyncio.Task[None]] = set()
        self._sources: list[asyncio.Task[None]] = []
        self._heartbeat: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._reporting = False
        self._reports = 0
        self._begun = False
        self._gone = False
        self._idle: asyncio.Future[None] | None = None
        self._initials: list[tuple[Lane, bytes, Mapping[str, str], int]] = []
        self._initial_names: list[str] = []
        error = self.definition.outport("error")
        self._error = self.senders[error.id] if error is not None and error.queue else None
        self._error_queue = error.queue if error is not None else ""
        self.thing: Any = None
        if declaration.make is not None:
            self.thing = self._make(declaration.make)
        self.lanes = [lane_for(self, entry) for entry in declaration.entries]
        self._resting = list(self.lanes)
        self._inlets = {
            port.id: Inlet(port.queue, instance) for port in self.definition.inports if port.queue
        }
        for name, value in (initials or {}).items():
            self._add_initial(name, value)
        self._missing = {
            parameter.name
            for parameter in declaration.parameters
            if parameter.name not in self.values
        }

    def __repr__(self) -> str:
        return f"<Engine {self.role}.{self.instance} ({self.declaration.component})>"

    # Starting.

    def _make(self, make: Callable[[], Any]) -> Any:
        try:
            thing = make()
        except TypeError as error:
            raise DefinitionError(
                f"{self.declaration.at}: it cannot be made without arguments ({error}); "
                f"run an object of it instead of the class"
            ) from error
        if getattr(thing, "_msgflo_engine", None) is not None:
            raise DefinitionError(
                f"{self.declaration.at}: one object of it cannot be two participants; "
                f"run the class instead"
            )
        thing._msgflo_engine = self
        thing.context = context_of(self, "", None)
        for attribute, out in (self.declaration.outs or {}).items():
            setattr(thing, attribute, self.senders[out.name])
        return thing

    def _add_initial(self, name: str, value: object) -> None:
        declaration = self.declaration
        body, kind = encode(value)
        headers = {CONTENT_TYPE: kind}
        parameter = declaration.parameter(name)
        entry = declaration.entry(name)
        try:
            if parameter is not None:
                self._apply(parameter, body, headers)
                self._initial_names.append(parameter.name)
                return
            if entry is not None:
                entry.port.payload.decode(body, headers)
                self._initial_names.append(entry.port.name)
                found = next(lane for lane in self.lanes if lane.entry is entry)
                self._initials.append((found, body, headers, 1))
                return
        except PayloadError as error:
            raise PayloadError(
                f"the initial packet for {name!r} of {self.role!r}: {error}"
            ) from None
        raise UnknownPort(self.role, "inport", name, [port.id for port in self.definition.inports])

    async def start(self) -> None:
        """Start. When this returns it takes messages and has announced itself.

        Raises:
            TransportError: the broker does not let it.
            Exception: whatever the component's ``start`` raises; nothing was taken then.
        """
        outports = [port.queue for port in self.definition.outports if port.queue]
        await self._client.declare(list(self._inlets.values()), [*outports, TELEMETRY])
        if self.thing is not None:
            await self._call(self.thing.start)
        if self.declaration.attach is not None:
            self.declaration.attach(self)
        self._begun = True
        async with self._pausing:
            if self.resumed.is_set():
                await self._take_settings()
        await self.announce()
        self._heartbeat = asyncio.create_task(self._announce_again())
        self._telling = asyncio.create_task(self._tell_figures_again())
        if not self._missing:
            self._run_sources()

    async def _take_settings(self) -> None:
        """Begin to take settings, and messages too if all settings that must be known are."""
        for parameter in self.declaration.parameters:
            if parameter.name in self._inlets:
                await self._client.consume(
                    self._inlets[parameter.name], SETTINGS_PREFETCH, self._setter(parameter)
                )
        if self._missing:
            self.log.info("waits for the settings: %s", ", ".join(sorted(self._missing)))
        else:
            await self._take()

    async def _take(self) -> None:
        """Begin to take messages, the initial ones first; called again, go on where it failed."""
        initials, self._initials = self._initials, []
        for lane, body, headers, attempt in initials:
            name = lane.entry.port.name
            message_id = f"{self.definition.id}-initial-{name}"
            self._deliver_initial(lane, body, headers, message_id, attempt)
        while self._resting and not self.stopping:
            lane = self._resting.pop(0)
            inlet = self._inlets.get(lane.entry.port.name)
            if inlet is not None:
                try:
                    await self._client.consume(inlet, lane.entry.prefetch, self._deliverer(lane))
                except TransportError:
                    self._resting.insert(0, lane)
                    raise

    async def _take_at_last(self) -> None:
        """Begin to take messages, and run the sources, when the last setting has come."""
        while not self.stopping:
            try:
                async with self._pausing:
                    if self.resumed.is_set():  # else resume() will see to it
                        await self._take()
            except TransportError as error:
                self.log.warning("cannot take messages yet, tries again: %s", error)
                await asyncio.sleep(PAUSE)
            else:
                if self._heartbeat is not None:  # else start() is not so far yet, and runs them
                    self._run_sources()
                return

    def _run_sources(self) -> None:
        if not self._sources and not self.stopping:
            for source in self.declaration.sources:
                running = run_source(self, source, again=self._restart_sources)
                self._sources.append(asyncio.create_task(running))

    def _deliverer(self, lane: Lane) -> Callable[[Delivery], None]:
        def deliver(delivery: Delivery) -> None:
            if self.stopping or not self.resumed.is_set():
                self._client.retry(delivery, counts=False)
            else:
                lane.deliver(delivery)

        return deliver

    def _deliver_initial(
        self, lane: Lane, body: bytes, headers: Mapping[str, str], message_id: str, attempt: int
    ) -> None:
        if not self.resumed.is_set():
            self._initials.append((lane, body, headers, attempt))
        elif not self.stopping:
            name = lane.entry.port.name
            inlet = Inlet(name, self.instance)
            named = {**headers, MESSAGE_ID: message_id}
            lane.deliver(_Initial(inlet, inlet.place, body, named, message_id, attempt))

    # Pausing.

    def told(self, command: str) -> None:
        """Follow an instruction of a coordinator, soon: ``announce``, ``pause``, ``resume``."""
        match command:
            case "pause":
                self._spawn(self.pause())
            case "resume":
                self._spawn(self.resume())
            case _:
                self.announce_soon()
                self._tell_figures(always=True)

    async def pause(self) -> None:
        """Take nothing until :meth:`resume`, and say so. Idempotent.

        What is in work is finished. What was taken and not begun is handed back, so that it waits
        in its queue, for other participants of the role too. Sources hold still where they are.
        """
        async with self._pausing:
            if not self.stopping:
                self.resumed.clear()
                await self._take_nothing()
        self.announce_soon()

    async def resume(self) -> None:
        """Go on after :meth:`pause`, and say so. Idempotent."""
        async with self._pausing:
            if not self.resumed.is_set() and not self.stopping:
                self.resumed.set()
                try:
                    await self._take_settings()
                except TransportError:
                    self.resumed.clear()  # it says that it is paused, and is told again
                    await self._take_nothing()
                    raise
        self.announce_soon()

    async def _take_nothing(self) -> None:
        self._resting = list(self.lanes)
        for lane in self.lanes:
            for handling in lane.untaken():
                self._hand_back(lane, handling)
        for inlet in self._inlets.values():
            await self._client.pause(inlet)

    # Settings.

    def _setter(self, parameter: Parameter) -> Callable[[Delivery], None]:
        def deliver(delivery: Delivery) -> None:
            if self.stopping:
                self._client.retry(delivery, counts=False)
                return
            applied = _Applied(delivery)
            try:
                self._apply(parameter, delivery.body, delivery.headers)
            except PayloadError as error:
                failure = Failure.unfit(error)
                self._tell_dead(parameter.name, delivery, failure)
                self._client.bury(delivery, self._death(delivery, failure))
                self._over(parameter.name, applied, "dead", failure)
                return
            self._client.settle(delivery)
            self._over(parameter.name, applied, "done", None)
            if self._missing:
                self._missing.discard(parameter.name)
                if not self._missing:
                    self._spawn(self._take_at_last())

        return deliver

    def _apply(self, parameter: Parameter, body: bytes, headers: Mapping[str, str]) -> None:
        value = parameter.payload.decode(body, headers)
        self.values[parameter.name] = value
        self.settings = {**self.settings, parameter.name: (body, headers)}
        for attribute, setting in (self.declaration.settings or {}).items():
            if setting.name == parameter.name:
                setattr(self.thing, attribute, value)

    # What has ended.

    def end(self, lane: Lane, handling: Handling) -> None:
        """Settle a delivery that is over, or do what its failure demands."""
        failure = handling.failure
        delivery = handling.delivery
        if failure is not None:
            if self._gone:
                return  # the connection has taken it along: it comes again
            self._failed(lane, handling, failure)
        elif type(delivery) is not _Initial:
            if self._gone:
                return
            self._client.settle(delivery)
        if handling.finished:
            lane.open.discard(handling)
            if failure is None:
                outcome = "done" if handling.reported is None else "reported"
                self._over(lane.entry.port.name, handling, outcome, handling.reported)
            if self._idle is not None:
                self._check_idle()

    def _failed(self, lane: Lane, handling: Handling, failure: Failure) -> None:
        delivery = handling.delivery
        if handling.reported is not None:
            # The port error did not get it: it is as dead as it was before that was tried.
            self._bury(lane, handling, Dead(handling.reported))
            return
        retry = lane.entry.retry
        order = decide(failure, delivery.attempt, delivery.postponed, retry, random.random())  # noqa: S311 - jitter
        if isinstance(order, Again):
            self.log.warning(
                "%s: attempt %d of %d failed, again in %.3g s: %s: %s",
                lane.entry.port.name,
                delivery.attempt,
                retry.attempts,
                order.delay,
                failure.error,
                failure.text,
            )
            if type(delivery) is _Initial:
                asyncio.get_running_loop().call_later(
                    order.delay,
                    self._deliver_initial,
                    lane,
                    delivery.body,
                    delivery.headers,
                    delivery.id,
                    delivery.attempt + order.counts,
                )
            else:
                self._client.retry(delivery, order.delay, counts=order.counts)
            outcome = "retried" if order.counts else "postponed"
            self._over(lane.entry.port.name, handling, outcome, failure)
        elif self._error is not None:
            handling.reported = order.failure
            handling.reopen()
            handling.sending()  # so that it cannot be over before this is decided
            self._spawn(self._report(self._error, lane, handling, order))
        else:
            self._bury(lane, handling, order)

    async def _report(self, error: Sender, lane: Lane, handling: Handling, order: Dead) -> None:
        """Send a failure to the outport ``error`` where something is connected to it."""
        delivery = handling.delivery
        failure = order.failure
        try:
            bound = await self._client.is_bound(self._error_queue)
        except TransportError:
            bound = False
        if bound:
            packet = error_packet(
                failure,
                delivery.body,
                delivery.headers,
                id=delivery.id,
                role=self.role,
                inport=lane.entry.port.name,
                attempts=delivery.attempt,
            )
            CURRENT.set(handling)
            try:
                error(packet)
            except PayloadError:
                bound = False
        if not bound:
            handling.failure = failure
        else:
            self.log.error(
                "%s: failed, told to the outport %s: %s: %s",
                lane.entry.port.name,
                error.name,
                failure.error,
                failure.text,
            )
        handling.finish()
        handling.sent(None)

    def _bury(self, lane: Lane, handling: Handling, order: Dead) -> None:
        delivery = handling.delivery
        self._tell_dead(lane.entry.port.name, delivery, order.failure)
        if type(delivery) is not _Initial:
            self._client.bury(delivery, self._death(delivery, order.failure))
        self._over(lane.entry.port.name, handling, "dead", order.failure)

    def _death(self, delivery: Delivery, failure: Failure) -> Any:
        return death_of(failure, delivery, self.role, self.instance, time.time())

    def _tell_dead(self, port: str, delivery: Delivery, failure: Failure) -> None:
        what = f"message {delivery.id} is a dead letter"
        if type(delivery) is _Initial:  # which no broker has, and no dead-letter queue
            what = "the initial packet is given up"
        self.log.error(
            "%s: %s after attempt %d: %s: %s%s",
            port,
            what,
            delivery.attempt,
            failure.error,
            failure.text,
            f"\n{failure.traceback.rstrip()}" if failure.traceback else "",
        )

    def _over(self, port: str, handling: Handled, outcome: str, failure: Failure | None) -> None:
        """Count a delivery that has ended, and tell of it."""
        self.meter.ended(port, handling, outcome, failure)
        if self._observer is not None:
            over = outcome not in {"retried", "postponed"}
            self._observer(handling.delivery, failure, over)

    # What it says of its work.

    def answer(self, question: Question) -> None:
        """Send the spans that somebody asks for."""
        if not self._gone:
            for body in self.meter.answer(question):
                self._send_report(body)

    def _tell_figures(self, *, always: bool = False, final: bool = False) -> None:
        # One report at a time: while the broker is away they must not pile up, and the next one
        # says all that this one would.
        if not self._reporting:
            body = self.meter.report(always=always, final=final)
            if body is not None:
                self._reporting = True
                self._send_report(body)

    def _send_report(self, body: bytes) -> None:
        self._reports += 1
        headers = {
            MESSAGE_ID: f"{self.definition.id}-report-{self._reports}",
            CONTENT_TYPE: "application/json",
        }
        self._client.send(TELEMETRY, body, headers, self._reported)

    def _reported(self, _error: Exception | None) -> None:
        self._reporting = False

    async def _tell_figures_again(self) -> None:
        for number in count():
            self._tell_figures(always=number % REPORTS_IDLE == 0)
            await asyncio.sleep(REPORT)

    # Sources.

    async def sources_done(self) -> None:
        """Wait until all sources have ended by themselves.

        Raises:
            Exception: what one of them raised, if they are not to be tried again.
        """
        if self._sources:
            await asyncio.gather(*self._sources)

    # Announcing.

    async def announce(self) -> None:
        """Say on the discovery channel that it is there."""
        await self._client.announce(
            Announcement(
                self.definition,
                instance=self.instance,
                places=True,
                period=self._period,
                initials=tuple(self._initial_names),
                paused=not self.resumed.is_set(),
                details={"pid": os.getpid(), "host": platform.node(), "version": _version()},
            ).encode()
        )

    def announce_soon(self) -> None:
        """Do that in a moment; for callbacks."""
        if not self.stopping:
            self._spawn(self.announce())

    async def _announce_again(self) -> None:
        while True:
            await asyncio.sleep(self._period / ANNOUNCEMENTS)
            try:
                await self.announce()
            except TransportError as error:
                self.log.warning("cannot announce itself: %s", error)

    # Stopping.

    def leave(self, code: int) -> None:
        """Ask for an end of the process."""
        if self._leave is not None:
            self._leave(code)

    async def stop(self, grace: float) -> bool:
        """Stop: take nothing more, finish what is in work, and say goodbye. To be called once.

        What is not finished within the grace comes again, to whoever takes it.

        Args:
            grace: seconds, from 0.

        Returns:
            Whether all was finished in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        self.stopping = True
        self.resumed.set()  # threads of sources that wait for it are to end
        for task in self._own_tasks():
            task.cancel()
        for lane in self.lanes:
            for handling in lane.untaken():
                self._hand_back(lane, handling)
        with suppress(TransportError, TimeoutError):
            # Whoever has begun to take messages does so to the end, and then it is all undone.
            async with asyncio.timeout_at(max(deadline, loop.time() + 0.1)), self._pausing:
                for inlet in self._inlets.values():
                    await self._client.pause(inlet)
        finished = await self._finish(deadline)
        if not finished:
            late = [
                f"{len(lane.open)} at {lane.entry.port.name}" for lane in self.lanes if lane.open
            ]
            self.log.warning("stopped before these were done, they come again: %s", ", ".join(late))
        for lane in self.lanes:
            for handling in await lane.abandon():
                self._hand_back(lane, handling, counts=True)
            for handling in list(lane.open):
                if handling.manual and handling.returned and not handling.finished:
                    self._hand_back(lane, handling)
        if self._sources:  # which may have something to clean up
            await asyncio.wait(self._sources, timeout=CANCEL_TIME)
        if self.declaration.attach is not None and self._begun:
            self.declaration.attach(None)
        if self.thing is not None and self._begun:
            try:
                async with asyncio.timeout_at(max(deadline, loop.time() + STOP_TIME)):
                    await self._call(self.thing.stop)
            except TimeoutError:
                self.log.error("its stop() did not end in time")
            except Exception:
                self.log.exception("its stop() failed")
        if self._heartbeat is not None:
            self._reporting = False
            self._tell_figures(always=True, final=True)
            with suppress(TransportError):
                await self._client.announce(Goodbye(self.definition.id, self.role).encode())
        return finished

    async def close(self) -> None:
        """Let go of everything, after :meth:`stop` and before the connection is closed."""
        self._gone = True
        self.outbox.close()
        rest = [*self._tasks, *self._own_tasks()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self.thing is not None:
            self.thing._msgflo_engine = None

    def _own_tasks(self) -> list[asyncio.Task[None]]:
        others = [task for task in (self._heartbeat, self._telling) if task is not None]
        return [*self._sources, *others]

    def _hand_back(self, lane: Lane, handling: Handling, *, counts: bool = False) -> None:
        lane.open.discard(handling)
        handling.finished = True
        delivery = handling.delivery
        if type(delivery) is _Initial:
            self._initials.append((lane, delivery.body, delivery.headers, delivery.attempt))
        else:
            self._client.retry(delivery, counts=counts)

    async def _finish(self, deadline: float) -> bool:
        if not self._busy():
            return True
        self._idle = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(deadline):
                await self._idle
        except TimeoutError:
            return False
        return True

    def _check_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._busy():
            self._idle.set_result(None)

    def _busy(self) -> bool:
        return any(lane.open for lane in self.lanes)

    # Odds and ends of running things.

    async def _call(self, function: Callable[[], Any]) -> None:
        """Call ``start`` or ``stop``, async or not."""
        if Form.of(function).is_async:
            await function()
            return
        result = await self.outbox.in_thread(function, f"{self.role}.{self.instance}")
        if isinstance(result, Awaitable):
            await result

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            level = logging.WARNING if isinstance(error, TransportError) else logging.ERROR
            self.log.log(level, "%s", error, exc_info=error if level == logging.ERROR else None)


def _version() -> str:
    from msgflo import __version__

    return __version__
