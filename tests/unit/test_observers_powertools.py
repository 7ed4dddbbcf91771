from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_xray_sdk.core import AWSXRayRecorder, xray_recorder

from lambda_dbconn import ConfigurationError, ConnectError, ConnectionManager
from lambda_dbconn.events import ConnectionReleased, ConnectionReused, CredentialsFetched
from lambda_dbconn.observers.powertools import PowertoolsObserver
from lambda_dbconn.testing.fakes import FakeConnection, FakeContext, FakeDriver
from tests.support import emf
from tests.unit.conftest import in_fresh_process, local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeServer

ROOT = "1-5759e988-bd862e3fe1be46a994272793"

xray_recorder.emitter._socket.close()  # opened by the import; nobody else would close it


def manager(server: FakeServer, observer: PowertoolsObserver) -> ConnectionManager[FakeConnection]:
    return ConnectionManager(local(), driver=FakeDriver(server), clock=server.clock, observer=observer)


class LambdaContext(FakeContext):
    function_name = "orders-api"
    function_version = "7"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:orders-api"
    aws_request_id = "the-request"


# --- the logger


def test_events_are_lines_of_the_users_logger_with_its_keys_and_correlation_id(server: FakeServer) -> None:
    written = io.StringIO()
    logger = Logger(service="orders-of-lines", level="DEBUG", stream=written)
    db = manager(server, PowertoolsObserver(logger=logger))

    @logger.inject_lambda_context(correlation_id_path="id", clear_state=True)
    def handler(event: dict[str, Any], context: LambdaContext) -> None:
        logger.append_keys(order=42)
        with db.connection(context) as conn:
            conn.execute("select 1")

    server.refuse()
    handler({"id": "abc"}, LambdaContext(server.clock, 3.0))
    server.hang_up()
    handler({"id": "def"}, LambdaContext(server.clock, 3.0))
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["level"], line["message"], line["correlation_id"]) for line in lines] == [
        ("WARNING", "ConnectFailed", "abc"),
        ("WARNING", "ConnectionOpened", "abc"),  # after a retry
        ("DEBUG", "ConnectionClosed", "def"),
        ("DEBUG", "ConnectionReplaced", "def"),
        ("INFO", "ConnectionOpened", "def"),
    ]
    assert {(line["service"], line["function_request_id"], line["order"]) for line in lines} == {
        ("orders-of-lines", "the-request", 42)
    }
    assert lines[-1]["lambda_dbconn"] == {
        "endpoint": "localhost:5432",
        "reason": "hang_up",
        "attempts": 1,
        "duration_s": 0.0,
    }


def test_a_logger_alone_lets_a_warm_borrow_be_free() -> None:
    observer = PowertoolsObserver(logger=Logger(service="orders"))
    assert set(observer.ignores) == {ConnectionReused, ConnectionReleased}


# --- metrics


