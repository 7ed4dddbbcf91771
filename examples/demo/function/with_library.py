"""The README's handler; the clock around its database part, and the counters in its answer, are the demo's."""

from __future__ import annotations

import time
from typing import Any

import lambda_dbconn

db = lambda_dbconn.from_env()


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Read every employee; say how long that took, and what the library has done so far."""
    started_s = time.perf_counter()
    with db.connection(context) as conn, conn.cursor() as cur:
        cur.execute("select * from employee")
        rows = cur.fetchall()
    database_s = time.perf_counter() - started_s
    return {"rows": len(rows), "database_s": database_s, "stats": vars(db.stats())}
