"""What a single setting accepts: in words, as a check of its value, and how it is read from text."""

from __future__ import annotations

from lambda_dbconn.endpoint import classify
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.light import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Accepts(Value):
    """What one setting accepts: in words, as a check of the value, and how to read it from text."""

    words: str
    is_good: Callable[[Any], bool]
    read: Callable[[str], Any]


def printable(words: str = "printable text") -> Accepts:
    """Accept text that can be shown."""
    return Accepts(words=words, is_good=lambda value: isinstance(value, str) and value.isprintable(), read=str)


def one_of(*names: str) -> Accepts:
    """Accept these names; from text, in any case."""
    return Accepts(words=" or ".join(names), is_good=lambda value: value in names, read=str.lower)


def seconds(least: float, most: float) -> Accepts:
    """Accept a number of seconds, with or without a fraction."""
    return Accepts(
        words=f"seconds from {least:g} to {most:g}",
        is_good=lambda value: _is_between(value, least, most, (int, float)),
        read=float,
    )


def whole(least: int, most: int) -> Accepts:
    """Accept a whole number."""
    return Accepts(
        words=f"a whole number from {least} to {most}",
        is_good=lambda value: _is_between(value, least, most, (int,)),
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


HOST = Accepts(words="a host name or an IP address, without scheme, port or path", is_good=is_host, read=str)
