"""A MySQL server's answer to one request, handed on packet by packet until it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_dbconn.testing.rds_proxy import mysql_wire as wire
from lambda_dbconn.testing.rds_proxy.texts import Refusal

if TYPE_CHECKING:
    from lambda_dbconn.testing.rds_proxy.stream import Relay

_HEAD_BYTES = 32  # an OK packet's counts and status
_FIELD_LIST, _STATISTICS, _PREPARE, _FETCH = 4, 9, 22, 28

# What a read-only transaction says, and what a read-only server does.
_READ_ONLY_TRANSACTION = 1792
_READ_ONLY_SERVER = Refusal(
    number=1290,
    state="HY000",
    text="The MySQL server is running with the --read-only option so it cannot execute this statement",
)


class Answers:
    """Hands one answer on; its end is kept in `rest`, for the session to send when it is done with the connection."""

    def __init__(self, requests: Relay, answers: Relay) -> None:
        self.rest = b""
        self._requests = requests
        self._answers = answers

    async def hand_on(self, command: int, *, is_read_only: bool) -> int | None:
        """Hand the whole answer on but for its end; the server's status then, None if it did not tell.

        Raises:
            StreamEndedError: The database connection broke, or the client left.
        """
        if is_read_only and await self._replace_error():
            return None
        status = await self._hand_on(command)
        self.rest = self._answers.unsent()
        return status

    async def _hand_on(self, command: int) -> int | None:
        if command == _STATISTICS:  # a text, and no more
            await self._packet()
            return None
        if command in (_FIELD_LIST, _FETCH):
            return await self._rows()
        while True:
            head, size = await self._packet()
            if head[0] == wire.ERROR:
                return None
            if head[0] == wire.LOCAL_FILE:
                await self._take_local_file()
                continue
            if head[0] == wire.OK:
                if command == _PREPARE:
                    return await self._parameters_and_columns(head)
                status: int | None = wire.ok_status(head)
            elif wire.is_eof(head, size):
                status = wire.eof_status(head)
            else:
                status = await self._result_set()
            if status is None or not status & wire.MORE_RESULTS:
                return status

    async def _result_set(self) -> int | None:
        status = await self._rows()  # which are the columns
        if status is None or status & wire.CURSOR_EXISTS:
            return status
        return await self._rows()

    async def _rows(self) -> int | None:
        while True:
            head, size = await self._packet()
            if head[0] == wire.ERROR:
                return None
            if wire.is_eof(head, size):
                return wire.eof_status(head)

    async def _parameters_and_columns(self, head: bytes) -> int | None:
        columns, parameters = int.from_bytes(head[5:7], "little"), int.from_bytes(head[7:9], "little")
        for count in (parameters, columns):
            if count:
                await self._rows()
        return None

    async def _packet(self) -> tuple[bytes, int]:
        """Pass on a packet, and all that continue it; the first bytes of its body, and its size."""
        header = await self._answers.peek(wire.HEADER_BYTES)
        size = int.from_bytes(header[:3], "little")
        head = (await self._answers.peek(wire.HEADER_BYTES + min(size, _HEAD_BYTES)))[wire.HEADER_BYTES :]
        await self._answers.pass_on(wire.HEADER_BYTES + size)
        part = size
        while part == wire.LONGEST_PACKET_BYTES:
            part = int.from_bytes(await self._answers.peek(3), "little")
            await self._answers.pass_on(wire.HEADER_BYTES + part)
        return head, size

    async def _take_local_file(self) -> None:
        """LOAD DATA LOCAL: the client sends a file in packets, of which the last is empty."""
        await self._answers.flush()
        size = 1
        while size:
            size = int.from_bytes(await self._requests.peek(3), "little")
            await self._requests.pass_on(wire.HEADER_BYTES + size)
        await self._requests.flush()

    async def _replace_error(self) -> bool:
        header = await self._answers.peek(wire.HEADER_BYTES)
        size = int.from_bytes(header[:3], "little")
        head = (await self._answers.peek(wire.HEADER_BYTES + min(size, 3)))[wire.HEADER_BYTES :]
        if head[:1] != b"\xff" or int.from_bytes(head[1:3], "little") != _READ_ONLY_TRANSACTION:
            return False
        await self._answers.drop(wire.HEADER_BYTES + size)
        self.rest = wire.error_packet(header[3], _READ_ONLY_SERVER)
        return True
