"""Where a secret's text comes from: the extension that runs beside the function, or Secrets Manager itself.

Sources: Secrets Manager user guide, "Use AWS Secrets Manager secrets in AWS Lambda functions" and "GetSecretValue".
"""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, Protocol
from lambda_dbconn.errors import CredentialsError
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from typing import Any

CURRENT, PENDING = "AWSCURRENT", "AWSPENDING"

_DEFAULT_PORT = "2773"
_OK, _BAD_REQUEST = 200, 400
_NO_ROUTE = "Give the function's VPC an interface endpoint for Secrets Manager, or a NAT gateway."
_PERMISSION = "Allow the function's role secretsmanager:GetSecretValue on this secret, and kms:Decrypt on its key."
_REMEDIES = {  # by the service's error code: remedy, and whether a later try may succeed
    "AccessDeniedException": (_PERMISSION, False),
    "DecryptionFailure": (
        "Allow the function's role kms:Decrypt on the secret's key, and check that it is enabled.",
        False,
    ),
    "ResourceNotFoundException": ("Check SECRET_ID, and that the secret is in this region and account.", False),
    "InvalidRequestException": ("Check that the secret is not marked for deletion.", False),
    "InvalidParameterException": ("Check SECRET_ID.", False),
    "UnrecognizedClientException": ("Check the credentials that the function runs with.", False),
    "ExpiredTokenException": ("Check the credentials that the function runs with.", True),
    "ThrottlingException": ("Try later: Secrets Manager limits the calls per second.", True),
    "LimitExceededException": ("Try later: Secrets Manager limits the calls per second.", True),
    "InternalServiceError": ("Try later: the fault is Secrets Manager's.", True),
}


class SecretSource(Protocol):
    """Gives a secret's text. May block, for `timeout_s` at most; threads may call it."""

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        """Return the text of the version with this staging label; None when there is no such version.

        Raises:
            CredentialsError: It cannot be had.
        """


class ExtensionSource:
    """The AWS Parameters and Secrets Lambda Extension, over loopback; it caches for up to five minutes.

    Imports no SDK. `is_there` is found out by connecting: an extension listens in its own sandbox only.
    """

    def __init__(self, *, host: str = "localhost") -> None:
        self._host = host
        self._port = int(environment("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT") or _DEFAULT_PORT)

    def is_there(self) -> bool:
        """Say whether something listens on the extension's port, and this is Lambda."""
        if environment("AWS_LAMBDA_RUNTIME_API") is None:
            return False
        import socket

        try:
            socket.create_connection((self._host, self._port), timeout=0.2).close()
        except OSError:
            return False
        return True

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        """Ask the extension: one round trip over loopback, or one to Secrets Manager when its cache is cold.

        Raises:
            CredentialsError: It is not ready (during init), or the service refused.
        """
        import http.client
        import json
        from urllib.parse import urlencode

        query = urlencode({"secretId": secret_id, "versionStage": stage})
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(
                "GET",
                f"/secretsmanager/get?{query}",
                headers={"X-Aws-Parameters-Secrets-Token": environment("AWS_SESSION_TOKEN") or ""},
            )
            response = connection.getresponse()
            body = response.read()
        except OSError as exc:
            raise CredentialsError(f"the secrets extension does not answer: {exc}", retryable=True) from exc
        finally:
            connection.close()
        if response.status != _OK:
            raise CredentialsError(
                f"the secrets extension answered {response.status} for the secret {secret_id!r}",
                remedy=_PERMISSION,
                retryable=response.status != _BAD_REQUEST,
            )
        return _text_of(json.loads(body), secret_id)


class BotocoreSource:
    """Secrets Manager itself, through botocore: no boto3, whose import buys nothing here.

    The first read imports botocore and makes a client (0.3 s cold); later ones only call.
    """

    def __init__(self, *, region: str | None, client: Any = None) -> None:
        self._region = region
        self._client = client
        self._limit_s = 0.0

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        """Call GetSecretValue: one round trip.

        Raises:
            CredentialsError: It cannot be had; `retryable` for throttling, outages and missing routes.
        """
        try:
            from botocore import exceptions
        except ImportError as exc:
            raise CredentialsError(
                "Secrets Manager is to be asked, but botocore is not installed", remedy="Install lambda-dbconn[aws]."
            ) from exc
        try:
            answer = self._connected(timeout_s).get_secret_value(SecretId=secret_id, VersionStage=stage)
        except exceptions.ClientError as exc:
            code = exc.response.get("Error", {}).get("Code", "")
            if code == "ResourceNotFoundException" and stage != CURRENT:
                return None
            remedy, retryable = _REMEDIES.get(code, ("Look the code up in Secrets Manager's API reference.", False))
            raise CredentialsError(
                f"Secrets Manager refused the secret {secret_id!r}: {code}", remedy=remedy, retryable=retryable
            ) from exc
        except exceptions.NoCredentialsError as exc:
            raise CredentialsError(
                "no AWS keys to ask Secrets Manager with", remedy="Give the function a role."
            ) from exc
        except exceptions.BotoCoreError as exc:
            raise CredentialsError(
                f"Secrets Manager cannot be reached: {exc}", remedy=_NO_ROUTE, retryable=True
            ) from exc
        return _text_of(answer, secret_id)

    def _connected(self, timeout_s: float) -> Any:
        """Return the client; its time limits are fixed when it is made, so a shorter one needs another client."""
        if self._client is None or 0 < timeout_s < self._limit_s:
            from botocore.config import Config
            from botocore.session import get_session

            self._limit_s = timeout_s
            self._client = get_session().create_client(
                "secretsmanager",
                region_name=self._region,
                config=Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1}),
            )
        return self._client


def _text_of(answer: Any, secret_id: str) -> Secret:
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise CredentialsError(
            f"the secret {secret_id!r} is binary",
            remedy="Store it as a JSON string, as the RDS console does.",
        )
    return Secret(text)
