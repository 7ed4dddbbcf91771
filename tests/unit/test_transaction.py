from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import (
    CommitUnknownError,
    ConnectError,
    DeadlineExceededError,
    TransactionAbortedError,
)
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.events import ConnectionClosed, ConnectionOpened, ConnectionReplaced, ConnectionReused
from lambda_dbconn.testing.fakes import FakeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver

    Manager = ConnectionManager[FakeConnection]

LOST = FakeError("server closed the connection unexpectedly", ErrorKind.LOST)


def transact(db: Manager, *steps: str | Callable[[], None], error: BaseException | None = None) -> None:
    """Do these steps in a transaction: statements, or calls; then raise the error."""
    with db.transaction() as conn:
        for step in steps:
            if callable(step):
                step()
            else:
                conn.execute(step)
        if error is not None:
            raise error


def test_a_transaction_is_begun_and_committed_in_two_round_trips(db: Manager, server: FakeServer) -> None:
    transact(db, "insert 1", "insert 2")
    assert server.sql == ["BEGIN", "insert 1", "insert 2", "COMMIT"]
    assert server.committed == ["insert 1", "insert 2"]


def test_an_exception_rolls_back_and_leaves_the_block_untouched(db: Manager, server: FakeServer) -> None:
    mine = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        transact(db, "insert", error=mine)
    assert caught.value is mine
    assert caught.value.__context__ is None
    assert server.sql == ["BEGIN", "insert", "ROLLBACK"]
    assert server.committed == []
    assert server.connections[0].closes == 0


@pytest.mark.parametrize(
    ("options", "begin"),
    [
        ({}, "BEGIN"),
        ({"read_only": True}, "BEGIN READ ONLY"),
        ({"isolation": "repeatable read"}, "BEGIN ISOLATION LEVEL REPEATABLE READ"),
        ({"isolation": "serializable", "read_only": True}, "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"),
    ],
)
def test_one_begin_says_it_all(db: Manager, server: FakeServer, options: dict[str, Any], begin: str) -> None:
    with db.transaction(**options):
        pass
    db.run(lambda conn: None, **options)
    assert server.sql == [begin, "COMMIT"] * 2


# --- BEGIN


