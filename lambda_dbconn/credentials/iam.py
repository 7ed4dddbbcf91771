"""Log in with an IAM token, signed here for each physical connection.

A token is valid for fifteen minutes and needed only while logging in; signing one takes a tenth of a millisecond, so
none is kept: no token outlives the keys that signed it. No SDK is imported while the environment holds the function's
keys.
Sources: RDS user guide, "IAM database authentication" and "Connecting to a database through RDS Proxy".
"""

from __future__ import annotations

import time

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.credentials import Credentials, let_forget
from lambda_dbconn.credentials.aws_keys import KEYS_LIMIT_S, FunctionKeys, keys_within
from lambda_dbconn.credentials.sigv4 import sign_token
from lambda_dbconn.deadline import SystemClock
from lambda_dbconn.errors import ConfigurationError, CredentialsError
from lambda_dbconn.events import CredentialsFetched
from lambda_dbconn.settings import environment
from lambda_dbconn.settings.endpoint import classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lambda_dbconn.credentials.aws_keys import AwsKeys
    from lambda_dbconn.deadline import Clock, Deadline
    from lambda_dbconn.events import Event
    from lambda_dbconn.settings import Settings
    from lambda_dbconn.settings.endpoint import Endpoint


class IamProvider:
    """Signs a token for each connection. Threads may share it.

    Args:
        keys: Where the AWS keys come from, instead of the function's role; called for each connection. With a method
            `within`, that is called instead, with the seconds that it may take.
        names_behind: Returns the names that a host is an alias of, instead of the resolver; asked only about hosts
            that are not RDS's.
        clock: Tells the time of signing.
    """

    def __init__(
        self,
        *,
        keys: Callable[[], AwsKeys] | None = None,
        names_behind: Callable[[str], Iterable[str]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._keys = keys if keys is not None else FunctionKeys()
        self._names_behind = names_behind
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._tell: Callable[[Event], None] = _tell_nobody

    def listen(self, tell: Callable[[Event], None]) -> None:
        """Tell each token that was signed to this callable from now on."""
        self._tell = tell

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        """Return the user with a new token.

        No round trip with keys from the environment; one on this machine under SnapStart, within two seconds and the
        deadline; with botocore's chain, what its source costs.

        Raises:
            ConfigurationError: It is not known which host or region to sign for; or the settings do not say `iam`,
                which is what makes sure that a token only ever goes through verified TLS.
            CredentialsError: There are no AWS keys; or the resolver does not say what the host is an alias of.
            DeadlineExceededError: No time is left to ask it.
        """
        if settings.auth != "iam":
            raise ConfigurationError(
                f"{settings.variable('auth')} is {settings.auth!r}, but the provider gives IAM tokens; accepted: iam"
            )
        started = self._clock.monotonic()
        endpoint = self._signing_endpoint(settings, deadline)
        region = endpoint.region or settings.region or environment("AWS_REGION")
        if region is None:
            raise ConfigurationError(
                f"{settings.variable('region')} is not set, and {endpoint.host} does not name its region"
            )
        assert settings.user is not None  # noqa: S101 - settings with `iam` have one
        token = sign_token(
            host=endpoint.host,
            port=settings.port,
            user=settings.user,
            region=region,
            keys=keys_within(self._keys, min(KEYS_LIMIT_S, deadline.remaining_s())),
            timestamp=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.wall())),
        )
        duration_s = self._clock.monotonic() - started
        self._tell(CredentialsFetched(endpoint=settings.address, source="iam", stage="", duration_s=duration_s))
        return Credentials(user=settings.user, password=token)

    def refused(self, credentials: Credentials) -> bool:  # noqa: ARG002 - the next would be refused likewise
        """Say that a new token would fare no better: this one was new."""
        return False

    def keys(self) -> AwsKeys:
        """Return what it would sign with now.

        Raises:
            CredentialsError: There are no AWS keys.
        """
        return self._keys()

    def forget(self) -> None:
        """Forget the AWS keys, where they are kept."""
        let_forget(self._keys)

    def _signing_endpoint(self, settings: Settings, deadline: Deadline) -> Endpoint:
        """Return the endpoint whose name the token is signed for: RDS accepts no alias there.

        That is the server's name if it is RDS's or `signing_host` says so, else the RDS name among those that the host
        is an alias of: one DNS look-up, which no RDS host needs.

        Raises:
            ConfigurationError: There is no such name.
        """
        endpoint = classify(settings.server_name)
        if endpoint.is_rds or settings.signing_host is not None:
            return endpoint
        limit_s = deadline.cap_s(settings.connect_timeout_s, doing=f"looking up {endpoint.host}")
        ask = self._names_behind
        for name in ask(endpoint.host) if ask is not None else _names_behind(endpoint.host, limit_s):
            try:
                found = classify(name.removesuffix("."))
            except ConfigurationError:
                continue
            if found.is_rds:
                return found
        raise ConfigurationError(
            f"{settings.host} is not an RDS host, nor an alias of one: an IAM token must name the RDS host",
            remedy=f"Set {settings.variable('signing_host')} to the proxy's, cluster's or instance's own name.",
        )


def _tell_nobody(_event: Event) -> None:
    """Be what is told before anybody listens."""


def _names_behind(host: str, timeout_s: float) -> list[str]:
    """Return the names that a host is an alias of, as far as the resolver tells.

    Raises:
        CredentialsError: The resolver is silent or overloaded; `retryable`.
    """
    import socket

    from lambda_dbconn._resolver import is_temporary, look_up

    try:
        canonical, aliases, _ = look_up(socket.gethostbyname_ex, host, timeout_s=timeout_s)
    except (OSError, UnicodeError) as error:
        if is_temporary(error):
            raise CredentialsError(
                f"cannot look up of which RDS host {host} is an alias: {error}",
                remedy="Check that the VPC's DNS resolver can be reached, or set SIGNING_HOST, which needs no look-up.",
                retryable=True,
            ) from error
        return []
    return [*aliases, canonical]
