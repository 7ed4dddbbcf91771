from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest

from lambda_dbconn import ConfigurationError, LambdaDbConnWarning, Secret, Settings
from tests.unit.conftest import CANARY, INSTANCE, PROXY, READER, local

GOOD = {"DB_HOST": PROXY, "DB_USER": "app", "DB_NAME": "shop", "DB_ENGINE": "postgresql"}
LOCAL = {"DB_HOST": "localhost", "DB_USER": "app", "DB_ENGINE": "postgresql"}


def read(**environ: str) -> Settings:
    return Settings.from_env(environ=environ)


def faults(environ: dict[str, str], **arguments: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ=environ, **arguments)
    return caught.value.faults


# --- what is read


def test_every_variable_is_read_into_its_field() -> None:
    settings = read(
        DB_ENGINE="mysql",
        DB_HOST=PROXY,
        DB_PORT="3307",
        DB_NAME="shop",
        DB_USER="app",
        DB_READER_HOST=READER,
        DB_AUTH="secret",
        DB_SECRET_ID="prod/shop",
        DB_SIGNING_HOST=INSTANCE,
        DB_REGION="eu-west-1",
        DB_SSLROOTCERT="/opt/ca.pem",
        DB_SSLMODE="verify-full",
        DB_CONNECT_TIMEOUT_S="2.5",
        DB_PING_IDLE_S="10",
        DB_MAX_IDLE_S="600",
        DB_MAX_LIFETIME_S="3600",
        DB_RESERVE_S="1",
        DB_MAX_CONNECTIONS="4",
        DB_ON_PIN="Raise",
    )
    assert settings == Settings(
        engine="mysql",
        host=PROXY,
        port=3307,
        name="shop",
        user="app",
        reader_host=READER,
        auth="secret",
        secret_id="prod/shop",
        signing_host=INSTANCE,
        region="eu-west-1",
        sslrootcert="/opt/ca.pem",
        sslmode="verify-full",
        connect_timeout_s=2.5,
        ping_idle_s=10,
        max_idle_s=600,
        max_lifetime_s=3600,
        reserve_s=1,
        max_connections=4,
        on_pin="raise",
        prefix="DB_",
    )


def test_the_defaults_are_those_of_the_design() -> None:
    settings = Settings.from_env(environ=GOOD)
    assert settings.sslmode == "verify-full"
    assert settings.auth == "iam"
    assert settings.port == 5432
    assert settings.reader_host is None
    assert settings.on_pin is None
    assert (settings.connect_timeout_s, settings.ping_idle_s, settings.max_idle_s) == (5, 30, 1500)
    assert (settings.max_lifetime_s, settings.reserve_s, settings.max_connections) == (82800, 0.5, 1)


def test_the_process_environment_is_read_when_no_other_is_given(environ: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        environ.setenv(name, value)
    assert Settings.from_env() == Settings.from_env(environ=GOOD)


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_env(environ={**GOOD, "DB_PORT": "", "DB_URL": "", "DATABASE_URL": ""}).port == 5432


def test_another_prefix_reads_other_variables_and_names_them() -> None:
    shop = {name.replace("DB_", "SHOP_"): value for name, value in GOOD.items()}
    settings = Settings.from_env("SHOP_", environ={**shop, "DB_PORT": "nonsense", "DATABASE_URL": "nonsense"})
    assert settings.host == PROXY
    assert settings.variable("host") == "SHOP_HOST"
    assert any("SHOP_PORT is 0;" in fault for fault in faults({**shop, "SHOP_PORT": "0"}, prefix="SHOP_"))


@pytest.mark.parametrize("prefix", ["", "1DB_", "D-B", "DB ", "DÄ_", "DB.", "\n"])
def test_a_prefix_that_no_variable_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="the argument prefix"):
        Settings.from_env(prefix, environ=GOOD)


