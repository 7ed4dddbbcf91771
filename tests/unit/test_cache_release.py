from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import TransactionLeftOpenError
from lambda_dbconn.drivers import ErrorKind, SessionState
from lambda_dbconn.events import ConnectionClosed, ConnectionReplaced, TransactionRolledBack
from lambda_dbconn.testing.fakes import FakeDriver, FakeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]

WHERE = "localhost:5432"


def borrow(db: Manager, *steps: str | Callable[[], None], error: BaseException | None = None) -> None:
    """Do these steps with a connection: statements, or calls; then raise the error."""
    with db.connection() as conn:
        for step in steps:
            if callable(step):
                step()
            else:
                conn.execute(step)
        if error is not None:
            raise error


def test_a_transaction_left_open_is_rolled_back_reported_and_not_committed(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    with pytest.raises(TransactionLeftOpenError, match="on localhost:5432 was left open; it was rolled back"):
        borrow(db, "begin", "insert")
    assert server.sql == ["begin", "insert", "ROLLBACK"]
    assert server.committed == []
    assert observer.of(TransactionRolledBack) == [TransactionRolledBack(endpoint=WHERE, is_left_open=True)]
    assert db.stats().rolled_back == 1
    with db.connection() as again:
        assert again.number == 1
        assert not again.in_transaction


def test_an_exception_leaves_the_block_untouched_and_the_transaction_is_rolled_back(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    mine = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        borrow(db, "begin", error=mine)
    assert caught.value is mine
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert observer.of(TransactionRolledBack) == [TransactionRolledBack(endpoint=WHERE, is_left_open=False)]
    assert server.sql == ["begin", "ROLLBACK"]
    assert server.connections[0].closes == 0


def test_an_error_of_the_callers_own_does_not_cost_a_clean_connection(db: Manager, server: FakeServer) -> None:
    with pytest.raises(ZeroDivisionError), db.connection() as first:
        1 / 0  # noqa: B018 - raises
    with db.connection() as second:
        assert second is first
    assert server.sql == []


def test_even_an_exit_of_the_interpreter_gives_the_connection_back(db: Manager, server: FakeServer) -> None:
    with pytest.raises(SystemExit):
        borrow(db, "begin", error=SystemExit(1))
    assert db.stats().in_use == 0
    assert not server.connections[0].in_transaction


def test_a_transaction_that_the_caller_ends_is_none_of_our_affair(db: Manager, server: FakeServer) -> None:
    with db.connection() as conn:
        conn.execute("begin")
        conn.execute("insert")
        conn.commit()
    assert server.committed == ["insert"]
    assert db.stats().rolled_back == 0


def test_a_failed_transaction_is_rolled_back_too(db: Manager, server: FakeServer) -> None:
    server.demand("execute", FakeError("duplicate key"))
    with pytest.raises(FakeError, match="duplicate key"):
        borrow(db, "begin", "insert")
    with db.connection() as again:
        assert again.number == 1
        again.execute("select 1")


@pytest.mark.parametrize(
    "error",
    [FakeError("lost", ErrorKind.LOST), FakeError("refused"), ZeroDivisionError()],
    ids=["lost", "refused", "bug"],
)
def test_a_session_that_cannot_be_rolled_back_is_closed(
    db: Manager, server: FakeServer, observer: RecordingObserver, error: Exception
) -> None:
    server.demand("rollback", error)
    with pytest.raises(TransactionLeftOpenError), db.connection() as conn:
        conn.execute("begin")
    assert conn.closes == 1
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["unclean"]


def test_a_rollback_at_return_takes_five_seconds_at_most(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    before = clock.monotonic()
    with pytest.raises(TransactionLeftOpenError):
        borrow(db, "begin", server.vanish)
    assert clock.monotonic() - before == 5.0
    assert server.connections[0].closes == 1


def test_a_session_that_cannot_say_its_state_is_closed(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    server.demand("state", ZeroDivisionError("a driver's mistake"))
    with db.connection() as conn:
        conn.execute("select 1")
    assert conn.closes == 1
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["unclean"]


def test_a_connection_that_the_caller_closed_is_replaced(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    with db.connection() as first:
        first.close()
    with db.connection() as second:
        second.execute("select 1")
    assert first.closes == 1
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["unclean"]


def test_a_connection_lost_in_use_is_closed_at_return_and_replaced_at_the_next_borrow(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    with pytest.raises(FakeError, match="unexpectedly"):
        borrow(db, server.hang_up, "insert once")
    assert (server.connections[0].closes, db.stats().open) == (1, 0)
    with db.connection():
        pass
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["lost"]
    assert server.sql.count("insert once") == 1


def test_an_error_that_stems_from_a_lost_connection_means_the_same(db: Manager, server: FakeServer) -> None:
    mine = LookupError("not found")
    mine.__cause__ = FakeError("gone", ErrorKind.LOST)
    with pytest.raises(LookupError):
        borrow(db, error=mine)
    assert server.connections[0].closes == 1


def test_a_circle_of_causes_holds_nobody(db: Manager) -> None:
    one, two = LookupError("one"), LookupError("two")
    one.__cause__, two.__cause__ = two, one
    with pytest.raises(LookupError) as caught, db.connection() as conn:
        raise one
    caught.value.__cause__ = None  # or printing it would go round, too
    assert conn.closes == 0


def test_a_server_that_was_demoted_costs_its_connection(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    server.demand("execute", FakeError("cannot execute INSERT in a read-only transaction", ErrorKind.READ_ONLY))
    with pytest.raises(FakeError), db.connection() as conn:
        conn.execute("insert")
    assert conn.closes == 1
    with db.connection():
        pass
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["read_only"]


def test_a_reader_that_refuses_a_write_was_not_demoted(make: MakeManager, server: FakeServer) -> None:
    db = make(reader_host="127.0.0.1")
    server.demand("execute", FakeError("cannot execute INSERT in a read-only transaction", ErrorKind.READ_ONLY))
    with pytest.raises(FakeError), db.reader.connection() as conn:
        conn.execute("insert")
    assert conn.closes == 0


def test_a_write_in_a_read_only_transaction_says_nothing_about_the_server(db: Manager, server: FakeServer) -> None:
    server.demand("execute", FakeError("cannot execute INSERT in a read-only transaction", ErrorKind.READ_ONLY))
    with pytest.raises(FakeError), db.transaction(read_only=True) as conn:
        conn.execute("insert")
    assert conn.closes == 0


def test_rest_is_counted_from_the_return_and_not_from_the_borrow(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    with db.connection():
        clock.advance(60)
    with db.connection():
        pass
    assert server.counts["ping"] == 0


def test_a_long_use_after_a_freeze_does_not_extend_the_lifetime(make: MakeManager, clock: FakeClock) -> None:
    db = make(max_lifetime_s=100, ping_idle_s=1000)
    with db.connection() as first:
        clock.freeze(99)
    clock.advance(1)
    with db.connection() as second:
        assert second is not first


def test_an_error_that_cannot_be_judged_is_the_callers_own_and_costs_the_connection(
    db: Manager, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(_driver: object, _connection: object, _error: object) -> ErrorKind:
        raise OSError("too many open files")  # for an import

    with monkeypatch.context() as patch:
        patch.setattr(FakeDriver, "classify", no_descriptor)
        with pytest.raises(ZeroDivisionError):
            borrow(db, error=ZeroDivisionError())
    assert db.stats().in_use == 0
    with db.connection() as again:
        assert again.number == 2


def test_a_slot_comes_back_however_its_return_is_interrupted(db: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> SessionState:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FakeDriver, "state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            borrow(db)
    assert db.stats().in_use == 0
    with db.connection() as again:
        assert again.number == 2
