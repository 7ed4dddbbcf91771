"""Log in with a secret: user and password together, kept until the server refuses them.

A rotation costs no invocation: what is refused is read anew past every cache, and in the moment in which the database
has the new password already and the secret not yet, the version that is pending is tried.
Sources: Secrets Manager user guide, "Lambda function rotation strategies" and "Rotation by Lambda function".
"""

from __future__ import annotations

from _thread import allocate_lock

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.credentials import Credentials, let_forget
from lambda_dbconn.credentials.secret_content import read_content
from lambda_dbconn.credentials.secret_sources import CURRENT, PENDING, ExtensionSource
from lambda_dbconn.deadline import SystemClock
from lambda_dbconn.errors import CredentialsError
from lambda_dbconn.events import CredentialsFailed, CredentialsFetched

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.credentials.secret_content import SecretContent
    from lambda_dbconn.credentials.secret_sources import SecretSource
    from lambda_dbconn.deadline import Clock, Deadline
    from lambda_dbconn.events import Event
    from lambda_dbconn.settings import Settings

READ_LIMIT_S = 2.0
REFETCH_INTERVAL_S = 5.0

# What a refusal has read, in order. The last is for a rotation that ends between the first two: its pending version
# has become the current one, and lost the label.
_ROUND = (CURRENT, PENDING, CURRENT)


