"""`lambda-dbconn local-proxy`, up to where a server would be asked: options, errors, certificates, what is printed."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from lambda_dbconn.cli import requirements
from lambda_dbconn.cli.group import CommandGroup
from lambda_dbconn.cli.local_proxy import serving
from lambda_dbconn.cli.local_proxy.certificates import certificates_in
from lambda_dbconn.cli.local_proxy.environment import ClientEnvironment
from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy, RunningServer, Stats
from lambda_dbconn.testing.servers import LocalPostgres, ServerUnavailableError
from tests.support.canary import CANARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

NAME = "local.proxy-cexample0000.us-east-1.rds.amazonaws.com"
OTHER_NAME = "local.proxy-cexample0000.eu-west-1.rds.amazonaws.com"


def run(*arguments: str, **environ: str) -> Result:
    nothing = {"BACKEND_PASSWORD": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_SESSION_TOKEN": None}
    return CliRunner().invoke(CommandGroup.default(), ["local-proxy", *arguments], env={**nothing, **environ})


def said(result: Result, *, exit_code: int = 2) -> str:
    """Return the error, which is one line."""
    assert result.exit_code == exit_code, result.output
    assert result.output.count("\n") == 1, result.output
    return result.output


# --- options


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[serving.Order]:
    """What would be served."""
    found: list[serving.Order] = []
    monkeypatch.setattr(serving, "serve", found.append)
    return found


def test_without_options_it_is_what_rds_proxy_is_by_default(orders: list[serving.Order]) -> None:
    assert run("--engine", "mysql").exit_code == 0
    (order,) = orders
    assert (order.engine, order.backend_url, order.auth, order.access_key_id) == ("mysql", None, "iam", None)
    assert (order.listen_port, order.certificates, order.print_env) == (0, None, "sh")
    defaults = LocalRdsProxy.__dataclass_fields__
    assert {name: defaults[theirs].default for name, theirs in FIGURES.items()} == {
        name: getattr(order, name) for name in FIGURES
    }


FIGURES = {
    "region": "region",
    "read_only": "is_read_only",
    "most": "max_database_connections",
    "borrow_timeout_s": "borrow_timeout_s",
    "idle_timeout_s": "idle_client_timeout_s",
}


def test_every_option_arrives(orders: list[serving.Order]) -> None:
    words = "--listen-port 6432 --auth secret --region eu-west-1 --read-only --max-connections 2 --borrow-timeout 0.5"
    words += " --idle-client-timeout 60 --certificates here --print-env json --backend mysql://app@localhost/shop"
    assert run(*words.split()).exit_code == 0
    assert orders == [
        serving.Order(
            backend_url="mysql://app@localhost/shop",
            engine=None,
            auth="secret",
            access_key_id=None,
            listen_port=6432,
            region="eu-west-1",
            read_only=True,
            most=2,
            borrow_timeout_s=0.5,
            idle_timeout_s=60.0,
            certificates=Path("here").resolve(),  # clients may be started elsewhere
            print_env="json",
        )
    ]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "--backend or --engine"),
        ("--engine mysql --backend mysql://app@localhost", "--backend or --engine"),
        ("--engine oracle", "'postgresql', 'mysql'"),
        ("--engine mysql --region Frankfurt", "us-east-1"),
        ("--engine mysql --max-connections 0", "--max-connections"),
        ("--engine mysql --borrow-timeout 0", "--borrow-timeout"),
        ("--engine mysql --idle-client-timeout soon", "--idle-client-timeout"),
        ("--engine mysql --listen-port 65536", "--listen-port"),
        ("--engine mysql --auth secret --access-key-id AKIA", "--auth iam"),
        ("--engine mysql --access-key-id AKIA", "AWS_SECRET_ACCESS_KEY"),
        ("--backend oracle://app@localhost", "postgresql, postgres, mysql, mariadb"),
        ("--backend postgresql://localhost/shop", "user in --backend is not set"),
        ("--backend postgresql:///shop", "host in --backend is not set"),
        ("--backend mysql://app@localhost/shop?sslmode=maybe", "the parameter sslmode of --backend"),
        ("--backend mysql://app:geheim@localhost/shop", "BACKEND_PASSWORD"),
    ],
)
def test_a_wrong_call_is_told_what_is_accepted(words: str, named: str) -> None:
    message = said(run(*words.split()))
    assert named in message
    assert "geheim" not in message


@pytest.mark.parametrize(
    ("words", "module"),
    [
        ("--engine mysql", "trustme"),
        ("--engine mysql", "pymysql"),
        ("--engine postgresql", "psycopg"),
        ("--backend postgresql://app@localhost", "psycopg"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, words: str, module: str
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == module else object())
    assert said(run(*words.split())) == (
        f"lambda-dbconn: not installed: {module}: pip install 'lambda-dbconn[local-proxy]'\n"
    )


def test_a_server_that_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def version() -> str:
        raise ServerUnavailableError("no program 'postgres' in PATH; install it")

    monkeypatch.setattr(LocalPostgres, "version", version)
    message = said(run("--engine", "postgresql"), exit_code=1)
    assert message == "lambda-dbconn: no program 'postgres' in PATH; install it\n"


def test_a_secret_proxy_before_a_server_without_a_password_would_let_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    server = RunningServer(engine="mysql", host="localhost", port=3306, user="app", password="")
    monkeypatch.setattr(serving, "running_server", lambda _url: (server, None))
    assert "BACKEND_PASSWORD" in said(run("--backend", "mysql://app@localhost", "--auth", "secret"))


# --- the end


@pytest.fixture
def handlers() -> Iterator[dict[signal.Signals, object]]:
    """Those of the signals that end it; put back after the test. None is ignored, as `nohup` would have it."""
    before = {number: signal.getsignal(number) for number in serving._ENDING_SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("handlers")
def test_the_first_signal_ends_it_and_none_disturbs_the_end(number: signal.Signals) -> None:
    with serving._signals_as_keyboard_interrupt():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        for other in serving._ENDING_SIGNALS:
            signal.raise_signal(other)
    for other in serving._ENDING_SIGNALS:
        signal.raise_signal(other)


def test_without_a_signal_everything_is_as_it_was(handlers: dict[signal.Signals, object]) -> None:
    with serving._signals_as_keyboard_interrupt():
        pass
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_signal_that_the_parent_has_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving._signals_as_keyboard_interrupt():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


# --- certificates


def test_certificates_are_made_once_and_kept(tmp_path: Path) -> None:
    made = certificates_in(tmp_path / "new", NAME)
    before = made.server_certificate_path.read_bytes()
    assert certificates_in(tmp_path / "new", NAME) == made
    assert made.server_certificate_path.read_bytes() == before


def exchange_key(certificates: Certificates) -> None:
    shutil.copy(certificates.other_name_key_path, certificates.server_key_path)


def exchange_authority(certificates: Certificates) -> None:
    shutil.copy(certificates.other_ca_path, certificates.ca_path)


def lose_certificate(certificates: Certificates) -> None:
    certificates.server_certificate_path.unlink()


def lose_authority(certificates: Certificates) -> None:
    certificates.ca_path.unlink()


@pytest.mark.parametrize("spoil", [exchange_key, exchange_authority, lose_certificate, lose_authority])
def test_kept_certificates_that_no_client_would_accept_are_refused_and_left_alone(tmp_path: Path, spoil: Any) -> None:
    spoil(certificates_in(tmp_path, NAME))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(click.ClickException) as caught:
        certificates_in(tmp_path, NAME)
    assert str(tmp_path) in caught.value.message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_kept_certificates_are_for_one_region(tmp_path: Path) -> None:
    certificates_in(tmp_path, NAME)
    with pytest.raises(click.ClickException, match=f"not valid for '{OTHER_NAME}'"):
        certificates_in(tmp_path, OTHER_NAME)


# --- what is printed


@pytest.fixture
def environment() -> ClientEnvironment:
    server = RunningServer(engine="postgresql", host="db", port=5432, user="o'hara", password=CANARY)
    proxy = LocalRdsProxy(backend=server, certificates=Certificates.at(Path("/certificates")), port=6432)
    return ClientEnvironment.of(proxy, database="shop")


def test_values_are_quoted_for_the_shell(environment: ClientEnvironment) -> None:
    assert "export DB_USER='o'\"'\"'hara'" in environment.as_sh().splitlines()
    assert json.loads(environment.as_json())["DB_USER"] == "o'hara"


def test_a_database_that_is_not_named_is_left_to_the_server() -> None:
    server = RunningServer(engine="mysql", host="db", port=3306, user="app", password=CANARY)
    proxy = LocalRdsProxy(backend=server, certificates=Certificates.at(Path("/certificates")))
    assert "DB_NAME" not in ClientEnvironment.of(proxy, database=None).variables


def test_a_key_of_the_users_is_named_and_its_secret_parts_are_not_shown(environment: ClientEnvironment) -> None:
    environment.add_own_key(AwsKey(access_key_id="AKIAOWN", secret_access_key=CANARY, session_token=CANARY))
    assert "export AWS_ACCESS_KEY_ID=AKIAOWN" in environment.as_sh()
    assert "Not shown: AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN" in environment.as_sh()
    assert CANARY not in environment.as_sh() + environment.as_json()


def test_a_password_of_the_users_is_taken_from_where_it_is(environment: ClientEnvironment) -> None:
    environment.add_own_password("BACKEND_PASSWORD")
    assert 'export DB_PASSWORD="$BACKEND_PASSWORD"' in environment.as_sh().splitlines()
    assert "DB_PASSWORD" not in environment.as_json()
    assert CANARY not in environment.as_sh() + environment.as_json()


def test_the_summary_names_refusals_and_pins_with_their_reasons() -> None:
    stats = Stats(
        logins=3,
        refused={"The IAM authentication failed.": 2},
        borrows=7,
        borrow_timeouts=1,
        pins={"SQL created a temporary table.": 1},
        client_connections=0,
        most_client_connections=2,
        database_connections=0,
        most_database_connections=1,
        borrowed_connections=0,
    )
    assert serving.summary(stats).splitlines() == [
        "Logins: 3, refused: 2",
        "  2 x The IAM authentication failed.",
        "Database connections borrowed: 7, waited in vain: 1",
        "Most at once: clients 2, database connections 1",
        "Sessions pinned: 1",
        "  1 x SQL created a temporary table.",
    ]
