"""What happened, as frozen values; the `Observer` that receives them, and the counters.

Durations are seconds. `endpoint` is `host:port`. No event holds a credential.
"""

from __future__ import annotations

from _thread import allocate_lock

from lambda_dbconn._values import TYPE_CHECKING, Protocol, Value

if TYPE_CHECKING:
    from collections.abc import Mapping


class Event(Value):
    """The base of all events.

    Attributes:
        endpoint: Where: `host:port`.
    """

    endpoint: str


class ConnectionOpened(Event):
    """A physical connection was opened and logged in.

    Attributes:
        reason: `first`, or why the one before it was replaced (see `ConnectionReplaced`).
        attempts: How many tries it took.
        duration_s: From the first try to the login.
    """

    reason: str
    attempts: int
    duration_s: float


class ConnectionReused(Event):
    """A warm connection was lent: the happy path. Observers that ignore it cost nothing."""

    idle_s: float


class ConnectionReplaced(Event):
    """The cached connection was no longer good, and another one takes its place.

    Attributes:
        reason: `lifetime`, `idle`, `hang_up`, `ping_failed`, `reset_failed`, `lost`, `read_only`, `deadline`,
            `unclean`, `pinned`, or `abandoned` by a thread, task or invocation that cannot release it any more.
        age_s: How long it had been open.
        idle_s: How long since it had last been returned.
    """

    reason: str
    age_s: float
    idle_s: float


class ConnectFailed(Event):
    """One try to open a connection failed; others may follow.

    Attributes:
        error: The error's class and message.
        attempt: Which try this was, from 1.
        duration_s: How long it took to fail.
    """

    error: str
    attempt: int
    duration_s: float


class ConnectGaveUp(Event):
    """Opening a connection was given up after several tries, each of which was a `ConnectFailed`.

    Attributes:
        error: The class and message of the error that is raised.
        attempts: How many tries there were.
        duration_s: From the first try to the last one's end.
    """

    error: str
    attempts: int
    duration_s: float


class WarmUpFailed(Event):
    """`warm_up()` could not connect; the next loan tries again.

    Attributes:
        error: The error's class and message.
    """

    error: str


class CredentialsFetched(Event):
    """A secret was read, or a token signed; `endpoint` is empty when that was before the host was known.

    Attributes:
        source: `extension` or `secrets_manager`; `iam` for a token.
        stage: Which version: `AWSCURRENT`, or `AWSPENDING` in the middle of a rotation; empty for a token.
        duration_s: How long it took, with getting at the AWS keys for a token.
    """

    source: str
    stage: str
    duration_s: float


class CredentialsFailed(Event):
    """A secret could not be read, and something else is used.

    Attributes:
        source: As in `CredentialsFetched`.
        stage: As in `CredentialsFetched`.
        error: What was wrong.
        instead: The source that is asked next, or `cached` for what was known before.
    """

    source: str
    stage: str
    error: str
    instead: str


class PingFailed(Event):
    """An idle connection did not answer a ping; it is replaced."""

    idle_s: float
    error: str


class ResetDelayed(Event):
    """The answer to a reset was not there when the connection was acquired again after more than a second.

    The manager waits for the answer at release from now on, as with `DB_RESET=wait`. Emitted once.
    """

    idle_s: float


class TransactionRolledBack(Event):
    """A transaction that was still open when the connection came back was rolled back.

    Attributes:
        is_left_open: True when the block ended without an error: a `TransactionLeftOpenError` follows.
    """

    is_left_open: bool


class SessionPinned(Event):
    """A statement is being sent that pins the session on RDS Proxy; there its connection is closed at release.

    Told for the first such statement of each loan, and whenever a statement pins that has not been told of.

    Attributes:
        statement: The words in it that pin, as in `SET search_path`; never a literal.
        rule: Which rule says so (see `lambda_dbconn.proxy`).
        reason: Why that pins.
        remedy: What to do instead.
        fingerprint: The same for statements that differ in nothing but literals and the like.
        place: File and line of the code that sent it.
        is_first: Whether this fingerprint is told of for the first time by this manager.
    """

    statement: str
    rule: str
    reason: str
    remedy: str
    fingerprint: str
    place: str
    is_first: bool


