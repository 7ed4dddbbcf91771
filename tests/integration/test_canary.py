"""A canary for a password against real servers, a real SDK and real sockets: nothing that is shown anywhere has it."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConnectionManager, CredentialsError, LambdaDbConnError, Secret, Settings
from lambda_dbconn.credentials.aws_keys import AwsKeys, FunctionKeys
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.credentials.secret_sources import ExtensionSource
from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.testing.fakes import RecordingObserver
from tests.support.canary import CANARY, everything_shown
from tests.support.clients import query
from tests.support.secrets_manager import LocalSecretsManager, local_extension, local_secrets_manager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lambda_dbconn import CredentialProvider
    from lambda_dbconn.events import Event
    from lambda_dbconn.testing.servers import LocalServer


class Everything(RecordingObserver):
    """Keeps every event, and logs it too."""

    def __init__(self) -> None:
        super().__init__()
        self._log = LoggingObserver()

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        self._log.on_event(event)


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[LocalSecretsManager]:
    with local_secrets_manager() as manager:
        yield manager


@pytest.fixture(autouse=True)
def at_debug(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, secrets_manager: LocalSecretsManager
) -> None:
    """Let everything be logged, as somebody does who looks for a fault; the function's own keys are canaries too."""
    caplog.set_level(logging.DEBUG)
    for name, value in secrets_manager.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{CANARY}-key")
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{CANARY}-token")


def settings(server: LocalServer, **changes: Any) -> Settings:
    assert server.certificates is not None
    given: dict[str, Any] = {
        "engine": server.engine,
        "host": server.host,
        "port": server.port,
        "name": server.database,
        "user": server.user,
        "sslrootcert": str(server.certificates.ca_path),
        "connect_timeout_s": 1.0,
    }
    return Settings(**(given | changes))


def shown_by(db: ConnectionManager[Any], observer: Everything, caplog: pytest.LogCaptureFixture) -> str:
    """Return all that is shown of a manager, its events, and the log of whoever logs."""
    records = [vars(record) for record in caplog.records]
    return "\n".join([repr(db), repr(vars(db)), repr(db.stats()), repr(observer.events), caplog.text, repr(records)])


def fail(chosen: Settings, caplog: pytest.LogCaptureFixture, credentials: CredentialProvider | None = None) -> str:
    """Fail to connect; return all that is shown then."""
    observer = Everything()
    db: ConnectionManager[Any] = ConnectionManager(chosen, credentials=credentials, observer=observer)
    with pytest.raises(LambdaDbConnError) as caught, db.connection(10):
        pass
    assert observer.events
    return everything_shown(caught.value) + shown_by(db, observer, caplog)


@pytest.fixture(params=["wrong password", "wrong authority", "nobody there", "hung up", "no such database"])
def trouble(request: pytest.FixtureRequest, server: LocalServer) -> dict[str, Any]:
    """Each way in which a connect fails, as settings that lead to it."""
    assert server.certificates is not None
    troubles: dict[str, dict[str, Any]] = {
        "wrong password": {},
        "wrong authority": {"sslrootcert": str(server.certificates.other_ca_path)},
        "nobody there": {"port": 1},
        "hung up": {"port": request.getfixturevalue("rude_port")},
        "no such database": {"name": "nowhere"},
    }
    return troubles[request.param]


@pytest.fixture
def rude_port() -> Iterator[int]:
    """A port at which every connection is reset."""
    from lambda_dbconn.testing.relay import FaultRelay

    with FaultRelay(target_host="127.0.0.1", target_port=1) as relay:
        yield relay.port


@pytest.mark.parametrize("auth", ["password", "secret", "iam"])
def test_no_failure_to_connect_shows_a_secret(
    server: LocalServer,
    secrets_manager: LocalSecretsManager,
    caplog: pytest.LogCaptureFixture,
    trouble: dict[str, Any],
    auth: str,
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "password": {"password": Secret(CANARY)},
        "secret": {"secret_id": secrets_manager.put({"username": server.user, "password": CANARY})},
        "iam": {"signing_host": "localhost", "region": "us-east-1"},
    }
    caplog.clear()
    shown = fail(settings(server, auth=auth, **ways[auth], **trouble), caplog)
    assert "ConnectFailed" in shown
    assert CANARY not in shown


