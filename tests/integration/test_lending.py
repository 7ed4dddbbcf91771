"""What a borrow costs on a healthy server, counted on the wire, and what else a manager does there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConnectError, DeadlineExceededError
from lambda_dbconn.events import ConnectionClosed, ConnectionOpened
from tests.support.clients import wait_until
from tests.support.database import deed, do, fetch

if TYPE_CHECKING:
    from lambda_dbconn import ConnectionManager
    from tests.support.database import Database


class LambdaContext:
    """What Lambda passes to a handler, as far as it matters here."""

    def __init__(self, remaining_ms: int) -> None:
        self._remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._remaining_ms


def warm(database: Database, **changes: Any) -> ConnectionManager[Any]:
    """Return a manager whose connection is open, and begin to count."""
    db = database.counted(**changes)
    assert db.warm_up()
    database.forget()
    return db


# Round trips


def test_opening_costs_one_connect_and_what_the_driver_must_say(database: Database) -> None:
    db = database.manager()
    assert database.cost() == (0, 0), "a manager opens nothing by itself"
    with db.connection():
        connects, round_trips = database.cost()
    assert connects == 1
    assert round_trips in database.round_trips_of_a_connect


def test_a_borrow_alone_costs_no_round_trip(database: Database) -> None:
    db = warm(database)
    for _ in range(10):
        with db.connection():
            pass
    assert database.cost() == (0, 0)


def test_one_statement_costs_one_round_trip(database: Database) -> None:
    db = warm(database)
    for number in range(10):
        with db.connection() as connection:
            fetch(connection, "SELECT %s", number)
    assert database.cost() == (0, 10)


def test_one_write_costs_one_round_trip(database: Database) -> None:
    db, name = warm(database), deed()
    for _ in range(3):
        with db.connection() as connection:
            do(connection, name)
    assert database.cost() == (0, 3)
    assert database.count(name) == 3


@pytest.mark.parametrize("read_only", [False, True])
def test_a_transaction_costs_two_round_trips_beside_its_own(read_only: bool, database: Database) -> None:
    db = warm(database)
    with db.transaction(read_only=read_only) as connection:
        fetch(connection, "SELECT 1")
    assert database.cost() == (0, 3)


def test_a_transaction_that_fails_costs_no_more(database: Database) -> None:
    db = warm(database)
    with pytest.raises(ZeroDivisionError), db.transaction() as connection:
        1 / fetch(connection, "SELECT 0")[0][0]
    assert database.cost() == (0, 3)


def test_a_level_of_isolation_costs_what_the_docs_say(database: Database) -> None:
    db = warm(database)
    with db.transaction(isolation="serializable") as connection:
        fetch(connection, "SELECT 1")
    assert database.cost() == (0, 3 if database.is_postgresql else 6)


def test_run_costs_what_a_transaction_costs_and_returns_what_its_function_returns(database: Database) -> None:
    db, name = warm(database), deed()

    def work(connection: Any) -> str:
        do(connection, name)
        return name

    assert db.run(work) == name
    assert database.cost() == (0, 3)
    assert database.count(name) == 1


def test_a_statement_after_an_error_of_the_application_costs_one_round_trip(database: Database) -> None:
    db = warm(database)
    with pytest.raises(ZeroDivisionError), db.connection() as connection:
        1 / fetch(connection, "SELECT 0")[0][0]
    with db.connection() as connection:
        fetch(connection, "SELECT 1")
    assert database.cost() == (0, 2)


# Warm up, close, count


def test_warm_up_connects_and_the_first_borrow_finds_the_connection(database: Database) -> None:
    db = database.manager()
    assert db.warm_up() is True
    assert database.relay.connects == 1
    with db.connection() as connection:
        fetch(connection, "SELECT 1")
    assert database.relay.connects == 1


def test_warm_up_raises_nothing_and_the_first_borrow_says_what_is_wrong(database: Database) -> None:
    database.relay.refuse()
    db = database.manager(connect_timeout_s=1.0)
    assert db.warm_up() is False
    with pytest.raises(ConnectError), db.connection():
        pytest.fail("it is connected")
    database.relay.accept()
    assert db.warm_up() is True


def test_close_ends_the_session_on_the_server_and_the_next_borrow_opens_another(database: Database) -> None:
    db = database.manager()
    with db.connection() as connection:
        session_id = database.session_id(connection)
    assert session_id in database.server.session_ids()
    db.close()
    wait_until(lambda: session_id not in database.server.session_ids())
    db.close()
    assert [event.reason for event in database.observer.of(ConnectionClosed)] == ["closed"]
    with db.connection() as connection:
        assert database.session_id(connection) != session_id
    assert [event.reason for event in database.observer.of(ConnectionOpened)] == ["first", "first"]


def test_close_during_a_loan_ends_the_session_when_it_comes_back(database: Database) -> None:
    db, name = database.manager(), deed()
    with db.transaction() as connection:
        do(connection, name)
        db.close()
        do(connection, name)
    database.relay.wait_for_connections(0)
    assert database.count(name) == 2
    assert db.stats().open == 0


def test_stats_tell_what_happened(database: Database) -> None:
    db = database.manager()
    for _ in range(3):
        with db.connection():
            assert db.stats().in_use == 1
    database.clock.advance(3600)
    with db.connection():
        pass
    stats = db.stats()
    assert (stats.opened, stats.reused, stats.closed) == (2, 2, 1)
    assert stats.replaced == {"idle": 1}
    assert (stats.open, stats.in_use) == (1, 0)
    assert (stats.connect_failures, stats.ping_failures, stats.rolled_back) == (0, 0, 0)


# The reader


def test_the_reader_is_another_session_at_the_other_host(database: Database) -> None:
    db = database.manager(reader_host="localhost")
    with db.connection() as connection, db.reader.connection() as reading:
        assert database.session_id(connection) != database.session_id(reading)
    assert db.reader is db.reader
    assert db.reader.settings.host == "localhost"
    assert {event.endpoint.partition(":")[0] for event in database.observer.of(ConnectionOpened)} == {
        "127.0.0.1",
        "localhost",
    }
    db.close()
    database.relay.wait_for_connections(0)


def test_without_a_reader_host_the_reader_is_the_manager_itself(database: Database) -> None:
    db = database.manager()
    assert db.reader is db


# Handlers


def test_a_decorated_handler_gets_the_connection_within_the_time_of_its_context(database: Database) -> None:
    db, name = database.manager(reserve_s=0.5), deed()

    @db.with_connection
    def handler(event: dict[str, str], context: LambdaContext, conn: Any) -> int:
        do(conn, event["name"])
        return database.session_id(conn)

    assert handler({"name": name}, LambdaContext(60_000)) == handler({"name": name}, LambdaContext(60_000))
    assert database.count(name) == 2
    db.close()
    with pytest.raises(DeadlineExceededError):
        handler({"name": name}, LambdaContext(400))
    assert database.count(name) == 2


def test_a_decorated_transaction_is_rolled_back_when_its_handler_fails(database: Database) -> None:
    db, name = database.manager(), deed()

    @db.with_transaction
    def handler(event: dict[str, bool], context: LambdaContext, conn: Any) -> None:
        do(conn, name)
        if event["fails"]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        handler({"fails": True}, LambdaContext(60_000))
    assert database.count(name) == 0
    handler({"fails": False}, LambdaContext(60_000))
    assert database.count(name) == 1


HANDLER = """
import json, sys
import lambda_dbconn

