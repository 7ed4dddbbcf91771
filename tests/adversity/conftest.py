"""The databases of these tests: both engines, with and without TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.database import Database, database_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["postgres-plain", "postgres-tls", "mariadb-plain", "mariadb-tls"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each engine, each way, on the servers that all tests share."""
    yield from database_of(request)


@pytest.fixture(params=["own_postgres-plain", "own_postgres-tls", "own_mariadb-plain", "own_mariadb-tls"])
def own_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each engine, each way, on a server that the test may freeze, kill and restart."""
    yield from database_of(request)