class ConnectionClosed(Event):
    """A physical connection was closed.

    Attributes:
        reason: As in `ConnectionReplaced`, or `closed` by `close()`.
        age_s: How long it had been open.
        uses: How many times it was lent.
    """

    reason: str
    age_s: float
    uses: int


class ConnectionReleased(Event):
    """A loan is over: the connection came back, or could not be had. Observers that ignore it cost nothing.

    Attributes:
        outcome: `reused` if the cached connection was lent, `opened` if a new one, `failed` if none.
        wait_s: How long the borrower waited.
        use_s: How long it then had the connection.
        request_id: The invocation's, if the loan was given the Lambda context; else empty.
    """

    outcome: str
    wait_s: float
    use_s: float
    request_id: str


class Observer(Protocol):
    """Is told every event, in the thread in which it happens; must not block.

    What it raises is logged and ignored. An optional attribute `ignores`, a tuple of event classes, says what
    it need not receive: with `ConnectionReused` and `ConnectionReleased` among them a warm acquire creates no event.
    """

    def on_event(self, event: Event, /) -> None:
        """Take note of one event."""


class Stats(Value):
    """Counters since the manager was made, in this process.

    Attributes:
        opened: Physical connections opened.
        reused: Loans that took the cached connection.
        replaced: How many connections were replaced, by reason (see `ConnectionReplaced`).
        closed: Physical connections closed.
        connect_failures: Tries to connect that failed.
        ping_failures: Idle connections that did not answer a ping.
        rolled_back: Transactions found open at return.
        open: Connections open at this moment.
        in_use: Connections lent at this moment.
    """

    opened: int
    reused: int
    replaced: Mapping[str, int]
    closed: int
    connect_failures: int
    ping_failures: int
    rolled_back: int
    open: int
    in_use: int


class EventDispatcher:
    """Passes events on to one observer and counts them. Threads may share it; a fork's child counts from zero."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._ignored: tuple[type[Event], ...] = getattr(observer, "ignores", ())
        self._counting = allocate_lock()
        self._counts: dict[type[Event], int] = {}
        self._replaced: dict[str, int] = {}

    def is_enabled_for(self, event: type[Event]) -> bool:
        """Say whether the observer is to be told events of this class."""
        return event not in self._ignored

    def emit(self, event: Event) -> None:
        """Count an event and tell the observer, whose failure never fails an invocation."""
        with self._counting:
            self._counts[type(event)] = self._counts.get(type(event), 0) + 1
            if isinstance(event, ConnectionReplaced):
                self._replaced[event.reason] = self._replaced.get(event.reason, 0) + 1
        if type(event) in self._ignored:
            return
        try:
            self._observer.on_event(event)
        except Exception:
            import logging

            logging.getLogger("lambda_dbconn").exception("the observer failed on %s", type(event).__name__)

    def stats(self, *, uses: int, open_count: int, in_use: int) -> Stats:
        """Return the counters, with what only the cache knows."""
        with self._counting:
            counts = dict(self._counts)
            replaced = dict(self._replaced)
        opened = counts.get(ConnectionOpened, 0)
        return Stats(
            opened=opened,
            reused=max(0, uses - opened),
            replaced=replaced,
            closed=counts.get(ConnectionClosed, 0),
            connect_failures=counts.get(ConnectFailed, 0),
            ping_failures=counts.get(PingFailed, 0),
            rolled_back=counts.get(TransactionRolledBack, 0),
            open=open_count,
            in_use=in_use,
        )

    def renew(self) -> None:
        """Begin anew, with a new lock: in a fork's child a thread that does not exist there may hold the old one."""
        self._counting = allocate_lock()
        self._counts, self._replaced = {}, {}
