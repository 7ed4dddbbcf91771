from __future__ import annotations

import re

import pytest

from lambda_dbconn.drivers.errors import _ROWS, connect_error
from lambda_dbconn.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    LambdaDbConnError,
    ProxyBusyError,
    ProxyRefusedError,
    TlsError,
)
from lambda_dbconn.testing.rds_proxy import texts

pytestmark = pytest.mark.once

WHERE = "db.example.com:5432 as 'app', database 'shop'"

# How libpq words what a server says, with and without an address, and for several addresses in turn.
WRAPPINGS = [
    'connection to server at "db.example.com" (10.0.0.7), port 5432 failed: FATAL:  {}\n',
    'connection failed: connection to server at "10.0.0.7", port 5432 failed: FATAL:  {}',
    "FATAL:  {}\nMultiple connection attempts failed. All failures were:\n- host: 'x' ...\n",
    "{}",
]

# RDS and Aurora user guides, "Troubleshooting for RDS Proxy" and "Using RDS Proxy with Aurora global databases"; the
# one about command-line options is from users' reports. Apostrophes are tried in both forms.
DOCUMENTED_POSTGRESQL = [
    ("IAM authentication is allowed only with SSL connections.", TlsError, False),
    ("IAM is allowed only with SSL connections.", TlsError, False),
    (
        "This RDS proxy has no credentials for the role app. Check the credentials for this role and try again.",
        AuthenticationError,
        False,
    ),
    ("RDS supports only IAM, MD5, or SCRAM authentication.", AuthenticationError, False),
    (
        "A user name is missing from the connection startup packet. Provide a user name for this connection.",
        ConfigurationError,
        False,
    ),
    ("This RDS Proxy requires TLS connections.", TlsError, False),
    (
        "Enable IAM authentication for the client connection to the proxy and try again.",
        AuthenticationError,
        False,
    ),
    (
        "Configure IAM authentication as the DefaultAuthScheme in your proxy and try again.",
        AuthenticationError,
        False,
    ),
    (
        "IAM authentication failed for user app. Check the IAM token for this user and try again.",
        AuthenticationError,
        False,
    ),
    (
        "The IAM authentication failed for the role app. Check the IAM token for this role and try again.",
        AuthenticationError,
        False,
    ),
    ("The password that was provided for the role app is wrong.", AuthenticationError, False),
    (
        "Feature not supported: RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol.",
        ProxyRefusedError,
        False,
    ),
    (
        "Feature not supported: RDS Proxy currently doesn't support streaming replication mode.",
        ProxyRefusedError,
        False,
    ),
    ("Feature not supported: RDS Proxy currently doesn't support the option jit.", ProxyRefusedError, False),
    (
        "Feature not supported: RDS Proxy currently doesn\u2019t support command-line options.",
        ProxyRefusedError,
        False,
    ),
    ("The IAM authentication failed because of too many competing requests.", ProxyBusyError, True),
    ("The maximum number of client connections to the proxy exceeded 100.", ProxyBusyError, True),
    ("Rate of connection to proxy exceeded 100.", ProxyBusyError, True),
    ("Timed-out waiting to acquire database connection.", ProxyBusyError, True),
    ('Request returned an error: database "x" does not exist.', ConnectError, False),
    ("Unknown error.", ConnectError, True),
    ("The target group doesn't have any associated read/write instances", ProxyRefusedError, False),
]

