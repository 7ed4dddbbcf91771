"""What gives credentials may be silent, slow or endless: the library waits for it as long as the caller can."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import ConnectionManager, CredentialsError, Secret, Settings
from lambda_dbconn.credentials.aws_keys import AwsKeys, FunctionKeys
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.credentials.secret_service import ServiceSource
from lambda_dbconn.credentials.secret_sources import ExtensionSource
from lambda_dbconn.deadline import Deadline, SystemClock
from tests.support.answers import WITHOUT_END, answering, flooding, silent
from tests.support.secrecy import shown_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from tests.support.answers import Answering

pytestmark = pytest.mark.once

LIMIT_S = 0.5
FOR_EVER_S = 10.0  # less than any wait that nothing bounds
CANARY = "Canary-5d1c0e"
PROXY = "the-proxy.proxy-demo.us-east-1.rds.amazonaws.com"
SETTINGS = Settings(engine="postgresql", host=PROXY, port=5432, user="app", auth="iam")
KEYS = {"AccessKeyId": "ASIASNAP", "SecretAccessKey": CANARY, "Token": "token", "Expiration": "2099-01-01T00:00:00Z"}
without_end = pytest.mark.parametrize("answer", WITHOUT_END, ids=lambda answer: answer.__name__)


@pytest.fixture(autouse=True)
def snapstart(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a function under SnapStart, whose endpoint is yet to be said."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", CANARY)
    return monkeypatch


def endpoint(environment: pytest.MonkeyPatch, port: int) -> None:
    environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/2021-02-01/credentials")


@contextmanager
def soon() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < FOR_EVER_S


def answer_with(body: bytes, kind: str = "application/json", status: str = "200 OK") -> Callable[..., None]:
    def answer(connection: socket.socket, is_over: threading.Event) -> None:
        connection.recv(65536)
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        is_over.wait()  # and keeps the connection open, which is the server's right

    return answer


# --- the container's endpoint


@without_end
def test_a_token_is_not_waited_for_beyond_the_deadline(
    snapstart: pytest.MonkeyPatch, answer: Callable[..., None]
) -> None:
    deadline = Deadline(LIMIT_S, reserve_s=0.0, clock=SystemClock())
    with answering(answer) as server:
        endpoint(snapstart, server.port)
        with soon(), pytest.raises(CredentialsError, match="AWS keys") as caught:
            IamProvider().fetch(SETTINGS, deadline)
    assert caught.value.retryable
    assert server.asked == 1
    assert CANARY not in shown_of(caught.value)


@without_end
def test_a_borrow_ends_with_its_context_whatever_the_endpoint_does(
    snapstart: pytest.MonkeyPatch, answer: Callable[..., None]
) -> None:
    db: ConnectionManager[Any] = ConnectionManager(SETTINGS)
    with answering(answer) as server:
        endpoint(snapstart, server.port)
        with (
            soon(),
            pytest.raises(CredentialsError, match="AWS keys") as caught,
            db.connection(LIMIT_S + SETTINGS.reserve_s),
        ):
            pass
    assert CANARY not in shown_of(caught.value)


def test_without_a_deadline_keys_are_waited_for_two_seconds(snapstart: pytest.MonkeyPatch) -> None:
    with answering(silent) as server:
        endpoint(snapstart, server.port)
        with soon(), pytest.raises(CredentialsError, match=r"within 2\.00 s"):
            FunctionKeys()()


def test_a_connect_that_nobody_accepts_ends_with_the_limit(snapstart: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as waiting:
        for _ in range(3):  # the kernel takes one or two, and is silent then
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(full.getsockname())
        endpoint(snapstart, full.getsockname()[1])
        with soon(), pytest.raises(CredentialsError, match=r"within 0\.50 s.*timed out"):
            FunctionKeys().within(LIMIT_S)


def test_a_closed_port_is_an_error_that_may_pass(snapstart: pytest.MonkeyPatch) -> None:
    with answering(silent) as server:
        endpoint(snapstart, server.port)
    with pytest.raises(CredentialsError, match="refused") as caught:
        FunctionKeys().within(LIMIT_S)
    assert caught.value.retryable


def test_the_endpoints_keys_are_asked_for_once_and_kept_until_they_are_to_be_forgotten(
    snapstart: pytest.MonkeyPatch,
) -> None:
    keys = FunctionKeys()
    with answering(answer_with(json.dumps(KEYS).encode())) as server:
        endpoint(snapstart, server.port)
        found = [keys.within(LIMIT_S), keys.within(LIMIT_S)]
        assert server.asked == 1
        keys.forget()
        found.append(keys())
    assert server.asked == 2
    expected = AwsKeys(access_key_id="ASIASNAP", secret_access_key=Secret(CANARY), session_token=Secret("token"))
    assert found == [expected] * 3


@pytest.mark.parametrize("expires", ["soon", "2020-01-01T00:00:00Z", "2099-01-01 00:00:00", "", None])
def test_keys_whose_life_is_short_or_unknown_are_asked_for_each_time(
    snapstart: pytest.MonkeyPatch, expires: str | None
) -> None:
    if expires == "soon":
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 590))
    keys = FunctionKeys()
    with answering(answer_with(json.dumps({**KEYS, "Expiration": expires}).encode())) as server:
        endpoint(snapstart, server.port)
        assert keys() == keys()
    assert server.asked == 2


@pytest.mark.parametrize(
    ("body", "status", "is_retryable"),
    [
        (b"<html>" + CANARY.encode(), "200 OK", False),
        (b"", "200 OK", False),
        (b"[1]", "200 OK", False),
        (b"[" * 100_000, "200 OK", False),
        (json.dumps({**KEYS, "SecretAccessKey": None}).encode(), "200 OK", False),
        (json.dumps({**KEYS, "Token": [CANARY]}).encode(), "200 OK", False),
        (json.dumps({**KEYS, "SecretAccessKey": f"{CANARY}\ud800"}).encode(), "200 OK", False),
        (json.dumps(KEYS).encode(), "403 Forbidden", False),
        (CANARY.encode(), "429 Slow Down", True),
        (b"", "500 Oops", True),
    ],
)
def test_an_answer_without_keys_is_an_error_that_says_what_answered(
    snapstart: pytest.MonkeyPatch, body: bytes, status: str, *, is_retryable: bool
) -> None:
    summary = f"answered {status.split(' ', 1)[0]}, text/html, {len(body)} bytes"
    with answering(answer_with(body, "text/html", status)) as server:
        endpoint(snapstart, server.port)
        with pytest.raises(CredentialsError) as caught:
            FunctionKeys()()
    assert summary in caught.value.message
    assert caught.value.retryable is is_retryable
    assert CANARY not in shown_of(caught.value)


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x01", b""]
)
def test_what_is_no_whole_http_answer_is_an_error(snapstart: pytest.MonkeyPatch, raw: bytes) -> None:
    def answer(connection: socket.socket, _: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(raw)

    with answering(answer) as server:
        endpoint(snapstart, server.port)
        with pytest.raises(CredentialsError, match=r"cut off|no HTTP"):
            FunctionKeys()()


def test_a_restored_function_signs_without_an_sdk(snapstart: pytest.MonkeyPatch) -> None:
    code = """
