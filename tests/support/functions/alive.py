"""What of a function's process would be alive between its invocations."""

from __future__ import annotations

import signal
import threading
from pathlib import Path


def threads() -> list[str]:
    """Return the threads of this process: those that the kernel knows beside those that Python does."""
    known = [thread.name for thread in threading.enumerate()]
    return [*known, *["unknown"] * (len(list(Path("/proc/self/task").iterdir())) - len(known))]


def timers() -> list[float]:
    """Return the timers that are set."""
    kinds = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return [left_s for kind in kinds for left_s in signal.getitimer(kind) if left_s]
