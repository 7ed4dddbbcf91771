"""What clients do to the local RDS Proxy that others must not notice."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import wait_until
from tests.support.rds_proxy import connect, make_proxy

if TYPE_CHECKING:
    from lambda_dbconn.testing.servers import LocalPostgres, LocalServer

pytestmark = pytest.mark.once

# What a client says first, up to where it is asked for a password.
PROTOCOL_4_1_WITH_PLUGINS = 0x200 | 0x8000 | 0x80000
MYSQL_HELLO = struct.pack("<IIB23x", PROTOCOL_4_1_WITH_PLUGINS, 1 << 24, 45) + b"app\0\0another_plugin\0"
HELLO = {
    "postgresql": b"\0\0\0\x12\0\3\0\0user\0app\0\0",
    "mysql": struct.pack("<I", len(MYSQL_HELLO) | 1 << 24) + MYSQL_HELLO,
}


def test_a_client_that_falls_silent_while_it_logs_in_is_cut_off(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambda_dbconn.testing.rds_proxy.session._GREETING_TIMEOUT_S", 0.3)
    native = {"password_auth": "mysql_native_password"} if server.engine == "mysql" else {}
    with (
        make_proxy(server, is_tls_required=False, **native) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as silent,
    ):
        silent.sendall(HELLO[server.engine])
        heard = b""
        while received := silent.recv(1000):
            heard += received
        assert {"postgresql": b"SCRAM-SHA-256", "mysql": b"\xfemysql_native_password"}[server.engine] in heard
        wait_until(lambda: proxy.stats().client_connections == 0)
        assert proxy.stats().most_client_connections == 1


def test_a_proxy_that_could_not_take_a_client_takes_the_next(
    postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_proxy(postgres) as proxy:
        accept, failures = proxy._loop.sock_accept, iter([OSError(24, "Too many open files")])

        async def sock_accept(listener: socket.socket) -> Any:
            for failure in failures:
                raise failure
            return await accept(listener)

        monkeypatch.setattr(proxy._loop, "sock_accept", sock_accept)
        for _ in range(2):  # the first is taken by the call that was waiting already
            connect(proxy, postgres.password).close()
        assert "A client could not be let in: [Errno 24] Too many open files." in proxy.log()
