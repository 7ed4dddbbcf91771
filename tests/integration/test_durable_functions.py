"""The page on durable functions: its code and its claims, under the local runner of AWS's own SDK."""

from __future__ import annotations

import importlib
import json
import os
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import lambda_dbconn
from lambda_dbconn import ConnectionManager, Secret, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.servers import LocalPostgres

if "LAMBDA_DBCONN_REQUIRE_DURABLE" not in os.environ:
    for name in ("aws_durable_execution_sdk_python", "aws_durable_execution_sdk_python_testing"):
        pytest.importorskip(name, reason="the dependency group `durable` is not installed: `tox -e once` has it")
sdk = importlib.import_module("aws_durable_execution_sdk_python")
runners = importlib.import_module("aws_durable_execution_sdk_python_testing.runner")
schedulers = importlib.import_module("aws_durable_execution_sdk_python_testing.scheduler")

pytestmark = pytest.mark.once

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "durable-functions.md"


@pytest.fixture(autouse=True)
def nothing_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close what the runner 1.4.0 leaves open when it stops: its event loop, and that one's sockets."""
    stop = schedulers.Scheduler.stop

    def stop_and_close(scheduler: Any) -> None:
        stop(scheduler)
        scheduler._loop.close()

    monkeypatch.setattr(schedulers.Scheduler, "stop", stop_and_close)


@pytest.fixture
def db(postgres: LocalPostgres) -> Iterator[ConnectionManager[Any]]:
    """A manager, and the tables that the page and these tests write to."""
    postgres.execute("CREATE TABLE reservation (order_id int PRIMARY KEY, paid_at timestamptz)")
    postgres.execute("CREATE TABLE written (place text)")
    for table in ("reservation", "written"):
        postgres.execute(f"ALTER TABLE {table} OWNER TO {postgres.user}")
    db: ConnectionManager[Any] = ConnectionManager(
        Settings(
            engine="postgresql",
            host=postgres.host,
            port=postgres.port,
            name=postgres.database,
            user=postgres.user,
            password=Secret(postgres.password),
            sslrootcert=str(postgres.ca_path),
        )
    )
    with closing(db):
        yield db
    postgres.execute("DROP TABLE reservation, written")


def run(handler: Callable[..., Any], event: dict[str, Any]) -> Any:
    """Run a durable function to its end, replays and all; a wait takes no time."""
    with runners.DurableFunctionTestRunner(sdk.durable_execution(handler), poll_interval=0.05) as runner:
        return runner.run(input=json.dumps(event))


def test_the_pages_example_runs_and_its_steps_are_done_once(
    db: ConnectionManager[Any], postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.setattr(lambda_dbconn, "from_env", lambda: db)
    module: dict[str, Any] = {}
    exec(compile(code, str(_PAGE), "exec"), module)
    with runners.DurableFunctionTestRunner(module["handler"], poll_interval=0.05) as runner:
        assert runner.run(input=json.dumps({"order_id": 7})).status.name == "SUCCEEDED"
    assert postgres.query("SELECT * FROM reservation") == []
    stats = db.stats()
    assert (stats.opened, stats.reused, stats.in_use) == (1, 1, 0)


def test_what_is_written_outside_a_step_is_written_in_each_replay(
    db: ConnectionManager[Any], postgres: LocalPostgres
) -> None:
    def write(place: str, lambda_context: Any) -> None:
        with db.transaction(lambda_context) as connection:
            connection.execute("INSERT INTO written VALUES (%s)", [place])

    def handler(_event: Any, context: Any) -> None:
        write("outside", context.lambda_context)
        context.step(lambda _step: write("in a step", context.lambda_context), name="write")
        context.wait(sdk.config.Duration.from_hours(1))

    assert run(handler, {}).status.name == "SUCCEEDED"
    assert postgres.query("SELECT place, count(*) FROM written GROUP BY place ORDER BY place") == [
        ("in a step", 1),
        ("outside", 2),
    ]


def test_a_wait_inside_a_transaction_rolls_it_back(db: ConnectionManager[Any], postgres: LocalPostgres) -> None:
    passes: list[int] = []

    def handler(_event: Any, context: Any) -> None:
        with db.transaction(context.lambda_context) as connection:
            passes.append(len(passes))
            connection.execute("INSERT INTO written VALUES (%s)", [f"pass {passes[-1]}"])
            context.wait(sdk.config.Duration.from_hours(1))

    assert run(handler, {}).status.name == "SUCCEEDED"
    assert passes == [0, 1]
    assert postgres.query("SELECT place FROM written") == [("pass 1",)]


def test_the_durable_context_is_no_lambda_context_and_is_refused(db: ConnectionManager[Any]) -> None:
    def handler(_event: Any, context: Any) -> None:
        with db.connection(context):
            pytest.fail("it was lent")

    result = run(handler, {})
    assert result.status.name == "FAILED"
    assert "the argument context is 'DurableContext'" in result.error.message
