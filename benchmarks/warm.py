"""A warm borrow with `select 1`, against the same query on a bare global connection.

A database never runs on the function's core, so the server has one of its own here, and neither core sleeps between
two queries: to wake one up takes longer than what is measured. What shares one core finds its caches used by the
other each time; that is measured as well.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.subjects import bare_connection, running
from lambda_dbconn import ConnectionManager, Settings
from lambda_dbconn.testing.relay import FaultRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from awslambdaric.lambda_context import LambdaContext

TARGET_US = 6.0
DEADLINE_TARGET_US = 3.0
PROCESSES = 27  # where each has its objects in memory is worth 2 µs either way


def invocation() -> LambdaContext:
    """Return the Lambda context, as the runtime client makes it, of an invocation that ends in a quarter of an hour."""
    from awslambdaric.lambda_context import LambdaContext  # for Linux

    ends_at_ms = int((time.time() + 900) * 1000)
    return LambdaContext("invocation", None, None, ends_at_ms)


def measure(engine: str) -> str:
    """Return the results for an engine: with a core for the server, if there are two, and with one for both.

    The first is measured without TLS, too: the query is quicker, and what it leaves of the caches is more.
    """
    lines: list[str] = []
    for name, client_core, server_core in _placements():
        with on_core(server_core), running(engine) as (_, environ), awake():
            if not lines:
                lines.append(f"{engine:<11}round trips for one statement: {_round_trips(environ)}")
                lines.append(f"{engine:<11}{name}, no TLS: {_times(_plain(environ), client_core)}")
            lines.append(f"{engine:<11}{name}: {_times(environ, client_core)}")
    return "\n".join(lines)


def _plain(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name != "DB_SSLROOTCERT"} | {"DB_SSLMODE": "disable"}


def _times(environ: Mapping[str, str], core: int | None) -> str:
    """Return the medians of several processes in µs, and where the middle half of them is for a deadline."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        each = pool.map(partial(_differences, environ, core), range(PROCESSES), chunksize=1)
    columns = list(zip(*each, strict=True))
    bare, added, deadline, mere, mere_deadline = (statistics.median(column) for column in columns)
    lower, _, upper = statistics.quantiles(columns[2], n=4)
    return (
        f"bare {bare:.1f} µs   added {added:.1f} µs (target {TARGET_US:g}), ratio {1 + added / bare:.3f}   "
        f"with a deadline {deadline:.1f} µs more (target {DEADLINE_TARGET_US:g}; half of the "
        f"processes {lower:.1f} to {upper:.1f}), ratio {1 + (added + deadline) / bare:.3f}   "
        f"borrow without a query {mere:.1f} µs, with a deadline {mere_deadline:.1f} more"
    )


def _differences(
    environ: Mapping[str, str], core: int | None, _number: int, *, rounds: int = 20, per_round: int = 100
) -> tuple[float, ...]:
    """Return µs of a process: a bare query, what the library adds, a deadline's; a mere borrow, a deadline's.

    Short rounds of all ways follow each other, and the figure is the median of the differences within such a turn: a
    machine that is busy for a while is busy for all. Each turn has an order of its own: which way comes after which is
    worth up to 7 µs.
    """
    with on_core(core):
        db: ConnectionManager[Any] = ConnectionManager(Settings.from_env(environ=environ))
        bare = bare_connection(environ)
        context = invocation()

        def by_hand() -> None:
            select_1(bare)

        def by_library() -> None:
            with db.connection() as connection:
                select_1(connection)

        def within_a_deadline() -> None:
            with db.connection(context) as connection:
                select_1(connection)

        def without_query() -> None:
            with db.connection():
                pass

        def without_query_within_a_deadline() -> None:
            with db.connection(context):
                pass

        with_query = (by_hand, by_library, within_a_deadline)
        turns = _turns(with_query, rounds, per_round)
        mere = _turns((without_query, without_query_within_a_deadline), rounds, per_round)
        bare.close()
        db.close()
    return (
        statistics.median(hand for hand, _, _ in turns),
        statistics.median(library - hand for hand, library, _ in turns),
        statistics.median(limited - library for _, library, limited in turns),
        statistics.median(library for library, _ in mere),
        statistics.median(limited - library for library, limited in mere),
    )


def _turns(ways: Sequence[Callable[[], None]], rounds: int, per_round: int) -> list[list[float]]:
    for way in ways:
        round_us(way, 500)
    calls = [partial(round_us, way, per_round) for way in ways]
    return [turn(calls) for _ in range(rounds)]


def _placements() -> list[tuple[str, int | None, int | None]]:
    """Return what to call it, the client's core and the server's."""
    if not hasattr(os, "sched_setaffinity"):
        return [("on any core", None, None)]
    cores = sorted(os.sched_getaffinity(0))
    shared = ("one core for both", cores[-1], cores[-1])
    return [shared] if len(cores) == 1 else [("a core for the server", cores[-1], cores[0]), shared]


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep what is done and started here on one core."""
    if core is None:
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def one_core() -> AbstractContextManager[None]:
    """Keep client and server on one core: which of two cores a server's process wakes up on is worth 50 µs."""
    return on_core(_placements()[-1][1])


@contextmanager
def awake() -> Iterator[None]:
    """Keep all cores from sleeping (Linux's PM QoS); needs root."""
    latency = Path("/dev/cpu_dma_latency")
    if not os.access(latency, os.W_OK):
        print("not root: cores sleep between queries, and take long to wake up", file=sys.stderr)
        yield
        return
    with latency.open("wb", buffering=0) as file:
        file.write((0).to_bytes(4, sys.byteorder))
        yield


def select_1(connection: Any) -> None:
    """Be the statement of the measurement."""
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        cursor.fetchone()


def turn(calls: Sequence[Callable[[], float]]) -> list[float]:
    """Return what each call returns, in the order given; they are made in a random one."""
    results = [0.0] * len(calls)
    for place in random.sample(range(len(calls)), len(calls)):
        results[place] = calls[place]()
    return results


def round_us(function: Callable[[], None], times: int) -> float:
    """Return what one time takes."""
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times * 1e6


def _round_trips(environ: Mapping[str, str]) -> int:
    """Count how often the client speaks and is answered in one warm borrow with one statement."""
    with FaultRelay(target_host=environ["DB_HOST"], target_port=int(environ["DB_PORT"])) as relay:
        settings = Settings.from_env(environ={**environ, "DB_PORT": str(relay.port)})
        db: ConnectionManager[Any] = ConnectionManager(settings)
        with db.connection() as connection:
            select_1(connection)
        relay.reset_counters()
        with db.connection() as connection:
            select_1(connection)
        round_trips = relay.round_trips
        db.close()
        return round_trips
