"""An RDS authentication token: a presigned `connect` request, signed as AWS's Signature Version 4 prescribes.

Written out rather than left to an SDK because it needs no network and 0.1 ms, and an SDK's import 200. Compared with
botocore's result, byte for byte, over generated inputs in this project's tests.
Sources: AWS general reference, "Signature Version 4 signing process"; botocore's `signers.py`.
"""

from __future__ import annotations

import hashlib
import hmac

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.credentials.aws_keys import quoted
from lambda_dbconn.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lambda_dbconn.credentials.aws_keys import AwsKeys

TOKEN_LIFETIME_S = 900

_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "rds-db"
_HTTPS_PORT = 443


def sign_token(*, host: str, port: int, user: str, region: str, keys: AwsKeys, timestamp: str) -> Secret:
    """Return a token with which `user` may log in at `host` for fifteen minutes. No round trip.

    Args:
        host: The endpoint's name as the server knows it, case kept.
        port: The endpoint's port.
        user: The database user.
        region: The endpoint's AWS region.
        keys: Of an identity that may `rds-db:connect` as the user.
        timestamp: Now, in UTC, as `20261122T160531Z`.
    """
    if ":" in host:  # an IPv6 address, as a URL writes it
        host = f"[{host}]"
    scope = f"{timestamp[:8]}/{region}/{_SERVICE}/aws4_request"
    parameters = {
        "Action": "connect",
        "DBUser": user,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key_id}/{scope}",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(TOKEN_LIFETIME_S),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.session_token:
        parameters["X-Amz-Security-Token"] = keys.session_token.reveal()
    pairs = [f"{name}={quoted(value)}" for name, value in parameters.items()]
    # As botocore signs it: the name in lower case (the token's own text keeps it), HTTPS's own port left out.
    header = host.lower() if port == _HTTPS_PORT else f"{host.lower()}:{port}"
    empty_hash = hashlib.sha256(b"").hexdigest()
    request = "\n".join(("GET", "/", "&".join(sorted(pairs)), f"host:{header}", "", "host", empty_hash))
    to_sign = "\n".join((_ALGORITHM, timestamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = _sign(f"AWS4{keys.secret_access_key.reveal()}".encode(), (*scope.split("/"), to_sign)).hex()
    return Secret(f"{host}:{port}/?{'&'.join(pairs)}&X-Amz-Signature={signature}")


def _sign(key: bytes, messages: Iterable[str]) -> bytes:
    """Sign each message with the signature of the one before it."""
    for message in messages:
        key = hmac.digest(key, message.encode(), "sha256")
    return key
