"""An examination as a function would have it, whose every result is searched for secrets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_dbconn.doctor import examine_environment
from tests.support.canary import CANARY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from lambda_dbconn.doctor import Diagnosis, Step

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "find-out-what-is-wrong.md"
NOBODY = "http://127.0.0.1:1"

# Of AWS's keys there is what the test gives, and STS is not to be had, unless the test says where it is.
_WITHOUT_AWS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_ENDPOINT_URL_STS": NOBODY,
}


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
            assert [text for text in texts_of(failed[0]) if text not in PAGE.read_text()] == []
        return failed[0]


def texts_of(step: Step) -> list[str]:
    """Return the texts of a step's causes, with the port and the user that the documentation has."""
    texts = [text.replace("for somebody", "for app") for cause in step.causes for text in (cause.cause, cause.fix)]
    return [re.sub(r"(?<=TCP port )\d+|(?<=Let port )\d+", "5432", text) for text in texts]


def statuses(diagnosis: Diagnosis) -> dict[str, str]:
    return {step.name: step.status for step in diagnosis.steps}


def step(diagnosis: Diagnosis, name: str) -> Step:
    return next(step for step in diagnosis.steps if step.name == name)
