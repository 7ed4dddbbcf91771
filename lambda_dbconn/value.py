"""`Value`, an immutable record, and `Choice`, one of a few names: at a fraction of the price of the standard ones."""

from __future__ import annotations

from lambda_dbconn._typing import TYPE_CHECKING, dataclass_transform

if TYPE_CHECKING:
    from enum import Enum as Choice
    from typing import Any, Self
else:

    class Choice:
        """One of the values that its class names; to type checkers an `Enum`, of which it has members and identity.

        The definition of an `Enum` costs ten times as much, and is paid in every cold start.
        """

        def __init_subclass__(cls):
            """Make a member of each name."""
            for name, value in list(vars(cls).items()):
                if not name.startswith("_"):
                    member = cls()
                    member.name, member.value = name, value
                    setattr(cls, name, member)

        def __reduce__(self):
            """Be itself when it is copied or pickled."""
            return getattr, (type(self), self.name)

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"


_MISSING = object()


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Value:
    """A keyword-only, frozen, comparable and hashable record; its fields are the class's annotations.

    To type checkers a subclass is a frozen dataclass. At run time nothing is generated: a frozen dataclass
    costs half a millisecond to define (and 14 ms for the import of `dataclasses`), this costs microseconds,
    which counts because every value of the package is defined in every cold start.
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


__all__ = ["Choice", "Value"]
