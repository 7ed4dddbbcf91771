"""Credentials that never change: the settings' user and password."""

from __future__ import annotations

from lambda_dbconn.credentials import Credentials
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.light import TYPE_CHECKING

if TYPE_CHECKING:
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
