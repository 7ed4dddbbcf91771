"""Log in with a secret: user and password together, kept until the server refuses them.

A rotation costs no invocation: what is refused is read anew past every cache, and in the moment in which the database
has the new password already and the secret not yet, the version that is pending is tried.
Sources: Secrets Manager user guide, "JSON structure of AWS Secrets Manager secrets" and "Rotation strategies".
"""

from __future__ import annotations

import time

from lambda_dbconn._typing import TYPE_CHECKING
from lambda_dbconn.credentials import Credentials
from lambda_dbconn.credentials.secret_sources import CURRENT, PENDING, BotocoreSource, ExtensionSource
from lambda_dbconn.errors import CredentialsError
from lambda_dbconn.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.credentials.secret_sources import SecretSource
    from lambda_dbconn.deadline import Deadline
    from lambda_dbconn.settings import Settings

READ_LIMIT_S = 2.0
REFETCH_INTERVAL_S = 5.0


class SecretsManagerProvider:
    """Gives what a Secrets Manager secret holds. Threads may share it.

    Args:
        secret_id: Name or ARN.
        region: Of the secret; an ARN's own region comes first.
        user_key: The secret's JSON key for the user.
        password_key: Its key for the password.
        cached: Where to read first; by default the extension if it runs beside the function.
        fresh: Where to read past every cache; by default Secrets Manager, through botocore.
        clock: Returns seconds that never go back.
    """

    def __init__(
        self,
        secret_id: str,
        *,
        region: str | None = None,
        user_key: str = "username",
        password_key: str = "password",  # noqa: S107 - the name of a key
        cached: SecretSource | None = None,
        fresh: SecretSource | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._secret_id = secret_id
        self._keys = user_key, password_key
        self._fresh: SecretSource = (
            fresh if fresh is not None else BotocoreSource(region=_region_of(secret_id) or region)
        )
        self._cached = cached
        self._clock = clock
        self._known: Credentials | None = None
        self._last_refetch = float("-inf")

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:  # noqa: ARG002 - the secret has it all
        """Return the secret's user and password; a read of the secret the first time, nothing afterwards.

        Raises:
            CredentialsError: The secret cannot be had, or does not hold what it should.
            DeadlineExceededError: No time is left to read it.
        """
        known = self._known
        if known is None:
            limit_s = deadline.cap_s(READ_LIMIT_S, doing=f"reading the secret {self._secret_id!r}")
            known = self._known = self._read_cached(limit_s)
        return known

    def refused(self, credentials: Credentials) -> bool:
        """Read the secret anew, past every cache, then its pending version; say whether there is a different one.

        Done at most once in `REFETCH_INTERVAL_S`, so that a password that is simply wrong makes no storm.
        """
        if credentials != self._known:
            return True  # another thread has been here
        if self._clock() - self._last_refetch < REFETCH_INTERVAL_S:
            return False
        self._last_refetch = self._clock()
        for stage in (CURRENT, PENDING):
            try:
                found = self._credentials(self._fresh.read(self._secret_id, stage=stage, timeout_s=READ_LIMIT_S))
            except CredentialsError:
                return False  # what is known was refused and nothing else is to be had: the refusal is the error
            if found is not None and found != credentials:
                self._known = found
                return True
        return False

    def _read_cached(self, limit_s: float) -> Credentials:
        """Read where reading is cheapest: once, from the extension if it is there and ready, else from the service."""
        source: SecretSource = self._fresh
        if self._cached is not None:
            source = self._cached
        else:
            extension = ExtensionSource()
            if extension.is_there():
                source = extension
        try:
            text = source.read(self._secret_id, stage=CURRENT, timeout_s=limit_s)
        except CredentialsError as error:
            if source is self._fresh or not error.retryable:
                raise
            text = self._fresh.read(self._secret_id, stage=CURRENT, timeout_s=limit_s)
        found = self._credentials(text)
        if found is None:
            raise CredentialsError(
                f"the secret {self._secret_id!r} has no current version", remedy="Put a value into it."
            )
        return found

    def _credentials(self, text: Secret | None) -> Credentials | None:
        """Take user and password out of the secret's JSON; no message shows any of it."""
        if text is None:
            return None
        content = parse(text, self._secret_id)
        values = []
        for key in self._keys:
            value = content.get(key)
            if not isinstance(value, str) or not value:
                raise CredentialsError(
                    f"the secret {self._secret_id!r} has no text under the key {key!r}",
                    remedy="Store it as RDS does: a JSON object with username and password.",
                )
            values.append(value)
        return Credentials(user=values[0], password=Secret(values[1]))


def parse(text: Secret, secret_id: str) -> dict[str, Any]:
    """Return the secret's JSON object.

    Raises:
        CredentialsError: It is something else; the message shows none of it.
    """
    import json

    try:
        content = json.loads(text.reveal())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CredentialsError(
            f"the secret {secret_id!r} is not a JSON object",
            remedy="Store it as RDS does: a JSON object with username and password.",
        )
    return content


def _region_of(secret_id: str) -> str | None:
    """Return the region in an ARN, None for a name."""
    parts = secret_id.split(":")
    region = 3
    return parts[region] or None if parts[0] == "arn" and len(parts) > region else None
