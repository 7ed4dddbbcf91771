"""MySQL and MariaDB through PyMySQL.

Rests on PyMySQL 1.2.4. What it is careful about (all measured, see docs):

- PyMySQL's `connect_timeout` covers TCP only; greeting, TLS and login would wait for ever. Here the socket is our
  own, handed to `connect()`, and is shut down when the time for the whole login is over.
- Without options PyMySQL takes plaintext when the server has no TLS; with an `SSLContext` it must have it.
- A server status is read from OK packets only, so an open transaction is certain only after a ping.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from _thread import allocate_lock, start_new_thread
from contextlib import suppress

import pymysql
from pymysql.constants import CR, SERVER_STATUS

from lambda_dbconn._typing import TYPE_CHECKING
from lambda_dbconn.drivers import addresses
from lambda_dbconn.drivers.driver import Failure, SessionState, application_name, checked_isolation
from lambda_dbconn.errors import ConfigurationError, ConnectTimeoutError, without_frames
from lambda_dbconn.proxy_messages import connect_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Self

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.errors import LambdaDbConnError
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

    _Base = pymysql.Connection[Any]
else:
    _Base = pymysql.Connection

_GOODBYE_LIMIT_S = 0.05
_PLUGIN_CANNOT_LOAD = 2059
_CLEAN = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
_STATE_BITS = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT | SERVER_STATUS.SERVER_STATUS_IN_TRANS

# Client-side losses; shutdown, kill and disconnection as the server words them.
_LOST = frozenset(
    (
        0,
        CR.CR_SERVER_GONE_ERROR,
        CR.CR_SERVER_LOST,
        2055,
        1053,
        1077,
        1079,
        1152,
        1158,
        1159,
        1160,
        1161,
        1184,
        1927,
        3032,
        4031,
    )
)
_CONFLICT = frozenset((1205, 1213))
_READ_ONLY = frozenset((1792, 1836))
_READ_ONLY_IF_SAID_SO = 1290  # any "running with the --… option" error


class Connection(_Base):
    """PyMySQL's connection, whose waits can be given a limit after it has been made.

    PyMySQL 1.2.4 compares `_read_timeout` and `_write_timeout` with the socket's before each packet; there is no
    public way to change them after construction, so these two private names are set here and nowhere else.
    """

    _sock: socket.socket
    _result: Any
    _read_timeout: float | None
    _write_timeout: float | None
    server_status: int

    isolation: str | None = None  # the session's own level, while another one is set

    def limit(self, timeout_s: float | None) -> None:
        """Let each wait from now on take that many seconds at most; None lifts the limit."""
        self._read_timeout = self._write_timeout = timeout_s

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._sock.fileno()


class _Watchdog:
    """Shuts a socket down after a time, unless called off: the one limit that holds for a whole login.

    A read's own time limit begins anew with every byte, so a server that trickles would hold the login for ever.
    The thread lives only as long as the login, and knows the socket by a duplicate: TLS takes the original away.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._sock = sock.dup()
        self._timeout_s = max(0.001, timeout_s)
        self._waiting = allocate_lock()
        self._is_called_off = False
        self.has_bitten = False

    def __enter__(self) -> Self:
        self._waiting.acquire()
        start_new_thread(self._wait, ())
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._is_called_off = True
        self._waiting.release()

    def _wait(self) -> None:
        if not self._waiting.acquire(timeout=self._timeout_s):
            self.has_bitten = True  # said before it is done: whoever calls off too late then knows
            if not self._is_called_off:
                with suppress(OSError):  # it has gone by itself
                    self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


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
        where = f"{settings.address} as {credentials.user!r}, database {settings.name!r}"
        context = self._context(trust.cafile) if trust.cafile is not None else None

        def open_one(address: str, limit_s: float) -> Connection:
            ends_at = time.monotonic() + limit_s
            connection = _unconnected(settings, credentials, context)
            outer = sys.exception()
            watchdog = None
            try:
                sock = _tcp(address, settings.port, limit_s)
                with _Watchdog(sock, ends_at - time.monotonic()) as watchdog:
                    connection.connect(sock)
                if watchdog.has_bitten:
                    raise TimeoutError
            except Exception as exc:  # noqa: BLE001 - what PyMySQL cannot read it meets with ValueError, IndexError…
                is_late = watchdog is not None and watchdog.has_bitten
                if is_late:
                    error: LambdaDbConnError = ConnectTimeoutError(f"no login at {where} within {limit_s:.2f} s")
                else:
                    error = _meaning(exc, where, is_token=settings.auth == "iam")
                raise error from without_frames(exc, outer=outer)
            return connection

        return addresses.first_that_opens(addresses.resolve(settings.host, settings.port), timeout_s, open_one)

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
        connection.limit(timeout_s)
        connection.ping(reconnect=False)
        connection.limit(None)

    def state(self, connection: Connection, *, timeout_s: float) -> SessionState:
        """Trust the last known status when it is clean; else refresh it with a ping, and put right what is not."""
        if not connection.open or _has_unread_rows(connection):
            return SessionState.UNUSABLE
        if connection.server_status & _STATE_BITS != _CLEAN:
            self.ping(connection, timeout_s=timeout_s)
            if connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
                return SessionState.IN_TRANSACTION
            connection.limit(timeout_s)
            connection.autocommit(True)  # noqa: FBT003 - PyMySQL's signature
            connection.limit(None)
        if connection.isolation is not None:
            connection.limit(timeout_s)
            _set_isolation(connection, connection.isolation)
            connection.limit(None)
            connection.isolation = None
        return SessionState.CLEAN

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
        connection.limit(timeout_s)
        connection.rollback()
        connection.limit(None)

    def close(self, connection: Connection) -> None:
        """Say goodbye if the socket takes it at once, and close."""
        connection.limit(_GOODBYE_LIMIT_S)
        if _has_unread_rows(connection):
            connection._result.unbuffered_active = False  # noqa: SLF001 - else its destructor reads a closed socket
        if connection.open:
            connection.close()

    def failure(self, connection: Connection, error: BaseException) -> Failure:
        """Read the error's number; a connection that PyMySQL has closed is gone whatever the error."""
        number = error.args[0] if isinstance(error, pymysql.Error) and error.args else None
        if not connection.open or number in _LOST:
            return Failure.LOST
        if number in _CONFLICT:
            return Failure.CONFLICT
        if number in _READ_ONLY or (number == _READ_ONLY_IF_SAID_SO and "read-only" in str(error)):
            return Failure.READ_ONLY
        return Failure.OTHER

    def _context(self, cafile: str) -> ssl.SSLContext:
        """Return the context that verifies chain and host name against this file; made once, it costs milliseconds."""
        context = self._contexts.get(cafile)
        if context is None:
            try:
                context = ssl.create_default_context(cafile=cafile)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigurationError(
                    f"the authorities in {cafile!r} cannot be read: {exc}",
                    remedy="Give SSLROOTCERT the path of a PEM file with at least one certificate.",
                ) from exc
            # Chain and host name are verified all the same; what this takes back is Python 3.13's new insistence on
            # extensions that certificates in use lack (a server's own, by PyMySQL's account) and libpq never asks for.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            self._contexts[cafile] = context
        return context


