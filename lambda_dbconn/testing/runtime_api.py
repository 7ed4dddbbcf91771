"""AWS Lambda on this machine: the real Python runtime client, against a local Runtime API.

The API is the one of https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html, the life cycle that of
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Any, Self

from lambda_dbconn.testing._execution_environment import ExecutionEnvironment, FunctionFault, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FunctionFault", "InitError", "Invocation", "LocalRuntime", "RuntimeUnavailableError"]

_FUNCTION_NAME = "local-function"
_REGION = "us-east-1"
# What a Python process may need to start here. Nothing else: what happens to be set in a developer's shell
# (AWS_PROFILE, DATABASE_URL) is not set on Lambda.
_INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")
_CONCURRENCY = "AWS_LAMBDA_MAX_CONCURRENCY"
_SNAP_START = "snap-start"
# There the keys come from a container credentials endpoint, and the log has a name for each clone.
_NOT_UNDER_SNAP_START = {
    "AWS_ACCESS_KEY_ID",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
}
_NO_CLIENT = "No module named awslambdaric"


class RuntimeUnavailableError(Exception):
    """The runtime client cannot run here; the message says what to install."""


class InitError(Exception):
    """The function did not get through its init phase, or its restore.

    Attributes:
        fault: what the runtime reported, or how it ended.
        output: what it wrote until then.
    """

    def __init__(self, fault: FunctionFault, output: str) -> None:
        super().__init__(fault, output)
        self.fault = fault
        self.output = output

    def __str__(self) -> str:
        return f"{self.fault.type}: {self.fault.message}\n{self.output}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What came of an invocation.

    Attributes:
        request_id: the function's ``context.aws_request_id``.
        duration_ms: from handing over the event to having the answer, init not included.
        value: what the handler returned, by way of JSON; bytes if it returned bytes.
        error: what the handler raised, or how it was ended; None if it returned.
    """

    request_id: str
    duration_ms: float
    value: Any = None
    error: FunctionFault | None = None

    @property
    def timed_out(self) -> bool:
        """Whether the function ran into its timeout, and its environment was killed."""
        return self.error is not None and self.error.type == "Sandbox.Timedout"


