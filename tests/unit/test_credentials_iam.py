from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from lambda_dbconn import ConfigurationError, Credentials, CredentialsError, Secret, Settings
from lambda_dbconn.credentials import iam
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.events import CredentialsFetched
from tests.unit.conftest import CANARY, INSTANCE, PROXY, local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeClock, RecordingObserver

CUSTOM = "db.example.org"
GLOBAL = "shop.global-abcdef123456.global.rds.amazonaws.com"
KEYS = AwsKeys(access_key_id="AKID", secret_access_key=Secret(CANARY), session_token=Secret(f"{CANARY}-token"))


class Resolver:
    """Stands for DNS: the names that a host is an alias of."""

    def __init__(self, **names: list[str]) -> None:
        self._names = names
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        return self._names.get(host.partition(".")[0], [])


def settings(**changes: Any) -> Settings:
    given: dict[str, Any] = {"engine": "postgresql", "host": PROXY, "port": 5432, "user": "app", "auth": "iam"}
    return Settings(**(given | changes))


def signed(provider: IamProvider, settings: Settings, clock: FakeClock) -> tuple[str, dict[str, str]]:
    """Fetch a token; return its `host:port`, and its parameters with the region on top."""
    given = provider.fetch(settings, Deadline(None, reserve_s=0, clock=clock))
    assert given.user == "app"
    assert given.password is not None
    url = urlsplit(f"https://{given.password.reveal()}")
    parameters = dict(parse_qsl(url.query))
    return url.netloc, {"region": parameters["X-Amz-Credential"].split("/")[2], **parameters}


@pytest.fixture(autouse=True)
def no_region(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("AWS_REGION", raising=False)
    return monkeypatch


@pytest.fixture
def resolver() -> Resolver:
    return Resolver(
        db=["db.example.org", "intermediate.example.org", f"{PROXY}.", "ec2-1-2-3-4.compute-1.amazonaws.com"],
        elsewhere=["something.example.net", "not a name", "192.0.2.1"],
    )


@pytest.fixture
def provider(clock: FakeClock, resolver: Resolver) -> IamProvider:
    return IamProvider(keys=lambda: KEYS, names_behind=resolver, clock=clock)


def test_the_token_is_for_the_endpoint_as_it_is_written(
    provider: IamProvider, resolver: Resolver, clock: FakeClock
) -> None:
    written = PROXY.replace("the-proxy", "The-Proxy")
    where, parameters = signed(provider, settings(host=written), clock)
    assert where == f"{written}:5432"
    assert parameters["region"] == "us-east-1"
    assert parameters["DBUser"] == "app"
    assert resolver.asked == []


def test_every_connection_gets_a_token_of_its_own_from_the_keys_of_the_moment(clock: FakeClock) -> None:
    given = iter([KEYS, KEYS.replace(access_key_id="AKID2")])
    provider = IamProvider(keys=lambda: next(given), clock=clock)
    first, second = (signed(provider, settings(), clock)[1]["X-Amz-Credential"] for _ in range(2))
    assert (first.split("/")[0], second.split("/")[0]) == ("AKID", "AKID2")


def test_each_token_is_told_with_the_time_that_getting_the_keys_took(
    clock: FakeClock, observer: RecordingObserver
) -> None:
    def slow_keys() -> AwsKeys:
        clock.advance(0.25)
        return KEYS

    provider = IamProvider(keys=slow_keys, clock=clock)
    signed(provider, settings(), clock)  # nobody listens yet
    provider.listen(observer.on_event)
    signed(provider, settings(), clock)
    assert observer.events == [CredentialsFetched(endpoint=f"{PROXY}:5432", source="iam", stage="", duration_s=0.25)]


def test_a_token_is_dated_by_the_wall_clock_and_so_survives_a_freeze(provider: IamProvider, clock: FakeClock) -> None:
    before = signed(provider, settings(), clock)[1]
    clock.freeze(3600)
    after = signed(provider, settings(), clock)[1]
    assert before["X-Amz-Date"] == "20250615T150640Z"
    assert after["X-Amz-Date"] == "20250615T160640Z"
    assert after["X-Amz-Expires"] == "900"


def test_a_reader_gets_tokens_for_its_own_endpoint(provider: IamProvider, clock: FakeClock) -> None:
    assert signed(provider, settings(host=INSTANCE, sslrootcert="/ca.pem"), clock)[0] == f"{INSTANCE}:5432"


@pytest.mark.parametrize("signing_host", [PROXY, "stand-in.example.org", "localhost"])
def test_the_signing_host_is_taken_at_its_word_without_a_look_up(
    provider: IamProvider, resolver: Resolver, clock: FakeClock, signing_host: str
) -> None:
    chosen = settings(host="localhost", signing_host=signing_host, region="eu-west-1")
    assert signed(provider, chosen, clock)[0] == f"{signing_host}:5432"
    assert resolver.asked == []


def test_an_alias_is_signed_for_by_the_rds_name_behind_it(
    provider: IamProvider, resolver: Resolver, clock: FakeClock
) -> None:
    where, parameters = signed(provider, settings(host=CUSTOM), clock)
    assert where == f"{PROXY}:5432"
    assert parameters["region"] == "us-east-1"
    assert resolver.asked == [CUSTOM]


@pytest.mark.parametrize("host", ["elsewhere.example.org", "unknown.example.org", "10.0.0.7"])
def test_a_host_that_is_neither_rds_nor_an_alias_of_it_is_an_error_that_names_the_setting(
    provider: IamProvider, clock: FakeClock, host: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{host} is not an RDS host, nor an alias of one") as caught:
        signed(provider, settings(host=host, prefix="DB_"), clock)
    assert "Set DB_SIGNING_HOST" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "region"),
    [
        ({}, "us-east-1"),
        ({"region": "eu-west-1"}, "us-east-1"),
        ({"host": GLOBAL, "sslrootcert": "/ca.pem", "region": "eu-west-1"}, "eu-west-1"),
        ({"host": GLOBAL, "sslrootcert": "/ca.pem"}, "ap-south-1"),
    ],
)
def test_the_region_is_the_hosts_then_the_settings_then_lambdas(
    provider: IamProvider,
    clock: FakeClock,
    no_region: pytest.MonkeyPatch,
    changes: dict[str, str],
    region: str,
) -> None:
    no_region.setenv("AWS_REGION", "ap-south-1")
    assert signed(provider, settings(**changes), clock)[1]["region"] == region


