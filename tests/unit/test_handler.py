from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConfigurationError, DeadlineExceededError
from lambda_dbconn.testing.fakes import FakeContext, FakeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from lambda_dbconn import ConnectionManager
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer

    Manager = ConnectionManager[FakeConnection]


def test_a_handler_gets_its_connection_beside_event_and_context(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    server.answers["select name from employee"] = [("Ada",)]

    @db.with_connection
    def handler(event: dict[str, int], context: FakeContext, conn: FakeConnection) -> list[tuple[Any, ...]]:
        with conn.cursor() as cursor:
            return cursor.execute("select name from employee").fetchall() * event["times"]

    assert handler({"times": 2}, FakeContext(clock, 3)) == [("Ada",), ("Ada",)]
    assert server.sql == ["select name from employee"]
    assert db.stats().in_use == 0


def test_a_handler_runs_inside_its_transaction(db: Manager, server: FakeServer, clock: FakeClock) -> None:
    @db.with_transaction
    def handler(event: str, context: FakeContext, conn: FakeConnection) -> str:
        conn.execute(event)
        return "done"

    assert handler("insert", FakeContext(clock, 3)) == "done"
    server.demand("execute", FakeError("duplicate key"))
    with pytest.raises(FakeError):
        handler("insert", FakeContext(clock, 3))
    assert server.sql == ["BEGIN", "insert", "COMMIT", "BEGIN", "insert", "ROLLBACK"]


def test_the_name_of_the_argument_may_be_chosen(db: Manager, clock: FakeClock) -> None:
    @db.with_connection(argument="database")
    def one(event: object, context: object, database: FakeConnection) -> int:
        return database.number

    @db.with_transaction(argument="database")
    def two(event: object, context: object, *, database: FakeConnection) -> int:
        return database.number

    @db.with_connection()
    def three(event: object, context: object, conn: FakeConnection) -> int:
        return conn.number

    assert [function({}, FakeContext(clock, 3)) for function in (one, two, three)] == [1, 1, 1]


@pytest.mark.parametrize(
    "call",
    [
        lambda handler, context: handler({}, context),
        lambda handler, context: handler({}, context=context),
        lambda handler, context: handler(event={}, context=context),
        lambda handler, context: handler(context, {}),
    ],
    ids=["positional", "keyword", "all by keyword", "first"],
)
def test_the_context_is_found_wherever_it_is_passed(
    db: Manager, clock: FakeClock, call: Callable[[Any, FakeContext], object]
) -> None:
    @db.with_connection
    def handler(event: object, context: object, conn: FakeConnection) -> int:
        return conn.number

    with pytest.raises(DeadlineExceededError):
        call(handler, FakeContext(clock, 0.5))
    assert call(handler, FakeContext(clock, 3)) == 1


def test_without_a_context_there_is_no_deadline(db: Manager, server: FakeServer) -> None:
    @db.with_connection(argument="conn")
    def job(number: int, conn: FakeConnection) -> int:
        return number + conn.number

    assert job(7) == 8
    assert server.time_limits_s == [5.0]


def test_a_method_may_be_decorated(db: Manager, clock: FakeClock) -> None:
    class Service:
        factor = 3

        @db.with_connection(argument="conn")
        def handle(self, event: int, context: object, conn: FakeConnection) -> int:
            return self.factor * event * conn.number

    assert Service().handle(2, FakeContext(clock, 3)) == 6


def test_the_decorated_function_keeps_its_name_and_docstring(db: Manager) -> None:
    @db.with_connection
    def handler(event: object, context: object, conn: FakeConnection) -> None:
        """Do the work."""

    assert (handler.__name__, handler.__doc__) == ("handler", "Do the work.")


def test_decorating_opens_nothing_and_each_call_borrows_for_itself(
    db: Manager, server: FakeServer, clock: FakeClock
) -> None:
    @db.with_connection
    def handler(event: object, context: object, conn: FakeConnection) -> int:
        return conn.number

    assert server.counts["open"] == 0
    handler({}, FakeContext(clock, 3))
    server.hang_up()
    assert handler({}, FakeContext(clock, 3)) == 2


async def coroutine(event: object, context: object, conn: object) -> None:
    """Run after its connection has gone back."""


async def asynchronous_generator(event: object, context: object, conn: object) -> AsyncIterator[None]:
    yield


def generator(event: object, context: object, conn: object) -> Iterator[None]:
    yield


@pytest.mark.parametrize("function", [coroutine, asynchronous_generator, generator], ids=lambda f: f.__name__)
def test_what_would_run_after_its_connection_has_gone_back_is_refused(
    db: Manager, function: Callable[..., Any]
) -> None:
    for decorate in (db.with_connection, db.with_transaction):
        with pytest.raises(ConfigurationError, match=f"{function.__name__} is a coroutine or generator function"):
            decorate(function)


def test_an_error_of_the_handler_passes_untouched(db: Manager, clock: FakeClock) -> None:
    mine = LookupError("mine")

    @db.with_connection
    def handler(event: object, context: object, conn: FakeConnection) -> None:
        raise mine

    with pytest.raises(LookupError) as caught:
        handler({}, FakeContext(clock, 3))
    assert caught.value is mine
    assert caught.value.__context__ is None
