"""What the doctor says where nothing is wrong, and of each step that fails: every failure is provoked for real."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from botocore.session import get_session

import lambda_dbconn
from lambda_dbconn import ConnectionManager, Settings
from lambda_dbconn.testing.certificates import OTHER_NAME
from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy
from lambda_dbconn.testing.relay import FaultRelay
from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres
from tests.support.canary import CANARY
from tests.support.clients import connect
from tests.support.doctor import Patient, statuses, step
from tests.support.invocations import environment
from tests.support.rds_proxy import PROXY_NAME
from tests.support.secrets_manager import LocalSecretsManager, local_secrets_manager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lambda_dbconn.doctor import Step
    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalServer
    from tests.support.pgbouncer import LocalPgBouncer

pytestmark = pytest.mark.walk

NAMES = [
    *("settings", "endpoint", "dns", "tcp", "tls", "credentials", "login", "proxy", "server", "role", "pinning"),
    "round_trip",
]
KEY = AwsKey(access_key_id="ASIAROLE", secret_access_key=f"{CANARY}-key", session_token=f"{CANARY}-token")
AWS_KEYS = {
    "AWS_ACCESS_KEY_ID": KEY.access_key_id,
    "AWS_SECRET_ACCESS_KEY": KEY.secret_access_key,
    "AWS_SESSION_TOKEN": KEY.session_token or "",
}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patient:
    return Patient(monkeypatch)


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[LocalSecretsManager]:
    """Moto, which has been asked who signs once: it imports what it needs for the answer, and we wait a second only."""
    with local_secrets_manager() as manager:
        keys = {"aws_access_key_id": KEY.access_key_id, "aws_secret_access_key": KEY.secret_access_key}
        with closing(get_session().create_client("sts", "us-east-1", endpoint_url=manager.url, **keys)) as client:
            client.get_caller_identity()
        yield manager


@pytest.fixture
def make_proxy(server: LocalServer, proxy_certificates: Certificates) -> Iterator[Callable[..., LocalRdsProxy]]:
    """Start proxies, which let in by IAM unless told otherwise."""
    with ExitStack() as stack:

        def make(**options: Any) -> LocalRdsProxy:
            given = {"auth": "iam", "aws_keys": [KEY], "signing_host": PROXY_NAME} | options
            return stack.enter_context(LocalRdsProxy(backend=server, certificates=proxy_certificates, **given))

        yield make


def variables(proxy: LocalRdsProxy) -> dict[str, str]:
    """Return the settings of a function whose role may log in, with a tunnel to the proxy."""
    assert proxy.certificates is not None
    return {
        "DB_ENGINE": proxy.engine,
        "DB_HOST": "localhost",
        "DB_PORT": str(proxy.port),
        "DB_NAME": "app",
        "DB_USER": "app",
        "DB_AUTH": "iam",
        "DB_SIGNING_HOST": PROXY_NAME,
        "DB_SSLROOTCERT": str(proxy.certificates.ca_path),
    }


# --- all is well


def test_a_direct_connection_that_is_well(patient: Patient, server: LocalServer) -> None:
    patient.set(environment(server))
    told: list[Step] = []
    diagnosis = patient.examine(tell=told.append)
    assert diagnosis.is_well, str(diagnosis)
    assert [(step.name, step.status) for step in diagnosis.steps] == [(name, "passed") for name in NAMES]
    assert tuple(told) == diagnosis.steps
    assert all(step.duration_ms >= 0 for step in told)
    certificate = step(diagnosis, "tls").facts["certificate"]
    assert "localhost" in certificate["names"]
    assert step(diagnosis, "tls").facts["root"] == certificate["issuer"]
    assert step(diagnosis, "proxy").facts == {"by_name": "unknown", "by_server": "direct"}
    assert step(diagnosis, "server").facts["engine"] == ("mariadb" if server.engine == "mysql" else "postgresql")
    assert step(diagnosis, "role").facts["role"] == "writer"
    assert step(diagnosis, "round_trip").facts["shortest_ms"] > 0


def test_a_manager_examines_its_own_endpoint_beside_the_connection_that_it_keeps(
    patient: Patient, server: LocalServer
) -> None:
    patient.set(environment(server))
    db: ConnectionManager[Any] = ConnectionManager(Settings.from_env())
    with closing(db), db.connection(10):
        assert db.doctor(10).is_well
        assert (db.stats().opened, db.stats().open) == (1, 1)


def test_a_login_with_a_token_through_a_proxy_that_is_well(
    patient: Patient, make_proxy: Callable[..., LocalRdsProxy], secrets_manager: LocalSecretsManager
) -> None:
    secrets_manager.have_sts_imported()
    proxy = make_proxy()
    patient.set(variables(proxy), AWS_KEYS, AWS_ENDPOINT_URL_STS=secrets_manager.url)
    diagnosis = patient.examine()
    assert diagnosis.is_well, str(diagnosis)
    signed = step(diagnosis, "credentials").facts
    assert signed["signed_for"] == f"{PROXY_NAME}:{proxy.port}"
    assert (signed["region"], signed["access_key_id"], signed["user"]) == ("us-east-1", "ASIAROLE", "app")
    assert signed["identity"].startswith("arn:aws:")
    assert step(diagnosis, "proxy").facts == {"by_name": "proxy", "by_server": "shared"}
    assert "are told of" not in step(diagnosis, "pinning").found
    assert step(diagnosis, "pinning").facts["on_pin"] == "warn"
    assert proxy.stats().pins == {}


def test_to_ask_who_signs_logs_no_key_at_debug(
    patient: Patient,
    make_proxy: Callable[..., LocalRdsProxy],
    secrets_manager: LocalSecretsManager,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    secrets_manager.have_sts_imported()
    patient.set(variables(make_proxy()), AWS_KEYS, AWS_ENDPOINT_URL_STS=secrets_manager.url)
    assert patient.examine().is_well
    assert "botocore" in caplog.text
    assert CANARY not in f"{caplog.text}{[vars(record) for record in caplog.records]}"


def test_who_signs_is_not_known_where_sts_is_not_to_be_had(
    patient: Patient, make_proxy: Callable[..., LocalRdsProxy]
) -> None:
    patient.set(variables(make_proxy()), AWS_KEYS)
    diagnosis = patient.examine()
    assert diagnosis.is_well
    assert step(diagnosis, "credentials").facts["identity"] is None
    assert "STS" in step(diagnosis, "credentials").notes[0]


def test_a_pooler_that_the_name_does_not_show_is_found_by_what_the_server_says(
    patient: Patient, make_proxy: Callable[..., LocalRdsProxy], server: LocalServer
) -> None:
    proxy = make_proxy(auth="secret", aws_keys=[])
    patient.set(environment(server), DB_PORT=str(proxy.port), DB_SSLROOTCERT=variables(proxy)["DB_SSLROOTCERT"])
    found = step(patient.examine(), "proxy")
    assert found.facts == {"by_name": "unknown", "by_server": "shared"}
    assert "DB_SIGNING_HOST" in found.notes[0]


def test_pgbouncer_is_found_likewise(patient: Patient, postgres: LocalPostgres, pgbouncer: LocalPgBouncer) -> None:
    patient.set(environment(postgres), DB_PORT=str(pgbouncer.port), DB_PASSWORD=pgbouncer.password)
    diagnosis = patient.examine()
    assert diagnosis.is_well, str(diagnosis)
    assert step(diagnosis, "proxy").facts["by_server"] == "shared"


def test_a_tunnel_is_not_taken_for_a_pooler(patient: Patient, server: LocalServer) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=server.port) as relay:
        patient.set(environment(server), DB_PORT=str(relay.port))
        assert step(patient.examine(), "proxy").facts == {"by_name": "unknown", "by_server": "unknown"}


def test_a_secret_that_says_where_the_database_is_serves_the_settings_and_the_login(
    patient: Patient, postgres: LocalPostgres, secrets_manager: LocalSecretsManager
) -> None:
    content = {"username": postgres.user, "password": postgres.password, "engine": "postgres", "host": "localhost"}
    patient.secrets.append(postgres.password)
    known = environment(postgres)
    patient.set(
        secrets_manager.environment() | AWS_KEYS,
        DB_SECRET_ID=secrets_manager.put({**content, "dbname": "other"}),
        **{name: known[name] for name in ("DB_PORT", "DB_NAME", "DB_SSLROOTCERT")},
    )
    diagnosis = patient.examine()
    assert diagnosis.is_well, str(diagnosis)
    assert step(diagnosis, "credentials").notes == ("the secret's name is 'other', but DB_NAME is 'app'",)


def test_without_tls_that_step_is_skipped_and_stands_in_nobodys_way(
    patient: Patient, server_class: type[LocalServer]
) -> None:
    with server_class() as server:
        patient.set(
            DB_ENGINE=server.engine,
            DB_HOST="localhost",
            DB_PORT=str(server.port),
            DB_USER=server.user,
            DB_NAME=server.database,
            DB_PASSWORD=server.password,
            DB_SSLMODE="disable",
        )
        diagnosis = patient.examine()
    assert statuses(diagnosis) == dict.fromkeys(NAMES, "passed") | {"tls": "skipped"}
    assert diagnosis.is_well


# --- settings, DNS, TCP


def test_settings_that_are_not_right_are_all_named_and_nothing_else_is_tried(patient: Patient) -> None:
    patient.set(DB_ENGINE="oracle", DB_USER="app", DB_PASSWORD=CANARY)
    failed = patient.failure("settings")
    assert [cause.cause.split()[0] for cause in failed.causes] == ["DB_ENGINE", "DB_HOST"]
    assert set(statuses(patient.examine()).values()) == {"failed", "skipped"}


def test_a_reader_that_is_not_set_is_a_fault_of_the_settings(patient: Patient, postgres: LocalPostgres) -> None:
    patient.set(environment(postgres))
    assert "DB_READER_HOST" in patient.failure("settings", is_reader=True).found


def test_a_secret_that_the_settings_need_and_that_is_not_there(
    patient: Patient, secrets_manager: LocalSecretsManager
) -> None:
    patient.set(secrets_manager.environment() | AWS_KEYS, DB_SECRET_ID="prod/nowhere")
    failed = patient.failure("settings")
    assert "ResourceNotFoundException" in failed.found
    assert "SECRET_ID" in failed.causes[0].fix


def test_warnings_of_the_settings_are_notes(patient: Patient, postgres: LocalPostgres) -> None:
    patient.set(environment(postgres), DB_PASWORD="x")
    assert "DB_PASWORD" in step(patient.examine(), "settings").notes[0]


def test_a_host_that_is_unknown(patient: Patient, postgres: LocalPostgres) -> None:
    patient.set(environment(postgres), DB_HOST="nowhere.invalid")
    failed = patient.failure("dns")
    assert "nowhere.invalid" in failed.found
    assert any("DB_HOST is misspelt" in cause.cause for cause in failed.causes)


def test_a_port_that_nothing_listens_on(patient: Patient, server: LocalServer) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=server.port) as relay:
        relay.refuse()
        patient.set(environment(server), DB_PORT=str(relay.port))
        failed = patient.failure("tcp")
    assert "refused" in failed.found
    assert "DB_PORT" in failed.causes[0].cause


def test_a_host_that_drops_every_packet(patient: Patient, server: LocalServer) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as pending:
        for _ in range(4):  # the kernel answers no more connects than fit into the queue
            sock = pending.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        patient.set(environment(server), DB_PORT=str(listener.getsockname()[1]), DB_CONNECT_TIMEOUT_S="0.5")
        failed = patient.failure("tcp")
    assert "no answer" in failed.found
    assert "security group" in failed.causes[0].cause
    assert "inbound rule" in failed.causes[0].fix


# --- TLS


def test_a_host_that_accepts_and_stays_silent(patient: Patient, server: LocalServer) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=server.port) as relay:
        relay.black_hole()
        patient.set(environment(server), DB_PORT=str(relay.port), DB_CONNECT_TIMEOUT_S="0.5")
        failed = patient.failure("tls")
    assert "silent for 0.5" in failed.found
    assert "between" in failed.causes[0].cause


def test_a_server_that_falls_silent_in_the_middle_of_the_handshake(patient: Patient, server: LocalServer) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=server.port) as relay:
        relay.cut_after(bytes_from_server=200, ending="fin")
        patient.set(environment(server), DB_PORT=str(relay.port), DB_CONNECT_TIMEOUT_S="2")
        failed = patient.failure("tls")
    assert "closed the connection" in failed.found


def test_a_relay_whose_target_is_down(patient: Patient, server: LocalServer) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=1) as relay:
        patient.set(environment(server), DB_PORT=str(relay.port))
        failed = patient.failure("tcp", "tls")  # the reset may come before the connection is known to be there
    assert any("target is up" in cause.fix for cause in failed.causes)


def test_an_authority_that_is_not_trusted(patient: Patient, server: LocalServer, certificates: Certificates) -> None:
    patient.set(environment(server), DB_SSLROOTCERT=str(certificates.other_ca_path))
    failed = patient.failure("tls")
    assert failed.facts["fault"] == "chain"
    assert "localhost" in failed.facts["certificate"]["names"]
    assert failed.facts["certificate"]["issuer"] in failed.found
    assert "DB_SSLROOTCERT" in failed.causes[0].cause
    examined = statuses(patient.examine())
    assert (examined["credentials"], examined["login"]) == ("passed", "skipped")


def test_a_certificate_for_another_name(
    patient: Patient, server_class: type[LocalServer], certificates: Certificates
) -> None:
    with server_class(certificates=certificates.for_other_name()) as server:
        patient.set(environment(server))
        failed = patient.failure("tls")
    assert failed.facts["fault"] == "name"
    assert failed.facts["certificate"]["names"] == [OTHER_NAME]
    assert "DB_SIGNING_HOST" in failed.causes[0].fix


def limited(certificates: Certificates, directory: Path, not_before: timedelta, not_after: timedelta) -> Certificates:
    """Return certificates whose server's is valid from and until so long from now."""
    authority, now = trustme.CA(), datetime.now(UTC)
    leaf = authority.issue_cert("localhost", not_before=now + not_before, not_after=now + not_after)
    made = replace(
        certificates,
        ca_path=directory / "ca.pem",
        server_certificate_path=directory / "server.pem",
        server_key_path=directory / "server.key",
    )
    made.ca_path.write_bytes(authority.cert_pem.bytes())
    made.server_certificate_path.write_bytes(leaf.cert_chain_pems[0].bytes())
    made.server_key_path.touch(mode=0o600)
    made.server_key_path.write_bytes(leaf.private_key_pem.bytes())
    return made


