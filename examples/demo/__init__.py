"""Two functions that differ in how they keep their connection, through the faults that a deployed one meets.

`python -m examples.demo` (or `make demo`) runs both under the real Lambda runtime client. Each logs in with an IAM
token or a secret, over verified TLS, at a local stand-in for RDS Proxy, before a real PostgreSQL, and before a real
MariaDB where there is one. What happens to them is real: processes are stopped, sessions ended, servers restarted,
tokens refused, passwords changed.
"""
