from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import ConfigurationError
from lambda_dbconn.drivers import load_driver
from lambda_dbconn.drivers.driver import checked_isolation

LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")


@pytest.mark.parametrize(
    ("engine", "package", "module"),
    [("postgresql", "psycopg", "postgresql"), ("mysql", "PyMySQL", "mysql")],
)
def test_a_driver_that_is_not_installed_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, engine: str, package: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, package.lower(), None)
    monkeypatch.delitem(sys.modules, f"lambda_dbconn.drivers.{module}", raising=False)
    with pytest.raises(ConfigurationError, match=f"the engine is {engine}, but its driver") as caught:
        load_driver(engine)
    assert f"lambda-dbconn[{engine}], which brings {package}" in caught.value.remedy
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize("level", LEVELS)
def test_an_isolation_level_becomes_sql_in_upper_case(level: str) -> None:
    assert checked_isolation(level) == level.upper()


def test_without_an_isolation_level_nothing_becomes_sql() -> None:
    assert checked_isolation(None) is None


@given(st.text() | st.sampled_from([" serializable", "serializable;", "SERIALIZABLE", "read\ncommitted", ""]))
def test_no_other_text_ever_becomes_sql(text: str) -> None:
    if text not in LEVELS:
        with pytest.raises(ConfigurationError, match="the argument isolation is"):
            checked_isolation(text)
