"""The connections to the database, shared by the sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lambda_dbconn.testing.rds_proxy.texts import refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lambda_dbconn.testing.rds_proxy.ledger import Ledger
    from lambda_dbconn.testing.rds_proxy.stream import Stream

_RETRY_S = 0.02


class DatabaseUnavailableError(Exception):
    """There is no database to connect to just now; there may be one soon."""


class DatabaseConnection:
    """A connection that is logged in at the database; engines add what its session's state is.

    Attributes:
        number: As `dbConnection` in the log.
        stream: Its bytes.
        user: Whose it is.
        database: Where it is.
        is_outdated: Whether it is to be closed when given back.
    """

    def __init__(self, *, number: int, stream: Stream, user: str, database: str) -> None:
        self.number = number
        self.stream = stream
        self.user = user
        self.database = database
        self.is_outdated = False


class Pool:
    """Lends connections, first come, first served; a connection is lent to one session at a time.

    One that fits the session is reused. With none idle a new one is opened; when there are as many as there may be,
    an idle one that does not fit is closed for it; else the session waits.
    """

    def __init__(self, *, engine: str, most: int, borrow_timeout_s: float, ledger: Ledger) -> None:
        self.borrow_timeout_s = borrow_timeout_s
        self._engine = engine
        self._most = most
        self._ledger = ledger
        self._idle: list[Any] = []  # the latest used last
        self._lent: set[Any] = set()
        self._opening = 0
        self._generation = 0  # counts how often all connections were retired
        self._turn = asyncio.Lock()  # held by the first in the line; asyncio's is fair
        self._changed = asyncio.Event()

    @property
    def open_count(self) -> int:
        """How many connections there are, or are being made."""
        self._idle = [connection for connection in self._idle if not connection.stream.is_ended]
        return len(self._idle) + self.lent_count + self._opening

    @property
    def lent_count(self) -> int:
        """How many of them sessions have."""
        return sum(not connection.stream.is_ended for connection in self._lent)

    async def borrow(
        self, fits: Callable[[Any], bool], connect: Callable[[], Awaitable[Any]], favourite: Any = None
    ) -> Any:
        """Lend a connection that `fits`: the favourite if it is idle, else another, else one from `connect`.

        Raises:
            RefusedError: There was none within the borrow timeout, or the database does not let the user in.
        """
        connection = None
        if not self._turn.locked():
            connection = self._take_idle(fits, favourite)
        if connection is None:
            try:
                async with asyncio.timeout(self.borrow_timeout_s):
                    connection = await self._wait_for_one(fits, connect)
            except TimeoutError:
                self._ledger.borrow_timeouts += 1
                raise refused(self._engine, "borrow_timeout") from None
        self._lent.add(connection)
        self._ledger.borrows += 1
        return connection

    def give_back(self, connection: Any) -> None:
        """Take back a connection that is in a state for others."""
        self._lent.discard(connection)
        if connection.is_outdated:
            connection.stream.abort()
        elif not connection.stream.is_ended:
            self._idle.append(connection)
        self._changed.set()

    def discard(self, connection: Any) -> None:
        """Close a connection that nobody else can use."""
        self._lent.discard(connection)
        connection.stream.abort()
        self._changed.set()

    def retire(self, *, is_abrupt: bool) -> None:
        """Close all connections: those lent when they come back, or, abruptly, at once; those being made, when made."""
        self._generation += 1
        for connection in [*self._idle, *self._lent]:
            connection.is_outdated = True
        for connection in self._idle:
            connection.stream.abort()
        self._idle.clear()
        if is_abrupt:
            for connection in [*self._lent]:
                connection.stream.abort()
        self._changed.set()

    async def _wait_for_one(self, fits: Callable[[Any], bool], connect: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            async with self._turn:
                while (connection := self._take_idle(fits)) is None and not self._make_room():
                    self._changed.clear()
                    await self._changed.wait()
                if connection is not None:
                    return connection
                self._opening += 1  # holds the place that the connection will take
            generation = self._generation
            try:
                connection = await connect()
                if generation == self._generation:
                    return connection
                connection.stream.abort()  # it leads to where the database was
            except DatabaseUnavailableError:
                await asyncio.sleep(_RETRY_S)
            finally:
                self._opening -= 1
                self._changed.set()

    def _take_idle(self, fits: Callable[[Any], bool], favourite: Any = None) -> Any:
        usable = [connection for connection in self._idle if not connection.stream.is_ended and fits(connection)]
        if not usable:
            return None
        connection = favourite if favourite in usable else usable[-1]
        self._idle.remove(connection)
        return connection

    def _make_room(self) -> bool:
        if self.open_count >= self._most and self._idle:
            self._idle.pop(0).stream.abort()
        count = self.open_count
        if count >= self._most:
            return False
        self._ledger.most_database_connections = max(self._ledger.most_database_connections, count + 1)
        return True
