"""A database connection that is always good, for AWS Lambda functions on RDS and Aurora.

import lambda_dbconn

db = lambda_dbconn.from_env()  # outside the handler: reads and checks the settings, opens nothing


def handler(event, context):
    with db.connection(context) as conn, conn.cursor() as cur:
        cur.execute("select * from employee")
        return cur.fetchall()
"""

from lambda_dbconn import _values
from lambda_dbconn.credentials import CredentialProvider, Credentials
from lambda_dbconn.deadline import invocation
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
from lambda_dbconn.events import Stats
from lambda_dbconn.manager import ConnectionManager
from lambda_dbconn.registry import async_from_env, from_env
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import Settings
from lambda_dbconn.settings.endpoint import Endpoint, EndpointKind

if _values.TYPE_CHECKING:
    from lambda_dbconn.aio import AsyncConnectionManager
    from lambda_dbconn.credentials.static import StaticProvider

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
    "invocation",
]

# What not every function needs is imported when it is asked for; asyncio alone would double a cold start's imports.
_WHERE = {
    "AsyncConnectionManager": "lambda_dbconn.aio",
    "StaticProvider": "lambda_dbconn.credentials.static",
}

if not _values.TYPE_CHECKING:  # to type checkers it would make any name an attribute

    def __getattr__(name: str) -> object:
        """Import what is not imported at once."""
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