class SecretsManagerProvider:
    """Gives what a Secrets Manager secret holds. Threads may share it.

    Args:
        secret_id: Name or ARN.
        region: Of the secret; an ARN's own region comes first.
        user_key: The secret's JSON key for the user.
        password_key: Its key for the password.
        nearest: Where to read first; by default the extension, if it runs beside the function.
        service: Where to read past every cache; by default Secrets Manager, through botocore.
        clock: For the interval between refetches.
    """

    def __init__(
        self,
        secret_id: str,
        *,
        region: str | None = None,
        user_key: str = "username",
        password_key: str = "password",  # noqa: S107 - the name of a key
        nearest: SecretSource | None = None,
        service: SecretSource | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._secret_id = secret_id
        self._keys = user_key, password_key
        self._nearest = nearest
        self._service = service
        self._region = _region_of(secret_id) or region
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._untold: list[Event] = []  # what `from_env` has read, before there is a manager to listen
        self._tell: Callable[[Event], None] = self._untold.append
        self._reading = allocate_lock()
        self._known: SecretContent | None = None
        self._refused: Credentials | None = None
        self._unread: list[str] = []
        self._round_began: tuple[float, float] | None = None

    def listen(self, tell: Callable[[Event], None]) -> None:
        """Tell events to this callable from now on, and first what nobody has heard yet."""
        self._tell = tell
        for event in self._untold:
            tell(event)
        self._untold.clear()

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        """Return the secret's user and password; a read of the secret the first time, nothing afterwards.

        After a refusal it is read past every cache. Should that fail, or bring nothing new, what is known is returned.

        Raises:
            CredentialsError: The secret cannot be had, or does not hold what it should.
            DeadlineExceededError: No time is left to read it.
        """
        return _login(self._content(settings.address, deadline))

    def settings(self, deadline: Deadline) -> dict[str, Any]:
        """Return engine, host, port and name, as far as the secret has them; what is read serves `fetch` too.

        What the secret has in a form that is not accepted is a `ConfigurationError` instead of a value.

        Raises:
            CredentialsError, DeadlineExceededError: As in `fetch`.
        """
        return self._content("", deadline).settings()

    def refused(self, credentials: Credentials) -> bool:
        """Say whether there may be others: unless the secret has been read past every cache a moment ago.

        That is done at most once in `REFETCH_INTERVAL_S`, so that a password that is simply wrong makes no storm.
        """
        if self._known is None or credentials != _login(self._known):
            return True  # another thread has been here
        if self._interval_is_over():
            self._round_began = self._clock.monotonic(), self._clock.wall()
            self._unread = list(_ROUND)
        self._refused = credentials
        return bool(self._unread)

    def forget(self) -> None:
        """Forget the secret, what was refused of it, and when it was read: the next `fetch` reads it."""
        self._known = self._refused = self._round_began = None
        self._unread = []
        let_forget(self._nearest)
        let_forget(self._service)

    def _past_caches(self) -> SecretSource:
        """Return where to read past every cache; made when it is first needed: with the extension it may never be."""
        if self._service is None:
            from lambda_dbconn.credentials.secret_service import ServiceSource

            self._service = ServiceSource(region=self._region)
        return self._service

    def _interval_is_over(self) -> bool:
        if self._round_began is None:
            return True
        monotonic, wall = self._round_began  # the one clock may stop in a freeze, the other may be set back
        return max(self._clock.monotonic() - monotonic, self._clock.wall() - wall) >= REFETCH_INTERVAL_S

    def _content(self, where: str, deadline: Deadline) -> SecretContent:
        """Return what is known, reading it if need be; threads take turns, so that one reads for all."""
        limit_s = deadline.cap_s(READ_LIMIT_S, doing=f"reading the secret {self._secret_id!r}")
        # A turn that does not come, because a fork has lost the thread that had it, costs time and nothing else.
        has_turn = self._reading.acquire(timeout=limit_s)
        try:
            known = self._known
            if known is None:
                known = self._known = self._first(where, deadline)
            elif self._unread and _login(known) == self._refused:
                known = self._known = self._another(known, where, deadline)
            return known
        finally:
            if has_turn:
                self._reading.release()

    def _first(self, where: str, deadline: Deadline) -> SecretContent:
        """Read where reading is cheapest: from the extension if it is there and ready, else from the service."""
        nearest = self._nearest
        if nearest is None:
            extension = ExtensionSource()
            nearest = extension if extension.is_there() else None
        if nearest is not None:
            try:
                found = self._read(nearest, CURRENT, where, deadline)
            except CredentialsError as error:
                self._failed(nearest, CURRENT, error, where, instead=self._past_caches().name)
            else:
                if found is not None:
                    return found
        found = self._read(self._past_caches(), CURRENT, where, deadline)
        if found is None:
            raise CredentialsError(
                f"the secret {self._secret_id!r} has no current version", remedy="Put a value into the secret."
            )
        return found

    def _another(self, known: SecretContent, where: str, deadline: Deadline) -> SecretContent:
        """Read what has not been read since the refusal, until something differs from what was refused."""
        while self._unread:
            stage = self._unread.pop(0)
            try:
                found = self._read(self._past_caches(), stage, where, deadline)
            except CredentialsError as error:
                self._unread.clear()
                self._failed(self._past_caches(), stage, error, where, instead="cached")
                break
            if found is not None and _login(found) != self._refused:
                return found
        return known

    def _read(self, source: SecretSource, stage: str, where: str, deadline: Deadline) -> SecretContent | None:
        limit_s = deadline.cap_s(READ_LIMIT_S, doing=f"reading the secret {self._secret_id!r}")
        started = self._clock.monotonic()
        text = source.read(self._secret_id, stage=stage, timeout_s=limit_s)
        duration_s = self._clock.monotonic() - started
        if text is None:
            return None
        user_key, password_key = self._keys
        content = read_content(text, secret_id=self._secret_id, user_key=user_key, password_key=password_key)
        self._tell(CredentialsFetched(endpoint=where, source=source.name, stage=stage, duration_s=duration_s))
        return content

    def _failed(self, source: SecretSource, stage: str, error: CredentialsError, where: str, *, instead: str) -> None:
        self._tell(
            CredentialsFailed(endpoint=where, source=source.name, stage=stage, error=error.message, instead=instead)
        )


def _login(content: SecretContent) -> Credentials:
    return Credentials(user=content.user, password=content.password)


def _region_of(secret_id: str) -> str | None:
    """Return the region in an ARN, None for a name."""
    parts = secret_id.split(":")
    region = 3
    return parts[region] or None if parts[0] == "arn" and len(parts) > region else None
