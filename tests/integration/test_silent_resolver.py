"""A name server that does not answer: glibc waits ten seconds for it, in a mount and a network namespace of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

NAMESPACES = ["unshare", "--mount", "--net", "--map-root-user"]
LIMIT_S = 5.0  # far above what is allowed, and far below the resolver's ten seconds
PROGRAM = Path(__file__).parent.parent / "support" / "silent_resolver.py"


def _can_have_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _can_have_namespaces(), reason="this machine allows no mount or network namespace")


def ask(tmp_path: Path, what: str) -> dict[str, Any]:
    """Run a program whose name server is silent; return what it tells, and how long its exit took."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.9\n")
    run = subprocess.run(
        [*NAMESPACES, sys.executable, str(PROGRAM), str(resolv_conf), what],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stderr == ""
    told: dict[str, Any] = json.loads(run.stdout)
    return {**told, "exited_after_s": time.time() - told["over_at"]}


def test_the_name_server_is_silent_indeed(tmp_path: Path) -> None:
    told = ask(tmp_path, "plain")
    assert told["error"].startswith("gaierror")
    assert told["took_s"] > LIMIT_S


@pytest.mark.parametrize("what", ["postgresql", "mysql", "asyncio"])
def test_connecting_ends_with_the_deadline_and_the_process_at_once(tmp_path: Path, what: str) -> None:
    told = ask(tmp_path, what)
    assert told["error"].startswith("ConnectTimeoutError: cannot resolve the host 'db.example.com'")
    assert told["retryable"]
    assert told["took_s"] < LIMIT_S
    assert told["exited_after_s"] < LIMIT_S


def test_an_alias_of_an_rds_host_is_looked_up_within_the_deadline(tmp_path: Path) -> None:
    told = ask(tmp_path, "iam")
    assert told["error"].startswith("CredentialsError: cannot look up of which RDS host db.example.com is an alias")
    assert told["took_s"] < LIMIT_S


def test_a_cancelled_connect_delays_neither_the_loop_nor_the_exit(tmp_path: Path) -> None:
    told = ask(tmp_path, "cancelled")
    assert told["error"].startswith("TimeoutError")
    assert told["took_s"] < LIMIT_S
    assert told["exited_after_s"] < LIMIT_S