def _meaning(exc: Exception, where: str, *, is_token: bool) -> LambdaDbConnError:
    """Say what PyMySQL's failure to connect means: by the server's number and words, if there are any."""
    number = exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0
    text = str(exc.args[1]) if number and len(exc.args) > 1 else str(exc)
    return connect_error("mysql", where, text, number=number, is_token=is_token)


def _unconnected(settings: Settings, credentials: Credentials, context: ssl.SSLContext | None) -> Connection:
    """Construct the connection object; the password is in no variable here: a traceback may show locals."""
    if not _can_be_sent(credentials):
        raise ConfigurationError(
            "the password has a character outside Latin-1, which PyMySQL cannot send",
            remedy="Change the password to one of Latin-1 characters.",
        )
    return Connection(
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


def _can_be_sent(credentials: Credentials) -> bool:
    """Whether PyMySQL can encode the password; its own error would hold it, even as a mere context of ours."""
    if credentials.password is None:
        return True
    try:
        credentials.password.reveal().encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _tcp(address: str, port: int, timeout_s: float) -> socket.socket:
    """Open the TCP connection, with keepalives and a bound for unacknowledged data."""
    sock = socket.create_connection((address, port), timeout_s)
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
    connection.query(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")


def _has_unread_rows(connection: Connection) -> bool:
    """Whether a streamed result was left unread: PyMySQL 1.2.4 says so nowhere in public."""
    result = connection._result  # noqa: SLF001 - as above
    return result is not None and bool(result.unbuffered_active)
