"""How long to wait before trying again, and how often at all: full jitter, and a budget for each manager."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.deadline import jitter

if TYPE_CHECKING:
    from lambda_dbconn.deadline import Clock

FIRST_S = 0.05
LONGEST_S = 1.0
CREDIT = 10
EARNED_PER_S = 0.5


class Backoff:
    """Pauses drawn from a range that begins at zero and whose end doubles each time ("full jitter")."""

    def __init__(self) -> None:
        self._longest_s = FIRST_S

    def pause_s(self) -> float:
        """Draw the next pause."""
        pause_s = jitter(self._longest_s, share=1.0)
        self._longest_s = min(2 * self._longest_s, LONGEST_S)
        return pause_s


class RetryBudget:
    """The repeats that one manager may make: ten at once, and one more for every two seconds that pass.

    An outage makes every execution environment repeat in every invocation; so none of them makes a storm of it. What
    an invocation asks for first costs nothing. Threads may share it: what two of them spend at once is a debt.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._credit = float(CREDIT)
        self._earned_at = self._clock.monotonic()

    def wait_s(self) -> float:
        """Return the seconds until there is credit for one repeat; 0 if there is."""
        now = self._clock.monotonic()
        self._credit = min(CREDIT, self._credit + (now - self._earned_at) * EARNED_PER_S)
        self._earned_at = now
        return max(0.0, (1 - self._credit) / EARNED_PER_S)

    def spend(self) -> None:
        """Take the credit for one repeat, to be made after `wait_s`."""
        self._credit -= 1
