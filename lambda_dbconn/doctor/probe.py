"""The TLS step: a handshake as the drivers make it, without a login, that says whom it met.

Verified like every connection of this library: chain and host name, by the same authorities. A certificate that is
refused is read from the handshake that refused it; nothing is sent after that.
Sources: PostgreSQL documentation, "Frontend/Backend Protocol", SSL session encryption; MySQL's, "Connection Phase".
"""

from __future__ import annotations

import select
import ssl
import struct
import time

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.doctor import causes
from lambda_dbconn.doctor.report import Finding, StepFailedError
from lambda_dbconn.drivers.socket_errors import is_cut_off, openssl_name
from lambda_dbconn.errors import excerpt
from lambda_dbconn.tls import configure_client

if TYPE_CHECKING:
    import socket
    from typing import Any

    from lambda_dbconn.settings import Settings
    from lambda_dbconn.tls import Trust

_SSL_REQUEST = struct.pack("!II", 8, 80877103)
_CLIENT_SSL = 0x800
_CAPABILITIES = 0x00088200 | _CLIENT_SSL  # protocol 4.1, secure connection, plugins
_LONGEST_PACKET_BYTES = 4096
_SOON_DAYS = 30
_MOST_NAMES = 100  # of a certificate, which is nobody's yet
_DAY_S = 86_400

# OpenSSL's numbers for why a certificate was refused.
_EXPIRY = {9: "is not valid yet", 10: "has expired"}
_NAME = (62, 64)  # host name, IP address
# Parts of OpenSSL's names for what it says when versions, ciphers or signatures have nothing in common.
_TOO_OLD = (
    *("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION", "NO_PROTOCOLS"),
    *("HANDSHAKE_FAILURE", "NO_SHARED_CIPHER", "INSUFFICIENT_SECURITY", "LEGACY_SIGALG", "KEY_TOO_SMALL"),
)


def secured(settings: Settings, trust: Trust, sock: socket.socket, timeout_s: float) -> Finding:
    """Make a TLS handshake on a connected socket, and close it.

    Raises:
        StepFailedError: There is no TLS to be had, or the server is not the one that it should be.
        ConfigurationError: The file with the authorities cannot be read.
    """
    assert trust.cafile is not None  # noqa: S101 - who does without TLS does not come here
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    configure_client(context, trust.cafile)
    ends_at = time.monotonic() + timeout_s
    try:
        _agree(settings, sock, ends_at)
        with context.wrap_socket(sock, server_hostname=settings.server_name, do_handshake_on_connect=False) as tls:
            _shake_hands(settings, tls, ends_at)
            return _met(settings, tls, trust.cafile)
    except TimeoutError as error:
        said = f"the server accepted the connection and then was silent for {timeout_s:.2f} s"
        raise StepFailedError(said, causes.of_tls(settings, "silent")) from error
    except OSError as error:  # reset, ended, or no longer connected
        said = "the server closed the connection instead of agreeing to TLS"
        raise StepFailedError(said, causes.of_tls(settings, "closed")) from error
    finally:
        sock.close()


def _agree(settings: Settings, sock: socket.socket, ends_at: float) -> None:
    """Let the server agree to TLS, in the words of its protocol."""
    fault = _ask_postgresql(sock, ends_at) if settings.engine == "postgresql" else _ask_mysql(sock, ends_at)
    if fault is not None:
        kind, said = fault
        raise StepFailedError(said, causes.of_tls(settings, kind))


def _ask_postgresql(sock: socket.socket, ends_at: float) -> tuple[str, str] | None:
    """Send an SSLRequest; return what is wrong with the answer, if anything is."""
    sock.settimeout(_left_s(ends_at))
    sock.sendall(_SSL_REQUEST)
    answer = _receive(sock, 1, ends_at)
    if answer == b"S":
        return None
    if answer == b"N":
        return "not offered", "the server does not offer TLS"
    if answer == b"E":
        return "refused", f"the server refused: {_postgresql_error(sock, ends_at)}"
    return "other protocol", "what answers does not speak PostgreSQL's protocol"


def _postgresql_error(sock: socket.socket, ends_at: float) -> str:
    """Return the text of an ErrorResponse, or of what servers sent before PostgreSQL 7.4."""
    length = struct.unpack("!I", _receive(sock, 4, ends_at))[0]
    body = _receive(sock, min(max(length - 4, 0), _LONGEST_PACKET_BYTES), ends_at)
    texts = [field[1:] for field in body.split(b"\0") if field[:1] == b"M"]
    return _shown(texts[0] if texts else body)


def _ask_mysql(sock: socket.socket, ends_at: float) -> tuple[str, str] | None:
    """Read the greeting and ask for TLS; return what is wrong with the greeting, if anything is."""
    header = _receive(sock, 4, ends_at)
    length = int.from_bytes(header[:3], "little")
    if not 0 < length <= _LONGEST_PACKET_BYTES or header[3] != 0:
        return "other protocol", "what answers does not speak MySQL's protocol"
    fault = mysql_fault(_receive(sock, length, ends_at))
    if fault is None:
        body = struct.pack("<IIB23x", _CAPABILITIES, 1 << 24, 45)
        sock.sendall(len(body).to_bytes(3, "little") + b"\1" + body)
    return fault


