from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConnectError, DeadlineExceededError
from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionReleased,
    ConnectionReplaced,
    ConnectionReused,
    PingFailed,
)
from lambda_dbconn.testing.fakes import FakeContext, FakeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]

WHERE = "localhost:5432"


def use(db: Manager) -> FakeConnection:
    with db.connection() as conn:
        conn.execute("select 1")
    return conn


def test_making_a_manager_opens_nothing(db: Manager, server: FakeServer) -> None:
    assert server.counts["open"] == 0
    assert db.stats().open == 0


def test_the_first_borrow_opens_and_the_next_reuses_without_a_round_trip(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    first = use(db)
    clock.advance(5)
    second = use(db)
    assert second is first
    assert server.sql == ["select 1", "select 1"]
    assert first.round_trips == 2
    assert observer.events == [
        ConnectionOpened(endpoint=WHERE, reason="first", attempts=1, duration_s=0.0),
        ConnectionReused(endpoint=WHERE, idle_s=5.0),
    ]


def test_an_observer_that_ignores_reuse_is_not_told_of_it(make: MakeManager, observer: RecordingObserver) -> None:
    observer.ignores = (ConnectionReused, ConnectionReleased)
    db = make()
    use(db)
    use(db)
    assert observer.names() == ["ConnectionOpened"]
    assert db.stats().reused == 1


@pytest.mark.parametrize(("idle_s", "pings"), [(0, 0), (29.9, 0), (30, 1), (1000, 1)])
@pytest.mark.parametrize("monotonic_stops", [True, False])
def test_a_connection_is_pinged_after_a_long_rest_by_either_clock(
    db: Manager, server: FakeServer, clock: FakeClock, idle_s: float, pings: int, *, monotonic_stops: bool
) -> None:
    first = use(db)
    clock.freeze(idle_s, monotonic_stops=monotonic_stops)
    assert use(db) is first
    assert server.counts["ping"] == pings


def test_a_wall_clock_that_steps_back_hides_no_rest_from_the_other_clock(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    use(db)
    clock.advance(31)
    clock.step_wall(-3600)
    use(db)
    assert server.counts["ping"] == 1


def test_a_ping_that_succeeds_is_enough_until_the_next_long_rest(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    use(db)
    clock.freeze(60)
    use(db)
    clock.advance(10)
    use(db)
    assert server.counts["ping"] == 1
    assert [event.idle_s for event in observer.of(ConnectionReused)] == [60, 10]


def advance(seconds: float) -> Callable[[FakeServer], None]:
    return lambda server: server.clock.advance(seconds)


def freeze(seconds: float) -> Callable[[FakeServer], None]:
    return lambda server: server.clock.freeze(seconds)


def hang_up(server: FakeServer) -> None:
    server.hang_up()


def terminate(server: FakeServer) -> None:
    server.terminate()


def say_goodbye(server: FakeServer) -> None:
    server.terminate()
    server.hang_up()


def vanish(server: FakeServer) -> None:
    server.vanish()
    server.clock.freeze(60)


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (advance(82800), "lifetime"),
        (freeze(82800), "lifetime"),
        (advance(1500), "idle"),
        (freeze(1500), "idle"),
        (hang_up, "hang_up"),
        (terminate, "hang_up"),
        (say_goodbye, "hang_up"),
        (vanish, "ping_failed"),
    ],
    ids=["lifetime", "frozen lifetime", "idle", "frozen idle", "hang-up", "last words", "both", "half-open"],
)
def test_a_connection_that_is_no_longer_good_is_replaced_and_every_event_says_why(
    db: Manager,
    server: FakeServer,
    observer: RecordingObserver,
    happens: Callable[[FakeServer], None],
    reason: str,
) -> None:
    first = use(db)
    use(db)
    happens(server)
    second = use(db)
    assert second is not first
    assert first.closes == 1
    assert server.most_open == 1
    (closed,) = observer.of(ConnectionClosed)
    (replaced,) = observer.of(ConnectionReplaced)
    assert (closed.reason, closed.uses) == (reason, 2)
    assert replaced.reason == reason
    assert replaced.age_s == closed.age_s >= replaced.idle_s
    assert [event.reason for event in observer.of(ConnectionOpened)] == ["first", reason]
    assert db.stats().replaced == {reason: 1}
    names = [name for name in observer.names() if name != "ConnectionReused"]
    assert [name for name in names if name != "PingFailed"] == [
        "ConnectionOpened",
        "ConnectionClosed",
        "ConnectionReplaced",
        "ConnectionOpened",
    ]


def test_lifetime_and_rest_are_shortened_by_five_percent_at_most(
    make: MakeManager, server: FakeServer, clock: FakeClock
) -> None:
    db = make(max_lifetime_s=1000, max_idle_s=1000)
    first = use(db)
    clock.advance(949)
    assert use(db) is first
    clock.advance(51)
    assert use(db) is not first


def test_a_short_rest_limit_counts_even_where_pings_come_later(make: MakeManager, clock: FakeClock) -> None:
    db = make(ping_idle_s=1000, max_idle_s=60)
    first = use(db)
    clock.advance(60)
    assert use(db) is not first


def test_a_notice_on_a_healthy_session_costs_a_ping_and_not_the_connection(
    make: MakeManager, server: FakeServer
) -> None:
    db = make(reset="never")
    first = use(db)
    server.notify()
    assert use(db) is first
    assert (server.counts["drain"], server.counts["ping"]) == (1, 1)
    assert use(db) is first
    assert server.counts["ping"] == 1


def test_last_words_are_read_and_cost_no_ping(make: MakeManager, server: FakeServer) -> None:
    db = make(reset="never")
    use(db)
    server.terminate()
    use(db)
    assert (server.counts["drain"], server.counts["ping"]) == (1, 0)


def test_a_silent_loss_within_the_trusted_rest_is_the_statement_s_to_find(db: Manager, server: FakeServer) -> None:
    use(db)
    server.vanish()
    with pytest.raises(FakeError, match="no answer"), db.connection() as conn:
        conn.execute("insert once")
    assert server.sql.count("insert once") == 1
    assert use(db) is not conn


def test_a_ping_may_take_a_second_and_no_longer(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    use(db)
    server.vanish()
    clock.freeze(60)
    before = clock.monotonic()
    use(db)
    assert clock.monotonic() - before == 1.0
    (failed,) = observer.of(PingFailed)
    assert failed == PingFailed(endpoint=WHERE, idle_s=60.0, error="FakeError: no answer within 1 s")


def test_a_ping_is_capped_by_the_deadline(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    use(db)
    server.vanish()
    clock.freeze(60)
    before = clock.monotonic()
    with pytest.raises(DeadlineExceededError, match="connecting"), db.connection(0.75):
        pytest.fail("nothing was to be lent")
    assert clock.monotonic() - before == pytest.approx(0.25)


def test_any_failure_of_a_ping_means_dead(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    first = use(db)
    clock.freeze(60)
    server.demand("ping", ZeroDivisionError("a driver's mistake"))
    assert use(db) is not first


def test_a_doubtful_connection_is_kept_when_there_is_no_time_to_ask_it(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    first = use(db)
    clock.freeze(60)
    with pytest.raises(DeadlineExceededError, match="no time left for using the connection"), db.connection(0.5):
        pytest.fail("nothing was to be lent")
    assert first.closes == 0
    assert use(db) is first
    assert server.counts["ping"] == 1


def test_a_replacement_is_opened_within_the_deadline(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    use(db)
    server.hang_up()
    server.connect_takes_s = 10
    context = FakeContext(clock, 2.5)
    with pytest.raises(ConnectError), db.connection(context):
        pytest.fail("nothing was to be lent")
    assert server.time_limits_s[-1] == pytest.approx(2.0, abs=0.01)
    assert context.get_remaining_time_in_millis() >= 490


def test_why_a_connection_was_given_up_is_still_known_after_connects_that_failed(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    use(db)
    server.hang_up()
    server.refuses_with = ConnectError("no such database")
    for _ in range(2):
        with pytest.raises(ConnectError, match="no such database"), db.connection():
            pytest.fail("nothing was to be lent")
    assert db.stats().open == db.stats().in_use == 0
    assert observer.of(ConnectionReplaced) == []
    server.refuses_with = None
    use(db)
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["hang_up"]
    assert [event.reason for event in observer.of(ConnectionOpened)] == ["first", "hang_up"]
    assert len(observer.of(ConnectFailed)) == db.stats().connect_failures == 2


def test_retries_are_told_in_the_event_of_the_connect_that_succeeded(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    server.connect_takes_s = 0.25
    server.refuse(2)
    use(db)
    (opened,) = observer.of(ConnectionOpened)
    assert opened.attempts == 3
    assert opened.duration_s == pytest.approx(0.75 + sum(clock.slept_s))


def test_a_warm_borrow_without_time_to_use_it_is_refused_and_keeps_the_connection(
    db: Manager, server: FakeServer
) -> None:
    first = use(db)
    with pytest.raises(DeadlineExceededError, match="no time left for using"), db.connection(0.5):
        pytest.fail("nothing was to be lent")
    assert use(db) is first
    assert server.counts["open"] == 1


def test_a_context_that_is_none_is_refused_and_the_slot_comes_back(db: Manager) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="the argument context is 'str'"), db.connection("soon"):  # type: ignore[arg-type] # on purpose
            pytest.fail("nothing was to be lent")
    use(db)


def test_a_session_that_chatters_at_every_borrow_is_pinged_at_every_borrow(
    make: MakeManager, server: FakeServer
) -> None:
    db = make(reset="never")
    first = use(db)
    for _ in range(3):
        server.notify()
        assert use(db) is first
    assert server.counts["ping"] == 3
