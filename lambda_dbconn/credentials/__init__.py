"""Who the function logs in as: `Credentials`, and the providers of passwords, IAM tokens and secrets.

The connector and the manager import it; it imports settings and the base modules.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Protocol, Value
from lambda_dbconn.errors import CredentialsError
from lambda_dbconn.secret import Secret, unsendable

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.deadline import Clock, Deadline
    from lambda_dbconn.settings import Settings


class Credentials(Value):
    """A user name and its password or token: together, because a rotation may change both.

    Attributes:
        user: The database user.
        password: None when the server asks for none.

    Raises:
        CredentialsError: One has a zero byte, at which PostgreSQL would cut it off, or half of a surrogate pair.
    """

    user: str
    password: Secret | None = None

    def _check(self) -> None:
        fault = unsendable(self.user) or (self.password is not None and unsendable(self.password.reveal()))
        if fault:
            raise CredentialsError(
                f"the user or the password has {fault}; accepted: text without one",
                remedy="Correct it where it is set: in the secret, in the variables, or in your credential provider.",
            )


class CredentialProvider(Protocol):
    """Where credentials come from. Threads may call it; it may block, but not past the deadline.

    A provider that has something to say beside its errors has a method `listen(tell)`, too: a manager calls it once
    with a callable that takes events. One that keeps something has a method `forget()`: it is called after a
    SnapStart restore, when what was kept may be years old, and must not block.
    """

    def fetch(self, settings: Settings, deadline: Deadline) -> Credentials:
        """Return what to log in with now; called once for each physical connection, and again after a refusal.

        Raises:
            CredentialsError: There is none to be had.
        """

    def refused(self, credentials: Credentials) -> bool:
        """Be told that the server refused these; say whether another `fetch` may bring different ones. Never blocks."""


def fetched(provider: CredentialProvider, settings: Settings, deadline: Deadline) -> Credentials:
    """Return what a provider gives.

    Raises:
        CredentialsError: There is none to be had; or a provider of the caller's own has raised something else.
        ConfigurationError: Such a provider has returned something else.
    """
    if type(provider).__module__.startswith("lambda_dbconn."):
        return provider.fetch(settings, deadline)
    from lambda_dbconn.credentials.static import checked

    return checked(lambda: provider.fetch(settings, deadline), f"the provider {type(provider).__name__}")


def let_forget(keeper: object) -> None:
    """Call the method `forget` of a provider, or of what it gets its credentials from, if there is one."""
    forget = getattr(keeper, "forget", None)
    if forget is not None:
        forget()


def provider_for(
    settings: Settings, given: CredentialProvider | Callable[[], Credentials] | None, *, clock: Clock
) -> CredentialProvider:
    """Return the given provider, or a new one. No round trip; no SDK is imported.

    Args:
        settings: Say which, when none is given.
        given: A provider, or a function that returns credentials.
        clock: For a new one.
    """
    if hasattr(given, "fetch"):
        return given  # type: ignore[return-value] # mypy does not narrow by hasattr
    if given is not None:
        from lambda_dbconn.credentials.static import FunctionProvider

        return FunctionProvider(given)
    if settings.auth == "iam":
        from lambda_dbconn.credentials.iam import IamProvider

        return IamProvider(clock=clock)
    if settings.auth == "secret" and settings.secret_id is not None:
        from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider

        return SecretsManagerProvider(settings.secret_id, region=settings.region, clock=clock)
    from lambda_dbconn.credentials.static import StaticProvider

    return StaticProvider()


__all__ = ["CredentialProvider", "Credentials", "Secret", "fetched", "let_forget", "provider_for"]
