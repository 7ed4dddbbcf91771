"""Whom to trust for which endpoint. There is no fallback: not to unverified TLS, not to plaintext.

RDS Proxy presents certificates of Amazon Trust Services, whose five roots come with this package: a public bundle
would trust more than a hundred, and take a cold start longer to read than all the rest of this package. An RDS or
Aurora host presents one of RDS's own authorities, which are in no public bundle.
Sources: RDS user guide, "Using TLS/SSL with RDS Proxy" and "Using SSL/TLS to encrypt a connection"; Amazon Trust
Services' repository, "Trust store and pinning recommendations".
"""

from __future__ import annotations

import os

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.settings.endpoint import classify

if TYPE_CHECKING:
    from ssl import SSLContext

    from lambda_dbconn.settings import Settings

AMAZON_ROOTS = os.path.join(os.path.dirname(__file__), "amazon-roots.pem")  # noqa: PTH118, PTH120 - see `_readable`
LAYER_RDS_BUNDLE = "/opt/lambda_dbconn/rds-global-bundle.pem"
RDS_BUNDLE_URL = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
# GovCloud's names are among them, which we have not seen; nor who signs in China, the European Sovereign Cloud and the
# isolated partitions, so that each public authority is trusted there.
_DOMAIN_OF_AMAZON_ROOTS = ".amazonaws.com"
_SYSTEM_BUNDLES = (
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
)


class Trust(Value):
    """How to secure a connection: certificate and host name verified against these authorities, or not at all.

    Attributes:
        cafile: Path of a PEM file; None only for `sslmode` `disable`.
    """

    cafile: str | None

    @property
    def is_verified(self) -> bool:
        """Whether TLS is used; if it is, it is verified."""
        return self.cafile is not None


def trust_for(settings: Settings) -> Trust:
    """Choose the authorities for these settings' host. No round trip; looks for files, imports nothing.

    Raises:
        ConfigurationError: The file does not exist or cannot be read.
    """
    if settings.sslmode == "disable":
        return Trust(cafile=None)
    if settings.sslrootcert is not None:
        return Trust(cafile=_readable(settings.sslrootcert, settings.variable("sslrootcert")))
    endpoint = classify(settings.server_name)
    if endpoint.is_rds and not endpoint.is_proxy:
        if os.access(LAYER_RDS_BUNDLE, os.R_OK):
            return Trust(cafile=LAYER_RDS_BUNDLE)
        raise ConfigurationError(
            f"{settings.variable('sslrootcert')} is not set, and {settings.server_name} presents a certificate of "
            "RDS's own authority, which no public bundle contains",
            remedy=f"Package {RDS_BUNDLE_URL} with the function and set the variable to its path.",
        )
    if endpoint.is_proxy and endpoint.host.lower().endswith(_DOMAIN_OF_AMAZON_ROOTS):
        return Trust(cafile=_readable(AMAZON_ROOTS, "the file of Amazon's roots, a part of this package,"))
    return Trust(cafile=_public_bundle(settings))


def configure_client(context: SSLContext, cafile: str) -> None:
    """Let a client's TLS context use TLS 1.2 or later and trust the CA certificates in a PEM file, and no others.

    Chain and host name are verified by default. Not asked for, as libpq does not either, are the extensions that
    `ssl.create_default_context` insists on from Python 3.13 on, and that certificates in use lack.

    Raises:
        ConfigurationError: The file cannot be read, or holds none.
    """
    import ssl

    # The Python of Debian and Ubuntu sets no minimum of its own, but takes OpenSSL's.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    try:
        context.load_verify_locations(cafile)
    except OSError as exc:  # an SSLError is one
        raise ConfigurationError(
            f"the authorities in {cafile!r} cannot be read: {exc}",
            remedy="Give SSLROOTCERT the path of a PEM file with at least one certificate.",
        ) from exc


def _readable(path: str, label: str) -> str:
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib's import would be paid by every cold start
        raise ConfigurationError(f"{label} is {path!r}, where there is no file; accepted: the path of a PEM file")
    if not os.access(path, os.R_OK):
        raise ConfigurationError(f"{label} is {path!r}, which this process may not read")
    return path


def _public_bundle(settings: Settings) -> str:
    """Find certifi's or botocore's bundle without importing either: finding takes 0.1 ms, importing up to 20."""
    from importlib.util import find_spec

    for package in ("certifi", "botocore"):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            path = os.path.join(os.path.dirname(spec.origin), "cacert.pem")  # noqa: PTH118, PTH120 - as above
            if os.access(path, os.R_OK):
                return path
    for path in _SYSTEM_BUNDLES:
        if os.access(path, os.R_OK):
            return path
    raise ConfigurationError(
        f"{settings.variable('sslrootcert')} is not set, and there is neither certifi nor botocore nor a system "
        "bundle to verify the server with",
        remedy="Install certifi, or set the variable to the path of a PEM file.",
    )
