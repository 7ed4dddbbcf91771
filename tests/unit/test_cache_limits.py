from __future__ import annotations

import os
import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import ConnectionManager
from lambda_dbconn.cache.policy import WATCHED, ConnectionLimits, expiry, has_hung_up
from lambda_dbconn.testing.fakes import FakeClock, FakeDriver, FakeServer, RecordingObserver
from tests.unit.conftest import local

LIMITS = ConnectionLimits(ping_idle_s=30, max_idle_s=1500, max_lifetime_s=82800)

steps = st.lists(
    st.tuples(
        st.sampled_from(["advance", "freeze", "freeze with the clock running", "step"]),
        st.floats(0, 4000) | st.floats(0, 100),
    ),
    max_size=6,
)


@pytest.mark.parametrize(
    ("age_s", "idle_s", "reason"),
    [
        (0, 0, None),
        (82799, 1499, None),
        (82800, 0, "lifetime"),
        (82800, 1500, "lifetime"),
        (2000, 1500, "idle"),
    ],
)
def test_a_connection_expires_by_its_age_and_by_its_rest(age_s: float, idle_s: float, reason: str | None) -> None:
    assert expiry(LIMITS, age_s=age_s, idle_s=idle_s) == reason


@given(
    ping_idle_s=st.floats(1, 100),
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
    settings = local(ping_idle_s=ping_idle_s, max_idle_s=max_idle_s, max_lifetime_s=max_lifetime_s)
    with FakeServer(clock) as server:
        db = ConnectionManager(settings, driver=FakeDriver(server), clock=clock, observer=RecordingObserver())
        (slot,) = db._cache._slots
        with db.connection() as first:
            opened = (clock.monotonic(), clock.wall())
            pass_time(clock, before)
        returned = (clock.monotonic(), clock.wall())
        pass_time(clock, after)
        now = (clock.monotonic(), clock.wall())
        age_s = max(now[0] - opened[0], now[1] - opened[1])
        idle_s = max(now[0] - returned[0], now[1] - returned[1])
        assert slot.age_s() == age_s
        assert slot.idle_s() == idle_s
        with db.connection() as again:
            is_unasked = again is first and server.counts["ping"] == 0
        if is_unasked:
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
    drawn = [ConnectionLimits.of(settings) for _ in range(30)]
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
        limits = ConnectionLimits.of(local())
    assert limits.max_lifetime_s < PROXY_LIFE_S - 1800  # with an invocation of the longest kind to spare
    assert limits.max_idle_s < PROXY_IDLE_CLIENT_TIMEOUT_S
    assert limits.max_lifetime_s > 0.94 * 82_800
    assert limits.max_idle_s > 0.94 * 1_500


def test_a_fleet_that_connects_together_does_not_reconnect_together() -> None:
    fleet = [ConnectionLimits.of(local()) for _ in range(1_000)]
    for limit, spread_s in (("max_lifetime_s", 4_140), ("max_idle_s", 75)):
        drawn = sorted(getattr(limits, limit) for limits in fleet)
        assert drawn[-1] - drawn[0] > 0.9 * spread_s  # 5 % of the limit
        in_a_tenth = max(sum(start <= at < start + spread_s / 10 for at in drawn) for start in drawn)
        assert in_a_tenth < 200  # of 1,000: 100 are expected
