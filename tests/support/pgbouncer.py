"""PgBouncer in transaction pooling: the nearest thing to RDS Proxy that can be installed anywhere."""

from __future__ import annotations

import re
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_dbconn.testing.servers import LocalPostgres, LocalServer
from lambda_dbconn.testing.servers.server import find_program, program_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_dbconn.testing.certificates import Certificates

_ADMINISTRATOR = "administrator"
_FIRST_VERSION_WITH_PATIENT_SIGTERM = (1, 23)


class LocalPgBouncer(LocalServer):
    """PgBouncer in front of a `LocalPostgres` that the caller starts and closes.

    Clients log in with the backend's user and password, by SCRAM-SHA-256.
    `execute` and `query` speak to PgBouncer's own console (`PAUSE`, `SHOW POOLS`).
    The sessions that are counted and killed are those on the backend, which clients share.
    """

    engine = "pgbouncer"

    def __init__(
        self,
        *,
        backend: LocalPostgres,
        certificates: Certificates | None = None,
        is_tls_required: bool = False,
        extra_options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(certificates=certificates, is_tls_required=is_tls_required, extra_options=extra_options)
        self.password = backend.password
        self._backend = backend
        self._administrator_password = secrets.token_urlsafe(12)

    @classmethod
    def version(cls) -> str:
        """Say what would be started, without starting it."""
        return program_version(_program())

    def session_ids(self) -> list[int]:
        """List the backend's sessions."""
        return self._backend.session_ids()

    @property
    def _stop_signal(self) -> signal.Signals:
        major, minor = map(int, re.findall(r"\d+", self.version())[:2])
        is_patient = (major, minor) >= _FIRST_VERSION_WITH_PATIENT_SIGTERM
        return signal.SIGQUIT if is_patient else signal.SIGTERM

    def _end_session(self, session_id: int) -> None:
        self._backend.kill_session(session_id)

    def _prepare(self) -> None:
        super()._prepare()
        (self.home / "users.txt").write_text(
            f'"{self.user}" "{self.password}"\n"{_ADMINISTRATOR}" "{self._administrator_password}"\n'
        )
        settings = "".join(f"{name} = {value}\n" for name, value in self._options().items())
        (self.home / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._backend.port}\n[pgbouncer]\n{settings}"
        )

    def _options(self) -> dict[str, str]:
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": str(self.home),
            "pool_mode": "transaction",
            "auth_type": "scram-sha-256",
            "auth_file": str(self.home / "users.txt"),
            "admin_users": _ADMINISTRATOR,
        }
        if self.certificates is not None:
            options |= {
                "client_tls_sslmode": "require" if self._is_tls_required else "allow",
                "client_tls_cert_file": str(self.home / "server.pem"),
                "client_tls_key_file": str(self.home / "server.key"),
            }
        return options | self._extra_options

    def _command(self) -> list[str]:
        return [str(_program()), str(self.home / "pgbouncer.ini")]

    def _connect_as_administrator(self) -> Any:
        import psycopg

        try:
            return psycopg.connect(
                host=str(self.home),
                port=self.port,
                user=_ADMINISTRATOR,
                password=self._administrator_password,
                dbname="pgbouncer",
                autocommit=True,
                # The console knows the simple protocol only.
                prepare_threshold=None,
                cursor_factory=psycopg.ClientCursor,
            )
        except psycopg.OperationalError as error:
            raise ConnectionError(f"no administrator's session on port {self.port}: {error}") from error

    def _make_ready(self) -> None:
        self.query("SHOW VERSION")


def _program() -> Path:
    return find_program("pgbouncer", folders=[Path("/usr/sbin")], advice="install it with `apt-get install pgbouncer`")
