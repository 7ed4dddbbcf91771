"""The Python and SQL blocks of the documentation, run as they are: on real servers, and all functions in them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from aws_lambda_powertools import Tracer
from aws_xray_sdk import global_sdk_config

from lambda_dbconn import ConnectionManager, registry
from tests.support.block_runs import run
from tests.support.invocations import environment, table
from tests.support.snippets import Snippet, SnippetError, all_snippets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres

pytestmark = pytest.mark.once

_HERE = [snippet for snippet in all_snippets() if not (snippet.noted("not run") or snippet.noted("run by"))]
PYTHON = [snippet for snippet in _HERE if snippet.language == "python"]
TESTS = [snippet for snippet in PYTHON if "\ndef test_" in snippet.code]
PROGRAMS = [snippet for snippet in PYTHON if snippet not in TESTS]
SQL = [snippet for snippet in _HERE if snippet.language == "sql"]

_POSTGRESQL_TABLES: dict[str, tuple[str, list[tuple[object, ...]]]] = {
    "account": ("id int primary key, balance int", [(1, 100), (2, 100)]),
    "booking": ("order_id int", []),
    "contract": ("id int", []),
    "department": ("id int", []),
    "employee": ("id int primary key, name varchar(20)", [(1, "Ada"), (2, "Barbara")]),
    "headcount": ("total int", []),
    "location": ("id int", []),
    "order_line": ("order_id int, item varchar(20), quantity int", [(7, "pencil", 2)]),
    "orders": ("item varchar(20)", []),
    "payment": ("body text", []),
}
_MARIADB_TABLES: dict[str, tuple[str, list[tuple[object, ...]]]] = {
    "stock": ("item varchar(20), quantity int", [("pencil", 10)]),
}


class Context(SimpleNamespace):
    """A Lambda context, as the runtime client gives it."""

    function_name = "function"
    function_version = "$LATEST"
    memory_limit_in_mb = "128"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:function"
    aws_request_id = "1-2-3"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


def api_event(path: str) -> dict[str, Any]:
    """Return what API Gateway sends."""
    return {"httpMethod": "GET", "path": path, "requestContext": {"stage": "prod"}, "headers": {}, "body": None}


def sqs_event(body: str) -> dict[str, Any]:
    """Return what SQS sends."""
    return {"Records": [{"messageId": "a", "receiptHandle": "handle", "body": body, "eventSource": "aws:sqs"}]}


@pytest.fixture(scope="module")
def databases(postgres: LocalPostgres, mariadb: LocalMariaDB) -> Iterator[dict[str, str]]:
    """Have the tables that the pages speak of; return the variables."""
    with ExitStack() as stack:
        for name, (columns, rows) in _POSTGRESQL_TABLES.items():
            stack.enter_context(table(postgres, name, columns, *rows))
        for name, (columns, rows) in _MARIADB_TABLES.items():
            stack.enter_context(table(mariadb, name, columns, *rows))
        variables = environment(postgres)
        variables |= {f"ORDERS_{name}": value for name, value in environment(postgres).items()}
        variables |= {f"STOCK_{name}": value for name, value in environment(mariadb).items()}
        yield variables


@pytest.fixture
def idempotency() -> Iterator[None]:
    """Have DynamoDB, in this process, with the table."""
    import boto3
    from moto import mock_aws

    with mock_aws(), closing(boto3.client("dynamodb", region_name="us-east-1")) as client:
        client.create_table(
            TableName="idempotency",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield


@pytest.fixture
def names(
    databases: dict[str, str], postgres: LocalPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """Have an environment and a process as a function's are before its module is imported; what notes may use."""
    for name in [name for name in os.environ if name.startswith(("DB_", "AWS_", "PG", "POWERTOOLS_"))]:
        monkeypatch.delenv(name)
    for name, value in databases.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Shop")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "orders")
    monkeypatch.setenv("POWERTOOLS_TRACE_DISABLED", "1")
    monkeypatch.setattr(Tracer, "_config", dict(Tracer._config))  # which keeps what a first one was told
    monkeypatch.chdir(tmp_path)
    (tmp_path / "migration.sql").write_text("SET NAMES utf8mb4;\nSELECT GET_LOCK('migration', 10);\n")
    for kind in ("_managers", "_async_managers", "_secrets"):
        monkeypatch.setattr(registry, kind, {})
    handler_before, is_traced = signal.getsignal(signal.SIGTERM), global_sdk_config.sdk_enabled()
    url = f"host={postgres.host} port={postgres.port} user={postgres.user} dbname={postgres.database}"
    with psycopg.connect(url, password=postgres.password) as connection:
        yield {"api_event": api_event, "context": Context(), "cursor": connection.cursor(), "sqs_event": sqs_event}
    signal.signal(signal.SIGTERM, handler_before)
    global_sdk_config.set_sdk_enabled(is_traced)  # Powertools switches it off for the process


