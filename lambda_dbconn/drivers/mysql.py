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
from pymysql.constants import CR, SERVER_STATUS

from lambda_dbconn._typing import TYPE_CHECKING
from lambda_dbconn.drivers import addresses
from lambda_dbconn.drivers.driver import Failure, SessionState, checked_isolation
from lambda_dbconn.errors import ConfigurationError, ConnectTimeoutError, without_frames
from lambda_dbconn.proxy_messages import connect_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.deadline import Cutoff
    from lambda_dbconn.errors import LambdaDbConnError
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

    _Base = pymysql.Connection[Any]
else:
    _Base = pymysql.Connection

_GOODBYE_LIMIT_S = 0.05
_BIT_S = 0.01
_PLUGIN_CANNOT_LOAD = 2059
_COM_RESET_CONNECTION = 0x1F
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


class _LimitedSocket(socket.socket):
    """A socket whose calls end together: each waits for no longer than is left until `ends_at`.

    A socket's own time limit begins anew with every call, so a server that trickles would hold the caller for ever.
    """

    ends_at: float | None = None  # of the monotonic clock; None: no limit

    def recv_into(self, *arguments: Any) -> int:
        """Receive within the limit."""
        self._limit_call()
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        """Send what is taken at once, within the limit; TLS sends record by record through here."""
        self._limit_call()
        return super().send(*arguments)

    def sendall(self, *arguments: Any) -> None:
        """Send all, within the limit."""
        self._limit_call()
        super().sendall(*arguments)

    def _limit_call(self) -> None:
        """Set the socket's own time limit, which is a system call, when it is too short, or too long by a bit."""
        limit_s = self.gettimeout()
        if self.ends_at is None:
            if limit_s is not None:
                self.settimeout(None)
            return
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if limit_s is None or not left_s <= limit_s <= left_s + _BIT_S:
            self.settimeout(left_s)


class _LimitedTlsSocket(_LimitedSocket, ssl.SSLSocket):
    """The same, once it speaks TLS."""


