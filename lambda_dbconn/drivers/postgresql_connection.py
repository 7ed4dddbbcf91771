"""psycopg's connection, whose `wait` looks at the deadline before anything is sent, and ends with it.

`wait` is psycopg's one documented way to the server: cursors, also those that are made directly, streams, COPY,
pipelines, `transaction()` and COMMIT all go through it. Past it go only `pgconn`, and `cancel()`.
"""

from __future__ import annotations

import time

import psycopg
from psycopg import pq, waiting

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.deadline import UNLIMITED_S
from lambda_dbconn.drivers import psycopg_internals

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from psycopg.abc import PQGen

    from lambda_dbconn.deadline import CancelScope
    from lambda_dbconn.drivers.async_postgresql import AsyncConnection

    _Base = psycopg.Connection[Any]
else:
    _Base = psycopg.Connection

WAKE_UP_S = 0.1  # how often psycopg looks up from a wait, by default
_HAS_TIMEOUT = "timeout" in psycopg.Connection.wait.__code__.co_varnames  # from psycopg 3.3 on
_ACTIVE = pq.TransactionStatus.ACTIVE
_IDLE = pq.TransactionStatus.IDLE
_IN_TRANSACTION = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)
ROLLBACK_AND_BEGIN = b"ROLLBACK AND CHAIN"  # so that nothing that follows in the block is committed by itself
_RELEASED = "the connection was released at the end of its `with` block; use it inside the block"


def within(gen: PQGen[Any], interval: float, limit_s: float | None) -> tuple[Any, ...]:
    """Return a generator and more arguments for psycopg's waits, such that they end with the limit."""
    if limit_s is None:
        return gen, interval
    if _HAS_TIMEOUT:
        return gen, interval, limit_s if limit_s > 0 else 0.0
    return _until(time.monotonic() + limit_s, gen), interval


def ended_in_vain(error: psycopg.OperationalError, scope: CancelScope) -> bool:
    """Say whether an error is the end of the invocation's time, and not the server's word."""
    return error.sqlstate is None and scope.left_s() <= 0


def refuse(connection: Connection | AsyncConnection, scope: CancelScope) -> None:
    """Raise for a wait that must not begin, so that nothing is sent; return if one was sent before and must be cut.

    Raises:
        psycopg.InterfaceError: The connection was released.
        DeadlineExceededError: The deadline has passed. The connection stays usable.
    """
    if scope.is_released:
        raise psycopg.InterfaceError(_RELEASED)
    if connection.pgconn.transaction_status != _ACTIVE:
        raise scope.refuse()


def _until(ends_at: float, gen: PQGen[Any]) -> PQGen[Any]:
    """Hand on what a generator waits for until the time is over; psycopg wakes it ten times a second."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if time.monotonic() >= ends_at:
                raise psycopg.OperationalError("the time is over")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


def _wait_within(connection: Connection, gen: PQGen[Any], interval: float, timeout: float | None) -> Any:
    return psycopg.Connection.wait(connection, *within(gen, interval, timeout))


def _drive_within(gen: PQGen[Any], fileno: int, interval: float, timeout: float) -> Any:
    return waiting.wait(_until(time.monotonic() + timeout, gen), fileno, interval)


# Each statement is driven by one of these: not by way of a tuple of arguments where psycopg takes the limit itself.
_wait: Any = psycopg.Connection.wait if _HAS_TIMEOUT else _wait_within
_drive: Any = waiting.wait if _HAS_TIMEOUT else _drive_within


class Block:
    """What a connection knows of the library's `transaction()` block that it is in.

    Attributes:
        is_in_block: Whether it is in one. Then its own `commit()` is refused, and its `rollback()` marks the block.
        is_rolled_back: Whether `rollback()` was called inside.
        has_left_block: Whether the server said before a statement that there is no transaction any more.
        last_query: What the last statement inside was, as it was given to a cursor.
    """

    is_in_block: bool
    is_rolled_back: bool
    has_left_block: bool
    last_query: Any
    pgconn: pq.abc.PGconn

    def enter_block(self) -> None:
        """Note that BEGIN was answered."""
        self.is_rolled_back = self.has_left_block = False
        self.last_query = ""
        self.is_in_block = True

    def _note(self, gen: Any) -> None:
        """Note before a statement, inside a block: whether the one before has ended the transaction, and its text."""
        if self.pgconn.transaction_status == _IDLE:
            self.has_left_block = True
        frame = getattr(gen, "gi_frame", None)
        self.last_query = frame.f_locals.get("query", "") if frame is not None else ""

    def _refuse_commit(self) -> None:
        """Raise inside a block.

        Raises:
            psycopg.ProgrammingError: The block commits by itself.
        """
        if self.is_in_block:
            raise psycopg.ProgrammingError(
                "commit() is refused inside transaction() and run(), which commit at the end of the block: use "
                "connection() to commit yourself"
            )

    def _rolls_back_block(self) -> bool:
        """Return whether `rollback()` is to begin the block's transaction anew, and mark the block."""
        status = self.pgconn.transaction_status
        if self.is_in_block and self.pgconn.pipeline_status:
            raise psycopg.ProgrammingError(
                "rollback() is refused in a pipeline inside transaction() and run(): leave the pipeline first"
            )
        if not self.is_in_block or status not in _IN_TRANSACTION or psycopg_internals.has_contexts(self):
            return False
        self.is_rolled_back = True
        return True


