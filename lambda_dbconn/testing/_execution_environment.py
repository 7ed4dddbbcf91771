"""One Lambda execution environment: a process that runs the real runtime client, and the API that it asks."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_API_PATH = "/2018-06-01/runtime/"
_POLL_INTERVAL_S = 0.02
_SETTLING_S = 2.0  # for a runtime to fall asleep; a function's own threads may never do so


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionFault:
    """What went wrong in a function, as Lambda tells its invoker.

    Attributes:
        type: name of the exception, or Lambda's own, such as ``Sandbox.Timedout`` or ``Runtime.ExitError``.
        message: text of the exception.
        stack: formatted frames, outermost first.
    """

    type: str
    message: str
    stack: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, body: bytes) -> FunctionFault:
        """Read what the runtime client posts."""
        report = json.loads(body)
        return cls(
            type=report["errorType"],
            message=report["errorMessage"],
            stack=tuple(report.get("stackTrace") or ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An invocation on its way to the runtime."""

    request_id: str
    headers: Mapping[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the runtime answered: a value, or a fault."""

    value: Any = None
    fault: FunctionFault | None = None


@dataclass(slots=True, kw_only=True)
class _Exchange:
    """What the API's threads and the invoker tell each other; touched only while holding ``changed``."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    requests: deque[Request] = field(default_factory=deque)
    outcomes: dict[str, Outcome | None] = field(default_factory=dict)  # of the invocations under way
    init_fault: FunctionFault | None = None
    polling_count: int = 0
    is_restoring: bool = False
    is_restored: bool = False
    is_over: bool = False

    def is_ready(self) -> bool:
        return self.polling_count > 0 or self.is_restoring or self.init_fault is not None


class ExecutionEnvironment:
    """A runtime process with a Runtime API of its own; once it has ended, it is not used again.

    Each environment listens on its own port, so a late word from a killed one reaches nobody.

    Args:
        command: what runs the runtime client.
        directory: the task root, where the process starts.
        variables: its whole environment, but for the API's address.

    Raises:
        OSError: the command cannot be started.
    """

    def __init__(self, *, command: Sequence[str], directory: Path, variables: Mapping[str, str]) -> None:
        self.is_frozen = False
        self._exchange = _Exchange()
        self._server = _ApiServer(self._exchange)
        # A file takes what the process says without a thread, and never makes it wait.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - end() closes it
        spawn = functools.partial(
            subprocess.Popen,
            [*_dying_with_parent(), *command],
            cwd=directory,
            env={**variables, "AWS_LAMBDA_RUNTIME_API": self._server.address},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        spawned: Future[subprocess.Popen[bytes]] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(spawn, spawned), name=f"runtime-api {self._server.address}", daemon=True
        )
        self._thread.start()
        try:
            self._process = spawned.result()
        except OSError:
            self._thread.join()
            self._server.server_close()
            self._output.close()
            raise

    def _serve(self, spawn: Callable[[], subprocess.Popen[bytes]], spawned: Future[subprocess.Popen[bytes]]) -> None:
        # Here, as the kernel sends the parent's death signal when the *thread* that spawned has ended.
        try:
            spawned.set_result(spawn())
        except OSError as error:
            spawned.set_exception(error)
        else:
            self._server.serve_forever(_POLL_INTERVAL_S)

    @property
    def pid(self) -> int:
        """Process id, and process group id, of the runtime."""
        return self._process.pid

    @property
    def is_restoring(self) -> bool:
        """Whether the runtime waits for its snapshot to be restored."""
        with self._exchange.changed:
            return self._exchange.is_restoring

    def exit_reason(self) -> str | None:
        """How the process ended, in Lambda's words; None while it lives. The process is not reaped."""
        try:
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # end() reaps it, in another thread
            status = self._process.wait()
        else:
            if info is None:
                return None
            status = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
        return f"exit status {status}" if status >= 0 else f"signal: {signal.strsignal(-status)}".lower()

    def wait_until_ready(self, timeout_s: float) -> FunctionFault | None:
        """Wait until the runtime asks for an invocation or for its restore; None, or why it does not."""
        exchange = self._exchange
        if not self._wait_for(exchange.is_ready, timeout_s):
            reason = self.exit_reason()
            if reason is not None:
                return FunctionFault(type="Runtime.ExitError", message=f"Runtime exited with error: {reason}")
            return FunctionFault(type="Sandbox.Timedout", message=f"Init timed out after {timeout_s:.2f} seconds")
        return exchange.init_fault

    def restore(self, timeout_s: float) -> FunctionFault | None:
        """Let the runtime go on from its snapshot; None, or why it then failed."""
        with self._exchange.changed:
            self._exchange.is_restoring, self._exchange.is_restored = False, True
            self._exchange.changed.notify_all()
        return self.wait_until_ready(timeout_s)

    def invoke(self, request: Request, timeout_s: float) -> Outcome | None:
        """Hand over a request and wait; None: no answer within ``timeout_s``, or the process has ended."""
        exchange = self._exchange
        with exchange.changed:
            exchange.requests.append(request)
            exchange.outcomes[request.request_id] = None
            exchange.changed.notify_all()
        self._wait_for(lambda: exchange.outcomes[request.request_id] is not None, timeout_s)
        with exchange.changed:
            with contextlib.suppress(ValueError):
                exchange.requests.remove(request)  # nobody took it in time
            return exchange.outcomes.pop(request.request_id)

    def settle(self) -> None:
        """Wait until the runtime sleeps; at once while an invocation is under way, and for two seconds at most.

        The thread that asks for the next invocation is not the main one. A signal that meets the main thread between
        its last instruction in Python and its sleep is not seen by Python until something else wakes it up.
        """
        exchange = self._exchange
        give_up_s = time.monotonic() + _SETTLING_S
        if self._wait_for(lambda: exchange.is_ready() or bool(exchange.outcomes), _SETTLING_S):
            if exchange.outcomes:
                return
            # Twice: a thread may wake up another one, and sleep, while they are looked at one by one.
            while (self._is_running() or self._is_running()) and time.monotonic() < give_up_s:
                time.sleep(0.001)

    def _is_running(self) -> bool:
        """Say whether a thread is about to do something, or stopped; where there is no /proc, nobody can tell."""
        with contextlib.suppress(OSError):  # also when one ends meanwhile
            for path in Path(f"/proc/{self.pid}/task").glob("*/stat"):
                if path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] in "RT":
                    return True
        return False

    def _wait_for(self, fact: Callable[[], bool], timeout_s: float) -> bool:
        give_up_s = time.monotonic() + timeout_s
        changed = self._exchange.changed
        with changed:
            while not fact():
                remaining_s = give_up_s - time.monotonic()
                if remaining_s <= 0 or self.exit_reason() is not None:
                    return False
                changed.wait(min(remaining_s, _POLL_INTERVAL_S))
            return True

    def freeze(self) -> None:
        """Stop the whole process group; it has stopped when this returns."""
        self.is_frozen = True
        self.send_signal(signal.SIGSTOP)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let the process group go on."""
        self.send_signal(signal.SIGCONT)
        self.is_frozen = False

    def terminate(self, grace_s: float) -> None:
        """Send SIGTERM to the runtime, and wait up to ``grace_s`` seconds for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        self._wait_for(lambda: False, grace_s)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process group, unless it has been reaped."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def output(self) -> str:
        """What the process has written so far, to both streams."""
        size_bytes = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size_bytes, 0).decode(errors="replace")

    def end(self) -> tuple[int, str]:
        """Kill what is left of the process group and close everything; the exit status, and the output."""
        # Before the process is reaped: until then, nobody else can have its number.
        self.send_signal(signal.SIGKILL)
        exit_status = self._process.wait()
        with self._exchange.changed:
            self._exchange.is_over = True
            self._exchange.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._output:
            return exit_status, self.output()


