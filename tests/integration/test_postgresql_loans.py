"""What one loan of PostgreSQL's leaves, and what becomes of work that the deadline overtakes: through the managers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import DeadlineExceededError, TransactionLeftOpenError
from tests.support import async_access
from tests.support.database import database_of, deed, do

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import Database

TIME_S = 3.0


@pytest.fixture(params=["postgres-tls", "postgres-plain"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from database_of(request)


def rows(connection: Any) -> Iterator[Any]:
    with connection.transaction():
        yield from connection.execute("SELECT generate_series(1, 3)")


async def async_rows(connection: Any) -> Any:
    async with connection.transaction():
        for row in await (await connection.execute("SELECT generate_series(1, 3)")).fetchall():
            yield row


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed late", "never closed"])
def test_a_generator_that_outlives_its_loan_takes_nothing_from_the_next(is_closed: bool, database: Database) -> None:
    db, names = database.manager(), [deed(), deed(), deed()]

    def first_loan() -> None:
        with db.connection() as connection:
            kept.append(rows(connection))
            next(kept[0])

    kept: list[Any] = []
    with pytest.raises(TransactionLeftOpenError):
        first_loan()
    with db.transaction() as connection:
        do(connection, names[0])
        if is_closed:
            kept[0].close()
        do(connection, names[1])
    with db.transaction() as connection, connection.transaction():
        do(connection, names[2])
    assert [database.count(name) for name in names] == [1, 1, 1]
    assert database.reasons() == ["unclean"]


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed late", "never closed"])
def test_a_generator_of_asyncios_that_outlives_its_loan_takes_nothing_from_the_next(
    is_closed: bool, database: Database
) -> None:
    db, names = async_access.manager(database), [deed(), deed(), deed()]

    kept: list[Any] = []

    async def first_loan() -> None:
        async with db.connection() as connection:
            kept.append(async_rows(connection))
            await anext(kept[0])

    async def invocation() -> None:
        with pytest.raises(TransactionLeftOpenError):
            await first_loan()
        async with db.transaction() as connection:
            await async_access.do(connection, names[0])
            if is_closed:
                await kept[0].aclose()
            await async_access.do(connection, names[1])
        async with db.transaction() as connection, connection.transaction():
            await async_access.do(connection, names[2])

    asyncio.run(invocation())
    assert [database.count(name) for name in names] == [1, 1, 1]
    assert database.reasons() == ["unclean"]


def session_id(db: Any, database: Database) -> int:
    with db.connection() as connection:
        return database.session_id(connection)


def test_a_statement_that_comes_after_the_deadline_is_not_sent_and_costs_no_connection(database: Database) -> None:
    db, name = database.manager(), deed()
    before = session_id(db, database)

    def invocation() -> None:
        with db.connection(TIME_S) as connection:
            database.clock.advance(TIME_S)
            do(connection, name)

    with pytest.raises(DeadlineExceededError, match="it was not sent") as raised:
        invocation()
    assert raised.value.retryable
    assert database.count(name) == 0
    assert session_id(db, database) == before


@pytest.mark.parametrize("way", ["transaction", "run"])
def test_a_transaction_whose_time_is_over_before_commit_is_rolled_back_and_its_outcome_known(
    way: str, database: Database
) -> None:
    db, names = database.manager(), []
    before = session_id(db, database)

    def work(connection: Any) -> None:
        names.append(deed())
        do(connection, names[-1])
        database.clock.advance(TIME_S)

    def invocation() -> None:
        if way == "run":
            db.run(work, context=TIME_S)
        else:
            with db.transaction(TIME_S) as connection:
                work(connection)

    with pytest.raises(DeadlineExceededError, match="it was not sent"):
        invocation()
    assert len(names) == 1
    assert database.count(names[0]) == 0
    assert session_id(db, database) == before


@pytest.mark.parametrize("way", ["connection", "transaction", "run"])
def test_what_comes_after_the_deadline_is_not_sent_by_asyncio_either(way: str, database: Database) -> None:
    db, names = async_access.manager(database), []
    before = async_access.session(db)

    async def work(connection: Any) -> None:
        names.append(deed())
        if way == "connection":
            database.clock.advance(TIME_S)
        await async_access.do(connection, names[-1])
        database.clock.advance(TIME_S)

    async def invocation() -> None:
        if way == "run":
            await db.run(work, context=TIME_S)
        else:
            async with getattr(db, way)(TIME_S) as connection:
                await work(connection)

    with pytest.raises(DeadlineExceededError, match="it was not sent"):
        asyncio.run(invocation())
    assert len(names) == 1
    assert database.count(names[0]) == 0
    assert async_access.session(db) == before