@pytest.mark.parametrize(("first_day", "last_day", "words"), [(-9, -2, "has expired"), (2, 9, "is not valid yet")])
def test_a_certificate_out_of_its_time(
    patient: Patient,
    server_class: type[LocalServer],
    certificates: Certificates,
    tmp_path: Path,
    *,
    first_day: int,
    last_day: int,
    words: str,
) -> None:
    made = limited(certificates, tmp_path, timedelta(days=first_day), timedelta(days=last_day))
    with server_class(certificates=made) as server:
        patient.set(environment(server))
        failed = patient.failure("tls")
    assert failed.facts["fault"] == "expiry"
    assert words in failed.found
    assert (failed.facts["certificate"]["days_left"] < 0) == (last_day < 0)


def test_a_certificate_that_expires_soon_is_noted(
    patient: Patient, postgres: LocalPostgres, certificates: Certificates, tmp_path: Path
) -> None:
    made = limited(certificates, tmp_path, timedelta(days=-1), timedelta(days=5))
    with LocalPostgres(certificates=made) as server:
        patient.set(environment(server))
        diagnosis = patient.examine()
    assert diagnosis.is_well
    assert step(diagnosis, "tls").notes == ("the certificate expires in 4 days",)


def test_a_server_without_tls(patient: Patient, server_class: type[LocalServer], certificates: Certificates) -> None:
    with server_class() as server:
        patient.set(
            DB_ENGINE=server.engine,
            DB_HOST="localhost",
            DB_PORT=str(server.port),
            DB_USER="app",
            DB_PASSWORD=CANARY,
            DB_SSLROOTCERT=str(certificates.ca_path),
        )
        failed = patient.failure("tls")
    assert failed.found == "the server does not offer TLS"


