"""Secrets Manager on this machine, the extension that caches it, and the four steps of a rotation."""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from botocore.exceptions import ClientError
from botocore.session import get_session
from moto.server import ThreadedMotoServer

from lambda_dbconn.credentials.wire_log import QuietWireLog
from tests.support.clients import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_dbconn.testing.servers import LocalServer

REGION = "us-east-1"
SESSION_TOKEN = "the-functions-session-token"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example", "AWS_SESSION_TOKEN": SESSION_TOKEN}


class LocalSecretsManager:
    """moto's Secrets Manager behind HTTP: secrets, versions and staging labels; no permissions, no throttling.

    moto 5.2 is wrong about reads without a staging label after a rotation; these always have one.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = self._administrator("secretsmanager")

    def environment(self) -> dict[str, str]:
        """Return the variables with which a function finds it."""
        return {**KEYS, "AWS_REGION": REGION, "AWS_ENDPOINT_URL_SECRETS_MANAGER": self.url}

    def have_sts_imported(self) -> None:
        """Let moto import its STS, too, which answers at the same address: who signs is asked within a second."""
        with closing(self._administrator("sts")) as client:
            client.get_caller_identity()

    def _administrator(self, service: str) -> Any:
        return get_session().create_client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="AKIDADMIN",
            aws_secret_access_key="example",
        )

    def put(self, content: object, *, name: str | None = None) -> str:
        """Store a new secret, and return its name."""
        name = name or f"prod/{secrets.token_hex(4)}"
        text = content if isinstance(content, str) else json.dumps(content)
        self.client.create_secret(Name=name, SecretString=text)
        return name

    def read(self, name: str, stage: str = "AWSCURRENT") -> dict[str, Any]:
        """Return what a version says, and its id as `version`."""
        found = self.client.get_secret_value(SecretId=name, VersionStage=stage)
        return {**json.loads(found["SecretString"]), "version": found["VersionId"]}


@contextmanager
def local_secrets_manager() -> Iterator[LocalSecretsManager]:
    """Start moto's server in this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        manager = LocalSecretsManager(f"http://{host}:{port}")
        with closing(manager.client):
            manager.client.list_secrets()  # moto imports a service with its first request, which takes its time
            yield manager
    finally:
        server.stop()


class LocalExtension:
    """Stands for the AWS Parameters and Secrets Lambda Extension: an HTTP server on the loopback interface.

    Imitated, from its documentation: the path and its parameters, the header with the session token, the answer, which
    is GetSecretValue's in JSON, and the cache for each secret and label, which here never expires (there, after
    `SECRETS_MANAGER_TTL`, 300 s at most). That it answers 400 while the function initializes, and how it words its
    refusals, is from hearsay. It has not been compared with the real one.

    Attributes:
        asked: The path of each request, in order.
        is_ready: False while the function initializes.
        is_mute: Whether it takes requests and answers none.
        answers: What it says instead of the secret, when it is not empty.
    """

    def __init__(self, manager: LocalSecretsManager, *, token: str = SESSION_TOKEN) -> None:
        self._manager = manager
        self._token = token
        self._cache: dict[tuple[str, str], bytes] = {}
        self.asked: list[str] = []
        self.is_ready = True
        self.is_mute = False
        self.answers = b""
        self.may_end = threading.Event()
        self.port = 0

    def environment(self) -> dict[str, str]:
        """Return the variables with which a function finds it."""
        return {
            "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
            "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT": str(self.port),
        }

    def reply(self, path: str, token: str | None) -> tuple[int, bytes]:
        """Return status and body."""
        self.asked.append(path)
        if self.is_mute:
            self.may_end.wait(30)
        if not self.is_ready:
            return 400, b"not ready to serve traffic, please wait"
        if token != self._token:
            return 401, b"unauthorized"
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path != "/secretsmanager/get" or "secretId" not in query:
            return 400, b"bad request"
        return 200, self.answers or self._cached(query["secretId"], query["versionStage"])

    def _cached(self, secret_id: str, stage: str) -> bytes:
        key = secret_id, stage
        if key not in self._cache:
            with QuietWireLog():  # the real one logs elsewhere
                found = self._manager.client.get_secret_value(SecretId=secret_id, VersionStage=stage)
            said = {name: found[name] for name in ("ARN", "Name", "SecretString", "VersionId") if name in found}
            self._cache[key] = json.dumps(said).encode()
        return self._cache[key]


