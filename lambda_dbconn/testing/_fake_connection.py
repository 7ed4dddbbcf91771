"""The client's side of a fake session: connection, cursor and error. `lambda_dbconn.testing.fakes` has the rest."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from lambda_dbconn.drivers import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lambda_dbconn.deadline import CancelScope
    from lambda_dbconn.testing.fakes import FakeServer

NOTICE = b"N"
LAST_WORDS = b"F"
_RESET_DONE = b"R"


class FakeError(Exception):
    """Stands for a driver's own error. `kind` is what the driver makes of it."""

    def __init__(self, text: str, kind: ErrorKind = ErrorKind.OTHER) -> None:
        super().__init__(text, kind)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[0])


class FakeConnection:
    """Stands for a `psycopg.Connection` in autocommit mode. Its socket is real: `poll()` sees a hang-up for real.

    Attributes:
        number: From 1, in the order of opening.
        in_transaction: Whether a transaction is open.
        is_failed: Whether a statement in it has failed: only ROLLBACK helps.
        is_lost: Whether the client has noticed that the session is over.
        is_over: Whether the server has ended the session.
        is_silent: Whether the session is half-open: nothing comes back, not even an error.
        is_interrupted: Whether the server was asked to stop what it is doing for it.
        scope: When waits must end.
        is_released: Whether the client has closed the socket.
        closes: How often the library has closed it: once is right.
        round_trips: How many messages the client has sent on it.
        has_sent: Whether the caller has sent anything since the last reset.
        owes_reset: Whether the answer to a reset has not been read.
        is_block: Whether the library has begun a transaction.
        changed: Variables that a statement has changed and RDS Proxy tracks.
        row_factory: An attribute that the caller may set.
        see: Called with each statement before it is sent; None for nobody.
    """

    def __init__(self, server: FakeServer, *, number: int) -> None:
        self.number = number
        self.in_transaction = False
        self.is_failed = False
        self.is_lost = False
        self.is_over = False
        self.is_silent = False
        self.is_interrupted = False
        self.scope: CancelScope | None = None
        self.is_released = False
        self.closes = 0
        self.round_trips = 0
        self.has_sent = False
        self.owes_reset = False
        self.is_block = False
        self.row_factory: object = None
        self.changed: set[str] = set()
        self.see: Callable[[str | bytes], None] | None = None
        self._server = server
        self._pending: list[str] = []
        self._socket, self._peer = socket.socketpair()
        self._socket.settimeout(0)

    @property
    def closed(self) -> bool:
        """Whether the client knows that it is over."""
        return self.is_lost or self.is_released

    def execute(self, sql: str, _parameters: Iterable[Any] = ()) -> FakeCursor:
        """Send one statement, unless the block is over or the time is."""
        if self.scope is not None and self.scope.is_released:
            raise FakeError("the connection was released at the end of its `with` block; use it inside the block")
        if self.scope is not None and self.scope.left_s() <= 0:
            raise self.scope.refuse()
        if self.see is not None:
            self.see(sql)
        self.has_sent = True
        self._server.sql.append(sql)
        words = sql.upper().split()
        operation = words[0].lower() if words and words[0] in ("BEGIN", "COMMIT", "ROLLBACK") else "execute"
        try:
            self._server.round_trip(self, operation)
        except FakeError:
            self.is_failed = self.in_transaction
            if operation == "commit":
                self._take_effect("rollback", sql)  # a COMMIT that fails ends the transaction, too
            raise
        if operation == "execute" and self.is_failed:
            raise FakeError("current transaction is aborted, commands ignored until end of transaction block")
        self._take_effect(operation, sql)
        return FakeCursor(self, self._server.answers.get(sql, []))

    def _take_effect(self, operation: str, sql: str) -> None:
        if operation == "execute":
            (self._pending if self.in_transaction else self._server.committed).append(sql)
            return
        if operation == "commit" and not self.is_failed:
            self._server.committed.extend(self._pending)
        self._pending = []
        self.in_transaction = operation == "begin"
        self.is_failed = False

    def cursor(self) -> FakeCursor:
        """Return a cursor, which may be used in a `with` statement."""
        return FakeCursor(self, [])

    def commit(self) -> None:
        """Send COMMIT."""
        self.execute("COMMIT")

    def rollback(self) -> None:
        """Send ROLLBACK."""
        self.execute("ROLLBACK")

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket. The server rolls back what was open."""
        self.is_released = True
        self._socket.close()
        self._peer.close()

    def hang_up(self) -> None:
        """Be ended by the server, with end of file on the socket."""
        self.is_over = True
        self._peer.close()

    def vanish(self) -> None:
        """Be cut in between: neither side hears of it."""
        self.is_over = self.is_silent = True

    def hear(self, word: bytes) -> None:
        """Receive something that was not asked for."""
        self.is_over = self.is_over or word == LAST_WORDS
        if self._peer.fileno() >= 0:
            self._peer.send(word)

    def answer_reset(self) -> None:
        """Receive the answer to a reset, if the session goes on."""
        if not (self.is_over or self.is_silent) and self._peer.fileno() >= 0:
            self._peer.send(_RESET_DONE)

    def read_answer(self) -> bool:
        """Read the answer to a reset; return whether it came, and the session goes on."""
        try:
            heard = self._socket.recv(4096)
        except BlockingIOError:
            return False
        self.is_lost = self.is_lost or LAST_WORDS in heard
        return _RESET_DONE in heard

    def drain(self) -> bool:
        """Read what was said; return whether the session goes on."""
        try:
            heard = self._socket.recv(4096)
        except BlockingIOError:
            return True
        self.is_lost = self.is_lost or not heard or LAST_WORDS in heard
        return not self.is_lost


class FakeCursor:
    """Stands for a driver's cursor: the rows of one statement."""

    def __init__(self, connection: FakeConnection, rows: list[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._rows = deque(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the rows are in memory."""

    def execute(self, sql: str, parameters: Iterable[Any] = ()) -> Self:
        """Send one statement and keep its rows."""
        self._rows = self._connection.execute(sql, parameters)._rows  # noqa: SLF001 - its own class
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None."""
        return self._rows.popleft() if self._rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        rows = list(self._rows)
        self._rows.clear()
        return rows
