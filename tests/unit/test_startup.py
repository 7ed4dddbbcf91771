"""Start-up parameters: what RDS Proxy refuses is refused here, and the way that there is is named."""

from __future__ import annotations

import pytest

from lambda_dbconn import ConfigurationError, Settings
from lambda_dbconn.settings.hints import _NOT_WITH_A_PROXY, instead_of
from tests.unit.conftest import INSTANCE, PROXY, READER

ROLE = "ALTER ROLE … SET"
REPLACEMENTS = [ROLE, "initialization query", "SET LOCAL"]


@pytest.fixture(autouse=True)
def _without_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, *_ in _NOT_WITH_A_PROXY:
        monkeypatch.delenv(name, raising=False)


def proxied(engine: str = "postgresql", host: str = PROXY) -> Settings:
    return Settings(engine=engine, host=host, port=5432, user="app", auth="iam")


@pytest.mark.parametrize("parameter", ["options", "statement_timeout", "jit", "default_transaction_read_only"])
def test_a_parameter_of_the_url_that_the_proxy_refuses_names_what_to_do_instead(parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ={"DB_URL": f"postgresql://app@{PROXY}/shop?{parameter}=x"})
    assert f"DB_URL has the parameter {parameter!r}" in str(caught.value)
    assert all(words in str(caught.value) for words in REPLACEMENTS)


@pytest.mark.parametrize(
    ("parameter", "variable"),
    [
        ("application_name", "PGAPPNAME"),
        ("TimeZone", "PGTZ"),
        ("DateStyle", "PGDATESTYLE"),
        ("client_encoding", "PGCLIENTENCODING"),
    ],
)
def test_a_parameter_that_the_proxy_accepts_names_the_variable_that_sends_it(parameter: str, variable: str) -> None:
    assert instead_of(parameter, "postgresql") == f"set the variable {variable}"


def test_mysql_has_other_ways_and_no_roles_to_alter() -> None:
    said = instead_of("init_command", "mysql")
    assert "initialization query" in said
    assert "time_zone" in said
    assert ROLE not in said


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGOPTIONS", "-c statement_timeout=5s"),
        ("PGGEQO", "off"),
        ("PGSERVICE", "orders"),
        ("PGMINPROTOCOLVERSION", "3.2"),
        ("PGSSLNEGOTIATION", "direct"),
        ("PGTARGETSESSIONATTRS", "read-write"),
    ],
)
@pytest.mark.parametrize("how", ["by name", "by signing host"])
def test_a_variable_of_libpq_that_the_proxy_does_not_go_along_with_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, how: str
) -> None:
    monkeypatch.setenv(variable, value)
    host, signing_host = (PROXY, None) if how == "by name" else ("localhost", PROXY)
    with pytest.raises(ConfigurationError, match=f"{variable} is set, which RDS Proxy does not accept") as caught:
        Settings(engine="postgresql", host=host, port=5432, user="app", auth="iam", signing_host=signing_host)
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGSSLNEGOTIATION", "postgres"),
        ("PGTARGETSESSIONATTRS", "any"),
        ("PGMINPROTOCOLVERSION", "3.0"),
        ("PGTZ", "UTC"),
        ("PGAPPNAME", "orders"),
    ],
)
def test_what_does_no_harm_is_no_fault(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    assert proxied().is_proxy


@pytest.mark.parametrize("host", [INSTANCE, READER, "localhost"])
def test_elsewhere_the_variables_are_the_callers_own_affair(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=5s")
    assert not proxied(host=host).is_proxy


def test_libpq_is_not_what_speaks_to_mysql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=5s")
    assert proxied("mysql").is_proxy
