"""PyMySQL's connection, all of whose waits can be given one common end, and whose statements can be watched.

A socket's own time limit begins anew with every call, so a server that trickles would hold the caller for ever. Here a
socket that is limited is of a class that knows when all must be over; without a limit it is a plain one, and costs
nothing. Between loans it stays what it was: most handlers have a limit each time, and the change costs system calls.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time

import pymysql

from lambda_dbconn.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.deadline import Cutoff

    _Base = pymysql.Connection[Any]
else:
    _Base = pymysql.Connection

_BIT_S = 0.01
_NEVER = float("inf")


class Socket(socket.socket):
    """A socket without a limit."""


class _Limited:
    """Stands before a socket's own class: each call waits for no longer than is left until `ends_at`."""

    __slots__ = ()
    ends_at: float  # of the monotonic clock

    def _is_limited(self: Any) -> bool:
        """Set the socket's own time limit, which is a system call, if it is too short, or too long by a bit.

        Without a limit it becomes a plain socket again.
        """
        left_s = self.ends_at - time.monotonic()
        if left_s == _NEVER:
            limit(self, None)
            return False
        if left_s <= 0:
            raise TimeoutError("timed out")
        limit_s = self.gettimeout()
        if limit_s is None or not left_s <= limit_s <= left_s + _BIT_S:
            self.settimeout(left_s)
        return True


class _LimitedSocket(_Limited, Socket):
    """A plain socket with a limit."""

    def recv_into(self, *arguments: Any) -> int:
        """Receive."""
        return super().recv_into(*arguments) if self._is_limited() else self.recv_into(*arguments)

    def sendall(self, *arguments: Any) -> None:
        """Send all; a plain socket's time limit is for the whole of it."""
        if self._is_limited():
            super().sendall(*arguments)
        else:
            self.sendall(*arguments)


class _LimitedTlsSocket(_Limited, ssl.SSLSocket):
    """A TLS socket with a limit. What is called here are the two methods that `SSLSocket`'s own come down to."""

    def recv_into(self, buffer: Any, *arguments: Any) -> int:
        """Receive."""
        if self._is_limited():
            return self.read(arguments[0] if arguments else len(buffer), buffer)  # type: ignore[return-value]
        return self.recv_into(buffer, *arguments)

    def sendall(self, data: Any, *flags: Any) -> None:
        """Send all; the socket's time limit is for the whole of it."""
        if self._is_limited():
            self.write(data)
        else:
            self.sendall(data, *flags)


_LIMITED: dict[type[socket.socket], type[socket.socket]] = {Socket: _LimitedSocket, ssl.SSLSocket: _LimitedTlsSocket}
_UNLIMITED = {limited: plain for plain, limited in _LIMITED.items()}


def limit(sock: socket.socket, ends_at: float | None) -> None:
    """Let every call on the socket end then, by the monotonic clock; None lifts the limit."""
    kind = type(sock)
    if ends_at is not None:
        if kind in _LIMITED:
            sock.__class__ = _LIMITED[kind]
        sock.ends_at = ends_at  # type: ignore[attr-defined] # it is one of these now
    elif kind in _UNLIMITED:
        sock.__class__ = _UNLIMITED[kind]
        sock.settimeout(None)


class TlsContext(ssl.SSLContext):
    """Hands a plain socket's limit on to the TLS socket that takes its place; the handshake is limited, too."""

    def wrap_socket(self, sock: socket.socket, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Begin TLS."""
        wrapped = super().wrap_socket(sock, *arguments, **options)
        if isinstance(sock, _LimitedSocket):
            limit(wrapped, sock.ends_at)
        return wrapped


class Connection(_Base):
    """PyMySQL's connection, as this library needs it.

    Attributes:
        address: The IP address that it is connected to.
        cutoff: When the invocation's time is over, while it is lent with a limit.
        isolation: The session's own level, while another one is set.
        names: The character set and collation of its login.
        longest_batch_bytes: Of one of `executemany`'s statements; None for PyMySQL's own limit.
    """

    _sock: socket.socket | None
    _result: Any
    charset: str
    collation: str | None
    db: Any
    server_thread_id: tuple[int]
    server_status: int

    address: str
    names: tuple[str, str | None]
    cutoff: Cutoff | None = None
    isolation: str | None = None
    longest_batch_bytes: int | None = None

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

    def cut_off(self, cutoff: Cutoff | None) -> None:
        """Let all that waits from now on end at the cutoff; None lifts that with the next call that may wait."""
        self.cutoff = cutoff
        sock: Any = self._sock
        if cutoff is None:
            if type(sock) in _UNLIMITED:
                sock.ends_at = _NEVER
        elif sock is not None:
            limit(sock, time.monotonic() + cutoff.left_s())  # its clock may be another one

    def limit(self, ends_at: float | None) -> None:
        """Let all that waits from now on end then, by the monotonic clock; None lifts the limit."""
        if self._sock is not None:
            limit(self._sock, ends_at)

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 when it is closed."""
        return self._sock.fileno() if self._sock is not None else -1

    def _force_close(self) -> None:
        """Close at once. PyMySQL calls this when a call on the socket has failed, and then raises an error of its own.

        If the call was cut short because the invocation's time is over, that is said instead.
        """
        sock = self._sock
        super()._force_close()  # type: ignore[misc] # PyMySQL's stubs know public names only
        cutoff = self.cutoff
        if cutoff is not None and isinstance(sys.exception(), TimeoutError) and sock is not None:
            ends_at: float = getattr(sock, "ends_at", float("inf"))
            if time.monotonic() >= ends_at:  # and not the kernel's time-out of a dead path
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
