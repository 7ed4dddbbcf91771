"""The credentials' step: what there is to log in with, and who signs; never the secret part of it."""

from __future__ import annotations

import time

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.credentials import fetched as credentials_of
from lambda_dbconn.credentials.sigv4 import TOKEN_LIFETIME_S
from lambda_dbconn.doctor.report import Finding
from lambda_dbconn.errors import ConfigurationError, CredentialsError
from lambda_dbconn.settings.endpoint import classify

if TYPE_CHECKING:
    from typing import Any

    from lambda_dbconn.credentials import CredentialProvider
    from lambda_dbconn.deadline import Deadline
    from lambda_dbconn.secret import Secret
    from lambda_dbconn.settings import Settings

_ASK_STS_LIMIT_S = 2.0


def fetched(settings: Settings, provider: CredentialProvider, deadline: Deadline) -> Finding:
    """Get the credentials as a connection would, and say what they are.

    Raises:
        LambdaDbConnError: There are none.
    """
    credentials = credentials_of(provider, settings, deadline)
    facts: dict[str, Any] = {"auth": settings.auth, "user": credentials.user}
    if settings.auth == "iam" and credentials.password is not None:
        return _token(settings, provider, credentials.password, facts, deadline)
    if settings.auth == "secret":
        return _secret(settings, provider, facts, deadline)
    has_password = bool(credentials.password)
    found = f"as {credentials.user}, {'with a' if has_password else 'without'} password"
    return Finding(found=found, facts=facts | {"has_password": has_password})


def _token(
    settings: Settings, provider: CredentialProvider, token: Secret, facts: dict[str, Any], deadline: Deadline
) -> Finding:
    facts |= token_facts(token)
    notes = []
    if facts["signed_for"].partition(":")[0].lower() != settings.server_name.lower():
        notes.append(f"{settings.host} is an alias: the token is signed for the RDS name behind it")
    region = classify(settings.server_name).region
    if settings.region is not None and region not in (None, settings.region):
        notes.append(f"{settings.variable('region')} is {settings.region}, but the host's own region counts: {region}")
    keys = getattr(provider, "keys", None)
    facts["identity"] = None
    if keys is not None:
        from lambda_dbconn.doctor.identity import caller_arn

        try:
            limit_s = deadline.cap_s(_ASK_STS_LIMIT_S, doing="asking who signs")
            facts["identity"] = caller_arn(keys(), region=facts["region"], timeout_s=limit_s)
        except CredentialsError as error:
            notes.append(f"{error.message}: the key's id must do")
    signer = facts["identity"] or f"the key {facts['access_key_id']}"
    found = (
        f"an IAM token as {facts['user']}, signed by {signer} for {facts['signed_for']} in {facts['region']}, "
        f"good until {facts['expires_at']}"
    )
    return Finding(found=found, facts=facts, notes=tuple(notes))


def token_facts(token: Secret) -> dict[str, Any]:
    """Return what a token says of itself that is no secret."""
    from urllib.parse import parse_qs

    where, _, query = token.reveal().partition("/?")
    said = {name: values[0] for name, values in parse_qs(query).items() if name in _SHOWN}
    key, _, region, *_ = said["X-Amz-Credential"].split("/")
    signed_at = time.strptime(said["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    return {
        "signed_for": where,
        "user": said["DBUser"],
        "access_key_id": key,
        "region": region,
        "signed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", signed_at),
        "expires_at": _later(signed_at, int(said.get("X-Amz-Expires", TOKEN_LIFETIME_S))),
        "has_session_token": "X-Amz-Security-Token=" in query,
    }


_SHOWN = ("DBUser", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires")


def _later(moment: time.struct_time, seconds: int) -> str:
    from calendar import timegm

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(timegm(moment) + seconds))


def _secret(settings: Settings, provider: CredentialProvider, facts: dict[str, Any], deadline: Deadline) -> Finding:
    """Compare what a secret says besides with the settings; what was read is known, so this costs nothing."""
    read = getattr(provider, "settings", None)
    read_as: dict[str, Any] = read(deadline) if read is not None else {}
    notes = [value.message for value in read_as.values() if isinstance(value, ConfigurationError)]
    said = {field: value for field, value in read_as.items() if not isinstance(value, ConfigurationError)}
    facts |= {"secret_id": settings.secret_id, "has_password": True, "says": said}
    for field in ("engine", "name"):
        chosen = getattr(settings, field)
        if field in said and chosen is not None and said[field] != chosen:
            notes.append(f"the secret's {field} is {said[field]!r}, but {settings.variable(field)} is {chosen!r}")
    if said.get("host", settings.host) != settings.host and not settings.is_proxy:
        notes.append(f"the secret is for the host {said['host']!r}, but {settings.variable('host')} is another")
    besides = ", ".join(sorted(said)) or "nothing"
    found = (
        f"as {facts['user']}, by the secret {settings.secret_id}: user and password are there, and {besides} besides"
    )
    return Finding(found=found, facts=facts, notes=tuple(notes))
