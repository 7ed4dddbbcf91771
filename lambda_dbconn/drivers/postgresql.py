"""PostgreSQL through psycopg 3.

Rests on psycopg 3.2.13 to 3.3 and libpq 16 to 18. What it is careful about (all measured, see docs):

- `psycopg.connect` allows each address two seconds at least; here libpq's own non-blocking connect is driven to an
  exact limit instead, through `psycopg.pq`.
- Connect errors carry no SQLSTATE; `proxy_messages` reads their text.
- `prepare_threshold=None`: a named prepared statement breaks behind a pooler, and psycopg's `DEALLOCATE ALL` pins.
- An idle session that the server ended looks healthy until it is read from, twice.
- The library's own messages (ping, ROLLBACK, reset) do not go through the connection's `wait`: they have time limits of
  their own, and no deadline refuses them.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress

import psycopg
from psycopg import pq, waiting
from psycopg.rows import tuple_row

from lambda_dbconn._values import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.drivers import (
    ENDED_INSIDE,
    ErrorKind,
    SessionState,
    addresses,
    checked_isolation,
    connect_error,
    libpq,
    psycopg_internals,
)
from lambda_dbconn.drivers.commits import may_commit
from lambda_dbconn.drivers.postgresql_connection import Connection
from lambda_dbconn.errors import ConnectTimeoutError, DeadlineExceededError, TransactionAbortedError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import Any

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.deadline import CancelScope
    from lambda_dbconn.drivers.async_postgresql import AsyncConnection
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

C = TypeVar("C", bound="Connection | AsyncConnection")

_CLEAN = SessionState.CLEAN
_IDLE = int(pq.TransactionStatus.IDLE)  # to compare two plain numbers is quicker
_IN_TRANSACTION = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)
_MOST_READS = 1000  # of a session that talks without end: more than that is left to the ping
_GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
_EVENTS = {waiting.WAIT_R: select.POLLIN, waiting.WAIT_RW: select.POLLIN | select.POLLOUT}

# All that DISCARD ALL does but DISCARD PLANS, after which each function in PL/pgSQL is planned anew (0.1 ms for three
# statements). One message is one transaction, which DISCARD ALL refuses. RESET ALL comes first: with it the user's
# statement_timeout ends. RESET ROLE: servers before 15.9 lose the role's own `role` setting to the words before it.
# Nothing here is looked up along the user's search_path.
RESET = (
    b"RESET ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; CLOSE ALL; UNLISTEN *; "
    b"SELECT pg_catalog.pg_advisory_unlock_all(); DEALLOCATE ALL; DISCARD TEMP; DISCARD SEQUENCES"
)


class PostgresqlSessions(Generic[C]):
    """What a driver knows and does without waiting, and opening, which blocks: for both of psycopg's connections."""

    _class: type[C]
    _cursor: Any
    _server_cursor: Any

    def open(self, settings: Settings, credentials: Credentials, trust: Trust, *, timeout_s: float) -> C:
        """Connect to the first address that answers; sends no SQL at all."""
        where = f"{settings.address} as {credentials.user!r}, database {settings.name or credentials.user!r}"

        def open_one(address: str, limit_s: float) -> C:
            parameters = libpq.parameters(settings, credentials, trust, address)
            pgconn = libpq.start(parameters, credentials.password)
            _finish_connecting(pgconn, parameters, where, limit_s)
            connection = self._class(pgconn)
            self.restore(connection)
            return connection

        return addresses.first_that_opens(settings.host, settings.port, timeout_s, open_one)

    def restore(self, connection: C) -> None:
        """Put back what a user may have set on the connection object; sends nothing, never blocks or raises."""
        connection.row_factory = tuple_row
        connection.cursor_factory = self._cursor
        connection.server_cursor_factory = self._server_cursor
        psycopg_internals.restore_transactions(connection)
        psycopg_internals.restore_preparing(connection)
        connection.is_in_block = False

    def watch(self, connection: C, see: Callable[[str | bytes], None]) -> None:
        """Let `see` be called with the text of each statement before it is sent."""
        from lambda_dbconn.drivers import watching  # only RDS Proxy needs it

        watching.watch(connection, see)

    def has_unseen(self, connection: C) -> bool:
        """Return whether anything was sent, since `watch`, whose text could not be seen. Never blocks."""
        return connection.has_unseen

    def bind_scope(self, connection: C, scope: CancelScope) -> None:
        """Let the caller's calls end with the invocation's time."""
        connection.scope = scope

    def fileno(self, connection: C) -> int:
        """Return the socket's file descriptor."""
        return connection.fileno()

    def is_open(self, connection: C) -> bool:
        """Say whether the driver still believes in the connection."""
        return not connection.closed

    def drain(self, connection: C) -> bool:
        """Read notices, notifications and parameter changes; they are dispatched at the next statement.

        A session's last words (57P01, say) are read without complaint: only the end of file behind them raises.
        """
        pgconn = connection.pgconn
        poll = select.poll()
        try:
            poll.register(pgconn.socket, select.POLLIN)
            for _ in range(_MOST_READS):
                if not poll.poll(0):
                    return True
                pgconn.consume_input()
        except psycopg.Error:
            return False
        return True

    def state(self, connection: C, *, within_s: Callable[[], float]) -> SessionState:  # noqa: ARG002 - libpq knows
        """Ask libpq, which tracks the state with each reply: no round trip.

        Unusable are a result that is not read to its end, an unfinished COPY, a pipeline, `transaction()`, `notifies()`
        or two-phase transaction that was not left, and a reset that was not answered.
        """
        pgconn = connection.pgconn
        status = pgconn.transaction_status
        if connection.is_reply_owed or pgconn.pipeline_status:
            return SessionState.UNUSABLE
        if status == _IDLE:
            if psycopg_internals.is_in_use(connection):
                return SessionState.UNUSABLE
            return _CLEAN
        return SessionState.IN_TRANSACTION if status in _IN_TRANSACTION else SessionState.UNUSABLE

    def read_rest(self, connection: C, *, within_s: Callable[[], float]) -> Any:
        """Read nothing: `state` says UNUSABLE when there is something."""

    def remember_tracked(self, connection: C, names: Iterable[str]) -> None:
        """Remember nothing: each SET pins."""

    def put_back_tracked(self, connection: C, *, timeout_s: float) -> Any:
        """Put nothing back, as `remember_tracked`."""

    def has_left_transaction(self, connection: C) -> bool:
        """Return whether the transaction that `begin` began was ended by something else than `commit`. Never blocks.

        A transaction that was ended and followed by another in one message (`COMMIT AND CHAIN`) does not show.
        """
        if connection.has_left_block or connection.pgconn.transaction_status == _IDLE:
            return True
        return bool(connection.closed) and may_commit("postgresql", connection.last_query)

    def has_sent(self, connection: C) -> bool:
        """Return whether anything of the user's was sent since login or the last `send_reset`. Never blocks."""
        return connection.has_sent

    def can_defer_reset(self, connection: C) -> bool:  # noqa: ARG002 - any server can
        """Return whether the answer to a reset may be read at the next acquire."""
        return True

    def send_reset(self, connection: C, *, timeout_s: float) -> None:  # noqa: ARG002 - libpq's socket does not block
        """Send the reset of a session that is at rest; its answer is read by `finish_reset`. Never blocks.

        Raises:
            psycopg.OperationalError: The connection is gone, or its socket does not take the message.
        """
        connection.is_reply_owed = True  # first: an exception may strike anywhere
        connection.has_sent = False
        pgconn = connection.pgconn
        pgconn.send_query(RESET)
        if pgconn.flush():
            raise psycopg.OperationalError("the reset could not be sent at once")

    def _has_reset(self, connection: C) -> None:
        """Note that the server has answered the reset: what it has forgotten is forgotten here, too."""
        psycopg_internals.forget_prepared(connection)
        psycopg_internals.forget_notifications(connection)
        connection.is_reply_owed = False

    def interrupt(
        self,
        connection: C,
        settings: Settings,  # noqa: ARG002 - a cancel request goes where the connection went, and needs no login
        credentials: Callable[[], Credentials],  # noqa: ARG002
        trust: Trust,  # noqa: ARG002
        *,
        timeout_s: float,
    ) -> None:
        """Send a CancelRequest, through TLS if the connection has it; libpq 17 or later can."""
        ends_at = time.monotonic() + timeout_s
        request = connection.pgconn.cancel_conn()
        try:
            request.start()
            while (status := request.poll()) not in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
                wanted = select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT
                if not _wait(request.socket, wanted, ends_at):
                    break
        finally:
            request.finish()

    def classify(self, connection: C, error: BaseException) -> ErrorKind:
        """Read the SQLSTATE; errors without one come from a connection that is gone."""
        if connection.closed:
            return ErrorKind.LOST if connection.broken else ErrorKind.OTHER  # the caller has closed it
        from lambda_dbconn.drivers.errors import classify  # the happy path does without

        found = classify("postgresql", getattr(error, "sqlstate", None), str(error))
        is_read_only_by_choice = found is ErrorKind.READ_ONLY and connection.read_only
        return ErrorKind.OTHER if is_read_only_by_choice else found


