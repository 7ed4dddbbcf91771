"""`Owner`: the thread or task that has a connection, the invocation it belongs to, and whether it can still come back.

An owner is known by an object of its own, never by a thread's number, which the system uses again.
"""

from __future__ import annotations

from _thread import _local
from weakref import ref

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from typing import TypeAlias

    Actor: TypeAlias = "_ThreadToken | asyncio.Task[object]"


class _ThreadToken:
    """Lives as long as its thread."""

    __slots__ = ("__weakref__",)


_this_thread = _local()


def current_thread_token() -> _ThreadToken:
    """Return the object that stands for the calling thread; it is gone when the thread has ended."""
    try:
        token: _ThreadToken = _this_thread.token
    except AttributeError:
        token = _this_thread.token = _ThreadToken()
    return token


class Owner:
    """One `with` block's claim to a slot.

    Args:
        loan: The block's context manager. The owner knows it weakly: when it no longer exists, the block is over.
        actor: The thread's token or the task that entered the block.
        request_id: The invocation's, empty when it is not known.

    Attributes:
        request_id: As given.
        asked_at, acquired_at: By the monotonic clock, when an observer wants to know.
        outer_error: The identity of the exception that is being handled when the block is entered, or 0.
        outcome: `reused`, `opened` or `failed`.
    """

    __slots__ = ("_actor", "_heirs", "_loan", "acquired_at", "asked_at", "outcome", "outer_error", "request_id")

    def __init__(self, loan: object, actor: Actor, request_id: str) -> None:
        self._loan = ref(loan)
        self._actor: ref[Actor] = ref(actor)
        self._heirs: dict[str, Owner] = {}  # one at most; `setdefault` lets exactly one thread become it
        self.request_id = request_id
        self.asked_at = self.acquired_at = 0.0
        self.outcome = "failed"
        self.outer_error = 0

    @property
    def kind(self) -> str:
        """`thread` or `task`."""
        return "thread" if isinstance(self._actor(), _ThreadToken) else "task"

    def is_same_actor(self, other: Owner) -> bool:
        """Say whether the same thread or task stands behind both."""
        actor = self._actor()
        return actor is not None and actor is other._actor()

    def is_actor_gone(self) -> bool:
        """Say whether the thread has ended, the task has finished, or its event loop is closed."""
        actor = self._actor()
        if actor is None:
            return True
        if isinstance(actor, _ThreadToken):
            return False
        return actor.done() or actor.get_loop().is_closed()

    def may_lose_it_to(self, other: Owner) -> bool:
        """Say whether this owner cannot come back for its connection, as far as `other` can know.

        It cannot when its block no longer exists or its actor is gone; nor when the actor itself asks again in a later
        invocation. A live thread or task keeps its connection, whatever another one wants.
        """
        if self._loan() is None or self.is_actor_gone():
            return True
        is_earlier = bool(self.request_id and other.request_id) and self.request_id != other.request_id
        return is_earlier and self.is_same_actor(other)

    def last(self) -> Owner:
        """Return the owner that has inherited this one's slot, or itself."""
        owner = self
        while owner._heirs:
            owner = owner._heirs["heir"]
        return owner

    def bequeath(self, heir: Owner) -> bool:
        """Let `heir` have the slot; return False when another one was quicker."""
        return self._heirs.setdefault("heir", heir) is heir