class Connection(_Base):
    """PyMySQL's connection, all of whose waits can be given an end, also while it logs in."""

    _result: Any
    db: Any
    charset: str
    collation: str | None
    server_thread_id: tuple[int]
    server_status: int

    isolation: str | None = None  # the session's own level, while another one is set
    address: str  # that it is connected to
    names: tuple[str, str | None]  # the character set and collation of its login
    cutoff: Cutoff | None = None  # of the invocation that it is lent to
    see: Callable[[str | bytes], None] | None = None  # each statement is shown to it
    _ends_at: float | None = None
    _limited: _LimitedSocket | None = None

    @property
    def _sock(self) -> _LimitedSocket:  # PyMySQL's own name
        return self._limited  # type: ignore[return-value] # None when closed, as PyMySQL has it

    @_sock.setter
    def _sock(self, sock: _LimitedSocket | None) -> None:
        self._limited = sock
        if sock is not None:
            sock.ends_at = self._ends_at

    @property
    def number(self) -> int:
        """The server's number for the session, as its greeting said."""
        number: int = self.server_thread_id[0]
        return number

    def limit(self, ends_at: float | None) -> None:
        """Let all that waits from now on end then, by the monotonic clock; None lifts the limit."""
        self._ends_at = ends_at
        if self._limited is not None:
            self._limited.ends_at = ends_at

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._sock.fileno()

    def query(self, sql: Any, unbuffered: bool = False) -> int:  # noqa: FBT001, FBT002 - PyMySQL's signature
        """Send a query, unless the watcher raises."""
        if self.see is not None:
            self.see(bytes(sql) if isinstance(sql, bytearray) else sql)
        return super().query(sql, unbuffered)

    def select_db(self, db: Any) -> None:
        """Select another database, which the watcher is shown as the statement that it stands for."""
        if self.see is not None:
            self.see("USE")
        super().select_db(db)

    def set_character_set(self, charset: Any, collation: Any = None) -> None:
        """Change the character set, which the watcher is shown as the statement that it stands for."""
        if self.see is not None:
            self.see("SET NAMES")
        super().set_character_set(charset, collation)

    # All that PyMySQL sends and receives goes through these two, private as they are.

    def _read_packet(self, *arguments: Any) -> Any:
        try:
            return super()._read_packet(*arguments)  # type: ignore[no-untyped-call] # PyMySQL's stubs are such
        except pymysql.OperationalError as error:
            self._check_cutoff(error)
            raise

    def _write_bytes(self, data: bytes) -> None:
        try:
            super()._write_bytes(data)  # type: ignore[misc] # as above
        except pymysql.OperationalError as error:
            self._check_cutoff(error)
            raise

    def _check_cutoff(self, error: Exception) -> None:
        """Raise what the end of the invocation's time means, if that was it; PyMySQL has closed the socket."""
        cutoff, ends_at = self.cutoff, self._ends_at
        if cutoff is not None and ends_at is not None and time.monotonic() >= ends_at:
            if _has_unread_rows(self):
                self._result.unbuffered_active = False  # else the cursor goes on reading
            raise cutoff.cut(self) from error


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
            addresses.resolve(settings.host, settings.port),
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
            connection.limit(ends_at)
            connection.connect(_tcp(address, settings.port, limit_s))
        except Exception as exc:  # noqa: BLE001 - what PyMySQL cannot read it meets with ValueError, IndexError…
            if time.monotonic() >= ends_at:
                error: LambdaDbConnError = ConnectTimeoutError(f"no login at {where} within {limit_s:.2f} s")
            else:
                error = _meaning(exc, where, is_token=settings.auth == "iam")
            raise error from without_frames(exc, outer=outer)
        connection.limit(None)
        connection.names = (connection.charset, connection.collation)
        return connection

    def watch(self, connection: Connection, see: Callable[[str | bytes], None]) -> None:
        """Let it show what it sends."""
        connection.see = see

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

    def state(self, connection: Connection, *, timeout_s: float) -> SessionState:
        """Trust the last known status when it is clean; else refresh it with a ping, and put right what is not."""
        if not connection.open or _has_unread_rows(connection):
            return SessionState.UNUSABLE
        if connection.server_status & _STATE_BITS != _CLEAN:
            self.ping(connection, timeout_s=timeout_s)
            if connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
                return SessionState.IN_TRANSACTION
            connection.limit(time.monotonic() + timeout_s)
            connection.autocommit(True)  # noqa: FBT003 - PyMySQL's signature
            connection.limit(None)
        if connection.isolation is not None:
            connection.limit(time.monotonic() + timeout_s)
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
        see, connection.see = connection.see, None
        connection.limit(time.monotonic() + timeout_s)
        connection._execute_command(_COM_RESET_CONNECTION, b"")  # type: ignore[attr-defined] # noqa: SLF001
        connection._read_ok_packet()  # type: ignore[attr-defined] # noqa: SLF001
        connection.set_character_set(*connection.names)
        connection.select_db(connection.db)
        connection.autocommit(True)  # noqa: FBT003 - PyMySQL's signature; sent only if the server's default is off
        connection.limit(None)
        connection.isolation, connection.see = None, see

    def cut_off(self, connection: Connection, cutoff: Cutoff | None) -> None:
        """Let the caller's calls end with the invocation's time, or take that back."""
        connection.cutoff = cutoff
        connection.limit(time.monotonic() + cutoff.left_s() if cutoff is not None else None)

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
            context.sslsocket_class = _LimitedTlsSocket
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
        program_name="lambda_dbconn",
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


def _tcp(address: str, port: int, timeout_s: float) -> _LimitedSocket:
    """Open the TCP connection, with keepalives and a bound for unacknowledged data."""
    sock = _LimitedSocket(fileno=socket.create_connection((address, port), timeout_s).detach())
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


def _has_unread_rows(connection: Connection) -> bool:
    """Whether a streamed result was left unread: PyMySQL 1.2.4 says so nowhere in public."""
    result = connection._result  # noqa: SLF001 - as above
    return result is not None and bool(result.unbuffered_active)
