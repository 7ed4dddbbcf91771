"""The harness around AWS's emulator: its ports, and what is told of one that has ended."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.testing.runtime_api import RuntimeUnavailableError
from lambda_dbconn.testing.servers.server import free_port
from tests.support import emulator as emulator_module
from tests.support.emulator import LocalEmulator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric has wheels for Linux only"),
    pytest.mark.usefixtures("emulator"),
]


@pytest.fixture
def echo(tmp_path: Path) -> LocalEmulator:
    (tmp_path / "echo.py").write_text("def handler(event, context):\n    return event\n")
    return LocalEmulator(directory=tmp_path, handler="echo.handler", environment={}, timeout_s=10)


@pytest.mark.parametrize("place", [0, 1], ids=["its own interface", "the runtime API"])
def test_a_port_that_was_taken_in_between_is_chosen_anew(
    echo: LocalEmulator, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        ports = [free_port(), free_port(), free_port()]
        ports.insert(place, rival.getsockname()[1])
        monkeypatch.setattr(emulator_module, "free_port", lambda: ports.pop(0))
        with echo:
            assert echo.invoke({"a": 1}).value == {"a": 1}
    assert ports == []


def test_its_two_ports_are_two(echo: LocalEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    ports = [port, port, free_port()]
    monkeypatch.setattr(emulator_module, "free_port", lambda: ports.pop(0))
    with echo:
        assert echo.invoke({"a": 1}).value == {"a": 1}
    assert ports == []


def test_where_no_port_is_free_it_says_so(echo: LocalEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        ports = itertools.cycle([free_port(), rival.getsockname()[1]])
        monkeypatch.setattr(emulator_module, "free_port", lambda: next(ports))
        with pytest.raises(RuntimeUnavailableError, match="already in use"):
            echo.start()


def test_what_it_said_last_is_told_when_it_has_ended(echo: LocalEmulator) -> None:
    with echo:
        assert echo._process is not None
        os.kill(echo._process.pid, signal.SIGKILL)
        echo._process.wait()
        with pytest.raises(RuntimeUnavailableError, match=r"(?s)ConnectionRefusedError.*\[INFO\]"):
            echo.invoke({})
