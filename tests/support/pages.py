"""Code from pages of the documentation: a block whose sentence names a file is a module of that name."""

from __future__ import annotations

import importlib
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

DOCS = Path(__file__).parents[2] / "docs"
_NAMED = re.compile(r"`(\w+\.py)`\):\n\n```python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def files_of(page: str) -> dict[str, str]:
    """Return the blocks of a page that are named as files, by name."""
    found = _NAMED.findall((DOCS / page).read_text(encoding="utf-8"))
    names = [name for name, _ in found]
    assert len(set(names)) == len(names), f"{page} has a file twice"
    return dict(found)


class Page:
    """The modules of a page, imported when they are asked for and forgotten in the end."""

    def __init__(self, page: str, folder: Path, environ: pytest.MonkeyPatch) -> None:
        self._files = files_of(page)
        self._folder = folder
        for name, code in self._files.items():
            (folder / name).write_text(code)
        environ.syspath_prepend(folder)

    def module(self, name: str) -> Any:
        """Import a module of the page."""
        assert f"{name}.py" in self._files, f"the page has {', '.join(self._files)}"
        return importlib.import_module(name)

    @contextmanager
    def imported(self, name: str) -> Iterator[Any]:
        """Import a module, and forget all of the page's afterwards."""
        try:
            yield self.module(name)
        finally:
            for file in self._files:
                sys.modules.pop(file.removesuffix(".py"), None)
