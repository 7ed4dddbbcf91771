"""How the local RDS Proxy shares database connections, and when it ties one to a client."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from lambda_dbconn.testing.rds_proxy.pinning import pin_reason
from tests.support.clients import wait_until
from tests.support.rds_proxy import (
    DRIVER_ERRORS,
    break_socket,
    clients,
    connect,
    database_session,
    make_proxy,
    rows,
    value,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, LocalServer

pytestmark = pytest.mark.once

BORROW_TIMEOUT = {
    "postgresql": "Timed-out waiting to acquire database connection.",
    "mysql": "Timed-out waiting to acquire database connection",
}


@pytest.fixture
def narrow_proxy(server: LocalServer) -> Iterator[LocalRdsProxy]:
    """A proxy with one connection to the database."""
    with make_proxy(server, max_database_connections=1, borrow_timeout_s=0.3) as proxy:
        yield proxy


def begin(connection: Any) -> int:
    """Open a transaction, and say on which connection to the database."""
    rows(connection, "BEGIN")
    return database_session(connection)


@pytest.mark.parametrize("most", [1, 2])
def test_many_clients_share_few_database_connections(server: LocalServer, most: int) -> None:
    with make_proxy(server, max_database_connections=most) as proxy, clients(proxy, server.password, 8) as connections:
        sessions: set[int] = set()

        def work(connection: Any) -> None:
            for number in range(25):
                assert value(connection, "SELECT %s + 1", number) == number + 1
                rows(connection, "BEGIN")
                sessions.update({database_session(connection)})
                assert database_session(connection) in sessions
                rows(connection, "COMMIT")

        threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sessions) <= most
        stats = proxy.stats()
        assert (stats.most_database_connections, stats.client_connections, stats.pins) == (most, 8, {})
        assert stats.borrows >= 8 * 50
        assert stats.borrowed_connections == 0


def test_a_transaction_keeps_its_database_connection_and_others_wait_in_vain(
    narrow_proxy: LocalRdsProxy, server: LocalServer
) -> None:
    with clients(narrow_proxy, server.password, 2) as (holder, other):
        begin(holder)
        started_s = time.monotonic()
        with pytest.raises(DRIVER_ERRORS, match=BORROW_TIMEOUT[server.engine]) as caught:
            value(other, "SELECT 1")
        assert 0.25 < time.monotonic() - started_s < 2
        error: Any = caught.value
        assert getattr(error, "sqlstate", None) == "08000" if server.engine == "postgresql" else error.args[0] == 9501
        assert narrow_proxy.stats().borrow_timeouts == 1
        rows(holder, "COMMIT")
        assert value(other, "SELECT 1") == 1  # its session goes on


def test_those_who_wait_are_served_in_their_order(server: LocalServer) -> None:
    with (
        make_proxy(server, max_database_connections=1) as proxy,
        clients(proxy, server.password, 4) as (holder, *waiting),
    ):
        begin(holder)
        served: list[tuple[float, int]] = []
        is_mysql = server.engine == "mysql"
        now = "SELECT UNIX_TIMESTAMP(SYSDATE(6))" if is_mysql else "SELECT extract(epoch FROM clock_timestamp())"

        def ask(number: int, connection: Any) -> None:
            served.append((value(connection, now), number))  # the server's time: threads wake up in any order

        threads = [threading.Thread(target=ask, args=item) for item in enumerate(waiting)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        rows(holder, "COMMIT")
        for thread in threads:
            thread.join()
        assert [number for _, number in sorted(served)] == [0, 1, 2]


def test_a_client_that_leaves_while_it_waits_runs_nothing(server: LocalServer) -> None:
    server.execute("CREATE TABLE IF NOT EXISTS left_behind (id INT)")
    server.execute("DELETE FROM left_behind")
    server.execute("GRANT ALL ON left_behind TO app")
    with (
        make_proxy(server, max_database_connections=1) as proxy,
        clients(proxy, server.password, 2) as (holder, leaver),
    ):
        begin(holder)

        def insert() -> None:
            with pytest.raises(DRIVER_ERRORS):
                rows(leaver, "INSERT INTO left_behind VALUES (1)")

        thread = threading.Thread(target=insert)
        thread.start()
        wait_until(lambda: proxy.sessions()[1].statements and proxy.sessions()[1].statements[-1].text.startswith("INS"))
        break_socket(leaver)
        thread.join()
        rows(holder, "COMMIT")
        wait_until(lambda: proxy.stats().borrowed_connections == 0)
        assert value(holder, "SELECT count(*) FROM left_behind") == 0


def test_a_client_that_leaves_in_a_transaction_costs_its_database_connection(
    narrow_proxy: LocalRdsProxy, server: LocalServer
) -> None:
    with clients(narrow_proxy, server.password, 2) as (leaver, other):
        session = begin(leaver)
        break_socket(leaver)
        wait_until(lambda: narrow_proxy.stats().borrowed_connections == 0)
        assert database_session(other) != session


def test_a_pinned_client_keeps_its_database_connection_until_it_leaves(
    narrow_proxy: LocalRdsProxy, server: LocalServer
) -> None:
    statement = "SET statement_timeout = 0" if server.engine == "postgresql" else "SET @mine = 1"
    with clients(narrow_proxy, server.password, 2) as (pinned, other):
        rows(pinned, statement)
        with pytest.raises(DRIVER_ERRORS, match=BORROW_TIMEOUT[server.engine]):
            value(other, "SELECT 1")
        assert value(pinned, "SELECT 1") == 1
        session = narrow_proxy.sessions()[0]
        assert session.pin_reason == "SQL changed session settings that the proxy doesn't track."
        assert narrow_proxy.stats().pins == {session.pin_reason: 1}
        assert (
            f"[WARN] [proxyEndpoint=default] [clientConnection={session.number}] The client session was pinned to the "
            "database connection [dbConnection="
        ) in narrow_proxy.log()
        pinned.close()
        wait_until(lambda: narrow_proxy.stats().borrowed_connections == 0)
        assert value(other, "SELECT 1") == 1
        assert not narrow_proxy.sessions()[0].is_open


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_statement_of_more_than_16_kb_pins(engine: str) -> None:
    assert pin_reason(engine, b"SELECT 1 -- " + b"x" * (16 * 1024 - 12)) is None
    assert pin_reason(engine, b"SELECT 1 -- " + b"x" * (16 * 1024 - 11)) == "The statement is longer than 16 KB."


def test_a_long_statement_pins_on_the_wire_whatever_its_length(
    narrow_proxy: LocalRdsProxy, server: LocalServer
) -> None:
    for length in (17_000, 100_000):
        with closing(connect(narrow_proxy, server.password)) as connection:
            assert value(connection, f"SELECT '{'x' * length}'") == "x" * length
        wait_until(lambda: narrow_proxy.stats().borrowed_connections == 0)
    assert narrow_proxy.stats().pins == {"The statement is longer than 16 KB.": 2}


@pytest.mark.parametrize(
    "statement",
    [
        "SET search_path = public",
        "  set LOCAL statement_timeout = 1",
        "/* why */ RESET ALL",
        "BEGIN; SET timezone = 'UTC'",
        "SELECT set_config('jit', 'off', false)",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "CREATE TEMP TABLE t (id int)",
        "create local temporary view v as select 1",
        "CREATE TEMPORARY SEQUENCE s",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "SELECT 1 AS x INTO TEMP t",
        "DECLARE c CURSOR FOR SELECT 1",
        "LISTEN news",
        "LOAD 'auto_explain'",
        "SELECT nextval('s')",
        "INSERT INTO t VALUES (nextval ('s'))",
        "SELECT setval('s', 1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1)",
    ],
)
def test_what_pins_for_postgresql(statement: str) -> None:
    assert pin_reason("postgresql", statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "UPDATE t SET a = 1",
        "SAVEPOINT s",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
        "SELECT 'SET x = 1'; -- SET y = 2",
        "SELECT $$ a; SET x = 1 $$, E'it''s \\'; SET x'",
        'SELECT "set_config(" FROM t',
        "COPY t FROM STDIN",
        "NOTIFY news",
        "CALL procedure_that_sets()",
    ],
)
def test_what_does_not_pin_for_postgresql(statement: str) -> None:
    assert pin_reason("postgresql", statement.encode()) is None


@pytest.mark.parametrize(
    "statement",
    [
        "LOCK TABLES t READ",
        "lock table t write",
        "FLUSH TABLES WITH READ LOCK",
        "SELECT GET_LOCK('a', 1)",
        "SET @a = 1",
        "SELECT @a := 1",
        "SELECT 1 INTO @a",
        "SET max_execution_time = 1000",
        "SET SESSION group_concat_max_len = 1",
        "SET autocommit = 1, @@session.lock_wait_timeout = 5",
        "SET session_track_gtids = 'OWN_GTID'",
        "CREATE TEMPORARY TABLE t (id int)",
        "SELECT FOUND_ROWS()",
        "SELECT ROW_COUNT ( )",
        "PREPARE p FROM 'SELECT 1'",
        "/*!40101 SELECT 1 */",
        "SELECT /*M! 1 */",
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    ],
)
def test_what_pins_for_mysql(statement: str) -> None:
    assert pin_reason("mysql", statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
        "SET CHARACTER SET utf8mb4",
        "SET AUTOCOMMIT = 0",
        "SET sql_mode = CONCAT(@@sql_mode, ',ANSI'), time_zone='+00:00'",
        "set @@session.`wait_timeout` := 60",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION transaction_read_only = 1",
        "SET LOCAL group_concat_max_len = 1",
        "USE app",
        "DROP DATABASE nowhere",
        "INSERT INTO t VALUES ('SET @a = 1')",
        "UPDATE t SET a = 1 -- SET @a = 1",
        "SELECT 1 /* SET @a = 1 */ # GET_LOCK(",
        "CALL procedure_that_sets()",
        "SELECT @a, LAST_INSERT_ID()",
    ],
)
def test_what_does_not_pin_for_mysql(statement: str) -> None:
    assert pin_reason("mysql", statement.encode()) is None


def test_mysqls_tracked_variables_follow_the_client_from_connection_to_connection(mariadb: LocalMariaDB) -> None:
    with (
        make_proxy(mariadb, max_database_connections=2) as proxy,
        clients(proxy, mariadb.password, 3) as (mine, other, holder),
    ):
        rows(mine, "SET time_zone = '+05:45', sql_mode = 'ANSI_QUOTES', character_set_results = NULL")
        rows(mine, "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        seen = []
        for _ in range(3):
            assert value(other, "SELECT @@time_zone") == "SYSTEM"
            begin(holder)  # and mine needs another connection than before
            seen.append(rows(mine, "SELECT @@time_zone, @@sql_mode, @@tx_isolation, @@character_set_results")[0])
            rows(holder, "COMMIT")
        assert seen == [("+05:45", "ANSI_QUOTES", "SERIALIZABLE", None)] * 3
        assert proxy.stats().pins == {}


def test_mysqls_current_database_follows_the_client(mariadb: LocalMariaDB) -> None:
    mariadb.execute("CREATE DATABASE IF NOT EXISTS other_app")
    mariadb.execute("GRANT ALL ON other_app.* TO app")
    with (
        make_proxy(mariadb, max_database_connections=1) as proxy,
        clients(proxy, mariadb.password, 3) as (mine, other, third),
    ):
        mine.select_db("other_app")
        rows(third, "USE other_app")
        for _ in range(2):
            assert value(mine, "SELECT DATABASE()") == "other_app"
            assert value(other, "SELECT DATABASE()") == "app"
            assert value(third, "SELECT DATABASE()") == "other_app"
        assert proxy.stats().pins == {}


def test_without_autocommit_pymysql_holds_a_connection_until_it_commits(mariadb: LocalMariaDB) -> None:
    with make_proxy(mariadb) as proxy, closing(connect(proxy, mariadb.password, autocommit=False)) as connection:
        assert proxy.stats().borrowed_connections == 0
        value(connection, "SELECT 1")
        assert proxy.stats().borrowed_connections == 1
        connection.ping()
        assert proxy.stats().borrowed_connections == 1
        connection.commit()
        assert proxy.stats().borrowed_connections == 0


def test_a_mysql_error_leaves_a_transaction_open_or_ends_it(mariadb: LocalMariaDB) -> None:
    with make_proxy(mariadb) as proxy, closing(connect(proxy, mariadb.password)) as connection:
        for is_open in (False, True):
            if is_open:
                begin(connection)
            with pytest.raises(pymysql.err.ProgrammingError):
                rows(connection, "SELECT FROM")
            assert proxy.stats().borrowed_connections == is_open
        rows(connection, "ROLLBACK TO SAVEPOINT nowhere") if not is_open else rows(connection, "ROLLBACK")
        assert proxy.stats().borrowed_connections == 0


def test_what_a_driver_sent_is_on_record(postgres: LocalPostgres, mariadb: LocalMariaDB) -> None:
    with make_proxy(postgres) as proxy, closing(connect(proxy, postgres.password, autocommit=False)) as connection:
        value(connection, "SELECT %s::int", 1)
        connection.commit()
        (record,) = proxy.sessions()
        assert (record.user, record.database, record.is_open) == ("app", "app", True)
        assert [(request.kind, request.text) for request in record.statements] == [
            ("Query", "BEGIN"),
            ("Parse", "SELECT $1::int"),
            ("Bind", ""),
            ("Describe", ""),
            ("Execute", ""),
            ("Sync", ""),
            ("Query", "COMMIT"),
        ]
    with make_proxy(mariadb) as proxy, closing(connect(proxy, mariadb.password, autocommit=False)) as connection:
        connection.ping()
        (record,) = proxy.sessions()
        assert [(request.kind, request.text) for request in record.statements] == [
            ("COM_QUERY", "SET NAMES utf8mb4"),
            ("COM_QUERY", "SET AUTOCOMMIT = 0"),
            ("COM_PING", ""),
        ]
