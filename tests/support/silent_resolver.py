"""A program to be run in a mount and a network namespace: it gives itself a name server that never answers.

Arguments: a `resolv.conf` that names 127.0.0.9, and what to do. It prints what came of it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lambda_dbconn
from lambda_dbconn import AsyncConnectionManager, ConnectionManager, Settings


def _let_the_name_server_be_silent(resolv_conf: str) -> socket.socket:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--bind", resolv_conf, "/etc/resolv.conf"], check=True)
    name_server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    name_server.bind(("127.0.0.9", 53))
    return name_server


def _manager(what: str) -> Any:
    is_iam = what == "iam"
    settings = Settings(
        engine="mysql" if what == "mysql" else "postgresql",
        host="db.example.com",
        port=5432,
        user="app",
        auth="iam" if is_iam else "password",
        region="eu-west-1" if is_iam else None,
        connect_timeout_s=60.0 if what == "cancelled" else 5.0,
        sslrootcert=str(Path(lambda_dbconn.__file__).with_name("amazon-roots.pem")),
    )
    return (AsyncConnectionManager if what in ("asyncio", "cancelled") else ConnectionManager)(
        settings, observer=_Mute()
    )


class _Mute:
    def on_event(self, event: object) -> None:
        """Say nothing: the error says it."""


async def _connect(what: str) -> None:
    is_cancelled = what == "cancelled"
    async with asyncio.timeout(1.0 if is_cancelled else None):
        async with _manager(what).connection(None if is_cancelled else 1.5):
            pass


def _do(what: str) -> None:
    if what == "plain":
        socket.getaddrinfo("db.example.com", 5432)
    elif what in ("asyncio", "cancelled"):
        asyncio.run(_connect(what))
    else:
        with _manager(what).connection(1.5):
            pass


def main(resolv_conf: str, what: str) -> None:
    """Print what came of it, how long it took, and when it was over."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "x"}
    name_server = _let_the_name_server_be_silent(resolv_conf)
    if what != "plain":
        _manager(what)  # imports are not what is measured
    started = time.monotonic()
    told: dict[str, Any] = {}
    try:
        _do(what)
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}", "retryable": getattr(error, "retryable", None)}
    told |= {"took_s": time.monotonic() - started, "over_at": time.time()}
    name_server.close()
    sys.stdout.write(json.dumps(told))
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
