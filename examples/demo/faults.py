"""What happens to the connections: each fault is brought about for real, and says so if that does not succeed."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.demo.stage import Stage

_WAIT_LIMIT_S = 15.0
_POLL_INTERVAL_S = 0.01
_DOWN_S = 0.4
_SESSION_TIMEOUT_MS = 400
_IDLE_BEFORE_PING_S = 0.3  # longer than the relayed functions' DB_PING_IDLE_S


class FaultError(Exception):
    """A fault could not be brought about, so a phase would not be what it claims."""


class Fault:
    """Something that strikes the connections while their execution environments are frozen.

    Attributes:
        proof: the library's counter that has to grow with each strike.
        oldest_server: the oldest version of PostgreSQL that can do it.
    """

    proof = "replaced: hang_up"
    oldest_server = 0

    def prepare(self, stage: Stage) -> None:
        """Called before the last round ahead of the strike."""

    def strike(self, stage: Stage) -> None:
        """Called when the environments are frozen; the next invocation of each function meets the fault."""
        raise NotImplementedError

    def settle(self, stage: Stage) -> None:
        """Called when both functions have met the fault."""


class SessionsKilled(Fault):
    """An administrator ends all sessions, as a failover does."""

    def strike(self, stage: Stage) -> None:
        """End them, and wait until they are gone."""
        for session_id in stage.server.session_ids():
            stage.server.kill_session(session_id)


class ServerRestarted(Fault):
    """The server stops and is back before the next invocation."""

    def strike(self, stage: Stage) -> None:
        """Restart it."""
        former_pid = stage.server.pid
        stage.server.restart()
        if stage.server.pid == former_pid:
            raise FaultError("the server was not restarted")


class ServerDown(Fault):
    """The server is down when the next invocation begins, and is started a fraction of a second later."""

    proof = "connect_failures"

    def __init__(self) -> None:
        self._starting: Future[None] | None = None

    def strike(self, stage: Stage) -> None:
        """Stop it, and have it started when the invocation has begun."""
        stage.server.stop()

        def start() -> None:
            time.sleep(_DOWN_S)
            stage.server.start()

        with_one_thread = ThreadPoolExecutor(max_workers=1)
        self._starting = with_one_thread.submit(start)
        with_one_thread.shutdown(wait=False)

    def settle(self, stage: Stage) -> None:  # noqa: ARG002 - it knows the server already
        """Wait until the server is back."""
        if self._starting is not None:
            self._starting.result()


class SessionsIdleOut(Fault):
    """The server ends sessions that have been idle for long, as RDS Proxy does after half an hour."""

    oldest_server = 14_00_00

    def __init__(self) -> None:
        self._ended_before = 0

    def prepare(self, stage: Stage) -> None:
        """Set a limit that sessions take over with their next statement."""
        self._ended_before = self._ended(stage)
        stage.server.execute(f"alter system set idle_session_timeout = {_SESSION_TIMEOUT_MS}")
        self._reload(stage, expected=f"{_SESSION_TIMEOUT_MS}ms")

    def strike(self, stage: Stage) -> None:
        """Wait until the server has ended them all; then lift the limit for those to come."""
        try:
            _wait(lambda: stage.server.session_count() == 0, "the server did not end the idle sessions")
        finally:
            stage.server.execute("alter system reset idle_session_timeout")
            self._reload(stage, expected="0")
        if self._ended(stage) == self._ended_before:
            raise FaultError("no session ended because it was idle")

    @staticmethod
    def _ended(stage: Stage) -> int:
        return stage.server.log().count("due to idle-session timeout")

    @staticmethod
    def _reload(stage: Stage, *, expected: str) -> None:
        stage.server.execute("select pg_reload_conf()")
        _wait(
            lambda: stage.server.query("show idle_session_timeout") == [(expected,)],
            "the server did not take over idle_session_timeout",
        )


class PathDead(Fault):
    """The network forgets the connections without a word to the clients, as a host that crashes does."""

    proof = "replaced: ping_failed"

    def strike(self, stage: Stage) -> None:
        """Cut the path, and let the connections idle for so long that the library will not trust them unasked."""
        others = stage.server.session_count() - stage.relay.open_connections
        stage.relay.vanish()
        _wait(lambda: stage.server.session_count() == others, "the server did not notice that the path is gone")
        time.sleep(_IDLE_BEFORE_PING_S)


def _wait(is_so: Callable[[], bool], complaint: str) -> None:
    ends_at = time.monotonic() + _WAIT_LIMIT_S
    while not is_so():
        if time.monotonic() > ends_at:
            raise FaultError(f"{complaint} within {_WAIT_LIMIT_S:g} s")
        time.sleep(_POLL_INTERVAL_S)