@pytest.mark.parametrize(
    ("changes", "engine", "port"),
    [
        ({"DB_ENGINE": "mysql"}, "mysql", 3306),
        ({"DB_ENGINE": "PostgreSQL"}, "postgresql", 5432),
        ({"DB_ENGINE": "", "DB_PORT": "3306"}, "mysql", 3306),
        ({"DB_ENGINE": "", "DB_PORT": "5432"}, "postgresql", 5432),
        ({"DB_ENGINE": "mysql", "DB_PORT": "5432"}, "mysql", 5432),
    ],
)
def test_engine_and_port_follow_from_each_other(changes: dict[str, str], engine: str, port: int) -> None:
    settings = Settings.from_env(environ={**GOOD, **changes})
    assert (settings.engine, settings.port) == (engine, port)


@pytest.mark.parametrize(
    ("changes", "auth"),
    [
        ({}, "iam"),
        ({"DB_SECRET_ID": "prod/shop"}, "secret"),
        ({"DB_HOST": "localhost"}, "password"),
        ({"DB_HOST": "localhost", "DB_PASSWORD": CANARY}, "password"),
        ({"DB_HOST": "localhost", "DB_PASSWORD": CANARY, "DB_SECRET_ID": "s"}, "secret"),
        ({"DB_PASSWORD": CANARY, "DB_AUTH": "iam"}, "iam"),
        ({"DB_HOST": "tunnel.example", "DB_AUTH": "IAM"}, "iam"),
    ],
)
def test_how_to_log_in_follows_from_what_is_given(changes: dict[str, str], auth: str) -> None:
    assert Settings.from_env(environ={**GOOD, **changes}).auth == auth


# --- what is wrong with it


def test_every_fault_is_reported_at_once_and_names_its_variable_and_what_is_accepted() -> None:
    found = faults(
        {
            "DB_ENGINE": "oracle",
            "DB_HOST": "https://db",
            "DB_PORT": "70000",
            "DB_READER_HOST": "a b",
            "DB_AUTH": "kerberos",
            "DB_SSLMODE": "prefer",
            "DB_CONNECT_TIMEOUT_S": "soon",
            "DB_PING_IDLE_S": "-1",
            "DB_MAX_IDLE_S": "inf",
            "DB_MAX_LIFETIME_S": "nan",
            "DB_RESERVE_S": "61",
            "DB_MAX_CONNECTIONS": "1.5",
            "DB_NAME": "a\0b",
        }
    )
    words = {
        "DB_ENGINE": "'oracle'; accepted: postgresql or mysql",
        "DB_HOST": "'https://db'; accepted: a host name",
        "DB_PORT": "70000; accepted: a whole number from 1 to 65535",
        "DB_READER_HOST": "'a b'; accepted: a host name",
        "DB_AUTH": "'kerberos'; accepted: iam or secret or password",
        "DB_SSLMODE": "'prefer'; accepted: verify-full or disable",
        "DB_CONNECT_TIMEOUT_S": "'soon'; accepted: seconds from 0.1 to 900",
        "DB_PING_IDLE_S": "-1.0; accepted: seconds from 0 to 86400",
        "DB_MAX_IDLE_S": "inf; accepted: seconds from 1 to 86400",
        "DB_MAX_LIFETIME_S": "nan; accepted: seconds from 1 to 86400",
        "DB_RESERVE_S": "61.0; accepted: seconds from 0 to 60",
        "DB_MAX_CONNECTIONS": "'1.5'; accepted: a whole number from 1 to 100",
        "DB_NAME": "'a\\x00b'; accepted: printable text",
    }
    for name, said in words.items():
        assert len([fault for fault in found if fault.startswith(f"{name} is {said}")]) == 1, (name, found)
    assert len(found) == len(words), found


def test_the_message_lists_the_faults_one_to_a_line() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^2 settings are not right:\n  - DB_PORT is .*\n  - DB_RESERVE_S is "
    ):
        Settings.from_env(environ={**GOOD, "DB_PORT": "x", "DB_RESERVE_S": "y"})
    with pytest.raises(ConfigurationError, match=r"^DB_PORT is 'x'; accepted: "):
        Settings.from_env(environ={**GOOD, "DB_PORT": "x"})


