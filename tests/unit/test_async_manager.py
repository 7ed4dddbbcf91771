from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import lambda_dbconn
from lambda_dbconn import (
    AsyncConnectionManager,
    CommitUnknownError,
    ConfigurationError,
    ConnectError,
    ConnectionInUseError,
    DeadlineExceededError,
    TransactionLeftOpenError,
    async_from_env,
)
from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.events import ConnectionReleased, ConnectionReplaced, WarmUpFailed
from lambda_dbconn.testing.fakes import FakeConnection, FakeError
from tests.unit.conftest import in_fresh_process, local

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.testing.fakes import FakeClock, FakeServer, RecordingObserver

    Manager = AsyncConnectionManager[FakeConnection]


@pytest.fixture
def make(make_async: Callable[..., Manager]) -> Callable[..., Manager]:
    return make_async


@pytest.fixture
def db(make: Callable[..., Manager]) -> Manager:
    return make()


def use(db: Manager, *statements: str, context: float | None = None) -> int:
    """Be an invocation."""

    async def work() -> int:
        async with db.connection(context) as conn:
            for statement in statements:
                conn.execute(statement)
            return conn.number

    return asyncio.run(work())


def test_a_connection_is_lent_again_without_a_round_trip(db: Manager, server: FakeServer) -> None:
    assert use(db) == use(db) == 1
    assert (server.counts["open"], server.counts["ping"]) == (1, 0)


def test_a_rest_costs_a_ping(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    use(db)
    clock.advance(60)
    assert use(db) == 1
    assert server.counts["ping"] == 1


def test_a_ping_in_vain_costs_the_connection(
    db: Manager, server: FakeServer, clock: FakeClock, observer: RecordingObserver
) -> None:
    use(db)
    clock.advance(60)
    server.demand("ping", FakeError("gone", ErrorKind.LOST))
    assert use(db) == 2
    assert [event.reason for event in observer.of(ConnectionReplaced)] == ["ping_failed"]


def test_a_transaction_left_open_is_rolled_back_and_is_an_error(db: Manager, server: FakeServer) -> None:
    with pytest.raises(TransactionLeftOpenError):
        use(db, "begin", "insert")
    assert server.sql == ["begin", "insert", "ROLLBACK"]


def test_what_may_be_left_in_the_session_is_reset(db: Manager, server: FakeServer) -> None:
    use(db, "set x.y = 1")
    use(db, "select 1")
    assert (server.counts["send_reset"], server.counts["finish_reset"]) == (2, 1)


def test_a_transaction_is_repeated_by_run_alone(db: Manager, server: FakeServer) -> None:
    server.demand("execute", FakeError("deadlock", ErrorKind.CONFLICT))

    async def work(conn: FakeConnection) -> str:
        conn.execute("insert")
        return "done"

    assert asyncio.run(db.run(work, isolation="serializable")) == "done"
    assert server.committed == ["insert"]
    assert server.sql.count("insert") == 2
    with pytest.raises(ConfigurationError, match="attempts is 0"):
        asyncio.run(db.run(work, attempts=0))


def test_a_commit_that_was_lost_is_unknown_and_not_repeated(db: Manager, server: FakeServer) -> None:
    server.demand("commit", FakeError("gone", ErrorKind.LOST))

    async def work(conn: FakeConnection) -> None:
        conn.execute("insert")

    with pytest.raises(CommitUnknownError):
        asyncio.run(db.run(work))
    assert server.sql.count("insert") == 1


def test_one_connection_to_a_task_and_no_more_than_allowed(make: Callable[..., Manager]) -> None:
    db = make(max_connections=2)

    async def hold(is_held: asyncio.Event, may_end: asyncio.Event) -> None:
        async with db.connection():
            is_held.set()
            await may_end.wait()

    async def work() -> None:
        is_held, may_end = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(hold(is_held, may_end))
        await is_held.wait()
        async with db.connection():
            with pytest.raises(ConnectionInUseError, match="this task"):
                await db.connection().__aenter__()
            with pytest.raises(ConnectionInUseError, match="the limit is 2"):
                await asyncio.create_task(db.connection().__aenter__())
        may_end.set()
        await task

    asyncio.run(work())
    assert db.stats().in_use == 0


def test_a_task_cancelled_in_the_middle_of_cleaning_costs_the_connection(
    make: Callable[..., Manager], server: FakeServer
) -> None:
    db = make(reset="wait")

    async def work() -> None:
        async with db.connection() as conn:
            conn.execute("set x.y = 1")

    async def cancel() -> None:
        task = asyncio.create_task(work())
        while not server.counts["send_reset"]:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def with_a_slow_reset() -> None:
        db._driver.finish_reset = lambda *_, **__: asyncio.sleep(60)  # type: ignore[method-assign, assignment]
        await cancel()

    asyncio.run(with_a_slow_reset())
    assert (server.connections[0].closes, db.stats().in_use, db.stats().open) == (1, 0, 0)


def test_no_time_left_is_an_error_before_anything_is_opened(db: Manager, server: FakeServer) -> None:
    with pytest.raises(DeadlineExceededError):
        use(db, context=0.1)
    assert server.counts["open"] == 0


def test_warm_up_raises_nothing_and_the_reader_is_of_the_same_kind(
    make: Callable[..., Manager], server: FakeServer
) -> None:
    db = make(reader_host="127.0.0.1")
    server.refuses_with = ConnectError("no")
    assert not asyncio.run(db.warm_up())
    server.refuses_with = None
    assert asyncio.run(db.reader.warm_up())
    assert isinstance(db.reader, AsyncConnectionManager)
    asyncio.run(db.close())
    assert [connection.closes for connection in server.connections] == [1]


def test_mysql_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigurationError, match="engine is 'mysql'; accepted with asyncio: postgresql") as caught:
        AsyncConnectionManager(local(engine="mysql"))
    assert "PyMySQL cannot be awaited" in str(caught.value.remedy)


