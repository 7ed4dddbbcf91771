"""Paths → files to be looked at, and what is in them. Whatever is wrong with a file is one `UnreadableError`."""

from __future__ import annotations

import io
import os
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Language = Literal["sql", "python"]

STDIN = "-"
LANGUAGES: dict[str, Language] = {".sql": "sql", ".py": "python"}

_NOT_WALKED = frozenset(("__pycache__", "node_modules"))
_OF_A_VIRTUAL_ENVIRONMENT = "pyvenv.cfg"


class UnreadableError(Exception):
    """A file that cannot be looked at; the text says why, and in which line if that is known."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


def language_of(name: str) -> Language | None:
    """Say by its ending what a file is written in; None if it ends in neither `.sql` nor `.py`."""
    return LANGUAGES.get(Path(name).suffix.lower())


def walked(names: Iterable[str], fail: Callable[[OSError], None]) -> Iterator[str]:
    """Yield the files, and of each folder those that end in `.sql` and `.py`, in order.

    Not looked into: hidden folders, virtual environments, `__pycache__`, `node_modules`, and links to folders. Of a
    folder that cannot be read `fail` is told.
    """
    for name in names:
        if name == STDIN or not Path(name).is_dir():
            yield name
            continue
        for folder, folders, files in os.walk(name, onerror=fail):
            folders[:] = sorted(inner for inner in folders if _is_walked(Path(folder, inner)))
            yield from (str(Path(folder, file)) for file in sorted(files) if language_of(file) is not None)


def _is_walked(folder: Path) -> bool:
    is_hidden = folder.name.startswith(".")
    return not is_hidden and folder.name not in _NOT_WALKED and not (folder / _OF_A_VIRTUAL_ENVIRONMENT).exists()


def read(name: str, language: Language) -> str:
    r"""Return a file's text, with `\n` between lines.

    SQL is UTF-8. Python says itself what it is.

    Raises:
        UnreadableError: It is no regular file, may not be read, or is in another encoding.
    """
    try:
        content = _content(name)
        encoding = "utf-8-sig"
        if language == "python":
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except OSError as error:
        raise UnreadableError(error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise UnreadableError(f"is not in {error.encoding.upper()}") from error
    except (SyntaxError, ValueError, LookupError) as error:  # of what the file says of its encoding
        raise UnreadableError(str(error)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _content(name: str) -> bytes:
    if name == STDIN:
        return sys.stdin.buffer.read()
    path = Path(name)
    if path.exists() and not path.is_file():  # a pipe or a device might never end
        raise UnreadableError("is no regular file: give it as standard input, -")
    return path.read_bytes()