POSTGRESQL = [
    *DOCUMENTED_POSTGRESQL,
    # handed on by the proxy: what the database has said decides
    ("Request returned an error: the database system is starting up.", ConnectError, True),
    ("Request returned an error: sorry, too many clients already.", ProxyBusyError, True),
    (
        "Request returned an error: remaining connection slots are reserved for roles with the SUPERUSER attribute.",
        ProxyBusyError,
        True,
    ),
    ('Request returned an error: password authentication failed for user "app".', AuthenticationError, False),
    ("Request returned an error: something new.", ConnectError, False),
    # PostgreSQL
    ('password authentication failed for user "app"', AuthenticationError, False),
    ('role "app" does not exist', AuthenticationError, False),
    ('role "app" is not permitted to log in', AuthenticationError, False),
    ('database "shop" does not exist', ConnectError, False),
    (
        'no pg_hba.conf entry for host "10.0.0.7", user "app", database "shop", SSL encryption',
        AuthenticationError,
        False,
    ),
    ('no pg_hba.conf entry for host "10.0.0.7", user "app", database "shop", no encryption', TlsError, False),
    ('pg_hba.conf rejects connection for host "10.0.0.7", user "app", database "shop", no encryption', TlsError, False),
    ('no pg_hba.conf entry for host "10.0.0.7", user "app", database "shop", SSL off', TlsError, False),
    ('LDAP authentication failed for user "app"', AuthenticationError, False),
    ('GSSAPI authentication failed for user "app"', AuthenticationError, False),
    ("SASL authentication failed", AuthenticationError, False),
    (
        'pg_hba.conf rejects connection for host "10.0.0.7", user "app", database "shop", SSL encryption',
        AuthenticationError,
        False,
    ),
    ('PAM authentication failed for user "app"', AuthenticationError, False),
    ("the database system is starting up", ConnectError, True),
    ("the database system is shutting down", ConnectError, True),
    ("the database system is in recovery mode", ConnectError, True),
    ("terminating connection due to administrator command", ConnectError, True),
    ("sorry, too many clients already", ProxyBusyError, True),
    ('too many connections for role "app"', ProxyBusyError, True),
    ('too many connections for database "shop"', ProxyBusyError, True),
    (
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        ProxyBusyError,
        True,
    ),
    # libpq
    ("fe_sendauth: no password supplied", AuthenticationError, False),
    ('authentication method requirement "none" failed: server requested SASL', AuthenticationError, False),
    (
        'authentication method requirement "scram-sha-256,md5,none" failed: server requested a cleartext password',
        AuthenticationError,
        False,
    ),
    ("server does not support SSL, but SSL was required", TlsError, False),
    ('server certificate for "other" does not match host name "db.example.com"', TlsError, False),
    ("SSL error: certificate verify failed", TlsError, False),
    ("SSL error: tlsv1 alert protocol version", TlsError, False),
    ("SSL error: unsupported protocol", TlsError, False),
    ("SSL error: version too low", TlsError, False),
    ("SSL error: no protocols available", TlsError, False),
    ("SSL error: sslv3 alert handshake failure", TlsError, False),
    ("SSL error: certificate verify failed: certificate has expired", TlsError, False),
    ("SSL error: bad record mac", TlsError, False),
    ('could not read root certificate file "ca.pem": no certificate or crl found', ConfigurationError, False),
    ('root certificate file "ca.pem" does not exist', ConfigurationError, False),
    # libpq with OpenSSL 3.2 or later
    ("SSL error: ssl/tls alert handshake failure", TlsError, False),
    (
        "channel binding is required, but server did not offer an authentication method that supports channel binding",
        ConfigurationError,
        False,
    ),
    ('definition of service "orders" not found', ConfigurationError, False),
    ("received invalid response to SSL negotiation: J", ConnectError, False),
    ("Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?", ConnectError, True),
    ("Connection reset by peer", ConnectError, True),
    ("server closed the connection unexpectedly\n\tThis probably means the server terminated", ConnectError, True),
    ("SSL connection has been closed unexpectedly", ConnectError, True),
    ("SSL error: unexpected eof while reading", ConnectError, True),
    ("SSL SYSCALL error: EOF detected", ConnectError, True),
    ("could not send data to server: Broken pipe", ConnectError, True),
    ("timeout expired", ConnectTimeoutError, True),
    ("Connection timed out", ConnectTimeoutError, True),
    ("No route to host", ConnectError, True),
    ("Network is unreachable", ConnectError, False),
    # libpq with musl
    ("Operation timed out", ConnectTimeoutError, True),
    ("Host is unreachable", ConnectError, True),
    ("Network unreachable", ConnectError, False),
]

