"""Runs suites on a runtime, and says what became of each case.

A fixture is set up once for its suite, and its cases are run one after another on what they find,
as ``fbp-spec`` does. A step sends its inputs and ends when each port that something is expected of
has sent a packet; the last packet of each port counts. It fails at once when the runtime tells of
a failure, when a packet comes on a port ``error`` of which nothing is expected, or when its time
is up.
"""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from msgflo.errors import MsgFloError, SpecError, near
from msgflo.flow.graph import Graph
from msgflo.flow.graphjson import dump_json
from msgflo.spec.expectation import judge
from msgflo.spec.suite import Case, Step, Suite, fixture_of
from msgflo.trace.flowtrace import Flowtrace, Recording

__all__ = [
    "MAIN",
    "CaseResult",
    "Fault",
    "Network",
    "Packet",
    "Runtime",
    "Status",
    "SuiteResult",
    "SuiteRun",
    "Traced",
    "run_suites",
]

ERROR: Final = "error"
"""The outport on which components tell of failures."""

MAIN: Final = "main"
"""What a fixture is called in a trace."""

_AFTERWARDS: Final = 0.2
"""Seconds in which a handler that has sent what was expected may still fail its case."""


@dataclass(frozen=True, slots=True)
class Packet:
    """Data that an exported outport has sent."""

    port: str
    data: Any


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong in the network, told by the runtime.

    Attributes:
        text: what, in a line.
        detail: more about it, such as a traceback.
    """

    text: str
    detail: str = ""


class Network(ABC):
    """A fixture that runs.

    Attributes:
        graph: the fixture; its exported ports are what a case can name.
        recording: where to record what passes; ``None``: nowhere.
        happened: what it sent and what went wrong, in order.
    """

    def __init__(self, graph: Graph, recording: Recording | None = None) -> None:
        self.graph = graph
        self.recording = recording
        self.happened: asyncio.Queue[Packet | Fault] = asyncio.Queue()

    @abstractmethod
    async def send(self, port: str, data: Any) -> None:
        """Send a packet to an exported inport, named as the graph has it.

        Raises:
            MsgFloError: the runtime did not take it.
        """

    @abstractmethod
    async def settled(self) -> None:
        """Wait until what was sent has been handled, as far as the runtime can tell."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop it and let go of it. Idempotent."""


class Runtime(ABC):
    """Where fixtures run.

    Attributes:
        patience: seconds beyond a case's own that its first packet may take, since processes are
            still starting.
    """

    patience: float = 0.0

    @abstractmethod
    async def ports(self, component: str) -> tuple[list[str], list[str]]:
        """Return the names of a component's inports and outports.

        Raises:
            MsgFloError: there is no such component, or it cannot be run.
        """

    @abstractmethod
    async def start(self, graph: Graph, recording: Recording | None = None) -> Network:
        """Run a graph.

        Args:
            graph: the graph.
            recording: where to record what passes its connections; ``None``: nowhere.

        Raises:
            MsgFloError: it cannot be set up.
        """

    @abstractmethod
    async def component_suites(self) -> list[Suite]:
        """Return the suites that its components bring along."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of it. Idempotent."""


Traced = Callable[[Suite, Case, Flowtrace], None]
"""Called with what passed the connections of a fixture while a case was run."""


class Status(StrEnum):
    """What became of a case."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of a case.

    Attributes:
        case: which.
        status: what.
        error: why it failed, or is skipped.
        detail: more about it, such as a traceback.
        seconds: how long it took.
    """

    case: Case
    status: Status
    error: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class SuiteResult:
    """What became of a suite.

    Attributes:
        suite: which.
        cases: its cases, in their order.
        problem: why it could not be set up; all of its cases have failed then.
        seconds: how long all of it took.
    """

    suite: Suite
    cases: list[CaseResult] = field(default_factory=list)
    problem: str = ""
    seconds: float = 0.0


class _Failed(Exception):  # never leaves this module
    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


