"""A diagnosis as a text and as JSON."""

from __future__ import annotations

import json

import pytest

from lambda_dbconn.doctor.report import Cause, Diagnosis, Step


def made(*statuses: str) -> Diagnosis:
    causes = (Cause(cause="it is so", fix="Change it."),)
    steps = [
        Step(
            name=f"step{number}",
            status=status,
            duration_ms=1.23456,
            found="something",
            facts={"number": number},
            notes=("mind that",),
            causes=causes if status == "failed" else (),
        )
        for number, status in enumerate(statuses)
    ]
    return Diagnosis(endpoint="localhost:1", steps=tuple(steps))


@pytest.mark.parametrize(
    ("statuses", "is_well"),
    [
        (["passed", "passed"], True),
        (["passed", "skipped", "passed"], True),
        (["passed", "failed", "passed"], False),
        (["passed", "skipped"], False),
    ],
)
def test_well_is_what_has_come_to_its_end_without_a_failure(statuses: list[str], *, is_well: bool) -> None:
    assert made(*statuses).is_well is is_well


def test_the_text_has_a_line_for_each_step_note_and_cause() -> None:
    assert str(made("passed", "failed", "skipped")).splitlines() == [
        "passed  step0 (1.2 ms): something",
        "        note: mind that",
        "failed  step1 (1.2 ms): something",
        "        note: mind that",
        "        1. it is so: Change it.",
        "skipped step2: something",
        "        note: mind that",
    ]


def test_the_dictionary_is_json_and_has_everything() -> None:
    found = json.loads(json.dumps(made("failed").as_dict()))
    assert found == {
        "is_well": False,
        "endpoint": "localhost:1",
        "steps": [
            {
                "name": "step0",
                "status": "failed",
                "duration_ms": 1.235,
                "found": "something",
                "facts": {"number": 0},
                "notes": ["mind that"],
                "causes": [{"cause": "it is so", "fix": "Change it."}],
            }
        ],
    }
