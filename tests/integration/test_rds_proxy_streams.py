"""The local RDS Proxy's connections, when whoever makes one gives up on the way."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from lambda_dbconn.testing.rds_proxy.stream import Stream, connect_socket

if TYPE_CHECKING:
    from lambda_dbconn.testing.certificates import Certificates

pytestmark = pytest.mark.once


class GivenUp(Stream):
    """A stream whose maker has no time left at the moment at which TLS is agreed upon."""

    maker: ClassVar[asyncio.Task[None]]

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.maker.cancel()


def test_a_connection_that_is_given_up_is_not_in_the_way_of_the_next(certificates: Certificates) -> None:
    async def give_up(port: int, tls: ssl.SSLContext) -> None:
        sock = await connect_socket("127.0.0.1", port)
        try:
            await GivenUp.connected(sock, tls, "localhost")
        finally:
            sock.close()

    async def work() -> None:
        server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server_tls.load_cert_chain(certificates.server_certificate_path, certificates.server_key_path)
        accepted: list[Stream] = []

        def accept() -> Stream:
            accepted.append(Stream())
            return accepted[-1]

        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0, ssl=server_tls)
        port = server.sockets[0].getsockname()[1]
        tls = ssl.create_default_context(cafile=certificates.ca_path)
        GivenUp.maker = asyncio.create_task(give_up(port, tls))
        with pytest.raises(asyncio.CancelledError):
            await GivenUp.maker
        following = [await Stream.connected(await connect_socket("127.0.0.1", port), tls, "localhost") for _ in "abc"]
        server.close()
        for stream in (*following, *accepted):
            stream.abort()
            await stream.wait_closed()

    asyncio.run(work())
