"""`lambda-dbconn local-proxy` as a process of its own, and programs that use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
_LIMIT_S = 60.0
_OF_OTHERS = ("DB_", "AWS_", "BACKEND_", "DATABASE_URL")

# A program as somebody would write it; it says what it was given, and pins its session if told to.
PROGRAM = """
import json, sys
import lambda_dbconn

db = lambda_dbconn.from_env()
with db.connection(20) as connection, connection.cursor() as cursor:
    for statement in sys.argv[1:]:
        cursor.execute(statement)
    cursor.execute("SELECT 6 * 7")
    print(json.dumps([db.settings.auth, db.settings.engine, cursor.fetchone()[0]]))
db.close()
"""


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without settings, and with these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_OTHERS)}
    return {**kept, "PYTHONPATH": str(ROOT), **environ}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lambda_dbconn", "local-proxy", *arguments]


def run_to_end(*arguments: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command that is expected to fail by itself."""
    return subprocess.run(
        command(*arguments),
        env=clean_environment(environ),
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


def run_program(*statements: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the program in an environment that has nothing but these variables of its settings."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *statements],
        env=clean_environment(environ),
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


@dataclass(kw_only=True)
class RunningCommand:
    """The command, while it runs and after.

    Attributes:
        process: Itself.
        first_line: Of its standard output.
        errors_path: The file that is its standard error.
    """

    process: subprocess.Popen[str]
    first_line: str
    errors_path: Path

    @property
    def variables(self) -> dict[str, str]:
        """What it printed as JSON."""
        variables: dict[str, str] = json.loads(self.first_line)
        return variables

    @property
    def errors(self) -> str:
        """What it has said besides."""
        return self.errors_path.read_text()

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; return the exit code and what came on standard output after the first line."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=_LIMIT_S)
        return self.process.returncode, rest


@contextmanager
def running_command(directory: Path, *arguments: str, **environ: str) -> Iterator[RunningCommand]:
    """Start the command and wait for its first line; `directory`, which exists, is where it says the rest."""
    errors_path = directory / "errors"
    with (
        errors_path.open("w") as errors,
        subprocess.Popen(
            command(*arguments), env=clean_environment(environ), stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            first_line = process.stdout.readline()
            assert first_line, errors_path.read_text()
            yield RunningCommand(process=process, first_line=first_line, errors_path=errors_path)
        finally:
            process.kill()
