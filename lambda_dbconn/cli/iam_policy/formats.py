"""The same policy as snippets for AWS SAM, the AWS CDK (Python) and Terraform.

What is not known here is taken from the stack: account, region and partition by each language's own means. The
resource id stays a parameter or variable.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lambda_dbconn.cli.iam_policy.policy import ACCOUNT, PARTITION, REGION, RESOURCE_ID, Unknown, as_json
from lambda_dbconn.errors import ConfigurationError

if TYPE_CHECKING:
    from lambda_dbconn.cli.iam_policy.policy import Statement

Statements = tuple["Statement", ...]

_ID_MEANING = (
    "The id in the ARN of the proxy (prx-...), or the resource id of the cluster (cluster-...) or instance (db-...)"
)


def json_policy(statements: Statements) -> str:
    """Write the policy document itself."""
    return json.dumps(as_json(statements), indent=2)


def sam(statements: Statements) -> str:
    """Write a function's `Policies`, and the parameter that they may need."""
    lines = []
    if any(RESOURCE_ID in statement.unknown for statement in statements):
        lines += ["Parameters:", "  DatabaseResourceId:", "    Type: String", f'    Description: "{_ID_MEANING}"', ""]
    lines += [
        "Resources:",
        "  Function:  # yours",
        "    Type: AWS::Serverless::Function",
        "    Properties:",
        "      Policies:",
        '        - Version: "2012-10-17"',
        "          Statement:",
    ]
    for statement in statements:
        lines += [f"            - Sid: {statement.sid}", "              Effect: Allow", "              Action:"]
        lines += [f"                - {action}" for action in statement.actions]
        lines.append(f"              Resource: {_sub(statement)}")
        if statement.conditions:
            lines.append("              Condition:")
        for operator, tests in statement.conditions.items():
            lines.append(f"                {operator}:")
            lines += [f"                  {key}: {json.dumps(values)}" for key, values in tests.items()]
    return "\n".join(lines)


_SUB = {
    PARTITION: "${AWS::Partition}",
    REGION: "${AWS::Region}",
    ACCOUNT: "${AWS::AccountId}",
    RESOURCE_ID: "${DatabaseResourceId}",
}


def _sub(statement: Statement) -> str:
    """Write a resource as YAML; `!Sub` takes `${!x}` for a `${x}` that is IAM's own."""
    if not statement.unknown:
        return json.dumps("".join(str(part) for part in statement.resource))
    text = "".join(
        _SUB[part.name] if isinstance(part, Unknown) else part.replace("${", "${!") for part in statement.resource
    )
    return f"!Sub {json.dumps(text)}"


def cdk(statements: Statements) -> str:
    """Write Python for a stack that has a `function`."""
    lines = ["from aws_cdk import aws_iam as iam", ""]
    if any(RESOURCE_ID in statement.unknown for statement in statements):
        lines += [f"# {_ID_MEANING}.", 'resource_id = "..."', ""]
    for statement in statements:
        lines += [
            "function.add_to_role_policy(",
            "    iam.PolicyStatement(",
            f"        sid={json.dumps(statement.sid)},",
            f"        actions={json.dumps(list(statement.actions))},",
            f"        resources=[{_python(statement)}],",
        ]
        if statement.conditions:
            lines.append(f"        conditions={json.dumps(statement.conditions)},")
        lines += ["    )", ")"]
    return "\n".join(lines)


_IN_PYTHON = {
    PARTITION: "{function.stack.partition}",
    REGION: "{function.stack.region}",
    ACCOUNT: "{function.stack.account}",
    RESOURCE_ID: "{resource_id}",
}


def _python(statement: Statement) -> str:
    """Write a resource as a literal of Python's, an f-string if something is not known. JSON's escapes are Python's."""
    if not statement.unknown:
        return json.dumps("".join(str(part) for part in statement.resource))
    text = "".join(
        _IN_PYTHON[part.name]
        if isinstance(part, Unknown)
        else json.dumps(part)[1:-1].replace("{", "{{").replace("}", "}}")
        for part in statement.resource
    )
    return f'f"{text}"'


def terraform(statements: Statements) -> str:
    """Write a policy document as a data source, and what it reads."""
    unknown = set().union(*(statement.unknown for statement in statements))
    lines = []
    for name, source in ((PARTITION, "aws_partition"), (REGION, "aws_region"), (ACCOUNT, "aws_caller_identity")):
        if name in unknown:
            lines += [f'data "{source}" "current" {{}}', ""]
    if RESOURCE_ID in unknown:
        meaning = json.dumps(_ID_MEANING)
        lines += ['variable "database_resource_id" {', "  type        = string", f"  description = {meaning}", "}", ""]
    lines.append('data "aws_iam_policy_document" "database" {')
    for number, statement in enumerate(statements):
        lines += [
            *([""] if number else []),
            "  statement {",
            f"    sid       = {json.dumps(statement.sid)}",
            f"    actions   = {json.dumps(list(statement.actions))}",
            f"    resources = [{_hcl(statement)}]",
        ]
        for operator, tests in statement.conditions.items():
            for key, values in tests.items():
                lines += [
                    "",
                    "    condition {",
                    f"      test     = {json.dumps(operator)}",
                    f"      variable = {json.dumps(key)}",
                    f"      values   = {json.dumps(values)}",
                    "    }",
                ]
        lines.append("  }")
    return "\n".join([*lines, "}"])


_IN_TERRAFORM = {
    PARTITION: "${data.aws_partition.current.partition}",
    REGION: "${data.aws_region.current.name}",
    ACCOUNT: "${data.aws_caller_identity.current.account_id}",
    RESOURCE_ID: "${var.database_resource_id}",
}


def _hcl(statement: Statement) -> str:
    """Write a resource as Terraform's string; a `${` of IAM's own is written `&{` there.

    Raises:
        ConfigurationError: There is a `&{` that is not IAM's: Terraform's data source knows no way to write it.
    """
    parts = []
    for part in statement.resource:
        if isinstance(part, Unknown):
            parts.append(_IN_TERRAFORM[part.name])
            continue
        if "&{" in part:
            raise ConfigurationError(
                f"Terraform would take the &{{ in {part!r} for an IAM variable",
                remedy="Use --format json, with the resource aws_iam_policy.",
            )
        # A template's directive is begun with the characters themselves, never with an escape.
        parts.append(json.dumps(part)[1:-1].replace("${", "&{").replace("%{", "%\\u007b"))
    return f'"{"".join(parts)}"'


FORMATS = {"json": json_policy, "sam": sam, "cdk": cdk, "terraform": terraform}
