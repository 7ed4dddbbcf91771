"""Checks IAM authentication tokens as AWS does: a token is a presigned request, and only its signer can make it.

Written from the specification and apart from the library's own signer, so that neither hides the other's mistake.
Source: AWS general reference, "Signature Version 4 signing process"; botocore's `generate_db_auth_token`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALGORITHM = "AWS4-HMAC-SHA256"
_LONGEST_LIFE_S = 900
_CLOCK_SKEW_S = 300
_DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_REQUIRED = {
    *("Action", "DBUser", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires"),
    *("X-Amz-SignedHeaders", "X-Amz-Signature"),
}
_OPTIONAL = {"X-Amz-Security-Token"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKey:
    """An access key whose owner may connect as any user.

    Attributes:
        access_key_id: Its public part.
        secret_access_key: Its secret part.
        session_token: What a temporary key's requests must carry as well.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class TokenError(ValueError):
    """A token is not good; the message says why, which AWS does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVerifier:
    """Knows where tokens must be for, and whose keys may sign them.

    Attributes:
        host: The endpoint's name, as tokens must be signed for.
        port: Its port.
        region: Its region.
        keys: By access key id.
    """

    host: str
    port: int
    region: str
    keys: Mapping[str, AwsKey]

    def verify(self, token: str, *, user: str, now_s: float) -> None:
        """Do nothing if the token lets this user in at this time.

        Raises:
            TokenError: It does not.
        """
        endpoint, _, query = token.partition("/?")
        fields = _fields(query)  # first of all: what is no token may be a password, and is not to be repeated
        if endpoint.lower() != f"{self.host}:{self.port}".lower():
            raise TokenError(f"it is for {endpoint[:100]!r} and not for {self.host}:{self.port}")
        signature = fields.pop("X-Amz-Signature")
        if fields["Action"] != "connect" or fields["X-Amz-Algorithm"] != _ALGORITHM:
            raise TokenError("it is not a request to connect")
        if fields["DBUser"] != user:
            raise TokenError(f"it is for the user {fields['DBUser']!r} and not for {user!r}")
        key_id, _, scope = fields["X-Amz-Credential"].partition("/")
        if scope != f"{fields['X-Amz-Date'][:8]}/{self.region}/rds-db/aws4_request":
            raise TokenError(f"it is signed for {scope!r} and not for rds-db in {self.region}")
        if key_id not in self.keys:
            raise TokenError(f"nobody has the access key {key_id!r}")
        key = self.keys[key_id]
        if fields.get("X-Amz-Security-Token") != key.session_token:
            raise TokenError("it has another session token than its access key")
        if not hmac.compare_digest(signature.encode(), self._signature(fields, key).encode()):
            raise TokenError("its signature is wrong")
        _check_time(fields, now_s)

    def _signature(self, fields: Mapping[str, str], key: AwsKey) -> str:
        host = self.host.lower()
        header = host if self.port == 443 else f"{host}:{self.port}"  # noqa: PLR2004 - HTTPS's own, which is left out
        query = "&".join(f"{_quoted(name)}={_quoted(fields[name])}" for name in sorted(fields))
        payload = hashlib.sha256(b"").hexdigest()
        request = f"GET\n/\n{query}\nhost:{header}\n\nhost\n{payload}"
        scope = fields["X-Amz-Credential"].partition("/")[2]
        hashed = hashlib.sha256(request.encode()).hexdigest()
        signing_key = b"AWS4" + key.secret_access_key.encode()
        for part in scope.split("/"):
            signing_key = hmac.digest(signing_key, part.encode(), "sha256")
        text = f"{_ALGORITHM}\n{fields['X-Amz-Date']}\n{scope}\n{hashed}"
        return hmac.new(signing_key, text.encode(), "sha256").hexdigest()


def _fields(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError as error:
        raise TokenError("it is not a presigned request") from error
    fields = dict(pairs)
    if len(fields) != len(pairs) or not _REQUIRED <= fields.keys() <= _REQUIRED | _OPTIONAL:
        raise TokenError("its parameters are not those of a presigned request to connect")
    return fields


def _check_time(fields: Mapping[str, str], now_s: float) -> None:
    try:
        signed_s = datetime.strptime(fields["X-Amz-Date"], _DATE_FORMAT).replace(tzinfo=UTC).timestamp()
        life_s = int(fields["X-Amz-Expires"])
    except ValueError as error:
        raise TokenError("its times cannot be read") from error
    if not 0 < life_s <= _LONGEST_LIFE_S:
        raise TokenError(f"it claims to live for {life_s} s")
    if now_s > signed_s + life_s:
        raise TokenError(f"it expired {now_s - signed_s - life_s:.0f} s ago")
    if now_s < signed_s - _CLOCK_SKEW_S:
        raise TokenError("it is signed in the future")


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
