"""Figures of a network in the format of Prometheus.

Participants tell their figures (:mod:`msgflo.flow.telemetry`); the broker knows its queues; the
coordinator knows who is there. :class:`Metrics` keeps what participants said last, and writes all
of it down when it is asked, in the text format of Prometheus 0.0.4 or, if the caller asks for it,
in OpenMetrics.

Counters start at 0 with their participant: ``rate()`` and ``increase()`` know what that means.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from msgflo.errors import DefinitionError
from msgflo.flow.discovery import queue_of_place
from msgflo.flow.telemetry import BUCKETS, Figures, InFigures, parse_report
from msgflo.transport.contract import QueueStats, Tapped

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["METRICS", "Metrics"]

FORGET = 180.0
"""Seconds of silence after which a participant's figures are forgotten: it says them at least
once a minute."""

MOST_PARTICIPANTS = 10_000
"""So many are remembered at most: what is said on a broker must not fill the memory."""

METRICS = {
    "msgflo_messages_in": "Deliveries that ended at an inport, each attempt counted.",
    "msgflo_messages_out": "Packets sent from an outport.",
    "msgflo_messages_failed": "Deliveries whose handler failed.",
    "msgflo_messages_retried": "Deliveries that were given back to be tried again.",
    "msgflo_messages_dead": "Deliveries that became dead letters.",
    "msgflo_handling_seconds": "From a handler's start until all that it sent was confirmed.",
    "msgflo_queued_seconds": "From a message's reaching the broker until its handler's start.",
    "msgflo_queue_waiting": "Messages that nobody has taken yet.",
    "msgflo_queue_in_flight": "Messages that a participant holds.",
    "msgflo_queue_consumers": "Participants that take from the queue.",
    "msgflo_queue_oldest_seconds": "Age of the oldest message that waits or is in flight.",
    "msgflo_queue_in_rate": "Messages a second that came in, since the figures were last asked.",
    "msgflo_queue_out_rate": "Messages a second that were settled or died, likewise.",
    "msgflo_participants": "Participants of a role, by state.",
    "msgflo_broker_up": "1 if the broker said how its queues are, else 0.",
}
"""All metrics, with their descriptions. Counters end in ``_total`` when they are written."""

_COUNTERS: tuple[tuple[str, Callable[[InFigures], int]], ...] = (
    ("msgflo_messages_in", lambda port: port.taken),
    ("msgflo_messages_failed", lambda port: port.failed),
    ("msgflo_messages_retried", lambda port: port.retried),
    ("msgflo_messages_dead", lambda port: port.dead),
)

_GAUGES: tuple[tuple[str, Callable[[QueueStats], float]], ...] = (
    ("msgflo_queue_waiting", lambda queue: queue.waiting),
    ("msgflo_queue_in_flight", lambda queue: queue.in_flight),
    ("msgflo_queue_consumers", lambda queue: queue.consumers),
    ("msgflo_queue_oldest_seconds", lambda queue: queue.oldest),
    ("msgflo_queue_in_rate", lambda queue: queue.rate_in),
    ("msgflo_queue_out_rate", lambda queue: queue.rate_out),
)


class Metrics:
    """Hears what participants say, and writes down how the network is doing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Make one that has heard nothing.

        Args:
            clock: tells the seconds since any moment.
        """
        self._clock = clock
        self._heard: dict[tuple[str, int], tuple[float, Figures]] = {}

    def hear(self, message: Tapped) -> None:
        """Take a message of :data:`msgflo.flow.telemetry.TELEMETRY`; others do no harm."""
        try:
            said = parse_report(message.body)
        except DefinitionError:
            return
        if not isinstance(said, Figures):
            return
        key = (said.role, said.instance)
        before = self._heard.pop(key, None)
        if said.final:
            # The last words of a participant that was replaced already are not its successor's.
            if before is not None and before[1].id != said.id:
                self._heard[key] = before
            return
        self._heard[key] = (self._clock(), said)
        while len(self._heard) > MOST_PARTICIPANTS:
            del self._heard[next(iter(self._heard))]  # silent for the longest time

    @property
    def figures(self) -> Sequence[Figures]:
        """What each participant said last, those left out that have been silent for long."""
        since = self._clock() - FORGET
        self._heard = {key: it for key, it in self._heard.items() if it[0] >= since}
        return [figures for _, (_, figures) in sorted(self._heard.items())]

    def text(
        self,
        queues: Iterable[QueueStats] | None,
        ports: Mapping[str, tuple[str, str]],
        participants: Mapping[str, Mapping[str, int]],
        accept: str = "",
    ) -> tuple[str, bytes]:
        """Write all of it down.

        Args:
            queues: the broker's; ``None`` if it did not say.
            ports: role and inport of each work queue.
            participants: how many of each role are in each state.
            accept: the header ``Accept`` of whoever asks.

        Returns:
            The content type, and the text.
        """
        # Imported here: whoever looks at no metrics need not have loaded what writes them.
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        all_queues = None if queues is None else list(queues)

        class Collector:
            def collect(_) -> Iterator["Metric"]:  # noqa: N805 - self is the Metrics
                yield from self._of_participants()
                yield from _of_queues(all_queues, ports)
                yield from _of_roles(participants)

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector())
        encode, content_type = choose_encoder(accept)
        return content_type, encode(registry)

    def _of_participants(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        labels = ["role", "instance", "port"]
        figures = self.figures
        for name, value in _COUNTERS:
            counter = CounterMetricFamily(name, METRICS[name], labels=labels)
            for it in figures:
                for port, said in it.ins.items():
                    counter.add_metric([it.role, str(it.instance), port], value(said))
            yield counter
        name = "msgflo_messages_out"
        counter = CounterMetricFamily(name, METRICS[name], labels=labels)
        for it in figures:
            for port, number in it.outs.items():
                counter.add_metric([it.role, str(it.instance), port], number)
        yield counter
        busy, waits = (
            HistogramMetricFamily(name, METRICS[name], labels=labels)
            for name in ("msgflo_handling_seconds", "msgflo_queued_seconds")
        )
        for it in figures:
            for port, said in it.ins.items():
                of = [it.role, str(it.instance), port]
                busy.add_metric(of, _buckets(said.busy), said.busy_sum)
                waits.add_metric(of, _buckets(said.waits), said.waits_sum)
        yield busy
        yield waits


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return buckets as Prometheus has them: each counts those of the smaller ones too."""
    bounds = [*map(str, BUCKETS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(counts)), strict=True))


def _of_queues(
    queues: Sequence[QueueStats] | None, ports: Mapping[str, tuple[str, str]]
) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    for name, value in _GAUGES:
        gauge = GaugeMetricFamily(name, METRICS[name], labels=["queue", "kind", "role", "port"])
        for queue in queues or ():
            gauge.add_metric([queue.queue, *_what(queue.queue, ports)], value(queue))
        yield gauge
    name = "msgflo_broker_up"
    yield GaugeMetricFamily(name, METRICS[name], value=float(queues is not None))


def _what(queue: str, ports: Mapping[str, tuple[str, str]]) -> tuple[str, str, str]:
    """Return kind, role and port of a queue: a work queue, a place, or one of dead letters."""
    if queue in ports:
        return "work", *ports[queue]
    work = queue.removeprefix("dead-")
    if work != queue:
        return "dead", *ports.get(work, ("", ""))
    return "place", *ports.get(queue_of_place(queue)[0], ("", ""))


def _of_roles(participants: Mapping[str, Mapping[str, int]]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    name = "msgflo_participants"
    gauge: Any = GaugeMetricFamily(name, METRICS[name], labels=["role", "state"])
    for role, states in participants.items():
        for state, number in states.items():
            gauge.add_metric([role, state], number)
    yield gauge