def test_a_server_whose_tls_is_too_old(patient: Patient, postgres: LocalPostgres, certificates: Certificates) -> None:
    options = {
        "ssl_min_protocol_version": "TLSv1",
        "ssl_max_protocol_version": "TLSv1.1",
        "ssl_ciphers": "ALL:@SECLEVEL=0",
    }
    with LocalPostgres(certificates=certificates, extra_options=options) as server:
        patient.set(environment(server))
        failed = patient.failure("tls")
    assert "VERSION" in failed.found
    assert "TLS 1.2" in failed.causes[0].cause


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_the_other_engine_answers(
    patient: Patient, postgres: LocalPostgres, mariadb: LocalMariaDB, engine: str
) -> None:
    server, other = (postgres, mariadb) if engine == "postgresql" else (mariadb, postgres)
    patient.set(environment(server), DB_PORT=str(other.port), DB_CONNECT_TIMEOUT_S="0.5")
    failed = patient.failure("tls")
    # PostgreSQL waits for the client to speak first, as a MySQL client does for the server.
    assert ("does not speak" in failed.found) if engine == "postgresql" else ("silent" in failed.found)
    assert any("DB_ENGINE" in cause.fix for cause in failed.causes)


def test_a_server_that_refuses_before_tls(patient: Patient, mariadb: LocalMariaDB, certificates: Certificates) -> None:
    with (
        LocalMariaDB(certificates=certificates, extra_options={"max_connections": "10"}) as server,
        ExitStack() as several,
    ):
        patient.set(environment(server))
        for _ in range(10):
            several.enter_context(closing(connect(server)))
        several.enter_context(closing(server._connect_as_administrator()))  # in the place that is kept for one
        failed = patient.failure("tls")
    assert "Too many connections" in failed.found


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_is_not_there_or_is_none(
    patient: Patient, server: LocalServer, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    patient.set(environment(server), DB_SSLROOTCERT=str(path))
    failed = patient.failure("tls")
    assert str(path) in failed.found
    assert "/opt" in failed.causes[1].fix


# --- credentials


def test_no_aws_keys_at_all(patient: Patient, make_proxy: Callable[..., LocalRdsProxy]) -> None:
    patient.set(variables(make_proxy()))
    failed = patient.failure("credentials")
    assert "no AWS keys" in failed.found
    assert any("role" in cause.cause for cause in failed.causes)


def test_a_token_for_a_host_that_is_none_of_rds(patient: Patient, server: LocalServer) -> None:
    patient.set(environment(server), AWS_KEYS, DB_AUTH="iam")
    assert "DB_SIGNING_HOST" in patient.failure("credentials").causes[0].fix


@pytest.mark.parametrize(
    ("content", "words"),
    [({"username": CANARY}, "no text under the key 'password'"), (CANARY, "is not a JSON object"), (None, "NotFound")],
)
def test_a_secret_of_the_wrong_shape_or_none(
    patient: Patient, server: LocalServer, secrets_manager: LocalSecretsManager, content: Any, words: str
) -> None:
    name = "prod/nowhere" if content is None else secrets_manager.put(content)
    patient.set(environment(server), secrets_manager.environment() | AWS_KEYS, DB_SECRET_ID=name, DB_AUTH="secret")
    failed = patient.failure("credentials")
    assert words in failed.found
    assert any("GetSecretValue" in cause.fix for cause in failed.causes) == (content is None)


# --- login


def test_a_password_that_is_wrong(patient: Patient, server: LocalServer) -> None:
    patient.set(environment(server), DB_PASSWORD=CANARY)
    assert "DB_PASSWORD" in patient.failure("login").causes[1].fix


def test_a_database_that_is_not_there(patient: Patient, server: LocalServer) -> None:
    patient.set(environment(server), DB_NAME="nowhere")
    failed = patient.failure("login")
    assert "nowhere" in failed.found
    assert "NAME" in failed.causes[0].fix


def test_a_secret_whose_password_is_not_the_databases(
    patient: Patient, server: LocalServer, secrets_manager: LocalSecretsManager
) -> None:
    name = secrets_manager.put({"username": server.user, "password": CANARY})
    patient.set(environment(server), secrets_manager.environment() | AWS_KEYS, DB_SECRET_ID=name, DB_AUTH="secret")
    assert "rotation" in patient.failure("login").causes[1].cause


def test_a_secret_that_the_proxy_does_not_know(
    patient: Patient, make_proxy: Callable[..., LocalRdsProxy], secrets_manager: LocalSecretsManager
) -> None:
    proxy = make_proxy(auth="secret", secrets={"another": "user"})
    name = secrets_manager.put({"username": "app", "password": CANARY})
    patient.set(variables(proxy), secrets_manager.environment() | AWS_KEYS, DB_SECRET_ID=name, DB_AUTH="secret")
    assert "not registered with the proxy" in patient.failure("login").causes[1].cause


@pytest.mark.parametrize("spoil", ["revoked key", "another key", "another host", "unknown user"])
def test_a_token_that_the_proxy_refuses(patient: Patient, make_proxy: Callable[..., LocalRdsProxy], spoil: str) -> None:
    other = PROXY_NAME.replace("local", "other")
    proxy = make_proxy(**({"signing_host": other} if spoil == "another host" else {}))
    patient.set(variables(proxy), AWS_KEYS)
    if spoil == "revoked key":
        proxy.remove_aws_key(KEY.access_key_id)
    elif spoil == "another key":
        patient.set(AWS_SECRET_ACCESS_KEY=f"{CANARY}-other")
    elif spoil == "unknown user":
        patient.set(DB_USER="somebody")
    failed = patient.failure("login")
    assert "rds-db:connect" in failed.causes[1].cause
    assert any("signed for another host" in cause.cause for cause in failed.causes)
    assert proxy.stats().logins == 0


def test_a_proxy_that_has_no_connection_left(patient: Patient, make_proxy: Callable[..., LocalRdsProxy]) -> None:
    proxy = make_proxy()
    patient.set(variables(proxy), AWS_KEYS)
    proxy.fail_next_logins(1, "connection_limit")
    assert any("concurrency" in cause.fix for cause in patient.failure("login").causes)


# --- after the login


@pytest.mark.parametrize(
    ("after", "name"),
    [("login", "proxy"), ("proxy", "server"), ("server", "role"), ("pinning", "round_trip")],
)
def test_a_connection_that_is_lost_between_two_steps(
    patient: Patient, server: LocalServer, after: str, name: str
) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=server.port) as relay:
        patient.set(environment(server), DB_PORT=str(relay.port))
        failed = patient.failure(name, tell=lambda step: relay.rst() if step.name == after else None)
    assert "lost" in failed.causes[0].cause


