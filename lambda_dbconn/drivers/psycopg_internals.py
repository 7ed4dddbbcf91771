"""psycopg's private names that the drivers need, in one place; `watching` has those of its cursors.

Checked with psycopg 3.2.13 and 3.3.9, `Connection` and `AsyncConnection`, with which the tests run: each has the same
name and meaning there. psycopg offers nothing public that says or does the same without waiting.
"""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from psycopg import BaseConnection


def is_in_use(connection: BaseConnection[Any]) -> bool:
    """Return whether code that still exists is in the middle of something on the connection. Never blocks.

    A generator may outlive its block, and go on later: inside `transaction()`, `pipeline()` or `notifies()`, which
    keeps the lock. So may a two-phase transaction.
    """
    lock = vars(connection).get("_lock") or vars(connection)["lock"]  # ours for asyncio has one for each loop
    return bool(
        connection._num_transactions  # noqa: SLF001 - contexts of `transaction()` that were entered and not left
        or connection._tpc is not None  # noqa: SLF001 - since `tpc_begin()`
        or connection._pipeline is not None  # noqa: SLF001 - inside `pipeline()`
        or connection._notifies_backlog is None  # noqa: SLF001 - while a generator of `notifies()` exists
        or lock.locked()
    )


def has_contexts(connection: Any) -> bool:
    """Return whether the caller is inside psycopg's own `transaction()`, which refuses `rollback()`."""
    return bool(connection._num_transactions)  # noqa: SLF001


def restore_transactions(connection: BaseConnection[Any]) -> None:
    """Set autocommit and the server's defaults. psycopg's own setters take the lock and wait."""
    connection._autocommit = True  # noqa: SLF001
    connection._isolation_level = connection._read_only = connection._deferrable = None  # noqa: SLF001
    connection._begin_statement = b""  # noqa: SLF001 - the BEGIN that was made of them


def restore_preparing(connection: BaseConnection[Any]) -> None:
    """Prepare nothing by name, and remember as many statements as psycopg does by default."""
    prepared = connection._prepared  # noqa: SLF001
    prepared.prepare_threshold = None
    vars(prepared).pop("prepared_max", None)  # what is not set is the class's


def forget_prepared(connection: BaseConnection[Any]) -> None:
    """Forget which statements were prepared, and what was to be deallocated: the server has forgotten them, too."""
    prepared = connection._prepared  # noqa: SLF001
    prepared._counts.clear()  # noqa: SLF001
    prepared._names.clear()  # noqa: SLF001
    prepared._to_flush.clear()  # noqa: SLF001


def forget_notifications(connection: BaseConnection[Any]) -> None:
    """Forget the notifications that nobody has read: psycopg's, and libpq's, which psycopg would find later."""
    backlog = connection._notifies_backlog  # noqa: SLF001 - `notifies()` would warn where there are handlers
    if backlog:
        backlog.clear()
    while connection.pgconn.notifies() is not None:
        pass
