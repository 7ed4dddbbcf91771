"""Real database servers on this machine, over real TLS, for tests, the demo and the benchmarks.

Each starts from nothing in about a second and is gone when its run is, even a run that was killed.
"""

from lambda_dbconn.testing.servers.mariadb import LocalMariaDB
from lambda_dbconn.testing.servers.postgresql import LocalPostgres
from lambda_dbconn.testing.servers.process import ServerUnavailableError
from lambda_dbconn.testing.servers.server import LocalServer

__all__ = ["LocalMariaDB", "LocalPostgres", "LocalServer", "ServerUnavailableError"]
