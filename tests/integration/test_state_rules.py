"""An invocation starts clean, whatever the one before it did with the connection: on real sessions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest
from pymysql.cursors import SSCursor

from lambda_dbconn import ConnectionInUseError, TransactionAbortedError, TransactionLeftOpenError
from lambda_dbconn.events import ConnectionClosed, TransactionRolledBack
from tests.support.database import LIMIT_S, MANY_ROWS, deed, do, fetch

if TYPE_CHECKING:
    from lambda_dbconn import ConnectionManager
    from tests.support.database import Database

LEVELS = ["read uncommitted", "read committed", "repeatable read", "serializable"]

DRIVER_ERRORS = (psycopg.Error, pymysql.Error)


class ApplicationError(Exception):
    """An application's own."""


def session_of(database: Database, db: ConnectionManager[Any]) -> int:
    """Borrow the connection, and say which session it is."""
    with db.connection() as connection:
        return database.session_id(connection)


def send(connection: Any, statement: str) -> None:
    connection.cursor().execute(statement)


def begin(connection: Any) -> None:
    send(connection, "BEGIN")


def assert_clean(database: Database, db: ConnectionManager[Any], session_id: int, *, is_same: bool = True) -> None:
    """The next borrow is in autocommit and outside a transaction; of the same session, or of a new one."""
    name = deed()
    with db.connection() as connection:
        do(connection, name)
        assert database.count(name) == 1, "it takes effect at once"
        assert (database.session_id(connection) == session_id) is is_same
        if database.is_postgresql:
            assert connection.autocommit
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        else:
            assert connection.get_autocommit()
            assert fetch(connection, "SELECT @@autocommit") == ((1,),)


# Transactions


def test_a_transaction_left_open_is_rolled_back_and_is_an_error(database: Database) -> None:
    db, name = database.manager(), deed()

    def leave_open(connection: Any) -> None:
        begin(connection)
        do(connection, name)

    session_id = session_of(database, db)
    with pytest.raises(TransactionLeftOpenError), db.connection() as connection:
        leave_open(connection)
    assert [event.is_left_open for event in database.observer.of(TransactionRolledBack)] == [True]
    assert_clean(database, db, session_id)
    assert database.count(name) == 0


def test_a_transaction_that_only_read_is_left_open_too(database: Database) -> None:
    db = database.manager()

    def look(connection: Any) -> None:
        begin(connection)
        fetch(connection, "SELECT * FROM deeds LIMIT 1")

    with pytest.raises(TransactionLeftOpenError), db.connection() as connection:
        look(connection)


def test_an_exception_is_not_replaced_by_the_open_transaction_it_left(database: Database) -> None:
    db, name = database.manager(), deed()

    def fail(connection: Any) -> None:
        begin(connection)
        do(connection, name)
        raise ApplicationError

    session_id = session_of(database, db)
    with pytest.raises(ApplicationError), db.connection() as connection:
        fail(connection)
    assert [event.is_left_open for event in database.observer.of(TransactionRolledBack)] == [False]
    assert_clean(database, db, session_id)
    assert database.count(name) == 0


def test_a_transaction_that_the_block_ended_itself_is_no_matter(database: Database) -> None:
    db, name = database.manager(), deed()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        begin(connection)
        do(connection, name)
        connection.commit()
        begin(connection)
        do(connection, name)
        connection.rollback()
    assert database.observer.of(TransactionRolledBack) == []
    assert database.count(name) == 1
    assert_clean(database, db, session_id)


def test_a_failed_statement_in_a_transaction_left_open_costs_no_connection(database: Database) -> None:
    db = database.manager()

    def fail(connection: Any) -> None:
        begin(connection)
        fetch(connection, "SELECT * FROM no_such_table")

    session_id = session_of(database, db)
    with pytest.raises(DRIVER_ERRORS, match="no_such_table"), db.connection() as connection:
        fail(connection)
    assert_clean(database, db, session_id)


def test_an_exception_rolls_a_transaction_block_back(database: Database) -> None:
    db, name = database.manager(), deed()

    def fail(connection: Any) -> None:
        do(connection, name)
        raise ApplicationError

    session_id = session_of(database, db)
    with pytest.raises(ApplicationError), db.transaction() as connection:
        fail(connection)
    assert database.count(name) == 0
    assert_clean(database, db, session_id)


