"""Credentials from any callable."""

from __future__ import annotations

from lambda_dbconn.credentials import Credentials, let_forget
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.deadline import Deadline
    from lambda_dbconn.settings import Settings


class FunctionProvider:
    """Gives what a function returns, which is called for each connection. What it raises passes through.

    It may block for as long as it likes: it is not told the deadline. After a refusal it is called again; what it
    returns then is tried if it differs.
    """

    def __init__(self, function: Callable[[], Credentials]) -> None:
        self._function = function

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:  # noqa: ARG002 - it takes nothing
        """Call the function.

        Raises:
            ConfigurationError: It returned something else than `Credentials`.
        """
        given = self._function()
        if isinstance(given, Credentials):
            return given
        kind = type(given).__name__
        del given  # it may be the password itself
        raise ConfigurationError(f"the argument credentials returned a {kind!r}; accepted: Credentials")

    def refused(self, credentials: Credentials) -> bool:  # noqa: ARG002 - it is for the function to know
        """Say that there may be others."""
        return True

    def forget(self) -> None:
        """Let the function forget, if it can."""
        let_forget(self._function)
