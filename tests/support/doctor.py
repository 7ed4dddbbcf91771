"""An examination as a function would have it, whose every result is searched for secrets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_dbconn.doctor import examine_environment
from tests.support.canary import CANARY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from lambda_dbconn.doctor import Diagnosis, Step

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "find-out-what-is-wrong.md"
NOBODY = "http://127.0.0.1:1"

# Operation that fail as another one does, which the page shows.
_SHOWN_BY = {"proxy": ("proxy", "server", "role", "round_trip")}

# Of AWS's keys there is what the test gives, and STS is not to be had, unless the test says where it is.
_WITHOUT_AWS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_ENDPOINT_URL_STS": NOBODY,
}


class Shown(NamedTuple):
    """A failure as the page shows it: the step, what it found, and its causes with what to do."""

    step: str
    found: str
    causes: tuple[tuple[str, str], ...]


def failures_of(page: str) -> list[Shown]:
    """Return the failures in a page, in order.

    Raises:
        AssertionError: A block that begins with a failure has a line that is neither cause nor fix.
    """
    shown = []
    for block in re.findall(r"^```text\n(failed  .*?)^```$", page, flags=re.DOTALL | re.MULTILINE):
        head, *rest = block.splitlines()
        step, _, found = head.removeprefix("failed  ").partition(": ")
        pairs = list(zip(rest[::2], rest[1::2], strict=True))
        for number, (cause, fix) in enumerate(pairs, start=1):
            assert cause.startswith(f"  {number}. "), cause
            assert fix.startswith("     "), fix
        causes = tuple((cause.split(". ", 1)[1], fix.strip()) for cause, fix in pairs)
        shown.append(Shown(step, found, causes))
    return shown


def is_shown(step: Step) -> bool:
    """Whether the page has a failure of this step with this finding and just these causes, in their order."""
    return any(
        step.name in _SHOWN_BY.get(each.step, (each.step,))
        and shape_of(step.found) == shape_of(each.found)
        and texts_of(step) == [shape_of(text) for pair in each.causes for text in pair]
        for each in failures_of(PAGE.read_text(encoding="utf-8"))
    )


def shape_of(text: str) -> str:
    """Return a text without what differs from run to run: names, numbers, paths, addresses, dates."""
    text = re.sub(r"(?<!\w)'[^']*'|\"[^\"]*\"", "'x'", text)
    text = re.sub(r"\bfor (?:[\w.-]+, )*[\w.-]+(?=, issuer)", "for x", text)
    text = re.sub(r"\b(?:app|somebody|stranger)\b", "x", text)
    text = re.sub(r"(?<=_ssl\.c):\d+", "", text)
    text = re.sub(r"(?<=^OperationalError: ).*", "x", text)  # the driver's own words differ by its version
    return re.sub(r"(?:/[\w./-]+|\d+)(?::\d+)?", "0", text)


class Patient:
    """The environment of a function, and what an examination in it says.

    Attributes:
        secrets: What no examination may show.
    """

    def __init__(self, environ: pytest.MonkeyPatch) -> None:
        self._environ = environ
        self.secrets = [CANARY]
        for name in [name for name in os.environ if name.startswith(("DB_", "AWS_", "PG")) or name == "DATABASE_URL"]:
            environ.delenv(name)
        self.set(_WITHOUT_AWS)

    def set(self, *mappings: Mapping[str, str], **variables: str) -> None:
        """Set variables; remember the secret ones."""
        for name, value in {k: v for mapping in (*mappings, variables) for k, v in mapping.items()}.items():
            self._environ.setenv(name, value)
            if name in ("DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN") and value:
                self.secrets.append(value)

    def examine(self, **arguments: Any) -> Diagnosis:
        """Examine; neither the text nor the JSON has a secret in it."""
        diagnosis = examine_environment(**({"context": 20} | arguments))
        shown = f"{diagnosis}\n{json.dumps(diagnosis.as_dict())}\n{diagnosis!r}"
        assert [secret for secret in self.secrets if secret in shown] == []
        assert "X-Amz-Signature" not in shown
        return diagnosis

    def failure(self, *names: str, **arguments: Any) -> Step:
        """Examine, and return the step that is the first to fail: one of these, with causes and what to do."""
        diagnosis = self.examine(**arguments)
        assert not diagnosis.is_well
        failed = [step for step in diagnosis.steps if step.status == "failed"]
        assert failed, str(diagnosis)
        assert failed[0].name in names, str(diagnosis)
        assert failed[0].causes
        assert all(cause.cause and cause.fix for cause in failed[0].causes)
        if os.environ.get("DB_ENGINE") == "postgresql" and "settings" not in names:
            assert is_shown(failed[0]), f"the page has no failure like this:\n{diagnosis}"
        return failed[0]


def texts_of(step: Step) -> list[str]:
    """Return the texts of a step's causes, without what differs from run to run."""
    return [shape_of(text) for cause in step.causes for text in (cause.cause, cause.fix)]


def statuses(diagnosis: Diagnosis) -> dict[str, str]:
    return {step.name: step.status for step in diagnosis.steps}


def step(diagnosis: Diagnosis, name: str) -> Step:
    return next(step for step in diagnosis.steps if step.name == name)
