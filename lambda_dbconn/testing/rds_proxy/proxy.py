"""A local RDS Proxy, as a test or a developer uses it."""

from __future__ import annotations

import asyncio
import copy
import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar, get_args

from lambda_dbconn.testing.rds_proxy.core import AuthMode, Core, PasswordAuth, ProxyOptions, Target
from lambda_dbconn.testing.rds_proxy.ledger import Ledger, SessionRecord, Stats
from lambda_dbconn.testing.rds_proxy.mysql_session import MySqlSession
from lambda_dbconn.testing.rds_proxy.postgresql_session import PostgresSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.testing.rds_proxy.backend import Backend
    from lambda_dbconn.testing.rds_proxy.iam import AwsKey
    from lambda_dbconn.testing.rds_proxy.session import Session
    from lambda_dbconn.testing.rds_proxy.texts import RefusalKind

_T = TypeVar("_T")

_COMMAND_TIMEOUT_S = 10.0
_BACKLOG = 512
_GOODBYE_TIMEOUT_S = 1.0
_PAUSE_S = 0.1
_ROUNDS_TO_CLOSE = 5  # of the loop, for sockets to be closed after they were given up

_AUTH_MODES: tuple[AuthMode, ...] = get_args(AuthMode)
_PASSWORD_AUTH: dict[str, tuple[PasswordAuth, ...]] = {
    "postgresql": ("scram-sha-256", "md5"),
    "mysql": ("caching_sha2_password", "mysql_native_password"),
}


