"""Our signature against botocore's own, over generated inputs."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.session import get_session
from hypothesis import example, given
from hypothesis import strategies as st

from lambda_dbconn import Secret
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.credentials.sigv4 import sign_token
from tests.unit.conftest import CANARY, PROXY

TIMESTAMP = "%Y%m%dT%H%M%SZ"

FIXED = {
    "host": PROXY,
    "port": 5432,
    "user": "app",
    "region": "us-east-1",
    "keys": AwsKeys(access_key_id="AKID", secret_access_key=Secret("s"), session_token=Secret("a+b/c==")),
    "timestamp": "20261122T160531Z",
}

labels = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)
hosts = st.lists(labels, min_size=1, max_size=5).map(".".join) | st.just("fd00:ec2::253")
ports = st.sampled_from([443, 80, 3306, 5432]) | st.integers(1, 65535)
users = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
regions = st.from_regex(r"[a-z]{2}(-[a-z]{2,6}){1,2}-[1-9]", fullmatch=True)
base64_texts = st.text(string.ascii_letters + string.digits + "+/=", min_size=1, max_size=400)
times = st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31), timezones=st.just(UTC))
awkward_users = ["lambda user", "müller", "a@b.c", "a+b", "a&b=c", "100%", "~._-", "日本", "a/b?c#d", "'\"\\"]


def botocores(*, host: str, port: int, user: str, region: str, keys: AwsKeys, timestamp: str) -> str:
    """Sign as `generate_db_auth_token` does, at a time of our choosing: the steps of `SigV4QueryAuth.add_auth`."""
    token = keys.session_token.reveal() if keys.session_token else None
    credentials = Credentials(keys.access_key_id, keys.secret_access_key.reveal(), token)
    signer = SigV4QueryAuth(credentials, "rds-db", region, expires=900)
    name = f"[{host}]" if ":" in host else host
    request = AWSRequest(method="GET", url=f"https://{name}:{port}/", data={"Action": "connect", "DBUser": user})
    request.context["timestamp"] = timestamp
    signer._modify_request_before_signing(request)
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(to_sign, request))
    return str(request.url).removeprefix("https://")


def keys(session_token: str | None = None) -> AwsKeys:
    return AwsKeys(
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key=Secret(CANARY),
        session_token=Secret(session_token) if session_token else None,
    )


inputs = st.fixed_dictionaries(
    {
        "host": hosts,
        "port": ports,
        "user": users,
        "region": regions,
        "keys": st.builds(
            AwsKeys,
            access_key_id=labels,
            secret_access_key=st.builds(Secret, base64_texts),
            session_token=st.none() | st.builds(Secret, base64_texts),
        ),
        "timestamp": times.map(lambda time: time.strftime(TIMESTAMP)),
    }
)


@given(inputs)
@example({**FIXED, "host": PROXY.upper(), "port": 443})
@example({**FIXED, "user": "a+b/c= @"})
def test_a_token_is_botocores_byte_for_byte(given: dict[str, Any]) -> None:
    assert sign_token(**given).reveal() == botocores(**given)


@cache
def client(session_token: str | None) -> Any:
    return get_session().create_client(
        "rds",
        region_name="us-east-1",
        aws_access_key_id=keys().access_key_id,
        aws_secret_access_key=CANARY,
        aws_session_token=session_token,
    )


@pytest.mark.parametrize("user", awkward_users)
@pytest.mark.parametrize("port", [443, 3306, 5432])
@pytest.mark.parametrize("session_token", [None, "FwoGZXIvYXdzE+/=="])
def test_a_token_is_what_the_sdks_own_client_generates(user: str, port: int, session_token: str | None) -> None:
    theirs = client(session_token).generate_db_auth_token(DBHostname=PROXY, Port=port, DBUsername=user)
    parameters = dict(parse_qsl(urlsplit(f"https://{theirs}").query))
    ours = sign_token(
        host=PROXY,
        port=port,
        user=user,
        region="us-east-1",
        keys=keys(session_token),
        timestamp=parameters["X-Amz-Date"],
    )
    assert ours.reveal() == theirs


def test_a_token_shows_neither_itself_nor_the_keys() -> None:
    token = sign_token(
        host=PROXY, port=5432, user="app", region="us-east-1", keys=keys("session"), timestamp="20261122T160531Z"
    )
    assert f"{token} {token!r} {keys('session')!r}".count("***") == 4
    assert CANARY not in token.reveal()