def close_all(module: dict[str, Any]) -> None:
    """Close what a block has opened, which a function would not."""
    managers = [value for value in module.values() if isinstance(value, ConnectionManager)]
    for manager in {*managers, *registry._managers.values()}:
        manager.close()
    for async_manager in registry._async_managers.values():
        asyncio.run(async_manager.close())


@pytest.mark.parametrize("snippet", PROGRAMS, ids=lambda snippet: snippet.name)
def test_a_python_block_runs_and_all_its_functions_do(
    snippet: Snippet, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for note in snippet.noted("with"):
        for setting in note.split():
            monkeypatch.setenv(*setting.split("=", 1))
    if "DynamoDB" in snippet.code:
        request.getfixturevalue("idempotency")
    module: dict[str, Any] = {}
    try:
        module = run(snippet, names)
    finally:
        close_all(module)


@pytest.mark.parametrize("snippet", SQL, ids=lambda snippet: snippet.name)
def test_a_sql_block_is_understood_by_the_server(snippet: Snippet, names: dict[str, Any]) -> None:
    names["cursor"].execute(snippet.code)


# --- blocks that are tests

_CONFTEST = """
import os

import psycopg
import pytest


@pytest.fixture
def admin():
    with psycopg.connect(os.environ["TEST_DATABASE_URL"], autocommit=True) as connection:
        yield connection


@pytest.fixture
def context():
    return 30
"""


def test_the_blocks_that_are_tests_pass(databases: dict[str, str], postgres: LocalPostgres, tmp_path: Path) -> None:
    (app,) = [snippet for snippet in PYTHON if str(snippet.path) == "README.md" and "select id, name" in snippet.code]
    (tmp_path / "app.py").write_text(app.code.replace("from employee", "from department").replace("id, name", "id"))
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    for snippet in TESTS:
        (tmp_path / f"test_{snippet.path.stem}_{snippet.line:04}.py").write_text(snippet.code)
    url = f"postgresql://{postgres.user}:{postgres.password}@localhost:{postgres.port}/{postgres.database}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "PYTEST_"))}
    arguments = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(tmp_path)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, str(tmp_path)],
        env={
            **kept,
            "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
            "TEST_DATABASE_URL": url,
            "DB_URL": f"{url}?sslmode=disable",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    expected = sum(len(re.findall(r"^def test_", snippet.code, flags=re.MULTILINE)) for snippet in TESTS)
    assert expected > 3
    assert f"{expected} passed" in ran.stdout


# --- whether these tests can fail


def snippet_of(code: str, *notes: tuple[str, str]) -> Snippet:
    return Snippet(Path("README.md"), 7, "python", code, notes)


@pytest.mark.parametrize(
    ("snippet", "complaint"),
    [
        (snippet_of("def lost():\n    pass\n"), "README.md:7: nobody has called lost"),
        (
            snippet_of("def outer():\n    return lambda: 1\n", ("then", "outer()")),
            "nobody has called outer.<locals>.<l",
        ),
        (snippet_of("total = 1\n", ("then", "total == 2")), "README.md:7: it is not so that total == 2"),
    ],
)
def test_a_block_that_does_not_run_to_the_end_is_found(snippet: Snippet, complaint: str) -> None:
    with pytest.raises(SnippetError, match=re.escape(complaint)):
        run(snippet, {"context": None})


@pytest.mark.parametrize("code", ["1 / 0", "def handler(event, context):\n    1 / 0\n"])
def test_an_error_in_a_block_or_in_its_handler_is_an_error(code: str) -> None:
    with pytest.raises(ZeroDivisionError):
        run(snippet_of(code), {"context": None})
