"""A warm borrow with `select 1`, against the same query on a bare global connection."""

from __future__ import annotations

import os
import random
import statistics
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.subjects import bare_connection, running
from lambda_dbconn import ConnectionManager, Settings
from lambda_dbconn.testing.relay import FaultRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

TARGET_US = 6.0
DEADLINE_TARGET_US = 3.0


class Invocation:
    """Stands for the Lambda context: `awslambdaric` 4.2.2 reckons in the same way."""

    def __init__(self) -> None:
        self._ends_at_ms = (time.time() + 900) * 1000

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of a quarter of an hour."""
        return int(max(self._ends_at_ms - time.time() * 1000, 0))


def measure(engine: str, *, rounds: int = 400, per_round: int = 100) -> str:
    """Return one line of results for an engine.

    Short rounds of all ways follow each other, and the figure is the median of the differences within such a turn: a
    machine that is busy for a while is busy for all. Each turn has an order of its own: which way comes after which is
    worth up to 7 µs.
    """
    with one_core(), running(engine) as (_, environ):
        db: ConnectionManager[Any] = ConnectionManager(Settings.from_env(environ=environ))
        bare = bare_connection(environ)
        invocation = Invocation()

        def by_hand() -> None:
            select_1(bare)

        def by_library() -> None:
            with db.connection() as connection:
                select_1(connection)

        def within_a_deadline() -> None:
            with db.connection(invocation) as connection:
                select_1(connection)

        def without_query() -> None:
            with db.connection():
                pass

        ways = (by_hand, by_library, within_a_deadline)
        for function in (*ways, without_query):
            round_us(function, 500)
        calls = [partial(round_us, way, per_round) for way in ways]
        turns = [turn(calls) for _ in range(rounds)]
        empty_us = statistics.median(round_us(without_query, per_round) for _ in range(rounds))
        bare_us = statistics.median(hand for hand, _, _ in turns)
        added_us = statistics.median(library - hand for hand, library, _ in turns)
        deadline_us = statistics.median(limited - library for _, library, limited in turns)
        bare.close()
        db.close()
        round_trips = _round_trips(environ)
    limited_us = added_us + deadline_us
    return (
        f"{engine:<11}bare {bare_us:6.1f} µs   added {added_us:4.1f} µs (target {TARGET_US:g})   "
        f"ratio {1 + added_us / bare_us:.3f}   with a deadline {deadline_us:.1f} µs more "
        f"(target {DEADLINE_TARGET_US:g}), ratio {1 + limited_us / bare_us:.3f}   "
        f"borrow without a query {empty_us:.1f} µs   round trips for one statement: {round_trips}"
    )


@contextmanager
def one_core() -> Iterator[None]:
    """Keep client and server on one core: which of two cores a server's process wakes up on is worth 50 µs."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


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
