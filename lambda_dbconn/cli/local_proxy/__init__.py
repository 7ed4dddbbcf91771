"""What `lambda-dbconn local-proxy` does, in the order in which it does it.

`backend` finds or starts the server, `certificates` says who the proxy is, `environment` tells clients about it, and
`serving` lets it run until somebody ends it.
"""
