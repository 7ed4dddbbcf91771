"""Clients of the local RDS Proxy, as an application would write them, and tokens as AWS's SDK makes them."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from unittest import mock

import psycopg
import pymysql
import pytest

from lambda_dbconn import ConnectionManager, Secret, Settings
from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer

KEY = AwsKey(access_key_id="AKIDEXAMPLE", secret_access_key="wJalrXUtnFEMI")
DRIVER_ERRORS = (psycopg.Error, pymysql.Error)
PROXY_NAME = "local.proxy-cexample0000.us-east-1.rds.amazonaws.com"
READER_ADDRESS = "127.0.0.2"  # another address with the same port: where a test puts the read-only endpoint


class Reachable(Protocol):
    """What clients can connect to: a proxy, another pooler, or a server itself."""

    @property
    def engine(self) -> str:
        """`postgresql` or `mysql`."""

    @property
    def host(self) -> str:
        """Where it listens."""

    @property
    def port(self) -> int:
        """Where it listens."""

    @property
    def certificates(self) -> Certificates | None:
        """By whom its certificate is signed."""


def make_proxy(server: LocalServer, **options: Any) -> LocalRdsProxy:
    certificates = options.pop("certificates", server.certificates)
    return LocalRdsProxy(backend=server, certificates=certificates, **options)


def connect(
    proxy: Reachable,
    password: str,
    *,
    user: str = "app",
    database: str = "app",
    is_tls: bool = True,
    **options: Any,
) -> Any:
    """Connect with autocommit on, unless told otherwise."""
    options = {"autocommit": True, "connect_timeout": 10} | options
    assert proxy.certificates is not None
    ca_path = proxy.certificates.ca_path
    if proxy.engine == "postgresql":
        return psycopg.connect(
            host=proxy.host,
            port=proxy.port,
            user=user,
            password=password,
            dbname=database,
            sslmode="verify-full" if is_tls else "disable",
            sslrootcert=str(ca_path) if is_tls else "",
            **options,
        )
    return pymysql.connect(
        host=proxy.host,
        port=proxy.port,
        user=user,
        password=password,
        database=database,
        ssl=ssl.create_default_context(cafile=ca_path) if is_tls else None,
        ssl_disabled=not is_tls,
        **{"read_timeout": 20, **options},
    )


def settings_for(proxy: LocalRdsProxy, **changes: Any) -> Settings:
    """Return the settings of a function that knows the proxy by its name, and reaches it through a tunnel.

    Its certificates must be for `PROXY_NAME`, as those of the fixture `proxy_certificates` are.
    """
    given: dict[str, Any] = {
        "engine": proxy.engine,
        "host": "127.0.0.1",
        "signing_host": PROXY_NAME,
        "port": proxy.port,
        "name": "app",
        "user": "app",
        "password": Secret(proxy.backend.password),
        "sslrootcert": str(proxy.certificates.ca_path),
    }
    return Settings(**(given | changes))


@contextmanager
def managing(
    proxy: LocalRdsProxy, *, credentials: Any = None, observer: Any = None, clock: Any = None, **changes: Any
) -> Iterator[ConnectionManager[Any]]:
    """Make a manager for the proxy, and close it after."""
    db: ConnectionManager[Any] = ConnectionManager(
        settings_for(proxy, **changes), credentials=credentials, observer=observer, clock=clock
    )
    try:
        yield db
    finally:
        db.close()


@contextmanager
def clients(proxy: LocalRdsProxy, password: str, count: int, **options: Any) -> Iterator[list[Any]]:
    connections: list[Any] = []
    try:
        connections.extend(connect(proxy, password, **options) for _ in range(count))
        yield connections
    finally:
        for connection in connections:
            close(connection)


def close(connection: Any) -> None:
    """Close what may have broken."""
    if isinstance(connection, psycopg.Connection) or connection.open:
        connection.close()


def break_socket(connection: Any) -> None:
    """Vanish without a goodbye."""
    fileno = connection.fileno() if isinstance(connection, psycopg.Connection) else connection._sock.fileno()
    with socket.socket(fileno=os.dup(fileno)) as raw:
        raw.shutdown(socket.SHUT_RDWR)


def rows(connection: Any, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, parameters or None)
        return list(cursor.fetchall()) if cursor.description else []


def value(connection: Any, statement: str, *parameters: Any) -> Any:
    return rows(connection, statement, *parameters)[0][0]


def database_session(connection: Any) -> int:
    """Say which connection to the database the client has just now."""
    is_postgres = isinstance(connection, psycopg.Connection)
    number: int = value(connection, "SELECT pg_backend_pid()" if is_postgres else "SELECT CONNECTION_ID()")
    return number


def token(
    proxy: LocalRdsProxy,
    *,
    user: str = "app",
    host: str | None = None,
    port: int | None = None,
    region: str | None = None,
    key: AwsKey = KEY,
    age_s: float = 0.0,
    life_s: int = 900,
) -> str:
    """Make an authentication token as botocore's `generate_db_auth_token` does, with each part to be got wrong."""
    auth = pytest.importorskip("botocore.auth", reason="tokens are signed by botocore: pip install boto3")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"https://{host or proxy.signing_host}:{port or proxy.port}/"
    request = AWSRequest("GET", url, params={"Action": "connect", "DBUser": user})
    credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token)
    signer = auth.SigV4QueryAuth(credentials, "rds-db", region or proxy.region, expires=life_s)
    now = auth.get_current_datetime() - timedelta(seconds=age_s)
    with mock.patch.object(auth, "get_current_datetime", return_value=now):
        signer.add_auth(request)
    signed: str = request.prepare().url
    return signed.removeprefix("https://")