def test_a_begin_on_a_lost_connection_is_sent_once_more_on_a_new_one(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    db.warm_up()
    server.vanish()
    transact(db, "insert once")
    assert server.sql == ["BEGIN", "BEGIN", "insert once", "COMMIT"]
    assert server.committed == ["insert once"]
    assert [conn.closes for conn in server.connections] == [1, 0]
    assert [(event.reason, event.uses) for event in observer.of(ConnectionClosed)] == [("lost", 2)]
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["lost"]
    assert [event.reason for event in observer.of(ConnectionOpened)] == ["first", "lost"]


def test_the_numbers_agree_with_the_events_after_a_lost_begin(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    server.demand("begin", LOST)
    transact(db)
    transact(db)
    assert db.stats().opened == len(observer.of(ConnectionOpened)) == 2
    assert db.stats().reused == len(observer.of(ConnectionReused)) == 1


def test_a_begin_that_is_lost_twice_is_an_error(db: Manager, server: FakeServer) -> None:
    server.demand("begin", LOST, LOST)
    with pytest.raises(FakeError):
        transact(db, "never sent")
    assert server.sql == ["BEGIN", "BEGIN"]
    assert [conn.closes for conn in server.connections] == [1, 1]
    assert db.stats().in_use == 0


def test_a_begin_that_is_refused_is_not_repeated(db: Manager, server: FakeServer) -> None:
    server.demand("begin", FakeError("permission denied"))
    with pytest.raises(FakeError, match="permission denied"):
        transact(db, "never sent")
    assert server.sql == ["BEGIN"]
    assert server.connections[0].closes == 0


@pytest.mark.parametrize("error", [ConnectError("no such database"), ConnectError("refused", retryable=True)])
def test_after_a_lost_begin_a_connect_that_fails_is_the_error_and_the_manager_goes_on(
    db: Manager, server: FakeServer, error: ConnectError
) -> None:
    db.warm_up()
    server.vanish()
    server.refuses_with = error
    with pytest.raises(ConnectError, match=error.message.split()[0]):
        transact(db, "never sent")
    assert server.sql == ["BEGIN"]
    assert (db.stats().open, db.stats().in_use) == (0, 0)
    server.refuses_with = None
    transact(db, "insert")
    assert server.committed == ["insert"]


def test_a_connect_that_fails_after_a_lost_begin_is_no_lost_connection(db: Manager, server: FakeServer) -> None:
    db.warm_up()
    server.vanish()
    server.refuses_with = ConnectError("no such database")
    loan = db.transaction()
    with pytest.raises(ConnectError), loan:
        pytest.fail("nothing was to be lent")
    assert loan.failure is ErrorKind.OTHER  # `run` does not begin again: the connect has had its tries


def test_a_lost_begin_is_not_repeated_without_time(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    db.warm_up()
    server.vanish()
    with pytest.raises(DeadlineExceededError), db.transaction(10):
        pytest.fail("nothing was to be lent")
    assert server.counts["open"] == 1
    assert db.stats().in_use == 0


# --- COMMIT


def test_a_connection_lost_during_commit_is_commit_unknown_and_nothing_is_repeated(
    db: Manager, server: FakeServer
) -> None:
    server.demand("commit", LOST)
    with pytest.raises(CommitUnknownError, match="to localhost:5432 was lost while COMMIT was on its way") as caught:
        transact(db, "insert once")
    assert caught.value.__cause__ is LOST
    assert server.sql == ["BEGIN", "insert once", "COMMIT"]
    assert server.connections[0].closes == 1
    assert db.stats().in_use == 0


def test_a_connection_seen_to_be_lost_before_commit_is_known_not_to_have_committed(
    db: Manager, server: FakeServer
) -> None:
    with pytest.raises(FakeError, match="unexpectedly"):
        transact(db, "insert once", server.hang_up)
    assert server.committed == []
    assert server.connections[0].closes == 1


def test_a_commit_after_a_loss_that_the_block_caught_is_known_not_to_have_committed(
    db: Manager, server: FakeServer
) -> None:
    server.demand("execute", LOST)
    with pytest.raises(FakeError, match="is closed"), db.transaction() as conn, contextlib.suppress(FakeError):
        conn.execute("insert")
    assert server.committed == []
    assert conn.closes == 1


def test_a_commit_that_the_server_refuses_is_the_driver_s_error(db: Manager, server: FakeServer) -> None:
    server.demand("commit", FakeError("violates foreign key constraint"))
    with pytest.raises(FakeError, match="foreign key"):
        transact(db, "insert")
    assert server.committed == []
    assert server.connections[0].closes == 0
    transact(db, "insert 2")
    assert server.committed == ["insert 2"]


def test_a_failed_statement_whose_error_was_caught_is_an_error_at_the_end(db: Manager, server: FakeServer) -> None:
    server.demand("execute", FakeError("duplicate key"))
    with pytest.raises(TransactionAbortedError), db.transaction() as conn, contextlib.suppress(FakeError):
        conn.execute("insert")
    assert server.committed == []
    assert server.connections[0].closes == 0
    assert not conn.in_transaction


def test_an_interruption_of_commit_costs_the_connection_its_transaction_only(db: Manager, server: FakeServer) -> None:
    server.demand("commit", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        transact(db, "insert")
    assert server.committed == []
    assert db.stats().in_use == 0


def test_a_session_whose_state_is_unknown_after_commit_is_closed(db: Manager, server: FakeServer) -> None:
    server.demand("state", ZeroDivisionError("a driver's mistake"))
    transact(db, "insert")
    assert server.committed == ["insert"]
    assert server.connections[0].closes == 1


def test_a_commit_by_the_caller_inside_the_block_is_an_error_at_its_end(db: Manager, server: FakeServer) -> None:
    with pytest.raises(TransactionAbortedError, match="ended inside its block"):
        transact(db, "insert 1", "commit", "insert 2")
    assert server.committed == ["insert 1", "insert 2"]
