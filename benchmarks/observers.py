"""A warm borrow with `select 1` under each observer, against the same query on a bare global connection."""

from __future__ import annotations

import itertools
import os
import statistics
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics, Tracer

from benchmarks.subjects import bare_connection, running
from benchmarks.warm import one_core, round_us, select_1, turn
from lambda_dbconn import ConnectionManager, Settings
from lambda_dbconn.observers.emf import EmfObserver
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.observers.powertools import PowertoolsObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_dbconn.events import Observer


class _Context:
    """What counts of the Lambda context here."""

    def __init__(self, aws_request_id: str) -> None:
        self.aws_request_id = aws_request_id

    def get_remaining_time_in_millis(self) -> int:
        return 3000


def measure(engine: str, *, rounds: int = 200, per_round: int = 100) -> str:
    """Return a line of results for each observer: medians of the differences within a turn.

    Each borrow is an invocation of its own. What is written goes to the null device.
    """
    with ExitStack() as stack:
        stack.enter_context(one_core())
        _, environ = stack.enter_context(running(engine))
        bare = bare_connection(environ)
        stack.callback(bare.close)
        subjects = {name: _borrowing(environ, observer, stack) for name, observer in _observers().items()}

        def by_hand() -> None:
            select_1(bare)

        ways = (by_hand, *subjects.values())
        calls = [partial(round_us, way, per_round) for way in ways]
        with Path(os.devnull).open("w", encoding="utf-8") as null, redirect_stdout(null):
            for way in ways:
                round_us(way, 500)
            turns = [turn(calls) for _ in range(rounds)]
    bare_us = statistics.median(took_us[0] for took_us in turns)
    lines = []
    for place, name in enumerate(subjects, start=1):
        added_us = statistics.median(took_us[place] - took_us[0] for took_us in turns)
        lines.append(
            f"{engine:<11}{name:<38}bare {bare_us:5.1f} µs   added {added_us:4.1f} µs   "
            f"ratio {1 + added_us / bare_us:.3f}"
        )
    return "\n".join(lines)


def _observers() -> dict[str, Observer]:
    logger, tracer = Logger(service="benchmark", level="WARNING"), Tracer(service="benchmark", disabled=True)
    metrics = Metrics(namespace="benchmark", service="benchmark")
    return {
        "logging (the default)": LoggingObserver(),
        "EMF": EmfObserver("benchmark", {"service": "benchmark"}),
        "EMF, a line in each invocation": EmfObserver("benchmark", {"service": "benchmark"}, every_s=0),
        "Powertools, logger and tracer": PowertoolsObserver(logger=logger, tracer=tracer),
        "Powertools, with metrics": PowertoolsObserver(logger=logger, metrics=metrics, tracer=tracer),
    }


def _borrowing(environ: Mapping[str, str], observer: Observer, stack: ExitStack) -> Callable[[], None]:
    db: ConnectionManager[Any] = ConnectionManager(Settings.from_env(environ=environ), observer=observer)
    stack.callback(db.close)
    contexts = itertools.cycle([_Context("5e7bf9d0-6c1f-4a5a"), _Context("9a0e-8d3c-4b2e")])

    def borrow() -> None:
        with db.connection(next(contexts)) as connection:
            select_1(connection)

    return borrow
