"""`Operation`: what is to be done about a connection, apart from how it is waited for.

A generator that yields calls and goes on with what they return or raise. The calls are those that may take a round
trip; all that is decided in between is written once, for code that blocks and for code that awaits.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, TypeAlias

R = TypeVar("R")

if TYPE_CHECKING:
    Operation: TypeAlias = Generator[Callable[[], Any], Any, R]


def run_sync(steps: Operation[R]) -> R:
    """Carry the steps out by calling; return what they return, raise what they raise.

    Operation that an exception has interrupted in here are closed, so that they clean up at once.
    """
    try:
        call = next(steps)
        while True:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - the steps decide
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return] # as declared
    except BaseException:  # not after a good end: an exception that strikes there loses the result
        steps.close()
        raise


async def run_async(steps: Operation[R]) -> R:
    """Carry the steps out by awaiting; a cancellation is an error of the step that it meets."""
    try:
        call = next(steps)
        while True:
            try:
                result = await call()
            except BaseException as error:  # noqa: BLE001 - the steps decide
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return] # as declared
    except BaseException:  # not after a good end: an exception that strikes there loses the result
        steps.close()
        raise
