from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from lambda_dbconn.cache.backoff import CREDIT, EARNED_PER_S, FIRST_S, LONGEST_S, RetryBudget
from lambda_dbconn.cache.retry import SHORTEST_TRY_S, attempts, is_retryable
from lambda_dbconn.errors import (
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    CredentialsError,
    DeadlineExceededError,
    TlsError,
)

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeClock


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectError("refused", retryable=True), True),
        (ConnectTimeoutError("silent"), True),
        (CredentialsError("throttled", retryable=True), True),
        (CredentialsError("no such secret"), False),
        (TlsError("wrong name"), False),
        (ConfigurationError("no such file"), False),
        (DeadlineExceededError("over"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_what_a_later_attempt_may_mend_is_retryable(error: BaseException, *, expected: bool) -> None:
    assert is_retryable(error) is expected


def failures(clock: FakeClock, budget: RetryBudget, limit_s: float) -> int:
    """Fail as long as attempts are to be had; return how many there were."""
    ends_at = clock.monotonic() + limit_s
    refused = Mock(side_effect=ConnectError("refused", retryable=True))
    with pytest.raises(ConnectError, match="refused"):
        attempts(budget=budget, left_s=lambda: ends_at - clock.monotonic(), sleep=clock.sleep)(refused)
    return refused.call_count


def test_attempts_end_while_there_is_time_for_one_and_cost_the_budget_one_credit_each(clock: FakeClock) -> None:
    budget, started = RetryBudget(clock), clock.monotonic()
    count = failures(clock, budget, limit_s=3.0)
    assert count > 3
    took_s = clock.monotonic() - started
    assert took_s <= 3.0 - SHORTEST_TRY_S
    assert count - 1 <= CREDIT + took_s * EARNED_PER_S


def test_without_time_for_a_pause_the_first_attempt_is_the_only_one(clock: FakeClock) -> None:
    assert failures(clock, RetryBudget(clock), limit_s=SHORTEST_TRY_S) == 1
    assert clock.slept_s == []


def test_a_budget_that_is_used_up_makes_the_pause_longer(clock: FakeClock) -> None:
    budget = RetryBudget(clock)
    for _ in range(CREDIT):
        budget.spend()
    failures(clock, budget, limit_s=3.0)
    assert clock.slept_s[0] == 1 / EARNED_PER_S > LONGEST_S > FIRST_S
