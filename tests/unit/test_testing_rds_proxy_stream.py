"""The stand-in's byte streams, without a socket: what a busy machine's timing does to them, once and for all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lambda_dbconn.testing.rds_proxy.stream import Relay, Stream, StreamEndedError

pytestmark = pytest.mark.once

_TIMEOUT_S = 5.0


class Transport(asyncio.Transport):
    """Stands for asyncio's: takes all that is written, and reads nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class SlowStream(Stream):
    """One whose `drain` lasts until the source has got `late` bytes more."""

    def __init__(self, source: Stream, late: bytes) -> None:
        super().__init__()
        self._source, self._late = source, late

    async def drain(self) -> None:
        if self._late:
            await asyncio.sleep(0)
            self._source.data_received(self._late)
            self._late = b""


def _stream(stream: Stream) -> Transport:
    transport = Transport()
    stream.connection_made(transport)
    return transport


def _relay(early: bytes, late: bytes) -> tuple[Relay, Transport]:
    source = Stream()
    destination = SlowStream(source, late)
    _stream(source)
    written = _stream(destination)
    source.data_received(early)
    return Relay(source, destination), written


async def _in_time(awaitable: Any) -> Any:
    async with asyncio.timeout(_TIMEOUT_S):
        return await awaitable


def test_the_last_bytes_may_come_while_the_first_are_being_sent() -> None:
    async def run() -> bytearray:
        relay, transport = _relay(b"12345", b"67890")
        await _in_time(relay.pass_on(10))
        await relay.flush()
        return transport.written

    assert asyncio.run(run()) == b"1234567890"


def test_what_is_looked_at_may_come_while_what_precedes_it_is_being_sent() -> None:
    async def run() -> tuple[bytes, bytes]:
        relay, transport = _relay(b"12345", b"67890")
        await relay.pass_on(4)
        return await _in_time(relay.peek(6)), bytes(transport.written)

    assert asyncio.run(run()) == (b"567890", b"1234")


def test_what_is_dropped_may_come_while_what_precedes_it_is_being_sent() -> None:
    async def run() -> tuple[bytes, bytes]:
        relay, transport = _relay(b"12345", b"67890")
        await relay.pass_on(4)
        await _in_time(relay.drop(3))
        return await _in_time(relay.peek(3)), bytes(transport.written)

    assert asyncio.run(run()) == (b"890", b"1234")


def test_a_source_that_ends_is_told_of_after_its_last_bytes() -> None:
    async def run() -> bytes:
        stream = Stream()
        _stream(stream)
        stream.data_received(b"123")
        stream.eof_received()
        taken = await stream.read(3)
        with pytest.raises(StreamEndedError):
            await stream.read(1)
        return taken

    assert asyncio.run(run()) == b"123"
