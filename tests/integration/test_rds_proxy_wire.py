"""What the library and its drivers say to RDS Proxy, by the record of the local one: nothing that pins."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest

from lambda_dbconn import ConfigurationError, ProxyRefusedError
from tests.support.clients import wait_until
from tests.support.database import ShiftedClock
from tests.support.rds_proxy import make_proxy, managing, rows, value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy, Request, SessionRecord
    from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, LocalServer

pytestmark = pytest.mark.once

SET_NAMES = "SET NAMES utf8mb4, autocommit=1"
LARGE_ROW = "x" * 20_000


@pytest.fixture
def proxy(server: LocalServer, proxy_certificates: Certificates) -> Iterator[LocalRdsProxy]:
    server.execute("CREATE TABLE IF NOT EXISTS batches (number int, content text)")
    server.execute("GRANT ALL ON batches TO app")
    server.execute("DELETE FROM batches")
    with make_proxy(server, certificates=proxy_certificates) as proxy:
        yield proxy


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
def db(proxy: LocalRdsProxy, clock: ShiftedClock) -> Iterator[ConnectionManager[Any]]:
    with managing(proxy, clock=clock) as db:
        assert db.settings.is_proxy
        yield db


def only_session(proxy: LocalRdsProxy) -> SessionRecord:
    (session,) = proxy.sessions()
    return session


def said(proxy: LocalRdsProxy) -> list[Request]:
    """Return what was said after the login, without what ends a message of the extended protocol."""
    return [request for request in only_session(proxy).statements if request.kind not in ("Sync", "Execute", "Flush")]


def texts(proxy: LocalRdsProxy) -> list[str]:
    """Return the SQL that was sent, in order; without a word for what is no SQL."""
    return [request.text for request in said(proxy) if request.kind in ("Query", "Parse", "COM_QUERY")]


def test_connecting_sends_one_accepted_parameter_and_only_the_sql_that_the_proxy_tracks(
    proxy: LocalRdsProxy, db: ConnectionManager[Any]
) -> None:
    assert db.warm_up(10)
    session = only_session(proxy)
    if proxy.engine == "postgresql":
        assert session.parameters == {"application_name": "lambda_dbconn"}
        assert said(proxy) == []
    else:
        assert [request.kind for request in said(proxy)] == ["COM_QUERY"]
        assert texts(proxy) == [SET_NAMES]
    assert session.pin_reason is None


def work_through_everything(db: ConnectionManager[Any], clock: ShiftedClock) -> None:
    """Use each way of lending a connection, well and badly, more often than psycopg takes to prepare a statement."""
    for number in range(12):
        with db.connection(20) as connection:
            assert value(connection, "SELECT %s + 1", number) == number + 1
    clock.advance(60)  # the next loan is pinged
    with db.connection(20) as connection:
        value(connection, "SELECT 1")
    for options in ({}, {"read_only": True}, {"isolation": "serializable"}):
        with db.transaction(20, **options) as connection:
            value(connection, "SELECT %s + 1", 1)
    db.run(lambda connection: value(connection, "SELECT %s + 1", 1), 20)
    with suppress(ZeroDivisionError), db.transaction(20) as connection:
        value(connection, "SELECT %s + 1", 1 / 0)
    with pytest.raises((psycopg.Error, pymysql.Error)), db.transaction(20) as connection:
        value(connection, "SELECT no_such_column")
    with db.connection(20) as connection:
        value(connection, "SELECT %s + 1", 1)


def test_nothing_that_the_library_does_pins_the_session(
    proxy: LocalRdsProxy, db: ConnectionManager[Any], clock: ShiftedClock
) -> None:
    work_through_everything(db, clock)
    assert only_session(proxy).pin_reason is None
    assert proxy.stats().pins == {}
    assert proxy.stats().borrowed_connections == 0


def test_no_prepared_statement_outlives_its_use_and_none_is_deallocated(
    proxy: LocalRdsProxy, db: ConnectionManager[Any], clock: ShiftedClock
) -> None:
    work_through_everything(db, clock)
    kinds = {request.kind for request in said(proxy)}
    if proxy.engine == "postgresql":
        assert {"Query", "Parse", "Bind"} <= kinds <= {"Query", "Parse", "Bind", "Describe"}
        assert {request.text for request in said(proxy) if request.kind in ("Bind", "Describe")} == {""}  # no name
    else:
        assert kinds == {"COM_QUERY", "COM_PING"}
    verbs = {text.split()[0].upper() for text in texts(proxy)}
    assert not verbs & {"PREPARE", "EXECUTE", "DEALLOCATE", "DISCARD", "RESET"}
    if proxy.engine == "postgresql":
        assert "SET" not in verbs


def test_the_only_settings_that_mysql_gets_are_those_that_the_proxy_tracks(
    mariadb: LocalMariaDB, proxy_certificates: Certificates, clock: ShiftedClock
) -> None:
    with make_proxy(mariadb, certificates=proxy_certificates) as proxy, managing(proxy, clock=clock) as db:
        work_through_everything(db, clock)
        assert {text for text in texts(proxy) if text.startswith("SET")} == {
            SET_NAMES,
            "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        }
        assert proxy.stats().pins == {}


def insert_many(connection: Any, count: int, *, cursor_class: Any = None) -> None:
    made = connection.cursor(cursor_class) if cursor_class else connection.cursor()
    with closing(made) as cursor:
        cursor.executemany(
            "INSERT INTO batches (number, content) VALUES (%s, %s)", [(number, "ü" * 40) for number in range(count)]
        )


class OwnCursor(pymysql.cursors.DictCursor):
    """A cursor class of the application's own."""


