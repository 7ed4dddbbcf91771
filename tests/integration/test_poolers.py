"""Behind a pooler in transaction mode, PgBouncer here: what is shared, what waits, and what a dead backend means."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.database import Database, behind_a_relay, deed, do, fetch, wait_for_end
from tests.support.pgbouncer import LocalPgBouncer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalPostgres

pytestmark = pytest.mark.once


@contextmanager
def behind_a_pooler(backend: LocalPostgres, certificates: Certificates, **options: int) -> Iterator[Database]:
    """Put a pooler with few server connections in front of a server, and a relay in front of that."""
    settings = {name: str(value) for name, value in options.items()}
    with (
        LocalPgBouncer(backend=backend, certificates=certificates, extra_options=settings) as pooler,
        behind_a_relay(pooler, backend=backend, is_tls=True) as database,
    ):
        yield database


@pytest.fixture
def pooled(postgres: LocalPostgres, certificates: Certificates) -> Iterator[Database]:
    """A pooler with two connections to the server that the session shares."""
    with behind_a_pooler(postgres, certificates, default_pool_size=2) as database:
        yield database


def test_many_managers_share_few_server_connections(pooled: Database) -> None:
    managers = [pooled.manager() for _ in range(12)]
    backends = set()
    for _ in range(3):
        for db in managers:
            with db.connection() as connection:
                backends.add(pooled.session_id(connection))
    assert pooled.relay.connects == 12
    assert pooled.relay.open_connections == 12
    assert len(backends) <= 2


def test_a_lent_connection_holds_no_server_connection_between_statements(
    postgres: LocalPostgres, certificates: Certificates
) -> None:
    with behind_a_pooler(postgres, certificates, default_pool_size=1) as pooled, ExitStack() as loans:
        connections = [loans.enter_context(pooled.manager().connection()) for _ in range(4)]
        for _ in range(3):
            assert len({pooled.session_id(connection) for connection in connections}) == 1


def test_a_thousand_statements_with_parameters_meet_no_prepared_one(pooled: Database) -> None:
    managers = [pooled.manager() for _ in range(5)]
    answers = []
    for number in range(1000):
        with managers[number % 5].connection() as connection:
            answers.append(fetch(connection, "SELECT %s::int + %s::int", number, 1)[0][0])
    assert answers == list(range(1, 1001))
    assert pooled.relay.connects == 5
    with managers[0].connection() as connection:
        assert fetch(connection, "SELECT count(*) FROM pg_prepared_statements") == [(0,)]


def test_parallel_transactions_of_many_managers_all_take_effect(pooled: Database) -> None:
    name = deed()

    def work(_: int) -> None:
        db = pooled.manager()
        for _ in range(5):
            db.run(lambda connection: do(connection, name))
        db.close()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert pooled.count(name) == 30


def test_a_statement_costs_one_round_trip_to_the_pooler(pooled: Database) -> None:
    db = pooled.counted()
    assert db.warm_up()
    pooled.forget()
    with db.connection() as connection:
        fetch(connection, "SELECT %s", 1)
    assert pooled.cost() == (0, 1)


def test_waiting_too_long_for_a_server_connection_is_the_drivers_error_and_costs_the_connection(
    postgres: LocalPostgres, certificates: Certificates
) -> None:
    with behind_a_pooler(postgres, certificates, default_pool_size=1, query_wait_timeout=1) as pooled:
        db, name = pooled.manager(), deed()
        assert db.warm_up()
        with pooled.manager().transaction() as holding:
            fetch(holding, "SELECT 1")
            with (
                pytest.raises(psycopg.errors.ProtocolViolation, match="query_wait_timeout"),
                db.connection() as waiting,
            ):
                do(waiting, name)
            assert db.stats().open == 0
        with db.connection() as connection:
            do(connection, name)
        assert pooled.reasons() == ["lost"]
        assert pooled.count(name) == 1


def test_a_pooler_that_was_restarted_is_noticed_without_a_round_trip(pooled: Database) -> None:
    db, name = pooled.manager(), deed()
    with db.connection() as connection:
        fileno = connection.fileno()
    pooled.server.restart()
    wait_for_end(fileno)
    pooled.forget()
    with db.connection() as connection:
        do(connection, name)
    assert pooled.relay.connects == 1
    assert pooled.reasons() == ["hang_up"]
    assert pooled.count(name) == 1


# The server behind the pooler


def test_a_restart_behind_the_pooler_costs_an_idle_client_nothing(
    own_postgres: LocalPostgres, certificates: Certificates
) -> None:
    with behind_a_pooler(own_postgres, certificates, default_pool_size=2) as pooled:
        db, name = pooled.counted(), deed()
        assert db.warm_up()
        own_postgres.restart()
        pooled.forget()
        with db.connection() as connection:
            do(connection, name)
        assert pooled.cost() == (0, 1)
        assert pooled.count(name) == 1


def test_a_backend_that_dies_in_a_transaction_is_run_again_and_has_one_effect(pooled: Database) -> None:
    db, name, calls = pooled.manager(), deed(), []

    def work(connection: Any) -> None:
        calls.append(name)
        do(connection, name)
        if len(calls) == 1:
            pooled.server.kill_session(pooled.session_id(connection))
        do(connection, name)

    db.run(work)
    assert len(calls) == 2
    assert pooled.count(name) == 2


def test_a_backend_that_dies_in_a_transaction_raises_the_drivers_error_and_the_next_borrow_is_good(
    pooled: Database,
) -> None:
    db, name = pooled.manager(), deed()

    def work() -> None:
        with db.transaction() as connection:
            do(connection, name)
            pooled.server.kill_session(pooled.session_id(connection))
            do(connection, name)

    with pytest.raises(psycopg.OperationalError):
        work()
    assert pooled.count(name) == 0
    with db.connection() as connection:
        do(connection, name)
    assert pooled.count(name) == 1
