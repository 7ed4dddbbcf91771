"""A database and a clock in memory, for unit tests of code that uses this library, and of the library itself.

clock = FakeClock()
with FakeServer(clock) as server:
    db = ConnectionManager(settings, driver=FakeDriver(server), clock=clock, observer=RecordingObserver())
    server.answers["select name from employee"] = [("Ada",)]
    ...
    assert server.sql == ["select name from employee"]

The fakes stand for the parts that decide what the library does: when a session ends, who notices, what has been sent
and what has been committed. They understand no SQL but BEGIN, COMMIT and ROLLBACK.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lambda_dbconn.drivers import ENDED_INSIDE, ErrorKind, SessionState, checked_isolation
from lambda_dbconn.errors import AuthenticationError, ConnectError, ConnectTimeoutError, TransactionAbortedError
from lambda_dbconn.events import ConnectionReleased
from lambda_dbconn.testing._fake_connection import LAST_WORDS, NOTICE, FakeConnection, FakeCursor, FakeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lambda_dbconn.credentials import Credentials
    from lambda_dbconn.deadline import CancelScope
    from lambda_dbconn.events import Event
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

E = TypeVar("E", bound="Event")

_UNACKNOWLEDGED_LIMIT_S = 15.0  # what TCP_USER_TIMEOUT grants a statement on a half-open connection


class FakeClock:
    """Stands for `time.monotonic`, `time.time` and `time.sleep`: time passes only when it is told to.

    Attributes:
        slept_s: What was asked of `sleep`, in order.
    """

    def __init__(self, *, monotonic: float = 1000.0, wall: float = 1.75e9) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self.slept_s: list[float] = []

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._monotonic

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return self._wall

    def sleep(self, seconds: float) -> None:
        """Let the time pass at once, and take a note of it."""
        self.slept_s.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass by both clocks."""
        self._monotonic += seconds
        self._wall += seconds

    def freeze(self, seconds: float, *, monotonic_stops: bool = True) -> None:
        """Freeze the execution environment, as Lambda does between invocations."""
        self._wall += seconds
        if not monotonic_stops:
            self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Correct the wall clock, as a time service does: back, when negative."""
        self._wall += seconds


class FakeContext:
    """Stands for the Lambda context of an invocation that began now; like Lambda's, it goes by the wall clock."""

    def __init__(self, clock: FakeClock, remaining_s: float) -> None:
        self._clock = clock
        self._ends_at = clock.wall() + remaining_s

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends the invocation."""
        return int((self._ends_at - self._clock.wall()) * 1000)


class RecordingObserver:
    """Keeps every event but the end of a loan, in order; set `ignores` to keep that, too."""

    ignores: tuple[type[Event], ...] = (ConnectionReleased,)

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        """Keep one event."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def names(self) -> list[str]:
        """Return the events' class names."""
        return [type(event).__name__ for event in self.events]


