"""`LoggingObserver`: the default; standard logging, one line for each (re)connect that says why."""

from __future__ import annotations

import sys

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.events import (
    ConnectFailed,
    ConnectGaveUp,
    ConnectionOpened,
    ConnectionReleased,
    ConnectionReused,
    CredentialsFailed,
    Event,
    PingFailed,
    ResetDelayed,
    SessionPinned,
    TransactionRolledBack,
    WarmUpFailed,
)

if TYPE_CHECKING:
    from typing import Any

LOGGER_NAME = "lambda_dbconn"

DEBUG, INFO, WARNING = 10, 20, 30  # as in `logging`, which is not imported for them
_LEVELS: dict[type[Event], int] = {
    ConnectionOpened: INFO,
    PingFailed: INFO,
    ResetDelayed: INFO,
    ConnectFailed: WARNING,
    ConnectGaveUp: WARNING,
    CredentialsFailed: WARNING,
    WarmUpFailed: WARNING,
}


def level_of(event: Event) -> int:
    """Return how much an event matters, as a level of `logging`.

    Retries that follow a failed connect are DEBUG: its first attempt is a warning, and so is the end of the retries.
    """
    if isinstance(event, ConnectFailed) and event.attempt > 1:
        return DEBUG
    if isinstance(event, ConnectionOpened) and event.attempts > 1:
        return WARNING
    is_left_open = isinstance(event, TransactionRolledBack) and event.is_left_open
    if is_left_open or (isinstance(event, SessionPinned) and event.is_first):
        return WARNING
    return _LEVELS.get(type(event), DEBUG)


class LoggingObserver:
    """Logs each event but reuse and the end of a loan to the logger `lambda_dbconn`, as `event name=value …`.

    The same values are in the record's attribute `lambda_dbconn`, for formatters that write JSON. Failures and the
    first pin by each statement are warnings, connects are INFO, the rest is DEBUG. However often a connect is retried,
    two lines say so: one when it first fails, and one with the number of attempts when it succeeds or is given up.
    Log text is for people; programs use an observer of their own.
    """

    ignores: tuple[type[Event], ...] = (ConnectionReused, ConnectionReleased)

    def on_event(self, event: Event) -> None:
        """Log one event."""
        level = level_of(event)
        if level < WARNING and "logging" not in sys.modules:
            return  # nobody can have asked for it, and the import would cost a cold start 5 ms
        import logging

        logger = logging.getLogger(LOGGER_NAME)
        if not logger.isEnabledFor(level):
            return
        values = vars(event)
        words = " ".join(f"{name}={_word(value)}" for name, value in values.items())
        logger.log(level, "%s %s", type(event).__name__, words, extra={LOGGER_NAME: values})


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return repr(text) if " " in text else text
