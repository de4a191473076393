"""When a process is started again, decided without a clock."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.processes.restarts import Again, Ended, Exit, GaveUp, Limits, Policy, Restarts

LIMITS = Limits(quick=10, tries=5, first=0.5, factor=2, longest=30, jitter=0.2)
FAILED = Exit(1)
GOOD = Exit(0)


def ends(rules: Restarts, at: float, up: float, end: Exit = FAILED, chance: float = 0.0):
    rules.started(at)
    return rules.ended(at + up, end, chance)


def test_quick_failures_wait_longer_and_longer_and_are_then_given_up():
    rules = Restarts(Policy.ON_FAILURE, LIMITS)
    now, waits = 100.0, []
    while True:
        order = ends(rules, now, 1)
        if not isinstance(order, Again):
            break
        waits.append(order.at - (now + 1))
        now = order.at
    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert order == GaveUp(
        "exited with status 1; it ended 5 times in a row before it was up for 10 s, "
        "and is not tried again"
    )


def test_being_up_long_enough_forgives_what_was_before():
    rules = Restarts(Policy.ON_FAILURE, LIMITS)
    for _ in range(4):
        assert isinstance(ends(rules, 0, 1), Again)
    assert ends(rules, 0, 10) == Again(at=10.5, tries=0)
    assert [ends(rules, 0, 1) for _ in range(4)] == [
        Again(at=1.5, tries=1),
        Again(at=2.0, tries=2),
        Again(at=3.0, tries=3),
        Again(at=5.0, tries=4),
    ]
    assert isinstance(ends(rules, 0, 1), GaveUp)


def test_a_process_that_is_always_up_long_enough_is_never_given_up():
    rules = Restarts(Policy.ON_FAILURE, Limits(tries=1))
    assert all(isinstance(ends(rules, 0, 60), Again) for _ in range(100))


def test_the_wait_has_a_limit():
    rules = Restarts(Policy.ALWAYS, Limits(tries=10_000, longest=7, jitter=0))
    waits = [ends(rules, 0, 0).at for _ in range(2000)]
    assert waits[:5] == [0.5, 1, 2, 4, 7]
    assert set(waits[5:]) == {7}


def test_chance_shortens_the_wait_by_at_most_the_jitter():
    def wait(chance: float) -> float:
        return ends(Restarts(Policy.ALWAYS, LIMITS), 0, 0, chance=chance).at

    assert wait(0) == 0.5
    assert wait(1) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("policy", "end", "kind"),
    [
        (Policy.NEVER, GOOD, Ended),
        (Policy.NEVER, FAILED, GaveUp),
        (Policy.ON_FAILURE, GOOD, Ended),
        (Policy.ON_FAILURE, FAILED, Again),
        (Policy.ON_FAILURE, Exit(-signal.SIGKILL), Again),
        (Policy.ALWAYS, GOOD, Again),
        (Policy.ALWAYS, FAILED, Again),
    ],
)
def test_the_policy_says_what_an_end_means(policy, end, kind):
    assert isinstance(ends(Restarts(policy, LIMITS), 0, 100, end), kind)


def test_always_gives_up_too_what_only_ever_ends_at_once():
    rules = Restarts(Policy.ALWAYS, LIMITS)
    orders = [ends(rules, 0, 0, GOOD) for _ in range(5)]
    assert isinstance(orders[-1], GaveUp)


def test_an_end_says_its_status_or_its_signal():
    assert str(Exit(3)) == "exited with status 3"
    assert str(Exit(-9)) == "killed by SIGKILL"
    assert str(Exit(-63)) == "killed by signal 63"
    assert Exit(3).signal is None


@given(
    policy=st.sampled_from(Policy),
    runs=st.lists(
        st.tuples(
            st.floats(0, 100), st.sampled_from([GOOD, FAILED, Exit(-15), "?"]), st.floats(0, 1)
        ),
        max_size=60,
    ),
    tries=st.integers(1, 8),
)
def test_whatever_happens_the_promises_hold(policy, runs, tries):
    limits = Limits(tries=tries)
    rules = Restarts(policy, limits)
    now = 0.0
    quick = 0
    for up, end, chance in runs:
        rules.started(now)
        quick = quick + 1 if now + up - now < limits.quick else 0
        now += up
        order = rules.ended(now, end, chance)
        if isinstance(order, Again):
            # Never sooner than now, never later than the longest wait, never beyond the limit.
            assert now <= order.at <= now + limits.longest + 1e-6
            assert policy is not Policy.NEVER
            assert quick < tries
            now = order.at
        elif isinstance(order, GaveUp):
            assert policy is Policy.NEVER or quick >= tries
            return
        else:
            assert end == GOOD
            assert policy is not Policy.ALWAYS
            return


@pytest.mark.parametrize(
    "wrong", [{"tries": 0}, {"factor": 0.5}, {"jitter": 2}, {"first": -1}, {"quick": -1}]
)
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Limits(**wrong)
