"""The rules: what pins a session on RDS Proxy, why, where that is written, and the way out.

`[P]` is the RDS user guide, "Avoiding pinning an RDS Proxy" (rds-proxy-pinning); `[A]` the same page of the Aurora
user guide; `[B]` "RDS Proxy best practices", configuration and workload considerations. A rule's `basis` says how
sure it is: `documented` is in the words of the source; `inferred` follows from them; `unverified` is our reading
where they are silent, on the safe side. None has been tried against a real proxy.
"""

from __future__ import annotations

from lambda_dbconn._values import Value

LONGEST_TEXT_BYTES = 16 * 1024


class Rule(Value):
    """One way to pin a session.

    Attributes:
        id: Its name, stable: for events, errors and reports.
        engine: `postgresql`, `mysql` (and MariaDB) or `any`.
        statements: What it is about, for people.
        reason: Why that pins, one sentence without a full stop.
        fix: The way out, one sentence.
        source: `[P]`, `[A]` or `[B]`.
        basis: `documented`, `inferred` or `unverified`.
        starts: Beginnings of statements that it covers.
        calls: Functions whose call it covers.
    """

    id: str
    engine: str
    statements: str
    reason: str
    fix: str
    source: str = "P"
    basis: str = "documented"
    starts: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


_ELSEWHERE = (
    "Set it where no statement is needed: ALTER ROLE or ALTER DATABASE … SET, the DB parameter group, or the proxy's "
    "initialization query."
)
_IN_THE_PROXY = "Set it in the DB parameter group or in the proxy's initialization query, the same for all sessions."
_IN_PYTHON = "Keep the value in Python and pass it as a parameter."
_UNPREPARED = "Send the statement itself with parameters: the driver needs no PREPARE."
_ORDINARY_TABLE = "Use a CTE or a subquery, or an ordinary table with a key for the invocation."

TOO_LONG = Rule(
    id="long-text",
    engine="any",
    statements="any statement with a text of more than 16 KB",
    reason="the text is longer than 16 KB, up to which the proxy inspects it",
    fix="Pass long values as parameters (psycopg), insert fewer rows at a time, or send smaller statements.",
)

