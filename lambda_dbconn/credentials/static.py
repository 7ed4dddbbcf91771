"""Credentials of the settings, and those that the caller's own function or provider gives."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.credentials import Credentials, let_forget
from lambda_dbconn.errors import ConfigurationError, CredentialsError, LambdaDbConnError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.deadline import Deadline
    from lambda_dbconn.settings import Settings


class StaticProvider:
    """Gives the user and password of the settings. No round trip; a refusal is final."""

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:  # noqa: ARG002 - nothing to wait for
        """Return the settings' user and password.

        Raises:
            ConfigurationError: The settings have no user.
        """
        if settings.user is None:
            raise ConfigurationError(f"{settings.variable('user')} is not set; accepted: the database user's name")
        return Credentials(user=settings.user, password=settings.password)

    def refused(self, credentials: Credentials) -> bool:  # noqa: ARG002 - there are no others
        """Say that there are no others."""
        return False


_REMEDY = "Have it raise lambda_dbconn.CredentialsError, whose message is shown and which says whether to try again."


def checked(give: Callable[[], object], name: str) -> Credentials:
    """Return what the caller's own code gives. What it raises may carry a password: only type and place are shown.

    Args:
        give: Called once.
        name: Of what gives them, for the message.

    Raises:
        LambdaDbConnError: What it raises of ours passes through.
        CredentialsError: It raised something else.
        ConfigurationError: It returned something else than `Credentials`.
    """
    fault = None
    given: object = None
    try:
        given = give()
    except LambdaDbConnError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever it is
        fault = f"{name} raised {type(exc).__name__} at {_place(exc)}"
    if fault is not None:
        raise CredentialsError(fault, remedy=_REMEDY)
    if isinstance(given, Credentials):
        return given
    kind = type(given).__name__
    del given  # it may be the password itself
    raise ConfigurationError(f"{name} returned a {kind!r}; accepted: Credentials")


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}" if trace is not None else "an unknown place"


class FunctionProvider:
    """Gives what a function returns, which is called for each connection.

    It may block for as long as it likes: it is not told the deadline. After a refusal it is called again; what it
    returns then is tried if it differs.
    """

    def __init__(self, function: Callable[[], Credentials]) -> None:
        self._function = function

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:  # noqa: ARG002 - it takes nothing
        """Call the function.

        Raises:
            CredentialsError: It raised something that is not the library's.
            ConfigurationError: It returned something else than `Credentials`.
        """
        return checked(self._function, "the argument credentials")

    def refused(self, credentials: Credentials) -> bool:  # noqa: ARG002 - it is for the function to know
        """Say that there may be others."""
        return True

    def forget(self) -> None:
        """Let the function forget, if it can."""
        let_forget(self._function)
