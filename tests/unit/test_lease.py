from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import Settings
from lambda_dbconn.backoff import Budget
from lambda_dbconn.deadline import Course, Cutoff, Deadline
from lambda_dbconn.drivers import Failure, SessionState
from lambda_dbconn.lease import Attempts, Slot, discard_reason, pin_action
from lambda_dbconn.liveness import Limits
from tests.unit.conftest import INSTANCE, PROXY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.fakes import FakeClock

LIMITS = Limits(ping_idle_s=30, max_idle_s=1500, max_lifetime_s=82800)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def unlimited(clock: FakeClock) -> Cutoff:
    return Cutoff(Course(where="here", monotonic=clock.monotonic, interrupt=lambda _: None))


@pytest.fixture
def slot(ends: tuple[socket.socket, socket.socket], clock: FakeClock) -> Slot[str]:
    slot: Slot[str] = Slot()
    slot.fill("connection", unlimited(clock), ends[0].fileno(), LIMITS, clock)
    return slot


@pytest.mark.parametrize(
    ("state", "failure", "reason"),
    [
        (SessionState.CLEAN, Failure.OTHER, None),
        (SessionState.CLEAN, Failure.CONFLICT, None),
        (SessionState.IN_TRANSACTION, Failure.OTHER, None),
        (SessionState.IN_TRANSACTION, Failure.CONFLICT, None),
        (SessionState.CLEAN, Failure.LOST, "lost"),
        (SessionState.UNUSABLE, Failure.LOST, "lost"),
        (SessionState.CLEAN, Failure.REFUSED, "lost"),
        (SessionState.UNUSABLE, Failure.OTHER, "unclean"),
        (SessionState.UNUSABLE, Failure.READ_ONLY, "unclean"),
        (SessionState.CLEAN, Failure.READ_ONLY, "read_only"),
        (SessionState.IN_TRANSACTION, Failure.READ_ONLY, "read_only"),
    ],
)
def test_a_connection_comes_back_for_good_or_is_given_up_for_a_reason(
    state: SessionState, failure: Failure, reason: str | None
) -> None:
    assert discard_reason(state, failure, None) == reason
    assert discard_reason(state, failure, "pinned") == (reason or "pinned")
    assert discard_reason(state, failure, "closed") == "closed"
    assert discard_reason(state, failure, "deadline") == "deadline"


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
    assert pin_action(settings) == action


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.READ_ONLY, Failure.CONFLICT, Failure.BUSY, Failure.OTHER])
def test_a_transaction_is_run_again_after_what_it_cannot_have_survived_only(failure: Failure, clock: FakeClock) -> None:
    deadline = Deadline(None, reserve_s=0, clock=clock)
    pause_s = Attempts(2, deadline, lambda: Budget(clock)).pause_s(failure)
    assert (pause_s is not None) is (failure in {Failure.LOST, Failure.CONFLICT, Failure.READ_ONLY, Failure.BUSY})


def test_a_new_slot_is_empty_silent_and_trusted_by_no_clock(clock: FakeClock) -> None:
    slot: Slot[str] = Slot()
    assert slot.is_empty
    assert slot.events() == 0
    assert clock.monotonic() > slot.trusted_monotonic
    assert clock.wall() > slot.trusted_wall


def test_a_slot_sees_what_its_socket_says(slot: Slot[str], ends: tuple[socket.socket, socket.socket]) -> None:
    assert slot.events() == 0
    ends[1].send(b"x")
    assert slot.events() != 0


def test_ages_are_those_of_the_clock_that_saw_more(slot: Slot[str], clock: FakeClock) -> None:
    clock.advance(10)
    slot.returned(clock.monotonic(), clock.wall())
    clock.freeze(100)
    assert (slot.age_s(clock), slot.idle_s(clock)) == (110, 100)
    clock.step_wall(-200)
    clock.advance(5)
    assert (slot.age_s(clock), slot.idle_s(clock)) == (15, 5)


def test_uses_are_counted_for_the_connection_and_loans_for_the_slot(
    slot: Slot[str], ends: tuple[socket.socket, socket.socket], clock: FakeClock
) -> None:
    slot.loans += 3
    assert slot.uses == 3
    slot.empty()
    slot.fill("another", unlimited(clock), ends[0].fileno(), LIMITS, clock)
    assert (slot.loans, slot.uses) == (3, 0)


def test_an_emptied_slot_has_forgotten_its_connection_and_that_it_was_condemned(slot: Slot[str]) -> None:
    slot.doom = "closed"
    slot.returned(0, 0)
    slot.empty()
    assert slot.is_empty
    assert slot.doom is None
    assert slot.poll(0) == []
    assert slot.trusted_wall == float("-inf")


def test_a_slot_has_room_for_no_other_attribute(slot: Slot[str]) -> None:
    with pytest.raises(AttributeError):
        slot.password = "x"  # type: ignore[attr-defined] # on purpose