POSTGRESQL = (
    Rule(
        id="postgresql-set",
        engine="postgresql",
        statements="`SET`, `SET SESSION`, `SET ROLE`, `SET TIME ZONE`, `SET SESSION AUTHORIZATION`",
        reason="SET changes a session setting, and the proxy tracks none for PostgreSQL",
        fix=_ELSEWHERE,
        starts=("set",),
    ),
    Rule(
        id="postgresql-set-local",
        engine="postgresql",
        statements="`SET LOCAL`",
        reason="SET LOCAL is a SET command, and only MySQL's page exempts it",
        fix=_ELSEWHERE,
        basis="unverified",
        starts=("set local",),
    ),
    Rule(
        id="postgresql-set-transaction",
        engine="postgresql",
        statements="`SET TRANSACTION`, `SET CONSTRAINTS`",
        reason="it is a SET command, though its effect ends with the transaction",
        fix="Say it in BEGIN, as in BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY (transaction() does).",
        basis="unverified",
        starts=("set transaction", "set constraints"),
    ),
    Rule(
        id="postgresql-reset",
        engine="postgresql",
        statements="`RESET`",
        reason="RESET changes a session setting, and the proxy tracks none for PostgreSQL",
        fix="Do not change the setting in the session in the first place.",
        starts=("reset",),
    ),
    Rule(
        id="postgresql-set-config",
        engine="postgresql",
        statements="`set_config(…)`, also with `true` for the transaction only",
        reason="set_config changes a session setting, and the proxy tracks none for PostgreSQL",
        fix=_ELSEWHERE,
        calls=("set_config",),
    ),
    Rule(
        id="postgresql-prepared",
        engine="postgresql",
        statements="`PREPARE`, `EXECUTE`, `DEALLOCATE`",
        reason="a prepared statement of SQL's own belongs to one database connection",
        fix=_UNPREPARED,
        starts=("prepare", "execute", "deallocate"),
    ),
    Rule(
        id="postgresql-discard",
        engine="postgresql",
        statements="`DISCARD`",
        reason="DISCARD changes the session's state",
        fix="Leave it out: the proxy gives each session a clean database connection.",
        starts=("discard",),
    ),
    Rule(
        id="postgresql-temporary",
        engine="postgresql",
        statements="`CREATE TEMPORARY` table, view or sequence; `SELECT … INTO TEMPORARY`; `CREATE … pg_temp.name`",
        reason="a temporary object exists on one database connection only",
        fix=_ORDINARY_TABLE,
    ),
    Rule(
        id="postgresql-cursor",
        engine="postgresql",
        statements="`DECLARE … CURSOR`, which psycopg's named (server-side) cursors send",
        reason="a declared cursor belongs to one database connection",
        fix="Fetch with a client-side cursor, in pages by key, or with cursor.stream().",
        starts=("declare",),
    ),
    Rule(
        id="postgresql-listen",
        engine="postgresql",
        statements="`LISTEN`",
        reason="notifications come to the database connection that listens",
        fix="Listen on a direct connection, outside Lambda; NOTIFY does not pin.",
        starts=("listen",),
    ),
    Rule(
        id="postgresql-load",
        engine="postgresql",
        statements="`LOAD`",
        reason="a loaded library stays in one database connection",
        fix="Load it with session_preload_libraries or shared_preload_libraries in the DB parameter group.",
        starts=("load",),
    ),
    Rule(
        id="postgresql-sequence",
        engine="postgresql",
        statements="`nextval(…)`, `setval(…)`",
        reason="nextval and setval leave the sequence's value in the session",
        fix="Let a column's default or GENERATED … AS IDENTITY draw the number, and read it with RETURNING.",
        calls=("nextval", "setval"),
    ),
    Rule(
        id="postgresql-advisory-lock",
        engine="postgresql",
        statements="`pg_advisory_lock(…)`, `pg_try_advisory_lock(…)`",
        reason="an advisory lock of the session belongs to one database connection",
        fix="Use pg_advisory_xact_lock or pg_try_advisory_xact_lock: a lock of the transaction does not pin.",
        calls=("pg_advisory_lock", "pg_try_advisory_lock"),
    ),
    Rule(
        id="postgresql-advisory-lock-shared",
        engine="postgresql",
        statements="`pg_advisory_lock_shared(…)`, `pg_try_advisory_lock_shared(…)`",
        reason="a shared advisory lock of the session belongs to one database connection as well",
        fix="Use pg_advisory_xact_lock_shared or pg_try_advisory_xact_lock_shared.",
        basis="inferred",
        calls=("pg_advisory_lock_shared", "pg_try_advisory_lock_shared"),
    ),
)

