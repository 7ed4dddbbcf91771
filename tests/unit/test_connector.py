from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import Credentials, Secret
from lambda_dbconn.cache.backoff import CREDIT, EARNED_PER_S
from lambda_dbconn.cache.connector import Connector
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    CredentialsError,
    DeadlineExceededError,
    LambdaDbConnError,
    ProxyBusyError,
    TlsError,
)
from lambda_dbconn.events import ConnectFailed, ConnectGaveUp
from lambda_dbconn.testing.fakes import FakeClock, FakeConnection, FakeDriver, FakeServer, RecordingObserver
from tests.unit.conftest import CANARY, PROXY, local

if TYPE_CHECKING:
    from lambda_dbconn import CredentialProvider
    from lambda_dbconn.settings import Settings


class Rotating:
    """Gives one password after another; a refusal means that there may be a newer one while there are any left."""

    def __init__(self, *passwords: str) -> None:
        self.passwords = list(passwords)
        self.fetched = 0
        self.refusals: list[Credentials] = []

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        password = self.passwords[min(self.fetched, len(self.passwords) - 1)]
        self.fetched += 1
        return Credentials(user="app", password=Secret(password))

    def refused(self, credentials: Credentials) -> bool:
        self.refusals.append(credentials)
        return self.fetched < len(self.passwords)


class Throttled:
    """Fails so many times."""

    def __init__(self, times: int = 1000, *, retryable: bool = True) -> None:
        self._times = times
        self._retryable = retryable

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        self._times -= 1
        if self._times >= 0:
            raise CredentialsError("throttled", retryable=self._retryable)
        return Credentials(user="app", password=Secret("good"))

    def refused(self, credentials: Credentials) -> bool:
        raise AssertionError("nothing was given that could be refused")


class Slow(Rotating):
    """Takes its time, as an SDK's import does."""

    def __init__(self, server: FakeServer, *, takes_s: float) -> None:
        super().__init__("good")
        self._server = server
        self._takes_s = takes_s

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        self._server.clock.advance(self._takes_s)
        return super().fetch(settings, deadline)


def connector(
    server: FakeServer,
    observer: RecordingObserver,
    credentials: CredentialProvider | None = None,
    *,
    connect_timeout_s: float = 5.0,
) -> Connector[FakeConnection]:
    return Connector(
        local(connect_timeout_s=connect_timeout_s),
        driver=FakeDriver(server),
        credentials=credentials or Rotating("good"),
        clock=server.clock,
        tell=observer.on_event,
    )


def within(server: FakeServer, seconds: float | None = None) -> Deadline:
    return Deadline(seconds, reserve_s=0.5, clock=server.clock)


def test_the_first_try_that_succeeds_is_the_only_one(server: FakeServer, observer: RecordingObserver) -> None:
    connection, attempts = connector(server, observer).open(within(server))
    assert connection is server.connections[0]
    assert attempts == 1
    assert observer.events == []
    assert server.clock.slept_s == []


