"""Spans for OpenTelemetry, where the environment asks for it.

If ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``) is set, each span
that a participant keeps is exported over OTLP/HTTP too, in batches and by a thread of its own; one
that cannot be exported is dropped, and no message waits for it. The other variables of the
OpenTelemetry specification hold as well, such as ``OTEL_EXPORTER_OTLP_HEADERS``,
``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SDK_DISABLED``.

While a handler runs, its span is OpenTelemetry's current one: what instrumented libraries do in it
becomes part of the trace.

The libraries are an extra, ``msgflo[otel]``, and are loaded only where they are needed.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgflo.flow.telemetry import Span
from msgflo.meter import Spot

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

__all__ = ["Exporter", "endpoint_of", "exporter_of"]

CLOSING = 3.0
"""Seconds to export the last spans when a participant stops."""


def endpoint_of(environment: Mapping[str, str]) -> str | None:
    """Return the URL to export spans to; ``None`` if the environment asks for no export."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    wanted = environment.get("OTEL_TRACES_EXPORTER", "otlp")
    if "otlp" not in [it.strip() for it in wanted.split(",")]:
        return None
    own = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    if own:
        return own  # "used as is"
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    return f"{base.rstrip('/')}/v1/traces" if base else None


def exporter_of(environment: Mapping[str, str]) -> "Exporter | None":
    """Return what exports spans; ``None`` if the environment asks for none, or it cannot be done.

    That a library is missing is logged, and no reason not to work.
    """
    endpoint = endpoint_of(environment)
    if endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logging.getLogger("msgflo").warning(
            "no spans are exported to OpenTelemetry, because %s is not installed; "
            "pip install 'msgflo[otel]'",
            error.name,
        )
        return None
    return Exporter(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)),
        environment.get("OTEL_SERVICE_NAME", ""),
    )


class Exporter:
    """Exports the spans of a process's participants."""

    def __init__(self, processor: "SpanProcessor", service: str = "") -> None:
        """Make one.

        Args:
            processor: what takes finished spans.
            service: the service's name; ``""``: each participant's role.
        """
        self._processor = processor
        self._service = service

    def participant(
        self, role: str, instance: int, component: str, queues: Mapping[str, str]
    ) -> Callable[[Span], None]:
        """Return what exports the spans of one participant.

        Args:
            role: its role.
            instance: which participant of that role.
            component: its component.
            queues: the queue names of its ports.
        """
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        resource = Resource.create(
            {
                "service.name": self._service or role,
                "service.instance.id": f"{role}.{instance}",
            }
        )
        scope = InstrumentationScope("msgflo")
        sampled = TraceFlags(TraceFlags.SAMPLED)  # what is not is not kept

        def context(trace: str, span: str, remote: bool) -> SpanContext:
            return SpanContext(int(trace, 16), int(span, 16), remote, sampled)

        def export(span: Span) -> None:
            sending = span.outcome == "sent"
            operation = "send" if sending else "process"
            queue = queues.get(span.port, span.port)
            attributes: dict[str, Any] = {
                "messaging.system": "msgflo",
                "messaging.operation.name": operation,
                "messaging.operation.type": operation,
                "messaging.destination.name": queue,
                "messaging.message.id": span.message,
                "msgflo.role": role,
                "msgflo.instance": instance,
                "msgflo.component": component,
                "msgflo.port": span.port,
                "msgflo.outcome": span.outcome,
            }
            if not sending:
                attributes["msgflo.attempt"] = span.attempt
                if span.queued:
                    attributes["msgflo.queued_seconds"] = max(span.started - span.queued, 0.0)
            status = Status(StatusCode.UNSET)
            if span.error and span.outcome != "postponed":
                attributes["error.type"] = span.error.partition(":")[0]
                status = Status(StatusCode.ERROR, span.error)
            self._processor.on_end(
                ReadableSpan(
                    f"{operation} {queue}",
                    context(span.trace, span.span, remote=False),
                    context(span.trace, span.parent, remote=True) if span.parent else None,
                    resource,
                    attributes,
                    kind=SpanKind.PRODUCER if sending else SpanKind.CONSUMER,
                    status=status,
                    start_time=int(span.started * 1e9),
                    end_time=int(span.finished * 1e9),
                    instrumentation_scope=scope,
                )
            )

        return export

    def entering(self) -> Callable[[Spot], None]:
        """Return what makes a handling's span the current one of OpenTelemetry.

        To be called where the handler is: in its task, or its thread.
        """
        from opentelemetry.context import attach
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            TraceFlags,
            set_span_in_context,
        )

        def enter(spot: Spot) -> None:
            flags = TraceFlags(TraceFlags.SAMPLED if spot.sampled else TraceFlags.DEFAULT)
            span = SpanContext(int(spot.trace, 16), int(spot.span, 16), False, flags)
            # Never detached: the next handling of this task or thread takes its place.
            attach(set_span_in_context(NonRecordingSpan(span)))

        return enter

    def around(self) -> Callable[[], tuple[str, str, bool] | None]:
        """Return what tells OpenTelemetry's current span: its trace, its id, if it is sampled.

        So a packet that is sent from a web server's request, say, becomes part of its trace.
        """
        from opentelemetry.trace import get_current_span

        def current() -> tuple[str, str, bool] | None:
            span = get_current_span().get_span_context()
            if not span.is_valid:
                return None
            return f"{span.trace_id:032x}", f"{span.span_id:016x}", span.trace_flags.sampled

        return current

    async def close(self) -> None:
        """Export what is left, as far as that is possible within some seconds."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="msgflo otel", daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), CLOSING)
