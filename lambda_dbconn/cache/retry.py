"""When a connect is retried: a wait strategy, a stop condition and a predicate for tenacity.

Imported with the first failure: tenacity costs a cold start more than all of the happy path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from lambda_dbconn.cache.backoff import Backoff
from lambda_dbconn.errors import ConnectError, CredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from lambda_dbconn.cache.backoff import RetryBudget

SHORTEST_TRY_S = 0.1  # with less it would only end in a time-out


class wait_within_budget(wait_base):  # noqa: N801 - named as tenacity names its own
    """Exponential backoff with full jitter, and until the budget has credit for one retry.

    tenacity's `wait_random_exponential` would draw the same pauses in every environment restored from one snapshot.
    """

    def __init__(self, budget: RetryBudget) -> None:
        self._backoff = Backoff()
        self._budget = budget

    def __call__(self, retry_state: RetryCallState) -> float:  # noqa: ARG002 - tenacity's signature
        """Return the seconds to wait."""
        return max(self._backoff.pause_s(), self._budget.wait_s())


class stop_before_time_is_up(stop_base):  # noqa: N801 - as above
    """Stop when the pause would leave too little of the time for an attempt."""

    def __init__(self, left_s: Callable[[], float]) -> None:
        self._left_s = left_s

    def __call__(self, retry_state: RetryCallState) -> bool:
        """Say whether to stop."""
        return retry_state.upcoming_sleep + SHORTEST_TRY_S > self._left_s()


def is_retryable(error: BaseException) -> bool:
    """Whether a later attempt may succeed."""
    return isinstance(error, (ConnectError, CredentialsError)) and error.retryable


def attempts(*, budget: RetryBudget, left_s: Callable[[], float], sleep: Callable[[float], None]) -> tenacity.Retrying:
    """Return the attempts to iterate over: each costs the budget one credit, but the first. The last error is raised.

    Args:
        budget: The retry budget.
        left_s: The seconds left for connecting.
        sleep: Waits.
    """
    return tenacity.Retrying(
        sleep=sleep,
        stop=stop_before_time_is_up(left_s),
        wait=wait_within_budget(budget),
        before_sleep=lambda _: budget.spend(),
        retry=tenacity.retry_if_exception(is_retryable),
        reraise=True,
    )
