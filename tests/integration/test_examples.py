"""`examples/direct_vs_proxy`: one handler, both ways, for both engines; only the environment differs."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.testing.relay import FaultRelay
from tests.support.invocations import environment, function, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, LocalServer
    from tests.support.pgbouncer import LocalPgBouncer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only")

_EMPLOYEES = [(1, "Ada"), (2, "Barbara"), (3, "Grace")]


def employees(server: LocalServer) -> AbstractContextManager[None]:
    """Have a table `employee` for a while."""
    return table(server, "employee", "id int primary key, name varchar(20)", *_EMPLOYEES)


@contextmanager
def invoked_twice(variables: dict[str, str]) -> Iterator[None]:
    """Run the handler, frozen in between, and check what it prints and returns; its session lasts for the block."""
    with function("direct_vs_proxy/handler.handler", variables, freeze_between_invocations=True) as runtime:
        for times in (1, 2):
            invocation = runtime.invoke({})
            assert invocation.error is None, runtime.output()
            assert invocation.value == {"rows": len(_EMPLOYEES)}
            printed = [line for line in runtime.output().splitlines() if line.startswith("(")]
            assert printed == [str(employee) for employee in _EMPLOYEES] * times
        yield


def clients(pgbouncer: LocalPgBouncer) -> int:
    """Count the sessions that applications have with the pooler."""
    return sum(pgbouncer.user in row for row in pgbouncer.query("SHOW CLIENTS"))


def test_the_handler_reads_postgresql_directly_and_through_a_pooler(
    postgres: LocalPostgres, pgbouncer: LocalPgBouncer
) -> None:
    direct = environment(postgres)
    pooled = direct | {"DB_PORT": str(pgbouncer.port)}
    with employees(postgres):
        with invoked_twice(direct):
            assert clients(pgbouncer) == 0
        with invoked_twice(pooled):
            assert clients(pgbouncer) == 1


def test_the_handler_reads_mariadb_directly_and_through_another_endpoint(mariadb: LocalMariaDB) -> None:
    with FaultRelay(target_host=mariadb.host, target_port=mariadb.port) as relay:
        direct = environment(mariadb)
        relayed = direct | {"DB_PORT": str(relay.port)}
        with employees(mariadb):
            with invoked_twice(direct):
                assert relay.connects == 0
            with invoked_twice(relayed):
                assert relay.connects == 1


@pytest.mark.parametrize("engine", ["postgres", "mariadb"])
def test_the_handler_that_the_templates_deploy_reads_from_the_reader(
    engine: str, request: pytest.FixtureRequest
) -> None:
    server: LocalServer = request.getfixturevalue(engine)
    variables = environment(server)
    with employees(server), FaultRelay(target_host=server.host, target_port=server.port) as relay:
        variables |= {"DB_HOST": "writer.invalid", "DB_READER_HOST": "localhost", "DB_PORT": str(relay.port)}
        with function("infrastructure/function/handler.handler", variables) as runtime:
            invocation = runtime.invoke({})
            assert invocation.error is None, runtime.output()
            assert invocation.value == {"employees": [name for _, name in _EMPLOYEES]}
        assert relay.connects == 1
