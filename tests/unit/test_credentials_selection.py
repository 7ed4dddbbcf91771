from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import (
    AuthenticationError,
    ConfigurationError,
    Credentials,
    CredentialsError,
    Secret,
    Settings,
    StaticProvider,
)
from lambda_dbconn.credentials import provider_for
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider
from lambda_dbconn.credentials.static import FunctionProvider
from lambda_dbconn.manager import ConnectionManager
from lambda_dbconn.testing.fakes import FakeDriver
from tests.support.secrecy import shown_of
from tests.unit.conftest import CANARY, PROXY, in_fresh_process, local

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.credentials import CredentialProvider
    from lambda_dbconn.deadline import Deadline
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer


def manager(
    server: FakeServer, credentials: CredentialProvider | Callable[[], Credentials]
) -> ConnectionManager[FakeConnection]:
    return ConnectionManager(local(), driver=FakeDriver(server), clock=server.clock, credentials=credentials)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"password": Secret("x")}, StaticProvider),
        ({"auth": "secret", "secret_id": "s"}, SecretsManagerProvider),
        ({"auth": "iam", "host": PROXY, "sslmode": "verify-full"}, IamProvider),
    ],
)
def test_each_way_to_log_in_has_its_provider(clock: FakeClock, changes: dict[str, Any], kind: type) -> None:
    assert type(provider_for(local(**changes), None, clock=clock)) is kind


def test_a_provider_that_is_given_is_the_one_that_is_used(clock: FakeClock) -> None:
    given = StaticProvider()
    assert provider_for(local(auth="secret", secret_id="s"), given, clock=clock) is given


def test_a_function_may_stand_for_a_provider(clock: FakeClock) -> None:
    assert type(provider_for(local(), lambda: Credentials(user="app"), clock=clock)) is FunctionProvider


def test_a_function_is_called_for_each_connection(server: FakeServer) -> None:
    passwords = iter(["one", "two"])
    server.password = "one"
    db = manager(server, lambda: Credentials(user="app", password=Secret(next(passwords))))
    with db.connection():
        pass
    server.password = "two"
    server.hang_up()
    with db.connection():
        pass
    assert db.stats().opened == 2


def test_after_a_refusal_a_function_is_called_once_more_and_its_answer_tried_if_it_differs(server: FakeServer) -> None:
    server.password = "new"
    passwords = iter(["old", "new"])
    with manager(server, lambda: Credentials(user="app", password=Secret(next(passwords)))).connection():
        pass
    assert server.counts["open"] == 2


def test_a_function_that_always_says_the_same_is_believed_once(server: FakeServer) -> None:
    server.password = "new"
    with pytest.raises(AuthenticationError), manager(server, lambda: Credentials(user="app")).connection():
        pass
    assert server.counts["open"] == 1


@pytest.mark.parametrize("given", [CANARY, ("app", CANARY), None])
def test_a_function_that_returns_something_else_is_a_configuration_error_that_shows_none_of_it(
    server: FakeServer, given: Any
) -> None:
    with pytest.raises(ConfigurationError, match="the argument credentials returned a") as caught:
        manager(server, lambda: given).connection().__enter__()
    assert CANARY not in str(caught.value)


class OwnProvider:
    """A provider of a user's, which gives what a function does."""

    def __init__(self, give: Callable[[], Any]) -> None:
        self._give = give

    def fetch(self, settings: Settings, deadline: Deadline) -> Any:
        assert settings.user == "app"
        assert deadline.remaining_s() > 0
        return self._give()

    def refused(self, credentials: Credentials) -> bool:
        raise AssertionError


@pytest.mark.parametrize("wrap", [lambda give: give, OwnProvider], ids=["function", "provider"])
def test_an_error_of_ours_passes_through(server: FakeServer, wrap: Callable[[Any], Any]) -> None:
    error = CredentialsError("no")

    def fail() -> Credentials:
        raise error

    with pytest.raises(CredentialsError) as caught:
        manager(server, wrap(fail)).connection().__enter__()
    assert caught.value is error


