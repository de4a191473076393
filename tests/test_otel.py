"""Spans exported to OpenTelemetry: into a collector that is one, in this process."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import pytest
from opentelemetry import trace as opentelemetry
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Exported
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import msgflo
from msgflo import participant, transport
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.telemetry import trace_of
from msgflo.otel import endpoint_of
from msgflo.transport.contract import MESSAGE_ID

_numbers = count(1)
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Collector:
    """Takes spans over OTLP/HTTP, as an OpenTelemetry Collector does."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.append(self.path)
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self) -> dict[str, list[Exported]]:
        """The spans by the name of their service."""
        found: dict[str, list[Exported]] = {}
        for request in self.requests:
            for of_resource in request.resource_spans:
                service = attributes(of_resource.resource)["service.name"]
                for scope in of_resource.scope_spans:
                    found.setdefault(service, []).extend(scope.spans)
        return found


def attributes(it: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in it.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@msgflo.component
async def first(text: str) -> str:
    return text


inside: dict[str, Any] = {}


@msgflo.component
def second(text: str) -> None:
    inside["second"] = opentelemetry.get_current_span().get_span_context()
    if text == "bad":
        raise ValueError("broken")


@msgflo.source
async def once(out: msgflo.Out[str]):
    out("from a source")
    yield


async def handled(environment: dict[str, str], *messages: str, roles: dict[str, Any]) -> None:
    """Run participants until they have handled so many messages in all."""
    url = f"direct://otel-{next(_numbers)}"
    broker = transport.broker(url)
    await broker.connect()
    await broker.bind(Binding(Kind.ROUNDROBIN, "first.OUT", "second.IN"))
    await broker.bind(Binding(Kind.ROUNDROBIN, "once.OUT", "second.IN"))
    stop, done = asyncio.Event(), asyncio.Event()
    wanted = 2 * len(messages) + ("once" in roles)
    ended = 0

    def observe(*_: object) -> None:
        nonlocal ended
        ended += 1
        if ended == wanted:
            done.set()

    serving = asyncio.create_task(
        participant.serve(roles, broker=url, stop=stop, observer=observe, environment=environment)
    )
    for number, message in enumerate(messages):
        headers = {MESSAGE_ID: f"job-{number}"}
        await broker.enqueue("first.IN", f'"{message}"'.encode(), headers)
    await done.wait()
    stop.set()
    await serving
    await broker.close()


BOTH = {"first": first, "second": second}


async def test_each_handling_is_a_span_of_a_service_named_after_its_role(collector):
    await handled({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, "good", roles=BOTH)
    assert set(collector.paths) == {"/v1/traces"}
    (one,), (two,) = collector.spans["first"], collector.spans["second"]
    assert one.trace_id.hex() == two.trace_id.hex() == trace_of("job-0")
    assert one.parent_span_id == b""
    assert two.parent_span_id == one.span_id
    assert (one.name, two.name) == ("process first.IN", "process second.IN")
    assert one.kind == Exported.SPAN_KIND_CONSUMER
    assert one.start_time_unix_nano <= one.end_time_unix_nano
    said = attributes(one)
    assert said["messaging.message.id"] == "job-0"
    assert said["msgflo.outcome"] == "done"
    assert said["msgflo.attempt"] == 1
    assert said["msgflo.queued_seconds"] >= 0
    # What a handler does with instrumented libraries belongs to its span, in a thread as well.
    assert format(inside["second"].trace_id, "032x") == two.trace_id.hex()
    assert format(inside["second"].span_id, "016x") == two.span_id.hex()


async def test_a_failure_is_an_error(collector):
    await handled({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, "bad", roles=BOTH)
    (span,) = collector.spans["second"]
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.status.message == "ValueError: broken"
    assert attributes(span)["error.type"] == "ValueError"


async def test_what_a_source_sends_begins_a_trace(collector):
    environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/own/path"}
    roles = {"once": once, "second": second}
    await handled({**environment, "OTEL_SERVICE_NAME": "shop"}, roles=roles)
    assert set(collector.paths) == {"/own/path"}
    sent, taken = sorted(collector.spans["shop"], key=lambda it: it.kind != it.SPAN_KIND_PRODUCER)
    assert sent.name == "send once.OUT"
    assert taken.parent_span_id == sent.span_id


async def test_what_is_sent_in_somebody_elses_span_is_part_of_its_trace(collector):
    trace, span = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7

    @msgflo.source
    async def request(out: msgflo.Out[str]):
        around = NonRecordingSpan(SpanContext(trace, span, is_remote=False, trace_flags=SAMPLED))
        with opentelemetry.use_span(around):
            out("from a request")
            yield

    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    await handled(environment, roles={"once": request, "second": second})
    (sent,), (taken,) = collector.spans["once"], collector.spans["second"]
    assert int.from_bytes(sent.trace_id) == int.from_bytes(taken.trace_id) == trace
    assert int.from_bytes(sent.parent_span_id) == span
    assert taken.parent_span_id == sent.span_id


async def test_a_collector_that_refuses_or_is_away_harms_nobody(collector):
    collector.status = 400
    await handled({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, "good", roles=BOTH)
    await handled({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "good", roles=BOTH)


async def test_without_being_asked_nothing_is_exported(collector):
    await handled({}, "good", roles=BOTH)
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SDK_DISABLED": "true"}
    await handled(disabled, "good", roles=BOTH)
    assert collector.requests == []


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, "http://a:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318/x/"}, "http://a:4318/x/v1/traces"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/c",
            },
            "http://b/c",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "True"}, None),
    ],
)
def test_the_variables_are_those_of_the_specification(environment, endpoint):
    assert endpoint_of(environment) == endpoint


def test_the_libraries_are_loaded_only_where_they_are_wanted():
    code = (
        "import sys, msgflo.otel as it; it.exporter_of({});"
        "assert 'opentelemetry' not in sys.modules;"
        "sys.modules['opentelemetry.sdk.trace.export'] = None;"
        "assert it.exporter_of({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:1'}) is None"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is not installed; pip install 'msgflo[otel]'" in done.stderr
