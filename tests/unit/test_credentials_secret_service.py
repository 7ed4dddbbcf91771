"""What Secrets Manager and botocore say when there is no secret, and what becomes of it."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from botocore import exceptions
from botocore.session import get_session
from botocore.stub import Stubber

from lambda_dbconn import CredentialsError, Secret
from lambda_dbconn.credentials import secret_service
from lambda_dbconn.credentials.secret_service import ServiceSource
from lambda_dbconn.credentials.wire_log import QuietWireLog
from tests.unit.conftest import CANARY

if TYPE_CHECKING:
    from lambda_dbconn.credentials.aws_keys import AwsKeys

pytestmark = pytest.mark.once

READ = {"SecretId": "prod/shop", "VersionStage": "AWSCURRENT"}
ANSWER = {"ARN": f"arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/shop-{'x' * 6}", "Name": "prod/shop"}


class Clients:
    """Makes real clients that answer from a script, and keeps their time limits."""

    def __init__(self) -> None:
        self.limits_s: list[tuple[float, float]] = []
        self.regions: list[str | None] = []
        self.keys: list[AwsKeys | None] = []
        self.addresses = 1
        self.client = get_session().create_client(
            "secretsmanager", region_name="us-east-1", aws_access_key_id="AKID", aws_secret_access_key=CANARY
        )
        self.script = Stubber(self.client)
        self.script.activate()

    def make(self, _session: Any, region: str | None, keys: AwsKeys | None, *, connect_s: float, read_s: float) -> Any:
        self.limits_s.append((connect_s, read_s))
        self.regions.append(region)
        self.keys.append(keys)
        return self.client

    def refuse(self, code: str, message: str = "", status: int = 400) -> None:
        self.script.add_client_error("get_secret_value", code, message, status)

    def fail(self, error: Exception) -> None:
        def raise_it(**_: object) -> None:
            raise error

        self.script.deactivate()
        self.client.meta.events.register_first("before-call.secrets-manager.GetSecretValue", raise_it)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients()
    monkeypatch.setattr(secret_service, "_make", clients.make)
    monkeypatch.setattr(secret_service, "_address_count", lambda *_: clients.addresses)
    return clients


def read(stage: str = "AWSCURRENT", *, timeout_s: float = 2.0, region: str | None = "us-east-1") -> Secret | None:
    return ServiceSource(region=region).read("prod/shop", stage=stage, timeout_s=timeout_s)


@pytest.mark.parametrize("stage", ["AWSCURRENT", "AWSPENDING"])
def test_the_version_is_always_asked_for_by_its_label(clients: Clients, stage: str) -> None:
    clients.script.add_response("get_secret_value", {**ANSWER, "SecretString": CANARY}, {**READ, "VersionStage": stage})
    assert read(stage) == Secret(CANARY)
    clients.script.assert_no_pending_responses()


REFUSALS = [
    (
        "AccessDeniedException",
        "User: x is not authorized to perform: secretsmanager:GetSecretValue",
        400,
        False,
        "role",
    ),
    ("AccessDeniedException", "Access to KMS is not allowed", 400, False, "kms:Decrypt"),
    ("DecryptionFailure", "cannot be decrypted", 400, False, "kms:Decrypt"),
    ("ResourceNotFoundException", "Secrets Manager can't find the specified secret.", 400, False, "Check SECRET_ID"),
    (
        "ResourceNotFoundException",
        "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT",
        400,
        False,
        "Put a value",
    ),
    ("InvalidRequestException", "it was marked for deletion", 400, False, "marked for deletion"),
    (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        400,
        False,
        "credentials",
    ),
    ("ExpiredTokenException", "The security token included in the request is expired", 400, True, "credentials"),
    ("ThrottlingException", "Rate exceeded", 400, True, "Try later"),
    ("InternalServiceError", "An error occurred", 500, True, "Try later"),
    ("SomethingNew", "", 503, True, "API reference"),
    ("SomethingNew", "", 400, False, "API reference"),
]


@pytest.mark.parametrize(("code", "message", "status", "is_retryable", "remedy"), REFUSALS)
def test_each_refusal_has_its_remedy_and_says_whether_to_try_again(
    clients: Clients, *, code: str, message: str, status: int, is_retryable: bool, remedy: str
) -> None:
    clients.refuse(code, message, status)
    with pytest.raises(CredentialsError) as caught:
        read()
    assert caught.value.message == f"Secrets Manager refused the secret 'prod/shop': {code}: {message}"
    assert (caught.value.retryable, remedy in caught.value.remedy) == (is_retryable, True)
    assert isinstance(caught.value.__cause__, exceptions.ClientError)
    assert caught.value.__cause__.__traceback__ is None


def test_a_version_that_is_not_there_is_none_and_no_error(clients: Clients) -> None:
    clients.refuse("ResourceNotFoundException", "can't find the specified secret value for staging label: AWSPENDING")
    assert read("AWSPENDING") is None


def test_a_binary_secret_is_an_error_that_says_how_to_store_it(clients: Clients) -> None:
    clients.script.add_response("get_secret_value", {**ANSWER, "SecretBinary": CANARY.encode()}, READ)
    with pytest.raises(CredentialsError, match="the secret 'prod/shop' is binary") as caught:
        read()
    assert "JSON object" in caught.value.remedy


URL = {"endpoint_url": "https://secretsmanager.us-east-1.amazonaws.com/"}
FAILURES = [
    (exceptions.ConnectTimeoutError(**URL), True, "interface endpoint"),
    (exceptions.ReadTimeoutError(**URL), True, "interface endpoint"),
    (exceptions.EndpointConnectionError(**URL), True, "interface endpoint"),
    (exceptions.ConnectionClosedError(**URL), True, "interface endpoint"),
    (exceptions.NoCredentialsError(), False, "role"),
    (exceptions.CredentialRetrievalError(provider="container", error_msg="x"), True, "credentials"),
    (exceptions.NoRegionError(), False, "REGION"),
    (exceptions.ParamValidationError(report="x"), False, "SECRET_ID"),
    (exceptions.SSLError(endpoint_url="x", error="x"), False, "AWS_CA_BUNDLE"),
    (RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."), True, "credentials"),
    (ValueError("Invalid endpoint: x"), False, "configuration"),
    (exceptions.UnknownServiceError(service_name="x", known_service_names="y"), False, "configuration"),
]


@pytest.mark.parametrize(("error", "is_retryable", "remedy"), FAILURES, ids=[type(row[0]).__name__ for row in FAILURES])
def test_each_failure_on_the_way_has_its_remedy_and_says_whether_to_try_again(
    clients: Clients, *, error: Exception, is_retryable: bool, remedy: str
) -> None:
    clients.fail(error)
    with pytest.raises(
        CredentialsError, match=f"the secret 'prod/shop' cannot be read.*{type(error).__name__}"
    ) as caught:
        read()
    assert (caught.value.retryable, remedy in caught.value.remedy) == (is_retryable, True)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("timeout_s", "limit_s"), [(5.0, 2.0), (2.0, 2.0), (1.9, 1.0), (0.7, 0.5), (0.3, 0.2), (0.01, 0.2)]
)
def test_connecting_and_reading_share_the_time_that_is_left(clients: Clients, timeout_s: float, limit_s: float) -> None:
    clients.refuse("ThrottlingException")
    with pytest.raises(CredentialsError):
        read(timeout_s=timeout_s)
    assert clients.limits_s == [(limit_s / 2, limit_s / 2)]


def test_each_of_several_addresses_gets_its_share_of_the_time(clients: Clients) -> None:
    clients.addresses = 4
    clients.refuse("ThrottlingException")
    with pytest.raises(CredentialsError):
        read()
    assert clients.limits_s[-1] == (0.25, 1.0)


def test_a_client_is_made_once_for_each_time_limit(clients: Clients) -> None:
    source = ServiceSource(region=None)
    for timeout_s in (2.0, 0.5, 2.0, 3.0, 0.6):
        clients.script.add_response("get_secret_value", {**ANSWER, "SecretString": "x"}, READ)
        source.read("prod/shop", stage="AWSCURRENT", timeout_s=timeout_s)
    assert clients.limits_s == [(1.0, 1.0), (0.25, 0.25)]


@pytest.mark.parametrize(("region", "used"), [("eu-west-1", "eu-west-1"), (None, "ap-south-1")])
def test_the_region_is_lambdas_when_nothing_else_is_said(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, region: str | None, used: str
) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    clients.refuse("ThrottlingException")
    with pytest.raises(CredentialsError):
        read(region=region)
    assert clients.regions == [used]


def test_without_botocore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    with pytest.raises(CredentialsError, match="botocore is not installed") as caught:
        read()
    assert "lambda-dbconn[aws]" in caught.value.remedy


@pytest.mark.parametrize("name", ["botocore.parsers", "botocore.endpoint", "botocore.auth", "botocore.utils"])
def test_the_wire_log_is_quiet_while_a_secret_is_read_and_only_then(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger(name)
    with QuietWireLog():
        logger.debug("Response body:\n%r", CANARY)
    logger.debug("after")
    assert [record.getMessage() for record in caplog.records] == ["after"]
    assert logger.filters == []


@pytest.mark.parametrize("reads_before", [0, 1])
def test_a_silent_resolver_costs_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch, reads_before: int) -> None:
    clients, may_answer = Clients(), threading.Event()
    monkeypatch.setattr(secret_service, "_make", clients.make)
    source = ServiceSource(region="us-east-1")
    with monkeypatch.context() as patch:
        patch.setattr(secret_service, "_address_count", lambda *_: 1)
        for _ in range(reads_before):
            clients.script.add_response("get_secret_value", {**ANSWER, "SecretString": CANARY}, READ)
            source.read("prod/shop", stage="AWSCURRENT", timeout_s=2.0)

    def silent(*_: object, **__: object) -> None:
        """Stand for glibc's with a name server that does not answer."""
        assert may_answer.wait(30)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    try:
        with pytest.raises(CredentialsError, match=r"the resolver has not answered within 0\.20 s") as caught:
            source.read("prod/shop", stage="AWSCURRENT", timeout_s=0.2)
    finally:
        may_answer.set()
    assert caught.value.retryable
    assert "resolver" in caught.value.remedy


def test_behind_an_https_proxy_the_endpoint_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.internal:3128")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a look-up"))
    assert secret_service._address_count(URL["endpoint_url"], 30) == 1
