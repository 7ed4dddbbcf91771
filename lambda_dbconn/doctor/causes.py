"""Why a step may have failed, the likeliest cause first, and what to do about each.

Sources: RDS user guide, "Troubleshooting for RDS Proxy", "Setting up database credentials for RDS Proxy", "Using
TLS/SSL with RDS Proxy" and "Troubleshooting for IAM DB authentication"; Lambda guide, "Giving Lambda functions access
to resources in an Amazon VPC". The order is our judgement.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.credentials.secret_content import STORE_AS_RDS
from lambda_dbconn.credentials.secret_sources import STORE_TEXT
from lambda_dbconn.doctor.report import Cause
from lambda_dbconn.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectTimeoutError,
    ProxyBusyError,
    ProxyRefusedError,
)
from lambda_dbconn.settings.model import PORTS
from lambda_dbconn.tls import RDS_BUNDLE_URL

if TYPE_CHECKING:
    from lambda_dbconn.errors import LambdaDbConnError
    from lambda_dbconn.settings import Settings

_OF_THE_CONTENT = (STORE_AS_RDS, STORE_TEXT)  # a secret was read, and is not of the right shape

_BETWEEN = Cause(
    cause="something between here and the server takes connections and cannot pass them on",
    fix="Look at the tunnel, load balancer or firewall, and whether its target is up.",
)
_HUNG_UP = Cause(
    cause="the server is starting, stopping or failing over, or has no connection left",
    fix="Wait, and look at its connections.",
)
_IMPOSTOR = Cause(
    cause="what answers is not the server: an interception, or an alias that leads elsewhere",
    fix="See to where the name resolves, and who the issuer is.",
)
_TOO_OLD = Cause(
    cause="the server speaks no TLS version, or no cipher, that is taken here: TLS 1.2 is the oldest",
    fix="Let it speak TLS 1.2 or later (ssl_min_protocol_version, tls_version in the parameter group).",
)


def of_settings(error: LambdaDbConnError) -> tuple[Cause, ...]:
    """Each fault is a cause, and says itself what is accepted; the secret that was to fill a gap may be at fault."""
    if isinstance(error, ConfigurationError):
        return tuple(Cause(cause=fault, fix="Correct it as it says.") for fault in error.faults)
    return (
        Cause(cause="the secret was to say what is not set, and cannot be had", fix=error.remedy),
        Cause(cause="engine, host or name is not set", fix="Set all three, and the secret is not needed for them."),
    )


def of_dns(settings: Settings, *, is_temporary: bool) -> tuple[Cause, ...]:
    """The host has no address, or no resolver says so."""
    host = settings.variable("host")
    misspelt = Cause(
        cause=f"{host} is misspelt, or the proxy or database of that name is gone",
        fix="Compare it with the endpoint that the RDS console or describe-db-proxies shows.",
    )
    private = Cause(
        cause="the name exists only inside a VPC, and this runs outside of it or in another one",
        fix="Attach the function to the database's VPC, or associate the private hosted zone with its VPC.",
    )
    resolver = Cause(
        cause="no resolver can be reached",
        fix="Switch enableDnsSupport on for the VPC, or see that the name servers of its DHCP options can be reached.",
    )
    return (resolver, misspelt, private) if is_temporary else (misspelt, private, resolver)


def of_tcp(settings: Settings, kind: str) -> tuple[Cause, ...]:
    """No address takes a connection: `refused`, `reset`, `unreachable` or `silent`."""
    port = settings.variable("port")
    stands = "proxy" if settings.is_proxy else "database"
    standard = PORTS[settings.engine]
    wrong_port = Cause(
        cause=f"{port} is not the {stands}'s",
        fix=f"Set {port} to {standard}"
        + (", on which every RDS Proxy listens." if settings.is_proxy else ", or to the port that the server has."),
    )
    stopped = Cause(
        cause=f"the {stands} is stopped, starting or failing over",
        fix=f"See that its status is available, and wait. ({settings.variable('host')} may be another's, too.)",
    )
    no_route = Cause(
        cause="the function is in no VPC, or in one that has no route to this one",
        fix=f"Attach the function to subnets of the {stands}'s VPC, or peer the two and add routes.",
    )
    if kind == "refused":
        return (wrong_port, stopped)
    if kind == "reset":
        return (_BETWEEN, stopped, wrong_port)
    if kind == "unreachable":
        return (no_route, wrong_port)
    return (
        Cause(
            cause=f"the {stands}'s security group does not let the function in",
            fix=f"Add an inbound rule for TCP port {settings.port} from the function's security group.",
        ),
        Cause(
            cause="the function's security group does not let it out",
            fix=f"Add an outbound rule for TCP port {settings.port} to the {stands}'s security group.",
        ),
        no_route,
        Cause(
            cause="a subnet's network ACL drops the packets, or the answers",
            fix=f"Let port {settings.port} pass one way, and ports 1024 to 65535 the other.",
        ),
        stopped,
    )


def of_tls(settings: Settings, kind: str) -> tuple[Cause, ...]:
    """There is no verified TLS; `kind` says how it failed."""
    root, signing = settings.variable("sslrootcert"), settings.variable("signing_host")
    other_engine = Cause(
        cause="something else listens there",
        fix=f"Check {settings.variable('engine')}, {settings.variable('host')} and {settings.variable('port')}.",
    )
    wrong_ca = Cause(
        cause=f"{root}, or what is trusted where it is not set, does not hold the authority that signed the "
        "certificate",
        fix="A proxy's certificate is of Amazon's public authorities: leave the variable unset, and take a newer "
        f"release if that does not help. A direct host's is of RDS's own: give it {RDS_BUNDLE_URL}.",
    )
    by_kind = {
        "not offered": (
            Cause(
                cause="TLS is switched off at the server",
                fix=f"Switch it on; {settings.variable('sslmode')}=disable is for development only.",
            ),
            other_engine,
        ),
        "refused": (_HUNG_UP, other_engine),
        "other protocol": (other_engine,),
        "silent": (_BETWEEN, other_engine, _HUNG_UP),
        "closed": (_HUNG_UP, _BETWEEN, other_engine),
        "version": (_TOO_OLD, other_engine),
        "other": (_TOO_OLD, _BETWEEN, other_engine),
        "chain": (
            wrong_ca,
            Cause(
                cause="the file is older than the authority: RDS's have been renewed",
                fix=f"Package a new {RDS_BUNDLE_URL}.",
            ),
            _IMPOSTOR,
        ),
        "name": (
            Cause(
                cause=f"{settings.variable('host')} is an alias, an address or a tunnel, which the certificate does "
                "not name",
                fix=f"Connect by the endpoint's own name, or set {signing} to it.",
            ),
            Cause(cause=f"{signing} is not the name of what answers", fix="Correct it, or unset it."),
            _IMPOSTOR,
        ),
        "expiry": (
            Cause(
                cause="the certificate was not renewed in time",
                fix="Renew it at the server: for an RDS instance, choose a new certificate authority.",
            ),
            Cause(cause="the clock of this machine is wrong", fix="Set it."),
        ),
    }
    return by_kind[kind]


def of_trust(settings: Settings, error: LambdaDbConnError) -> tuple[Cause, ...]:
    """There is no file to verify the server with, or none that can be read."""
    return (
        Cause(cause="the file with the authorities is missing or not a PEM file", fix=error.remedy),
        Cause(
            cause=f"the path in {settings.variable('sslrootcert')} is that of another machine",
            fix="In a function, what is packaged lies below /var/task, a layer's files below /opt.",
        ),
    )


def of_credentials(settings: Settings, error: LambdaDbConnError) -> tuple[Cause, ...]:
    """Nothing could be had to log in with."""
    said = Cause(cause="what it says", fix=error.remedy)
    if isinstance(error, ConfigurationError):
        return (said,)
    if settings.auth == "iam":
        return (Cause(cause="the function has no role, or its keys have expired", fix="Give it a role."), said)
    if settings.auth != "secret" or error.remedy in _OF_THE_CONTENT:
        return (said,)
    permission = Cause(
        cause="the role may not read the secret, or not decrypt it",
        fix="Allow secretsmanager:GetSecretValue, and kms:Decrypt for a key of your own: lambda-dbconn iam-policy "
        "prints the least policy.",
    )
    route = Cause(
        cause="the function has no way to Secrets Manager",
        fix="Give its VPC an interface endpoint for Secrets Manager, or a NAT gateway.",
    )
    return (said, route, permission) if error.retryable else (said, permission, route)


def of_login(settings: Settings, error: LambdaDbConnError) -> tuple[Cause, ...]:
    """The server or proxy did not let us in; what it said itself comes first."""
    said = Cause(cause="what the server said", fix=error.remedy)
    if isinstance(error, AuthenticationError):
        ways = {"iam": _refused_token, "secret": _refused_secret}
        return (said, *ways.get(settings.auth, _refused_password)(settings))
    if isinstance(error, ConnectTimeoutError):
        return (
            Cause(
                cause="the proxy had no database connection to give, and let the login wait",
                fix="Look at its DatabaseConnections metrics, for pinned sessions and for the database's health.",
            )
            if settings.is_proxy
            else Cause(cause="the server is overloaded, or out of connections", fix="Look at its load and its limits."),
            Cause(
                cause="it is merely slow: a paused cluster that wakes up, say",
                fix=f"Raise {settings.variable('connect_timeout_s')}.",
            ),
        )
    if isinstance(error, ProxyBusyError):
        return (
            said,
            Cause(
                cause="more functions run at once than there are connections",
                fix="Lower the function's reserved concurrency, or give the proxy and the database more.",
            ),
            Cause(
                cause="pinned sessions hold the proxy's connections",
                fix="See DatabaseConnectionsCurrentlySessionPinned, and ON_PIN.",
            ),
        )
    if isinstance(error, ProxyRefusedError):
        return (said, Cause(cause="a variable of libpq's is set (PGOPTIONS, say)", fix="Unset it."))
    return (said,)


def _refused_token(settings: Settings) -> tuple[Cause, ...]:
    what = "proxy's prx-… id" if settings.is_proxy else "cluster's or instance's resource id"
    missing = Cause(
        cause=f"the role that signs lacks rds-db:connect for {settings.user} on the {what}",
        fix="lambda-dbconn iam-policy prints the least policy; it takes some minutes to have effect.",
    )
    host = Cause(
        cause="the token is signed for another host, port or region than the server's own",
        fix=f"Set {settings.variable('signing_host')} to the endpoint's own name where the host is an alias or a "
        f"tunnel, and {settings.variable('region')} where the name has none.",
    )
    keys = Cause(
        cause="the AWS keys that sign are revoked, expired or another account's, or the clock is wrong",
        fix="See who signs, in the step before.",
    )
    if settings.is_proxy:
        return (
            missing,
            Cause(
                cause="the proxy does not take IAM, or has no secret for this user",
                fix="Set IAMAuth to REQUIRED (or its default scheme to IAM_AUTH), and register the user's secret.",
            ),
            host,
            keys,
        )
    grant = (
        f"GRANT rds_iam TO {settings.user}"
        if settings.engine == "postgresql"
        else f"CREATE USER {settings.user} IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS'"
    )
    return (
        missing,
        Cause(cause="the database user is not one for IAM", fix=f"Run as an administrator: {grant}."),
        Cause(
            cause="IAM authentication is switched off at the database",
            fix="Enable IAM database authentication for the instance or cluster.",
        ),
        host,
        keys,
    )


def _refused_secret(settings: Settings) -> tuple[Cause, ...]:
    stale = Cause(
        cause="the secret's password is not the database's: a rotation failed half-way, or somebody changed it",
        fix="Look at the last rotation, or rotate now.",
    )
    if not settings.is_proxy:
        return (stale,)
    return (
        Cause(
            cause="the secret is not registered with the proxy, or the proxy's role may not read it",
            fix="Add the secret's ARN to the proxy's Auth, and allow the proxy's role secretsmanager:GetSecretValue.",
        ),
        stale,
        Cause(
            cause="the proxy takes only IAM tokens",
            fix=f"Set {settings.variable('auth')} to iam, or IAMAuth to DISABLED at the proxy.",
        ),
    )


def _refused_password(settings: Settings) -> tuple[Cause, ...]:
    return (
        Cause(
            cause="user or password is wrong",
            fix=f"Check {settings.variable('user')} and {settings.variable('password')}.",
        ),
        Cause(
            cause="the user may not log in from this address",
            fix="Look at pg_hba.conf." if settings.engine == "postgresql" else "Look at the user's host in mysql.user.",
        ),
    )


def of_silence(settings: Settings) -> tuple[Cause, ...]:
    """A statement of the examination was not answered in time."""
    overloaded = Cause(cause="the database is overloaded, or failing over", fix="Look at its load and its events.")
    if not settings.is_proxy:
        return (overloaded,)
    return (
        Cause(
            cause="the proxy had no database connection to give",
            fix="Look at its DatabaseConnections metrics, and for pinned sessions.",
        ),
        overloaded,
    )


def of_query() -> tuple[Cause, ...]:
    """A statement of the examination failed, or a credential provider of the caller's own."""
    return (
        Cause(
            cause="the connection was lost, or the server refused", fix="Run it again, and look at the server's log."
        ),
    )


def of_error(error: LambdaDbConnError) -> tuple[Cause, ...]:
    """What an error of ours says itself."""
    return (Cause(cause="what it says", fix=error.remedy),) if error.remedy else ()


def of_reader(settings: Settings) -> tuple[Cause, ...]:
    """A writer's endpoint has led to a server that takes no writes."""
    return (
        Cause(
            cause="a failover is under way, or its result has not reached DNS yet",
            fix="Wait some seconds, and look again.",
        ),
        Cause(
            cause=f"{settings.variable('host')} is of a secondary cluster of a global database, or of a replica",
            fix="Use the writer's endpoint.",
        ),
    )