def test_a_failed_transaction_cannot_be_committed_by_catching_its_error(postgresql_database: Database) -> None:
    database = postgresql_database
    db, name = database.manager(), deed()

    def catch(connection: Any) -> None:
        do(connection, name)
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM no_such_table")

    session_id = session_of(database, db)
    with pytest.raises(TransactionAbortedError), db.transaction() as connection:
        catch(connection)
    assert database.count(name) == 0
    assert_clean(database, db, session_id)


def test_a_failed_statement_leaves_a_mysql_transaction_good(mysql_database: Database) -> None:
    database = mysql_database
    db, name = database.manager(), deed()
    with db.transaction() as connection:
        do(connection, name)
        with pytest.raises(pymysql.err.ProgrammingError):
            fetch(connection, "SELECT * FROM no_such_table")
    assert database.count(name) == 1


# What a user may do to the session


def test_autocommit_switched_off_and_work_left_uncommitted_is_an_error(database: Database) -> None:
    db, name = database.manager(), deed()
    session_id = session_of(database, db)
    with pytest.raises(TransactionLeftOpenError), db.connection() as connection:
        switch_autocommit_off(database, connection, name)
    assert database.count(name) == 0
    assert_clean(database, db, session_id)


def switch_autocommit_off(database: Database, connection: Any, name: str | None = None) -> None:
    if database.is_postgresql:
        connection.autocommit = False
    else:
        connection.autocommit(False)
    if name is not None:
        do(connection, name)


def test_autocommit_switched_off_and_nothing_else_is_put_right_in_silence(database: Database) -> None:
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        switch_autocommit_off(database, connection)
    assert_clean(database, db, session_id)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("read_only", True), ("deferrable", True), ("isolation_level", psycopg.IsolationLevel.SERIALIZABLE)],
)
def test_what_psycopg_was_told_of_transactions_is_forgotten(
    postgresql_database: Database, attribute: str, value: object
) -> None:
    setting = f"SHOW transaction_{attribute.removesuffix('_level')}"
    db = postgresql_database.manager()
    with db.connection() as connection, connection.transaction():
        usual = fetch(connection, setting)
    with db.connection() as connection:
        setattr(connection, attribute, value)
        with connection.transaction():
            assert fetch(connection, setting) != usual
    with db.connection() as again, again.transaction():
        assert again is connection
        assert fetch(again, setting) == usual


