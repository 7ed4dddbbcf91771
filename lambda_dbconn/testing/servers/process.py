"""Start a server's processes without privileges, and never leave one behind."""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_dbconn.testing.servers import reaper

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNSHARE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_LOG_TAIL_LINES = 30
_MEMORY_ROOT = Path("/dev/shm")
_MEMORY_ROOT_MIN_FREE_BYTES = 2 << 30

# Says who it is, then becomes the server. The pipe to the reaper is its standard input until then: were
# the run killed in between, the pipe would stay open, and the reaper wait, until the server is known.
_ANNOUNCE_AND_EXEC = 'echo "process $$" >&0; exec "$@" <"$0"'


class ServerUnavailableError(RuntimeError):
    """A server is not installed, or does not start; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """Who the servers run as: database servers refuse to run as root."""

    prefix: tuple[str, ...] = ()
    user_id: int | None = None
    group_id: int | None = None


@cache
def _identity() -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    # Best in a namespace where root has another number: files stay root's, no account is needed.
    if shutil.which(_UNSHARE[0]):
        trial = subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False)
        if trial.returncode == 0:
            return _Identity(prefix=_UNSHARE)
    nobody = pwd.getpwnam("nobody")
    return _Identity(user_id=nobody.pw_uid, group_id=nobody.pw_gid)


def hand_over(directory: Path) -> None:
    """Give a directory and all that is in it to the account that servers run as."""
    identity = _identity()
    if identity.user_id is not None and identity.group_id is not None:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, identity.user_id, identity.group_id, follow_symlinks=False)


@cache
def is_within_reach(program: Path) -> bool:
    """Say whether the servers' account can run a program; a folder on the way to it may be closed to that account."""
    identity = _identity()
    try:
        subprocess.run(
            [program, "--version"],
            user=identity.user_id,
            group=identity.group_id,
            extra_groups=None if identity.user_id is None else (),
            capture_output=True,
            cwd="/",
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@cache
def within_reach(folder: Path, program: str, *, trees: tuple[Path, ...]) -> Path:
    """Return a folder of programs that the servers' account can run: `folder`, or the same in a copy of `trees`.

    The trees lie side by side, and `folder` in one of them: programs find their libraries by relative paths.
    A virtual environment below root's home cannot be entered by the account that stands in for root where user
    namespaces are forbidden, in most containers; and folder modes are not ours to change.

    Raises:
        ServerUnavailableError: That account cannot enter the folder for temporary files either.
    """
    if is_within_reach(folder / program):
        return folder
    home = make_temporary_directory()
    for tree in trees:
        shutil.copytree(tree, home / tree.name, symlinks=True)
    hand_over(home)
    copied = home / folder.relative_to(trees[0].parent)
    if not is_within_reach(copied / program):
        raise ServerUnavailableError(f"{copied / program} cannot be run by the account that servers run as; set TMPDIR")
    return copied


class _ReaperPipe:
    """The reaper of this process, started when there is first something to tell it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reaper: subprocess.Popen[bytes] | None = None

    def descriptor(self) -> int:
        with self._lock:
            if self._reaper is None:
                # Its output goes nowhere: a run whose output is piped would else seem to end late.
                self._reaper = subprocess.Popen(
                    [sys.executable, "-I", "-S", reaper.__file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,
                )
                atexit.register(self._close)
            assert self._reaper.stdin is not None  # for the type checker: a pipe was asked for
            return self._reaper.stdin.fileno()

    def tell(self, event: str, subject: object) -> None:
        os.write(self.descriptor(), f"{event} {subject}\n".encode())  # one write: lines never mix

    def _close(self) -> None:
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait()


_reaper_pipe = _ReaperPipe()


def _temporary_root() -> Path:
    """Return `TMPDIR` when it is set, else memory where there is plenty: a thousand small files a server."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY_ROOT, os.W_OK):
        return Path(tempfile.gettempdir())
    is_roomy = shutil.disk_usage(_MEMORY_ROOT).free >= _MEMORY_ROOT_MIN_FREE_BYTES
    return _MEMORY_ROOT if is_roomy else Path(tempfile.gettempdir())


def make_temporary_directory() -> Path:
    """Make a private directory with a short path, which is removed when the run ends, however it ends."""
    directory = _temporary_root() / f"dbconn-{secrets.token_hex(8)}"
    _reaper_pipe.tell("directory", directory)  # before it is there, so that it is never unknown
    directory.mkdir(mode=0o700)
    return directory


def remove_temporary_directory(directory: Path) -> None:
    """Remove a directory that `make_temporary_directory` made, and what is in it by now.

    A process whose start was interrupted may still write there, or make it anew: that goes when the run ends.
    """
    shutil.rmtree(directory, ignore_errors=True)


class ServerProcess:
    """One process, with its descendants; it dies with the run.

    Args:
        command: The program and its arguments.
        directory: Where it runs: its working, home and temporary directory, writable to it.
        log_path: The file that its output is added to.
        input_path: The file that is its standard input.
    """

    def __init__(
        self, command: Sequence[str], *, directory: Path, log_path: Path, input_path: Path = Path(os.devnull)
    ) -> None:
        identity = _identity()
        with log_path.open("ab") as log:
            self._log_path, self._log_start_bytes = log_path, log.tell()
            self._process = subprocess.Popen(
                ["sh", "-c", _ANNOUNCE_AND_EXEC, str(input_path), *identity.prefix, *command],
                stdin=_reaper_pipe.descriptor(),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                # Nothing of the caller's: PGDATA and the like would be obeyed.
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": str(directory),
                    "TMPDIR": str(directory),
                    "LC_ALL": "C",
                    "TZ": "UTC",
                },
                # A Ctrl-C at the terminal is for the run, which then stops its servers in its own order.
                start_new_session=True,
                user=identity.user_id,
                group=identity.group_id,
                extra_groups=None if identity.user_id is None else (),
            )

    @property
    def pid(self) -> int:
        """The server's own process: the shell and `unshare` have been replaced by it."""
        return self._process.pid

    def is_running(self) -> bool:
        """Say whether it has not ended yet; frozen counts as running."""
        return self._process.poll() is None

    def log_tail(self) -> str:
        """Return the last lines that this process, and none before it, wrote."""
        with self._log_path.open("rb") as log:
            log.seek(self._log_start_bytes)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:])

    def finish(self, *, timeout_s: float) -> int:
        """Wait for its end, kill it after `timeout_s`, and return its exit status."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        _reaper_pipe.tell("ended", self.pid)
        return self._process.returncode

    def stop(self, number: signal.Signals, *, timeout_s: float) -> None:
        """End it by a signal that it may handle; a frozen one is thawed for that."""
        if self.is_running():
            self.thaw()
            self._process.send_signal(number)
        self.finish(timeout_s=timeout_s)

    def kill(self) -> None:
        """End it and its descendants by `SIGKILL`, and return when all are gone."""
        if self.is_running():
            reaper.kill_tree(self.pid)
            self._process.wait()
        _reaper_pipe.tell("ended", self.pid)

    def freeze(self) -> None:
        """Stop it and its descendants where they are: sockets stay open, nothing answers."""
        if self.is_running():
            reaper.freeze_tree(self.pid)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        if self.is_running():
            reaper.send_signal(reaper.process_tree(self.pid), signal.SIGCONT)


def run_to_end(
    command: Sequence[str],
    *,
    directory: Path,
    log_path: Path,
    timeout_s: float,
    input_path: Path = Path(os.devnull),
) -> None:
    """Run a preparing program; raise `ServerUnavailableError` with its last words when it fails."""
    process = ServerProcess(command, directory=directory, log_path=log_path, input_path=input_path)
    try:
        status = process.finish(timeout_s=timeout_s)
    except BaseException:  # a Ctrl-C: its directory is about to be removed
        process.kill()
        raise
    if status != 0:
        raise ServerUnavailableError(
            f"{command[0]} failed with status {status} (it had {timeout_s:g} s):\n{process.log_tail()}"
        )
