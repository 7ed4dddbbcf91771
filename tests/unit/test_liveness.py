from __future__ import annotations

import os
import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn.deadline import Course, Cutoff
from lambda_dbconn.lease import Slot
from lambda_dbconn.liveness import WATCHED, Limits, Verdict, has_hung_up, judge
from lambda_dbconn.testing.fakes import FakeClock
from tests.unit.conftest import local

LIMITS = Limits(ping_idle_s=30, max_idle_s=1500, max_lifetime_s=82800)

seconds = st.floats(0, 200_000)
steps = st.lists(
    st.tuples(
        st.sampled_from(["advance", "freeze", "freeze with the clock running", "step"]),
        st.floats(0, 4000) | st.floats(0, 100),
    ),
    max_size=6,
)


@pytest.mark.parametrize(
    ("age_s", "idle_s", "events", "verdict"),
    [
        (0, 0, 0, Verdict()),
        (82799, 29.9, 0, Verdict()),
        (100, 30, 0, Verdict(is_doubtful=True)),
        (100, 1, select.POLLIN, Verdict(is_doubtful=True, has_spoken=True)),
        (100, 60, select.POLLIN, Verdict(is_doubtful=True, has_spoken=True)),
        (82800, 0, 0, Verdict(reason="lifetime")),
        (82800, 1500, select.POLLHUP, Verdict(reason="lifetime")),
        (2000, 1500, 0, Verdict(reason="idle")),
        (2000, 1500, select.POLLHUP, Verdict(reason="idle")),
        (100, 1, select.POLLHUP, Verdict(reason="hang_up")),
        (100, 60, select.POLLERR, Verdict(reason="hang_up")),
        (100, 1, select.POLLIN | select.POLLHUP, Verdict(reason="hang_up")),
        (100, 1, select.POLLNVAL, Verdict(reason="hang_up")),
    ],
)
def test_a_connection_is_judged_in_the_order_of_cost(
    age_s: float, idle_s: float, events: int, verdict: Verdict
) -> None:
    assert judge(LIMITS, age_s=age_s, idle_s=idle_s, events=events) == verdict


@given(age_s=seconds, idle_s=seconds, events=st.sampled_from([0, select.POLLIN, select.POLLHUP]))
def test_nothing_beyond_a_limit_is_reused_unasked(age_s: float, idle_s: float, events: int) -> None:
    verdict = judge(LIMITS, age_s=age_s, idle_s=idle_s, events=events)
    if age_s >= LIMITS.max_lifetime_s or idle_s >= LIMITS.max_idle_s:
        assert verdict.reason in ("lifetime", "idle")
    elif idle_s >= LIMITS.ping_idle_s or events:
        assert verdict.reason or verdict.is_doubtful
    else:
        assert verdict == Verdict()


@given(
    ping_idle_s=st.floats(0, 100),
    max_idle_s=st.floats(1, 2000),
    max_lifetime_s=st.floats(1, 5000),
    before=steps,
    after=steps,
)
def test_by_neither_clock_is_a_silent_connection_trusted_beyond_a_limit(
    ping_idle_s: float,
    max_idle_s: float,
    max_lifetime_s: float,
    before: list[tuple[str, float]],
    after: list[tuple[str, float]],
) -> None:
    clock = FakeClock()
    limits = Limits(ping_idle_s=ping_idle_s, max_idle_s=max_idle_s, max_lifetime_s=max_lifetime_s)
    slot: Slot[object] = Slot()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cutoff = Cutoff(Course(where="here", monotonic=clock.monotonic, interrupt=lambda _: None))
        slot.fill(object(), cutoff, ours.fileno(), limits, clock)
        opened = (clock.monotonic(), clock.wall())
        pass_time(clock, before)
        slot.returned(clock.monotonic(), clock.wall())
        returned = (clock.monotonic(), clock.wall())
        pass_time(clock, after)
        now = (clock.monotonic(), clock.wall())
        is_trusted = now[0] < slot.trusted_monotonic and now[1] < slot.trusted_wall
        age_s = max(now[0] - opened[0], now[1] - opened[1])
        idle_s = max(now[0] - returned[0], now[1] - returned[1])
        assert slot.age_s(clock) == age_s
        assert slot.idle_s(clock) == idle_s
        if is_trusted:
            rounding = 1e-5  # the wall clock counts from 1970
            assert idle_s < ping_idle_s + rounding
            assert idle_s < max_idle_s + rounding
            assert age_s < max_lifetime_s + rounding


def pass_time(clock: FakeClock, steps: list[tuple[str, float]]) -> None:
    for what, duration_s in steps:
        match what:
            case "advance":
                clock.advance(duration_s)
            case "freeze":
                clock.freeze(duration_s)
            case "freeze with the clock running":
                clock.freeze(duration_s, monotonic_stops=False)
            case _:
                clock.step_wall(-duration_s)


def test_poll_tells_a_hang_up_from_a_word_and_from_silence() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poll = select.poll()
        poll.register(ours.fileno(), WATCHED)
        assert poll.poll(0) == []
        theirs.send(b"notice")
        assert not has_hung_up(poll.poll(0)[0][1])
        theirs.close()
        assert has_hung_up(poll.poll(0)[0][1])


def test_the_limits_on_age_are_jittered_and_the_one_on_pings_is_not() -> None:
    settings = local(ping_idle_s=30, max_idle_s=1000, max_lifetime_s=10_000)
    drawn = [Limits.of(settings) for _ in range(30)]
    assert {limits.ping_idle_s for limits in drawn} == {30}
    assert all(950 <= limits.max_idle_s <= 1000 for limits in drawn)
    assert all(9500 <= limits.max_lifetime_s <= 10_000 for limits in drawn)
    assert len({limits.max_idle_s for limits in drawn}) > 1
    assert len({limits.max_lifetime_s for limits in drawn}) > 1


PROXY_LIFE_S = 24 * 3600  # RDS user guide, "RDS Proxy connections": a client's connection, whatever it does
PROXY_IDLE_CLIENT_TIMEOUT_S = 1800  # the default


@given(draw=st.binary(min_size=4, max_size=4))
def test_by_default_a_connection_is_given_up_before_the_proxy_does_so(draw: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", lambda count: draw[:count])
        limits = Limits.of(local())
    assert limits.max_lifetime_s < PROXY_LIFE_S - 1800  # with an invocation of the longest kind to spare
    assert limits.max_idle_s < PROXY_IDLE_CLIENT_TIMEOUT_S
    assert limits.max_lifetime_s > 0.94 * 82_800
    assert limits.max_idle_s > 0.94 * 1_500


def test_a_fleet_that_connects_together_does_not_reconnect_together() -> None:
    fleet = [Limits.of(local()) for _ in range(1_000)]
    for limit, spread_s in (("max_lifetime_s", 4_140), ("max_idle_s", 75)):
        drawn = sorted(getattr(limits, limit) for limits in fleet)
        assert drawn[-1] - drawn[0] > 0.9 * spread_s  # 5 % of the limit
        in_a_tenth = max(sum(start <= at < start + spread_s / 10 for at in drawn) for start in drawn)
        assert in_a_tenth < 200  # of 1,000: 100 are expected