@pytest.mark.parametrize("wrap", [lambda give: give, OwnProvider], ids=["function", "provider"])
@pytest.mark.parametrize("kind", [ValueError, KeyError, UnicodeError, OSError, RuntimeError])
def test_any_other_error_is_a_credentials_error_that_says_where_and_shows_nothing_of_it(
    server: FakeServer, wrap: Callable[[Any], Any], kind: type[Exception]
) -> None:
    def fail() -> Credentials:
        try:
            raise LookupError(CANARY)
        except LookupError as exc:
            raise kind(f"cannot read {CANARY}") from exc

    with pytest.raises(
        CredentialsError, match=f"raised {kind.__name__} at .*test_credentials_selection.py, line "
    ) as c:
        manager(server, wrap(fail)).connection().__enter__()
    assert not c.value.retryable
    assert CANARY not in shown_of(c.value)


def test_an_interrupt_in_a_function_is_no_error_of_the_credentials(server: FakeServer) -> None:
    def fail() -> Credentials:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manager(server, fail).connection().__enter__()


@pytest.mark.parametrize("given", [CANARY, ("app", CANARY), None])
def test_a_provider_that_returns_something_else_is_a_configuration_error_that_shows_none_of_it(
    server: FakeServer, given: Any
) -> None:
    with pytest.raises(ConfigurationError, match="the provider OwnProvider returned a") as caught:
        manager(server, OwnProvider(lambda: given)).connection().__enter__()
    assert CANARY not in shown_of(caught.value)


@pytest.mark.parametrize(("user", "password"), [("a\ud800", None), ("app", f"{CANARY}\udcff")])
def test_credentials_that_are_no_unicode_text_do_not_exist(user: str, password: str | None) -> None:
    with pytest.raises(CredentialsError, match="half of a surrogate pair") as caught:
        Credentials(user=user, password=Secret(password) if password else None)
    assert CANARY not in shown_of(caught.value)


@pytest.mark.parametrize(("user", "password"), [("a\0b", None), ("app", f"{CANARY}\0")])
def test_credentials_with_a_zero_byte_do_not_exist(user: str, password: str | None) -> None:
    with pytest.raises(CredentialsError, match="zero byte") as caught:
        Credentials(user=user, password=Secret(password) if password else None)
    assert CANARY not in str(caught.value)


USED = """
import sys, warnings
warnings.simplefilter("ignore")
from lambda_dbconn import Settings
from lambda_dbconn.deadline import SystemClock
from lambda_dbconn.credentials import provider_for
host = "the-proxy.proxy-demo.us-east-1.rds.amazonaws.com"
settings = Settings(engine="mysql", host=host, port=3306, user="app", auth="{auth}", secret_id="s")
provider_for(settings, None, clock=SystemClock())
print(*(name for name in sys.modules if name.startswith("lambda_dbconn.credentials.")))
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("auth", "others"),
    [
        ("password", {"iam", "sigv4", "aws_keys", "secrets_manager", "secret_sources", "secret_service"}),
        ("iam", {"secrets_manager", "secret_sources", "secret_service", "secret_content"}),
        ("secret", {"iam", "function"}),
    ],
)
def test_only_what_is_used_is_imported_and_no_sdk(auth: str, others: set[str]) -> None:
    ours, everything = in_fresh_process(USED.format(auth=auth)).splitlines()
    assert not {name.rpartition(".")[2] for name in ours.split()} & others
    loaded = {name.split(".")[0] for name in everything.split()}
    assert not loaded & {"boto3", "botocore", "urllib3", "http", "logging", "typing", "dataclasses", "pymysql", "ssl"}


def test_settings_by_hand_need_no_environment() -> None:
    assert Settings(engine="mysql", host="localhost", port=1, user="app").server_name == "localhost"
