"""A database connection that is always good, for AWS Lambda functions on RDS and Aurora.

import lambda_dbconn

db = lambda_dbconn.from_env()  # outside the handler: reads and checks the settings, opens nothing


def handler(event, context):
    with db.connection(context) as conn, conn.cursor() as cur:
        cur.execute("select * from employee")
        return cur.fetchall()
"""

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
from lambda_dbconn.registry import from_env
from lambda_dbconn.secret import Secret
from lambda_dbconn.settings import Settings
from lambda_dbconn.stats import Stats

__version__ = "0.1.0"

__all__ = [
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
    "from_env",
]