DOCUMENTED_MYSQL = [
    (1040, "Connections rate limit exceeded (100)", ProxyBusyError, True),
    (1040, "IAM authentication rate limit exceeded", ProxyBusyError, True),
    (1040, "Number simultaneous connections exceeded (100)", ProxyBusyError, True),
    (1045, "Access denied for user 'app'@'%' (using password: YES)", AuthenticationError, False),
    (1105, "Unknown error", ConnectError, True),
    (1231, "Variable ''character_set_client'' can't be set to the value of value", ProxyRefusedError, False),
    (3159, "This RDS Proxy requires TLS connections.", TlsError, False),
    (2026, "SSL connection error: Internal Server Error", TlsError, False),
    (9501, "Timed-out waiting to acquire database connection", ProxyBusyError, True),
    # The guide gives this one no number.
    (1105, "The target group doesn't have any associated read/write instances", ProxyRefusedError, False),
]

MYSQL = [
    *DOCUMENTED_MYSQL,
    (3159, "Connections using insecure transport are prohibited", TlsError, False),
    # MySQL and MariaDB
    (1040, "Too many connections", ProxyBusyError, True),
    (1044, "Access denied for user 'app'@'%' to database 'shop'", ConnectError, False),
    (1049, "Unknown database 'shop'", ConnectError, False),
    (1053, "Server shutdown in progress", ConnectError, True),
    (1158, "Got an error reading communication packets", ConnectError, True),
    (1927, "Connection was killed", ConnectError, True),
    (2006, "MySQL server has gone away (BrokenPipeError(32, 'Broken pipe'))", ConnectError, True),
    (3032, "The server is currently in offline mode", ConnectError, True),
    (1129, "Host '10.0.0.7' is blocked because of many connection errors", ConnectError, False),
    (2059, "the server asks for the password in clear, and there is no TLS", TlsError, False),
    (1130, "Host '10.0.0.7' is not allowed to connect to this server", AuthenticationError, False),
    (1203, "User app already has more than 'max_user_connections' active connections", ProxyBusyError, True),
    (1226, "User 'app' has exceeded the 'max_user_connections' resource", ProxyBusyError, True),
    (1251, "Client does not support authentication protocol requested by server", AuthenticationError, False),
    (
        1275,
        "Server is running in --secure-auth mode, but 'app'@'%' has a password in the old",
        AuthenticationError,
        False,
    ),
    (1524, "Plugin 'mysql_no_login' is not loaded", AuthenticationError, False),
    (2059, "Authentication plugin 'b'client_ed25519'' not configured", AuthenticationError, False),
    (1698, "Access denied for user 'root'@'localhost'", AuthenticationError, False),
    (1873, "Access denied trying to change to user 'app'@'%' (using password: YES)", AuthenticationError, False),
    (3118, "Access denied for user 'app'@'%'. Account is locked.", AuthenticationError, False),
    (3955, "Access denied for user 'app'@'%'. Account is blocked for 1 day(s)", AuthenticationError, False),
    (4150, "User is blocked because of too many credential errors", AuthenticationError, False),
    (4151, "Access denied, this account is locked", AuthenticationError, False),
    (1820, "You must reset your password using ALTER USER", AuthenticationError, False),
    (1862, "Your password has expired.", AuthenticationError, False),
    # PyMySQL
    (
        0,
        "'cryptography' package is required for sha256_password or caching_sha2_password auth methods",
        ConfigurationError,
        False,
    ),
    (2026, "SSL is required but the server doesn't support it", TlsError, False),
    (
        2003,
        (
            "Can't connect to MySQL server on 'x' ([SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
            "Hostname mismatch, certificate is not valid for 'x'. (_ssl.c:1000))"
        ),
        TlsError,
        False,
    ),
    (
        2003,
        (
            "Can't connect to MySQL server on 'x' ([SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
            "IP address mismatch, certificate is not valid for '10.0.0.7'. (_ssl.c:1000))"
        ),
        TlsError,
        False,
    ),
    (
        2003,
        (
            "Can't connect to MySQL server on 'x' ([SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
            "self-signed certificate in certificate chain (_ssl.c:1000))"
        ),
        TlsError,
        False,
    ),
    *(
        (
            2003,
            f"Can't connect to MySQL server on 'x' ([SSL: CERTIFICATE_VERIFY_FAILED] {why} (_ssl.c:1))",
            TlsError,
            False,
        )
        for why in (
            "certificate verify failed: certificate has expired",
            "certificate verify failed: certificate is not yet valid",
            "certificate verify failed: EE certificate key too weak",
            "certificate verify failed: CA md too weak",
        )
    ),
    (
        2003,
        "Can't connect to MySQL server on 'x' ([SSL: EE_KEY_TOO_SMALL] ee key too small (_ssl.c:1))",
        TlsError,
        False,
    ),
    (2003, "Can't connect to MySQL server on 'x' ([SSL] record layer failure (_ssl.c:1000))", TlsError, False),
    (
        2003,
        (
            "Can't connect to MySQL server on 'x' ([SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of "
            "protocol (_ssl.c:1000))"
        ),
        ConnectError,
        True,
    ),
    (2006, "MySQL server has gone away (BrokenPipeError(32, 'Broken pipe'))", ConnectError, True),
    (2003, "Can't connect to MySQL server on 'x' (timed out)", ConnectTimeoutError, True),
    (2013, "Lost connection to MySQL server during query (timed out)", ConnectTimeoutError, True),
    (2013, "Lost connection to MySQL server during query", ConnectError, True),
    (2003, "Can't connect to MySQL server on 'x' ([Errno 111] Connection refused)", ConnectError, True),
    (2003, "Can't connect to MySQL server on 'x' ([Errno 113] No route to host)", ConnectError, True),
]


