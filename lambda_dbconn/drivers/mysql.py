"""MySQL and MariaDB through PyMySQL.

Rests on PyMySQL 1.2.4. What it is careful about (all measured, see docs):

- PyMySQL's `connect_timeout` covers TCP only; greeting, TLS and login would wait for ever, and a `read_timeout` begins
  anew with every byte. Here the socket is our own, handed to `connect()`, and its waits have one common end.
- Without options PyMySQL takes plaintext when the server has no TLS; with an `SSLContext` it must have it.
- An error carries no server status, so after one an open transaction is certain only after a ping.
- A reply that was not read to its end would be taken for the next statement's: see `mysql_connection`.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import time
from contextlib import suppress

import pymysql
from pymysql.constants import SERVER_STATUS

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.deadline import Limit
from lambda_dbconn.drivers import (
    ENDED_INSIDE,
    ErrorKind,
    SessionState,
    addresses,
    application_name,
    checked_isolation,
    connect_error,
    mysql_session,
)
from lambda_dbconn.drivers.commits import may_commit
from lambda_dbconn.drivers.mysql_connection import Connection, WatchedConnection
from lambda_dbconn.drivers.mysql_socket import Socket, TlsContext
from lambda_dbconn.errors import (
    ConnectTimeoutError,
    DeadlineExceededError,
    TransactionAbortedError,
    without_frames,
)
from lambda_dbconn.tls import configure_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.errors import LambdaDbConnError
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

_GOODBYE_LIMIT_S = 0.05
_LONGEST_BATCH_BYTES = 16_000  # a statement of more than 16 KB pins the session on RDS Proxy, and PyMySQL packs 1 MB
_PLUGIN_CANNOT_LOAD = 2059
_AUTOCOMMIT = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
_IN_TRANSACTION = SERVER_STATUS.SERVER_STATUS_IN_TRANS
_CLEAN = SessionState.CLEAN
# What PyMySQL cannot read it meets with ValueError, IndexError and the like; a signal handler's exception passes.
_CANNOT_CONNECT = (
    *(pymysql.Error, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, struct.error),
)

_READ_ONLY_TRANSACTION = 1792
_IN_READ_ONLY_TRANSACTION = 0x2000  # of the server status; PyMySQL 1.2.4 has no name for it


class _RefusedPlugin:
    """Takes the place of an authentication plugin that would send the password in clear outside TLS.

    PyMySQL 1.2.4 answers `mysql_clear_password` and `dialog` whatever the connection is, and the server chooses.
    """

    def __init__(self, _connection: Connection) -> None:
        """Be what PyMySQL constructs."""

    def authenticate(self, _packet: object) -> NoReturn:
        """Refuse, before anything is sent."""
        raise pymysql.err.OperationalError(
            _PLUGIN_CANNOT_LOAD, "the server asks for the password in clear, and there is no TLS"
        )


_NEVER_IN_CLEAR: dict[str, Callable[[Any], Any]] = {"mysql_clear_password": _RefusedPlugin, "dialog": _RefusedPlugin}


class MysqlDriver:
    """PyMySQL behind `lambda_dbconn.drivers.driver.Driver`."""

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}

    def open(self, settings: Settings, credentials: Credentials, trust: Trust, *, timeout_s: float) -> Connection:
        """Connect to the first address that answers; the only statement sent is `SET NAMES …, autocommit=1`."""
        return addresses.first_that_opens(
            settings.host,
            settings.port,
            timeout_s,
            lambda address, limit_s: self._open_at(address, settings, credentials, trust, limit_s),
        )

    def _open_at(
        self, address: str, settings: Settings, credentials: Credentials, trust: Trust, limit_s: float
    ) -> Connection:
        ends_at = time.monotonic() + limit_s
        where = f"{settings.address} as {credentials.user!r}, database {settings.name!r}"
        context = self._context(trust.cafile) if trust.cafile is not None else None
        connection = _unconnected(settings, credentials, context)
        connection.address = address
        outer = sys.exception()
        sock = None
        try:
            sock = _tcp(address, settings.port, limit_s)
            sock.keep(Limit(time.monotonic, ends_at))
            connection.connect(sock)
        except BaseException as exc:
            connection.drop()  # PyMySQL does so only for what fails while it connects
            if sock is not None:
                sock.close()
            if not isinstance(exc, _CANNOT_CONNECT):
                raise
            if time.monotonic() >= ends_at:
                error: LambdaDbConnError = ConnectTimeoutError(f"no login at {where} within {limit_s:.2f} s")
            else:
                error = _meaning(exc, outer, where, is_token=settings.auth == "iam")
            raise error from without_frames(exc, outer=outer)
        connection.limit(None)
        return connection

    def watch(self, connection: Connection, see: Callable[[str | bytes], None]) -> None:
        """Make it a connection that shows what it sends."""
        connection.__class__ = WatchedConnection
        connection.see = see  # type: ignore[attr-defined] # it is one now

    def fileno(self, connection: Connection) -> int:
        """Return the socket's file descriptor."""
        return connection.fileno()

    def is_open(self, connection: Connection) -> bool:
        """Say whether neither the driver nor the caller has closed the socket."""
        return connection.fileno() >= 0

    def drain(self, connection: Connection) -> bool:  # noqa: ARG002 - whatever it is, it is the end
        """Say that the session is over: a MySQL server speaks unasked only to say so."""
        return False

    def ping(self, connection: Connection, *, timeout_s: float) -> None:
        """Send COM_PING: one round trip."""
        with connection.within(timeout_s):
            connection.ping(reconnect=False)

    def read_rest(self, connection: Connection, *, within_s: Callable[[], float]) -> None:
        """Read what the caller has left unread of the last statement's results, if it is little; else leave it.

        For the end of a loan, before `state`: an error among these results is the loan's own, as it would be if the
        caller had closed the cursor. Free when there is nothing.

        Raises:
            pymysql.Error: The server's error, or the connection is lost.
        """
        if connection.has_unread and not connection.owes:
            with connection.within(within_s()):
                connection.read_rest()

    def state(self, connection: Connection, *, within_s: Callable[[], float]) -> SessionState:
        """Trust the server's last word, ask for it with a ping after an error, and put right what is not in order.

        What is left of the last statement's results is read if it is little; `read_rest` tells of errors in it.
        """
        connection.last_query = b""  # it may be large, and the environment may be frozen
        if connection.has_unread:
            with suppress(pymysql.MySQLError):
                self.read_rest(connection, within_s=within_s)
            if connection.has_unread:
                return SessionState.UNUSABLE
        if connection.owes or not connection.open:
            return SessionState.UNUSABLE
        if connection.status is None:
            self.ping(connection, timeout_s=within_s())
        status = connection.status or 0
        if status & _IN_TRANSACTION:
            return SessionState.IN_TRANSACTION
        if not status & _AUTOCOMMIT:
            with connection.within(within_s()):
                mysql_session.switch_autocommit_on(connection)
        if connection.isolation is not None and connection.puts_isolation_back:
            with connection.within(within_s()):
                mysql_session.set_level(connection, connection.isolation)
            connection.isolation = None
        return _CLEAN

    def begin(self, connection: Connection, *, read_only: bool, isolation: str | None) -> None:
        """Begin; with `isolation` the session's level is changed first and put back afterwards.

        A level for the next transaction alone would be one statement less, and would pin the session on RDS Proxy.
        """
        level = checked_isolation(isolation)
        if level:
            before = checked_isolation(mysql_session.level(connection))
            connection.isolation = before  # first: an interrupt may strike before the answer is read
            mysql_session.set_level(connection, level)
        if read_only:
            connection.query("START TRANSACTION READ ONLY")
        else:
            connection.begin()
        connection.enter_block()

    def has_left_transaction(self, connection: Connection) -> bool:
        """Say whether something may have been committed since `begin`. Never blocks.

        It may if the server said at least once that there is no transaction; or if the last reply said nothing of it,
        being an error or not there at all, and the statement is of those that commit by themselves. Ask before
        `commit`, `rollback` and `state`. Not seen are a COMMIT AND CHAIN, and a COMMIT that a procedure follows with a
        new transaction before it sends a result.
        """
        if connection.has_left_transaction or connection.may_have_left:
            return True
        return connection.status is None and may_commit("mysql", connection.last_query)

    def commit(self, connection: Connection) -> None:
        """Commit; after an error that was caught, ask first whether the transaction is still there.

        Raises:
            TransactionAbortedError: It was rolled back or ended inside its block.
            DeadlineExceededError: The deadline has passed: nothing was sent.
        """
        connection.is_in_block = False
        if not connection.has_left_transaction and connection.status is None and connection.is_at_rest:
            connection.ping(reconnect=False)  # after an error: is the transaction still there?
        if connection.has_left_transaction:
            raise TransactionAbortedError(ENDED_INSIDE)
        if connection.is_rolled_back:
            with suppress(DeadlineExceededError):  # it is rolled back at release, then
                connection.rollback()
            raise TransactionAbortedError("the transaction was rolled back: rollback() was called inside its block")
        connection.commit()

    def rollback(self, connection: Connection, *, timeout_s: float) -> None:
        """Roll back within the limit."""
        connection.is_in_block = False
        with connection.within(timeout_s):
            connection.rollback()

    def restore(self, connection: Connection) -> None:
        """Put `cursorclass`, `decoders` and the like back to what they were at the end of `open`."""
        connection.restore()

    def has_unseen(self, connection: Connection) -> bool:  # noqa: ARG002 - all goes through the connection
        """Return whether anything was sent whose text was not seen: never."""
        return False

    def has_sent(self, connection: Connection) -> bool:
        """Say whether a command of the caller's was sent since login or since the last `send_reset`."""
        return connection.has_sent

    def can_defer_reset(self, connection: Connection) -> bool:
        """Say whether the answer to a reset may wait: on MySQL 8 and MariaDB; Aurora MySQL 2 hangs when pipelined."""
        return mysql_session.takes_pipeline(connection)

    def send_reset(self, connection: Connection, *, timeout_s: float) -> None:
        """Send what puts a session that is at rest back to what it was at login, in one write; wait for no answer.

        Below MySQL 8 only COM_RESET_CONNECTION is sent; `finish_reset` sends the rest.
        """
        with connection.within(timeout_s):
            mysql_session.send_reset(connection)

    def finish_reset(self, connection: Connection, *, timeout_s: float) -> None:
        """Read the answer within the time limit; below MySQL 8, make two more round trips.

        Raises:
            pymysql.Error: The server refuses, the connection is lost, or the time is over.
            pymysql.NotSupportedError: The login named no database, and one was selected since.
        """
        with connection.within(timeout_s):
            mysql_session.finish_reset(connection)

    def reset(self, connection: Connection, *, timeout_s: float) -> None:
        """Send the reset and wait for its answer."""
        self.send_reset(connection, timeout_s=timeout_s)
        self.finish_reset(connection, timeout_s=timeout_s)

    def remember_tracked(self, connection: Connection, names: Iterable[str]) -> None:
        """Ask for the values of the variables that the caller's next statement changes; for RDS Proxy.

        At most one round trip, and one for each variable in the life of the connection. `pinning.tracked` has the
        names of a text.
        """
        mysql_session.remember(connection, names)

    def put_back_tracked(self, connection: Connection, *, timeout_s: float) -> None:
        """Set these variables back to what they were, and select the login's database if another may be selected.

        One SET: one round trip, one more for the database, none if nothing was changed. (What was set with SET LOCAL
        and is not tracked takes a SET of its own.)

        Raises:
            pymysql.Error: The server refuses, the connection is lost, or the time is over.
            pymysql.NotSupportedError: The login named no database, and one was selected since.
        """
        if connection.changed:
            with connection.within(timeout_s):
                mysql_session.put_back(connection)

    bind_scope = staticmethod(Connection.bind_scope)

    def interrupt(
        self,
        connection: Connection,
        settings: Settings,
        credentials: Callable[[], Credentials],
        trust: Trust,
        *,
        timeout_s: float,
    ) -> None:
        """Send KILL from a second connection to the same address; not where a pooler answers with ids of its own."""
        ends_at = time.monotonic() + timeout_s
        given = credentials()
        other = self._open_at(connection.address, settings, given, trust, max(0.001, ends_at - time.monotonic()))
        try:
            other.limit(ends_at)
            if mysql_session.ask(other, "SELECT CONNECTION_ID()") == ((str(other.number).encode(),),):
                other.query(f"KILL {connection.number:d}")
        finally:
            self.close(other)

    def close(self, connection: Connection) -> None:
        """Say goodbye if the socket takes it at once, and close."""
        connection.limit(time.monotonic() + _GOODBYE_LIMIT_S)
        connection.forget_rows()
        with suppress(pymysql.Error):  # the caller's `close()` was interrupted half-way
            if connection.open:
                connection.close()
        connection.drop()

    def classify(self, connection: Connection, error: BaseException) -> ErrorKind:
        """Read the error's number; a connection that PyMySQL has closed is gone, unless a long statement was why."""
        if connection.has_choked:
            return ErrorKind.OTHER
        if not connection.open:
            return ErrorKind.OTHER if connection.is_closed_by_caller else ErrorKind.LOST
        number = error.args[0] if isinstance(error, pymysql.Error) and error.args else None
        if number == _READ_ONLY_TRANSACTION and connection.server_status & _IN_READ_ONLY_TRANSACTION:
            return ErrorKind.OTHER  # the caller's own choice
        from lambda_dbconn.drivers.errors import classify  # the happy path does without

        return classify("mysql", number, str(error))

    def _context(self, cafile: str) -> ssl.SSLContext:
        """Return the context that verifies chain and host name against this file; made once, it costs milliseconds."""
        context = self._contexts.get(cafile)
        if context is None:
            context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
            configure_client(context, cafile)
            self._contexts[cafile] = context
        return context


