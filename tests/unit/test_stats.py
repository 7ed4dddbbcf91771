from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionReplaced,
    ConnectionReused,
    Event,
    EventDispatcher,
    PingFailed,
    Stats,
    TransactionRolledBack,
)
from tests.unit.conftest import in_thread

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import RecordingObserver

WHERE = "db:5432"
OPENED = ConnectionOpened(endpoint=WHERE, reason="first", attempts=1, duration_s=0.1)
REPLACED = ConnectionReplaced(endpoint=WHERE, reason="idle", age_s=1.0, idle_s=1.0)


class Failing:
    def on_event(self, event: Event) -> None:
        raise LookupError("no disk")


def test_every_event_is_passed_on_and_counted(observer: RecordingObserver) -> None:
    recorder = EventDispatcher(observer)
    events = [
        OPENED,
        ConnectionClosed(endpoint=WHERE, reason="idle", age_s=1.0, uses=1),
        REPLACED,
        REPLACED.replace(reason="lost"),
        REPLACED,
        OPENED,
        ConnectFailed(endpoint=WHERE, error="e", attempt=1, duration_s=0.1),
        PingFailed(endpoint=WHERE, idle_s=1.0, error="e"),
        TransactionRolledBack(endpoint=WHERE, is_left_open=True),
    ]
    for event in events:
        recorder.emit(event)
    assert observer.events == events
    assert recorder.stats(uses=7, open_count=1, in_use=0) == Stats(
        opened=2,
        reused=5,
        replaced={"idle": 2, "lost": 1},
        closed=1,
        connect_failures=1,
        ping_failures=1,
        rolled_back=1,
        open=1,
        in_use=0,
    )


def test_stats_are_a_snapshot(observer: RecordingObserver) -> None:
    recorder = EventDispatcher(observer)
    before = recorder.stats(uses=0, open_count=0, in_use=0)
    recorder.emit(REPLACED)
    assert before.replaced == {}


def test_what_an_observer_ignores_is_counted_all_the_same(observer: RecordingObserver) -> None:
    observer.ignores = (ConnectionReused, ConnectionOpened)
    recorder = EventDispatcher(observer)
    recorder.emit(OPENED)
    assert observer.events == []
    assert recorder.stats(uses=1, open_count=1, in_use=0).opened == 1
    assert not recorder.is_enabled_for(ConnectionReused)
    assert recorder.is_enabled_for(ConnectionClosed)


def test_an_observer_that_does_not_say_what_it_ignores_is_told_everything() -> None:
    assert EventDispatcher(Failing()).is_enabled_for(ConnectionReused)


def test_an_observer_that_fails_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    recorder = EventDispatcher(Failing())
    recorder.emit(OPENED)
    assert recorder.stats(uses=1, open_count=1, in_use=0).opened == 1
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("lambda_dbconn", logging.ERROR)
    assert record.getMessage() == "the observer failed on ConnectionOpened"
    assert "no disk" in caplog.text


def test_an_interruption_of_an_observer_is_not_swallowed() -> None:
    class Interrupted:
        def on_event(self, event: Event) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EventDispatcher(Interrupted()).emit(OPENED)


def test_counts_of_several_threads_add_up(observer: RecordingObserver) -> None:
    recorder = EventDispatcher(observer)

    def tell_many() -> None:
        for _ in range(25):
            recorder.emit(REPLACED)

    for _ in range(4):
        in_thread(tell_many)
    assert recorder.stats(uses=0, open_count=0, in_use=0).replaced == {"idle": 100}


def test_a_renewed_recorder_counts_from_zero_with_a_lock_of_its_own(observer: RecordingObserver) -> None:
    recorder = EventDispatcher(observer)
    recorder.emit(REPLACED)
    recorder._counting.acquire()  # as a thread may have that the fork left behind
    recorder.renew()
    recorder.emit(OPENED)
    stats = recorder.stats(uses=1, open_count=1, in_use=0)
    assert (stats.opened, stats.replaced) == (1, {})
