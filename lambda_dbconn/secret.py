"""`Secret`: a value that only `.reveal()` gives up."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


def unsendable(text: str) -> str | None:
    """Return what a user or password has that no driver can send, in words; None when it can be sent.

    A driver's own error would carry the text, even as the mere context of another one.
    """
    if "\0" in text:
        return "a zero byte"
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return "half of a surrogate pair"
    return None


class Secret:
    """A password or token that no repr, str, format, log line or pickle shows.

    Comparable and hashable, so that settings which hold one can be compared. Nothing can keep a secret from
    code in the same process that wants it; this keeps it out of what is printed by accident.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself: call it where the value is used, and keep the result in no variable."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied to another process")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self
