"""Keeps botocore's wire log quiet while a secret goes over the wire.

At the level DEBUG botocore (1.44) logs every answer's body, which is the secret, or an assumed role's keys, and every
request's headers, which hold the session token. Whoever sets the root logger to DEBUG in a function wants none of it
in CloudWatch.
"""

from __future__ import annotations

from _thread import get_ident

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import LogRecord
    from types import TracebackType

_LOGGERS = ("botocore.parsers", "botocore.endpoint", "botocore.auth", "botocore.utils")


class QuietWireLog:
    """Drops, inside a `with` block, what this thread logs to the loggers that show secrets. Other threads' goes on."""

    def __enter__(self) -> None:
        import logging

        self._thread = get_ident()
        self._loggers = [logging.getLogger(name) for name in _LOGGERS]
        for logger in self._loggers:
            logger.addFilter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for logger in self._loggers:
            logger.removeFilter(self)

    def filter(self, record: LogRecord) -> bool:
        """Let another thread's record pass; this is what makes it a `logging` filter."""
        return record.thread != self._thread
