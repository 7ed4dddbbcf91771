from __future__ import annotations

import warnings
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import ConfigurationError, Secret, Settings
from tests.unit.conftest import CANARY, PROXY


def from_url(url: str, **more: str) -> Settings:
    return Settings.from_env(environ={"DATABASE_URL": url, **more})


def faults(url: str, **more: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        from_url(url, **more)
    return caught.value.faults


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("postgresql://app@localhost", {"engine": "postgresql", "port": 5432, "name": None, "user": "app"}),
        ("postgres://app@localhost:6000/shop", {"engine": "postgresql", "port": 6000, "name": "shop"}),
        ("postgresql+psycopg://app@localhost/shop", {"engine": "postgresql", "name": "shop"}),
        ("mysql://app@localhost/shop", {"engine": "mysql", "port": 3306, "name": "shop"}),
        ("mysql+pymysql://app@localhost", {"engine": "mysql"}),
        ("mariadb://app@localhost", {"engine": "mysql", "port": 3306}),
        ("postgresql://a%40b:p%2Fw%3F@localhost/a%20b", {"user": "a@b", "password": Secret("p/w?"), "name": "a b"}),
        ("postgresql://app:p@q@localhost", {"user": "app", "password": Secret("p@q")}),
        ("postgresql://app@[::1]:6000/shop", {"host": "::1", "port": 6000}),
        (f"postgresql://app@{PROXY}/shop", {"host": PROXY, "auth": "iam"}),
        ("postgresql://app@DB.Example.COM/shop", {"host": "DB.Example.COM"}),
        ("postgresql://app@localhost?max_idle_s=60&sslmode=disable", {"max_idle_s": 60.0, "sslmode": "disable"}),
        ("postgresql://localhost/shop?user=app&port=6001", {"user": "app", "port": 6001}),
    ],
)
def test_a_url_gives_its_parts(url: str, fields: dict[str, Any]) -> None:
    settings = from_url(url)
    assert {field: getattr(settings, field) for field in fields} == fields


def test_single_variables_win_over_the_parts_of_the_url() -> None:
    settings = from_url("mysql://app:old@localhost:3307/shop?max_idle_s=9", DB_USER="root", DB_PORT="1", DB_NAME="x")
    assert (settings.user, settings.port, settings.name, settings.max_idle_s) == ("root", 1, "x", 9)


def test_the_prefixed_url_wins_over_database_url() -> None:
    assert from_url("mysql://a@other", DB_URL="mysql://a@localhost").host == "localhost"


def test_database_url_is_for_the_default_prefix_only() -> None:
    with pytest.raises(ConfigurationError, match="SHOP_HOST is not set"):
        Settings.from_env("SHOP_", environ={"DATABASE_URL": "mysql://a@localhost"})
    assert Settings.from_env("SHOP_", environ={"SHOP_URL": "mysql://a@localhost"}).host == "localhost"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("localhost", "DATABASE_URL is not a URL of the form engine://user@host:port/name"),
        ("oracle://app@localhost", "accepted engines: postgresql, postgres, mysql, mariadb"),
        ("mysql://app@localhost:http/x", "host or port cannot be read"),
        ("mysql://app@localhost:99999/x", "host or port cannot be read"),
        ("mysql://app@[::1/x", "host or port cannot be read"),
        ("mysql://app@localhost?ssl=1", "DATABASE_URL has the parameter 'ssl'; accepted: engine, host, "),
        ("mysql://app@localhost?password=x", "DATABASE_URL has the parameter 'password'; accepted: "),
        ("mysql://app@localhost?max_idle_s=x", "the parameter max_idle_s of DATABASE_URL is 'x'; accepted: seconds"),
        ("mysql://app@localhost?max_idle_s=0", "the parameter max_idle_s of DATABASE_URL is 0.0; accepted: seconds"),
        ("mysql:app@localhost", "DATABASE_URL is not a URL of the form"),
        ("mysql:/app@localhost/x", "DATABASE_URL is not a URL of the form"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_fault_that_names_its_variable(url: str, fault: str) -> None:
    found = faults(url)
    assert len(found) == 1, found
    assert fault in found[0]


@pytest.mark.parametrize(
    "url",
    [
        "mysql://app:12/{}@localhost/shop",
        "mysql://app:12?{}@localhost/shop",
        "mysql://app:12?{}=1@localhost/shop",
        "mysql://app:12?port={}@localhost/shop",
        "mysql://app:12#{}@localhost/shop",
        "mysql:app:{}@localhost/shop",
        "mysql:/app:{}@localhost/shop",
        "mysql:///app:{}@localhost/shop",
        "oracle://app:{}@localhost/shop",
        "mysql://app:{}@localhost:x/shop",
        "mysql://app:{}@[localhost/shop",
        "{}",
        "app:{}@localhost",
    ],
)
def test_a_password_in_a_url_that_is_not_right_is_not_shown(url: str) -> None:
    environ = {"DB_URL": url.format(CANARY), "DB_HOST": "localhost", "DB_USER": "app"}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ=environ)
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)
    assert CANARY not in str(caught.value.faults)


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_any_password_that_is_percent_encoded_arrives_as_it_was(password: str) -> None:
    try:
        encoded = quote(password, safe="")
    except UnicodeEncodeError:
        return  # a lone surrogate has no place in a URL
    settings = from_url(f"postgresql://app:{encoded}@localhost/shop")
    assert settings.password == Secret(password)
    assert settings.name == "shop"


@given(
    url=st.text(alphabet="aA1:/?#[]@%=&.+- \0é", max_size=30).map(lambda tail: "mysql://" + tail) | st.text(),
)
def test_any_url_at_all_is_read_or_is_a_configuration_error(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            settings = Settings.from_env(environ={"DATABASE_URL": url})
        except ConfigurationError:
            return
    assert settings.host
