"""Secrets Manager itself, through botocore, and what its refusals mean.

Sources: Secrets Manager API reference, "GetSecretValue" and "Common errors"; botocore's `exceptions.py`.
"""

from __future__ import annotations

import sys
import time

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.credentials import let_forget
from lambda_dbconn.credentials.aws_keys import FunctionKeys
from lambda_dbconn.credentials.secret_sources import BINARY, CURRENT, STORE_TEXT
from lambda_dbconn.credentials.wire_log import QuietWireLog
from lambda_dbconn.errors import CredentialsError, excerpt, without_frames
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from typing import Any

    from lambda_dbconn.credentials.aws_keys import AwsKeys

_LIMITS_S = (2.0, 1.0, 0.5, 0.2)  # a client's time limits are fixed when it is made: one for each of these at most
_SLACK_S = 0.05  # more than it takes to find that the keys are known
_SERVER_FAULT = 500
_NOT_FOUND = "ResourceNotFoundException"

_PERMISSION = "Allow the function's role secretsmanager:GetSecretValue on this secret."
_KMS = "Allow the function's role kms:Decrypt on the key that the secret is encrypted with, and see that it is enabled."
_LATER = "Try later: Secrets Manager limits the calls per second."
_KEYS = "Check the credentials that the function runs with, and the clock."
_NO_ROUTE = "Give the function's VPC an interface endpoint for Secrets Manager, or a NAT gateway."
_REGION = "Give SECRET_ID an ARN, or set REGION."
_STRANGER = "Check what stands between the function and Secrets Manager: a proxy, a firewall or the endpoint's address."

# By the service's error code: what to do, and whether a later try may succeed.
_REFUSALS = {
    "AccessDeniedException": (_PERMISSION, False),
    "AccessDenied": (_PERMISSION, False),
    "DecryptionFailure": (_KMS, False),
    _NOT_FOUND: ("Check SECRET_ID, and that the secret is in this region and account.", False),
    "InvalidRequestException": ("Check that the secret is not marked for deletion, and has a value.", False),
    "InvalidParameterException": ("Check SECRET_ID.", False),
    "ValidationException": ("Check SECRET_ID.", False),
    "UnrecognizedClientException": (_KEYS, False),
    "InvalidClientTokenId": (_KEYS, False),
    "InvalidSignatureException": (_KEYS, False),
    "ExpiredTokenException": (_KEYS, True),
    "ExpiredToken": (_KEYS, True),
    "Throttling": (_LATER, True),
    "ThrottlingException": (_LATER, True),
    "ThrottledException": (_LATER, True),
    "RequestLimitExceeded": (_LATER, True),
    "TooManyRequestsException": (_LATER, True),
    "LimitExceededException": (_LATER, True),
    "InternalServiceError": ("Try later: the fault is Secrets Manager's.", True),
}
_UNKNOWN = "Look the code up in Secrets Manager's API reference."

# By botocore's exception: likewise.
_FAILURES = {
    "NoCredentialsError": ("Give the function a role.", False),
    "PartialCredentialsError": ("Give the function a role.", False),
    "CredentialRetrievalError": (_KEYS, True),
    "RuntimeError": (_KEYS, True),  # refreshed, and still expired
    "NoRegionError": (_REGION, False),
    "InvalidRegionError": (_REGION, False),
    "ParamValidationError": ("Check SECRET_ID.", False),
    "EndpointConnectionError": (_NO_ROUTE, True),
    "ConnectTimeoutError": (_NO_ROUTE, True),
    "TimeoutError": ("Check that the VPC's DNS resolver can be reached.", True),
    "ReadTimeoutError": (_NO_ROUTE, True),
    "ConnectionClosedError": (_NO_ROUTE, True),
    "ProxyConnectionError": ("Check the variable HTTPS_PROXY.", True),
    "SSLError": ("Check the variable AWS_CA_BUNDLE.", False),
}