def test_a_server_that_falls_silent_after_the_login(patient: Patient, server: LocalServer) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=server.port) as relay:
        patient.set(environment(server), DB_PORT=str(relay.port), DB_CONNECT_TIMEOUT_S="1")
        failed = patient.failure("proxy", tell=lambda step: relay.freeze() if step.name == "login" else None)
        assert "no answer within 1.00 s" in failed.found


def test_a_reader_at_an_endpoint_that_is_a_writers(patient: Patient, make_proxy: Callable[..., LocalRdsProxy]) -> None:
    patient.set(variables(make_proxy(is_read_only=True)), AWS_KEYS)
    failed = patient.failure("role")
    assert failed.facts["role"] == "reader"
    assert "failover" in failed.causes[0].cause


def test_pinned_sessions_that_are_kept_are_noted(patient: Patient, make_proxy: Callable[..., LocalRdsProxy]) -> None:
    patient.set(variables(make_proxy()), AWS_KEYS, DB_RESET="never")
    assert "DB_RESET is never" in step(patient.examine(), "pinning").notes[0]


def test_no_time_at_severalis_not_well(patient: Patient, server: LocalServer) -> None:
    patient.set(environment(server))
    diagnosis = patient.examine(context=0)
    assert not diagnosis.is_well
    assert set(statuses(diagnosis).values()) == {"skipped"}
    assert step(diagnosis, "round_trip").found == "no time was left"


def test_time_that_runs_out_leaves_the_rest_for_another_time(patient: Patient, server: LocalServer) -> None:
    with FaultRelay(target_host="127.0.0.1", target_port=server.port) as relay:
        relay.black_hole()
        patient.set(environment(server), DB_PORT=str(relay.port))
        diagnosis = patient.examine(context=0.5)
    assert statuses(diagnosis)["tls"] == "failed"
    assert not diagnosis.is_well


def test_the_package_itself_exports_no_more_for_it() -> None:
    assert "doctor" not in lambda_dbconn.__all__