@pytest.mark.parametrize("wrapping", WRAPPINGS, ids=["host", "address", "several", "bare"])
@pytest.mark.parametrize(("text", "cls", "is_retryable"), POSTGRESQL, ids=lambda value: str(value)[:30])
def test_what_postgresql_and_its_proxy_say_is_understood(
    text: str, cls: type[LambdaDbConnError], wrapping: str, *, is_retryable: bool
) -> None:
    error = connect_error("postgresql", WHERE, wrapping.format(text))
    assert type(error) is cls
    assert error.retryable is is_retryable
    assert error.remedy


@pytest.mark.parametrize(("number", "text", "cls", "is_retryable"), MYSQL, ids=lambda value: str(value)[:30])
def test_what_mysql_and_its_proxy_say_is_understood(
    number: int, text: str, cls: type[LambdaDbConnError], *, is_retryable: bool
) -> None:
    error = connect_error("mysql", WHERE, text, number=number)
    assert type(error) is cls
    assert error.retryable is is_retryable
    assert error.remedy


def test_every_documented_text_is_classified_right_however_it_is_wrapped_and_typeset() -> None:
    wrong = []
    documented = [
        *(("postgresql", 0, *rest) for rest in DOCUMENTED_POSTGRESQL),
        *(("mysql", *r) for r in DOCUMENTED_MYSQL),
    ]
    for engine, number, text, cls, is_retryable in documented:
        for wrapping in WRAPPINGS if engine == "postgresql" else ["{}"]:
            for apostrophe in ("'", "\N{RIGHT SINGLE QUOTATION MARK}"):
                said = wrapping.format(
                    text.replace("'", apostrophe).replace("\N{RIGHT SINGLE QUOTATION MARK}", apostrophe)
                )
                error = connect_error(engine, WHERE, said, number=number)
                if (type(error), error.retryable) != (cls, is_retryable) or not error.remedy:
                    wrong.append((engine, number, said, error))
    assert wrong == []
    assert (len(DOCUMENTED_POSTGRESQL), len(DOCUMENTED_MYSQL)) == (22, 10)  # of 22 and 10 that the guides have


