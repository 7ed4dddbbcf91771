"""What a warm loan with `select 1` takes, against the query on a bare global connection: apart, and ten in a row.

With `DB_RESET=always` the answer to a reset is read at the next acquire. Loans that are a millisecond or more apart,
as invocations are, do not wait for it. Those of a batch do, which follow each other within one invocation.

A database never runs on the function's core, so the server has one of its own here, and neither core sleeps between
two queries: to wake one up takes longer than what is measured. What shares one core finds its caches used by the
other each time; that is measured as well.
"""

from __future__ import annotations

import math
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

import lambda_dbconn
from benchmarks.subjects import bare_connection, running
from lambda_dbconn import ConnectionManager, Settings
from lambda_dbconn.testing.relay import FaultRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from awslambdaric.lambda_context import LambdaContext

RESETS = ("always", "wait", "never")
BUDGETS = {"postgresql": {"always": 1.25, "never": 1.15}, "mysql": {"always": 1.60, "never": 1.15}}
PROCESSES = 9  # where each has its objects in memory is worth 2 µs either way
BATCH = 10
PAUSE_S = 0.001
DELAY_S = 0.02  # of each way, where it is counted what is waited for


def invocation() -> LambdaContext:
    """Return the Lambda context, as the runtime client makes it, of an invocation that ends in a quarter of an hour."""
    from awslambdaric.lambda_context import LambdaContext  # for Linux

    ends_at_ms = int((time.time() + 900) * 1000)
    return LambdaContext("invocation", None, None, ends_at_ms)


def measure(engine: str) -> str:
    """Return the results for an engine: with a core for the server, if there are two, and with one for both."""
    lines: list[str] = []
    for name, client_core, server_core in _placements():
        with on_core(server_core), running(engine) as (_, environ), awake():
            if not lines:
                lines += _round_trips(engine, environ)
            lines += _times(engine, environ, client_core, name)
    return "\n".join(lines)


def _times(engine: str, environ: Mapping[str, str], core: int | None, placement: str) -> list[str]:
    """Return for each way of having loans the medians of several processes, and ratios to the bare driver."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        each = pool.map(partial(_one_process, environ, core), range(PROCESSES), chunksize=1)
    lines = []
    for way in each[0]:
        bare_us, *added_us = (statistics.median(column) for column in zip(*(one[way] for one in each), strict=True))
        figures = []
        for reset, more_us in zip(RESETS, added_us, strict=True):
            budget = BUDGETS[engine].get(reset) if way == "apart" else None
            limit = f", budget {budget:.2f}" if budget else ""
            figures.append(f"{reset} +{more_us:.1f} µs (ratio {1 + more_us / bare_us:.3f}{limit})")
        lines.append(f"{engine:<11}{placement}, {way}: bare {bare_us:.1f} µs; {'; '.join(figures)}")
    return lines


def _one_process(
    environ: Mapping[str, str], core: int | None, _number: int, *, rounds: int = 30, per_round: int = 20
) -> dict[str, tuple[float, ...]]:
    """Return by way the µs of a bare query, and what the library adds to it with each `DB_RESET`.

    Short rounds of all ways follow each other, and the figure is the median of the differences within such a turn: a
    machine that is busy for a while is busy for all. Each turn has an order of its own: which way comes after which is
    worth up to 7 µs.
    """
    with on_core(core):
        bare = bare_connection(environ)
        managers = [ConnectionManager[Any](Settings.from_env(environ={**environ, "DB_RESET": kind})) for kind in RESETS]
        context = invocation()

        def lend(db: ConnectionManager[Any]) -> None:
            with db.connection(context) as connection:
                select_1(connection)

        with lambda_dbconn.invocation(context):
            calls = [partial(select_1, bare), *(partial(lend, db) for db in managers)]
            for call in calls:
                round_us(call, 300)
            apart = [partial(apart_us, call, per_round) for call in calls]
            batch = [partial(batch_us, call, per_round // BATCH) for call in calls]
            results = {"apart": _added(apart, rounds), f"{BATCH} in a row": _added(batch, rounds)}
        bare.close()
        for db in managers:
            db.close()
    return results


def _added(calls: Sequence[Callable[[], float]], rounds: int) -> tuple[float, ...]:
    """Return the median of the first, and of what each other one adds to it."""
    turns = [turn(calls) for _ in range(rounds)]
    bare_us = statistics.median(first for first, *_ in turns)
    return bare_us, *(statistics.median(one[place] - one[0] for one in turns) for place in range(1, len(calls)))


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


def apart_us(function: Callable[[], None], times: int) -> float:
    """Return what one time takes, if there is a pause before each; the pauses do not count."""
    total_s = 0.0
    for _ in range(times):
        time.sleep(PAUSE_S)
        start = time.perf_counter()
        function()
        total_s += time.perf_counter() - start
    return total_s / times * 1e6


def batch_us(function: Callable[[], None], times: int) -> float:
    """Return what one time takes of several in a row, if there is a pause before each row."""
    total_s = 0.0
    for _ in range(times):
        time.sleep(PAUSE_S)
        total_s += round_us(function, BATCH) / 1e6
    return total_s / times * 1e6


def _round_trips(engine: str, environ: Mapping[str, str]) -> list[str]:
    """Count how often the client speaks and is answered in a warm loan with one statement, and what it waits for.

    What is waited for is what the loan takes, where each round trip takes twice `DELAY_S` and all else next to nothing.
    """
    lines = []
    for reset in RESETS:
        with FaultRelay(target_host=environ["DB_HOST"], target_port=int(environ["DB_PORT"])) as relay:
            settings = Settings.from_env(environ={**environ, "DB_PORT": str(relay.port), "DB_RESET": reset})
            db: ConnectionManager[Any] = ConnectionManager(settings)

            def lend(db: ConnectionManager[Any] = db) -> None:
                with db.connection() as connection:
                    select_1(connection)

            lend()
            relay.delay(DELAY_S)
            counts = []
            for name, times in (("apart", 1), (f"{BATCH} in a row", BATCH)):
                time.sleep(4 * DELAY_S)
                relay.reset_counters()
                waited = math.floor(round_us(lend, times) / 1e6 / (2 * DELAY_S) * 10) / 10
                time.sleep(4 * DELAY_S)  # until the answer to the last reset is here
                counts.append(f"{name} {relay.round_trips / times:g}, of which {waited:g} are waited for")
            db.close()
        lines.append(f"{engine:<11}round trips for a loan with one statement, {reset}: {'; '.join(counts)}")
    return lines
