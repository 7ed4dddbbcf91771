"""Clients as an application would write them, for both engines."""

from __future__ import annotations

import ssl
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql

from lambda_dbconn.testing.servers import LocalMariaDB, LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFUSED = (psycopg.OperationalError, pymysql.err.OperationalError)


def connect(
    server: LocalServer,
    *,
    user: str | None = None,
    password: str | None = None,
    ca_path: Path | None = None,
    is_tls: bool = True,
) -> Any:
    """Connect as an application does: by TCP, with a password, over verified TLS."""
    certificates = server.certificates
    assert certificates is not None
    ca_path = ca_path or certificates.ca_path
    user = user or server.user
    password = server.password if password is None else password
    if isinstance(server, LocalMariaDB):
        context = ssl.create_default_context(cafile=ca_path)
        return pymysql.connect(
            host=server.host,
            port=server.port,
            user=user,
            password=password,
            database=server.database,
            ssl=context if is_tls else None,
            ssl_disabled=not is_tls,
            connect_timeout=10,
            read_timeout=20,
        )
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=user,
        password=password,
        dbname=server.database,
        sslmode="verify-full" if is_tls else "disable",
        sslrootcert=str(ca_path) if is_tls else "",
        connect_timeout=10,
    )


def query(connection: Any, statement: str) -> Any:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def is_encrypted(connection: Any, server: LocalServer) -> bool:
    if isinstance(server, LocalMariaDB):
        with closing(connection.cursor()) as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_version'")
            return bool(cursor.fetchone()[1])
    return bool(query(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))


def wait_until(is_done: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    """Wait for something that another process or thread is about to do."""
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
