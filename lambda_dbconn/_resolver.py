"""DNS look-ups that end in time.

Nothing interrupts the resolver, which waits ten seconds by default for a name server that does not answer. So it runs
in a thread of its own, and the caller waits for no longer than it wants to. A thread whose resolver does not answer
outlives the call: it ends by itself within the resolver's limit, touches nothing, and delays neither the exit of the
process nor a freeze. There is one per look-up at most.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from _thread import TIMEOUT_MAX, allocate_lock, start_new_thread

from lambda_dbconn._values import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Any

R = TypeVar("R")

_TEMPORARY = (socket.EAI_AGAIN, socket.EAI_MEMORY)
_TRY_AGAIN = 2  # netdb.h's, of `gethostbyname`
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


def look_up(function: Callable[..., R], *arguments: Any, timeout_s: float) -> R:
    """Return what the resolver's function returns. The same look-up runs once at a time; callers share its answer.

    A failure counts for the caller that began the look-up, and for those that asked before it began. Whoever joined
    it later asks anew: it may be the failure of an earlier invocation, from before a freeze. Costs a tenth of a
    millisecond.

    Raises:
        TimeoutError: There is no answer within the limit.
        OSError, UnicodeError: What the function raises; EAGAIN if no thread can be started.
    """
    ends_at = time.monotonic() + timeout_s
    key = (function, *arguments)
    has_joined = False
    while True:
        ours = _LookUp(key)
        try:
            running = _running.setdefault(key, ours)
            if running is ours:
                start_new_thread(ours.run, ())
        except BaseException as error:  # an interrupt must not leave a look-up that nobody carries out
            ours.end()
            if isinstance(error, RuntimeError):
                raise OSError(errno.EAGAIN, "no thread can be started for the look-up") from error
            raise
        if not running.wait(ends_at - time.monotonic()):
            raise TimeoutError(f"the resolver has not answered within {timeout_s:.2f} s")
        if running.error is None:
            answer: R = running.answer
            return answer
        if running is ours or has_joined:
            raise running.error
        has_joined = True


def is_temporary(error: BaseException) -> bool:
    """Whether a later look-up may succeed: the resolver is silent or overloaded, or the system lacks something.

    A name that does not exist stays so, unless no file descriptor is left: glibc then says that there is no such name.
    """
    if isinstance(error, socket.gaierror):
        return error.errno in _TEMPORARY or descriptors_are_used_up()
    if isinstance(error, socket.herror):
        return error.errno == _TRY_AGAIN or descriptors_are_used_up()
    return isinstance(error, OSError) and not isinstance(error, PermissionError)


def descriptors_are_used_up() -> bool:
    """Whether the process cannot open another file or socket now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _NO_DESCRIPTOR
    return False


class _LookUp:
    """A look-up that runs, and who waits for it. No lock is held while anything may be interrupted."""

    __slots__ = ("_is_over", "_key", "_waiting", "answer", "error")

    def __init__(self, key: tuple[Any, ...]) -> None:
        self._key = key
        self._is_over = False
        self._waiting: list[LockType] = []
        self.answer: Any = None
        self.error: BaseException | None = TimeoutError("the look-up was interrupted")

    def run(self) -> None:
        """Carry it out, in the thread."""
        function, *arguments = self._key
        try:
            self.answer = function(*arguments)
            self.error = None
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self.error = error
        self.end()

    def end(self) -> None:
        """Wake up those that wait. Who asks from now on begins another look-up."""
        if _running.get(self._key) is self:
            _running.pop(self._key, None)
        self._is_over = True
        while self._waiting:
            self._waiting.pop().release()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; return whether it has come."""
        turn = allocate_lock()
        turn.acquire()
        self._waiting.append(turn)  # before looking: so it is either seen by `end`, or sees it
        return self._is_over or turn.acquire(timeout=min(max(timeout_s, 0.0), TIMEOUT_MAX))


_running: dict[tuple[Any, ...], _LookUp] = {}

os.register_at_fork(after_in_child=_running.clear)  # their threads have stayed in the parent
