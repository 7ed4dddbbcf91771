"""PyMySQL's connection, which knows whether it is at rest, when its time is over, and what the server said last.

Rests on PyMySQL 1.2.4. All use of its private names is in this module, `mysql_result` and `mysql_session`; a test looks
that they are there, and these are the facts about them:

- `_write_bytes` sends everything: commands, what follows of a long one, LOAD LOCAL's file, QUIT.
- `_execute_command` sends every command, and first reads what is left of the result before (`_result`).
- `_read_packet` reads everything; `_read_ok_packet`, `_read_query_result` and a result's own methods call it.
  It raises the server's error, with `sqlstate`; errors of PyMySQL's own have none.
- A result's `_check_packet_is_eof` is given each packet of rows, and their end.
- `_force_close` closes the socket (`_sock`, `_rfile`) before PyMySQL raises that a call on it has failed.
"""

from __future__ import annotations

import sys
import time

import pymysql
from pymysql.charset import charset_by_name
from pymysql.constants import COMMAND, CR, SERVER_STATUS

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.deadline import Limit
from lambda_dbconn.drivers.commits import may_commit
from lambda_dbconn.drivers.mysql_result import Result, out_of_step
from lambda_dbconn.errors import DeadlineExceededError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.deadline import CancelScope
    from lambda_dbconn.drivers.mysql_socket import Socket

    _Base = pymysql.Connection[Any]
else:
    _Base = pymysql.Connection

_NO_LIMIT = Limit(time.monotonic)
_SMALL_PACKET_BYTES = 1 << 20  # the smallest max_allowed_packet that any server has had for a default
_MORE = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
_IN_TRANSACTION = SERVER_STATUS.SERVER_STATUS_IN_TRANS
_NO_DATABASE_CONNECTION = 9501  # RDS Proxy's own: the statement was not run
_MOST_PACKETS_LEFT = 1000  # of what a caller has left unread; to read more would take longer than a new connection


