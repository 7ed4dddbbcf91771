"""The proxy's certificate: made anew, or kept in a directory between runs."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING

import click

from lambda_dbconn.testing.certificates import Certificates

if TYPE_CHECKING:
    from pathlib import Path

_ROUNDS_OF_A_HANDSHAKE = 4


def certificates_in(directory: Path, name: str) -> Certificates:
    """Return the certificates that are kept in a directory, or make them; the server's is for `name` and localhost.

    Raises:
        click.ClickException: What is there cannot be used, or nothing can be written there.
    """
    kept = Certificates.at(directory)
    try:
        if not any(getattr(kept, field.name).exists() for field in fields(kept)):
            return Certificates.create(directory, extra_names=[name])
        _shake_hands(kept, name)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "verify_message", None) or error
        raise click.ClickException(f"--certificates {directory} cannot be used for {name}: {reason}") from error
    return kept


def _shake_hands(certificates: Certificates, name: str) -> None:
    """Do what a client and the proxy will do, in memory.

    Raises:
        OSError: A file cannot be read, or the client would refuse the certificate: ssl.SSLError.
    """
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificates.server_certificate_path, certificates.server_key_path)
    client_context = ssl.create_default_context(cafile=certificates.ca_path)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_ROUNDS_OF_A_HANDSHAKE):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
