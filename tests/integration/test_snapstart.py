"""SnapStart, driven through the real runtime client: init, snapshot, years, restore, first invocation."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import lambda_dbconn
from lambda_dbconn.testing.certificates import Certificates
from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy
from lambda_dbconn.testing.runtime_api import LocalRuntime
from tests.support import functions
from tests.support.clients import wait_until
from tests.support.secrets_manager import LocalSecretsManager, Rotation, http_server, local_secrets_manager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only")
pytest.importorskip("snapshot_restore_py", reason="the library of the hooks comes with lambda-dbconn[demo]")

YEARS_S = 3 * 365 * 86400.0
PROXY = "local.proxy-cexample0000.us-east-1.rds.amazonaws.com"
PACKAGE = Path(lambda_dbconn.__file__).parent.parent
LIMIT_S = 30.0


class ContainerEndpoint:
    """Stands for the container credentials endpoint that Lambda gives a function under SnapStart.

    Answers as documented for `AWS_CONTAINER_CREDENTIALS_FULL_URI`, with one key after another. Each says that it is
    good for ten years, so that nobody drops it because it has expired.
    """

    TOKEN = "container-authorization"

    def __init__(self) -> None:
        self.port = 0
        self.asked = 0
        self.key = self._key("INIT")

    @staticmethod
    def _key(name: str) -> AwsKey:
        return AwsKey(access_key_id=f"ASIA{name}", secret_access_key=f"secret-{name}", session_token=f"token-{name}")

    def change(self) -> AwsKey:
        """Give another key from now on."""
        self.key = self._key("RESTORED")
        return self.key

    def variables(self) -> dict[str, str]:
        """Return the variables with which a function finds it."""
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{self.port}/2021-02-01/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self.TOKEN,
        }

    def reply(self, path: str, headers: Any) -> tuple[int, bytes]:
        """Answer one request."""
        self.asked += 1
        if path != "/2021-02-01/credentials" or headers["Authorization"] != self.TOKEN:
            return 403, b"{}"
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 10 * 365 * 86400))
        answer = {
            "AccessKeyId": self.key.access_key_id,
            "SecretAccessKey": self.key.secret_access_key,
            "Token": self.key.session_token,
            "Expiration": ends,
        }
        return 200, json.dumps(answer).encode()


@pytest.fixture
def endpoint() -> Iterator[ContainerEndpoint]:
    endpoint = ContainerEndpoint()
    with http_server(endpoint.reply) as endpoint.port:
        yield endpoint


@pytest.fixture(scope="module")
def secrets_manager() -> Iterator[LocalSecretsManager]:
    with local_secrets_manager() as manager:
        yield manager


@pytest.fixture(scope="module")
def proxy_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("proxy"), extra_names=[PROXY])


def direct(server: LocalServer) -> dict[str, str]:
    """Return the variables for a login with a password at the database itself."""
    assert server.certificates is not None
    return {
        "DB_ENGINE": server.engine,
        "DB_HOST": server.host,
        "DB_PORT": str(server.port),
        "DB_NAME": server.database,
        "DB_USER": server.user,
        "DB_PASSWORD": server.password,
        "DB_SSLROOTCERT": str(server.certificates.ca_path),
    }


@contextmanager
def from_a_snapshot(variables: dict[str, str], *, monotonic_jumps: bool = True) -> Iterator[LocalRuntime]:
    """Bring a function to its snapshot, and give the runtime that waits for the restore."""
    with LocalRuntime(
        directory=Path(functions.__file__).parent,
        handler="snapshot.handler",
        environment={
            "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
            "DB_WARM_UP": "init",
            "MONOTONIC_JUMPS": "yes" if monotonic_jumps else "no",
            "PYTHONPATH": str(PACKAGE),
            "YEARS_S": str(YEARS_S),
            **variables,
        },
        timeout_s=LIMIT_S,
        init_timeout_s=LIMIT_S,
    ) as runtime:
        yield runtime


def session_at_init(runtime: LocalRuntime) -> int:
    said = re.search(r"^at init: (\d+)$", runtime.output(), re.MULTILINE)
    assert said is not None, runtime.output()
    return int(said[1])


def is_open(server: LocalServer, session: int) -> bool:
    """Ask the server whether this session is there."""
    if server.engine == "postgresql":
        return bool(server.query("SELECT 1 FROM pg_stat_activity WHERE pid = %s", session))
    return bool(server.query("SELECT 1 FROM information_schema.processlist WHERE id = %s", session))


def first_invocation(runtime: LocalRuntime) -> dict[str, Any]:
    """Restore and invoke: it must work at once."""
    runtime.restore()
    invocation = runtime.invoke({})
    assert invocation.error is None, runtime.output()
    told: dict[str, Any] = invocation.value
    assert abs(told["wall"] - time.time()) < YEARS_S / 2, "the clock of the function has not moved"
    return told


@pytest.mark.parametrize("monotonic_jumps", [True, False], ids=["both clocks jump", "monotonic stood still"])
def test_a_connection_is_closed_before_the_snapshot_and_another_serves_after_it(
    server: LocalServer, *, monotonic_jumps: bool
) -> None:
    with from_a_snapshot(direct(server), monotonic_jumps=monotonic_jumps) as runtime:
        session = session_at_init(runtime)
        wait_until(lambda: not is_open(server, session))
        told = first_invocation(runtime)
        assert told["at_init"]["session"] == session
        assert told["now"]["session"] != session
        assert told["opened"] == 2
        again = runtime.invoke({}).value
        assert again["now"] == told["now"]
        assert again["opened"] == 2


def test_a_login_by_iam_has_the_container_s_keys_of_now(
    server: LocalServer, endpoint: ContainerEndpoint, proxy_certificates: Certificates
) -> None:
    behind_s = YEARS_S
    with LocalRdsProxy(
        backend=server,
        certificates=proxy_certificates,
        auth="iam",
        aws_keys=[endpoint.key],
        signing_host=PROXY,
        clock_s=lambda: time.time() - behind_s,
    ) as proxy:
        variables = {
            **direct(server),
            **endpoint.variables(),
            "DB_HOST": "localhost",
            "DB_PORT": str(proxy.port),
            "DB_USER": "app",
            "DB_NAME": "app",
            "DB_PASSWORD": "",
            "DB_AUTH": "iam",
            "DB_SIGNING_HOST": PROXY,
            "DB_SSLROOTCERT": str(proxy_certificates.ca_path),
        }
        with from_a_snapshot(variables) as runtime:
            assert (proxy.stats().logins, proxy.stats().refused) == (1, {})
            asked_at_init = endpoint.asked
            behind_s = 0.0
            proxy.remove_aws_key(endpoint.key.access_key_id)
            proxy.set_aws_key(endpoint.change())
            told = first_invocation(runtime)
            assert told["opened"] == 2
            assert (proxy.stats().logins, proxy.stats().refused) == (2, {}), proxy.log()
            assert asked_at_init >= 1
            assert endpoint.asked > asked_at_init


def test_a_login_by_secret_has_what_the_secret_says_now(
    server: LocalServer, endpoint: ContainerEndpoint, secrets_manager: LocalSecretsManager
) -> None:
    rotation = Rotation(secrets_manager, server, is_alternating=True)  # the user of before may still log in
    variables = {
        **direct(server),
        **endpoint.variables(),
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": secrets_manager.url,
        "DB_SECRET_ID": rotation.secret_id,
        "DB_USER": "",
        "DB_PASSWORD": "",
    }
    with from_a_snapshot(variables) as runtime:
        for step in rotation.STEPS:
            getattr(rotation, step)()
        asked_at_init = endpoint.asked
        told = first_invocation(runtime)
    assert told["at_init"]["user"] == rotation.user
    assert told["now"]["user"] == f"{rotation.user}_clone"
    assert asked_at_init >= 1
    assert endpoint.asked > asked_at_init  # the client's keys are those of now as well


def test_two_clones_of_one_snapshot_share_neither_connection_nor_jitter(server: LocalServer) -> None:
    with from_a_snapshot({**direct(server), "CLONES": "2"}) as runtime:
        session = session_at_init(runtime)
        wait_until(lambda: not is_open(server, session))
        runtime.restore()
        first = runtime.invoke({}).value
        clones = {first["pid"]: first}

        def have_both_served() -> bool:
            told = runtime.invoke({}).value
            clones.setdefault(told["pid"], told)
            return len(clones) == 2

        wait_until(have_both_served, timeout_s=LIMIT_S)
        one, other = clones.values()
        assert one["random"] == other["random"]  # so they do come from one state
        assert one["now"]["session"] != other["now"]["session"]
        assert not set(one["jitter"]) & set(other["jitter"])
        assert not set(one["pauses"]) & set(other["pauses"])
        for clone in (one, other):
            assert is_open(server, clone["now"]["session"])
