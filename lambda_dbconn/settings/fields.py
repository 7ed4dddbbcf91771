"""What a single setting accepts: in words, as a check of its value, and how it is read from text."""

from __future__ import annotations

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.settings.endpoint import classify

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Field(Value):
    """What one setting accepts: in words, as a check of the value, and how to read it from text."""

    words: str
    is_valid: Callable[[Any], bool]
    read: Callable[[str], Any]


def printable(words: str = "printable text") -> Field:
    """Accept text that can be shown."""
    return Field(words=words, is_valid=lambda value: isinstance(value, str) and value.isprintable(), read=str)


def one_of(*names: str) -> Field:
    """Accept these names; from text, in any case."""
    return Field(words=" or ".join(names), is_valid=lambda value: value in names, read=str.lower)


def seconds(least: float, most: float) -> Field:
    """Accept a number of seconds, with or without a fraction."""
    return Field(
        words=f"seconds from {least:g} to {most:g}",
        is_valid=lambda value: _is_between(value, least, most, (int, float)),
        read=float,
    )


def whole(least: int, most: int) -> Field:
    """Accept a whole number."""
    return Field(
        words=f"a whole number from {least} to {most}",
        is_valid=lambda value: _is_between(value, least, most, (int,)),
        read=int,
    )


def _is_between(value: object, least: float, most: float, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool) and least <= value <= most  # type: ignore[operator] # a number


def is_host(value: object) -> bool:
    """Say whether a value is a host name or an IP address."""
    try:
        classify(value)  # type: ignore[arg-type] # it refuses what is not a string
    except ConfigurationError:
        return False
    return True


HOST = Field(words="a host name or an IP address, without scheme, port or path", is_valid=is_host, read=str)
