from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn.deadline import Deadline
from lambda_dbconn.errors import ConfigurationError, DeadlineExceededError
from lambda_dbconn.testing.fakes import FakeClock, FakeContext


def test_without_a_context_there_is_no_limit(clock: FakeClock) -> None:
    deadline = Deadline(None, reserve_s=0.5, clock=clock)
    assert deadline.remaining_s() == float("inf")
    assert deadline.cap_s(5.0, doing="connecting") == 5.0


def test_the_reserve_is_taken_off_what_lambda_leaves(clock: FakeClock) -> None:
    deadline = Deadline(FakeContext(clock, 3.0), reserve_s=0.5, clock=clock)
    assert deadline.remaining_s() == pytest.approx(2.5, abs=0.002)
    clock.advance(2.0)
    assert deadline.remaining_s() == pytest.approx(0.5, abs=0.002)


def test_the_context_is_asked_each_time_so_a_freeze_counts(clock: FakeClock) -> None:
    deadline = Deadline(FakeContext(clock, 60.0), reserve_s=0.0, clock=clock)
    clock.freeze(100.0, monotonic_stops=True)
    assert deadline.remaining_s() < 0


@pytest.mark.parametrize("seconds", [3, 3.0])
def test_a_number_is_seconds_from_now(clock: FakeClock, seconds: float) -> None:
    deadline = Deadline(seconds, reserve_s=1.0, clock=clock)
    clock.advance(0.5)
    assert deadline.remaining_s() == pytest.approx(1.5)


@pytest.mark.parametrize("context", [True, False, "3", object(), [3]])
def test_anything_else_is_a_configuration_error_that_names_its_type(clock: FakeClock, context: object) -> None:
    with pytest.raises(ConfigurationError, match=f"context is '{type(context).__name__}'"):
        Deadline(context, reserve_s=0.5, clock=clock)  # type: ignore[arg-type] # on purpose


def test_what_cannot_be_waited_for_is_named(clock: FakeClock) -> None:
    deadline = Deadline(2.0, reserve_s=0.5, clock=clock)
    clock.advance(1.75)
    with pytest.raises(DeadlineExceededError, match=r"no time left for a ping: .* ends in 0\.250 s, of which 0\.5 s"):
        deadline.cap_s(1.0, doing="a ping")


@given(
    seconds=st.floats(-10, 1000),
    reserve_s=st.floats(0, 60),
    passed_s=st.floats(0, 1000),
    limit_s=st.floats(0.001, 1000),
)
def test_no_wait_ever_reaches_into_the_reserve(
    seconds: float, reserve_s: float, passed_s: float, limit_s: float
) -> None:
    clock = FakeClock()
    ends_at = clock.monotonic() + seconds
    deadline = Deadline(seconds, reserve_s=reserve_s, clock=clock)
    clock.advance(passed_s)
    try:
        wait_s = deadline.cap_s(limit_s, doing="something")
    except DeadlineExceededError:
        assert ends_at - clock.monotonic() - reserve_s <= 0
    else:
        assert 0 < wait_s <= limit_s
        assert clock.monotonic() + wait_s <= ends_at - reserve_s + 1e-6
