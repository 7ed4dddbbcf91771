"""What an event adds to which metric: one table for all sinks that write CloudWatch metrics."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionOpened,
    ConnectionReleased,
    ConnectionReplaced,
    CredentialsFailed,
    CredentialsFetched,
    Event,
    PingFailed,
    SessionPinned,
    TransactionRolledBack,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Measure = tuple[str, str, float]  # the metric's name, CloudWatch's word for its unit, the value

COUNT = "Count"
MILLISECONDS = "Milliseconds"


def measures(event: Event) -> tuple[Measure, ...]:
    """Return what an event adds to the metrics; nothing for one that no metric is about."""
    take = _TABLE.get(type(event))
    return () if take is None else take(event)


def _loan(event: ConnectionReleased) -> tuple[Measure, ...]:
    if event.outcome == "failed":
        return (_once("AcquireFailures"),)
    waited = _took("AcquireMs", event.wait_s)
    return (_once("Reuses"), waited) if event.outcome == "reused" else (waited,)


def _replacement(event: ConnectionReplaced) -> tuple[Measure, ...]:
    reason = event.reason.title().replace("_", "")
    return _once("Replacements"), _once(f"Replaced{reason}")


def _once(name: str) -> Measure:
    return name, COUNT, 1


def _took(name: str, seconds: float) -> Measure:
    return name, MILLISECONDS, round(seconds * 1000, 3)  # microseconds are enough, and a line is paid for by its length


_TABLE: dict[type[Event], Callable[[Any], tuple[Measure, ...]]] = {
    ConnectionOpened: lambda event: (_once("Connects"), _took("ConnectMs", event.duration_s)),
    ConnectFailed: lambda _: (_once("ConnectFailures"),),
    ConnectionReplaced: _replacement,
    CredentialsFetched: lambda event: (
        _once("CredentialRefreshes"),
        _took("CredentialRefreshMs", event.duration_s),
    ),
    CredentialsFailed: lambda _: (_once("CredentialFailures"),),
    PingFailed: lambda _: (_once("PingFailures"),),
    TransactionRolledBack: lambda event: (_once("TransactionsLeftOpen"),) if event.is_left_open else (),
    SessionPinned: lambda _: (_once("Pins"),),
    ConnectionReleased: _loan,
}
