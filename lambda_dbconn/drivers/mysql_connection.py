"""PyMySQL's connection, all of whose waits can be given one common end, and whose statements can be watched.

A socket's own time limit begins anew with every call, so a server that trickles would hold the caller for ever. The
sockets here never block, and wait in one place, which knows when all must be over. That is one system call for each
statement more than a socket takes that waits for ever. Python's own limit would be two more, and with TLS three: it
polls before it writes and before it reads, and a TLS socket tries to read in vain before that.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time

import pymysql
from pymysql.constants import CR

from lambda_dbconn.deadline import Limit
from lambda_dbconn.errors import DeadlineExceededError
from lambda_dbconn.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.deadline import Cutoff

    _Base = pymysql.Connection[Any]
else:
    _Base = pymysql.Connection

_NO_LIMIT = Limit(time.monotonic)
_DAY_S = 86_400.0
_SMALL_PACKET_BYTES = 1 << 20  # the smallest max_allowed_packet that any server has had for a default


class _Limited:
    """Stands before a socket's own class: no call of PyMySQL's waits any longer than until the limit.

    Attributes:
        limit: When all calls must end; looked at anew by each.
    """

    __slots__ = ()
    limit: Limit
    _input: select.poll

    def keep(self: Any, limit: Limit) -> None:
        """Wait by oneself from now on, until the limit at most."""
        self.limit = limit
        self._input = _poll(self, select.POLLIN)
        self.settimeout(0.0)

    def settimeout(self, _value: float | None) -> None:
        """Never block. PyMySQL sets its own time limit, and means that there is none."""
        super().settimeout(0.0)  # type: ignore[misc] # the socket's

    def _refuse_if_over(self) -> None:
        """Raise what a wait would, for what may be done without one."""
        if self.limit.ends_at <= self.limit.monotonic():
            raise TimeoutError("timed out")

    def _wait(self, poll: select.poll) -> None:
        """Wait for what is polled for."""
        limit = self.limit
        while True:
            left_s = limit.ends_at - limit.monotonic()
            if left_s <= 0.0:
                raise TimeoutError("timed out")
            if poll.poll(min(left_s, _DAY_S) * 1000.0):
                return

    def _wait_to_send(self) -> None:
        self._wait(_poll(self, select.POLLOUT))


class Socket(_Limited, socket.socket):
    """A plain socket with a limit."""

    def recv_into(self, *arguments: Any) -> int:
        """Receive."""
        while True:
            self._wait(self._input)
            try:
                return super().recv_into(*arguments)
            except BlockingIOError:  # the kernel has taken it back: a checksum was wrong
                continue

    def sendall(self, data: Any, *flags: Any) -> None:
        """Send all."""
        self._refuse_if_over()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.send(rest, *flags) :]
            except BlockingIOError:
                self._wait_to_send()


class TlsSocket(_Limited, ssl.SSLSocket):
    """A TLS socket with a limit. What is called here are the two methods that `SSLSocket`'s own come down to."""

    _may_hold_more = False  # of what has been received, and no poll tells of

    def recv_into(self, buffer: Any, *arguments: Any) -> int:
        """Receive."""
        wanted = arguments[0] if arguments else len(buffer)
        if self._may_hold_more:
            self._refuse_if_over()  # or an answer that never stops coming would never be waited for
        else:
            self._wait(self._input)
        while True:
            try:
                count: int = self.read(wanted, buffer)  # type: ignore[assignment] # with a buffer it counts
            except ssl.SSLWantReadError:
                self._wait(self._input)
            except ssl.SSLWantWriteError:
                self._wait_to_send()
            else:
                self._may_hold_more = count == wanted
                return count

    def sendall(self, data: Any, *_flags: Any) -> None:
        """Send all, as one message."""
        self._refuse_if_over()
        self._do(self.write, data)

    def shake_hands(self) -> None:
        """Agree with the server."""
        self._do(self.do_handshake)

    def _do(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call until it has not to wait any more."""
        while True:
            try:
                call(*arguments)
            except ssl.SSLWantReadError:
                self._wait(self._input)
            except ssl.SSLWantWriteError:
                self._wait_to_send()
            else:
                return


def _poll(sock: Any, events: int) -> select.poll:
    poll = select.poll()
    poll.register(sock, events)
    return poll


class TlsContext(ssl.SSLContext):
    """Makes a socket with a limit a TLS socket with the same, which the handshake keeps to already."""

    sslsocket_class = TlsSocket

    def wrap_socket(self, sock: Any, **options: Any) -> Any:  # type: ignore[override] # as PyMySQL calls it
        """Begin TLS."""
        wrapped: Any = super().wrap_socket(sock, **{**options, "do_handshake_on_connect": False})
        try:
            wrapped.keep(sock.limit)
            wrapped.shake_hands()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


class Connection(_Base):
    """PyMySQL's connection, as this library needs it.

    Attributes:
        address: The IP address that it is connected to.
        cutoff: When all waits end but those with a limit of their own; None while it belongs to nobody who would say.
        isolation: The session's own level, while another one is set.
        names: The character set and collation of its login.
        has_choked: Whether the connection broke while a statement was sent that may be longer than the server takes.
        longest_batch_bytes: Of one of `executemany`'s statements; None for PyMySQL's own limit.
    """

    _sock: Socket | None
    _result: Any
    charset: str
    collation: str | None
    db: Any
    server_thread_id: tuple[int]
    server_status: int

    address: str
    names: tuple[str, str | None]
    cutoff: Cutoff | None = None
    has_choked = False
    isolation: str | None = None
    longest_batch_bytes: int | None = None

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
            return
        error = sys.exception()
        if isinstance(error, DeadlineExceededError):
            raise error
        raise pymysql.OperationalError(
            CR.CR_SERVER_GONE_ERROR, "a lent connection does not connect anew: leave the block, and borrow again"
        )

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

    @property
    def has_unread_rows(self) -> bool:
        """Whether a streamed result was left unread: PyMySQL 1.2.4 says so nowhere in public."""
        return self._result is not None and bool(self._result.unbuffered_active)

    def forget_rows(self) -> None:
        """Let nobody go on reading a streamed result, neither its cursor nor its destructor."""
        if self._result is not None:
            self._result.unbuffered_active = False

    def obey(self, cutoff: Cutoff) -> None:
        """Let all that waits from now on end when the cutoff does."""
        self.cutoff = cutoff
        self.limit(None)

    def limit(self, ends_at: float | None) -> None:
        """Let all that waits from now on end then, by the monotonic clock; None for when the cutoff does, if any."""
        if self._sock is not None:
            self._sock.limit = (self.cutoff or _NO_LIMIT) if ends_at is None else Limit(time.monotonic, ends_at)

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 when it is closed."""
        return self._sock.fileno() if self._sock is not None else -1

    def _write_bytes(self, data: bytes) -> None:
        """Send. A server hangs up on more than its `max_allowed_packet`, and its error seldom arrives."""
        try:
            super()._write_bytes(data)  # type: ignore[misc] # PyMySQL's stubs know public names only
        except pymysql.OperationalError as error:
            if len(data) >= _SMALL_PACKET_BYTES:
                self.has_choked = True
                error.add_note(f"{len(data)} bytes were being sent: see whether that is more than max_allowed_packet")
            raise

    def _force_close(self) -> None:
        """Close at once. PyMySQL calls this when a call on the socket has failed, and then raises an error of its own.

        If the call was cut short because the invocation's time is over, that is said instead.
        """
        sock, cutoff = self._sock, self.cutoff
        super()._force_close()  # type: ignore[misc] # PyMySQL's stubs know public names only
        if cutoff is None or sock is None or sock.limit is not cutoff:
            return
        if isinstance(sys.exception(), TimeoutError) and cutoff.left_s() <= 0:  # not the kernel's of a dead path
            self.forget_rows()
            raise cutoff.cut(self)


class WatchedConnection(Connection):
    """A connection that shows each text to `see` before it is sent, by whichever cursor.

    Two methods send what is no query's text: for these `see` is shown the statement that they stand for.
    """

    see: Callable[[str | bytes], None]

    def query(self, sql: Any, unbuffered: bool = False) -> int:  # noqa: FBT001, FBT002 - PyMySQL's signature
        """Send a query, unless `see` raises."""
        self.see(bytes(sql) if isinstance(sql, bytearray) else sql)
        return super().query(sql, unbuffered)

    def select_db(self, db: Any) -> None:
        """Select another database."""
        self.see("USE")
        super().select_db(db)

    def set_character_set(self, charset: Any, collation: Any = None) -> None:
        """Change the character set."""
        self.see("SET NAMES")
        super().set_character_set(charset, collation)
