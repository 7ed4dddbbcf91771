"""What happened to the cached session while it was idle, what the next borrow makes of it, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import DeadlineExceededError
from lambda_dbconn.cache import slot as slot_module
from lambda_dbconn.events import ConnectionReused, PingFailed
from tests.support.database import behind_a_relay, deed, do, wait_for_end, wait_for_news
from tests.support.pgbouncer import LocalPgBouncer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalPostgres
    from tests.support.database import Database

PING_IDLE_S = 30.0  # the default, as are the others
MAX_IDLE_S = 1500.0
MAX_LIFETIME_S = 82_800.0


@dataclass(frozen=True)
class Idle:
    """A session that was lent and has come back."""

    db: ConnectionManager[Any]
    server_pid: int
    session_id: int
    fileno: int


def lend_once(database: Database, *, preparing: str | None = None) -> Idle:
    db = database.counted()
    with db.connection() as connection:
        if preparing is not None:
            connection.cursor().execute(preparing)
        idle = Idle(db, database.backend.pid, database.session_id(connection), connection.fileno())
    database.forget()
    return idle


def assert_reused(database: Database, idle: Idle, *, extra_round_trips: int = 0) -> None:
    """The next borrow gives the same session, without a connect and with so many round trips of its own."""
    name = deed()
    with idle.db.connection() as connection:
        do(connection, name)
        assert database.cost() == (0, 1 + extra_round_trips)
        assert database.session_id(connection) == idle.session_id
    assert database.count(name) == 1
    assert [type(event) for event in database.observer.events] == [ConnectionReused]


def assert_replaced(database: Database, idle: Idle, reason: str) -> None:
    """The next borrow gives a new session, for this reason, at the price of one connect and nothing more."""
    name = deed()
    with idle.db.connection() as connection:
        do(connection, name)
        connects, round_trips = database.cost()
        assert connects == 1
        assert round_trips - 1 in database.round_trips_of_a_connect
        session = database.backend.pid, database.session_id(connection)
        assert session != (idle.server_pid, idle.session_id)
    assert database.count(name) == 1
    assert database.reasons() == [reason]
    names = database.observer.names()
    assert [name for name in names if name != "PingFailed"] == [
        "ConnectionClosed",
        "ConnectionReplaced",
        "ConnectionOpened",
    ]
    assert idle.db.stats().open == 1


def kill_session(database: Database, idle: Idle) -> None:
    database.server.kill_session(idle.session_id)


def close_path(database: Database, _: Idle) -> None:
    database.relay.fin()


def reset_path(database: Database, _: Idle) -> None:
    database.relay.rst()


def restart(database: Database) -> None:
    database.server.restart()


def crash(database: Database) -> None:
    database.server.kill()
    database.server.start()


def test_a_healthy_session_is_lent_again_for_nothing(database: Database) -> None:
    idle = lend_once(database)
    database.clock.advance(PING_IDLE_S - 5)
    assert_reused(database, idle)


def test_a_healthy_session_that_was_idle_for_long_costs_one_ping(database: Database) -> None:
    idle = lend_once(database)
    database.clock.advance(PING_IDLE_S)
    assert_reused(database, idle, extra_round_trips=1)


@pytest.mark.parametrize("hang_up", [kill_session, close_path, reset_path])
def test_a_hang_up_is_noticed_without_a_round_trip(
    hang_up: Callable[[Database, Idle], None], database: Database
) -> None:
    idle = lend_once(database)
    hang_up(database, idle)
    wait_for_end(idle.fileno)
    assert_replaced(database, idle, "hang_up")


@pytest.mark.parametrize("happens", [restart, crash])
def test_a_restart_of_the_server_is_noticed_without_a_round_trip(
    happens: Callable[[Database], None], own_database: Database
) -> None:
    idle = lend_once(own_database)
    happens(own_database)
    wait_for_end(idle.fileno)
    assert_replaced(own_database, idle, "hang_up")


def test_a_session_that_the_server_timed_out_is_noticed_without_a_round_trip(database: Database) -> None:
    limit = "idle_session_timeout = '50ms'" if database.is_postgresql else "SESSION wait_timeout = 1"
    idle = lend_once(database, preparing=f"SET {limit}")
    wait_for_end(idle.fileno)
    assert_replaced(database, idle, "hang_up")


@pytest.mark.parametrize("database", ["postgres-plain", "postgres-tls"], indirect=True)
def test_a_notification_on_a_healthy_session_costs_one_ping_and_is_not_lost(database: Database) -> None:
    idle = lend_once(database, preparing="LISTEN news")
    database.server.execute("NOTIFY news, 'good'")
    wait_for_news(idle.fileno)
    assert_reused(database, idle, extra_round_trips=1)
    with idle.db.connection() as connection:
        assert [notice.payload for notice in connection.notifies(timeout=0)] == ["good"]


@pytest.mark.parametrize("database", ["postgres-plain", "postgres-tls"], indirect=True)
def test_a_notification_before_the_end_of_the_session_does_not_hide_it(database: Database) -> None:
    idle = lend_once(database, preparing="LISTEN news")
    database.server.execute("NOTIFY news")
    wait_for_news(idle.fileno)
    database.server.kill_session(idle.session_id)
    wait_for_end(idle.fileno)
    assert_replaced(database, idle, "hang_up")


def test_a_half_open_session_is_not_noticed_before_it_is_due_for_a_ping(database: Database) -> None:
    idle = lend_once(database)
    database.relay.vanish()
    with idle.db.connection():
        assert database.cost() == (0, 0)
    assert [type(event) for event in database.observer.events] == [ConnectionReused]


def test_a_half_open_session_costs_no_more_than_the_limit_of_a_ping(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "PING_LIMIT_S", 0.2)
    idle = lend_once(database)
    database.relay.vanish()
    database.clock.advance(PING_IDLE_S)
    assert_replaced(database, idle, "ping_failed")
    assert len(database.observer.of(PingFailed)) == 1


def test_a_ping_is_waited_for_no_longer_than_the_deadline_allows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "PING_LIMIT_S", 600.0)
    idle = lend_once(database)
    database.relay.vanish()
    database.clock.advance(PING_IDLE_S)
    with pytest.raises(DeadlineExceededError), idle.db.connection(0.3 + idle.db.settings.reserve_s):
        pytest.fail("there was no time left to connect")
    assert len(database.observer.of(PingFailed)) == 1
    with idle.db.connection():
        assert database.reasons() == ["ping_failed"]


@pytest.mark.parametrize(("idle_s", "reason"), [(MAX_IDLE_S, "idle"), (MAX_LIFETIME_S, "lifetime")])
def test_an_old_session_is_replaced_however_healthy(idle_s: float, reason: str, database: Database) -> None:
    idle = lend_once(database)
    database.clock.advance(idle_s)
    assert_replaced(database, idle, reason)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_a_backend_that_died_behind_a_live_pooler_costs_the_client_nothing(
    is_tls: bool, postgres: LocalPostgres, certificates: Certificates
) -> None:
    with (
        LocalPgBouncer(backend=postgres, certificates=certificates) as pooler,
        behind_a_relay(pooler, backend=postgres, is_tls=is_tls) as database,
    ):
        idle = lend_once(database)
        postgres.kill_session(idle.session_id)
        name = deed()
        with idle.db.connection() as connection:
            do(connection, name)
            assert database.cost() == (0, 1)
            assert database.session_id(connection) != idle.session_id, "the pooler has a new backend"
        assert database.count(name) == 1
        assert [type(event) for event in database.observer.events] == [ConnectionReused]
