"""What is bound: which messages go from which source to which target, and what has to change.

A binding is a connection as a broker carries it out. Which bindings a graph asks for is worked out
in :mod:`.wiring`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Binding", "BindingChange", "Kind", "diff"]


class Kind(StrEnum):
    """How a binding shares out messages."""

    PUBSUB = "pubsub"
    ROUNDROBIN = "roundrobin"
    DEADLETTER = "deadletter"


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """A connection as the broker carries it out.

    Attributes:
        kind: how messages are shared out.
        source: the queue name of the outport; of the inport whose dead letters they are, if
            ``kind`` is deadletter.
        target: the queue name of the inport that gets them.
    """

    kind: Kind
    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.kind.upper()}: {self.source} -> {self.target}"


@dataclass(frozen=True, slots=True)
class BindingChange:
    """What to do to get from what is bound to what should be.

    Attributes:
        add: bindings to make, sorted.
        remove: bindings to remove, sorted.
    """

    add: tuple[Binding, ...]
    remove: tuple[Binding, ...]


def diff(have: Iterable[Binding], want: Iterable[Binding]) -> BindingChange:
    """Return what to bind and what to unbind. Applied to ``have`` it gives ``want``."""
    there, wanted = frozenset(have), frozenset(want)
    return BindingChange(tuple(sorted(wanted - there)), tuple(sorted(there - wanted)))
