"""What RDS Proxy tracks without pinning is put back by one SET: through the local RDS Proxy, and without it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from lambda_dbconn import DeadlineExceededError
from lambda_dbconn.drivers import SessionState
from lambda_dbconn.proxy import pin, tracked
from tests.support.database import LIMIT_S, MYSQL_TLS, database_of
from tests.support.mysql_driver import Session, session_of
from tests.support.rds_proxy import make_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalServer
    from tests.support.database import Database

CHANGES: dict[str, Callable[[Any], object]] = {
    "a time zone": lambda c: c.query("SET time_zone = '+03:00'"),
    "a time zone, with a scope": lambda c: c.query("set @@session.time_zone = '+03:00'"),
    "a mode": lambda c: c.query("SET SESSION sql_mode = 'ANSI_QUOTES'"),
    "no mode": lambda c: c.query("SET sql_mode = ''"),
    "several": lambda c: c.query("SET sql_mode = '', wait_timeout = 77, SESSION time_zone = '+03:00'"),
    "a character set": lambda c: c.set_character_set("latin1"),
    "a collation": lambda c: c.query("SET NAMES utf8mb4 COLLATE utf8mb4_bin"),
    "CHARACTER SET": lambda c: c.query("SET CHARACTER SET latin1"),
    "binary": lambda c: c.query("SET NAMES binary"),
    "no results' character set": lambda c: c.query("SET character_set_results = NULL"),
    "a level": lambda c: c.query("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
    "read only": lambda c: c.query("SET SESSION TRANSACTION READ ONLY"),
    "a variable of another kind": lambda c: c.query("SET LOCAL lock_wait_timeout = 77"),
    "autocommit": lambda c: c.autocommit(False),
    "a database": lambda c: c.select_db("information_schema"),
    "USE": lambda c: c.query("USE information_schema"),
    "nothing": lambda c: c.query("SELECT 1"),
}
LOOK = (
    "SHOW SESSION VARIABLES WHERE Variable_name LIKE 'character\\_set\\_%' OR Variable_name LIKE 'collation\\_%' OR "
    "Variable_name IN ('time_zone', 'sql_mode', 'wait_timeout', 'autocommit', 'lock_wait_timeout', "
    "'transaction_isolation', 'tx_isolation', 'transaction_read_only', 'tx_read_only')"
)


def watch(session: Session) -> None:
    """Do as the cache does: judge each text before it is sent."""

    def see(text: str | bytes) -> None:
        assert pin("mysql", text) is None
        names = tracked("mysql", text)
        if names:
            session.driver.remember_tracked(session.connection, names)

    session.driver.watch(session.connection, see)


def look(session: Session) -> Any:
    return session.fetch("SELECT DATABASE()"), session.fetch(LOOK)


@pytest.fixture(params=["mariadb", pytest.param("mysql", marks=pytest.mark.once)])
def proxy(request: pytest.FixtureRequest, proxy_certificates: Certificates) -> Iterator[LocalRdsProxy]:
    server: LocalServer = request.getfixturevalue(request.param)
    with make_proxy(server, certificates=proxy_certificates, max_database_connections=2) as proxy:
        yield proxy
        assert "[ERROR]" not in proxy.log()


@contextmanager
def through(proxy: LocalRdsProxy) -> Iterator[Session]:
    session = Session(settings_for(proxy))
    watch(session)
    try:
        yield session
    finally:
        session.driver.close(session.connection)


@pytest.fixture(params=["mariadb-tls", MYSQL_TLS])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each server, without a proxy."""
    yield from database_of(request)


@pytest.mark.parametrize("name", CHANGES)
def test_through_the_proxy_a_tracked_change_is_put_back_without_a_pin(name: str, proxy: LocalRdsProxy) -> None:
    with through(proxy) as session:
        before = look(session)
        for _ in range(10):
            CHANGES[name](session.connection)
            assert session.state() is SessionState.CLEAN
            session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
            assert session.state() is SessionState.CLEAN
            assert look(session) == before
            assert session.fetch("SELECT %s", "ä☠") == (("ä☠",),)
        stats = proxy.stats()
        assert (stats.pins, stats.client_connections) == ({}, 1)


@pytest.mark.parametrize("name", CHANGES)
def test_a_tracked_change_is_put_back(name: str, database: Database) -> None:
    with session_of(database) as session:
        watch(session)
        before = look(session)
        CHANGES[name](session.connection)
        assert session.state() is SessionState.CLEAN
        session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
        assert look(session) == before


def test_it_goes_back_to_the_sessions_own_value_not_to_the_servers(database: Database) -> None:
    """As a proxy's initialization query would set it."""
    database.backend.execute("SET GLOBAL init_connect = \"SET time_zone = '+05:00'\"")
    try:
        with session_of(database) as session:
            watch(session)
            for _ in range(2):
                session.fetch("SET time_zone = '+03:00'")
                session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
                assert session.fetch("SELECT @@time_zone") == (("+05:00",),)
    finally:
        database.backend.execute("SET GLOBAL init_connect = ''")


def test_a_loan_that_changes_nothing_pays_nothing_and_a_value_is_asked_for_once(database: Database) -> None:
    with session_of(database) as session:
        watch(session)
        session.fetch("SELECT 1")
        database.forget()
        session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
        assert database.cost() == (0, 0)
        for cost in (2, 1, 1):
            session.fetch("SET time_zone = '+03:00'")
            assert database.cost() == (0, cost)
            database.forget()
            session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
            session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
            assert database.cost() == (0, 1)
            database.forget()


def test_what_the_user_may_not_send_changes_nothing_and_asks_nothing(database: Database) -> None:
    with session_of(database) as session:
        watch(session)
        session.expire()
        with pytest.raises(DeadlineExceededError):
            session.fetch("SET time_zone = '+03:00'")
        assert database.cost() == (0, 0)
        assert not session.connection.changed


def test_a_login_without_a_database_cannot_be_put_back_to_none(database: Database) -> None:
    with session_of(database, name=None) as session:
        watch(session)
        session.fetch("USE app")
        with pytest.raises(pymysql.NotSupportedError):
            session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
    with session_of(database, name=None) as session:
        watch(session)
        session.fetch("SET time_zone = '+03:00'")
        session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
        session.fetch("USE app")
        with pytest.raises(pymysql.NotSupportedError):
            session.driver.put_back_tracked(session.connection, timeout_s=LIMIT_S)
