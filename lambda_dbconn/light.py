"""Stand-ins for what the core needs of `typing`, `enum` and `dataclasses`, at a fraction of their price.

Lambda's runtime client and PyMySQL import neither `typing` nor `dataclasses`; they would be a sixth of a MySQL
function's cold start. An `Enum` and a frozen dataclass cost ten times as much to define as these do. Type checkers see
the real things. One module, not several: to be found and read costs more than most of what is in one.
"""

from __future__ import annotations

TYPE_CHECKING = False


if TYPE_CHECKING:
    from enum import Enum as Choice
    from typing import Any, Generic, Protocol, Self, TypeVar, dataclass_transform, overload
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

    class _Choices(type):
        """What is asked of the class itself, as of an `Enum`: its members, or the one of a value or a name."""

        def __init__(cls, name, bases, names):
            """Make a member of each name."""
            super().__init__(name, bases, names)
            cls._members = {}
            for key, value in names.items():
                if not key.startswith("_"):
                    member = cls._members[key] = object.__new__(cls)
                    member.name, member.value = key, value
                    setattr(cls, key, member)

        def __iter__(cls):
            return iter(cls._members.values())

        def __len__(cls):
            return len(cls._members)

        def __getitem__(cls, name):
            return cls._members[name]

        def __call__(cls, value):
            """Return the member of that value."""
            for member in cls:
                if member.value == value:
                    return member
            raise ValueError(f"{value!r} is not a valid {cls.__name__}")

    class Choice(metaclass=_Choices):
        """One of the values that its class names. It has no methods and no two names for one value."""

        def __reduce__(self):
            """Be itself when it is copied or pickled."""
            return getattr, (type(self), self.name)

        def __repr__(self):
            return f"<{self}: {self.value!r}>"

        def __str__(self):
            return f"{type(self).__name__}.{self.name}"


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
    "Choice",
    "Generic",
    "Protocol",
    "TypeVar",
    "Value",
    "dataclass_transform",
    "overload",
]
