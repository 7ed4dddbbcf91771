"""What people paste: token or secret, and the connection, are got once, outside the handler, as tutorials do.

It does more than most of them: it verifies the server, leaves no transaction open, and connects anew when psycopg
says that the connection is closed. What no tutorial does, it does not: the token or password stays that of the import.
What the library sets on its connections is set here too, so that the two differ in nothing but care. The clock is the
demo's.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import boto3
import psycopg

if "DB_SECRET_ID" in os.environ:
    answer = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["DB_SECRET_ID"])
    secret = json.loads(answer["SecretString"])
    user, password = secret["username"], secret["password"]
else:
    user = os.environ["DB_USER"]
    password = boto3.client("rds").generate_db_auth_token(
        DBHostname=os.environ["DB_SIGNING_HOST"], Port=int(os.environ["DB_PORT"]), DBUsername=user
    )


def connect() -> psycopg.Connection:
    """Open a connection to the proxy."""
    return psycopg.connect(
        host=os.environ["DB_HOST"],
        port=os.environ["DB_PORT"],
        dbname=os.environ["DB_NAME"],
        user=user,
        password=password,
        sslmode="verify-full",
        sslrootcert=os.environ["DB_SSLROOTCERT"],
        connect_timeout=5,
        gssencmode="disable",
        autocommit=True,
        prepare_threshold=None,
    )


conn = connect()


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Read every employee; say how long that took."""
    global conn  # noqa: PLW0603 - so it is pasted
    started_s = time.perf_counter()
    if conn.closed:
        conn = connect()
    with conn.cursor() as cur:
        cur.execute("select * from employee")
        rows = cur.fetchall()
    database_s = time.perf_counter() - started_s
    return {"rows": len(rows), "database_s": database_s}
