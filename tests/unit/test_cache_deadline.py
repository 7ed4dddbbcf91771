"""The end of the invocation's time while a connection is lent: who is told, and what becomes of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import CommitUnknownError, ConnectionManager, Credentials, CredentialsError, DeadlineExceededError
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.events import ConnectionClosed, ConnectionReplaced
from lambda_dbconn.testing.fakes import FakeContext, FakeDriver, FakeError
from tests.unit.conftest import INSTANCE, PROXY, local

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.drivers import SessionState
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]


def cut_short(db: Manager, server: FakeServer, remaining_s: float = 3.0) -> FakeConnection:
    """Begin a statement that takes too long; return the connection that it was sent on."""
    with db.connection(FakeContext(server.clock, remaining_s)) as connection:
        server.round_trip_s = 60.0
        with pytest.raises(DeadlineExceededError, match="has not answered"):
            connection.execute("select 1")
    server.round_trip_s = 0.0
    return connection


def test_a_statement_is_cut_short_with_the_reserve_left(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    started = clock.monotonic()
    connection = cut_short(db, server, remaining_s=3.0)
    assert clock.monotonic() - started == pytest.approx(3.0 - db.settings.reserve_s, abs=2e-3)
    assert connection.is_interrupted
    assert connection.closes == 1


def test_a_connection_that_was_cut_is_replaced_for_that_reason(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    cut_short(db, server)
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["deadline"]
    with db.connection() as connection:
        assert connection.number == 2
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["deadline"]


def test_a_connection_that_has_pinned_and_is_cut_is_replaced_for_the_cut(
    make: MakeManager, server: FakeServer, observer: RecordingObserver
) -> None:
    db = make(on_pin="warn")
    with db.connection(FakeContext(server.clock, 3.0)) as connection:
        connection.execute("SET work_mem = '1MB'")
        server.round_trip_s = 60.0
        with pytest.raises(DeadlineExceededError):
            connection.execute("select 1")
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["deadline"]


@pytest.mark.parametrize(
    ("changes", "is_told"),
    [
        ({"host": INSTANCE}, True),
        ({"host": PROXY}, False),
        ({"host": "db.example.com", "signing_host": PROXY}, False),
        ({"host": "db.example.com"}, True),
    ],
)
def test_the_server_is_told_unless_a_proxy_is_in_between(
    server: FakeServer, clock: FakeClock, changes: dict[str, str], *, is_told: bool
) -> None:
    settings = local(sslmode="verify-full", sslrootcert=__file__, auth="iam", region="us-east-1", **changes)
    db = ConnectionManager(settings, driver=FakeDriver(server), clock=clock, credentials=StandIn())
    assert cut_short(db, server).is_interrupted is is_told
    assert server.counts["interrupt"] == is_told


class StandIn:
    """Stands for a provider of IAM tokens; may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def fetch(self, *_: object) -> Credentials:
        if self.error is not None:
            raise self.error
        return Credentials(user="app", password=None)

    def refused(self, _credentials: Credentials) -> bool:
        return False


@pytest.mark.parametrize("error", [FakeError("no such command"), OSError(), CredentialsError("no keys")])
def test_a_server_that_cannot_be_told_changes_nothing_for_the_caller(
    server: FakeServer, clock: FakeClock, error: Exception
) -> None:
    provider = StandIn()
    db = ConnectionManager(local(), driver=FakeDriver(server), clock=clock, credentials=provider)
    with db.connection():
        pass
    if isinstance(error, CredentialsError):
        provider.error = error
    else:
        server.demand("interrupt", error)
    assert not cut_short(db, server).is_interrupted


def test_a_tenth_of_a_second_is_all_that_telling_may_take(db: Manager, server: FakeServer) -> None:
    cut_short(db, server)
    assert server.interrupt_limits_s == [0.1]


