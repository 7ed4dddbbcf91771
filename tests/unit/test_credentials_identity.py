"""Who signs; a real answer of STS is in the integration tests."""

from __future__ import annotations

import pytest

from lambda_dbconn import CredentialsError, Secret
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.doctor.identity import caller_arn
from tests.support.canary import everything_shown
from tests.unit.conftest import CANARY

KEYS = AwsKeys(access_key_id="AKID", secret_access_key=Secret(CANARY), session_token=Secret(f"{CANARY}-token"))


def test_without_botocore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "botocore.session", None)
    with pytest.raises(CredentialsError, match=r"lambda-dbconn\[aws\]"):
        caller_arn(KEYS, region="us-east-1", timeout_s=1)


def test_a_region_that_is_none_is_an_error_that_shows_no_key() -> None:
    with pytest.raises(CredentialsError, match="does not say who signs") as caught:
        caller_arn(KEYS, region="no region", timeout_s=1)
    assert CANARY not in everything_shown(caught.value.with_traceback(None))
