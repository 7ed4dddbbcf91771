"""The secret's provider, with sources in memory: what is read when, and what a refusal sets going."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn import AuthenticationError, ConnectionManager, Credentials, CredentialsError, Secret
from lambda_dbconn.credentials.secret_service import ServiceSource
from lambda_dbconn.credentials.secrets_manager import REFETCH_INTERVAL_S, SecretsManagerProvider
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.errors import DeadlineExceededError
from lambda_dbconn.events import CredentialsFailed, CredentialsFetched
from lambda_dbconn.testing.fakes import FakeDriver
from tests.unit.conftest import CANARY, in_thread, local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeServer, RecordingObserver

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!db-0a1b-AbCdEf"
SETTINGS = local(user=None, auth="secret", secret_id="prod/shop")


def secret(password: str, user: str = "app", **more: object) -> str:
    return json.dumps({"username": user, "password": password, **more})


def login(password: str, user: str = "app") -> Credentials:
    return Credentials(user=user, password=Secret(password))


class Source:
    """Stands for the extension or for Secrets Manager: a text for each label, or an error."""

    def __init__(self, name: str = "secrets_manager", **versions: str | Exception) -> None:
        self.name = name
        self.versions = versions
        self.reads: list[str] = []
        self.time_limits_s: list[float] = []

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        assert secret_id == "prod/shop"
        self.reads.append(stage)
        self.time_limits_s.append(timeout_s)
        found = self.versions.get(stage)
        if isinstance(found, Exception):
            raise found
        return None if found is None else Secret(found)


class Shop:
    """A manager that logs in with a secret, and all that is around it."""

    def __init__(self, server: FakeServer, observer: RecordingObserver, nearest: Source | None = None) -> None:
        self.server = server
        self.observer = observer
        self.service = Source(AWSCURRENT=secret("one"))
        self.provider = SecretsManagerProvider("prod/shop", service=self.service, nearest=nearest, clock=server.clock)
        self.db: ConnectionManager[FakeConnection] = ConnectionManager(
            SETTINGS,
            credentials=self.provider,
            driver=FakeDriver(server),
            observer=observer,
            clock=server.clock,
        )

    def reconnect(self) -> None:
        """Lose the connection, and borrow another one."""
        self.server.hang_up()
        with self.db.connection():
            pass

    def said(self) -> list[tuple[str, str]]:
        """Return where each secret came from, in order."""
        return [(event.source, event.stage) for event in self.observer.of(CredentialsFetched)]


@pytest.fixture(autouse=True)
def no_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_RUNTIME_API", raising=False)


@pytest.fixture
def shop(server: FakeServer, observer: RecordingObserver) -> Shop:
    server.password = "one"
    return Shop(server, observer)


# --- the first read


def test_a_secret_is_read_once_and_kept(shop: Shop) -> None:
    for _ in range(3):
        shop.reconnect()
    assert shop.service.reads == ["AWSCURRENT"]
    assert shop.said() == [("secrets_manager", "AWSCURRENT")]
    assert shop.db.stats().opened == 3


def test_the_nearest_source_is_read_first_and_alone(server: FakeServer, observer: RecordingObserver) -> None:
    server.password = "one"
    shop = Shop(server, observer, nearest=Source("extension", AWSCURRENT=secret("one")))
    shop.reconnect()
    assert shop.said() == [("extension", "AWSCURRENT")]
    assert shop.service.reads == []


def test_a_nearest_source_that_is_not_ready_is_passed_over_and_that_is_told(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.password = "one"
    shop = Shop(server, observer, nearest=Source("extension", AWSCURRENT=CredentialsError("answered 400")))
    shop.reconnect()
    failed = observer.of(CredentialsFailed)
    assert [(event.source, event.error, event.instead) for event in failed] == [
        ("extension", "answered 400", "secrets_manager")
    ]
    assert shop.said() == [("secrets_manager", "AWSCURRENT")]


def test_the_alternating_users_name_comes_with_its_password(shop: Shop) -> None:
    shop.service.versions["AWSCURRENT"] = secret("one", user="app_clone")
    given = shop.provider.fetch(SETTINGS, Deadline(None, reserve_s=0, clock=shop.server.clock))
    assert given == login("one", user="app_clone")


def test_a_secret_without_a_current_version_is_an_error(shop: Shop) -> None:
    del shop.service.versions["AWSCURRENT"]
    with pytest.raises(CredentialsError, match="the secret 'prod/shop' has no current version"):
        shop.reconnect()


def test_a_throttled_first_read_is_tried_again_by_the_manager(shop: Shop) -> None:
    shop.service.versions["AWSCURRENT"] = CredentialsError("throttled", retryable=True)
    sleep = shop.server.clock.sleep

    def mend(seconds: float) -> None:
        sleep(seconds)
        shop.service.versions["AWSCURRENT"] = secret("one")

    shop.server.clock.sleep = mend  # type: ignore[method-assign]
    shop.reconnect()
    assert shop.service.reads == ["AWSCURRENT", "AWSCURRENT"]


def test_a_read_ends_within_the_deadline(shop: Shop, clock: FakeClock) -> None:
    shop.provider.fetch(SETTINGS, Deadline(1.5, reserve_s=0.5, clock=clock))
    assert shop.service.time_limits_s == [pytest.approx(1.0)]
    with pytest.raises(DeadlineExceededError, match="reading the secret 'prod/shop'"):
        SecretsManagerProvider("prod/shop", service=shop.service, clock=clock).fetch(
            SETTINGS, Deadline(0.4, reserve_s=0.5, clock=clock)
        )


def test_what_the_secret_says_of_the_settings_is_read_once_for_both(shop: Shop, clock: FakeClock) -> None:
    shop.service.versions["AWSCURRENT"] = secret(
        "one", engine="mariadb", host="db.example.org", port="3307", dbname="d"
    )
    deadline = Deadline(None, reserve_s=0, clock=clock)
    assert shop.provider.settings(deadline) == {
        "engine": "mysql",
        "host": "db.example.org",
        "port": 3307,
        "name": "d",
    }
    assert shop.provider.fetch(SETTINGS, deadline) == login("one")
    assert shop.service.reads == ["AWSCURRENT"]


def test_what_was_read_before_there_was_a_manager_is_told_once_there_is(
    server: FakeServer, observer: RecordingObserver, clock: FakeClock
) -> None:
    nearest = Source("extension", AWSCURRENT=CredentialsError("not ready", remedy="Wait."))
    service = Source(AWSCURRENT=secret("one"))
    provider = SecretsManagerProvider("prod/shop", nearest=nearest, service=service, clock=clock)
    provider.settings(Deadline(None, reserve_s=0, clock=clock))
    for _ in range(2):  # the second has nothing left to hear
        ConnectionManager(SETTINGS, credentials=provider, driver=FakeDriver(server), observer=observer, clock=clock)
    failed, fetched = observer.events
    assert isinstance(failed, CredentialsFailed)
    assert (failed.source, failed.error, failed.endpoint) == ("extension", "not ready", "")
    assert fetched == CredentialsFetched(endpoint="", source="secrets_manager", stage="AWSCURRENT", duration_s=0.0)


@pytest.mark.parametrize(
    ("secret_id", "region"), [(ARN, "eu-west-1"), ("prod/shop", "us-east-2"), ("arn:aws", "us-east-2")]
)
def test_an_arns_region_comes_before_the_settings(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, secret_id: str, region: str
) -> None:
    regions = []

    def read(source: ServiceSource, _secret_id: str, *, stage: str, timeout_s: float) -> Secret:
        regions.append(source._region)
        return Secret(secret("one"))

    monkeypatch.setattr(ServiceSource, "read", read)
    SecretsManagerProvider(secret_id, region="us-east-2").fetch(SETTINGS, Deadline(9.0, reserve_s=0.0, clock=clock))
    assert regions == [region]


# --- a refusal


def test_a_refused_secret_is_read_past_every_cache_and_tried_if_it_changed(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.password = "one"
    extension = Source("extension", AWSCURRENT=secret("one"))
    shop = Shop(server, observer, nearest=extension)
    shop.reconnect()
    server.password = "two"
    shop.service.versions["AWSCURRENT"] = secret("two")
    shop.reconnect()
    assert extension.reads == ["AWSCURRENT"]
    assert shop.said()[1:] == [("secrets_manager", "AWSCURRENT")]
    assert server.counts["open"] == 3
    assert server.clock.slept_s == []


def test_in_the_window_of_a_rotation_the_pending_version_is_tried(shop: Shop) -> None:
    shop.reconnect()
    shop.server.password = "two"
    shop.service.versions["AWSPENDING"] = secret("two")
    shop.reconnect()
    assert shop.said()[1:] == [("secrets_manager", "AWSCURRENT"), ("secrets_manager", "AWSPENDING")]
    assert shop.server.counts["open"] == 3
    shop.reconnect()
    assert shop.service.reads == ["AWSCURRENT", "AWSCURRENT", "AWSPENDING"]


def test_a_stale_cache_in_the_window_of_the_next_rotation_leads_to_three_logins(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.password = "three"
    shop = Shop(server, observer, nearest=Source("extension", AWSCURRENT=secret("one")))
    shop.service.versions.update(AWSCURRENT=secret("two"), AWSPENDING=secret("three"))
    shop.reconnect()
    assert server.counts["open"] == 3


def test_a_rotation_that_ends_between_the_two_reads_is_seen_by_a_third(shop: Shop) -> None:
    shop.reconnect()
    shop.server.password = "two"
    read = shop.service.read

    def finish(secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        found = read(secret_id, stage=stage, timeout_s=timeout_s)
        shop.service.versions["AWSCURRENT"] = secret("two")
        return found

    shop.service.read = finish  # type: ignore[method-assign]
    shop.reconnect()
    assert shop.service.reads == ["AWSCURRENT", "AWSCURRENT", "AWSPENDING", "AWSCURRENT"]


def test_when_nothing_else_is_to_be_had_the_server_is_right(shop: Shop) -> None:
    shop.server.password = "never told"
    with pytest.raises(AuthenticationError):
        shop.reconnect()
    assert shop.server.counts["open"] == 1
    assert shop.server.clock.slept_s == []


def test_a_pending_version_that_is_refused_as_well_is_not_kept(shop: Shop, clock: FakeClock) -> None:
    shop.server.password = "never told"
    shop.service.versions["AWSPENDING"] = secret("two")
    with pytest.raises(AuthenticationError):
        shop.reconnect()
    assert shop.server.counts["open"] == 2
    clock.advance(1)
    shop.server.password = "one"
    shop.reconnect()
    assert shop.server.counts["open"] == 3


def test_a_wrong_password_makes_no_storm(shop: Shop, clock: FakeClock) -> None:
    shop.server.password = "never told"
    for _ in range(50):
        with pytest.raises(AuthenticationError):
            shop.reconnect()
        clock.advance(0.1)
    assert shop.service.reads == ["AWSCURRENT", *(["AWSCURRENT", "AWSPENDING", "AWSCURRENT"])]
    clock.advance(REFETCH_INTERVAL_S)
    with pytest.raises(AuthenticationError):
        shop.reconnect()
    assert len(shop.service.reads) == 7


def test_the_interval_passes_in_a_freeze_although_the_monotonic_clock_stops(shop: Shop, clock: FakeClock) -> None:
    shop.server.password = "two"
    with pytest.raises(AuthenticationError):
        shop.reconnect()
    shop.service.versions["AWSCURRENT"] = secret("two")
    clock.freeze(REFETCH_INTERVAL_S)
    shop.reconnect()


def test_a_clock_that_is_set_back_does_not_lengthen_the_interval(shop: Shop, clock: FakeClock) -> None:
    shop.server.password = "two"
    with pytest.raises(AuthenticationError):
        shop.reconnect()
    shop.service.versions["AWSCURRENT"] = secret("two")
    clock.step_wall(-3600)
    clock.advance(REFETCH_INTERVAL_S)
    shop.reconnect()


def test_when_the_service_cannot_be_reached_what_is_known_is_used_and_that_is_told(
    shop: Shop, observer: RecordingObserver
) -> None:
    shop.reconnect()
    shop.server.refuse(1, AuthenticationError("refused for a moment"))
    shop.service.versions["AWSCURRENT"] = CredentialsError("no route", retryable=True)
    with pytest.raises(AuthenticationError, match="refused for a moment"):
        shop.reconnect()
    failed = observer.of(CredentialsFailed)
    assert [(event.source, event.stage, event.error, event.instead) for event in failed] == [
        ("secrets_manager", "AWSCURRENT", "no route", "cached")
    ]
    shop.reconnect()
    assert len(shop.service.reads) == 2


def test_a_secret_that_becomes_unreadable_costs_nothing_while_the_server_accepts_the_old_one(shop: Shop) -> None:
    shop.reconnect()
    shop.service.versions["AWSCURRENT"] = "not JSON"
    shop.reconnect()
    assert shop.service.reads == ["AWSCURRENT"]


def test_a_refusal_of_what_another_thread_has_replaced_leads_to_what_it_found(shop: Shop, clock: FakeClock) -> None:
    deadline = Deadline(None, reserve_s=0, clock=clock)
    old = shop.provider.fetch(SETTINGS, deadline)
    shop.service.versions["AWSCURRENT"] = secret("two")
    assert shop.provider.refused(old)
    assert shop.provider.fetch(SETTINGS, deadline) == login("two")
    assert shop.provider.refused(old)
    assert shop.provider.fetch(SETTINGS, deadline) == login("two")
    assert shop.service.reads == ["AWSCURRENT", "AWSCURRENT"]


def test_threads_that_need_the_secret_at_once_read_it_once(shop: Shop, clock: FakeClock) -> None:
    deadline = Deadline(None, reserve_s=0, clock=clock)
    is_reading, may_go_on = threading.Event(), threading.Event()
    read = shop.service.read

    def slowly(secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        is_reading.set()
        assert may_go_on.wait(10)
        return read(secret_id, stage=stage, timeout_s=timeout_s)

    shop.service.read = slowly  # type: ignore[method-assign]
    given: list[Credentials] = []
    threads = [threading.Thread(target=lambda: given.append(shop.provider.fetch(SETTINGS, deadline))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert is_reading.wait(10)
    may_go_on.set()
    for thread in threads:
        thread.join(10)
    assert given == [login("one")] * 4
    assert shop.service.reads == ["AWSCURRENT"]


def test_a_thread_that_never_gives_up_its_turn_holds_nobody_for_good(shop: Shop, clock: FakeClock) -> None:
    shop.provider._reading.acquire()  # as a fork's child finds it
    given = in_thread(lambda: shop.provider.fetch(SETTINGS, Deadline(0.05, reserve_s=0, clock=clock)))
    assert given == login("one")


def test_reader_and_writer_share_what_is_known(shop: Shop) -> None:
    shop.reconnect()
    reader = ConnectionManager(
        SETTINGS.replace(host="127.0.0.1"),
        credentials=shop.provider,
        driver=FakeDriver(shop.server),
        observer=shop.observer,
        clock=shop.server.clock,
    )
    with reader.connection():
        pass
    assert shop.service.reads == ["AWSCURRENT"]


def test_nothing_that_is_told_or_shown_holds_the_password(shop: Shop, observer: RecordingObserver) -> None:
    shop.service.versions["AWSCURRENT"] = secret(CANARY)
    shop.server.password = "another"
    with pytest.raises(AuthenticationError) as caught:
        shop.reconnect()
    assert CANARY not in f"{caught.value!r} {caught.value} {observer.events!r} {shop.provider!r} {vars(shop.provider)}"
