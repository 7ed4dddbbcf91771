"""`AsyncConnectionManager` on a real PostgreSQL: loops that come and go, transactions, clean state, tasks."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from lambda_dbconn import (
    ConnectionInUseError,
    TransactionAbortedError,
    TransactionLeftOpenError,
)
from lambda_dbconn.events import ConnectionReused
from tests.support.async_access import do, manager, session, session_id
from tests.support.clients import wait_until
from tests.support.database import database_of, deed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import Database


@pytest.fixture(params=["postgres-tls"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from database_of(request)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """No thread of ours outlives an invocation."""
    yield
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("lambda_dbconn")])


# --- loops


def test_a_connection_outlives_the_event_loop_and_costs_nothing_in_the_next(database: Database) -> None:
    db = manager(database, reset="never")
    first = session(db)
    database.forget()
    assert [session(db) for _ in range(5)] == [first] * 5
    assert database.cost() == (0, 5)
    assert {type(event) for event in database.observer.events} == {ConnectionReused}


def test_tasks_that_shared_a_connection_in_one_loop_do_not_bind_it_to_that_loop(database: Database) -> None:
    db = manager(database)

    async def share() -> list[int]:
        async with db.connection() as connection:
            return list(await asyncio.gather(*(session_id(connection) for _ in range(5))))

    assert len({number for _ in range(3) for number in asyncio.run(share())}) == 1


def test_a_rest_costs_a_ping_and_a_long_one_a_connection(database: Database) -> None:
    db = manager(database, reset="never")
    first = session(db)
    database.forget()
    database.clock.advance(60)
    assert session(db) == first
    assert database.cost() == (0, 2)
    database.clock.advance(2000)
    assert session(db) != first
    assert database.reasons() == ["idle"]


# --- transactions


def test_a_transaction_commits_costs_two_round_trips_and_rolls_back_on_an_error(database: Database) -> None:
    db, kept, dropped = manager(database, reset="never"), deed(), deed()
    session(db)
    database.forget()

    async def work(name: str, error: Exception | None) -> None:
        async with db.transaction(isolation="serializable") as connection:
            await do(connection, name)
            if error is not None:
                raise error

    asyncio.run(work(kept, None))
    assert database.cost() == (0, 3)
    with pytest.raises(LookupError):
        asyncio.run(work(dropped, LookupError()))
    assert (database.count(kept), database.count(dropped)) == (1, 0)
    assert db.stats().opened == 1


def test_a_transaction_left_open_is_rolled_back_and_is_an_error(database: Database) -> None:
    db, name = manager(database), deed()

    async def leave_open() -> None:
        async with db.connection() as connection:
            await connection.execute("BEGIN")
            await do(connection, name)

    first = session(db)
    with pytest.raises(TransactionLeftOpenError):
        asyncio.run(leave_open())
    assert database.count(name) == 0
    assert session(db) == first


def test_a_failed_transaction_cannot_be_committed_by_catching_its_error(database: Database) -> None:
    db = manager(database)

    async def catch() -> None:
        async with db.transaction() as connection:
            with pytest.raises(psycopg.errors.UndefinedTable):
                await connection.execute("SELECT * FROM no_such_table")

    with pytest.raises(TransactionAbortedError):
        asyncio.run(catch())


def test_run_repeats_what_lost_against_another_and_only_that(database: Database) -> None:
    db, name = manager(database), deed()
    tries = []

    async def work(connection: Any) -> str:
        tries.append(1)
        await do(connection, name)
        if len(tries) < 3:
            await connection.execute("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$")
        return "done"

    assert asyncio.run(db.run(work)) == "done"
    assert (len(tries), database.count(name)) == (3, 1)

    async def fail(_connection: Any) -> None:
        tries.append(1)
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(db.run(fail))
    assert len(tries) == 4


# --- clean state


def test_settings_and_listen_are_gone_in_the_next_invocation(database: Database) -> None:
    db = manager(database)

    async def touch() -> None:
        async with db.connection() as connection:
            await connection.execute("SET statement_timeout = 7000")
            await connection.execute("LISTEN jobs")
            await connection.execute("NOTIFY jobs, 'old'")
            await connection.set_autocommit(False)

    async def look() -> tuple[Any, Any, bool]:
        async with db.connection() as connection:
            timeout = await (await connection.execute("SHOW statement_timeout")).fetchone()
            channels = await (await connection.execute("SELECT pg_listening_channels()")).fetchall()
            assert [n async for n in connection.notifies(timeout=0)] == []
            return timeout, channels, connection.autocommit

    first = session(db)
    asyncio.run(touch())
    assert asyncio.run(look()) == (("0",), [], True)
    assert session(db) == first


def test_a_stream_left_in_the_middle_costs_the_connection(database: Database) -> None:
    db = manager(database)

    async def leave() -> None:
        async with db.connection() as connection:
            rows = connection.cursor().stream("SELECT * FROM generate_series(1, 100000)")
            await anext(rows)
            connection.left = rows
        await rows.aclose()

    first = session(db)
    asyncio.run(leave())
    assert session(db) != first
    assert database.reasons() == ["unclean"]


# --- tasks


def test_each_task_has_a_connection_and_there_are_no_more_than_allowed(database: Database) -> None:
    db = manager(database, max_connections=3, connect_timeout_s=2.0)

    async def hold(both: asyncio.Barrier) -> int:
        async with db.connection() as connection:
            await both.wait()
            number = await session_id(connection)
            await both.wait()
            return number

    async def work() -> list[int]:
        barrier = asyncio.Barrier(4)
        tasks = [asyncio.create_task(hold(barrier)) for _ in range(3)]
        await barrier.wait()
        with pytest.raises(ConnectionInUseError, match="the limit is 3"):
            async with db.connection():
                pytest.fail("it was lent")
        await barrier.wait()
        return list(await asyncio.gather(*tasks))

    assert len(set(asyncio.run(work()))) == 3
    assert (db.stats().opened, db.stats().in_use) == (3, 0)


def test_a_second_borrow_in_the_same_task_is_an_error_and_harms_nothing(database: Database) -> None:
    db, name = manager(database, max_connections=2), deed()

    async def twice() -> None:
        async with db.transaction() as connection:
            with pytest.raises(ConnectionInUseError, match="this task"):
                async with db.connection():
                    pytest.fail("it was lent twice")
            await do(connection, name)

    asyncio.run(twice())
    assert database.count(name) == 1


# --- the doctor


def test_the_doctor_goes_the_whole_way_beside_the_cached_connection(database: Database) -> None:
    db = manager(database)
    first = session(db)
    diagnosis = asyncio.run(db.doctor())
    assert diagnosis.is_well, str(diagnosis)
    assert session(db) == first


def test_the_doctor_says_which_step_fails_and_raises_nothing(database: Database) -> None:
    db = manager(database, name="no_such_database")
    diagnosis = asyncio.run(db.doctor())
    assert [step.name for step in diagnosis.steps if step.status == "failed"] == ["login"]
