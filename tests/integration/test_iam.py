"""IAM end to end: a handler's manager, its token, verified TLS, and a local RDS Proxy that checks the token."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import lambda_dbconn
from lambda_dbconn import AuthenticationError, ConnectionManager, Secret, Settings, TlsError, registry
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.events import ConnectFailed
from lambda_dbconn.testing.fakes import FakeClock, RecordingObserver
from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy
from tests.support.clients import query
from tests.support.rds_proxy import PROXY_NAME as PROXY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer

LONG_TOKEN = "FwoGZXIvYXdzE+/=" * 80  # as long as a role's really is
KEY = AwsKey(access_key_id="ASIAROLE", secret_access_key="role-secret", session_token=LONG_TOKEN)


@pytest.fixture
def proxy(server: LocalServer, proxy_certificates: Certificates) -> Iterator[LocalRdsProxy]:
    with LocalRdsProxy(
        backend=server, certificates=proxy_certificates, auth="iam", aws_keys=[KEY], signing_host=PROXY
    ) as proxy:
        yield proxy


def give_keys(environ: pytest.MonkeyPatch, key: AwsKey) -> None:
    environ.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
    environ.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
    environ.setenv("AWS_SESSION_TOKEN", key.session_token or "")


@pytest.fixture
def environ(
    monkeypatch: pytest.MonkeyPatch, proxy: LocalRdsProxy, proxy_certificates: Certificates
) -> Iterator[pytest.MonkeyPatch]:
    """The environment of a function whose role may log in as `app`, with a tunnel to the proxy."""
    for name in [name for name in os.environ if name.startswith(("DB_", "AWS_")) or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    give_keys(monkeypatch, KEY)
    variables = {
        "DB_ENGINE": proxy.engine,
        "DB_HOST": "localhost",
        "DB_PORT": str(proxy.port),
        "DB_NAME": "app",
        "DB_USER": "app",
        "DB_SIGNING_HOST": PROXY,
        "DB_SSLROOTCERT": str(proxy_certificates.ca_path),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    for manager in registry._managers.values():
        manager.close()
    registry._managers.clear()


def refusal(credentials: IamProvider | None = None, **changes: Any) -> tuple[AuthenticationError, RecordingObserver]:
    """Fail to log in; return why, and what was told."""
    observer = RecordingObserver()
    settings = Settings.from_env().replace(**changes)
    db: ConnectionManager[Any] = ConnectionManager(settings, credentials=credentials, observer=observer)
    with pytest.raises(AuthenticationError) as caught, db.connection(10):
        pass
    return caught.value, observer


def test_the_role_of_the_function_is_all_that_is_needed(environ: pytest.MonkeyPatch, proxy: LocalRdsProxy) -> None:
    db = lambda_dbconn.from_env()
    assert db.settings.auth == "iam"
    with db.connection(10) as connection:
        assert query(connection, "SELECT 1") == 1
    assert (proxy.stats().logins, proxy.stats().refused) == (1, {})


def test_every_connection_is_let_in_by_a_token_of_the_keys_of_its_moment(
    environ: pytest.MonkeyPatch, proxy: LocalRdsProxy
) -> None:
    db = lambda_dbconn.from_env()
    for number in range(5):
        key = AwsKey(access_key_id=f"ASIA{number}", secret_access_key=f"s{number}", session_token=f"t{number}")
        proxy.remove_aws_key(f"ASIA{number - 1}")
        proxy.set_aws_key(key)
        give_keys(environ, key)
        with db.connection(10) as connection:
            assert query(connection, "SELECT 1") == 1
        db.close()
    assert (proxy.stats().logins, proxy.stats().refused) == (5, {})


def test_an_alias_is_signed_for_by_the_name_behind_it(environ: pytest.MonkeyPatch, proxy: LocalRdsProxy) -> None:
    provider = IamProvider(names_behind=lambda host: [host, PROXY])
    settings = Settings.from_env().replace(signing_host=None)
    db: ConnectionManager[Any] = ConnectionManager(settings, credentials=provider)
    with closing(db), db.connection(10) as connection:
        assert query(connection, "SELECT 1") == 1  # the certificate is for the alias as well


def wrong_key(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("AWS_SECRET_ACCESS_KEY", "another")


def key_of_another_role(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("AWS_ACCESS_KEY_ID", "ASIAOTHER")


def another_user(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("DB_USER", "somebody")


@pytest.mark.parametrize("spoil", [wrong_key, key_of_another_role, another_user])
def test_a_refused_token_is_an_error_that_names_the_causes_and_is_not_tried_again(
    environ: pytest.MonkeyPatch, proxy: LocalRdsProxy, spoil: Any
) -> None:
    spoil(environ)
    error, observer = refusal()
    assert not error.retryable
    if spoil is not another_user:  # whom the proxy may not know at all
        assert "rds-db:connect" in error.remedy
    assert len(observer.of(ConnectFailed)) == 1
    assert proxy.stats().logins == 0
    assert sum(proxy.stats().refused.values()) == 1


@pytest.mark.parametrize("off_by_s", [-960, 960])
def test_a_clock_that_is_wrong_makes_tokens_that_are_refused(
    environ: pytest.MonkeyPatch, proxy: LocalRdsProxy, off_by_s: float
) -> None:
    error, _ = refusal(IamProvider(clock=FakeClock(wall=time.time() + off_by_s)))
    assert "15 minutes" in error.remedy
    assert ("it expired" if off_by_s < 0 else "signed in the future") in proxy.log()


def test_a_token_for_another_host_is_refused(environ: pytest.MonkeyPatch, proxy: LocalRdsProxy) -> None:
    other = PROXY.replace("local", "other")
    provider = IamProvider(names_behind=lambda _: [other])
    refusal(provider, signing_host=None)
    assert f"it is for '{other}" in proxy.log()


def test_a_proxy_that_is_not_the_signing_host_is_given_nothing(
    environ: pytest.MonkeyPatch, proxy: LocalRdsProxy
) -> None:
    environ.setenv("DB_SIGNING_HOST", PROXY.replace("local", "other"))
    with pytest.raises(TlsError) as caught, lambda_dbconn.from_env().connection(10):
        pass
    assert "SIGNING_HOST" in caught.value.remedy
    assert proxy.stats().logins == 0


@pytest.mark.parametrize("kind", ["iam_rate", "connection_rate"])
def test_a_proxy_that_is_asked_too_often_is_asked_again(
    environ: pytest.MonkeyPatch, proxy: LocalRdsProxy, kind: Any
) -> None:
    proxy.fail_next_logins(2, kind)
    db = lambda_dbconn.from_env()
    with db.connection(10) as connection:
        assert query(connection, "SELECT 1") == 1
    assert db.stats().connect_failures == 2


def test_keys_of_ones_own_let_in_as_well(environ: pytest.MonkeyPatch, proxy: LocalRdsProxy) -> None:
    key = AwsKeys(access_key_id="AKIDOWN", secret_access_key=Secret("own"))
    proxy.set_aws_key(AwsKey(access_key_id="AKIDOWN", secret_access_key="own"))
    db: ConnectionManager[Any] = ConnectionManager(Settings.from_env(), credentials=IamProvider(keys=lambda: key))
    with closing(db), db.connection(10) as connection:
        assert query(connection, "SELECT 1") == 1
