"""A statement that the invocation has no time for: what the caller gets, and what the server does."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest

from lambda_dbconn import CommitUnknownError, DeadlineExceededError
from lambda_dbconn.cache import connector
from lambda_dbconn.events import ConnectionClosed
from tests.support.clients import wait_until
from tests.support.database import LIMIT_S, MYSQL_TLS, database_of, deed, do, fetch, touch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.database import Database

SLEEP_S = 60
"""How long a statement takes that is too long: none of these tests waits for its end."""

pytestmark = pytest.mark.usefixtures("time_to_tell")

TIME_S = 1.0
RESERVE_S = 0.5
NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i FROM n"


@pytest.fixture(params=["postgres-tls", "postgres-plain", "mariadb-tls", "mariadb-plain", MYSQL_TLS])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each server, and each way: it is not the same socket that waits."""
    yield from database_of(request)


def sleep(database: Database) -> str:
    return f"SELECT pg_sleep({SLEEP_S})" if database.is_postgresql else f"SELECT SLEEP({SLEEP_S})"


def stubborn(database: Database) -> str:
    """Return a statement that outlives its client; MySQL's SLEEP looks for it every few seconds."""
    return sleep(database) if database.is_postgresql else "SELECT BENCHMARK(100000000, SHA2('x', 256))"


def sleepers(database: Database) -> int:
    """Count the statements of this file that the server is still running."""
    where = (
        "pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"
        if database.is_postgresql
        else "information_schema.processlist WHERE info LIKE %s AND id <> CONNECTION_ID()"
    )
    return int(database.backend.query(f"SELECT count(*) FROM {where}", f"%sleep({SLEEP_S})%".lower())[0][0])


@contextmanager
def cut_short(database: Database) -> Iterator[None]:
    """Expect the block to be cut short: in time, and the next borrow to get another connection."""
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="time is over"):
        yield
    took_s = time.monotonic() - started
    assert took_s >= TIME_S - RESERVE_S
    assert took_s < LIMIT_S  # against hangs: what it takes beyond the limit is measured elsewhere
    assert [event.reason for event in database.observer.of(ConnectionClosed)] == ["deadline"]


def read_streamed(database: Database, connection: Any) -> None:
    """Read rows one by one as they come, of which one does not."""
    if database.is_postgresql:
        pause = f"CASE i WHEN 3 THEN {SLEEP_S} ELSE 0 END"
        for _ in connection.cursor().stream(
            f"SELECT pg_sleep({pause}) /* sleep({SLEEP_S}) */ FROM generate_series(1, 5) i"
        ):
            pass
    else:
        with closing(connection.cursor(pymysql.cursors.SSCursor)) as cursor:
            cursor.execute(
                f"SELECT REPEAT('x', 20000), SLEEP(IF(i = 3, {SLEEP_S}, 0)) /* sleep({SLEEP_S}) */ FROM ({NUMBERS}) n"
            )
            cursor.fetchall()


def copy_out(database: Database, connection: Any) -> None:
    with closing(connection.cursor()) as cursor, cursor.copy(f"COPY (SELECT pg_sleep({SLEEP_S})) TO STDOUT") as copy:
        copy.read()


def read_server_side(database: Database, connection: Any) -> None:
    with connection.transaction(), connection.cursor("named") as cursor:
        cursor.execute(sleep(database))
        cursor.fetchall()


def read_in_a_pipeline(database: Database, connection: Any) -> None:
    with connection.pipeline():
        connection.execute(sleep(database)).fetchall()


def read_plainly(database: Database, connection: Any) -> None:
    fetch(connection, sleep(database))


@pytest.mark.parametrize("read", [read_plainly, read_streamed])
def test_a_statement_that_takes_too_long_is_cut_short_and_stopped(
    database: Database, read: Callable[[Database, Any], None]
) -> None:
    db = database.manager(reserve_s=RESERVE_S)
    with cut_short(database), db.connection(TIME_S) as connection:
        read(database, connection)
    wait_until(lambda: sleepers(database) == 0)
    with db.connection(LIMIT_S) as connection:
        assert fetch(connection, "SELECT 1")[0][0] == 1


@pytest.mark.parametrize("read", [copy_out, read_server_side, read_in_a_pipeline])
def test_every_way_of_psycopgs_to_wait_is_cut_short(
    postgresql_database: Database, read: Callable[[Database, Any], None]
) -> None:
    database = postgresql_database
    db = database.manager(reserve_s=RESERVE_S)
    with cut_short(database), db.connection(TIME_S) as connection:
        read(database, connection)
    wait_until(lambda: sleepers(database) == 0)


