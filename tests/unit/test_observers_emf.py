from __future__ import annotations

import io
import json
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from lambda_dbconn import ConfigurationError, ConnectError, ConnectionManager
from lambda_dbconn.events import ConnectionClosed, ConnectionOpened, ConnectionReleased, ConnectionReplaced
from lambda_dbconn.observers.emf import EmfObserver
from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeContext, FakeDriver
from tests.support import emf
from tests.unit.conftest import in_child, local
from tests.unit.test_observers_measures import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.fakes import FakeServer

TRACE = "_X_AMZN_TRACE_ID"
OPENED = ConnectionOpened(endpoint="db:5432", reason="first", attempts=1, duration_s=0.025)
REUSED = ConnectionReleased(endpoint="db:5432", outcome="reused", wait_s=0.000003, use_s=1.0, request_id="")


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_SERVICE_NAME", "AWS_LAMBDA_FUNCTION_NAME", TRACE):
        monkeypatch.delenv(name, raising=False)


class Sink:
    """An observer on a clock that stands, and what it writes."""

    def __init__(self, **arguments: Any) -> None:
        self.clock = FakeClock()
        self.lines: list[str] = []
        self.observer = EmfObserver(
            **{"namespace": "shop", "dimensions": {"stage": "test"}, **arguments},
            write=self.lines.append,
            wall=self.clock.wall,
        )

    def documents(self) -> list[emf.Document]:
        return [emf.read(line) for line in self.lines]

    def loan(self, request_id: str = "", outcome: str = "reused") -> None:
        self.observer.on_event(REUSED.replace(request_id=request_id, outcome=outcome))


class Invocation(FakeContext):
    def __init__(self, clock: FakeClock, request_id: str) -> None:
        super().__init__(clock, 3.0)
        self.aws_request_id = request_id


def test_a_document_says_what_has_happened_and_is_valid() -> None:
    sink = Sink()
    for event, _ in TABLE:
        sink.observer.on_event(event)
    sink.observer.flush()
    documents = sink.documents()
    assert documents[0].namespace == "shop"
    assert documents[0].dimensions == {"stage": "test"}
    assert documents[0].timestamp_ms == int(sink.clock.wall() * 1000)
    assert documents[0].root["endpoints"] == ["db:5432"]
    assert documents[0].metrics == {
        "Connects": 1,
        "ConnectMs": [25.0],
        "Replacements": 1,
        "ReplacedHangUp": 1,
        "ConnectFailures": 1,
        "CredentialRefreshes": 1,
        "CredentialRefreshMs": [500.0],
        "CredentialFailures": 1,
        "PingFailures": 1,
        "TransactionsLeftOpen": 1,
        "Reuses": 1,
        "AcquireMs": [2.0],
    }
    assert {name: unit for name, unit in documents[0].units.items() if unit != "Count"} == {
        "ConnectMs": "Milliseconds",
        "CredentialRefreshMs": "Milliseconds",
        "AcquireMs": "Milliseconds",
    }


def test_the_schema_that_lines_are_checked_with_refuses_what_is_wrong() -> None:
    sink = Sink()
    sink.observer.on_event(OPENED)
    sink.observer.flush()
    good = sink.lines[0]
    for right, wrong in [
        ('"Count"', '"Number"'),
        ('"Timestamp":', '"Time":'),
        ('"Namespace":"shop"', '"Namespace":""'),
        ('[["stage"]]', '["stage"]'),
        ('[["stage"]]', json.dumps([[f"d{i}" for i in range(31)]])),
    ]:
        assert right in good
        with pytest.raises(jsonschema.ValidationError):
            emf.read(good.replace(right, wrong, 1))


def test_an_invocation_has_one_line_at_most_and_what_comes_later_is_in_the_nexts() -> None:
    sink = Sink(every_s=0)
    for request_id in ("one", "two", "three"):
        for _ in range(3):
            sink.loan(request_id, outcome="opened" if request_id == "two" else "reused")
    first, second, third = sink.documents()
    assert [document.root["request_id"] for document in (first, second, third)] == ["one", "two", "three"]
    assert [len(document.metrics["AcquireMs"]) for document in (first, second, third)] == [1, 3, 3]
    assert (first.metrics["Reuses"], second.metrics["Reuses"], third.metrics["Reuses"]) == (1, 2, 1)


