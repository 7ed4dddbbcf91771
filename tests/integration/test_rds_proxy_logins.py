"""Who the local RDS Proxy lets in, and what it tells the others."""

from __future__ import annotations

import socket
import struct
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy
from lambda_dbconn.testing.rds_proxy.iam import TokenError, TokenVerifier
from tests.support.clients import wait_until
from tests.support.rds_proxy import DRIVER_ERRORS, KEY, clients, close, connect, make_proxy, token, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, LocalServer

pytestmark = pytest.mark.once

# Made by botocore 1.44.5.
BOTOCORE_TOKEN = (
    "Local.proxy-example.us-east-1.rds.amazonaws.com:5432/?Action=connect&DBUser=lambda%20user%40x"
    "&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Fus-east-1%2Frds-db%2Faws4_request"
    "&X-Amz-Date=20261122T120000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host"
    "&X-Amz-Security-Token=session%2Btoken%2F%3D"
    "&X-Amz-Signature=6ea40248218b01f83dc1bb6c77d80373a0ce3bce1592e78f6c0b5042ee3eac96"
)
SIGNED_S = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
SESSION_KEY = AwsKey(access_key_id="AKIDEXAMPLE", secret_access_key="wJalrXUtnFEMI", session_token="session+token/=")

WRONG_TOKEN = {
    "postgresql": "The IAM authentication failed for the role app. Check the IAM token for this role and try again.",
    "mysql": "Access denied for user 'app'@'%' (using password: YES)",
}


@pytest.fixture
def iam_proxy(server: LocalServer) -> Iterator[LocalRdsProxy]:
    with make_proxy(server, auth="iam", aws_keys=[KEY]) as proxy:
        yield proxy


@pytest.fixture
def secret_proxy(server: LocalServer) -> Iterator[LocalRdsProxy]:
    with make_proxy(server) as proxy:
        yield proxy


def refusal(proxy: LocalRdsProxy, password: str, **options: Any) -> str:
    """Say with what words a login fails."""
    with pytest.raises(DRIVER_ERRORS) as caught:
        close(connect(proxy, password, **options))
    if isinstance(caught.value, pymysql.Error):
        return f"{caught.value.args[0]} {caught.value.args[1]}"
    return str(caught.value)


# IAM


def test_a_token_lets_its_user_in(iam_proxy: LocalRdsProxy) -> None:
    with closing(connect(iam_proxy, token(iam_proxy))) as connection:
        assert value(connection, "SELECT 1") == 1
    assert (iam_proxy.stats().logins, iam_proxy.stats().refused) == (1, {})


def test_a_token_with_a_long_session_token_lets_its_user_in(iam_proxy: LocalRdsProxy) -> None:
    key = AwsKey(access_key_id="ASIALONG", secret_access_key="s", session_token="t+/=" * 400)
    iam_proxy.set_aws_key(key)
    connect(iam_proxy, token(iam_proxy, key=key)).close()
    with_another = AwsKey(access_key_id="ASIALONG", secret_access_key="s", session_token="another")
    assert WRONG_TOKEN[iam_proxy.engine] in refusal(iam_proxy, token(iam_proxy, key=with_another))
    iam_proxy.remove_aws_key("ASIALONG")
    assert WRONG_TOKEN[iam_proxy.engine] in refusal(iam_proxy, token(iam_proxy, key=key))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"host": "other.proxy-cexample0000.us-east-1.rds.amazonaws.com"}, "it is for 'other.proxy"),
        ({"port": 5432}, "it is for 'local"),
        ({"user": "somebody"}, "it is for the user 'somebody'"),
        ({"region": "eu-west-1"}, "and not for rds-db in us-east-1"),
        ({"key": AwsKey(access_key_id="AKIDEXAMPLE", secret_access_key="another")}, "its signature is wrong"),
        ({"key": AwsKey(access_key_id="AKIDOTHER", secret_access_key="another")}, "nobody has the access key"),
        ({"age_s": 960}, "it expired"),
        ({"age_s": -960}, "it is signed in the future"),
        ({"life_s": 3600}, "it claims to live for 3600 s"),
    ],
    ids=str,
)
def test_a_token_that_is_not_for_here_and_now_is_refused(
    iam_proxy: LocalRdsProxy, wrong: dict[str, Any], reason: str
) -> None:
    assert WRONG_TOKEN[iam_proxy.engine] in refusal(iam_proxy, token(iam_proxy, **wrong))
    assert iam_proxy.stats().refused == {WRONG_TOKEN[iam_proxy.engine]: 1}
    assert reason in iam_proxy.log()
    assert 'IAM authentication failed for user "app" with TLS on. Reason: Invalid credentials.' in iam_proxy.log()


