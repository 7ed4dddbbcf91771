"""Certificates for local servers: a private authority, and the wrong ones to be refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import trustme

KeyKind = Literal["EC", "RSA"]

OTHER_NAME = "another-server.invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM files in one directory; private keys are readable by their owner only.

    The authority's own private key is never written, so nothing more can be signed in its name.
    """

    ca_path: Path
    """The authority that a client must trust to accept the server."""
    server_certificate_path: Path
    server_key_path: Path
    other_ca_path: Path
    """An unrelated authority: a client that trusts only this one must refuse the server."""
    other_name_certificate_path: Path
    """Signed by the right authority, for the wrong name: `OTHER_NAME`."""
    other_name_key_path: Path

    @classmethod
    def at(cls, directory: Path) -> Self:
        """Name the files that `create` wrote, or would write, into a directory; looks at none."""
        return cls(
            ca_path=directory / "ca.pem",
            server_certificate_path=directory / "server.pem",
            server_key_path=directory / "server.key",
            other_ca_path=directory / "other_ca.pem",
            other_name_certificate_path=directory / "other_name.pem",
            other_name_key_path=directory / "other_name.key",
        )

    @classmethod
    def create(cls, directory: Path, *, extra_names: Iterable[str] = (), key_kind: KeyKind = "EC") -> Self:
        """Make a new authority and write its certificates into `directory`, which is made when missing.

        The server's certificate is for `localhost`, `127.0.0.1` and `extra_names`.
        `RSA` is for clients that encrypt a password with the server's key: MySQL logins without TLS.
        """
        import trustme

        key_type = trustme.KeyType.RSA if key_kind == "RSA" else trustme.KeyType.ECDSA
        authority = trustme.CA(key_type=key_type)
        certificates = cls.at(directory)
        directory.mkdir(parents=True, exist_ok=True)
        certificates.ca_path.write_bytes(authority.cert_pem.bytes())
        certificates.other_ca_path.write_bytes(trustme.CA().cert_pem.bytes())
        _write_leaf(
            authority.issue_cert("localhost", "127.0.0.1", *extra_names, key_type=key_type),
            certificate_path=certificates.server_certificate_path,
            key_path=certificates.server_key_path,
        )
        _write_leaf(
            authority.issue_cert(OTHER_NAME, key_type=key_type),
            certificate_path=certificates.other_name_certificate_path,
            key_path=certificates.other_name_key_path,
        )
        return certificates

    def for_other_name(self) -> Self:
        """Return the same files, but a server given these shows the certificate for `OTHER_NAME`."""
        return replace(
            self,
            server_certificate_path=self.other_name_certificate_path,
            server_key_path=self.other_name_key_path,
        )


def _write_leaf(leaf: trustme.LeafCert, *, certificate_path: Path, key_path: Path) -> None:
    certificate_path.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    key_path.unlink(missing_ok=True)
    key_path.touch(mode=0o600, exist_ok=False)  # before the key is in it, not after
    key_path.write_bytes(leaf.private_key_pem.bytes())