@dataclass(kw_only=True, eq=False, repr=False)
class LocalRdsProxy(ProxyOptions):
    """Stands before a database server and behaves as the documentation says that RDS Proxy does.

    Clients speak PostgreSQL or MySQL over TLS to `host` and `port`; they get a database connection from a pool for
    each transaction, or, when what they do pins them, for good. It logs in at the database with the passwords in
    its own secret. Everything runs in one thread of its own; any other thread may call any method. It may be
    started and stopped again and again, on the same port.

    Clients in the same process must wait without the interpreter's lock. psycopg and PyMySQL do, but for psycopg's
    `Connection.cancel()` (`cancel_safe()` does) and its blocking `pq.PGconn` methods, which would wait for ever.

    **It imitates documentation and users' reports, and has not been compared with the real service.** It has been
    compared with the servers themselves, through psycopg, PyMySQL, `psql`, `pgbench`, the `mariadb` client and the
    compliance suite of SQLAlchemy's dialects, and, as to how connections are shared, with PgBouncer in transaction
    mode and MySQL Router. Those differ from it in what is RDS Proxy's own: PgBouncer lets settings and prepared
    statements leak where this one pins; MySQL Router knows no limit to open connections.

    Where documentation and reports are silent it does what is simple and strict:

    - A login asks the database only the first time for a user, database and settings; its errors come then.
    - A request that gets no database connection fails, and the session goes on. COM_PING needs one like the rest.
    - A client that is idle or connected for too long is cut off without a word. One whose pinned or transaction's
      database connection broke hears of it at its next request: PostgreSQL's 57P01, or an end of the connection.
    - Pinned sessions' database connections are closed after them, not reset.
    - Protocol-level prepared statements of PostgreSQL are made again on each database connection that a session
      gets. MySQL's pin, as documented.
    - A read-only endpoint makes the sessions at the database read-only; the database may well be writable.
    - MySQL: LAST_INSERT_ID(), warnings and other state of the last statement are only kept where the client gets
      the same database connection again, which is likely and not certain. COM_CHANGE_USER and replication are
      refused. SET LOCAL does not pin, and stays on the connection.

    Besides the methods it has the attributes of `ProxyOptions`, which are its keyword arguments.
    """

    host = "localhost"

    def __post_init__(self) -> None:
        if self.auth not in _AUTH_MODES:
            raise ValueError(f"no auth {self.auth!r}: choose one of {', '.join(_AUTH_MODES)}")
        choices = _PASSWORD_AUTH.get(self.engine, ())
        if self.password_auth is None and choices:
            self.password_auth = choices[0]
        if self.password_auth not in choices:
            raise ValueError(f"no {self.password_auth!r} for {self.engine!r}: choose one of {', '.join(choices)}")
        self.signing_host = self.signing_host or f"local.proxy-cexample0000.{self.region}.rds.amazonaws.com"
        self._passwords = dict(self.secrets or {})
        self._keys = {key.access_key_id: key for key in self.aws_keys}
        self._ledger = Ledger(on_line=self.on_log)
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Begin to listen; nothing happens when it does already.

        Raises:
            OSError: The port is taken, or the database's name cannot be looked up.
        """
        if self._thread is not None:
            return self
        if self.secrets is None:
            self._passwords.setdefault(self.backend.user, self.backend.password)
        listener = socket.create_server(("127.0.0.1", self.port), backlog=_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003
        self.port = listener.getsockname()[1]
        try:
            self._core = Core(self, port=self.port, passwords=self._passwords, keys=self._keys, ledger=self._ledger)
        except BaseException:
            listener.close()
            raise
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(listener, started)), name=repr(self), daemon=True
        )
        self._thread.start()
        started.result(_COMMAND_TIMEOUT_S)
        return self

    def stop(self) -> None:
        """Hang up on every client and at the database, and listen no more."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def restart(self) -> None:
        """Stop and start, on the same port."""
        self.stop()
        self.start()

    close = stop

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LocalRdsProxy({self.engine}, {self.host}:{self.port})"

    # What it is told.

    def set_secret(self, user: str, password: str) -> None:
        """Register a user's password, or another one; connections that are logged in stay so."""
        self._passwords[user] = password

    def remove_secret(self, user: str) -> None:
        """Forget a user, who then cannot log in."""
        self._passwords.pop(user, None)

    def set_aws_key(self, key: AwsKey) -> None:
        """Let the owner of a key in, or give a key other secrets."""
        self._keys[key.access_key_id] = key

    def remove_aws_key(self, access_key_id: str) -> None:
        """Accept no more tokens of a key."""
        self._keys.pop(access_key_id, None)

    def slow(self, seconds: float) -> None:
        """Let every login and every request wait for so long before it is dealt with; 0 ends it."""
        self._call(lambda: setattr(self._core, "delay_s", seconds))

    def fail_next_logins(self, count: int, kind: RefusalKind | None) -> None:
        """Refuse the next clients with one of the documented errors; None hangs up on them without a word.

        Raises:
            ValueError: This engine's proxy has no such error.
        """
        self._call(lambda: self._core.fail_next_logins(count, kind))

    def switch_backend(self, server: Backend) -> None:
        """Use another server from now on; transactions and pinned sessions finish at the old one.

        Raises:
            ValueError: It has another engine.
        """
        self._move_to(server, self._core.move)

    def failover(self, *, to: Backend | None = None, outage_s: float = 0.0) -> None:
        """Lose the database, and find it again, or another server, after `outage_s` seconds.

        Statements and transactions under way are cancelled, and their clients cut off; pinned clients hear of it
        when they next ask something. Idle clients notice nothing, but that requests wait for the database.
        """
        self._move_to(to or self.backend, lambda target: self._core.fail_over(target, outage_s))

    # What it tells.

    def stats(self) -> Stats:
        """Take a snapshot of its counters."""
        if self._thread is None:
            return self._ledger.stats(open_count=0, borrowed_count=0)
        pool = self._core.pool
        return self._call(lambda: self._ledger.stats(open_count=pool.open_count, borrowed_count=pool.lent_count))

    def sessions(self) -> list[SessionRecord]:
        """Return the newest thousand sessions that were let in, oldest first, with all that their clients asked."""
        if self._thread is None:
            return copy.deepcopy(list(self._ledger.sessions))
        return self._call(lambda: copy.deepcopy(list(self._ledger.sessions)))

    def log(self) -> str:
        """Return its log, in the form of RDS Proxy's; secrets and tokens are never in it."""
        return "\n".join([*self._ledger.log])

    # Its thread.

    def _move_to(self, server: Backend, act: Callable[[Target], None]) -> None:
        if server.engine != self.engine:
            raise ValueError(f"a proxy for {self.engine} cannot stand before {server.engine}")
        self.backend = server
        target = Target.of(server)
        self._call(lambda: act(target))

    def _call(self, function: Callable[[], _T]) -> _T:
        if self._thread is None:
            raise RuntimeError(f"{self!r} is not running")
        outcome: Future[_T] = Future()

        def run() -> None:
            try:
                outcome.set_result(function())
            except BaseException as error:  # noqa: BLE001 - the caller's, in another thread
                outcome.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return outcome.result(_COMMAND_TIMEOUT_S)

    async def _run(self, listener: socket.socket, started: Future[None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        sessions: dict[asyncio.Task[None], Session] = {}
        accepting = asyncio.create_task(self._accept(listener, sessions))
        started.set_result(None)
        await self._stopping.wait()
        accepting.cancel()
        listener.close()
        last = dict(sessions)
        for task in last:
            task.cancel()
        if last:
            _, slow = await asyncio.wait(last, timeout=_GOODBYE_TIMEOUT_S)
            for task in slow:
                last[task].abort()
            if slow:
                await asyncio.wait(slow, timeout=_COMMAND_TIMEOUT_S)
        self._core.pool.retire(is_abrupt=True)
        for _ in range(_ROUNDS_TO_CLOSE):
            await asyncio.sleep(0)

    async def _accept(self, listener: socket.socket, sessions: dict[asyncio.Task[None], Session]) -> None:
        session_class: type[Session] = PostgresSession if self.engine == "postgresql" else MySqlSession
        while True:
            try:
                sock, _ = await self._loop.sock_accept(listener)
            except OSError as error:  # too many open files, for one: the next client may have more luck
                self._ledger.write("ERROR", 0, f"A client could not be let in: {error}.")
                await asyncio.sleep(_PAUSE_S)
                continue
            session = session_class(self._core, sock)
            task = asyncio.create_task(session.run())
            sessions[task] = session
            task.add_done_callback(sessions.pop)
