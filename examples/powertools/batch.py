"""An SQS batch with one transaction for each record: what fails is rolled back and comes again, the rest is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

import lambda_dbconn

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

db = lambda_dbconn.from_env()
processor = BatchProcessor(event_type=EventType.SQS)


def pay(record: SQSRecord, lambda_context: LambdaContext) -> None:
    """Book one payment: both rows, or none."""
    payment = record.json_body
    with db.transaction(lambda_context) as conn, conn.cursor() as cur:
        cur.execute("insert into payment (id, account) values (%s, %s)", (payment["id"], payment["account"]))
        cur.execute("update account set balance = balance - %s where id = %s", (payment["amount"], payment["account"]))


def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Report the records that failed, so that only they are delivered again."""
    return process_partial_response(event=event, record_handler=pay, processor=processor, context=context)
