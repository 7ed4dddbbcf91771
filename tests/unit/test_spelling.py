from __future__ import annotations

import pytest

from lambda_dbconn import LambdaDbConnWarning
from lambda_dbconn.settings.hints import misspelt

FIELDS = ("host", "name", "max_idle_s")


@pytest.mark.parametrize(
    ("suffix", "field"), [("HOSTNAME", "host"), ("DATABASE", "name"), ("MAX_IDEL_S", "max_idle_s"), ("HSOT", None)]
)
def test_a_variable_that_is_probably_meant_to_be_another_is_named(suffix: str, field: str | None) -> None:
    if field is None:
        assert misspelt([suffix], "DB_", FIELDS) == {}
        return
    with pytest.warns(LambdaDbConnWarning, match=f"DB_{suffix} is not a setting .* is DB_{field.upper()} meant"):
        assert misspelt([suffix], "DB_", FIELDS) == {field: f"DB_{suffix}"}


def test_a_variable_that_resembles_nothing_is_left_alone() -> None:
    assert misspelt(["MIGRATIONS"], "DB_", FIELDS) == {}