class FakeServer:
    """Stands for a PostgreSQL server as psycopg sees it: sessions, transactions, and all that may go wrong.

    Close it at the end, or use it in a `with` statement: each session owns a pair of sockets.

    Attributes:
        clock: Passes when the server takes its time.
        password: What a login must bring; None lets everyone in.
        refuses_with: Raised at every connect while it is set.
        connect_takes_s: How long a connect takes; over its time limit it is a `ConnectTimeoutError`.
        round_trip_s: How long everything else takes.
        answers: The rows that a statement returns; none if it is not here.
        sql: Every statement sent, in order, also those that never arrived, with BEGIN, COMMIT and ROLLBACK; resets are
            in `counts` only.
        committed: The callers' statements whose effect is lasting.
        connections: Every session ever opened, in order.
        counts: Calls of each of the driver's operations (`open` counts tries), and of `execute`.
        most_open: How many sessions were open at once at most.
        time_limits_s: What `open` was given, try by try.
        interrupt_limits_s: What `interrupt` was given, time by time.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock if clock is not None else FakeClock()
        self.password: str | None = None
        self.refuses_with: Exception | None = None
        self.connect_takes_s = 0.0
        self.round_trip_s = 0.0
        self.answers: dict[str, list[tuple[Any, ...]]] = {}
        self.sql: list[str] = []
        self.committed: list[str] = []
        self.connections: list[FakeConnection] = []
        self.counts: Counter[str] = Counter()
        self.most_open = 0
        self.time_limits_s: list[float] = []
        self.interrupt_limits_s: list[float] = []
        self._demanded: defaultdict[str, deque[BaseException]] = defaultdict(deque)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket. What was recorded remains."""
        for connection in self.connections:
            connection.close()

    @property
    def open_connections(self) -> list[FakeConnection]:
        """The sessions that the client has not closed."""
        return [connection for connection in self.connections if not connection.is_released]

    # --- what may go wrong

    def demand(self, operation: str, *errors: BaseException) -> None:
        """Let the next calls of an operation raise these errors: a `Driver` method's name, or `execute`.

        The operation is sent and fails there; a `FakeError` of kind `LOST` ends the session, too.
        """
        self._demanded[operation].extend(errors)

    def refuse(self, times: int = 1, error: Exception | None = None) -> None:
        """Refuse the next connects; by default as a server that is restarting."""
        self.demand("open", *(error or ConnectError("refused", retryable=True) for _ in range(times)))

    def hang_up(self) -> None:
        """End all sessions so that the client can see it: end of file on the socket."""
        for connection in self.open_connections:
            connection.hang_up()

    def vanish(self) -> None:
        """End all sessions without a word, as a NAT gateway that forgets a flow: half-open."""
        for connection in self.open_connections:
            connection.vanish()

    def notify(self) -> None:
        """Say something harmless to every client: a NOTIFY, a changed parameter."""
        for connection in self.open_connections:
            connection.hear(NOTICE)

    def terminate(self) -> None:
        """Tell every client that its session is over, and leave the socket open as yet."""
        for connection in self.open_connections:
            connection.hear(LAST_WORDS)

    # --- for the driver

    def accept(self, credentials: Credentials, timeout_s: float) -> FakeConnection:
        """Let a client in, or not."""
        self.counts["open"] += 1
        self.time_limits_s.append(timeout_s)
        self.clock.advance(min(self.connect_takes_s, timeout_s))
        self._raise_demanded("open")
        if self.refuses_with is not None:
            raise self.refuses_with
        if self.connect_takes_s > timeout_s:
            raise ConnectTimeoutError(f"no answer within {timeout_s:.2f} s")
        given = credentials.password.reveal() if credentials.password else None
        if self.password not in (None, given):
            raise AuthenticationError(f"password authentication failed for user {credentials.user!r}")
        connection = FakeConnection(self, number=len(self.connections) + 1)
        self.connections.append(connection)
        self.most_open = max(self.most_open, len(self.open_connections))
        return connection

    def round_trip(self, connection: FakeConnection, operation: str, timeout_s: float | None = None) -> None:
        """Carry one message there and back, unless the session is over.

        Raises:
            FakeError: Of kind `LOST`; or whatever was demanded.
        """
        if connection.closed:
            raise FakeError("the connection is closed", ErrorKind.LOST)
        self.counts[operation] += 1
        connection.round_trips += 1
        limit_s = _UNACKNOWLEDGED_LIMIT_S if timeout_s is None else timeout_s
        takes_s = limit_s if connection.is_silent else min(limit_s, self.round_trip_s)
        scope = connection.scope if timeout_s is None else None  # with a limit it is the library's own
        if scope is not None and scope.left_s() < takes_s:
            self.clock.advance(max(0.0, scope.left_s()))
            connection.is_lost = True
            raise scope.expire(connection)
        if connection.is_silent or self.round_trip_s > limit_s:
            self.clock.advance(limit_s)
            connection.is_lost = True
            raise FakeError(f"no answer within {limit_s:g} s", ErrorKind.LOST)
        self.clock.advance(self.round_trip_s)
        if connection.is_over:
            connection.is_lost = True
            raise FakeError("server closed the connection unexpectedly", ErrorKind.LOST)
        try:
            self._raise_demanded(operation)
        except FakeError as error:
            connection.is_lost = error.kind is ErrorKind.LOST
            raise

    def await_reset(self, connection: FakeConnection, timeout_s: float) -> None:
        """Let a client read the answer to its reset, which costs no round trip: it was sent at release.

        Raises:
            FakeError: Of kind `LOST`; or whatever was demanded.
        """
        self.counts["finish_reset"] += 1
        self._raise_demanded("finish_reset")
        if not connection.read_answer():
            if connection.is_silent:
                self.clock.advance(timeout_s)
            connection.is_lost = True
            raise FakeError("the answer to the reset did not come", ErrorKind.LOST)
        connection.owes_reset = False

    def _raise_demanded(self, operation: str) -> None:
        demanded = self._demanded[operation]
        if demanded:
            raise demanded.popleft()


