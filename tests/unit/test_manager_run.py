from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import CommitUnknownError, ConfigurationError, ConnectError, TransactionAbortedError
from lambda_dbconn.cache.backoff import CREDIT, EARNED_PER_S, LONGEST_S
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.errors import BORROW_TIMEOUT_REMEDY
from lambda_dbconn.testing.fakes import FakeContext, FakeError

if TYPE_CHECKING:
    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]


def insert(conn: FakeConnection) -> int:
    conn.execute("insert")
    return conn.number


def failures(*kinds: ErrorKind) -> list[FakeError]:
    return [FakeError(kind.value, kind) for kind in kinds]


def test_run_returns_what_the_function_does_and_commits(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    assert db.run(insert) == 1
    assert server.sql == ["BEGIN", "insert", "COMMIT"]
    assert clock.slept_s == []


@pytest.mark.parametrize("operation", ["execute", "commit"])
def test_a_conflict_is_run_again_on_the_same_connection(db: Manager, server: FakeServer, operation: str) -> None:
    server.demand(operation, *failures(ErrorKind.CONFLICT, ErrorKind.CONFLICT))
    assert db.run(insert) == 1
    assert server.committed == ["insert"]
    assert server.sql.count("insert") == server.sql.count("BEGIN") == 3


@pytest.mark.parametrize("kind", [ErrorKind.LOST, ErrorKind.READ_ONLY])
def test_a_lost_connection_and_a_failover_are_run_again_on_another(
    db: Manager, server: FakeServer, kind: ErrorKind
) -> None:
    server.demand("execute", *failures(kind))
    assert db.run(insert) == 2
    assert server.committed == ["insert"]
    assert [conn.closes for conn in server.connections] == [1, 0]


def test_a_connection_seen_to_be_lost_before_commit_is_run_again(db: Manager, server: FakeServer) -> None:
    def insert_and_lose(conn: FakeConnection) -> None:
        insert(conn)
        if conn.number == 1:
            conn.hang_up()

    db.run(insert_and_lose)
    assert server.committed == ["insert"]


def test_what_may_have_been_committed_is_never_run_again(db: Manager, server: FakeServer) -> None:
    server.demand("commit", *failures(ErrorKind.LOST))
    with pytest.raises(CommitUnknownError):
        db.run(insert, attempts=10)
    assert server.sql == ["BEGIN", "insert", "COMMIT"]


def test_an_unknown_commit_inside_the_function_is_never_run_again(db: Manager, make: MakeManager) -> None:
    other = make(name="audit")
    calls: list[int] = []

    def commit_elsewhere(conn: FakeConnection) -> None:
        calls.append(conn.number)
        error = CommitUnknownError("elsewhere")
        error.__cause__ = FakeError("lost", ErrorKind.LOST)
        raise error

    with pytest.raises(CommitUnknownError):
        db.run(commit_elsewhere)
    assert calls == [1]
    assert other is not db


@pytest.mark.parametrize("error", [FakeError("syntax error"), ZeroDivisionError()], ids=["the server's", "the code's"])
def test_any_other_error_is_raised_at_once(db: Manager, server: FakeServer, error: Exception) -> None:
    server.demand("execute", error)
    with pytest.raises(type(error)) as caught:
        db.run(insert)
    assert caught.value is error
    assert server.sql == ["BEGIN", "insert", "ROLLBACK"]


def test_a_failed_statement_that_the_function_caught_is_not_run_again(db: Manager, server: FakeServer) -> None:
    def careless(conn: FakeConnection) -> None:
        with contextlib.suppress(FakeError):
            insert(conn)

    server.demand("execute", *failures(ErrorKind.OTHER))
    with pytest.raises(TransactionAbortedError):
        db.run(careless)
    assert server.sql.count("insert") == 1


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_last_attempt_s_error_is_raised(db: Manager, server: FakeServer, attempts: int) -> None:
    demanded = failures(*[ErrorKind.CONFLICT] * 10)
    server.demand("execute", *demanded)
    with pytest.raises(FakeError) as caught:
        db.run(insert, attempts=attempts)
    assert caught.value is demanded[attempts - 1]
    assert server.sql.count("insert") == attempts


@pytest.mark.parametrize("attempts", [0, -1])
def test_no_attempt_at_all_is_a_configuration_error(db: Manager, server: FakeServer, attempts: int) -> None:
    with pytest.raises(ConfigurationError, match=f"the argument attempts is {attempts}; accepted: 1 or more"):
        db.run(insert, attempts=attempts)
    assert server.sql == []


def test_the_pauses_grow_and_are_jittered_from_zero(make: MakeManager, server: FakeServer, clock: FakeClock) -> None:
    pauses: list[list[float]] = []
    for _ in range(40):
        server.demand("execute", *failures(*[ErrorKind.CONFLICT] * 6))
        clock.slept_s.clear()
        make().run(insert, attempts=7)
        pauses.append(list(clock.slept_s))
    for pause, longest_s in zip(zip(*pauses, strict=True), (0.05, 0.1, 0.2, 0.4, 0.8, 1.0), strict=True):
        assert max(pause) <= longest_s
        assert min(pause) < longest_s / 2 < max(pause)


def test_without_time_for_another_attempt_the_conflict_itself_is_raised(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    context = FakeContext(clock, 4.1)
    server.round_trip_s = 0.6
    server.demand("execute", *failures(*[ErrorKind.CONFLICT] * 10))
    with pytest.raises(FakeError):
        db.run(insert, context, attempts=10)
    assert server.sql.count("insert") == 2


def test_no_pause_reaches_into_the_reserve(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    server.demand("execute", *failures(*[ErrorKind.CONFLICT] * 100))
    before = clock.monotonic()
    with pytest.raises(FakeError):
        db.run(insert, 2.0, attempts=100)
    assert clock.monotonic() - before <= 1.5


def test_a_connect_that_fails_is_not_the_function_s_to_repeat(db: Manager, server: FakeServer) -> None:
    server.refuses_with = ConnectError("no such database")
    with pytest.raises(ConnectError):
        db.run(insert)
    assert server.counts["open"] == 1


def test_a_write_in_a_read_only_run_is_not_taken_for_a_failover(db: Manager, server: FakeServer) -> None:
    server.demand("execute", *failures(ErrorKind.READ_ONLY))
    with pytest.raises(FakeError):
        db.run(insert, read_only=True)
    assert server.sql.count("insert") == 1
    assert server.connections[0].closes == 0


def test_run_inside_a_loan_is_a_second_borrow(db: Manager, server: FakeServer) -> None:
    with db.connection(), pytest.raises(Exception, match="already has"):
        db.run(insert)
    assert server.sql == []


@pytest.mark.parametrize(
    ("kind", "is_outage"),
    [(ErrorKind.LOST, True), (ErrorKind.READ_ONLY, True), (ErrorKind.BUSY, True), (ErrorKind.CONFLICT, False)],
)
def test_repeats_after_an_outage_draw_on_the_budget_and_those_after_a_conflict_do_not(
    make: MakeManager, server: FakeServer, clock: FakeClock, kind: ErrorKind, *, is_outage: bool
) -> None:
    times = CREDIT + 20
    server.demand("execute", *failures(*[kind] * times))
    db = make(connect_timeout_s=300)  # as long as a failover may last
    db.run(insert, attempts=times + 1)
    assert server.committed == ["insert"]
    earned = sum(clock.slept_s) * EARNED_PER_S
    assert (times <= CREDIT + earned + 0.001) is is_outage
    assert (max(clock.slept_s) > LONGEST_S) is is_outage


def test_a_transaction_that_got_no_database_connection_keeps_its_session_and_says_what_to_do(
    db: Manager, server: FakeServer
) -> None:
    (error,) = failures(ErrorKind.BUSY)
    server.demand("execute", error)
    with pytest.raises(FakeError) as caught, db.transaction() as conn:
        conn.execute("insert")
    assert caught.value is error
    assert error.__notes__ == [BORROW_TIMEOUT_REMEDY]
    assert db.run(insert) == 1
