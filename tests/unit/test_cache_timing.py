from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConnectError, ConnectionInUseError, TransactionLeftOpenError
from lambda_dbconn.events import ConnectionReleased
from lambda_dbconn.testing.fakes import FakeContext
from tests.unit.conftest import in_child

if TYPE_CHECKING:
    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver

    Manager = ConnectionManager[FakeConnection]

WHERE = "localhost:5432"


class LambdaContext(FakeContext):
    aws_request_id = "the-request"


@pytest.fixture(autouse=True)
def who_listens(observer: RecordingObserver) -> None:
    observer.ignores = ()


def ended(outcome: str, *, wait_s: float = 0.0, use_s: float = 0.0, request_id: str = "") -> ConnectionReleased:
    return ConnectionReleased(endpoint=WHERE, outcome=outcome, wait_s=wait_s, use_s=use_s, request_id=request_id)


def test_each_loan_ends_with_how_long_it_was_waited_for_and_had(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    server.connect_takes_s = 0.25
    for use_s in (2.0, 3.0):
        with db.connection():
            clock.advance(use_s)
    assert observer.of(ConnectionReleased) == [ended("opened", wait_s=0.25, use_s=2.0), ended("reused", use_s=3.0)]
    assert observer.names() == ["ConnectionOpened", "ConnectionReleased", "ConnectionReused", "ConnectionReleased"]


def test_a_connection_that_took_the_place_of_another_is_opened_and_not_reused(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    for _ in range(2):
        with db.connection():
            pass
        server.hang_up()
    assert [event.outcome for event in observer.of(ConnectionReleased)] == ["opened", "opened"]


def test_a_loan_that_could_not_be_had_is_over_at_once(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    server.connect_takes_s = 0.5
    server.refuse(error=ConnectError("no such database"))
    with pytest.raises(ConnectError), db.connection():
        pytest.fail("nothing was to be lent")
    assert observer.names() == ["ConnectFailed", "ConnectionReleased"]
    assert observer.of(ConnectionReleased) == [ended("failed", wait_s=0.5)]


def test_a_second_borrow_by_the_same_thread_is_a_failed_loan_and_leaves_the_first_alone(
    db: Manager, observer: RecordingObserver
) -> None:
    with db.connection():
        with pytest.raises(ConnectionInUseError), db.connection():
            pytest.fail("nothing was to be lent")
        assert observer.of(ConnectionReleased) == [ended("failed")]
    assert [event.outcome for event in observer.of(ConnectionReleased)] == ["failed", "opened"]


def test_the_end_of_a_loan_is_its_last_event_also_when_the_return_raises(
    db: Manager, observer: RecordingObserver
) -> None:
    with pytest.raises(TransactionLeftOpenError), db.connection() as conn:
        conn.execute("begin")
    assert observer.names() == ["ConnectionOpened", "TransactionRolledBack", "ConnectionReleased"]


def test_a_transaction_is_one_loan(db: Manager, observer: RecordingObserver) -> None:
    with db.transaction() as conn:
        conn.execute("select 1")
    assert observer.of(ConnectionReleased) == [ended("opened")]


@pytest.mark.parametrize("way", ["connection", "transaction"])
def test_the_lambda_contexts_request_id_is_told(
    db: Manager, clock: FakeClock, observer: RecordingObserver, way: str
) -> None:
    with getattr(db, way)(LambdaContext(clock, 3.0)):
        pass
    assert observer.of(ConnectionReleased) == [ended("opened", request_id="the-request")]


def test_the_childs_return_of_its_parents_loan_is_no_end_of_a_loan(db: Manager, observer: RecordingObserver) -> None:
    loan = db.connection()
    loan.__enter__()

    def give_back() -> int:
        loan.__exit__(None, None, None)
        return len(observer.of(ConnectionReleased))

    assert in_child(give_back) == "0"
    loan.__exit__(None, None, None)
    assert len(observer.of(ConnectionReleased)) == 1


def test_an_observer_that_ignores_the_end_of_a_loan_is_not_told(db: Manager, observer: RecordingObserver) -> None:
    observer.ignores = (ConnectionReleased,)
    with db.connection():
        pass
    assert observer.of(ConnectionReleased) == observer.of(ConnectionReleased)
