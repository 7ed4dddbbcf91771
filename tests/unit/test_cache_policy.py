from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import Settings
from lambda_dbconn.cache.backoff import RetryBudget
from lambda_dbconn.cache.policy import Attempts, reason_to_evict
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.drivers import ErrorKind, SessionState
from tests.unit.conftest import INSTANCE, PROXY

if TYPE_CHECKING:
    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection

    Manager = ConnectionManager[FakeConnection]


@pytest.mark.parametrize(
    ("state", "failure", "reason"),
    [
        (SessionState.CLEAN, ErrorKind.OTHER, None),
        (SessionState.CLEAN, ErrorKind.CONFLICT, None),
        (SessionState.IN_TRANSACTION, ErrorKind.OTHER, None),
        (SessionState.IN_TRANSACTION, ErrorKind.CONFLICT, None),
        (SessionState.CLEAN, ErrorKind.LOST, "lost"),
        (SessionState.UNUSABLE, ErrorKind.LOST, "lost"),
        (SessionState.CLEAN, ErrorKind.REFUSED, "lost"),
        (SessionState.UNUSABLE, ErrorKind.OTHER, "unclean"),
        (SessionState.UNUSABLE, ErrorKind.READ_ONLY, "unclean"),
        (SessionState.CLEAN, ErrorKind.READ_ONLY, "read_only"),
        (SessionState.IN_TRANSACTION, ErrorKind.READ_ONLY, "read_only"),
    ],
)
def test_a_connection_comes_back_for_good_or_is_given_up_for_a_reason(
    state: SessionState, failure: ErrorKind, reason: str | None
) -> None:
    assert reason_to_evict(state, failure, None) == reason
    assert reason_to_evict(state, failure, "pinned") == (reason or "pinned")
    assert reason_to_evict(state, failure, "closed") == "closed"
    assert reason_to_evict(state, failure, "deadline") == "deadline"


@pytest.mark.parametrize(
    ("host", "signing_host", "said", "action"),
    [
        (PROXY, None, None, "warn"),
        (PROXY, None, "ignore", "ignore"),
        (PROXY, None, "raise", "raise"),
        ("db.example.com", PROXY, None, "warn"),
        (INSTANCE, None, None, "ignore"),
        (INSTANCE, None, "warn", "warn"),
        (INSTANCE, None, "raise", "raise"),
    ],
)
def test_pins_are_looked_for_where_a_proxy_stands_or_where_it_is_asked_for(
    host: str, signing_host: str | None, said: str | None, action: str
) -> None:
    settings = Settings(
        engine="mysql", host=host, port=3306, user="app", auth="iam", signing_host=signing_host, on_pin=said
    )
    assert settings.pin_action == action


@pytest.mark.parametrize(
    "failure", [ErrorKind.LOST, ErrorKind.READ_ONLY, ErrorKind.CONFLICT, ErrorKind.BUSY, ErrorKind.OTHER]
)
def test_a_transaction_is_run_again_after_what_it_cannot_have_survived_only(
    failure: ErrorKind, clock: FakeClock
) -> None:
    deadline = Deadline(None, reserve_s=0, clock=clock)
    attempts = Attempts(2, deadline, lambda: RetryBudget(clock), failover_s=5.0, clock=clock)
    pause_s = attempts.pause_s(failure)
    assert (pause_s is not None) is (
        failure in {ErrorKind.LOST, ErrorKind.CONFLICT, ErrorKind.READ_ONLY, ErrorKind.BUSY}
    )


def test_ages_are_those_of_the_clock_that_saw_more(db: Manager, clock: FakeClock) -> None:
    (slot,) = db._cache._slots
    with db.connection():
        clock.advance(10)
    clock.freeze(100)
    assert (slot.age_s(), slot.idle_s()) == (110, 100)
    clock.step_wall(-200)
    clock.advance(5)
    assert (slot.age_s(), slot.idle_s()) == (15, 5)


def test_a_slot_has_room_for_no_other_attribute(db: Manager) -> None:
    with pytest.raises(AttributeError):
        db._cache._slots[0].password = "x"  # type: ignore[attr-defined] # on purpose


def test_a_server_that_takes_no_writes_is_asked_again_until_the_failover_should_be_over(clock: FakeClock) -> None:
    deadline = Deadline(None, reserve_s=0, clock=clock)
    attempts = Attempts(3, deadline, lambda: RetryBudget(clock), failover_s=5.0, clock=clock)
    count = 0
    while (pause_s := attempts.pause_s(ErrorKind.READ_ONLY)) is not None:
        clock.advance(pause_s)
        count += 1
    assert count > 3
    assert attempts.pause_s(ErrorKind.CONFLICT) is not None  # those were not counted
    assert attempts.pause_s(ErrorKind.CONFLICT) is not None
    assert attempts.pause_s(ErrorKind.CONFLICT) is None


def test_waiting_for_a_new_writer_ends_with_the_deadline(clock: FakeClock) -> None:
    deadline = Deadline(1.0, reserve_s=0, clock=clock)
    attempts = Attempts(3, deadline, lambda: RetryBudget(clock), failover_s=60.0, clock=clock)
    while (pause_s := attempts.pause_s(ErrorKind.READ_ONLY)) is not None:
        clock.advance(pause_s)
    assert deadline.remaining_s() >= 0


def test_waiting_for_a_new_writer_spends_the_retry_budget(clock: FakeClock) -> None:
    budget = RetryBudget(clock)
    deadline = Deadline(None, reserve_s=0, clock=clock)
    assert Attempts(3, deadline, lambda: budget, failover_s=5.0, clock=clock).pause_s(ErrorKind.READ_ONLY) is not None
    for _ in range(10):
        budget.spend()
    assert budget.wait_s() > 0
    attempts = Attempts(3, deadline, lambda: budget, failover_s=1.0, clock=clock)
    assert attempts.pause_s(ErrorKind.READ_ONLY) is None
