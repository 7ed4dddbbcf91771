"""A function whose snapshot is restored years later, and perhaps in several clones.

What is real: the runtime client, its hooks, its restore, the connections. What is simulated: the pause. Until the
restore the process's clocks are years behind (`time.time` and, if `MONOTONIC_JUMPS`, `time.monotonic`; not `datetime`,
which botocore reads). With `CLONES` the process forks where the snapshot is taken, by the C library's `fork`: Python's
own would run the hooks for forks, which a real restore does not know, and would seed `random` anew.
"""

from __future__ import annotations

import ctypes
import os
import random
import time
from contextlib import closing
from typing import Any

from awslambdaric.lambda_runtime_client import BaseLambdaRuntimeClient
from snapshot_restore_py import register_after_restore

YEARS_S = float(os.environ["YEARS_S"])
SESSION = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
USER = {"postgresql": "SELECT current_user", "mysql": "SELECT substring_index(current_user(), '@', 1)"}

_behind_s = {"wall": YEARS_S, "monotonic": YEARS_S if os.environ["MONOTONIC_JUMPS"] == "yes" else 0.0}
_true_wall, _true_monotonic = time.time, time.monotonic
time.time = lambda: _true_wall() - _behind_s["wall"]
time.monotonic = lambda: _true_monotonic() - _behind_s["monotonic"]
register_after_restore(_behind_s.update, wall=0.0, monotonic=0.0)  # the first hook: so has time passed for all others

import lambda_dbconn  # noqa: E402
from lambda_dbconn.cache.backoff import Backoff  # noqa: E402


def clone(client: BaseLambdaRuntimeClient) -> None:
    """Take the snapshot: let so many processes go on from here, and wait for their ends."""
    for _ in range(int(os.environ["CLONES"])):
        if ctypes.PyDLL(None).fork() == 0:
            restore_next(client)
            return
    while True:
        os.wait()


restore_next = BaseLambdaRuntimeClient.restore_next
if os.environ.get("CLONES"):
    BaseLambdaRuntimeClient.restore_next = clone

db: lambda_dbconn.ConnectionManager[Any] = lambda_dbconn.from_env()


def ask(context: Any = None) -> dict[str, Any]:
    """Borrow, and return which session this is, and whose."""
    answers = {}
    with db.connection(context) as connection, closing(connection.cursor()) as cursor:
        for name, statement in (("session", SESSION), ("user", USER)):
            cursor.execute(statement[db.settings.engine])
            answers[name] = cursor.fetchone()[0]
    return answers


at_init = ask()
print(f"at init: {at_init['session']}", flush=True)


def handler(_event: object, context: Any) -> dict[str, Any]:
    """Tell what there was at init, and what there is now."""
    lender = db._cache
    return {
        "at_init": at_init,
        "now": ask(context),
        "pid": os.getpid(),
        "random": random.random(),
        "jitter": [limits.max_lifetime_s for limits in (slot.limits for slot in lender._slots)],
        "pauses": [Backoff().pause_s() for _ in range(3)],
        "opened": db.stats().opened,
        "wall": time.time(),
    }