def test_the_environment_gives_the_same_manager_each_time_and_not_the_blocking_one(
    environ: pytest.MonkeyPatch,
) -> None:
    for name, value in {"HOST": "localhost", "USER": "app", "SSLMODE": "disable"}.items():
        environ.setenv(f"DB_{name}", value)
    db = async_from_env()
    assert isinstance(db, AsyncConnectionManager)
    assert db is async_from_env()
    environ.setenv("DB_ENGINE", "mysql")
    with pytest.raises(ConfigurationError, match=r"DB_ENGINE .* says 'mysql', but the code asks for 'postgresql'"):
        async_from_env()


def test_the_process_parts_with_its_idle_connections_as_with_any(db: Manager, server: FakeServer) -> None:
    use(db)
    assert [db._cache.close_one_idle(), db._cache.close_one_idle()] == [True, False]
    assert [connection.closes for connection in server.connections] == [1]
    use(db)
    db._cache.forget()
    assert [connection.closes for connection in server.connections] == [1, 1]
    assert use(db) == 3


def test_connecting_ahead_needs_no_loop_and_bears_one_and_never_raises(
    db: Manager, server: FakeServer, observer: RecordingObserver
) -> None:
    server.demand("open", FakeError("not now", ErrorKind.LOST))
    assert db.warm_up_now() is False
    assert [event.endpoint for event in observer.of(WarmUpFailed)] == ["localhost:5432"]

    async def at_import() -> bool:
        return db.warm_up_now()

    assert asyncio.run(at_import()) is True
    assert use(db) == server.connections[-1].number


def test_the_end_of_each_loan_is_told(make: Callable[..., Manager], observer: RecordingObserver) -> None:
    observer.ignores = ()
    db = make()
    use(db)
    use(db)
    with pytest.raises(TransactionLeftOpenError):
        use(db, "begin")
    assert [event.outcome for event in observer.of(ConnectionReleased)] == ["opened", "reused", "reused"]
    assert observer.names()[-1] == "ConnectionReleased"


def test_asyncio_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, lambda_dbconn\nbefore = 'asyncio' in sys.modules\n"
    asked = "lambda_dbconn.AsyncConnectionManager\nprint(before, 'asyncio' in sys.modules)"
    assert in_fresh_process(code + asked) == "False True"
    with pytest.raises(AttributeError, match="has no attribute 'AsyncPool'"):
        lambda_dbconn.AsyncPool  # type: ignore[attr-defined] # noqa: B018 - raises
