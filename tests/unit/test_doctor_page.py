"""The doctor's page: each failure that the code can explain is there, with the causes that the code gives, in order."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import errors
from lambda_dbconn.doctor import causes
from tests.support.doctor import PAGE, failures_of
from tests.unit.conftest import local

if TYPE_CHECKING:
    from lambda_dbconn import Settings
    from lambda_dbconn.doctor import Cause

pytestmark = pytest.mark.once

SHOWN = failures_of(PAGE.read_text(encoding="utf-8"))
TLS_KINDS = sorted(re.findall(r'^        "([\w ]+)": \(', inspect.getsource(causes.of_tls), re.MULTILINE))
TCP_KINDS = ("refused", "reset", "unreachable", "silent")
LOGIN_ERRORS = ("AuthenticationError", "ConnectTimeoutError", "ProxyBusyError", "ProxyRefusedError", "ConnectError")


def settings_for(where: str, auth: str) -> Settings:
    """Return a page's settings: all are PostgreSQL's, by the prefix `DB_`."""
    host = {"proxy": "shop.proxy-cexample0000.eu-west-1.rds.amazonaws.com", "direct": "db.example"}[where]
    return local(host=host, auth=auth, secret_id="prod/shop", sslmode="verify-full", sslrootcert="ca.pem", prefix="DB_")


DIRECT, PROXY = settings_for("direct", "password"), settings_for("proxy", "iam")


def texts(found: tuple[Cause, ...]) -> list[str]:
    """Return the causes without what an error says itself, which differs."""
    return [each.cause for each in found]


def is_shown(step: str, found: tuple[Cause, ...]) -> bool:
    """Whether a block of that step has just these causes, in this order."""
    return any(failure.step == step and [cause for cause, _ in failure.causes] == texts(found) for failure in SHOWN)


@pytest.mark.parametrize("is_temporary", [False, True])
def test_a_name_that_is_not_found_is_shown(is_temporary: bool) -> None:
    assert is_shown("dns", causes.of_dns(DIRECT, is_temporary=is_temporary))


@pytest.mark.parametrize("kind", TCP_KINDS)
def test_each_way_in_which_tcp_fails_is_shown(kind: str) -> None:
    assert is_shown("tcp", causes.of_tcp(DIRECT, kind))


@pytest.mark.parametrize("kind", TLS_KINDS)
def test_each_way_in_which_tls_fails_is_shown(kind: str) -> None:
    assert is_shown("tls", causes.of_tls(DIRECT, kind))


def test_a_missing_file_of_authorities_is_shown() -> None:
    assert is_shown("tls", causes.of_trust(DIRECT, errors.ConfigurationError("no", remedy="x")))


@pytest.mark.parametrize("auth", ["iam", "secret"])
@pytest.mark.parametrize("retryable", [False, True])
def test_credentials_that_cannot_be_had_are_shown(auth: str, retryable: bool) -> None:
    error = errors.CredentialsError("no", remedy="x", retryable=retryable)
    assert is_shown("credentials", causes.of_credentials(settings_for("proxy", auth), error))


@pytest.mark.parametrize("name", LOGIN_ERRORS)
@pytest.mark.parametrize(
    ("where", "auth"),
    [("direct", "iam"), ("direct", "secret"), ("direct", "password"), ("proxy", "iam"), ("proxy", "secret")],
)
def test_each_login_that_fails_is_shown(name: str, where: str, auth: str) -> None:
    assert is_shown("login", causes.of_login(settings_for(where, auth), getattr(errors, name)("no", remedy="x")))


@pytest.mark.parametrize("settings", [DIRECT, PROXY], ids=["direct", "proxy"])
def test_what_fails_after_the_login_is_shown(settings: Settings) -> None:
    assert is_shown("proxy", causes.of_query())
    assert is_shown("proxy", causes.of_silence(settings))
    assert is_shown("role", causes.of_reader(settings))


def test_the_secret_that_was_to_fill_a_gap_is_shown() -> None:
    assert is_shown("settings", causes.of_settings(errors.CredentialsError("no", remedy="x")))


def test_all_kinds_of_tls_failures_are_known_here() -> None:
    assert set(TLS_KINDS) >= {"not offered", "refused", "silent", "closed", "version", "other", "chain", "name"}


def test_there_are_as_many_fixes_as_causes_and_they_are_sentences() -> None:
    for failure in SHOWN:
        assert failure.causes
        assert all(fix.endswith((".", ".)")) for _, fix in failure.causes), failure
