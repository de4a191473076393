import json
import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from msgflo.flow.telemetry import TELEMETRY, Figures, InFigures
from msgflo.trace.metrics import FORGET, METRICS, MOST_PARTICIPANTS, Metrics
from msgflo.transport.contract import QueueStats, Tapped

DASHBOARD = Path(__file__).parent.parent.parent / "docs" / "grafana-dashboard.json"

QUEUES = [
    QueueStats("dead-b.IN", waiting=1),
    QueueStats("b.IN", waiting=5, in_flight=2, consumers=1, oldest=3.5, rate_in=10, rate_out=9),
    QueueStats("b.IN@2", waiting=7),
]
PORTS = {"b.IN": ("b", "in")}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def figures(role: str = "b", instance: int = 1, own: str = "b-1", **more: object) -> Figures:
    port = InFigures(taken=3, failed=2, retried=1, dead=1)
    for busy, wait in [(0.0005, 0.002), (0.3, None), (1000.0, 2.0)]:
        port.add(busy, wait)
    port.taken -= 3
    return Figures(own, role, instance, {"in": port}, {"out": 4}, **more)  # type: ignore[arg-type]


def hear(metrics: Metrics, said: object) -> None:
    body = said if isinstance(said, bytes) else msgspec.json.encode(said)
    metrics.hear(Tapped(TELEMETRY, body, {}, 0))


def samples(metrics: Metrics, queues: list[QueueStats] | None = QUEUES) -> dict[str, float]:
    kind, text = metrics.text(queues, PORTS, {"b": {"live": 2, "lost": 1}})
    assert kind.startswith("text/plain; version=0.0.4")
    return {
        f"{it.name}{json.dumps(it.labels, sort_keys=True)}": it.value
        for family in parse(text.decode())
        for it in family.samples
    }


def of(name: str, **labels: str) -> str:
    return f"{name}{json.dumps(labels, sort_keys=True)}"


def test_what_a_participant_said_is_written_by_role_instance_and_port():
    metrics = Metrics()
    hear(metrics, figures())
    found = samples(metrics)
    port = {"role": "b", "instance": "1", "port": "in"}
    for name, value in [("in", 3), ("failed", 2), ("retried", 1), ("dead", 1)]:
        assert found[of(f"msgflo_messages_{name}_total", **port)] == value
    assert found[of("msgflo_messages_out_total", **{**port, "port": "out"})] == 4


def test_durations_are_a_histogram_of_prometheus():
    metrics = Metrics()
    hear(metrics, figures())
    found = samples(metrics)
    port = {"role": "b", "instance": "1", "port": "in"}
    name = "msgflo_handling_seconds"
    buckets = {
        bound: found[of(f"{name}_bucket", **port, le=bound)]
        for bound in ("0.001", "0.25", "0.5", "300.0", "+Inf")
    }
    assert buckets == {"0.001": 1, "0.25": 1, "0.5": 2, "300.0": 2, "+Inf": 3}
    assert found[of(f"{name}_count", **port)] == 3
    assert found[of(f"{name}_sum", **port)] == pytest.approx(1000.3005)
    assert found[of("msgflo_queued_seconds_count", **port)] == 2


def test_queues_are_written_with_the_role_and_port_that_they_belong_to():
    found = samples(Metrics())
    work = {"queue": "b.IN", "kind": "work", "role": "b", "port": "in"}
    assert found[of("msgflo_queue_waiting", **work)] == 5
    assert found[of("msgflo_queue_in_flight", **work)] == 2
    assert found[of("msgflo_queue_oldest_seconds", **work)] == 3.5
    assert found[of("msgflo_queue_in_rate", **work)] == 10
    assert found[of("msgflo_queue_waiting", **{**work, "queue": "b.IN@2", "kind": "place"})] == 7
    assert found[of("msgflo_queue_waiting", **{**work, "queue": "dead-b.IN", "kind": "dead"})] == 1
    assert found["msgflo_broker_up{}"] == 1
    assert found[of("msgflo_participants", role="b", state="lost")] == 1


