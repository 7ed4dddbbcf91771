"""Hundreds of environments over ten database connections: shared through a proxy, pinned to it, and directly.

The proxy is the local stand-in, the environments are managers in a few processes. Each has its own connection and
works through invocations one by one; as many are under way at a time as there are threads.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.subjects import SERVERS
from lambda_dbconn import ConnectionManager, Settings
from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.rds_proxy import LocalRdsProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.servers import LocalServer

_PROCESSES = 4
_TIME_LIMIT_S = 10.0  # of an invocation
_CONNECT_TIMEOUT_S = 1.0
_BORROW_TIMEOUT_S = 0.5
_ROWS = 100
_WRITES = 0.2
WAYS = (  # to go through the proxy: with or without a SET in the handler, and DB_RESET
    ("shared", False, "always"),
    ("pinned, and kept", True, "never"),
    ("pinned, and dropped", True, "always"),
)
_frozen: list[ConnectionManager[Any]] = []  # an environment keeps its connection after its last invocation
_PROXY = "local.proxy-cexample0000.us-east-1.rds.amazonaws.com"
_PINS = {"postgresql": "SET statement_timeout = '5s'", "mysql": "SET SESSION max_heap_table_size = 16777216"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        environments: How many there are.
        database_connections: That the proxy may have.
        invocations: Of each environment.
        at_once: Invocations under way at a time.
    """

    environments: int = 500
    database_connections: int = 10
    invocations: int = 4
    at_once: int = 24


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        title: Of the way that the environments were connected.
        succeeded: Invocations.
        errors: Those that failed, by what they failed with.
        latencies_ms: Of those that succeeded, sorted.
        database_connections: At most, at the same time.
        connects: Of the environments.
    """

    title: str
    succeeded: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    database_connections: int = 0
    connects: int = 0

    @property
    def failed(self) -> int:
        """How many invocations failed."""
        return self.errors.total()

    def percentile_ms(self, percent: int) -> float:
        """Return what so many of a hundred successful invocations did not exceed."""
        if len(self.latencies_ms) < 2:  # noqa: PLR2004 - what `quantiles` needs
            return self.latencies_ms[0] if self.latencies_ms else 0.0
        return statistics.quantiles(self.latencies_ms, n=100, method="inclusive")[percent - 1]


def measure(engine: str, plan: Plan | None = None) -> str:
    """Return the results for an engine, a line each."""
    return "\n".join(_line(engine, outcome) for outcome in outcomes(engine, plan or Plan()))


def outcomes(engine: str, plan: Plan) -> Iterator[Outcome]:
    """Let the fleet work, once for each way of connecting."""
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates.create(Path(folder), extra_names=[_PROXY])
        with SERVERS[engine](certificates=certificates) as server:
            _fill(server)
            for title, pins, reset in WAYS:
                with LocalRdsProxy(
                    backend=server,
                    certificates=certificates,
                    max_database_connections=plan.database_connections,
                    borrow_timeout_s=_BORROW_TIMEOUT_S,
                ) as proxy:
                    environ = _environment(server, proxy.port) | {"DB_SIGNING_HOST": _PROXY, "DB_RESET": reset}
                    outcome = _work(title, environ, plan, pins=pins)
                    outcome.database_connections = proxy.stats().most_database_connections
                yield outcome
            yield _work("direct", _environment(server, server.port), plan, pins=False)


def _line(engine: str, outcome: Outcome) -> str:
    worst = outcome.errors.most_common(1)
    return (
        f"{engine:<11}{outcome.title:<32} {outcome.succeeded:>5} succeeded {outcome.failed:>5} failed   "
        f"median {outcome.percentile_ms(50):6.1f} ms   p99 {outcome.percentile_ms(99):6.1f} ms   "
        f"connects {outcome.connects:>5}   database connections {outcome.database_connections:>3}"
        + (f"   mostly: {worst[0][0]}" if worst else "")
    )


def _fill(server: LocalServer) -> None:
    server.execute("CREATE TABLE employee (id int PRIMARY KEY, visits int NOT NULL)")
    server.execute(f"INSERT INTO employee VALUES {', '.join(f'({number}, 0)' for number in range(_ROWS))}")
    if server.engine == "postgresql":
        server.execute(f"GRANT ALL ON employee TO {server.user}")


def _environment(server: LocalServer, port: int) -> dict[str, str]:
    assert server.certificates is not None
    return {
        "DB_ENGINE": server.engine,
        "DB_HOST": server.host,
        "DB_PORT": str(port),
        "DB_NAME": server.database,
        "DB_USER": server.user,
        "DB_PASSWORD": server.password,
        "DB_SSLROOTCERT": str(server.certificates.ca_path),
        "DB_AUTH": "password",
        "DB_CONNECT_TIMEOUT_S": str(_CONNECT_TIMEOUT_S),
    }


def _work(title: str, environ: dict[str, str], plan: Plan, *, pins: bool) -> Outcome:
    """Divide the environments among processes, and add up what they did."""
    total = Outcome(title=title)
    share = plan.environments // _PROCESSES
    with multiprocessing.get_context("spawn").Pool(_PROCESSES) as pool:
        parts = [
            pool.apply_async(
                _work_in_process, (title, environ, plan, share + (number < plan.environments % _PROCESSES), pins)
            )
            for number in range(_PROCESSES)
        ]
        for part in parts:
            done = part.get()
            total.succeeded += done.succeeded
            total.errors += done.errors
            total.latencies_ms += done.latencies_ms
            total.connects += done.connects
            total.database_connections += done.database_connections
    total.latencies_ms.sort()
    return total


def _work_in_process(title: str, environ: dict[str, str], plan: Plan, environments: int, pins: bool) -> Outcome:  # noqa: FBT001 - through a pool
    logging.disable(logging.WARNING)  # each pin is one, and meant
    outcome = Outcome(title=title)
    settings = Settings.from_env(environ=environ)
    managers: list[ConnectionManager[Any]] = [ConnectionManager(settings) for _ in range(environments)]
    _frozen.extend(managers)
    threads = max(1, plan.at_once // _PROCESSES)
    handle = _handler(_PINS[settings.engine] if pins else None)

    def work(thread: int) -> None:
        chance = random.Random(thread)
        for _ in range(plan.invocations):
            for db in managers[thread::threads]:
                _invoke(db, handle, chance, outcome)

    with ThreadPoolExecutor(threads) as executor:
        for done in [executor.submit(work, thread) for thread in range(threads)]:
            done.result()
    outcome.connects = sum(db.stats().opened for db in managers)
    outcome.database_connections = sum(db.stats().open for db in managers)
    return outcome


def _invoke(db: ConnectionManager[Any], handle: Callable[..., None], chance: random.Random, outcome: Outcome) -> None:
    started = time.perf_counter()
    try:
        handle(db, chance)
    except Exception as error:  # noqa: BLE001 - whatever an invocation fails with is counted
        outcome.errors[f"{type(error).__name__}: {error}".splitlines()[0][:100]] += 1
    else:
        outcome.succeeded += 1
        outcome.latencies_ms.append((time.perf_counter() - started) * 1000)


def _handler(pin: str | None) -> Callable[[ConnectionManager[Any], random.Random], None]:
    """Return a handler of which four invocations of five read a row, and the fifth changes one in a transaction."""

    def handle(db: ConnectionManager[Any], chance: random.Random) -> None:
        number = chance.randrange(_ROWS)
        is_write = chance.random() < _WRITES
        loan = db.transaction(_TIME_LIMIT_S) if is_write else db.connection(_TIME_LIMIT_S)
        with loan as connection, connection.cursor() as cursor:
            if pin is not None:
                cursor.execute(pin)
            if is_write:
                cursor.execute("UPDATE employee SET visits = visits + 1 WHERE id = %s", (number,))
            cursor.execute("SELECT visits FROM employee WHERE id = %s", (number,))
            cursor.fetchone()

    return handle