@pytest.mark.parametrize("bad", ["", "password", "local:1/?", "local:1/?%00=&", "DBUser=app", "\N{SNOWMAN}"])
def test_what_is_no_token_is_refused(iam_proxy: LocalRdsProxy, bad: str) -> None:
    if iam_proxy.engine == "mysql":
        bad = bad.encode("latin1", "replace").decode("latin1")  # as PyMySQL sends it
    if bad or iam_proxy.engine == "mysql":  # libpq sends no empty password
        assert WRONG_TOKEN[iam_proxy.engine] in refusal(iam_proxy, bad)


def test_the_secrets_password_is_no_token_and_is_not_logged(iam_proxy: LocalRdsProxy, server: LocalServer) -> None:
    assert WRONG_TOKEN[iam_proxy.engine] in refusal(iam_proxy, server.password)
    assert "its parameters are not those of a presigned request to connect" in iam_proxy.log()
    assert server.password not in iam_proxy.log()


def test_a_token_lets_nobody_in_without_a_secret_for_the_database(iam_proxy: LocalRdsProxy) -> None:
    iam_proxy.remove_secret("app")
    expected = {
        "postgresql": "This RDS proxy has no credentials for the role app. Check the credentials for this role",
        "mysql": "1045 Access denied for user 'app'@'%' (using password: YES)",
    }
    assert expected[iam_proxy.engine] in refusal(iam_proxy, token(iam_proxy))


def test_a_token_is_not_taken_without_tls_even_where_tls_is_not_required(server: LocalServer) -> None:
    with make_proxy(server, auth="iam", aws_keys=[KEY], is_tls_required=False) as proxy:
        expected = {
            "postgresql": "IAM authentication is allowed only with SSL connections.",
            "mysql": "3159 This RDS Proxy requires TLS connections.",
        }
        assert expected[proxy.engine] in refusal(proxy, token(proxy), is_tls=False)


def test_a_token_may_be_for_the_port_of_a_relay(server: LocalServer) -> None:
    with make_proxy(server, auth="iam", aws_keys=[KEY], signing_port=5432) as proxy:
        connect(proxy, token(proxy, port=5432)).close()


def verifier(**changes: Any) -> TokenVerifier:
    facts = {
        "host": "local.proxy-example.us-east-1.rds.amazonaws.com",
        "port": 5432,
        "region": "us-east-1",
        "keys": {SESSION_KEY.access_key_id: SESSION_KEY},
    }
    return TokenVerifier(**{**facts, **changes})


def test_the_sdks_own_token_is_good_for_its_fifteen_minutes() -> None:
    for age_s in (-299, 0, 900):
        verifier().verify(BOTOCORE_TOKEN, user="lambda user@x", now_s=SIGNED_S + age_s)
    for age_s in (-301, 901):
        with pytest.raises(TokenError):
            verifier().verify(BOTOCORE_TOKEN, user="lambda user@x", now_s=SIGNED_S + age_s)


def test_a_token_with_any_character_changed_is_refused() -> None:
    is_cased_name = len("Local.proxy-example.us-east-1.rds.amazonaws.com")
    for at, character in enumerate(BOTOCORE_TOKEN):
        changed = BOTOCORE_TOKEN[:at] + ("0" if character != "0" else "1") + BOTOCORE_TOKEN[at + 1 :]
        with pytest.raises(TokenError):
            verifier().verify(changed, user="lambda user@x", now_s=SIGNED_S)
        if at >= is_cased_name:  # a parameter more, or one less
            with pytest.raises(TokenError):
                verifier().verify(BOTOCORE_TOKEN[:at], user="lambda user@x", now_s=SIGNED_S)
    for more in ("&Action=connect", "&X-Amz-Signature=00", "&More=1", "é"):
        with pytest.raises(TokenError):
            verifier().verify(BOTOCORE_TOKEN + more, user="lambda user@x", now_s=SIGNED_S)


