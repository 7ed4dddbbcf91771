"""`examples/powertools` and `examples/metrics`, as functions of the real runtime client."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest
from botocore.session import get_session

from tests.support import emf
from tests.support.invocations import end_sessions, environment, function, sessions, table, unique_name
from tests.support.secrets_manager import KEYS, REGION, local_secrets_manager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.runtime_api import LocalRuntime
    from lambda_dbconn.testing.servers import LocalPostgres

pytestmark = [
    pytest.mark.walk,
    pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only"),
]

_EMPLOYEES = [(1, "Ada"), (2, "Barbara")]


@pytest.fixture
def employee(postgres: LocalPostgres) -> Iterator[None]:
    with table(postgres, "employee", "id int primary key, name varchar(20)", *_EMPLOYEES):
        yield


def answer(runtime: LocalRuntime, event: object) -> Any:
    """Invoke, and return what the handler does."""
    invocation = runtime.invoke(event)
    assert invocation.error is None, runtime.output()
    return invocation.value


# --- the three decorators


class Daemon:
    """Takes the place of X-Ray's daemon: a UDP socket that the real X-Ray SDK sends to."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def address(self) -> str:
        return "{}:{}".format(*self._socket.getsockname())

    def receive(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many segments; each comes after a line of its own."""
        return [json.loads(self._socket.recv(65536).split(b"\n", 1)[1]) for _ in range(count)]


@pytest.mark.usefixtures("employee")
def test_under_the_three_decorators_the_observer_logs_counts_and_traces(postgres: LocalPostgres) -> None:
    name = unique_name()
    with Daemon() as daemon:
        variables = {
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_XRAY_DAEMON_ADDRESS": daemon.address,
            "POWERTOOLS_METRICS_NAMESPACE": "Shop",
            "POWERTOOLS_SERVICE_NAME": "employees",
        }
        with function("powertools/observed.handler", {**environment(postgres), **variables}, is_traced=True) as runtime:
            for correlation_id in ("one", "two"):
                assert answer(runtime, {"id": correlation_id}) == {"employees": 2}
            end_sessions(postgres, name)
            assert answer(runtime, {"id": "three"}) == {"employees": 2}
            output = runtime.output()
        segments = daemon.receive(5)  # three handlers, two connects

    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"level"')]
    assert [(line["message"], line["correlation_id"]) for line in lines] == [
        ("ConnectionOpened", "one"),
        ("counted", "one"),
        ("counted", "two"),
        ("ConnectionOpened", "three"),
        ("counted", "three"),
    ]
    assert [line["lambda_dbconn"]["reason"] for line in lines if "lambda_dbconn" in line] == ["first", "hang_up"]
    first, second, third = emf.documents(output)
    assert {(document.namespace, document.dimensions["service"]) for document in (first, second, third)} == {
        ("Shop", "employees")
    }
    assert set(first.metrics) == {"Connects", "ConnectMs", "AcquireMs"}
    assert set(second.metrics) == {"Reuses", "AcquireMs"}
    assert set(third.metrics) == {"Replacements", "ReplacedHangUp", "Connects", "ConnectMs", "AcquireMs"}
    connects = [segment for segment in segments if segment["name"] == "## lambda_dbconn.connect"]
    handlers = [segment["id"] for segment in segments if segment["name"] == "## handler"]
    assert [segment["parent_id"] for segment in connects] == [handlers[0], handlers[2]]
    for segment, line in zip(connects, (lines[0], lines[3]), strict=True):
        told_s = line["lambda_dbconn"]["duration_s"]
        assert 0 < told_s <= segment["end_time"] - segment["start_time"] < told_s + 5


# --- event handler


def request(method: str, path: str, body: object = None) -> dict[str, Any]:
    """Return what API Gateway sends."""
    return {
        "httpMethod": method,
        "path": path,
        "resource": path,
        "headers": {},
        "multiValueHeaders": {},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {"path": path, "stage": "prod", "httpMethod": method},
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


@pytest.mark.usefixtures("employee")
def test_the_routes_of_an_event_handler_borrow_and_an_error_rolls_back(postgres: LocalPostgres) -> None:
    with function("powertools/rest_api.handler", environment(postgres)) as runtime:
        found = answer(runtime, request("GET", "/employees/2"))
        assert (found["statusCode"], json.loads(found["body"])) == (200, {"id": 2, "name": "Barbara"})
        assert answer(runtime, request("GET", "/employees/9"))["statusCode"] == 404
        assert answer(runtime, request("POST", "/employees", {"id": 3, "name": "Grace"}))["statusCode"] == 201
        refused = runtime.invoke(request("POST", "/employees", {"id": 3, "name": "Alan"}))
        assert refused.error is not None
        assert refused.error.type == "UniqueViolation"
        found = answer(runtime, request("GET", "/employees/3"))
        assert json.loads(found["body"]) == {"id": 3, "name": "Grace"}


# --- batch


def record(message_id: str, **body: object) -> dict[str, Any]:
    """Return what SQS sends."""
    return {
        "messageId": message_id,
        "receiptHandle": "handle",
        "body": json.dumps(body),
        "attributes": {},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:payments",
        "awsRegion": REGION,
    }


def test_each_record_of_a_batch_is_a_transaction_and_only_those_that_failed_come_again(
    postgres: LocalPostgres,
) -> None:
    name = unique_name()
    with (
        table(postgres, "account", "id int primary key, balance int check (balance >= 0)", (1, 100)),
        table(postgres, "payment", "id int primary key, account int"),
        function("powertools/batch.handler", {**environment(postgres), "AWS_LAMBDA_FUNCTION_NAME": name}) as runtime,
    ):
        records = [
            record("a", id=1, account=1, amount=60),
            record("b", id=2, account=1, amount=60),  # inserted, and then more than there is
            record("c", id=3, account=1, amount=30),
        ]
        assert answer(runtime, {"Records": records}) == {"batchItemFailures": [{"itemIdentifier": "b"}]}
        assert postgres.query("select id from payment order by id") == [(1,), (3,)]
        assert postgres.query("select balance from account") == [(10,)]
        (session,) = sessions(postgres, name)
        assert answer(runtime, {"Records": [record("b", id=2, account=1, amount=10)]}) == {"batchItemFailures": []}
        assert sessions(postgres, name) == [session]
        assert postgres.query("select balance from account") == [(0,)]


# --- idempotency


@contextmanager
def idempotency_table() -> Iterator[dict[str, str]]:
    """Have moto's DynamoDB with the table; give the variables with which a function finds it."""
    with local_secrets_manager() as manager:  # moto's server has every service
        client = get_session().create_client(
            "dynamodb",
            region_name=REGION,
            endpoint_url=manager.url,
            aws_access_key_id="AKIDADMIN",
            aws_secret_access_key="example",
        )
        with closing(client):
            client.create_table(
                TableName="idempotency",
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            try:
                yield {
                    **KEYS,
                    "AWS_REGION": REGION,
                    "AWS_ENDPOINT_URL_DYNAMODB": manager.url,
                    "IDEMPOTENCY_TABLE": "idempotency",
                }
            finally:
                client.delete_table(TableName="idempotency")


@pytest.mark.parametrize(("handler", "borrows_for_a_repeat"), [("handler", False), ("handler_inside", True)])
def test_idempotency_and_a_connection_work_in_either_order_of_decoration(
    postgres: LocalPostgres, handler: str, borrows_for_a_repeat: bool
) -> None:
    name = unique_name()
    with (
        idempotency_table() as variables,
        table(postgres, "booking", "order_id int"),
        function(
            f"powertools/idempotent.{handler}",
            {**environment(postgres), **variables, "AWS_LAMBDA_FUNCTION_NAME": name},
        ) as runtime,
    ):
        assert answer(runtime, {"order": 1}) == {"booked": 1}
        end_sessions(postgres, name)
        assert answer(runtime, {"order": 1}) == {"booked": 1}
        assert len(sessions(postgres, name)) == borrows_for_a_repeat
        assert postgres.query("select order_id from booking") == [(1,)]
        assert answer(runtime, {"order": 2}) == {"booked": 2}
        assert postgres.query("select order_id from booking order by 1") == [(1,), (2,)]


def test_what_fails_under_idempotency_is_rolled_back_and_may_come_again(postgres: LocalPostgres) -> None:
    with (
        idempotency_table() as variables,
        table(postgres, "booking", "order_id int check (order_id <> 7)"),
        function("powertools/idempotent.handler", {**environment(postgres), **variables}) as runtime,
    ):
        for _ in range(2):
            refused = runtime.invoke({"order": 7})
            assert refused.error is not None
            assert refused.error.type == "CheckViolation"
        assert postgres.query("select order_id from booking") == []


# --- EMF without Powertools


def test_metrics_are_one_line_an_invocation_at_most_and_sessions_have_the_functions_name(
    postgres: LocalPostgres,
) -> None:
    name = unique_name()
    variables = {"AWS_LAMBDA_FUNCTION_NAME": name, "AWS_LAMBDA_FUNCTION_VERSION": "42"}
    with function(
        "metrics/handler.handler", {**environment(postgres), **variables}, freeze_between_invocations=True
    ) as runtime:
        (pid, application_name) = answer(runtime, {})["session"]
        assert application_name == f"{name}:42"
        assert answer(runtime, {"loans": 3})["session"] == [pid, application_name]
        assert answer(runtime, {"loans": 2})["session"][0] == pid
        postgres.query("select pg_terminate_backend(%s, 5000)", pid)
        assert answer(runtime, {"loans": 3})["session"][0] != pid
        first, second = emf.documents(runtime.output())
    assert first.namespace == "lambda_dbconn"
    assert first.dimensions == {"function_name": name}
    assert set(first.metrics) == {"Connects", "ConnectMs", "AcquireMs"}
    assert first.metrics["Connects"] == 1
    assert second.metrics["Reuses"] == 5  # of the two invocations that had no line, and none of its own later ones
    assert (second.metrics["Replacements"], second.metrics["ReplacedHangUp"]) == (1, 1)
    assert second.metrics["ConnectMs"][0] > 0
