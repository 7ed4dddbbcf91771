"""What RDS Proxy says when it refuses, word by word through the local one, and what the library makes of it."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    Credentials,
    LambdaDbConnError,
    ProxyBusyError,
    ProxyRefusedError,
    Secret,
    TlsError,
)
from lambda_dbconn.cache.backoff import CREDIT
from lambda_dbconn.errors import BORROW_TIMEOUT_REMEDY
from lambda_dbconn.events import ConnectFailed, ConnectionOpened
from lambda_dbconn.testing.fakes import RecordingObserver
from lambda_dbconn.testing.rds_proxy import texts
from tests.support.database import ShiftedClock
from tests.support.rds_proxy import DRIVER_ERRORS, connect, make_proxy, managing, rows, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.once

# What each refusal of the stand-in means: the error, and whether a later try may do.
MEANINGS: dict[str, dict[str, tuple[type[LambdaDbConnError], bool]]] = {
    "postgresql": {
        "tls_required": (TlsError, False),
        "iam_needs_tls": (TlsError, False),
        "protocol_version": (ProxyRefusedError, False),
        "replication": (ProxyRefusedError, False),
        "command_line_options": (ProxyRefusedError, False),
        "startup_option": (ProxyRefusedError, False),
        "user_missing": (ConfigurationError, False),
        "no_credentials": (AuthenticationError, False),
        "wrong_password": (AuthenticationError, False),
        "wrong_token": (AuthenticationError, False),
        "iam_rate": (ProxyBusyError, True),
        "connection_rate": (ProxyBusyError, True),
        "connection_limit": (ProxyBusyError, True),
        "borrow_timeout": (ProxyBusyError, True),
        "database_error": (ConnectError, False),
        "unknown_error": (ConnectError, True),
        "terminated": (ConnectError, True),
    },
    "mysql": {
        "tls_required": (TlsError, False),
        "iam_needs_tls": (TlsError, False),
        "no_credentials": (AuthenticationError, False),
        "wrong_password": (AuthenticationError, False),
        "wrong_token": (AuthenticationError, False),
        "iam_rate": (ProxyBusyError, True),
        "connection_rate": (ProxyBusyError, True),
        "connection_limit": (ProxyBusyError, True),
        "borrow_timeout": (ProxyBusyError, True),
        "database_error": (ConnectError, True),
        "unknown_error": (ConnectError, True),
    },
}
CASES = [(engine, kind) for engine, kinds in MEANINGS.items() for kind in kinds]
FIXTURES = {"postgresql": "postgres", "mysql": "mariadb"}
CAPACITY = ["connection_rate", "connection_limit", "iam_rate", "borrow_timeout"]


@pytest.fixture
def proxy(server: LocalServer, proxy_certificates: Certificates) -> Iterator[LocalRdsProxy]:
    with make_proxy(server, certificates=proxy_certificates) as proxy:
        yield proxy


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


def refusals(proxy: LocalRdsProxy) -> int:
    return sum(proxy.stats().refused.values())


def test_everything_that_the_stand_in_can_say_at_a_login_is_here() -> None:
    assert set(MEANINGS["postgresql"]) == set(texts._POSTGRESQL)
    assert set(MEANINGS["mysql"]) == set(texts._MYSQL) - {"unsupported_command"}  # which is no answer to a login


@pytest.mark.parametrize(("engine", "kind"), CASES)
def test_a_refusal_is_understood_and_only_what_a_later_try_may_mend_is_tried_again(
    request: pytest.FixtureRequest,
    proxy_certificates: Certificates,
    observer: RecordingObserver,
    engine: str,
    kind: Any,
) -> None:
    meaning, is_retryable = MEANINGS[engine][kind]
    server = request.getfixturevalue(FIXTURES[engine])
    with (
        make_proxy(server, certificates=proxy_certificates) as proxy,
        managing(proxy, observer=observer, connect_timeout_s=20) as db,
    ):
        proxy.fail_next_logins(2, kind)
        if is_retryable:
            with db.connection(30) as connection:
                assert value(connection, "SELECT 1") == 1
            assert (refusals(proxy), proxy.stats().logins) == (2, 1)
            assert [event.attempts for event in observer.of(ConnectionOpened)] == [3]
        else:
            with pytest.raises(meaning) as caught, db.connection(30):
                pytest.fail("it is connected")
            assert type(caught.value) is meaning
            assert caught.value.retryable is False
            assert caught.value.remedy in str(caught.value)
            assert refusals(proxy) == 1
        (said,) = proxy.stats().refused
        failures = observer.of(ConnectFailed)
        assert len(failures) == refusals(proxy)
        for event in failures:
            assert event.error.startswith(meaning.__name__)
            assert said in event.error


@pytest.mark.parametrize("kind", ["no_credentials", "wrong_password", "wrong_token"])
def test_what_is_said_about_authentication_brings_other_credentials_at_once(
    proxy: LocalRdsProxy, observer: RecordingObserver, kind: Any
) -> None:
    passwords = iter(["before the rotation", proxy.backend.password])
    proxy.fail_next_logins(1, kind)

    def give() -> Credentials:
        return Credentials(user="app", password=Secret(next(passwords)))

    with managing(proxy, credentials=give, observer=observer, connect_timeout_s=20) as db, db.connection(30) as c:
        assert value(c, "SELECT 1") == 1
    assert (refusals(proxy), proxy.stats().logins) == (1, 1)
    assert list(passwords) == []
    assert observer.of(ConnectFailed) == []  # it was one try


@pytest.mark.parametrize("kind", CAPACITY)
def test_what_is_said_about_capacity_is_met_by_few_tries_inside_the_deadline(proxy: LocalRdsProxy, kind: Any) -> None:
    proxy.fail_next_logins(1_000, kind)
    started_s = time.monotonic()
    with managing(proxy, connect_timeout_s=20) as db:
        with pytest.raises(ProxyBusyError, match="tries"), db.connection(2.0):
            pytest.fail("it is connected")
        assert time.monotonic() - started_s < 15  # and not 20: the deadline ends it
        assert 2 <= refusals(proxy) <= 1 + CREDIT + 2


class Watched(ShiftedClock):
    """Does something at the first pause."""

    def __init__(self, at_the_pause: Any) -> None:
        super().__init__()
        self._at_the_pause = [at_the_pause]

    def sleep(self, seconds: float) -> None:  # type: ignore[override] # the base has a function there
        while self._at_the_pause:
            self._at_the_pause.pop()()
        time.sleep(seconds)


def test_a_transaction_that_gets_no_database_connection_is_run_again_on_the_same_session(
    server: LocalServer, proxy_certificates: Certificates
) -> None:
    options: dict[str, Any] = {"max_database_connections": 1, "borrow_timeout_s": 0.3}
    with (
        make_proxy(server, certificates=proxy_certificates, **options) as proxy,
        closing(connect(proxy, server.password)) as holder,
        managing(proxy, clock=Watched(lambda: rows(holder, "ROLLBACK"))) as db,
    ):
        assert db.warm_up(20)
        rows(holder, "BEGIN")
        value(holder, "SELECT 1")
        assert db.run(lambda connection: value(connection, "SELECT 41 + 1"), 30) == 42
        assert proxy.stats().borrow_timeouts == 1
        assert proxy.stats().logins == 2
        assert db.stats().replaced == {}


def test_a_statement_that_gets_no_database_connection_is_the_drivers_error_with_a_note(
    server: LocalServer, proxy_certificates: Certificates
) -> None:
    options: dict[str, Any] = {"max_database_connections": 1, "borrow_timeout_s": 0.3}
    with (
        make_proxy(server, certificates=proxy_certificates, **options) as proxy,
        closing(connect(proxy, server.password)) as holder,
        managing(proxy) as db,
    ):
        assert db.warm_up(20)
        rows(holder, "BEGIN")
        value(holder, "SELECT 1")
        with pytest.raises(DRIVER_ERRORS, match="Timed-out waiting") as caught, db.connection(20) as connection:
            value(connection, "SELECT 1")
        assert caught.value.__notes__ == [BORROW_TIMEOUT_REMEDY]
        rows(holder, "ROLLBACK")
        with db.connection(20) as connection:
            assert value(connection, "SELECT 1") == 1
        assert proxy.stats().logins == 2
