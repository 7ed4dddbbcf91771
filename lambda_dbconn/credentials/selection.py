"""Which provider the settings ask for; only that one is imported."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lambda_dbconn.credentials import CredentialProvider
    from lambda_dbconn.settings import Settings


def provider_for(settings: Settings) -> CredentialProvider:
    """Return a new provider. No round trip; no SDK is imported."""
    if settings.auth == "iam":
        from lambda_dbconn.credentials.iam import IamProvider

        return IamProvider()
    if settings.auth == "secret" and settings.secret_id is not None:
        from lambda_dbconn.credentials.secrets_manager import SecretsManagerProvider

        return SecretsManagerProvider(settings.secret_id, region=settings.region)
    from lambda_dbconn.credentials.static import StaticProvider

    return StaticProvider()
