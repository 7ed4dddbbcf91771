"""Real signals, in the main thread of a process of its own, at random moments of loans: none makes an answer wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import wait_until
from tests.support.database import database_of, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.database import Database

FEW, MANY = 150, 10_000  # interrupts, of each server
SEED = int(os.environ.get("STORM_SEED", "20261201"))
LIMIT_S = 600.0
MOST_DESCRIPTORS = 2  # more at the end than at the beginning: a connection, or none, is in the cache


@pytest.fixture(params=["postgres-tls", "mariadb-tls"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each server, over TLS."""
    yield from database_of(request)


def storm(database: Database, interrupts: int, request: pytest.FixtureRequest) -> None:
    """Let a storm pass, and look at what it counted."""
    server = database.server
    before = len(server.session_ids())
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.storm", str(interrupts), str(SEED)],
        cwd=Path(__file__).parents[2],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    counts = Counter(json.loads(run.stdout))
    request.node.user_properties.append(("counted", dict(counts)))
    assert counts["interrupts"] == interrupts
    assert counts["wrong answers"] == 0, run.stderr[-5000:]
    assert counts["innocent failures"] == 0, run.stderr[-5000:]
    assert counts["slots lost"] == counts["threads more"] == 0
    assert counts["descriptors more"] <= MOST_DESCRIPTORS
    assert counts["loans ended"] > interrupts // 2  # most interrupts meet a loan, and nothing swallows them
    wait_until(lambda: len(server.session_ids()) <= before)


def test_a_signal_at_any_moment_makes_no_answer_wrong_and_no_other_loan_fail(
    database: Database, request: pytest.FixtureRequest
) -> None:
    storm(database, FEW, request)


@pytest.mark.soak
@pytest.mark.timeout(LIMIT_S + 60)
def test_ten_thousand_signals_make_no_answer_wrong_and_no_other_loan_fail(
    database: Database, request: pytest.FixtureRequest
) -> None:
    storm(database, MANY, request)
