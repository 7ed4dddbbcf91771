"""All that a log, or a tool that shows local variables, may show of an error."""

from __future__ import annotations

import traceback


def shown_of(error: BaseException) -> str:
    """Return messages, notes, attributes and frames' local variables of an error's whole chain, the tests' own out."""
    texts = ["".join(traceback.format_exception(error))]
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        pending += [current.__cause__, current.__context__]
        texts += [repr(current), repr(current.args), repr(vars(current))]
        texts += [repr(getattr(current, name, None)) for name in ("object", "doc")]  # Unicode's and JSON's errors
        frames = traceback.StackSummary.extract(traceback.walk_tb(current.__traceback__), capture_locals=True)
        texts += [repr(frame.locals) for frame in frames if "/tests/" not in frame.filename]
    return "\n".join(texts)
