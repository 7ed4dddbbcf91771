"""What `lambda-dbconn layer` does, in the order in which it does it.

`runtime` says what a Lambda runtime accepts, `own_wheel` makes a wheel of lambda_dbconn, `resolving` lets pip find the
others, `contents` takes out of them what a function needs, `trust_bundle` and `bytecode` add to it, `archive` writes
the zip, `sbom` says what it is made of, and `building` is all of that together.
"""