def test_a_transaction_begins_whatever_the_users_cursors_take(postgresql_database: Database) -> None:
    class OfText(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            return super().execute("/* shop */ " + query, *args, **options)

    db = postgresql_database.manager()
    with db.connection() as connection:
        connection.cursor_factory = OfText
    with db.transaction() as again:
        assert again is connection
        assert again.execute("SELECT 1").fetchone() == (1,)


def test_autocommit_switched_off_by_sql_is_put_right(mysql_database: Database) -> None:
    database = mysql_database
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        connection.query("SET autocommit = 0")
    assert_clean(database, db, session_id)


def test_autocommit_switched_off_is_put_right_after_an_exception(database: Database) -> None:
    db = database.manager()
    session_id = session_of(database, db)

    def fail(connection: Any) -> None:
        switch_autocommit_off(database, connection)
        raise ApplicationError

    with pytest.raises(ApplicationError), db.connection() as connection:
        fail(connection)
    assert_clean(database, db, session_id)


def test_rows_that_nobody_has_read_cost_the_connection(mysql_database: Database) -> None:
    database = mysql_database
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        cursor = connection.cursor(SSCursor)
        cursor.execute(MANY_ROWS)
        cursor.fetchone()
    del cursor  # whose finalizer reads on, unless it knows better
    assert_clean(database, db, session_id, is_same=False)
    assert database.reasons() == ["unclean"]


def test_rows_that_were_read_to_the_end_cost_nothing(mysql_database: Database) -> None:
    database = mysql_database
    db = database.manager()
    with db.connection() as connection, connection.cursor(SSCursor) as cursor:
        session_id = database.session_id(connection)
        cursor.execute("SELECT 1 UNION SELECT 2")
        assert list(cursor.fetchall_unbuffered()) == [(1,), (2,)]
    assert_clean(database, db, session_id)


def test_a_stream_that_was_not_read_to_the_end_costs_the_connection(postgresql_database: Database) -> None:
    database = postgresql_database
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        connection.pgconn.send_query(b"SELECT * FROM generate_series(1, 100000)")
    assert_clean(database, db, session_id, is_same=False)
    assert database.reasons() == ["unclean"]


def test_a_connection_that_the_user_closed_is_replaced(database: Database) -> None:
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        connection.close()
    assert db.stats().open == 0
    assert_clean(database, db, session_id, is_same=False)
    assert len(database.observer.of(ConnectionClosed)) == 1
    assert database.reasons() == ["unclean"]


def test_a_user_who_closes_the_connection_and_fails_sees_his_own_error(database: Database) -> None:
    db = database.manager()

    def fail(connection: Any) -> None:
        connection.close()
        raise ApplicationError

    with pytest.raises(ApplicationError), db.connection() as connection:
        fail(connection)
    assert_clean(database, db, 0, is_same=False)


# What transaction() is asked for


@pytest.mark.parametrize("level", LEVELS)
def test_a_postgresql_transaction_is_what_it_was_asked_to_be_and_nothing_stays(
    level: str, postgresql_database: Database
) -> None:
    database = postgresql_database
    db = database.manager()
    with db.transaction(isolation=level, read_only=True) as connection:
        session_id = database.session_id(connection)
        assert fetch(connection, "SHOW transaction_isolation") == [(level,)]
        assert fetch(connection, "SHOW transaction_read_only") == [("on",)]
    with db.transaction() as connection:
        assert fetch(connection, "SHOW transaction_isolation") == [("read committed",)]
        assert fetch(connection, "SHOW transaction_read_only") == [("off",)]
    assert_clean(database, db, session_id)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("is_failing", [False, True], ids=["committed", "failed"])
def test_a_mysql_transaction_is_what_it_was_asked_to_be_and_the_level_is_put_back(
    is_failing: bool, level: str, mysql_database: Database
) -> None:
    database = mysql_database
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        before = session_level(connection)

    def work() -> str:
        with db.transaction(isolation=level) as connection:
            if is_failing:
                raise ApplicationError(session_level(connection))
            return session_level(connection)

    if is_failing:
        with pytest.raises(ApplicationError, match=f"^{level}$"):
            work()
    else:
        assert work() == level
    with db.connection() as connection:
        assert database.session_id(connection) == session_id
        assert session_level(connection) == before
    assert_clean(database, db, session_id)


def session_level(connection: Any) -> str:
    rows = fetch(
        connection,
        "SHOW SESSION VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')",
    )
    return str(rows[0][1]).replace("-", " ").lower()


@pytest.mark.parametrize(("level", "seen"), [("read committed", [0, 5]), ("repeatable read", [0, 0])])
def test_a_level_of_isolation_does_what_it_says(level: str, seen: list[int], database: Database) -> None:
    (thing,) = database.make_things(1)

    def look(connection: Any) -> int:
        return int(fetch(connection, "SELECT touched FROM things WHERE name = %s", thing)[0][0])

    with database.manager().transaction(isolation=level) as connection:
        before = look(connection)
        database.server.execute("UPDATE things SET touched = 5 WHERE name = %s", thing)
        assert [before, look(connection)] == seen


def test_a_read_only_transaction_refuses_a_write_and_the_next_one_takes_it(database: Database) -> None:
    db, name = database.manager(), deed()
    with pytest.raises(DRIVER_ERRORS), db.transaction(read_only=True) as connection:
        do(connection, name)
    with db.transaction() as connection:
        do(connection, name)
    assert database.count(name) == 1
    assert database.reasons() == []


def test_a_savepoint_rolls_back_a_part(database: Database) -> None:
    db, kept, dropped = database.manager(), deed(), deed()
    with db.transaction() as connection:
        do(connection, kept)
        send(connection, "SAVEPOINT here")
        do(connection, dropped)
        send(connection, "ROLLBACK TO SAVEPOINT here")
    assert (database.count(kept), database.count(dropped)) == (1, 0)


def test_psycopgs_own_transaction_blocks_nest_inside_ours(postgresql_database: Database) -> None:
    database = postgresql_database
    db, kept, dropped = database.manager(), deed(), deed()

    def fail(connection: Any) -> None:
        do(connection, dropped)
        raise psycopg.Rollback

    with db.transaction() as connection:
        session_id = database.session_id(connection)
        do(connection, kept)
        with connection.transaction():
            fail(connection)
    with db.connection() as connection, connection.transaction():
        do(connection, kept)
    assert (database.count(kept), database.count(dropped)) == (2, 0)
    assert_clean(database, db, session_id)


# Who may have it


def test_a_second_borrow_in_the_same_thread_is_an_error_and_harms_nothing(database: Database) -> None:
    db, name = database.manager(), deed()
    with db.transaction() as connection:
        do(connection, name)
        with pytest.raises(ConnectionInUseError, match="this thread"), db.connection():
            pytest.fail("it was lent twice")
        do(connection, name)
    assert database.count(name) == 2
    assert database.relay.connects == 1


def test_threads_have_a_session_each_and_no_more_than_allowed(database: Database) -> None:
    count = 3
    db = database.counted(max_connections=count, connect_timeout_s=2.0)
    all_have_one = threading.Barrier(count)
    is_over = threading.Event()

    def hold(_: int) -> int:
        with db.connection() as connection:
            session_id = database.session_id(connection)
            all_have_one.wait(LIMIT_S)
            assert is_over.wait(LIMIT_S)
            return session_id

    with ThreadPoolExecutor(count) as threads:
        sessions = [threads.submit(hold, number) for number in range(count - 1)]
        with db.connection() as connection:
            mine = database.session_id(connection)
            all_have_one.wait(LIMIT_S)
            with ThreadPoolExecutor(1) as another, pytest.raises(ConnectionInUseError, match=f"the limit is {count} "):
                another.submit(session_of, database, db).result(LIMIT_S)
            is_over.set()
        ids = {mine, *(future.result(LIMIT_S) for future in sessions)}
    assert len(ids) == count
    assert ids <= set(database.server.session_ids())
    database.forget()
    assert session_of(database, db) in ids
    assert database.cost() == (0, 1)
    db.close()
    database.relay.wait_for_connections(0)


def test_many_threads_take_turns_without_mixing_their_results(database: Database) -> None:
    db = database.manager(max_connections=4)

    def ask(thread: int) -> list[Any]:
        answers = []
        for number in range(25):
            with db.connection() as connection:
                answers.append(fetch(connection, "SELECT %s, %s", thread, number)[0])
        return answers

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(4)))
    assert [[(int(a), int(b)) for a, b in each] for each in answers] == [
        [(thread, number) for number in range(25)] for thread in range(4)
    ]
    assert database.relay.connects <= 4


