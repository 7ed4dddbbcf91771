"""A handler with one global connection, as in most articles about Lambda and databases; the clock is the demo's.

What the library sets on its connections is set here too, so that the two differ in nothing but care.
"""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg

conn = psycopg.connect(
    host=os.environ["DB_HOST"],
    port=os.environ["DB_PORT"],
    dbname=os.environ["DB_NAME"],
    user=os.environ["DB_USER"],
    password=os.environ["DB_PASSWORD"],
    sslmode=os.environ.get("DB_SSLMODE", "verify-full"),
    sslrootcert=os.environ.get("DB_SSLROOTCERT", ""),
    gssencmode="disable",
    autocommit=True,
    prepare_threshold=None,
)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Read every employee; say how long that took."""
    started_s = time.perf_counter()
    with conn.cursor() as cur:
        cur.execute("select * from employee")
        rows = cur.fetchall()
    database_s = time.perf_counter() - started_s
    return {"rows": len(rows), "database_s": database_s}
