"""Who we log in as: `Credentials` and the seam through which they come."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, Protocol
from lambda_dbconn.secret import Secret
from lambda_dbconn.value import Value

if TYPE_CHECKING:
    from lambda_dbconn.deadline import Deadline
    from lambda_dbconn.settings import Settings


class Credentials(Value):
    """A user name and its password or token: together, because a rotation may change both.

    Attributes:
        user: The database user.
        password: None when the server asks for none.
    """

    user: str
    password: Secret | None = None


class CredentialProvider(Protocol):
    """Where credentials come from. Threads may call it; it may block, but not past the deadline."""

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        """Return what to log in with now; called once for each physical connection.

        Raises:
            CredentialsError: There is none to be had.
        """

    def refused(self, credentials: Credentials) -> bool:
        """Be told that the server refused these; say whether another `fetch` may bring different ones."""


__all__ = ["CredentialProvider", "Credentials", "Secret"]
