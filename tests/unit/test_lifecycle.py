"""Forks, for real: what the child did with its copy of a fake is told through a pipe."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.cache import process
from tests.unit.conftest import in_child, in_thread

if TYPE_CHECKING:
    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def touches(connection: FakeConnection) -> tuple[int, int]:
    """Return how often this process has sent something on a connection, and closed it."""
    os.fstat(connection.fileno())  # raises if the descriptor has been closed
    return connection.round_trips, connection.closes


def use(db: Manager) -> int:
    with db.connection() as conn:
        conn.execute("select 1")
    return conn.number


def test_a_child_gets_its_own_connection_and_never_touches_its_parent_s(db: Manager, server: FakeServer) -> None:
    use(db)
    parents = server.connections[0]

    def child() -> object:
        numbers = [use(db), use(db)]
        db.close()
        gc.collect()
        return numbers, touches(parents), parents in process._parents

    assert in_child(child) == "([2, 2], (1, 0), True)"


def test_the_parent_s_connection_stays_usable_after_the_child_has_gone(db: Manager, server: FakeServer) -> None:
    assert use(db) == 1

    def child() -> int:
        number = use(db)
        db.close()
        return number

    assert in_child(child) == "2"
    assert use(db) == 1
    assert server.counts["ping"] == 0
    assert (db.stats().opened, db.stats().reused) == (1, 1)


def test_a_child_of_a_process_without_a_connection_opens_its_own(db: Manager, server: FakeServer) -> None:
    assert in_child(lambda: use(db)) == "1"
    assert server.connections == []
    assert use(db) == 1


def test_a_child_counts_from_zero(db: Manager, server: FakeServer) -> None:
    for _ in range(3):
        use(db)
    server.hang_up()
    use(db)

    def child() -> object:
        use(db)
        use(db)
        stats = db.stats()
        return stats.opened, stats.reused, dict(stats.replaced), stats.closed, stats.open, stats.in_use

    assert in_child(child) == "(1, 1, {}, 0, 1, 0)"
    assert (db.stats().opened, db.stats().reused) == (2, 2)


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_a_child_of_a_lent_connection_leaves_it_alone_when_its_block_ends(
    db: Manager, server: FakeServer, ends: str
) -> None:
    def child() -> object:
        parents = server.connections[0]
        if ends == "with an error":
            loan.__exit__(LookupError, LookupError(), None)
        else:
            loan.__exit__(None, None, None)
        return touches(parents), use(db), server.sql

    loan = db.connection()
    with loan as conn:
        conn.execute("begin")
        assert in_child(child) == "((1, 0), 2, ['begin', 'select 1'])"
        assert conn.in_transaction
        conn.commit()
    assert use(db) == 1


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_a_child_does_not_commit_its_parent_s_transaction_nor_roll_it_back(
    db: Manager, server: FakeServer, ends: str
) -> None:
    def child() -> object:
        if ends == "with an error":
            loan.__exit__(LookupError, LookupError(), None)
        else:
            loan.__exit__(None, None, None)
        return server.sql, touches(server.connections[0])

    loan = db.transaction()
    with loan as conn:
        conn.execute("insert")
        assert in_child(child) == "(['BEGIN', 'insert'], (2, 0))"
    assert server.sql == ["BEGIN", "insert", "COMMIT"]
    assert server.committed == ["insert"]


def test_a_child_of_a_lent_connection_may_borrow_its_own_at_once(db: Manager) -> None:
    with db.connection() as conn:
        assert in_child(lambda: use(db)) == "2"
        assert conn.number == 1


def test_a_child_of_a_process_whose_threads_hold_connections_has_all_of_its_own(
    make: MakeManager, server: FakeServer
) -> None:
    db = make(max_connections=2)

    def second() -> str:
        with db.connection() as conn:
            conn.execute("select 2")
            return in_child(lambda: (use(db), [touches(connection) for connection in server.connections[:2]]))

    with db.connection() as first:
        first.execute("select 1")
        warns = sys.version_info >= (3, 12)  # of forks in processes with threads
        if warns:
            with pytest.warns(DeprecationWarning, match="multi-threaded"):
                answer = in_thread(second)
        else:
            answer = in_thread(second)
    assert answer == "(3, [(1, 0), (1, 0)])"


def test_a_child_of_a_child_has_its_own_too(db: Manager) -> None:
    use(db)

    def child() -> object:
        return use(db), in_child(lambda: use(db)), use(db)

    assert in_child(child) == "(2, '3', 2)"


def test_every_manager_and_reader_is_forgotten_by_the_child(make: MakeManager) -> None:
    one, two = make(reader_host="127.0.0.1"), make(name="shop")
    managers = [one, one.reader, two]
    assert [use(db) for db in managers] == [1, 2, 3]
    assert in_child(lambda: [use(db) for db in managers]) == "[4, 5, 6]"


def test_events_of_a_child_are_its_own(db: Manager, observer: RecordingObserver) -> None:
    use(db)
    before = len(observer.events)
    assert (
        in_child(lambda: (use(db), [vars(event)["reason"] for event in observer.events[before:]])) == "(2, ['first'])"
    )
    assert len(observer.events) == before


def test_watching_a_manager_does_not_keep_it_alive(make: MakeManager) -> None:
    db = make()
    gone = weakref.ref(db._cache)
    assert db._cache in process._holders
    del db
    gc.collect()
    assert gone() is None
