from __future__ import annotations

import logging
import os
import sys
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import CredentialsError, Secret
from lambda_dbconn.credentials.aws_keys import AwsKeys, FunctionKeys
from tests.unit.conftest import CANARY, in_fresh_process

if TYPE_CHECKING:
    from pathlib import Path

Frozen = namedtuple("Frozen", ["access_key", "secret_key", "token"])  # noqa: PYI024 - botocore's own, which is untyped

FROM_ENVIRONMENT = AwsKeys(
    access_key_id="AKIDENV", secret_access_key=Secret("env-secret"), session_token=Secret("env-token")
)
FROM_BOTOCORE = AwsKeys(
    access_key_id="AKIDCHAIN", secret_access_key=Secret("chain-secret"), session_token=Secret("chain-token")
)


class Refreshing:
    """Stands for botocore's refreshable credentials: each call gives keys that are valid then."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = list(tokens)

    def get_frozen_credentials(self) -> Frozen:
        return Frozen("AKIDCHAIN", "chain-secret", self._tokens.pop(0))


class Chain:
    """Stands for botocore's session, and counts how often the chain is gone through."""

    def __init__(self) -> None:
        self.found: Any = Refreshing("chain-token")
        self.searches = 0

    def get_credentials(self) -> Any:
        self.searches += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Chain:
    chain = Chain()
    monkeypatch.setattr("botocore.session.get_session", lambda: chain)
    return chain


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "env-token")
    return monkeypatch


def test_on_demand_functions_sign_with_the_environments_keys(chain: Chain) -> None:
    assert FunctionKeys()() == FROM_ENVIRONMENT
    assert chain.searches == 0


def test_the_environments_keys_are_read_anew_each_time(environment: pytest.MonkeyPatch) -> None:
    keys = FunctionKeys()
    keys()
    environment.setenv("AWS_SESSION_TOKEN", "newer")
    assert keys().session_token == Secret("newer")


def test_keys_that_do_not_expire_have_no_session_token(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("AWS_SESSION_TOKEN")
    assert FunctionKeys()().session_token is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9001/credentials"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x"),
        ("AWS_CREDENTIAL_EXPIRATION", "2026-11-22T16:05:31Z"),
    ],
)
def test_keys_that_may_be_stale_or_another_roles_are_left_to_botocore(
    environment: pytest.MonkeyPatch, chain: Chain, name: str, value: str
) -> None:
    environment.setenv(name, value)
    assert FunctionKeys()() == FROM_BOTOCORE


@pytest.mark.parametrize("kind", ["on-demand", "provisioned-concurrency", "lambda-managed-instances"])
def test_every_other_initialization_uses_the_environments_keys(
    environment: pytest.MonkeyPatch, chain: Chain, kind: str
) -> None:
    environment.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", kind)
    assert FunctionKeys()() == FROM_ENVIRONMENT


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_pair_of_keys_is_none(environment: pytest.MonkeyPatch, chain: Chain, missing: str) -> None:
    environment.setenv(missing, "")
    assert FunctionKeys()() == FROM_BOTOCORE


def test_botocore_is_searched_once_and_asked_for_fresh_keys_each_time(
    environment: pytest.MonkeyPatch, chain: Chain
) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    chain.found = Refreshing("first", "second")
    keys = FunctionKeys()
    assert [keys().session_token, keys().session_token] == [Secret("first"), Secret("second")]
    assert chain.searches == 1


def test_when_nothing_was_found_it_is_searched_for_again(environment: pytest.MonkeyPatch, chain: Chain) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    keys = FunctionKeys()
    found, chain.found = chain.found, None
    with pytest.raises(CredentialsError, match="no AWS keys are to be found") as caught:
        keys()
    assert not caught.value.retryable
    chain.found = found
    assert keys() == FROM_BOTOCORE


def test_a_failure_of_botocores_chain_is_a_credentials_error_without_its_frames(
    environment: pytest.MonkeyPatch, chain: Chain
) -> None:
    from botocore.exceptions import CredentialRetrievalError

    environment.delenv("AWS_ACCESS_KEY_ID")
    chain.found = CredentialRetrievalError(provider="container", error_msg="timed out")
    with pytest.raises(CredentialsError, match=r"CredentialRetrievalError: .*timed out") as caught:
        FunctionKeys()()
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, CredentialRetrievalError)
    assert caught.value.__cause__.__traceback__ is None


def test_refreshed_keys_that_have_still_expired_are_never_signed_with(
    environment: pytest.MonkeyPatch, chain: Chain
) -> None:
    class StillExpired:
        def get_frozen_credentials(self) -> Frozen:
            raise RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired.")

    environment.delenv("AWS_ACCESS_KEY_ID")
    chain.found = StillExpired()
    with pytest.raises(CredentialsError, match="still expired") as caught:
        FunctionKeys()()
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_CREDENTIAL_EXPIRATION", "tomorrow"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/keys"),
        ("AWS_PROFILE", "nonesuch"),
        ("AWS_SECRET_ACCESS_KEY", ""),
    ],
)
def test_what_only_a_hand_can_mend_is_a_credentials_error_and_not_tried_again(
    environment: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    for file in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        environment.setenv(file, str(tmp_path / "none"))
    if name in {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_PROFILE"}:
        environment.delenv("AWS_ACCESS_KEY_ID")
    environment.setenv(name, value)
    with pytest.raises(CredentialsError, match="no AWS keys could be had") as caught:
        FunctionKeys()()
    assert not caught.value.retryable


def test_what_botocore_logs_of_the_keys_is_not_shown(
    environment: pytest.MonkeyPatch, chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    class Assumed:
        def get_frozen_credentials(self) -> Frozen:
            logging.getLogger("botocore.parsers").debug("Response body: <SecretAccessKey>%s", CANARY)
            return Frozen("AKIDCHAIN", CANARY, None)

    environment.delenv("AWS_ACCESS_KEY_ID")
    caplog.set_level(logging.DEBUG)
    chain.found = Assumed()
    assert FunctionKeys()().secret_access_key == Secret(CANARY)
    assert CANARY not in caplog.text


def test_without_botocore_the_error_says_what_to_install(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(CredentialsError, match="botocore is not installed") as caught:
        FunctionKeys()()
    assert "lambda-dbconn[aws]" in caught.value.remedy


def test_a_function_with_keys_in_its_environment_imports_no_sdk(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    printed = in_fresh_process("""
import sys
from lambda_dbconn import Settings
from lambda_dbconn.deadline import SystemClock
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.deadline import Deadline
host = "the-proxy.proxy-demo.us-east-1.rds.amazonaws.com"
settings = Settings(engine="postgresql", host=host, port=5432, user="app", auth="iam")
given = IamProvider().fetch(settings, Deadline(None, reserve_s=0, clock=SystemClock()))
assert given.password.reveal().startswith(host)
print(*sys.modules)
""")
    loaded = {name.split(".")[0] for name in printed.split()}
    assert "lambda_dbconn" in loaded
    assert not loaded & {"botocore", "boto3", "urllib3", "urllib", "http", "logging", "typing", "dataclasses", "ssl"}
