"""Calls that block, made from a coroutine: each in a thread of its own, which ends with the call.

asyncio's own executor keeps its threads, and they would be frozen and thawed with the execution environment.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from lambda_dbconn._typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any

R = TypeVar("R")


async def in_thread(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in a thread; a cancellation is obeyed when it has ended, for nobody may disturb it."""
    work = asyncio.wrap_future(begin(function, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


async def in_thread_unless_cancelled(function: Callable[..., R], *arguments: Any, undo: Callable[[R], object]) -> R:
    """Call a function in a thread; a cancellation is obeyed at once, and what it then returns is undone, in there."""
    work = begin(function, *arguments)
    try:
        return await asyncio.shield(asyncio.wrap_future(work))
    except asyncio.CancelledError:
        work.add_done_callback(lambda done: None if done.exception() else undo(done.result()))
        raise


def begin(function: Callable[..., R], *arguments: Any) -> Future[R]:
    """Call a function in a thread of its own."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="lambda_dbconn")
    future = executor.submit(copy_context().run, function, *arguments)
    executor.shutdown(wait=False)
    return future
