"""Whom a function logs in as, by IAM token or by secret: what may change there, and what the next login must cost.

What a login must cost is worked out here from the rules in the documentation, and not asked of the library.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_dbconn import AuthenticationError, CredentialsError
from lambda_dbconn.testing.rds_proxy import AwsKey
from tests.support.secrets_manager import Rotation

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from lambda_dbconn import LambdaDbConnError
    from lambda_dbconn.testing.fakes import FakeClock
    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalServer
    from tests.support.secrets_manager import LocalSecretsManager

CURRENT, PENDING = "AWSCURRENT", "AWSPENDING"
REFETCH_INTERVAL_S = 5.0
Login = tuple[str, str]  # user and password


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What opening a connection must come to.

    Attributes:
        refused: Logins that the proxy refuses on the way.
        asked: The versions of the secret that are read, in order.
        found: Those of them that exist.
        error: How it ends, None for well.
    """

    refused: int = 0
    asked: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    error: type[LambdaDbConnError] | None = None


class IamAccess:
    """The function's role may log in as the server's user."""

    refusals = ("user removed", "key revoked", "key wrong", "keys missing")

    def __init__(self, proxy: LocalRdsProxy, server: LocalServer, environ: pytest.MonkeyPatch) -> None:
        self._proxy = proxy
        self._server = server
        self._environ = environ
        self._is_let_in = True
        self._number = 0
        self._key = self._new_key()
        proxy.set_aws_key(self._key)
        self._give(self._key)

    def environment(self) -> dict[str, str]:
        """Return the variables that say who the function is."""
        return {"DB_USER": self._server.user, "DB_SIGNING_HOST": self._proxy.signing_host}

    def forget(self) -> None:
        """Begin a new execution environment: nothing was remembered."""

    def log_in(self) -> Expected:
        """Say what opening a connection now must come to."""
        if "AWS_ACCESS_KEY_ID" not in os.environ:
            return Expected(error=CredentialsError)
        return Expected() if self._is_let_in else Expected(refused=1, error=AuthenticationError)

    def end_sessions(self) -> None:
        """End the user's sessions, as an administrator."""
        for session_id in self._server.session_ids():
            self._server.kill_session(session_id)

    # What passes

    def replace_key(self) -> None:
        """Give the role other keys; the old ones are worth nothing from now on."""
        old, self._key = self._key, self._new_key()
        self._proxy.set_aws_key(self._key)
        self._give(self._key)
        self._proxy.remove_aws_key(old.access_key_id)

    # What does not, until the end of the block

    @contextmanager
    def user_removed(self) -> Iterator[None]:
        """Let the proxy forget the user."""
        self._proxy.remove_secret(self._server.user)
        with self._locked_out():
            yield
        self._proxy.set_secret(self._server.user, self._server.password)

    @contextmanager
    def key_revoked(self) -> Iterator[None]:
        """Take the role's permission away."""
        self._proxy.remove_aws_key(self._key.access_key_id)
        with self._locked_out():
            yield
        self._proxy.set_aws_key(self._key)

    @contextmanager
    def key_wrong(self) -> Iterator[None]:
        """Sign with something else than the key's secret."""
        self._environ.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with self._locked_out():
            yield
        self._give(self._key)

    @contextmanager
    def keys_missing(self) -> Iterator[None]:
        """Give the function no role at all."""
        self._environ.delenv("AWS_ACCESS_KEY_ID")
        yield
        self._give(self._key)

    @contextmanager
    def _locked_out(self) -> Iterator[None]:
        self._is_let_in = False
        yield
        self._is_let_in = True

    def _new_key(self) -> AwsKey:
        self._number += 1
        return AwsKey(
            access_key_id=f"ASIA{self._number}",
            secret_access_key=secrets.token_hex(20),
            session_token=secrets.token_urlsafe(600),
        )

    def _give(self, key: AwsKey) -> None:
        self._environ.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
        self._environ.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
        self._environ.setenv("AWS_SESSION_TOKEN", key.session_token or "")


