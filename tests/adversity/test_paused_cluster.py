"""A cluster that is asleep when the first connect comes: it lets it wait, or refuses, until it is up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import ConnectError, ConnectTimeoutError
from lambda_dbconn.events import ConnectFailed, ConnectionOpened
from tests.support.clients import wait_until
from tests.support.database import deed, do, in_background

if TYPE_CHECKING:
    from tests.support.database import Database

pytestmark = pytest.mark.once

ALLOWANCE_S = 60.0  # more than any of these tests needs


def test_a_login_that_waits_for_the_cluster_is_waited_for_when_asked_for(database: Database) -> None:
    db, name = database.manager(connect_timeout_s=ALLOWANCE_S), deed()
    database.relay.freeze()

    def resume() -> None:
        wait_until(lambda: database.relay.connects > 0)
        database.relay.thaw()

    with in_background(resume), db.connection(ALLOWANCE_S) as connection:
        do(connection, name)
    assert database.count(name) == 1
    assert [event.attempts for event in database.observer.of(ConnectionOpened)] == [1]


def test_a_cluster_that_refuses_until_it_is_up_is_asked_again_when_asked_for(database: Database) -> None:
    db, name = database.manager(connect_timeout_s=ALLOWANCE_S), deed()
    database.relay.refuse()

    def resume() -> None:
        wait_until(lambda: len(database.observer.of(ConnectFailed)) >= 3)
        database.relay.accept()

    with in_background(resume), db.connection(ALLOWANCE_S) as connection:
        do(connection, name)
    assert database.count(name) == 1
    (opened,) = database.observer.of(ConnectionOpened)
    assert opened.attempts == len(database.observer.of(ConnectFailed)) + 1 > 3


def test_a_server_that_starts_meanwhile_is_waited_for_as_long_as_asked(own_database: Database) -> None:
    db, name = own_database.manager(connect_timeout_s=ALLOWANCE_S), deed()
    own_database.backend.stop()

    def resume() -> None:
        wait_until(lambda: own_database.observer.of(ConnectFailed))
        own_database.backend.start()

    with in_background(resume), db.connection(ALLOWANCE_S) as connection:
        do(connection, name)
    assert own_database.count(name) == 1


def test_without_the_allowance_it_is_given_up_and_the_next_invocation_goes_on(database: Database) -> None:
    db, name = database.manager(connect_timeout_s=0.3), deed()
    database.relay.freeze()
    with pytest.raises(ConnectTimeoutError, match="CONNECT_TIMEOUT_S"), db.connection(ALLOWANCE_S):
        pytest.fail("it is connected")
    database.relay.thaw()
    patient = database.manager()
    with patient.connection(ALLOWANCE_S) as connection:
        do(connection, name)
    assert database.count(name) == 1


@pytest.mark.parametrize("fault", ["freeze", "refuse"])
def test_the_deadline_ends_the_waiting_whatever_the_allowance(database: Database, fault: str) -> None:
    db = database.manager(connect_timeout_s=ALLOWANCE_S)
    getattr(database.relay, fault)()
    started_s = time.monotonic()
    with pytest.raises(ConnectError), db.connection(1.5):
        pytest.fail("it is connected")
    assert time.monotonic() - started_s < ALLOWANCE_S / 4