def test_an_empty_environment_is_told_what_is_needed() -> None:
    found = " ".join(faults({}))
    for name in ("DB_ENGINE", "DB_HOST", "DB_USER"):
        assert f"{name} is not set; accepted: " in found
    assert "DB_PORT" not in found  # it follows from the engine


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"DB_USER": ""}, "DB_USER is not set"),
        ({"DB_AUTH": "secret"}, "DB_SECRET_ID is not set, but DB_AUTH is secret"),
        ({"DB_SSLMODE": "disable"}, "DB_SSLMODE is 'disable'; accepted with IAM or an RDS host: verify-full"),
        ({"DB_HOST": "localhost", "DB_AUTH": "iam", "DB_SSLMODE": "disable"}, "accepted with IAM or an RDS host"),
        ({"DB_HOST": "localhost", "DB_READER_HOST": READER, "DB_SSLMODE": "disable"}, "DB_SSLMODE is 'disable'"),
        ({"DB_HOST": "localhost", "DB_PASSWORD": "a\0b"}, "DB_PASSWORD is not acceptable; accepted: a Secret that"),
        ({"DB_HOST": "localhost", "DB_PASSWORD": "a\udcff"}, "DB_PASSWORD is not acceptable; accepted: a Secret that"),
    ],
)
def test_what_does_not_go_together_is_a_fault(changes: dict[str, str], fault: str) -> None:
    assert [fault in said for said in faults({**GOOD, **changes})] == [True]


@pytest.mark.parametrize("host", [PROXY, INSTANCE, READER, "x.unknown.form.us-east-1.rds.amazonaws.com"])
def test_an_rds_host_cannot_be_had_without_verified_tls(host: str) -> None:
    with pytest.raises(ConfigurationError, match="verify-full"):
        local(host=host, auth="secret", secret_id="s", sslmode="disable")


def test_a_long_value_is_cut_short_in_the_message() -> None:
    (fault,) = faults({**GOOD, "DB_PORT": "9" * 5000})
    assert len(fault) < 200


def test_code_written_for_one_engine_refuses_settings_for_the_other() -> None:
    (fault,) = faults(GOOD, engine="mysql")
    assert "DB_ENGINE (or the URL) says 'postgresql', but the code asks for 'mysql'" in fault
    assert Settings.from_env(environ={**GOOD, "DB_ENGINE": ""}, engine="mysql").port == 3306


def test_settings_made_by_hand_are_checked_and_named_as_arguments() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(engine="oracle", host="a b", port=0)
    assert [fault.split()[0] for fault in caught.value.faults] == ["engine", "host", "port", "user"]
    with pytest.raises(ConfigurationError, match="port is True"):
        local(port=True)
    with pytest.raises(ConfigurationError, match="max_connections is 0"):
        local().replace(max_connections=0)


# --- what is probably not meant


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DB_HOSTNAME", "DB_HOST"),
        ("DB_DATABASE", "DB_NAME"),
        ("DB_USERNAME", "DB_USER"),
        ("DB_PASSWD", "DB_PASSWORD"),
        ("DB_PASSWROD", "DB_PASSWORD"),
        ("DB_SECRET_ARN", "DB_SECRET_ID"),
        ("DB_SSL_MODE", "DB_SSLMODE"),
        ("DB_MAX_LIFETIME", "DB_MAX_LIFETIME_S"),
        ("DB_POOL_SIZE", "DB_MAX_CONNECTIONS"),
        ("DB_READERHOST", "DB_READER_HOST"),
    ],
)
def test_a_likely_misspelling_is_named_in_a_warning_without_its_value(name: str, meant: str) -> None:
    with pytest.warns(
        LambdaDbConnWarning, match=f"^{name} is not a setting of lambda_dbconn: is {meant} meant"
    ) as told:
        Settings.from_env(environ={**GOOD, name: CANARY})
    assert CANARY not in str([warning.message for warning in told])
    assert told[0].filename == __file__  # where the settings were asked for


