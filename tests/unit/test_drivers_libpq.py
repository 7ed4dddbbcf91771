from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import pq

from lambda_dbconn import ConfigurationError, LambdaDbConnError, Secret, Settings
from lambda_dbconn.credentials import Credentials
from lambda_dbconn.drivers import libpq
from lambda_dbconn.drivers.postgresql import PostgresqlDriver
from lambda_dbconn.tls import Trust, trust_for

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "Canary-7f3e9b"


def settings(**changes: Any) -> Settings:
    given: dict[str, Any] = {"engine": "postgresql", "host": "127.0.0.1", "port": 5432, "user": "app"}
    given |= {"sslmode": "disable"}
    return Settings(**(given | changes))


def opening(credentials: Credentials, **changes: Any) -> LambdaDbConnError:
    """Return why nothing is opened; nothing is asked of any server."""
    given = settings(**changes)
    with pytest.raises(LambdaDbConnError) as raised:
        PostgresqlDriver().open(given, credentials, trust_for(given), timeout_s=1.0)
    return raised.value


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_any_other_text_that_cannot_be_sent_is_a_fault_of_the_configuration_and_named() -> None:
    trust = Trust(cafile="/nowhere/\udc80.pem")
    with pytest.raises(ConfigurationError, match="sslrootcert is '/nowhere/") as raised:
        libpq.parameters(settings(), Credentials(user="app", password=Secret(CANARY)), trust, "127.0.0.1")
    shown = "".join(traceback.TracebackException.from_exception(raised.value, capture_locals=True).format())
    assert CANARY not in shown


def test_a_libpq_that_is_too_old_is_a_fault_that_names_the_oldest_that_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq, "version", lambda: 150018)
    error = opening(Credentials(user="app", password=Secret(CANARY)))
    assert isinstance(error, ConfigurationError)
    assert "libpq 15.18" in error.message
    assert "16.0" in error.message
    assert "psycopg[binary]" in error.remedy


@pytest.mark.parametrize("version", [160000, 170006, 180006, sys.maxsize])
def test_every_libpq_that_will_do_is_told_what_matters(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq, "version", lambda: version)
    given = settings()
    told = libpq.parameters(given, Credentials(user="app"), trust_for(given), "127.0.0.1")
    assert told["require_auth"] == "none"
    assert told["sslcertmode"] == "disable"
    assert ("min_protocol_version" in told, "max_protocol_version" in told) == (version >= 180000,) * 2


@pytest.mark.parametrize(
    ("auth", "password", "methods"),
    [
        ("password", None, "none"),
        ("password", CANARY, "scram-sha-256,md5,none"),
        ("iam", CANARY, "password"),
        ("iam", None, "none"),
    ],
)
def test_what_may_be_answered_depends_on_what_there_is_to_answer(auth: str, password: str | None, methods: str) -> None:
    given = settings(
        auth=auth, sslmode="verify-full", region="eu-west-1", signing_host="a.b.eu-west-1.rds.amazonaws.com"
    )
    credentials = Credentials(user="app", password=Secret(password) if password else None)
    assert libpq.parameters(given, credentials, Trust(cafile="ca.pem"), "127.0.0.1")["require_auth"] == methods