def mysql_fault(greeting: bytes) -> tuple[str, str] | None:
    """Say why a MySQL server's first packet is no offer of TLS."""
    if greeting[:1] == b"\xff":
        text = greeting[3:]
        return "refused", f"the server refused: {_shown(text[6:] if text[:1] == b'#' else text)}"
    _, end, rest = greeting[1:].partition(b"\0")
    if greeting[:1] != b"\x0a" or not end or len(rest) < 15:  # noqa: PLR2004 - id, salt, filler, capabilities
        return "other protocol", "what answers does not speak MySQL's protocol"
    if not int.from_bytes(rest[13:15], "little") & _CLIENT_SSL:
        return "not offered", "the server does not offer TLS"
    return None


def _shake_hands(settings: Settings, tls: ssl.SSLSocket, ends_at: float) -> None:
    """Drive the handshake to its end, within the time."""
    tls.setblocking(False)  # noqa: FBT003 - the standard library's signature
    poll = select.poll()
    try:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                poll.register(tls, select.POLLIN)
            except ssl.SSLWantWriteError:
                poll.register(tls, select.POLLOUT)
            else:
                return
            if not poll.poll(_left_s(ends_at) * 1000):
                raise TimeoutError("timed out")
    except ssl.SSLCertVerificationError as error:
        raise _refused(settings, tls, error) from error
    except ssl.SSLError as error:
        if is_cut_off(error):
            raise
        reason = openssl_name(error)
        kind = "version" if any(word in reason for word in _TOO_OLD) else "other"
        raise StepFailedError(f"the TLS handshake failed: {reason}", causes.of_tls(settings, kind)) from error


def _refused(settings: Settings, tls: ssl.SSLSocket, error: ssl.SSLCertVerificationError) -> StepFailedError:
    """Say what is wrong with the certificate, and show it."""
    code, why = error.verify_code, error.verify_message.removesuffix(".")
    shown = certificate_facts(_info(tls, "get_unverified_chain", 0))
    if code in _NAME:
        kind, said = "name", f"the certificate is not for {settings.server_name}"
    elif code in _EXPIRY:
        kind, said = "expiry", f"a certificate of the chain {_EXPIRY[code]}"
    else:
        kind, said = "chain", f"the certificate's chain ends at no authority that is trusted ({why})"
    facts = {"fault": kind, "openssl": why, "certificate": shown}
    return StepFailedError(f"{said}; {_described(shown)}", causes.of_tls(settings, kind), facts=facts)


def _met(settings: Settings, tls: ssl.SSLSocket, cafile: str) -> Finding:
    shown = certificate_facts(_info(tls, "get_verified_chain", 0))
    root = certificate_facts(_info(tls, "get_verified_chain", -1))
    name, days_left = root.get("subject"), shown.get("days_left")
    facts = {"version": tls.version(), "certificate": shown, "root": name, "cafile": cafile}
    notes = []
    if isinstance(days_left, int) and days_left < _SOON_DAYS:
        notes.append(f"the certificate expires in {days_left} days")
    found = f"{tls.version()}, {settings.server_name} verified; {_described(shown)}; root {name!r} in {cafile}"
    return Finding(found=found, facts=facts, notes=tuple(notes))


def _info(tls: ssl.SSLSocket, chain: str, place: int) -> dict[str, Any]:
    """Return one certificate of the chain, as `getpeercert` would show it.

    CPython 3.11 to 3.14 say it nowhere in public: `getpeercert` shows only what was verified, and the methods that
    3.13 has for chains give the bare bytes.
    """
    certificates = getattr(tls._sslobj, chain)()  # type: ignore[attr-defined]  # noqa: SLF001 - as said above
    found: dict[str, Any] = certificates[place].get_info() if certificates else {}
    return found


def certificate_facts(info: dict[str, Any]) -> dict[str, Any]:
    """Return what matters of a certificate; nothing when it could not be seen."""
    if not info:
        return {}
    ends_at = ssl.cert_time_to_seconds(info["notAfter"])
    return {
        "subject": _name(info["subject"]),
        "issuer": _name(info["issuer"]),
        "names": [excerpt(value) for _, value in info.get("subjectAltName", ())[:_MOST_NAMES]],
        "not_before": _date(ssl.cert_time_to_seconds(info["notBefore"])),
        "not_after": _date(ends_at),
        "days_left": int((ends_at - time.time()) // _DAY_S),
    }


def _described(shown: dict[str, Any]) -> str:
    if not shown:
        return "it could not be read"
    names = excerpt(", ".join(shown["names"])) or shown["subject"]
    return f"subject {shown['subject']!r}, for {names}, issuer {shown['issuer']!r}, until {shown['not_after']}"


def _name(parts: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """Return the common name of a distinguished name; all of it when it has none."""
    pairs = [pair for part in parts for pair in part]
    common = [value for key, value in pairs if key == "commonName"]
    return excerpt(common[0] if common else ", ".join(value for _, value in pairs))


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _receive(sock: socket.socket, count: int, ends_at: float) -> bytes:
    """Receive exactly so many bytes within the time."""
    received = b""
    while len(received) < count:
        sock.settimeout(_left_s(ends_at))
        part = sock.recv(count - len(received))
        if not part:
            raise ConnectionResetError("the server closed the connection")
        received += part
    return received


def _left_s(ends_at: float) -> float:
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s


def _shown(text: bytes) -> str:
    """Return a server's words, fit for a terminal."""
    return excerpt(text.decode("utf-8", "replace"))