class ServiceSource:
    """Secrets Manager, through a client of botocore's session: boto3 would only add to the import.

    The first read imports botocore and makes a client, 0.3 s in a cold process; later ones only call.

    Args:
        region: Of the secret; None for botocore's own choice.
    """

    name = "secrets_manager"

    def __init__(self, *, region: str | None) -> None:
        self._region = region or environment("AWS_REGION")
        self._keys = FunctionKeys()
        self._clients: dict[float, Any] = {}
        self._signed_by: AwsKeys | None = None

    def read(self, secret_id: str, *, stage: str, timeout_s: float) -> Secret | None:
        """Call GetSecretValue, once: one round trip, and TLS's.

        Raises:
            CredentialsError: It cannot be had; `retryable` for throttling, outages and missing routes.
        """
        outer = sys.exception()
        try:
            from botocore.exceptions import ClientError
        except ImportError as exc:
            raise CredentialsError(
                "Secrets Manager is to be asked, but botocore is not installed", remedy="Install lambda-dbconn[aws]."
            ) from exc
        try:
            found = self._get(secret_id, stage, timeout_s)
        except CredentialsError:
            raise
        except ClientError as exc:
            error = _refusal(exc.response, secret_id, stage)
            if error is None:
                return None
            raise error from without_frames(exc, outer=outer)
        except Exception as exc:  # noqa: BLE001 - keys that have expired are a RuntimeError, a bad address a ValueError…
            raise _failure(exc, secret_id) from without_frames(exc, outer=outer)
        if isinstance(found, Secret):
            return found
        if found == BINARY:
            raise CredentialsError(f"the secret {secret_id!r} {BINARY}", remedy=STORE_TEXT)
        raise CredentialsError(
            f"the secret {secret_id!r} cannot be read: what answered in Secrets Manager's place sent {found}",
            remedy=_STRANGER,
        )

    def forget(self) -> None:
        """Forget the clients, and the AWS keys that they sign with."""
        self._clients = {}
        let_forget(self._keys)

    def _get(self, secret_id: str, stage: str, timeout_s: float) -> Secret | str:
        """Return the text, or what was answered instead."""
        with QuietWireLog():
            client = self._client(timeout_s)
            try:
                said = client.get_secret_value(SecretId=secret_id, VersionStage=stage)
            finally:
                client.close()  # its sockets: the next read is hours away, after a freeze or in a fork's child
        text = said.get("SecretString")
        if isinstance(text, str):
            return Secret(text)
        return BINARY if said.get("SecretBinary") else _summary(said.get("ResponseMetadata", {}))

    def _client(self, timeout_s: float) -> Any:
        """Return the client with the longest time limit within what getting its keys leaves of this one."""
        ends_at = time.monotonic() + timeout_s
        keys = self._keys.of_container(timeout_s)
        left_s = ends_at - time.monotonic() + _SLACK_S
        if keys != self._signed_by:
            self._clients = {}
            self._signed_by = keys
        limit_s = next((limit_s for limit_s in _LIMITS_S if limit_s <= left_s), _LIMITS_S[-1])
        client = self._clients.get(limit_s)
        if client is not None:
            _address_count(client.meta.endpoint_url, timeout_s)  # botocore would wait for a silent resolver
        else:
            from botocore.session import get_session

            session = get_session()
            client = _make(session, self._region, keys, connect_s=limit_s / 2, read_s=limit_s / 2)
            addresses = _address_count(client.meta.endpoint_url, timeout_s)
            if addresses > 1:  # each address gets the whole time limit, and without a route all are silent
                client = _make(session, self._region, keys, connect_s=limit_s / 2 / addresses, read_s=limit_s / 2)
            self._clients[limit_s] = client
        return client


def _make(session: Any, region: str | None, keys: AwsKeys | None, *, connect_s: float, read_s: float) -> Any:
    """Make a client that signs with these keys, or with those that botocore finds."""
    from botocore.config import Config

    limits = Config(connect_timeout=connect_s, read_timeout=read_s, retries={"total_max_attempts": 1})
    return session.create_client("secretsmanager", region_name=region, config=limits, **_signing(keys))


def _signing(keys: AwsKeys | None) -> dict[str, str | None]:
    if keys is None:
        return {}
    return {
        "aws_access_key_id": keys.access_key_id,
        "aws_secret_access_key": keys.secret_access_key.reveal(),
        "aws_session_token": keys.session_token.reveal() if keys.session_token else None,
    }


def _summary(answer: Any) -> str:
    """Return status, content type and size of an answer that botocore could not read."""
    headers = answer.get("HTTPHeaders", {})
    kind = excerpt(str(headers.get("content-type", ""))) or "no content type"
    return f"{answer.get('HTTPStatusCode')}, {kind}, {excerpt(str(headers.get('content-length', 'unknown')))} bytes"


def _address_count(url: str, timeout_s: float) -> int:
    """Return how many addresses the URL's host has, 1 if that cannot be said.

    Raises:
        TimeoutError: The resolver does not answer in time.
    """
    import socket
    from urllib.parse import urlsplit

    from botocore.utils import get_environ_proxies

    from lambda_dbconn._resolver import look_up

    if get_environ_proxies(url):
        return 1  # the proxy looks it up
    try:
        return len(look_up(socket.getaddrinfo, urlsplit(url).hostname, None, timeout_s=timeout_s)) or 1
    except TimeoutError:
        raise
    except (OSError, UnicodeError):
        return 1


def _refusal(response: Any, secret_id: str, stage: str) -> CredentialsError | None:
    """Return what the service's refusal means; None when all that is missing is a version with this label."""
    said = response.get("Error", {})
    code, message = str(said.get("Code", "")), str(said.get("Message", ""))
    if code == _NOT_FOUND and stage != CURRENT:
        return None
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    remedy, is_retryable = _REFUSALS.get(code, (_UNKNOWN, status >= _SERVER_FAULT))
    if remedy is _PERMISSION and "KMS" in message:
        remedy = _KMS
    if code == _NOT_FOUND and "staging label" in message:
        remedy = "Put a value into the secret."
    return CredentialsError(
        f"Secrets Manager refused the secret {secret_id!r}: {code}: {message}", remedy=remedy, retryable=is_retryable
    )


def _failure(error: Exception, secret_id: str) -> CredentialsError:
    """Return what a failure means that is not the service's own."""
    name = type(error).__name__
    remedy, is_retryable = _FAILURES.get(name, ("Check the SDK's configuration.", False))
    return CredentialsError(
        f"the secret {secret_id!r} cannot be read from Secrets Manager: {name}: {error}",
        remedy=remedy,
        retryable=is_retryable,
    )
