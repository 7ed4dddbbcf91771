"""Logging in with a secret: from moto's Secrets Manager, through botocore and through a stand-in for the extension."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import lambda_dbconn
from lambda_dbconn import ConfigurationError, ConnectionManager, CredentialsError, Settings, registry
from lambda_dbconn.events import CredentialsFailed, CredentialsFetched
from lambda_dbconn.testing.fakes import RecordingObserver
from tests.support.clients import query
from tests.support.secrets_manager import (
    REGION,
    LocalExtension,
    LocalSecretsManager,
    http_server,
    local_extension,
    local_secrets_manager,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.servers import LocalServer

RDS_ENGINES = {"postgresql": "postgres", "mysql": "mariadb"}


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[LocalSecretsManager]:
    with local_secrets_manager() as manager:
        yield manager


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, secrets_manager: LocalSecretsManager) -> Iterator[pytest.MonkeyPatch]:
    """A function's environment, in which Secrets Manager can be found; without settings as yet."""
    for name in [name for name in os.environ if name.startswith(("DB_", "AWS_")) or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    for name, value in secrets_manager.environment().items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    for manager in registry._managers.values():
        manager.close()
    registry._managers.clear()
    registry._secrets.clear()


@pytest.fixture
def extension(secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch) -> Iterator[LocalExtension]:
    """The stand-in for the extension, where a function finds it."""
    with local_extension(secrets_manager) as extension:
        for name, value in extension.environment().items():
            environ.setenv(name, value)
        yield extension


def login(server: LocalServer) -> dict[str, Any]:
    """Return the secret that RDS manages: who, and nothing else."""
    return {"username": server.user, "password": server.password}


def full(server: LocalServer, **changes: Any) -> dict[str, Any]:
    """Return the secret that a rotation template writes."""
    where = {"engine": RDS_ENGINES[server.engine], "host": server.host, "port": server.port, "dbname": server.database}
    return {**login(server), **where, "dbClusterIdentifier": "shop", **changes}


def trust(server: LocalServer) -> str:
    assert server.certificates is not None
    return str(server.certificates.ca_path)


def where(server: LocalServer) -> dict[str, str]:
    """Return the variables that say where, and nothing of who."""
    return {
        "DB_ENGINE": server.engine,
        "DB_HOST": server.host,
        "DB_PORT": str(server.port),
        "DB_NAME": server.database,
        "DB_SSLROOTCERT": trust(server),
    }


def give(environ: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        environ.setenv(name, value)


def connect(server: LocalServer, secret_id: str, **changes: Any) -> RecordingObserver:
    """Make a manager, connect once, and return what was told."""
    observer = RecordingObserver()
    settings = Settings(
        engine=server.engine,
        host=server.host,
        port=server.port,
        name=server.database,
        auth="secret",
        secret_id=secret_id,
        sslrootcert=trust(server),
        **changes,
    )
    db: ConnectionManager[Any] = ConnectionManager(settings, observer=observer)
    try:
        with db.connection(30) as connection:
            assert query(connection, "SELECT 1") == 1
    finally:
        db.close()
    return observer


def sources(observer: RecordingObserver) -> list[str]:
    return [event.source for event in observer.of(CredentialsFetched)]


# --- settings and secret


def test_a_full_secret_and_an_authority_are_all_that_is_needed(
    server: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    give(environ, {"DB_SECRET_ID": secrets_manager.put(full(server)), "DB_SSLROOTCERT": trust(server)})
    db = lambda_dbconn.from_env()
    assert (db.settings.engine, db.settings.port, db.settings.name) == (server.engine, server.port, server.database)
    with db.connection(30) as connection:
        assert query(connection, "SELECT 1") == 1
    assert lambda_dbconn.from_env() is db


def test_what_the_environment_says_wins_over_the_secret(
    server: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    misleading = full(server, host="db.invalid", port=1, dbname="wrong", engine="mysql")
    give(environ, where(server) | {"DB_SECRET_ID": secrets_manager.put(misleading)})
    with lambda_dbconn.from_env().connection(30) as connection:
        assert query(connection, "SELECT 1") == 1


def test_a_port_of_the_secrets_is_not_that_of_another_host(
    server: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    give(environ, {"DB_SECRET_ID": secrets_manager.put(full(server)), "DB_SSLROOTCERT": trust(server)})
    environ.setenv("DB_HOST", "the-proxy.proxy-demo.us-east-1.rds.amazonaws.com")
    settings = lambda_dbconn.from_env().settings
    assert (settings.engine, settings.name) == (server.engine, server.database)
    assert settings.port == {"postgresql": 5432, "mysql": 3306}[server.engine]


def test_with_engine_host_and_name_set_the_secret_is_not_read_before_it_is_needed(
    server: LocalServer, environ: pytest.MonkeyPatch
) -> None:
    give(environ, where(server) | {"DB_SECRET_ID": "prod/does-not-exist"})
    db = lambda_dbconn.from_env()
    with pytest.raises(CredentialsError, match="ResourceNotFoundException"), db.connection(30):
        pass


def test_a_secret_that_is_needed_for_the_settings_and_not_there_is_an_error_at_once(
    environ: pytest.MonkeyPatch,
) -> None:
    environ.setenv("DB_SECRET_ID", "prod/does-not-exist")
    with pytest.raises(CredentialsError, match="ResourceNotFoundException") as caught:
        lambda_dbconn.from_env()
    assert "Check SECRET_ID" in caught.value.remedy


def test_a_secret_that_says_nothing_of_the_host_leaves_the_fault_with_the_settings(
    server: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    environ.setenv("DB_SECRET_ID", secrets_manager.put(login(server)))
    with pytest.raises(ConfigurationError, match="DB_HOST is not set"):
        lambda_dbconn.from_env()


def test_the_password_in_the_environment_wins_when_it_is_asked_for(
    server: LocalServer, environ: pytest.MonkeyPatch
) -> None:
    give(environ, where(server) | {"DB_SECRET_ID": "prod/does-not-exist", "DB_AUTH": "password"})
    give(environ, {"DB_USER": server.user, "DB_PASSWORD": server.password})
    with lambda_dbconn.from_env().connection(30) as connection:
        assert query(connection, "SELECT 1") == 1


# --- botocore


def test_without_an_extension_secrets_manager_is_asked(
    server: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    assert sources(connect(server, secrets_manager.put(login(server)))) == ["secrets_manager"]


@pytest.mark.parametrize("is_in_lambda", [False, True])
def test_an_extension_that_is_not_there_is_not_waited_for(
    postgres: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch, *, is_in_lambda: bool
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # a port on which nobody listens
        environ.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(probe.getsockname()[1]))
        if is_in_lambda:
            environ.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
        observer = connect(postgres, secrets_manager.put(login(postgres)))
    assert sources(observer) == ["secrets_manager"]
    assert observer.of(CredentialsFailed) == []


@pytest.mark.parametrize("is_arn", [False, True], ids=["name", "arn"])
def test_a_secret_that_rds_manages_is_found_by_name_and_by_arn(
    postgres: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch, *, is_arn: bool
) -> None:
    name = secrets_manager.put(login(postgres), name=f"rds!db-{os.urandom(4).hex()}")
    arn = secrets_manager.client.describe_secret(SecretId=name)["ARN"]
    environ.delenv("AWS_REGION")
    environ.setenv("AWS_DEFAULT_REGION", "eu-west-1" if is_arn else REGION)  # an ARN has its own
    assert sources(connect(postgres, arn if is_arn else name)) == ["secrets_manager"]


def test_a_binary_secret_is_an_error(
    postgres: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    name = f"prod/{os.urandom(4).hex()}"
    secrets_manager.client.create_secret(Name=name, SecretBinary=json.dumps(login(postgres)).encode())
    with pytest.raises(CredentialsError, match="is binary"):
        connect(postgres, name)


def test_a_secret_marked_for_deletion_is_an_error_that_says_so(
    postgres: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    name = secrets_manager.put(login(postgres))
    secrets_manager.client.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    with pytest.raises(CredentialsError, match="InvalidRequestException") as caught:
        connect(postgres, name)
    assert "marked for deletion" in caught.value.remedy


def test_no_way_to_secrets_manager_is_an_error_that_names_the_endpoint_and_may_pass(
    postgres: LocalServer, environ: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        environ.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://127.0.0.1:{probe.getsockname()[1]}")
        with pytest.raises(CredentialsError, match="EndpointConnectionError") as caught:
            connect(postgres, "prod/shop", connect_timeout_s=0.5)
    assert caught.value.retryable
    assert "interface endpoint" in caught.value.remedy


def test_a_secrets_manager_that_does_not_answer_ends_with_the_time_that_is_left(
    postgres: LocalServer, environ: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        environ.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://127.0.0.1:{mute.getsockname()[1]}")
        settings = Settings(
            engine="postgresql", host=postgres.host, port=1, auth="secret", secret_id="s", sslrootcert=trust(postgres)
        )
        with (
            pytest.raises(CredentialsError, match="ReadTimeoutError"),
            ConnectionManager[Any](settings).connection(1.0),
        ):
            pass


# --- the extension


def test_the_extension_is_asked_first_and_secrets_manager_not_at_all(
    server: LocalServer, secrets_manager: LocalSecretsManager, extension: LocalExtension
) -> None:
    name = secrets_manager.put(login(server), name=f"rds!db-{os.urandom(4).hex()}")
    assert sources(connect(server, name)) == ["extension"]
    assert extension.asked == [f"/secretsmanager/get?secretId={name.replace('!', '%21')}&versionStage=AWSCURRENT"]


def fail_by_init(extension: LocalExtension) -> None:
    extension.is_ready = False


def fail_by_nonsense(extension: LocalExtension) -> None:
    extension.answers = b"<html>"


def fail_by_a_strange_answer(extension: LocalExtension) -> None:
    extension.answers = b'["SecretString"]'


def fail_by_token(extension: LocalExtension) -> None:
    extension._token = "another"


def fail_by_silence(extension: LocalExtension) -> None:
    extension.is_mute = True


@pytest.mark.parametrize(
    "fail", [fail_by_init, fail_by_nonsense, fail_by_a_strange_answer, fail_by_token, fail_by_silence]
)
def test_an_extension_that_does_not_give_the_secret_is_passed_over_and_that_is_told(
    postgres: LocalServer, secrets_manager: LocalSecretsManager, extension: LocalExtension, fail: Any
) -> None:
    fail(extension)
    observer = connect(postgres, secrets_manager.put(login(postgres)))
    assert [(event.source, event.instead) for event in observer.of(CredentialsFailed)] == [
        ("extension", "secrets_manager")
    ]
    assert sources(observer) == ["secrets_manager"]


def test_a_secret_that_is_not_there_is_secrets_managers_error_not_the_extensions(
    postgres: LocalServer, extension: LocalExtension
) -> None:
    with pytest.raises(CredentialsError, match="ResourceNotFoundException"):
        connect(postgres, "prod/does-not-exist")
    assert len(extension.asked) == 1


def test_under_snapstart_the_extension_gets_the_token_of_the_containers_credentials(
    postgres: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    def credentials(_path: str, headers: Any) -> tuple[int, bytes]:
        assert headers["Authorization"] == "container-authorization"
        keys = {"AccessKeyId": "AKIDSNAP", "SecretAccessKey": "snap", "Token": "fresh-after-restore"}
        return 200, json.dumps({**keys, "Expiration": "2099-01-01T00:00:00Z"}).encode()

    with local_extension(secrets_manager, token="fresh-after-restore") as extension, http_server(credentials) as port:
        for name, value in extension.environment().items():
            environ.setenv(name, value)
        environ.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
        environ.setenv("AWS_SESSION_TOKEN", "stale-from-before-the-snapshot")
        environ.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/credentials")
        environ.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-authorization")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environ.delenv(name)
        assert sources(connect(postgres, secrets_manager.put(login(postgres)))) == ["extension"]


# --- what a fresh process imports

COLD = """
import sys
import lambda_dbconn
db = lambda_dbconn.from_env()
with db.connection(30) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT 1")
    assert cursor.fetchone()[0] == 1
print(*sorted({name.partition(".")[0] for name in sys.modules}), *(n for n in sys.modules if n.startswith("http.")))
"""


def loaded_by(variables: dict[str, str]) -> set[str]:
    """Run a whole cold process to its first row, and return what it has loaded."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DB_")}
    # The oldest botocore warns of its own code on a Python that is newer than it: tests/conftest.py.
    lenient = ["-W", "ignore::DeprecationWarning"] if "LAMBDA_DBCONN_TESTS_THE_OLDEST" in os.environ else []
    command = [sys.executable, "-W", "error", *lenient, "-c", COLD]
    done = subprocess.run(command, env=inherited | variables, capture_output=True, text=True, check=False, timeout=60)
    assert not done.returncode, done.stderr
    return set(done.stdout.split())


def test_through_the_extension_neither_an_sdk_nor_an_http_client_is_imported(
    server: LocalServer, secrets_manager: LocalSecretsManager, extension: LocalExtension
) -> None:
    variables = where(server) | {"DB_SECRET_ID": secrets_manager.put(login(server))}
    assert not loaded_by(variables) & {"boto3", "botocore", "urllib3", "tenacity", "http.client"}
    assert len(extension.asked) == 1


def test_through_botocore_boto3_is_not_imported(
    server: LocalServer, secrets_manager: LocalSecretsManager, environ: pytest.MonkeyPatch
) -> None:
    loaded = loaded_by(where(server) | {"DB_SECRET_ID": secrets_manager.put(login(server))})
    assert "botocore" in loaded
    assert not loaded & {"boto3", "tenacity"}


def test_with_a_password_none_of_it_is_imported(server: LocalServer, environ: pytest.MonkeyPatch) -> None:
    loaded = loaded_by(where(server) | {"DB_USER": server.user, "DB_PASSWORD": server.password})
    assert not loaded & {"boto3", "botocore", "urllib3", "tenacity", "http.client", "hmac"}