# Passwords


@pytest.mark.parametrize(
    ("engine", "password_auth"),
    [
        ("postgres", "scram-sha-256"),
        ("postgres", "md5"),
        ("mariadb", "caching_sha2_password"),
        ("mariadb", "mysql_native_password"),
    ],
)
def test_the_secrets_password_lets_its_user_in_and_no_other_does(
    request: pytest.FixtureRequest, engine: str, password_auth: Any
) -> None:
    server = request.getfixturevalue(engine)
    with make_proxy(server, password_auth=password_auth) as proxy:
        connect(proxy, server.password).close()
        expected = {
            "postgresql": "The password that was provided for the role app is wrong.",
            "mysql": "1045 Access denied for user 'app'@'%' (using password: YES)",
        }
        for wrong in ("wrong", server.password + "x", server.password.swapcase()):
            assert expected[proxy.engine] in refusal(proxy, wrong)
        assert proxy.stats().logins == 1


def test_psycopg_may_insist_on_scram(postgres: LocalPostgres) -> None:
    with make_proxy(postgres) as proxy:
        connect(proxy, postgres.password, require_auth="scram-sha-256").close()
    with make_proxy(postgres, password_auth="md5") as proxy:
        assert "authentication method requirement" in refusal(proxy, postgres.password, require_auth="scram-sha-256")


def test_the_secret_may_change_and_gain_a_user_while_the_proxy_runs(
    secret_proxy: LocalRdsProxy, server: LocalServer
) -> None:
    with closing(connect(secret_proxy, server.password)) as before:
        secret_proxy.set_secret("app", "rotated")
        assert "wrong" in (text := refusal(secret_proxy, server.password)) or "1045" in text
        assert value(before, "SELECT 1") == 1  # who is in stays in
        connect(secret_proxy, "rotated").close()  # the database is not asked: it has a connection of this user's
        assert "app_clone" in refusal(secret_proxy, "p", user="app_clone")
        secret_proxy.set_secret("app_clone", "p")
    # Its password is not the database's, which is asked now.
    expected = {
        "postgresql": 'Request returned an error: password authentication failed for user "app_clone".',
        "mysql": "1045 Access denied for user 'app_clone'@",
    }
    assert expected[secret_proxy.engine] in refusal(secret_proxy, "p", user="app_clone")


def test_the_second_user_of_a_rotation_gets_database_connections_of_its_own(
    secret_proxy: LocalRdsProxy, server: LocalServer
) -> None:
    is_postgres = secret_proxy.engine == "postgresql"
    server.execute("CREATE USER app_clone PASSWORD 'p'" if is_postgres else "CREATE USER app_clone IDENTIFIED BY 'p'")
    try:
        server.execute(f"GRANT {'CONNECT ON DATABASE app' if is_postgres else 'ALL ON app.*'} TO app_clone")
        secret_proxy.set_secret("app_clone", "p")
        with (
            closing(connect(secret_proxy, server.password)) as first,
            closing(connect(secret_proxy, "p", user="app_clone")) as second,
        ):
            assert str(value(first, "SELECT CURRENT_USER")).startswith("app")
            assert str(value(second, "SELECT CURRENT_USER")).startswith("app_clone")
    finally:
        server.execute("REVOKE CONNECT ON DATABASE app FROM app_clone" if is_postgres else "SELECT 1")
        server.execute("DROP USER app_clone")


# TLS and the start of a connection


def test_clients_without_tls_are_refused(secret_proxy: LocalRdsProxy, server: LocalServer) -> None:
    assert "This RDS Proxy requires TLS connections." in refusal(secret_proxy, server.password, is_tls=False)


def test_clients_without_tls_may_be_let_in(server: LocalServer) -> None:
    native = {"password_auth": "mysql_native_password"} if server.engine == "mysql" else {}
    with (
        make_proxy(server, is_tls_required=False, **native) as proxy,
        closing(connect(proxy, server.password, is_tls=False)) as connection,
    ):
        assert value(connection, "SELECT 1") == 1