def test_an_invocation_is_known_by_its_trace_when_no_loan_has_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink(every_s=0)
    for trace in ("Root=1", "Root=2"):
        monkeypatch.setenv(TRACE, trace)
        sink.loan()
        sink.loan()
    assert len(sink.lines) == 2


def test_loans_with_and_without_the_context_are_of_one_invocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRACE, "Root=1")
    for first, second in [("one", ""), ("", "one")]:
        sink = Sink(every_s=0)
        sink.loan(first)
        sink.loan(second)
        assert len(sink.lines) == 1


def test_invocations_of_one_trace_are_told_apart_by_their_request_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRACE, "Root=1")
    sink = Sink(every_s=0)
    sink.loan("one")
    sink.loan("two")
    assert len(sink.lines) == 2


def test_mere_reuses_wait_and_news_does_not() -> None:
    sink = Sink()
    sink.loan("0", outcome="opened")
    for number in range(1, 6):
        sink.clock.advance(10)
        sink.loan(str(number))
    assert len(sink.lines) == 1
    sink.clock.advance(10)
    sink.loan("6")
    assert sink.documents()[1].metrics == {"Reuses": 6, "AcquireMs": [0.003] * 6}
    sink.observer.on_event(ConnectionReplaced(endpoint="db:5432", reason="idle", age_s=1.0, idle_s=1.0))
    sink.loan("7")
    assert sink.documents()[2].metrics == {"Replacements": 1, "ReplacedIdle": 1, "Reuses": 1, "AcquireMs": [0.003]}


def test_a_clock_that_is_put_back_stops_nothing() -> None:
    sink = Sink()
    sink.loan("1")
    sink.clock.advance(-3600)
    sink.loan("2")
    assert len(sink.lines) == 2


def test_more_values_than_a_document_takes_are_counted_and_not_listed() -> None:
    sink = Sink()
    sink.loan("1")
    for _ in range(150):
        sink.loan("1")
    sink.observer.flush()
    metrics = sink.documents()[1].metrics
    assert metrics["Reuses"] == 150
    assert len(metrics["AcquireMs"]) == 100


def test_flush_writes_what_waits_and_nothing_when_nothing_does() -> None:
    sink = Sink()
    sink.observer.flush()
    assert sink.lines == []
    sink.loan("1")
    sink.loan("1")
    sink.observer.flush()
    sink.observer.flush()
    assert [document.metrics["Reuses"] for document in sink.documents()] == [1, 1]


def test_a_handlers_connects_failures_and_reuses_come_out_one_line_an_invocation(server: FakeServer) -> None:
    sink = Sink()
    db = manager(server, sink.observer)
    server.connect_takes_s = 0.04
    server.refuse(error=ConnectError("no such database"))
    for request_id in ("fails", "opens", "reuses", "replaces"):
        context = Invocation(server.clock, request_id)
        if request_id == "replaces":
            server.hang_up()
        try:
            with db.transaction(context) as conn:
                conn.execute("select 1")
            with db.connection(context):
                pass
        except ConnectError:
            assert request_id == "fails"
    failed, opened, replaced = sink.documents()
    assert failed.metrics == {"ConnectFailures": 1, "AcquireFailures": 1}
    assert opened.metrics == {"Connects": 1, "ConnectMs": [40.0], "AcquireMs": [40.0]}
    assert {**replaced.metrics, "AcquireMs": sorted(replaced.metrics["AcquireMs"])} == {
        "Reuses": 3,  # the second loan of `opens`, and both of `reuses`
        "Replacements": 1,
        "ReplacedHangUp": 1,
        "Connects": 1,
        "ConnectMs": [40.0],
        "AcquireMs": [0.0, 0.0, 0.0, 40.0],
    }
    assert replaced.root["request_id"] == "replaces"


def manager(server: FakeServer, observer: EmfObserver) -> ConnectionManager[FakeConnection]:
    return ConnectionManager(local(), driver=FakeDriver(server), clock=server.clock, observer=observer)


