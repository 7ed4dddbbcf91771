from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConnectError, ConnectionInUseError, ConnectionManager
from lambda_dbconn.events import ConnectFailed, ConnectionClosed, ConnectionOpened, ConnectionReplaced, Event
from lambda_dbconn.testing.fakes import FakeConnection, FakeDriver, RecordingObserver
from tests.unit.conftest import in_thread, local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeClock, FakeServer
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]


def number(db: Manager) -> int:
    with db.connection() as conn:
        return conn.number


# --- one to a thread, max_connections in all


def test_a_second_borrow_by_the_same_thread_is_an_error_and_not_a_deadlock(db: Manager) -> None:
    with db.connection() as conn:
        with pytest.raises(ConnectionInUseError, match="this thread already has a connection to localhost:5432"):
            number(db)
        with pytest.raises(ConnectionInUseError), db.transaction():
            pytest.fail("nothing was to be lent")
        conn.execute("select 1")
    assert number(db) == conn.number


def test_a_second_borrow_is_refused_even_while_others_are_free(make: MakeManager) -> None:
    db = make(max_connections=3)
    with db.connection(), pytest.raises(ConnectionInUseError, match="this thread"):
        number(db)


def test_more_borrows_than_connections_are_an_error_that_says_how_many(db: Manager) -> None:
    with (
        db.connection(),
        pytest.raises(ConnectionInUseError, match=r"no free connection to .*: the limit is 1 \(max_connections\)"),
    ):
        in_thread(lambda: number(db))


def test_as_many_threads_as_connections_each_hold_their_own(make: MakeManager, server: FakeServer) -> None:
    db = make(max_connections=2)
    with db.connection() as mine:

        def outer() -> tuple[int, str]:
            with db.connection() as theirs:
                try:
                    in_thread(lambda: number(db))
                except ConnectionInUseError as error:
                    return theirs.number, error.message
                pytest.fail("a third connection was lent")

        theirs, message = in_thread(outer)
        assert theirs != mine.number
        assert "the limit is 2" in message
        assert (db.stats().open, db.stats().in_use) == (2, 1)
    assert server.most_open == 2


def test_the_connection_used_last_is_lent_first(make: MakeManager) -> None:
    db = make(max_connections=2)
    with db.connection():
        other = in_thread(lambda: number(db))
    assert number(db) == 1
    assert in_thread(lambda: number(db)) == 1
    assert other == 2


def test_many_threads_at_once_never_hold_more_than_allowed(make: MakeManager, server: FakeServer) -> None:
    db = make(max_connections=4)
    start = threading.Barrier(8)
    held: set[int] = set()
    faults: list[object] = []

    def work() -> None:
        start.wait(30)
        for _ in range(200):
            try:
                with db.connection() as conn:
                    if conn.number in held:
                        faults.append(f"{conn.number} lent twice")
                    held.add(conn.number)
                    conn.execute("select 1")
                    held.remove(conn.number)
            except ConnectionInUseError:
                pass
            except Exception as error:
                faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert server.most_open <= 4
    stats = db.stats()
    assert (stats.in_use, stats.opened) == (0, len(server.connections))


def test_a_borrow_may_end_in_another_thread(db: Manager) -> None:
    loan = db.connection()
    conn = loan.__enter__()
    in_thread(partial(loan.__exit__, None, None, None))
    assert db.stats().in_use == 0
    assert number(db) == conn.number


# --- close


def test_close_closes_what_is_idle_and_the_next_borrow_opens_anew(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    number(db)
    clock.advance(7)
    db.close()
    assert server.open_connections == []
    assert observer.of(ConnectionClosed) == [
        ConnectionClosed(endpoint="localhost:5432", reason="closed", age_s=7.0, uses=1)
    ]
    assert number(db) == 2
    assert observer.of(ConnectionReplaced) == []
    assert [event.reason for event in observer.of(ConnectionOpened)] == ["first", "first"]


def test_close_twice_closes_once(db: Manager, server: FakeServer) -> None:
    db.close()
    number(db)
    db.close()
    db.close()
    assert server.connections[0].closes == 1


def test_what_is_lent_is_closed_when_it_comes_back(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    with db.connection() as conn:
        db.close()
        conn.execute("select 1")
        assert conn.closes == 0
    assert conn.closes == 1
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["closed"]
    assert number(db) == 2
    assert number(db) == 2


def test_what_another_thread_holds_is_closed_when_it_comes_back(make: MakeManager, server: FakeServer) -> None:
    db = make(max_connections=2)
    with db.connection() as mine:
        in_thread(lambda: number(db))
        in_thread(db.close)
        assert [conn.closes for conn in server.connections] == [0, 1]
    assert mine.closes == 1


class Closing(RecordingObserver):
    """Closes the manager from within, as a signal handler may."""

    db: Manager
    at: type[Event]

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        if isinstance(event, self.at):
            self.db.close()


def closing(server: FakeServer, at: type[Event]) -> Manager:
    observer = Closing()
    observer.db = ConnectionManager(local(), driver=FakeDriver(server), clock=server.clock, observer=observer)
    observer.at = at
    return observer.db


def test_a_close_during_a_connect_that_fails_costs_the_next_connection_nothing(server: FakeServer) -> None:
    db = closing(server, ConnectFailed)
    server.refuse(error=ConnectError("no such database"))
    with pytest.raises(ConnectError), db.connection():
        pytest.fail("nothing was to be lent")
    assert number(db) == number(db) == 1


def test_a_close_during_a_connect_closes_what_was_opened_at_return(server: FakeServer) -> None:
    db = closing(server, ConnectionOpened)
    with db.connection() as conn:
        assert conn.closes == 0
    assert conn.closes == 1


# --- the numbers


def test_stats_agree_with_what_happened(make: MakeManager, server: FakeServer) -> None:
    db = make(max_connections=2)
    number(db)
    number(db)
    server.hang_up()
    with db.connection():
        stats = db.stats()
    assert (stats.opened, stats.reused, stats.closed) == (2, 1, 1)
    assert dict(stats.replaced) == {"hang_up": 1}
    assert (stats.open, stats.in_use) == (1, 1)
    assert db.stats().in_use == 0
