"""A handler that awaits, under the real runtime client with a real PostgreSQL: from init to shutdown."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_lifecycle import POLLING, function, invoke, known, threads
from tests.support.clients import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.runtime_api import LocalRuntime
    from lambda_dbconn.testing.servers import LocalPostgres

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only")


@pytest.fixture
def runtime(own_postgres: LocalPostgres) -> Iterator[LocalRuntime]:
    """An environment of the function, which has not connected yet."""
    with function(own_postgres, handler="awaiting.handler") as started:
        yield started


def test_a_loop_for_each_invocation_and_one_connection_for_all(
    own_postgres: LocalPostgres, runtime: LocalRuntime
) -> None:
    answers = [invoke(runtime) for _ in range(3)]
    assert {told["session"] for told in answers} == set(own_postgres.session_ids())
    assert [told["opened"] for told in answers] == [1, 1, 1]


def test_a_connection_opened_at_init_serves_the_first_invocation(own_postgres: LocalPostgres) -> None:
    with function(own_postgres, handler="awaiting.handler", DB_WARM_UP="init") as runtime:
        (session,) = own_postgres.session_ids()
        told = invoke(runtime)
    assert (told["opened_at_init"], told["opened"], told["session"]) == (1, 1, session)


def test_a_session_that_ends_during_a_freeze_is_replaced(own_postgres: LocalPostgres, runtime: LocalRuntime) -> None:
    session = invoke(runtime)["session"]
    runtime.freeze()
    own_postgres.kill_session(session)
    runtime.thaw()
    told = invoke(runtime)
    assert told["session"] != session
    assert told["replaced"] == {"hang_up": 1}


def test_a_restart_in_between_costs_no_invocation(own_postgres: LocalPostgres, runtime: LocalRuntime) -> None:
    invoke(runtime)
    own_postgres.restart()
    assert invoke(runtime)["replaced"] == {"hang_up": 1}


def test_a_statement_that_takes_too_long_leaves_time_for_an_answer_and_nothing_else(
    own_postgres: LocalPostgres, runtime: LocalRuntime
) -> None:
    before = known(invoke(runtime))
    interrupted = runtime.invoke({"statement": "SELECT pg_sleep(60)"}, timeout_s=2.0)
    assert interrupted.error is None, runtime.output()
    told = interrupted.value
    assert told["error"] == "DeadlineExceededError"
    assert told["left_ms"] > 0
    assert (told["open"], known(told), told["timers"]) == (0, before, [])  # the one that told the server has ended
    wait_until(lambda: threads(runtime) == len(before) + POLLING)
    wait_until(lambda: own_postgres.session_ids() == [])
    assert invoke(runtime)["replaced"] == {"deadline": 1}


def test_a_handler_that_fails_or_leaves_a_transaction_open_spoils_nothing_for_the_next(runtime: LocalRuntime) -> None:
    session = invoke(runtime)["session"]
    failed = runtime.invoke({"raise": "the handler's own"})
    assert failed.error is not None
    assert failed.error.message == "the handler's own"
    assert invoke(runtime, leave_open=True)["error"] == "TransactionLeftOpenError"
    assert invoke(runtime)["session"] == session


def test_no_thread_and_no_timer_is_alive_between_invocations(
    own_postgres: LocalPostgres, runtime: LocalRuntime
) -> None:
    with function(own_postgres, handler="ordinary.bare") as bare:
        before = known(invoke(bare))
    for _ in range(3):
        told = invoke(runtime)
        own_postgres.kill_session(told["session"])
    told = invoke(runtime)
    assert told["opened"] == 4
    assert (known(told), told["timers"]) == (before, [])
    wait_until(lambda: threads(runtime) == len(before) + POLLING)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there, the main thread waits in C and runs no handler")
def test_an_environment_that_is_told_to_end_says_goodbye(own_postgres: LocalPostgres, runtime: LocalRuntime) -> None:
    invoke(runtime)
    assert runtime.shutdown(grace_s=10.0) == -signal.SIGTERM
    wait_until(lambda: own_postgres.session_ids() == [])
    statement = "SELECT sessions_abandoned FROM pg_stat_database WHERE datname = %s"
    assert own_postgres.query(statement, own_postgres.database)[0][0] == 0
