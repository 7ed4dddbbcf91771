"""A REST API by Powertools' event handler: each route borrows the connection for as long as it needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.exceptions import NotFoundError

import lambda_dbconn

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

app = APIGatewayRestResolver()
db = lambda_dbconn.from_env()


@app.get("/employees/<employee_id>")
def one(employee_id: str) -> dict[str, Any]:
    """Return one employee."""
    with db.connection(app.lambda_context) as conn, conn.cursor() as cur:
        cur.execute("select id, name from employee where id = %s", (int(employee_id),))
        row = cur.fetchone()
    if row is None:
        raise NotFoundError(f"no employee {employee_id}")
    return {"id": row[0], "name": row[1]}


@app.post("/employees")
def add() -> tuple[dict[str, Any], int]:
    """Add an employee; an error rolls back and becomes the resolver's answer."""
    employee = app.current_event.json_body
    with db.transaction(app.lambda_context) as conn, conn.cursor() as cur:
        cur.execute("insert into employee (id, name) values (%s, %s)", (employee["id"], employee["name"]))
    return employee, 201


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Let the resolver find the route."""
    return app.resolve(event, context)
