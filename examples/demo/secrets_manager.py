"""A secret that functions read over HTTP, and its rotation."""

from __future__ import annotations

import json
import secrets
import threading
from collections import defaultdict
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from lambda_dbconn import ConnectionManager, Secret, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy
    from lambda_dbconn.testing.servers import LocalServer

CURRENT, PENDING, PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"


class LocalSecretsManager:
    """Stands for AWS Secrets Manager: its API call GetSecretValue, over HTTP on the loopback interface.

    Imitated are versions and staging labels, and the error for what is missing. Signatures and permissions are not
    looked at, nothing is throttled. moto knows far more, and would make the demo's installation four times as long.
    Use as a context manager.
    """

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._request_handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where functions find it."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def put(self, secret_id: str, content: dict[str, str], *, label: str) -> None:
        """Store a version, and give it a staging label."""
        self._versions[secret_id][label] = content

    def read(self, secret_id: str, label: str) -> dict[str, str]:
        """Return the version with a staging label."""
        return self._versions[secret_id][label]

    def promote(self, secret_id: str) -> None:
        """Make the pending version the current one, and that the previous one."""
        versions = self._versions[secret_id]
        versions[PREVIOUS], versions[CURRENT] = versions[CURRENT], versions.pop(PENDING)

    def _reply(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        secret_id, label = request["SecretId"], request.get("VersionStage", CURRENT)
        try:
            content = self.read(secret_id, label)
        except KeyError:
            message = f"Secrets Manager can't find the specified secret value for staging label: {label}"
            return 400, {"__type": "ResourceNotFoundException", "Message": message}
        return 200, {"Name": secret_id, "SecretString": json.dumps(content), "VersionStages": [label]}

    def _request_handler(self) -> type[BaseHTTPRequestHandler]:
        reply = self._reply

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.headers["X-Amz-Target"] == "secretsmanager.GetSecretValue":
                    status, answer = reply(request)
                else:
                    status, answer = 400, {"__type": "InvalidAction"}
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing on standard error."""

        return Handler


class Rotation:
    """A database user whose password is in a secret, and the four steps in which a rotation function changes it.

    The steps are those of AWS's templates for a single user. The proxy follows the secret, as RDS Proxy does by
    itself: it learns the new password with the last step.

    Args:
        manager: Has the secret.
        server: Has the user.
        user: Its name.
        ca_path: The authority that the server's certificate is from.
    """

    STEPS = ("create_secret", "set_secret", "test_secret", "finish_secret")

    def __init__(self, manager: LocalSecretsManager, server: LocalServer, *, user: str, ca_path: Path) -> None:
        self._manager = manager
        self._server = server
        self.user = user
        self._ca_path = ca_path
        self.secret_id = f"demo/{server.engine}"
        self._steps_taken = 0
        content = self._new_content()
        self._set_password(content["password"])
        manager.put(self.secret_id, content, label=CURRENT)

    @property
    def password(self) -> str:
        """That of the secret's current version."""
        return self._manager.read(self.secret_id, CURRENT)["password"]

    def take_step(self, proxy: LocalRdsProxy) -> bool:
        """Take the next of the four steps; return whether it was the last."""
        step = self.STEPS[self._steps_taken % len(self.STEPS)]
        getattr(self, f"_{step}")()
        self._steps_taken += 1
        proxy.set_secret(self.user, self.password)
        return step == self.STEPS[-1]

    def _create_secret(self) -> None:
        self._manager.put(self.secret_id, self._new_content(), label=PENDING)

    def _set_secret(self) -> None:
        self._set_password(self._manager.read(self.secret_id, PENDING)["password"])

    def _test_secret(self) -> None:
        server = self._server
        settings = Settings(
            engine=server.engine,
            host=server.host,
            port=server.port,
            name=server.database,
            user=self.user,
            password=Secret(self._manager.read(self.secret_id, PENDING)["password"]),
            sslmode="verify-full" if server.is_tls else "disable",
            sslrootcert=str(self._ca_path) if server.is_tls else None,
        )
        manager: ConnectionManager[Any] = ConnectionManager(settings)
        with closing(manager):
            manager.warm_up()

    def _finish_secret(self) -> None:
        self._manager.promote(self.secret_id)

    def _new_content(self) -> dict[str, str]:
        return {"username": self.user, "password": secrets.token_urlsafe(12)}

    def _set_password(self, password: str) -> None:
        """Make the user if need be, and give it a password (of URL-safe characters)."""
        server, user = self._server, self.user
        if server.engine == "postgresql":
            if not server.query("select 1 from pg_roles where rolname = %s", user):
                server.execute(f"create role {user} login")
            server.execute(f"alter role {user} password '{password}'")
        else:
            server.execute(f"create user if not exists {user}@'%' identified by '{password}'")
            server.execute(f"alter user {user}@'%' identified by '{password}'")
