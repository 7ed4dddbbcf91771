"""The guard at run time: who is told of a statement that pins, who is refused, and what becomes of the connection."""

from __future__ import annotations

import logging
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import (
    ConnectionManager,
    LambdaDbConnWarning,
    SessionPinnedError,
    StaticProvider,
    TransactionLeftOpenError,
)
from lambda_dbconn.events import ConnectionOpened, ConnectionReplaced, SessionPinned
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.proxy.guard import _LONGEST_TEXT, _MOST_REPORTED, _MOST_TEXTS, PinGuard
from lambda_dbconn.testing.fakes import FakeDriver
from tests.unit.conftest import PROXY, in_fresh_process, local

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lambda_dbconn.events import Event
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver
    from tests.unit.conftest import MakeManager

PINNING = "SET search_path TO tenant_7"


@pytest.fixture
def db(server: FakeServer, clock: FakeClock, observer: RecordingObserver) -> ConnectionManager[FakeConnection]:
    """A manager behind RDS Proxy, which looks for pins and warns."""
    settings = local(signing_host=PROXY, sslmode="verify-full", auth="iam")
    return ConnectionManager(
        settings, credentials=StaticProvider(), driver=FakeDriver(server), clock=clock, observer=observer
    )


def use(db: ConnectionManager[FakeConnection], *statements: str) -> int:
    """Send these in one loan; return the connection's number."""
    with db.connection() as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.number


def test_a_pinned_connection_is_dropped_when_it_comes_back(
    db: ConnectionManager[FakeConnection], observer: RecordingObserver
) -> None:
    assert [use(db, "select 1"), use(db, PINNING), use(db, "select 1"), use(db, "select 1")] == [1, 1, 2, 2]
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["pinned"]
    assert [event.reason for event in observer.of(ConnectionOpened)] == ["first", "pinned"]
    assert db.stats().replaced == {"pinned": 1}


def test_the_event_says_what_pins_why_where_and_what_to_do(
    db: ConnectionManager[FakeConnection], observer: RecordingObserver
) -> None:
    use(db, PINNING)
    (event,) = observer.of(SessionPinned)
    assert (event.statement, event.rule, event.is_first) == ("SET search_path", "postgresql-set", True)
    assert "the proxy tracks none" in event.reason
    assert event.remedy.startswith("Set it where no statement is needed")
    assert event.place.startswith(__file__)
    assert "tenant_7" not in repr(event)


def test_a_statement_is_told_of_once_for_each_loan_and_is_new_once(
    db: ConnectionManager[FakeConnection], observer: RecordingObserver
) -> None:
    use(db, PINNING, PINNING, "SET search_path TO b")
    use(db, PINNING)
    use(db, "LISTEN x", PINNING, "SET work_mem = 1")
    told = [(event.statement, event.is_first) for event in observer.of(SessionPinned)]
    assert told == [
        ("SET search_path", True),
        ("SET search_path", False),
        ("LISTEN", True),
        ("SET work_mem", True),
    ]


