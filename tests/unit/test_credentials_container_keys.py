"""When Lambda's own endpoint for keys is asked, and when that is left to botocore."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import Secret
from lambda_dbconn.credentials import local_http
from lambda_dbconn.credentials.aws_keys import AwsKeys, FunctionKeys

if TYPE_CHECKING:
    from pathlib import Path

URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
BODY = json.dumps({"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"})
KEYS = AwsKeys(access_key_id="ASIA", secret_access_key=Secret("s"), session_token=Secret("t"))


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int, str, str]]:
    """What was asked for, in a function under SnapStart."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    monkeypatch.setenv(URI, "http://127.0.0.1:9001/keys")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "authorization")
    asked: list[tuple[str, int, str, str]] = []

    def get(host: str, port: int, path: str, headers: str, *, limit_s: float) -> local_http.Answer:
        assert limit_s > 0
        asked.append((host, port, path, headers))
        return local_http.Answer(b"HTTP/1.1 200 OK\r\n\r\n" + BODY.encode())

    monkeypatch.setattr(local_http, "get", get)
    return asked


@pytest.mark.parametrize(
    ("uri", "where"),
    [
        ("http://127.0.0.1:9001/v1/keys?role=a", ("127.0.0.1", 9001, "/v1/keys?role=a")),
        ("http://localhost/keys", ("localhost", 80, "/keys")),
        ("http://169.254.170.2", ("169.254.170.2", 80, "/")),
        ("http://169.254.170.23:65535/v1/credentials", ("169.254.170.23", 65535, "/v1/credentials")),
    ],
)
def test_an_endpoint_on_this_machine_is_asked(
    asked: list[tuple[str, int, str, str]], monkeypatch: pytest.MonkeyPatch, uri: str, where: tuple[str, int, str]
) -> None:
    monkeypatch.setenv(URI, uri)
    assert FunctionKeys().of_container(1.0) == KEYS
    assert asked == [(*where, "Accept: application/json\r\nAuthorization: authorization\r\n")]


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:9001/keys",
        "http://192.0.2.1/keys",
        "http://keys.example/",
        "http://user@127.0.0.1/keys",
        "http://[::1]:9001/keys",
        "http://127.0.0.1.example/keys",
        "http://127.0.0.1:/keys#x",
        "http://127.0.0.1:0/keys",
        "http://127.0.0.1:65536/keys",
        "http://127.0.0.1:²/keys",
        "http://127.0.0.1:9001?keys",
        "http://127.0.0.1/a key",
        "http://127.0.0.1/keys\r\nX-Header: x",
        "127.0.0.1:9001/keys",
    ],
)
def test_any_other_address_is_left_to_botocore(
    asked: list[tuple[str, int, str, str]], monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv(URI, uri)
    assert FunctionKeys().of_container(1.0) is None
    assert asked == []


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ],
)
def test_where_botocore_may_find_other_keys_it_looks_for_them(
    asked: list[tuple[str, int, str, str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "x")
    assert FunctionKeys().of_container(1.0) is None
    assert asked == []


def test_outside_of_lambda_botocore_looks_for_keys(
    asked: list[tuple[str, int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_LAMBDA_RUNTIME_API")
    assert FunctionKeys().of_container(1.0) is None
    assert asked == []


def test_files_of_the_sdks_are_left_to_botocore(asked: list[tuple[str, int, str, str]], tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    assert FunctionKeys().of_container(1.0) is None
    assert asked == []


def test_a_token_that_would_make_another_header_is_left_to_botocore(
    asked: list[tuple[str, int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "x\r\nHost: example.com")
    assert FunctionKeys().of_container(1.0) is None
    assert asked == []


def test_without_a_token_none_is_sent(asked: list[tuple[str, int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    assert FunctionKeys()() == KEYS
    assert asked == [("127.0.0.1", 9001, "/keys", "Accept: application/json\r\n")]


def test_an_answer_has_no_repr_that_shows_its_body() -> None:
    assert "secret" not in repr(local_http.Answer(b"HTTP/1.0 200 OK\r\n\r\nsecret"))