def test_a_sink_that_fails_never_fails_an_invocation(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    def fail(line: str) -> None:
        raise BrokenPipeError

    with manager(server, EmfObserver("shop", write=fail)).connection() as conn:
        conn.execute("select 1")
    assert "the observer failed on ConnectionReleased" in caplog.text


def test_a_childs_numbers_are_its_own() -> None:
    sink = Sink()
    sink.observer.on_event(OPENED)
    sink.observer._adding.acquire()  # as by a thread that is not there in the child

    def in_the_child() -> str:
        signal.alarm(30)  # against waiting for that lock for ever
        sink.loan("1")
        return sink.lines[0]

    assert emf.read(in_child(in_the_child)).metrics == {"Reuses": 1, "AcquireMs": [0.003]}
    sink.observer._adding.release()
    sink.observer.flush()
    assert sink.documents()[0].metrics["Connects"] == 1


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless_threads")
@pytest.mark.parametrize("every_s", [0, 60])
def test_threads_lose_no_count(every_s: float) -> None:
    sink = Sink(every_s=every_s)

    def lend(number: int) -> None:
        for loan in range(1000):
            sink.loan(f"{number}-{loan % 7}")

    threads = [threading.Thread(target=lend, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    sink.observer.flush()
    assert sum(document.metrics["Reuses"] for document in sink.documents()) == 4000


def test_a_close_from_a_signal_handler_does_not_wait_for_the_code_that_it_interrupted() -> None:
    sink = Sink()
    with sink.observer._adding:
        sink.observer.on_event(ConnectionClosed(endpoint="db:5432", reason="closed", age_s=1.0, uses=1))


def test_by_default_a_line_goes_to_what_stdout_is_then_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    observer = EmfObserver("shop")
    pieces: list[str] = []

    class Stdout(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr("sys.stdout", Stdout())
    observer.on_event(OPENED)
    observer.on_event(REUSED)
    (line,) = pieces
    assert line.endswith("}\n")
    assert emf.read(line).metrics["Connects"] == 1


# --- namespace and dimensions


def made(**arguments: Any) -> emf.Document:
    lines: list[str] = []
    observer = EmfObserver(**arguments, write=lines.append)
    observer.on_event(OPENED)
    observer.flush()
    return emf.read(lines[0])


def test_namespace_and_dimensions_come_from_powertools_and_lambdas_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (made().namespace, made().dimensions) == ("lambda_dbconn", {})
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders-api")
    assert made().dimensions == {"function_name": "orders-api"}
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Shop/Orders")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "orders")
    assert (made().namespace, made().dimensions) == ("Shop/Orders", {"service": "orders"})


def test_arguments_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Shop")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "orders")
    assert made(namespace="Other").namespace == "Other"
    assert made(dimensions={}).dimensions == {}
    assert made(dimensions={"a": "1", "b": "2"}).dimensions == {"a": "1", "b": "2"}


def test_a_document_takes_thirty_dimensions() -> None:
    assert len(made(dimensions={f"name {i}": "value" for i in range(30)}).dimensions) == 30


@pytest.mark.parametrize("namespace", ["", "  ", "AWS/Lambda", ":x", "a\nb", "é", "x" * 256, 7])
def test_a_namespace_that_cloudwatch_would_not_take_is_refused(namespace: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"the argument namespace is .*; accepted: up to 255 letters"):
        EmfObserver(namespace)


def test_a_bad_namespace_in_the_environment_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "AWS/Lambda")
    with pytest.raises(ConfigurationError, match="POWERTOOLS_METRICS_NAMESPACE is 'AWS/Lambda'"):
        EmfObserver()


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({f"d{i}": "v" for i in range(31)}, "there are 31 dimensions; accepted: 30 at most"),
        ({":x": "v"}, "a dimension's name is ':x'; accepted"),
        ({"": "v"}, "a dimension's name is ''; accepted"),
        ({"x" * 256: "v"}, "a dimension's name is"),
        ({"näme": "v"}, "a dimension's name is 'näme'"),
        ({"stage": " "}, "the dimension 'stage' is ' '; accepted"),
        ({"stage": "x" * 1025}, "the dimension 'stage' is"),
        ({"stage": 7}, "the dimension 'stage' is 7"),
        ({"_aws": "v"}, "member of every line"),
    ],
)
def test_a_dimension_that_cloudwatch_would_not_take_is_refused(dimensions: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EmfObserver("shop", dimensions)


@pytest.mark.parametrize("name", sorted({name for _, added in TABLE for name, _, _ in added} | {"Pins"}))
def test_a_dimension_cannot_take_a_metrics_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="may become a member of every line"):
        EmfObserver("shop", {name: "value"})


@pytest.mark.parametrize("every_s", [-1, float("nan")])
def test_a_time_that_is_none_is_refused(every_s: float) -> None:
    with pytest.raises(ConfigurationError, match=r"the argument every_s is .*; accepted: seconds"):
        EmfObserver("shop", every_s=every_s)
