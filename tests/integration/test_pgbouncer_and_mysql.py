"""The servers that only the tests use."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import REFUSED, connect, is_encrypted, query
from tests.support.pgbouncer import LocalPgBouncer

if TYPE_CHECKING:
    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import (
        LocalPostgres,
    )
    from tests.support.mysql import LocalMySQL

pytestmark = pytest.mark.once


def test_pgbouncer_serves_clients_over_verified_tls_from_fewer_sessions(pgbouncer: LocalPgBouncer) -> None:
    clients = [connect(pgbouncer) for _ in range(4)]
    try:
        assert len({query(client, "SELECT pg_backend_pid()") for client in clients}) <= 4
        for client in clients:
            client.rollback()
        assert {query(client, "SELECT 1") or client.rollback() for client in clients} == {1}
        assert pgbouncer.query("SHOW VERSION")[0][0].startswith("PgBouncer")
    finally:
        for client in clients:
            client.close()


def test_pgbouncer_requires_the_password_and_can_require_tls(
    postgres: LocalPostgres, certificates: Certificates
) -> None:
    with LocalPgBouncer(backend=postgres, certificates=certificates, is_tls_required=True) as strict:
        connect(strict).close()
        with pytest.raises(REFUSED, match=r"(?i)authentication failed"):
            connect(strict, password="wrong")
        with pytest.raises(REFUSED, match=r"(?i)SSL required"):
            connect(strict, is_tls=False)


def test_pgbouncer_restarts_on_its_port_and_survives_a_kill(
    postgres: LocalPostgres, certificates: Certificates
) -> None:
    with LocalPgBouncer(backend=postgres, certificates=certificates) as bouncer:
        port = bouncer.port
        with closing(connect(bouncer)) as client:
            query(client, "SELECT 1")
            started_s = time.monotonic()
            bouncer.restart()
            assert time.monotonic() - started_s < 5, "it waited for its client"
        bouncer.kill()
        bouncer.start()
        assert bouncer.port == port
        connect(bouncer).close()


def test_mysql_has_the_shape_of_mariadb(mysql: LocalMySQL) -> None:
    with closing(connect(mysql)) as connection:
        assert is_encrypted(connection, mysql)
        assert query(connection, "SELECT VERSION()").startswith("9.")
        mysql.kill_session(mysql.session_ids()[0])
    with pytest.raises(REFUSED, match=r"(?i)access denied"):
        connect(mysql, password="wrong")
    with pytest.raises(REFUSED, match=r"(?i)access denied|not allowed"):
        connect(mysql, user="root", password="")
    port = mysql.port
    mysql.restart()
    assert mysql.port == port
    connect(mysql).close()
