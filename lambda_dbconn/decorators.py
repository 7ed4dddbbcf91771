"""The decorators: a handler (or any function that is passed a Lambda context) gets its connection as an argument."""

from __future__ import annotations

from functools import wraps

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from lambda_dbconn.deadline import InvocationContext

_RETURNS_BEFORE_IT_RUNS = 0x20 | 0x80 | 0x200  # CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR of `inspect`


def inject_connection(
    lend: Callable[[InvocationContext | None], AbstractContextManager[Any]], *, argument: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that calls the function with a connection as the keyword `argument`.

    The deadline comes from the first argument of the call that has `get_remaining_time_in_millis`; without one
    there is none.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & _RETURNS_BEFORE_IT_RUNS:
            raise ConfigurationError(
                f"{function.__qualname__} is a coroutine or generator function: it would run after its connection "
                "has gone back; accepted are plain functions"
            )

        @wraps(function)
        def with_connection(*args: Any, **kwargs: Any) -> Any:
            with lend(_context(args, kwargs)) as connection:
                return function(*args, **kwargs, **{argument: connection})

        return with_connection

    return decorate


def _context(args: tuple[Any, ...], kwargs: dict[str, Any]) -> InvocationContext | None:
    for value in (*args, *kwargs.values()):
        if hasattr(value, "get_remaining_time_in_millis"):
            return value  # type: ignore[no-any-return] # it has the one method of the protocol
    return None
