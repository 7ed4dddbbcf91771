"""Whoever answers before TLS may be anyone: what they say is bounded and printable wherever it is shown."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import AsyncConnectionManager, ConnectError, ConnectionManager, Settings
from lambda_dbconn.doctor import examine
from lambda_dbconn.events import ConnectFailed
from lambda_dbconn.testing.fakes import RecordingObserver
from tests.support.answers import answering

if TYPE_CHECKING:
    import socket
    import threading

    from lambda_dbconn.testing.certificates import Certificates

pytestmark = pytest.mark.once

LONGEST = 2_000  # characters, our own words included
UNPRINTABLE = "\x1b]0;owned\x07\x1b[2J\u202egpj.exe\u200b\x9b31m\r\n\tend"
WORDS = ["x" * 10_000_000, UNPRINTABLE, UNPRINTABLE * 100_000]


def mysql_error(words: str, *, number: int = 1040) -> bytes:
    """Return the packet with which a server refuses a connection instead of greeting."""
    body = b"\xff" + number.to_bytes(2, "little") + b"#08004" + words.encode()
    packets = b""
    for count, start in enumerate(range(0, len(body) + 1, 0xFFFFFF)):
        part = body[start : start + 0xFFFFFF]
        packets += len(part).to_bytes(3, "little") + bytes([count]) + part
    return packets


def postgresql_error(words: str) -> bytes:
    """Return the message with which a server refuses a login."""
    fields = b"SFATAL\0C28000\0M" + words.encode() + b"\0\0"
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


def settings(engine: str, port: int, **changes: Any) -> Settings:
    given = {"engine": engine, "host": "127.0.0.1", "port": port, "user": "app", "connect_timeout_s": 5.0}
    return Settings(**{**given, **changes})


def borrow(given: Settings, observer: RecordingObserver, *, is_async: bool) -> None:
    async def borrow_and_wait() -> None:
        async with AsyncConnectionManager[Any](given, observer=observer).connection(30):
            pass

    if is_async:
        asyncio.run(borrow_and_wait())
        return
    with ConnectionManager[Any](given, observer=observer).connection(30):
        pass


def check(shown: str) -> None:
    assert shown
    assert len(shown) < LONGEST
    assert shown.isprintable()


@pytest.mark.parametrize("words", WORDS, ids=["long", "unprintable", "both"])
@pytest.mark.parametrize("engine", ["mysql", "postgresql", "asyncio"])
def test_what_a_stranger_answers_is_bounded_and_printable_in_errors_events_and_logs(
    engine: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(connection: socket.socket, _: threading.Event) -> None:
        if engine != "mysql":
            connection.recv(65536)
        connection.sendall(mysql_error(words) if engine == "mysql" else postgresql_error(words))
        connection.recv(65536)

    observer = RecordingObserver()
    caplog.set_level(logging.DEBUG)
    with answering(refuse) as server:
        given = settings("postgresql" if engine == "asyncio" else engine, server.port, sslmode="disable")
        with pytest.raises(ConnectError) as caught:
            borrow(given.replace(connect_timeout_s=0.5), observer, is_async=engine == "asyncio")
    logging.getLogger("app").error("failed", exc_info=caught.value)
    check(str(caught.value))
    check(observer.of(ConnectFailed)[0].error)
    for line in "".join(traceback.format_exception(caught.value)).split("\n"):
        assert len(line) < LONGEST
        assert line.isprintable()
    assert max(map(len, caplog.text.split("\n"))) < LONGEST
    assert not {"\x1b", "\x9b", "\u202e"} & set(caplog.text)


@pytest.mark.parametrize("words", WORDS, ids=["long", "unprintable", "both"])
@pytest.mark.parametrize("engine", ["mysql", "postgresql"])
def test_what_a_stranger_answers_is_bounded_and_printable_in_a_diagnosis(
    engine: str, words: str, certificates: Certificates
) -> None:
    def refuse(connection: socket.socket, _: threading.Event) -> None:
        if engine == "postgresql":
            connection.recv(65536)
        connection.sendall(mysql_error(words[:1000]) if engine == "mysql" else postgresql_error(words))
        connection.recv(65536)

    with answering(refuse) as server:
        diagnosis = examine(settings(engine, server.port, sslrootcert=str(certificates.ca_path)), context=10)
    steps = {step.name: step for step in diagnosis.steps}
    assert steps["tls"].status == "failed"
    assert "refused" in steps["tls"].found
    for step in diagnosis.steps:
        check(step.found)
