"""A MariaDB server of one's own."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from lambda_dbconn.testing.servers import process
from lambda_dbconn.testing.servers.server import LocalServer, find_program, program_version
from lambda_dbconn.testing.servers.templates import copy_template, run_setup

_ADVICE = "install it with `apt-get install --no-install-recommends mariadb-server-core`"
_FOLDERS = (Path("/usr/sbin"), Path("/usr/local/sbin"), Path("/opt/homebrew/bin"))

_READ_TIMEOUT_S = 30.0
_BRANDS = ("mysql", "mariadb")
_SYSTEM_SQL = ("system_tables", "performance_tables", "system_tables_data")

# Nothing here outlives the machine, so nothing needs to reach a disk; what is committed survives a kill.
_FAST_OPTIONS = {
    "innodb-buffer-pool-size": "16M",
    "innodb-log-file-size": "8M",
    "innodb-flush-log-at-trx-commit": "2",
    "innodb-doublewrite": "OFF",
    "innodb-use-native-aio": "OFF",
    "skip-log-bin": "ON",
}


class LocalMariaDB(LocalServer):
    """MariaDB; `user` may do anything in `database`, and logs in with a password.

    The administrator `root` gets in by the Unix socket only, in a directory that only this account can enter.
    """

    engine = "mysql"

    @classmethod
    def version(cls) -> str:
        """Say what would be started, without starting it."""
        return program_version(_program())

    def session_ids(self) -> list[int]:
        """List the sessions of `user`, by connection id."""
        rows = self.query("SELECT id FROM information_schema.processlist WHERE user = %s ORDER BY id", self.user)
        return [session_id for (session_id,) in rows]

    def _end_session(self, session_id: int) -> None:
        self.execute("KILL %s", session_id)

    def _prepare(self) -> None:
        super()._prepare()
        if not self._data.exists():
            copy_template(self._program_line()[0], self._data, build=self._build)

    def _program_line(self) -> list[str]:
        """Say how to call the server program, before all options."""
        return [str(_program()), "--no-defaults"]

    def _build(self, folder: Path) -> None:
        # What mariadb-install-db does, which Debian packs apart from a script that it needs.
        # Of the accounts made by default, some would let root in by TCP without a password.
        program, data = _program(), folder / "data"
        data.mkdir()
        process.hand_over(data)
        sql = [
            "CREATE DATABASE mysql;",
            "USE mysql;",
            "SET @auth_root_socket = NULL;",
            *(_system_sql_path(program, name).read_text() for name in _SYSTEM_SQL),
            "DELETE FROM global_priv WHERE User = 'root' AND Host <> 'localhost';",
            "FLUSH PRIVILEGES;",
            self._account_sql(),
        ]
        options = self._settings(_FAST_OPTIONS | {"datadir": str(data), "enforce-storage-engine": ""})
        run_setup(folder, *self._program_line(), "--bootstrap", *options, sql="\n".join(sql))

    def _account_sql(self) -> str:
        return (
            f"CREATE DATABASE {self.database} CHARACTER SET utf8mb4;\n"
            f"CREATE USER {self.user}@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON {self.database}.* TO {self.user}@'%';\n"
        )

    def _options(self) -> dict[str, str]:
        # From 11.4 on it would make itself a certificate.
        return _FAST_OPTIONS | ({"ssl": "OFF"} if self.certificates is None else {})

    def _command(self) -> list[str]:
        options = self._options() | {
            "datadir": str(self._data),
            "tmpdir": str(self.home),
            "socket": str(self.home / "socket"),
            "pid-file": str(self.home / "pid"),
            "port": str(self.port),
            "bind-address": "127.0.0.1",
            "skip-name-resolve": "ON",  # else 127.0.0.1 is also `localhost`, which is root's
        }
        if self.certificates is not None:
            options |= {
                "ssl-cert": str(self.home / "server.pem"),
                "ssl-key": str(self.home / "server.key"),
            }
        if self._is_tls_required:
            options["require-secure-transport"] = "ON"
        return [*self._program_line(), *self._settings(options | self._extra_options)]

    @staticmethod
    def _settings(options: dict[str, str]) -> list[str]:
        return [f"--{name}={value}" for name, value in options.items()]

    def _connect_as_administrator(self) -> Any:
        import pymysql

        connection = pymysql.Connection(
            user="root",
            database=self.database,
            autocommit=True,
            ssl_disabled=True,
            read_timeout=_READ_TIMEOUT_S,
            defer_connect=True,
        )
        way_in = socket.socket(socket.AF_UNIX)
        try:
            # Left to connect by itself, PyMySQL 1.2.4 leaks the socket that is refused.
            way_in.connect(str(self.home / "socket"))
            connection.connect(way_in)
        except (OSError, pymysql.err.OperationalError) as error:
            way_in.close()
            raise ConnectionError(f"no administrator's session on port {self.port}: {error}") from error
        return connection

    def _make_ready(self) -> None:
        self.execute(f"ALTER USER {self.user}@'%' IDENTIFIED BY '{self.password}'")  # of URL-safe characters


def _program() -> Path:
    return find_program("mariadbd", folders=_FOLDERS, advice=_ADVICE)


def _system_sql_path(program: Path, name: str) -> Path:
    """Find a script that came with the program, under the old or the new name of the product."""
    share = program.parent.parent / "share"
    paths = [share / brand / f"{prefix}_{name}.sql" for brand in _BRANDS for prefix in _BRANDS]
    for path in paths:
        if path.exists():
            return path
    raise process.ServerUnavailableError(f"{program} has none of {', '.join(map(str, paths))}; {_ADVICE}")