class SecretAccess(Rotation):
    """The function logs in with a secret, which is rotated step by step; the proxy always knows what is right.

    A rotation is of one user's password or, drawn by lot, to the other of two users.
    """

    refusals = ("user removed", "secret wrong", "secret deleted")

    def __init__(
        self, proxy: LocalRdsProxy, server: LocalServer, manager: LocalSecretsManager, *, table: str, clock: FakeClock
    ) -> None:
        self._proxy = proxy
        self._table = table
        self._clock = clock
        self._right: dict[str, str] = {}
        super().__init__(manager, server, is_alternating=False)
        self._versions: dict[str, Login] = {CURRENT: self._version_labelled(CURRENT)}
        self._steps_done = 0
        self._is_deleted = False
        self._is_user_removed = False
        self.forget()

    def environment(self) -> dict[str, str]:
        """Return the variables that say who the function is."""
        return {"DB_AUTH": "secret", "DB_SECRET_ID": self.secret_id}

    def forget(self) -> None:
        """Begin a new execution environment: nothing was remembered."""
        self._known: Login | None = None
        self._refused: Login | None = None
        self._unread: list[str] = []
        self._round_began_s = float("-inf")

    def log_in(self) -> Expected:
        """Say what opening a connection now must come to.

        What is known is tried, and after a refusal what is labelled current, pending, and current, but read no
        oftener than every five seconds, and nothing twice, and three logins at most.
        """
        asked: list[str] = []
        tried: list[Login] = []
        while len(tried) < 3:
            if self._known is None:
                asked.append(CURRENT)
                if self._is_deleted:
                    return Expected(asked=tuple(asked), error=CredentialsError)
                self._known = self._versions[CURRENT]
            while self._unread and self._known == self._refused:
                asked.append(self._unread.pop(0))
                self._known = self._versions.get(asked[-1], self._known)
            if self._known in tried:
                break
            tried.append(self._known)
            if self._is_right(self._known):
                return Expected(refused=len(tried) - 1, asked=tuple(asked), found=self._found(asked))
            self._refused = self._known
            if self._clock.wall() - self._round_began_s >= REFETCH_INTERVAL_S:
                self._round_began_s = self._clock.wall()
                self._unread = [CURRENT, PENDING, CURRENT]
            if not self._unread:
                break
        return Expected(refused=len(tried), asked=tuple(asked), found=self._found(asked), error=AuthenticationError)

    def _is_right(self, login: Login) -> bool:
        return not self._is_user_removed and self._right.get(login[0]) == login[1]

    def _found(self, asked: list[str]) -> tuple[str, ...]:
        return tuple(stage for stage in asked if stage in self._versions)

    # What passes

    def next_step(self, *, is_alternating: bool) -> str:
        """Go on with the rotation, or begin the next, and return the step's name."""
        step = self.STEPS[self._steps_done]
        if self._steps_done == 0:
            self._is_alternating = is_alternating
        self._clock.advance(2 * REFETCH_INTERVAL_S)
        getattr(self, step)()
        self._steps_done = (self._steps_done + 1) % len(self.STEPS)
        if step == "create_secret":
            self._versions[PENDING] = self._version_labelled(PENDING)
        if step == "finish_secret":
            self._versions = {CURRENT: self._version_labelled(CURRENT)}
        return step

    def finish_rotation(self) -> None:
        """Do what is left of a rotation that has begun."""
        while self._steps_done:
            self.next_step(is_alternating=False)

    # What does not, until the end of the block

    @contextmanager
    def user_removed(self) -> Iterator[None]:
        """Let the proxy forget the users."""
        self._clock.advance(2 * REFETCH_INTERVAL_S)
        for user in self._right:
            self._proxy.remove_secret(user)
        self._is_user_removed = True
        yield
        self._is_user_removed = False
        for user, password in self._right.items():
            self._proxy.set_secret(user, password)
        self._clock.advance(2 * REFETCH_INTERVAL_S)

    @contextmanager
    def secret_wrong(self) -> Iterator[None]:
        """Change the users' passwords in the database, and say nothing to Secrets Manager."""
        self.finish_rotation()
        user, _ = self._versions[CURRENT]
        self._clock.advance(2 * REFETCH_INTERVAL_S)
        for each in self._right:
            self._set_password(each, secrets.token_urlsafe(12))
        yield
        self._clock.advance(2 * REFETCH_INTERVAL_S)
        self._put(user, self._right[user])

    @contextmanager
    def secret_deleted(self) -> Iterator[None]:
        """Mark the secret for deletion: who has read it before does not notice."""
        self._manager.client.delete_secret(SecretId=self.secret_id)
        self._is_deleted = True
        yield
        self._is_deleted = False
        self._manager.client.restore_secret(SecretId=self.secret_id)

    def _put(self, user: str, password: str) -> None:
        """Put a value into the secret by hand, and yet as a rotation does: moto 5.2 would keep two current versions."""
        self._version = secrets.token_hex(16)
        self._manager.client.put_secret_value(
            SecretId=self.secret_id,
            ClientRequestToken=self._version,
            SecretString=json.dumps({"username": user, "password": password}),
            VersionStages=[PENDING],
        )
        self.finish_secret()
        self._versions[CURRENT] = self._version_labelled(CURRENT)

    def _version_labelled(self, stage: str) -> Login:
        content = self._manager.read(self.secret_id, stage)
        return content["username"], content["password"]

    def _set_password(self, user: str, password: str) -> None:
        super()._set_password(user, password)
        name = user if self._server.engine == "postgresql" else f"{user}@'%'"
        self._server.execute(f"GRANT SELECT, INSERT ON {self._table} TO {name}")
        if self._server.engine == "mysql":  # PostgreSQL lets everybody call functions
            self._server.execute(f"GRANT EXECUTE ON {self._server.database}.* TO {name}")
        self._right[user] = password
        self._proxy.set_secret(user, password)


class ReadsOfSecrets:
    """Counts at Secrets Manager's own end what is read, by stage.

    Attributes:
        asked: Versions asked for.
        found: Those of them that were given.
    """

    def __init__(self, environ: pytest.MonkeyPatch) -> None:
        from moto.secretsmanager.models import SecretsManagerBackend

        self.asked: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self._is_counting = False
        get = SecretsManagerBackend.get_secret_value

        def counting(backend: Any, secret_id: str, version_id: str, version_stage: str) -> Any:
            if self._is_counting:
                self.asked[version_stage] += 1
            value = get(backend, secret_id, version_id, version_stage)
            if self._is_counting:
                self.found[version_stage] += 1
            return value

        environ.setattr(SecretsManagerBackend, "get_secret_value", counting)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is read in this block: it is the function's reading, and not a rotation's."""
        self._is_counting = True
        try:
            yield
        finally:
            self._is_counting = False
