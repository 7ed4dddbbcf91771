"""`lambda-dbconn iam-policy`: its options; `lambda_dbconn.cli.iam_policy` writes the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_dbconn.settings import Settings

_HELP = """Print the least IAM policy that a function's role needs for its login, and nothing more.

The settings are the variables that from_env() reads; the options stand in for them. For IAM tokens that is
rds-db:connect as the one user on the one proxy, instance or cluster; for a secret secretsmanager:GetSecretValue on it,
and with --kms-key kms:Decrypt with that key, through Secrets Manager only. Nothing is asked of AWS.

\b
Examples:
  lambda-dbconn iam-policy --resource-id prx-0123456789abcdef0 --account 123456789012
  lambda-dbconn iam-policy --format terraform > policy.tf
  lambda-dbconn iam-policy --auth secret --secret-id prod/shop --region eu-west-1 --format sam

The resource id is in no host name; standard error says how to look it up when it is not given. A function in a VPC
needs the managed policy AWSLambdaVPCAccessExecutionRole besides, which is not about the database.
"""


@click.command("iam-policy", help=_HELP, short_help="Print the least IAM policy for these settings.")
@click.option(
    *("--format", "form"),
    type=click.Choice(["json", "sam", "cdk", "terraform"]),
    default="json",
    show_default=True,
    help="The policy, or a snippet that has it.",
)
@click.option("--resource-id", metavar="ID", help="prx-… of the proxy, db-… or cluster-… of the database.")
@click.option("--account", metavar="NUMBER", help="The AWS account's number.")
@click.option("--kms-key", metavar="ARN", help="The key that the secret is encrypted with, if it is your own.")
@click.option("--prefix", default="DB_", show_default=True, help="Of the variables.")
@click.option("--auth", type=click.Choice(["iam", "secret"]), help="Instead of the variable AUTH.")
@click.option("--host", help="Instead of the variable HOST.")
@click.option("--user", help="Instead of the variable USER.")
@click.option("--secret-id", metavar="ID", help="Instead of the variable SECRET_ID.")
@click.option("--region", help="Instead of the variable REGION.")
def command(
    *,
    form: str,
    resource_id: str | None,
    account: str | None,
    kms_key: str | None,
    prefix: str,
    **instead: str | None,
) -> None:
    """Read the settings, and print the policy; what it lacks is said on standard error."""
    import os
    import warnings

    from lambda_dbconn.cli.iam_policy.formats import FORMATS
    from lambda_dbconn.cli.iam_policy.policy import Order, least_policy
    from lambda_dbconn.errors import ConfigurationError
    from lambda_dbconn.settings import Settings

    environ = os.environ | {prefix + name.upper(): value for name, value in instead.items() if value is not None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about connecting
            settings = Settings.from_env(prefix, environ=_enough(environ, prefix), read_secret=lambda *_: {})
        statements = least_policy(settings, Order(account=account, resource_id=resource_id, kms_key=kms_key))
        text = FORMATS[form](statements)
    except ConfigurationError as error:
        raise click.UsageError("; ".join(error.faults)) from error
    click.echo(text)
    unknown = set().union(*(statement.unknown for statement in statements))
    for line in _advice(settings, unknown if form == "json" else unknown & {"RESOURCE_ID"}):
        click.echo(f"iam-policy: {line}", err=True)


def _enough(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return the variables, with something for those that say where to connect, which a policy has no use for."""
    given = dict(environ)
    if not given.get(prefix + "URL") and not (prefix == "DB_" and given.get("DATABASE_URL")):
        given.setdefault(prefix + "HOST", "unknown.invalid")
        if not given.get(prefix + "PORT"):
            given.setdefault(prefix + "ENGINE", "postgresql")
    return given


def _advice(settings: Settings, unknown: set[str]) -> Iterator[str]:
    """Say what to put in place of what is not known, and how to look it up."""
    from lambda_dbconn.settings.endpoint import EndpointKind, classify

    if "RESOURCE_ID" in unknown:
        endpoint = classify(settings.server_name)
        name = endpoint.host.partition(".")[0] if endpoint.is_rds else "NAME"
        yield "the resource id is in no host name; give it with --resource-id. To look it up:"
        if endpoint.is_proxy or not endpoint.is_rds:
            shown = "PROXY" if endpoint.kind is EndpointKind.PROXY_ADDITIONAL else name
            yield (
                f"  aws rds describe-db-proxies --db-proxy-name {shown} --query 'DBProxies[0].DBProxyArn' "
                "(it is the last part: prx-...)"
            )
        if endpoint.kind is EndpointKind.INSTANCE or not endpoint.is_rds:
            query = "DBInstances[0].DbiResourceId"
            yield f"  aws rds describe-db-instances --db-instance-identifier {name} --query '{query}'"
        elif not endpoint.is_proxy:
            query = "DBClusters[0].DbClusterResourceId"
            yield f"  aws rds describe-db-clusters --db-cluster-identifier {name} --query '{query}'"
    if "ACCOUNT_ID" in unknown:
        yield "the account's number is not known; give it with --account"
    if "REGION" in unknown:
        yield "the region is not known; give it with --region"
