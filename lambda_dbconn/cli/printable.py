"""Text from files, servers and programs, made fit for a terminal."""

from __future__ import annotations

import sys


def printable(line: str) -> str:
    """Return a line that is one, and that the terminal can show: what would move its cursor is written as an escape."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    encoding = sys.stdout.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)