class SuiteRun:
    """One suite on one runtime: :meth:`start` it, :meth:`run` its cases, :meth:`stop` it."""

    def __init__(self, runtime: Runtime, suite: Suite, traced: Traced | None = None) -> None:
        """Make one.

        Args:
            runtime: where it runs.
            suite: the suite.
            traced: called after each case with what passed; ``None``: nothing is recorded.
        """
        self.runtime = runtime
        self.suite = suite
        self._traced = traced
        self._network: Network | None = None
        self._fresh = True

    async def start(self) -> None:
        """Set up the fixture.

        Raises:
            SpecError: it cannot be.
        """
        suite = self.suite
        time_for_it = suite.timeout + self.runtime.patience
        try:
            async with asyncio.timeout(time_for_it):
                graph = suite.graph()
                if graph is None:
                    graph = fixture_of(suite.topic, *await self.runtime.ports(suite.topic))
                recording = Recording(time.time()) if self._traced is not None else None
                self._network = await self.runtime.start(graph, recording)
        except TimeoutError:
            raise SpecError(
                f"the fixture of {suite.name!r} was not set up within {time_for_it:g} s "
                f"(timeout in the suite, in milliseconds)"
            ) from None
        except MsgFloError as error:
            raise SpecError(f"the fixture of {suite.name!r} cannot be set up: {error}") from error

    async def run(self, case: Case) -> CaseResult:
        """Run one of its cases. Of a suite that was not started, only skipped ones can be."""
        if self.suite.skip or case.skip:
            return CaseResult(case, Status.SKIPPED, self.suite.skip or case.skip)
        recording = self._network.recording if self._network is not None else None
        if recording is not None:
            recording.clear(time.time())
        begun = time.monotonic()
        detail = ""
        problems: list[str] = []
        try:
            if case.problem:
                raise _Failed(case.problem)
            for step in case.steps:
                packets = await self._step(step, case.timeout)
                problems.append(judge(_by_name(step.expect, packets), packets))
        except _Failed as failed:
            problems.append(str(failed))
            detail = failed.detail
        except MsgFloError as refused:
            problems.append(str(refused))
        if recording is not None and self._network is not None and self._traced is not None:
            graphs = {MAIN: json.loads(dump_json(self._network.graph))}
            self._traced(self.suite, case, recording.flowtrace(time.time(), graphs, MAIN))
        error = _whole(problems, len(case.steps))
        status = Status.FAILED if error else Status.PASSED
        return CaseResult(case, status, error, detail, time.monotonic() - begun)

    async def stop(self) -> None:
        """Stop the fixture. Idempotent."""
        network, self._network = self._network, None
        if network is not None:
            await network.stop()

    async def _step(self, step: Step, timeout: float) -> dict[str, Any]:
        network = self._network
        assert network is not None, "the suite was not started"
        graph = network.graph
        inputs = {_named(graph.inports, port, "inport"): data for port, data in step.inputs.items()}
        expected = {_named(graph.outports, port, "outport") for port in step.expect}
        while not network.happened.empty():  # what is left of the step before is not of this one
            network.happened.get_nowait()
        if self._fresh:
            timeout += self.runtime.patience
            self._fresh = False
        packets: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout):
                for port, data in inputs.items():
                    await network.send(port, data)
                if not expected:
                    await network.settled()
                while not expected <= packets.keys():
                    _take(await network.happened.get(), packets, expected)
        except TimeoutError:
            raise _Failed(_late(timeout, expected, packets)) from None
        await self._look_back(network, expected)
        return packets

    async def _look_back(self, network: Network, expected: set[str]) -> None:
        """Fail if what was sent is handled, soon, by failing: its packets came before that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_AFTERWARDS):
                await network.settled()
        while not network.happened.empty():
            _take(network.happened.get_nowait(), {}, expected)


def _late(timeout: float, expected: set[str], packets: Mapping[str, Any]) -> str:
    missing = ", ".join(sorted(expected - packets.keys()))
    if not missing:
        return f"expected the inputs to be handled within {timeout:g} s"
    others = ", ".join(sorted(packets))
    return f"expected data within {timeout:g} s: No data received on port {missing}" + (
        f"; there was some on: {others}" if others else ""
    )


def _take(happened: Packet | Fault, packets: dict[str, Any], expected: set[str]) -> None:
    if isinstance(happened, Fault):
        raise _Failed(happened.text, happened.detail)
    if happened.port.casefold() == ERROR and happened.port not in expected:
        raise _Failed(_message(happened.data) or "Unexpected runtime:packet message")
    packets[happened.port] = happened.data


def _message(data: Any) -> str:
    """Return what a packet on a port ``error`` says: of ours, of NoFlo's, or a text."""
    while isinstance(data, Mapping):
        data = data.get("message") or data.get("error")
    return data if isinstance(data, str) else ""


def _named(ports: Iterable[str], name: str, direction: str) -> str:
    """Return the exported port that a case means; .fbp texts fold their names to lower case."""
    ports = list(ports)
    if name in ports:
        return name
    folded = [port for port in ports if port.casefold() == name.casefold()]
    if len(folded) == 1:
        return folded[0]
    raise _Failed(
        f"the fixture exports no {direction} {name!r}; expected one of: "
        f"{', '.join(ports) or 'none'}.{near(name, ports)}"
    )


def _by_name(expect: Mapping[str, Any], packets: Mapping[str, Any]) -> dict[str, Any]:
    return {_named(packets, port, "outport"): it for port, it in expect.items()}


def _whole(problems: Sequence[str], steps: int) -> str:
    wrong = [(number, problem) for number, problem in enumerate(problems) if problem]
    if not wrong:
        return ""
    if steps < 2:
        return wrong[0][1]
    if len(wrong) == 1:
        number, problem = wrong[0]
        return f"Expectation {number} of sequence failed: {problem}"
    return f"Multiple failures in sequence: {','.join(problems)}"


async def run_suites(
    runtime: Runtime,
    suites: Iterable[Suite],
    done: Callable[[SuiteResult, CaseResult], None] = lambda _suite, _case: None,
    traced: Traced | None = None,
) -> list[SuiteResult]:
    """Run suites, one after another. What is wrong with one stops none of the others.

    Args:
        runtime: where.
        suites: which.
        done: called after each case.
        traced: called after each case with what passed; ``None``: nothing is recorded.

    Returns:
        What became of each suite.
    """
    results = []
    for suite in suites:
        begun = time.monotonic()
        result = SuiteResult(suite)
        run = SuiteRun(runtime, suite, traced)
        try:
            if suite.runs:
                await run.start()
        except SpecError as error:
            result.problem = str(error)
        try:
            for case in suite.cases:
                if result.problem and not case.skip:
                    it = CaseResult(case, Status.FAILED, result.problem)
                else:
                    it = await run.run(case)
                result.cases.append(it)
                done(result, it)
        finally:
            await run.stop()
        result.seconds = time.monotonic() - begun
        results.append(result)
    return results