class _ApiServer(socketserver.ThreadingTCPServer):
    """Serves the Runtime API on a free port, a thread for each connection."""

    def __init__(self, exchange: _Exchange) -> None:
        self.exchange = exchange
        self._connections: list[tuple[threading.Thread, socket.socket]] = []
        super().__init__(("127.0.0.1", 0), _ApiHandler)
        self.address = "{}:{}".format(*self.server_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        # Daemon threads, as a harness that was never shut down must still be able to exit.
        args = (request, client_address)
        thread = threading.Thread(target=self.process_request_thread, args=args, daemon=True)
        self._connections.append((thread, request))
        thread.start()

    def server_close(self) -> None:
        super().server_close()
        for thread, connection in self._connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about broken connections: a runtime that is killed leaves some."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _ApiHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one write
    server: _ApiServer

    def do_GET(self) -> None:
        match self.path.removeprefix(_API_PATH):
            case "invocation/next":
                self._next_invocation()
            case "restore/next":
                self._next_restore()
            case _:
                self._reply(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_json = self.headers["Content-Type"] == "application/json"
        exchange = self.server.exchange
        with exchange.changed:
            match self.path.removeprefix(_API_PATH).split("/"):
                case ["invocation", request_id, "response"] if request_id in exchange.outcomes:
                    exchange.outcomes[request_id] = Outcome(value=json.loads(body) if is_json else body)
                case ["invocation", request_id, "error"] if request_id in exchange.outcomes:
                    exchange.outcomes[request_id] = Outcome(fault=FunctionFault.from_json(body))
                case ["init" | "restore", "error"]:
                    exchange.init_fault = FunctionFault.from_json(body)
            exchange.changed.notify_all()
        self._reply(202, b'{"status":"OK"}')

    def log_message(self, *_args: object) -> None:
        """Say nothing: what the function says is what counts."""

    def _next_invocation(self) -> None:
        exchange = self.server.exchange
        with exchange.changed:
            exchange.polling_count += 1
            exchange.changed.notify_all()
            exchange.changed.wait_for(lambda: exchange.requests or exchange.is_over)
            request = exchange.requests.popleft() if exchange.requests else None
            exchange.polling_count -= 1
        if request is None:
            self.close_connection = True
        else:
            self._reply(200, request.payload, request.headers)

    def _next_restore(self) -> None:
        exchange = self.server.exchange
        with exchange.changed:
            exchange.is_restoring = True
            exchange.changed.notify_all()
            exchange.changed.wait_for(lambda: exchange.is_restored or exchange.is_over)
        self._reply(200)

    def _reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@functools.cache
def _dying_with_parent() -> tuple[str, ...]:
    """A command prefix that kills the process when the harness dies, even by SIGKILL; empty without setpriv."""
    setpriv = shutil.which("setpriv")
    prefix = (setpriv or "", "--pdeathsig", "KILL", "--")
    if setpriv is None or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        return ()
    return prefix
