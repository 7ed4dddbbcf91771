"""Where the demo takes place: a database server, proxies before it, and the functions; one stage for each engine."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from examples.demo.measured import Answer, Function
from examples.demo.secrets_manager import LocalSecretsManager, Rotation
from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy
from lambda_dbconn.testing.relay import FaultRelay
from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, LocalServer, ServerUnavailableError
from lambda_dbconn.testing.servers.process import make_temporary_directory, remove_temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_dbconn.testing.rds_proxy import Stats

PROXY_NAME = "demo.proxy-cexample0000.us-east-1.rds.amazonaws.com"
"""What the proxies' certificate and the functions' tokens are for."""

Impostor = Literal["authority", "name"]
"""What is not what the function expects, in a server's certificate."""

AUTH_MODES = ("iam", "secret")
"""What there is a proxy for."""

SERVERS: dict[str, type[LocalServer]] = {"postgresql": LocalPostgres, "mysql": LocalMariaDB}
"""What can stand behind the proxies, by engine."""

_TITLES = {"postgresql": "PostgreSQL", "mysql": "MariaDB"}
_VERSION_SQL = {"postgresql": "select current_setting('server_version')", "mysql": "select version()"}
_EMPLOYEES = ("Ada", "Barbara", "Edsger", "Grace", "Tony")
_ROTATED_USER = "rotated"
_SHORT_PING_IDLE_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The function with the library and the plain one, with the same variables."""

    library: Function
    plain: Function

    @property
    def both(self) -> tuple[Function, Function]:
        """The two, the library's first."""
        return self.library, self.plain


