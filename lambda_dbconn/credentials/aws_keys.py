"""The AWS keys that the function runs with: from the environment where they are sure to be fresh, else from botocore.

Under SnapStart they come from Lambda's endpoint on this machine, if nothing says that botocore should look for them.

And how a text is written in a request that they sign.

Sources: Lambda guide, "Defined runtime environment variables" and "Activating and managing Lambda SnapStart".
"""

from __future__ import annotations

import sys

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.errors import CredentialsError, without_frames
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.credentials.container_keys import ContainerKeys

KEYS_LIMIT_S = 2.0  # of getting keys, if nobody gives another limit

_REMEDY = "Run where a role gives credentials, or install lambda-dbconn[aws] for profiles and the like."

# Where one of these is set the environment's keys are not the role's, or may have expired.
_BETTER_ASK = (
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CREDENTIAL_EXPIRATION",
)

# What botocore raises when only somebody's hand can help; of the rest another try may be worth its time.
_FINAL = frozenset(
    (
        "ConfigParseError",
        "FileNotFoundError",
        "ParserError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "UnauthorizedSSOTokenError",
        "ValueError",
    )
)


_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")


def quoted(text: str) -> str:
    """Percent-encode all but RFC 3986's unreserved characters; `urllib.parse` would cost an import of 7 ms."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


class AwsKeys(Value):
    """What AWS requests are signed with.

    Attributes:
        access_key_id: The key's public part.
        secret_access_key: Its secret part.
        session_token: What goes with keys that expire.
    """

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


def keys_within(keys: Callable[[], AwsKeys], limit_s: float) -> AwsKeys:
    """Call what gives keys, with the time that it may take if it has a method `within` for that."""
    within = getattr(keys, "within", None)
    found: AwsKeys = keys() if within is None else within(limit_s)
    return found


class FunctionKeys:
    """Gives the keys of the function's role as they are now; threads may share it.

    What comes from botocore's chain, botocore keeps fresh.
    Under SnapStart the runtime sets no keys but a container URI, and what a snapshot remembers may have expired.
    """

    def __init__(self) -> None:
        self._found: Any = None
        self._of_container: ContainerKeys | None = None

    def __call__(self) -> AwsKeys:
        """Return the keys that are valid now, within two seconds.

        Raises:
            CredentialsError: There are none.
        """
        return self.within(KEYS_LIMIT_S)

    def within(self, limit_s: float) -> AwsKeys:
        """Return the keys that are valid now.

        Free from the environment; one round trip on this machine under SnapStart, for hours. Through botocore its own
        time limits apply, and not this one: a second or two for each try at an instance's address.

        Raises:
            CredentialsError: There are none, or not in time.
        """
        is_snapshot = environment("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"
        if not is_snapshot and not any(environment(name) for name in _BETTER_ASK):
            access_key, secret_key = environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY")
            if access_key and secret_key:
                return _keys(access_key, secret_key, environment("AWS_SESSION_TOKEN"))
        return self.of_container(limit_s) or self._through_botocore()

    def of_container(self, limit_s: float) -> AwsKeys | None:
        """Return the keys of Lambda's endpoint on this machine; None where botocore should look for keys.

        Raises:
            CredentialsError: It gives none, or not in time.
        """
        if environment("AWS_CONTAINER_CREDENTIALS_FULL_URI") is None:
            return None
        from lambda_dbconn.credentials import container_keys

        if not container_keys.may_be_asked():
            return None
        known = self._of_container
        if known is None or not known.are_fresh:
            known = self._of_container = container_keys.ask(limit_s)
        return known.keys

    def forget(self) -> None:
        """Forget what was found."""
        self._found = self._of_container = None

    def _through_botocore(self) -> AwsKeys:
        outer = sys.exception()
        try:
            from botocore.session import get_session
        except ImportError as exc:
            raise CredentialsError(
                "the environment holds no AWS keys that are sure to be fresh, and botocore is not installed",
                remedy=_REMEDY,
            ) from exc
        from lambda_dbconn.credentials.wire_log import QuietWireLog

        try:
            with QuietWireLog():  # a role that is assumed has its keys in STS's answer
                if self._found is None:
                    self._found = get_session().get_credentials()
                if self._found is not None:
                    return _keys(*self._found.get_frozen_credentials()[:3])
        except Exception as exc:  # noqa: BLE001 - keys that have expired are a RuntimeError, a bad address a ValueError…
            name = type(exc).__name__
            raise CredentialsError(
                f"no AWS keys could be had: {name}: {exc}", remedy=_REMEDY, retryable=name not in _FINAL
            ) from without_frames(exc, outer=outer)
        raise CredentialsError("no AWS keys are to be found", remedy=_REMEDY)


def _keys(access_key: str, secret_key: str, token: str | None) -> AwsKeys:
    return AwsKeys(
        access_key_id=access_key,
        secret_access_key=Secret(secret_key),
        session_token=Secret(token) if token else None,
    )
