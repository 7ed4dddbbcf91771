"""`SecretSource`: where a secret's text comes from; and the one that is nearest, the extension beside the function.

Source: Secrets Manager user guide, "Use AWS Secrets Manager secrets in AWS Lambda functions".
"""

from __future__ import annotations

import sys
import time

from lambda_dbconn._values import TYPE_CHECKING, Protocol
from lambda_dbconn.credentials import let_forget, local_http
from lambda_dbconn.credentials.aws_keys import FunctionKeys, keys_within, quoted
from lambda_dbconn.errors import ConfigurationError, CredentialsError, without_frames
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.credentials.aws_keys import AwsKeys

CURRENT, PENDING = "AWSCURRENT", "AWSPENDING"
BINARY = "is binary"
STORE_TEXT = "Store it as text: a JSON object, as RDS does."

_HOST, _PORT = "localhost", "2773"
_PORT_VARIABLE = "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"
_LARGEST_PORT = 65535
_CONNECT_LIMIT_S = 0.2


class SecretSource(Protocol):
    """Gives a secret's text. May block, for `timeout_s` at most; threads may call it.

    One that keeps something has a method `forget()`, too, for what a SnapStart restore makes stale.

    Attributes:
        name: For events.
    """

    name: str

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        """Return the text of the version with this staging label; None when no version has it.

        Raises:
            CredentialsError: It cannot be had.
        """


class ExtensionSource:
    """The AWS Parameters and Secrets Lambda Extension, over loopback; it caches for up to five minutes.

    Args:
        keys: Gives the session token that the extension asks for, as `FunctionKeys` does.

    Raises:
        ConfigurationError: The variable that names its port does not.
    """

    name = "extension"

    def __init__(self, *, keys: Callable[[], AwsKeys] | None = None) -> None:
        self._keys = keys if keys is not None else FunctionKeys()
        self._address = _HOST, _port()

    def is_there(self) -> bool:
        """Say whether this is Lambda, and something listens on the extension's port. Blocks for 0.2 s at most."""
        if environment("AWS_LAMBDA_RUNTIME_API") is None:
            return False
        import socket

        try:
            socket.create_connection(self._address, timeout=_CONNECT_LIMIT_S).close()
        except OSError:
            return False
        return True

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        """Ask the extension: a round trip over loopback, and one to Secrets Manager when its cache is cold.

        Raises:
            CredentialsError: It is not ready, as during init, or could not have the secret itself.
        """
        outer = sys.exception()
        try:
            found = self._ask(secret_id, stage, timeout_s)
        except OSError as exc:
            raise CredentialsError(
                f"the secrets extension did not answer within {timeout_s:.2f} s: {exc}", retryable=True
            ) from without_frames(exc, outer=outer)
        if isinstance(found, Secret):
            return found
        if found == BINARY:
            raise CredentialsError(f"the secret {secret_id!r} {BINARY}", remedy=STORE_TEXT)
        raise CredentialsError(
            f"the secrets extension answered {found} for the secret {secret_id!r}",
            remedy="Look at the extension's own lines in the function's log.",
            retryable=True,
        )

    def forget(self) -> None:
        """Forget the AWS keys, where they are kept."""
        let_forget(self._keys)

    def _ask(self, secret_id: str, stage: str, timeout_s: float) -> Secret | str:
        """Return the secret's text, or what was answered instead. Raises nothing once there is an answer."""
        ends_at = time.monotonic() + timeout_s
        token = keys_within(self._keys, timeout_s).session_token
        answer = local_http.get(
            *self._address,
            f"/secretsmanager/get?secretId={quoted(secret_id)}&versionStage={stage}",
            f"X-Aws-Parameters-Secrets-Token: {token.reveal() if token else ''}\r\n",
            limit_s=ends_at - time.monotonic(),
        )
        return _text(answer) if answer.status == local_http.OK else answer.summary


def _port() -> int:
    text = environment(_PORT_VARIABLE) or _PORT
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST_PORT)) else 0
    if not 0 < port <= _LARGEST_PORT:
        raise ConfigurationError(f"{_PORT_VARIABLE} is {text!r}; accepted: a port, from 1 to {_LARGEST_PORT}")
    return port


def _text(answer: local_http.Answer) -> Secret | str:
    """Return the secret's text from a good answer, or what it is instead."""
    import json

    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return answer.summary
    text = said.get("SecretString")
    if isinstance(text, str):
        return Secret(text)
    return BINARY if said.get("SecretBinary") else answer.summary
