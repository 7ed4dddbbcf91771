"""What a query's error says of its connection, and of doing its transaction again: one table for both engines.

The error itself stays the driver's own. Sources: PostgreSQL's "Error Codes", MySQL's "Server Error Message Reference"
and "Client Error Message Reference"; RDS user guide, "Troubleshooting for RDS Proxy".
"""

from __future__ import annotations

from lambda_dbconn.drivers import Failure

# (engine, codes, text in lower case or "", what it means). Codes are SQLSTATEs, or the two characters of a class of
# them, or MySQL's numbers. The first row that fits counts; what is not here is `OTHER`.
ROWS: tuple[tuple[str, tuple[str, ...], str, Failure], ...] = (
    ("postgresql", ("08000",), "timed-out waiting to acquire", Failure.BUSY),
    ("postgresql", ("08", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "58"), "", Failure.LOST),
    ("postgresql", ("40001", "40P01", "55P03"), "", Failure.CONFLICT),
    ("postgresql", ("25006",), "", Failure.READ_ONLY),
    ("mysql", ("9501",), "", Failure.BUSY),
    ("mysql", ("0", "2001", "2002", "2003", "2004", "2006", "2012", "2013", "2026", "2055"), "", Failure.LOST),
    ("mysql", ("1053", "1077", "1079", "1152", "1158", "1159", "1160", "1161", "1184"), "", Failure.LOST),
    ("mysql", ("1927", "3032", "4031"), "", Failure.LOST),
    ("mysql", ("1820",), "", Failure.REFUSED),
    ("mysql", ("1205", "1213"), "", Failure.CONFLICT),
    ("mysql", ("1792", "1836"), "", Failure.READ_ONLY),
    ("mysql", ("1290",), "read-only", Failure.READ_ONLY),  # the number is that of any "running with the --… option"
)


def failure_of(engine: str, code: object, text: str) -> Failure:
    """Look an error up by its code, a SQLSTATE or a number, and its text."""
    for row_engine, codes, needle, failure in ROWS:
        if row_engine == engine and (str(code) in codes or str(code)[:2] in codes) and needle in text.lower():
            return failure
    return Failure.OTHER
