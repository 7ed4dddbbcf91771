from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.events import ConnectionClosed, ConnectionReleased, ConnectionReused, Event
from lambda_dbconn.observers.composite import CompositeObserver
from lambda_dbconn.testing.fakes import RecordingObserver

if TYPE_CHECKING:
    from tests.unit.conftest import MakeManager

EVENT = ConnectionClosed(endpoint="db:5432", reason="idle", age_s=1.0, uses=1)


class Failing:
    def on_event(self, event: Event) -> None:
        raise LookupError("no disk")


def ignoring(*events: type[Event]) -> RecordingObserver:
    observer = RecordingObserver()
    observer.ignores = events
    return observer


def test_each_observer_is_told_what_it_does_not_ignore() -> None:
    one, other = ignoring(), ignoring(ConnectionClosed)
    CompositeObserver(one, other).on_event(EVENT)
    assert (one.events, other.events) == ([EVENT], [])


def test_what_all_of_them_ignore_is_ignored() -> None:
    one, other = ignoring(ConnectionReused, ConnectionReleased), ignoring(ConnectionReleased)
    assert CompositeObserver(one, other).ignores == (ConnectionReleased,)
    assert CompositeObserver(one, Failing()).ignores == ()
    assert CompositeObserver().ignores == ()


def test_one_that_fails_keeps_the_event_from_no_other() -> None:
    observer = ignoring()
    with pytest.raises(ExceptionGroup) as caught:
        CompositeObserver(Failing(), observer, Failing()).on_event(EVENT)
    assert observer.events == [EVENT]
    assert [type(error) for error in caught.value.exceptions] == [LookupError, LookupError]


def test_failing_observers_never_fail_an_invocation(make: MakeManager, caplog: pytest.LogCaptureFixture) -> None:
    observer = ignoring()
    db = make()
    db = type(db)(db.settings, driver=db._driver, clock=db._clock, observer=CompositeObserver(Failing(), observer))
    with db.connection() as conn:
        conn.execute("select 1")
    assert observer.names() == ["ConnectionOpened", "ConnectionReleased"]
    assert caplog.text.count("LookupError: no disk") == 2
