"""What clients of the local RDS Proxy notice when the database, the proxy or time goes away."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.clients import wait_until
from tests.support.rds_proxy import DRIVER_ERRORS, clients, close, connect, database_session, make_proxy, rows, value

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.testing.servers import LocalPostgres, LocalServer

pytestmark = pytest.mark.once

CUT_OFF = (
    r"terminating connection due to administrator|closed unexpectedly|closed the connection|Lost connection|gone away"
)
PIN = {"postgresql": "SET statement_timeout = 0", "mysql": "SET @mine = 1"}
SLEEP = {"postgresql": "SELECT pg_sleep(20)", "mysql": "SELECT SLEEP(20)"}


def is_quiet(connection: Any) -> bool:
    """Say whether nothing has come on an idle client's connection."""
    import select

    fileno = connection.fileno() if isinstance(connection, psycopg.Connection) else connection._sock.fileno()
    return not select.select([fileno], [], [], 0)[0]


def in_background(connection: Any, statement: str, errors: list[BaseException]) -> threading.Thread:
    def run() -> None:
        try:
            rows(connection, statement)
        except DRIVER_ERRORS as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_failover_cancels_what_is_under_way_and_spares_the_idle(server: LocalServer) -> None:
    with (
        make_proxy(server) as proxy,
        clients(proxy, server.password, 4) as (idle, busy, in_transaction, pinned),
    ):
        value(idle, "SELECT 1")
        rows(in_transaction, "BEGIN")
        value(in_transaction, "SELECT 1")
        rows(pinned, PIN[server.engine])
        errors: list[BaseException] = []
        thread = in_background(busy, SLEEP[server.engine], errors)
        wait_until(lambda: proxy.stats().borrowed_connections == 3)
        proxy.failover()
        thread.join(5)
        assert not thread.is_alive()
        with pytest.raises(DRIVER_ERRORS, match=CUT_OFF):
            raise errors[0]
        assert is_quiet(idle)
        assert is_quiet(pinned)
        assert is_quiet(in_transaction)
        for broken in (in_transaction, pinned):
            with pytest.raises(DRIVER_ERRORS, match=CUT_OFF):
                value(broken, "SELECT 1")
            close(broken)
        assert value(idle, "SELECT 1") == 1
        assert proxy.stats().logins == 4


def test_requests_wait_for_the_database_during_a_failover(server: LocalServer) -> None:
    with make_proxy(server) as proxy, clients(proxy, server.password, 2) as connections:
        proxy.failover(outage_s=0.3)
        started_s = time.monotonic()
        errors: list[BaseException] = []
        threads = [in_background(connection, "SELECT 1", errors) for connection in connections]
        for thread in threads:
            thread.join()
        assert 0.25 < time.monotonic() - started_s < 5
        assert errors == []


def test_requests_wait_no_longer_than_the_borrow_timeout(server: LocalServer) -> None:
    with make_proxy(server, borrow_timeout_s=0.2) as proxy, clients(proxy, server.password, 1) as (connection,):
        proxy.failover(outage_s=1.0)
        with pytest.raises(DRIVER_ERRORS, match="Timed-out waiting to acquire database connection"):
            value(connection, "SELECT 1")
        with pytest.raises(DRIVER_ERRORS, match="Timed-out waiting to acquire database connection"):
            close(connect(proxy, server.password)) if server.engine == "mysql" else value(connection, "SELECT 1")


def test_requests_wait_for_a_server_that_restarts(own_server: LocalServer) -> None:
    with make_proxy(own_server) as proxy, clients(proxy, own_server.password, 2) as (idle, pinned):
        value(idle, "SELECT 1")
        rows(pinned, PIN[own_server.engine])
        own_server.stop()
        wait_until(lambda: proxy.stats().database_connections == 0)
        assert is_quiet(idle)
        assert is_quiet(pinned)
        errors: list[BaseException] = []
        thread = in_background(idle, "SELECT 1", errors)
        own_server.start()
        thread.join()
        assert errors == []
        with pytest.raises(DRIVER_ERRORS, match=CUT_OFF):
            value(pinned, "SELECT 1")


def test_what_the_server_says_when_it_ends_a_statement_reaches_the_client(own_server: LocalServer) -> None:
    with make_proxy(own_server) as proxy, clients(proxy, own_server.password, 1) as (busy,):
        errors: list[BaseException] = []
        thread = in_background(busy, SLEEP[own_server.engine], errors)
        wait_until(lambda: proxy.stats().borrowed_connections == 1)
        time.sleep(0.1)
        own_server.kill_session(own_server.session_ids()[0])
        thread.join()
        with pytest.raises(DRIVER_ERRORS, match=CUT_OFF + "|was killed|interrupted") as caught:
            raise errors[0]
        if own_server.engine == "postgresql":
            assert isinstance(caught.value, psycopg.errors.AdminShutdown)


