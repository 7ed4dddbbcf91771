from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import AuthenticationError, ConnectError, ConnectTimeoutError, Credentials, Secret
from lambda_dbconn.cache.policy import WATCHED, has_hung_up
from lambda_dbconn.drivers import ErrorKind, SessionState
from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeContext, FakeDriver, FakeError, FakeServer
from lambda_dbconn.tls import Trust
from tests.unit.conftest import local

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.deadline import Clock
    from lambda_dbconn.drivers.driver import Driver


def connect(server: FakeServer, password: str | None = None) -> FakeConnection:
    credentials = Credentials(user="app", password=Secret(password) if password else None)
    return FakeDriver(server).open(local(), credentials, Trust(cafile=None), timeout_s=5.0)


def poll(connection: FakeConnection) -> int:
    poller = select.poll()
    poller.register(connection.fileno(), WATCHED)
    return sum(events for _, events in poller.poll(0))


# --- the clock


def test_the_fake_clock_has_the_protocol_s_methods(clock: FakeClock) -> None:
    real: Clock = clock
    real.sleep(2)
    assert clock.slept_s == [2]


@pytest.mark.parametrize(
    ("happens", "monotonic_s", "wall_s"),
    [
        (lambda clock: clock.advance(5), 5, 5),
        (lambda clock: clock.sleep(5), 5, 5),
        (lambda clock: clock.freeze(5), 0, 5),
        (lambda clock: clock.freeze(5, monotonic_stops=False), 5, 5),
        (lambda clock: clock.step_wall(-5), 0, -5),
    ],
)
def test_each_clock_sees_what_it_would(
    clock: FakeClock, happens: Callable[[FakeClock], None], monotonic_s: float, wall_s: float
) -> None:
    monotonic, wall = clock.monotonic(), clock.wall()
    happens(clock)
    assert (clock.monotonic() - monotonic, clock.wall() - wall) == (monotonic_s, wall_s)


def test_the_fake_context_goes_by_the_wall_clock(clock: FakeClock) -> None:
    context = FakeContext(clock, 3.0)
    clock.freeze(1)
    assert context.get_remaining_time_in_millis() == 2000


# --- the server


def test_the_fake_driver_is_a_driver(server: FakeServer) -> None:
    driver: Driver[FakeConnection] = FakeDriver(server)
    assert driver.is_open(connect(server))


def test_opens_closes_pings_and_round_trips_are_counted(server: FakeServer) -> None:
    driver = FakeDriver(server)
    first, second = connect(server), connect(server)
    driver.ping(first, timeout_s=1)
    first.execute("select 1")
    driver.close(first)
    assert server.counts == {"open": 2, "ping": 1, "execute": 1, "close": 1}
    assert (first.round_trips, first.closes, second.round_trips) == (2, 1, 0)
    assert (server.open_connections, server.most_open) == ([second], 2)


def test_statements_are_kept_in_order_and_committed_when_they_are(server: FakeServer) -> None:
    conn = connect(server)
    conn.execute("insert 1")
    conn.execute("begin")
    conn.execute("insert 2")
    conn.rollback()
    conn.execute("begin isolation level serializable")
    conn.execute("insert 3")
    conn.commit()
    assert server.committed == ["insert 1", "insert 3"]
    assert [sql for sql in server.sql if "insert" in sql] == ["insert 1", "insert 2", "insert 3"]


def test_a_failed_transaction_takes_nothing_but_rollback(server: FakeServer) -> None:
    conn = connect(server)
    server.demand("execute", FakeError("duplicate key"))
    conn.execute("begin")
    for _ in range(2):
        with pytest.raises(FakeError):
            conn.execute("insert")
    assert conn.is_failed
    conn.rollback()
    conn.execute("select 1")


def test_answers_come_back_through_a_cursor(server: FakeServer) -> None:
    rows: list[tuple[Any, ...]] = [(1, "Ada"), (2, "Bob"), (3, "Cyd")]
    server.answers["select %s"] = rows
    with connect(server).cursor() as cursor:
        assert cursor.fetchone() is None
        assert cursor.execute("select %s", (1,)).fetchone() == (1, "Ada")
        assert cursor.fetchall() == rows[1:]
        assert cursor.fetchall() == []


