"""Finds out what is wrong between a function and its database, step by step.

`ConnectionManager.doctor()` examines its own endpoint; `examine_environment()` begins with the settings, so that it
can also say what is wrong with those. Nothing here is imported before one of them is called, and neither needs more
than the library itself.
"""

from lambda_dbconn.doctor.examination import examine, examine_environment
from lambda_dbconn.doctor.report import Cause, Diagnosis, Step

__all__ = ["Cause", "Diagnosis", "Step", "examine", "examine_environment"]
