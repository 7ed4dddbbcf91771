"""One peer as a handler: opened once, and asked for each statement that comes on standard input.

Runs in an environment that has the peers. Each answer is a line of JSON: the rows, or the error's class and words.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Invoke = Callable[[str], list[Any]]

PASSWORD = os.environ.get("PEER_PASSWORD", "")
WHERE = {
    "host": os.environ.get("PEER_HOST", ""),
    "port": os.environ.get("PEER_PORT", ""),
    "user": os.environ.get("PEER_USER", ""),
    "dbname": os.environ.get("PEER_NAME", ""),
    "password": PASSWORD,
}
TLS = {"sslmode": "verify-full", "sslrootcert": os.environ["PEER_CA"]} if os.environ.get("PEER_CA") else {}
IS_LIKE = bool(os.environ.get("PEER_LIKE"))
"""For times: all in autocommit and without prepared statements, so that like is compared with like."""

_PLAIN: dict[str, Any] = {"autocommit": True, "prepare_threshold": None} if IS_LIKE else {}
_CONNINFO = " ".join(f"{name}={value}" for name, value in (WHERE | TLS).items())


def _by_cursor(connection: Any, sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [list(row) for row in cursor.fetchall()] if cursor.description else []


def plain_psycopg() -> Invoke:
    """Psycopg 3, a global connection."""
    import psycopg

    connection: Any = psycopg.connect(_CONNINFO, **_PLAIN)
    return lambda sql: _by_cursor(connection, sql)


def plain_psycopg2() -> Invoke:
    """Psycopg2, a global connection."""
    import psycopg2

    connection = psycopg2.connect(_CONNINFO)
    connection.autocommit = IS_LIKE
    return lambda sql: _by_cursor(connection, sql)


def psycopg2_closed() -> Invoke:
    """Psycopg2, connected again when `closed` says so."""
    import psycopg2

    connection = psycopg2.connect(_CONNINFO)
    connection.autocommit = IS_LIKE

    def invoke(sql: str) -> list[Any]:
        nonlocal connection
        if connection.closed:
            connection = psycopg2.connect(_CONNINFO)
        return _by_cursor(connection, sql)

    return invoke


def psycopg2_select_1() -> Invoke:
    """Psycopg2, connected again when `select 1` fails."""
    import psycopg2

    connection = psycopg2.connect(_CONNINFO)
    connection.autocommit = IS_LIKE

    def invoke(sql: str) -> list[Any]:
        nonlocal connection
        try:
            _by_cursor(connection, "select 1")
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            connection = psycopg2.connect(_CONNINFO)
        return _by_cursor(connection, sql)

    return invoke


def psycopg_pool() -> Invoke:
    """Psycopg_pool, a pool of one."""
    return _psycopg_pool()


def psycopg_pool_check() -> Invoke:
    """Psycopg_pool, a pool of one, with its check."""
    from psycopg_pool import ConnectionPool

    return _psycopg_pool(check=ConnectionPool.check_connection)


def _psycopg_pool(**options: Any) -> Invoke:
    from psycopg_pool import ConnectionPool

    pool: Any = ConnectionPool(_CONNINFO, min_size=1, max_size=1, open=True, kwargs=_PLAIN, **options)

    def invoke(sql: str) -> list[Any]:
        with pool.connection() as connection:
            return _by_cursor(connection, sql)

    return invoke


def sqlalchemy() -> Invoke:
    """SQLAlchemy's pool."""
    return _sqlalchemy()


def sqlalchemy_pre_ping() -> Invoke:
    """SQLAlchemy's pool with `pool_pre_ping`."""
    return _sqlalchemy(pool_pre_ping=True)


def _sqlalchemy(**options: Any) -> Invoke:
    from sqlalchemy import URL, create_engine, text

    url = URL.create("postgresql+psycopg", WHERE["user"], PASSWORD, WHERE["host"], int(WHERE["port"]), WHERE["dbname"])
    if IS_LIKE:
        options["isolation_level"] = "AUTOCOMMIT"
    engine = create_engine(url, connect_args=TLS | _PLAIN, **options)

    def invoke(sql: str) -> list[Any]:
        with engine.connect() as connection:
            result = connection.execute(text(sql))
            return [list(row) for row in result] if result.returns_rows else []

    return invoke


def aws_wrapper() -> Invoke:
    """The AWS Advanced Python Wrapper with its default plugins, a global connection."""
    import psycopg
    from aws_advanced_python_wrapper import AwsWrapperConnection

    connection = AwsWrapperConnection.connect(psycopg.Connection.connect, _CONNINFO, **_PLAIN)
    return lambda sql: _by_cursor(connection, sql)


def this_library() -> Invoke:
    """This library."""
    import lambda_dbconn

    names = {"host": "HOST", "port": "PORT", "user": "USER", "dbname": "NAME", "password": "PASSWORD"}
    os.environ.update({f"DB_{names[name]}": value for name, value in WHERE.items()}, DB_ENGINE="postgresql")
    os.environ["DB_PING_IDLE_S"] = os.environ["PEER_IDLE_S"]
    if TLS:
        os.environ["DB_SSLROOTCERT"] = TLS["sslrootcert"]
    elif IS_LIKE:
        os.environ["DB_SSLMODE"] = "disable"
    db = lambda_dbconn.from_env(engine="postgresql")

    def invoke(sql: str) -> list[Any]:
        with db.connection(None if IS_LIKE else 60.0) as connection:
            return _by_cursor(connection, sql)

    return invoke


PEERS: dict[str, tuple[str, Callable[[], Invoke]]] = {
    peer.__name__: (title, peer)
    for title, peer in (
        ("psycopg, a global connection", plain_psycopg),
        ("psycopg2, a global connection", plain_psycopg2),
        ("psycopg2, connected again when `closed` is true", psycopg2_closed),
        ("psycopg2, connected again when `select 1` fails", psycopg2_select_1),
        ("psycopg_pool, a pool of one", psycopg_pool),
        ("psycopg_pool with `check_connection`", psycopg_pool_check),
        ("SQLAlchemy's pool", sqlalchemy),
        ("SQLAlchemy's pool with `pool_pre_ping`", sqlalchemy_pre_ping),
        ("AWS Advanced Python Wrapper, default plugins, a global connection", aws_wrapper),
        ("lambda_dbconn", this_library),
    )
}


@contextmanager
def _answers() -> Iterator[Callable[[Any], None]]:
    """Keep standard output for answers: what a peer prints goes to standard error."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    yield lambda answer: print(json.dumps(answer), file=own, flush=True)
    own.close()


def take_times(invoke: Invoke, rounds: int = 2000) -> float:
    """Return the median of what an invocation with one statement takes, in microseconds."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        invoke("select 1")
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[rounds // 10 :]) * 1e6


def main(name: str) -> None:
    """Open the peer, and answer."""
    with _answers() as answer:
        try:
            invoke = PEERS[name][1]()
            answer({"opened": True})
        except Exception as error:  # noqa: BLE001 - the error is the result
            answer({"error": type(error).__name__, "words": str(error)})
            return
        for line in sys.stdin:
            try:
                sql = line.strip()
                answer({"us": take_times(invoke)} if sql == "times" else {"rows": invoke(sql)})
            except Exception as error:  # noqa: BLE001 - the error is the result
                answer({"error": type(error).__name__, "words": str(error)})


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # monitors and pools may have threads that would be waited for
