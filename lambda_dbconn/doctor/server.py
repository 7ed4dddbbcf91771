"""The steps after the login: what stands between, which engine, writer or reader, what would pin.

Each asks with one plain statement, or a few; none of them pins a session on RDS Proxy, as a test sees to.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.doctor import causes
from lambda_dbconn.doctor.report import Finding, StepFailedError
from lambda_dbconn.errors import excerpt
from lambda_dbconn.settings.endpoint import EndpointKind, classify

if TYPE_CHECKING:
    from typing import Any

    from lambda_dbconn.settings import Settings

STATEMENTS = {
    "postgresql": {
        "session": "SELECT pg_backend_pid(), inet_client_port()",
        "version": "SELECT version(), EXISTS (SELECT 1 FROM pg_proc WHERE proname = 'aurora_version')",
        "role": "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')",
    },
    "mysql": {
        "session": "SELECT CONNECTION_ID()",
        "clients": "SHOW PROCESSLIST",
        "version": "SHOW VARIABLES WHERE Variable_name IN ('version', 'version_comment', 'aurora_version')",
        "role": "SHOW VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only', 'innodb_read_only', "
        "'transaction_read_only', 'tx_read_only')",
    },
}

_DIRECT, _SHARED, _UNKNOWN = "direct", "shared", "unknown"
_EVIDENCE = {
    _DIRECT: "the server sees this very socket: nothing is in between",
    _SHARED: "the session's number is not the one of the login: something lends database connections to sessions",
    _UNKNOWN: "the server sees another socket than this one: a proxy, a tunnel or an address translation",
}
_WRITERS = (EndpointKind.PROXY, EndpointKind.CLUSTER_WRITER, EndpointKind.GLOBAL_WRITER)


def between(settings: Settings, connection: Any) -> Finding:
    """Say whether RDS Proxy is in between: by the host's name, and by what the server says.

    RDS Proxy does not tell who it is. What a server says shows only whether something shares its sessions, which
    RDS Proxy does, and other poolers do too, or that nothing is in between.
    """
    by_server = _seen(settings.engine, connection)
    if settings.is_proxy:
        by_name = "by the name, RDS Proxy"
    elif settings.endpoint.is_rds:
        by_name = "by the name, no proxy"
    else:
        by_name = "the name does not say"
    notes = []
    if settings.is_proxy and by_server == _DIRECT:
        notes.append("the name is a proxy's, but the server sees this very socket: the name leads past the proxy")
    if by_server == _SHARED and not settings.is_proxy:
        notes.append(
            "a pooler is in between, though the name is not a proxy's: if it is RDS Proxy, say so by "
            f"{settings.variable('signing_host')}, or statements that pin are not told of"
        )
    return Finding(
        found=f"{by_name}; by the server, {_EVIDENCE[by_server]}",
        facts={"by_name": "proxy" if settings.is_proxy else "direct" if settings.endpoint.is_rds else _UNKNOWN}
        | {"by_server": by_server},
        notes=tuple(notes),
    )


def _seen(engine: str, connection: Any) -> str:
    """Compare the numbers of session and socket that both sides have."""
    statements = STATEMENTS[engine]
    if engine == "postgresql":
        number, port = _rows(connection, statements["session"])[0]
        own_number: int = connection.info.backend_pid
    else:
        number = _rows(connection, statements["session"])[0][0]
        own_number = connection.number
        clients = {row[0]: str(row[2]) for row in _rows(connection, statements["clients"])}
        _, _, digits = clients.get(number, "").rpartition(":")
        port = int(digits) if digits.isdigit() else None
    if number != own_number:
        return _SHARED
    return _DIRECT if port == _local_port(connection) else _UNKNOWN


def _local_port(connection: Any) -> int:
    with socket.socket(fileno=os.dup(connection.fileno())) as sock:
        port: int = sock.getsockname()[1]
        return port


def version(settings: Settings, connection: Any) -> Finding:
    """Say which engine answers, in its own words."""
    rows = _rows(connection, STATEMENTS[settings.engine]["version"])
    if settings.engine == "postgresql":
        said, is_aurora = rows[0]
        words = excerpt(str(said).split(" on ")[0])
        return Finding(
            found=words + (", Aurora" if is_aurora else ""),
            facts={"engine": "postgresql", "version": words.removeprefix("PostgreSQL "), "is_aurora": bool(is_aurora)},
        )
    variables = {str(name).lower(): excerpt(str(value)) for name, value in rows}
    number, comment = variables.get("version", "unknown"), variables.get("version_comment", "")
    engine = "mariadb" if "mariadb" in f"{number} {comment}".lower() else "mysql"
    return Finding(
        found=f"{'MariaDB' if engine == 'mariadb' else 'MySQL'} {number} ({comment})"
        + (f", Aurora {variables['aurora_version']}" if "aurora_version" in variables else ""),
        facts={"engine": engine, "version": number, "is_aurora": "aurora_version" in variables},
    )


def role(settings: Settings, connection: Any) -> Finding:
    """Say whether this is a writer or a reader.

    Raises:
        StepFailedError: It is a reader, at an endpoint that is a writer's.
    """
    rows = _rows(connection, STATEMENTS[settings.engine]["role"])
    if settings.engine == "postgresql":
        is_reader = bool(rows[0][0]) or rows[0][1] == "on"
        facts: dict[str, Any] = {"is_in_recovery": bool(rows[0][0]), "transaction_read_only": rows[0][1]}
    else:
        facts = {str(name).lower(): str(value) for name, value in rows}
        is_reader = any(value.upper() not in ("OFF", "0") for value in facts.values())
    facts = {"role": "reader" if is_reader else "writer"} | facts
    is_meant_to_read = settings.is_read_only
    if is_reader and classify(settings.server_name).kind in _WRITERS and not is_meant_to_read:
        raise StepFailedError("a reader, though the endpoint is a writer's", causes.of_reader(settings), facts=facts)
    notes: tuple[str, ...] = ()
    if is_meant_to_read and not is_reader:
        notes = ("a writer, though the endpoint is a reader's: there may be no reader, or none that is up",)
    return Finding(found=facts["role"], facts=facts, notes=notes)


def pinning(settings: Settings) -> Finding:
    """Say what would pin the session, and what is done about it. No round trip."""
    from lambda_dbconn.proxy.rules import RULES

    rules = [rule for rule in RULES if rule.engine in ("any", settings.engine)]
    action = settings.pin_action
    is_kept = settings.reset == "never"
    done = {
        "warn": "it is told of",
        "raise": "it is refused before it is sent",
        "ignore": "it is sent, and nothing is told",
    }[action]
    if not is_kept and action != "raise":
        done += ", and the connection is dropped when it comes back"
    facts = {"on_pin": action, "would_pin": {rule.id: rule.statements.replace("`", "") for rule in rules}}
    if not settings.is_proxy:
        return Finding(found="nothing: by the name there is no proxy that a session could be pinned on", facts=facts)
    notes: tuple[str, ...] = ()
    if is_kept and action != "raise":
        notes = (f"{settings.variable('reset')} is never: pinned sessions hold database connections",)
    found = f"{len(rules)} kinds of statements would; {done}: docs/reference/pinning.md has them"
    return Finding(found=found, facts=facts, notes=notes)


def _rows(connection: Any, statement: str) -> Any:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        return cursor.fetchall()
