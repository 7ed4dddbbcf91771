"""Which provider the settings or the caller ask for; only that one is imported."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_dbconn.clock import Clock
    from lambda_dbconn.credentials import CredentialProvider, Credentials
    from lambda_dbconn.settings import Settings


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
        from lambda_dbconn.credentials.function import FunctionProvider

        return FunctionProvider(given)
    if settings.auth == "iam":
        from lambda_dbconn.credentials.iam import IamProvider

        return IamProvider(clock=clock)
    if settings.auth == "secret" and settings.secret_id is not None:
        from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider

        return SecretsManagerProvider(settings.secret_id, region=settings.region, clock=clock)
    from lambda_dbconn.credentials.static import StaticProvider

    return StaticProvider()
