"""Running participants: in a program of their own, several in one, or inside other code.

:func:`main` is for the end of a component's file, :func:`run` for several participants in one
program, :func:`serve` for code that has an event loop already, :func:`run_file` for somebody
else's file. What they are not told they look for in the environment, see
:mod:`msgflo.environment`.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from msgflo import transport
from msgflo.classic import Participant
from msgflo.declaration import Declaration, declared
from msgflo.engine import Engine, Observer
from msgflo.environment import (
    assigned_instance,
    broker_of,
    packets_of,
    parse_packets,
    seconds_of,
    starts_paused,
)
from msgflo.errors import (
    ConfigurationError,
    DefinitionError,
    MsgFloError,
    TransportError,
    UnknownPort,
    UnknownScheme,
)
from msgflo.failure import traceback_of
from msgflo.flow.discovery import DEFAULT_PERIOD, parse_instruction
from msgflo.flow.telemetry import parse_question
from msgflo.loading import choose, is_loading, load_components
from msgflo.log import configure
from msgflo.otel import exporter_of
from msgflo.transport.contract import Client

__all__ = [
    "GRACE",
    "Running",
    "check_file",
    "leave",
    "load_components",
    "main",
    "msgflo_python",
    "run",
    "run_file",
    "serve",
]

T = TypeVar("T")

GRACE = 10.0
"""Seconds that a participant has to finish what is in work, unless said otherwise."""

FLUSH = 2.0
"""Seconds at least for the last packets to be confirmed, when handlers have used up the grace."""

LEFT_BEHIND = 1.0
"""Seconds for what handlers have left behind, tasks and threads, to end when all else is over."""


async def serve(
    participants: Any,
    *,
    broker: str | None = None,
    role: str | None = None,
    instance: int | None = None,
    instances: int = 1,
    iips: Mapping[str, Any] | None = None,
    grace: float | None = None,
    period: float | None = None,
    client: Client | None = None,
    started: Callable[[list[Engine]], None] | None = None,
    stop: asyncio.Event | None = None,
    observer: Observer | None = None,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Run participants on one connection until told to stop. Cancelling it stops them as well.

    Args:
        participants: a component, several of them, or a mapping of roles to components. A
            component is a decorated function, a class made from Component or from the classic
            Participant, or an object of such a class.
        broker: the broker's URL.
        role: the role, if there is one component; else, and by default, each has its own name.
        instance: which participant of its role it is, from 1 (of several the first).
        instances: how many participants of each role to run.
        iips: initial packets, by inport; of several components each gets what it has ports for.
        grace: seconds to finish what is in work at the end.
        period: seconds; they announce themselves a little more than twice in each.
        client: a connection to use, which is connected and is not closed by this.
        started: called when all of them take messages and have announced themselves.
        stop: stop when this is set.
        observer: told of each delivery that ended.
        environment: what is not given is looked for here.

    Returns:
        The exit code that a handler asked for by SystemExit, else 0.

    Raises:
        ConfigurationError: something that must be known is not, or is wrong.
        DefinitionError: one of them is no component.
        ConnectFailed: the broker could not be reached.
        Exception: what a component's ``start`` raised; nothing was taken then.
    """
    plan = _plan(participants, role, environment)
    if instances < 1 or (instance is not None and instance < 1):
        raise ConfigurationError(
            f"instance is {instance} and instances {instances}; expected numbers from 1"
        )
    if instance is None:
        instance = assigned_instance(environment)
    grace = seconds_of("MSGFLO_GRACE", grace, GRACE, environment, least=0.0)
    period = seconds_of("MSGFLO_DISCOVERY_PERIOD", period, DEFAULT_PERIOD, environment, least=0.01)
    initials = _initials(plan, packets_of(iips, environment))
    ours = client is None
    if client is None:
        client = transport.client(broker_of(broker, environment))
    stopped = stop or asyncio.Event()
    code = 0

    def leave(wanted: int) -> None:
        nonlocal code
        code = wanted
        stopped.set()

    exporter = exporter_of(environment)
    engines: list[Engine] = []
    begun: list[Engine] = []
    try:
        if ours:
            await client.connect()
        for (component, its_role), packets in zip(plan, initials, strict=True):
            for number in range(instances):
                assigned = None if instance is None else instance + number
                engine = Engine(
                    _declaration(component, its_role),
                    client,
                    its_role,
                    await client.claim(its_role, assigned),
                    initials=packets,
                    period=period,
                    leave=leave,
                    observer=observer,
                    paused=starts_paused(environment),
                    exporter=exporter,
                )
                engines.append(engine)
        client.on_told(partial(_told, engines))
        client.on_restored(partial(_announce_all, engines))
        client.on_lost(partial(_tell_lost, engines))
        for engine in engines:
            begun.append(engine)
            await engine.start()
        if started is not None:
            started(engines)
        await stopped.wait()
    finally:
        results = await asyncio.gather(
            *(engine.stop(grace) for engine in begun), return_exceptions=True
        )
        if begun:
            with suppress(TransportError):
                await client.flush(FLUSH)
        for engine in engines:
            await engine.close()
        if exporter is not None:
            await exporter.close()
        if ours:
            await client.close()
        engines.clear()
        for result in results:
            if isinstance(result, Exception):
                logging.getLogger("msgflo").error("stopping failed", exc_info=result)
    return code


