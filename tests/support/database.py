"""A database as the library meets it: a real server behind a fault relay, reached with or without TLS."""

from __future__ import annotations

import os
import select
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConnectionManager, Secret, Settings
from lambda_dbconn.events import ConnectionOpened, ConnectionReplaced
from lambda_dbconn.testing.fakes import RecordingObserver
from lambda_dbconn.testing.relay import FaultRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.servers import LocalServer

LIMIT_S = 10.0
"""How long anything may take before a test gives it up: against hangs, not a measure."""

MYSQL_TLS = pytest.param("mysql-tls", marks=pytest.mark.once)
"""A fixture's parameter for MySQL, which takes long to start: what it has that MariaDB has not is about no Python."""

MANY_ROWS = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT a.i FROM n a CROSS JOIN n b"
)
"""Ten thousand rows, of any server."""

# How often the server answers until a session is there. TLS 1.3 leaves some of it to chance: a server may send its
# session tickets at once or together with its next words.
_ROUND_TRIPS_OF_A_CONNECT = {
    ("postgresql", False): range(3, 4),
    ("postgresql", True): range(5, 8),
    ("mysql", False): range(2, 4),  # MySQL 9's logins take one more than MariaDB's
    ("mysql", True): range(3, 6),
}


class ShiftedClock:
    """The system's clocks, which can be put forward: a connection grows old, and nobody waits."""

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self._shift_s = 0.0

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic() + self._shift_s

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time() + self._shift_s

    def advance(self, seconds: float) -> None:
        """Put both clocks forward."""
        self._shift_s += seconds


def environment(server: LocalServer) -> dict[str, str]:
    """Return this process's environment with the variables of a function that uses the server, and no others' ones."""
    assert server.certificates is not None
    others = ("DB_", "AWS_", "PG", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)} | {
        "DB_ENGINE": server.engine,
        "DB_HOST": server.host,
        "DB_PORT": str(server.port),
        "DB_NAME": server.database,
        "DB_USER": server.user,
        "DB_PASSWORD": server.password,
        "DB_SSLROOTCERT": str(server.certificates.ca_path),
    }


@dataclass(kw_only=True)
class Database:
    """A server, the way to it, and what the managers made here have told.

    Attributes:
        server: What answers.
        backend: The database itself: the same, or what is behind a pooler.
        relay: What the managers connect to.
        is_tls: Whether they speak TLS.
        host: The name that they know the server by.
    """

    server: LocalServer
    backend: LocalServer
    relay: FaultRelay
    is_tls: bool
    host: str = "127.0.0.1"
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    observer: RecordingObserver = field(default_factory=RecordingObserver)
    _managers: ExitStack = field(default_factory=ExitStack)

    @property
    def is_postgresql(self) -> bool:
        return self.backend.engine == "postgresql"

    @property
    def round_trips_of_a_connect(self) -> range:
        return _ROUND_TRIPS_OF_A_CONNECT[self.backend.engine, self.is_tls]

    def settings(self, **changes: Any) -> Settings:
        """Return good settings, with these instead."""
        given: dict[str, Any] = {
            "engine": self.backend.engine,
            "host": self.host,
            "port": self.relay.port,
            "name": self.server.database,
            "user": self.server.user,
            "password": Secret(self.server.password),
            "sslmode": "disable",
        }
        if self.is_tls:
            assert self.server.certificates is not None
            given |= {"sslmode": "verify-full", "sslrootcert": str(self.server.certificates.ca_path)}
        return Settings(**(given | changes))

    def manager(self, **changes: Any) -> ConnectionManager[Any]:
        """Make a manager, which is closed at the end of the test."""
        db: ConnectionManager[Any] = ConnectionManager(
            self.settings(**changes), clock=self.clock, observer=self.observer
        )
        self._managers.callback(db.close)
        return db

    def counted(self, **changes: Any) -> ConnectionManager[Any]:
        """Make a manager that sends no resets: their answers come when they come, and would be counted anywhere."""
        return self.manager(reset="never", **changes)

    # What the application does, and what the server knows of it

    def session_id(self, connection: Any) -> int:
        """Ask the server which session this is: one round trip."""
        statement = "SELECT pg_backend_pid()" if self.is_postgresql else "SELECT CONNECTION_ID()"
        return int(fetch(connection, statement)[0][0])

    def count(self, deed: str) -> int:
        """Count how often a deed was done and committed."""
        return int(self.backend.query("SELECT count(*) FROM deeds WHERE name = %s", deed)[0][0])

    def make_things(self, count: int) -> list[str]:
        """Make things to be touched, and return their names."""
        names = [deed() for _ in range(count)]
        for name in names:
            self.backend.execute("INSERT INTO things (name, touched) VALUES (%s, 0)", name)
        return names

    def touches(self, name: str) -> int:
        """Say how often a thing was touched by a transaction that was committed."""
        return int(self.backend.query("SELECT touched FROM things WHERE name = %s", name)[0][0])

    # What it cost

    def forget(self) -> None:
        """Begin to count and to record from here."""
        self.relay.reset_counters()
        self.observer.events.clear()

    def cost(self) -> tuple[int, int]:
        """Return how many connects and how many round trips there were since `forget`."""
        return self.relay.connects, self.relay.round_trips

    def reasons(self) -> list[str]:
        """Return why connections were replaced, each confirmed by the event of the one that took its place."""
        replaced = [event.reason for event in self.observer.of(ConnectionReplaced)]
        opened = [event.reason for event in self.observer.of(ConnectionOpened)]
        assert replaced == [reason for reason in opened if reason != "first"]
        return replaced

    def prepare(self) -> None:
        """Make the tables, and let the application use them."""
        self.backend.execute("CREATE TABLE IF NOT EXISTS deeds (name varchar(64))")
        self.backend.execute("CREATE TABLE IF NOT EXISTS things (name varchar(64) PRIMARY KEY, touched int)")
        if self.is_postgresql:
            self.backend.execute(f"ALTER TABLE deeds OWNER TO {self.backend.user}")
            self.backend.execute(f"ALTER TABLE things OWNER TO {self.backend.user}")

    def close(self) -> None:
        """Close the managers, whatever a test has done to the relay."""
        self._managers.close()