class FakeDriver:
    """Stands for `PostgresqlDriver`: knows the session's state without asking, notices a lost one when it is used."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def open(
        self,
        settings: Settings,  # noqa: ARG002 - there is only one place to connect to
        credentials: Credentials,
        trust: Trust,  # noqa: ARG002 - nothing leaves the process
        *,
        timeout_s: float,
    ) -> FakeConnection:
        """Connect and log in."""
        return self._server.accept(credentials, timeout_s)

    def watch(self, connection: FakeConnection, see: Callable[[str | bytes], None]) -> None:
        """Show each statement before it is sent."""
        connection.see = see

    def fileno(self, connection: FakeConnection) -> int:
        """Return the socket's file descriptor."""
        return connection.fileno()

    def is_open(self, connection: FakeConnection) -> bool:
        """Say whether the client still believes in the connection."""
        return not connection.closed

    def drain(self, connection: FakeConnection) -> bool:
        """Read what was said unasked; return whether the session goes on."""
        self._server.counts["drain"] += 1
        return connection.drain()

    def ping(self, connection: FakeConnection, *, timeout_s: float) -> None:
        """Make one round trip."""
        self._server.round_trip(connection, "ping", timeout_s)

    def state(self, connection: FakeConnection, *, within_s: Callable[[], float]) -> SessionState:  # noqa: ARG002 - it is known
        """Say what the session is in: no round trip."""
        self._server._raise_demanded("state")  # noqa: SLF001 - its own module
        if connection.closed or connection.owes_reset:
            return SessionState.UNUSABLE
        return SessionState.IN_TRANSACTION if connection.in_transaction else SessionState.CLEAN

    def begin(self, connection: FakeConnection, *, read_only: bool, isolation: str | None) -> None:
        """Send one BEGIN that says it all."""
        level = checked_isolation(isolation)
        words = ("BEGIN", level and f"ISOLATION LEVEL {level}", "READ ONLY" if read_only else None)
        connection.execute(" ".join(word for word in words if word))
        connection.is_block = True

    def commit(self, connection: FakeConnection) -> None:
        """Commit, unless the transaction has failed."""
        if self.has_left_transaction(connection) and not connection.closed:
            raise TransactionAbortedError(ENDED_INSIDE)
        connection.is_block = False
        if connection.is_failed and not connection.closed:
            connection.rollback()
            raise TransactionAbortedError("the transaction was rolled back: a statement in it had failed")
        connection.commit()

    def rollback(self, connection: FakeConnection, *, timeout_s: float) -> None:
        """Roll back within the limit."""
        self._server.sql.append("ROLLBACK")
        connection.is_block = False
        self._server.round_trip(connection, "rollback", timeout_s)
        connection._take_effect("rollback", "")  # noqa: SLF001 - its own module

    def has_sent(self, connection: FakeConnection) -> bool:
        """Say whether a statement was sent since the last reset."""
        return connection.has_sent

    def has_unseen(self, connection: FakeConnection) -> bool:  # noqa: ARG002 - all is seen
        """Say that nothing was sent whose text was not seen."""
        return False

    def read_rest(self, connection: FakeConnection, *, within_s: Callable[[], float]) -> None:
        """Read nothing: rows are in memory."""

    def remember_tracked(self, connection: FakeConnection, names: Iterable[str]) -> None:
        """Take a note of the variables that the next statement changes."""
        connection.changed.update(names)

    def put_back_tracked(self, connection: FakeConnection, *, timeout_s: float) -> None:
        """Put them back: a round trip, if there are any."""
        if connection.changed:
            self._server.round_trip(connection, "put_back_tracked", timeout_s)
            connection.changed.clear()

    def has_left_transaction(self, connection: FakeConnection) -> bool:
        """Say whether the transaction that `begin` opened has ended meanwhile."""
        return connection.is_block and not connection.in_transaction

    def can_defer_reset(self, connection: FakeConnection) -> bool:  # noqa: ARG002 - as PostgreSQL
        """Say that the answer to a reset may be read later."""
        return True

    def send_reset(self, connection: FakeConnection, *, timeout_s: float) -> None:  # noqa: ARG002 - it does not wait
        """Send the reset; what the server does with it shows when its answer is read."""
        self._server.counts["send_reset"] += 1
        connection.has_sent = False
        connection.owes_reset = True
        self._server._raise_demanded("send_reset")  # noqa: SLF001 - its own module
        connection.answer_reset()

    def finish_reset(self, connection: FakeConnection, *, timeout_s: float) -> None:
        """Read the answer within the limit."""
        self._server.await_reset(connection, timeout_s)

    def restore(self, connection: FakeConnection) -> None:
        """Put the attributes back that a caller may set."""
        connection.row_factory = None
        connection.is_block = False

    def bind_scope(self, connection: FakeConnection, scope: CancelScope) -> None:
        """Let round trips end with the scope."""
        connection.scope = scope

    def interrupt(
        self,
        connection: FakeConnection,
        settings: Settings,  # noqa: ARG002 - there is only one place to connect to
        credentials: Callable[[], Credentials],
        trust: Trust,  # noqa: ARG002 - nothing leaves the process
        *,
        timeout_s: float,
    ) -> None:
        """Take a note of it."""
        self._server.counts["interrupt"] += 1
        self._server.interrupt_limits_s.append(timeout_s)
        self._server._raise_demanded("interrupt")  # noqa: SLF001 - its own module
        credentials()
        connection.is_interrupted = True

    def close(self, connection: FakeConnection) -> None:
        """Close."""
        self._server.counts["close"] += 1
        connection.closes += 1
        connection.close()

    def classify(self, connection: FakeConnection, error: BaseException) -> ErrorKind:
        """Say what an error means; on a connection that is over, each means that."""
        if connection.closed:
            return ErrorKind.LOST
        return error.kind if isinstance(error, FakeError) else ErrorKind.OTHER


__all__ = [
    "FakeClock",
    "FakeConnection",
    "FakeContext",
    "FakeCursor",
    "FakeDriver",
    "FakeError",
    "FakeServer",
    "RecordingObserver",
]
