"""`ping(reconnect=True)` and `connect()`, which handlers of before call: on a lent connection of PyMySQL's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from lambda_dbconn import DeadlineExceededError
from tests.support.database import LIMIT_S, MYSQL_TLS, database_of, deed, do, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.database import Database

# PyMySQL says that asking for it is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The 'reconnect' argument is deprecated:DeprecationWarning")

TIME_S = 0.3


@pytest.fixture(params=["mariadb-tls", "mariadb-plain", MYSQL_TLS])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each server, and each way: PyMySQL would open a socket of its own."""
    yield from database_of(request)


def test_a_ping_that_would_reconnect_is_a_ping_while_the_connection_is_good(database: Database) -> None:
    with database.manager().connection() as connection:
        database.forget()
        connection.ping(reconnect=True)
        assert database.cost() == (0, 1)


def ping(connection: Any) -> None:
    connection.ping(reconnect=True)


def connect(connection: Any) -> None:
    connection.connect()


@pytest.mark.parametrize("ask", [ping, connect])
def test_a_lost_connection_does_not_become_another_session_in_the_callers_hands(
    database: Database, ask: Callable[[Any], None]
) -> None:
    db, name = database.manager(), deed()
    with db.connection() as connection:
        number = database.session_id(connection)
        database.backend.execute(f"KILL {number}")
        with pytest.raises(pymysql.OperationalError):
            fetch(connection, "SELECT 1")
        database.forget()
        with pytest.raises(pymysql.OperationalError, match="borrow again") as raised:
            ask(connection)
        assert raised.value.args[0] == 2006
        assert database.relay.connects == 0
    with db.connection(LIMIT_S) as connection:
        assert database.session_id(connection) != number
        do(connection, name)
    assert database.reasons() == ["unclean"]
    assert database.count(name) == 1


def test_a_connection_that_is_good_is_given_up_when_it_is_told_to_connect(database: Database) -> None:
    db = database.manager()
    with db.connection() as connection, pytest.raises(pymysql.OperationalError, match="borrow again"):
        connection.connect()
    with db.connection() as connection:
        assert fetch(connection, "SELECT 1") == ((1,),)
    assert db.stats().open == 1


def test_run_begins_again_on_another_connection(database: Database) -> None:
    db, numbers = database.manager(), []

    def work(connection: Any) -> None:
        numbers.append(database.session_id(connection))
        if len(numbers) == 1:
            database.backend.execute(f"KILL {numbers[0]}")
            with pytest.raises(pymysql.OperationalError):
                fetch(connection, "SELECT 1")
        connection.ping(reconnect=True)

    db.run(work)
    assert len(set(numbers)) == 2


def test_the_end_of_the_time_is_no_reason_to_connect_anew(database: Database) -> None:
    db = database.manager(reserve_s=0.0)
    with db.connection(TIME_S) as connection:
        time.sleep(TIME_S)
        with pytest.raises(DeadlineExceededError):
            connection.ping(reconnect=True)
    assert (db.stats().opened, db.stats().open) == (1, 1)  # nothing was sent: it is as good as it was
