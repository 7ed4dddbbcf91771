"""Causes: there are some for every way to fail, each with something to do, in the user's own names of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import errors
from lambda_dbconn.doctor import causes
from tests.unit.conftest import INSTANCE, PROXY, local

if TYPE_CHECKING:
    from lambda_dbconn import Settings
    from lambda_dbconn.doctor import Cause

REMOTE = {"sslmode": "verify-full", "sslrootcert": "ca.pem", "prefix": "SHOP_"}
SETTINGS = [
    local(engine=engine, host=host, auth=auth, secret_id="prod/shop", **REMOTE)
    for engine in ("postgresql", "mysql")
    for host in (PROXY, INSTANCE, "db.example")
    for auth in ("iam", "secret")
]
TLS_KINDS = [
    *("not offered", "refused", "other protocol", "silent", "closed", "version", "other", "chain", "name", "expiry")
]
CONNECT_ERRORS = [
    errors.AuthenticationError("no"),
    errors.ConnectTimeoutError("no"),
    errors.ProxyBusyError("no"),
    errors.ProxyRefusedError("no"),
    errors.ConnectError("no"),
]


def check(found: tuple[Cause, ...]) -> None:
    assert found
    assert len({cause.cause for cause in found}) == len(found)
    for cause in found:
        assert cause.cause
        assert not cause.cause.endswith(".")
        assert cause.fix.endswith((".", ".)"))
        assert "{" not in cause.cause + cause.fix


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.engine}-{s.endpoint.kind.name}-{s.auth}")
def test_every_way_to_fail_has_causes_with_something_to_do(settings: Settings) -> None:
    for is_temporary in (True, False):
        check(causes.of_dns(settings, is_temporary=is_temporary))
    for kind in ("refused", "reset", "unreachable", "silent"):
        check(causes.of_tcp(settings, kind))
    for kind in TLS_KINDS:
        check(causes.of_tls(settings, kind))
    for error in CONNECT_ERRORS:
        check(causes.of_login(settings, error))
    for found in (errors.CredentialsError("no"), errors.ConfigurationError("no")):
        check(causes.of_credentials(settings, found))
    check(causes.of_trust(settings, errors.ConfigurationError("no")))
    check(causes.of_reader(settings))
    check(causes.of_silence(settings))
    check(causes.of_query())


def test_variables_are_called_as_the_user_calls_them() -> None:
    said = str(causes.of_tls(SETTINGS[0], "name")) + str(causes.of_tcp(SETTINGS[0], "refused"))
    assert "SHOP_SIGNING_HOST" in said
    assert "SHOP_PORT" in said


def test_a_resolver_that_cannot_be_reached_is_likelier_where_the_failure_is_temporary() -> None:
    assert "no resolver" in causes.of_dns(SETTINGS[0], is_temporary=True)[0].cause
    assert "misspelt" in causes.of_dns(SETTINGS[0], is_temporary=False)[0].cause


def test_a_refused_token_is_explained_by_what_stands_there() -> None:
    refused = errors.AuthenticationError("no")
    proxy, instance = (str(causes.of_login(settings, refused)) for settings in (SETTINGS[0], SETTINGS[2]))
    assert "prx-" in proxy
    assert "GRANT rds_iam TO app" in instance


def test_faults_of_the_settings_are_the_causes_and_so_is_a_secret_that_cannot_be_had() -> None:
    faults = errors.ConfigurationError("two", faults=["one", "other"])
    assert [cause.cause for cause in causes.of_settings(faults)] == ["one", "other"]
    assert "secret" in causes.of_settings(errors.CredentialsError("no"))[0].cause


def test_an_error_without_a_remedy_has_no_cause() -> None:
    assert causes.of_error(errors.LambdaDbConnError("no")) == ()
    assert causes.of_error(errors.ConnectError("no", remedy="Do it."))[0].fix == "Do it."
