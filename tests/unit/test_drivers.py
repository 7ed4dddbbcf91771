from __future__ import annotations

import errno
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import AuthenticationError, ConfigurationError, ConnectError
from lambda_dbconn.drivers import application_name, checked_isolation, connect_error, load_driver

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


# --- the name that the server knows us by


@pytest.mark.parametrize(
    ("function", "version", "name"),
    [
        (None, None, "lambda_dbconn"),
        (None, "7", "lambda_dbconn"),
        ("orders-api", "42", "orders-api:42"),
        ("orders-api", None, "orders-api:$LATEST"),
        ("x" * 64, "12345", "x" * 57 + ":12345"),
        ("näme\n", "1", "n?me?:1"),
        ("f", "v" * 100, (":" + "v" * 100)[:63]),
    ],
)
def test_the_server_knows_us_by_the_functions_name_and_version(
    monkeypatch: pytest.MonkeyPatch, function: str | None, version: str | None, name: str
) -> None:
    for variable, value in (("AWS_LAMBDA_FUNCTION_NAME", function), ("AWS_LAMBDA_FUNCTION_VERSION", version)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    assert application_name() == name
    assert len(name) <= 63


# --- what a failure to connect means


def test_what_was_said_is_looked_up_and_without_a_descriptor_for_that_still_a_connect_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "FATAL:  password authentication failed for user"
    assert isinstance(connect_error("postgresql", "db:5432", said), AuthenticationError)

    monkeypatch.delattr("lambda_dbconn.drivers.errors")
    monkeypatch.delitem(sys.modules, "lambda_dbconn.drivers.errors")
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.setattr(sys, "meta_path", [NoDescriptor()])
    error = connect_error("postgresql", "db:5432", said)
    assert type(error) is ConnectError
    assert error.retryable


class NoDescriptor:
    """Stands for the import system in a process that can open no file any more."""

    def find_spec(self, *_arguments: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
