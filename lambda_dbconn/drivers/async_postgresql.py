"""PostgreSQL through psycopg's `AsyncConnection`: what `postgresql` says, with waits that are awaited.

A connection is opened as there, blocking, for whoever calls `open` from a thread. It outlives the event loop in which
it was used: psycopg knows a loop only while it waits, but for the connection's lock, which is renewed here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
from psycopg import pq, waiting

from lambda_dbconn._threads import in_thread
from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.deadline import UNLIMITED_S
from lambda_dbconn.drivers.postgresql import (
    PostgresqlSessions,
    aborted,
    begin_statement,
    exchange,
    refuse_commit_in_use,
)
from lambda_dbconn.drivers.postgresql_connection import (
    ROLLBACK_AND_BEGIN,
    WAKE_UP_S,
    Block,
    ended_in_vain,
    refuse,
    within,
)
from lambda_dbconn.errors import DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from psycopg.abc import PQGen

    from lambda_dbconn.deadline import CancelScope

    _Base = psycopg.AsyncConnection[Any]
else:
    _Base = psycopg.AsyncConnection


class AsyncConnection(Block, _Base):
    """psycopg's connection, which the deadline bounds as it does `Connection`, and of any event loop.

    Attributes:
        interrupt: Asks the server to stop what the connection is waiting for; None while nobody has set it.
    """

    # As in `Connection`.
    scope: CancelScope | None
    has_sent: bool
    is_reply_owed: bool
    look: Callable[[Any, PQGen[Any]], None] | None
    see: Callable[[str | bytes], None]
    has_unseen: bool

    interrupt: Callable[[Any], None] | None
    _lock: asyncio.Lock
    _loop: asyncio.AbstractEventLoop | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Here, because CPython takes longer to read what an object's class has, too.
        self.scope = self.interrupt = self.look = self._loop = None
        self.has_sent = self.is_reply_owed = self.has_unseen = False
        self.is_in_block = self.is_rolled_back = self.has_left_block = False
        self.last_query = ""
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

    async def commit(self) -> None:
        """Commit; refused inside `transaction()` and `run()`, which do so themselves."""
        self._refuse_commit()
        await super().commit()

    async def rollback(self) -> None:
        """Roll back; inside `transaction()` and `run()` as `Connection.rollback`."""
        if self._rolls_back_block():
            await psycopg.AsyncCursor(self).execute(ROLLBACK_AND_BEGIN)
        else:
            await super().rollback()

    async def wait(self, gen: PQGen[Any], interval: float = WAKE_UP_S, timeout: float | None = None) -> Any:
        """Drive one of psycopg's generators until it ends, or until the deadline.

        A task that is cancelled meanwhile does not wait for the server, as psycopg's own would: the library asks the
        server to stop, and closes the connection.

        Raises:
            DeadlineExceededError: The deadline has passed: before anything was sent, which leaves the connection
                usable; or during the wait, after which it is closed.
            psycopg.InterfaceError: The connection was released.
        """
        scope = self.scope
        if self.is_in_block:
            self._note(gen)
        if scope is not None and scope.ends_at < UNLIMITED_S:
            left_s = scope.left_s()
            if left_s <= 0.0:
                refuse(self, scope)
                await self._cut(scope, None)
            timeout = left_s if timeout is None else min(left_s, timeout)
        self.has_sent = True
        if self.look is not None:
            self.look(self, gen)
        try:
            gen, *limits = within(gen, interval, timeout)
            return await waiting.wait_async(gen, self.pgconn.socket, *limits)
        except psycopg.OperationalError as error:
            if scope is None or not ended_in_vain(error, scope):
                raise
            await self._cut(scope, error)
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                try:
                    if self.interrupt is not None:
                        await in_thread(self.interrupt, self)
                finally:
                    self.pgconn.finish()
            raise

    async def _cut(self, scope: CancelScope, error: BaseException | None) -> NoReturn:
        try:
            raise await in_thread(scope.expire, self) from error
        finally:
            self.pgconn.finish()


class AsyncPostgresqlDriver(PostgresqlSessions[AsyncConnection]):
    """psycopg's asyncio side behind `lambda_dbconn.drivers.driver.Driver`, with coroutines for what may wait.

    These are `ping`, `begin`, `commit`, `rollback`, `read_rest`, `put_back_tracked`, `reset` and `finish_reset`.
    `open` and `interrupt` block: they are for threads.
    """

    _class = AsyncConnection
    _cursor = psycopg.AsyncCursor
    _server_cursor = psycopg.AsyncServerCursor

    async def ping(self, connection: AsyncConnection, *, timeout_s: float) -> None:
        """Run an empty-handed `SELECT 1`."""
        await _run(connection, b"SELECT 1", "SELECT 1", timeout_s)

    async def begin(self, connection: AsyncConnection, *, read_only: bool, isolation: str | None) -> None:
        """Send one BEGIN that says it all."""
        await psycopg.AsyncCursor(connection).execute(begin_statement(read_only=read_only, isolation=isolation))
        connection.enter_block()

    async def commit(self, connection: AsyncConnection) -> None:
        """Commit, unless the transaction has failed."""
        refuse_commit_in_use(connection)
        error = aborted(connection)
        connection.is_in_block = False
        if error is not None:
            with suppress(DeadlineExceededError):  # it is rolled back at release, then
                await connection.rollback()
            raise error
        await connection.commit()

    async def rollback(self, connection: AsyncConnection, *, timeout_s: float) -> None:
        """Roll back within the limit."""
        await _run(connection, b"ROLLBACK", "ROLLBACK", timeout_s)

    async def reset(self, connection: AsyncConnection, *, timeout_s: float) -> None:
        """Send the reset and wait for its answer: one round trip."""
        self.send_reset(connection, timeout_s=timeout_s)
        await self.finish_reset(connection, timeout_s=timeout_s)

    async def read_rest(self, connection: AsyncConnection, *, within_s: Callable[[], float]) -> None:
        """Read nothing, as `PostgresqlDriver`."""

    async def put_back_tracked(self, connection: AsyncConnection, *, timeout_s: float) -> None:
        """Put nothing back, as `PostgresqlDriver`."""

    async def finish_reset(self, connection: AsyncConnection, *, timeout_s: float) -> None:
        """Read the answer to the reset; without waiting if it is there.

        Raises:
            psycopg.OperationalError: The connection is gone, the server refused, or the time is over. The connection
                must be closed.
        """
        connection.pgconn.consume_input()
        await _run(connection, b"", "the reset", timeout_s)
        self._has_reset(connection)

    def close(self, connection: AsyncConnection) -> None:
        """Close: what psycopg does, which is no coroutine's work."""
        connection.pgconn.finish()


async def _run(connection: AsyncConnection, sql: bytes, doing: str, timeout_s: float) -> None:
    """Drive an exchange within a time limit.

    Raises:
        psycopg.OperationalError: The connection is gone, the server refused, or the time is over; after the
            last the connection must be closed.
    """
    pgconn = connection.pgconn
    gen, *limits = within(exchange(pgconn, sql, doing), WAKE_UP_S, timeout_s)
    await waiting.wait_async(gen, pgconn.socket, *limits)
