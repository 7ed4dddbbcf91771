"""The decisions around a lent connection, without I/O: who holds it, and what becomes of it at return."""

from __future__ import annotations

import select

from lambda_dbconn.drivers import Failure, SessionState
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.light import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.liveness import WATCHED, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.backoff import Backoff, Budget
    from lambda_dbconn.clock import Clock
    from lambda_dbconn.deadline import Cutoff, Deadline
    from lambda_dbconn.events import ConnectionReplaced
    from lambda_dbconn.settings import Settings

C = TypeVar("C")


class Slot(Generic[C]):
    """A place for one connection: empty, idle or lent. Belongs to one holder at a time.

    Attributes:
        connection: The driver's connection; None when empty.
        poll: The bound `poll()` of its socket; `poll(0)` gives `[]` for silence.
        trusted_monotonic, trusted_wall: Until when a silent `poll()` is enough, by either clock.
        holder: Who holds it, or was the last to: a thread's identity, or a task.
        loans: How many times the slot was lent, whichever connection was in it.
        cutoff: The connection's: when what the caller does with it must end.
        cleaning_s: The bound `cleaning_s()` of that.
        vacated: How the last connection was given up, if the next one replaces it.
        doom: Why its connection must be closed at return, noted while it was lent: `closed` by `close()`,
            `deadline`, or `pinned`.
        is_touched: A statement was sent that may have left something in the session.
    """

    __slots__ = (
        "_expires_monotonic",
        "_expires_wall",
        "_first_loan",
        "_opened_monotonic",
        "_opened_wall",
        "_rest_s",
        "_returned_monotonic",
        "_returned_wall",
        "cleaning_s",
        "connection",
        "cutoff",
        "doom",
        "holder",
        "is_touched",
        "limits",
        "loans",
        "poll",
        "trusted_monotonic",
        "trusted_wall",
        "vacated",
    )

    connection: C
    cutoff: Cutoff
    cleaning_s: Callable[[], float]
    limits: Limits
    poll: Callable[[int], list[tuple[int, int]]]
    doom: str | None

    def __init__(self) -> None:
        self.holder: object = 0
        self.loans = 0
        self.vacated: ConnectionReplaced | None = None
        self.empty()

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection in it."""
        return self.connection is None

    @property
    def uses(self) -> int:
        """How many times this connection was lent."""
        return self.loans - self._first_loan

    def fill(self, connection: C, cutoff: Cutoff, fileno: int, limits: Limits, clock: Clock) -> None:
        """Take in a connection that has just been opened and obeys the cutoff; until the last line it is empty."""
        poller = select.poll()
        poller.register(fileno, WATCHED)
        self.cutoff = cutoff
        self.cleaning_s = cutoff.cleaning_s
        self.poll = poller.poll
        self.limits = limits
        self._first_loan = self.loans
        self._opened_monotonic, self._opened_wall = clock.monotonic(), clock.wall()
        self._returned_monotonic, self._returned_wall = self._opened_monotonic, self._opened_wall
        self._rest_s = min(limits.ping_idle_s, limits.max_idle_s)
        self._expires_monotonic = self._opened_monotonic + limits.max_lifetime_s
        self._expires_wall = self._opened_wall + limits.max_lifetime_s
        self.connection = connection

    def empty(self) -> None:
        """Forget the connection."""
        self.connection = None  # type: ignore[assignment] # whoever holds an empty slot knows it
        self.poll = _silence
        self.doom = None
        self.is_touched = False
        self.trusted_monotonic = self.trusted_wall = float("-inf")

    def events(self) -> int:
        """Return what `poll()` says of the socket now; 0 for silence."""
        return sum(events for _, events in self.poll(0))

    def returned(self, monotonic: float, wall: float) -> None:
        """Note that the connection came back clean at these times, and until when that is enough to know."""
        self._returned_monotonic = monotonic
        self._returned_wall = wall
        # Not by way of `min`, which takes four times as long in each invocation.
        rests, expires = monotonic + self._rest_s, self._expires_monotonic
        self.trusted_monotonic = rests if rests < expires else expires  # noqa: FURB136
        rests, expires = wall + self._rest_s, self._expires_wall
        self.trusted_wall = rests if rests < expires else expires  # noqa: FURB136

    def age_s(self, clock: Clock) -> float:
        """Return seconds since the connection was opened, by the clock that saw more."""
        return max(clock.monotonic() - self._opened_monotonic, clock.wall() - self._opened_wall)

    def idle_s(self, clock: Clock) -> float:
        """Return seconds since the connection came back, by the clock that saw more."""
        return max(clock.monotonic() - self._returned_monotonic, clock.wall() - self._returned_wall)


def _silence(_timeout_ms: int) -> list[tuple[int, int]]:
    return []


def discard_reason(state: SessionState, failure: Failure, doom: str | None) -> str | None:
    """Say why a connection that comes back must be closed, or None when it may be kept.

    Args:
        state: Its session's.
        failure: What the error meant that ended the loan, `OTHER` if there was none.
        doom: The slot's.
    """
    if doom in ("closed", "deadline"):
        return doom
    if failure in (Failure.LOST, Failure.REFUSED):
        return "lost"
    if state is SessionState.UNUSABLE:
        return "unclean"
    return "read_only" if failure is Failure.READ_ONLY else doom


def pin_action(settings: Settings) -> str:
    """Say what is done about a statement that pins: `warn`, `raise` or `ignore`.

    By default `warn` where RDS Proxy stands, and `ignore` elsewhere: there is nothing to pin.
    """
    return settings.on_pin or ("warn" if settings.is_proxy else "ignore")


# After these nothing of a transaction was committed, and doing it again may succeed.
RUN_AGAIN = frozenset((Failure.LOST, Failure.REFUSED, Failure.CONFLICT, Failure.READ_ONLY, Failure.BUSY))


class Attempts:
    """How often `run` may try, and how long it waits in between.

    Args:
        count: How often at most.
        deadline: No pause is begun that it might cut off.
        budget: Returns that of the manager's repeats; a mere conflict costs none.

    Raises:
        ConfigurationError: `count` is less than 1.
    """

    def __init__(self, count: int, deadline: Deadline, budget: Callable[[], Budget]) -> None:
        if count < 1:
            raise ConfigurationError(f"the argument attempts is {count!r}; accepted: 1 or more")
        self._left = count
        self._deadline = deadline
        self._budget = budget
        self._backoff: Backoff | None = None

    def pause_s(self, failure: Failure) -> float | None:
        """Return the pause after an attempt that failed so, or None: it was the last."""
        self._left -= 1
        if self._left == 0 or failure not in RUN_AGAIN:
            return None
        if self._backoff is None:
            from lambda_dbconn.backoff import Backoff

            self._backoff = Backoff()
        is_outage = failure is not Failure.CONFLICT
        pause_s = max(self._backoff.pause_s(), self._budget().wait_s() if is_outage else 0.0)
        if self._deadline.remaining_s() <= pause_s:
            return None
        if is_outage:
            self._budget().spend()
        return pause_s
