"""`SecretSource`: where a secret's text comes from; and the one that is nearest, the extension beside the function.

Source: Secrets Manager user guide, "Use AWS Secrets Manager secrets in AWS Lambda functions".
"""

from __future__ import annotations

import sys
import time

from lambda_dbconn.credentials import let_forget
from lambda_dbconn.credentials.aws_keys import FunctionKeys, quoted
from lambda_dbconn.errors import ConfigurationError, CredentialsError, without_frames
from lambda_dbconn.light import TYPE_CHECKING, Protocol
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
_OK = 200
_LONGEST_ANSWER_BYTES = 1_000_000  # a secret has 65,536 at most


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

    Speaks HTTP/1.0 by itself: an HTTP client's import is half of what the library may add to a cold start.

    Args:
        keys: Gives the session token that the extension asks for: the environment's, or under SnapStart botocore's.

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
            status, text = self._ask(secret_id, stage, timeout_s)
        except OSError as exc:
            raise CredentialsError(
                f"the secrets extension did not answer within {timeout_s:.2f} s: {exc}", retryable=True
            ) from without_frames(exc, outer=outer)
        if status != _OK:
            raise CredentialsError(
                f"the secrets extension answered {status} for the secret {secret_id!r}",
                remedy="Look at the extension's own lines in the function's log.",
                retryable=True,
            )
        if text is None:
            raise CredentialsError(f"the secret {secret_id!r} {BINARY}", remedy=STORE_TEXT)
        return text

    def forget(self) -> None:
        """Forget the AWS keys, where they are kept."""
        let_forget(self._keys)

    def _ask(self, secret_id: str, stage: str, timeout_s: float) -> tuple[int, Secret | None]:
        """Return the HTTP status and the secret's text."""
        import socket

        token = self._keys().session_token
        ends_at = time.monotonic() + timeout_s
        request = (
            f"GET /secretsmanager/get?secretId={quoted(secret_id)}&versionStage={stage} HTTP/1.0\r\n"
            f"Host: {_HOST}\r\nX-Aws-Parameters-Secrets-Token: {token.reveal() if token else ''}\r\n\r\n"
        )
        answer = b""
        with socket.create_connection(self._address, timeout=timeout_s) as connection:
            connection.sendall(request.encode())
            while len(answer) < _LONGEST_ANSWER_BYTES:
                connection.settimeout(max(0.001, ends_at - time.monotonic()))
                received = connection.recv(65536)
                if not received:
                    break
                answer += received
        return _status_and_text(answer)


def _port() -> int:
    text = environment(_PORT_VARIABLE) or _PORT
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST_PORT)) else 0
    if not 0 < port <= _LARGEST_PORT:
        raise ConfigurationError(f"{_PORT_VARIABLE} is {text!r}; accepted: a port, from 1 to {_LARGEST_PORT}")
    return port


def _status_and_text(answer: bytes) -> tuple[int, Secret | None]:
    """Take an HTTP answer apart; status 0 when it is none, or no JSON."""
    import json

    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if status != _OK:
        return status, None
    try:
        said = json.loads(body)
    except ValueError:
        return 0, None
    text = said.get("SecretString") if isinstance(said, dict) else None
    return status, Secret(text) if isinstance(text, str) else None
