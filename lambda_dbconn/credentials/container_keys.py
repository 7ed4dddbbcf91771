"""The keys that Lambda gives a function under SnapStart: one GET to this machine, within the caller's time.

botocore would cost 150 ms of import after each restore, and up to ten seconds when the endpoint is silent. It is left
to botocore what to do with anything that Lambda itself does not set.
Sources: Lambda guide, "Activating and managing Lambda SnapStart"; SDK reference guide, "Container credential provider".
"""

from __future__ import annotations

import os
import sys
import time

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.credentials import local_http
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.errors import CredentialsError, without_frames
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from typing import Any

_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - a variable's name
_FOR_BOTOCORE = (  # what comes before a container in its chain, or is read otherwise
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
_HOSTS = ("127.0.0.1", "localhost", "169.254.170.2", "169.254.170.23")
_HIGHEST_PORT = 65535
_SHORTEST_LIFE_S = 600  # botocore, too, gets new keys that long before the old ones expire
_EXPIRATION = "%Y-%m-%dT%H:%M:%SZ"  # compares as text
_TOO_MANY, _SERVER_FAULT = 429, 500
_REMEDY = f"Check {_URI} and {_TOKEN}, which Lambda sets."


class ContainerKeys(Value):
    """Keys, and when they expire.

    Attributes:
        keys: To sign with.
        expires: As the endpoint wrote it.
    """

    keys: AwsKeys
    expires: str

    @property
    def are_fresh(self) -> bool:
        """Whether they are good for ten minutes more; False when that cannot be told."""
        soon = time.strftime(_EXPIRATION, time.gmtime(time.time() + _SHORTEST_LIFE_S))
        return len(self.expires) == len(soon) and self.expires > soon


def may_be_asked() -> bool:
    """Say whether this is Lambda, and its own endpoint is the only place for keys."""
    if environment("AWS_LAMBDA_RUNTIME_API") is None or any(environment(name) for name in _FOR_BOTOCORE):
        return False
    return _where() is not None and not os.path.exists(os.path.expanduser("~/.aws"))  # noqa: PTH110, PTH111 - cheaper


def ask(limit_s: float) -> ContainerKeys:
    """Ask the endpoint: one round trip on this machine, within the limit.

    Raises:
        CredentialsError: It gives none, or not in time; `retryable` unless it refuses.
    """
    where = _where()
    assert where is not None  # noqa: S101 - `may_be_asked` said so
    outer = sys.exception()
    try:
        found = _ask(*where, limit_s)
    except OSError as exc:
        raise CredentialsError(
            f"the function's AWS keys were not to be had within {limit_s:.2f} s at {where[0]}:{where[1]}: {exc}",
            remedy=_REMEDY,
            retryable=True,
        ) from without_frames(exc, outer=outer)
    if isinstance(found, ContainerKeys):
        return found
    status, summary = found
    raise CredentialsError(
        f"{where[0]}:{where[1]} gave no AWS keys: it answered {summary}",
        remedy=_REMEDY,
        retryable=status == _TOO_MANY or status >= _SERVER_FAULT,
    )


def _where() -> tuple[str, int, str] | None:
    """Return host, port and path of the endpoint; None unless it is plain HTTP to this machine."""
    scheme, _, rest = (environment(_URI) or "").partition("://")
    authority, _, path = rest.partition("/")
    host, _, port = authority.partition(":")
    sent = rest + (environment(_TOKEN) or "")
    is_plain = scheme == "http" and host in _HOSTS and sent.isascii() and sent.isprintable()
    if not is_plain or " " in rest or "#" in rest:
        return None
    if not (port or "80").isdigit() or len(port) > len(str(_HIGHEST_PORT)):
        return None
    number = int(port or "80")
    return (host, number, f"/{path}") if 0 < number <= _HIGHEST_PORT else None


def _ask(host: str, port: int, path: str, limit_s: float) -> ContainerKeys | tuple[int, str]:
    """Return the keys, or the status and a summary of another answer. Raises nothing once there is an answer."""
    token = environment(_TOKEN)
    headers = "Accept: application/json\r\n" + (f"Authorization: {token}\r\n" if token else "")
    answer = local_http.get(host, port, path, headers, limit_s=limit_s)
    return (_keys(answer.body) if answer.status == local_http.OK else None) or (answer.status, answer.summary)


def _keys(body: bytes) -> ContainerKeys | None:
    import json

    try:
        said: Any = json.loads(body)
        names = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")
        key_id, secret, token, expires = (said.get(name) or "" for name in names)
    except (ValueError, AttributeError, RecursionError):
        return None
    texts = (key_id, secret, token, expires)
    if not (key_id and secret and all(isinstance(text, str) and text.isascii() for text in texts)):
        return None
    keys = AwsKeys(
        access_key_id=key_id, secret_access_key=Secret(secret), session_token=Secret(token) if token else None
    )
    return ContainerKeys(keys=keys, expires=expires)
