"""The names of `typing` that the core needs at run time, without importing it.

Lambda's runtime client and PyMySQL do not import `typing`; its import and that of `dataclasses` would be a
sixth of a MySQL function's cold start. Type checkers see the real things.
"""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Generic, Protocol, TypeVar, dataclass_transform, overload
else:

    class Generic:
        """Accepts a type parameter and forgets it."""

        __slots__ = ()  # or the slots of every class below would be in vain

        def __class_getitem__(cls, _parameters):
            """Return the class itself: parameters mean something to type checkers only."""
            return cls

    Protocol = Generic

    def TypeVar(name, **_bounds):  # noqa: N802 - stands for typing.TypeVar
        """Return a placeholder: nothing looks at it at run time."""
        return name

    def dataclass_transform(**_defaults):
        """Return a decorator that changes nothing."""
        return lambda cls: cls

    def overload(function):
        """Return the function: the last definition is the one that runs."""
        return function


__all__ = ["TYPE_CHECKING", "Generic", "Protocol", "TypeVar", "dataclass_transform", "overload"]
