"""The file with RDS's authorities: whether it is one, and how long it will do.

It is the user's to fetch, and to trust; none comes with lambda_dbconn.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from lambda_dbconn.tls import RDS_BUNDLE_URL

if TYPE_CHECKING:
    from pathlib import Path

_SOON = timedelta(days=365)  # layers live long


@dataclass(frozen=True, kw_only=True)
class TrustBundle:
    """A PEM file of authorities.

    Attributes:
        content: The file, byte for byte.
        expiries: When each certificate ends, the first to end first.
    """

    content: bytes
    expiries: tuple[datetime, ...]

    @classmethod
    def read(cls, path: Path, *, now: datetime) -> TrustBundle:
        """Read and check a file.

        Raises:
            click.ClickException: It has no certificate that is good now, or it has what must not leave this machine.
        """
        content = path.read_bytes()
        if b"PRIVATE KEY" in content:
            raise click.BadParameter(f"{path} has a private key in it", param_hint="--rds-ca-bundle")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            message = f"{path} is not a PEM file of certificates; RDS's is at {RDS_BUNDLE_URL}"
            raise click.BadParameter(message, param_hint="--rds-ca-bundle") from error
        ends = [ssl.cert_time_to_seconds(str(found["notAfter"])) for found in context.get_ca_certs()]
        bundle = cls(content=content, expiries=tuple(datetime.fromtimestamp(end, UTC) for end in sorted(ends)))
        if not bundle.expiries:
            raise click.BadParameter(f"{path} has no authority's certificate in it", param_hint="--rds-ca-bundle")
        if bundle.expiries[-1] <= now:
            raise click.BadParameter(
                f"all {len(ends)} certificates in {path} have expired, the last on {bundle.expiries[-1]:%Y-%m-%d}; "
                f"a new file is at {RDS_BUNDLE_URL}",
                param_hint="--rds-ca-bundle",
            )
        return bundle

    def warning(self, now: datetime) -> str | None:
        """Say what has expired, or will within a year."""
        expired = [end for end in self.expiries if end <= now]
        soon = [end for end in self.expiries if now < end <= now + _SOON]
        count = len(self.expiries)
        if expired:
            return f"{len(expired)} of {count} certificates have expired, the first on {expired[0]:%Y-%m-%d}"
        if soon:
            return f"{len(soon)} of {count} certificates expire within a year, the first on {soon[0]:%Y-%m-%d}"
        return None
