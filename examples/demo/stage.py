"""Where the demo takes place: a PostgreSQL server, a relay in front of it, and the functions."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from examples.demo.measured import Function
from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.relay import FaultRelay
from lambda_dbconn.testing.servers import LocalPostgres
from lambda_dbconn.testing.servers.process import make_temporary_directory, remove_temporary_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

_EMPLOYEES = ("Ada", "Barbara", "Edsger", "Grace", "Tony")
_TIMEOUT_S = 10.0
# For the functions whose path will go dead: the plain one hangs for as long as it may.
_SHORT_TIMEOUT_S = 3.0  # Lambda's default
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
    """Everything that takes part. Use as a context manager; nothing is left behind.

    Args:
        library_module: the handler that stands in the library's place.

    Raises (on entry):
        ServerUnavailableError: There is no PostgreSQL.
        RuntimeUnavailableError: There is no runtime client.
        InitError: A function does not start.
    """

    server: LocalPostgres
    relay: FaultRelay
    direct: Pair
    relayed: Pair

    def __init__(self, library_module: str) -> None:
        self._library_module = library_module
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = make_temporary_directory()  # removed also if this process is killed
            stack.callback(remove_temporary_directory, folder)
            certificates = Certificates.create(folder)
            self.server = stack.enter_context(LocalPostgres(certificates=certificates))
            self._employ()
            self.relay = stack.enter_context(FaultRelay(target_host=self.server.host, target_port=self.server.port))
            variables = self._variables(certificates)
            self.direct = self._pair(stack, variables, timeout_s=_TIMEOUT_S)
            variables |= {"DB_PORT": str(self.relay.port), "DB_PING_IDLE_S": str(_SHORT_PING_IDLE_S)}
            self.relayed = self._pair(stack, variables, timeout_s=_SHORT_TIMEOUT_S)
            for function in self.direct.both:
                function.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def server_version(self) -> tuple[int, str]:
        """The server's version as a number such as 150018, and as its own words."""
        ((number, words),) = self.server.query("select current_setting('server_version_num')::int, version()")
        return number, words.split(" on ")[0]

    def _employ(self) -> None:
        self.server.execute("create table employee (id int primary key, name text not null)")
        self.server.execute(f"grant select on employee to {self.server.user}")
        for number, name in enumerate(_EMPLOYEES, start=1):
            self.server.execute("insert into employee values (%s, %s)", number, name)

    def _variables(self, certificates: Certificates) -> dict[str, str]:
        server = self.server
        # Some PostgreSQL builds are without TLS; then there is nothing to verify, and nothing leaves this machine.
        trust = {"DB_SSLROOTCERT": str(certificates.ca_path)} if server.is_tls else {"DB_SSLMODE": "disable"}
        return {
            "DB_ENGINE": "postgresql",
            "DB_HOST": server.host,
            "DB_PORT": str(server.port),
            "DB_NAME": server.database,
            "DB_USER": server.user,
            "DB_PASSWORD": server.password,
            **trust,
        }

    def _pair(self, stack: ExitStack, variables: Mapping[str, str], *, timeout_s: float) -> Pair:
        functions = [
            Function(module, variables, timeout_s=timeout_s, expected_rows=len(_EMPLOYEES))
            for module in (self._library_module, "plain")
        ]
        for function in functions:
            stack.callback(function.close)
        return Pair(library=functions[0], plain=functions[1])
