"""Two functions that differ in how they keep their connection, through the faults that a deployed one meets.

`python -m examples.demo` (or `make demo`) runs both under the real Lambda runtime client against a PostgreSQL server
of their own. What happens to them is real: processes are stopped, sessions ended, the server restarted.
"""