def test_a_login_needs_the_password_that_the_server_knows(server: FakeServer) -> None:
    server.password = "good"
    assert connect(server, "good").number == 1
    for wrong in ("bad", None):
        with pytest.raises(AuthenticationError):
            connect(server, wrong)


def test_connects_are_refused_as_often_as_they_should_be(server: FakeServer) -> None:
    server.refuse(2)
    for _ in range(2):
        with pytest.raises(ConnectError):
            connect(server)
    assert connect(server).number == 1
    server.refuses_with = ConnectError("for good")
    with pytest.raises(ConnectError, match="for good"):
        connect(server)


def test_a_slow_connect_takes_its_time_and_no_more_than_its_limit(server: FakeServer, clock: FakeClock) -> None:
    before = clock.monotonic()
    server.connect_takes_s = 2
    connect(server)
    server.connect_takes_s = 60
    with pytest.raises(ConnectTimeoutError):
        connect(server)
    assert clock.monotonic() - before == 7.0


def test_a_hang_up_is_seen_on_the_socket_and_nowhere_else_before_use(server: FakeServer) -> None:
    conn = connect(server)
    assert poll(conn) == 0
    server.hang_up()
    assert has_hung_up(poll(conn))
    assert not conn.closed
    with pytest.raises(FakeError, match="unexpectedly"):
        conn.execute("select 1")
    assert conn.closed


def test_a_half_open_connection_is_silent_until_it_is_used_and_then_until_the_limit(
    server: FakeServer, clock: FakeClock
) -> None:
    conn = connect(server)
    server.vanish()
    assert poll(conn) == 0
    before = clock.monotonic()
    with pytest.raises(FakeError) as caught:
        FakeDriver(server).ping(conn, timeout_s=1.0)
    assert caught.value.kind is ErrorKind.LOST
    assert clock.monotonic() - before == 1.0


@pytest.mark.parametrize(
    ("happens", "goes_on"), [(FakeServer.notify, True), (FakeServer.terminate, False), (FakeServer.hang_up, False)]
)
def test_what_was_said_unasked_can_be_drained(
    server: FakeServer, happens: Callable[[FakeServer], None], *, goes_on: bool
) -> None:
    conn = connect(server)
    happens(server)
    assert poll(conn) != 0
    assert FakeDriver(server).drain(conn) is goes_on
    assert (poll(conn) == 0) is (happens is not FakeServer.hang_up)


def test_there_is_nothing_to_drain_in_silence(server: FakeServer) -> None:
    assert FakeDriver(server).drain(connect(server))


def test_a_slow_server_takes_its_time_for_each_round_trip(server: FakeServer, clock: FakeClock) -> None:
    conn = connect(server)
    before = clock.monotonic()
    server.round_trip_s = 0.5
    conn.execute("select 1")
    assert clock.monotonic() - before == 0.5
    with pytest.raises(FakeError, match=r"within 0\.1 s"):
        FakeDriver(server).ping(conn, timeout_s=0.1)


def test_the_state_of_a_session_is_known_without_a_round_trip(server: FakeServer) -> None:
    driver = FakeDriver(server)
    conn = connect(server)
    states = [driver.state(conn, within_s=lambda: 1)]
    conn.execute("begin")
    states.append(driver.state(conn, within_s=lambda: 1))
    conn.close()
    states.append(driver.state(conn, within_s=lambda: 1))
    assert states == [SessionState.CLEAN, SessionState.IN_TRANSACTION, SessionState.UNUSABLE]


def test_an_error_means_what_it_says_until_the_connection_is_over(server: FakeServer) -> None:
    driver = FakeDriver(server)
    conn = connect(server)
    assert driver.classify(conn, FakeError("deadlock", ErrorKind.CONFLICT)) is ErrorKind.CONFLICT
    assert driver.classify(conn, LookupError()) is ErrorKind.OTHER
    conn.close()
    assert driver.classify(conn, LookupError()) is ErrorKind.LOST


def test_closing_the_server_closes_every_socket(server: FakeServer) -> None:
    conn = connect(server)
    with server:
        pass
    assert conn.fileno() == -1
