"""A database connection that is always good, for AWS Lambda functions on RDS and Aurora.

import lambda_dbconn

db = lambda_dbconn.from_env()  # outside the handler: reads and checks the settings, opens nothing


def handler(event, context):
    with db.connection(context) as conn, conn.cursor() as cur:
        cur.execute("select * from employee")
        return cur.fetchall()
"""

from lambda_dbconn import _typing
from lambda_dbconn.credentials import CredentialProvider, Credentials
from lambda_dbconn.credentials.static import StaticProvider
from lambda_dbconn.endpoint import Endpoint, EndpointKind
from lambda_dbconn.errors import (
    AuthenticationError,
    CommitUnknownError,
    ConfigurationError,
    ConnectError,
    ConnectionInUseError,
    ConnectTimeoutError,
    CredentialsError,
    DeadlineExceededError,
    LambdaDbConnError,
    LambdaDbConnWarning,
    ProxyBusyError,
    ProxyRefusedError,
    SessionPinnedError,
    TlsError,
    TransactionAbortedError,
    TransactionLeftOpenError,
)
from lambda_dbconn.manager import ConnectionManager
from lambda_dbconn.registry import async_from_env, from_env
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import Settings
from lambda_dbconn.stats import Stats

if _typing.TYPE_CHECKING:
    from lambda_dbconn.async_manager import AsyncConnectionManager

__version__ = "0.1.0"

__all__ = [
    "AsyncConnectionManager",
    "AuthenticationError",
    "CommitUnknownError",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeoutError",
    "ConnectionInUseError",
    "ConnectionManager",
    "CredentialProvider",
    "Credentials",
    "CredentialsError",
    "DeadlineExceededError",
    "Endpoint",
    "EndpointKind",
    "LambdaDbConnError",
    "LambdaDbConnWarning",
    "ProxyBusyError",
    "ProxyRefusedError",
    "Secret",
    "SessionPinnedError",
    "Settings",
    "StaticProvider",
    "Stats",
    "TlsError",
    "TransactionAbortedError",
    "TransactionLeftOpenError",
    "__version__",
    "async_from_env",
    "from_env",
]

if not _typing.TYPE_CHECKING:  # to type checkers it would make any name an attribute

    def __getattr__(name: str) -> object:
        """Import `AsyncConnectionManager` when it is asked for: asyncio would cost every cold start."""
        if name != "AsyncConnectionManager":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from lambda_dbconn.async_manager import AsyncConnectionManager

        return AsyncConnectionManager
