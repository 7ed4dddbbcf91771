"""What happens to the process: a fork, a SnapStart snapshot and its restore, the end. Nothing here raises.

Managers are known weakly, by what they hold. Nothing waits, but for 0.05 s with a socket that takes no goodbye.
Sources: Lambda guide, "Lambda SnapStart runtime hooks for Python" and "Understanding the Lambda execution environment
lifecycle"; `bootstrap.py` and `lambda_config.py` of awslambdaric 4.2.2.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from weakref import WeakSet

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    class Forgetful(Protocol):
        """Something that keeps what a snapshot makes stale."""

        def forget(self) -> None:
            """Drop it. Must not block."""

    class Holder(Forgetful, Protocol):
        """Something that holds connections."""

        def detach_after_fork(self) -> list[Any]:
            """Forget all connections without a word to their servers, and return them."""

        def close(self) -> None:
            """Close what is idle now, and what is lent when it comes back. Never blocks."""

        def close_one_idle(self) -> bool:
            """Close one idle connection, with no lock and no event; say whether there was one."""


_GOODBYE_LIMIT_S = 0.25  # no goodbye begins later: with the last one's 0.05 s, 0.3 of the 0.5 that Lambda gives


_holders: WeakSet[Holder] = WeakSet()
_forgetful: WeakSet[Forgetful] = WeakSet()
_parents: list[Any] = []  # the parent's connections, kept so that nothing closes them when they are collected


def watch(holder: Holder) -> None:
    """Let `holder` take part in whatever happens to this process."""
    _holders.add(holder)
    if environment("AWS_LAMBDA_RUNTIME_API") is not None and _runs_signal_handlers():
        close_on_sigterm()


def watch_memory(keeper: Forgetful) -> None:
    """Let something forget after a restore that belongs to no holder."""
    _forgetful.add(keeper)


# --- fork


def _after_fork_in_child() -> None:
    """Leave the parent's sockets alone."""
    for holder in _holders:
        _parents.extend(holder.detach_after_fork())


os.register_at_fork(after_in_child=_after_fork_in_child)


# --- SnapStart


def _before_snapshot() -> None:
    """Close: a snapshot keeps the connection's memory, and not the connection."""
    _each(holder.close for holder in list(_holders))


def _after_restore() -> None:
    """Forget what may be years old: connections opened after all, secrets, AWS keys, and when they were fetched."""
    _each(keeper.forget for keeper in (*_holders, *_forgetful))


def _each(steps: Iterable[Callable[[], None]]) -> None:
    for step in steps:
        try:
            step()
        except Exception:  # a hook that raises would cost the environment
            import logging

            logging.getLogger("lambda_dbconn").exception("a SnapStart hook failed")


def _register_hooks() -> None:
    """Register with the runtime, if this environment is to become a snapshot.

    At import: hooks before the snapshot run in reverse order, so this one runs after the function's own; hooks after
    the restore run in order, so this one runs before them. Any of them may use a connection.
    """
    if environment("AWS_LAMBDA_INITIALIZATION_TYPE") != "snap-start":
        return
    try:
        from snapshot_restore_py import register_after_restore, register_before_snapshot
    except ImportError:
        return
    register_before_snapshot(_before_snapshot)
    register_after_restore(_after_restore)


_register_hooks()


# --- SIGTERM

_handlers_before: list[Any] = []  # one, once ours is installed


def _runs_signal_handlers() -> bool:
    """Say whether this is a runtime whose main thread can run a signal handler while it waits for an invocation.

    Where it cannot, a handler would do nothing but keep the process alive until it is killed.
    """
    is_lambdas_own = (environment("AWS_EXECUTION_ENV") or "").startswith("AWS_Lambda_python")
    return is_lambdas_own and sys.version_info >= (3, 12)


def close_on_sigterm() -> bool:
    """Close idle connections politely on SIGTERM, within 0.3 s, before whatever handler was there; say if that is set.

    Done by itself on Lambda, which sends SIGTERM to functions with an extension. What is lent at that moment is left
    alone: the main thread may be in the middle of it. Only the main thread can set it, and it is set once: a handler
    that is installed later takes its place, and may call it.
    """
    if _handlers_before:
        return True
    before = signal.getsignal(signal.SIGTERM)
    if before is None:
        return False  # it was not installed from Python, and could not be called
    _handlers_before.append(before)  # first: the signal may come at once
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError:  # this is not the main thread
        _handlers_before.remove(before)
    return bool(_handlers_before)


def _on_sigterm(number: int, frame: Any) -> None:
    """Run in the main thread between any two of its instructions: take no lock, touch nothing that is lent."""
    _part_within(_GOODBYE_LIMIT_S)
    before = _handlers_before[0]
    if callable(before):
        before(number, frame)
    elif before == signal.SIG_DFL and signal.getsignal(number) is _on_sigterm:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _part_within(limit_s: float) -> None:
    ends_at = time.monotonic() + limit_s
    try:
        for holder in list(_holders):
            while time.monotonic() < ends_at and holder.close_one_idle():
                pass
    except Exception:  # noqa: BLE001, S110 - logging takes locks; nothing depends on the goodbye
        pass
