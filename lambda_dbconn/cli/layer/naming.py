"""Names and versions that come from a file, before pip sees them: a line of a constraints file may be an option."""

from __future__ import annotations

import re

from packaging.utils import canonicalize_name
from packaging.version import Version

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")  # PEP 508's


def distribution_name(text: object) -> str:
    """Return a distribution's name in the one form that all spellings have in common, as `lambda-dbconn`.

    Raises:
        ValueError: It is not such a name.
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of a distribution")
    return canonicalize_name(text)


def distribution_version(text: object) -> str:
    """Return a version as it is written, without blanks around it.

    Raises:
        ValueError: It is not a version (PEP 440).
    """
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not a version")  # noqa: TRY004 - of what was read, not of an argument
    Version(text)  # raises InvalidVersion, which is a ValueError
    return text.strip()
