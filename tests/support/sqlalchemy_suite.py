"""SQLAlchemy's own compliance suite for dialects, run in a process of its own against a database.

The suite is part of SQLAlchemy, for authors of dialects: `sqlalchemy.testing.suite`. It decides with what a dialect
says of itself which tests apply; SQLAlchemy's own test runs know more exceptions, which are not published, so that
some tests fail with every server. What is worth knowing is whether the same ones fail.

This module is also the pytest plugin that gives that process its way to the database.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Collection

    from lambda_dbconn.testing.servers import LocalServer

DIALECTS = {"postgresql": "postgresql+psycopg", "mysql": "mariadb+pymysql"}
"""By engine, for PostgreSQL and MariaDB."""

SCHEMAS = ("test_schema", "test_schema_2")
"""What the suite wants to find besides the database; to MySQL and MariaDB a schema is a database."""

# Left out, for they are two fifths of all: the tests that ask the catalogue for many tables at once, in all
# combinations of kind, scope and filter. Those that ask it for one table stay.
_SELECTION = "not test_get_multi"

_CHECKOUTS_PER_CONNECTION = 10
_TIMEOUT_S = 400.0


def url(server: LocalServer, *, port: int | None = None) -> URL:
    """Say where the database is, to SQLAlchemy; `port` is that of a proxy before it."""
    return URL.create(
        DIALECTS[server.engine], server.user, server.password, server.host, port or server.port, server.database
    )


def connect_args(driver: str, ca_path: Path) -> dict[str, Any]:
    """Return what a driver needs besides the URL: verified TLS, and for psycopg what RDS Proxy asks of it.

    psycopg would prepare what it sees often, and send DEALLOCATE ALL after a rollback, which pins.
    """
    if driver == "psycopg":
        return {"sslmode": "verify-full", "sslrootcert": str(ca_path), "prepare_threshold": None}
    return {"ssl": ssl.create_default_context(cafile=ca_path)}


def make_schemas(server: LocalServer) -> None:
    """Make the schemas that the suite expects."""
    for name in SCHEMAS:
        if server.engine == "postgresql":
            server.execute(f"CREATE SCHEMA {name} AUTHORIZATION {server.user}")
        else:
            server.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
            server.execute(f"GRANT ALL ON {name}.* TO {server.user}")


def run(address: URL, *, ca_path: Path, folder: Path, only: Collection[str] = ()) -> dict[str, str]:
    """Run the suite, or the tests in `only`, and return each test's outcome: passed, failure, error or skipped."""
    folder.mkdir()
    wanted = folder / "wanted.txt"
    wanted.write_text("\n".join(only))
    (folder / "setup.cfg").write_text(
        "[sqla_testing]\nrequirement_cls = sqlalchemy.testing.requirements:SuiteRequirements\n"
        "profile_file = profiles.txt\n[db]\n"
    )
    report = folder / "report.xml"
    plugins = ("sqlalchemy.testing.plugin.pytestplugin", __name__, "no:randomly", "no:timeout", "no:cacheprovider")
    outcome = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--quiet", "--tb=no", "--no-summary", "--assert=plain", "--noconftest"),
            *("-c", os.devnull, f"--rootdir={folder}", f"--junitxml={report}", "-o", "junit_logging=no"),
            *(word for plugin in plugins for word in ("-p", plugin)),
            *("--dburi", address.render_as_string(hide_password=False), f"--ca-path={ca_path}", f"--only-in={wanted}"),
            *("-k", _SELECTION, "--pyargs", "sqlalchemy.testing.suite"),
        ],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    # 1: some tests failed; more: the run itself did.
    assert outcome.returncode in (0, 1), outcome.stdout + outcome.stderr
    return {f"{case.get('classname')}.{case.get('name')}": _outcome(case) for case in ET.parse(report).iter("testcase")}


def _outcome(case: ET.Element) -> str:
    return next((name for name in ("failure", "error", "skipped") if case.find(name) is not None), "passed")


# The plugin.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the suite's process know whom to trust, and what to run."""
    parser.addoption("--ca-path", type=Path)
    parser.addoption("--only-in", type=Path)


@pytest.hookimpl(trylast=True)  # it is SQLAlchemy's own plugin that makes a class for each database
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not wanted, if not all is."""
    wanted = set(config.getoption("--only-in").read_text().splitlines())
    if wanted:
        items[:] = [item for item in items if _name(item) in wanted]


def _name(item: pytest.Item) -> str:
    """Name a test as the report does."""
    path, bracket, parameters = item.nodeid.partition("[")
    file, *names = path.split("::")
    return ".".join([file.removesuffix(".py").replace("/", "."), *names]) + bracket + parameters


def pytest_configure(config: pytest.Config) -> None:
    """Give every connection its arguments, and renew it now and then.

    A pinned connection would be kept for good, and what is run on it would show nothing of how connections are shared.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

    def connect(dialect: Any, _record: Any, _args: Any, arguments: dict[str, Any]) -> None:
        arguments |= connect_args(dialect.driver, config.getoption("--ca-path"))

    def count(connection: Any, record: Any) -> None:
        record.info["checkouts"] = record.info.get("checkouts", 0) + 1
        if connection is not None and record.info["checkouts"] >= _CHECKOUTS_PER_CONNECTION:
            record.invalidate()

    event.listen(Engine, "do_connect", connect)
    event.listen(Pool, "checkin", count)  # codespell:ignore checkin
