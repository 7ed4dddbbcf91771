"""The function that the templates deploy: reads a table, from the reader where there is one.

It has no host, no user and no password in it. The templates set the environment variables, so that the same code logs
in with IAM or with a secret, to PostgreSQL or to MySQL.
"""

from __future__ import annotations

from typing import Any

import lambda_dbconn

db = lambda_dbconn.from_env()


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Return the employees' names."""
    with db.reader.connection(context) as conn, conn.cursor() as cur:
        cur.execute("select name from employee order by id")
        return {"employees": [name for (name,) in cur.fetchall()]}
