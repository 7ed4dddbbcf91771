"""The guard against pinning with real drivers and servers, through the local RDS Proxy, whose record it must meet."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pymysql
import pymysql.cursors
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from lambda_dbconn import ConnectionManager, SessionPinnedError
from lambda_dbconn.events import SessionPinned
from lambda_dbconn.testing.fakes import RecordingObserver
from tests.support.clients import wait_until
from tests.support.rds_proxy import make_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, LocalServer

# Each pins or not, with both drivers' ways to send it; what pins is left undone by closing the session.
STATEMENTS: dict[str, list[tuple[str, bool]]] = {
    "postgresql": [
        ("SELECT 1", False),
        ("SELECT 'SET x', $$LISTEN y$$ /* DISCARD ALL */", False),
        ("BEGIN; SELECT 1; COMMIT", False),
        ("SELECT pg_try_advisory_xact_lock(1)", False),
        ("SAVEPOINT a", False),
        ("SET statement_timeout = 1000", True),
        ("/* a */ SET LOCAL statement_timeout = 1000", True),
        ("SELECT 1; RESET ALL", True),
        ("SELECT pg_catalog.set_config('work_mem', '1MB', false)", True),
        ("PREPARE p AS SELECT 1", True),
        ("DISCARD ALL", True),
        ("CREATE TEMP TABLE pinned_a (id int)", True),
        ("SELECT 1 AS a INTO TEMP pinned_b", True),
        ("LISTEN x", True),
        ("SELECT pg_advisory_lock(1)", True),
        ("SELECT '" + "x" * 17000 + "'", True),
    ],
    "mysql": [
        ("SELECT 1", False),
        ("SELECT 'SET @a = 1', `n` FROM (SELECT 1 AS n) AS t # SET @a = 1", False),
        ("SET NAMES utf8mb4", False),
        ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", False),
        ("SET SESSION sql_mode = ''", False),
        ("SELECT @a, LAST_INSERT_ID()", False),
        ("SET @a = 1", True),
        ("SELECT 1 INTO @a", True),
        ("SELECT @a := 1", True),
        ("SET SESSION max_statement_time = 10", True),
        ("SET TRANSACTION READ ONLY", True),
        ("SELECT GET_LOCK('pins', 0)", True),
        ("SELECT 1 /*! + 1 */", True),
        ("CREATE TEMPORARY TABLE pinned_a (id int)", True),
        ("SELECT FOUND_ROWS()", True),
        ("PREPARE p FROM 'SELECT 1'", True),
        ("SELECT '" + "x" * 17000 + "'", True),
    ],
}


@pytest.fixture
def proxy(server: LocalServer, proxy_certificates: Certificates) -> Iterator[LocalRdsProxy]:
    with make_proxy(server, certificates=proxy_certificates, max_database_connections=2, borrow_timeout_s=5) as proxy:
        yield proxy


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def make(proxy: LocalRdsProxy, observer: RecordingObserver) -> Iterator[Callable[..., Any]]:
    """Make managers that reach the server through the proxy."""
    managers: list[ConnectionManager[Any]] = []

    def make(on_pin: str = "warn", reset: str = "always") -> ConnectionManager[Any]:
        settings = settings_for(proxy, on_pin=on_pin, reset=reset)
        managers.append(ConnectionManager(settings, observer=observer))
        return managers[-1]

    yield make
    for db in managers:
        db.close()


def send(connection: Any, statement: str) -> None:
    """Send and read one statement; that it fails does not matter."""
    with suppress(psycopg.Error, pymysql.Error), connection.cursor() as cursor:
        cursor.execute(statement)
        if cursor.description:
            cursor.fetchall()


def test_the_guards_verdicts_are_the_proxys_record(
    server: LocalServer, proxy: LocalRdsProxy, make: Callable[..., Any], observer: RecordingObserver
) -> None:
    db = make()
    for statement, pins in STATEMENTS[server.engine]:
        observer.events.clear()
        with db.connection() as connection:
            send(connection, statement)
            record = proxy.sessions()[-1]
            assert ((record.pin_reason is not None), bool(observer.of(SessionPinned))) == (pins, pins), statement
    wait_until(lambda: proxy.stats().borrowed_connections == 0)


def test_a_pinned_connection_is_dropped_and_the_database_connection_is_free_again(
    server: LocalServer, proxy: LocalRdsProxy, make: Callable[..., Any], observer: RecordingObserver
) -> None:
    db = make()
    pinning = "LISTEN x" if server.engine == "postgresql" else "SET @a = 1"
    with db.connection() as first:
        send(first, pinning)
        assert proxy.stats().borrowed_connections == 1
    wait_until(lambda: proxy.stats().borrowed_connections == 0)
    with db.connection() as second:
        assert second is not first
        send(second, "SELECT 1")
    with db.connection() as third:
        assert third is second
    assert db.stats().replaced == {"pinned": 1}
    (event,) = observer.of(SessionPinned)
    assert event.place.startswith(__file__)


def test_without_the_guard_it_stays_pinned(server: LocalServer, proxy: LocalRdsProxy, make: Callable[..., Any]) -> None:
    db = make(on_pin="ignore", reset="never")
    with db.connection() as connection:
        send(connection, "LISTEN x" if server.engine == "postgresql" else "SET @a = 1")
        assert type(connection).__name__ == "Connection"
    assert proxy.stats().borrowed_connections == 1


def test_raise_sends_nothing_and_the_connection_is_good(
    server: LocalServer, proxy: LocalRdsProxy, make: Callable[..., Any]
) -> None:
    db = make(on_pin="raise")
    with db.connection() as connection:
        send(connection, "SELECT 1")
        for statement, pins in STATEMENTS[server.engine]:
            if pins:
                with pytest.raises(SessionPinnedError):
                    connection.cursor().execute(statement)
        send(connection, "SELECT 2")
    assert proxy.stats().pins == {}
    requests = [request.text for request in proxy.sessions()[-1].statements]
    assert [text for text in requests if text.startswith("SELECT")] == ["SELECT 1", "SELECT 2"]
    with db.connection() as again:
        assert again is connection


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_every_way_of_psycopg_is_seen(make: Callable[..., Any], server: LocalPostgres) -> None:
    db = make(on_pin="raise")
    pinning: Any = "SELECT set_config('work_mem', '1MB', false) WHERE 1 = %s"
    plain: Any = "SET work_mem = '1MB'"

    def copy(cursor: Any) -> None:
        with cursor.copy("COPY (SELECT nextval('s')) TO STDOUT") as rows:
            rows.read()

    def declare(cursor: Any) -> None:
        with cursor:
            cursor.execute("SELECT 1")

    with db.connection() as connection:
        assert isinstance(connection, psycopg.Connection)
        ways: list[Callable[[], object]] = [
            lambda: connection.execute(plain),
            lambda: connection.execute(plain.encode()),
            lambda: connection.execute(sql.SQL("SET {} = {}").format(sql.Identifier("work_mem"), sql.Literal("1MB"))),
            lambda: connection.execute(pinning, (1,)),
            lambda: connection.cursor().executemany(pinning, [(1,), (2,)]),
            lambda: list(connection.cursor().stream(pinning, (1,))),
            lambda: copy(connection.cursor()),
            lambda: declare(connection.cursor("named")),
            lambda: connection.cursor(row_factory=dict_row).execute(plain),
        ]
        for number, way in enumerate(ways):
            with pytest.raises(SessionPinnedError):
                way()
            assert connection.execute("SELECT %s", (number,)).fetchone() == (number,)
        with connection.pipeline(), pytest.raises(SessionPinnedError):
            connection.execute(pinning, (1,))
        connection.prepare_threshold = 0  # named statements: they are seen when they are prepared
        with pytest.raises(SessionPinnedError):
            connection.execute(pinning, (1,))
        connection.prepare_threshold = None
        connection.cursor_factory = psycopg.ClientCursor
        connection.execute("SELECT %s", ("x" * 16000,))
        for way in (
            lambda: connection.execute("SELECT %s", ("x" * 17000,)),  # merged by the client, it is too long
            lambda: connection.cursor().executemany("SELECT %s", [("x",), ("x" * 17000,)]),
        ):
            with pytest.raises(SessionPinnedError):
                way()
        connection.cursor_factory = psycopg.Cursor
        assert connection.execute("SELECT length(%s)", ("x" * 17000,)).fetchone() == (17000,)


class Upper(psycopg.Cursor[Any]):
    """A user's own cursor: with state, and with a way of its own."""

    calls = 0

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return super().execute(query.upper(), *args, **options)


