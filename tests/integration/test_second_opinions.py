"""The local RDS Proxy beside poolers that others wrote: PgBouncer in transaction mode, and MySQL Router.

A scenario is driven through the stand-in and through the other pooler, and says what it saw: that must be the same.
Where the two differ by design, the test says what each does, and which document says so:

- [RDS] Amazon RDS user guide, "Avoiding pinning an RDS Proxy" and "RDS Proxy concepts and terminology".
- [PGB] pgbouncer.org, "Features", the SQL feature map for pooling modes, and "Config".
- [MYR] MySQL Router manual, "Connection Sharing and Reuse".

None of this compares the stand-in with RDS Proxy itself.
"""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest
from pymysql.constants import COMMAND

from tests.support.poolers import no_pooler, other_pooler, pgbouncer_knows_prepared_statements, stand_in
from tests.support.rds_proxy import break_socket, database_session, rows, value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.servers import LocalPostgres, LocalServer
    from tests.support.mysql import LocalMySQL
    from tests.support.poolers import Pooler

pytestmark = pytest.mark.once

_SETTINGS = "SQL changed session settings that the proxy doesn't track."
_PREPARED = "Running a prepared statement."
_JOIN_TIMEOUT_S = 20.0


@pytest.fixture(params=["postgres", "mysql"])
def backend(request: pytest.FixtureRequest) -> LocalServer:
    """Each engine that another pooler can be had for, with the table that the scenarios use."""
    server: LocalServer = request.getfixturevalue(f"pooled_{request.param}")
    server.execute("DROP TABLE IF EXISTS account")
    server.execute("CREATE TABLE account (name varchar(20) PRIMARY KEY, balance int NOT NULL)")
    server.execute("INSERT INTO account VALUES ('shared', 0)")
    if server.engine == "postgresql":
        server.execute(f"ALTER TABLE account OWNER TO {server.user}")
    return server


def answer(connection: Any, statement: str, *parameters: Any) -> Any:
    """Run a statement, and return all that the driver says of its outcome."""
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute(statement, parameters or None)
            columns = [column[:2] for column in cursor.description or ()]
            return columns, list(cursor.fetchall()) if columns else [], cursor.rowcount
    except psycopg.Error as error:
        return type(error).__name__, error.sqlstate, error.diag.message_primary
    except pymysql.Error as error:
        return type(error).__name__, *error.args


# Scenarios that must look the same.

_STATEMENTS: list[tuple[Any, ...]] = [  # each with its parameters
    ("INSERT INTO account VALUES ('a', 1), ('b', 2)",),
    ("INSERT INTO account VALUES (%s, %s)", "\N{SNOWMAN}", -3),
    ("INSERT INTO account VALUES ('a', 1)",),
    ("UPDATE account SET balance = balance + 1 WHERE name = 'nobody'",),
    ("SELECT name, balance, NULL AS nothing FROM account ORDER BY balance",),
    ("SELECT name FROM account WHERE balance = %s", 1_000),
    ("SELECT CURRENT_USER, 1.50, 12345678901, DATE '2026-11-22', TIMESTAMP '2026-11-22 01:02:03'",),
    ("SELECT %s", "x" * 10_000),
    ("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, %s FROM n", "y" * 90),
    ("SELECT 1 +",),
    ("SELECT * FROM missing",),
    ("DELETE FROM account WHERE balance <> 0",),
    ("CREATE TABLE made (id int)",),
    ("ALTER TABLE made ADD COLUMN more int",),
    ("DROP TABLE made",),
]


def answers_to_one_client(pooler: Pooler) -> Any:
    with pooler.clients(1) as (client,):
        return [answer(client, *statement) for statement in _STATEMENTS]


def a_connection_is_given_back_after_each_transaction(pooler: Pooler) -> Any:
    with pooler.clients(3) as (first, second, third):
        sessions = []
        for end in ("COMMIT", "ROLLBACK"):
            rows(first, "BEGIN")
            rows(first, "UPDATE account SET balance = balance + 1")
            sessions.append(database_session(first))
            rows(first, end)
            sessions += [database_session(second), database_session(third)]
        pooler.check_sessions(sessions)
        return value(third, "SELECT balance FROM account")


