"""A statement that is longer than the server takes: it is said, and not sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from lambda_dbconn import ConnectionManager, Secret, Settings
from tests.support.clients import query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.once

LIMIT_BYTES = 1 << 20


@pytest.fixture(params=["mariadb", "mysql"])
def strict(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    """A server that takes no more than a megabyte."""
    server: LocalServer = request.getfixturevalue(request.param)
    server.execute(f"SET GLOBAL max_allowed_packet = {LIMIT_BYTES}")
    yield server
    server.execute("SET GLOBAL max_allowed_packet = DEFAULT")


@pytest.fixture(params=["tls", "plain"])
def db(request: pytest.FixtureRequest, strict: LocalServer) -> Iterator[ConnectionManager[Any]]:
    assert strict.certificates is not None
    is_tls = request.param == "tls"
    settings = Settings(
        engine="mysql",
        host=strict.host if is_tls else "127.0.0.1",
        port=strict.port,
        name=strict.database,
        user=strict.user,
        password=Secret(strict.password),
        sslmode="verify-full" if is_tls else "disable",
        sslrootcert=str(strict.certificates.ca_path) if is_tls else None,
    )
    db: ConnectionManager[Any] = ConnectionManager(settings)
    yield db
    db.close()


@pytest.mark.parametrize("size", [LIMIT_BYTES + 1_000, 5_000_000, 40_000_000])
def test_a_statement_over_max_allowed_packet_is_sent_once_and_the_error_says_how_long_it_was(
    db: ConnectionManager[Any], size: int
) -> None:
    attempts = []

    def work(connection: Any) -> None:
        attempts.append(1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT length(%s)", ("x" * size,))

    with pytest.raises(pymysql.OperationalError) as caught:
        db.run(work, 60)
    assert attempts == [1]
    assert "max_allowed_packet" in str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    with db.connection(30) as connection:
        assert query(connection, "SELECT 1") == 1


def test_a_short_statement_on_a_connection_that_is_gone_is_done_again(
    db: ConnectionManager[Any], strict: LocalServer
) -> None:
    attempts = []

    def work(connection: Any) -> Any:
        attempts.append(1)
        number = query(connection, "SELECT connection_id()")
        if len(attempts) == 1:
            strict.execute(f"KILL {number}")
        return query(connection, "SELECT 1")

    assert db.run(work, 60) == 1
    assert len(attempts) > 1
