"""A canary for a password, driven through every path: nothing that is shown anywhere has it.

What needs real servers, SDKs and sockets is in the integration tests of the same name.
"""

from __future__ import annotations

import json
import logging
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import (
    AuthenticationError,
    ConfigurationError,
    ConnectionManager,
    ConnectTimeoutError,
    Credentials,
    CredentialsError,
    LambdaDbConnError,
    LambdaDbConnWarning,
    Secret,
    Settings,
    from_env,
)
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.credentials.secret_content import read_content
from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.observers.logging import LoggingObserver
from lambda_dbconn.testing.fakes import FakeDriver, FakeServer, RecordingObserver
from tests.support.canary import CANARY, everything_shown
from tests.unit.conftest import PROXY, local

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn import CredentialProvider
    from lambda_dbconn.events import Event


class CanarySource:
    """Stands for Secrets Manager, whose every version is a canary."""

    name = "secrets_manager"

    def __init__(self, text: str | None = None) -> None:
        self._text = Secret(text) if text else None

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        return self._text or Secret(json.dumps({"username": "app", "password": f"{CANARY}-{stage}", "host": "h"}))


class Everything(RecordingObserver):
    """Keeps every event, and logs it too."""

    def __init__(self) -> None:
        super().__init__()
        self._log = LoggingObserver()

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        self._log.on_event(event)


def keys() -> AwsKeys:
    return AwsKeys(access_key_id="AKID", secret_access_key=Secret(CANARY), session_token=Secret(f"{CANARY}-token"))


PROVIDERS: dict[str, tuple[dict[str, Any], Callable[[], CredentialProvider | None]]] = {
    "static": ({"password": Secret(CANARY)}, lambda: None),
    "iam": ({"auth": "iam", "host": PROXY, "sslmode": "verify-full"}, lambda: IamProvider(keys=keys)),
    "secret": (
        {"auth": "secret", "secret_id": "prod/shop"},
        lambda: SecretsManagerProvider("prod/shop", service=CanarySource()),
    ),
}
DEMANDS: dict[str, list[Exception]] = {
    "wrong password": [AuthenticationError("refused")] * 5,
    "timeout": [ConnectTimeoutError("no answer")] * 50,
    "bug": [ZeroDivisionError("a driver's bug")],
}


@pytest.fixture(autouse=True)
def at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("lambda_dbconn").setLevel(logging.DEBUG)


@pytest.mark.parametrize("demand", DEMANDS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_connect_that_fails_shows_no_secret(
    server: FakeServer, caplog: pytest.LogCaptureFixture, provider: str, demand: str
) -> None:
    changes, make = PROVIDERS[provider]
    observer = Everything()
    settings = local(**changes)
    server.demand("open", *DEMANDS[demand])
    db = ConnectionManager(
        settings, credentials=make(), driver=FakeDriver(server), clock=server.clock, observer=observer
    )
    with pytest.raises((LambdaDbConnError, ZeroDivisionError)) as caught, db.connection(10):
        pass
    assert observer.events or demand == "bug"
    shown = [everything_shown(caught.value), repr(observer.events), caplog.text, repr(db), repr(db.stats())]
    shown += [repr(vars(db)), repr(settings), str(settings), repr([vars(record) for record in caplog.records])]
    assert CANARY not in "\n".join(shown)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_handler_that_fails_shows_no_secret(
    server: FakeServer, caplog: pytest.LogCaptureFixture, provider: str
) -> None:
    changes, make = PROVIDERS[provider]
    observer = Everything()
    db = ConnectionManager(
        local(**changes), credentials=make(), driver=FakeDriver(server), clock=server.clock, observer=observer
    )
    with pytest.raises(ZeroDivisionError) as caught, db.transaction(10):
        raise ZeroDivisionError("the handler's own")
    assert observer.events
    assert CANARY not in f"{everything_shown(caught.value)}{observer.events}{caplog.text}"


SECRETS = [
    CANARY,
    f'{{"username": "{CANARY}"',
    json.dumps([CANARY]),
    json.dumps({"user": "app", "password": CANARY}),
    json.dumps({"username": "app", "passwort": CANARY}),
    json.dumps({"username": "app", "password": [CANARY]}),
    json.dumps({"username": "app", "password": f"{CANARY}\0"}),
]


@pytest.mark.parametrize("text", SECRETS, ids=[str(number) for number in range(len(SECRETS))])
def test_a_secret_that_cannot_be_used_shows_none_of_its_content(server: FakeServer, text: str) -> None:
    provider = SecretsManagerProvider("prod/shop", service=CanarySource(text))
    with pytest.raises(CredentialsError) as caught:
        provider.fetch(local(auth="secret", secret_id="s"), Deadline(None, reserve_s=0, clock=server.clock))
    frames = caught.traceback
    assert [frame.name for frame in frames][-1] == read_content.__name__
    assert CANARY not in everything_of_ours(caught.value)


def everything_of_ours(error: BaseException) -> str:
    """Show an error without this file's own frames, which hold the canary for a purpose."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return everything_shown(error.with_traceback(trace))


def test_a_password_that_cannot_be_sent_is_not_shown() -> None:
    given = Secret(f"{CANARY}\udc80")
    with pytest.raises(CredentialsError) as caught:
        Credentials(user="app", password=given)
    assert CANARY not in everything_of_ours(caught.value)


FAULTY = [
    {"DB_HOST": "", "DB_USER": "app", "DB_PASSWORD": CANARY},
    {"DB_HOST": "localhost", "DB_PASSWORD": CANARY, "DB_PORT": "x"},
    {"DB_HOST": f"postgresql://app:{CANARY}@localhost"},
    {"DB_URL": f"postgresql://app:{CANARY}@localhost/?sslmode=prefer"},
    {"DB_URL": f"postgresql://app:{CANARY}#@localhost/"},
    {"DATABASE_URL": f"oracle://app:{CANARY}@localhost/"},
    {"DB_HOST": "localhost", "DB_ENGINE": "mysql", "DB_PASSWD": CANARY},
]


@pytest.mark.parametrize("number", range(len(FAULTY)))
def test_settings_that_are_not_right_show_no_password(environ: pytest.MonkeyPatch, number: int) -> None:
    for name, value in FAULTY[number].items():
        environ.setenv(name, value)
    with pytest.raises((ConfigurationError, LambdaDbConnWarning)) as caught:
        from_env()
    assert CANARY not in everything_of_ours(caught.value)


@pytest.mark.parametrize("value", [Secret(CANARY), Credentials(user="a", password=Secret(CANARY)), keys()])
def test_nothing_with_a_secret_in_it_can_be_pickled(value: object) -> None:
    with suppress(TypeError):
        assert CANARY.encode() not in pickle.dumps(value)
    assert CANARY not in f"{value} {value!r}"


def test_settings_with_a_password_cannot_be_pickled() -> None:
    settings = Settings(engine="mysql", host="localhost", port=1, user="app", password=Secret(CANARY))
    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        pickle.dumps(settings)
    assert CANARY not in everything_shown(caught.value)