def test_the_proxy_may_move_to_another_server_between_transactions(server: LocalServer) -> None:
    with (
        type(server)(certificates=server.certificates) as second,
        make_proxy(server) as proxy,
        clients(proxy, server.password, 2) as (idle, in_transaction),
    ):
        second.execute("CREATE TABLE only_here (id INT)")
        second.execute("GRANT ALL ON only_here TO app")
        rows(in_transaction, "BEGIN")
        before = database_session(in_transaction)
        proxy.set_secret("app", second.password)
        proxy.switch_backend(second)
        assert value(idle, "SELECT count(*) FROM only_here") == 0
        assert database_session(in_transaction) == before
        rows(in_transaction, "ROLLBACK")
        assert value(in_transaction, "SELECT count(*) FROM only_here") == 0


def test_a_restart_of_the_proxy_ends_all_sessions_and_keeps_its_port(server: LocalServer) -> None:
    with make_proxy(server) as proxy, clients(proxy, server.password, 1) as (connection,):
        port = proxy.port
        proxy.restart()
        with pytest.raises(DRIVER_ERRORS, match=CUT_OFF):
            value(connection, "SELECT 1")
        connect(proxy, server.password).close()
        assert (proxy.port, proxy.stats().logins) == (port, 2)
        assert proxy.stats().database_connections == 1
        proxy.stop()
        with pytest.raises(DRIVER_ERRORS, match=r"(?i)refused"):
            connect(proxy, server.password)


def test_an_idle_client_is_cut_off_and_a_busy_or_active_one_is_not(server: LocalServer) -> None:
    sleep = SLEEP[server.engine].replace("20", "0.5")
    with (
        make_proxy(server, idle_client_timeout_s=0.3) as proxy,
        clients(proxy, server.password, 3) as (idle, active, busy),
    ):
        errors: list[BaseException] = []
        thread = in_background(busy, sleep, errors)
        for _ in range(6):
            value(active, "SELECT 1")
            time.sleep(0.1)
        thread.join()
        assert errors == []
        assert not is_quiet(idle)
        with pytest.raises(DRIVER_ERRORS, match=CUT_OFF):
            value(idle, "SELECT 1")
        assert value(active, "SELECT 1") == 1


def test_no_client_stays_longer_than_it_may(server: LocalServer) -> None:
    with make_proxy(server, max_client_life_s=0.3) as proxy, clients(proxy, server.password, 1) as (connection,):

        def ask_on_and_on() -> None:
            for _ in range(200):
                value(connection, "SELECT 1")
                time.sleep(0.005)

        with pytest.raises(DRIVER_ERRORS, match=CUT_OFF):
            ask_on_and_on()
        connect(proxy, server.password).close()


def test_a_slow_proxy_is_slow_at_logins_and_at_requests(server: LocalServer) -> None:
    with make_proxy(server) as proxy, clients(proxy, server.password, 1) as (connection,):

        def duration_s(function: Callable[[], object]) -> float:
            started_s = time.monotonic()
            function()
            return time.monotonic() - started_s

        proxy.slow(0.1)
        assert 0.1 <= duration_s(lambda: value(connection, "SELECT 1")) < 1
        assert 0.1 <= duration_s(lambda: connect(proxy, server.password).close()) < 1
        proxy.slow(0)
        assert duration_s(lambda: value(connection, "SELECT 1")) < 0.1


def test_a_read_only_endpoint_refuses_to_write_as_a_replica_does(server: LocalServer) -> None:
    server.execute("CREATE TABLE IF NOT EXISTS unwritten (id INT)")
    server.execute("GRANT ALL ON unwritten TO app")
    with make_proxy(server, is_read_only=True) as proxy, closing(connect(proxy, server.password)) as connection:
        assert value(connection, "SELECT count(*) FROM unwritten") == 0
        with pytest.raises(DRIVER_ERRORS) as caught:
            rows(connection, "INSERT INTO unwritten VALUES (1)")
        error: Any = caught.value
        if server.engine == "postgresql":
            assert error.sqlstate == "25006"
        else:
            assert error.args[0] == 1290
            assert "running with the --read-only option" in error.args[1]
        assert value(connection, "SELECT count(*) FROM unwritten") == 0


def test_a_proxy_may_start_before_its_database(own_postgres: LocalPostgres) -> None:
    own_postgres.stop()
    with make_proxy(own_postgres, borrow_timeout_s=0.2) as proxy:
        with pytest.raises(psycopg.OperationalError, match="Timed-out waiting"):
            connect(proxy, own_postgres.password)
        own_postgres.start()
        connect(proxy, own_postgres.password).close()


def test_stopping_leaves_nothing_behind(server: LocalServer) -> None:
    with make_proxy(server) as proxy, clients(proxy, server.password, 3) as connections:
        for connection in connections:
            rows(connection, "BEGIN")
            value(connection, "SELECT 1")
        sessions = server.session_count()
        assert sessions >= 3
        names = {thread.name for thread in threading.enumerate()}
        assert repr(proxy) in names
        proxy.stop()
        proxy.stop()
        assert repr(proxy) not in {thread.name for thread in threading.enumerate()}
        wait_until(lambda: server.session_count() <= sessions - 3)
        with pytest.raises(RuntimeError, match="is not running"):
            proxy.slow(1)
        assert proxy.stats().client_connections == 0
