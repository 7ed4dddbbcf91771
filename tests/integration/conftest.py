"""The databases of these tests: every server there is, over TLS, through a relay that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.cache import connector
from tests.support.database import LIMIT_S, MYSQL_TLS, Database, database_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["postgres-tls", "mariadb-tls", MYSQL_TLS])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each server that the session shares."""
    yield from database_of(request)


@pytest.fixture(params=["postgres-tls"])
def postgresql_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """PostgreSQL only."""
    yield from database_of(request)


@pytest.fixture(params=["mariadb-tls", MYSQL_TLS])
def mysql_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """MariaDB and MySQL."""
    yield from database_of(request)


@pytest.fixture
def time_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine have more than a tenth of a second to tell the server; the unit tests know the limit."""
    monkeypatch.setattr(connector, "INTERRUPT_LIMIT_S", LIMIT_S)
