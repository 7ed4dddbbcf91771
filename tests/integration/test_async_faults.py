"""`AsyncConnectionManager` on a real PostgreSQL: cancellation, the invocation's time, faults, RDS Proxy's stand-in."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from lambda_dbconn import (
    AsyncConnectionManager,
    CommitUnknownError,
    ConnectError,
    Credentials,
    DeadlineExceededError,
    Secret,
    Settings,
)
from lambda_dbconn.cache import connector
from lambda_dbconn.events import ConnectionClosed
from lambda_dbconn.testing.certificates import Certificates
from tests.support.async_access import SLEEP_S, do, manager, session, sleep, sleepers
from tests.support.clients import wait_until
from tests.support.database import LIMIT_S, database_of, deed, wait_for_end
from tests.support.rds_proxy import KEY, make_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from lambda_dbconn.testing.servers import LocalPostgres
    from tests.support.database import Database

pytestmark = pytest.mark.usefixtures("time_to_tell")


@pytest.fixture(params=["postgres-tls"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from database_of(request)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """No thread of ours outlives an invocation."""
    yield
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("lambda_dbconn")])


@pytest.fixture(params=["own_postgres-tls"])
def own_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from database_of(request)


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
    assert (db.stats().in_use, db.stats().open) == (0, 0)
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
    assert db.stats().in_use == 0
    assert session(db) > 0
    wait_until(lambda: database.relay.connects >= 2)
    asyncio.run(db.close())
    database.relay.wait_for_connections(0)


def test_a_task_cancelled_while_its_connection_is_pinged_leaves_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "INTERRUPT_LIMIT_S", 0.1)  # it cannot be told, and that would be waited for
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
    assert (db.stats().in_use, db.stats().open) == (0, 0)
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


def test_a_commit_without_an_answer_is_unknown_and_is_not_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "INTERRUPT_LIMIT_S", 0.1)  # it cannot be told, and that would be waited for
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
    assert db.stats().open == 0


def test_the_limit_of_one_loan_is_not_that_of_the_next(database: Database) -> None:
    db = manager(database, reserve_s=0)

    async def work() -> None:
        async with db.connection(LIMIT_S):
            pass
        async with db.connection() as connection:
            assert connection.scope is not None
            assert connection.scope.left_s() == float("inf")

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
    (slot,) = db._cache._slots
    fault(database, first, slot.connection.fileno())
    database.observer.events.clear()
    assert session(db) > 0
    assert database.reasons() == ["hang_up"]


def test_a_path_that_was_cut_silently_is_found_by_the_ping(database: Database) -> None:
    db = manager(database, reset="never")
    first = session(db)
    database.relay.vanish()
    database.clock.advance(60)
    database.observer.events.clear()
    assert session(db) != first
    assert database.reasons() == ["ping_failed"]


def test_begin_finds_a_session_that_is_gone_and_takes_another(database: Database) -> None:
    db, name = manager(database), deed()
    first = session(db)
    (slot,) = db._cache._slots

    async def work() -> None:
        slot._poll = cast("Any", lambda _timeout_ms: [])  # as behind a proxy, whose socket says nothing
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
    db = manager(database, connect_timeout_s=1.0)
    assert asyncio.run(db.warm_up())
    asyncio.run(db.close())
    database.backend.stop()
    assert not asyncio.run(db.warm_up())
    with pytest.raises(ConnectError):
        session(db)
    assert db.stats().in_use == 0


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
        assert db.stats().open == 0
        asyncio.run(db.close())
