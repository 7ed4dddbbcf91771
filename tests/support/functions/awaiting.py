"""A function that awaits its database, in an event loop for each invocation."""

from __future__ import annotations

import asyncio
from typing import Any

from alive import threads, timers  # type: ignore[import-not-found] # this folder is the task root

import lambda_dbconn
from lambda_dbconn.cache import connector

connector.INTERRUPT_LIMIT_S = 5.0  # a busy machine may need more than a tenth of a second to tell the server

db = lambda_dbconn.async_from_env()
opened_at_init = db.stats().opened


async def work(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Do what the event asks for, and return which session this is."""
    async with db.connection(context) as connection:
        session = connection.info.backend_pid
        await connection.execute("SELECT 1")
        if "leave_open" in event:
            await connection.execute("BEGIN")
        if "statement" in event:
            await connection.execute(event["statement"])
        if "raise" in event:
            raise ValueError(event["raise"])
    return {"session": session}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Be an invocation, and tell."""
    told: dict[str, Any] = {"opened_at_init": opened_at_init}
    try:
        told |= asyncio.run(work(event, context))
    except lambda_dbconn.LambdaDbConnError as error:
        told["error"] = type(error).__name__
    stats = db.stats()
    return told | {
        "left_ms": context.get_remaining_time_in_millis(),
        "opened": stats.opened,
        "open": stats.open,
        "replaced": dict(stats.replaced),
        "threads": threads(),
        "timers": timers(),
    }
