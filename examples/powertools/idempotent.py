"""Powertools' idempotency and a connection, decorated in either order. Prefer `handler`.

`handler` commits before the idempotency record says that it is done, and a repeated event is answered without a
connection. `handler_inside` borrows even for a repeat, in autocommit: inside a transaction the record would say done
before COMMIT, and a COMMIT that fails would never be tried again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent

import lambda_dbconn

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

db = lambda_dbconn.from_env()
store = DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"])
config = IdempotencyConfig(event_key_jmespath="order")


@idempotent(persistence_store=store, config=config)
@db.with_transaction
def handler(event: dict[str, Any], context: LambdaContext, conn: Any) -> dict[str, Any]:
    """Book an order once."""
    return _book(event["order"], conn)


@db.with_connection(argument="conn")
@idempotent(persistence_store=store, config=config)
def handler_inside(event: dict[str, Any], context: LambdaContext, conn: Any = None) -> dict[str, Any]:
    """Book an order once, by one statement."""
    return _book(event["order"], conn)


def _book(order: int, conn: Any) -> dict[str, Any]:
    with conn.cursor() as cur:
        cur.execute("insert into booking (order_id) values (%s)", (order,))
    return {"booked": order}
