"""Where events go. A sink knows `lambda_dbconn.events` and nothing else of the package."""
