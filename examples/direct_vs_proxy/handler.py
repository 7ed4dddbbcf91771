"""Every row of `employee`; whether over a direct connection or through RDS Proxy is the environment's affair.

Direct:   DB_HOST=my-database.cluster-a1b2c3d4e5f6.ap-south-1.rds.amazonaws.com
Proxied:  DB_HOST=my-rds-proxy.proxy-a1b2c3d4e5f6.ap-south-1.rds.amazonaws.com
"""

from __future__ import annotations

from typing import Any

import lambda_dbconn

db = lambda_dbconn.from_env()


def handler(event: Any, context: Any) -> dict[str, int]:
    """Print the rows and return how many there were."""
    with db.connection(context) as conn, conn.cursor() as cur:
        cur.execute("select * from employee")
        rows = cur.fetchall()
    for row in rows:
        print(row)
    return {"rows": len(rows)}
