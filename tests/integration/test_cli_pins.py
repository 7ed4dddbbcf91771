"""The hook definition, run by the real pre-commit in a repository of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.walk

HOOKS = Path(__file__).parents[2] / ".pre-commit-hooks.yaml"
# What is installed here stands for what pre-commit would install from PyPI.
CONFIG = """
repos:
  - repo: {repo}
    rev: {revision}
    hooks:
      - id: lambda-dbconn-pins
        args: [--engine, postgresql]
        language: system
        additional_dependencies: []
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_pre_commit_stops_a_statement_that_pins(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {"PRE_COMMIT_HOME": str(tmp_path / "cache"), "GIT_CONFIG_GLOBAL": os.devnull}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"

    def run(folder: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path / folder, env=environ, capture_output=True, text=True, check=False, timeout=60
        )

    for folder in ("project", "user"):
        (tmp_path / folder).mkdir()
        assert run(folder, "git", "init", "-q").returncode == 0
    shutil.copy(HOOKS, tmp_path / "project")
    run("project", "git", "add", ".")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    assert run("project", "git", *author, "commit", "-qm", "hooks").returncode == 0
    revision = run("project", "git", "rev-parse", "HEAD").stdout.strip()
    (tmp_path / "user" / ".pre-commit-config.yaml").write_text(
        CONFIG.format(repo=tmp_path / "project", revision=revision)
    )
    (tmp_path / "user" / "a.py").write_text('cur.execute("LISTEN jobs")\n')
    run("user", "git", "add", ".")
    hook = (sys.executable, "-m", "pre_commit", "run", "--all-files")
    stopped = run("user", *hook)
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "a.py:1: LISTEN: " in stopped.stdout
    (tmp_path / "user" / "a.py").write_text('cur.execute("NOTIFY jobs")\n')
    run("user", "git", "add", ".")
    passed = run("user", *hook)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "Passed" in passed.stdout