def test_without_any_region_the_error_names_the_setting(provider: IamProvider, clock: FakeClock) -> None:
    with pytest.raises(ConfigurationError, match=f"DB_REGION is not set, and {GLOBAL} does not name its region"):
        signed(provider, settings(host=GLOBAL, sslrootcert="/ca.pem", prefix="DB_"), clock)


@pytest.mark.parametrize("auth", ["password", "secret"])
def test_no_token_is_made_for_settings_that_would_let_it_go_in_plaintext(
    provider: IamProvider, clock: FakeClock, auth: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"auth is '{auth}', but the provider gives IAM tokens"):
        signed(provider, local(auth=auth, secret_id="s"), clock)


@pytest.mark.parametrize("host", ["localhost", CUSTOM, PROXY])
def test_settings_with_iam_and_without_tls_do_not_exist(host: str) -> None:
    with pytest.raises(ConfigurationError, match="sslmode is 'disable'"):
        settings(host=host, sslmode="disable")


def test_settings_without_tls_and_with_an_rds_name_behind_a_tunnel_do_not_exist() -> None:
    with pytest.raises(ConfigurationError, match="sslmode is 'disable'"):
        local(signing_host=PROXY)


def test_a_refused_token_was_new_and_so_is_final(provider: IamProvider) -> None:
    assert provider.refused(Credentials(user="app")) is False


def test_missing_keys_are_an_error_before_anything_is_signed(clock: FakeClock) -> None:
    def none() -> AwsKeys:
        raise CredentialsError("no AWS keys are to be found")

    with pytest.raises(CredentialsError, match="no AWS keys"):
        signed(IamProvider(keys=none, clock=clock), settings(), clock)


def test_the_resolvers_aliases_come_before_the_canonical_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostbyname_ex", lambda host: ("canonical", [host, "alias"], ["192.0.2.1"]))
    assert iam._names_behind(CUSTOM, 30) == [CUSTOM, "alias", "canonical"]


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_host: str) -> None:
        raise error

    monkeypatch.setattr("socket.gethostbyname_ex", fail)


def test_a_name_that_does_not_resolve_is_an_alias_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert iam._names_behind(CUSTOM, 30) == []


def test_a_resolver_that_has_trouble_may_be_asked_again(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    failing(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    with pytest.raises(CredentialsError, match=r"db\.example\.org is an alias: .*Temporary") as caught:
        signed(IamProvider(keys=lambda: KEYS, clock=clock), settings(host=CUSTOM), clock)
    assert caught.value.retryable


def test_a_silent_resolver_costs_no_more_than_the_deadline(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    may_answer = threading.Event()

    def silent(_host: str) -> None:
        """Stand for glibc's with a name server that does not answer."""
        assert may_answer.wait(30)

    monkeypatch.setattr("socket.gethostbyname_ex", silent)
    deadline = Deadline(0.02, reserve_s=0, clock=clock)
    try:
        with pytest.raises(CredentialsError, match=r"not answered within 0\.02 s") as caught:
            IamProvider(keys=lambda: KEYS, clock=clock).fetch(settings(host=CUSTOM), deadline)
    finally:
        may_answer.set()
    assert caught.value.retryable