db = lambda_dbconn.from_env()

def handler(event, context):
    with db.connection(context) as conn, conn.cursor() as cur:
        cur.execute("select 'good'")
        return cur.fetchall()[0][0]

answers = [handler({}, None) for _ in range(3)]
assert lambda_dbconn.from_env() is db
unused = [name for name in ("boto3", "botocore", "tenacity", "aws_lambda_powertools") if name in sys.modules]
stats = db.stats()
db.close()
print(json.dumps({"answers": answers, "unused": unused, "opened": stats.opened, "reused": stats.reused}))
"""


@pytest.mark.parametrize("way", ["url", "variables"])
def test_a_fresh_process_with_nothing_but_its_environment_answers(way: str, database: Database) -> None:
    settings, password = database.settings(), database.server.password
    where = {"DB_SSLROOTCERT": str(settings.sslrootcert)}
    if way == "url":
        where["DATABASE_URL"] = (
            f"{settings.engine}://{settings.user}:{password}@{settings.host}:{settings.port}/{settings.name}"
        )
    else:
        names = {"ENGINE": settings.engine, "HOST": settings.host, "PORT": settings.port, "NAME": settings.name}
        where |= {f"DB_{name}": str(value) for name, value in names.items()}
        where |= {"DB_USER": str(settings.user), "DB_PASSWORD": password}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HANDLER],
        env=os.environ | where,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not done.stderr
    assert json.loads(done.stdout) == {"answers": ["good"] * 3, "unused": [], "opened": 1, "reused": 2}
