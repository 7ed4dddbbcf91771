"""Clocks, and what is left of the invocation: every wait of the library is capped by it."""

from __future__ import annotations

import os
import time
from contextvars import ContextVar

from lambda_dbconn._values import TYPE_CHECKING, Protocol
from lambda_dbconn.errors import ConfigurationError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import TracebackType
    from typing import Any


UNLIMITED_S = float("inf")
RELEASED_S = float("-inf")  # the end of a connection's scope while no one has acquired it
_LONGEST_CLEANING_S = 5.0  # a session that takes longer is discarded
_SHORTEST_CLEANING_S = 0.05  # of the reserve, when nothing else is left


class InvocationContext(Protocol):
    """What Lambda passes to a handler beside the event, or anything with the same method."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends the invocation."""


_invocation: ContextVar[InvocationContext | None] = ContextVar("lambda_dbconn_invocation", default=None)


class invocation:  # noqa: N801 - used like a function, as those of contextlib
    """Tell the library which invocation runs, for code that cannot pass the Lambda context on.

    Inside the `with` block every acquire without a context of its own ends with this one's deadline, and belongs to its
    request. Threads that the block starts do not inherit it; tasks do.

    Args:
        context: The Lambda context.
    """

    def __init__(self, context: InvocationContext) -> None:
        if not hasattr(context, "get_remaining_time_in_millis"):
            raise ConfigurationError(
                f"the argument context is {type(context).__name__!r}; accepted is the Lambda context"
            )
        self._context = context
        self._token: Token[InvocationContext | None] | None = None

    def __enter__(self) -> None:
        if self._token is not None:
            raise ConfigurationError("this invocation block has been entered already; accepted: a new one each time")
        self._token = _invocation.set(self._context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            token, self._token = self._token, None
            _invocation.reset(token)


class Deadline:
    """When an acquire has to give up: the invocation's remaining time less a reserve.

    Args:
        context: The Lambda context, a number of seconds from now, or None for that of `invocation`, if any.
        reserve_s: Seconds that are left to the handler for its answer.
        clock: Read only when `context` is a number.
        is_inside_invocation: Whether `invocation` limits it, too: not for what is done after its time is over.

    Raises:
        ConfigurationError: `context` is none of these.
    """

    __slots__ = ("_clock", "_context", "_ends_at", "_remaining_ms", "_reserve_s")

    def __init__(
        self,
        context: InvocationContext | float | None,
        *,
        reserve_s: float,
        clock: Clock,
        is_inside_invocation: bool = True,
    ) -> None:
        self._clock = clock
        self._context: object = context
        self._reserve_s = reserve_s
        self._ends_at: float | None = None
        self._remaining_ms: Callable[[], int] | None = getattr(context, "get_remaining_time_in_millis", None)
        if self._remaining_ms is not None:
            return
        if isinstance(context, (int, float)) and not isinstance(context, bool) and context == context:  # noqa: PLR0124 - not NaN
            self._ends_at = clock.monotonic() + context
        elif context is not None:
            raise ConfigurationError(
                f"the argument context is {type(context).__name__!r}; accepted are the Lambda context, "
                "a number of seconds, or None"
            )
        current = _invocation.get() if is_inside_invocation else None
        if current is not None:
            self._context = current
            self._remaining_ms = current.get_remaining_time_in_millis

    def remaining_s(self) -> float:
        """Return the seconds left, less the reserve; negative when over, infinite without a limit."""
        left_s = UNLIMITED_S
        if self._remaining_ms is not None:
            left_s = self._remaining_ms() / 1000 - self._reserve_s
        if self._ends_at is not None:
            left_s = min(left_s, self._ends_at - self._clock.monotonic() - self._reserve_s)
        return left_s

    @property
    def aws_request_id(self) -> str:
        """The invocation's, as the Lambda context has it; empty without one."""
        request_id = getattr(self._context, "aws_request_id", "")
        return request_id if isinstance(request_id, str) else ""

    def cap_s(self, limit_s: float, *, doing: str) -> float:
        """Return the smaller of `limit_s` and what remains.

        Raises:
            DeadlineExceededError: Nothing remains; `doing` says for what.
        """
        remaining_s = self.remaining_s()
        if remaining_s <= 0:
            raise DeadlineExceededError(
                f"no time left for {doing}: the invocation ends in {remaining_s + self._reserve_s:.3f} s, "
                f"of which {self._reserve_s:g} s are reserved for its answer"
            )
        return min(limit_s, remaining_s)


class Limit:
    """When waits must end.

    Attributes:
        monotonic: The clock.
        ends_at: Seconds by this clock; infinite for never. May be moved at any time, and holds from the next wait on.
    """

    __slots__ = ("ends_at", "monotonic")

    def __init__(self, monotonic: Callable[[], float], ends_at: float = UNLIMITED_S) -> None:
        self.monotonic = monotonic
        self.ends_at = ends_at

    def left_s(self) -> float:
        """Return the seconds left, negative when over."""
        return self.ends_at - self.monotonic()


class CancelScope(Limit):
    """The limit of a connection, moved with each loan, and what is done about a wait that would not end.

    Args:
        where: The endpoint, for the error.
        monotonic: The clock.
        interrupt: Called with a connection, to ask the server to stop; never raises.

    Attributes:
        has_expired: Whether it has ended a wait, and with it the connection.
    """

    __slots__ = ("_where", "has_expired", "interrupt")

    def __init__(self, *, where: str, monotonic: Callable[[], float], interrupt: Callable[[Any], None]) -> None:
        super().__init__(monotonic)
        self._where = where
        self.interrupt = interrupt
        self.has_expired = False

    def cleaning_s(self) -> float:
        """Return the seconds that a rollback and the like may take when the loan is over."""
        return min(max(self.left_s(), _SHORTEST_CLEANING_S), _LONGEST_CLEANING_S)

    @property
    def is_released(self) -> bool:
        """Whether the connection is back in the cache: the caller must not use it any more."""
        return self.ends_at == RELEASED_S

    def refuse(self) -> DeadlineExceededError:
        """Return the error for a statement that is not sent because the deadline has passed.

        The connection stays usable: nothing was sent.
        """
        return DeadlineExceededError(f"no time left for a statement on {self._where}: it was not sent")

    def expire(self, connection: object) -> DeadlineExceededError:
        """Ask the server to stop, and return the error to raise; the connection must not be used any more."""
        self.has_expired = True
        self.interrupt(connection)
        return DeadlineExceededError(f"the invocation's time is over, and {self._where} has not answered")


class Clock(Protocol):
    """Two clocks and a sleep. Never blocks but in `sleep`; any thread may call it.

    Two, because a frozen environment may stop the monotonic clock and a time service may step the wall clock:
    an age is the larger of the two elapsed times.
    """

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def wall(self) -> float:
        """Return seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""


class SystemClock:
    """The process's own clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)


def jitter(seconds: float, *, share: float = 0.05) -> float:
    """Shorten a limit by up to `share`, so that a fleet started together does not reconnect together.

    Taken from the kernel's random source, which a SnapStart snapshot cannot repeat.
    """
    return seconds * (1 - share * int.from_bytes(os.urandom(4), "big") / 2**32)