def test_keys_by_botocores_chain_are_not_shown(
    server: LocalServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2099-01-01T00:00:00Z")
    shown = fail(settings(server, auth="iam", signing_host="localhost", region="us-east-1"), caplog, IamProvider())
    assert "botocore" in shown
    assert CANARY not in shown


def test_a_chain_that_fails_shows_no_key(
    server: LocalServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2001-01-01T00:00:00Z")
    shown = fail(settings(server, auth="iam", signing_host="localhost", region="us-east-1"), caplog)
    assert "no AWS keys could be had" in shown
    assert CANARY not in shown


def test_the_keys_of_a_role_that_is_assumed_are_not_shown(
    server: LocalServer,
    secrets_manager: LocalSecretsManager,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "config").write_text(
        "[profile base]\naws_access_key_id=AKIDBASE\naws_secret_access_key=example\n"
        "[profile role]\nrole_arn=arn:aws:iam::123456789012:role/app\nsource_profile=base\nregion=us-east-1\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for name, value in {
        "CONFIG_FILE": tmp_path / "config",
        "PROFILE": "role",
        "ENDPOINT_URL_STS": secrets_manager.url,
    }.items():
        monkeypatch.setenv(f"AWS_{name}", str(value))
    keys = FunctionKeys()
    shown = fail(
        settings(server, auth="iam", signing_host="localhost", region="us-east-1"), caplog, IamProvider(keys=keys)
    )
    assumed = keys()
    assert assumed.session_token is not None
    assert "botocore" in shown
    assert assumed.secret_access_key.reveal() not in shown
    assert assumed.session_token.reveal() not in shown


BAD_SECRETS: list[Any] = [CANARY, {"username": CANARY}, {"username": "app", "password": f"{CANARY}\0"}, [CANARY]]


@pytest.mark.parametrize("number", range(len(BAD_SECRETS)))
@pytest.mark.parametrize("has_extension", [False, True])
def test_a_secret_that_cannot_be_used_is_not_shown(
    postgres: LocalServer,
    secrets_manager: LocalSecretsManager,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    number: int,
    has_extension: bool,
) -> None:
    secret_id = secrets_manager.put(BAD_SECRETS[number])
    caplog.clear()
    with local_extension(secrets_manager, token=f"{CANARY}-token") as extension:
        for name, value in extension.environment().items() if has_extension else ():
            monkeypatch.setenv(name, value)
        shown = fail(settings(postgres, auth="secret", secret_id=secret_id), caplog)
        assert len(extension.asked) == has_extension
    assert "the secret" in shown
    assert CANARY not in shown


def test_a_binary_secret_is_not_shown(
    postgres: LocalServer, secrets_manager: LocalSecretsManager, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"prod/{os.urandom(4).hex()}"
    secrets_manager.client.create_secret(Name=name, SecretBinary=CANARY.encode())
    caplog.clear()
    assert CANARY not in fail(settings(postgres, auth="secret", secret_id=name), caplog)


def test_an_extension_that_is_mute_leads_to_no_error_that_shows_the_token(
    secrets_manager: LocalSecretsManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_extension(secrets_manager) as extension:
        extension.is_mute = True
        for name, value in extension.environment().items():
            monkeypatch.setenv(name, value)
        with pytest.raises(CredentialsError, match="the secrets extension did not answer") as caught:
            ExtensionSource().read("prod/shop", stage="AWSCURRENT", timeout_s=0.1)
    shown = everything_shown(caught.value)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert CANARY not in shown


@pytest.mark.parametrize("answer", [b"<html>" + CANARY.encode(), json.dumps({"SecretBinary": CANARY}).encode()])
def test_what_the_extension_says_is_not_shown(
    postgres: LocalServer,
    secrets_manager: LocalSecretsManager,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
) -> None:
    with local_extension(secrets_manager, token=f"{CANARY}-token") as extension:
        extension.answers = answer
        for name, value in extension.environment().items():
            monkeypatch.setenv(name, value)
        caplog.clear()
        shown = fail(settings(postgres, auth="secret", secret_id="prod/does-not-exist"), caplog)
    assert "CredentialsFailed" in shown
    assert CANARY not in shown


def test_a_login_that_succeeds_shows_no_secret_at_debug(
    server: LocalServer, secrets_manager: LocalSecretsManager, caplog: pytest.LogCaptureFixture
) -> None:
    secret_id = secrets_manager.put({"username": server.user, "password": server.password})
    caplog.clear()
    observer = Everything()
    chosen = settings(server, auth="secret", secret_id=secret_id)
    db: ConnectionManager[Any] = ConnectionManager(chosen, observer=observer)
    with db.connection(10) as connection:
        assert query(connection, "SELECT 1") == 1
    shown = shown_by(db, observer, caplog)
    db.close()
    assert "botocore" in shown
    assert CANARY not in shown
    assert server.password not in shown


def test_a_query_that_fails_shows_no_secret(
    server: LocalServer, secrets_manager: LocalSecretsManager, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(server, password=Secret(server.password))
    db: ConnectionManager[Any] = ConnectionManager(chosen)
    with pytest.raises(Exception, match="nowhere") as caught, db.transaction(10) as connection:
        query(connection, "SELECT * FROM nowhere")
    db.close()
    shown = everything_shown(caught.value) + caplog.text
    assert server.password not in shown


def test_keys_of_ones_own_are_not_shown(server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    def keys() -> AwsKeys:
        return AwsKeys(
            access_key_id="AKID", secret_access_key=Secret(f"{CANARY}-1"), session_token=Secret(f"{CANARY}-2")
        )

    chosen = settings(server, auth="iam", signing_host="localhost", region="us-east-1")
    assert CANARY not in fail(chosen, caplog, IamProvider(keys=keys))


def test_a_provider_of_secrets_shows_nothing_of_itself(secrets_manager: LocalSecretsManager) -> None:
    provider = SecretsManagerProvider(secrets_manager.put({"username": "app", "password": CANARY}))
    assert CANARY not in repr(vars(provider))