class LocalRuntime:
    """A Lambda function that runs here, in at most one execution environment.

    As on Lambda, an environment serves one invocation after another, with its modules and connections kept; a
    timeout kills it, a crash ends it, and the next invocation begins a new one. A handler that raises keeps it.
    Use as a context manager, or :meth:`start` and :meth:`shutdown`. The process dies with this one, even if this
    one is killed (where util-linux' ``setpriv`` is installed).

    Any thread may call any method; :meth:`invoke` waits while another thread invokes. Needs Linux and
    awslambdaric. An invocation costs less than a millisecond more than its handler.

    With ``AWS_LAMBDA_MAX_CONCURRENCY`` it is a managed instance: the runtime client forks so many workers, which serve
    as many invocations at once, are never frozen, and go on after a timeout. One that has died is not replaced, and
    an invocation may be lost with it.

    Args:
        directory: the task root: current directory of the function, and first place for its imports.
        handler: ``module.function``.
        environment: variables of the function; they win over the ones that Lambda sets. Of this process's, it
            inherits a handful, and none that begins with ``AWS_``. With
            ``AWS_LAMBDA_INITIALIZATION_TYPE=snap-start``, the environment waits for :meth:`restore`, and there are
            no AWS keys among its variables: as on Lambda they have to come from a container credentials endpoint.
        timeout_s: the function's timeout, in seconds.
        init_timeout_s: time for the init phase, and for a restore, in seconds.
        python: the interpreter that runs the function.
        freeze_between_invocations: freeze the environment when an invocation is over, as Lambda does.
        is_traced: let X-Ray sample each invocation; a daemon is named by ``AWS_XRAY_DAEMON_ADDRESS``.
    """

    def __init__(
        self,
        *,
        directory: str | os.PathLike[str],
        handler: str = "app.handler",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 3.0,
        init_timeout_s: float = 10.0,
        python: str = sys.executable,
        freeze_between_invocations: bool = False,
        is_traced: bool = False,
    ) -> None:
        self._directory = Path(directory).absolute()
        self._handler = handler
        self._variables = dict(environment or {})
        self._timeout_s = timeout_s
        self._init_timeout_s = init_timeout_s
        self._python = python
        self._freeze_between_invocations = freeze_between_invocations
        self._is_traced = is_traced
        self._environment: ExecutionEnvironment | None = None
        self._past_output = ""
        self._is_managed_instance = _CONCURRENCY in self._variables
        self._places = threading.BoundedSemaphore(int(self._variables.get(_CONCURRENCY, 1)))
        self._beginning = threading.RLock()
        self._changing = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.shutdown()

    @property
    def pid(self) -> int:
        """Process id of the runtime.

        Raises:
            RuntimeError: there is no environment.
        """
        return self._current().pid

    @property
    def is_frozen(self) -> bool:
        """Whether there is an environment, and it is frozen."""
        environment = self._environment
        return environment is not None and environment.is_frozen

    def output(self) -> str:
        """What all environments have written so far, to stdout and stderr."""
        with self._changing:
            return self._past_output + (self._environment.output() if self._environment else "")

    def start(self) -> None:
        """Begin an environment, and wait until it is ready for an invocation, or for :meth:`restore`.

        Raises:
            InitError: importing the handler failed, or took too long.
            RuntimeUnavailableError: no Linux, or no awslambdaric.
            RuntimeError: there is an environment already.
        """
        with self._beginning:
            if self._environment is not None:
                raise RuntimeError("there is an execution environment already")
            self._begin()

    def restore(self) -> None:
        """Restore the snapshot: the runtime runs its after-restore hooks, and is ready.

        Raises:
            InitError: a hook failed, or took too long.
            RuntimeError: no snapshot waits to be restored.
        """
        with self._beginning:
            environment = self._current()
            if not environment.is_restoring:
                raise RuntimeError("no snapshot waits to be restored: is this snap-start, and restored already?")
            self._raise_for(environment, environment.restore(self._init_timeout_s))

    def invoke(self, event: object, *, timeout_s: float | None = None) -> Invocation:
        """Invoke the function and wait for it.

        First does what Lambda would: begins a new environment if there is none, restores it, thaws it. An init
        that fails here is the invocation's error, not an exception.

        Args:
            event: anything that JSON can say.
            timeout_s: in place of the function's, for once.

        Raises:
            RuntimeUnavailableError: see :meth:`start`.
            TypeError: JSON cannot say the event.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        payload = json.dumps(event).encode()
        with self._places:
            request_id = str(uuid.uuid4())
            try:
                with self._beginning:
                    environment = self._ready_environment()
            except InitError as error:
                return Invocation(request_id=request_id, duration_ms=0.0, error=error.fault)
            started_s = time.perf_counter()
            headers = _headers(request_id, timeout_s, is_traced=self._is_traced)
            request = Request(request_id=request_id, headers=headers, payload=payload)
            outcome = environment.invoke(request, timeout_s)
            duration_ms = (time.perf_counter() - started_s) * 1000
            if outcome is None:
                fault = _fault_without_answer(environment, request_id, timeout_s)
                if not self._is_managed_instance or environment.exit_reason() is not None:
                    self._discard(environment)
                return Invocation(request_id=request_id, duration_ms=duration_ms, error=fault)
            if self._freeze_between_invocations and not self._is_managed_instance:
                environment.settle()
                environment.freeze()
        return Invocation(request_id=request_id, duration_ms=duration_ms, value=outcome.value, error=outcome.fault)

    def freeze(self) -> None:
        """Stop every process of the environment (SIGSTOP) until :meth:`thaw` or the next :meth:`invoke`.

        As Lambda does, this waits until the runtime sleeps, for two seconds at most, but for no invocation that is
        under way: that may time out. Time goes on, for deadlines and for servers.

        Raises:
            RuntimeError: there is no environment.
        """
        environment = self._current()
        if not environment.is_frozen:
            environment.settle()
            environment.freeze()

    def thaw(self) -> None:
        """Let a frozen environment go on.

        Raises:
            RuntimeError: there is no environment.
        """
        self._current().thaw()

    def kill(self) -> None:
        """Kill the environment at once (SIGKILL), also under an invocation; the next one begins a new one."""
        environment = self._environment
        if environment is not None:
            environment.send_signal(SIGKILL)
            self._discard(environment)

    def shutdown(self, *, grace_s: float = 2.0) -> int | None:
        """End the environment: SIGTERM, and SIGKILL if it has not ended ``grace_s`` seconds later. Idempotent.

        SIGTERM waits until the runtime sleeps, for two seconds at most.

        Lambda does this only for functions with an extension; others are killed. Before Python 3.12, a SIGTERM
        handler of the function never runs, as the main thread waits inside the runtime client.

        Returns:
            The exit status, negative for a signal's number; None if there was no environment.
        """
        environment = self._environment
        if environment is None:
            return None
        if environment.is_frozen:
            environment.thaw()  # first: of stopped threads any one takes the signal, and the main one sleeps on
        environment.settle()
        environment.terminate(grace_s)
        return self._discard(environment)

    def _current(self) -> ExecutionEnvironment:
        environment = self._environment
        if environment is None:
            raise RuntimeError("there is no execution environment: start() it first")
        return environment

    def _ready_environment(self) -> ExecutionEnvironment:
        environment = self._environment
        if environment is not None and environment.exit_reason() is not None:
            self._discard(environment)
            environment = None
        if environment is None:
            environment = self._begin()
        if environment.is_frozen:
            environment.thaw()
        if environment.is_restoring:
            self._raise_for(environment, environment.restore(self._init_timeout_s))
        return environment

    def _begin(self) -> ExecutionEnvironment:
        if sys.platform != "linux":
            raise RuntimeUnavailableError(f"awslambdaric runs on Linux only, and this is {sys.platform}")
        environment = self._environment = ExecutionEnvironment(
            command=[self._python, "-m", "awslambdaric", self._handler],
            directory=self._directory,
            variables=self._variables_of_the_function(),
        )
        self._raise_for(environment, environment.wait_until_ready(self._init_timeout_s))
        return environment

    def _raise_for(self, environment: ExecutionEnvironment, fault: FunctionFault | None) -> None:
        if fault is None:
            return
        output = environment.output()
        self._discard(environment)
        if _NO_CLIENT in output:
            raise RuntimeUnavailableError(f"{self._python} has no awslambdaric: pip install 'lambda-dbconn[demo]'")
        raise InitError(fault, output)

    def _discard(self, environment: ExecutionEnvironment) -> int | None:
        with self._changing:
            if self._environment is not environment:
                return None
            self._environment = None
            exit_status, output = environment.end()
            self._past_output += output
        return exit_status

    def _reserved_variables(self) -> dict[str, str]:
        """What Lambda sets; see its page on environment variables."""
        return {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "_HANDLER": self._handler,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{_python_version(self._python)}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_FUNCTION_NAME": _FUNCTION_NAME,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{_FUNCTION_NAME}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_REGION": _REGION,
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "LAMBDA_TASK_ROOT": str(self._directory),
            "TZ": ":UTC",
        }

    def _variables_of_the_function(self) -> dict[str, str]:
        """Return what Lambda sets, with what was given; a function from a snapshot has no keys and no log stream."""
        variables = {**self._reserved_variables(), **self._variables}
        if variables["AWS_LAMBDA_INITIALIZATION_TYPE"] == _SNAP_START:
            for name in _NOT_UNDER_SNAP_START - self._variables.keys():
                del variables[name]
        return variables


def _headers(request_id: str, timeout_s: float, *, is_traced: bool) -> dict[str, str]:
    trace = (
        f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Parent={uuid.uuid4().hex[:16]};Sampled={is_traced:d}"
    )
    return {
        "Lambda-Runtime-Aws-Request-Id": request_id,
        "Lambda-Runtime-Deadline-Ms": str(int((time.time() + timeout_s) * 1000)),
        "Lambda-Runtime-Invoked-Function-Arn": f"arn:aws:lambda:{_REGION}:123456789012:function:{_FUNCTION_NAME}",
        "Lambda-Runtime-Trace-Id": trace,
    }


def _fault_without_answer(environment: ExecutionEnvironment, request_id: str, timeout_s: float) -> FunctionFault:
    reason = environment.exit_reason()
    if reason is None:
        message = f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds"
        return FunctionFault(type="Sandbox.Timedout", message=message)
    message = f"RequestId: {request_id} Error: Runtime exited with error: {reason}"
    return FunctionFault(type="Runtime.ExitError", message=message)


@functools.cache
def _python_version(python: str) -> str:
    if python == sys.executable:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
