"""What a secret says of the settings, and when it is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConfigurationError, ConnectionManager, Settings, from_env, manager, registry, secret
from lambda_dbconn.credentials.secret_content import read_content
from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider
from lambda_dbconn.testing.fakes import FakeDriver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_dbconn.testing.fakes import FakeServer

SAID = {"engine": "mysql", "host": "db.example.org", "port": 3307, "name": "shop"}


class Secret:
    """Stands for a secret, and keeps who asked."""

    def __init__(self, **said: Any) -> None:
        self._said = said
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, secret_id: str, region: str | None) -> Mapping[str, Any]:
        self.asked.append((secret_id, region))
        return self._said


def settings(secret: Secret, **variables: str) -> Settings:
    environ = {"DB_SECRET_ID": "prod/shop", **{f"DB_{name}": value for name, value in variables.items()}}
    return Settings.from_env(environ=environ, read_secret=secret)


def test_a_secret_fills_in_all_that_is_not_set() -> None:
    found = settings(Secret(**SAID))
    assert (found.engine, found.host, found.port, found.name) == ("mysql", "db.example.org", 3307, "shop")
    assert (found.auth, found.user) == ("secret", None)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HOST": "proxy.example.org"}, ("mysql", "proxy.example.org", 3306, "shop")),
        ({"HOST": "proxy.example.org", "PORT": "3310"}, ("mysql", "proxy.example.org", 3310, "shop")),
        ({"PORT": "3310"}, ("mysql", "db.example.org", 3310, "shop")),
        ({"NAME": "other"}, ("mysql", "db.example.org", 3307, "other")),
        ({"ENGINE": "postgresql", "HOST": "h"}, ("postgresql", "h", 5432, "shop")),
        ({"URL": "mysql://h/other"}, ("mysql", "h", 3306, "other")),
    ],
)
def test_what_is_set_wins_and_a_port_belongs_to_its_host(
    variables: dict[str, str], expected: tuple[object, ...]
) -> None:
    found = settings(Secret(**SAID), **variables)
    assert (found.engine, found.host, found.port, found.name) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"ENGINE": "mysql", "HOST": "h", "NAME": "n"},
        {"PORT": "3306", "HOST": "h", "NAME": "n"},
        {"AUTH": "password", "ENGINE": "mysql", "HOST": "h", "USER": "app"},
    ],
)
def test_a_secret_that_is_not_needed_is_not_read(variables: dict[str, str]) -> None:
    secret = Secret(**SAID)
    settings(secret, **variables)
    assert secret.asked == []


def test_a_secret_is_not_read_when_the_settings_are_wrong_anyway() -> None:
    secret = Secret(**SAID)
    with pytest.raises(ConfigurationError, match="DB_PORT is 'x'"):
        settings(secret, PORT="x")
    assert secret.asked == []


def test_a_secret_is_asked_for_in_the_settings_region() -> None:
    secret = Secret(**SAID)
    settings(secret, REGION="eu-west-1")
    assert secret.asked == [("prod/shop", "eu-west-1")]


def test_what_a_secret_does_not_say_either_is_the_settings_fault() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(Secret(name="shop"))
    assert [fault.partition(" is not set")[0] for fault in caught.value.faults] == ["DB_ENGINE", "DB_HOST"]


def test_a_key_that_is_missing_is_named_with_its_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(Secret(engine="mysql"))
    said = "DB_HOST is not set, and the secret 'prod/shop' has nothing under the key 'host'; accepted: a host name"
    assert caught.value.message.startswith(said)


BAD: dict[str, Any] = {"engine": "sqlserver", "host": "db.example:3307", "port": "abc", "dbname": ["shop"]}


def bad_secret(**changes: Any) -> Secret:
    text = json.dumps({"username": "app", "password": "x", **BAD, **changes})
    content = read_content(secret.Secret(text), secret_id="prod/shop", user_key="username", password_key="password")
    return Secret(**content.settings())


def test_all_that_is_unusable_in_a_secret_is_a_fault_that_names_secret_and_key() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(bad_secret())
    expected = {"DB_ENGINE": "engine", "DB_HOST": "host", "DB_PORT": "port", "DB_NAME": "dbname"}
    beginnings = [
        f"{variable} is not set, and the secret 'prod/shop' has an unusable value under the key {key!r}; accepted: "
        for variable, key in expected.items()
    ]
    assert [fault[: len(start)] for fault, start in zip(caught.value.faults, beginnings, strict=True)] == beginnings
    assert not [fault for fault in caught.value.faults if "3307" in fault or "abc" in fault]


@pytest.mark.parametrize(
    ("variables", "secret_has"),
    [
        ({"ENGINE": "mysql"}, {"host": "h", "port": 1, "dbname": "n"}),
        ({"HOST": "h"}, {"engine": "mysql", "dbname": "n"}),
        ({"PORT": "3310"}, {"engine": "mysql", "host": "h", "dbname": "n"}),
        ({"NAME": "n"}, {"engine": "mysql", "host": "h", "port": 1}),
    ],
)
def test_what_is_unusable_in_a_secret_does_not_matter_where_it_is_not_used(
    variables: dict[str, str], secret_has: dict[str, Any]
) -> None:
    assert settings(bad_secret(**secret_has), **variables).name == "n"


def test_a_secret_that_contradicts_the_code_does_not_win() -> None:
    environ = {"DB_SECRET_ID": "prod/shop"}
    found = Settings.from_env(environ=environ, read_secret=Secret(**SAID), engine="postgresql")
    assert found.engine == "postgresql"


@pytest.fixture
def reads(environ: pytest.MonkeyPatch, server: FakeServer) -> Iterator[list[str]]:
    """The secrets that are read, instead of Secrets Manager."""
    read: list[str] = []

    def settings(provider: SecretsManagerProvider, _deadline: object) -> Mapping[str, Any]:
        if provider._known is None:
            read.append(provider._secret_id)
        return {**SAID, "host": "localhost"}

    environ.setattr(manager, "load_driver", lambda engine: FakeDriver(server))
    environ.setattr(SecretsManagerProvider, "settings", settings)
    environ.setenv("DB_SECRET_ID", "prod/shop")
    environ.setenv("DB_SSLMODE", "disable")
    yield read
    registry._secrets.clear()


def test_the_provider_that_was_read_for_the_settings_is_the_managers(reads: list[str]) -> None:
    db: ConnectionManager[Any] = from_env()
    assert reads == ["prod/shop"]
    assert db._credentials is registry._secrets["prod/shop", None]


def test_from_env_with_a_secret_asked_twice_gives_the_same_manager(reads: list[str]) -> None:
    assert from_env() is from_env()
