"""What happens to the process: a fork. A child never touches its parent's sockets."""

from __future__ import annotations

import os
from weakref import WeakSet

from lambda_dbconn._typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Any


class Forkable(Protocol):
    """Something that holds connections."""

    def abandon(self) -> list[Any]:
        """Forget all connections without a word to their servers, and return them."""


_holders: WeakSet[Forkable] = WeakSet()
_parents: list[Any] = []  # the parent's connections, kept so that nothing closes them when they are collected


def watch(holder: Forkable) -> None:
    """Let `holder` abandon its connections in every child of this process."""
    _holders.add(holder)


def _after_fork_in_child() -> None:
    for holder in _holders:
        _parents.extend(holder.abandon())


os.register_at_fork(after_in_child=_after_fork_in_child)