def test_locks_are_free_as_soon_as_the_caller_is_told(database: Database) -> None:
    (name,) = database.make_things(1)
    db, other = database.manager(reserve_s=RESERVE_S), database.manager()
    with cut_short(database), db.transaction(TIME_S) as connection:
        touch(connection, name)
        fetch(connection, stubborn(database))
    with other.transaction(LIMIT_S) as connection:  # which is much less than the statement would have taken
        touch(connection, name)
    assert database.touches(name) == 1


def test_a_caller_who_catches_it_answers_and_loses_nothing_but_the_connection(database: Database) -> None:
    db = database.manager(reserve_s=RESERVE_S)
    with db.connection(TIME_S) as connection:
        with pytest.raises(DeadlineExceededError):
            fetch(connection, sleep(database))
        with pytest.raises((psycopg.Error, pymysql.Error)):
            fetch(connection, "SELECT 1")
    assert db.stats().open == 0
    with db.connection(LIMIT_S) as connection:
        assert fetch(connection, "SELECT 1")[0][0] == 1


def test_what_is_done_in_time_is_not_touched_by_the_limit(database: Database) -> None:
    name = deed()
    db = database.manager(reserve_s=RESERVE_S)
    with db.connection(LIMIT_S) as connection:
        do(connection, name)
    with db.connection() as connection:  # the limit of the loan before has gone with it
        assert "Limited" not in type(connection).__name__
        fetch(connection, sleep(database).replace(str(SLEEP_S), "0.7"))
    assert database.count(name) == 1
    assert db.stats().opened == 1


@pytest.mark.parametrize("context", [None, LIMIT_S])
def test_ctrl_c_stops_the_statement_with_a_deadline_and_without(
    postgresql_database: Database, context: float | None
) -> None:
    database = postgresql_database
    db = database.manager()

    def press() -> None:
        wait_until(lambda: sleepers(database) == 1)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    with pytest.raises(KeyboardInterrupt), db.connection(context) as connection:
        fetch(connection, sleep(database))
    finger.join()
    wait_until(lambda: sleepers(database) == 0)
    with db.connection(LIMIT_S) as connection:
        assert fetch(connection, "SELECT 1")[0][0] == 1
    assert db.stats().open == 1


def test_waiting_for_a_notification_ends_when_the_caller_says(postgresql_database: Database) -> None:
    with postgresql_database.manager().connection(LIMIT_S) as connection:
        connection.execute("LISTEN nobody")
        started = time.monotonic()
        assert list(connection.notifies(timeout=0.1)) == []
        assert time.monotonic() - started < LIMIT_S / 2
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_large_result_comes_whole_under_a_limit(database: Database) -> None:
    db = database.manager(reserve_s=RESERVE_S)
    with db.connection(60) as connection:
        assert len(fetch(connection, "SELECT repeat('x', 10000000)")[0][0]) == 10_000_000
        assert fetch(connection, "SELECT length(%s)", "y" * 500_000) == fetch(connection, "SELECT 500000")


def test_an_answer_that_never_stops_coming_is_cut_short_all_the_same(database: Database) -> None:
    """A time limit for each read would begin anew with every row."""
    sleep_ = "pg_sleep(0.05)" if database.is_postgresql else "SLEEP(0.05)"
    numbers = "generate_series(1, 1200)" if database.is_postgresql else f"({NUMBERS}) n"
    db = database.manager(reserve_s=RESERVE_S)
    with cut_short(database), db.connection(TIME_S) as connection:
        fetch(connection, f"SELECT repeat('x', 20000), {sleep_} FROM {numbers}")


def test_a_commit_without_an_answer_is_unknown_and_is_not_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "INTERRUPT_LIMIT_S", 0.1)  # it cannot be told, and that would be waited for
    name = deed()
    db = database.manager(reserve_s=RESERVE_S)
    with pytest.raises(CommitUnknownError) as caught, db.transaction(TIME_S) as connection:  # noqa: PT012
        do(connection, name)
        database.relay.freeze()
    database.relay.heal()
    assert isinstance(caught.value.__cause__, DeadlineExceededError)
    assert db.stats().open == 0


def test_a_lock_that_another_session_has_is_waited_for_within_the_limit(database: Database) -> None:
    (name,) = database.make_things(1)
    db, other = database.manager(reserve_s=RESERVE_S), database.manager()
    with other.transaction() as holder:
        touch(holder, name)
        with cut_short(database), db.connection(TIME_S) as connection:
            touch(connection, name)
    assert database.touches(name) == 1
