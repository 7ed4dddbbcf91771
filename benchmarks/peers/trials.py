"""Brings about what happens to a function's connection, and says what became of a peer's invocations."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import lambda_dbconn
from lambda_dbconn.testing.relay import FaultRelay
from lambda_dbconn.testing.servers import LocalPostgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.certificates import Certificates

HERE = Path(__file__).parent
LIMIT_S = 8.0
"""How long an answer may take; a function with a longer time limit would wait for longer."""

_IDLE_S = 1.0
_START_LIMIT_S = 60.0
_WELL, _SILENT = "works", "no answer"
_CACHE = Path(__file__).parents[2] / ".cache" / "peers"


def environment(cache: Path = _CACHE) -> Path:
    """Return the Python of an environment that has the peers, made when it is not there; asks the package index."""
    python = cache / f"{sys.version_info.major}.{sys.version_info.minor}" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(HERE / "requirements.txt")]
    subprocess.run([python, *install], check=True, stdout=sys.stderr)
    return python


class Function:
    """A peer's handler in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.opened = self._answer(_START_LIMIT_S)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            return {"error": _SILENT}
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def invoke(self, sql: str, *, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """Run one statement as an invocation."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{sql}\n")
        self._process.stdin.flush()
        return self._answer(limit_s)

    def outcome(self, sql: str = "select 1") -> str:
        """Say in a word what became of an invocation."""
        answer = self.invoke(sql)
        return _WELL if "rows" in answer else answer["error"]


@contextmanager
def function(
    python: Path, peer: str, server: LocalPostgres, *, port: int, is_tls: bool, is_like: bool = False
) -> Iterator[Function]:
    """Start a peer's handler, and kill it in the end."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
    where = {"HOST": "localhost", "PORT": str(port), "USER": server.user, "NAME": server.database}
    where |= {"PASSWORD": server.password, "CA": str(server.ca_path) if is_tls else "", "IDLE_S": str(_IDLE_S)}
    where["LIKE"] = "1" if is_like else ""
    package = Path(lambda_dbconn.__file__).parent.parent
    environ = kept | {f"PEER_{name}": value for name, value in where.items()} | {"PYTHONPATH": str(package)}
    with subprocess.Popen(
        [python, HERE / "handlers.py", peer],
        env=environ,
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield Function(process)
        finally:
            process.kill()


class Trials:
    """All trials, with one server with TLS and one without.

    Args:
        python: Of the environment that has the peers.
        certificates: Of the server.
    """

    def __init__(self, python: Path, certificates: Certificates) -> None:
        self._python = python
        self._server = LocalPostgres(certificates=certificates)
        self._bare = LocalPostgres()

    def __enter__(self) -> Self:
        self._server.start()
        self._bare.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._server.close()
        self._bare.close()

    @contextmanager
    def _function(self, peer: str) -> Iterator[tuple[Function, FaultRelay]]:
        with (
            FaultRelay(target_host="127.0.0.1", target_port=self._server.port) as relay,
            function(self._python, peer, self._server, port=relay.port, is_tls=True) as running,
        ):
            assert "opened" in running.opened, running.opened
            assert running.outcome() == _WELL
            yield running, relay

    def session_ended(self, peer: str) -> str:
        """The server ended the session between two invocations."""
        with self._function(peer) as (running, _):
            for session in self._server.session_ids():
                self._server.query("select pg_terminate_backend(%s, 5000)", session)
            return _fate([running.outcome() for _ in range(3)])

    def path_cut(self, peer: str) -> str:
        """The path was cut without a word, for longer than `DB_PING_IDLE_S`, a second here; a new one is open."""
        with self._function(peer) as (running, relay):
            relay.vanish()
            relay.accept()
            time.sleep(2 * _IDLE_S)
            began = time.monotonic()
            first = running.outcome()
            took_s = time.monotonic() - began
            if first == _SILENT:
                return f"waits for more than {LIMIT_S:.0f} s"
            return first if first != _WELL else f"works{f' after {took_s:.0f} s' if took_s >= 1 else ''}"

    def statement_failed(self, peer: str) -> str:
        """The statement of the invocation before had failed."""
        with self._function(peer) as (running, _):
            assert running.outcome("select 1 / 0") != _WELL
            return _fate([running.outcome() for _ in range(3)])

    def left_open(self, peer: str) -> str:
        """The invocation before only read."""
        with self._function(peer) as (_, _):
            (state,) = {row[0] for row in self._states()}
            return {"idle": "no", "idle in transaction": "yes"}[str(state)]

    def _states(self) -> list[Any]:
        query = "select state from pg_stat_activity where usename = %s and backend_type = 'client backend'"
        return list(self._server.query(query, self._server.user))

    def setting_left(self, peer: str) -> str:
        """The invocation before had sent `SET statement_timeout`."""
        with self._function(peer) as (running, _):
            running.invoke("set statement_timeout = '1234ms'")
            rows = running.invoke("show statement_timeout")["rows"]
            return "yes" if rows == [["1234ms"]] else "no"

    def warm_us(self, peer: str) -> float:
        """Return what a warm invocation with one statement takes, in microseconds.

        In autocommit, without prepared statements, TLS and relay: so the peers differ in nothing but themselves.
        """
        with function(self._python, peer, self._server, port=self._server.port, is_tls=False, is_like=True) as running:
            return float(running.invoke("times", limit_s=_START_LIMIT_S)["us"])

    def plaintext(self, peer: str) -> str:
        """The server has no TLS, and nothing is said about TLS in the code."""
        with function(self._python, peer, self._bare, port=self._bare.port, is_tls=False) as running:
            if "error" in running.opened:
                return "no"
            return "yes" if running.outcome() == _WELL else "no"


QUESTIONS: dict[str, Callable[[Trials, str], str]] = {
    "The session was ended while idle": Trials.session_ended,
    "The path was cut without a word": Trials.path_cut,
    "The statement before had failed": Trials.statement_failed,
    "An invocation that only reads leaves a transaction open": Trials.left_open,
    "A `SET` reaches the next invocation": Trials.setting_left,
    "Logs in at a server without TLS": Trials.plaintext,
}


def _fate(outcomes: list[str]) -> str:
    """Say what became of three invocations in a row."""
    failed = [outcome for outcome in outcomes if outcome != _WELL]
    if not failed:
        return "works"
    return "every invocation fails" if len(failed) == len(outcomes) else f"{len(failed)} of 3 fails"
