from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from lambda_dbconn import ConnectError, ConnectionManager
from lambda_dbconn.events import CredentialsFetched
from lambda_dbconn.observers.opentelemetry import OpenTelemetryObserver
from lambda_dbconn.testing.fakes import FakeDriver
from tests.unit.conftest import local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.fakes import FakeConnection, FakeServer

AT = {"db.client.connection.pool.name": "localhost:5432"}


class Telemetry:
    """The SDK, exporting into memory."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader])
        self.spans = InMemorySpanExporter()
        self._traces = TracerProvider()
        self._traces.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = self._traces.get_tracer("test")
        self.observer = OpenTelemetryObserver(meter=self._meters.get_meter("test"), tracer=self.tracer)

    def metrics(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        assert data is not None
        (resource,) = data.resource_metrics
        return {
            metric.name: list(metric.data.data_points) for scope in resource.scope_metrics for metric in scope.metrics
        }

    def shutdown(self) -> None:
        self._meters.shutdown()
        self._traces.shutdown()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.shutdown()


@pytest.fixture
def db(server: FakeServer, telemetry: Telemetry) -> ConnectionManager[FakeConnection]:
    return ConnectionManager(local(), driver=FakeDriver(server), clock=server.clock, observer=telemetry.observer)


def test_connects_loans_and_replacements_are_metrics(
    db: ConnectionManager[FakeConnection], server: FakeServer, telemetry: Telemetry
) -> None:
    server.connect_takes_s = 0.25
    for _ in range(2):
        with db.connection():
            server.clock.advance(2.0)
    server.hang_up()
    with db.connection():
        pass
    metrics = telemetry.metrics()
    connects = {
        point.attributes["lambda_dbconn.reason"]: point for point in metrics["db.client.connection.create_time"]
    }
    assert {reason: point.sum for reason, point in connects.items()} == {"first": 0.25, "hang_up": 0.25}
    loans = {point.attributes["lambda_dbconn.outcome"]: point for point in metrics["db.client.connection.wait_time"]}
    assert {outcome: (point.count, point.sum) for outcome, point in loans.items()} == {
        "opened": (2, 0.5),
        "reused": (1, 0.0),
    }
    use_s = {point.attributes["lambda_dbconn.outcome"]: point.sum for point in metrics["db.client.connection.use_time"]}
    assert use_s == {"opened": 2.0, "reused": 2.0}
    (replacement,) = metrics["lambda_dbconn.replacements"]
    assert (replacement.value, dict(replacement.attributes)) == (1, {**AT, "lambda_dbconn.reason": "hang_up"})


def test_a_connect_is_a_span_in_the_handlers_with_the_time_that_it_took(
    db: ConnectionManager[FakeConnection], server: FakeServer, telemetry: Telemetry
) -> None:
    server.connect_takes_s = 2.5
    with telemetry.tracer.start_as_current_span("handler"), db.connection():
        pass
    connect, handler = telemetry.spans.get_finished_spans()
    assert connect.name == "lambda_dbconn.connect"
    assert connect.parent == handler.get_span_context()
    assert connect.start_time is not None
    assert connect.end_time is not None
    assert connect.end_time - connect.start_time == 2.5e9
    assert connect.attributes is not None
    assert connect.attributes["lambda_dbconn.reason"] == "first"
    assert connect.status.status_code is StatusCode.UNSET


def test_a_try_that_failed_is_counted_and_is_a_span_with_an_error(
    db: ConnectionManager[FakeConnection], server: FakeServer, telemetry: Telemetry
) -> None:
    server.refuse(error=ConnectError("no such database"))
    with pytest.raises(ConnectError), db.connection():
        pytest.fail("nothing was to be lent")
    (span,) = telemetry.spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    (failures,) = telemetry.metrics()["lambda_dbconn.connect.failures"]
    assert (failures.value, dict(failures.attributes)) == (1, AT)


def test_a_secret_that_was_read_is_a_span_and_a_time(telemetry: Telemetry) -> None:
    telemetry.observer.on_event(
        CredentialsFetched(endpoint="localhost:5432", source="extension", stage="AWSCURRENT", duration_s=0.5)
    )
    (span,) = telemetry.spans.get_finished_spans()
    assert span.name == "lambda_dbconn.credentials"
    (point,) = telemetry.metrics()["lambda_dbconn.credentials.fetch_time"]
    assert (point.sum, dict(point.attributes)) == (0.5, {**AT, "lambda_dbconn.source": "extension"})


def test_without_an_sdk_it_does_nothing_and_fails_nothing(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    observer = OpenTelemetryObserver()
    db = ConnectionManager(local(), driver=FakeDriver(server), clock=server.clock, observer=observer)
    with db.connection() as conn:
        conn.execute("select 1")
    assert caplog.records == []
