"""A secret that must be seen nowhere, and everywhere that it might be seen."""

from __future__ import annotations

import pickle
import traceback
from contextlib import suppress

CANARY = "Canary-7f3e9b"


def everything_shown(error: BaseException) -> str:
    """Return all that a log, a debugger's report, or another process could be shown of an error.

    Its texts, those of the whole chain with every frame's local variables, and its pickle.
    """
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    texts = [str(error), repr(error), repr(vars(error)), "".join(shown.format())]
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:  # what `format` leaves out: a context that `from` suppresses
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        pending += [current.__cause__, current.__context__]
        one = traceback.TracebackException.from_exception(current, capture_locals=True)
        texts += [repr(current), repr(current.args), repr(vars(current)), "".join(one.format(chain=False))]
        with suppress(TypeError, AttributeError, pickle.PicklingError):
            texts.append(pickle.dumps(current).decode("latin-1"))
    return "\n".join(texts)