def test_metrics_go_into_the_users_namespace_with_the_users_own(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = Metrics(namespace="Shop", service="orders")
    db = manager(server, PowertoolsObserver(metrics=metrics))

    @metrics.log_metrics
    def handler(event: dict[str, Any], context: LambdaContext) -> None:
        for _ in range(2):
            with db.connection(context) as conn:
                conn.execute("select 1")
        metrics.add_metric(name="Orders", unit="Count", value=1)

    server.connect_takes_s = 0.04
    handler({}, LambdaContext(server.clock, 3.0))
    (document,) = emf.documents(capsys.readouterr().out)
    assert (document.namespace, document.dimensions) == ("Shop", {"service": "orders"})
    assert document.metrics == {
        "Connects": [1.0],
        "ConnectMs": [40.0],
        "AcquireMs": [40.0, 0.0],
        "Reuses": [1.0],
        "Orders": [1.0],
    }
    assert document.units["AcquireMs"] == "Milliseconds"


# --- the tracer


class Emitter:
    """Takes the place of the UDP socket to X-Ray's daemon."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send_entity(self, entity: Any) -> None:
        self.sent.append(json.loads(entity.serialize()))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> tuple[Tracer, Emitter]:
    monkeypatch.setenv("LAMBDA_TASK_ROOT", "/var/task")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=1")
    recorder = AWSXRayRecorder()
    recorder.emitter._socket.close()
    recorder.emitter = Emitter()
    tracer = Tracer(service="orders", provider=recorder, auto_patch=False)
    return tracer, recorder.emitter


def test_connect_and_credentials_are_subsegments_of_the_handlers(
    server: FakeServer, traced: tuple[Tracer, Emitter]
) -> None:
    tracer, emitter = traced
    observer = PowertoolsObserver(tracer=tracer)
    db = manager(server, observer)

    @tracer.capture_lambda_handler
    def handler(event: dict[str, Any], context: LambdaContext) -> None:
        observer.on_event(
            CredentialsFetched(endpoint="db:5432", source="extension", stage="AWSCURRENT", duration_s=0.5)
        )
        for _ in range(2):
            with db.connection(context) as conn:
                conn.execute("select 1")

    server.connect_takes_s = 2.0
    handler({}, LambdaContext(server.clock, 3.0))
    credentials, connect, parent = emitter.sent
    assert parent["name"].endswith("handler")
    assert {sent["trace_id"] for sent in emitter.sent} == {ROOT}
    assert credentials["parent_id"] == connect["parent_id"] == parent["id"]
    assert (credentials["name"], connect["name"]) == ("## lambda_dbconn.credentials", "## lambda_dbconn.connect")
    assert 0.5 <= credentials["end_time"] - credentials["start_time"] < 1.5
    assert 2.0 <= connect["end_time"] - connect["start_time"] < 3.0
    assert connect["metadata"]["lambda_dbconn"]["event"]["reason"] == "first"
    assert "fault" not in connect


def test_a_try_that_failed_is_a_fault_with_its_error(server: FakeServer, traced: tuple[Tracer, Emitter]) -> None:
    tracer, emitter = traced
    db = manager(server, PowertoolsObserver(tracer=tracer))
    server.refuse(error=ConnectError("no such database"))
    with pytest.raises(ConnectError), tracer.provider.in_subsegment("## handler"), db.connection():
        pytest.fail("nothing was to be lent")
    connect, _ = emitter.sent
    assert connect["name"] == "## lambda_dbconn.connect"
    assert connect["fault"] is True
    assert connect["metadata"]["lambda_dbconn"]["event"]["error"] == "ConnectError: no such database"


def test_in_the_init_phase_there_is_no_trace_and_no_failure(
    server: FakeServer,
    traced: tuple[Tracer, Emitter],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracer, emitter = traced
    monkeypatch.delenv("_X_AMZN_TRACE_ID")
    assert manager(server, PowertoolsObserver(tracer=tracer)).warm_up()
    assert emitter.sent == []
    assert "the observer failed" not in caplog.text


def test_without_a_segment_there_is_no_trace_and_no_failure(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("LAMBDA_TASK_ROOT", raising=False)
    recorder = AWSXRayRecorder()
    recorder.emitter._socket.close()
    recorder.emitter = Emitter()
    tracer = Tracer(service="orders", provider=recorder, auto_patch=False, disabled=False)
    with manager(server, PowertoolsObserver(tracer=tracer)).connection() as conn:
        conn.execute("select 1")
    assert recorder.emitter.sent == []
    assert "the observer failed" not in caplog.text


# --- all of them


def test_without_any_it_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is given nothing; accepted: a logger, metrics, a tracer"):
        PowertoolsObserver()


def test_a_tracer_that_fails_keeps_no_line_from_the_log(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    written = io.StringIO()

    class Broken:
        provider = None

    broken: Any = Broken()
    observer = PowertoolsObserver(logger=Logger(service="orders-untraced", stream=written), tracer=broken)
    with manager(server, observer).connection() as conn:
        conn.execute("select 1")
    assert json.loads(written.getvalue())["message"] == "ConnectionOpened"
    assert "the observer failed on ConnectionOpened" in caplog.text


IMPORTED = """
import sys
import lambda_dbconn.observers.powertools
print(*(name for name in ("aws_lambda_powertools", "aws_xray_sdk", "opentelemetry") if name in sys.modules))
"""


def test_the_module_itself_imports_no_powertools() -> None:
    assert in_fresh_process(IMPORTED) == ""