class Connection(_Base):
    """PyMySQL's connection, as this library needs it.

    Attributes:
        address: The IP address that it is connected to.
        scope: When all waits end but those with a limit of their own; None while it belongs to nobody who would say.
        has_own_limit: A call of the library's is being made, which the scope does not concern.
        owes: Something was sent, or is being read, and the reply has not been read to its end: whatever is read next
            may belong to it. Set before the first byte, for an interrupt can strike anywhere.
        status: The server's last word on the session; None while there is none: an error has no status.
        has_sent: A command of the caller's was sent since login, or since the last reset was sent.
        last_query: The last text that was sent, until the session is asked for its state.
        has_left_transaction: Since `begin` the server said at least once that there is no transaction.
        is_in_block: It is inside the library's `transaction()`: `commit()` and `begin()` are refused.
        is_rolled_back: `rollback()` was called inside.
        may_have_left: An error inside, after which the server may have committed what was before it.
        isolation: The session's own level, while another one is set.
        puts_isolation_back: Nothing else does so at the end of a loan.
        names: The character set and collation of its login; None until then.
        has_choked: Whether the connection broke while a statement was sent that may be longer than the server takes.
        tracked: The values of variables before the caller changed them, where RDS Proxy tracks them.
        changed: What may have changed since, as `pinning.tracked` names it.
        longest_batch_bytes: Of one of `executemany`'s statements; None for PyMySQL's own limit.
    """

    _sock: Socket | None
    _closed: bool
    _result: Any
    _next_seq_id: int
    cursorclass: Any
    server_thread_id: tuple[int]
    server_status: int
    server_version: str

    address: str
    names: tuple[str, str | None, str] | None = None
    scope: CancelScope | None = None
    has_choked = False
    has_own_limit = False
    owes = False
    status: int | None = None
    has_sent = False
    last_query: str | bytes = b""
    has_left_transaction = False
    may_have_left = False
    is_in_block = False
    is_rolled_back = False
    isolation: str | None = None
    puts_isolation_back = True
    tracked: dict[str, str | None]
    changed: set[str]
    longest_batch_bytes: int | None = None

    # --- login

    def connect(self, sock: socket.socket | None = None) -> None:
        """Log in on a socket that the driver has opened.

        Without one, which is how `ping(reconnect=True)` asks for it, refuse: it would be another session, without the
        limit, the watch and the state that this one was lent with, and maybe with credentials that have expired.

        Raises:
            pymysql.OperationalError: 2006, as of a connection that is lost: the caller asked to connect anew.
            DeadlineExceededError: The caller did so because the invocation's time is over.
        """
        if sock is not None:
            super().connect(sock)
            self.names = (self.charset, self.collation, self.encoding)
            self._attributes = (self.cursorclass, self.use_unicode, self.decoders.copy(), self.encoders.copy())
            self.tracked, self.changed = {}, set()
            self.has_sent = False
            return
        self.check_may_send()
        error = sys.exception()
        if isinstance(error, DeadlineExceededError):
            raise error
        raise pymysql.OperationalError(
            CR.CR_SERVER_GONE_ERROR, "a lent connection does not connect anew: leave the block, and borrow again"
        )

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Change the character set. At login, say `autocommit=1` too: MySQL 9's status may claim it wrongly."""
        encoding = charset_by_name(charset).encoding
        statement = f"SET NAMES {charset} COLLATE {collation}" if collation else f"SET NAMES {charset}"
        if self.names is None:
            self.owes = False  # PyMySQL has read the answer to the login
            statement += ", autocommit=1"
        self._execute_command(COMMAND.COM_QUERY, statement)
        self._read_ok_packet()
        self.charset, self.collation, self.encoding = charset, collation, encoding

    def restore(self) -> None:
        """Put back what a caller may have set on the object, but what goes with the session's own state."""
        self.cursorclass, self.use_unicode, decoders, encoders = self._attributes
        self.decoders, self.encoders = decoders.copy(), encoders.copy()
        self.autocommit_mode = True
        self.is_in_block = False

    # --- transactions

    def enter_block(self) -> None:
        """Note that BEGIN was answered."""
        self.has_left_transaction = self.may_have_left = self.is_rolled_back = False
        self.is_in_block = True

    def begin(self) -> None:
        """Begin; refused inside `transaction()` and `run()`, where it would commit what was done."""
        self._refuse_inside_block("begin")
        super().begin()

    def commit(self) -> None:
        """Commit; refused inside `transaction()` and `run()`, which do so themselves."""
        self._refuse_inside_block("commit")
        super().commit()

    def rollback(self) -> None:
        """Roll back. Inside `transaction()` and `run()` the block then raises at its end: nothing was committed."""
        if not self.is_in_block:
            super().rollback()
            return
        self.is_rolled_back = True
        had_left = self.has_left_transaction
        self._execute_command(COMMAND.COM_QUERY, "ROLLBACK AND CHAIN")  # what follows is not committed by itself
        self._read_ok_packet()
        self.has_left_transaction = had_left  # by something else

    def _refuse_inside_block(self, method: str) -> None:
        if self.is_in_block:
            raise pymysql.ProgrammingError(
                f"{method}() is refused inside transaction() and run(), which commit at the end of the block: use "
                "connection() to begin and commit yourself"
            )

    # --- limits

    def bind_scope(self, scope: CancelScope) -> None:
        """Let all that waits from now on end when the scope does."""
        self.scope = scope
        self.limit(None)

    def limit(self, ends_at: float | None) -> None:
        """Let all that waits from now on end then, by the monotonic clock; None for when the scope does, if any."""
        self.has_own_limit = ends_at is not None
        if self._sock is not None:
            self._sock.limit = (self.scope or _NO_LIMIT) if ends_at is None else Limit(time.monotonic, ends_at)

    def within(self, timeout_s: float) -> Within:
        """Return what limits the calls in its `with` block together to this time, whatever the scope."""
        return Within(self, timeout_s)

    def check_may_send(self) -> None:
        """Raise if nothing of the caller's may be sent now; the connection stays as it is.

        Raises:
            DeadlineExceededError: The deadline has passed.
            pymysql.InterfaceError: The connection was released.
        """
        scope = self.scope
        if scope is None or self.has_own_limit or self._sock is None or scope.ends_at > scope.monotonic():
            return
        if scope.is_released:
            raise pymysql.InterfaceError(
                "the connection was released at the end of its `with` block; use it inside the block"
            )
        raise scope.refuse()

    def drop(self) -> None:
        """Close the socket, if it is open, without a word."""
        self._force_close()

    def _force_close(self) -> None:
        """Close at once. PyMySQL calls this when a call on the socket has failed, and then raises an error of its own.

        If the call was cut short because the invocation's time is over, that is said instead.
        """
        sock, scope = self._sock, self.scope
        super()._force_close()  # type: ignore[misc] # not in PyMySQL's stubs
        if scope is None or sock is None or self.has_own_limit or scope.is_released:
            return
        if isinstance(sys.exception(), TimeoutError) and scope.left_s() <= 0:  # not the kernel's of a dead path
            self.forget_rows()
            raise scope.expire(self)

    # --- what is sent, and whether its reply was read

    @property
    def is_closed_by_caller(self) -> bool:
        """Whether `close()` was called, rather than the connection lost."""
        return bool(self._closed)

    @property
    def has_unread(self) -> bool:
        """Whether rows or results of the last statement have not been read yet."""
        result = self._result
        return result is not None and bool(result.unbuffered_active or result.has_next)

    @property
    def is_at_rest(self) -> bool:
        """Whether every reply was read to its end."""
        return not self.owes and not self.has_unread

    def note_status(self, status: int) -> None:
        """Note the status that ends a result; it is the last word on the session unless more results follow."""
        if not status & _IN_TRANSACTION:
            self.has_left_transaction = True
        self.status = None if status & _MORE else status

    def note_error(self, error: BaseException) -> None:
        """Note an error: the server's own ends a reply, and leaves the status unknown; another says nothing of it."""
        if self.is_in_block and may_commit("mysql", self.last_query):
            self.may_have_left = True  # also a statement that fails may have committed what was before it
        if self._sock is not None and getattr(error, "sqlstate", None) is not None:
            if (
                error.args[0] == _NO_DATABASE_CONNECTION
            ):  # a ping would wait for one as well; in a transaction it has one
                self.status = self.server_status & ~_IN_TRANSACTION
            self.owes = False

    def _write_bytes(self, data: bytes) -> None:
        """Send. A server hangs up on more than its `max_allowed_packet`, and its error seldom arrives."""
        self.owes = True
        self.status = None
        try:
            super()._write_bytes(data)  # type: ignore[misc] # not in PyMySQL's stubs
        except pymysql.OperationalError as error:
            if len(data) >= _SMALL_PACKET_BYTES:
                self.has_choked = True
                error.add_note(f"{len(data)} bytes were being sent: see whether that is more than max_allowed_packet")
            raise

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        self.check_may_send()
        if self.owes and self._sock is not None:
            raise out_of_step()
        if not self.has_own_limit:
            self.has_sent = True
        self.last_query = sql if command == COMMAND.COM_QUERY else b""
        super()._execute_command(command, sql)  # type: ignore[misc] # not in PyMySQL's stubs

    def _read_ok_packet(self) -> Any:
        try:
            ok = super()._read_ok_packet()  # type: ignore[misc] # not in PyMySQL's stubs
        except pymysql.MySQLError as error:
            self.note_error(error)
            raise
        self.note_status(ok.server_status)
        self.owes = False
        return ok

    def _read_query_result(self, unbuffered: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyMySQL's signature
        self.owes = True  # `next_result` comes here without a command
        self._result = None
        result = Result(self)
        try:
            if unbuffered:
                result.init_unbuffered_query()
            else:
                result.read()
        except pymysql.MySQLError as error:
            self.note_error(error)
            raise
        self._result = result
        status = result.server_status
        if status is not None:  # it had no rows, whose end notes its own
            self.server_status = status
            self.note_status(status)
        self.owes = False
        return result.affected_rows

    def next_result(self, unbuffered: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyMySQL's signature
        """Read the next of several results, unless the one before was not read to its end, or was given back."""
        if self.owes:
            raise out_of_step()
        if self.scope is not None and self.scope.is_released:
            self.check_may_send()
        return super().next_result(unbuffered)

    def show_warnings(self) -> Any:
        """Return the warnings of the last statement."""
        self._execute_command(COMMAND.COM_QUERY, "SHOW WARNINGS")
        self._read_query_result()
        result, self._result = self._result, None
        return result.rows

    def read_rest(self) -> None:
        """Read what is left unread of the last statement's results, if it is little; else leave it.

        Raises:
            pymysql.Error: The server's error among them, or the connection is lost.
        """
        for _ in range(_MOST_PACKETS_LEFT):
            result = self._result
            if result is not None and result.unbuffered_active:
                result.next_packet()
            elif result is not None and result.has_next:
                self.next_result(unbuffered=True)
            else:
                return

    def forget_rows(self) -> None:
        """Let nobody go on reading the last statement's results."""
        result, self._result = self._result, None
        if result is not None:
            result.cut()

    # ---

    def cursor(self, cursor: Any = None) -> Any:
        """Make a cursor of any class, whose `executemany` keeps to `longest_batch_bytes` a statement."""
        made = super().cursor(cursor)
        if self.longest_batch_bytes is not None:
            made.max_stmt_length = min(made.max_stmt_length, self.longest_batch_bytes)
        return made

    @property
    def number(self) -> int:
        """The server's number for the session, as its greeting said."""
        return self.server_thread_id[0]

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 when it is closed."""
        return self._sock.fileno() if self._sock is not None else -1


class Within:
    """Limits a connection's calls together, whatever its scope."""

    __slots__ = ("_connection", "_ends_at")

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._ends_at = time.monotonic() + timeout_s

    def __enter__(self) -> None:
        self._connection.limit(self._ends_at)

    def __exit__(self, *_: object) -> None:
        self._connection.limit(None)


class WatchedConnection(Connection):
    """A connection that shows each text to `see` before it is sent, by whichever cursor.

    Two methods send what is no query's text: for these `see` is shown the statement that they stand for.
    """

    see: Callable[[str | bytes], None]

    def query(self, sql: Any, unbuffered: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyMySQL's signature
        """Send a query, unless `see` raises."""
        self.check_may_send()
        self.see(bytes(sql) if isinstance(sql, bytearray) else sql)
        return super().query(sql, unbuffered)

    def select_db(self, db: Any) -> None:
        """Select another database."""
        self.check_may_send()
        self.see("USE")
        super().select_db(db)

    def set_character_set(self, charset: Any, collation: Any = None) -> None:
        """Change the character set."""
        self.check_may_send()
        self.see("SET NAMES")
        super().set_character_set(charset, collation)
