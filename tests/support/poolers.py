"""The local RDS Proxy beside poolers that others wrote, each before the same server and driven in the same way."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_dbconn.testing.servers import LocalPostgres
from tests.support.clients import wait_until
from tests.support.mysql import LocalMySQL
from tests.support.mysql_router import LocalMySqlRouter
from tests.support.pgbouncer import LocalPgBouncer
from tests.support.rds_proxy import close, connect, make_proxy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer

_WAIT_S = 30
"""How long a client waits for a database connection, where there is a limit: against hangs, not a measure."""

_FIRST_PGBOUNCER_WITH_PREPARED_STATEMENTS = (1, 21)


@dataclass(frozen=True, kw_only=True)
class Pooler:
    """Something between clients and a server that nobody else uses.

    Attributes:
        backend: The server.
        port: Where clients connect.
        most: How many connections to the server there may be; None if it knows no limit.
    """

    backend: LocalServer
    port: int
    most: int | None
    host: str = "localhost"

    @property
    def engine(self) -> str:
        """The backend's."""
        return self.backend.engine

    @property
    def certificates(self) -> Certificates | None:
        """The backend's, which all show here."""
        return self.backend.certificates

    @contextmanager
    def clients(self, count: int, **options: Any) -> Iterator[list[Any]]:
        """Connect so many clients, with autocommit on; psycopg prepares nothing unless told to."""
        if self.engine == "postgresql":
            options = {"prepare_threshold": None} | options
        connections: list[Any] = []
        try:
            connections.extend(connect(self, self.backend.password, **options) for _ in range(count))
            yield connections
        finally:
            for connection in connections:
                close(connection)

    def check_sessions(self, seen: Iterable[int] = ()) -> None:
        """Compare what the server has, and the sessions that clients have seen, with the limit."""
        if self.most is None:
            return
        most = self.most
        assert len(set(seen)) <= most
        wait_until(lambda: self.backend.session_count() <= most)  # one that was hung up on may take a moment


@contextmanager
def no_pooler(backend: LocalServer) -> Iterator[Pooler]:
    """The server itself: what answers are to be like."""
    yield Pooler(backend=backend, port=backend.port, most=None)


@contextmanager
def stand_in(
    backend: LocalServer, size: int, *, pins: set[str] | None = None, wait_s: int = _WAIT_S
) -> Iterator[Pooler]:
    """The local RDS Proxy; `pins` says for which reasons it must pin, and it must not for others."""
    with make_proxy(backend, max_database_connections=size, borrow_timeout_s=wait_s) as proxy:
        yield Pooler(backend=backend, port=proxy.port, most=size)
        stats = proxy.stats()
        assert stats.pins.keys() == (pins or set())
        assert stats.most_database_connections <= size
        assert "[ERROR]" not in proxy.log()
    wait_until(lambda: backend.session_count() == 0)


@contextmanager
def other_pooler(backend: LocalServer, size: int, *, wait_s: int = _WAIT_S) -> Iterator[Pooler]:
    """PgBouncer in transaction mode; for MySQL its Router, which opens more connections when it needs them."""
    assert backend.certificates is not None
    pooler: LocalServer
    if isinstance(backend, LocalMySQL):
        pooler = LocalMySqlRouter(backend=backend, certificates=backend.certificates, idle_connections=size)
        most = None
    else:
        assert isinstance(backend, LocalPostgres)
        options = {"default_pool_size": str(size), "query_wait_timeout": str(wait_s)}
        if pgbouncer_knows_prepared_statements():
            options["max_prepared_statements"] = "100"
        pooler = LocalPgBouncer(backend=backend, certificates=backend.certificates, extra_options=options)
        most = size
    with pooler:
        yield Pooler(backend=backend, port=pooler.port, most=most)
    wait_until(lambda: backend.session_count() == 0)


def pgbouncer_knows_prepared_statements() -> bool:
    """Say whether this PgBouncer is new enough to carry protocol-level prepared statements from server to server."""
    major, minor = map(int, re.findall(r"\d+", LocalPgBouncer.version())[:2])
    return (major, minor) >= _FIRST_PGBOUNCER_WITH_PREPARED_STATEMENTS
