"""Every way in which a server refuses a login: fresh credentials are read once, and then the error says so."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from lambda_dbconn import AuthenticationError, ConnectionManager, Secret, Settings, TlsError
from lambda_dbconn.events import ConnectFailed, CredentialsFetched
from lambda_dbconn.testing.fakes import RecordingObserver
from tests.support.clients import query, wait_until
from tests.support.secrets_manager import LocalSecretsManager, local_secrets_manager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.once

# How an administrator ends a user's logins, `{}` being the user.
WAYS: dict[str, dict[str, list[str]]] = {
    "postgres": {
        "nologin": ["ALTER ROLE {} NOLOGIN"],
        "expired": ["ALTER ROLE {} VALID UNTIL '2020-01-01'"],
        "dropped": ["DROP ROLE {}"],
        "no password": ["ALTER ROLE {} PASSWORD NULL"],
    },
    "mariadb": {
        "locked": ["ALTER USER {}@'%' ACCOUNT LOCK"],
        "expired": ["SET GLOBAL disconnect_on_expired_password = 1", "ALTER USER {}@'%' PASSWORD EXPIRE"],
        "dropped": ["DROP USER {}@'%'"],
        "another plugin": ["ALTER USER {}@'%' IDENTIFIED VIA unix_socket"],
        "old plugin": ["ALTER USER {}@'%' IDENTIFIED VIA mysql_old_password USING '565491d704013245'"],
    },
    "mysql": {
        "locked": ["ALTER USER {}@'%' ACCOUNT LOCK"],
        "expired": ["ALTER USER {}@'%' PASSWORD EXPIRE"],
        "dropped": ["DROP USER {}@'%'"],
        "plugin gone": [
            "INSTALL PLUGIN mysql_no_login SONAME 'mysql_no_login.so'",
            "ALTER USER {}@'%' IDENTIFIED WITH mysql_no_login",
            "UNINSTALL PLUGIN mysql_no_login",
        ],
    },
}
EACH = [pytest.param(name, way, id=f"{name}-{way}") for name, ways in WAYS.items() for way in ways]


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[LocalSecretsManager]:
    with local_secrets_manager() as manager:
        yield manager


@pytest.fixture(autouse=True)
def in_a_function(secrets_manager: LocalSecretsManager, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in secrets_manager.environment().items():
        monkeypatch.setenv(name, value)


class Shop:
    """A function that logs in with a secret, and the administrator who changes the users."""

    def __init__(self, server: LocalServer, manager: LocalSecretsManager) -> None:
        assert server.certificates is not None
        self.server = server
        self._manager = manager
        self.secret_id = manager.put(self.user())
        self.observer = RecordingObserver()
        self.db: ConnectionManager[Any] = ConnectionManager(
            self.settings(auth="secret", secret_id=self.secret_id), observer=self.observer
        )

    def settings(self, **login: Any) -> Settings:
        assert self.server.certificates is not None
        return Settings(
            engine=self.server.engine,
            host=self.server.host,
            port=self.server.port,
            name=self.server.database,
            sslrootcert=str(self.server.certificates.ca_path),
            **login,
        )

    def user(self) -> dict[str, str]:
        """Make a user, and return what a secret says of it."""
        name, password = f"u{secrets.token_hex(5)}", secrets.token_urlsafe(12)
        if self.server.engine == "postgresql":
            self.server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        else:
            self.server.execute(f"CREATE USER {name}@'%' IDENTIFIED BY '{password}'")
            self.server.execute(f"GRANT ALL ON {self.server.database}.* TO {name}@'%'")
        return {"username": name, "password": password}

    def rotate(self) -> str:
        """Put another user into the secret; return the one before."""
        before: str = self._manager.read(self.secret_id)["username"]
        self._manager.client.put_secret_value(SecretId=self.secret_id, SecretString=json.dumps(self.user()))
        return before

    def refuse(self, user: str, statements: list[str]) -> None:
        """Let the user log in no more."""
        for statement in statements:
            self.server.execute(statement.format(user))

    def current(self) -> str:
        name: str = self._manager.read(self.secret_id)["username"]
        return name

    def borrow(self) -> str:
        """Borrow a connection, and return who the server says is logged in."""
        is_postgresql = self.server.engine == "postgresql"
        with self.db.connection(30) as connection:
            return str(query(connection, "SELECT " + ("current_user" if is_postgresql else "user()"))).split("@")[0]


@pytest.fixture
def shop(request: pytest.FixtureRequest, secrets_manager: LocalSecretsManager, name: str) -> Iterator[Shop]:
    shop = Shop(request.getfixturevalue(name), secrets_manager)
    yield shop
    shop.db.close()
    if name == "mariadb":
        shop.server.execute("SET GLOBAL disconnect_on_expired_password = DEFAULT")


@pytest.mark.parametrize(("name", "way"), EACH)
def test_after_a_rotation_to_another_user_the_next_connect_gets_in(shop: Shop, name: str, way: str) -> None:
    old = shop.current()
    assert shop.borrow() == old
    shop.db.close()
    assert shop.rotate() == old
    shop.refuse(old, WAYS[name][way])
    assert shop.borrow() == shop.current() != old
    assert shop.observer.of(ConnectFailed) == []
    assert [event.stage for event in shop.observer.of(CredentialsFetched)] == ["AWSCURRENT", "AWSCURRENT"]


@pytest.mark.parametrize(("name", "way"), EACH)
def test_when_the_secret_has_no_other_user_the_error_says_that_the_login_is_refused(
    shop: Shop, name: str, way: str
) -> None:
    shop.borrow()
    shop.db.close()
    shop.refuse(shop.current(), WAYS[name][way])
    with pytest.raises(AuthenticationError) as caught:
        shop.borrow()
    assert not caught.value.retryable
    assert len(shop.observer.of(ConnectFailed)) == 1
    assert len(shop.observer.of(CredentialsFetched)) > 1


@pytest.mark.parametrize(
    ("name", "make", "number"),
    [
        ("mariadb", "SET GLOBAL max_password_errors = 1", 4150),
        ("mysql", "ALTER USER {}@'%' FAILED_LOGIN_ATTEMPTS 1 PASSWORD_LOCK_TIME 1", 3955),
    ],
)
def test_a_user_that_is_blocked_after_failures_is_refused(shop: Shop, name: str, make: str, number: int) -> None:
    user = shop.current()
    shop.server.execute(make.format(user))
    settings = shop.settings(user=user, password=Secret("wrong"))
    try:
        for _ in range(2):
            with pytest.raises(AuthenticationError) as caught:
                ConnectionManager[Any](settings).connection(30).__enter__()
    finally:
        if name == "mariadb":
            shop.server.execute("SET GLOBAL max_password_errors = DEFAULT")
    assert f"error {number}: " in caught.value.message


# --- MariaDB lets a user with an expired password in, and answers every statement with 1820


@pytest.fixture
def expired(shop: Shop) -> Shop:
    """A function whose secret names another user now, while the one that it knows has an expired password."""
    old = shop.current()
    assert shop.borrow() == old
    shop.db.close()
    shop.server.execute("SET GLOBAL disconnect_on_expired_password = 0")
    shop.server.execute(f"ALTER USER {old}@'%' PASSWORD EXPIRE")
    shop.rotate()
    return shop


@pytest.mark.parametrize("name", ["mariadb"])
def test_after_a_statement_that_an_expired_password_forbids_the_next_invocation_gets_in(
    expired: Shop, name: str
) -> None:
    with pytest.raises(pymysql.OperationalError, match="1820"):
        expired.borrow()
    assert expired.borrow() == expired.current()


@pytest.mark.parametrize("name", ["mariadb"])
@pytest.mark.parametrize("way", ["transaction", "run"])
def test_what_may_be_done_again_is_done_at_once_by_another_user(expired: Shop, name: str, way: str) -> None:
    def who(connection: Any) -> str:
        return str(query(connection, "SELECT user()")).split("@")[0]

    if way == "run":
        found = expired.db.run(who, 30)
    else:
        with expired.db.transaction(30) as connection:
            found = who(connection)
    assert found == expired.current()


@pytest.mark.parametrize("name", ["mariadb"])
def test_an_expired_password_that_nobody_has_changed_makes_no_storm_of_reads(expired: Shop, name: str) -> None:
    shop = expired
    shop.server.execute(f"ALTER USER {shop.current()}@'%' PASSWORD EXPIRE")
    for _ in range(5):
        with pytest.raises(pymysql.OperationalError, match="1820"):
            shop.borrow()
    assert len(shop.observer.of(CredentialsFetched)) < 5


# --- what is no refusal of the login


@pytest.mark.parametrize(
    "rule", ["hostssl all all all scram-sha-256", "hostssl all all all scram-sha-256\nhostnossl all all all reject"]
)
def test_a_login_that_postgresql_takes_over_tls_only_is_a_tls_error(own_postgres: LocalServer, rule: str) -> None:
    path = Path(str(own_postgres.query("SHOW hba_file")[0][0]))
    local = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("local")]
    path.write_text("\n".join([*local, rule, ""]), encoding="utf-8")
    own_postgres.execute("SELECT pg_reload_conf()")
    settings = Settings(
        engine="postgresql",
        host="127.0.0.1",
        port=own_postgres.port,
        name=own_postgres.database,
        user=own_postgres.user,
        password=Secret(own_postgres.password),
        sslmode="disable",
    )

    errors: list[TlsError] = []

    def is_refused() -> bool:  # once the server has read its new rules
        try:
            ConnectionManager[Any](settings).connection(30).__enter__()
        except TlsError as error:
            errors.append(error)
        return bool(errors)

    wait_until(is_refused)
    assert "verify-full" in errors[0].remedy
    assert not errors[0].retryable
