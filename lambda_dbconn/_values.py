"""Stand-ins for what the core needs of `typing` and `dataclasses`, at a fraction of their price.

Lambda's runtime client and PyMySQL import neither `typing` nor `dataclasses`; they would be a sixth of a MySQL
function's cold start. A frozen dataclass costs ten times as much to define as a `Value`. Type checkers see
the real things. One module, not several: to be found and read costs more than most of what is in one.
"""

from __future__ import annotations

TYPE_CHECKING = False


if TYPE_CHECKING:
    from typing import Any, Generic, Protocol, Self, TypeVar, dataclass_transform, overload
else:

    class Generic:
        """Field a type parameter and forgets it."""

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


_MISSING = object()


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Value:
    """A keyword-only, frozen, comparable and hashable record; its fields are the class's annotations.

    To type checkers a subclass is a frozen dataclass. At run time nothing is generated: a frozen dataclass
    costs half a millisecond to define, this costs microseconds, which counts because every value of the package is
    defined in every cold start.
    """

    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        """Collect the annotated names, those of base classes first."""
        cls._fields = tuple(dict.fromkeys((*cls._fields, *cls.__annotations__)))

    if not TYPE_CHECKING:  # type checkers take the signature from the annotations

        def __init__(self, **given):
            """Take every field by keyword; those with a class-level default may be left out."""
            values = self.__dict__
            for name in self._fields:
                value = given.pop(name, _MISSING)
                if value is _MISSING:
                    value = getattr(type(self), name, _MISSING)
                    if value is _MISSING:
                        raise TypeError(f"{type(self).__name__}() needs the argument {name!r}")
                values[name] = value
            if given:
                raise TypeError(f"{type(self).__name__}() does not know the argument {next(iter(given))!r}")
            self._check()

        def __setattr__(self, name, _value):
            """Refuse: a value does not change."""
            raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

        def __delattr__(self, name):
            """Refuse: a value does not change."""
            raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

    def _check(self) -> None:
        """Raise what is wrong with the fields together; called once, at the end of construction."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({', '.join(shown)})"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with these fields changed.

        Raises:
            TypeError: A name is not a field.
        """
        return type(self)(**{**self.__dict__, **changes})


__all__ = [
    "TYPE_CHECKING",
    "Generic",
    "Protocol",
    "TypeVar",
    "Value",
    "dataclass_transform",
    "overload",
]