@pytest.mark.parametrize("garbage", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64])
def test_nonsense_ends_one_connection_and_harms_no_other(
    secret_proxy: LocalRdsProxy, server: LocalServer, garbage: bytes
) -> None:
    with (
        socket.create_connection((secret_proxy.host, secret_proxy.port), timeout=10) as raw,
        suppress(OSError),  # it may hang up before it has read all
    ):
        raw.sendall(garbage)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(4096):
            pass
    connect(secret_proxy, server.password).close()
    wait_until(lambda: secret_proxy.stats().client_connections == 0)


def test_a_client_that_does_not_trust_the_proxy_leaves(server: LocalServer) -> None:
    assert server.certificates is not None
    with make_proxy(server, certificates=server.certificates.for_other_name()) as proxy:
        assert refusal(proxy, server.password)
        assert proxy.stats().logins == 0


@pytest.mark.parametrize(
    ("startup", "text"),
    [
        (
            {"options": "-c statement_timeout=1000"},
            "RDS Proxy currently doesn\N{RIGHT SINGLE QUOTATION MARK}t support command-line options.",
        ),
        (
            {"replication": "database"},
            "RDS Proxy currently doesn\N{RIGHT SINGLE QUOTATION MARK}t support streaming replication mode.",
        ),
    ],
    ids=str,
)
def test_what_postgresql_clients_must_not_ask_for_is_refused(
    postgres: LocalPostgres, startup: dict[str, str], text: str
) -> None:
    with make_proxy(postgres) as proxy:
        assert f"Feature not supported: {text}" in refusal(proxy, postgres.password, **startup)


def raw_startup(proxy: LocalRdsProxy, *words: str, minor_version: int = 0) -> bytes:
    """Send a start-up message without TLS, and return what comes back."""
    body = b"".join(word.encode() + b"\0" for word in words) + b"\0"
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as raw:
        raw.sendall(struct.pack("!IHH", 8 + len(body), 3, minor_version) + body)
        raw.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: raw.recv(4096), b""))


def test_other_startup_parameters_other_versions_and_a_missing_user_are_refused(postgres: LocalPostgres) -> None:
    with make_proxy(postgres, is_tls_required=False) as proxy:
        answer = raw_startup(proxy, "user", "app", "jit", "off").decode()
        assert "C0A000\0" in answer
        assert "RDS Proxy currently doesn\N{RIGHT SINGLE QUOTATION MARK}t support the option jit." in answer
        answer = raw_startup(proxy, "user", "app", minor_version=2).decode()
        assert "C0A000\0" in answer
        assert "RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol." in answer
        answer = raw_startup(proxy, "database", "app").decode()
        assert "C28000\0" in answer
        assert "A user name is missing from the connection startup packet." in answer