# A fork

FORKING = """
import gc, json, os, sys
import lambda_dbconn

db = lambda_dbconn.from_env()
statement = sys.argv[1]

def session():
    with db.connection() as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]

def in_child(function):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps(function()).encode())
        sys.exit()  # as any process ends: what it still holds is collected, its parent's connection too
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.loads(pipe.read())
    assert os.wait()[1] == 0
    return answer

def child():
    first = session()
    gc.collect()
    second = session()
    db.close()
    return [first, second]

parent = [session()]
children = [in_child(child)]
parent.append(session())
with db.transaction() as connection:
    children.append(in_child(child))
    with connection.cursor() as cursor:
        cursor.execute(statement)
        parent.append(cursor.fetchone()[0])
parent.append(session())
db.close()
print(json.dumps({"parent": parent, "children": children, "opened": db.stats().opened}))
"""


def test_a_child_has_its_own_session_and_never_touches_its_parents(database: Database) -> None:
    settings = database.settings()
    environment = {
        "DB_ENGINE": settings.engine,
        "DB_HOST": settings.host,
        "DB_PORT": str(database.server.port),
        "DB_NAME": str(settings.name),
        "DB_USER": str(settings.user),
        "DB_PASSWORD": database.server.password,
        "DB_SSLROOTCERT": str(settings.sslrootcert),
    }
    statement = "SELECT pg_backend_pid()" if database.is_postgresql else "SELECT CONNECTION_ID()"
    # psycopg warns of a connection that was not closed; the parent's is not the child's to close.
    warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
    done = subprocess.run(
        [sys.executable, *warnings, "-c", FORKING, statement],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not done.stderr
    answer = json.loads(done.stdout)
    (mine,) = set(answer["parent"])
    assert answer["opened"] == 1
    for first, second in answer["children"]:
        assert first == second != mine
