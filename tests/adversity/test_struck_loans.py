"""An exception wherever CPython may run a signal handler in a loan, and the loan after it.

After each strike the next loan gets its own answer, no slot is lost, no None is lent, nothing of the struck loan is
left in the session, and the function's sessions at the server stay few. In `make test` at every `STRIDE`-th place; in
`make test-soak` at all of them.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tests.support import strikes
from tests.support.database import database_of
from tests.support.struck_loans import AsyncLoans, Loans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.database import Database
    from tests.support.struck_loans import Report

pytestmark = [
    pytest.mark.skipif(not strikes.IS_POSSIBLE, reason="Python tells of each place from 3.12 on"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of what a strike has left half made
    pytest.mark.filterwarnings("ignore:coroutine.* was never awaited:RuntimeWarning"),
]

STRIDE = 29  # a prime number, so that loops are not struck at the same place each time
WAYS = ("connection", "transaction", "error", "state", "close", "unread", "cold")
KINDS = (strikes.Struck, strikes.StruckError)
SHARE_FOUND = 0.9  # of what the profiler counts: a loan may wait once more, or once less


@pytest.fixture(params=["postgres-plain", "postgres-tls"])
def postgres_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """PostgreSQL, which alone has asyncio."""
    yield from database_of(request)


@pytest.fixture(autouse=True)
def no_collector(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let nothing depend on the collector of cycles, but asyncio, whose tasks and errors refer to each other."""
    if "loans" in request.fixturenames:
        gc.disable()
    yield
    gc.enable()


@pytest.fixture
def loans(database: Database) -> Loans:
    return Loans(database)


@pytest.fixture
def async_loans(postgres_database: Database) -> AsyncLoans:
    return AsyncLoans(postgres_database)


def strike(
    loans: Loans, way: str, record: pytest.FixtureRequest, *, stride: int, raises: Sequence[type[BaseException]]
) -> None:
    """Strike, and look that no place was left out: Python's own profiler counts most of them, too."""
    report = loans.strike(way, stride=stride, raises=raises)
    note(record, report)
    assert report.places > report.least * SHARE_FOUND > 0
    assert report.tried > report.places * SHARE_FOUND // stride > 0


def note(record: pytest.FixtureRequest, report: Report) -> None:
    counts: dict[str, int] = {
        "places": report.places,
        "tried": report.tried,
        "loans ended": report.raised,
        "not": report.other,
    }
    record.node.user_properties.append(("counted", counts))


@pytest.mark.parametrize("way", WAYS)
def test_wherever_a_loan_is_struck_the_next_one_gets_its_own_answer_and_session(
    loans: Loans, way: str, request: pytest.FixtureRequest
) -> None:
    strike(loans, way, request, stride=STRIDE, raises=KINDS)


@pytest.mark.parametrize("way", WAYS)
def test_wherever_a_loan_of_a_task_is_struck_the_next_one_gets_its_own_answer_and_session(
    async_loans: AsyncLoans, way: str, request: pytest.FixtureRequest
) -> None:
    strike(async_loans, way, request, stride=STRIDE, raises=[strikes.StruckExit])


@pytest.mark.parametrize("way", WAYS)
def test_wherever_a_task_is_cancelled_the_next_loan_gets_its_own_answer_and_session(
    async_loans: AsyncLoans, way: str, request: pytest.FixtureRequest
) -> None:
    report = async_loans.cancel(way)
    note(request, report)
    assert report.tried == report.places >= 1


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_every_place_of_a_loan_may_be_struck(
    loans: Loans, way: str, kind: type[BaseException], request: pytest.FixtureRequest
) -> None:
    strike(loans, way, request, stride=1, raises=[kind])


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", WAYS)
def test_every_place_of_a_loan_of_a_task_may_be_struck(
    async_loans: AsyncLoans, way: str, request: pytest.FixtureRequest
) -> None:
    strike(async_loans, way, request, stride=1, raises=[strikes.StruckExit])
