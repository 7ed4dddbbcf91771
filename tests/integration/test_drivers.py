"""What each driver is made to send, to ask of the kernel, and to say about errors: on real servers."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import traceback
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest

from lambda_dbconn import (
    AuthenticationError,
    ConnectError,
    ConnectionManager,
    LambdaDbConnError,
    ProxyBusyError,
    Secret,
    Settings,
)
from lambda_dbconn.drivers import addresses
from lambda_dbconn.events import ConnectFailed
from lambda_dbconn.testing.servers import LocalMariaDB
from tests.support.database import deed, do, fetch
from tests.support.invocations import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from tests.support.database import Database

WRONG_PASSWORD = "Canary-7f3e9b"


# What is sent


def statements(database: Database, session_id: int) -> list[str]:
    """Return all SQL that a session of PostgreSQL has sent, as its server logged it."""
    lines = [line for line in database.server.log().splitlines() if f"[{session_id}]" in line]
    logged = [line.partition("LOG:  ")[2] for line in lines]
    return [words.partition(": ")[2] for words in logged if words.startswith(("statement: ", "execute "))]


@contextmanager
def logged_statements(database: Database) -> Iterator[None]:
    """Let PostgreSQL log what new sessions of the application send."""
    role = database.server.user
    database.server.execute(f"ALTER ROLE {role} SET log_statement = 'all'")
    try:
        yield
    finally:
        database.server.execute(f"ALTER ROLE {role} RESET log_statement")


def test_psycopg_sends_nothing_but_the_statements_of_the_user(postgresql_database: Database) -> None:
    database = postgresql_database
    with logged_statements(database):
        db = database.counted()
        with db.connection() as connection:
            session_id = database.session_id(connection)
            connection.execute("SELECT 'mine'")
        database.clock.advance(3600)
        with db.connection() as connection:
            assert database.session_id(connection) != session_id
        with db.connection():
            pass
    assert statements(database, session_id) == ["SELECT pg_backend_pid()", "SELECT 'mine'"]


def test_psycopg_sends_begin_and_commit_around_a_transaction_and_sets_nothing(postgresql_database: Database) -> None:
    database = postgresql_database
    with logged_statements(database):
        db = database.counted()
        with db.transaction(isolation="serializable", read_only=True) as connection:
            session_id = database.session_id(connection)
        database.clock.advance(60)
        with db.connection() as connection:
            connection.execute("SELECT 'mine'")
    assert statements(database, session_id) == [
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "SELECT pg_backend_pid()",
        "COMMIT",
        "SELECT 1",  # the ping
        "SELECT 'mine'",
    ]


def test_psycopg_never_prepares_a_statement_by_name(postgresql_database: Database) -> None:
    with postgresql_database.manager().connection() as connection:
        assert connection.prepare_threshold is None
        for number in range(20):
            assert connection.execute("SELECT %s::int", [number]).fetchone() == (number,)
        assert fetch(connection, "SELECT count(*) FROM pg_prepared_statements") == [(0,)]


def test_postgresql_knows_the_connection_by_name(postgresql_database: Database) -> None:
    with postgresql_database.manager().connection() as connection:
        assert fetch(connection, "SHOW application_name") == [("lambda_dbconn",)]


def test_mysql_knows_the_connection_by_the_functions_name(
    mariadb: LocalMariaDB,  # there is one, then
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders-api")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "42")
    with LocalMariaDB(certificates=certificates, extra_options={"performance-schema": "ON"}) as server:
        db: ConnectionManager[Any] = ConnectionManager(Settings.from_env(environ=environment(server)))
        with db.connection() as connection:
            (session_id,) = fetch(connection, "SELECT CONNECTION_ID()")[0]
            assert server.query(
                "SELECT attr_value FROM performance_schema.session_connect_attrs "
                "WHERE processlist_id = %s AND attr_name = 'program_name'",
                session_id,
            ) == [("orders-api:42",)]
        db.close()


@contextmanager
def general_log(database: Database) -> Iterator[Callable[[int], list[tuple[str, str]]]]:
    """Let a MySQL server log all commands; yield what returns those of one session."""
    server = database.server

    def commands(session_id: int) -> list[tuple[str, str]]:
        rows = server.query(
            "SELECT command_type, argument FROM mysql.general_log WHERE thread_id = %s ORDER BY event_time", session_id
        )
        return [(kind, text.decode() if isinstance(text, bytes) else text) for kind, text in rows]

    server.execute("SET GLOBAL log_output = 'TABLE'")
    server.execute("SET GLOBAL general_log = ON")
    try:
        yield commands
    finally:
        server.execute("SET GLOBAL general_log = OFF")
        server.execute("SET GLOBAL log_output = 'FILE'")


def test_pymysql_sends_set_names_and_nothing_else_of_its_own(mysql_database: Database) -> None:
    database = mysql_database
    with general_log(database) as commands:
        db = database.counted()
        with db.connection() as connection:
            session_id = database.session_id(connection)
            fetch(connection, "SELECT 'mine'")
        database.clock.advance(60)
        with db.connection():
            pass  # after a ping, which is not logged
        (login, names, *rest) = commands(session_id)
    assert login[0] == "Connect"
    assert names[0] == "Query"
    assert names[1] == "SET NAMES utf8mb4, autocommit=1"
    assert rest == [("Query", "SELECT CONNECTION_ID()"), ("Query", "SELECT 'mine'")]


def test_pymysql_sends_begin_and_commit_around_a_transaction(mysql_database: Database) -> None:
    database = mysql_database
    with general_log(database) as commands:
        db = database.counted()
        with db.transaction() as connection:
            session_id = database.session_id(connection)
        with db.transaction(read_only=True):
            pass
        sent = [text for _, text in commands(session_id)[2:]]
    assert sent == ["BEGIN", "SELECT CONNECTION_ID()", "COMMIT", "START TRANSACTION READ ONLY", "COMMIT"]


# What the session is


def test_the_lent_object_is_the_drivers_own_connection_in_autocommit(database: Database) -> None:
    with database.manager().connection() as connection:
        if database.is_postgresql:
            assert isinstance(connection, psycopg.Connection)
            assert connection.autocommit is True
        else:
            assert isinstance(connection, pymysql.Connection)
            assert connection.get_autocommit() is True


def test_a_connection_has_psycopgs_own_cursors(postgresql_database: Database) -> None:
    with postgresql_database.manager(reset="never").connection() as connection:
        assert type(connection.cursor()) is psycopg.Cursor


def test_a_statement_takes_effect_without_a_commit(database: Database) -> None:
    name = deed()
    with database.manager().connection() as connection:
        do(connection, name)
        assert database.count(name) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the options have other names elsewhere")
def test_the_kernel_watches_over_the_socket(database: Database) -> None:
    with (
        database.manager().connection() as connection,
        closing(socket.socket(fileno=os.dup(connection.fileno()))) as raw,
    ):
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert {
            "no delay": bool(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
            "keepalive after, s": raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            "keepalive every, s": raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            "keepalives": raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            "unacknowledged for, ms": raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        } == {
            "no delay": True,
            "keepalive after, s": addresses.KEEPALIVE_IDLE_S,
            "keepalive every, s": addresses.KEEPALIVE_INTERVAL_S,
            "keepalives": addresses.KEEPALIVE_COUNT,
            "unacknowledged for, ms": addresses.UNACKNOWLEDGED_LIMIT_MS,
        }


@pytest.mark.parametrize("value", ["ä", "😀", "\\", "'", "%s"])
def test_text_comes_back_as_it_was_sent(value: str, database: Database) -> None:
    with database.manager().connection() as connection:
        assert fetch(connection, "SELECT %s", value) == ([(value,)] if database.is_postgresql else ((value,),))


# What errors mean


def refusal(database: Database, **changes: Any) -> ConnectError:
    """Return why the connection was not made; it must have been tried once only."""
    with pytest.raises(ConnectError) as raised, database.manager(**changes).connection():
        pytest.fail("it is connected")
    assert len(database.observer.of(ConnectFailed)) == 1
    return raised.value


def test_a_wrong_password_is_refused_at_once(database: Database) -> None:
    error = refusal(database, password=Secret(WRONG_PASSWORD))
    assert isinstance(error, AuthenticationError)
    assert not error.retryable
    assert database.relay.connects == 1
    assert database.server.user in str(error)
    assert f"127.0.0.1:{database.relay.port}" in str(error)


def test_no_password_is_refused_at_once(database: Database) -> None:
    assert isinstance(refusal(database, password=None), AuthenticationError)


def test_an_unknown_user_is_refused_at_once(database: Database) -> None:
    assert isinstance(refusal(database, user="nobody-knows"), AuthenticationError)


def test_an_unknown_database_is_refused_at_once_and_named(database: Database) -> None:
    error = refusal(database, name="no_such_database")
    assert type(error) is ConnectError
    assert not error.retryable
    assert "no_such_database" in str(error)
    assert "NAME" in error.remedy


@contextmanager
def read_only(database: Database) -> Iterator[None]:
    """Let the server refuse writes, as a demoted one does, while its sessions stay as they are."""
    server = database.server
    if database.is_postgresql:
        switch = [
            f"ALTER ROLE {server.user} {word}" for word in ("SET default_transaction_read_only = on", "RESET ALL")
        ]
    else:
        switch = [f"SET GLOBAL read_only = {word}" for word in ("ON", "OFF")]
    server.execute(switch[0])
    try:
        yield
    finally:
        server.execute(switch[1])


def test_a_demoted_server_costs_the_connection_and_the_error_is_the_drivers_own(database: Database) -> None:
    db, name = database.manager(), deed()
    with read_only(database):
        with pytest.raises((psycopg.errors.ReadOnlySqlTransaction, pymysql.err.OperationalError)), db.connection() as c:
            do(c, name)
        assert db.stats().open == 0
    with db.connection() as connection:
        do(connection, name)
    assert database.reasons() == ["read_only"]
    assert database.count(name) == 1


def test_a_write_that_met_a_demoted_server_is_run_again_on_a_new_connection(database: Database) -> None:
    db, name, calls = database.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(name)
        try:
            do(connection, name)
        finally:
            demotion.close()

    with ExitStack() as demotion:
        demotion.enter_context(read_only(database))
        db.run(work)
    assert len(calls) == 2
    assert database.reasons() == ["read_only"]
    assert database.count(name) == 1


def test_a_write_in_a_read_only_transaction_says_nothing_about_the_server(database: Database) -> None:
    db, calls = database.manager(), []

    def work(connection: Any) -> None:
        calls.append(database.session_id(connection))
        do(connection, deed())

    with pytest.raises((psycopg.errors.ReadOnlySqlTransaction, pymysql.err.Error)):
        db.run(work, read_only=True)
    assert len(calls) == 1
    with db.connection() as connection:
        assert database.session_id(connection) == calls[0]


def test_a_user_with_too_many_connections_is_busy(database: Database) -> None:
    with limited_user(database) as user, database.manager(user=user, name=None).connection():
        impatient = database.manager(user=user, name=None, connect_timeout_s=1.5)
        with pytest.raises(ProxyBusyError) as raised, impatient.connection():
            pytest.fail("it is connected")
    assert raised.value.retryable
    assert impatient.stats().connect_failures > 1


@contextmanager
def limited_user(database: Database) -> Iterator[str]:
    """Make a user, with the application's password, who may have one connection; a pooler may hold others."""
    user, server = "alone", database.server
    if database.is_postgresql:
        server.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{server.password}' CONNECTION LIMIT 1")
        server.execute(f"CREATE DATABASE {user}")
    else:
        server.execute(f"CREATE USER {user}@'%' IDENTIFIED BY '{server.password}' WITH MAX_USER_CONNECTIONS 1")
    try:
        yield user
    finally:
        if database.is_postgresql:
            server.execute(f"DROP DATABASE {user} WITH (FORCE)")
            server.execute(f"DROP ROLE {user}")
        else:
            server.execute(f"DROP USER {user}@'%'")


