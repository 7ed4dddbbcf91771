"""Powertools' three decorators, and an observer that logs, counts and traces with the same three objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics, Tracer

import lambda_dbconn
from lambda_dbconn.observers.powertools import PowertoolsObserver

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger()
metrics = Metrics()
tracer = Tracer()
db = lambda_dbconn.from_env(observer=PowertoolsObserver(logger=logger, metrics=metrics, tracer=tracer))


@logger.inject_lambda_context(correlation_id_path="id")
@tracer.capture_lambda_handler
@metrics.log_metrics
@db.with_connection  # innermost, so that its loan is over before the metrics are written
def handler(event: dict[str, Any], context: LambdaContext, conn: Any) -> dict[str, int]:
    """Count the employees."""
    with conn.cursor() as cur:
        cur.execute("select count(*) from employee")
        employees = int(cur.fetchone()[0])
    logger.info("counted")
    return {"employees": employees}