def test_a_failure_that_time_may_mend_is_tried_again_after_a_pause(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.refuse(3)
    connection, attempts = connector(server, observer).open(within(server))
    assert connection is server.connections[0]
    assert attempts == 4
    assert len(server.clock.slept_s) == 3
    assert observer.events == [
        ConnectFailed(endpoint="localhost:5432", error="ConnectError: refused", attempt=attempt, duration_s=0.0)
        for attempt in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "error",
    [TlsError("wrong name"), ConfigurationError("no such file"), ConnectError("no such database")],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_that_no_repetition_mends_stops_at_once(
    server: FakeServer, observer: RecordingObserver, error: LambdaDbConnError
) -> None:
    server.refuse(error=error)
    with pytest.raises(type(error)) as caught:
        connector(server, observer).open(within(server))
    assert caught.value is error
    assert "tries" not in error.message
    assert server.counts["open"] == 1
    assert server.clock.slept_s == []
    assert len(observer.of(ConnectFailed)) == 1


def test_a_failure_that_no_repetition_mends_ends_the_repetition_of_others(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.refuse(2)
    server.refuse(error=TlsError("wrong name"))
    with pytest.raises(TlsError, match=r"wrong name \(3 tries\)"):
        connector(server, observer).open(within(server))
    assert server.counts["open"] == 3


def test_a_server_that_refuses_all_the_time_gets_tries_until_the_time_is_over(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.refuses_with = ConnectError("refused", retryable=True)
    started = server.clock.monotonic()
    with pytest.raises(ConnectError) as caught:
        connector(server, observer).open(within(server))
    tries = server.counts["open"]
    assert tries > 5
    assert caught.value.message == f"refused ({tries} tries)"
    assert [event.attempt for event in observer.of(ConnectFailed)] == list(range(1, tries + 1))
    took_s = server.clock.monotonic() - started
    assert 2.8 < took_s < 5.0  # the next pause would have been too long
    assert observer.events[-1] == ConnectGaveUp(
        endpoint="localhost:5432", error=f"ConnectError: refused ({tries} tries)", attempts=tries, duration_s=took_s
    )
    assert max(server.clock.slept_s) <= 1 / EARNED_PER_S


@given(
    connect_timeout_s=st.floats(0.1, 20),
    remaining_s=st.none() | st.floats(0.6, 20),
    takes_s=st.floats(0, 3),
)
def test_no_pause_and_no_try_lasts_beyond_the_limit(
    connect_timeout_s: float, remaining_s: float | None, takes_s: float
) -> None:
    with FakeServer(FakeClock()) as server:
        server.connect_takes_s = takes_s
        server.refuses_with = ConnectError("refused", retryable=True)
        started = server.clock.monotonic()
        limit_s = min(connect_timeout_s, float("inf") if remaining_s is None else remaining_s - 0.5)
        opening = connector(server, RecordingObserver(), connect_timeout_s=connect_timeout_s)
        with pytest.raises(ConnectError):
            opening.open(within(server, remaining_s))
        assert server.clock.monotonic() - started <= limit_s + 1e-6
        assert all(limit <= limit_s + 1e-6 for limit in server.time_limits_s)
        assert all(limit >= 0.1 - 1e-6 for limit in server.time_limits_s[1:])  # with less a try only ends in a time-out


def test_a_last_try_that_runs_out_of_time_does_not_hide_what_the_server_said(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.refuse(2, ProxyBusyError("too many connections"))
    server.connect_takes_s = 2.0  # so that a third try has less than that
    with pytest.raises(ProxyBusyError) as caught:
        connector(server, observer).open(within(server))
    assert caught.value.message == "too many connections (3 tries)"
    (note,) = caught.value.__notes__
    assert re.fullmatch(r"the last try: no answer within 0\.\d\d s|the last try: no answer within 1\.00 s", note)
    said = [event.error for event in observer.events if isinstance(event, ConnectFailed)]
    assert [text.partition(":")[0] for text in said] == ["ProxyBusyError", "ProxyBusyError", "ConnectTimeoutError"]


def test_credentials_that_were_late_do_not_hide_that_the_server_is_silent(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.connect_takes_s = 60.0
    with pytest.raises(ConnectTimeoutError, match=r"no answer within .* \(2 tries\)"):
        connector(server, observer, Throttled(1)).open(within(server))


def test_threads_that_fail_at_once_share_one_budget(
    server: FakeServer, observer: RecordingObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, both_make_one = connector(server, observer), Barrier(2)
    monkeypatch.setattr(server.clock, "monotonic", lambda: float(both_make_one.wait(timeout=10)))
    with ThreadPoolExecutor(2) as pool:
        one, other = [pool.submit(opening.budget) for _ in range(2)]
        assert one.result() is other.result()


def test_after_a_restore_repeats_have_their_whole_budget(server: FakeServer, observer: RecordingObserver) -> None:
    opening = connector(server, observer)
    for _ in range(20):
        opening.budget().spend()
    assert opening.budget().wait_s() > 0
    opening.forget()
    assert opening.budget().wait_s() == 0


def test_the_pauses_grow_and_are_jittered_over_their_full_range(observer: RecordingObserver) -> None:
    pauses: list[list[float]] = []
    for _ in range(40):
        with FakeServer() as server:
            server.refuse(3)
            connector(server, observer).open(within(server))
            pauses.append(server.clock.slept_s)
    for pause, longest_s in zip(zip(*pauses, strict=True), (0.05, 0.1, 0.2), strict=True):
        assert max(pause) <= longest_s
        assert min(pause) < longest_s / 2 < max(pause)


def test_an_outage_that_goes_on_is_not_met_by_a_storm_of_invocations(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.refuses_with = ConnectError("refused", retryable=True)
    opening = connector(server, observer)
    started, invocations = server.clock.monotonic(), 0
    while server.clock.monotonic() - started < 60:
        invocations += 1
        with pytest.raises(ConnectError, match="refused"):
            opening.open(within(server))
        server.clock.advance(0.1)
    repeats = server.counts["open"] - invocations
    assert repeats <= CREDIT + EARNED_PER_S * (server.clock.monotonic() - started)
    server.refuses_with = None
    assert opening.open(within(server))[1] == 1


def test_a_black_hole_costs_the_whole_limit_and_no_more(server: FakeServer, observer: RecordingObserver) -> None:
    server.connect_takes_s = 60
    started = server.clock.monotonic()
    with pytest.raises(ConnectTimeoutError):
        connector(server, observer).open(within(server))
    assert server.clock.monotonic() - started == pytest.approx(5.0)
    assert server.time_limits_s == [5.0]


def test_the_time_of_the_invocation_caps_the_connect(server: FakeServer, observer: RecordingObserver) -> None:
    connector(server, observer).open(within(server, 3.0))
    assert server.time_limits_s == [pytest.approx(2.5)]


def test_without_time_nothing_is_tried(server: FakeServer, observer: RecordingObserver) -> None:
    with pytest.raises(DeadlineExceededError, match="no time left for connecting to localhost:5432"):
        connector(server, observer).open(within(server, 0.5))
    assert server.counts["open"] == 0
    assert observer.events == []


def test_a_refused_credential_is_asked_for_again_once(server: FakeServer, observer: RecordingObserver) -> None:
    server.password = "new"
    provider = Rotating("old", "new")
    _, attempts = connector(server, observer, provider).open(within(server))
    assert attempts == 1
    assert (provider.fetched, server.counts["open"]) == (2, 2)
    assert provider.refusals == [Credentials(user="app", password=Secret("old"))]
    assert observer.events == []
    assert server.clock.slept_s == []


def test_a_third_refusal_is_final(server: FakeServer, observer: RecordingObserver) -> None:
    server.password = "good"
    provider = Rotating("old", "current", CANARY, "never asked for")
    with pytest.raises(AuthenticationError) as caught:
        connector(server, observer, provider).open(within(server))
    assert (provider.fetched, server.counts["open"]) == (3, 3)
    assert [event.attempt for event in observer.events if isinstance(event, ConnectFailed)] == [1]
    assert CANARY not in f"{caught.value!r} {caught.value} {observer.events}"


def test_a_provider_without_another_credential_is_not_asked_again(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.password = "good"
    provider = Rotating("wrong")
    with pytest.raises(AuthenticationError):
        connector(server, observer, provider).open(within(server))
    assert (provider.fetched, server.counts["open"]) == (1, 1)


def test_what_was_refused_is_not_tried_twice_even_if_the_provider_gives_it_again(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.password = "good"
    provider = Rotating("wrong", "wrong", "good")
    with pytest.raises(AuthenticationError):
        connector(server, observer, provider).open(within(server))
    assert (provider.fetched, server.counts["open"]) == (2, 1)


def test_each_physical_connection_fetches_its_own_credential(server: FakeServer, observer: RecordingObserver) -> None:
    server.refuse(2)
    provider = Rotating("good")
    opening = connector(server, observer, provider)
    opening.open(within(server))
    opening.open(within(server))
    assert provider.fetched == 4


@pytest.mark.parametrize("times", [1, 3])
def test_credentials_that_a_later_try_may_bring_are_asked_for_again_after_a_pause(
    server: FakeServer, observer: RecordingObserver, times: int
) -> None:
    _, attempts = connector(server, observer, Throttled(times)).open(within(server))
    assert attempts == times + 1
    assert len(server.clock.slept_s) == times
    assert server.counts["open"] == 1
    assert {event.error for event in observer.of(ConnectFailed)} == {"CredentialsError: throttled"}


def test_credentials_that_never_come_end_with_the_connect_timeout(
    server: FakeServer, observer: RecordingObserver
) -> None:
    with pytest.raises(CredentialsError, match=r"throttled \(\d+ tries\)"):
        connector(server, observer, Throttled(1000)).open(within(server))
    assert sum(server.clock.slept_s) <= 5.0
    assert server.counts["open"] == 0


def test_credentials_that_cannot_be_had_are_asked_for_once(server: FakeServer, observer: RecordingObserver) -> None:
    with pytest.raises(CredentialsError, match=r"throttled\. "):
        connector(server, observer, Throttled(1000, retryable=False)).open(within(server))
    assert server.clock.slept_s == []
    assert len(observer.of(ConnectFailed)) == 1


def test_getting_credentials_takes_nothing_of_the_time_for_connecting(
    server: FakeServer, observer: RecordingObserver
) -> None:
    connector(server, observer, Slow(server, takes_s=4.0)).open(within(server))
    connector(server, observer, Slow(server, takes_s=4.0)).open(within(server, 7.5))
    assert server.time_limits_s == [pytest.approx(5.0), pytest.approx(3.0)]  # the deadline is not put off


def test_a_file_of_authorities_that_is_missing_is_found_before_anything_is_opened(
    server: FakeServer, observer: RecordingObserver
) -> None:
    with pytest.raises(ConfigurationError, match="sslrootcert"):
        Connector(
            local(sslmode="verify-full", sslrootcert="/nowhere.pem"),
            driver=FakeDriver(server),
            credentials=Rotating("good"),
            clock=server.clock,
            tell=observer.on_event,
        )


def test_a_login_that_turns_out_to_be_good_for_nothing_is_refused_to_the_provider(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.password = "good"
    provider = Rotating("good", "better")
    opener = connector(server, observer, provider)
    opener.refuse()
    assert provider.refusals == []
    opener.open(within(server))
    opener.refuse()
    assert provider.refusals == [Credentials(user="app", password=Secret("good"))]


def test_a_token_is_not_kept(server: FakeServer, observer: RecordingObserver) -> None:
    provider = Rotating("token")
    server.password = "token"
    settings = local(host=PROXY, auth="iam", sslmode="verify-full")
    opener = Connector(
        settings, driver=FakeDriver(server), credentials=provider, clock=server.clock, tell=observer.on_event
    )
    opener.open(within(server))
    opener.refuse()
    assert provider.refusals == []


# --- nothing is begun after the time is over


class Late(Rotating):
    """Gives credentials, the last of them after the time is over."""

    def __init__(self, server: FakeServer, *passwords: str, takes_s: float) -> None:
        super().__init__(*passwords)
        self._server = server
        self._takes_s = takes_s

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        given = super().fetch(settings, deadline)
        if self.fetched == len(self.passwords):
            self._server.clock.advance(self._takes_s)
        return given


def test_credentials_that_come_after_the_deadline_are_not_used(server: FakeServer, observer: RecordingObserver) -> None:
    with pytest.raises(ConnectTimeoutError, match="no time left at localhost:5432 for a login"):
        connector(server, observer, Late(server, "good", takes_s=9.0)).open(within(server, 3.0))
    assert server.counts["open"] == 0


def test_no_other_credentials_are_asked_for_after_the_deadline(
    server: FakeServer, observer: RecordingObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.password = "new"
    provider = Rotating("old", "new")
    refused = provider.refused

    def refused_late(credentials: Credentials) -> bool:
        server.clock.advance(9.0)
        return refused(credentials)

    monkeypatch.setattr(provider, "refused", refused_late)
    with pytest.raises(ConnectTimeoutError, match="for others than the credentials that were refused"):
        connector(server, observer, provider).open(within(server, 3.0))
    assert (provider.fetched, server.counts["open"]) == (1, 1)


def test_a_pause_that_outlasts_the_deadline_because_of_a_freeze_is_followed_by_nothing(
    server: FakeServer, observer: RecordingObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Rotating("good")
    server.refuse(1000)
    monkeypatch.setattr(server.clock, "sleep", lambda _: server.clock.advance(60))
    with pytest.raises(ConnectError, match=r"refused \(2 tries\)"):
        connector(server, observer, provider).open(within(server, 3.0))
    assert (provider.fetched, server.counts["open"]) == (1, 1)


class OutOfTime(Rotating):
    """Has no time to read the secret, but the first time."""

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        if self.fetched:
            raise DeadlineExceededError("no time left for reading the secret")
        return super().fetch(settings, deadline)


def test_a_retry_without_time_for_credentials_does_not_hide_what_the_server_said(
    server: FakeServer, observer: RecordingObserver
) -> None:
    server.refuse(1)
    with pytest.raises(ConnectError, match=r"refused \(2 tries\)") as caught:
        connector(server, observer, OutOfTime("good")).open(within(server))
    assert caught.value.__notes__ == ["the last try: no time left for reading the secret"]