class Stage:
    """Everything that takes part with one engine. Use as a context manager; nothing is left behind.

    Args:
        server: The database; started here.
        certificates: For the server and the proxies; also for `PROXY_NAME`.
        secrets_manager: Where the secret is kept.
        library_module: The handler that stands in the library's place.

    Attributes:
        iam_proxy: Asks for IAM tokens.
        secret_proxy: Asks for the secret's password.
        network: Between the functions of `by_secret` and their proxy.
        rotation: Of the secret.
        by_iam: The functions that log in with tokens, of which neither has begun.
        by_secret: Those that log in with the secret.

    Raises (on entry):
        ServerUnavailableError: The server is not installed, or does not start.
    """

    iam_proxy: LocalRdsProxy
    secret_proxy: LocalRdsProxy
    network: FaultRelay
    rotation: Rotation
    by_iam: Pair
    by_secret: Pair

    def __init__(
        self,
        server: LocalServer,
        *,
        certificates: Certificates,
        secrets_manager: LocalSecretsManager,
        library_module: str,
    ) -> None:
        self.server = server
        self._certificates = certificates
        self._secrets_manager = secrets_manager
        self._library_module = library_module
        self._key = AwsKey(
            access_key_id="ASIADEMO",
            secret_access_key=secrets.token_urlsafe(30),
            session_token=secrets.token_urlsafe(600),  # as long as a role's
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            server = stack.enter_context(self.server)
            self.rotation = Rotation(
                self._secrets_manager, server, user=_ROTATED_USER, ca_path=self._certificates.ca_path
            )
            self._employ()
            self.iam_proxy = stack.enter_context(
                LocalRdsProxy(
                    backend=server,
                    certificates=self._certificates,
                    auth="iam",
                    aws_keys=[self._key],
                    signing_host=PROXY_NAME,
                )
            )
            self.secret_proxy = stack.enter_context(
                LocalRdsProxy(
                    backend=server,
                    certificates=self._certificates,
                    secrets={self.rotation.user: self.rotation.password},
                )
            )
            proxy = self.secret_proxy
            self.network = stack.enter_context(FaultRelay(target_host=proxy.host, target_port=proxy.port))
            self.by_iam = self._pair(stack, self._iam_variables())
            self.by_secret = self._pair(stack, self._secret_variables())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def title(self) -> str:
        """The database's name."""
        return _TITLES[self.server.engine]

    @property
    def version(self) -> str:
        """The database's version, in its own words."""
        ((words,),) = self.server.query(_VERSION_SQL[self.server.engine])
        return str(words).split(" ")[0].split("-")[0]

    def proxy_stats(self, auth: str) -> Stats:
        """Return what a proxy has counted."""
        return (self.iam_proxy if auth == "iam" else self.secret_proxy).stats()

    def turn_proxy_clock(self, ahead_s: float) -> None:
        """Let the proxy that verifies tokens believe that it is later than it is."""
        self.iam_proxy.clock_s = lambda: time.time() + ahead_s

    def meet_impostor(self, false: Impostor) -> Answer:
        """Invoke the library's handler once where it trusts another authority, or expects another name."""
        changes: dict[Impostor, dict[str, str]] = {
            "authority": {"DB_SSLROOTCERT": str(self._certificates.other_ca_path)},
            "name": {"DB_SIGNING_HOST": f"not-{PROXY_NAME}"},
        }
        function = self._function("with_library", self._iam_variables() | changes[false])
        try:
            return function.invoke()
        finally:
            function.close()

    def _employ(self) -> None:
        server = self.server
        server.execute("create table employee (id int primary key, name varchar(20) not null)")
        for number, name in enumerate(_EMPLOYEES, start=1):
            server.execute("insert into employee values (%s, %s)", number, name)
        if server.engine == "postgresql":
            server.execute(f"grant select on employee to {server.user}, {self.rotation.user}")
        else:
            server.execute(f"grant select on employee to {self.rotation.user}@'%'")  # the other may do anything

    def _variables(self) -> dict[str, str]:
        return {
            "DB_ENGINE": self.server.engine,
            "DB_NAME": self.server.database,
            # On AWS both are the proxy's endpoint; here only the certificate and the tokens have such a name.
            "DB_HOST": self.iam_proxy.host,
            "DB_SIGNING_HOST": PROXY_NAME,
            "DB_SSLROOTCERT": str(self._certificates.ca_path),
            "AWS_ACCESS_KEY_ID": self._key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self._key.secret_access_key,
            "AWS_SESSION_TOKEN": self._key.session_token or "",
        }

    def _iam_variables(self) -> dict[str, str]:
        return self._variables() | {
            "DB_AUTH": "iam",
            "DB_PORT": str(self.iam_proxy.port),
            "DB_USER": self.server.user,
        }

    def _secret_variables(self) -> dict[str, str]:
        return self._variables() | {
            "DB_SECRET_ID": self.rotation.secret_id,
            "DB_PORT": str(self.network.port),
            "DB_PING_IDLE_S": str(_SHORT_PING_IDLE_S),
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": self._secrets_manager.url,
        }

    def _pair(self, stack: ExitStack, variables: Mapping[str, str]) -> Pair:
        pair = Pair(library=self._function(self._library_module, variables), plain=self._function("plain", variables))
        for function in pair.both:
            stack.callback(function.close)
        return pair

    def _function(self, module: str, variables: Mapping[str, str]) -> Function:
        if module == "plain":
            module = f"plain_{self.server.engine}"
        return Function(module, variables, expected_rows=len(_EMPLOYEES))


def choose_servers(only: str | None) -> list[type[LocalServer]]:
    """Return the servers for one engine, or for all: PostgreSQL always, MariaDB where it is installed."""
    if only is not None:
        return [SERVERS[only]]
    try:
        LocalMariaDB.version()
    except ServerUnavailableError:
        return [LocalPostgres]
    return [*SERVERS.values()]


@contextmanager
def open_stages(only: str | None, library_module: str) -> Iterator[list[Stage]]:
    """Have a stage for each server that there is, or for one engine's, with one Secrets Manager.

    Raises:
        ServerUnavailableError: A server does not start, or PostgreSQL is not installed.
    """
    with ExitStack() as stack:
        folder = make_temporary_directory()  # removed also if this process is killed
        stack.callback(remove_temporary_directory, folder)
        certificates = Certificates.create(folder, extra_names=[PROXY_NAME])
        secrets_manager = stack.enter_context(LocalSecretsManager())
        yield [
            stack.enter_context(
                Stage(
                    server(certificates=certificates),
                    certificates=certificates,
                    secrets_manager=secrets_manager,
                    library_module=library_module,
                )
            )
            for server in choose_servers(only)
        ]
