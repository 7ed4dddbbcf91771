"""A function that examines its own way to the database: deploy it where the real one runs, with its settings and role.

Invoke it with `{}`, or `{"prefix": "ORDERS_DB_", "is_reader": true}`. The log has the text, the answer is JSON.
"""

from __future__ import annotations

from typing import Any

from lambda_dbconn.doctor import examine_environment


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Examine, print, and return what was found; wrong settings are a finding, too."""
    diagnosis = examine_environment(
        event.get("prefix", "DB_"), context=context, is_reader=event.get("is_reader", False)
    )
    print(diagnosis)
    return diagnosis.as_dict()