def test_a_missing_variable_names_the_misspelling_that_was_found() -> None:
    with pytest.warns(LambdaDbConnWarning, match="DB_HOSTNAME"):
        found = faults({"DB_HOSTNAME": "localhost", "DB_USER": "app", "DB_ENGINE": "mysql"})
    assert found == (
        (
            "DB_HOST is not set; accepted: a host name or an IP address, without scheme, port or path "
            "(DB_HOSTNAME is set: is that meant?)"
        ),
    )


def test_an_unknown_variable_like_no_other_is_not_our_affair() -> None:
    assert Settings.from_env(environ={**GOOD, "DB_MIGRATIONS_FOLDER": "x", "DBX": "y"}).host == PROXY


def test_a_password_on_an_rds_host_is_warned_of() -> None:
    with pytest.warns(LambdaDbConnWarning, match="DB_PASSWORD is for development") as told:
        Settings.from_env(environ={**GOOD, "DB_PASSWORD": CANARY})
    assert CANARY not in str([warning.message for warning in told])


@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.7"])
def test_plaintext_to_another_machine_is_warned_of(host: str) -> None:
    with pytest.warns(LambdaDbConnWarning, match="sslmode is disable: all traffic with"):
        local(host=host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_plaintext_on_this_machine_is_not(host: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local(host=host)


# --- what settings are


def test_no_form_of_the_settings_shows_the_password() -> None:
    settings = Settings.from_env(environ={**LOCAL, "DB_PASSWORD": CANARY})
    assert settings.password == Secret(CANARY)
    for shown in (repr(settings), str(settings), f"{settings}", str(vars(settings))):
        assert CANARY not in shown
    with pytest.raises(TypeError, match="Secret"):
        pickle.dumps(settings)


@pytest.mark.parametrize("password", [CANARY, CANARY.encode(), [CANARY]])
def test_a_password_that_is_not_wrapped_is_refused_without_being_shown(password: object) -> None:
    with pytest.raises(ConfigurationError, match="password") as caught:
        local(password=password)
    assert CANARY not in str(caught.value)
    assert CANARY not in str(caught.value.faults)


def test_settings_are_frozen_and_serve_as_keys() -> None:
    settings = local(password=Secret(CANARY))
    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc] # on purpose
    assert {settings: 1}[local(password=Secret(CANARY))] == 1


def test_settings_that_differ_in_their_prefix_only_lead_to_the_same_connection() -> None:
    assert local(prefix="A_").identity == local(prefix="B_").identity
    assert local(prefix="A_").identity != local(prefix="A_", max_idle_s=9).identity
    assert local(password=Secret("a")).identity != local(password=Secret("b")).identity


@pytest.mark.parametrize(
    ("changes", "is_read_only"),
    [
        ({}, False),
        ({"reader_host": "127.0.0.1"}, False),
        ({"reader_host": "localhost"}, True),
        ({"host": READER, "sslmode": "verify-full", "auth": "iam"}, True),
        ({"host": INSTANCE, "sslmode": "verify-full", "auth": "iam"}, False),
    ],
)
def test_settings_know_whether_writes_are_bound_to_be_refused(changes: dict[str, Any], *, is_read_only: bool) -> None:
    assert local(**changes).is_read_only is is_read_only


@pytest.mark.parametrize("name", ["DB_HOST", "DB_READER_HOST", "DB_PORT", "DB_ENGINE", "DB_MAX_CONNECTIONS"])
def test_a_url_in_the_wrong_variable_does_not_show_its_password(name: str) -> None:
    (fault,) = faults({**LOCAL, name: f"mysql://app:{CANARY}@localhost/shop"})
    assert fault.startswith(f"{name} is not acceptable; accepted: ")


@pytest.mark.parametrize(
    ("host", "address"), [("localhost", "localhost:5432"), ("::1", "[::1]:5432"), ("10.0.0.7", "10.0.0.7:5432")]
)
def test_the_address_can_be_told_from_the_port(host: str, address: str) -> None:
    assert local(host=host, sslmode="verify-full").address == address
