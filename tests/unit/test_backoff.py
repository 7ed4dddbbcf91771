"""Pauses and the budget of repeats."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn.cache.backoff import CREDIT, EARNED_PER_S, FIRST_S, LONGEST_S, Backoff, RetryBudget
from lambda_dbconn.testing.fakes import FakeClock

TINY = 1e-6


@given(count=st.integers(1, 30))
def test_pauses_come_from_a_range_that_doubles_up_to_the_longest(count: int) -> None:
    backoff = Backoff()
    pauses = [backoff.pause_s() for _ in range(count)]
    assert all(0 <= pause <= min(LONGEST_S, FIRST_S * 2**n) for n, pause in enumerate(pauses))


def test_two_managers_do_not_pause_alike() -> None:
    one, other = Backoff(), Backoff()
    assert [one.pause_s() for _ in range(5)] != [other.pause_s() for _ in range(5)]


def test_ten_repeats_are_there_at_once_and_then_one_for_every_two_seconds() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    waits = []
    for _ in range(CREDIT + 3):
        waits.append(budget.wait_s())
        budget.spend()
        clock.advance(waits[-1])
    assert waits == [0.0] * CREDIT + [2.0] * 3


@given(
    asked=st.lists(st.tuples(st.floats(0, 10), st.booleans()), min_size=1, max_size=80),
    seconds=st.floats(0, 100),
)
def test_no_stretch_of_time_sees_more_repeats_than_the_credit_and_what_is_earned_in_it(
    asked: list[tuple[float, bool]], seconds: float
) -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    repeats: list[float] = []
    for pause_s, gives_up in asked:
        clock.advance(pause_s)
        wait_s = budget.wait_s()
        if gives_up and wait_s > 0:
            continue
        budget.spend()
        clock.sleep(wait_s)
        repeats.append(clock.monotonic())
    for start in repeats:
        within = sum(start <= at <= start + seconds for at in repeats)
        assert within <= CREDIT + EARNED_PER_S * seconds + TINY


@given(idle_s=st.floats(0, 1e6))
def test_no_more_is_saved_than_the_credit(idle_s: float) -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    clock.advance(idle_s)
    for _ in range(CREDIT):
        assert budget.wait_s() == 0
        budget.spend()
    assert budget.wait_s() == 1 / EARNED_PER_S
