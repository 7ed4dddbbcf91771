"""What becomes of a connection and of an attempt, decided without I/O.

An age is the larger of what the monotonic and the wall clock say has passed: one of them may have stopped while the
execution environment was frozen.
"""

from __future__ import annotations

import select

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.cache.backoff import Backoff
from lambda_dbconn.deadline import jitter
from lambda_dbconn.drivers import ErrorKind, SessionState
from lambda_dbconn.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.cache.backoff import RetryBudget
    from lambda_dbconn.deadline import Clock, Deadline
    from lambda_dbconn.settings import Settings

_HANG_UP_BEFORE_READ = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere a hang-up is merely readable
WATCHED = select.POLLIN | _HANG_UP_BEFORE_READ
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | _HANG_UP_BEFORE_READ

PING_LIMIT_S = 1.0

# After these the connection is of no more use.
GONE = frozenset((ErrorKind.LOST, ErrorKind.REFUSED))
# After these nothing of a transaction was committed, and another attempt may succeed.
RETRYABLE = GONE | {ErrorKind.CONFLICT, ErrorKind.READ_ONLY, ErrorKind.BUSY}


class ConnectionLimits(Value):
    """One connection's limits, seconds; those on age are jittered, so that a fleet does not reconnect together."""

    ping_idle_s: float
    max_idle_s: float
    max_lifetime_s: float

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """Draw the limits of a new connection."""
        return cls(
            ping_idle_s=settings.ping_idle_s,
            max_idle_s=jitter(settings.max_idle_s),
            max_lifetime_s=jitter(settings.max_lifetime_s),
        )


def expiry(limits: ConnectionLimits, *, age_s: float, idle_s: float) -> str | None:
    """Return which limit a resting connection has reached, or None."""
    if age_s >= limits.max_lifetime_s:
        return "lifetime"
    return "idle" if idle_s >= limits.max_idle_s else None


def has_hung_up(events: int) -> bool:
    """Say whether `poll()` reported the end of the connection, rather than silence or something to read."""
    return bool(events & _GONE)


def reason_to_evict(state: SessionState, failure: ErrorKind, noted: str | None) -> str | None:
    """Return why a connection that comes back must be closed, or None when it may be kept.

    Args:
        state: Its session's.
        failure: What the error meant that ended the block, `OTHER` if there was none.
        noted: The reason that was noted while it was in use.
    """
    if noted in ("closed", "deadline"):
        return noted
    if failure in GONE:
        return "lost"
    if state is SessionState.UNUSABLE:
        return "unclean"
    return "read_only" if failure is ErrorKind.READ_ONLY else noted


class Attempts:
    """How often `run()` may call its function, and how long it pauses in between.

    While the server says that it takes no writes, a failover is under way: those attempts are not counted, and end when
    `failover_s` or the deadline is over.

    Args:
        count: How many attempts at most.
        deadline: No pause begins that would go beyond it.
        budget: Returns the manager's retry budget; a mere conflict costs none of it.
        failover_s: How long to wait for the new writer.
        clock: For that.

    Raises:
        ConfigurationError: `count` is less than 1.
    """

    def __init__(
        self, count: int, deadline: Deadline, budget: Callable[[], RetryBudget], *, failover_s: float, clock: Clock
    ) -> None:
        if count < 1:
            raise ConfigurationError(f"the argument attempts is {count!r}; accepted: 1 or more")
        self._left = count
        self._deadline = deadline
        self._budget = budget
        self._failover_s = failover_s
        self._clock = clock
        self._failover_ends_at: float | None = None
        self._backoff = Backoff()

    def pause_s(self, failure: ErrorKind) -> float | None:
        """Return the pause after an attempt that failed so, or None: it was the last."""
        if failure not in RETRYABLE:
            return None
        left_s = self._deadline.remaining_s()
        if failure is ErrorKind.READ_ONLY:
            left_s = min(left_s, self._failover_left_s())
        else:
            self._left -= 1
        if self._left <= 0:
            return None
        is_outage = failure is not ErrorKind.CONFLICT
        pause_s = max(self._backoff.pause_s(), self._budget().wait_s() if is_outage else 0.0)
        if left_s <= pause_s:
            return None
        if is_outage:
            self._budget().spend()
        return pause_s

    def _failover_left_s(self) -> float:
        now = self._clock.monotonic()
        if self._failover_ends_at is None:
            self._failover_ends_at = now + self._failover_s
        return self._failover_ends_at - now
