"""One module, one command: what is here is offered. See `lambda_dbconn.cli.group`."""