def test_the_log_warns_once_for_each_statement(
    server: FakeServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "lambda_dbconn")
    db = ConnectionManager(local(on_pin="warn"), driver=FakeDriver(server), clock=clock, observer=LoggingObserver())
    for _ in range(3):
        use(db, PINNING)
    levels = [record.levelname for record in caplog.records if record.getMessage().startswith("SessionPinned")]
    assert levels == ["WARNING", "DEBUG", "DEBUG"]
    warning = next(record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "SET search_path" in warning
    assert "initialization query" in warning
    assert "tenant_7" not in warning


def test_raise_refuses_before_anything_is_sent(
    make: MakeManager, server: FakeServer, observer: RecordingObserver
) -> None:
    db = make(on_pin="raise")
    with pytest.raises(SessionPinnedError, match=r"SET search_path \(.*\.py:\d+\) would pin the session on") as caught:
        use(db, PINNING)
    assert caught.value.remedy.startswith("Set it where no statement is needed")
    assert __file__ in caught.value.message
    assert "tenant_7" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert server.sql == []
    assert use(db, "select 1") == 1  # it is not pinned, and is kept
    assert observer.of(SessionPinned) == []


def test_on_a_direct_endpoint_what_would_pin_is_reported_and_the_connection_kept(
    make: MakeManager, server: FakeServer, observer: RecordingObserver
) -> None:
    db = make(on_pin="warn")
    assert [use(db, PINNING), use(db, "select 1")] == [1, 1]
    assert server.counts["send_reset"] == 2
    assert len(observer.of(SessionPinned)) == 1


def test_ignore_lets_everything_pass(make: MakeManager, observer: RecordingObserver) -> None:
    db = make(on_pin="ignore")
    assert [use(db, PINNING), use(db, PINNING)] == [1, 1]
    assert observer.of(SessionPinned) == []


def test_nobody_looks_for_pins_where_no_proxy_stands(make: MakeManager) -> None:
    assert make()._shared.guard is None
    with make(reset="never").connection() as connection:
        assert connection.see is None


def test_a_proxys_endpoint_is_watched_by_default(
    server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    db = ConnectionManager(
        local(host=PROXY, sslmode="verify-full", auth="iam"),
        credentials=lambda: pytest.fail("not asked"),
        driver=FakeDriver(server),
        clock=clock,
        observer=observer,
    )
    assert db._shared.guard is not None


def test_the_guard_is_not_imported_where_it_is_not_wanted() -> None:
    code = (
        "import sys; from lambda_dbconn import ConnectionManager, Settings\n"
        "db = ConnectionManager(Settings(engine='mysql', host='localhost', port=3306, user='a', sslmode='disable'))\n"
        "print([name for name in sys.modules if 'lambda_dbconn.pin' in name])"
    )
    assert in_fresh_process(code).strip() == "[]"


class Mark:
    """Stands for a slot of the cache."""

    has_pinned = False
    evict_reason: str | None = None

    def will_change(self, names: Iterable[str]) -> None:
        """Do nothing."""


def test_only_the_slot_is_marked_whose_connection_sent_it() -> None:
    slots = [Mark(), Mark()]
    guard = PinGuard("mysql", "host:1", action="warn", closes=True, emit=lambda event: None)
    guard.watcher(slots[0])("SET @a = 1")
    assert [slot.evict_reason for slot in slots] == ["pinned", None]


def test_a_pinned_transaction_that_is_left_open_is_reported_as_ever(db: ConnectionManager[FakeConnection]) -> None:
    with pytest.raises(TransactionLeftOpenError):
        use(db, "BEGIN", PINNING)
    assert use(db, "select 1") == 2


def test_a_pinned_connection_is_dropped_after_an_error_and_after_close_too(
    db: ConnectionManager[FakeConnection], observer: RecordingObserver
) -> None:
    with pytest.raises(ZeroDivisionError), db.connection() as connection:  # noqa: PT012 - in the middle of the loan
        connection.execute(PINNING)
        raise ZeroDivisionError
    for closes_first in (False, True):
        with db.connection() as connection:
            if closes_first:
                db.close()
            connection.execute(PINNING)
            if not closes_first:
                db.close()
    assert use(db, "select 1") == 4
    assert [event.reason for event in observer.of(ConnectionOpened)] == ["first", "pinned", "first", "first"]


def test_a_transaction_that_pins_is_committed_and_its_connection_dropped(
    db: ConnectionManager[FakeConnection], server: FakeServer
) -> None:
    with db.transaction() as connection:
        connection.execute(PINNING)
        connection.execute("insert")
    assert server.committed == [PINNING, "insert"]
    assert use(db, "select 1") == 2


def test_a_psycopg_that_sends_in_another_way_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from psycopg._cursor_base import BaseCursor

    from lambda_dbconn.drivers.postgresql import PostgresqlDriver

    driver = PostgresqlDriver()
    driver.watch(_unconnected(), lambda text: None)  # this one is known
    monkeypatch.delattr(BaseCursor, "_execute_send")
    with pytest.warns(LambdaDbConnWarning, match="are not seen: psycopg 3"):
        driver.watch(_unconnected(), lambda text: None)


def _unconnected() -> Any:
    from lambda_dbconn.drivers.postgresql_connection import Connection

    return Connection.__new__(Connection)


def test_what_is_remembered_is_bounded() -> None:
    told: list[Event] = []
    guard = PinGuard("mysql", "host:1", action="warn", closes=True, emit=told.append)
    see = guard.watcher(Mark())
    for number in range(3 * _MOST_TEXTS):
        see(f"select {number}")
        see(f"set @a{number} = 1")
        see("select '" + "x" * (_LONGEST_TEXT + number) + "'")
    assert len(guard._known) <= _MOST_TEXTS
    assert max(map(len, guard._known)) <= _LONGEST_TEXT
    assert len(guard._reported) <= _MOST_REPORTED
    assert len(told) == 3 * _MOST_TEXTS


def test_a_statement_that_was_seen_before_is_looked_up_and_no_more() -> None:
    guard = PinGuard("mysql", "host:1", action="warn", closes=True, emit=lambda event: None)
    see = guard.watcher(Mark())
    see("select 1")
    lines: list[str] = []
    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: lines.append(frame.f_code.co_name))
    try:
        see("select 1")
    finally:
        sys.settrace(before)
    assert lines == ["see"]
