"""`Connector`: opens a physical connection, with credentials, trust, and backoff inside a time limit."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Generic, TypeVar
from lambda_dbconn.credentials import fetched, let_forget
from lambda_dbconn.deadline import Deadline
from lambda_dbconn.errors import (
    AuthenticationError,
    ConnectError,
    ConnectTimeoutError,
    CredentialsError,
    LambdaDbConnError,
)
from lambda_dbconn.events import ConnectFailed, ConnectGaveUp, WarmUpFailed
from lambda_dbconn.tls import trust_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.cache.backoff import RetryBudget
    from lambda_dbconn.credentials import CredentialProvider, Credentials
    from lambda_dbconn.deadline import Clock
    from lambda_dbconn.drivers.driver import Driver
    from lambda_dbconn.events import Event
    from lambda_dbconn.settings import Settings

C = TypeVar("C")

_MOST_CREDENTIALS = 3  # what was known, what is current, what is pending
INTERRUPT_LIMIT_S = 0.1


class Connector(Generic[C]):
    """Opens connections to one endpoint. Threads may share it.

    Args:
        settings: Where, and for how long to try.
        driver: Opens one connection, or says why not.
        credentials: Asked before each connection; told when they are refused.
        clock: For the time limit and the pauses.
        tell: Called with an event for each try that failed, and with one more when several have failed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        driver: Driver[C],
        credentials: CredentialProvider,
        clock: Clock,
        tell: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._driver = driver
        self._credentials = credentials
        self._clock = clock
        self._tell = tell
        self._trust = trust_for(settings)
        self.address = settings.address
        self._failed_ahead: str | None = None
        self._logged_in_with: Credentials | None = None  # no token: that outlives nothing

    def open(self, deadline: Deadline) -> tuple[C, int]:
        """Return a new connection and how many tries it took.

        Failures that a later try may mend are tried again after a pause drawn from an exponentially growing range
        ("full jitter"), until `connect_timeout_s` or the deadline is over, and as often as the budget allows.

        Raises:
            DeadlineExceededError: No time was left for the first try.
            CredentialsError: There is nothing to log in with.
            ConnectError: The last one that was no time-out, if there was one, saying how many tries there were.

        Nothing is begun after the limit: no look-up, no credentials, no other address, no pause.
        """
        limit_s = deadline.cap_s(self._settings.connect_timeout_s, doing=f"connecting to {self._settings.address}")
        limit = _Limit(self._clock, limit_s)
        failed_ahead, self._failed_ahead = self._failed_ahead, None
        try:
            return self._open(deadline, limit)
        except Exception as error:
            if failed_ahead is not None:
                error.add_note(f"warm_up() had failed before: {failed_ahead}")
            raise

    def open_once(self, deadline: Deadline) -> C:
        """Return a new connection, or raise why there is none: one try, with all credentials that there are.

        Raises:
            DeadlineExceededError, CredentialsError, ConnectError: As in `open`.
        """
        limit_s = deadline.cap_s(self._settings.connect_timeout_s, doing=f"connecting to {self._settings.address}")
        return self._try(deadline, _Limit(self._clock, limit_s), attempt=1)

    def tell_failed_ahead(self, error: Exception) -> None:
        """Tell at once that connecting ahead has failed, and once more with the next failure if that follows."""
        self._failed_ahead = f"{type(error).__name__}: {error}"
        self._tell(WarmUpFailed(endpoint=self._settings.address, error=self._failed_ahead))

    def _open(self, deadline: Deadline, limit: _Limit) -> tuple[C, int]:
        started = self._clock.monotonic()
        try:
            return self._try(deadline, limit, attempt=1), 1
        except (ConnectError, CredentialsError) as error:
            if not error.retryable:
                raise
            return self._retry(deadline, limit, error, started)

    def interrupt(self, connection: C) -> None:
        """Ask the server to stop what a connection is waiting for: in a tenth of a second, or not at all.

        Nothing is sent to RDS Proxy, which knows no cancel and may have lent the session to somebody else by now.
        """
        if self._settings.is_proxy:
            return
        from contextlib import suppress

        deadline = Deadline(INTERRUPT_LIMIT_S, reserve_s=0.0, clock=self._clock, is_inside_invocation=False)
        with suppress(Exception):  # the error that is about to be raised matters more
            self._driver.interrupt(
                connection,
                self._settings,
                lambda: fetched(self._credentials, self._settings, deadline),
                self._trust,
                timeout_s=INTERRUPT_LIMIT_S,
            )

    def refuse(self) -> None:
        """Let the provider know that the server takes no statement of the login that was good a moment ago."""
        if self._logged_in_with is not None:
            self._credentials.refused(self._logged_in_with)

    def budget(self) -> RetryBudget:
        """Return the budget of repeats; made when something is to be repeated, for it begins full."""
        budget: RetryBudget | None = vars(self).get("_budget")
        if budget is None:
            from lambda_dbconn.cache.backoff import RetryBudget

            budget = vars(self).setdefault("_budget", RetryBudget(self._clock))  # one, whichever thread is the first
        return budget

    def forget(self) -> None:
        """Begin a new retry budget, and forget silent addresses and what the provider keeps: after a restore."""
        vars(self).pop("_budget", None)
        from lambda_dbconn.drivers import addresses

        addresses.forget()
        let_forget(self._credentials)

    def _try(self, deadline: Deadline, limit: _Limit, *, attempt: int) -> C:
        """Open once, and tell when that fails."""
        started = self._clock.monotonic()
        try:
            return self._log_in(deadline, limit)
        except LambdaDbConnError as error:
            self._tell(
                ConnectFailed(
                    endpoint=self._settings.address,
                    error=f"{type(error).__name__}: {error.message}",
                    attempt=attempt,
                    duration_s=self._clock.monotonic() - started,
                )
            )
            raise

    def _log_in(self, deadline: Deadline, limit: _Limit) -> C:
        """Open with the credentials that there are; when they are refused, with others, as long as there are any."""
        tried: list[Credentials] = []
        refusal: AuthenticationError | None = None
        while len(tried) < _MOST_CREDENTIALS:
            self._time_for("others than the credentials that were refused" if tried else "credentials", deadline, limit)
            started = self._clock.monotonic()
            credentials = fetched(self._credentials, self._settings, deadline)
            limit.extend(self._clock.monotonic() - started)
            if credentials in tried:
                break
            tried.append(credentials)
            timeout_s = self._time_for("a login after getting credentials", deadline, limit)
            try:
                connection = self._driver.open(self._settings, credentials, self._trust, timeout_s=timeout_s)
            except AuthenticationError as error:
                refusal = error
            else:
                self._logged_in_with = None if self._settings.auth == "iam" else credentials
                return connection
            if not self._credentials.refused(credentials):
                break
        assert refusal is not None  # noqa: S101 - nothing else ends the loop
        raise refusal

    def _time_for(self, what: str, deadline: Deadline, limit: _Limit) -> float:
        """Return the seconds left.

        Raises:
            ConnectTimeoutError: There are none; not `DeadlineExceededError`, so that a reader's fallback has its turn.
        """
        left_s = min(limit.left_s(), deadline.remaining_s())
        if left_s <= 0:
            raise ConnectTimeoutError(f"no time left at {self._settings.address} for {what}")
        return left_s

    def _retry(
        self, deadline: Deadline, limit: _Limit, first: ConnectError | CredentialsError, started: float
    ) -> tuple[C, int]:
        from lambda_dbconn.cache.retry import attempts  # the happy path does without tenacity

        number = 1
        told: LambdaDbConnError | None = first if _tells_why(first) else None
        try:
            for attempt in attempts(
                budget=self.budget(),
                left_s=lambda: min(limit.left_s(), deadline.remaining_s()),
                sleep=self._clock.sleep,
            ):
                with attempt:
                    number = attempt.retry_state.attempt_number
                    if number == 1:
                        raise first  # it has happened already: what is wanted is the pause after it
                    try:
                        return self._try(deadline, limit, attempt=number), number
                    except ConnectError as failure:
                        told = failure if _tells_why(failure) else told
                        raise
        except LambdaDbConnError as last:
            # Why a try failed tells more than that there was no time to hear it again.
            error = told if told is not None and isinstance(last, TimeoutError) else last
            if error is not last:
                error.add_note(f"the last try: {last.message}")
            if number > 1:
                error.message += f" ({number} tries)"
                self._tell_gave_up(error, number, started)
            raise error from error.__cause__
        raise AssertionError("tenacity ends with a result or an error")

    def _tell_gave_up(self, error: LambdaDbConnError, attempts: int, started: float) -> None:
        self._tell(
            ConnectGaveUp(
                endpoint=self._settings.address,
                error=f"{type(error).__name__}: {error.message}",
                attempts=attempts,
                duration_s=self._clock.monotonic() - started,
            )
        )


def _tells_why(error: Exception) -> bool:
    return isinstance(error, ConnectError) and not isinstance(error, ConnectTimeoutError)


class _Limit:
    """When opening has to be done. Getting credentials is not part of it: a cold SDK alone may take seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._ends_at = clock.monotonic() + seconds

    def extend(self, seconds: float) -> None:
        """Grant what was spent on something else."""
        self._ends_at += seconds

    def left_s(self) -> float:
        """Return the seconds left, negative when over."""
        return self._ends_at - self._clock.monotonic()