def test_a_broker_that_does_not_answer_is_down_and_the_rest_is_told():
    metrics = Metrics()
    hear(metrics, figures())
    found = samples(metrics, None)
    assert found["msgflo_broker_up{}"] == 0
    assert any(name.startswith("msgflo_messages_in_total") for name in found)
    assert not any(name.startswith("msgflo_queue_waiting") for name in found)


def test_each_metric_that_is_described_is_written_and_no_other():
    metrics = Metrics()
    hear(metrics, figures())
    _, text = metrics.text(QUEUES, PORTS, {"b": {"live": 1}})
    told = dict(re.findall(r"^# HELP (\w+) (.*)$", text.decode(), re.M))
    assert {name.removesuffix("_total"): said for name, said in told.items()} == METRICS


def test_who_asks_for_openmetrics_gets_it():
    metrics = Metrics()
    hear(metrics, figures())
    kind, text = metrics.text(QUEUES, PORTS, {}, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(text.decode())} >= {"msgflo_messages_in"}


def test_names_from_outside_cannot_break_the_format():
    metrics = Metrics()
    evil = 'a"} 1\nevil 2\\'
    hear(metrics, figures(role=evil))
    assert of("msgflo_messages_in_total", role=evil, instance="1", port="in") in samples(metrics)


def test_the_last_report_of_a_participant_counts():
    metrics = Metrics()
    hear(metrics, figures())
    hear(metrics, Figures("b-2", "b", 1, {}, {"out": 9}))
    assert [it.outs["out"] for it in metrics.figures] == [9]


def test_who_stopped_or_is_silent_for_long_is_forgotten():
    clock = Clock()
    metrics = Metrics(clock)
    hear(metrics, figures())
    hear(metrics, figures(instance=2, own="b-2"))
    hear(metrics, figures(final=True))
    assert [it.instance for it in metrics.figures] == [2]
    clock.now += FORGET + 1
    assert metrics.figures == []


def test_the_last_words_of_one_that_was_replaced_do_not_hide_its_successor():
    metrics = Metrics()
    hear(metrics, figures(own="new"))
    hear(metrics, figures(own="old", final=True))
    assert [it.id for it in metrics.figures] == ["new"]


def test_nonsense_is_passed_over_and_cannot_fill_the_memory():
    metrics = Metrics()
    hear(metrics, b"nonsense")
    assert metrics.figures == []
    for number in range(MOST_PARTICIPANTS + 10):
        hear(metrics, Figures("x", f"role-{number}", 1))
    assert len(metrics.figures) == MOST_PARTICIPANTS


# The dashboard.


def expressions(panels: list[dict[str, object]]) -> list[str]:
    found: list[str] = []
    for panel in panels:
        found += [target["expr"] for target in panel.get("targets", [])]  # type: ignore[attr-defined]
        found += expressions(panel.get("panels", []))  # type: ignore[arg-type]
    return found


def test_the_dashboard_is_one_and_asks_for_metrics_that_there_are():
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids) > 5
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels:
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["targets"]
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"
    assert "datasource" in names
    metrics = Metrics()
    hear(metrics, figures())
    _, text = metrics.text(QUEUES, PORTS, {"b": {"live": 1}})
    written = {it.name for family in parse(text.decode()) for it in family.samples}
    labels = {key for family in parse(text.decode()) for it in family.samples for key in it.labels}
    asked = expressions(panels)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked.append(variable["query"]["query"])
    used = set()
    for expression in asked:
        assert expression.count("(") == expression.count(")")
        used |= (here := set(re.findall(r"\bmsgflo_\w+", expression)))
        assert here, expression
        assert here <= written, expression
        by = re.findall(r"\bby \(([^)]*)\)", expression)
        matched = re.findall(r"(\w+)\s*=~?", expression)
        for label in {*", ".join(by).split(", "), *matched} - {""}:
            assert label in labels, (label, expression)
        for variable in re.findall(r"\$(\w+)", expression):
            assert variable in names or variable.startswith("__"), expression
    plain = {name.removesuffix("_total").removesuffix("_bucket") for name in used}
    assert METRICS.keys() - plain <= {"msgflo_queue_consumers"}, "each metric is on the dashboard"


def test_the_dashboard_does_not_overlap_itself():
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
