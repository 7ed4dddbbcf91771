"""MySQL and MariaDB through PyMySQL.

Rests on PyMySQL 1.2.4. What it is careful about (all measured, see docs):

- PyMySQL's `connect_timeout` covers TCP only; greeting, TLS and login would wait for ever, and a `read_timeout` begins
  anew with every byte. Here the socket is our own, handed to `connect()`, and its waits have one common end.
- Without options PyMySQL takes plaintext when the server has no TLS; with an `SSLContext` it must have it.
- A server status is read from OK packets only, so an open transaction is certain only after a ping.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time

import pymysql
from pymysql.constants import SERVER_STATUS

from lambda_dbconn.deadline import Limit
from lambda_dbconn.drivers import (
    Failure,
    SessionState,
    addresses,
    application_name,
    checked_isolation,
    connect_error,
)
from lambda_dbconn.drivers.mysql_connection import Connection, Socket, TlsContext, WatchedConnection
from lambda_dbconn.errors import ConfigurationError, ConnectTimeoutError, without_frames
from lambda_dbconn.light import TYPE_CHECKING
from lambda_dbconn.tls import configure_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.errors import LambdaDbConnError
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

_GOODBYE_LIMIT_S = 0.05
_LONGEST_BATCH_BYTES = 16_000  # a statement of more than 16 KB pins the session on RDS Proxy, and PyMySQL packs 1 MB
_PLUGIN_CANNOT_LOAD = 2059
_COM_RESET_CONNECTION = 0x1F
_CLEAN_BITS = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
_CLEAN = SessionState.CLEAN
_STATE_BITS = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT | SERVER_STATUS.SERVER_STATUS_IN_TRANS

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
        """Connect to the first address that answers; PyMySQL itself sends `SET NAMES`, and SET AUTOCOMMIT if off."""
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
        try:
            sock = _tcp(address, settings.port, limit_s)
            sock.keep(Limit(time.monotonic, ends_at))
            connection.connect(sock)
        except Exception as exc:  # noqa: BLE001 - what PyMySQL cannot read it meets with ValueError, IndexError…
            if time.monotonic() >= ends_at:
                error: LambdaDbConnError = ConnectTimeoutError(f"no login at {where} within {limit_s:.2f} s")
            else:
                error = _meaning(exc, outer, where, is_token=settings.auth == "iam")
            raise error from without_frames(exc, outer=outer)
        connection.limit(None)
        connection.names = (connection.charset, connection.collation)
        return connection

    def watch(self, connection: Connection, see: Callable[[str | bytes], None]) -> None:
        """Make it a connection that shows what it sends."""
        connection.__class__ = WatchedConnection
        connection.see = see  # type: ignore[attr-defined] # it is one now

    def fileno(self, connection: Connection) -> int:
        """Return the socket's file descriptor."""
        return connection.fileno()

    def is_open(self, connection: Connection) -> bool:
        """Say whether the driver still believes in the connection."""
        return bool(connection.open)

    def drain(self, connection: Connection) -> bool:  # noqa: ARG002 - whatever it is, it is the end
        """Say that the session is over: a MySQL server speaks unasked only to say so."""
        return False

    def ping(self, connection: Connection, *, timeout_s: float) -> None:
        """Send COM_PING: one round trip."""
        connection.limit(time.monotonic() + timeout_s)
        connection.ping(reconnect=False)
        connection.limit(None)

    def state(self, connection: Connection, *, within_s: Callable[[], float]) -> SessionState:
        """Trust the last known status when it is clean; else refresh it with a ping, and put right what is not."""
        if not connection.open or connection.has_unread_rows:
            return SessionState.UNUSABLE
        if connection.server_status & _STATE_BITS != _CLEAN_BITS:
            self.ping(connection, timeout_s=within_s())
            if connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
                return SessionState.IN_TRANSACTION
            connection.limit(time.monotonic() + within_s())
            connection.autocommit(True)  # noqa: FBT003 - PyMySQL's signature
            connection.limit(None)
        if connection.isolation is not None:
            connection.limit(time.monotonic() + within_s())
            _set_isolation(connection, connection.isolation)
            connection.limit(None)
            connection.isolation = None
        return _CLEAN

    def begin(self, connection: Connection, *, read_only: bool, isolation: str | None) -> None:
        """Begin; with `isolation` the session's level is changed first and put back afterwards (`state`).

        A level for the next transaction alone would be one statement less, and would pin the session on RDS Proxy.
        """
        level = checked_isolation(isolation)
        if level:
            with connection.cursor() as cursor:
                cursor.execute("SHOW SESSION VARIABLES WHERE Variable_name IN ('transaction_isolation','tx_isolation')")
                before = str(cursor.fetchall()[0][1]).replace("-", " ").lower()
            _set_isolation(connection, level)
            connection.isolation = checked_isolation(before)
        if read_only:
            connection.query("START TRANSACTION READ ONLY")
        else:
            connection.begin()

    def commit(self, connection: Connection) -> None:
        """Commit."""
        connection.commit()

    def rollback(self, connection: Connection, *, timeout_s: float) -> None:
        """Roll back within the limit."""
        connection.limit(time.monotonic() + timeout_s)
        connection.rollback()
        connection.limit(None)

    def reset(self, connection: Connection, *, timeout_s: float) -> None:
        """Send COM_RESET_CONNECTION, which PyMySQL 1.2.4 does not know, then what it leaves out or undoes.

        Raises:
            NotSupportedError: The login named no database, and there is no way back to none.
        """
        if connection.db is None:
            raise pymysql.NotSupportedError("the session was in no database, and may be in one now")
        connection.limit(time.monotonic() + timeout_s)
        connection._execute_command(_COM_RESET_CONNECTION, b"")  # type: ignore[attr-defined] # noqa: SLF001
        connection._read_ok_packet()  # type: ignore[attr-defined] # noqa: SLF001
        pymysql.Connection.set_character_set(connection, *connection.names)  # unseen
        pymysql.Connection.select_db(connection, connection.db)
        connection.autocommit(True)  # noqa: FBT003 - PyMySQL's signature; sent only if the server's default is off
        connection.limit(None)
        connection.isolation = None

    obey = staticmethod(Connection.obey)

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
        other = self._open_at(connection.address, settings, credentials(), trust, timeout_s)
        try:
            other.limit(ends_at)
            other.query("SELECT CONNECTION_ID()")
            if other._result.rows == ((other.number,),):  # noqa: SLF001 - what a cursor would hand on
                other.query(f"KILL {connection.number:d}")
        finally:
            self.close(other)

    def close(self, connection: Connection) -> None:
        """Say goodbye if the socket takes it at once, and close."""
        connection.limit(time.monotonic() + _GOODBYE_LIMIT_S)
        connection.forget_rows()
        if connection.open:
            connection.close()

    def failure(self, connection: Connection, error: BaseException) -> Failure:
        """Read the error's number; a connection that PyMySQL has closed is gone, unless a long statement was why."""
        if connection.has_choked:
            return Failure.OTHER
        if not connection.open:
            return Failure.LOST
        number = error.args[0] if isinstance(error, pymysql.Error) and error.args else None
        if number == _READ_ONLY_TRANSACTION and connection.server_status & _IN_READ_ONLY_TRANSACTION:
            return Failure.OTHER  # the caller's own choice
        from lambda_dbconn.drivers.failures import failure_of  # the happy path does without

        return failure_of("mysql", number, str(error))

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
    if not _can_be_sent(credentials):
        raise ConfigurationError(
            "the password has a character outside Latin-1, which PyMySQL cannot send",
            remedy="Change the password to one of Latin-1 characters.",
        )
    connection = Connection(
        host=settings.server_name,  # only for the certificate: the socket is given
        port=settings.port,
        user=credentials.user,
        password=credentials.password.reveal() if credentials.password else "",
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
    return connection


def _can_be_sent(credentials: Credentials) -> bool:
    """Whether PyMySQL can encode the password; its own error would hold it, even as a mere context of ours."""
    if credentials.password is None:
        return True
    try:
        credentials.password.reveal().encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _tcp(address: str, port: int, timeout_s: float) -> Socket:
    """Open the TCP connection, with keepalives and a bound for unacknowledged data."""
    sock = Socket(fileno=socket.create_connection((address, port), timeout_s).detach())
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


def _set_isolation(connection: Connection, level: str) -> None:
    """Set the level, unseen: it is put back without a reset."""
    pymysql.Connection.query(connection, f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
