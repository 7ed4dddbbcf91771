"""A stand-in for Amazon RDS Proxy that runs here: PostgreSQL's and MySQL's protocols before a real server."""

from lambda_dbconn.testing.rds_proxy.backend import Backend, RunningServer
from lambda_dbconn.testing.rds_proxy.iam import AwsKey
from lambda_dbconn.testing.rds_proxy.ledger import Request, SessionRecord, Stats
from lambda_dbconn.testing.rds_proxy.proxy import LocalRdsProxy

__all__ = ["AwsKey", "Backend", "LocalRdsProxy", "Request", "RunningServer", "SessionRecord", "Stats"]
