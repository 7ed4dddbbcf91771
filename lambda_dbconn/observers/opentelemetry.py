"""`OpenTelemetryObserver`: the events as OpenTelemetry metrics and spans, through its API package.

Names are those of OpenTelemetry's semantic conventions for database clients, where they have one.
"""

from __future__ import annotations

import time

from opentelemetry import metrics, trace

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionOpened,
    ConnectionReleased,
    ConnectionReplaced,
    ConnectionReused,
    CredentialsFetched,
    Event,
)

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Tracer

_SCOPE = "lambda_dbconn"
_SPANS = {ConnectionOpened: "connect", ConnectFailed: "connect", CredentialsFetched: "credentials"}


class OpenTelemetryObserver:
    """Records metrics, and spans for each connect, each try that failed, and each secret that was read.

    A span is made when it is over, with the times that it took. Exporting is the SDK's affair: on Lambda something
    must flush it before the environment freezes, as the ADOT layer does.

    Args:
        meter: By default the global provider's.
        tracer: By default the global provider's.
    """

    ignores: tuple[type[Event], ...] = (ConnectionReused,)

    def __init__(self, *, meter: Meter | None = None, tracer: Tracer | None = None) -> None:
        self._tracer = tracer if tracer is not None else trace.get_tracer(_SCOPE)
        meter = meter if meter is not None else metrics.get_meter(_SCOPE)
        self._connect_s = meter.create_histogram("db.client.connection.create_time", unit="s")
        self._borrow_s = meter.create_histogram("db.client.connection.wait_time", unit="s")
        self._lent_s = meter.create_histogram("db.client.connection.use_time", unit="s")
        self._credentials_s = meter.create_histogram("lambda_dbconn.credentials.fetch_time", unit="s")
        self._failures = meter.create_counter("lambda_dbconn.connect.failures", unit="{try}")
        self._replacements = meter.create_counter("lambda_dbconn.replacements", unit="{connection}")

    def on_event(self, event: Event) -> None:
        """Record one event."""
        where = {"db.client.connection.pool.name": event.endpoint}
        if isinstance(event, ConnectionReleased):
            how = {**where, "lambda_dbconn.outcome": event.outcome}
            self._borrow_s.record(event.wait_s, how)
            self._lent_s.record(event.use_s, how)
        elif isinstance(event, ConnectionOpened):
            self._connect_s.record(event.duration_s, {**where, "lambda_dbconn.reason": event.reason})
        elif isinstance(event, ConnectionReplaced):
            self._replacements.add(1, {**where, "lambda_dbconn.reason": event.reason})
        elif isinstance(event, ConnectFailed):
            self._failures.add(1, where)
        elif isinstance(event, CredentialsFetched):
            self._credentials_s.record(event.duration_s, {**where, "lambda_dbconn.source": event.source})
        if isinstance(event, (ConnectionOpened, ConnectFailed, CredentialsFetched)):
            self._trace(event)

    def _trace(self, event: ConnectionOpened | ConnectFailed | CredentialsFetched) -> None:
        ended_ns = time.time_ns()
        name = f"{_SCOPE}.{_SPANS[type(event)]}"
        attributes = {f"{_SCOPE}.{key}": value for key, value in vars(event).items()}
        started_ns = ended_ns - int(event.duration_s * 1e9)
        span = self._tracer.start_span(name, attributes=attributes, start_time=started_ns)
        if isinstance(event, ConnectFailed):
            span.set_status(trace.StatusCode.ERROR)
        span.end(ended_ns)
