"""SCRAM-SHA-256 (RFC 5802, RFC 7677) from both sides, and PostgreSQL's MD5, without channel binding.

Passwords are taken as they are, without SASLprep: keep to ASCII.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

MECHANISM = b"SCRAM-SHA-256"

_ITERATIONS = 4096  # what RDS Proxy uses, and PostgreSQL's default


class ScramError(Exception):
    """The other side does not know the password, or does not speak SCRAM."""


class ScramServer:
    """Checks that a client knows a password."""

    def __init__(self, password: str) -> None:
        self._salt = secrets.token_bytes(16)
        self._salted = _salted(password, self._salt, _ITERATIONS)
        self._nonce = secrets.token_urlsafe(18)
        self._first = ""

    def challenge(self, client_first: bytes) -> bytes:
        """Answer the client's first message."""
        flag, _, bare = client_first.decode().partition(",,")
        if flag not in ("n", "y"):  # no binding to a channel, and no other identity
            raise ScramError
        self._nonce = _attributes(bare)["r"] + self._nonce
        first = f"r={self._nonce},s={base64.b64encode(self._salt).decode()},i={_ITERATIONS}"
        self._first = f"{bare},{first}"
        return first.encode()

    def verify(self, client_final: bytes) -> bytes:
        """Check the client's last message, and answer it."""
        bare, _, proof = client_final.decode().rpartition(",p=")
        attributes = _attributes(bare)
        if attributes["r"] != self._nonce or attributes["c"] not in ("biws", "eSws"):  # "n,," and "y,,"
            raise ScramError
        signed = f"{self._first},{bare}".encode()
        if not hmac.compare_digest(base64.b64decode(proof), _proof(self._salted, signed)):
            raise ScramError
        return b"v=" + base64.b64encode(_server_signature(self._salted, signed))


class ScramClient:
    """Shows a server that it knows a password."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._bare = f"n=,r={secrets.token_urlsafe(18)}"

    def first(self) -> bytes:
        """Open the conversation."""
        return f"n,,{self._bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        """Answer the server's challenge."""
        attributes = _attributes(server_first.decode())
        salted = _salted(self._password, base64.b64decode(attributes["s"]), int(attributes["i"]))
        bare = f"c=biws,r={attributes['r']}"
        proof = _proof(salted, f"{self._bare},{server_first.decode()},{bare}".encode())
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()


def md5_response(user: str, password: str, salt: bytes) -> bytes:
    """Return what a PostgreSQL client answers when asked for an MD5 password."""
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


def _attributes(text: str) -> dict[str, str]:
    return {part[:1]: part[2:] for part in text.split(",")}


def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


def _proof(salted: bytes, signed: bytes) -> bytes:
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
    return bytes(a ^ b for a, b in zip(client_key, signature, strict=True))


def _server_signature(salted: bytes, signed: bytes) -> bytes:
    return hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