# What errors do not tell


def everything_shown(database: Database, error: BaseException) -> str:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    shown = [f"{each!s} {each!r} {each.args!r}" for each in chain]
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    events = [repr(event) for event in database.observer.events]
    return "\n".join([*shown, *trace.format(), *events])


@pytest.mark.parametrize(
    "changes",
    [
        {"password": Secret(WRONG_PASSWORD)},
        {"name": "no_such_database", "password": None},
        {"user": "nobody-knows"},
        {"port": 1, "connect_timeout_s": 0.2},
        {"host": "alias.invalid"},
    ],
    ids=["wrong password", "wrong database", "wrong user", "wrong port", "wrong name"],
)
def test_no_error_shows_the_password(
    changes: dict[str, Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda *_: ["127.0.0.1"])
    if changes.get("password", ...) is None:
        changes = changes | {"password": Secret(database.server.password)}
    db = database.manager(**changes)
    with pytest.raises(LambdaDbConnError) as raised, db.connection():
        pytest.fail("it is connected")
    shown = everything_shown(database, raised.value) + repr(db) + repr(db.settings) + repr(db.stats())
    assert database.server.password not in shown
    assert WRONG_PASSWORD not in shown
    pickled = pickle.dumps(raised.value)
    assert database.server.password.encode() not in pickled
    assert WRONG_PASSWORD.encode() not in pickled
    copy = pickle.loads(pickled)
    assert str(copy) == str(raised.value)
    assert type(copy) is type(raised.value)
