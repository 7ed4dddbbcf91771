"""What every local server has in common: a life cycle, a log, and an administrator's way in."""

from __future__ import annotations

import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lambda_dbconn.testing.servers import process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from lambda_dbconn.testing.certificates import Certificates

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_POLL_INTERVAL_S = 0.005
_KILL_SESSION_TIMEOUT_S = 10.0
_START_ATTEMPTS = 5

# Below the range that Linux and macOS give to outgoing connections. Inside it, a client that retries while
# its server restarts may take the server's port, or even, on the loopback device, connect to itself.
_PORTS = range(20_000, 32_768)


def find_program(name: str, *, folders: Sequence[Path] = (), advice: str) -> Path:
    """Find a program in `PATH`, then in `folders`.

    Raises:
        ServerUnavailableError: It is in none of them; the message ends in `advice`.
    """
    on_path = shutil.which(name)
    candidates = [Path(on_path)] if on_path else [folder / name for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    places = ", ".join(["PATH", *map(str, folders)])
    raise process.ServerUnavailableError(f"no program {name!r} in {places}; {advice}")


def program_version(program: Path, *arguments: str) -> str:
    """Return the first line that `program --version` prints."""
    command = [program, *(arguments or ["--version"])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def free_port() -> int:
    """Find a port of the loopback address that nothing listens on."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise process.ServerUnavailableError(f"none of 100 ports in {_PORTS} is free")


class LocalServer(ABC):
    """A server on this machine that ordinary clients reach at `host` and `port` with a password.

    `start` makes the data directory when there is none; `stop` keeps it, `close` removes it unless it is the
    caller's. As a context manager it is started and closed. Not to be shared between threads without a lock.

    Args:
        directory: Where the data and the log are kept, also after `close`; by default a temporary directory.
        certificates: The certificate to show; without, the server has no TLS.
        is_tls_required: Refuse clients without TLS.
        extra_options: Server settings by name, which win over the fast ones that are used by default.
    """

    engine: ClassVar[str]
    """`postgresql`, `mysql` or the name of a proxy."""

    host = "localhost"
    user = "app"
    database = "app"

    def __init__(
        self,
        *,
        directory: Path | None = None,
        certificates: Certificates | None = None,
        is_tls_required: bool = False,
        extra_options: Mapping[str, str] | None = None,
    ) -> None:
        if is_tls_required and certificates is None:
            raise ValueError("is_tls_required needs certificates")
        self.password = secrets.token_urlsafe(12)
        self.port = 0
        """Chosen by the first `start`, and the same ever after."""
        self.certificates = certificates
        self._is_tls_required = is_tls_required
        self._extra_options = dict(extra_options or {})
        self._given_directory = directory
        self._home: Path | None = None
        self._process: process.ServerProcess | None = None

    @property
    def is_tls(self) -> bool:
        """Whether it speaks TLS."""
        return self.certificates is not None

    @property
    def ca_path(self) -> Path | None:
        """The authority to trust for its certificate; None without TLS."""
        return self.certificates.ca_path if self.certificates is not None and self.is_tls else None

    @property
    def pid(self) -> int:
        """The id of the server's main process."""
        return self._running().pid

    @property
    def home(self) -> Path:
        """A private temporary directory with a path short enough for a Unix socket; made when needed."""
        if self._home is None:
            self._home = process.make_temporary_directory()
        return self._home

    def start(self) -> Self:
        """Start it and wait until it answers; nothing happens when it is running.

        Raises:
            ServerUnavailableError: It is not installed, or does not start; then with the end of its log.
        """
        if self._process is not None and self._process.is_running():
            return self
        self._end_process()  # of which nothing may be left but a record
        chosen_port = self.port
        for attempts_left in reversed(range(1 if chosen_port else _START_ATTEMPTS)):
            self.port = chosen_port or free_port()
            try:
                self._prepare()
                process.hand_over(self.home)
                process.hand_over(self._directory)
                self._launch()
                break
            except BaseException as error:
                self._end_process()
                self.port = chosen_port
                # Somebody may be quicker than we between the choice of a port and its use.
                if attempts_left == 0 or "already in use" not in str(error):
                    raise
        return self

    def stop(self) -> None:
        """Stop it politely but at once, sessions or not; data, port and password stay for another `start`."""
        if self._process is not None:
            self._process.stop(self._stop_signal, timeout_s=_STOP_TIMEOUT_S)
            self._process = None

    def kill(self) -> None:
        """Kill it as a crash would, and return when it is gone; `start` recovers what was committed."""
        self._end_process()

    def restart(self) -> None:
        """Stop it and start it again, on the same port with the same data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Make it silent: the kernel still accepts connections and bytes, nothing answers until `thaw`."""
        self._running().freeze()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._running().thaw()

    def close(self) -> None:
        """Stop it and remove what it wrote, other than into a directory of the caller's."""
        self.stop()
        if self._home is not None:
            process.remove_temporary_directory(self._home)
            self._home = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def log(self) -> str:
        """Return all that it has logged."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def execute(self, statement: str, *parameters: object) -> None:
        """Run one statement as the administrator, in the clients' database."""
        with closing(self._connect_as_administrator()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement, parameters or None)

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one query as the administrator, in the clients' database, and return its rows."""
        with closing(self._connect_as_administrator()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())

    @abstractmethod
    def session_ids(self) -> list[int]:
        """List the sessions of `user`, by the id that the server knows them by."""

    def session_count(self) -> int:
        """Count the sessions of `user`."""
        return len(self.session_ids())

    def kill_session(self, session_id: int) -> None:
        """End a session from the server's side, and return when it is gone."""
        self._end_session(session_id)
        deadline_s = time.monotonic() + _KILL_SESSION_TIMEOUT_S
        while session_id in self.session_ids():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"session {session_id} lives on {_KILL_SESSION_TIMEOUT_S:g} s after its kill")
            time.sleep(_POLL_INTERVAL_S)

    # What an engine has to say.

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Say what would be started, without starting it.

        Raises:
            ServerUnavailableError: It is not installed.
        """

    @property
    def _stop_signal(self) -> signal.Signals:
        """The signal for an orderly end that does not wait for the clients."""
        return signal.SIGTERM

    @abstractmethod
    def _command(self) -> list[str]:
        """Say how to start the server, on `port`."""

    @abstractmethod
    def _connect_as_administrator(self) -> Any:
        """Return a DB-API connection in autocommit mode, made without a password by a Unix socket.

        Raises:
            ConnectionError: The server does not let anybody in, yet or any more.
        """

    @abstractmethod
    def _make_ready(self) -> None:
        """Give `user` its password; raise `ConnectionError` as long as the server is not up."""

    @abstractmethod
    def _end_session(self, session_id: int) -> None:
        """Ask the server to end a session."""

    # What they share.

    @property
    def _directory(self) -> Path:
        return self._given_directory or self.home

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    @property
    def _log_path(self) -> Path:
        return self._directory / "server.log"

    def _running(self) -> process.ServerProcess:
        if self._process is None:
            raise RuntimeError(f"this {self.engine} server is not running")
        return self._process

    def _prepare(self) -> None:
        """Make everything that the server needs to find in its directories."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if self.certificates is not None:
            shutil.copy(self.certificates.server_certificate_path, self.home / "server.pem")
            shutil.copy(self.certificates.server_key_path, self.home / "server.key")

    def _launch(self) -> None:
        self._process = process.ServerProcess(self._command(), directory=self.home, log_path=self._log_path)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                return self._make_ready()
            except ConnectionError as error:
                is_running = self._process.is_running()
                if is_running and time.monotonic() < deadline_s:
                    time.sleep(_POLL_INTERVAL_S)
                    continue
                reason = f"did not answer within {_START_TIMEOUT_S:g} s: {error}" if is_running else "ended"
                raise process.ServerUnavailableError(
                    f"the {self.engine} server on port {self.port} {reason}; its log ends in:\n"
                    f"{self._process.log_tail()}"
                ) from error

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None
