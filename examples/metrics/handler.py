"""The README's handler, with metrics in CloudWatch's embedded metric format beside the log."""

from __future__ import annotations

from typing import Any

import lambda_dbconn
from lambda_dbconn.observers.composite import CompositeObserver
from lambda_dbconn.observers.emf import EmfObserver
from lambda_dbconn.observers.logging import LoggingObserver

db = lambda_dbconn.from_env(observer=CompositeObserver(LoggingObserver(), EmfObserver(every_s=60)))


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Read in as many loans as the event says, and name the session that answered."""
    session = None
    for _ in range(event.get("loans", 1)):
        with db.connection(context) as conn, conn.cursor() as cur:
            cur.execute("select pg_backend_pid(), current_setting('application_name')")
            session = cur.fetchone()
    return {"session": session}
