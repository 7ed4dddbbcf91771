"""`AsyncConnectionManager` on a real PostgreSQL: loops that come and go, tasks, cancellation, deadlines, faults."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from lambda_dbconn import (
    AsyncConnectionManager,
    CommitUnknownError,
    ConnectError,
    ConnectionInUseError,
    Credentials,
    DeadlineExceededError,
    Secret,
    Settings,
    TransactionAbortedError,
    TransactionLeftOpenError,
)
from lambda_dbconn.events import ConnectionClosed, ConnectionReused
from lambda_dbconn.testing.certificates import Certificates
from tests.support.clients import wait_until
from tests.support.database import LIMIT_S, database_of, deed, wait_for_end
from tests.support.rds_proxy import KEY, make_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from lambda_dbconn.testing.servers import LocalPostgres
    from tests.support.database import Database

SLEEP_S = 61


@pytest.fixture(params=["postgres-tls"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from database_of(request)


@pytest.fixture(params=["own_postgres-tls"])
def own_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from database_of(request)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """No thread of ours outlives an invocation."""
    yield
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("lambda_dbconn")])


def manager(database: Database, **changes: Any) -> AsyncConnectionManager[Any]:
    db: AsyncConnectionManager[Any] = AsyncConnectionManager(
        database.settings(**changes), clock=database.clock, observer=database.observer
    )
    database._managers.callback(db._close)
    return db


async def session_id(connection: Any) -> int:
    cursor = await connection.execute("SELECT pg_backend_pid()")
    return int((await cursor.fetchone())[0])


async def do(connection: Any, name: str) -> None:
    await connection.execute("INSERT INTO deeds (name) VALUES (%s)", [name])


def session(db: AsyncConnectionManager[Any], *, context: float | None = None) -> int:
    """Be an invocation: a loop of its own, and one statement."""

    async def ask() -> int:
        async with db.connection(context) as connection:
            return await session_id(connection)

    return asyncio.run(ask())


def sleepers(database: Database) -> int:
    where = "state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"
    return int(
        database.backend.query(f"SELECT count(*) FROM pg_stat_activity WHERE {where}", f"%sleep({SLEEP_S})%")[0][0]
    )


async def sleep(connection: Any) -> None:
    await connection.execute(f"SELECT pg_sleep({SLEEP_S})")


# --- loops


def test_a_connection_outlives_the_event_loop_and_costs_nothing_in_the_next(database: Database) -> None:
    db = manager(database)
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
    db = manager(database)
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
    db, kept, dropped = manager(database), deed(), deed()
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
    db = manager(database, max_connections=3)

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
        with pytest.raises(ConnectionInUseError, match="all 3 connections"):
            async with db.connection():
                pytest.fail("it was lent")
        await barrier.wait()
        return list(await asyncio.gather(*tasks))

    assert len(set(asyncio.run(work()))) == 3
    assert (db.stats().opened, db.stats().lent_now) == (3, 0)


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


# --- cancellation


async def cancel_when(condition: Callable[[], bool], work: Coroutine[Any, Any, Any]) -> None:
    task = asyncio.create_task(work)
    for _ in range(2000):
        if condition():
            break
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_statement_is_stopped_and_costs_its_connection(database: Database) -> None:
    db, name = manager(database), deed()

    async def work() -> None:
        async with db.transaction() as connection:
            await do(connection, name)
            await sleep(connection)

    first = session(db)
    asyncio.run(cancel_when(lambda: sleepers(database) == 1, work()))
    wait_until(lambda: sleepers(database) == 0)
    assert (db.stats().lent_now, db.stats().open_now) == (0, 0)
    assert session(db) != first
    assert database.count(name) == 0


def test_a_task_cancelled_between_statements_costs_no_connection(database: Database) -> None:
    db, name = manager(database), deed()
    is_there = []

    async def work() -> None:
        async with db.transaction() as connection:
            await do(connection, name)
            is_there.append(1)
            await asyncio.sleep(60)

    first = session(db)
    asyncio.run(cancel_when(lambda: bool(is_there), work()))
    assert database.count(name) == 0
    assert session(db) == first


def test_a_task_cancelled_while_a_connection_is_opened_leaves_none(database: Database) -> None:
    db = manager(database)
    database.relay.freeze()

    async def work() -> None:
        async with db.connection():
            pytest.fail("it was lent")

    try:
        asyncio.run(cancel_when(lambda: database.relay.connects > 0, work()))
    finally:
        database.relay.heal()
    assert db.stats().lent_now == 0
    assert session(db) > 0
    wait_until(lambda: database.relay.connects >= 2)
    asyncio.run(db.close())
    database.relay.wait_for_connections(0)


def test_a_task_cancelled_while_its_connection_is_pinged_leaves_none(database: Database) -> None:
    db = manager(database)
    first = session(db)
    database.clock.advance(60)
    database.relay.freeze()
    database.relay.reset_counters()

    async def work() -> None:
        async with db.connection():
            pytest.fail("it was lent")

    async def cancel_soon() -> None:
        task = asyncio.create_task(work())
        for _ in range(5):  # which takes it to the ping, and the ping to its wait
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(cancel_soon())
    finally:
        database.relay.heal()
    assert (db.stats().lent_now, db.stats().open_now) == (0, 0)
    assert session(db) != first


def test_a_time_limit_of_asyncios_ends_a_statement_too(database: Database) -> None:
    db = manager(database)

    async def work() -> None:
        async with db.connection() as connection, asyncio.timeout(0.2):
            await sleep(connection)

    with pytest.raises(TimeoutError):
        asyncio.run(work())
    wait_until(lambda: sleepers(database) == 0)
    assert session(db) > 0


# --- the invocation's time


async def read_plainly(connection: Any) -> None:
    await sleep(connection)


async def read_streamed(connection: Any) -> None:
    async for _ in connection.cursor().stream(f"SELECT pg_sleep({SLEEP_S})"):
        pass


async def read_server_side(connection: Any) -> None:
    async with connection.transaction(), connection.cursor("named") as cursor:
        await cursor.execute(f"SELECT pg_sleep({SLEEP_S})")
        await cursor.fetchall()


async def copy_out(connection: Any) -> None:
    async with connection.cursor().copy(f"COPY (SELECT pg_sleep({SLEEP_S})) TO STDOUT") as copy:
        await copy.read()


@pytest.mark.parametrize("read", [read_plainly, read_streamed, read_server_side, copy_out])
def test_a_statement_that_takes_too_long_is_cut_short_and_stopped(
    database: Database, read: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    db = manager(database, reserve_s=0.5)

    async def work() -> None:
        async with db.connection(1.0) as connection:
            await read(connection)

    with pytest.raises(DeadlineExceededError, match="time is over"):
        asyncio.run(work())
    assert [event.reason for event in database.observer.of(ConnectionClosed)] == ["deadline"]
    wait_until(lambda: sleepers(database) == 0)
    assert session(db, context=LIMIT_S) > 0


def test_a_commit_without_an_answer_is_unknown_and_is_not_waited_for(database: Database) -> None:
    db, name = manager(database, reserve_s=0.5), deed()

    async def work() -> None:
        async with db.transaction(1.0) as connection:
            await do(connection, name)
            database.relay.freeze()

    try:
        with pytest.raises(CommitUnknownError):
            asyncio.run(work())
    finally:
        database.relay.heal()
    assert db.stats().open_now == 0


def test_the_limit_of_one_loan_is_not_that_of_the_next(database: Database) -> None:
    db = manager(database, reserve_s=0)

    async def work() -> None:
        async with db.connection(LIMIT_S):
            pass
        async with db.connection() as connection:
            assert connection.cutoff is None

    asyncio.run(work())


# --- faults


def end_session(database: Database, number: int, fileno: int) -> None:
    database.backend.query("SELECT pg_terminate_backend(%s)", number)
    wait_for_end(fileno)


def hang_up(database: Database, _number: int, fileno: int) -> None:
    database.relay.fin()
    wait_for_end(fileno)


def restart(database: Database, _number: int, fileno: int) -> None:
    database.backend.restart()
    wait_for_end(fileno)


@pytest.mark.parametrize("fault", [end_session, hang_up, restart])
def test_a_session_that_ended_between_invocations_is_replaced_unnoticed(
    own_database: Database, fault: Callable[[Database, int, int], None]
) -> None:
    database = own_database
    db = manager(database)
    first = session(db)
    (slot,) = db._lender._slots
    fault(database, first, slot.connection.fileno())
    database.observer.events.clear()
    assert session(db) > 0
    assert database.reasons() == ["hang_up"]


def test_a_path_that_was_cut_silently_is_found_by_the_ping(database: Database) -> None:
    db = manager(database)
    first = session(db)
    database.relay.vanish()
    database.clock.advance(60)
    database.observer.events.clear()
    assert session(db) != first
    assert database.reasons() == ["ping_failed"]


def test_begin_finds_a_session_that_is_gone_and_takes_another(database: Database) -> None:
    db, name = manager(database), deed()
    first = session(db)
    (slot,) = db._lender._slots

    async def work() -> None:
        slot.poll = lambda _timeout_ms: []  # as behind a proxy, whose socket says nothing
        async with db.transaction() as connection:
            await do(connection, name)

    end_session(database, first, slot.connection.fileno())
    asyncio.run(work())
    assert database.count(name) == 1
    assert database.reasons() == ["lost"]


def test_credentials_that_are_refused_are_asked_for_once_more_and_off_the_loop(database: Database) -> None:
    passwords = [Secret("expired"), Secret(database.server.password)]
    threads = []

    class Provider:
        def fetch(self, _settings: Any, _deadline: Any) -> Credentials:
            threads.append(threading.current_thread())
            return Credentials(user=database.server.user, password=passwords[0])

        def refused(self, _credentials: Credentials) -> bool:
            return bool(passwords.pop(0))

    db: AsyncConnectionManager[Any] = AsyncConnectionManager(database.settings(), credentials=Provider())
    assert session(db) > 0
    asyncio.run(db.close())
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_an_endpoint_that_is_not_there_is_an_error_and_warm_up_raises_nothing(own_database: Database) -> None:
    database = own_database
    db = manager(database, connect_timeout_s=0.3)
    assert asyncio.run(db.warm_up())
    asyncio.run(db.close())
    database.backend.stop()
    assert not asyncio.run(db.warm_up())
    with pytest.raises(ConnectError):
        session(db)
    assert db.stats().lent_now == 0


# --- RDS Proxy's stand-in


def test_behind_rds_proxy_with_a_token_nothing_pins_and_a_cancelled_statement_is_not_waited_for(
    postgres: LocalPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing_host = "the-proxy.proxy-demo.us-east-1.rds.amazonaws.com"
    certificates = Certificates.create(tmp_path, extra_names=(signing_host,))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY.secret_access_key)
    with make_proxy(
        postgres,
        certificates=certificates,
        auth="iam",
        aws_keys=[KEY],
        signing_host=signing_host,
        max_database_connections=1,
    ) as proxy:
        db: AsyncConnectionManager[Any] = AsyncConnectionManager(
            Settings(
                engine="postgresql",
                host=proxy.host,
                port=proxy.port,
                name=postgres.database,
                user=postgres.user,
                auth="iam",
                signing_host=signing_host,
                sslrootcert=str(certificates.ca_path),
            )
        )

        async def work() -> None:
            async with db.connection(LIMIT_S) as connection:
                await connection.execute("SELECT %s + 1", [1])
            async with db.transaction(LIMIT_S) as connection:
                await connection.execute("SELECT %s + 1", [1])

        asyncio.run(work())
        asyncio.run(work())
        assert (db.stats().opened, proxy.stats().pins) == (1, {})

        async def cancelled() -> None:
            async with db.connection() as connection, asyncio.timeout(0.2):
                await connection.execute("SELECT pg_sleep(3)")

        with pytest.raises(TimeoutError):
            asyncio.run(cancelled())
        running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(3)'"
        assert postgres.query(running) == [(1,)], "it was waited for, or told to stop, which the proxy does not know"
        assert db.stats().open_now == 0
        asyncio.run(db.close())
