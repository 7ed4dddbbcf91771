"""A real MySQL server and MySQL Router, which stable Debian does not have: taken from Debian's unstable suite.

`python -m tests.support.mysql` downloads them with apt into private directories and unpacks them under
`.cache/mysql`; the system is left as it was. They run with their own loader and C library.
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
ROOT = CACHE / "root"
_SERVER = Path("usr", "sbin", "mysqld")
ROUTER = Path("usr", "bin", "mysqlrouter")
_SUITE = "sid"
_PACKAGES = ("mysql-server-core", "mysql-router")  # of one source package, so always of one version
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DOWNLOAD_TIMEOUT_S = 300.0
_ADVICE = "install it, on Debian, with `python -m tests.support.mysql`"


class LocalMySQL(LocalMariaDB):
    """MySQL, with the shape of `LocalMariaDB`; `user` logs in by `caching_sha2_password`."""

    @classmethod
    def version(cls) -> str:
        """Say what would be started, without starting it."""
        loader, *arguments = program_line(ROOT, _SERVER)
        return program_version(Path(loader), *arguments, "--version")

    def _program_line(self) -> list[str]:
        return [*program_line(root_within_reach(), _SERVER), "--no-defaults"]

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
        root = root_within_reach()
        share = root / "usr" / "share" / "mysql"
        return {
            "basedir": str(root / "usr"),
            "lc-messages-dir": str(share),
            "character-sets-dir": str(share / "charsets"),
            "plugin-dir": str(root / "usr" / "lib" / "mysql" / "plugin"),
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
    """Say whether all of MySQL has been installed for these tests."""
    return (ROOT / _SERVER).exists() and (ROOT / ROUTER).exists()


def root_within_reach() -> Path:
    """Return `ROOT`, or a copy of it, 300 MB, where the account that servers run as cannot enter it.

    Raises:
        ServerUnavailableError: There is none.
    """
    loader = _loader(ROOT)
    return process.within_reach(loader.parent, loader.name, trees=(ROOT,)).parents[2]


def _loader(root: Path) -> Path:
    loaders = sorted(root.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))
    if not loaders:
        raise ServerUnavailableError(f"no MySQL in {root}; {_ADVICE}")
    return loaders[0]


def program_line(root: Path, program: Path, *library_folders: Path) -> list[str]:
    """Say how to call one of the programs, all paths being relative to `root`.

    Raises:
        ServerUnavailableError: It is not there.
    """
    loader = _loader(root)
    if not (root / program).exists():
        raise ServerUnavailableError(f"no program {program.name} in {root}; {_ADVICE}")
    libraries = ":".join(map(str, [loader.parent, *(root / folder for folder in library_folders)]))
    return [str(loader), "--library-path", libraries, str(root / program)]


def install() -> None:
    """Download and unpack server and router, 80 MB; nothing happens when they are there.

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
    _run_apt(apt, "install", "--yes", "--download-only", *_PACKAGES)
    unpacked = CACHE / "unpacked"
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        if "perl" not in package.name:
            subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True, capture_output=True)
    shutil.rmtree(apt)
    shutil.rmtree(ROOT, ignore_errors=True)  # of a time when less was installed
    unpacked.rename(ROOT)  # last, so that an interrupted installation is not taken for a whole one


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


if __name__ == "__main__":
    install()
    sys.stdout.write(f"{LocalMySQL.version()}\n")
