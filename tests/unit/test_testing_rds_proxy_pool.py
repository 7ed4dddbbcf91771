"""The stand-in's pool, without a database."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lambda_dbconn.testing.rds_proxy.ledger import Ledger
from lambda_dbconn.testing.rds_proxy.pool import Pool

pytestmark = pytest.mark.once


class Connection:
    """Stands for a database connection, of which the pool knows only these."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.is_outdated = False
        self.stream = SimpleNamespace(is_ended=False, abort=self._abort)

    def _abort(self) -> None:
        self.stream.is_ended = True


@pytest.mark.parametrize("is_abrupt", [False, True])
def test_a_connection_that_was_being_made_to_the_old_database_is_not_lent(*, is_abrupt: bool) -> None:
    async def run() -> None:
        pool = Pool(engine="postgresql", most=1, borrow_timeout_s=5, ledger=Ledger())
        made: list[Connection] = []
        is_connecting, may_connect = asyncio.Event(), asyncio.Event()

        async def connect() -> Connection:
            made.append(Connection("new" if made else "old"))
            connection = made[-1]
            is_connecting.set()
            await may_connect.wait()
            return connection

        def fits(_: Any) -> bool:
            return True

        borrowing = asyncio.create_task(pool.borrow(fits, connect))
        await is_connecting.wait()
        pool.retire(is_abrupt=is_abrupt)
        may_connect.set()
        connection = await borrowing
        assert connection.where == "new"
        assert [one.stream.is_ended for one in made] == [True, False]
        assert (pool.open_count, pool.lent_count) == (1, 1)

    asyncio.run(run())
