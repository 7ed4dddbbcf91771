"""What is shown of credentials: all that is no secret."""

from __future__ import annotations

from typing import Any

import pytest

from lambda_dbconn import Credentials, Secret
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.credentials.sigv4 import sign_token
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.doctor.login import fetched, token_facts
from lambda_dbconn.testing.fakes import FakeClock
from tests.unit.conftest import CANARY, PROXY, local

KEYS = AwsKeys(access_key_id="AKID", secret_access_key=Secret(CANARY), session_token=Secret(f"{CANARY}-token"))


def token(user: str = "app", **changes: Any) -> Secret:
    given = {"host": PROXY, "port": 5432, "region": "us-east-1", "keys": KEYS, "timestamp": "20261122T160531Z"}
    return sign_token(**{**given, "user": user, **changes})


class Provider:
    """Gives what it was given; what a secret says besides, if it is one."""

    def __init__(self, credentials: Credentials, says: dict[str, Any] | None = None) -> None:
        self._credentials = credentials
        if says is not None:
            self.settings = lambda _deadline: says

    def fetch(self, _settings: object, _deadline: object) -> Credentials:
        return self._credentials

    def refused(self, _credentials: object) -> bool:
        return False


def found(provider: Provider, **changes: Any) -> Any:
    return fetched(local(**changes), provider, Deadline(None, reserve_s=0, clock=FakeClock()))


def test_a_token_says_who_what_where_and_until_when() -> None:
    assert token_facts(token()) == {
        "signed_for": f"{PROXY}:5432",
        "user": "app",
        "access_key_id": "AKID",
        "region": "us-east-1",
        "signed_at": "2026-11-22T16:05:31Z",
        "expires_at": "2026-11-22T16:20:31Z",
        "has_session_token": True,
    }


def test_neither_signature_nor_session_token_is_among_the_facts() -> None:
    signed = token(user="a b&c/d")
    facts = token_facts(signed)
    assert facts["user"] == "a b&c/d"
    assert CANARY not in str(facts)
    assert signed.reveal().partition("Signature=")[2] not in str(facts)


REMOTE = {"host": "alias.example", "auth": "iam", "sslmode": "verify-full"}


def test_an_alias_and_another_region_are_noted() -> None:
    provider = Provider(Credentials(user="app", password=token()))
    assert "alias" in found(provider, **REMOTE).notes[0]
    notes = found(provider, **REMOTE | {"host": PROXY, "region": "eu-west-1"}).notes
    assert notes == ("region is eu-west-1, but the host's own region counts: us-east-1",)


def test_a_password_is_said_to_be_there_and_no_more() -> None:
    finding = found(Provider(Credentials(user="app", password=Secret(CANARY))), password=Secret(CANARY))
    assert finding.found == "as app, with a password"
    assert CANARY not in repr(finding)
    assert found(Provider(Credentials(user="app"))).found == "as app, without password"


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"engine": "mysql"}, "the secret's engine is 'mysql', but engine is 'postgresql'"),
        ({"name": "other"}, "the secret's name is 'other', but name is 'shop'"),
        ({"host": "other.example"}, "the secret is for the host 'other.example', but host is another"),
        ({"engine": "postgresql", "name": "shop", "host": "localhost", "port": 5432}, ""),
    ],
)
def test_a_secret_that_contradicts_the_settings_is_noted(says: dict[str, Any], words: str) -> None:
    provider = Provider(Credentials(user="app", password=Secret(CANARY)), says)
    finding = found(provider, auth="secret", secret_id="prod/shop", name="shop")
    assert finding.notes == ((words,) if words else ())
    assert CANARY not in repr(finding)


def test_the_database_behind_a_proxy_may_have_another_host() -> None:
    provider = Provider(Credentials(user="app", password=Secret(CANARY)), {"host": "db.example"})
    settings = {"host": PROXY, "auth": "secret", "secret_id": "s", "sslmode": "verify-full"}
    assert found(provider, **settings).notes == ()
