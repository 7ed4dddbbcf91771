"""What a single setting accepts; the properties of all of them are in test_settings_properties."""

from __future__ import annotations

import pytest

from lambda_dbconn.settings.fields import HOST, is_host, one_of, printable, seconds, whole


@pytest.mark.parametrize("value", [0.5, 1, 900])
def test_seconds_are_numbers_between_the_limits(value: float) -> None:
    assert seconds(0.5, 900).is_valid(value)


@pytest.mark.parametrize("value", [0.4, 901, True, "1", None, float("nan")])
def test_nothing_else_is_seconds(value: object) -> None:
    assert not seconds(0.5, 900).is_valid(value)


def test_a_whole_number_has_no_fraction() -> None:
    assert whole(1, 9).is_valid(9)
    assert not whole(1, 9).is_valid(1.0)


def test_names_are_read_in_any_case() -> None:
    accepts = one_of("iam", "secret")
    assert (accepts.words, accepts.read("IAM")) == ("iam or secret", "iam")
    assert not accepts.is_valid("password")


def test_text_has_no_control_characters() -> None:
    assert printable().is_valid("Grüße")
    assert not printable().is_valid("a\tb")


@pytest.mark.parametrize(("value", "is_valid"), [("localhost", True), ("http://x", False), (5, False), (None, False)])
def test_a_host_is_a_name_or_an_address(value: object, *, is_valid: bool) -> None:
    assert is_host(value) is is_valid
    assert HOST.is_valid(value) is is_valid
