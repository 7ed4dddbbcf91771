"""PostgreSQL through psycopg's `AsyncConnection`: what `postgresql` says, with waits that are awaited.

A connection is opened as there, blocking, for whoever calls `open` from a thread. It outlives the event loop in which
it was used: psycopg knows a loop only while it waits, but for the connection's lock, which is renewed here.
"""

from __future__ import annotations

import asyncio

import psycopg
from psycopg import pq, waiting

from lambda_dbconn.deadline import UNLIMITED_S
from lambda_dbconn.drivers import watching
from lambda_dbconn.drivers.postgresql import (
    PostgresqlSessions,
    aborted,
    begin_statement,
    forget_notifications,
    has_failed,
    refuse_prepared,
)
from lambda_dbconn.drivers.postgresql_connection import WAKE_UP_S, ended_in_vain, within
from lambda_dbconn.light import TYPE_CHECKING
from lambda_dbconn.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from psycopg.abc import PQGen

    from lambda_dbconn.deadline import Cutoff

    _Base = psycopg.AsyncConnection[Any]
else:
    _Base = psycopg.AsyncConnection


class AsyncConnection(_Base):
    """psycopg's connection, all of whose waits can be given an end; and of any event loop."""

    cutoff: Cutoff | None  # when all its waits end
    interrupt: Callable[[Any], None] | None  # asks the server to stop what the connection is waiting for
    see: Callable[[str | bytes], None]  # is shown each statement, if it is watched
    _lock: asyncio.Lock
    _loop: asyncio.AbstractEventLoop | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.cutoff = self.interrupt = self._loop = None  # here: what the class has, too, is read in a slower way
        self.see = watching.see_nothing
        super().__init__(*arguments, **options)

    @property
    def lock(self) -> asyncio.Lock:  # psycopg's own name
        """The lock that keeps tasks apart which share the connection; each event loop gets its own."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    @lock.setter
    def lock(self, lock: asyncio.Lock) -> None:
        self._lock = lock

    async def wait(self, gen: PQGen[Any], interval: float = WAKE_UP_S, timeout: float | None = None) -> Any:
        """Drive one of psycopg's generators, to the end of the invocation's time at most.

        A task that is cancelled meanwhile does not wait for the server, as psycopg's own would: the server is asked
        to stop, and the connection is closed.
        """
        cutoff = self.cutoff
        try:
            if cutoff is not None and cutoff.ends_at < UNLIMITED_S:
                left_s = cutoff.left_s()
                timeout = left_s if timeout is None else min(left_s, timeout)
            gen, *limits = within(gen, interval, timeout)
            return await waiting.wait_async(gen, self.pgconn.socket, *limits)
        except psycopg.OperationalError as error:
            if cutoff is None or not ended_in_vain(error, cutoff):
                raise
            try:
                raise await in_thread(cutoff.cut, self) from error
            finally:
                self.pgconn.finish()
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                try:
                    if self.interrupt is not None:
                        await in_thread(self.interrupt, self)
                finally:
                    self.pgconn.finish()
            raise


class WatchedAsyncConnection(AsyncConnection):
    """The same, whose statements are seen."""

    cursor_factory: Any = watching.Factory()
    server_cursor_factory: Any = watching.Factory()


class AsyncPostgresqlDriver(PostgresqlSessions[AsyncConnection]):
    """psycopg's asyncio side behind `lambda_dbconn.drivers.driver.Driver`, with coroutines for what may wait.

    These are `ping`, `begin`, `commit`, `rollback` and `reset`. `open` and `interrupt` block: they are for threads.
    """

    _class = AsyncConnection
    _watched_class = WatchedAsyncConnection

    def _put_back(self, connection: AsyncConnection) -> None:
        # What `set_autocommit()` and the like do, but that they are coroutines.
        connection._autocommit = True  # noqa: SLF001
        connection._read_only = connection._isolation_level = connection._deferrable = None  # noqa: SLF001
        connection._begin_statement = b""  # noqa: SLF001

    async def ping(self, connection: AsyncConnection, *, timeout_s: float) -> None:
        """Run an empty-handed `SELECT 1`."""
        await _run(connection, b"SELECT 1", timeout_s)

    async def begin(self, connection: AsyncConnection, *, read_only: bool, isolation: str | None) -> None:
        """Send one BEGIN that says it all."""
        await psycopg.AsyncCursor(connection).execute(begin_statement(read_only=read_only, isolation=isolation))

    async def commit(self, connection: AsyncConnection) -> None:
        """Commit, unless the transaction has failed."""
        if has_failed(connection):
            await connection.rollback()
            raise aborted()
        await connection.commit()

    async def rollback(self, connection: AsyncConnection, *, timeout_s: float) -> None:
        """Roll back within the limit."""
        await _run(connection, b"ROLLBACK", timeout_s)

    async def reset(self, connection: AsyncConnection, *, timeout_s: float) -> None:
        """Send DISCARD ALL, and forget the notifications that nobody has read."""
        refuse_prepared(connection)
        await _run(connection, b"DISCARD ALL", timeout_s)
        forget_notifications(connection)

    def close(self, connection: AsyncConnection) -> None:
        """Close: what psycopg does, which is no coroutine's work."""
        connection.pgconn.finish()


async def _run(connection: AsyncConnection, sql: bytes, timeout_s: float) -> None:
    """Run one statement of ours, whose result does not matter, within a time limit.

    Raises:
        psycopg.Error: The connection is gone, the server refused, or the time is over; after the last the connection
            must be closed.
    """
    await connection.wait(connection._exec_command(sql), timeout=timeout_s)  # noqa: SLF001 - as its `commit` does
