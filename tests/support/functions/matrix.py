"""A function for the invocation matrix: it asks, waits too long or fails, and tells what it has; and a plain one.

Its clocks can be put forward by the event, as a freeze would. What the library logs is logged, all of it.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from alive import threads, timers  # type: ignore[import-not-found] # this folder is the task root

import lambda_dbconn
from lambda_dbconn.cache import connector

logging.getLogger("lambda_dbconn").setLevel(logging.DEBUG)
connector.INTERRUPT_LIMIT_S = 5.0  # a busy machine may need more than a tenth of a second to tell the server

SESSION = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
TOUCH = "UPDATE matrix_things SET touched = touched + 1 WHERE name = %s"


class Clock:
    """The system's clocks, put forward."""

    sleep = staticmethod(time.sleep)
    ahead_s = 0.0

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic() + self.ahead_s

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time() + self.ahead_s


clock = Clock()
settings = lambda_dbconn.Settings.from_env()
db: lambda_dbconn.ConnectionManager[Any] = lambda_dbconn.ConnectionManager(settings, clock=clock)
if settings.warm_up == "init":
    db.warm_up()
opened_at_init = db.stats().opened


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Do what the event asks for, and tell; the last word in the log is the event's mark."""
    clock.ahead_s += event.get("clock_moves_s", 0.0)
    told: dict[str, Any] = {"pid": os.getpid(), "opened_at_init": opened_at_init}
    try:
        if "name" in event:
            with db.transaction(context) as connection:
                touch(connection, event)
        else:
            with db.connection(context) as connection, closing(connection.cursor()) as cursor:
                cursor.execute(SESSION[settings.engine])
                told["session"] = cursor.fetchone()[0]
                if "meet_in" in event:
                    meet(Path(event["meet_in"]), event["count"])
    except lambda_dbconn.DeadlineExceededError:
        told["error"] = "DeadlineExceededError"
    finally:
        print(f"\nend of {event['mark']}", flush=True)
    told |= {"threads": threads(), "timers": timers(), "left_ms": context.get_remaining_time_in_millis()}
    return told | {"opened": db.stats().opened, "open": db.stats().open}


def touch(connection: Any, event: dict[str, Any]) -> None:
    """Lock a row, and then run a statement, or fail, or both."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(TOUCH, [event["name"]])
        if "statement" in event:
            cursor.execute(event["statement"])
    if event.get("fails"):
        raise ValueError("the handler's own")


def plain(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Do the same as many a handler does: with a connection of the driver's own, and no limit to its wait."""
    with closing(connect()) as connection:
        if "name" in event:
            touch(connection, event)
        connection.commit()
    return {"pid": os.getpid()}


def connect() -> Any:
    """Connect by the driver alone, over verified TLS."""
    password = os.environ["DB_PASSWORD"]
    if settings.engine == "postgresql":
        import psycopg

        return psycopg.connect(
            host=settings.host,
            port=settings.port,
            dbname=settings.name,
            user=settings.user,
            password=password,
            sslmode="verify-full",
            sslrootcert=settings.sslrootcert,
        )
    import pymysql

    return pymysql.connect(
        host=settings.host,
        port=settings.port,
        database=settings.name,
        user=settings.user,
        password=password,
        ssl=ssl.create_default_context(cafile=settings.sslrootcert),
    )


def meet(folder: Path, count: int) -> None:
    """Wait until so many processes are here, each with its connection."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < count:
        time.sleep(0.01)