def test_what_the_stand_in_says_is_what_is_documented() -> None:
    for engine, table, documented in (
        ("postgresql", texts._POSTGRESQL, [text for text, *_ in POSTGRESQL]),
        ("mysql", texts._MYSQL, [text for _, text, *_ in MYSQL]),
    ):
        known = [text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'") for text in documented]
        beginnings = [
            re.split("[{(]", row[-1])[0].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
            for kind, row in table.items()
            if kind not in _SAYS_ANYTHING[engine]
        ]
        assert [text for text in beginnings if not any(said.startswith(text) for said in known)] == []


_SAYS_ANYTHING = {"postgresql": (), "mysql": ("database_error", "unsupported_command")}  # whatever; MySQL's own


def row_of(engine: str, number: int, text: str) -> int:
    return next(
        index
        for index, (row_engine, numbers, needle, *_) in enumerate(_ROWS)
        if row_engine in ("", engine) and (not numbers or number in numbers) and needle in text.lower()
    )


def test_every_row_of_the_table_is_reached_by_one_of_these_texts() -> None:
    reached = {row_of("postgresql", 0, text) for text, *_ in POSTGRESQL}
    reached |= {row_of("mysql", number, text) for number, text, *_ in MYSQL}
    assert [row for index, row in enumerate(_ROWS) if index not in reached] == []


def test_every_text_of_the_table_is_as_it_is_compared() -> None:
    for engine, numbers, text, _, _, remedy in _ROWS:
        assert text == text.lower()
        assert not {"'", "\N{RIGHT SINGLE QUOTATION MARK}"} & set(text)
        assert text or numbers
        assert engine in ("", "postgresql", "mysql")
        assert not remedy or remedy.endswith(".")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("certificate verify failed: certificate has expired", "Renew"),
        ("certificate verify failed: certificate is not yet valid", "clock"),
        ("certificate verify failed: CA md too weak", "2,048 bits"),
        ("ee key too small", "2,048 bits"),
        ("tlsv1 alert protocol version", "TLS 1.2"),
        ("unsupported protocol", "TLS 1.2"),
        ("sslv3 alert handshake failure", "TLS 1.2"),
        ("certificate verify failed", "SSLROOTCERT"),
    ],
)
def test_what_is_wrong_with_tls_has_a_remedy_that_fits(text: str, words: str) -> None:
    for engine, said, number in (
        ("postgresql", f"SSL error: {text}", 0),
        ("mysql", f"([SSL: CERTIFICATE_VERIFY_FAILED] {text} (_ssl.c:1))", 2003),
    ):
        error = connect_error(engine, WHERE, said, number=number)
        assert type(error) is TlsError
        assert words in error.remedy


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_the_message_is_one_line_that_says_where_and_what_the_driver_said(engine: str) -> None:
    error = connect_error(engine, WHERE, "Connection refused\n\tIs the server running?\n")
    assert error.message == f"cannot connect to {WHERE}: Connection refused Is the server running?"


@pytest.mark.parametrize(
    ("engine", "number", "text", "said"),
    [
        ("postgresql", 0, "FATAL:  something new", "the server answered with FATAL: something new"),
        ("mysql", 4711, "something new", "the server answered with error 4711: something new"),
        ("mysql", 1234, "something new", "the server answered with error 1234: something new"),
    ],
)
def test_an_answer_that_is_not_in_the_table_is_called_one_and_keeps_its_number(
    engine: str, number: int, text: str, said: str
) -> None:
    error = connect_error(engine, WHERE, text, number=number)
    assert type(error) is ConnectError
    assert not error.retryable
    assert error.message == f"cannot connect to {WHERE}: {said}"
    assert "up and listening" not in error.remedy


@pytest.mark.parametrize(("engine", "number"), [("postgresql", 0), ("mysql", 0), ("mysql", 2099)])
def test_what_is_not_in_the_table_and_no_servers_answer_is_an_error_that_no_repetition_mends(
    engine: str, number: int
) -> None:
    error = connect_error(engine, WHERE, "something new", number=number)
    assert type(error) is ConnectError
    assert not error.retryable
    assert "something new" in error.message
    assert "up and listening" in error.remedy


@pytest.mark.parametrize("number", [1045, 1040, 2003])
def test_a_number_is_always_shown(number: int) -> None:
    assert f": error {number}: words" in connect_error("mysql", WHERE, "words", number=number).message


def test_a_number_and_a_text_of_mysql_mean_nothing_in_postgresql() -> None:
    assert type(connect_error("postgresql", WHERE, "access denied", number=1045)) is ConnectError
    assert type(connect_error("mysql", WHERE, "password authentication failed")) is ConnectError
