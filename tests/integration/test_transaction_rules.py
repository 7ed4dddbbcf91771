"""What ends a transaction inside its block is refused or found; `run()` repeats nothing that may be committed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest

from lambda_dbconn import (
    AsyncConnectionManager,
    TransactionAbortedError,
    TransactionLeftOpenError,
)
from tests.support.database import deed, do, fetch

if TYPE_CHECKING:
    from tests.support.database import Database

REFUSALS = (psycopg.ProgrammingError, pymysql.ProgrammingError)
LOST = (psycopg.OperationalError, pymysql.OperationalError)


@pytest.mark.parametrize("way", ["transaction", "run"])
@pytest.mark.parametrize("method", ["commit", "begin"])
def test_commit_and_begin_are_refused_inside_a_transaction_and_nothing_of_it_is_committed(
    database: Database, way: str, method: str
) -> None:
    if method == "begin" and database.is_postgresql:
        method = "commit"  # psycopg has no `begin()`
    db, name = database.manager(), deed()

    def work(connection: Any) -> None:
        do(connection, name)
        getattr(connection, method)()

    def transact() -> None:
        with db.transaction() as connection:
            work(connection)

    with pytest.raises(REFUSALS, match=r"refused inside transaction\(\).*use connection\(\)"):
        db.run(work) if way == "run" else transact()
    assert database.count(name) == 0
    with db.connection() as connection:  # where it is the caller's own to commit
        do(connection, name)
        connection.commit()
    assert database.count(name) == 1


def test_rollback_is_carried_out_and_the_block_cannot_end_as_if_it_were_committed(database: Database) -> None:
    db, before, after = database.manager(), deed(), deed()
    with pytest.raises(TransactionAbortedError, match="was called inside"), db.transaction() as connection:  # noqa: PT012
        do(connection, before)
        connection.rollback()
        assert fetch(connection, "SELECT count(*) FROM deeds WHERE name = %s", before)[0][0] == 0
        do(connection, after)
    assert [database.count(before), database.count(after)] == [0, 0]
    with db.transaction() as connection:
        do(connection, after)
    assert database.count(after) == 1


def test_an_error_after_rollback_is_the_error_that_is_raised(database: Database) -> None:
    db, name = database.manager(), deed()
    with pytest.raises(ZeroDivisionError), db.transaction() as connection:  # noqa: PT012
        do(connection, name)
        connection.rollback()
        raise ZeroDivisionError
    assert database.count(name) == 0


@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK", "DDL"])
def test_sql_that_ends_the_transaction_is_found_out_at_the_end_of_the_block(database: Database, ends: str) -> None:
    db, name = database.manager(), deed()
    if ends == "DDL" and database.is_postgresql:
        ends = "COMMIT"
    statement = f"CREATE TABLE t{name} (i int)" if ends == "DDL" else ends
    with pytest.raises(TransactionAbortedError, match="ended inside its block"), db.transaction() as connection:  # noqa: PT012
        do(connection, name)
        with connection.cursor() as cursor:
            cursor.execute(statement)
        do(connection, name)
    with db.connection() as connection:
        assert fetch(connection, "SELECT 7")[0][0] == 7


@pytest.mark.parametrize("ends", ["COMMIT", "DDL"])
def test_run_does_not_repeat_what_may_be_committed_when_the_connection_is_lost(database: Database, ends: str) -> None:
    db, name, calls = database.manager(), deed(), []
    if ends == "DDL" and database.is_postgresql:
        ends = "COMMIT"
    statement = f"CREATE TABLE t{name} (i int)" if ends == "DDL" else ends

    def work(connection: Any) -> None:
        calls.append(1)
        do(connection, name)
        with connection.cursor() as cursor:
            cursor.execute(statement)
        fetch(connection, "SELECT 1")
        database.relay.rst()
        fetch(connection, "SELECT 2")

    with pytest.raises(LOST):
        db.run(work)
    assert (len(calls), database.count(name)) == (1, 1)


def test_run_repeats_when_the_connection_is_lost_and_nothing_was_committed(database: Database) -> None:
    db, name, calls = database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(1)
        do(connection, name)
        if len(calls) == 1:
            database.relay.rst()
        fetch(connection, "SELECT 2")

    db.run(work)
    assert (len(calls), database.count(name)) == (2, 1)


def test_a_transaction_of_the_callers_own_is_its_own_in_a_connection_block(database: Database) -> None:
    db, name = database.manager(), deed()
    with db.connection() as connection:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
        do(connection, name)
        connection.commit()
    assert database.count(name) == 1
    with pytest.raises(TransactionLeftOpenError), db.connection() as connection:  # noqa: PT012
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
        do(connection, name)
    assert database.count(name) == 1


@pytest.mark.parametrize("what", ["commit", "rollback", "COMMIT"])
def test_asyncio_keeps_the_same_rules(postgresql_database: Database, what: str) -> None:
    database, name = postgresql_database, deed()
    db: Any = AsyncConnectionManager(database.settings(), clock=database.clock, observer=database.observer)
    expected: dict[str, tuple[type[Exception], int]] = {
        "commit": (psycopg.ProgrammingError, 0),
        "rollback": (TransactionAbortedError, 0),
        "COMMIT": (TransactionAbortedError, 1),
    }
    error, count = expected[what]

    async def work() -> None:
        async with db.transaction() as connection:
            await connection.execute("INSERT INTO deeds (name) VALUES (%s)", [name])
            if what == "COMMIT":
                await connection.execute("COMMIT")
            else:
                await getattr(connection, what)()

    async def invocation() -> None:
        with pytest.raises(error):
            await work()
        await db.close()

    asyncio.run(invocation())
    assert database.count(name) == count


def test_savepoints_work_as_ever_inside_a_transaction(postgresql_database: Database) -> None:
    db, kept, undone = postgresql_database.manager(), deed(), deed()
    with db.transaction() as connection:
        do(connection, kept)
        with pytest.raises(ZeroDivisionError), connection.transaction():  # noqa: PT012
            do(connection, undone)
            raise ZeroDivisionError
    assert [postgresql_database.count(kept), postgresql_database.count(undone)] == [1, 0]


def fail_with(connection: Any, statement: str) -> None:
    with pytest.raises((psycopg.Error, pymysql.Error)), connection.cursor() as cursor:
        cursor.execute(statement)


def test_run_does_not_repeat_what_a_rollback_came_too_late_for(mysql_database: Database) -> None:
    db, name, calls = mysql_database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(1)
        do(connection, name)
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE TABLE t{name} (i int)")
                cursor.execute("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'")
        except pymysql.Error:
            connection.rollback()
            raise

    with pytest.raises(pymysql.OperationalError, match="Deadlock found"):
        db.run(work)
    assert (len(calls), mysql_database.count(name)) == (1, 1)


@pytest.mark.parametrize("is_caught", [True, False])
def test_run_does_not_repeat_after_a_statement_that_may_have_committed_and_failed(
    mysql_database: Database, *, is_caught: bool
) -> None:
    db, name, calls = mysql_database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(1)
        do(connection, name)
        if is_caught:
            fail_with(connection, "CREATE TABLE deeds (name int)")
        else:
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE TABLE t{name} (i int)")
            fail_with(connection, "SELECT nothing")
        mysql_database.relay.rst()
        if is_caught:
            do(connection, name)

    with pytest.raises((pymysql.OperationalError, TransactionAbortedError)):
        db.run(work)
    assert (len(calls), mysql_database.count(name)) == (1, 1)


def test_run_does_not_repeat_a_commit_of_the_callers_whose_answer_was_lost(postgresql_database: Database) -> None:
    db, name, calls = postgresql_database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(1)
        do(connection, name)
        connection.execute("COMMIT; SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(psycopg.OperationalError):
        db.run(work)
    assert (len(calls), postgresql_database.count(name)) == (1, 1)


def test_what_was_being_handled_before_the_block_is_no_error_of_the_block(database: Database) -> None:
    db, calls = database.manager(), []
    end = "SELECT pg_terminate_backend(pg_backend_pid())" if database.is_postgresql else "KILL CONNECTION_ID()"

    def decline(_connection: Any) -> None:
        calls.append(1)
        raise ValueError("card declined")

    try:
        with db.transaction() as connection, connection.cursor() as cursor:
            cursor.execute(end)
    except (psycopg.Error, pymysql.Error):
        with pytest.raises(ValueError, match="card declined"):
            db.run(decline)
    assert len(calls) == 1


def test_a_connection_that_the_caller_has_closed_is_no_outage(database: Database) -> None:
    db, calls = database.manager(), []

    def work(connection: Any) -> None:
        calls.append(1)
        connection.close()
        raise ValueError("mistaken")

    with pytest.raises(ValueError, match="mistaken"):
        db.run(work)
    assert len(calls) == 1
    with db.connection() as connection:
        assert fetch(connection, "SELECT 1")[0][0] == 1


def test_a_stream_that_is_kept_does_not_hold_the_end_of_its_block(postgresql_database: Database) -> None:
    db, name, kept = postgresql_database.manager(), deed(), []
    with pytest.raises(TransactionAbortedError, match="stream"), db.transaction() as connection:  # noqa: PT012
        do(connection, name)
        rows = connection.cursor().stream("SELECT generate_series(1, 100000)")
        next(rows)
        kept.append(rows)
    assert postgresql_database.count(name) == 0
    with db.transaction() as connection:
        do(connection, name)
    assert postgresql_database.count(name) == 1


def test_a_rollback_in_a_pipeline_inside_a_block_is_refused_and_nothing_is_committed(
    postgresql_database: Database,
) -> None:
    db, name = postgresql_database.manager(), deed()
    refused = pytest.raises(psycopg.ProgrammingError, match="pipeline")
    with refused, db.transaction() as connection, connection.pipeline():
        do(connection, name)
        connection.rollback()
    assert postgresql_database.count(name) == 0
