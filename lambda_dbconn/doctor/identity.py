"""Who signs: the identity that AWS keys belong to, as AWS Security Token Service says it.

Source: STS API reference, "GetCallerIdentity", which needs no permission.
"""

from __future__ import annotations

import sys

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.credentials.wire_log import QuietWireLog
from lambda_dbconn.errors import CredentialsError, without_frames

if TYPE_CHECKING:
    from lambda_dbconn.credentials.aws_keys import AwsKeys


def caller_arn(keys: AwsKeys, *, region: str, timeout_s: float) -> str:
    """Return the ARN of the keys' identity: one round trip to STS, beside the import of botocore.

    Raises:
        CredentialsError: botocore is not installed, STS cannot be reached, or it does not know the keys.
    """
    outer = sys.exception()
    try:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import get_session
    except ImportError as exc:
        raise CredentialsError("botocore is not installed", remedy="Install lambda-dbconn[aws].") from exc
    limits = Config(connect_timeout=timeout_s / 2, read_timeout=timeout_s / 2, retries={"total_max_attempts": 1})
    try:
        with QuietWireLog():
            client = get_session().create_client(
                "sts",
                region_name=region,
                config=limits,
                aws_access_key_id=keys.access_key_id,
                aws_secret_access_key=keys.secret_access_key.reveal(),
                aws_session_token=keys.session_token.reveal() if keys.session_token else None,
            )
            try:
                return str(client.get_caller_identity()["Arn"])
            finally:
                client.close()
    except (BotoCoreError, ClientError) as exc:
        raise CredentialsError(
            f"AWS STS does not say who signs: {type(exc).__name__}: {exc}",
            remedy="Give the VPC an interface endpoint for STS, or see that the keys are valid.",
        ) from without_frames(exc, outer=outer)
