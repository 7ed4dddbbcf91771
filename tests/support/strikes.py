"""Exceptions at each place where CPython may run a signal handler, one place after another.

CPython runs Python's signal handlers where a function begins or goes on, where a loop jumps back, and after a call of
a function in C has returned. There, and nowhere else, a time limit by SIGALRM or a Ctrl-C raises.
"""

from __future__ import annotations

import dis
import sys
from _thread import get_ident
from functools import cache
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

IS_POSSIBLE = sys.version_info >= (3, 12)
_TOOL = 4


class Struck(BaseException):
    """What a signal handler raises."""


class StruckError(TimeoutError):
    """The same from a handler that raises an ordinary exception, as time limits by SIGALRM do."""


class StruckExit(SystemExit):
    """The same from a handler that ends the process, which asyncio hands on at once."""


class Strike:
    """Raises an exception at one place that is passed inside the `with` block, in this thread.

    Args:
        place: Which of the places passed, from 1.
        watches: Says of a file name whether places in it count.
        raises: What is raised.

    Attributes:
        left: How many places were not passed yet.
        where: File name and function of the place, when it was reached.
    """

    def __init__(
        self, place: int, watches: Callable[[str], bool], raises: Callable[[], BaseException] = Struck
    ) -> None:
        self.left = place
        self.where = ""
        self._watches = watches
        self._raises = raises
        self._known: dict[CodeType, bool] = {}
        self._thread = get_ident()

    def __enter__(self) -> Self:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore] # from Python 3.12 on
        events = monitoring.events
        monitoring.use_tool_id(_TOOL, "strikes")
        monitoring.register_callback(_TOOL, events.PY_START, lambda code, _: self._pass(code))
        monitoring.register_callback(_TOOL, events.PY_RESUME, lambda code, _: self._pass(code))
        monitoring.register_callback(_TOOL, events.JUMP, self._jump)
        monitoring.register_callback(_TOOL, events.C_RETURN, lambda code, *_: self._pass(code))
        # C_RETURN comes only with CALL.
        monitoring.set_events(_TOOL, events.PY_START | events.PY_RESUME | events.JUMP | events.CALL)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Strike no more."""
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore] # as above
        if monitoring.get_tool(_TOOL) is not None:
            monitoring.set_events(_TOOL, 0)
            monitoring.free_tool_id(_TOOL)

    def _jump(self, code: CodeType, offset: int, destination: int) -> None:
        if destination <= offset and _handler(code, offset) == _handler(code, destination):
            self._pass(code)

    def _pass(self, code: CodeType) -> None:
        if self.left <= 0 or get_ident() != self._thread:
            return
        watched = self._known.get(code)
        if watched is None:
            watched = self._known[code] = code.co_filename != __file__ and self._watches(code.co_filename)
        if not watched:
            return
        self.left -= 1
        if self.left == 0:
            self.where = f"{code.co_filename}:{code.co_qualname}"
            raise self._raises()


@cache
def _handler(code: CodeType, offset: int) -> int | None:
    """Return where an exception at an instruction is handled.

    A signal handler's exception is raised at a jump, that of `sys.monitoring` at its target: they are alike only where
    both have the same handler.
    """
    entries: Any = dis._parse_exception_table(code)  # type: ignore[attr-defined] # what `dis` prints
    return next((entry.target for entry in entries if entry.start <= offset < entry.end), None)


def count_places(work: Callable[[], object], watches: Callable[[str], bool]) -> int:
    """Run `work` unharmed, and return how many places it passed."""
    strike = Strike(sys.maxsize, watches)
    with strike:
        work()
    return sys.maxsize - strike.left


def kept(error: BaseException, where: str) -> BaseException | None:
    """Return an error to keep with its traceback, and so the block that it has left, as a logger may while it goes on.

    Struck before the first instruction of its `__exit__` a block looks as if it went on, as long as it is kept.
    """
    return None if where.endswith("Loan.__exit__") else error


def strike_everywhere(
    work: Callable[[], object], after: Callable[[str], object], watches: Callable[[str], bool], *, most: int = 100_000
) -> int:
    """Run `work` struck at its first place, then at its second, and so on; return how many places there were.

    Args:
        work: What is struck; `Struck` may leave it.
        after: Called after each, with the place that was struck, while the exception is kept.
        watches: As for `Strike`.
        most: A number of places that `work` cannot have.
    """
    for place in range(1, most):
        strike = Strike(place, watches)
        still = None
        try:
            with strike:
                work()
        except Struck as error:
            still = kept(error, strike.where)
        if strike.left > 0:
            return place - 1
        after(strike.where)
        del still
    raise AssertionError("there is no end of places")
