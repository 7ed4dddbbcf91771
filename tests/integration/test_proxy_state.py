"""Behind RDS Proxy: what it tracks is put back at no cost; what pins costs a connection; nothing reaches the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from lambda_dbconn.events import ConnectionClosed, SessionPinned
from lambda_dbconn.testing.fakes import RecordingObserver
from tests.support.rds_proxy import make_proxy, managing, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer

TRACKED: dict[str, Callable[[Any], object]] = {
    "a time zone": lambda c: rows(c, "SET time_zone = '+03:00'"),
    "a mode": lambda c: rows(c, "SET SESSION sql_mode = 'ANSI_QUOTES'"),
    "a character set": lambda c: rows(c, "SET NAMES latin1"),
    "a level": lambda c: rows(c, "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
    "a database": lambda c: rows(c, "USE information_schema"),
    "another database": lambda c: c.select_db("information_schema"),
}
LOOK = "SELECT @@time_zone, @@sql_mode, @@character_set_client, DATABASE()"
ISOLATION = "SHOW SESSION VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')"


@pytest.mark.parametrize("server", ["mariadb", pytest.param("mysql", marks=pytest.mark.once)], indirect=True)
@pytest.mark.parametrize("change", TRACKED)
def test_what_the_proxy_tracks_is_put_back_and_costs_neither_a_connection_nor_a_pin(
    server: LocalServer, proxy_certificates: Certificates, change: str
) -> None:
    observer = RecordingObserver()
    with (
        make_proxy(server, certificates=proxy_certificates) as proxy,
        managing(proxy, observer=observer, connect_timeout_s=30) as db,
    ):
        found = []
        for _ in range(10):
            with db.connection() as connection:
                found.append((rows(connection, LOOK), rows(connection, ISOLATION)))
                TRACKED[change](connection)
        assert found == found[:1] * 10
        assert (db.stats().opened, proxy.stats().pins) == (1, {})
        assert observer.of(SessionPinned) == []


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_a_cursor_class_that_is_called_directly_is_seen(server: LocalServer, proxy_certificates: Certificates) -> None:
    observer = RecordingObserver()
    with (
        make_proxy(server, certificates=proxy_certificates) as proxy,
        managing(proxy, observer=observer, connect_timeout_s=30) as db,
    ):
        for _ in range(2):
            with db.connection() as connection:
                assert rows(connection, "SELECT current_setting('app.tenant', true)")[0][0] in (None, "")
                psycopg.ClientCursor(connection).execute("SET app.tenant = %s", ["7"])
        assert db.stats().opened == 2
        assert [event.reason for event in observer.of(ConnectionClosed)] == ["pinned", "pinned"]


def test_transactions_and_queries_keep_their_connection_and_send_no_reset(
    server: LocalServer, proxy_certificates: Certificates
) -> None:
    with (
        make_proxy(server, certificates=proxy_certificates) as proxy,
        managing(proxy, connect_timeout_s=30) as db,
    ):
        for _ in range(5):
            with db.connection() as connection:
                rows(connection, "SELECT 1")
            with db.transaction(isolation="serializable") as connection:
                rows(connection, "SELECT 2")
        assert (db.stats().opened, proxy.stats().pins) == (1, {})
        assert proxy.stats().borrowed_connections == 0