def test_the_limit_goes_with_the_loan(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    for context in (3.0, FakeContext(clock, 3.0)):
        with db.connection(context) as connection:
            assert ends_in_s(connection) <= 3.0
        assert ends_in_s(connection) == float("-inf")  # released
    clock.advance(10.0)
    with db.connection() as connection:
        assert ends_in_s(connection) == float("inf")
        connection.execute("select 1")
    with db.transaction() as connection:
        assert ends_in_s(connection) == float("inf")


def ends_in_s(connection: FakeConnection) -> float:
    assert connection.scope is not None
    return connection.scope.left_s()


@pytest.mark.parametrize(
    "what", ["lambda_dbconn.cache.slot.CancelScope", "lambda_dbconn.testing.fakes.FakeDriver.bind_scope"]
)
@pytest.mark.parametrize("is_second", [False, True])
def test_whoever_is_interrupted_while_a_connection_gets_its_limit_leaves_none_without(
    db: Manager, server: FakeServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, what: str, *, is_second: bool
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    if is_second:
        cut_short(db, server)
    with monkeypatch.context() as patch:
        patch.setattr(what, interrupted)
        with pytest.raises(KeyboardInterrupt), db.connection():
            pass
    assert db.stats().in_use == 0
    with db.connection(FakeContext(clock, 3.0)) as connection:
        assert ends_in_s(connection) <= 3.0
    with db.connection() as again:
        assert again is connection


@pytest.mark.parametrize("context", [3.0, 3])
def test_a_warm_borrow_is_limited_by_a_number_of_seconds_too(db: Manager, context: float) -> None:
    for _ in range(2):
        with db.connection(context) as connection:
            assert ends_in_s(connection) == pytest.approx(context - db.settings.reserve_s)


def test_a_warm_borrow_leaves_the_reserve_of_the_deadline_that_it_is_given(db: Manager, clock: FakeClock) -> None:
    for _ in range(2):
        with db.connection(Deadline(3.0, reserve_s=0.25, clock=clock)) as connection:
            assert ends_in_s(connection) == pytest.approx(2.75)


def test_a_warm_borrow_and_a_warm_transaction_leave_the_reserve_of_their_context(db: Manager, clock: FakeClock) -> None:
    for lend in (db.connection, db.connection, db.transaction):
        with lend(FakeContext(clock, 3.0)) as connection:
            assert ends_in_s(connection) == pytest.approx(3.0 - db.settings.reserve_s)


def test_what_a_context_raises_is_raised_and_the_connection_is_lent_again(db: Manager) -> None:
    class Mistaken:
        def get_remaining_time_in_millis(self) -> int:
            raise AttributeError("its own")

    with db.connection() as connection:
        pass
    with (
        pytest.raises(AttributeError, match="its own"),
        db.connection(Mistaken()),
    ):
        pass
    assert db.stats().in_use == 0
    with db.connection() as again:
        assert again is connection


def test_without_a_context_a_statement_takes_its_time(db: Manager, server: FakeServer) -> None:
    with db.connection() as connection:
        server.round_trip_s = 14.0
        connection.execute("select 1")
    assert db.stats().opened == 1


def test_a_connection_that_takes_the_place_of_one_lost_at_begin_has_the_limit_too(
    db: Manager, server: FakeServer
) -> None:
    with db.connection():
        pass
    server.vanish()
    with db.transaction(20.0) as connection:
        assert connection.number == 2
        assert ends_in_s(connection) < 5.0  # the one that was lost has cost fifteen seconds


def test_what_was_cut_short_is_not_run_again(db: Manager, server: FakeServer) -> None:
    def insert(connection: FakeConnection) -> None:
        server.round_trip_s = 60.0
        try:
            connection.execute("insert")
        finally:
            server.round_trip_s = 0.0

    with pytest.raises(DeadlineExceededError):
        db.run(insert, 3.0)
    assert server.sql.count("insert") == 1
    assert server.committed == []


def test_a_commit_that_was_cut_short_is_unknown(db: Manager, server: FakeServer) -> None:
    with pytest.raises(CommitUnknownError) as caught, db.transaction(3.0) as connection:  # noqa: PT012 - it fails at its end
        connection.execute("insert")
        server.round_trip_s = 60.0
    assert isinstance(caught.value.__cause__, DeadlineExceededError)
    assert server.sql.count("COMMIT") == 1


def test_cleaning_takes_what_is_left_and_a_moment_at_least(
    make: MakeManager, server: FakeServer, clock: FakeClock
) -> None:
    db = make(reserve_s=0.5)
    for remaining_s, takes_s in ((3.0, 2.4), (0.6, 0.05)):
        with pytest.raises(LookupError), db.connection(remaining_s) as connection:  # noqa: PT012 - likewise
            connection.execute("begin")
            clock.advance(0.1)
            server.round_trip_s = 60.0
            started = clock.monotonic()
            raise LookupError
        assert clock.monotonic() - started == pytest.approx(takes_s)
        server.round_trip_s = 0.0
    assert server.open_connections == []


def test_each_look_at_the_session_at_return_may_take_what_is_left(
    make: MakeManager, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits_s = []
    state = FakeDriver.state

    def noted(driver: FakeDriver, connection: FakeConnection, *, within_s: Callable[[], float]) -> SessionState:
        limits_s.append(within_s())
        return state(driver, connection, within_s=within_s)

    monkeypatch.setattr(FakeDriver, "state", noted)
    db = make(reserve_s=0.5)

    def fail_in_a_transaction() -> None:
        with db.connection(FakeContext(clock, 3.0)) as connection:
            connection.execute("begin")
            clock.advance(1.0)
            raise LookupError

    with pytest.raises(LookupError):
        fail_in_a_transaction()
    assert limits_s == pytest.approx([1.5, 1.5], abs=2e-3)


def test_whoever_was_cut_short_does_not_try_again_though_the_wall_clock_is_put_back(
    db: Manager, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the drivers have it: a connection that is closed is lost, whatever the error.
    monkeypatch.setattr(FakeDriver, "classify", lambda *_: ErrorKind.LOST)

    class PutBack(FakeContext):
        def get_remaining_time_in_millis(self) -> int:
            return 3000

    tries = []

    def work(connection: FakeConnection) -> None:
        tries.append(connection)
        server.round_trip_s = 60.0
        try:
            connection.execute("insert")
        finally:
            server.round_trip_s = 0.0

    with pytest.raises(DeadlineExceededError, match="has not answered"):
        db.run(work, PutBack(server.clock, 3.0))
    assert len(tries) == 1
