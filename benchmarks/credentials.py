"""A whole cold process to its first row by IAM and by secret, against the bare driver with a static password.

The server's password is the token that is signed at one fixed moment, so that a real server can check it; Secrets
Manager is moto, and the extension a stand-in, each in the parent process.
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import certifi

from benchmarks.cold import _BY_HAND, _BY_LIBRARY, _compile, _process, undisturbed
from benchmarks.subjects import running
from lambda_dbconn import Secret
from lambda_dbconn.credentials.aws_keys import AwsKeys
from lambda_dbconn.credentials.sigv4 import sign_token
from lambda_dbconn.tls import AMAZON_ROOTS
from tests.support.secrets_manager import REGION, local_extension, local_secrets_manager

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    from lambda_dbconn.testing.servers import LocalServer

    Ways: TypeAlias = Mapping[str, tuple[str, Mapping[str, str]]]  # code and environment, by name

TARGET = 1.10

_KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example"}
_MOMENT_S, _MOMENT = 1.8e9, "20270115T080000Z"
# What of the way through botocore is its import, and what the making of a client; before any call.
_PARTS = """
import time
from lambda_dbconn.credentials import secret_service
began_s = time.perf_counter()
import botocore.config, botocore.session
imported_s = time.perf_counter()
secret_service._make(botocore.session.get_session(), "us-east-1", connect_s=1.0, read_s=1.0)
print(imported_s - began_s, time.perf_counter() - imported_s)
"""
_AT_THE_MOMENT = f"import time\ntime.time = lambda: {_MOMENT_S}\n"


def measure(engine: str, *, runs: int = 21) -> str:
    """Return lines of results for an engine: lower quartiles of alternating processes, bytecode compiled first."""
    _compile()
    with ways(engine) as (server, static, paths):
        lines = [_compare(engine, static, paths, runs), f"{engine:<11}{_parts(runs)}"]
        bare, by_iam = iam_way(server, static)
        lines.append(_compare(engine, bare, by_iam, runs))
        lines.append(_compare(engine, *as_to_a_proxy(bare, by_iam), runs))
    return "\n".join(lines)


@contextmanager
def ways(engine: str) -> Iterator[tuple[LocalServer, dict[str, str], Ways]]:
    """Start what is needed; give the server, the environment that leads to it, and the ways to log in but IAM."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto's server logs every request
    with running(engine) as (server, static), local_secrets_manager() as manager, local_extension(manager) as extension:
        secret_id = manager.put(json.dumps({"username": server.user, "password": server.password}))
        by_secret = {**_nobody(static), **manager.environment(), "DB_SECRET_ID": secret_id}
        yield (
            server,
            static,
            {
                "password": (_BY_LIBRARY, static),
                "secret, extension": (_BY_LIBRARY, {**by_secret, **extension.environment()}),
                "secret, botocore": (_BY_LIBRARY, by_secret),
            },
        )


def iam_way(server: LocalServer, static: Mapping[str, str]) -> tuple[dict[str, str], Ways]:
    """Make a token the password; return the environment for the bare driver with it, and the way by IAM."""
    _let_the_token_in(server)
    signing = {"DB_AUTH": "iam", "DB_USER": server.user, "DB_SIGNING_HOST": server.host, "DB_REGION": REGION}
    by_iam = {"IAM": (_AT_THE_MOMENT + _BY_LIBRARY, {**_nobody(static), **_KEYS, **signing})}
    return {**static, "DB_PASSWORD": _token(server).reveal()}, by_iam


def as_to_a_proxy(hand: Mapping[str, str], paths: Ways) -> tuple[dict[str, str], Ways]:
    """Let each trust whom it would trust for RDS Proxy, and the server's own authority besides.

    By hand these are the authorities of a public bundle, certifi's, read from its file, for its import would cost more;
    the library brings Amazon's five.
    """
    own = Path(hand["DB_SSLROOTCERT"])
    files = {}
    for path in (certifi.where(), AMAZON_ROOTS):
        files[path] = {"DB_SSLROOTCERT": str(own.with_name(f"and-{Path(path).name}"))}
        Path(files[path]["DB_SSLROOTCERT"]).write_bytes(own.read_bytes() + Path(path).read_bytes())
    ours = {
        f"{name}, to a proxy": (code, {**environ, **files[AMAZON_ROOTS]}) for name, (code, environ) in paths.items()
    }
    return {**hand, **files[certifi.where()]}, ours


def _nobody(static: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in static.items() if name not in ("DB_USER", "DB_PASSWORD")}


def _compare(engine: str, bare: Mapping[str, str], paths: Ways, runs: int) -> str:
    hand: list[float] = []
    taken: dict[str, list[float]] = {name: [] for name in paths}
    for run in range(runs + 1):
        hand_ms = _process(_BY_HAND[engine], bare)[0]
        elapsed_ms = {name: _process(code, environ)[0] for name, (code, environ) in paths.items()}
        if run == 0:
            continue  # what is read from disk the first time
        hand.append(hand_ms)
        for name, value in elapsed_ms.items():
            taken[name].append(value)
    bare_ms = undisturbed(hand)
    return "\n".join(
        f"{engine:<11}{name:<31}bare {bare_ms:6.1f} ms   added {undisturbed(values) - bare_ms:5.1f} ms   "
        f"ratio {undisturbed(values) / bare_ms:.3f} (target {TARGET})"
        for name, values in taken.items()
    )


def _parts(runs: int) -> str:
    figures: list[list[float]] = []
    for _ in range(runs):
        process = subprocess.run([sys.executable, "-c", _PARTS], stdout=subprocess.PIPE, check=True)
        figures.append([float(text) * 1e3 for text in process.stdout.split()])
    import_ms, client_ms = (statistics.median(column) for column in zip(*figures, strict=True))
    return f"{'of that':<31}importing botocore {import_ms:5.1f} ms   making its client {client_ms:5.1f} ms"


def _token(server: LocalServer) -> Secret:
    keys = AwsKeys(access_key_id=_KEYS["AWS_ACCESS_KEY_ID"], secret_access_key=Secret(_KEYS["AWS_SECRET_ACCESS_KEY"]))
    return sign_token(host=server.host, port=server.port, user=server.user, region=REGION, keys=keys, timestamp=_MOMENT)


def _let_the_token_in(server: LocalServer) -> None:
    """Make the token the user's password; PostgreSQL is to ask for it in clear inside TLS, as RDS does."""
    if server.engine == "postgresql":
        server.execute(f"ALTER ROLE {server.user} PASSWORD '{_token(server).reveal()}'")
        (server.home / "data" / "pg_hba.conf").write_text("local all postgres trust\nhostssl all all all password\n")
        server.execute("SELECT pg_reload_conf()")
    else:
        server.execute(f"ALTER USER {server.user}@'%' IDENTIFIED BY '{_token(server).reveal()}'")
