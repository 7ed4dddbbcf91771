"""AWS's Lambda Runtime Interface Emulator, which ends a function that takes too long: a second opinion on ours.

`python -m tests.support.emulator` downloads it with pip into `.cache/emulator`. It is a program of AWS's own, part of
the wheel of `aws-sam-cli`. It knows neither freeze nor SnapStart nor more than one invocation at a time.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lambda_dbconn.testing._execution_environment import _dying_with_parent
from lambda_dbconn.testing.runtime_api import FunctionFault, Invocation, RuntimeUnavailableError
from lambda_dbconn.testing.servers.server import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "1.170.0"
"""Of `aws-sam-cli`."""

# The variable is for test runs from a copy of the checkout.
CACHE = Path(os.environ.get("LAMBDA_DBCONN_EMULATOR_CACHE") or Path(__file__).parents[2] / ".cache" / "emulator")
_REQUIREMENT = (
    f"aws-sam-cli=={VERSION} --hash=sha256:24ebaf5ecba38dc1758089968cb89ab61e124b84e92a344fc7a2771a47f4d0bf\n"
)
_PROGRAMS = {"x86_64": "aws-lambda-rie-x86_64", "aarch64": "aws-lambda-rie-arm64"}
_FOLDER_IN_WHEEL = "samcli/local/rapid"
_DOWNLOAD_TIMEOUT_S = 120.0
_INVOKE_PATH = "/2015-03-31/functions/function/invocations"
_TIMED_OUT = "Task timed out after"
_LIMIT_S = 60.0
_POLL_INTERVAL_S = 0.02
_START_ATTEMPTS = 5
_LISTEN_STATE = "0A"  # in /proc/net/tcp
_INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR")


def program() -> Path:
    """Say where the emulator is.

    Raises:
        RuntimeUnavailableError: It is not there, or there is none for this machine.
    """
    name = _PROGRAMS.get(platform.machine()) if sys.platform == "linux" else None
    if name is None:
        raise RuntimeUnavailableError(f"there is no emulator for {sys.platform} on {platform.machine()}")
    path = CACHE / VERSION / name
    if not path.exists():
        raise RuntimeUnavailableError(f"no {name} in {path.parent}; fetch it with `python -m tests.support.emulator`")
    return path


def install() -> None:
    """Download the emulator, 8 MB; nothing happens when it is there.

    Raises:
        RuntimeUnavailableError: It cannot be had, or is not what it was when its hash was written down.
    """
    target = CACHE / VERSION
    if target.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        folder = Path(temporary)
        (folder / "requirement").write_text(_REQUIREMENT)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        options = ["--require-hashes", "--only-binary=:all:", "--dest", str(folder), "-r", str(folder / "requirement")]
        result = subprocess.run(
            [*pip, *options], capture_output=True, text=True, check=False, timeout=_DOWNLOAD_TIMEOUT_S
        )
        if result.returncode != 0:
            raise RuntimeUnavailableError(f"pip cannot download aws-sam-cli {VERSION}:\n{result.stderr}")
        programs = folder / "programs"
        programs.mkdir()
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            for name in _PROGRAMS.values():
                (programs / name).write_bytes(wheel.read(f"{_FOLDER_IN_WHEEL}/{name}"))
                (programs / name).chmod(0o755)
        programs.rename(target)  # last, so that an interrupted installation is not taken for a whole one


class LocalEmulator:
    """A function under the emulator, with the real runtime client; invoked and read as a `LocalRuntime` is.

    Args:
        directory: The task root, with the handler's module.
        handler: `module.function`.
        environment: The function's variables, beside those that Lambda sets.
        timeout_s: The function's timeout; the emulator knows whole seconds.
    """

    def __init__(self, *, directory: Path, handler: str, environment: Mapping[str, str], timeout_s: int) -> None:
        self._directory = directory
        self._handler = handler
        self._timeout_s = timeout_s
        self._variables = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_EXECUTION_ENV": "AWS_Lambda_python{}.{}".format(*sys.version_info),
            "AWS_LAMBDA_FUNCTION_NAME": "local-function",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s),
            "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "LAMBDA_TASK_ROOT": str(directory),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.shutdown()

    def start(self) -> None:
        """Start it, and wait until it listens; the function itself begins with the first invocation.

        Raises:
            RuntimeUnavailableError: It is not there, or ends at once.
        """
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            try:
                self._launch(program())
                break
            except BaseException as error:
                self.shutdown()
                # Somebody may be quicker than we between the choice of a port and its use.
                if attempts_left == 0 or "already in use" not in str(error):
                    raise

    def _launch(self, path: Path) -> None:
        self._port = own_port = free_port()
        while own_port == self._port:
            own_port = free_port()
        addresses = [
            f"--runtime-interface-emulator-address=127.0.0.1:{self._port}",
            f"--runtime-api-address=127.0.0.1:{own_port}",
        ]
        runtime = [sys.executable, "-m", "awslambdaric", self._handler]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - shutdown() closes it
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - likewise
        self._process = subprocess.Popen(
            [*_dying_with_parent(), str(path), *addresses, *runtime],
            cwd=self._directory,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
        )
        while not {self._port, own_port} <= _listening_ports(self._process.pid):
            if self._process.poll() is not None:
                raise RuntimeUnavailableError(f"the emulator has ended:\n{_text(self._errors)}")
            time.sleep(_POLL_INTERVAL_S)

    def invoke(self, event: object) -> Invocation:
        """Invoke the function and wait for it; its request id is not told.

        Raises:
            RuntimeUnavailableError: The emulator ends before it answers.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_LIMIT_S)
        started_s = time.perf_counter()
        try:
            connection.request("POST", _INVOKE_PATH, json.dumps(event))
            body = connection.getresponse().read().decode()
        except (http.client.HTTPException, OSError) as cause:
            name = type(cause).__name__
            raise RuntimeUnavailableError(f"{name} from the emulator:\n{_text(self._errors)}") from cause
        finally:
            connection.close()
        duration_ms = (time.perf_counter() - started_s) * 1000
        value, error = _read(body)
        return Invocation(request_id="", duration_ms=duration_ms, value=value, error=error)

    def output(self) -> str:
        """What the function has written so far, with the emulator's lines of START, END and REPORT."""
        return _text(self._output)

    def shutdown(self) -> None:
        """End it: it kills the function, if there is one."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._output.close()
        self._errors.close()


def _listening_ports(pid: int) -> set[int]:
    """Return the ports of IPv4 at which this very process listens: another's answer would be taken for its own."""
    own = set()
    with suppress(OSError):  # it has ended, or closed a file in between
        for path in Path(f"/proc/{pid}/fd").iterdir():
            own.add(str(path.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == _LISTEN_STATE and line[9] in own}


def _read(body: str) -> tuple[Any, FunctionFault | None]:
    """Tell a value from an error: the emulator answers both with status 200."""
    if body.startswith(_TIMED_OUT):
        return None, FunctionFault(type="Sandbox.Timedout", message=body)
    value = json.loads(body)
    if isinstance(value, dict) and {"errorType", "errorMessage"} <= value.keys():
        return None, FunctionFault.from_json(body.encode())
    return value, None


def _text(file: Any) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


if __name__ == "__main__":
    install()
    sys.stdout.write(f"{program()}\n")
