"""A manager heals itself: no exception loses a slot, and a live owner's connection is never touched."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

import lambda_dbconn
from lambda_dbconn import (
    AsyncConnectionManager,
    ConfigurationError,
    ConnectionInUseError,
    ConnectionManager,
    DeadlineExceededError,
    TransactionAbortedError,
)
from lambda_dbconn.events import ConnectionClosed
from lambda_dbconn.testing.fakes import FakeContext
from tests.support import strikes
from tests.unit.conftest import in_child, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]


class Invocation(FakeContext):
    """A Lambda context with a request id."""

    def __init__(self, clock: FakeClock, request_id: str, remaining_s: float = 60.0) -> None:
        super().__init__(clock, remaining_s)
        self.aws_request_id = request_id


def use(db: Manager, context: Any = None) -> int:
    with db.connection(context) as conn:
        conn.execute("select 1")
        return conn.number


def reasons(observer: RecordingObserver) -> list[str]:
    return [event.reason for event in observer.of(ConnectionClosed)]


# --- what cannot come back


def test_a_block_that_no_longer_exists_has_lost_its_connection(db: Manager, observer: RecordingObserver) -> None:
    db.connection().__enter__().execute("begin")
    assert use(db) == 2
    assert reasons(observer) == ["abandoned"]


def test_an_earlier_invocation_of_the_same_thread_loses_its_connection(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    kept = db.connection(Invocation(clock, "first"))
    kept.__enter__()
    assert use(db, Invocation(clock, "second")) == 2
    assert reasons(observer) == ["abandoned"]
    kept.__exit__(None, None, None)
    assert (server.connections[0].closes, server.connections[1].closes) == (1, 0)
    assert use(db) == 2


def test_a_transaction_whose_connection_was_taken_back_does_not_end_as_if_it_were_committed(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    kept = db.transaction(Invocation(clock, "first"))
    kept.__enter__().execute("insert")
    use(db, Invocation(clock, "second"))
    with pytest.raises(TransactionAbortedError, match="taken back"):
        kept.__exit__(None, None, None)
    assert "COMMIT" not in server.sql


def test_within_one_invocation_a_thread_is_told_at_once_that_it_would_wait_for_itself(
    db: Manager, clock: FakeClock
) -> None:
    context = Invocation(clock, "same")
    with db.connection(context), pytest.raises(ConnectionInUseError, match="this thread already has"):
        use(db, context)
    with db.connection(), pytest.raises(ConnectionInUseError, match="this thread already has"):
        use(db, context)
    assert clock.slept_s == []


def test_a_thread_that_has_ended_has_lost_its_connection(db: Manager, observer: RecordingObserver) -> None:
    kept: list[object] = []

    def enter() -> int:
        kept.append(db.connection())
        return kept[0].__enter__().number  # type: ignore[attr-defined, no-any-return] # a loan

    assert in_thread(enter) == 1
    assert use(db) == 2
    assert reasons(observer) == ["abandoned"]


def test_a_live_threads_connection_is_never_touched_by_another_one(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    with db.connection(Invocation(clock, "first")) as conn:

        def ask() -> str:
            try:
                use(db, Invocation(clock, "second"))
            except ConnectionInUseError as error:
                return str(error)
            return "lent"

        assert "no free connection" in in_thread(ask)
        assert conn.closes == 0
        conn.execute("select 1")
    assert server.counts["open"] == 1


def test_a_connection_that_a_live_thread_may_still_use_is_dropped_and_not_closed(
    db: Manager, observer: RecordingObserver
) -> None:
    connection = db.connection().__enter__()  # its block is gone, and the connection is not
    assert in_thread(lambda: use(db)) == 2
    assert connection.closes == 0
    assert reasons(observer) == ["abandoned"]


def test_a_task_that_has_finished_and_a_loop_that_is_closed_have_lost_their_connection(
    server: FakeServer, make_async: Callable[..., AsyncConnectionManager[FakeConnection]]
) -> None:
    db = make_async()
    kept: list[Any] = []

    async def enter() -> int:
        kept.append(db.connection())
        return (await kept[-1].__aenter__()).number  # type: ignore[no-any-return]

    async def in_a_task_that_finishes() -> tuple[int, int]:
        first = await asyncio.create_task(enter())
        return first, await asyncio.create_task(enter())

    assert asyncio.run(in_a_task_that_finishes()) == (1, 2)
    assert asyncio.run(enter()) == 3
    assert server.most_open == 1


def test_a_block_is_entered_once(db: Manager) -> None:
    loan = db.connection()
    with loan as conn:
        with pytest.raises(ConnectionInUseError, match="entered already"):
            loan.__enter__()
        with pytest.raises(ConnectionInUseError, match="entered already"):
            in_thread(loan.__enter__)
        conn.execute("select 1")
    assert use(db) == 1


# --- waiting


def test_another_thread_waits_until_a_connection_is_free(make: MakeManager) -> None:
    from lambda_dbconn.deadline import SystemClock

    db = make()
    db._shared.sleep = SystemClock.sleep
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with db.connection():
            is_held.set()
            may_end.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(30)
    threading.Timer(0.05, may_end.set).start()
    assert use(db) == 1
    thread.join(30)


def test_whoever_waits_comes_before_a_thread_that_releases_and_asks_again(make: MakeManager) -> None:
    from lambda_dbconn.deadline import SystemClock

    db = make(connect_timeout_s=30)
    db._shared.sleep = SystemClock.sleep
    is_over = threading.Event()
    uses = 0

    def hold_again_and_again() -> None:
        nonlocal uses
        while not is_over.is_set() and uses < 100_000:
            with db.connection():
                uses += 1
                SystemClock.sleep(0.001)

    thread = threading.Thread(target=hold_again_and_again)
    thread.start()
    try:
        for _ in range(5):
            assert use(db) == 1
    finally:
        is_over.set()
        thread.join(30)


def test_waiting_ends_with_the_deadline_and_without_one_with_the_connect_timeout(
    make: MakeManager, clock: FakeClock
) -> None:
    db = make(connect_timeout_s=2.0, reserve_s=0.5)

    def waited_s(context: float | None) -> float:
        before = clock.monotonic()
        with pytest.raises((ConnectionInUseError, DeadlineExceededError)):
            use(db, context)
        return clock.monotonic() - before

    with db.connection():
        assert in_thread(lambda: waited_s(1.5)) == pytest.approx(1.0)
        assert in_thread(lambda: waited_s(None)) == pytest.approx(2.0)
        assert in_thread(lambda: waited_s(60.0)) == pytest.approx(2.0)


# --- invocations


def test_an_acquire_without_a_context_ends_with_the_invocations_deadline(db: Manager, clock: FakeClock) -> None:
    with lambda_dbconn.invocation(Invocation(clock, "r", 3.0)), db.connection() as conn:
        assert conn.scope is not None
        assert conn.scope.left_s() == pytest.approx(2.5, abs=0.01)
    with db.connection() as conn:
        assert conn.scope is not None
        assert conn.scope.left_s() == float("inf")


def test_seconds_that_are_given_inside_an_invocation_cannot_outlast_it(db: Manager, clock: FakeClock) -> None:
    for seconds, expected in ((60.0, 2.5), (1.0, 0.5)):
        with lambda_dbconn.invocation(Invocation(clock, "r", 3.0)), db.connection(seconds) as conn:
            assert conn.scope is not None
            assert conn.scope.left_s() == pytest.approx(expected, abs=0.01)


def test_an_acquire_without_a_context_belongs_to_the_invocation(db: Manager, clock: FakeClock) -> None:
    with lambda_dbconn.invocation(Invocation(clock, "first")):
        kept = db.connection()
        kept.__enter__()
    with lambda_dbconn.invocation(Invocation(clock, "second")):
        assert use(db) == 2


def test_invocations_can_be_nested_and_take_a_context_only(db: Manager, clock: FakeClock) -> None:
    with lambda_dbconn.invocation(Invocation(clock, "outer", 60.0)):
        with lambda_dbconn.invocation(Invocation(clock, "inner", 3.0)):
            pass
        with db.connection() as conn:
            assert conn.scope is not None
            assert conn.scope.left_s() == pytest.approx(59.5, abs=0.01)
    block = lambda_dbconn.invocation(Invocation(clock, "twice"))
    with block, pytest.raises(ConfigurationError, match="entered already"):
        block.__enter__()
    with db.connection() as conn:
        assert conn.scope is not None
        assert conn.scope.left_s() == float("inf")
    with pytest.raises(ConfigurationError, match="the argument context is 'float'"):
        lambda_dbconn.invocation(3.0)  # type: ignore[arg-type] # on purpose


# --- exceptions between any two instructions


def is_the_librarys(file_name: str) -> bool:
    return "/lambda_dbconn/" in file_name and "/testing/" not in file_name


@pytest.mark.skipif(not strikes.IS_POSSIBLE, reason="Python tells of each place from 3.12 on")
@pytest.mark.parametrize("way", ["connection", "transaction", "cold", "error", "ping"])
def test_an_exception_wherever_a_signal_may_come_loses_no_slot_and_lends_no_none(
    db: Manager, server: FakeServer, clock: FakeClock, way: str
) -> None:
    def work() -> None:
        if way == "cold":
            db.close()
        if way == "ping":
            clock.freeze(60)
        lend = db.transaction if way == "transaction" else db.connection
        try:
            with lend(30.0) as conn:
                conn.execute("insert")
                if way == "error":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    def after(place: str) -> None:
        with db.connection() as conn:
            assert conn is not None, place
            assert not conn.in_transaction, place
            conn.execute("select 1")
        assert db.stats().in_use == 0, place

    use(db)
    gc.disable()  # nothing here may depend on the collector of cycles
    try:
        count = strikes.strike_everywhere(work, after, is_the_librarys)
    finally:
        gc.enable()
    assert count > 50
    if way != "cold":  # a connection that was not in a slot yet is closed when nothing refers to it any more
        assert server.most_open == 1


def test_a_child_after_a_fork_has_owners_of_its_own(db: Manager) -> None:
    with db.connection():
        assert in_child(lambda: use(db)) == "2"
        assert in_child(lambda: db.stats().in_use) == "0"
