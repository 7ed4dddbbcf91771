"""Reuse, ping or replace: a verdict from times and from what one `poll()` said. No I/O.

An age is the larger of what the monotonic and the wall clock say has passed: one of them may have stopped while the
environment was frozen.
"""

from __future__ import annotations

import select

from lambda_dbconn.clock import jitter
from lambda_dbconn.light import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from lambda_dbconn.settings import Settings

_HANG_UP_BEFORE_READ = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere a hang-up is merely readable
WATCHED = select.POLLIN | _HANG_UP_BEFORE_READ
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | _HANG_UP_BEFORE_READ

PING_LIMIT_S = 1.0


class Limits(Value):
    """One connection's limits, seconds; those on age are jittered, so that a fleet does not reconnect together."""

    ping_idle_s: float
    max_idle_s: float
    max_lifetime_s: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Draw the limits of a new connection."""
        return cls(
            ping_idle_s=settings.ping_idle_s,
            max_idle_s=jitter(settings.max_idle_s),
            max_lifetime_s=jitter(settings.max_lifetime_s),
        )


class Verdict(Value):
    """What to do with a cached connection.

    Attributes:
        is_doubtful: Ask it: read what it said, if it spoke, and ping.
        reason: Why it must be replaced, or None.
        has_spoken: Something is there to be read.
    """

    is_doubtful: bool = False
    reason: str | None = None
    has_spoken: bool = False


def has_hung_up(events: int) -> bool:
    """Say whether `poll()` reported the end of the connection, rather than silence or something to read."""
    return bool(events & _GONE)


def judge(limits: Limits, *, age_s: float, idle_s: float, events: int) -> Verdict:
    """Judge an idle connection, in the order of cost.

    Args:
        limits: The connection's own.
        age_s: Seconds since it was opened.
        idle_s: Seconds since it was last returned.
        events: What `poll()` reported for `WATCHED`; 0 for silence.
    """
    if age_s >= limits.max_lifetime_s:
        return Verdict(reason="lifetime")
    if idle_s >= limits.max_idle_s:
        return Verdict(reason="idle")
    if has_hung_up(events):
        return Verdict(reason="hang_up")
    return Verdict(is_doubtful=bool(events) or idle_s >= limits.ping_idle_s, has_spoken=bool(events))