MYSQL = (
    Rule(
        id="mysql-executable-comment",
        engine="mysql",
        statements="`/*! … */`, `/*M! … */`",
        reason="the proxy does not look into an executable comment",
        fix="Write what is in the comment as plain SQL, or leave it out.",
        source="A",
    ),
    Rule(
        id="mysql-lock-tables",
        engine="mysql",
        statements="`LOCK TABLE`, `LOCK TABLES`, `FLUSH TABLES WITH READ LOCK`",
        reason="the lock belongs to one database connection until it is unlocked",
        fix="Use SELECT … FOR UPDATE in a transaction.",
        starts=("lock table", "lock tables"),
    ),
    Rule(
        id="mysql-get-lock",
        engine="mysql",
        statements="`GET_LOCK(…)`",
        reason="a named lock belongs to one database connection",
        fix="Lock a row with SELECT … FOR UPDATE, or use a lock outside the database.",
        calls=("get_lock",),
    ),
    Rule(
        id="mysql-set-variable",
        engine="mysql",
        statements="`SET` of a system variable that the proxy does not track, session_track_* among them",
        reason="SET changes a system variable that the proxy does not track",
        fix=_IN_THE_PROXY + " A pinning filter (EXCLUDE_VARIABLE_SETS) is the last resort: it lets values leak.",
    ),
    Rule(
        id="mysql-set-global",
        engine="mysql",
        statements="`SET GLOBAL`, `SET PERSIST`, `SET @@GLOBAL.…`",
        reason="it sets a system variable, though not the session's",
        fix="Change it in the DB parameter group.",
        basis="inferred",
    ),
    Rule(
        id="mysql-set-user-variable",
        engine="mysql",
        statements="`SET @name`, `@name := …`, `SELECT … INTO @name`, and what PyMySQL's `callproc` sends",
        reason="a user variable belongs to one database connection",
        fix=_IN_PYTHON,
    ),
    Rule(
        id="mysql-assigns-user-variable",
        engine="mysql",
        statements="`LOAD DATA … (@name)`, `GET DIAGNOSTICS @name`",
        reason="it leaves a user variable in the session",
        fix=_IN_PYTHON,
        basis="inferred",
    ),
    Rule(
        id="mysql-next-transaction",
        engine="mysql",
        statements="`SET TRANSACTION` without SESSION",
        reason="it is a setting for the next transaction only, which the proxy does not track",
        fix="Use SET SESSION TRANSACTION, which is tracked (transaction(isolation=…) does), or START TRANSACTION "
        "READ ONLY.",
        starts=("set transaction",),
    ),
    Rule(
        id="mysql-next-transaction-variable",
        engine="mysql",
        statements="`SET @@transaction_isolation`, `SET @@transaction_read_only` without a scope",
        reason="written with @@ and no scope it is a setting for the next transaction only",
        fix="Use SET SESSION transaction_isolation, which is tracked.",
        basis="inferred",
    ),
    Rule(
        id="mysql-set-role",
        engine="mysql",
        statements="`SET ROLE`, `SET RESOURCE GROUP`",
        reason="it changes the session, and is not among what the proxy tracks",
        fix="Give the user a default role, or log in as a user with these rights.",
        basis="unverified",
        starts=("set role", "set resource group"),
    ),
    Rule(
        id="mysql-set-statement",
        engine="mysql",
        statements="MariaDB's `SET STATEMENT … FOR`",
        reason="it sets system variables, though for one statement only",
        fix=_IN_THE_PROXY,
        basis="unverified",
        starts=("set statement",),
    ),
    Rule(
        id="mysql-temporary",
        engine="mysql",
        statements="`CREATE TEMPORARY TABLE`",
        reason="a temporary table exists on one database connection only",
        fix=_ORDINARY_TABLE,
        starts=("create temporary", "create or replace temporary"),
    ),
    Rule(
        id="mysql-row-count",
        engine="mysql",
        statements="`ROW_COUNT()`, `FOUND_ROWS()` (“sometimes”)",
        reason="it asks the database connection for the number of rows of the statement before",
        fix="Use the driver's cursor.rowcount, or a SELECT COUNT(*).",
        calls=("row_count", "found_rows"),
    ),
    Rule(
        id="mysql-prepared",
        engine="mysql",
        statements="`PREPARE`, `EXECUTE`, `DEALLOCATE PREPARE`, `DROP PREPARE`; the binary protocol (not PyMySQL's)",
        reason="a prepared statement belongs to one database connection",
        fix=_UNPREPARED,
        starts=("prepare", "execute", "deallocate prepare", "drop prepare"),
    ),
)

RULES = (TOO_LONG, *POSTGRESQL, *MYSQL)

# [P]: a database connection that has these values is looked for, or made so. TRANSACTION_* in the session's scope.
MYSQL_TRACKED = frozenset(
    (
        "autocommit",
        "auto_increment_increment",
        "character_set_client",
        "character_set_connection",
        "character_set_database",
        "character_set_filesystem",
        "character_set_results",
        "character_set_server",
        "collation_connection",
        "collation_database",
        "collation_server",
        "interactive_timeout",
        "net_write_timeout",
        "query_cache_type",
        "session_track_schema",
        "sql_mode",
        "time_zone",
        "transaction_isolation",
        "transaction_read_only",
        "tx_isolation",
        "tx_read_only",
        "wait_timeout",
    )
)


def table() -> str:
    """Return the rules as the table of the documentation, in Markdown."""
    lines = ["| Rule | What pins | Because | Way out | Source | Basis |", "|---|---|---|---|---|---|"]
    for rule in RULES:
        cells = (f"`{rule.id}`", rule.statements, rule.reason, rule.fix, f"[{rule.source}]", rule.basis)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