class Connection(Block, _Base):
    """psycopg's connection; the deadline bounds all its waits, and nothing is sent once it has passed.

    A `transaction()` block of psycopg's that ends after the deadline is not told to the server either: the library
    closes the connection at release. Its own `transaction()` it rolls back, within the time for cleaning.

    Attributes:
        scope: The deadline; None while nobody has set one.
        has_sent: Whether anything of the user's was sent since login or since the last reset.
        is_reply_owed: A reset was sent, and its answer was not read to its end.
        look: Is shown each generator before it is driven, where statements are watched (`watching`); else None.
        see: Is shown each statement; only where `look` is set.
        has_unseen: Whether something was sent, where statements are watched, whose text was not seen.
    """

    scope: CancelScope | None
    has_sent: bool
    is_reply_owed: bool
    look: Callable[[Any, PQGen[Any]], None] | None
    see: Callable[[str | bytes], None]
    has_unseen: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Here, because CPython takes longer to read what an object's class has, too.
        self.scope = self.look = None
        self.has_sent = self.is_reply_owed = self.has_unseen = False
        self.is_in_block = self.is_rolled_back = self.has_left_block = False
        self.last_query = ""
        super().__init__(*arguments, **options)

    def commit(self) -> None:
        """Commit; refused inside `transaction()` and `run()`, which do so themselves."""
        self._refuse_commit()
        super().commit()

    def rollback(self) -> None:
        """Roll back. Inside `transaction()` and `run()` the block then raises at its end: nothing was committed."""
        if self._rolls_back_block():
            psycopg.Cursor(self).execute(ROLLBACK_AND_BEGIN)
        else:
            super().rollback()

    def wait(self, gen: PQGen[Any], interval: float = WAKE_UP_S, timeout: float | None = None) -> Any:
        """Drive one of psycopg's generators until it ends, or until the deadline.

        Without a deadline this is psycopg's own. With one, Ctrl-C does not wait for the server as psycopg would: the
        library asks the server to stop, and closes the connection.

        Raises:
            DeadlineExceededError: The deadline has passed: before anything was sent, which leaves the connection
                usable; or during the wait, after which it is closed.
            psycopg.InterfaceError: The connection was released.
        """
        scope = self.scope
        if self.is_in_block:
            self._note(gen)
        if scope is None or scope.ends_at == UNLIMITED_S:
            self.has_sent = True
            if self.look is not None:
                self.look(self, gen)
            return _wait(self, gen, interval, timeout)
        left_s = scope.ends_at - scope.monotonic()
        if left_s <= 0.0:
            refuse(self, scope)
            self._cut(scope, None)
        self.has_sent = True
        if self.look is not None:
            self.look(self, gen)
        try:
            limit_s = left_s if timeout is None or left_s < timeout else timeout
            return _drive(gen, self.pgconn.socket, interval, limit_s)
        except psycopg.OperationalError as error:
            if not ended_in_vain(error, scope):
                raise
            self._cut(scope, error)
        except KeyboardInterrupt:
            if self.pgconn.transaction_status == _ACTIVE:
                try:
                    scope.interrupt(self)
                finally:
                    self.pgconn.finish()
            raise

    def _cut(self, scope: CancelScope, error: BaseException | None) -> NoReturn:
        try:
            raise scope.expire(self) from error
        finally:
            self.pgconn.finish()
