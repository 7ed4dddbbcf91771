"""`Description`: in plain words, what a manager decided from its settings. No secret, no network."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.tls import trust_for

if TYPE_CHECKING:
    from lambda_dbconn.credentials import CredentialProvider
    from lambda_dbconn.settings import Settings

# (engine or "" for both, whether only behind RDS Proxy, what is off, why).
_SWITCHED_OFF = (
    ("postgresql", False, "named prepared statements", "they may outlive their database connection, or pin it"),
    ("postgresql", False, "protocol versions above 3.0", "RDS Proxy speaks no other"),
    ("postgresql", True, "PGOPTIONS and the like", "RDS Proxy refuses the start-up parameters that they become"),
    ("mysql", True, "executemany statements over 16,000 bytes", "one of more than 16 KB pins the session"),
    ("mysql", False, "isolation levels for the next transaction only", "they pin the session; the session's is set"),
)
_LOGINS = {  # by name: those that are not used are not imported
    "IamProvider": "as {user} with an IAM token, signed anew for each connection",
    "SecretsManagerProvider": "with the secret {secret}, read when it is first needed and again when it is refused",
    "StaticProvider": "as {user} with the password of the settings, if there is one",
}
_PINS = {
    "warn": "sent and reported",
    "raise": "refused, before they are sent",
    "ignore": "sent and not reported",
}


class Description(Value):
    """What a manager decided; `str()` of it is a text of a few lines.

    Attributes:
        engine: `postgresql` or `mysql`.
        endpoint: Where it connects, and what that is.
        login: Who it logs in as, and with what.
        tls: Whom it trusts.
        limits: How long things may take and last, one sentence each.
        pins: What is done about statements that pin the session.
        reader: What `reader` is.
        switched_off: What the drivers would do and do not here, and why, one sentence each.
    """

    engine: str
    endpoint: str
    login: str
    tls: str
    limits: tuple[str, ...]
    pins: str
    reader: str
    switched_off: tuple[str, ...]

    def __str__(self) -> str:
        lines = (("limits", self.limits), ("switched off", self.switched_off))
        return "\n".join(
            [
                f"endpoint: {self.engine} at {self.endpoint}",
                f"login: {self.login}",
                f"tls: {self.tls}",
                *(f"{title}: {line}" for title, said in lines for line in said),
                f"statements that pin: {self.pins}",
                f"reader: {self.reader}",
            ]
        )


def describe(settings: Settings, credentials: CredentialProvider, fallback: str | None = None) -> Description:
    """Put into words what these settings and this provider lead to; `fallback` is where a reader reads otherwise."""
    return Description(
        engine=settings.engine,
        endpoint=_endpoint(settings),
        login=_login(settings, credentials),
        tls=_tls(settings),
        limits=(
            f"opening a connection takes {settings.connect_timeout_s:g} s at most, all tries together"
            + (f", and as long at {fallback}" if fallback else ""),
            f"{settings.reserve_s:g} s of the invocation are left to the handler",
            f"a connection idle for {settings.ping_idle_s:g} s is pinged before it is lent",
            f"one idle for {settings.max_idle_s:g} s is replaced, up to 5 % sooner, at random",
            f"one open for {settings.max_lifetime_s:g} s is replaced, up to 5 % sooner, at random",
            f"at most {settings.max_connections} at once",
        ),
        pins=_pins(settings),
        reader=f"the same, and {fallback} while it cannot be reached" if fallback else _reader(settings),
        switched_off=tuple(
            f"{what}: {why}"
            for engine, is_for_proxy, what, why in _SWITCHED_OFF
            if engine == settings.engine and (settings.is_proxy or not is_for_proxy)
        ),
    )


def _endpoint(settings: Settings) -> str:
    kind = settings.endpoint.kind.value
    behind = f", in truth {settings.signing_host}" if settings.signing_host else ""
    if settings.is_proxy and not settings.endpoint.is_proxy:
        behind += ", an RDS Proxy endpoint"
    return f"{settings.address} ({kind}{behind}), database {settings.name or 'by default'}"


def _login(settings: Settings, credentials: CredentialProvider) -> str:
    words = _LOGINS.get(type(credentials).__name__)
    if words is None:
        return f"with what {type(credentials).__name__} gives for each connection"
    return words.format(user=settings.user, secret=settings.secret_id)


def _tls(settings: Settings) -> str:
    trust = trust_for(settings)
    if not trust.is_verified:
        return "none: sslmode is disable"
    return f"certificate and the name {settings.server_name} are verified against {trust.cafile}"


def _pins(settings: Settings) -> str:
    is_closed = settings.is_proxy and settings.reset != "never" and settings.pin_action != "raise"
    return _PINS[settings.pin_action] + ("; their connection is closed at release" if is_closed else "")


def _reader(settings: Settings) -> str:
    if settings.reader_host in (None, settings.host):
        return "the same"
    if settings.reader_fallback == "writer":
        return f"{settings.reader_host}, and {settings.host} while that cannot be reached"
    return str(settings.reader_host)
