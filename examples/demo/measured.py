"""A function under the real runtime client, and what its invocations came to."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lambda_dbconn
from lambda_dbconn.testing.runtime_api import LocalRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMED_OUT = "Sandbox.Timedout"
"""The error's name when a function ran into its timeout."""

_TASK_ROOT = Path(__file__).parent / "function"
_INIT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one invocation.

    Attributes:
        error: name of what went wrong, or None.
        message: what the error says.
        database_s: seconds that the handler spent between asking for the connection and giving it back.
    """

    error: str | None = None
    message: str = ""
    database_s: float = math.nan


class Function:
    """One of the two functions; its first invocation begins its execution environment.

    Args:
        module: of the handler.
        variables: the function's environment variables.
        expected_rows: how many employees there are; any other number is a failed invocation.
    """

    def __init__(self, module: str, variables: Mapping[str, str], *, expected_rows: int) -> None:
        package_path = str(Path(lambda_dbconn.__file__).parent.parent)
        python_path = os.pathsep.join(filter(None, [package_path, os.environ.get("PYTHONPATH")]))
        self._runtime = LocalRuntime(
            directory=_TASK_ROOT,
            handler=f"{module}.handler",
            environment={**variables, "PYTHONPATH": python_path},
            init_timeout_s=_INIT_TIMEOUT_S,
        )
        self._expected_rows = expected_rows
        self._pids: set[int] = set()
        self._ready_at = math.inf
        self._ended: Counter[str] = Counter()
        self._latest: Counter[str] = Counter()

    @property
    def counters(self) -> Counter[str]:
        """What the library has counted since the function's first environment began; empty without the library."""
        return self._ended + self._latest

    @property
    def environments(self) -> int:
        """How many execution environments have answered so far."""
        return len(self._pids)

    @property
    def environment_age_s(self) -> float:
        """How long ago, at least, the execution environment imported the handler; negative if there is none."""
        return time.monotonic() - self._ready_at

    def start(self) -> None:
        """Begin the execution environment, which an invocation would do as well."""
        self._runtime.start()
        self._ready_at = time.monotonic()

    def invoke(self, *, timeout_s: float = 10.0) -> Answer:
        """Invoke it once; a frozen environment is thawed first."""
        invocation = self._runtime.invoke({}, timeout_s=timeout_s)
        error = invocation.error
        pid = self._pid()
        if pid is None:
            self._ended, self._latest = self.counters, Counter()
            self._ready_at = math.inf
        elif pid not in self._pids:
            self._pids.add(pid)
            self._ready_at = min(self._ready_at, time.monotonic())
        if error is not None:
            return Answer(error=error.type, message=error.message)
        self._latest = _counters(invocation.value)
        rows = invocation.value["rows"]
        if rows != self._expected_rows:
            return Answer(error="WrongAnswer", message=f"{rows} rows instead of {self._expected_rows}")
        return Answer(database_s=invocation.value["database_s"])

    def freeze(self) -> bool:
        """Stop the environment's process, if there is one; return whether the kernel says that it has stopped."""
        pid = self._pid()
        if pid is None:
            return True
        self._runtime.freeze()
        # The state is the first word after the name, which is in parentheses and may have spaces.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def close(self) -> None:
        """End the environment; an invocation would begin another one."""
        self._runtime.kill()
        self._ready_at = math.inf

    def _pid(self) -> int | None:
        """Return the environment's process id; None before its begin, and after a timeout or a crash has ended it."""
        try:
            return self._runtime.pid
        except RuntimeError:
            return None


def _counters(value: Mapping[str, Any]) -> Counter[str]:
    stats = value.get("stats", {})
    counters = Counter({name: stats.get(name, 0) for name in ("opened", "reused", "connect_failures")})
    return counters + Counter({f"replaced: {reason}": times for reason, times in stats.get("replaced", {}).items()})


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the invocations of one function in one phase came to."""

    answers: list[Answer] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> Counter[str]:
        """How many invocations failed, by error, in order of appearance."""
        return Counter(answer.error for answer in self.answers if answer.error is not None)

    @property
    def failed(self) -> int:
        """How many invocations failed."""
        return self.errors.total()

    @property
    def is_broken(self) -> bool:
        """Whether the last invocation failed."""
        return bool(self.answers) and self.answers[-1].error is not None

    @property
    def last_failure(self) -> Answer | None:
        """The last invocation that failed."""
        return next((answer for answer in reversed(self.answers) if answer.error is not None), None)

    @property
    def replaced(self) -> dict[str, int]:
        """How many connections the library replaced, by reason."""
        return {
            name.removeprefix("replaced: "): times
            for name, times in self.counters.items()
            if name.startswith("replaced: ")
        }

    @property
    def database_s(self) -> list[float]:
        """How long the database part of the successful invocations took, in seconds."""
        return [answer.database_s for answer in self.answers if answer.error is None]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of them do not exceed; NaN when there are none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else math.nan