class PostgresqlDriver(PostgresqlSessions[Connection]):
    """psycopg behind `lambda_dbconn.drivers.driver.Driver`."""

    _class = Connection
    _cursor = psycopg.Cursor
    _server_cursor = psycopg.ServerCursor

    def ping(self, connection: Connection, *, timeout_s: float) -> None:
        """Run an empty-handed `SELECT 1`: one round trip to the database itself, also behind a proxy."""
        _run(connection.pgconn, b"SELECT 1", "SELECT 1", timeout_s)

    def begin(self, connection: Connection, *, read_only: bool, isolation: str | None) -> None:
        """Send one BEGIN that says it all: nothing is SET, so nothing pins."""
        statement = begin_statement(read_only=read_only, isolation=isolation)
        psycopg.Cursor(connection).execute(statement)  # not by a cursor class of the user's
        connection.enter_block()

    def commit(self, connection: Connection) -> None:
        """Commit. PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK, silently: not here."""
        refuse_commit_in_use(connection)
        error = aborted(connection)
        connection.is_in_block = False
        if error is not None:
            with suppress(DeadlineExceededError):  # it is rolled back at release, then
                connection.rollback()
            raise error
        connection.commit()

    def rollback(self, connection: Connection, *, timeout_s: float) -> None:
        """Roll back within the limit."""
        _run(connection.pgconn, b"ROLLBACK", "ROLLBACK", timeout_s)

    def reset(self, connection: Connection, *, timeout_s: float) -> None:
        """Send the reset and wait for its answer: one round trip."""
        self.send_reset(connection, timeout_s=timeout_s)
        self.finish_reset(connection, timeout_s=timeout_s)

    def finish_reset(self, connection: Connection, *, timeout_s: float) -> None:
        """Read the answer to the reset; without waiting if it is there.

        Raises:
            psycopg.OperationalError: The connection is gone, the server refused, or the time is over. The connection
                must be closed.
        """
        connection.pgconn.consume_input()
        _run(connection.pgconn, b"", "the reset", timeout_s)
        self._has_reset(connection)

    def close(self, connection: Connection) -> None:
        """Close: libpq's socket is non-blocking, so saying goodbye never waits."""
        connection.close()


