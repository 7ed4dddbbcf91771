from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConnectError, ConnectionManager
from lambda_dbconn.events import (
    ConnectFailed,
    ConnectGaveUp,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionReleased,
    ConnectionReplaced,
    ConnectionReused,
    Event,
    PingFailed,
    TransactionRolledBack,
)
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.testing.fakes import FakeDriver
from tests.unit.conftest import in_fresh_process, local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeServer

WHERE = "db:5432"
LINES = [
    (
        ConnectionOpened(endpoint=WHERE, reason="idle", attempts=1, duration_s=0.0123456789),
        logging.INFO,
        "ConnectionOpened endpoint=db:5432 reason=idle attempts=1 duration_s=0.0123457",
    ),
    (
        ConnectionOpened(endpoint=WHERE, reason="idle", attempts=2, duration_s=0.5),
        logging.WARNING,
        "ConnectionOpened endpoint=db:5432 reason=idle attempts=2 duration_s=0.5",
    ),
    (
        ConnectionReplaced(endpoint=WHERE, reason="idle", age_s=1800.0, idle_s=1600.5),
        logging.DEBUG,
        "ConnectionReplaced endpoint=db:5432 reason=idle age_s=1800 idle_s=1600.5",
    ),
    (
        ConnectFailed(endpoint=WHERE, error="ConnectError: two\nlines and spaces", attempt=1, duration_s=0.25),
        logging.WARNING,
        r"ConnectFailed endpoint=db:5432 error='ConnectError: two\nlines and spaces' attempt=1 duration_s=0.25",
    ),
    (
        ConnectFailed(endpoint=WHERE, error="ConnectError: refused", attempt=2, duration_s=0.25),
        logging.DEBUG,
        "ConnectFailed endpoint=db:5432 error='ConnectError: refused' attempt=2 duration_s=0.25",
    ),
    (
        ConnectGaveUp(endpoint=WHERE, error="ConnectError: refused", attempts=13, duration_s=4.5),
        logging.WARNING,
        "ConnectGaveUp endpoint=db:5432 error='ConnectError: refused' attempts=13 duration_s=4.5",
    ),
    (
        PingFailed(endpoint=WHERE, idle_s=31.0, error="Gone"),
        logging.INFO,
        "PingFailed endpoint=db:5432 idle_s=31 error=Gone",
    ),
    (
        TransactionRolledBack(endpoint=WHERE, is_left_open=True),
        logging.WARNING,
        "TransactionRolledBack endpoint=db:5432 is_left_open=True",
    ),
    (
        TransactionRolledBack(endpoint=WHERE, is_left_open=False),
        logging.DEBUG,
        "TransactionRolledBack endpoint=db:5432 is_left_open=False",
    ),
    (
        ConnectionClosed(endpoint=WHERE, reason="closed", age_s=3.0, uses=2),
        logging.DEBUG,
        "ConnectionClosed endpoint=db:5432 reason=closed age_s=3 uses=2",
    ),
]


@pytest.mark.parametrize(("event", "level", "line"), LINES, ids=lambda value: type(value).__name__)
def test_an_event_is_one_line_with_its_level_and_its_values(
    caplog: pytest.LogCaptureFixture, event: Event, level: int, line: str
) -> None:
    with caplog.at_level(logging.DEBUG, logger="lambda_dbconn"):
        LoggingObserver().on_event(event)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("lambda_dbconn", level, line)
    assert vars(record)["lambda_dbconn"] == vars(event)
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(("event", "level", "line"), LINES, ids=lambda value: type(value).__name__)
def test_what_the_logger_does_not_want_is_not_logged(
    caplog: pytest.LogCaptureFixture, event: Event, level: int, line: str
) -> None:
    with caplog.at_level(level + 1, logger="lambda_dbconn"):
        LoggingObserver().on_event(event)
    assert caplog.records == []


def test_reuse_is_ignored_so_that_the_happy_path_creates_no_event() -> None:
    assert LoggingObserver.ignores == (ConnectionReused, ConnectionReleased)


def test_each_connect_and_reconnect_is_one_line_that_says_why(
    caplog: pytest.LogCaptureFixture, server: FakeServer
) -> None:
    db = ConnectionManager(local(), driver=FakeDriver(server), clock=server.clock)
    with caplog.at_level(logging.INFO, logger="lambda_dbconn"):
        for event in ("start", "warm", "frozen", "warm"):
            server.clock.freeze(2000 if event == "frozen" else 1)
            with db.connection() as conn:
                conn.execute("select 1")
    assert [record.getMessage() for record in caplog.records] == [
        "ConnectionOpened endpoint=localhost:5432 reason=first attempts=1 duration_s=0",
        "ConnectionOpened endpoint=localhost:5432 reason=idle attempts=1 duration_s=0",
    ]


@pytest.mark.parametrize("is_back_in_time", [True, False])
def test_however_often_a_connect_is_retried_two_lines_say_when_it_starts_and_ends_with_the_count(
    caplog: pytest.LogCaptureFixture, server: FakeServer, *, is_back_in_time: bool
) -> None:
    db = ConnectionManager(local(), driver=FakeDriver(server), clock=server.clock)
    server.refuse(6 if is_back_in_time else 1000)
    with caplog.at_level(logging.INFO, logger="lambda_dbconn"):
        if is_back_in_time:
            with db.connection():
                pass
        else:
            with pytest.raises(ConnectError), db.connection():
                pytest.fail("nothing was to be had")
    first, last = caplog.records
    tries = server.counts["open"]
    assert tries > 5
    assert {first.levelname, last.levelname} == {"WARNING"}
    assert first.getMessage().startswith("ConnectFailed")
    assert " attempt=1 " in first.getMessage()
    assert last.getMessage().startswith("ConnectionOpened" if is_back_in_time else "ConnectGaveUp")
    assert f" attempts={tries} " in last.getMessage()


OBSERVE = """
import sys
from lambda_dbconn.events import ConnectFailed, ConnectionOpened
from lambda_dbconn.observers.logging import LoggingObserver
{before}
LoggingObserver().on_event({event})
print("logging" in sys.modules)
"""
OPENED = "ConnectionOpened(endpoint='h:1', reason='first', attempts=1, duration_s=0.1)"
FAILED = "ConnectFailed(endpoint='h:1', error='e', attempt=1, duration_s=0.1)"


@pytest.mark.parametrize(
    ("before", "event", "is_imported"),
    [("", OPENED, "False"), ("", FAILED, "True"), ("import logging", OPENED, "True")],
)
def test_logging_is_imported_only_for_a_warning(before: str, event: str, is_imported: str) -> None:
    assert in_fresh_process(OBSERVE.format(before=before, event=event)) == is_imported
