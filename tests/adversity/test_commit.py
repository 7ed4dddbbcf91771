"""A transaction that breaks: what is repeated, what never is, and what the server has of it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest

from lambda_dbconn import CommitUnknownError, LambdaDbConnError
from lambda_dbconn.events import ConnectionClosed
from tests.support.clients import connect, wait_until
from tests.support.database import deed, do, fetch, in_background, touch, wait_for_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing._relay_links import Ending
    from tests.support.database import Database

DRIVER_ERRORS = (psycopg.Error, pymysql.Error)

BOTH_ENDINGS = pytest.mark.parametrize("ending", ["fin", "rst"])
ONLY_POSTGRESQL = pytest.mark.parametrize("database", ["postgres-plain", "postgres-tls"], indirect=True)
ONLY_MARIADB = pytest.mark.parametrize("database", ["mariadb-plain", "mariadb-tls"], indirect=True)


def assert_next_borrow_is_good(database: Database, db: Any, reason: str) -> None:
    database.forget()
    with db.connection() as connection:
        assert database.session_id(connection)
    assert database.relay.connects == 1
    assert database.reasons() == [reason]


# The connection is lost while COMMIT is on its way


@BOTH_ENDINGS
def test_a_commit_that_never_reached_the_server_is_unknown_and_not_repeated(ending: Ending, database: Database) -> None:
    db, name, calls = database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(database.session_id(connection))
        do(connection, name)
        database.relay.cut_after(bytes_from_client=0, ending=ending)

    with pytest.raises(CommitUnknownError, match="while COMMIT was on its way") as raised:
        db.run(work)
    assert isinstance(raised.value.__cause__, DRIVER_ERRORS)
    assert not raised.value.retryable
    assert raised.value.remedy
    assert len(calls) == 1
    wait_until(lambda: calls[0] not in database.server.session_ids())
    assert database.count(name) == 0
    assert_next_borrow_is_good(database, db, "lost")


@BOTH_ENDINGS
def test_a_commit_whose_answer_is_lost_is_unknown_and_not_repeated(ending: Ending, database: Database) -> None:
    db, name, calls = database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(name)
        do(connection, name)
        database.relay.cut_after(bytes_from_server=0, ending=ending)

    with pytest.raises(CommitUnknownError):
        db.run(work)
    assert len(calls) == 1
    wait_until(lambda: database.count(name))
    assert database.count(name) == 1
    assert_next_borrow_is_good(database, db, "lost")


def test_a_transaction_block_tells_of_an_unknown_commit_too(database: Database) -> None:
    db, name = database.manager(), deed()

    def lose_the_answer() -> None:
        with db.transaction() as connection:
            do(connection, name)
            database.relay.cut_after(bytes_from_server=0)

    with pytest.raises(CommitUnknownError):
        lose_the_answer()
    wait_until(lambda: database.count(name))
    assert database.observer.of(ConnectionClosed)[0].reason == "lost"


# The connection is lost before COMMIT


def test_a_statement_lost_on_its_way_is_run_again_and_has_one_effect(database: Database) -> None:
    db, name, calls = database.manager(), deed(), []

    def work(connection: Any) -> str:
        calls.append(name)
        if len(calls) == 1:
            database.relay.cut_after(bytes_from_client=0)
        do(connection, name)
        return "done"

    assert db.run(work) == "done"
    assert len(calls) == 2
    assert database.count(name) == 1
    assert database.reasons() == ["lost"]


def test_a_statement_whose_answer_is_lost_is_run_again_and_has_one_effect(database: Database) -> None:
    db, name, calls = database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(name)
        if len(calls) == 1:
            database.relay.cut_after(bytes_from_server=0)
        do(connection, name)

    db.run(work)
    assert len(calls) == 2
    assert database.count(name) == 1
    assert database.reasons() == ["lost"]


def test_a_session_that_ended_before_commit_was_sent_is_no_unknown_commit(database: Database) -> None:
    db, name, calls = database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(name)
        do(connection, name)
        if len(calls) == 1:
            database.server.kill_session(database.session_id(connection))
            wait_for_end(connection.fileno())

    db.run(work)
    assert len(calls) == 2
    assert database.count(name) == 1
    assert database.reasons() == ["lost"]


def test_a_server_that_restarts_during_a_transaction_is_waited_for(own_database: Database) -> None:
    db, name, calls = own_database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(name)
        do(connection, name)
        if len(calls) == 1:
            own_database.server.kill()
            own_database.server.start()
            do(connection, name)

    db.run(work)
    assert len(calls) == 2
    assert own_database.count(name) == 1


def test_a_transaction_that_is_lost_each_time_raises_the_drivers_error_in_the_end(database: Database) -> None:
    db, name, calls = database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(name)
        database.relay.rst()
        do(connection, name)

    with pytest.raises(DRIVER_ERRORS):
        db.run(work, attempts=2)
    assert len(calls) == 2
    assert database.count(name) == 0


def test_a_begin_that_is_lost_is_sent_again_on_a_new_connection(database: Database) -> None:
    db, name, calls = database.manager(), deed(), []
    assert db.warm_up()
    database.forget()
    database.relay.cut_after(bytes_from_client=0)

    def work(connection: Any) -> None:
        calls.append(name)
        do(connection, name)

    db.run(work, attempts=1)
    assert len(calls) == 1
    assert database.count(name) == 1
    assert database.reasons() == ["lost"]
    assert database.relay.connects == 1


@pytest.mark.parametrize("database", ["postgres-plain", "mariadb-plain"], indirect=True)
def test_only_begin_and_commit_are_added_to_what_the_function_sends(database: Database) -> None:
    db, name = database.manager(), deed()
    database.relay.cut_when(client_sends=b"COMMIT", forward=False)
    with pytest.raises(CommitUnknownError):
        db.run(lambda connection: do(connection, name))
    assert not database.relay.is_armed
    database.relay.cut_when(client_sends=b"ROLLBACK", forward=False)
    db.run(lambda connection: do(connection, name))
    assert database.relay.is_armed, "it rolled back a transaction that was committed"
    assert database.count(name) == 1


# The transaction loses against another one


def test_a_deadlock_is_run_again_and_has_one_effect(database: Database) -> None:
    one, other = database.make_things(2)
    db, calls = database.manager(), []
    with hurried_deadlocks(database) as rival, ExitStack() as rivals:
        rival_id = database.session_id(rival)
        for _ in range(20):  # InnoDB ends the transaction that has changed less
            do(rival, deed())
        touch(rival, other)

        def cross() -> None:
            touch(rival, one)
            rival.rollback()

        def work(connection: Any) -> None:
            calls.append(one)
            touch(connection, one)
            if len(calls) == 1:
                rivals.enter_context(in_background(cross))
                wait_until(lambda: is_waiting_for_a_lock(database, rival_id))
            touch(connection, other)

        db.run(work)
    assert len(calls) in (2, 3)  # on a busy machine the rival may win once more before it rolls back
    assert database.touches(one) == database.touches(other) == 1
    assert database.relay.connects == 1, "the connection was good all the time"


@contextmanager
def hurried_deadlocks(database: Database) -> Iterator[Any]:
    """Yield a rival who never looks for a deadlock on PostgreSQL; sessions made after it look at once."""
    if not database.is_postgresql:
        with connect(database.server, is_tls=database.is_tls) as rival:
            yield rival
        return
    role = database.server.user
    try:
        database.server.execute(f"ALTER ROLE {role} SET deadlock_timeout = '1h'")
        with connect(database.server, is_tls=database.is_tls) as rival:
            database.server.execute(f"ALTER ROLE {role} SET deadlock_timeout = '10ms'")
            yield rival
    finally:
        database.server.execute(f"ALTER ROLE {role} RESET deadlock_timeout")


def is_waiting_for_a_lock(database: Database, session_id: int) -> bool:
    if database.is_postgresql:
        statement = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
        return bool(database.server.query(statement, session_id)[0][0])
    # Anybody's, but there is nobody else; InnoDB's own tables show a copy that is not renewed while it is polled.
    return str(database.server.query("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1]) != "0"


@ONLY_POSTGRESQL
@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_serialization_failure_is_run_again_and_has_one_effect(isolation: str, database: Database) -> None:
    (thing,) = database.make_things(1)
    db, seen = database.manager(), []

    def work(connection: Any) -> None:
        seen.append(fetch(connection, "SELECT touched FROM things WHERE name = %s", thing)[0][0])
        if len(seen) == 1:
            database.server.execute("UPDATE things SET touched = 10 WHERE name = %s", thing)
        touch(connection, thing)

    db.run(work, isolation=isolation)
    assert seen == [0, 10]
    assert database.touches(thing) == 11
    assert database.relay.connects == 1, "the connection was good all the time"


@ONLY_MARIADB
def test_a_lock_that_is_waited_for_in_vain_is_run_again_and_has_one_effect(database: Database) -> None:
    mine, locked = database.make_things(2)
    db, calls = database.manager(), []
    with connect(database.server, is_tls=database.is_tls) as rival:
        touch(rival, locked)

        def work(connection: Any) -> None:
            calls.append(locked)
            if len(calls) == 2:
                rival.rollback()
            connection.query("SET innodb_lock_wait_timeout = 1")
            touch(connection, mine, locked)

        db.run(work)
    assert len(calls) == 2
    assert database.touches(mine) == 1, "what was done before the wait was rolled back"
    assert database.touches(locked) == 1


def test_an_error_that_another_try_would_not_mend_is_raised_at_once(database: Database) -> None:
    db, name, calls = database.counted(), deed(), []

    def work(connection: Any) -> None:
        calls.append(name)
        do(connection, name)
        fetch(connection, "SELECT * FROM no_such_table")

    with pytest.raises(DRIVER_ERRORS, match="no_such_table"):
        db.run(work)
    assert len(calls) == 1
    assert database.count(name) == 0
    database.forget()
    with db.connection() as connection:
        do(connection, name)
    assert database.cost() == (0, 1)


# The session ends in the middle of a statement


@pytest.mark.parametrize("lend", ["connection", "transaction"])
def test_a_session_killed_during_a_statement_raises_the_drivers_own_error(lend: str, database: Database) -> None:
    db = database.manager()
    sessions: list[int] = []

    def kill_when_busy() -> None:
        wait_until(lambda: sessions and is_sleeping(database, sessions[0]))
        database.server.kill_session(sessions[0])

    block: Callable[[], Any] = getattr(db, lend)

    def sleep() -> None:
        with block() as connection:
            sessions.append(database.session_id(connection))
            fetch(connection, "SELECT pg_sleep(60)" if database.is_postgresql else "SELECT SLEEP(60)")

    with in_background(kill_when_busy), pytest.raises(DRIVER_ERRORS) as raised:
        sleep()
    assert not isinstance(raised.value, LambdaDbConnError)
    assert raised.value.__cause__ is None
    assert isinstance(raised.value, psycopg.errors.AdminShutdown if database.is_postgresql else pymysql.Error)
    assert_next_borrow_is_good(database, db, "lost")


def is_sleeping(database: Database, session_id: int) -> bool:
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query LIKE '%%sleep%%'"
        if database.is_postgresql
        else "SELECT count(*) FROM information_schema.processlist WHERE id = %s AND info LIKE '%%SLEEP%%'"
    )
    return bool(database.server.query(statement, session_id)[0][0])
