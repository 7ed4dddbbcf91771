"""A function, the real runtime that runs it, and the other end of its connection, which tells what it sees."""

from __future__ import annotations

import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
from lambda_dbconn.testing.runtime_api import LocalRuntime
from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres
from tests.support.clients import wait_until
from tests.support.emulator import LocalEmulator
from tests.support.lock_times import FUNCTIONS, is_locked, variables
from tests.support.rds_proxy import PROXY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.runtime_api import Invocation
    from lambda_dbconn.testing.servers import LocalServer

ENGINES = {"postgresql": "PostgreSQL", "mysql": "MariaDB"}
WAYS = ("direct", "local proxy")
RUNTIMES = ("runtime client", "emulator")

STATEMENTS = {"postgresql": "SELECT pg_sleep(30)", "mysql": "SELECT BENCHMARK(100000000, SHA2('x', 256))"}
"""Take far too long, and outlive their client: MySQL's SLEEP looks for it every few seconds."""

_TIMEOUT_S = 4  # under the emulator, where a cold start counts
_LIMIT_S = 30.0
_LOST_AT_THE_PROXY = "The client connection closed. Reason: The TCP channel was closed by either"


@dataclass(kw_only=True)
class Stage:
    """A function, and the other end of its connection, which no other function uses if it is a proxy.

    Attributes:
        server: The database; not one that proxies use as well, if there is none before it.
        proxy: What is before it, or None.
        function: What is invoked; its environment begins with its first invocation.
    """

    server: LocalServer
    proxy: LocalRdsProxy | None
    function: LocalRuntime | LocalEmulator
    _asked: set[int] = field(default_factory=set, init=False)  # sessions at the database, as the function told

    def ask(self, *, timeout_s: float | None = None, **event: Any) -> Invocation:
        """Invoke the function, and wait until its log has its last word."""
        mark = uuid.uuid4().hex
        if timeout_s is not None and isinstance(self.function, LocalRuntime):
            invocation = self.function.invoke({**event, "mark": mark}, timeout_s=timeout_s)
        else:
            invocation = self.function.invoke({**event, "mark": mark})
        wait_until(lambda: f"end of {mark}" in self.function.output(), timeout_s=_LIMIT_S)
        if invocation.error is None and "session" in invocation.value:
            self._asked.add(invocation.value["session"])
        return invocation

    def end(self) -> None:
        """End the environment, if there is one, and wait until nothing is left of it at the other end."""
        if isinstance(self.function, LocalRuntime):
            self.function.kill()
        else:
            self.function.shutdown()
            self.function.start()
        wait_until(lambda: not self.sessions() & self._asked if self.proxy is None else not self.sessions())

    def sessions(self) -> set[int]:
        """Return the sessions of functions that the other end knows."""
        if self.proxy is None:
            return set(self.server.session_ids())
        return {record.number for record in self.proxy.sessions() if record.is_open}

    def lost(self) -> int:
        """Count the sessions whose client went without a word."""
        if self.proxy is not None:
            return self.proxy.log().count(_LOST_AT_THE_PROXY)
        if self.server.engine == "postgresql":
            statement = "SELECT sessions_abandoned FROM pg_stat_database WHERE datname = %s"
            return int(self.server.query(statement, self.server.database)[0][0])
        return int(self.server.query("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")[0][1])

    def pings(self) -> int:
        """Count how often a connection was checked by a round trip."""
        if self.proxy is not None:
            requests = [request for record in self.proxy.sessions() for request in record.statements]
            return sum(request.kind == "COM_PING" or request.text == "SELECT 1" for request in requests)
        if self.server.engine == "postgresql":
            return self.server.log().count("statement: SELECT 1\n")
        # COM_RESET_CONNECTION is counted with COM_PING, and comes with one COM_INIT_DB.
        found = dict(self.server.query("SHOW GLOBAL STATUS WHERE Variable_name LIKE 'Com_%'"))
        return int(found["Com_admin_commands"]) - int(found["Com_change_db"])

    def cut(self, session: int) -> None:
        """End the function's session from the other end."""
        if self.proxy is None:
            self.server.kill_session(session)
        else:
            self.proxy.restart()

    def lock_is_free(self, name: str) -> str:
        """Say whether the row is free: at once, or not while the statement that locked it goes on."""
        try:
            # The server has been told, and it may take its time; behind a proxy nobody tells it.
            wait_until(lambda: not is_locked(self.server, name), timeout_s=10.0 if self.proxy is None else 0.5)
        except AssertionError:
            return "statement and lock go on"
        return "statement stopped, lock free"

    def end_statements(self) -> None:
        """Let no statement go on that nobody waits for."""
        statement = (
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query = %s AND pid <> pg_backend_pid()"
            if self.server.engine == "postgresql"
            else "SELECT id FROM information_schema.processlist WHERE info = %s AND id <> CONNECTION_ID()"
        )
        for (session,) in self.server.query(statement, STATEMENTS[self.server.engine]):
            self.server.kill_session(session)


def server_for(engine: str, certificates: Certificates) -> LocalServer:
    """Make a database that tells what a matrix needs to know."""
    if engine == "mysql":
        return LocalMariaDB(certificates=certificates)
    return LocalPostgres(certificates=certificates, extra_options={"log_statement": "all"})


@contextmanager
def stage_for(
    server: LocalServer, way: str, runtime: str, certificates: Certificates, extra: tuple[tuple[str, str], ...] = ()
) -> Iterator[Stage]:
    """Make a function and what it connects to, and end both after.

    Raises:
        RuntimeUnavailableError: There is no emulator.
    """
    environment = {**variables(server), **dict(extra)}
    with ExitStack() as stack:
        proxy = None
        if way == "local proxy":
            proxy = stack.enter_context(
                LocalRdsProxy(backend=server, certificates=certificates, signing_host=PROXY_NAME)
            )
            environment |= {
                "DB_HOST": "127.0.0.1",
                "DB_PORT": str(proxy.port),
                "DB_SIGNING_HOST": PROXY_NAME,
                "DB_SSLROOTCERT": str(certificates.ca_path),
            }
        function: LocalRuntime | LocalEmulator
        if runtime == "emulator":
            function = LocalEmulator(
                directory=FUNCTIONS, handler="matrix.handler", environment=environment, timeout_s=_TIMEOUT_S
            )
            stack.enter_context(function)
        else:
            function = LocalRuntime(
                directory=FUNCTIONS,
                handler="matrix.handler",
                environment=environment,
                timeout_s=_LIMIT_S,
                init_timeout_s=_LIMIT_S,
            )
        stage = Stage(server=server, proxy=proxy, function=function)
        try:
            yield stage
        finally:
            stage.end()
