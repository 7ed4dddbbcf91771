"""A function that does its work, and examines its own connection when it is asked to."""

from __future__ import annotations

from typing import Any

import lambda_dbconn

db = lambda_dbconn.from_env()


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer `{"doctor": true}` with a diagnosis, anything else as usual."""
    if event.get("doctor"):
        return db.doctor(context).as_dict()
    with db.connection(context) as conn, conn.cursor() as cur:
        cur.execute("select 6 * 7")
        return {"answer": cur.fetchone()[0]}
