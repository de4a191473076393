"""The public suite: every way to break a promise is caught by the check of that promise."""

import asyncio
import contextlib
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from faults import FAULTS, RAISING, BuriesNowhere, ClosesOnce, DiscardsAll, Whole
from msgflo import conformance
from msgflo.conformance import Outcome
from msgflo.errors import ConformanceFailure
from msgflo.transport import direct

PATIENCE = 0.3
"""Seconds: in one process everything happens at once, or not at all."""

LONGER = {
    "a_place_lasts_for_its_retention": 3.0,
    "a_delayed_retry_waits": 2.0,
    "a_delayed_retry_outlives_its_participant": 2.0,
    "many_are_sent_without_waiting": 2.0,
    "who_cannot_connect_says_why": 1.0,
}
"""Seconds, where something takes its time."""

numbers = itertools.count(1)
NOWHERE = "direct://me:secret@stopped"


@pytest.fixture
def hub() -> Iterator[direct.Hub]:
    name = f"suite-{next(numbers)}"
    stopped = direct.hub("me:secret@stopped")
    stopped.stop()
    yield direct.hub(name)
    direct.forget(name)
    direct.forget(stopped.name)


async def see(fault: type[Whole], hub: direct.Hub, *checks: str) -> list[conformance.Result]:
    """Check a transport that has a fault; return what was seen."""
    whole = fault(hub)
    results: list[conformance.Result] = []
    for check in checks:
        with contextlib.suppress(ConformanceFailure):
            await conformance.check_transport(
                f"direct://{hub.name}",
                only=[check],
                restart=whole.restart,
                cut=whole.cut,
                drop=whole.drop,
                too_large=direct.MAX_PAYLOAD + 1,
                nowhere=NOWHERE,
                patience=LONGER.get(check, PATIENCE),
                client=whole.Client,
                broker=whole.Broker,
                report=results.append,
            )
    return results


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_fault_is_caught_by_the_checks_of_what_it_breaks(fault, hub: direct.Hub):
    results = await see(fault, hub, *fault.caught_by)
    kept = [result.check for result in results if result.outcome is not Outcome.BROKEN]
    assert kept == [], "not caught"
    for result in results:
        # Otherwise the fault would have a fault.
        assert fault in RAISING or "no error of msgflo" not in result.seen, result.seen


def test_for_each_check_there_is_a_fault_that_it_catches():
    caught = {check for fault in FAULTS for check in fault.caught_by}
    assert {check.name for check in conformance.checks()} == caught


async def test_what_is_kept_by_a_transport_is_told_as_kept_though_it_breaks_something_else(hub):
    results = await see(BuriesNowhere, hub, "order_is_kept", "a_dead_letter_is_edited")
    assert [str(result.outcome) for result in results] == ["kept", "broken"]
    assert results[0].seen == ""
    assert "seen: after 0.3 s, dead_letters(" in str(results[1])


async def test_a_failure_says_what_was_promised_and_what_was_seen(hub: direct.Hub):
    reported: list[conformance.Result] = []
    with pytest.raises(ConformanceFailure) as raised:
        await conformance.check_transport(
            f"direct://{hub.name}",
            only=["a_dead_letter_is_discarded", "settled_is_gone"],
            broker=DiscardsAll.Broker,
            report=reported.append,
            patience=PATIENCE,
        )
    assert [result.check for result in reported] == [
        "a_dead_letter_is_discarded",
        "settled_is_gone",
    ]
    said = str(raised.value)
    assert said.startswith("1 of 2 promises are broken:")
    assert "promised: A discarded dead letter is gone; keys that are not there" in said
    assert "seen: discard() of one letter says 3" in said


async def test_what_cannot_be_checked_is_skipped_and_says_what_it_needs(hub: direct.Hub):
    results = await conformance.check_transport(
        f"direct://{hub.name}",
        only=[check.name for check in conformance.checks() if check.needs],
    )
    assert {result.outcome for result in results} == {Outcome.SKIPPED}
    needs = {result.seen for result in results}
    assert needs == {
        f"needs check_transport(..., {option}=...)"
        for option in ("restart", "cut", "drop", "too_large", "nowhere")
    }


async def test_a_transport_that_hangs_is_said_to_hang(hub: direct.Hub):
    class Hangs(Whole):
        class Client(direct.Client):
            async def declare(self, inlets, outports):
                await asyncio.Event().wait()

    results = await see(Hangs, hub, "settled_is_gone")
    assert results[0].seen == "it hung: not done after 0.75 s"


async def test_a_foreign_error_is_said_to_be_one_and_where_it_came_from(hub: direct.Hub):
    results = await see(ClosesOnce, hub, "closing_twice_is_closing_once")
    assert "builtins.RuntimeError: closed already, which is no error of msgflo" in results[0].seen
    assert "in close" in results[0].seen


async def test_an_unknown_check_is_refused_with_what_is_near():
    with pytest.raises(ValueError, match=r"no check 'order_is_keept'.*order_is_kept"):
        await conformance.check_transport("direct://x", only=["order_is_keept"])


@pytest.mark.parametrize("fault", [Whole, DiscardsAll], ids=["kept", "broken"])
async def test_nothing_is_left_connected_bound_or_dead(fault, hub: direct.Hub):
    checks = [
        "a_dead_letter_is_discarded",
        "connections_are_independent",
        "dead_letters_are_routed",
    ]
    await see(fault, hub, *checks)
    assert not hub._links
    assert hub.queues.bindings() == []
    for stats in hub.queues.counts(None, 0.0):
        assert (stats.waiting, stats.in_flight) == (0, 0), stats


def test_each_check_says_in_a_sentence_what_is_promised():
    for check in conformance.checks():
        assert re.fullmatch(r"(close\(\)|[A-Z]).*\.", check.promise), check
        assert str(check) == check.name
    names = [check.name for check in conformance.checks()]
    assert len(set(names)) == len(names)


def test_no_test_framework_is_needed():
    program = """
import asyncio, sys
sys.modules["pytest"] = None
from msgflo.conformance import check_transport
results = asyncio.run(check_transport("direct://x", only=["order_is_kept"], report=print))
assert len(results) == 1
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.startswith("kept    order_is_kept (")
    assert "With prefetch 1, messages come in the order in which they were sent" in done.stdout
