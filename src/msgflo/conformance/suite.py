"""Running the checks: one by one, each on its own names, collecting what was seen."""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from msgflo import transport
from msgflo.conformance import connection, delivery, ending, interruption, wiring
from msgflo.conformance.bench import CHECKS, Bench, Broken, Check, Setting
from msgflo.errors import ConformanceFailure, MsgFloError, near
from msgflo.transport.contract import Broker, Client

__all__ = ["Outcome", "Result", "check_transport", "checks"]

assert all((delivery, ending, wiring, connection, interruption)), "importing them fills CHECKS"


class Outcome(StrEnum):
    """What became of a check."""

    KEPT = "kept"
    BROKEN = "broken"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """What a check has shown.

    Attributes:
        check: its name.
        promise: what every transport promises.
        outcome: whether this one kept it.
        seen: what was seen instead, or why it was skipped; ``""`` if it was kept.
        seconds: how long it took.
    """

    check: str
    promise: str
    outcome: Outcome
    seen: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{self.outcome:7} {self.check} ({self.seconds:.2f} s): {self.promise}"
        return f"{text}\n        seen: {self.seen}" if self.seen else text


def checks() -> tuple[Check, ...]:
    """Return all checks, so that a test framework can run each on its own."""
    return tuple(CHECKS)


async def check_transport(
    url: str,
    *,
    only: Iterable[str] | None = None,
    restart: Callable[[], Awaitable[None]] | None = None,
    cut: Callable[[], Awaitable[None]] | None = None,
    drop: Callable[[Client], Awaitable[None]] | None = None,
    too_large: int | None = None,
    nowhere: str | None = None,
    patience: float = 20.0,
    client: Callable[[str], Client] = transport.client,
    broker: Callable[[str], Broker] = transport.broker,
    report: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Hold a transport to everything that its contract promises.

    Each check makes its own connections, and queues with names that nobody else uses, and closes
    them. Work queues stay behind, empty, because a transport has no way to delete one.

    Args:
        url: a broker that can be reached.
        only: names of checks; ``None``: all of :func:`checks`.
        restart: kills the broker and starts it again on the same address with what it stored;
            returns when it runs. Checks of what survives that are skipped without it.
        cut: cuts all connections of this process to the broker, as a network does; they can be
            made again at once. (A proxy between the two can do it.) Checks of that are skipped
            without it.
        drop: cuts off a client for good, as if its process had been killed, without a word to
            the broker. Checks of that are skipped without it.
        too_large: bytes of a payload that this broker must refuse; ``None``: that is not checked.
        nowhere: a URL of this transport at which nobody answers, best with a password in it;
            ``None``: that is not checked.
        patience: seconds to wait for something that should happen, more than 0. It must be longer
            than the broker takes to notice that a client died.
        client: makes the participant's side from a URL; by default whatever is registered.
        broker: makes the coordinator's side.
        report: called with each result as soon as it is there.

    Returns:
        A result for each check, none of them broken.

    Raises:
        ConformanceFailure: after all checks were run; says which promises were broken and what
            was seen. (``report`` has seen all the results.)
    """
    chosen = _chosen(only)
    setting = Setting(url, client, broker, patience, restart, cut, drop, too_large, nowhere)
    results = []
    for check in chosen:
        result = await _run(check, setting)
        results.append(result)
        if report is not None:
            report(result)
    broken = [result for result in results if result.outcome is Outcome.BROKEN]
    if broken:
        raise ConformanceFailure(
            f"{len(broken)} of {len(results)} promises are broken:\n"
            + "\n".join(f"{result.check}\n  {_told(result)}" for result in broken)
        )
    return results


def _told(result: Result) -> str:
    return f"promised: {result.promise}\n  seen: {result.seen}"


def _chosen(only: Iterable[str] | None) -> list[Check]:
    if only is None:
        return list(CHECKS)
    by_name = {check.name: check for check in CHECKS}
    chosen = []
    for name in only:
        if name not in by_name:
            raise ValueError(f"there is no check {name!r}.{near(name, by_name)}")
        chosen.append(by_name[name])
    return chosen


async def _run(check: Check, setting: Setting) -> Result:
    missing = [need for need in check.needs if getattr(setting, need) is None]
    if missing:
        seen = f"needs check_transport(..., {'=, '.join(missing)}=...)"
        return Result(check.name, check.promise, Outcome.SKIPPED, seen)
    started = time.perf_counter()
    bench = Bench(setting)
    limit = 2.5 * setting.patience
    try:
        async with asyncio.timeout(limit):
            await check.run(bench)
            bench.expect(True, "")
            await bench.close()
        seen = ""
    except Broken as broken:
        seen = str(broken)
    except TimeoutError:
        seen = f"it hung: not done after {limit:g} s"
    except MsgFloError as error:
        seen = f"{type(error).__name__}: {error}\n{_where(error)}"
    except Exception as error:
        seen = (
            f"{type(error).__module__}.{type(error).__qualname__}: {error}, "
            f"which is no error of msgflo.errors\n{_where(error)}"
        )
    if seen:
        await bench.abandon()
    outcome = Outcome.BROKEN if seen else Outcome.KEPT
    return Result(check.name, check.promise, outcome, seen, time.perf_counter() - started)


def _where(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
