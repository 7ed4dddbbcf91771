from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import CredentialsError, Secret
from lambda_dbconn.credentials.secret_content import SecretContent, read_content
from tests.unit.conftest import CANARY

LOGIN = {"username": "app", "password": CANARY}
FULL = {
    **LOGIN,
    "engine": "postgres",
    "host": "mydb.c7tj4example.us-east-1.rds.amazonaws.com",
    "port": 5432,
    "dbname": "shop",
    "dbInstanceIdentifier": "mydb",
}


def read(content: object, **keys: str) -> SecretContent:
    text = content if isinstance(content, str) else json.dumps(content)
    given = {"user_key": "username", "password_key": "password", **keys}
    return read_content(Secret(text), secret_id="prod/shop", **given)


def test_a_full_secret_says_who_and_where() -> None:
    content = read(FULL)
    assert (content.user, content.password) == ("app", Secret(CANARY))
    assert content.settings() == {"engine": "postgresql", "host": FULL["host"], "port": 5432, "name": "shop"}


def test_a_secret_that_rds_manages_says_who_and_nothing_else() -> None:
    assert read(LOGIN) == SecretContent(user="app", password=Secret(CANARY))
    assert read(LOGIN).settings() == {}


def test_a_clusters_secret_for_alternating_users_is_read_like_any_other() -> None:
    cluster = {**FULL, "username": "app_clone", "dbClusterIdentifier": "c", "masterarn": "arn:aws:secretsmanager:x"}
    assert read(cluster) == read(FULL).replace(user="app_clone")


@pytest.mark.parametrize(("port", "read_as"), [(3306, 3306), ("3306", 3306), ("", None), (None, None), (True, None)])
def test_a_port_is_a_number_or_its_digits(port: object, read_as: int | None) -> None:
    assert read({**FULL, "port": port}).port == read_as


@pytest.mark.parametrize(
    ("engine", "read_as"),
    [
        ("mysql", "mysql"),
        ("mariadb", "mysql"),
        ("aurora-mysql", "mysql"),
        ("postgres", "postgresql"),
        ("Postgres", "postgresql"),
        ("aurora-postgresql", "postgresql"),
        ("sqlserver", None),
        (None, None),
    ],
)
def test_every_name_of_an_engine_that_rds_writes_is_understood(engine: str | None, read_as: str | None) -> None:
    assert read({**FULL, "engine": engine}).engine == read_as


def test_the_keys_may_have_names_of_their_own() -> None:
    content = read({"login": "app", "geheim": CANARY, "password": "x"}, user_key="login", password_key="geheim")
    assert (content.user, content.password) == ("app", Secret(CANARY))


FAULTY: list[tuple[Any, str]] = [
    (f"{CANARY}", "is not a JSON object"),
    (f'{{"password": "{CANARY}"', "is not a JSON object"),
    ([CANARY], "is not a JSON object"),
    (CANARY.join("[" * 100_000), "is not a JSON object"),
    ({"password": CANARY}, "has no text under the key 'username'"),
    ({"username": CANARY}, "has no text under the key 'password'"),
    ({**LOGIN, "username": ""}, "has no text under the key 'username'"),
    ({"username": CANARY, "password": 12345}, "has no text under the key 'password'"),
    ({"Username": CANARY, "Password": CANARY}, "has no text under the key 'username'"),
    ({**LOGIN, "password": f"{CANARY}\0"}, "has a zero byte under the key 'password'"),
]


@pytest.mark.parametrize(("content", "fault"), FAULTY, ids=[str(number) for number in range(len(FAULTY))])
def test_what_is_wrong_is_said_without_a_word_of_the_content(content: Any, fault: str) -> None:
    with pytest.raises(CredentialsError, match=f"the secret 'prod/shop' {fault}") as caught:
        read(content)
    assert not caught.value.retryable
    shown = traceback.TracebackException.from_exception(caught.value)
    assert CANARY not in "".join(shown.format())
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.text() | json_values.map(json.dumps) | st.dictionaries(st.sampled_from(list(FULL)), json_values).map(json.dumps)
)
def test_whatever_a_secret_holds_it_is_read_or_a_credentials_error(text: str) -> None:
    try:
        content = read(text)
    except CredentialsError:
        return
    assert content.user
    assert content.password
    assert set(content.settings()) <= {"engine", "host", "port", "name"}
