"""What is left of the invocation; every wait of ours is capped by it."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, Protocol
from lambda_dbconn.errors import ConfigurationError, DeadlineExceededError

if TYPE_CHECKING:
    from lambda_dbconn.clock import Clock

_UNLIMITED_S = float("inf")


class InvocationContext(Protocol):
    """What Lambda passes to a handler beside the event, or anything with the same method."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends the invocation."""


class Deadline:
    """When a borrow has to give up: the invocation's remaining time less a reserve.

    Args:
        context: The Lambda context, a number of seconds from now, or None for no limit.
        reserve_s: Seconds that are left to the handler for its answer.
        clock: Read only when `context` is a number.

    Raises:
        ConfigurationError: `context` is none of these.
    """

    __slots__ = ("_clock", "_context", "_ends_at", "_reserve_s")

    def __init__(self, context: InvocationContext | float | None, *, reserve_s: float, clock: Clock) -> None:
        self._clock = clock
        self._reserve_s = reserve_s
        self._context: InvocationContext | None = None
        self._ends_at: float | None = None
        if context is None:
            return
        if isinstance(context, (int, float)) and not isinstance(context, bool):
            self._ends_at = clock.monotonic() + context
        elif hasattr(context, "get_remaining_time_in_millis"):
            self._context = context
        else:
            raise ConfigurationError(
                f"the argument context is {type(context).__name__!r}; accepted are the Lambda context, "
                "a number of seconds, or None"
            )

    def remaining_s(self) -> float:
        """Return the seconds left, less the reserve; negative when over, infinite without a limit."""
        if self._context is not None:
            return self._context.get_remaining_time_in_millis() / 1000 - self._reserve_s
        if self._ends_at is not None:
            return self._ends_at - self._clock.monotonic() - self._reserve_s
        return _UNLIMITED_S

    @property
    def aws_request_id(self) -> str:
        """The invocation's, as the Lambda context has it; empty without one."""
        return getattr(self._context, "aws_request_id", "")

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
