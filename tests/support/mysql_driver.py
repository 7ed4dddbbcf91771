"""The MySQL driver by itself, as the cache uses it, on a real server."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lambda_dbconn import Credentials
from lambda_dbconn.deadline import RELEASED_S, UNLIMITED_S, CancelScope
from lambda_dbconn.drivers.mysql import MysqlDriver
from lambda_dbconn.tls import trust_for
from tests.support.database import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.drivers import SessionState
    from lambda_dbconn.drivers.mysql_connection import Connection
    from lambda_dbconn.settings import Settings
    from tests.support.database import Database


class Session:
    """One connection, and what the cache does with it.

    Attributes:
        driver: The driver.
        connection: The connection; another one after `reopen`.
        scope: Its end is the test's to move.
        interrupts: How often the server was to be told to stop.
    """

    def __init__(self, settings: Settings) -> None:
        self.driver = MysqlDriver()
        self._settings = settings
        self._credentials = Credentials(user=settings.user or "", password=settings.password)
        self.interrupts = 0
        self.open()

    def open(self) -> None:
        """Log in."""
        trust = trust_for(self._settings)
        self.connection: Connection = self.driver.open(self._settings, self._credentials, trust, timeout_s=LIMIT_S)
        self.scope = CancelScope(where="here", monotonic=time.monotonic, interrupt=self._interrupt)
        self.driver.bind_scope(self.connection, self.scope)

    def _interrupt(self, _: object) -> None:
        self.interrupts += 1

    def reopen(self) -> None:
        """Give the connection up for another one."""
        self.driver.close(self.connection)
        self.open()

    def expire(self) -> None:
        """Let the deadline have passed."""
        self.scope.ends_at = time.monotonic() - 1.0

    def release(self) -> None:
        """Let nobody use it."""
        self.scope.ends_at = RELEASED_S

    def acquire(self) -> None:
        """Let the caller use it without a limit."""
        self.scope.ends_at = UNLIMITED_S

    def state(self) -> SessionState:
        """Ask what the session is in."""
        return self.driver.state(self.connection, within_s=lambda: LIMIT_S)

    def fetch(self, statement: str, *parameters: object) -> Any:
        """Run a query by a cursor, and return its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall()

    def reset(self) -> None:
        """Reset, as between two loans."""
        self.driver.send_reset(self.connection, timeout_s=LIMIT_S)
        self.driver.finish_reset(self.connection, timeout_s=LIMIT_S)


@contextmanager
def session_of(database: Database, **changes: Any) -> Iterator[Session]:
    """Log in to a database through its relay; the counters begin after that."""
    session = Session(database.settings(**changes))
    database.forget()
    try:
        yield session
    finally:
        session.driver.close(session.connection)