def an_error_in_a_transaction(pooler: Pooler) -> Any:
    with pooler.clients(2) as (first, second):
        seen = [
            answer(first, statement)
            for statement in (
                "BEGIN",
                "UPDATE account SET balance = balance + 1",
                "INSERT INTO account VALUES ('shared', 0)",  # an error; to PostgreSQL it is the transaction's end
                "SELECT balance FROM account",
                "COMMIT",
                "SELECT balance FROM account",
            )
        ]
        assert seen[2][0] in {"UniqueViolation", "IntegrityError"}
        pooler.check_sessions([database_session(first), database_session(second)])
        return seen, answer(second, "SELECT balance FROM account")


def _an_abandoned_transaction(pooler: Pooler, *, politely: bool) -> Any:
    with pooler.clients(2) as (first, second):
        rows(first, "BEGIN")
        rows(first, "UPDATE account SET balance = balance + 1")
        if politely:
            first.close()
        else:
            break_socket(first)
        rows(second, "UPDATE account SET balance = balance + 10")  # when nobody has the row locked
        pooler.check_sessions()
        return value(second, "SELECT balance FROM account")


def a_transaction_whose_client_says_goodbye(pooler: Pooler) -> Any:
    return _an_abandoned_transaction(pooler, politely=True)


def a_transaction_whose_client_vanishes(pooler: Pooler) -> Any:
    return _an_abandoned_transaction(pooler, politely=False)


def many_clients_at_once(pooler: Pooler) -> Any:
    sessions = set()

    def work(number: int, client: Any) -> list[Any]:
        seen: list[Any] = []
        for turn in range(8):
            seen.append(value(client, "SELECT %s + 1", number + turn))
            rows(client, "BEGIN")
            session = database_session(client)
            rows(client, "INSERT INTO account VALUES (%s, %s)", f"{number}-{turn}", turn)
            seen.append(database_session(client) == session)
            sessions.add(session)
            rows(client, "COMMIT" if turn % 2 else "ROLLBACK")
            seen.append(answer(client, "INSERT INTO account VALUES ('shared', 0)"))
        return seen

    with pooler.clients(6) as clients, ThreadPoolExecutor(6) as threads:
        seen = list(threads.map(work, range(6), clients))
        pooler.check_sessions(sessions)
        return seen, sorted(rows(clients[0], "SELECT name, balance FROM account"))


