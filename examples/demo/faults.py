"""What happens to the connections: each fault is brought about for real, and says so if that does not succeed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from lambda_dbconn.credentials.sigv4 import TOKEN_LIFETIME_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.demo.stage import Stage
    from lambda_dbconn.testing.rds_proxy import LocalRdsProxy

Fate = Literal["is spared", "may fail", "fails", "stays broken"]

_WAIT_LIMIT_S = 15.0
_POLL_INTERVAL_S = 0.01
_AWAY_S = 0.4
_IDLE_TIMEOUT_S = 1.0  # RDS Proxy's default is half an hour
_NO_IDLE_TIMEOUT_S = 86_400.0
_NEW_TOKEN_LIFE_S = 5.0
_IDLE_BEFORE_PING_S = 0.3  # longer than the DB_PING_IDLE_S of the functions that it is for


class FaultError(Exception):
    """A fault could not be brought about, so a phase would not be what it claims."""


class Fault:
    """Something that strikes the connections while their execution environments are frozen.

    Attributes:
        proof: the library's counter that has to grow with each strike, or "" for none.
        plain_fate: what becomes of the plain function.
        is_brief: whether it would be over for the one function when the other has met it: both are to meet it at once.
    """

    proof = "replaced: hang_up"
    plain_fate: Fate = "may fail"
    is_brief = False

    def prepare(self, stage: Stage) -> None:
        """Called before the last round ahead of the strike."""

    def strike(self, stage: Stage) -> None:
        """Called when the environments are frozen; the next invocation of each function meets the fault."""
        raise NotImplementedError

    def relent(self, stage: Stage) -> None:
        """Called, if the fault is brief, when the plain function has answered, and the library's perhaps not yet."""

    def settle(self, stage: Stage) -> None:
        """Called when both functions have met the fault."""


class DatabaseFailedOver(Fault):
    """The database restarts, and is away from the proxy for a moment. The proxy keeps its clients, and lets them wait.

    None of the connections to the proxy breaks.
    """

    proof = ""
    plain_fate = "is spared"
    is_brief = True

    def strike(self, stage: Stage) -> None:
        """Restart the database, and have the proxy find it a little later."""
        former_sessions, former_pid = stage.server.session_count(), stage.server.pid
        stage.server.restart()
        if former_sessions == 0 or stage.server.pid == former_pid:
            raise FaultError("the database was not restarted while the proxy had sessions there")
        stage.iam_proxy.failover(outage_s=_AWAY_S)

    def settle(self, stage: Stage) -> None:
        """Look whether the proxy has logged in at the database again, which is another process now."""
        if stage.server.session_count() == 0:
            raise FaultError("the proxy has not logged in at the database again")


class ProxyRestarted(Fault):
    """The proxy hangs up on all its clients, as RDS Proxy does after 24 hours, or in a maintenance."""

    def strike(self, stage: Stage) -> None:
        """Restart it."""
        stage.iam_proxy.restart()


class ProxyDown(Fault):
    """The proxy is down when the next invocations begin, and back only after the plain function has answered."""

    proof = "connect_failures"
    plain_fate = "fails"
    is_brief = True

    def strike(self, stage: Stage) -> None:
        """Stop it."""
        stage.iam_proxy.stop()

    def relent(self, stage: Stage) -> None:
        """Start it again, a little later."""
        time.sleep(_AWAY_S)
        stage.iam_proxy.start()


class TokenExpired(Fault):
    """The tokens with which the functions logged in expire, and then the connections are lost.

    Nobody waits for the fifteen minutes: the clock of the proxy is put forward, for so long that a token made now is
    good for five more seconds, and one made earlier than that for none.
    """

    plain_fate = "stays broken"

    def __init__(self) -> None:
        self._expired_before = 0

    def strike(self, stage: Stage) -> None:
        """Wait until the plain function's token is old enough, put the clock forward, and hang up."""
        _wait(
            lambda: stage.by_iam.plain.environment_age_s > _NEW_TOKEN_LIFE_S + 1,
            "the plain function's token did not grow old",
        )
        self._expired_before = self._expired(stage)
        stage.turn_proxy_clock(TOKEN_LIFETIME_S - _NEW_TOKEN_LIFE_S)
        stage.iam_proxy.restart()

    def settle(self, stage: Stage) -> None:
        """Put the clock right, and look whether the proxy has refused a token because of its age."""
        stage.turn_proxy_clock(0)
        if self._expired(stage) == self._expired_before:
            raise FaultError("the proxy has not refused an expired token")

    @staticmethod
    def _expired(stage: Stage) -> int:
        return stage.iam_proxy.log().count("it expired ")


class SessionsIdleOut(Fault):
    """The proxy hangs up on clients that have been idle for long; only those that came after `prepare`."""

    def __init__(self) -> None:
        self._logins_before = 0

    def prepare(self, stage: Stage) -> None:
        """Set a limit for the sessions to come."""
        self._logins_before = stage.secret_proxy.stats().logins
        stage.secret_proxy.idle_client_timeout_s = _IDLE_TIMEOUT_S

    def strike(self, stage: Stage) -> None:
        """Wait until the proxy has ended them all; then lift the limit."""
        proxy = stage.secret_proxy
        try:
            _wait(lambda: proxy.stats().client_connections == 0, "the proxy did not end the idle sessions")
        finally:
            proxy.idle_client_timeout_s = _NO_IDLE_TIMEOUT_S
        if proxy.stats().logins == self._logins_before:
            raise FaultError("there was no session to idle out")
        stage.network.fin()  # what the proxy said last has arrived when this returns


class SecretRotated(Fault):
    """A rotation takes one of its four steps, and the network loses the connections."""

    plain_fate = "stays broken"

    def __init__(self) -> None:
        self._refused_before = 0
        self._is_finished = False

    def strike(self, stage: Stage) -> None:
        """Take the step, and close the connections on both sides."""
        self._refused_before = _refused(stage.secret_proxy)
        self._is_finished = stage.rotation.take_step(stage.secret_proxy)
        stage.network.fin()

    def settle(self, stage: Stage) -> None:
        """After the last step, look whether the proxy has refused the former password."""
        if self._is_finished and _refused(stage.secret_proxy) == self._refused_before:
            raise FaultError("the proxy has not refused the former password")


class PathDead(Fault):
    """The network forgets the connections without a word to the clients, as a host that crashes does."""

    proof = "replaced: ping_failed"
    plain_fate = "fails"

    def strike(self, stage: Stage) -> None:
        """Cut the path, and let the connections idle for so long that the library will not trust them unasked."""
        stage.network.vanish()
        _wait(lambda: stage.secret_proxy.stats().client_connections == 0, "the proxy did not notice the dead path")
        time.sleep(_IDLE_BEFORE_PING_S)


def _refused(proxy: LocalRdsProxy) -> int:
    return sum(proxy.stats().refused.values())


def _wait(is_so: Callable[[], bool], complaint: str) -> None:
    ends_at = time.monotonic() + _WAIT_LIMIT_S
    while not is_so():
        if time.monotonic() > ends_at:
            raise FaultError(f"{complaint} within {_WAIT_LIMIT_S:g} s")
        time.sleep(_POLL_INTERVAL_S)