class Registered(psycopg.Cursor[Any]):
    """A user's own cursor, which wants to know its subclasses, and something of each."""

    known: ClassVar[list[str]] = []

    def __init_subclass__(cls, *, table: str) -> None:
        super().__init_subclass__()
        cls.known.append(table)


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_a_users_cursor_class_is_not_told_that_it_is_watched(make: Callable[..., Any], server: LocalPostgres) -> None:
    db = make(on_pin="raise")
    with db.connection() as connection:
        connection.cursor_factory = Registered
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(SessionPinnedError):
            connection.execute("SET work_mem = '1MB'")
    assert Registered.known == []


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_psycopgs_own_and_the_users_cursors_work_as_ever(make: Callable[..., Any], server: LocalPostgres) -> None:
    db = make(on_pin="raise")
    with db.connection() as connection:
        connection.cursor_factory = Upper
        connection.row_factory = dict_row
        with connection.cursor() as cursor:
            assert isinstance(cursor, Upper)
            assert cursor.connection is connection
            assert repr(cursor).startswith(f"<{__name__}.Upper ")
            assert cursor.execute("select 'a' as b").fetchone() == {"b": "A"}
            assert cursor.calls == 1
            with pytest.raises(SessionPinnedError):
                cursor.execute("listen x")
        any_callable: Any = partial(psycopg.RawCursor)  # not a class, and taken all the same
        connection.cursor_factory = any_callable
        assert connection.execute("SELECT $1 AS b", [1]).fetchone() == {"b": 1}
        with pytest.raises(SessionPinnedError):
            connection.execute("SET work_mem = '1MB'")
        connection.cursor_factory = type(connection.cursor())  # one that is watched already
        assert type(connection.cursor()) is connection.cursor_factory
        with connection.transaction():
            assert connection.execute("SELECT 2 AS c").fetchone() == {"c": 2}
        connection.cursor_factory, connection.row_factory = psycopg.Cursor, psycopg.rows.tuple_row


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_every_way_and_every_cursor_of_pymysql_is_seen_and_works(
    make: Callable[..., Any], server: LocalMariaDB
) -> None:
    db = make(on_pin="raise")
    with db.connection() as connection:
        assert isinstance(connection, pymysql.Connection)
        kinds: dict[Any, object] = {
            pymysql.cursors.Cursor: (7,),
            pymysql.cursors.DictCursor: {"a": 7},
            pymysql.cursors.SSCursor: (7,),
            pymysql.cursors.SSDictCursor: {"a": 7},
        }
        for kind, row in kinds.items():
            with connection.cursor(kind) as cursor:
                cursor.execute("SELECT %s AS a", (7,))
                assert type(cursor) is kind
                assert list(cursor.fetchall()) == [row]
            with connection.cursor(kind) as cursor, pytest.raises(SessionPinnedError):
                cursor.execute("SET @a = %s", (7,))
        for way in (
            lambda: connection.query("SET @a = 1"),
            lambda: connection.query(b"SET @a = 1"),
            lambda: connection.query(bytearray(b"SET @a = 1")),
            lambda: pymysql.cursors.Cursor(connection).execute("SET @a = 1"),
            lambda: connection.cursor().callproc("p", (1,)),
            lambda: connection.cursor().executemany("INSERT INTO t VALUES (%s)", [("x" * 17000,)]),
        ):
            with pytest.raises(SessionPinnedError):
                way()
        connection.cursorclass = pymysql.cursors.DictCursor
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 AS b")
            assert cursor.fetchall() == [{"b": 1}]
        connection.cursorclass = pymysql.cursors.Cursor