def deed() -> str:
    """Name something that only one test does."""
    return uuid.uuid4().hex


def do(connection: Any, name: str) -> None:
    """Do a deed: one statement, one round trip, one row."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("INSERT INTO deeds (name) VALUES (%s)", [name])


def touch(connection: Any, *names: str) -> None:
    """Change these things one after another, each by one statement: the transaction then has them locked."""
    for name in names:
        with closing(connection.cursor()) as cursor:
            cursor.execute("UPDATE things SET touched = touched + 1 WHERE name = %s", [name])
            assert cursor.rowcount == 1


def fetch(connection: Any, statement: str, *parameters: object) -> Any:
    """Run a query and return its rows."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall()


def wait_for_news(fileno: int) -> None:
    """Wait until something has arrived on a socket."""
    _wait(fileno, select.POLLIN)


def wait_for_end(fileno: int) -> None:
    """Wait until the end of a connection has arrived on its socket, behind whatever else."""
    _wait(fileno, getattr(select, "POLLRDHUP", select.POLLIN))  # Linux has a word for it


def _wait(fileno: int, events: int) -> None:
    poll = select.poll()
    poll.register(fileno, events)
    assert poll.poll(LIMIT_S * 1000), f"nothing arrived within {LIMIT_S} s"


@contextmanager
def in_background(function: Callable[[], object]) -> Iterator[None]:
    """Run a function in a thread meanwhile; wait for its end, and raise what it raised."""
    with ThreadPoolExecutor(max_workers=1) as threads:
        future = threads.submit(function)
        yield
        future.result(LIMIT_S)


@contextmanager
def behind_a_relay(server: LocalServer, *, is_tls: bool, backend: LocalServer | None = None) -> Iterator[Database]:
    """Put a relay in front of a running server, or of a pooler and its `backend`."""
    if is_tls and not server.is_tls:
        pytest.skip(f"this {server.engine} server is built without TLS")
    with FaultRelay(target_host="127.0.0.1", target_port=server.port) as relay:
        database = Database(server=server, backend=backend or server, relay=relay, is_tls=is_tls)
        database.prepare()
        with closing(database):
            yield database


def database_of(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Make the database that a parameter such as `own_postgres-tls` names: a server's fixture, and the way to it."""
    fixture, _, way = str(request.param).partition("-")
    with behind_a_relay(request.getfixturevalue(fixture), is_tls=way == "tls") as database:
        yield database