@pytest.mark.parametrize("cursor_class", [None, OwnCursor])
def test_a_batch_goes_in_statements_that_do_not_pin(
    proxy: LocalRdsProxy, db: ConnectionManager[Any], cursor_class: Any
) -> None:
    if proxy.engine == "postgresql":
        cursor_class = psycopg.ClientCursor if cursor_class else None
    with db.transaction(20) as connection:
        if isinstance(connection, psycopg.Connection) and cursor_class:
            connection.cursor_factory = cursor_class
            cursor_class = None
        insert_many(connection, 2_000, cursor_class=cursor_class)
    assert proxy.stats().pins == {}
    with db.connection(20) as connection:
        assert rows(connection, "SELECT count(*), count(DISTINCT number) FROM batches") == [(2_000, 2_000)]
    inserts = [text for text in texts(proxy) if text.startswith("INSERT")]
    if proxy.engine == "mysql":
        assert 2_000 * 80 / 16_000 <= len(inserts) <= 20  # full ones, and not one for each row


def test_a_single_row_that_is_too_large_is_sent_and_pins(proxy: LocalRdsProxy, db: ConnectionManager[Any]) -> None:
    """That the guard above can fail: what is larger than 16 KB is the user's own, and the stand-in sees it."""
    with db.transaction(20) as connection:
        rows(connection, f"INSERT INTO batches (number, content) VALUES (1, '{LARGE_ROW}')")
    assert only_session(proxy).pin_reason == "The statement is longer than 16 KB."


def test_elsewhere_the_drivers_own_batches_are_kept(mariadb: LocalMariaDB, proxy_certificates: Certificates) -> None:
    with (
        make_proxy(mariadb, certificates=proxy_certificates) as proxy,
        managing(proxy, signing_host=None) as db,  # it is not known to be a proxy
        db.connection(20) as connection,
    ):
        assert connection.cursor().max_stmt_length == pymysql.cursors.Cursor.max_stmt_length


@pytest.fixture
def postgresql_proxy(postgres: LocalPostgres, proxy_certificates: Certificates) -> Iterator[LocalRdsProxy]:
    with make_proxy(postgres, certificates=proxy_certificates) as proxy:
        yield proxy


def test_accepted_parameters_go_into_the_startup_packet_and_do_not_pin(
    postgresql_proxy: LocalRdsProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "SQL, DMY", "PGCLIENTENCODING": "LATIN1", "PGAPPNAME": "orders"}
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    with managing(postgresql_proxy) as db, db.connection(20) as connection:
        assert value(connection, "SHOW timezone") == "Asia/Tokyo"
        assert value(connection, "SHOW datestyle") == "SQL, DMY"
        assert value(connection, "SHOW application_name") == "orders"
    session = only_session(postgresql_proxy)
    assert dict(session.parameters) == {
        "TimeZone": "Asia/Tokyo",
        "DateStyle": "SQL, DMY",
        "client_encoding": "LATIN1",
        "application_name": "orders",
    }
    assert session.pin_reason is None


def test_mysqls_time_zone_is_set_and_followed_to_every_database_connection(
    mariadb: LocalMariaDB, proxy_certificates: Certificates
) -> None:
    with make_proxy(mariadb, certificates=proxy_certificates) as proxy, managing(proxy) as db:
        with db.connection(20) as connection:
            rows(connection, "SET time_zone = '+09:00'")
            proxy.failover()
            wait_until(lambda: proxy.stats().database_connections == 0)
            assert value(connection, "SELECT @@time_zone") == "+09:00"
        assert only_session(proxy).pin_reason is None


def test_the_protocol_that_is_asked_for_is_the_only_one_that_the_proxy_speaks(
    postgresql_proxy: LocalRdsProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGMAXPROTOCOLVERSION", "latest")
    with managing(postgresql_proxy) as db, db.connection(20) as connection:
        assert value(connection, "SELECT 1") == 1
    assert postgresql_proxy.stats().refused == {}


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [("PGOPTIONS", "-c jit=off", "command-line options"), ("PGGEQO", "off", "the option geqo")],
)
def test_what_is_refused_beforehand_is_what_the_proxy_would_refuse(
    postgresql_proxy: LocalRdsProxy, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, words: str
) -> None:
    monkeypatch.setenv(variable, text)
    with (
        managing(postgresql_proxy, signing_host=None) as db,  # it is not known to be a proxy
        pytest.raises(ProxyRefusedError, match=words) as caught,
        db.connection(20),
    ):
        pytest.fail("it is connected")
    assert not caught.value.retryable
    assert sum(postgresql_proxy.stats().refused.values()) == 1


@pytest.mark.parametrize("where", ["PGSERVICEFILE", "PGSYSCONFDIR"])
def test_a_service_file_would_send_what_the_proxy_refuses(
    postgresql_proxy: LocalRdsProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    file = tmp_path / "pg_service.conf"
    file.write_text("[orders]\noptions=-c jit=off\n")
    monkeypatch.setenv("PGSERVICE", "orders")
    monkeypatch.setenv(where, str(file if where == "PGSERVICEFILE" else tmp_path))
    with pytest.raises(ConfigurationError, match="PGSERVICE is set"), managing(postgresql_proxy):
        pytest.fail("it is taken for good")
    with (
        managing(postgresql_proxy, signing_host=None) as db,
        pytest.raises(ProxyRefusedError, match="command-line options"),
        db.connection(20),
    ):
        pytest.fail("it is connected")
