"""The decisions around a lent connection, without I/O: who holds it, and what becomes of it at return."""

from __future__ import annotations

import select

from lambda_dbconn._typing import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.clock import jitter
from lambda_dbconn.drivers.driver import Failure, SessionState
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.liveness import WATCHED, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.clock import Clock
    from lambda_dbconn.deadline import Cutoff, Deadline
    from lambda_dbconn.events import ConnectionReplaced

C = TypeVar("C")

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class Slot(Generic[C]):
    """A place for one connection: empty, idle or lent. Belongs to one holder at a time.

    Attributes:
        connection: The driver's connection; None when empty.
        poll: The bound `poll()` of its socket; `poll(0)` gives `[]` for silence.
        trusted_monotonic, trusted_wall: Until when a silent `poll()` is enough, by either clock.
        holder: Who holds it, or was the last to: a thread's identity, or a task.
        loans: How many times the slot was lent, whichever connection was in it.
        cutoff: When what the caller does with it must end; None for no limit.
        vacated: How the last connection was given up, if the next one replaces it.
        is_condemned: `close()` came while it was lent: to be closed at return.
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
        "connection",
        "cutoff",
        "holder",
        "is_condemned",
        "is_touched",
        "limits",
        "loans",
        "poll",
        "trusted_monotonic",
        "trusted_wall",
        "vacated",
    )

    connection: C
    cutoff: Cutoff | None
    limits: Limits
    poll: Callable[[int], list[tuple[int, int]]]

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

    @property
    def was_cut(self) -> bool:
        """Whether the caller's time was over before the connection had answered."""
        return self.cutoff is not None and self.cutoff.has_cut

    def fill(self, connection: C, fileno: int, limits: Limits, clock: Clock) -> None:
        """Take in a connection that has just been opened."""
        poller = select.poll()
        poller.register(fileno, WATCHED)
        self.connection = connection
        self.poll = poller.poll
        self.limits = limits
        self._first_loan = self.loans
        self._opened_monotonic, self._opened_wall = clock.monotonic(), clock.wall()
        self._returned_monotonic, self._returned_wall = self._opened_monotonic, self._opened_wall
        self._rest_s = min(limits.ping_idle_s, limits.max_idle_s)
        self._expires_monotonic = self._opened_monotonic + limits.max_lifetime_s
        self._expires_wall = self._opened_wall + limits.max_lifetime_s

    def empty(self) -> None:
        """Forget the connection."""
        self.connection = None  # type: ignore[assignment] # whoever holds an empty slot knows it
        self.poll = _silence
        self.cutoff = None
        self.is_condemned = False
        self.is_touched = False
        self.trusted_monotonic = self.trusted_wall = float("-inf")

    def events(self) -> int:
        """Return what `poll()` says of the socket now; 0 for silence."""
        return sum(events for _, events in self.poll(0))

    def returned(self, monotonic: float, wall: float) -> None:
        """Note that the connection came back clean at these times, and until when that is enough to know."""
        self.cutoff = None
        self._returned_monotonic = monotonic
        self._returned_wall = wall
        rests = monotonic + self._rest_s
        self.trusted_monotonic = min(self._expires_monotonic, rests)
        rests = wall + self._rest_s
        self.trusted_wall = min(self._expires_wall, rests)

    def age_s(self, clock: Clock) -> float:
        """Return seconds since the connection was opened, by the clock that saw more."""
        return max(clock.monotonic() - self._opened_monotonic, clock.wall() - self._opened_wall)

    def idle_s(self, clock: Clock) -> float:
        """Return seconds since the connection came back, by the clock that saw more."""
        return max(clock.monotonic() - self._returned_monotonic, clock.wall() - self._returned_wall)


def _silence(_timeout_ms: int) -> list[tuple[int, int]]:
    return []


def discard_reason(state: SessionState, failure: Failure, *, was_cut: bool) -> str | None:
    """Say why a connection that comes back must be closed, or None when it may be kept.

    Args:
        state: Its session's.
        failure: What the error meant that ended the loan, `OTHER` if there was none.
        was_cut: Whether the caller's time was over before it had answered.
    """
    if was_cut:
        return "deadline"
    if failure is Failure.LOST:
        return "lost"
    if state is SessionState.UNUSABLE:
        return "unclean"
    return "read_only" if failure is Failure.READ_ONLY else None


# After these nothing of a transaction was committed, and doing it again may succeed.
_RUN_AGAIN = frozenset((Failure.LOST, Failure.CONFLICT, Failure.READ_ONLY))


class Attempts:
    """How often `run` may try, and how long it waits in between.

    Args:
        count: How often at most.
        deadline: No pause is begun that it might cut off.

    Raises:
        ConfigurationError: `count` is less than 1.
    """

    def __init__(self, count: int, deadline: Deadline) -> None:
        if count < 1:
            raise ConfigurationError(f"the argument attempts is {count!r}; accepted: 1 or more")
        self._left = count
        self._deadline = deadline
        self._longest_pause_s = _FIRST_PAUSE_S

    def pause_s(self, failure: Failure) -> float | None:
        """Return the pause after an attempt that failed so, or None: it was the last.

        Drawn from a range that doubles each time.
        """
        self._left -= 1
        longest_s = self._longest_pause_s
        if self._left == 0 or failure not in _RUN_AGAIN or self._deadline.remaining_s() <= longest_s:
            return None
        self._longest_pause_s = min(2 * longest_s, _LONGEST_PAUSE_S)
        return jitter(longest_s, share=1.0)
