"""Coroutines and invocations for the tests of `AsyncConnectionManager`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lambda_dbconn import (
    AsyncConnectionManager,
)

if TYPE_CHECKING:
    from tests.support.database import Database

SLEEP_S = 61


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
