"""`PowertoolsObserver`: the events by way of the user's own Powertools for AWS Lambda.

Rests on Powertools 3 and, for subsegments, on its X-Ray provider. Nothing of either is imported here.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.events import (
    ConnectFailed,
    ConnectionOpened,
    ConnectionReleased,
    ConnectionReused,
    CredentialsFetched,
)
from lambda_dbconn.observers.composite import CompositeObserver
from lambda_dbconn.observers.logging import DEBUG, INFO, LOGGER_NAME, WARNING, level_of
from lambda_dbconn.observers.measures import measures

if TYPE_CHECKING:
    from typing import Any

    from aws_lambda_powertools import Logger, Metrics, Tracer

    from lambda_dbconn.events import Event, Observer


class PowertoolsObserver(CompositeObserver):
    """Logs, counts and traces with what it is given.

    Args:
        logger: Logs as `LoggingObserver` does: the event's name as the message, its values under the key
            `lambda_dbconn`; with the keys and the correlation id that the logger has.
        metrics: Takes the metrics that `EmfObserver` writes, into its own namespace and with its own dimensions;
            `@metrics.log_metrics` writes them.
        tracer: Gets a subsegment for each connect, each try that failed, and each secret that was read. It is put
            there when it is over, with the times that it took.

    Raises:
        ConfigurationError: It is given none of them.
    """

    def __init__(
        self, *, logger: Logger | None = None, metrics: Metrics | None = None, tracer: Tracer | None = None
    ) -> None:
        sinks: list[Observer] = []
        if logger is not None:
            sinks.append(_Log(logger))
        if metrics is not None:
            sinks.append(_Metrics(metrics))
        if tracer is not None:
            sinks.append(_Trace(tracer))
        if not sinks:
            raise ConfigurationError("PowertoolsObserver is given nothing; accepted: a logger, metrics, a tracer")
        super().__init__(*sinks)


class _Log:
    ignores: tuple[type[Event], ...] = (ConnectionReused, ConnectionReleased)

    def __init__(self, logger: Logger) -> None:
        self._log = {DEBUG: logger.debug, INFO: logger.info, WARNING: logger.warning}

    def on_event(self, event: Event) -> None:
        self._log[level_of(event)](type(event).__name__, extra={LOGGER_NAME: vars(event)})


class _Metrics:
    ignores: tuple[type[Event], ...] = (ConnectionReused,)

    def __init__(self, metrics: Metrics) -> None:
        self._add = metrics.add_metric

    def on_event(self, event: Event) -> None:
        for name, unit, value in measures(event):
            self._add(name=name, unit=unit, value=value)


class _Trace:
    ignores: tuple[type[Event], ...] = (ConnectionReused, ConnectionReleased)

    def __init__(self, tracer: Tracer) -> None:
        self._provider: Any = tracer.provider  # whose class says less than X-Ray's can

    def on_event(self, event: Event) -> None:
        if not isinstance(event, (ConnectionOpened, ConnectFailed, CredentialsFetched)):
            return
        name = "credentials" if isinstance(event, CredentialsFetched) else "connect"
        with self._provider.in_subsegment(name=f"## {LOGGER_NAME}.{name}") as subsegment:
            if subsegment is None:  # X-Ray has no segment yet: this is the init phase
                return
            subsegment.start_time -= event.duration_s
            subsegment.put_metadata("event", vars(event), LOGGER_NAME)
            if isinstance(event, ConnectFailed):
                subsegment.add_fault_flag()