def _meaning(exc: Exception, outer: BaseException | None, where: str, *, is_token: bool) -> LambdaDbConnError:
    """Return what PyMySQL's failure to connect means: by the server's number and words, and by the socket's error.

    Args:
        exc: The failure.
        outer: What was being handled before: no part of it.
        where: For the message.
        is_token: An IAM token was given.
    """
    is_pymysqls = isinstance(exc, pymysql.Error)
    met = getattr(exc, "original_exception", exc.__context__) if is_pymysqls else exc
    is_numbered = len(exc.args) > 1 and isinstance(exc.args[0], int)
    number = exc.args[0] if is_numbered and is_pymysqls else 0  # a socket's own is errno's
    text = str(exc.args[1] if is_numbered else exc)
    return connect_error("mysql", where, text, number=number, is_token=is_token, met=met if met is not outer else None)


def _unconnected(settings: Settings, credentials: Credentials, context: ssl.SSLContext | None) -> Connection:
    """Construct the connection object; the password is in no variable here: a traceback may show locals."""
    connection = Connection(
        host=settings.server_name,  # only for the certificate: the socket is given
        port=settings.port,
        user=credentials.user,
        # In UTF-8, as servers and their own clients take it: PyMySQL would send Latin-1.
        password=credentials.password.reveal().encode() if credentials.password else b"",
        database=settings.name,
        autocommit=True,
        program_name=application_name(),
        ssl=context,
        ssl_disabled=context is None,
        auth_plugin_map=None if context is not None else _NEVER_IN_CLEAR,
        defer_connect=True,
    )
    if settings.is_proxy:
        connection.longest_batch_bytes = _LONGEST_BATCH_BYTES
    connection.puts_isolation_back = settings.is_proxy or settings.reset not in ("always", "wait")
    return connection


def _tcp(address: str, port: int, timeout_s: float) -> Socket:
    """Open the TCP connection, with keepalives and a bound for unacknowledged data."""
    sock = Socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        socket.socket.settimeout(sock, timeout_s)  # its own never blocks
        sock.connect((address, port))
    except BaseException:
        sock.close()
        raise
    for level, name, value in (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", addresses.KEEPALIVE_IDLE_S),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", addresses.KEEPALIVE_INTERVAL_S),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", addresses.KEEPALIVE_COUNT),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", addresses.UNACKNOWLEDGED_LIMIT_MS),  # Linux
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(level, option, value)
    return sock
