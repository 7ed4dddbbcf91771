"""Calls that block, made from a coroutine: each in a thread of its own, which has ended when the call is over.

asyncio's own executor keeps its threads, and they would be frozen and thawed with the execution environment. Any
executor is waited for when the interpreter exits; these threads are daemons, so a call that is stuck delays no exit.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import copy_context
from threading import Thread

from lambda_dbconn._values import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

R = TypeVar("R")


async def in_thread(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in a thread; a cancellation is obeyed when it has ended, for nobody may disturb it."""
    call, ended = _begin(function, arguments)
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError:
        await asyncio.wait([ended])
        raise
    return call.outcome()


async def in_thread_unless_cancelled(function: Callable[..., R], *arguments: Any, undo: Callable[[R], object]) -> R:
    """Call a function in a thread; a cancellation is obeyed at once, and what it then returns is undone.

    Undone is also what nobody waits for any more because the event loop has been closed.
    """
    call, ended = _begin(function, arguments)
    try:
        await ended
        return call.outcome()
    except BaseException:
        call.abandon(undo)
        raise


def in_thread_now(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in a thread and wait for it here, whether or not an event loop is running."""
    return _Call(function, arguments, lambda: None).outcome()


def _begin(function: Callable[..., R], arguments: tuple[Any, ...]) -> tuple[_Call[R], asyncio.Future[None]]:
    """Begin a call; return it with what the loop is told of its end by."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell() -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(end)

    return _Call(function, arguments, tell), ended


class _Call(Generic[R]):
    """A call in a thread of its own, with the caller's context variables.

    Args:
        function: Called in the thread.
        arguments: Its arguments.
        tell: Called in the thread when it has ended.
    """

    def __init__(self, function: Callable[..., R], arguments: tuple[Any, ...], tell: Callable[[], None]) -> None:
        self._results: list[R] = []  # one, for whoever takes it out: the caller, or what undoes it
        self._error: BaseException | None = None
        self._undo: Callable[[R], object] | None = None
        self._tell = tell
        context = copy_context()
        self._thread = Thread(
            target=context.run, args=(self._run, function, arguments), name="lambda_dbconn", daemon=True
        )
        self._thread.start()

    def _run(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> None:
        try:
            self._results.append(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is wanted
            self._error = error
        if self._undo is not None:
            self._undo_result(self._undo)
        self._tell()

    def abandon(self, undo: Callable[[R], object]) -> None:
        """Undo the result, here if it is there, else in the thread once it comes."""
        self._undo = undo
        self._undo_result(undo)

    def _undo_result(self, undo: Callable[[R], object]) -> None:
        try:
            result = self._results.pop()  # atomic: one of the two threads gets it
        except IndexError:
            return
        undo(result)

    def outcome(self) -> R:
        """Wait for the thread's end; return what the function has returned, or raise what it has raised."""
        self._thread.join()
        error, self._error = self._error, None
        if error is None:
            return self._results.pop()
        try:
            raise error
        finally:
            del error  # its traceback has this frame: a circle would keep all that is in it
