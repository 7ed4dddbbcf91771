"""MySQL Router with connection sharing: of all that pools MySQL, what can be had as a Debian package."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql

from lambda_dbconn.testing.servers import LocalServer
from lambda_dbconn.testing.servers.server import program_version
from tests.support.mysql import ROOT, ROUTER, LocalMySQL, program_line, root_within_reach
from tests.support.rds_proxy import connect

if TYPE_CHECKING:
    from lambda_dbconn.testing.certificates import Certificates

_LIBRARIES = Path("usr", "lib", "mysql-router")


class LocalMySqlRouter(LocalServer):
    """MySQL Router in front of a `LocalMySQL` that the caller starts and closes; with MariaDB it does not work.

    Clients log in with the backend's user and password, over TLS only. Between transactions a client has no
    connection to the server. The router keeps `idle_connections` of them for all, and opens as many as are needed.
    The administrator's session, and the sessions that are counted and killed, are those on the backend.
    """

    engine = "mysql"

    def __init__(self, *, backend: LocalMySQL, certificates: Certificates, idle_connections: int) -> None:
        super().__init__(certificates=certificates, is_tls_required=True)
        self.password = backend.password
        self._backend = backend
        self._idle_connections = idle_connections

    @classmethod
    def version(cls) -> str:
        """Say what would be started, without starting it."""
        loader, *arguments = program_line(ROOT, ROUTER, _LIBRARIES)
        return program_version(Path(loader), *arguments, "--version")

    def session_ids(self) -> list[int]:
        """List the backend's sessions."""
        return self._backend.session_ids()

    def _end_session(self, session_id: int) -> None:
        self._backend.kill_session(session_id)

    def _prepare(self) -> None:
        super()._prepare()
        sections: dict[str, dict[str, object]] = {
            "DEFAULT": {
                "logging_folder": "",  # so that it goes where all servers' output goes
                "runtime_folder": self.home,
                "data_folder": self.home,
                "plugin_folder": root_within_reach() / "usr" / "lib" / "mysqlrouter" / "plugin",
            },
            "connection_pool": {"max_idle_server_connections": self._idle_connections},
            "routing:all": {
                "bind_address": "127.0.0.1",
                "bind_port": self.port,
                "destinations": f"127.0.0.1:{self._backend.port}",
                "routing_strategy": "first-available",
                "protocol": "classic",
                "client_ssl_mode": "REQUIRED",
                "client_ssl_cert": self.home / "server.pem",
                "client_ssl_key": self.home / "server.key",
                "server_ssl_mode": "REQUIRED",
                "connection_sharing": 1,
                "connection_sharing_delay": 0,
            },
        }
        text = "".join(
            f"[{name}]\n" + "".join(f"{option}={value}\n" for option, value in options.items())
            for name, options in sections.items()
        )
        (self.home / "router.conf").write_text(text)

    def _command(self) -> list[str]:
        return [*program_line(root_within_reach(), ROUTER, _LIBRARIES), "-c", str(self.home / "router.conf")]

    def _connect_as_administrator(self) -> Any:
        return self._backend._connect_as_administrator()

    def _make_ready(self) -> None:
        try:
            with closing(connect(self, self.password)):
                pass
        except pymysql.err.OperationalError as error:
            raise ConnectionError(f"nobody is let in on port {self.port}: {error}") from error
