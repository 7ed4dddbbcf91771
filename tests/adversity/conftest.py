"""The databases of these tests: both engines, with and without TLS."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.support.database import Database, database_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["postgres-plain", "postgres-tls", "mariadb-plain", "mariadb-tls"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each engine, each way, on the servers that all tests share."""
    yield from database_of(request)


@pytest.fixture(params=["own_postgres-plain", "own_postgres-tls", "own_mariadb-plain", "own_mariadb-tls"])
def own_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each engine, each way, on a server that the test may freeze, kill and restart."""
    yield from database_of(request)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the tests here have counted, such as the places struck: of all cases of a test together."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                for counts in (value for name, value in report.user_properties if name == "counted"):
                    assert isinstance(counts, dict)
                    counted[report.nodeid.partition("[")[0]].update({"cases": 1, **counts})
    for test, counts in sorted(counted.items()):
        terminalreporter.line(f"{test}: {', '.join(f'{name} {count:,}' for name, count in counts.items())}")
