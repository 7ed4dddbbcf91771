"""`LoggingObserver`: the default; standard logging, one line for each (re)connect that says why."""

from __future__ import annotations

import sys

from lambda_dbconn._typing import TYPE_CHECKING
from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionOpened,
    ConnectionReused,
    CredentialsFailed,
    Event,
    PingFailed,
    SessionPinned,
    TransactionRolledBack,
    WarmUpFailed,
)

if TYPE_CHECKING:
    from typing import Any

LOGGER_NAME = "lambda_dbconn"

_DEBUG, _INFO, _WARNING = 10, 20, 30
_LEVELS: dict[type[Event], int] = {
    ConnectionOpened: _INFO,
    PingFailed: _INFO,
    ConnectFailed: _WARNING,
    CredentialsFailed: _WARNING,
    WarmUpFailed: _WARNING,
}


class LoggingObserver:
    """Logs each event but reuse to the logger `lambda_dbconn`, as `event name=value …`.

    The same values are in the record's attribute `lambda_dbconn`, for formatters that write JSON. Failures and the
    first pin by each statement are warnings, connects are INFO, the rest is DEBUG. Log text is for people; programs
    use an observer of their own.
    """

    ignores: tuple[type[Event], ...] = (ConnectionReused,)

    def on_event(self, event: Event) -> None:
        """Log one event."""
        level = _LEVELS.get(type(event), _DEBUG)
        if (isinstance(event, TransactionRolledBack) and event.is_left_open) or (
            isinstance(event, SessionPinned) and event.is_first
        ):
            level = _WARNING
        if level < _WARNING and "logging" not in sys.modules:
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
