"""What one loan leaves in the session does not reach the next: reset at release, answer read at the next acquire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConnectionManager, StaticProvider
from lambda_dbconn.events import ConnectionClosed, ResetDelayed
from lambda_dbconn.testing.fakes import FakeContext, FakeDriver, FakeError
from tests.unit.conftest import PROXY, local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]


def use(db: Manager, *statements: str) -> int:
    with db.connection() as conn:
        for statement in statements:
            conn.execute(statement)
        return conn.number


def resets(server: FakeServer) -> tuple[int, int]:
    return server.counts["send_reset"], server.counts["finish_reset"]


def test_each_loan_that_sent_something_ends_with_a_reset_whose_answer_the_next_one_reads(
    db: Manager, server: FakeServer
) -> None:
    assert use(db, "select 1") == use(db, "select 1") == 1
    assert resets(server) == (2, 1)
    assert server.connections[0].round_trips == 2


def test_a_loan_that_sent_nothing_is_not_reset(db: Manager, server: FakeServer) -> None:
    use(db)
    use(db)
    assert resets(server) == (0, 0)


def test_with_wait_the_answer_is_read_at_release(make: MakeManager, server: FakeServer) -> None:
    use(make(reset="wait"), "select 1")
    assert resets(server) == (1, 1)


def test_with_never_nothing_is_watched_or_reset(make: MakeManager, server: FakeServer) -> None:
    use(make(reset="never"), "set x.y = 1")
    assert resets(server) == (0, 0)
    assert server.connections[0].see is None


@pytest.mark.parametrize("operation", ["send_reset", "finish_reset"])
@pytest.mark.parametrize("reset", ["always", "wait"])
def test_a_session_that_cannot_be_reset_is_closed(
    make: MakeManager, server: FakeServer, observer: RecordingObserver, operation: str, reset: str
) -> None:
    db = make(reset=reset)
    server.demand(operation, FakeError("no"))
    assert use(db, "set x.y = 1") != use(db, "select 1")
    is_late = (reset, operation) == ("always", "finish_reset")
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["reset_failed" if is_late else "unclean"]


def test_an_answer_that_does_not_come_costs_the_connection_within_the_limit_of_a_ping(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    with db.connection() as conn:
        conn.execute("select 1")
        conn.vanish()
    before = clock.monotonic()
    assert use(db, "select 1") == 2
    assert clock.monotonic() - before <= 1.0
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["reset_failed"]


def test_after_an_answer_that_was_not_there_in_time_answers_are_awaited_at_release(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    with db.connection() as conn:
        conn.execute("select 1")
        conn.is_silent = True  # the environment is frozen before the reset gets out
    clock.freeze(60)
    conn.is_silent = False
    assert use(db, "select 1") == 2
    assert observer.of(ResetDelayed) == [ResetDelayed(endpoint="localhost:5432", idle_s=60.0)]
    assert resets(server) == (2, 2)
    assert use(db, "select 1") == 2
    assert resets(server) == (3, 3)
    assert len(observer.of(ResetDelayed)) == 1


def test_the_answer_to_a_reset_replaces_no_ping_after_a_long_rest(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    use(db, "select 1")
    clock.freeze(60)
    use(db, "select 1")
    assert server.counts["ping"] == 1


def test_a_transaction_left_open_by_an_error_is_rolled_back_and_then_reset(db: Manager, server: FakeServer) -> None:
    with pytest.raises(ZeroDivisionError), db.connection() as conn:  # noqa: PT012 - in the middle of the loan
        conn.execute("begin")
        raise ZeroDivisionError
    assert server.sql == ["begin", "ROLLBACK"]
    assert resets(server) == (1, 0)


def test_attributes_of_the_connection_are_as_configured_at_the_next_acquire(db: Manager) -> None:
    with db.connection() as conn:
        conn.row_factory = dict
    conn.row_factory = list  # even after release
    with db.connection() as again:
        assert again is conn
        assert again.row_factory is None


@pytest.mark.parametrize("reset", ["always", "wait", "never"])
@pytest.mark.parametrize("on_pin", [None, "ignore"])
def test_behind_rds_proxy_no_reset_is_sent_and_a_pinned_connection_is_closed_unless_reset_is_never(
    server: FakeServer, clock: FakeClock, observer: RecordingObserver, reset: str, on_pin: str | None
) -> None:
    settings = local(signing_host=PROXY, sslmode="verify-full", auth="iam", reset=reset, on_pin=on_pin)
    db: Manager = ConnectionManager(
        settings, credentials=StaticProvider(), driver=FakeDriver(server), clock=clock, observer=observer
    )
    assert (use(db, "set x.y = 1") != use(db, "select 1")) is (reset != "never")
    assert resets(server) == (0, 0)


def test_an_interrupt_in_the_middle_of_cleaning_costs_the_connection(make: MakeManager, server: FakeServer) -> None:
    db = make(reset="wait")
    server.demand("finish_reset", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        use(db, "set x.y = 1")
    assert (server.connections[0].closes, db.stats().in_use, db.stats().open) == (1, 0, 0)


def test_an_interrupt_in_the_middle_of_a_ping_costs_the_connection(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    use(db, "select 1")
    clock.advance(60)
    server.demand("ping", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        use(db, "select 1")
    assert (server.connections[0].closes, db.stats().in_use, db.stats().open) == (1, 0, 0)


def test_a_connection_that_is_kept_beyond_its_block_sends_nothing_more(db: Manager, server: FakeServer) -> None:
    with db.connection() as kept:
        kept.execute("select 1")
    with pytest.raises(FakeError, match="use it inside the block"):
        kept.execute("begin")
    assert server.sql == ["select 1"]
    assert use(db, "select 2") == 1


def test_after_the_deadline_no_statement_and_no_commit_is_sent(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    with pytest.raises(TimeoutError, match="it was not sent"), db.transaction(FakeContext(clock, 3.0)) as conn:  # noqa: PT012
        conn.execute("insert 1")
        clock.advance(2.7)
        conn.execute("insert 2")
    with pytest.raises(TimeoutError, match="it was not sent"), db.transaction(FakeContext(clock, 3.0)) as conn:  # noqa: PT012
        conn.execute("insert 3")
        clock.advance(2.7)
    assert server.sql == ["BEGIN", "insert 1", "ROLLBACK", "BEGIN", "insert 3", "ROLLBACK"]
    assert server.committed == []
    assert use(db, "select 1") == 1