def _announce_all(engines: list[Engine]) -> None:
    for engine in engines:
        engine.announce_soon()


def _told(engines: list[Engine], message: bytes) -> None:
    try:
        question = parse_question(message)
        if question is not None:
            for engine in engines:
                engine.answer(question)
            return
        instruction = parse_instruction(message)
    except DefinitionError as error:
        logging.getLogger("msgflo").info("passed over: %s", error)
        return
    for engine in engines:
        if instruction.concerns(engine.role):
            engine.told(instruction.command)


def _tell_lost(engines: list[Engine], reason: str) -> None:
    if engines and not engines[0].stopping:
        logging.getLogger("msgflo").warning("lost the broker: %s; it is tried again", reason)


def _plan(
    participants: Any, role: str | None, environment: Mapping[str, str]
) -> list[tuple[Any, str]]:
    """Return components and their roles."""
    by_name = participants if isinstance(participants, Mapping) else {}
    if isinstance(participants, Mapping):
        plan = [(component, name) for name, component in participants.items()]
    elif isinstance(participants, Iterable) and not _is_component(participants):
        plan = [(component, "") for component in participants]
    else:
        plan = [(participants, "")]
    if not plan:
        raise ConfigurationError("no participants were given; expected at least one component")
    if len(plan) == 1:
        component, own = plan[0]
        plan = [(component, own or role or environment.get("MSGFLO_ROLE") or "")]
    elif role:
        raise ConfigurationError(
            f"the role {role!r} was given to {len(plan)} components; expected a mapping of roles "
            f"to components"
        )
    for component, name in plan:
        if (
            isinstance(component, Participant)
            and (role or name in by_name)
            and name != component.role
        ):
            raise ConfigurationError(
                f"the role {name!r} was given to an object that was made for {component.role!r}; "
                f"expected its class, or an object for that role"
            )
    return [
        # What was made for a role stays in it, whatever the environment says.
        (component, component.role)
        if isinstance(component, Participant)
        else (component, name or _own_role(component))
        for component, name in plan
    ]


def _is_component(thing: Any) -> bool:
    return getattr(thing, "__msgflo__", None) is not None


def _own_role(component: Any) -> str:
    if isinstance(component, type) and issubclass(component, Participant):
        return component.__name__.lower()
    return declared(component).role


def _declaration(component: Any, role: str) -> Declaration:
    if isinstance(component, type) and issubclass(component, Participant):
        make: Any = component
        try:
            component = make(role)
        except TypeError as error:
            raise DefinitionError(
                f"{make.__name__} cannot be made with a role alone ({error}); "
                f"expected __init__(self, role)"
            ) from error
    return declared(component)


