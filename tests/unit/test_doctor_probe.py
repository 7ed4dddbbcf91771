"""What servers say before TLS, and what a certificate says."""

from __future__ import annotations

import time

import pytest

from lambda_dbconn.doctor.probe import certificate_facts, mysql_fault

SALT = b"12345678"
GREETING = b"\x0a8.0.40\0" + b"\1\0\0\0" + SALT + b"\0"

INFO = {
    "subject": ((("organizationName", "Shop"),), (("commonName", "db.example"),)),
    "issuer": ((("organizationName", "Authority"),), (("organizationalUnitName", "Number 1"),)),
    "subjectAltName": (("DNS", "db.example"), ("IP Address", "10.0.0.1")),
    "notBefore": "Jan  1 00:00:00 2020 GMT",
    "notAfter": "Jan  1 00:00:00 2021 GMT",
}


def test_a_greeting_that_offers_tls_is_without_fault() -> None:
    assert mysql_fault(GREETING + (0xFFFF).to_bytes(2, "little")) is None


@pytest.mark.parametrize(
    ("greeting", "kind"),
    [
        (GREETING + (0xFFFF & ~0x800).to_bytes(2, "little"), "not offered"),
        (GREETING, "other protocol"),
        (b"\x09old", "other protocol"),
        (b"HTTP/1.1 400", "other protocol"),
        (b"", "other protocol"),
        (b"\xff\x10\x04Too many connections", "refused"),
        (b"\xff\x6a\x04#HY000Host is not allowed", "refused"),
    ],
)
def test_anything_else_is_a_fault_of_its_kind(greeting: bytes, kind: str) -> None:
    fault = mysql_fault(greeting)
    assert fault is not None
    assert fault[0] == kind


def test_what_a_server_says_is_fit_for_a_terminal() -> None:
    fault = mysql_fault(b"\xff\x10\x04#08004\x1b[31mToo many\xff" + b"x" * 1000)
    assert fault is not None
    assert fault[1].startswith(r"the server refused: \x1b[31mToo many")
    assert len(fault[1]) < 600


def test_a_certificate_is_shown_by_its_common_name_or_all_of_its_name() -> None:
    shown = certificate_facts(INFO)
    assert (shown["subject"], shown["issuer"]) == ("db.example", "Authority, Number 1")
    assert shown["names"] == ["db.example", "10.0.0.1"]
    assert (shown["not_before"], shown["not_after"]) == ("2020-01-01", "2021-01-01")


def test_the_days_that_are_left_count_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1609459200.0 - 3 * 86400 - 1)  # of 1 January 2021
    assert certificate_facts(INFO)["days_left"] == 3
    monkeypatch.setattr(time, "time", lambda: 1609459200.0 + 1)
    assert certificate_facts(INFO)["days_left"] == -1


def test_a_certificate_that_was_not_seen_has_no_facts() -> None:
    assert certificate_facts({}) == {}
