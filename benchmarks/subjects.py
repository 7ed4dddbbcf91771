"""What is compared: a bare global connection, and the library, with the same driver settings."""

from __future__ import annotations

import ssl
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql

from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_dbconn.testing.servers import LocalServer

SERVERS: Mapping[str, type[LocalServer]] = {"postgresql": LocalPostgres, "mysql": LocalMariaDB}


@contextmanager
def running(engine: str) -> Iterator[tuple[LocalServer, dict[str, str]]]:
    """Start a server with TLS; give it and the environment that leads to it."""
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates.create(Path(folder))
        with SERVERS[engine](certificates=certificates) as server:
            yield (
                server,
                {
                    "DB_ENGINE": engine,
                    "DB_HOST": server.host,
                    "DB_PORT": str(server.port),
                    "DB_NAME": server.database,
                    "DB_USER": server.user,
                    "DB_PASSWORD": server.password,
                    "DB_SSLROOTCERT": str(certificates.ca_path),
                },
            )


def bare_connection(environ: Mapping[str, str]) -> Any:
    """Connect as a careful author would by hand: autocommit, no prepared statements; verified TLS unless disabled."""
    is_plain = environ.get("DB_SSLMODE") == "disable"
    if environ["DB_ENGINE"] == "postgresql":
        return psycopg.connect(
            host=environ["DB_HOST"],
            port=environ["DB_PORT"],
            dbname=environ["DB_NAME"],
            user=environ["DB_USER"],
            password=environ["DB_PASSWORD"],
            sslmode="disable" if is_plain else "verify-full",
            sslrootcert="" if is_plain else environ["DB_SSLROOTCERT"],
            gssencmode="disable",
            autocommit=True,
            prepare_threshold=None,
        )
    return pymysql.connect(
        host=environ["DB_HOST"],
        port=int(environ["DB_PORT"]),
        database=environ["DB_NAME"],
        user=environ["DB_USER"],
        password=environ["DB_PASSWORD"],
        ssl=None if is_plain else ssl.create_default_context(cafile=environ["DB_SSLROOTCERT"]),
        ssl_disabled=is_plain,
        autocommit=True,
    )
