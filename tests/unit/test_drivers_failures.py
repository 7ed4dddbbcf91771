"""What errors of queries mean: every code that a server, a driver or the proxy may give."""

from __future__ import annotations

import pytest

from lambda_dbconn.drivers import ErrorKind
from lambda_dbconn.drivers.errors import ROWS, classify

READ_ONLY_OPTION = "The MySQL server is running with the --read-only option so it cannot execute this statement"
BORROW_TIMEOUT = "Timed-out waiting to acquire database connection"

POSTGRESQL = [
    *((state, "", ErrorKind.LOST) for state in ("08000", "08001", "08003", "08004", "08006", "08007", "08P01")),
    *((state, "", ErrorKind.LOST) for state in ("57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04")),
    *((state, "", ErrorKind.LOST) for state in ("58000", "58030")),
    ("08000", BORROW_TIMEOUT + ".", ErrorKind.BUSY),
    ("25006", "cannot execute INSERT in a read-only transaction", ErrorKind.READ_ONLY),
    *((state, "", ErrorKind.CONFLICT) for state in ("40001", "40P01", "55P03")),
    *((state, "", ErrorKind.OTHER) for state in ("XX000", "57014", "26000", "25P02", "0A000", "3D000", "53300", None)),
]
MYSQL = [
    *((code, "", ErrorKind.LOST) for code in (0, 2001, 2002, 2003, 2004, 2006, 2012, 2013, 2026, 2055)),
    *((code, "", ErrorKind.LOST) for code in (1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3032, 4031)),
    (9501, BORROW_TIMEOUT, ErrorKind.BUSY),
    (1290, READ_ONLY_OPTION, ErrorKind.READ_ONLY),
    (1290, "The MySQL server is running with the --secure-file-priv option", ErrorKind.OTHER),
    (1836, "Running in read-only mode", ErrorKind.READ_ONLY),
    (1792, "Cannot execute statement in a READ ONLY transaction", ErrorKind.READ_ONLY),
    (1820, "You must SET PASSWORD before executing this statement", ErrorKind.REFUSED),
    *((code, "", ErrorKind.CONFLICT) for code in (1205, 1213)),
    *((code, "", ErrorKind.OTHER) for code in (1105, 1317, 3024, 1064, 1040, 1153, None)),
]


@pytest.mark.parametrize(("code", "text", "failure"), POSTGRESQL)
def test_what_postgresql_says_of_a_query(code: str | None, text: str, failure: ErrorKind) -> None:
    assert classify("postgresql", code, text) is failure


@pytest.mark.parametrize(("code", "text", "failure"), MYSQL)
def test_what_mysql_says_of_a_query(code: int | None, text: str, failure: ErrorKind) -> None:
    assert classify("mysql", code, text) is failure


def test_every_code_of_the_table_is_one_of_these() -> None:
    known = {("postgresql", str(code)) for code, *_ in POSTGRESQL} | {("mysql", str(code)) for code, *_ in MYSQL}
    known |= {("postgresql", str(code)[:2]) for code, *_ in POSTGRESQL}
    assert {(engine, code) for engine, codes, *_ in ROWS for code in codes} <= known