@pytest.mark.parametrize(
    ("scenario", "size"),
    [
        (answers_to_one_client, 1),
        (a_connection_is_given_back_after_each_transaction, 1),
        (an_error_in_a_transaction, 1),
        (a_transaction_whose_client_says_goodbye, 1),
        (a_transaction_whose_client_vanishes, 1),
        (many_clients_at_once, 2),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_clients_see_the_same_through_both(backend: LocalServer, scenario: Callable[[Pooler], Any], size: int) -> None:
    with stand_in(backend, size) as ours:
        seen = scenario(ours)
    restore(backend)
    with other_pooler(backend, size) as other:
        assert scenario(other) == seen


def restore(server: LocalServer) -> None:
    server.execute("DELETE FROM account WHERE name <> 'shared'")
    server.execute("UPDATE account SET balance = 0")


def test_the_router_does_share_connections(pooled_mysql: LocalMySQL) -> None:
    """Or it would be no second opinion: it has no limit that could show it."""
    with other_pooler(pooled_mysql, 1) as router, router.clients(6) as clients:
        assert len({database_session(client) for client in clients}) < 6
        assert pooled_mysql.session_count() < 6


def test_one_client_gets_the_servers_own_answers(backend: LocalServer) -> None:
    with stand_in(backend, 1) as ours:
        seen = answers_to_one_client(ours)
    restore(backend)
    with no_pooler(backend) as server:
        assert answers_to_one_client(server) == seen


# More clients than database connections.


def _ask_while_another_is_in_a_transaction(pooler: Pooler) -> tuple[bool, int]:
    """Say whether the second client had to wait for the first one's end, and what it got."""
    with pooler.clients(2) as (holder, other):
        rows(holder, "BEGIN")
        rows(holder, "SELECT 1")
        got: list[int] = []
        thread = Thread(target=lambda: got.append(value(other, "SELECT 40 + 2")))
        thread.start()
        thread.join(timeout=0.3)
        had_to_wait = not got
        if had_to_wait:
            rows(holder, "COMMIT")
        thread.join(_JOIN_TIMEOUT_S)
        return had_to_wait, got[0]


def test_who_finds_no_database_connection_waits_for_one(backend: LocalServer) -> None:
    with stand_in(backend, 1) as ours:
        assert _ask_while_another_is_in_a_transaction(ours) == (True, 42)
    with other_pooler(backend, 1) as other:
        had_to_wait, got = _ask_while_another_is_in_a_transaction(other)
        # [MYR] has no limit to open connections, only to idle ones: the Router opens another.
        assert had_to_wait or backend.engine == "mysql"
        assert got == 42


def test_who_waits_too_long_gets_an_error(pooled_postgres: LocalPostgres) -> None:
    def wait_in_vain(pooler: Pooler) -> tuple[str | None, bool]:
        with pooler.clients(2) as (holder, other):
            rows(holder, "BEGIN")
            rows(holder, "SELECT 1")
            with pytest.raises(psycopg.Error) as caught:
                value(other, "SELECT 1")
            rows(holder, "COMMIT")
            return caught.value.sqlstate, bool(other.closed) or value(other, "SELECT 1") != 1

    # [RDS] has a text, SQLSTATE 08000; that the session goes on is the stand-in's reading of it.
    with stand_in(pooled_postgres, 1, wait_s=2) as ours:
        assert wait_in_vain(ours) == ("08000", False)
    # [PGB] query_wait_timeout: the client is disconnected.
    with other_pooler(pooled_postgres, 1, wait_s=2) as other:
        assert wait_in_vain(other) == ("08P01", True)


# Settings.


@contextmanager
def two_clients_of_one_connection(pooler: Pooler) -> Iterator[tuple[Any, Any]]:
    """Two clients who both had the same database connection last, of two, and get it again if they can."""
    with pooler.clients(3) as (first, second, holder):
        rows(holder, "BEGIN")
        rows(holder, "SELECT 1")
        for client in (first, second):
            rows(client, "SELECT 1")
        rows(holder, "COMMIT")
        yield first, second


def _setting(pooler: Pooler, change: list[str], question: str) -> list[Any]:
    """Let one client change a setting, and ask what it, and another client, then have."""
    with two_clients_of_one_connection(pooler) as (first, second):
        for statement in change:
            rows(first, statement)
        return [value(client, question) for client in (first, second)]


def test_a_setting_pins_or_leaks(pooled_postgres: LocalPostgres) -> None:
    change = ["SET statement_timeout = '7s'"]
    # [RDS] SET pins: the client has its setting, and nobody else.
    with stand_in(pooled_postgres, 2, pins={_SETTINGS}) as ours:
        assert _setting(ours, change, "SHOW statement_timeout") == ["7s", "0"]
    # [PGB] SET in transaction pooling: never. Whoever comes next has it.
    with other_pooler(pooled_postgres, 2) as other:
        assert _setting(other, change, "SHOW statement_timeout") == ["7s", "7s"]


@pytest.mark.parametrize(
    "change",
    [
        ["BEGIN", "SET LOCAL statement_timeout = '7s'", "COMMIT"],
        ["BEGIN", "SET statement_timeout = '7s'", "ROLLBACK"],
    ],
    ids=["local", "rolled back"],
)
def test_a_setting_that_ends_with_the_transaction_leaks_nowhere(
    pooled_postgres: LocalPostgres, change: list[str]
) -> None:
    # [RDS] names SET without an exception for PostgreSQL, so it pins all the same.
    with stand_in(pooled_postgres, 2, pins={_SETTINGS}) as ours:
        assert _setting(ours, change, "SHOW statement_timeout") == ["0", "0"]
    with other_pooler(pooled_postgres, 2) as other:
        assert _setting(other, change, "SHOW statement_timeout") == ["0", "0"]


@pytest.mark.parametrize(
    ("change", "question", "expected", "pins"),
    [
        # [RDS] Both are tracked variables.
        ("SET SESSION time_zone = '+03:00'", "SELECT @@time_zone", ["+03:00", "SYSTEM"], set()),
        ("SET sql_mode = ''", "SELECT @@sql_mode = ''", [1, 0], set()),
        # [RDS] Others pin. [MYR] restores session variables, and shares no connection that has user variables.
        ("SET SESSION group_concat_max_len = 77", "SELECT @@group_concat_max_len", [77, 1024], {_SETTINGS}),
        ("SET @mine = 5", "SELECT @mine", [5, None], {_SETTINGS}),
    ],
    ids=["time_zone", "sql_mode", "group_concat_max_len", "user variable"],
)
def test_a_mysql_client_has_its_own_settings_through_both(
    pooled_mysql: LocalMySQL, change: str, question: str, expected: list[Any], pins: set[str]
) -> None:
    with stand_in(pooled_mysql, 2, pins=pins) as ours:
        assert _setting(ours, [change], question) == expected
    with other_pooler(pooled_mysql, 2) as other:
        assert _setting(other, [change], question) == expected


# Prepared statements.


def _prepared_by_the_driver(pooler: Pooler) -> list[Any]:
    with pooler.clients(3, prepare_threshold=0) as clients:
        return [
            answer(client, f"SELECT {number} * %s::int", turn)
            for turn in range(4)
            for number, client in enumerate(clients)
        ]


def test_statements_that_the_driver_prepares_follow_their_client(pooled_postgres: LocalPostgres) -> None:
    with no_pooler(pooled_postgres) as server:
        expected = _prepared_by_the_driver(server)
    # [RDS] names SQL's PREPARE only; AWS's database blog says that the protocol's statements are multiplexed.
    with stand_in(pooled_postgres, 1) as ours:
        assert _prepared_by_the_driver(ours) == expected
    with other_pooler(pooled_postgres, 1) as other:
        if pgbouncer_knows_prepared_statements():
            assert _prepared_by_the_driver(other) == expected
        else:  # [PGB] protocol-level prepared plans are carried along from 1.21 on
            seen = _prepared_by_the_driver(other)
            assert {"DuplicatePreparedStatement"} == {item[0] for item in seen if isinstance(item[0], str)}


def _prepared_by_sql(pooler: Pooler, prepare: str) -> list[Any]:
    with two_clients_of_one_connection(pooler) as (first, second):
        rows(first, prepare)
        return [answer(client, "EXECUTE forty_two")[:2] for client in (first, second)]


def test_a_statement_prepared_by_sql_pins_or_leaks(pooled_postgres: LocalPostgres) -> None:
    prepare = "PREPARE forty_two AS SELECT 42 AS number"
    # [RDS] PREPARE pins.
    with stand_in(pooled_postgres, 2, pins={_PREPARED}) as ours:
        mine, others = _prepared_by_sql(ours, prepare)
        assert (mine[1], others) == ([(42,)], ("InvalidSqlStatementName", "26000"))
    # [PGB] PREPARE in transaction pooling: never. Whoever comes next finds it.
    with other_pooler(pooled_postgres, 2) as other:
        mine, others = _prepared_by_sql(other, prepare)
        assert mine[1] == others[1] == [(42,)]


def test_a_mysql_statement_prepared_by_sql_is_its_clients_own(pooled_mysql: LocalMySQL) -> None:
    # [RDS] It pins. [MYR] A connection with prepared statements is not shared.
    prepare = "PREPARE forty_two FROM 'SELECT 42 AS number'"
    with stand_in(pooled_mysql, 2, pins={_PREPARED}) as ours:
        seen = _prepared_by_sql(ours, prepare)
    with other_pooler(pooled_mysql, 2) as other:
        assert _prepared_by_sql(other, prepare) == seen
    assert (seen[0][1], seen[1][1]) == ([(42,)], 1243)


def test_a_mysql_statement_prepared_by_the_protocol_is_its_clients_own(pooled_mysql: LocalMySQL) -> None:
    def prepare_and_execute(pooler: Pooler) -> list[Any]:
        with two_clients_of_one_connection(pooler) as (first, second):
            first._execute_command(COMMAND.COM_STMT_PREPARE, b"SELECT 42")
            number = first._read_packet().get_all_data()[1:5]
            for _ in range(2):  # the column and the end
                first._read_packet()
            seen = []
            for client in (first, second):
                client._execute_command(COMMAND.COM_STMT_EXECUTE, number + struct.pack("<BI", 0, 1))
                try:
                    seen.append([client._read_packet().get_all_data() for _ in range(5)][3])
                except pymysql.Error as error:
                    seen.append(error.args[0])
            return [*seen, value(second, "SELECT 1")]

    # [RDS] The binary protocol pins. [MYR] A connection with prepared statements is not shared.
    with stand_in(pooled_mysql, 2, pins={_PREPARED}) as ours:
        seen = prepare_and_execute(ours)
    with other_pooler(pooled_mysql, 2) as other:
        assert prepare_and_execute(other) == seen
    assert seen == [b"\0\0" + struct.pack("<q", 42), 1243, 1]
