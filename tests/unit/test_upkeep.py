from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConfigurationError, ConnectionManager, StaticProvider
from lambda_dbconn.events import ConnectionClosed
from lambda_dbconn.testing.fakes import FakeDriver, FakeError
from tests.unit.conftest import PROXY, local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

    Manager = ConnectionManager[FakeConnection]


def use(db: Manager, *statements: str) -> int:
    with db.connection() as conn:
        for statement in statements:
            conn.execute(statement)
        return conn.number


def test_a_session_that_nothing_was_left_in_is_not_reset(db: Manager, server: FakeServer) -> None:
    use(db, "select 1")
    assert server.counts["reset"] == 0


def test_a_session_that_something_may_be_left_in_is_reset_once(db: Manager, server: FakeServer) -> None:
    assert use(db, "set x.y = 1") == use(db, "select 1")
    assert server.sql == ["set x.y = 1", "DISCARD ALL", "select 1"]


def test_a_session_that_cannot_be_reset_is_closed(db: Manager, server: FakeServer, observer: RecordingObserver) -> None:
    server.demand("reset", FakeError("no"))
    assert use(db, "set x.y = 1") != use(db, "select 1")
    assert [event.reason for event in observer.of(ConnectionClosed)] == ["unclean"]


def test_with_always_each_return_resets(make: MakeManager, server: FakeServer) -> None:
    db = make(reset="always")
    use(db, "select 1")
    use(db, "select 2")
    assert server.sql == ["select 1", "DISCARD ALL", "select 2", "DISCARD ALL"]


def test_with_never_nothing_is_watched_or_reset(make: MakeManager, server: FakeServer) -> None:
    db = make(reset="never")
    use(db, "set x.y = 1")
    assert server.sql == ["set x.y = 1"]
    assert server.connections[0].see is None


def test_on_rds_proxy_a_touched_session_is_closed_and_not_reset(
    server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    settings = local(signing_host=PROXY, sslmode="verify-full", auth="iam")
    db: Manager = ConnectionManager(
        settings,
        credentials=StaticProvider(),
        driver=FakeDriver(server),
        clock=clock,
        observer=observer,
    )
    assert use(db, "set x.y = 1") != use(db, "select 1")
    assert server.counts["reset"] == 0


def test_always_is_refused_on_rds_proxy_which_it_would_pin() -> None:
    with pytest.raises(ConfigurationError, match="reset is 'always', which would pin on RDS Proxy; accepted there"):
        local(signing_host=PROXY, sslmode="verify-full", auth="iam", reset="always")


def test_an_interrupt_in_the_middle_of_cleaning_costs_the_connection(db: Manager, server: FakeServer) -> None:
    server.demand("reset", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        use(db, "set x.y = 1")
    assert (server.connections[0].closes, db.stats().lent_now, db.stats().open_now) == (1, 0, 0)


def test_an_interrupt_in_the_middle_of_a_ping_costs_the_connection(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    use(db, "select 1")
    clock.advance(60)
    server.demand("ping", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        use(db, "select 1")
    assert (server.connections[0].closes, db.stats().lent_now, db.stats().open_now) == (1, 0, 0)
