"""`Leftovers`: which statements may leave something in the session that the next invocation would find.

Settings, `LISTEN`, locks of the session, temporary tables, prepared statements, cursors WITH HOLD. A statement is
judged by its text, on the safe side: what is taken for one without being one costs a round trip, no more. What
functions, procedures and triggers do inside is in no text, and is not seen.
"""

from __future__ import annotations

import re

from lambda_dbconn.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lambda_dbconn.lease import Slot

# What is remembered takes half a megabyte at most: it is forgotten as a whole when it is full.
_MOST_TEXTS = 256
_LONGEST_TEXT = 2048  # characters; longer ones are judged each time

_LONGEST_JUDGED = 16_384  # characters; a longer text counts as one that may leave something

# With merged parameters a text holds what strangers have written: no repetition here can match one text in two ways,
# and none gives back what it has matched, so that the time grows with the length only.
_COMMENT_LINE = r"(?:--|\#)[^\n]*+\n"
_COMMENT = r"/\*(?:[^*]|\*(?!/))*+\*/"
_START = rf"(?:\A|;|\*/)(?:\s|\(|{_COMMENT_LINE})*+"  # of a statement, or what may be one
_GAP = rf"(?:\s|{_COMMENT}|{_COMMENT_LINE})++"

_PATTERNS = {
    "postgresql": rf"""
        {_START} (?:
            set \b (?! {_GAP} (?: local | transaction | constraints ) \b )
          | (?: listen | prepare | load | do ) \b
          | declare \b [^;]{{0,600}}? \b hold \b
        )
      | \b set_config (?: {_GAP} )? \( (?! [^()]* , \s* true \s* \) )
      | \b pg_ (?: try_ )? advisory_lock
      | \b (?: create | replace | into ) {_GAP} (?: (?: local | global ) {_GAP} )? temp (?: orary )? \b
      | \b pg_temp \b
    """,
    "mysql": rf"""
        {_START} (?:
            set \b (?! \s+ autocommit \s* = \s* [01] \s* \Z )
          | (?: use | lock | flush | prepare | handler | load | xa ) \b
          | call \b [^;]{{0,600}}? @
        )
      | /\* M? !
      | \b create {_GAP} (?: or {_GAP} replace {_GAP} )? temporary \b
      | \b get_lock \b
      | :=
      | \b into {_GAP} @
    """,
}

# Each of the above has one of these in it. To compile a pattern takes milliseconds of a cold start.
_NEEDED = {
    "postgresql": ("set", "listen", "prepare", "load", "do", "declare", "advisory_lock", "temp"),
    "mysql": (*("set", "use", "lock", "flush", "prepare", "handler", "load", "xa", "temporary"), "@", ":=", "/*"),
}


class Leftovers:
    """Judges the statements of one engine's connections. Threads may share it.

    Args:
        engine: `postgresql` or `mysql`.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._needed = _NEEDED[engine]
        self._known: dict[str | bytes, bool] = {}

    def watcher(self, slot: Slot[Any]) -> Callable[[str | bytes], None]:
        """Return what is to be called with each text before it is sent on the slot's connection.

        It marks the slot as touched. A text that was seen before costs a look into a dictionary.
        """
        known = self._known

        def see(text: str | bytes) -> None:
            try:
                may_leave = known[text]
            except KeyError:
                may_leave = self._judge(text)
            if may_leave:
                slot.is_touched = True

        return see

    def _judge(self, text: str | bytes) -> bool:
        may_leave = self.may_leave(text)
        if len(text) <= _LONGEST_TEXT:
            if len(self._known) >= _MOST_TEXTS:
                self._known.clear()
            self._known[text] = may_leave
        return may_leave

    def may_leave(self, text: str | bytes) -> bool:
        """Say whether a text, of one or more statements, may leave something in the session."""
        if isinstance(text, bytes):
            text = text.decode("latin-1")  # whatever is not ASCII is a letter or in a literal
        if len(text) > _LONGEST_JUDGED:
            return True
        lower = text.lower()
        if not any(word in lower for word in self._needed):
            return False
        # `re` keeps what it has compiled.
        return re.search(_PATTERNS[self._engine], text, re.IGNORECASE | re.DOTALL | re.VERBOSE) is not None
