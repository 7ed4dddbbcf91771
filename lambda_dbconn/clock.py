"""Time, as the package reads it; injected, so that tests can freeze it."""

from __future__ import annotations

import os
import time

from lambda_dbconn.light import Protocol


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
