"""Calls that block, made from a coroutine: each in a thread of its own, which has ended when the call is over.

asyncio's own executor keeps its threads, and they would be frozen and thawed with the execution environment.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from lambda_dbconn.light import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

R = TypeVar("R")


async def in_thread(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in a thread; a cancellation is obeyed when it has ended, for nobody may disturb it."""
    call = _Call(function, arguments)
    work = asyncio.wrap_future(call.future)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
    finally:
        call.end()


async def in_thread_unless_cancelled(function: Callable[..., R], *arguments: Any, undo: Callable[[R], object]) -> R:
    """Call a function in a thread; a cancellation is obeyed at once, and what it then returns is undone, in there."""
    call = _Call(function, arguments)
    try:
        return await asyncio.shield(asyncio.wrap_future(call.future))
    except asyncio.CancelledError:
        call.future.add_done_callback(lambda done: None if done.exception() else undo(done.result()))
        raise
    finally:
        call.end()


def in_thread_now(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in a thread and wait for it here, whether or not an event loop is running."""
    call = _Call(function, arguments)
    try:
        return call.future.result()
    finally:
        call.end()


class _Call(Generic[R]):
    """A call in a thread of its own."""

    def __init__(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="lambda_dbconn")
        self.future = self._executor.submit(copy_context().run, function, *arguments)

    def end(self) -> None:
        """Wait for the thread's end, which comes right after its result; one that has none yet ends by itself."""
        self._executor.shutdown(wait=self.future.done())
