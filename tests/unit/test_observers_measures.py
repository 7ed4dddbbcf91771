from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionReleased,
    ConnectionReplaced,
    ConnectionReused,
    CredentialsFailed,
    CredentialsFetched,
    Event,
    PingFailed,
    TransactionRolledBack,
)
from lambda_dbconn.observers.measures import measures

if TYPE_CHECKING:
    from lambda_dbconn.observers.measures import Measure

AT = "db:5432"
LOAN = ConnectionReleased(endpoint=AT, outcome="reused", wait_s=0.002, use_s=1.0, request_id="")
TABLE: list[tuple[Event, list[Measure]]] = [
    (
        ConnectionOpened(endpoint=AT, reason="first", attempts=1, duration_s=0.025),
        [("Connects", "Count", 1), ("ConnectMs", "Milliseconds", 25.0)],
    ),
    (ConnectionReused(endpoint=AT, idle_s=1.0), []),
    (
        ConnectionReplaced(endpoint=AT, reason="hang_up", age_s=1.0, idle_s=1.0),
        [("Replacements", "Count", 1), ("ReplacedHangUp", "Count", 1)],
    ),
    (ConnectFailed(endpoint=AT, error="e", attempt=1, duration_s=1.0), [("ConnectFailures", "Count", 1)]),
    (
        CredentialsFetched(endpoint=AT, source="extension", stage="AWSCURRENT", duration_s=0.5),
        [("CredentialRefreshes", "Count", 1), ("CredentialRefreshMs", "Milliseconds", 500.0)],
    ),
    (
        CredentialsFailed(endpoint=AT, source="extension", stage="AWSCURRENT", error="e", instead="cached"),
        [("CredentialFailures", "Count", 1)],
    ),
    (PingFailed(endpoint=AT, idle_s=1.0, error="e"), [("PingFailures", "Count", 1)]),
    (TransactionRolledBack(endpoint=AT, is_left_open=True), [("TransactionsLeftOpen", "Count", 1)]),
    (TransactionRolledBack(endpoint=AT, is_left_open=False), []),
    (ConnectionClosed(endpoint=AT, reason="idle", age_s=1.0, uses=1), []),
    (LOAN, [("Reuses", "Count", 1), ("AcquireMs", "Milliseconds", 2.0)]),
    (LOAN.replace(outcome="opened"), [("AcquireMs", "Milliseconds", 2.0)]),
    (LOAN.replace(outcome="failed"), [("AcquireFailures", "Count", 1)]),
]


@pytest.mark.parametrize(("event", "added"), TABLE, ids=lambda value: type(value).__name__)
def test_an_event_adds_to_its_metrics(event: Event, added: list[Measure]) -> None:
    assert list(measures(event)) == added
