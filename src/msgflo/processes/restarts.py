"""When a process that ended is started again. Pure: time and chance come in as arguments.

::

    started ──► up for `quick` seconds or more, then fails ──► again after `first` seconds
        │
        └─────► fails before ──► again after first · factor^(n-1) seconds, at most `longest`,
                                 the n-th time in a row; after `tries` times: given up

What counts as failing depends on the policy: under ``never`` and ``on-failure`` an exit with status
0 is a good end, under ``always`` there is none.
"""

import signal
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Again", "Ended", "Exit", "GaveUp", "Limits", "Policy", "Restarts"]


class Policy(StrEnum):
    """Whether a process that ended of its own accord is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True)
class Limits:
    """How often and how soon. Times are in seconds.

    Attributes:
        quick: a process that was up for less ended quickly.
        tries: so many quick ends in a row are enough: it is given up.
        first: how long to wait after the first end.
        factor: how much longer after each further one in a row.
        longest: how long to wait at most.
        jitter: the part of a wait, from 0 to 1, that chance may take off, so that processes which
            ended together do not come back together.
        announce: a process that has not announced itself after so long is shown as such.
    """

    quick: float = 10.0
    tries: int = 5
    first: float = 0.5
    factor: float = 2.0
    longest: float = 30.0
    jitter: float = 0.2
    announce: float = 30.0

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries is {self.tries}; expected 1 or more")
        if self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError(
                f"factor is {self.factor} and jitter {self.jitter}; "
                f"expected 1 or more, and from 0 to 1"
            )
        if min(self.quick, self.first, self.longest, self.announce) < 0:
            raise ValueError(f"a time is negative in {self}")


@dataclass(frozen=True)
class Exit:
    """How a process ended.

    Attributes:
        status: its exit status, or the negative number of the signal that killed it.
    """

    status: int

    @property
    def signal(self) -> str | None:
        """The name of the signal that killed it, such as ``"SIGKILL"``; ``None`` if none did."""
        if self.status >= 0:
            return None
        try:
            return signal.Signals(-self.status).name
        except ValueError:
            return f"signal {-self.status}"

    def __str__(self) -> str:
        return f"killed by {self.signal}" if self.signal else f"exited with status {self.status}"


@dataclass(frozen=True)
class Again:
    """Start it again.

    Attributes:
        at: when, in the time that was given.
        tries: how many quick ends in a row there were.
    """

    at: float
    tries: int


@dataclass(frozen=True)
class Ended:
    """It came to a good end; leave it."""


@dataclass(frozen=True)
class GaveUp:
    """It failed, and is not started again.

    Attributes:
        reason: why, as a sentence.
    """

    reason: str


class Restarts:
    """The rules for one instance: told what happened, they say what to do.

    Args:
        policy: what counts as a failure.
        limits: how often and how soon.
    """

    def __init__(self, policy: Policy, limits: Limits) -> None:
        self._policy = policy
        self._limits = limits
        self._started = 0.0
        self._tries = 0

    @property
    def tries(self) -> int:
        """How many quick ends in a row there were."""
        return self._tries

    def started(self, now: float) -> None:
        """Say that the process was started, or that this was tried."""
        self._started = now

    def ended(self, now: float, end: Exit | str, chance: float) -> Again | Ended | GaveUp:
        """Say that the process ended, of its own accord, and ask what to do.

        Args:
            now: the time.
            end: how it ended; a text says why it could not be started at all.
            chance: a random number from 0 to 1.
        """
        limits = self._limits
        good = isinstance(end, Exit) and end.status == 0
        if good and self._policy is not Policy.ALWAYS:
            return Ended()
        if self._policy is Policy.NEVER:
            return GaveUp(f"{end}, and is to be started only once")
        self._tries = self._tries + 1 if now - self._started < limits.quick else 0
        if self._tries >= limits.tries:
            times = "once" if self._tries == 1 else f"{self._tries} times in a row"
            return GaveUp(
                f"{end}; it ended {times} before it was up for {limits.quick:g} s, "
                f"and is not tried again"
            )
        # The exponent is bounded: a float has an end, and the wait has reached its own long before.
        wait = min(limits.longest, limits.first * limits.factor ** min(max(0, self._tries - 1), 64))
        return Again(now + wait * (1 - limits.jitter * chance), self._tries)
