"""Where events go: logging, EMF, Powertools, OpenTelemetry.

Managers import the logging one, users the others; an observer imports `lambda_dbconn.events` and nothing else.
"""