def test_accepted_startup_parameters_are_in_force_and_do_not_pin(
    postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Kathmandu")
    monkeypatch.setenv("PGDATESTYLE", "German")
    with make_proxy(postgres, max_database_connections=1) as proxy:
        with (
            closing(connect(proxy, postgres.password, application_name="one", client_encoding="latin1")) as one,
            closing(connect(proxy, postgres.password, application_name="two")) as two,
        ):
            for _ in range(2):
                assert value(one, "SHOW application_name") == "one"
                assert value(two, "SHOW application_name") == "two"
            assert value(one, "SHOW timezone") == "Asia/Kathmandu"
            assert value(one, "SELECT DATE '2026-11-22'::text") == "22.11.2026"
            assert one.info.parameter_status("application_name") == "one"
            assert (one.info.encoding, two.info.encoding) == ("iso8859-1", "utf-8")
            assert two.info.parameter_status("application_name") == "two"
        assert proxy.stats().pins == {}
        assert proxy.sessions()[0].parameters["TimeZone"] == "Asia/Kathmandu"


def test_a_database_that_does_not_exist_is_told_in_the_documented_words(
    secret_proxy: LocalRdsProxy, server: LocalServer
) -> None:
    expected = {
        "postgresql": 'Request returned an error: database "nowhere" does not exist.',
        "mysql": "1044 Access denied for user 'app'@",
    }
    assert expected[secret_proxy.engine] in refusal(secret_proxy, server.password, database="nowhere")


def test_psycopg_cannot_cancel_through_the_proxy(postgres: LocalPostgres) -> None:
    with make_proxy(postgres) as proxy, closing(connect(proxy, postgres.password)) as connection:
        connection.cancel_safe()
        assert value(connection, "SELECT pg_sleep(0.1)::text") == ""


# Limits


def test_a_client_too_many_is_refused_until_another_leaves(server: LocalServer) -> None:
    with make_proxy(server, max_client_connections=2) as proxy:
        expected = {
            "postgresql": "The maximum number of client connections to the proxy exceeded 2.",
            "mysql": "1040 Number simultaneous connections exceeded (2)",
        }
        with clients(proxy, server.password, 2):
            assert expected[proxy.engine] in refusal(proxy, server.password)
        wait_until(lambda: proxy.stats().client_connections == 0)
        connect(proxy, server.password).close()
        assert proxy.stats().most_client_connections == 3  # the refused one was there, too


def test_clients_that_come_too_quickly_are_refused(server: LocalServer) -> None:
    with make_proxy(server, max_connections_per_s=3) as proxy:
        expected = {
            "postgresql": "Rate of connection to proxy exceeded 3.",
            "mysql": "1040 Connections rate limit exceeded (3)",
        }
        texts = []
        for _ in range(8):
            try:
                connect(proxy, server.password).close()
            except DRIVER_ERRORS as error:
                texts.append(str(error))
        assert texts
        assert all(expected[proxy.engine].partition(" ")[2] in text for text in texts)


def test_logins_fail_as_they_are_told_to(secret_proxy: LocalRdsProxy, server: LocalServer) -> None:
    expected = {
        "postgresql": "The IAM authentication failed because of too many competing requests.",
        "mysql": "1040 IAM authentication rate limit exceeded",
    }
    secret_proxy.fail_next_logins(1, "iam_rate")
    secret_proxy.fail_next_logins(1, None)
    assert expected[secret_proxy.engine] in refusal(secret_proxy, server.password)
    assert expected[secret_proxy.engine] not in refusal(secret_proxy, server.password)
    connect(secret_proxy, server.password).close()
    with pytest.raises(ValueError, match="has no error"):
        secret_proxy.fail_next_logins(1, "unsupported_command" if server.engine == "postgresql" else "replication")


def test_a_login_needs_no_database_connection(server: LocalServer) -> None:
    with (
        make_proxy(server, max_database_connections=1, borrow_timeout_s=0.2) as proxy,
        closing(connect(proxy, server.password, autocommit=False)) as holder,
    ):
        value(holder, "SELECT 1")
        if proxy.engine == "postgresql":
            connect(proxy, server.password).close()
        else:  # PyMySQL's connect sends SET NAMES after the login, which needs one
            assert "9501 Timed-out waiting to acquire database connection" in refusal(proxy, server.password)
        assert (proxy.stats().logins, proxy.stats().borrowed_connections) == (2, 1)


def test_nothing_secret_is_in_the_log_the_records_or_a_repr(
    iam_proxy: LocalRdsProxy, mariadb: LocalMariaDB, server: LocalServer
) -> None:
    good = token(iam_proxy)
    connect(iam_proxy, good).close()
    refusal(iam_proxy, good + "x")
    seen = f"{iam_proxy.log()}{iam_proxy.sessions()}{iam_proxy.stats()}{iam_proxy!r}{KEY!r}"
    for secret in (good.rpartition("=")[2], server.password, KEY.secret_access_key):
        assert secret not in seen


def test_an_option_that_its_engine_does_not_have_is_refused(postgres: LocalPostgres) -> None:
    with pytest.raises(ValueError, match="choose one of scram-sha-256, md5"):
        make_proxy(postgres, password_auth="caching_sha2_password")
    with pytest.raises(ValueError, match="no auth 'IAM': choose one of iam, secret"):
        make_proxy(postgres, auth="IAM")
