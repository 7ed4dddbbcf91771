"""A real MySQL server, which stable Debian does not have: taken from Debian's unstable suite.

`python -m tests.support.mysql` downloads it with apt into private directories and unpacks it under
`.cache/mysql`; the system is left as it was. It runs with its own loader and C library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lambda_dbconn.testing.servers import LocalMariaDB, ServerUnavailableError, process
from lambda_dbconn.testing.servers.server import program_version
from lambda_dbconn.testing.servers.templates import run_setup

# The variable is for test runs from a copy of the checkout.
CACHE = Path(os.environ.get("LAMBDA_DBCONN_MYSQL_CACHE") or Path(__file__).parents[2] / ".cache" / "mysql")
_ROOT = CACHE / "root"
_PROGRAM = _ROOT / "usr" / "sbin" / "mysqld"
_SUITE = "sid"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DOWNLOAD_TIMEOUT_S = 300.0
_ADVICE = "install it, on Debian, with `python -m tests.support.mysql`"


class LocalMySQL(LocalMariaDB):
    """MySQL, with the shape of `LocalMariaDB`; `user` logs in by `caching_sha2_password`."""

    @classmethod
    def version(cls) -> str:
        """Say what would be started, without starting it."""
        loader, *arguments = _program_line()
        return program_version(Path(loader), *arguments, "--version")

    def _program_line(self) -> list[str]:
        return [*_program_line(), "--no-defaults"]

    def _build(self, folder: Path) -> None:
        accounts_path = folder / "accounts.sql"
        accounts_path.write_text(self._account_sql())
        options = self._options() | {
            "datadir": str(folder / "data"),
            "init-file": str(accounts_path),
        }
        process.hand_over(folder)
        run_setup(folder, *self._program_line(), "--initialize-insecure", *self._settings(options))

    def _options(self) -> dict[str, str]:
        share = _ROOT / "usr" / "share" / "mysql"
        return {
            "basedir": str(_ROOT / "usr"),
            "lc-messages-dir": str(share),
            "character-sets-dir": str(share / "charsets"),
            "plugin-dir": str(_ROOT / "usr" / "lib" / "mysql" / "plugin"),
            "secure-file-priv": "NULL",
            "innodb-buffer-pool-size": "32M",
            "innodb-redo-log-capacity": "32M",
            "innodb-flush-log-at-trx-commit": "2",
            "innodb-doublewrite": "OFF",
            "innodb-use-native-aio": "OFF",
            "performance-schema": "OFF",
            "mysqlx": "OFF",
            "disable-log-bin": "ON",
        }


def mysql_is_available() -> bool:
    """Say whether MySQL has been installed for these tests."""
    return _PROGRAM.exists()


def install() -> None:
    """Download and unpack the server, 60 MB; nothing happens when it is there.

    Raises:
        ServerUnavailableError: The machine is not a Debian with its archive within reach.
    """
    if mysql_is_available():
        return
    if shutil.which("apt-get") is None or not _KEYRING.exists():
        raise ServerUnavailableError("MySQL is downloaded by apt from a Debian archive, and there is none here")
    apt = CACHE / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "etc"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # no package counts as installed, so all that it needs is downloaded
    (apt / "etc" / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_archive_uri()} {_SUITE} main\n")
    _run_apt(apt, "update")
    _run_apt(apt, "install", "--yes", "--download-only", "mysql-server-core")
    unpacked = CACHE / "unpacked"
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        if "perl" not in package.name:
            subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True, capture_output=True)
    shutil.rmtree(apt)
    unpacked.rename(_ROOT)  # last, so that an interrupted installation is not taken for a whole one


def _archive_uri() -> str:
    """Find the Debian archive that this machine installs from."""
    lines = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for line in lines:
        uri, _, rest = line.partition(" ")
        if rest == "Debian main" and "security" not in uri:
            return uri
    raise ServerUnavailableError("apt knows no Debian archive; run `apt-get update`")


def _run_apt(state: Path, *arguments: str) -> None:
    options = {
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "etc" / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
    }
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    result = subprocess.run(
        ["apt-get", *settings, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=_DOWNLOAD_TIMEOUT_S,
    )
    if result.returncode != 0:
        raise ServerUnavailableError(f"apt-get {arguments[0]} failed:\n{result.stderr}")


def _program_line() -> list[str]:
    loaders = sorted(_ROOT.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))
    if not loaders or not _PROGRAM.exists():
        raise ServerUnavailableError(f"no program mysqld in {_ROOT}; {_ADVICE}")
    if not process.is_within_reach(loaders[0]):
        raise ServerUnavailableError(f"{_ROOT} cannot be entered by the account that servers run as here")
    library = loaders[0].parent
    return [str(loaders[0]), "--library-path", str(library), str(_PROGRAM)]


if __name__ == "__main__":
    install()
    sys.stdout.write(f"{LocalMySQL.version()}\n")
