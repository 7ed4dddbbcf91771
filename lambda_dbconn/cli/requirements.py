"""What a command needs besides click, and which extra brings it."""

from __future__ import annotations

from importlib.util import find_spec

import click


class MissingExtraError(click.ClickException):
    """Packages are not installed; the message names the extra that brings them."""

    exit_code = 2


def require(*modules: str, extra: str) -> None:
    """Do nothing if all these modules can be imported; imports none.

    Raises:
        MissingExtraError: Some cannot.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"not installed: {', '.join(missing)}: pip install 'lambda-dbconn[{extra}]'")