import sys
from lambda_dbconn import Settings
from lambda_dbconn.deadline import SystemClock
from lambda_dbconn.credentials.iam import IamProvider
from lambda_dbconn.deadline import Deadline
settings = Settings(engine="postgresql", host=sys.argv[1], port=5432, user="app", auth="iam")
given = IamProvider().fetch(settings, Deadline(None, reserve_s=0, clock=SystemClock()))
assert "ASIASNAP" in given.password.reveal()
print(*sys.modules)
"""

    with answering(answer_with(json.dumps(KEYS).encode())) as server:
        endpoint(snapstart, server.port)
        done = subprocess.run([sys.executable, "-c", code, PROXY], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert not {"botocore", "boto3", "urllib3", "http"} & {name.split(".")[0] for name in done.stdout.split()}


def test_secrets_manager_is_asked_with_the_containers_keys_and_these_within_the_time(
    snapstart: pytest.MonkeyPatch,
) -> None:
    signed_by: list[str] = []

    def answer(connection: socket.socket, _: threading.Event) -> None:
        signed_by.append(connection.recv(65536).decode().partition("Credential=")[2].partition("/")[0])
        body = json.dumps({"SecretString": CANARY}).encode()
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    source = ServiceSource(region="us-east-1")
    with answering(answer) as service, answering(silent) as mute:
        snapstart.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://127.0.0.1:{service.port}")
        endpoint(snapstart, mute.port)
        with soon(), pytest.raises(CredentialsError, match="AWS keys") as caught:
            source.read("prod/shop", stage="AWSCURRENT", timeout_s=LIMIT_S)
        assert caught.value.retryable
        with answering(answer_with(json.dumps(KEYS).encode())) as keys:
            endpoint(snapstart, keys.port)
            assert source.read("prod/shop", stage="AWSCURRENT", timeout_s=LIMIT_S) == Secret(CANARY)
    assert signed_by == ["ASIASNAP"]


# --- the extension


def extension(environment: pytest.MonkeyPatch, server: Answering) -> ExtensionSource:
    environment.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(server.port))
    token = AwsKeys(access_key_id="x", secret_access_key=Secret("x"), session_token=Secret(CANARY))
    return ExtensionSource(keys=lambda: token)


@without_end
def test_the_extension_is_not_waited_for_beyond_the_limit(
    snapstart: pytest.MonkeyPatch, answer: Callable[..., None]
) -> None:
    with answering(answer) as server, soon(), pytest.raises(CredentialsError, match="extension") as caught:
        extension(snapstart, server).read("prod/shop", stage="AWSCURRENT", timeout_s=LIMIT_S)
    assert caught.value.retryable
    assert CANARY not in shown_of(caught.value)


def test_an_answer_without_end_is_cut_off_at_a_size(snapstart: pytest.MonkeyPatch) -> None:
    with answering(flooding) as server, pytest.raises(CredentialsError, match="longer than 1000000 bytes"):
        extension(snapstart, server).read("prod/shop", stage="AWSCURRENT", timeout_s=60)


def test_a_whole_answer_is_taken_though_the_connection_stays_open(snapstart: pytest.MonkeyPatch) -> None:
    body = json.dumps({"SecretString": CANARY}).encode()
    with answering(answer_with(body)) as server:
        found = extension(snapstart, server).read("prod/shop", stage="AWSCURRENT", timeout_s=LIMIT_S)
    assert found == Secret(CANARY)


def test_the_extensions_token_is_not_waited_for_beyond_the_limit(snapstart: pytest.MonkeyPatch) -> None:
    with answering(silent) as mute, answering(silent) as server, soon():
        endpoint(snapstart, mute.port)
        snapstart.setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", str(server.port))
        with pytest.raises(CredentialsError, match="AWS keys"):
            ExtensionSource().read("prod/shop", stage="AWSCURRENT", timeout_s=LIMIT_S)
    assert server.asked == 0


STRANGERS = [
    (b"<html>" + CANARY.encode() + b"</html>", "text/html"),
    (b"", "text/plain"),
    (b"{}", "application/json"),
    (b'["SecretString"]', "application/json"),
    (b'{"SecretString": null}', "application/json"),
]


@pytest.mark.parametrize(("body", "kind"), STRANGERS)
def test_an_extension_that_answers_something_else_is_said_to(
    snapstart: pytest.MonkeyPatch, body: bytes, kind: str
) -> None:
    with answering(answer_with(body, kind)) as server, pytest.raises(CredentialsError) as caught:
        extension(snapstart, server).read("prod/shop", stage="AWSCURRENT", timeout_s=LIMIT_S)
    assert f"answered 200, {kind}, {len(body)} bytes for the secret 'prod/shop'" in caught.value.message
    assert CANARY not in shown_of(caught.value)


def test_a_binary_secret_of_the_extensions_is_called_binary(snapstart: pytest.MonkeyPatch) -> None:
    body = json.dumps({"SecretBinary": CANARY}).encode()
    with answering(answer_with(body)) as server, pytest.raises(CredentialsError, match="is binary"):
        extension(snapstart, server).read("prod/shop", stage="AWSCURRENT", timeout_s=LIMIT_S)


# --- Secrets Manager


@pytest.mark.parametrize(("body", "kind"), [row for row in STRANGERS if not row[0].startswith(b"[")])
def test_what_answers_in_secrets_managers_place_is_said(snapstart: pytest.MonkeyPatch, body: bytes, kind: str) -> None:
    snapstart.setenv("AWS_ACCESS_KEY_ID", "AKID")
    snapstart.setenv("AWS_SECRET_ACCESS_KEY", "example")
    with answering(answer_with(body, kind)) as server:
        snapstart.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://127.0.0.1:{server.port}")
        with pytest.raises(CredentialsError) as caught:
            ServiceSource(region="us-east-1").read("prod/shop", stage="AWSCURRENT", timeout_s=LIMIT_S)
    assert f"sent 200, {kind}, {len(body)} bytes" in caught.value.message
    assert "proxy" in caught.value.remedy
    assert not caught.value.retryable
    assert CANARY not in shown_of(caught.value)
