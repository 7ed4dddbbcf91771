from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import ConfigurationError, CredentialsError, Secret
from lambda_dbconn.credentials.secret_content import SecretContent, read_content
from tests.support.secrecy import shown_of
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


@pytest.mark.parametrize(
    ("port", "read_as"), [(3306, 3306), (3307.0, 3307), ("3307", 3307), (" 3307 ", 3307), ("", None), (None, None)]
)
def test_a_port_is_a_number_or_its_digits(port: object, read_as: int | None) -> None:
    content = read({**FULL, "port": port})
    assert (content.port, content.faults) == (read_as, ())


def test_a_secret_may_begin_with_a_byte_order_mark_and_of_a_key_twice_the_last_counts() -> None:
    text = '{"username": "x", "password": "y", ' + json.dumps(FULL)[1:]
    assert read("\ufeff" + text) == read(FULL)


def test_a_password_that_looks_like_json_is_a_text() -> None:
    password = json.dumps(LOGIN)
    assert read({"username": "app", "password": password}).password == Secret(password)


UNUSABLE: list[tuple[str, str, Any, str]] = [
    *(
        ("port", "port", port, "a whole number from 1 to 65535")
        for port in ("abc", "3307.0", "-1", "²", "9" * 5000, 3307.5, 0, 65536, True, [3306], {"port": 1}, float("nan"))
    ),
    *(
        ("engine", "engine", engine, "postgres, postgresql, aurora-postgresql, mysql, mariadb, aurora-mysql, aurora")
        for engine in ("sqlserver", "oracle-ee", 1, ["mysql"])
    ),
    *(
        ("host", "host", host, "a host name or an IP address, without scheme, port or path")
        for host in ("db.example:3307", "mysql://db.example", "db example", "\ud800", 1, ["db.example"], {"h": 1})
    ),
    *(("name", "dbname", name, "printable text") for name in (1, ["shop"], "sh\nop", "\ud800")),
]


@pytest.mark.parametrize(("field", "key", "value", "accepted"), UNUSABLE, ids=lambda value: ascii(value)[:20])
def test_what_cannot_be_used_names_the_secret_the_key_and_what_is_accepted_and_shows_no_value(
    field: str, key: str, value: object, accepted: str
) -> None:
    content = read({**FULL, key: value})
    found = content.settings()[field]
    assert isinstance(found, ConfigurationError)
    assert found.message == f"the secret 'prod/shop' has an unusable value under the key {key!r}; accepted: {accepted}"
    assert (content.user, content.password) == ("app", Secret(CANARY))  # it logs in all the same
    others = {name: value for name, value in read(FULL).settings().items() if name != field}
    assert {name: value for name, value in content.settings().items() if name != field} == others


def test_a_port_of_thousands_of_digits_is_unusable_and_not_a_bare_error_of_pythons() -> None:
    text = json.dumps(FULL).replace("5432", "9" * 5000)
    found = read(text).settings()["port"]
    assert isinstance(found, ConfigurationError)
    assert "999" not in shown_of(found)


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
    ({**LOGIN, "password": f"{CANARY}\ud800"}, "has half of a surrogate pair under the key 'password'"),
    ({**LOGIN, "username": f"\udfff{CANARY}"}, "has half of a surrogate pair under the key 'username'"),
    ({**LOGIN, "password": {"value": CANARY}}, "has no text under the key 'password'"),
    ({**LOGIN, "password": [CANARY]}, "has no text under the key 'password'"),
    (json.dumps(LOGIN).replace(f'"{CANARY}"', "9" * 5000), "has no text under the key 'password'"),
    (json.dumps(json.dumps(LOGIN)), "is not a JSON object"),
    (f"\ufeff\ufeff{json.dumps(LOGIN)}", "is not a JSON object"),
]


@pytest.mark.parametrize(("content", "fault"), FAULTY, ids=[str(number) for number in range(len(FAULTY))])
def test_what_is_wrong_is_said_without_a_word_of_the_content(content: Any, fault: str) -> None:
    with pytest.raises(CredentialsError, match=f"the secret 'prod/shop' {fault}") as caught:
        read(content)
    assert not caught.value.retryable
    shown = shown_of(caught.value)
    assert CANARY not in shown
    assert "99999" not in shown
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
