"""`Diagnosis`: what an examination found, for people and for machines. No secret is in it."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.errors import LambdaDbConnError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

_NOTHING: Mapping[str, Any] = {}


class Cause(Value):
    """Why a step may have failed.

    Attributes:
        cause: What may be the matter, a clause without a full stop.
        fix: What to do about it, one sentence.
    """

    cause: str
    fix: str


class Finding(Value):
    """What a step that went well has found.

    Attributes:
        found: In words, one line.
        facts: The same for machines, in what JSON knows.
        notes: What is not wrong but should be known, one sentence each.
    """

    found: str
    facts: Mapping[str, Any] = _NOTHING
    notes: tuple[str, ...] = ()


class StepFailedError(LambdaDbConnError):
    """Ends a step: it has failed.

    Attributes:
        causes: The likely ones, the likeliest first.
        facts: What was found before it failed.
    """

    def __init__(self, found: str, causes: tuple[Cause, ...], *, facts: Mapping[str, Any] = _NOTHING) -> None:
        super().__init__(found)
        self.causes = causes
        self.facts = facts


class Step(Value):
    """One step of an examination.

    Attributes:
        name: Stable, for machines.
        status: `passed`, `failed` or `skipped`.
        duration_ms: How long it took; 0 when skipped.
        found: What was found, or what went wrong, or why it was skipped; one line.
        facts: What was found, for machines.
        notes: What is not wrong but should be known.
        causes: Of a failure, the likeliest first.
    """

    name: str
    status: str
    duration_ms: float
    found: str
    facts: Mapping[str, Any] = _NOTHING
    notes: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it in what JSON knows."""
        return {
            "name": self.name,
            "status": self.status,
            "duration_ms": round(self.duration_ms, 3),
            "found": self.found,
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "causes": [{"cause": cause.cause, "fix": cause.fix} for cause in self.causes],
        }


class Diagnosis(Value):
    """All steps of an examination; `str()` of it is a text for a log.

    Attributes:
        endpoint: `host:port`; empty when the settings do not say.
        steps: In order.
    """

    endpoint: str
    steps: tuple[Step, ...]

    @property
    def is_well(self) -> bool:
        """Whether no step failed, and the last was reached: one that was cut short proves nothing."""
        return all(step.status != FAILED for step in self.steps) and self.steps[-1].status == PASSED

    def as_dict(self) -> dict[str, Any]:
        """Return it in what JSON knows: a handler may return it."""
        return {
            "is_well": self.is_well,
            "endpoint": self.endpoint,
            "steps": [step.as_dict() for step in self.steps],
        }

    def __str__(self) -> str:
        lines = []
        for step in self.steps:
            duration = "" if step.status == SKIPPED else f" ({step.duration_ms:.1f} ms)"
            lines.append(f"{step.status:7} {step.name}{duration}: {step.found}")
            lines += [f"        note: {note}" for note in step.notes]
            for number, cause in enumerate(step.causes, start=1):
                lines.append(f"        {number}. {cause.cause}: {cause.fix}")
        return "\n".join(lines)