def begin_statement(*, read_only: bool, isolation: str | None) -> bytes:
    """Return one BEGIN that says it all: nothing is SET, so nothing pins."""
    level = checked_isolation(isolation)
    words = ["BEGIN"]
    if level:
        words.append(f"ISOLATION LEVEL {level}")
    if read_only:
        words.append("READ ONLY")
    return " ".join(words).encode()


def refuse_commit_in_use(connection: Connection | AsyncConnection) -> None:
    """Raise if psycopg's lock may be held for ever, by a generator that still exists: COMMIT would wait for it.

    Raises:
        TransactionAbortedError: The transaction is not committed, and the connection is discarded.
    """
    if not connection.closed and psycopg_internals.is_in_use(connection):
        raise TransactionAbortedError(
            "the transaction was rolled back: its block ended inside a stream, COPY, pipeline or transaction() of "
            "psycopg's",
            remedy="Leave it, or read it to its end, before the block ends.",
        )


def aborted(connection: Connection | AsyncConnection) -> TransactionAbortedError | None:
    """Return the error for a transaction that cannot be committed any more, None if it can."""
    if connection.has_left_block or connection.pgconn.transaction_status == _IDLE:
        return TransactionAbortedError(ENDED_INSIDE)
    if connection.is_rolled_back:
        return TransactionAbortedError("the transaction was rolled back: rollback() was called inside its block")
    if connection.pgconn.transaction_status == pq.TransactionStatus.INERROR:
        return TransactionAbortedError(
            "the transaction was rolled back: a statement in it had failed, and the error was caught inside it"
        )
    return None


def _finish_connecting(pgconn: pq.abc.PGconn, parameters: dict[str, Any], where: str, timeout_s: float) -> None:
    """Drive libpq's state machine until it is logged in or the time is over."""
    ends_at = time.monotonic() + timeout_s
    try:
        status = pgconn.connect_poll() if pgconn.status != pq.ConnStatus.BAD else pq.PollingStatus.FAILED
        while status not in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
            wanted = select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT
            if not _wait(pgconn.socket, wanted, ends_at):
                raise ConnectTimeoutError(f"no answer from {where} within {timeout_s:.2f} s")
            status = pgconn.connect_poll()
        if status == pq.PollingStatus.FAILED:
            raise libpq.explain(connect_error("postgresql", where, pgconn.get_error_message()), parameters)
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1


def exchange(pgconn: pq.abc.PGconn, sql: bytes, doing: str) -> Generator[waiting.Wait, Any, None]:
    """Send a message of the library's own, if there is one, and read its answer; yield what must be waited for.

    Raises:
        psycopg.OperationalError: The connection is gone, or the server refused.
    """
    if sql:
        pgconn.send_query(sql)
    while pgconn.flush():
        yield waiting.WAIT_RW
        pgconn.consume_input()
    while True:
        while pgconn.is_busy():  # asked first: the answer may have been read already
            yield waiting.WAIT_R
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return
        if result.status not in _GOOD:
            raise psycopg.OperationalError(f"{doing} failed: {result.get_error_message()}")


def _run(pgconn: pq.abc.PGconn, sql: bytes, doing: str, timeout_s: float) -> None:
    """Drive an exchange within a time limit.

    Raises:
        psycopg.OperationalError: The connection is gone, the server refused, or the time is over; after the
            last the connection must be closed.
    """
    ends_at = time.monotonic() + timeout_s
    for wanted in exchange(pgconn, sql, doing):
        if not _wait(pgconn.socket, _EVENTS[wanted], ends_at):
            raise psycopg.OperationalError(f"{doing} was not answered within {timeout_s:.2f} s")


def _wait(fileno: int, events: int, ends_at: float) -> bool:
    """Wait until the socket is ready; return False when the time is over, also if the socket is always ready."""
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        return False
    poll = select.poll()
    poll.register(fileno, events)
    return bool(poll.poll(left_s * 1000))
