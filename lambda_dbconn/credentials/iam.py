"""Log in with an IAM token, signed here for each physical connection.

A token is valid for fifteen minutes and needed only while logging in; signing one takes a tenth of a millisecond, so
none is kept. No SDK is imported while the environment holds the function's keys.
Sources: RDS user guide, "IAM database authentication" and "Connecting to a database through RDS Proxy"; Lambda guide,
"Defined runtime environment variables" and "Activating SnapStart".
"""

from __future__ import annotations

import time

from lambda_dbconn._typing import TYPE_CHECKING
from lambda_dbconn.credentials import Credentials
from lambda_dbconn.credentials.sigv4 import AwsKeys, sign_token
from lambda_dbconn.endpoint import classify
from lambda_dbconn.errors import ConfigurationError, CredentialsError
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.deadline import Deadline
    from lambda_dbconn.endpoint import Endpoint
    from lambda_dbconn.settings import Settings

_NO_KEYS = "Run where a role gives credentials, or install boto3 (lambda-dbconn[aws]) for profiles and the like."


class IamProvider:
    """Signs a token for each connection. Threads may share it.

    The keys that sign are the environment's, or, where those may be stale (SnapStart) or are not the role's
    (containers), what botocore's chain finds; botocore keeps them fresh, so a token never outlives its keys.

    Args:
        keys: Where else the AWS keys come from; called for each connection.
        clock: Returns the seconds since the epoch.
    """

    def __init__(self, *, keys: Callable[[], AwsKeys] | None = None, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys if keys is not None else _Chain()
        self._clock = clock

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:  # noqa: ARG002 - nothing of ours waits
        """Return the user with a new token.

        No round trip with keys from the environment; with botocore's chain, what its source costs.

        Raises:
            ConfigurationError: It is not known which host or region to sign for.
            CredentialsError: There are no AWS keys.
        """
        if settings.user is None:
            raise ConfigurationError(f"{settings.variable('user')} is not set; accepted: the database user's name")
        endpoint = signing_endpoint(settings)
        region = endpoint.region or settings.region
        if region is None:
            raise ConfigurationError(
                f"{settings.variable('region')} is not set, and {endpoint.host} does not name its region"
            )
        token = sign_token(
            host=endpoint.host,
            port=settings.port,
            user=settings.user,
            region=region,
            keys=self._keys(),
            timestamp=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock())),
        )
        return Credentials(user=settings.user, password=token)

    def refused(self, credentials: Credentials) -> bool:  # noqa: ARG002 - the next would be refused likewise
        """Say that a new token would fare no better: this one was new."""
        return False


def signing_endpoint(settings: Settings) -> Endpoint:
    """Return the endpoint whose name the token is signed for: RDS accepts no alias there.

    That is `signing_host`, else the host itself if RDS's, else the RDS name among the names that the host is an alias
    of: one DNS look-up, only for a host that is not RDS's.

    Raises:
        ConfigurationError: There is no such name.
    """
    endpoint = classify(settings.signing_host or settings.host)
    if endpoint.is_rds:
        return endpoint
    for name in _names_behind(endpoint.host):
        try:
            found = classify(name)
        except ConfigurationError:
            continue
        if found.is_rds:
            return found
    if settings.signing_host is not None:
        return endpoint  # a name that the user vouches for: a stand-in's, for example
    raise ConfigurationError(
        f"{settings.host} is not an RDS host, nor an alias of one: an IAM token must name the RDS host",
        remedy=f"Set {settings.variable('signing_host')} to the proxy's, cluster's or instance's own name.",
    )


def _names_behind(host: str) -> list[str]:
    """Return the names that a host is an alias of, nearest first as far as the resolver tells."""
    import socket

    try:
        canonical, aliases, _ = socket.gethostbyname_ex(host)
    except OSError:
        return []
    return [*aliases, canonical]


class _Chain:
    """The function's own keys: from the environment if they are sure to be fresh there, else through botocore."""

    def __init__(self) -> None:
        self._found: Any = None

    def __call__(self) -> AwsKeys:
        if not (
            environment("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"
            or environment("AWS_CONTAINER_CREDENTIALS_FULL_URI")
            or environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        ):
            access_key, secret_key = environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY")
            if access_key and secret_key:
                token = environment("AWS_SESSION_TOKEN")
                return AwsKeys(
                    access_key_id=access_key,
                    secret_access_key=Secret(secret_key),
                    session_token=Secret(token) if token else None,
                )
        return self._through_botocore()

    def _through_botocore(self) -> AwsKeys:
        try:
            from botocore.exceptions import BotoCoreError
            from botocore.session import get_session
        except ImportError as exc:
            raise CredentialsError(
                "the environment holds no AWS keys that are sure to be fresh, and botocore is not installed",
                remedy=_NO_KEYS,
            ) from exc
        try:
            if self._found is None:
                self._found = get_session().get_credentials()
            frozen = self._found.get_frozen_credentials() if self._found is not None else None
        except BotoCoreError as exc:
            raise CredentialsError(f"no AWS keys: {exc}", remedy=_NO_KEYS, retryable=True) from exc
        if frozen is None:
            raise CredentialsError("no AWS keys are to be found", remedy=_NO_KEYS)
        return AwsKeys(
            access_key_id=frozen.access_key,
            secret_access_key=Secret(frozen.secret_key),
            session_token=Secret(frozen.token) if frozen.token else None,
        )