@contextmanager
def http_server(reply: Callable[[str, Any], tuple[int, bytes]]) -> Iterator[int]:
    """Serve GET requests with what `reply(path, headers)` says; give the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = reply(self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def local_extension(manager: LocalSecretsManager, *, token: str = SESSION_TOKEN) -> Iterator[LocalExtension]:
    """Start the stand-in for the extension."""
    extension = LocalExtension(manager, token=token)

    def reply(path: str, headers: Any) -> tuple[int, bytes]:
        try:
            return extension.reply(path, headers["X-Aws-Parameters-Secrets-Token"])
        except ClientError as error:
            return 400, str(error).encode()

    with http_server(reply) as extension.port:
        try:
            yield extension
        finally:
            extension.may_end.set()


class Rotation:
    """A rotation function as AWS's templates have it, run step by step against a real server.

    Single-user: the user's own password changes. Alternating: the other of two users gets a new one, and the secret
    names that user from then on.

    Args:
        manager: Has the secret.
        server: Has the users.
        is_alternating: Whether there are two.
    """

    STEPS = ("create_secret", "set_secret", "test_secret", "finish_secret")

    def __init__(self, manager: LocalSecretsManager, server: LocalServer, *, is_alternating: bool) -> None:
        self._manager = manager
        self._server = server
        self._is_alternating = is_alternating
        self.user = f"rotated_{secrets.token_hex(4)}"
        password = secrets.token_urlsafe(12)
        self._set_password(self.user, password)
        self.secret_id = manager.put({"username": self.user, "password": password})
        self._version = ""

    def create_secret(self) -> None:
        """Put a new version, labelled AWSPENDING."""
        current = self._manager.read(self.secret_id)
        user = self.user
        if self._is_alternating and current["username"] == self.user:
            user = f"{self.user}_clone"
        self._version = secrets.token_hex(16)
        self._manager.client.put_secret_value(
            SecretId=self.secret_id,
            ClientRequestToken=self._version,
            SecretString=json.dumps({"username": user, "password": secrets.token_urlsafe(12)}),
            VersionStages=["AWSPENDING"],
        )

    def set_secret(self) -> None:
        """Let the server know the new password: from now on AWSCURRENT's is wrong, if it is the same user's."""
        pending = self._manager.read(self.secret_id, "AWSPENDING")
        self._set_password(pending["username"], pending["password"])

    def test_secret(self) -> None:
        """Log in with the new version."""
        pending = self._manager.read(self.secret_id, "AWSPENDING")
        connect(self._server, user=pending["username"], password=pending["password"]).close()

    def finish_secret(self) -> None:
        """Label the new version AWSCURRENT, and take AWSPENDING from it."""
        before = self._manager.read(self.secret_id)["version"]
        move = self._manager.client.update_secret_version_stage
        move(
            SecretId=self.secret_id,
            VersionStage="AWSCURRENT",
            MoveToVersionId=self._version,
            RemoveFromVersionId=before,
        )
        move(SecretId=self.secret_id, VersionStage="AWSPENDING", RemoveFromVersionId=self._version)

    def end_sessions(self) -> None:
        """End the sessions of both users, as an administrator."""
        for user in (self.user, f"{self.user}_clone"):
            if self._server.engine == "postgresql":
                self._server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", user)
            elif self._server.query("SELECT 1 FROM mysql.user WHERE User = %s", user):
                self._server.execute(f"KILL USER {user}")

    def _set_password(self, user: str, password: str) -> None:
        """Make the user if need be, and give it a password (of URL-safe characters)."""
        if self._server.engine == "postgresql":
            if not self._server.query("SELECT 1 FROM pg_roles WHERE rolname = %s", user):
                self._server.execute(f"CREATE ROLE {user} LOGIN")
            self._server.execute(f"ALTER ROLE {user} PASSWORD '{password}'")
            return
        self._server.execute(f"CREATE USER IF NOT EXISTS {user}@'%' IDENTIFIED BY '{password}'")
        self._server.execute(f"ALTER USER {user}@'%' IDENTIFIED BY '{password}'")
        self._server.execute(f"GRANT SELECT ON {self._server.database}.* TO {user}@'%'")
