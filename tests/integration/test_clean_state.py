"""Whatever an invocation leaves in its session, the next one does not find; and what that costs."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest

from lambda_dbconn import ConnectionManager, Secret, Settings, TransactionLeftOpenError
from lambda_dbconn.cache import slot
from lambda_dbconn.events import ConnectionClosed
from lambda_dbconn.testing.certificates import Certificates
from tests.support.clients import wait_until
from tests.support.database import MANY_ROWS, deed, do, fetch, wait_for_news
from tests.support.rds_proxy import make_proxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lambda_dbconn.testing.servers import LocalServer
    from tests.support.database import Database

CHANNEL = "clean_state"
LOCK = 4711
_LEFT: list[object] = []  # for good: finalizers would complain of what is meant here


@dataclass(frozen=True)
class Leaving:
    """A way to leave something behind.

    Attributes:
        name: What it is.
        leave: Does it.
        is_found: Says whether it is there, on the next invocation's connection.
        is_kept: Whether the connection is reused after it.
    """

    name: str
    leave: Callable[[Any], object]
    is_found: Callable[[Any], bool]
    is_kept: bool = True

    def __str__(self) -> str:
        return self.name


def sql(*statements: str) -> Callable[[Any], None]:
    def leave(connection: Any) -> None:
        for statement in statements:
            with closing(connection.cursor()) as cursor:
                cursor.execute(statement)

    return leave


def one(query: str, found: object) -> Callable[[Any], bool]:
    return lambda connection: str(fetch(connection, query)[0][0]) == str(found)


def row(query: str) -> Callable[[Any], bool]:
    return lambda connection: bool(fetch(connection, query))


def works(statement: str) -> Callable[[Any], bool]:
    """Find it by a statement that works only where it is."""

    def is_found(connection: Any) -> bool:
        with suppress(Exception):
            fetch(connection, statement)
            return True
        return False

    return is_found


def fail_in_transaction(connection: Any) -> None:
    connection.execute("BEGIN")
    with suppress(Exception):
        connection.execute("SELECT * FROM no_such_table")


def leave_stream(connection: Any) -> None:
    rows = connection.cursor().stream("SELECT * FROM generate_series(1, 100000)")
    next(rows)
    _LEFT.append(rows)  # or its finalizer would read on


def leave_copy(connection: Any) -> None:
    copy = connection.cursor().copy("COPY deeds FROM STDIN")
    copy.__enter__().write_row(["half a copy"])
    _LEFT.append(copy)


def leave_pipeline(connection: Any) -> None:
    pipeline = connection.pipeline()
    pipeline.__enter__()
    _LEFT.append(pipeline)


def leave_full_pipeline(connection: Any) -> None:
    leave_pipeline(connection)
    connection.execute("SELECT 1")


def leave_held_cursor(connection: Any) -> None:
    cursor = connection.cursor("held", withhold=True)
    cursor.execute("SELECT * FROM generate_series(1, 10)")
    cursor._closed = True  # or its finalizer would warn


def leave_cursor(connection: Any) -> None:
    connection.execute("BEGIN")
    cursor = connection.cursor("named")
    cursor.execute("SELECT * FROM generate_series(1, 10)")
    cursor._closed = True  # or its finalizer would warn


def leave_unread(connection: Any) -> None:
    cursor = connection.cursor(pymysql.cursors.SSCursor)
    cursor.execute(MANY_ROWS)
    cursor.fetchone()
    _LEFT.append(cursor)  # or its finalizer would read on


def call_procedure(body: str, parameters: str = "", arguments: str = "") -> Callable[[Any], None]:
    """Create a procedure, call it once, and drop it: what it has left in the session stays."""

    def leave(connection: Any) -> None:
        sql(
            "DROP PROCEDURE IF EXISTS touch_session",
            f"CREATE PROCEDURE touch_session({parameters}) {body}",
            f"CALL touch_session({arguments})",
            "DROP PROCEDURE touch_session",
        )(connection)

    return leave


NO_CURSOR = row("SELECT name FROM pg_cursors")
IN_TRANSACTION = row("SELECT 1 WHERE now() <> statement_timestamp()")
NEVER = row("SELECT 1 WHERE false")

POSTGRESQL = [
    Leaving("open transaction", sql("BEGIN", "SELECT 1"), IN_TRANSACTION),
    Leaving("failed transaction", fail_in_transaction, IN_TRANSACTION),
    Leaving("open named cursor", leave_cursor, NO_CURSOR),
    Leaving("cursor WITH HOLD", leave_held_cursor, NO_CURSOR),
    Leaving("unread stream", leave_stream, NEVER, is_kept=False),
    Leaving("unfinished COPY", leave_copy, NEVER, is_kept=False),
    Leaving("left pipeline", leave_pipeline, NEVER, is_kept=False),
    Leaving("left pipeline with results", leave_full_pipeline, NEVER, is_kept=False),
    Leaving("SET", sql("SET statement_timeout = '7min'"), one("SHOW statement_timeout", "7min")),
    Leaving(
        "SET after a comment", sql("/* a */ -- b\n SET TimeZone = 'Asia/Tokyo'"), one("SHOW TimeZone", "Asia/Tokyo")
    ),
    Leaving("SET in a script", sql("SELECT 1; SET work_mem = '77MB'"), one("SHOW work_mem", "77MB")),
    Leaving("SET in a transaction", sql("BEGIN", "SET work_mem = '77MB'", "COMMIT"), one("SHOW work_mem", "77MB")),
    Leaving("SET in an open transaction", sql("BEGIN", "SET work_mem = '77MB'"), one("SHOW work_mem", "77MB")),
    Leaving(
        "set_config",
        sql("SELECT set_config('my.tenant', '7', false)"),
        one("SELECT current_setting('my.tenant', true)", 7),
    ),
    Leaving("SET ROLE", sql("SET ROLE pg_monitor"), one("SELECT current_user", "pg_monitor")),
    Leaving(
        "DO",
        sql("DO $$ BEGIN PERFORM set_config('my.tenant', '7', false); END $$"),
        one("SELECT current_setting('my.tenant', true)", 7),
    ),
    Leaving("LISTEN", sql(f"LISTEN {CHANNEL}"), row("SELECT pg_listening_channels()")),
    Leaving(
        "advisory lock",
        sql(f"SELECT pg_advisory_lock({LOCK})"),
        row("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"),
    ),
    Leaving("temporary table", sql("CREATE TEMP TABLE leftover (i int)"), works("SELECT * FROM leftover")),
    Leaving("SELECT INTO TEMP", sql("SELECT 1 AS i INTO TEMPORARY leftover"), works("SELECT * FROM leftover")),
    Leaving("PREPARE", sql("PREPARE left_over AS SELECT 1"), row("SELECT 1 FROM pg_prepared_statements")),
    Leaving(
        "a setting in a function",
        sql(
            "CREATE OR REPLACE FUNCTION pg_temp.touch() RETURNS text LANGUAGE sql AS "
            "$$ SELECT set_config('my.tenant', '7', false) $$",
            "SELECT pg_temp.touch()",
        ),
        one("SELECT current_setting('my.tenant', true)", 7),
    ),
    Leaving(
        "a value that looks like SQL",
        lambda connection: psycopg.ClientCursor(connection).execute(
            "SELECT set_config('my.tenant', %s, false)", ["x, true)"]
        ),
        one("SELECT current_setting('my.tenant', true)", "x, true)"),
    ),
    Leaving(
        "a cursor class that is called directly",
        lambda connection: psycopg.ClientCursor(connection).execute("SET my.tenant = %s", ["7"]),
        one("SELECT current_setting('my.tenant', true)", 7),
    ),
    Leaving(
        "UPDATE pg_settings",
        sql("UPDATE pg_settings SET setting = '7000' WHERE name = 'statement_timeout'"),
        one("SHOW statement_timeout", "7s"),
    ),
    Leaving(
        "an identifier in escapes",
        sql("SELECT U&\"set\\005fconfig\"('my.tenant', '7', false)"),
        one("SELECT current_setting('my.tenant', true)", 7),
    ),
    Leaving(
        "a long comment",
        sql("/* " + "x" * 2000 + " */ SET work_mem = '77MB'"),
        one("SHOW work_mem", "77MB"),
    ),
]

MYSQL = [
    Leaving(
        "open transaction",
        sql("BEGIN", "INSERT INTO deeds (name) VALUES ('never')"),
        row("SELECT 1 FROM deeds WHERE name = 'never'"),
    ),
    Leaving("unread rows", leave_unread, lambda connection: False, is_kept=False),
    Leaving("SET SESSION", sql("SET SESSION lock_wait_timeout = 77"), one("SELECT @@lock_wait_timeout", 77)),
    Leaving("SET @@session", sql("set @@session.sql_mode = ''"), one("SELECT @@sql_mode", "")),
    Leaving("SET time_zone", sql("SET time_zone = '+03:00'"), one("SELECT @@time_zone", "+03:00")),
    Leaving("user variable", sql("SET @left = 7"), one("SELECT @left", 7)),
    Leaving("SELECT INTO @", sql("SELECT 7 INTO @left"), one("SELECT @left", 7)),
    Leaving(
        "SET NAMES",
        lambda connection: connection.set_character_set("latin1"),
        one("SELECT @@character_set_client", "latin1"),
    ),
    Leaving(
        "USE",
        lambda connection: connection.select_db("information_schema"),
        one("SELECT DATABASE()", "information_schema"),
    ),
    Leaving("USE in SQL", sql("USE information_schema"), one("SELECT DATABASE()", "information_schema")),
    Leaving(
        "GET_LOCK", sql(f"SELECT GET_LOCK('{LOCK}', 0)"), one(f"SELECT IS_USED_LOCK('{LOCK}') = CONNECTION_ID()", 1)
    ),
    Leaving(
        "LOCK TABLES",
        sql("LOCK TABLES deeds READ"),
        lambda connection: not works("SELECT 1 FROM things")(connection),
    ),
    Leaving("temporary table", sql("CREATE TEMPORARY TABLE leftover (i int)"), works("SELECT * FROM leftover")),
    Leaving("PREPARE", sql("PREPARE left_over FROM 'SELECT 1'"), works("EXECUTE left_over")),
    Leaving("a variable in a procedure", call_procedure("SET @left = 7"), one("SELECT @left", 7)),
    Leaving(
        "a lock in a procedure",
        call_procedure(f"SELECT GET_LOCK('{LOCK}', 0)"),
        one(f"SELECT IS_USED_LOCK('{LOCK}') = CONNECTION_ID()", 1),
    ),
    Leaving(
        "a procedure's argument, behind a value with a semicolon",
        call_procedure("SET b = 7", "IN a text, OUT b int", "'x;y', @left"),
        one("SELECT @left", 7),
    ),
    Leaving("a long comment", sql("/* " + "x" * 2000 + " */ SET @left = 7"), one("SELECT @left", 7)),
]


def leave_behind(database: Database, db: Any, leaving: Leaving) -> int:
    """Leave it in one loan, having found that it was not there before; return which session that was."""
    with db.connection() as connection:
        session_id = database.session_id(connection)
        assert not leaving.is_found(connection)
    with suppress(TransactionLeftOpenError), db.connection() as connection:
        leaving.leave(connection)
        database.forget()
    return session_id


def assert_next_is_clean(database: Database, db: Any, leaving: Leaving, session_id: int) -> None:
    name = deed()
    with db.connection() as connection:
        do(connection, name)
        assert database.count(name) == 1
        assert not leaving.is_found(connection)
        assert (database.session_id(connection) == session_id) is leaving.is_kept
    assert [event.reason for event in database.observer.of(ConnectionClosed)] == (
        [] if leaving.is_kept else ["unclean"]
    )


@pytest.mark.parametrize("leaving", POSTGRESQL, ids=str)
def test_what_a_postgresql_invocation_leaves_the_next_one_does_not_find(
    postgresql_database: Database, leaving: Leaving
) -> None:
    db = postgresql_database.manager()
    postgresql_database.server.execute(f"GRANT pg_monitor TO {postgresql_database.server.user}")
    session_id = leave_behind(postgresql_database, db, leaving)
    assert_next_is_clean(postgresql_database, db, leaving, session_id)


@pytest.mark.parametrize("leaving", MYSQL, ids=str)
def test_what_a_mysql_invocation_leaves_the_next_one_does_not_find(mysql_database: Database, leaving: Leaving) -> None:
    db = mysql_database.manager()
    session_id = leave_behind(mysql_database, db, leaving)
    assert_next_is_clean(mysql_database, db, leaving, session_id)


def test_statements_that_psycopg_has_prepared_are_forgotten_on_both_sides(postgresql_database: Database) -> None:
    db = postgresql_database.manager()

    def prepared() -> int:
        with db.connection() as connection:
            connection.prepare_threshold = 0
            connection.execute("SELECT 1 + %s", [1])
            return postgresql_database.session_id(connection)

    session_id = prepared()
    assert prepared() == session_id
    with db.connection() as connection:
        connection.execute("SET work_mem = '77MB'")
    assert prepared() == session_id


def test_notifications_of_the_invocation_before_are_not_read_by_the_next(postgresql_database: Database) -> None:
    db = postgresql_database.manager()
    with db.connection() as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        connection.execute(f"NOTIFY {CHANNEL}, 'old'")
    with db.connection() as connection:
        connection.execute(f"NOTIFY {CHANNEL}, 'nobody listens'")
        assert list(connection.notifies(timeout=0)) == []


def test_what_a_cursor_class_of_ones_own_has_set_is_reset_too(postgresql_database: Database) -> None:
    class Mine(psycopg.ClientCursor[Any]):
        pass

    db = postgresql_database.manager()
    with db.connection() as connection:
        connection.cursor_factory = Mine
        cursor = connection.cursor()
        assert isinstance(cursor, Mine)
        cursor.execute("SET statement_timeout = %s", [7000])
        connection.cursor_factory = psycopg.Cursor
    with db.connection() as connection:
        assert fetch(connection, "SHOW statement_timeout") == [("0",)]
        assert isinstance(connection.cursor(), psycopg.Cursor)


@pytest.mark.parametrize("reset", ["always", "wait"])
def test_a_reset_costs_no_round_trip_beside_those_of_the_statements(database: Database, reset: str) -> None:
    """Ten loans with a pause between them, in which the answer arrives."""
    db = database.manager(reset=reset)
    with db.connection() as connection:
        fetch(connection, "SELECT 1")
        fileno = connection.fileno()
    for number in range(10):
        if reset == "always":
            wait_for_news(fileno)
        database.forget()
        with db.connection() as connection:
            assert fetch(connection, "SELECT %s", number)[0][0] == number
            assert database.cost() == (0, 1)


def test_release_does_not_wait_for_the_answer_to_the_reset(database: Database) -> None:
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        sql("SET application_name = 'x'" if database.is_postgresql else "SET @left = 7")(connection)
        database.relay.freeze()
    database.relay.thaw()
    with db.connection() as connection:
        assert database.session_id(connection) == session_id


def test_an_answer_that_comes_too_late_costs_the_connection_and_nothing_is_left(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "PING_LIMIT_S", 0.2)
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
        database.relay.vanish()
    with db.connection() as connection:
        assert database.session_id(connection) != session_id
    assert database.reasons() == ["reset_failed"]


def test_attributes_of_the_connection_are_as_configured_in_the_next_invocation(database: Database) -> None:
    db = database.manager()

    def attributes(connection: Any) -> list[object]:
        if database.is_postgresql:
            return [connection.row_factory, connection.cursor_factory, connection.prepare_threshold]
        return [connection.cursorclass, connection.decoders]

    with db.connection() as connection:
        before = attributes(connection)
        if database.is_postgresql:
            connection.row_factory = psycopg.rows.dict_row
            connection.cursor_factory = psycopg.ClientCursor
            connection.prepare_threshold = 0
        else:
            connection.cursorclass = pymysql.cursors.DictCursor
            connection.decoders = {}
    with db.connection() as connection:
        assert attributes(connection) == before
        assert fetch(connection, "SELECT 1") in ([(1,)], ((1,),))


def test_with_never_a_setting_stays(database: Database) -> None:
    db = database.manager(reset="never")
    statement = "SET statement_timeout = 7000" if database.is_postgresql else "SET @@session.lock_wait_timeout = 7"
    with db.connection() as connection:
        sql(statement)(connection)
    with db.connection() as connection:
        assert (
            one("SHOW statement_timeout", "7s")(connection)
            if database.is_postgresql
            else one("SELECT @@lock_wait_timeout", 7)(connection)
        )


def test_a_loan_that_ends_in_an_error_is_cleaned_as_well(postgresql_database: Database) -> None:
    db = postgresql_database.manager()

    def fail(connection: Any) -> None:
        connection.execute("SET statement_timeout = 7000")
        connection.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero), db.connection() as connection:
        fail(connection)
    with db.connection() as connection:
        assert fetch(connection, "SHOW statement_timeout") == [("0",)]
    assert postgresql_database.reasons() == []


def test_behind_rds_proxy_a_touched_session_is_closed_for_it_is_pinned(server: LocalServer, tmp_path: Path) -> None:
    """Nothing is sent to clean it: the proxy gives its next client a clean one."""
    signing_host = "the-proxy.proxy-demo.us-east-1.rds.amazonaws.com"
    certificates = Certificates.create(tmp_path, extra_names=(signing_host,))
    with make_proxy(server, certificates=certificates, max_database_connections=1) as proxy:
        db: ConnectionManager[Any] = ConnectionManager(
            Settings(
                engine=server.engine,
                host=proxy.host,
                port=proxy.port,
                name=server.database,
                user=server.user,
                password=Secret(server.password),
                signing_host=signing_host,
                sslrootcert=str(certificates.ca_path),
            )
        )
        is_postgresql = server.engine == "postgresql"
        setting = "statement_timeout" if is_postgresql else "@@session.lock_wait_timeout"
        found = []
        with closing(db):
            for _ in range(2):
                with db.connection() as connection:
                    found.append(fetch(connection, f"SHOW {setting}" if is_postgresql else f"SELECT {setting}"))
                    sql(f"SET {setting} = 7")(connection)
        assert found[0] == found[1]
        assert db.stats().opened == 2
        wait_until(lambda: proxy.stats().client_connections == 0)
