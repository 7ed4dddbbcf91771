"""The example functions under the real Lambda runtime client, with a real database."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lambda_dbconn
from lambda_dbconn.testing.runtime_api import LocalRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_dbconn.testing.servers import LocalServer

EXAMPLES = Path(__file__).parents[2] / "examples"


def environment(server: LocalServer) -> dict[str, str]:
    """Return the variables for a direct connection."""
    assert server.certificates is not None
    return {
        "DB_ENGINE": server.engine,
        "DB_HOST": server.host,
        "DB_PORT": str(server.port),
        "DB_NAME": server.database,
        "DB_USER": server.user,
        "DB_PASSWORD": server.password,
        "DB_SSLROOTCERT": str(server.certificates.ca_path),
    }


@contextmanager
def table(server: LocalServer, name: str, columns: str, *rows: tuple[object, ...]) -> Iterator[None]:
    """Have a table for a while, which the application may read and write."""
    server.execute(f"create table {name} ({columns})")
    try:
        for row in rows:
            server.execute(f"insert into {name} values ({', '.join(['%s'] * len(row))})", *row)
        if server.engine == "postgresql":
            server.execute(f"grant select, insert, update on {name} to {server.user}")
        yield
    finally:
        server.execute(f"drop table {name}")


def function(handler: str, variables: Mapping[str, str], **arguments: Any) -> LocalRuntime:
    """Return a runtime for `folder/module.function` below the examples."""
    folder, _, name = handler.partition("/")
    package_path = str(Path(lambda_dbconn.__file__).parent.parent)
    return LocalRuntime(
        directory=EXAMPLES / folder,
        handler=name,
        environment={"PYTHONPATH": package_path, **variables},
        timeout_s=20.0,
        init_timeout_s=30.0,
        **arguments,
    )


def unique_name() -> str:
    """Name a function as no other test does: its sessions can be found by it."""
    return f"function-{uuid.uuid4().hex[:12]}"


def sessions(server: LocalServer, function_name: str) -> list[int]:
    """Return the ids of the sessions that a function has on PostgreSQL."""
    rows = server.query("select pid from pg_stat_activity where application_name = %s", f"{function_name}:$LATEST")
    return [int(row[0]) for row in rows]


def end_sessions(server: LocalServer, function_name: str) -> None:
    """End a function's sessions, and wait until they are gone."""
    for pid in sessions(server, function_name):
        server.query("select pg_terminate_backend(%s, 5000)", pid)