def _initials(plan: list[tuple[Any, str]], packets: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what of the initial packets is for which of several components."""
    if len(plan) == 1 or not packets:
        return [packets for _ in plan]
    all_known: set[str] = set()
    shares: list[Mapping[str, Any]] = []
    for component, role in plan:
        known = {
            port.id.casefold() for port in _declaration(component, role).definition("").inports
        }
        shares.append({name: value for name, value in packets.items() if name.casefold() in known})
        all_known |= known
    for name in packets:
        if name.casefold() not in all_known:
            raise UnknownPort(
                ", ".join(role for _, role in plan), "inport", name, sorted(all_known)
            )
    return shares


class Running:
    """Participants that run in a thread of their own; what :func:`run` returns with ``done_cb``."""

    def __init__(self, done_cb: Callable[[], Any]) -> None:
        self._done_cb = done_cb
        self._changed = threading.Condition()
        self._state = ""
        self._error: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.code = 0

    def stop(self, timeout: float | None = None) -> bool:
        """Have them stop, and wait until they have. Idempotent.

        Args:
            timeout: seconds; None: without limit.

        Returns:
            Whether they have stopped in this time.
        """
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # it is over already
                self._loop.call_soon_threadsafe(self._stop.set)
        return self.wait(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until they have stopped; return whether they have in ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state == "over", timeout)

    def _begin(self, serving: Callable[..., Any]) -> None:
        threading.Thread(target=self._work, args=[serving], name="msgflo", daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._state != "")
        if self._error is not None:
            raise self._error

    def _set(self, state: str) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def _work(self, serving: Callable[..., Any]) -> None:
        async def work() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            self.code = await serving(stop=self._stop, started=lambda _: self._set("runs"))

        try:
            _in_loop(work())
        except BaseException as error:
            if self._state == "":
                self._error = error
                self._set("over")
                return
            logging.getLogger("msgflo").exception("the participants have failed")
            self.code = 1
        self._set("over")
        self._done_cb()


def run(
    participants: Any,
    broker: str | None = None,
    done_cb: Callable[[], Any] | None = None,
    iips: Mapping[str, Any] | None = None,
    *,
    role: str | None = None,
    instance: int | None = None,
    instances: int = 1,
    grace: float | None = None,
) -> Any:
    """Run participants until SIGTERM or SIGINT, several of them on one connection.

    When they run, a line for each goes to standard output: ``role(component) running on
    scheme://host``. On the first signal they take nothing more, finish what is in work within the
    grace, hand back the rest, and say goodbye. A second signal ends the process at once.

    Args:
        participants: a component, several of them, or a mapping of roles to components; see
            :func:`serve`.
        broker: the broker's URL; else ``MSGFLO_BROKER``.
        done_cb: (classic) with it they run in a thread of their own: this returns a
            :class:`Running` as soon as they run, and calls ``done_cb`` when they have stopped.
            Signals are then up to the caller.
        iips: initial packets, by inport.
        role: the role, if there is one component; else ``MSGFLO_ROLE``, else its own name.
        instance: which participant of its role it is, from 1.
        instances: how many participants of each role to run.
        grace: seconds to finish what is in work at the end; else ``MSGFLO_GRACE``, else 10.

    Returns:
        The exit code: 0, or what a handler asked for by SystemExit.

    Raises:
        ConfigurationError: something that must be known is not, or is wrong.
        DefinitionError: one of them is no component.
        ConnectFailed: the broker could not be reached.
        Exception: what a component's ``start`` raised; nothing was taken then.
    """
    _not_while_loading()
    url = broker_of(broker, os.environ)
    serving = partial(
        serve,
        participants,
        broker=url,
        role=role,
        instance=instance,
        instances=instances,
        iips=iips,
        grace=grace,
    )
    if done_cb is not None:
        running = Running(done_cb)
        running._begin(serving)
        return running
    _not_in_a_loop()
    held = configure()
    try:
        return _in_loop(_until_signalled(serving, url, held.let_go if held else None))
    finally:
        if held is not None:
            held.let_go()


async def _until_signalled(
    serving: Callable[..., Any], url: str, running: Callable[[], None] | None
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    state = {"started": False, "signals": 0}

    def started(engines: list[Engine]) -> None:
        state["started"] = True
        parts = urlsplit(url)
        host = parts.hostname or parts.netloc
        for engine in engines:
            line = (
                f"{engine.role}({engine.declaration.component}) running on {parts.scheme}://{host}"
            )
            with suppress(OSError, ValueError):  # nobody listens, and that is no reason to stop
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
        if running is not None:
            running()

    def signalled(number: int) -> None:
        state["signals"] += 1
        if state["signals"] > 1:
            _end_process(128 + number)
        elif state["started"]:
            stop.set()
        else:
            task.cancel()

    handled = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError):  # Windows has no such handlers
                loop.add_signal_handler(number, signalled, number)
                handled.append(number)
    try:
        code: int = await serving(stop=stop, started=started)
    except asyncio.CancelledError:
        if not state["signals"]:
            raise
        return 0
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
    return code


def _in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop of its own.

    Unlike asyncio.run this ends when the work has ended: a task that will not be cancelled is left
    behind, and so is a thread of ``asyncio.to_thread`` that is still busy.
    """
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(work)
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=LEFT_BEHIND))
            loop.run_until_complete(
                asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=LEFT_BEHIND)
            )
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _end_process(code: int) -> NoReturn:
    """End the process now, whatever its threads do."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _not_while_loading() -> None:
    path = is_loading()
    if path:
        raise ConfigurationError(
            f"{path} runs itself when it is imported; put that under if __name__ == '__main__':"
        )


def _not_in_a_loop() -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ConfigurationError(
            "msgflo.run() was called where an event loop runs; expected await msgflo.serve(...)"
        )


def main(component: Any, role: str | None = None) -> NoReturn:
    """Be the program of a component: for the end of its file, under ``if __name__ == "__main__":``.

    Usage: ``python FILE [--broker URL] [-i JSON] [--instance N] [ROLE]``; ``--help`` tells the
    rest. Does what :func:`run` does, and ends the process: with 0 after a stop, 1 if it could not
    start, 2 on wrong use.

    Args:
        component: a component, or several; see :func:`serve`.
        role: the role, if the command line does not say one; else ``MSGFLO_ROLE``, else its own
            name.
    """
    _not_while_loading()
    options = _parser(None).parse_args()
    leave(
        _program(
            lambda: run(
                component,
                options.broker,
                iips=_option_iips(options),
                role=options.named or options.role or role,
                instance=options.instance,
                instances=options.instances,
                grace=options.grace,
            )
        )
    )


def run_file(
    path: str | Path,
    role: str | None = None,
    *,
    component: str = "",
    broker: str | None = None,
    iips: Mapping[str, Any] | None = None,
    instance: int | None = None,
    instances: int = 1,
    grace: float | None = None,
) -> int:
    """Run a component of a Python file, as a program: what is wrong goes to standard error.

    Args:
        path: the file. It is imported, not run: what it does as ``__main__`` it does not do.
        role: the role; else ``MSGFLO_ROLE``, else the component's own name.
        component: which of the file's components: its name, or that of its function or class.
        broker: as for :func:`run`, and so the rest.
        iips: initial packets, by inport.
        instance: which participant of its role it is.
        instances: how many to run.
        grace: seconds to finish what is in work at the end.

    Returns:
        The exit code: 0 after a stop, 1 if it could not start, 2 on wrong use.
    """

    def work() -> int:
        code: int = run(
            choose(load_components(path), path, component),
            broker,
            iips=iips,
            role=role,
            instance=instance,
            instances=instances,
            grace=grace,
        )
        return code

    return _program(work)


def check_file(path: str | Path, component: str = "") -> int:
    """Load a component of a Python file, and do not run it: what is wrong goes to standard error.

    Args:
        path: the file. It is imported.
        component: which of the file's components, if it has several.

    Returns:
        The exit code: 0 if it could be run, 1 or 2 if not.
    """

    def work() -> int:
        declared(choose(load_components(path), path, component))
        return 0

    return _program(work)


def msgflo_python(arguments: Sequence[str] | None = None) -> NoReturn:
    """Be the command ``msgflo-python FILE ROLE``: run the component of a Python file."""
    options = _parser("msgflo-python").parse_args(arguments)
    leave(
        _program(
            lambda: run_file(
                options.file,
                options.named or options.role,
                component=options.component,
                broker=options.broker,
                iips=_option_iips(options),
                instance=options.instance,
                instances=options.instances,
                grace=options.grace,
            )
        )
    )


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command,
        description="Run a MsgFlo participant until it is told to stop (SIGTERM, Ctrl-C).",
    )
    if command is not None:
        parser.add_argument("file", metavar="FILE", help="the Python file with the component")
        parser.add_argument(
            "--component", default="", metavar="NAME", help="which one, if the file has several"
        )
    parser.add_argument(
        "named", nargs="?", metavar="ROLE", help="the node of the graph (or MSGFLO_ROLE)"
    )
    parser.add_argument("--role", help="the same")
    parser.add_argument("--broker", metavar="URL", help="the broker (or MSGFLO_BROKER)")
    parser.add_argument(
        "-i", "--iips", default="", metavar="JSON", help="initial packets: values by inport"
    )
    parser.add_argument(
        "--instance", type=int, metavar="N", help="which participant of its role this is, from 1"
    )
    parser.add_argument(
        "--instances", type=int, default=1, metavar="N", help="run so many of them (1)"
    )
    parser.add_argument(
        "--grace", type=float, metavar="S", help="seconds to finish work when stopped (10)"
    )
    return parser


def _option_iips(options: argparse.Namespace) -> dict[str, Any] | None:
    return parse_packets(options.iips, "--iips") if options.iips else None


def _program(work: Callable[[], int]) -> int:
    """Do the work of a program; return its exit code, and say on standard error what is wrong."""
    held = configure()
    try:
        return work()
    except (ConfigurationError, UnknownScheme) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except MsgFloError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        sys.stderr.write(traceback_of(error))
        return 1
    finally:
        if held is not None:
            held.let_go()


def leave(code: int) -> NoReturn:
    """End the process; threads of the component's author do not keep it for long."""
    main_thread = threading.main_thread()
    end = time.monotonic() + LEFT_BEHIND
    for thread in threading.enumerate():
        if thread is not main_thread and not thread.daemon:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                _end_process(code)
    sys.exit(code)
