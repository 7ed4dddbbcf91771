"""What all sessions of a proxy share; used by the proxy's own thread only."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lambda_dbconn.testing.rds_proxy.iam import TokenError, TokenVerifier
from lambda_dbconn.testing.rds_proxy.pool import DatabaseUnavailableError, Pool
from lambda_dbconn.testing.rds_proxy.texts import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.rds_proxy.backend import Backend
    from lambda_dbconn.testing.rds_proxy.iam import AwsKey
    from lambda_dbconn.testing.rds_proxy.ledger import Ledger
    from lambda_dbconn.testing.rds_proxy.texts import RefusalKind

AuthMode = Literal["iam", "secret"]
PasswordAuth = Literal["scram-sha-256", "md5", "caching_sha2_password", "mysql_native_password"]


@dataclass(kw_only=True, eq=False, repr=False)
class ProxyOptions:
    """How a proxy is configured.

    Attributes:
        backend: The server; its engine decides the protocol. Need not be running yet.
        certificates: The proxy's certificate.
        port: Where it listens; 0 for a free port, which the first `start` chooses for good.
        auth: Whether clients show IAM tokens or the secret's passwords.
        secrets: Passwords at the database by user; by default that of the server's `user`.
        aws_keys: Who may sign tokens; each for all users.
        password_auth: How passwords are shown: `scram-sha-256` or `md5`, `caching_sha2_password` or
            `mysql_native_password`; by default the first of its engine.
        region: That tokens must be signed for.
        signing_host: The name that tokens must be signed for, as the certificate's and the client's `localhost` is
            no name that AWS would know; by default one in the form of a proxy's.
        signing_port: The port that they must be signed for; by default the one that it listens on.
        is_tls_required: Refuse clients without TLS. IAM tokens are never taken without.
        is_read_only: Be a read-only endpoint.
        max_database_connections: Connections to the database.
        borrow_timeout_s: How long a request may wait for one, the database being down included.
        max_client_connections: Clients at the same time.
        max_connections_per_s: Clients in any one second.
        idle_client_timeout_s: How long a client may ask nothing.
        max_client_life_s: How long a client may stay, busy or not.
        clock_s: The time by which tokens expire, in seconds since 1970.
        on_log: Called with each line of its log, in its thread: must not block, nor raise.
    """

    backend: Backend
    certificates: Certificates
    port: int = 0
    auth: AuthMode = "secret"
    secrets: Mapping[str, str] | None = None
    aws_keys: Iterable[AwsKey] = ()
    password_auth: PasswordAuth | None = None
    region: str = "us-east-1"
    signing_host: str = ""
    signing_port: int | None = None
    is_tls_required: bool = True
    is_read_only: bool = False
    max_database_connections: int = 10
    borrow_timeout_s: float = 120.0
    max_client_connections: int = 1_000
    max_connections_per_s: int = 1_000
    idle_client_timeout_s: float = 1_800.0
    max_client_life_s: float = 86_400.0
    clock_s: Callable[[], float] = time.time
    on_log: Callable[[str], None] | None = None

    @property
    def engine(self) -> str:
        """`postgresql` or `mysql`."""
        return self.backend.engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the database is, its address looked up."""

    host: str
    address: str
    port: int
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, server: Backend) -> Target:
        """Take note of where a server is."""
        tls = None if server.ca_path is None else ssl.create_default_context(cafile=server.ca_path)
        return cls(host=server.host, address=socket.gethostbyname(server.host), port=server.port, tls=tls)


class Core:
    """The state of a running proxy, and who may come in."""

    def __init__(
        self,
        options: ProxyOptions,
        *,
        port: int,
        passwords: dict[str, str],
        keys: Mapping[str, AwsKey],
        ledger: Ledger,
    ) -> None:
        self.options = options
        self.ledger = ledger
        self._passwords = passwords
        self.delay_s = 0.0
        self.known: dict[tuple[object, ...], Any] = {}
        """What a login needs to know of the database, by user, database and what else matters, once it was asked."""
        self.pool = Pool(
            engine=options.engine,
            most=options.max_database_connections,
            borrow_timeout_s=options.borrow_timeout_s,
            ledger=ledger,
        )
        self.client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client_tls.load_cert_chain(
            options.certificates.server_certificate_path, options.certificates.server_key_path
        )
        self._target = Target.of(options.backend)
        self._outage_ends_s = 0.0
        self._logins_to_fail: deque[RefusalKind | None] = deque()
        self._recent_s: deque[float] = deque()
        self._verifier = TokenVerifier(
            host=options.signing_host, port=options.signing_port or port, region=options.region, keys=keys
        )

    # For sessions.

    @property
    def target(self) -> Target:
        """Where the database is.

        Raises:
            DatabaseUnavailableError: Nowhere, for the time being.
        """
        if asyncio.get_running_loop().time() < self._outage_ends_s:
            raise DatabaseUnavailableError
        return self._target

    def admit(self, user: str) -> None:
        """Do nothing if one more client may come in; it has been counted already.

        Raises:
            RefusedError: It may not.
            ConnectionAbortedError: It is not even to be told so.
        """
        engine, options, now_s = self.options.engine, self.options, time.monotonic()
        while self._recent_s and self._recent_s[0] <= now_s - 1:
            self._recent_s.popleft()
        self._recent_s.append(now_s)
        if self._logins_to_fail:
            kind = self._logins_to_fail.popleft()
            if kind is None:
                raise ConnectionAbortedError
            raise refused(engine, kind, user=user, limit=0, option="?", error="?")
        if len(self._recent_s) > options.max_connections_per_s:
            raise refused(engine, "connection_rate", limit=options.max_connections_per_s)
        if self.ledger.clients > options.max_client_connections:
            raise refused(engine, "connection_limit", limit=options.max_client_connections)

    def password_of(self, user: str) -> str:
        """Return the user's password from the proxy's secret.

        Raises:
            RefusedError: There is none.
        """
        if user not in self._passwords:
            raise refused(self.options.engine, "no_credentials", user=user)
        return self._passwords[user]

    def verify_token(self, number: int, user: str, token: str) -> None:
        """Do nothing if the token lets the user in.

        Raises:
            RefusedError: It does not; the log says why.
        """
        try:
            self._verifier.verify(token, user=user, now_s=self.options.clock_s())
        except TokenError as error:
            self.ledger.write(
                "WARN",
                number,
                f'Proxy authentication with IAM authentication failed for user "{user}" with TLS on. Reason: Invalid '
                "credentials. If you provide an IAM token, make sure to either use the correct password or enable "
                f"IAM authentication. (Only this local proxy says: {error}.)",
            )
            raise refused(self.options.engine, "wrong_token", user=user) from error

    # For whoever directs the proxy.

    def fail_next_logins(self, count: int, kind: RefusalKind | None) -> None:
        """Refuse the next clients."""
        if kind is not None:
            refused(self.options.engine, kind, user="?", limit=0, option="?", error="?")  # there is such a text
        self._logins_to_fail.extend([kind] * count)

    def move(self, target: Target) -> None:
        """Go to another database from now on; what is under way finishes at the old one."""
        self._target = target
        self.known.clear()
        self.pool.retire(is_abrupt=False)

    def fail_over(self, target: Target, outage_s: float) -> None:
        """Lose every connection to the database, and find it, or another, after a while."""
        self._outage_ends_s = asyncio.get_running_loop().time() + outage_s
        self._target = target
        self.pool.retire(is_abrupt=True)
