"""One connection of a PostgreSQL driver, sync or asyncio, used as the library and its user use it."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_dbconn import Secret, Settings
from lambda_dbconn.credentials import Credentials
from lambda_dbconn.deadline import CancelScope
from lambda_dbconn.tls import trust_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.drivers import SessionState
    from lambda_dbconn.testing.servers import LocalServer

LIMIT_S = 10.0


@dataclass(kw_only=True)
class Driven:
    """A driver's connection, and what is needed to use it.

    Attributes:
        driver: The driver.
        connection: Its connection.
        scope: The deadline that the connection obeys; without an end at first.
        server: What answers.
    """

    driver: Any
    connection: Any
    scope: CancelScope
    server: LocalServer
    _loop: asyncio.Runner

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.driver.ping)

    def do(self, result: Any) -> Any:
        """Await what a call returned, if that is to be awaited."""
        return self._loop.run(_awaited(result)) if inspect.isawaitable(result) else result

    def fetch(self, statement: str, *parameters: object) -> list[Any]:
        """Run a query as the user and return its rows."""
        cursor = self.do(self.connection.execute(statement, parameters or None))
        rows: list[Any] = self.do(cursor.fetchall())
        return rows

    def set(self, name: str, value: object) -> None:
        """Set one of autocommit, isolation_level, read_only and deferrable as psycopg's user does."""
        self.do(getattr(self.connection, f"set_{name}")(value))

    def enter(self, context: Any) -> Any:
        """Enter a context of psycopg's, sync or asyncio."""
        return self.do(context.__aenter__() if self.is_async else context.__enter__())

    def leave(self, context: Any, error: BaseException | None = None) -> Any:
        """Leave it."""
        what = (type(error) if error else None, error, None)
        return self.do(context.__aexit__(*what) if self.is_async else context.__exit__(*what))

    def next(self, generator: Any) -> Any:
        """Return what a generator yields next."""
        return self.do(generator.__anext__() if self.is_async else next(generator))

    @property
    def state(self) -> SessionState:
        state: SessionState = self.driver.state(self.connection, within_s=lambda: LIMIT_S)
        return state

    def reset(self) -> None:
        """Reset as the library does between two loans, the last part at the next acquire."""
        self.driver.send_reset(self.connection, timeout_s=LIMIT_S)
        self.do(self.driver.finish_reset(self.connection, timeout_s=LIMIT_S))
        self.driver.restore(self.connection)

    @contextmanager
    def over(self, ends_at: float = -1.0) -> Iterator[None]:
        """Let the deadline have passed, or another end; the library's own calls are not bound by it."""
        self.scope.ends_at = ends_at
        try:
            yield
        finally:
            self.scope.ends_at = float("inf")

    def activity(self) -> tuple[Any, ...]:
        """Return what the server says of the session: it changes with whatever is sent."""
        pid = self.connection.pgconn.backend_pid
        asked = "SELECT state, query, query_start, state_change FROM pg_stat_activity WHERE pid = %s"
        return self.server.query(asked, pid)[0]


async def _awaited(result: Any) -> Any:
    return await result


def settings(server: LocalServer, *, is_tls: bool, **changes: Any) -> Settings:
    """Return good settings for a server, with these instead."""
    given: dict[str, Any] = {
        "engine": "postgresql",
        "host": "127.0.0.1",
        "port": server.port,
        "name": server.database,
        "user": server.user,
        "password": Secret(server.password),
        "sslmode": "disable",
    }
    if is_tls:
        given |= {"sslmode": "verify-full", "sslrootcert": str(server.ca_path)}
    return Settings(**(given | changes))


@contextmanager
def driven(server: LocalServer, *, is_async: bool, is_tls: bool, **changes: Any) -> Iterator[Driven]:
    """Open a connection, with these settings instead of the server's; close it at the end."""
    from lambda_dbconn.drivers.async_postgresql import AsyncPostgresqlDriver
    from lambda_dbconn.drivers.postgresql import PostgresqlDriver

    driver: Any = AsyncPostgresqlDriver() if is_async else PostgresqlDriver()
    given = settings(server, is_tls=is_tls, **changes)
    credentials = Credentials(user=server.user, password=Secret(server.password))
    connection = driver.open(given, credentials, trust_for(given), timeout_s=LIMIT_S)
    scope = CancelScope(where=given.address, monotonic=time.monotonic, interrupt=lambda _: None)
    driver.bind_scope(connection, scope)
    try:
        with asyncio.Runner() as loop:
            yield Driven(driver=driver, connection=connection, scope=scope, server=server, _loop=loop)
    finally:
        driver.close(connection)
