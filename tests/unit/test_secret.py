from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import Secret
from tests.unit.conftest import CANARY


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{:>40}".format, "{!r:.100}".format, "%s".__mod__, ascii])
def test_no_way_of_printing_shows_a_secret(show: object) -> None:
    shown = show(Secret(CANARY))  # type: ignore[operator] # a list of callables
    assert CANARY not in shown
    assert "***" in shown


@given(st.text(min_size=1))
def test_only_reveal_gives_up_the_value(value: str) -> None:
    secret = Secret(value)
    assert secret.reveal() == value
    assert repr(secret) == str(secret) == f"{secret}" == "Secret('***')"


def test_a_container_does_not_show_the_secret_in_it() -> None:
    assert CANARY not in repr({"password": [Secret(CANARY)]})


def test_a_log_line_does_not_show_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("connecting with %s and %r", Secret(CANARY), Secret(CANARY))
    assert "Secret('***')" in caplog.text
    assert CANARY not in caplog.text


def test_a_traceback_with_locals_does_not_show_a_secret() -> None:
    secret = Secret(CANARY)
    try:
        raise LookupError(f"with {secret}")
    except LookupError as error:
        lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    assert CANARY not in "".join(lines)


def test_a_secret_cannot_be_pickled_nor_written_as_json() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled") as caught:
            pickle.dumps(Secret(CANARY), protocol)
        assert CANARY not in str(caught.value)
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))


def test_a_copy_of_a_secret_is_itself() -> None:
    secret = Secret(CANARY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_a_secret_has_no_dict_to_look_into() -> None:
    with pytest.raises(TypeError):
        vars(Secret(CANARY))


def test_secrets_compare_and_hash_by_value_but_never_with_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret("x")
