"""Run a Python block of the documentation, and see that all of it ran."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from tests.support.snippets import ROOT, SnippetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.snippets import Snippet


def run(snippet: Snippet, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block, then what its notes say, or else its handler; return what it has defined.

    Args:
        snippet: The block.
        names: What the notes may use beside what the block defines; `context` is the handler's.

    Raises:
        SnippetError: A note came to False, or there is a function that nobody has called.
    """
    file = str(ROOT / snippet.path)
    code = compile("\n" * (snippet.line - 1) + snippet.code, file, "exec")
    module: dict[str, Any] = {"__name__": "snippet"}
    notes = snippet.noted("then")
    with entered(file) as ran:
        exec(code, module)
        if "handler" in module and not notes:
            module["handler"]({}, names["context"])
        for note in notes:
            if eval(note, module | names) is False:
                raise SnippetError(f"{snippet.name}: it is not so that {note}")
    never = sorted(function.co_qualname for function in _functions(code) - ran)
    if never:
        raise SnippetError(f"{snippet.name}: nobody has called {', '.join(never)}; say how: <!-- then: … -->")
    return module


def _functions(code: CodeType) -> set[CodeType]:
    """Return the code of all functions in a piece of code, at any depth; not Python's own, which gives annotations."""
    constants = {constant for constant in code.co_consts if isinstance(constant, CodeType)}
    inner = {constant for constant in constants if constant.co_name != "__annotate__"}
    return inner.union(*(_functions(each) for each in inner))


@contextmanager
def entered(file: str) -> Iterator[set[CodeType]]:
    """Collect the code of a file that is entered in this block, in any thread that is started in it."""
    found: set[CodeType] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == file:
            found.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
