"""Prometheus asks a network that runs how it is doing."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from programs import WAIT, Program, msgflo, program
from servers import NatsServer

COMPONENTS = """
import msgflo


@msgflo.component("Double")
def double(number: int, out: msgflo.Out[int]) -> None:
    out(number)
    out(number)


@msgflo.component("Check", retry=msgflo.Retry(2, delay=0))
def check(number: int) -> None:
    if number < 0:
        raise ValueError("below zero")
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "all.py").write_text(COMPONENTS)
    (tmp_path / "it.fbp").write_text("double(Double) OUT -> IN check(Check)\n")
    return tmp_path


@pytest.fixture
def running(project: Path, nats_server: str) -> Iterator[Program]:
    command = ("msgflo", "run", "it.fbp", "--port", "0", "--broker", nats_server)
    with program(*command, cwd=project) as run:
        run.until("all running")
        yield run


def address(run: Program) -> str:
    line = run.until("FBP protocol at ws://")
    return "http://" + line.partition("ws://")[2].split()[0]


def ask(url: str, **headers: str) -> Samples:
    with urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers=headers)) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = reply.read().decode()
    return {
        (it.name.removeprefix("msgflo_"), frozenset(it.labels.items())): it.value
        for family in parse(text)
        for it in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float | None:
    wanted = labels.items()
    found = [value for (it, its), value in samples.items() if it == name and wanted <= set(its)]
    return sum(found) if found else None


def until(url: str, name: str, value: float, **labels: str) -> Samples:
    """Ask until a number is there: participants say their figures every some seconds."""
    end = time.monotonic() + WAIT
    while of(samples := ask(url), name, **labels) != value:
        assert time.monotonic() < end, (name, labels, value, samples)
        time.sleep(0.1)
    return samples


def test_a_network_says_what_it_does_by_role_and_port_and_queue(running, project, nats_server):
    url = address(running)
    begin = until(url, "messages_in_total", 0, role="check", port="in")
    assert of(begin, "participants", role="check", state="live") == 1
    assert of(begin, "broker_up") == 1
    for number in (1, 2, -3):
        options = ("--broker", nats_server, "--")
        done = msgflo("send", *options, "double", str(number), cwd=project)
        assert done.returncode == 0, done.stderr
    samples = until(url, "messages_in_total", 8, role="check", port="in")
    assert of(samples, "messages_failed_total", role="check") == 4
    assert of(samples, "messages_retried_total", role="check") == 2
    assert of(samples, "messages_dead_total", role="check") == 2
    samples = until(url, "messages_out_total", 6, role="double", port="out")
    assert of(samples, "messages_in_total", role="double") == 3
    assert of(samples, "handling_seconds_count", role="double", port="in") == 3
    assert of(samples, "queued_seconds_count", role="double") == 3
    samples = until(url, "queue_waiting", 2, kind="dead", role="check")
    assert of(samples, "queue_waiting", kind="work", role="check", port="in") == 0


def test_where_there_are_secrets_one_of_them_is_needed(project, nats_server):
    command = ("msgflo", "run", "it.fbp", "--port", "0", "--broker", nats_server)
    with program(*command, cwd=project, MSGFLO_SECRET_READ="look", MSGFLO_SECRET="all") as run:
        run.until("all running")
        url = address(run)
        assert of(ask(url, Authorization="Bearer look"), "broker_up") == 1
        assert of(ask(url, Authorization="Bearer all"), "broker_up") == 1
        for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "Basic look"}):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                ask(url, **headers)


def test_pages_of_others_get_nothing(running):
    url = address(running)
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(url, **headers)


def test_a_broker_that_is_away_is_told_and_the_rest_is_there(
    project: Path, nats_server_process: NatsServer
):
    command = ("msgflo", "run", "it.fbp", "--port", "0", "--broker", nats_server_process.url)
    with program(*command, cwd=project) as run:
        run.until("all running")
        url = address(run)
        until(url, "messages_in_total", 0, role="check")
        nats_server_process.kill()
        samples = until(url, "broker_up", 0)
        assert of(samples, "messages_in_total", role="check") == 0
        assert of(samples, "queue_waiting") is None
        nats_server_process.start()
        until(url, "broker_up", 1)
