"""`lambda-dbconn iam-policy`: the least policy, and its snippets, each read by somebody else's parser."""

from __future__ import annotations

import ast
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lambda_dbconn import ConfigurationError
from lambda_dbconn.cli.iam_policy import formats
from lambda_dbconn.cli.iam_policy.policy import Order, least_policy
from tests.support import command_line
from tests.unit.conftest import CANARY, INSTANCE, PROXY, local

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_dbconn.cli.iam_policy.policy import Statement
    from tests.support.command_line import Outcome

pytestmark = pytest.mark.once

ACCOUNT = "123456789012"
PRX = "prx-0123456789abcdef0"
SECRET = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:prod/shop-AbC123"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
IAM = {"DB_HOST": PROXY, "DB_USER": "app", "DB_ENGINE": "postgresql"}
BY_SECRET = {"DB_HOST": PROXY, "DB_ENGINE": "postgresql", "DB_SECRET_ID": SECRET}

# Logins of each kind: with everything known, and with as little as can be.
CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "iam": (IAM, ["--resource-id", PRX, "--account", ACCOUNT]),
    "iam, little known": (IAM, []),
    "iam, nothing known": ({}, ["--auth", "iam", "--user", "app"]),
    "iam, a strange user": (IAM | {"DB_USER": "a*b?c$d{e}'f\"${x}"}, ["--resource-id", PRX]),
    "secret": (BY_SECRET, []),
    "secret, with a key": (BY_SECRET, ["--kms-key", KEY]),
    "secret, by name": ({}, ["--auth", "secret", "--secret-id", "prod/shop"]),
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("DB_", "AWS_")) or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)


def run(environ: dict[str, str], *arguments: str) -> Outcome:
    return command_line.run("iam-policy", *arguments, environ=environ)


def policy(environ: dict[str, str], *arguments: str) -> dict[str, Any]:
    result = run(environ, *arguments)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def only(environ: dict[str, str], *arguments: str) -> tuple[list[str], str]:
    """Return actions and resource of the one statement there is."""
    (statement,) = policy(environ, *arguments)["Statement"]
    return statement["Action"], statement["Resource"]


# --- what is allowed


def test_a_login_by_token_needs_to_connect_as_one_user_at_one_proxy() -> None:
    resource = f"arn:aws:rds-db:us-east-1:{ACCOUNT}:dbuser:{PRX}/app"
    assert only(IAM, "--resource-id", PRX, "--account", ACCOUNT) == (["rds-db:connect"], resource)


@pytest.mark.parametrize("resource_id", ["db-ABCDEFGHIJKL01234", "cluster-ABCDEFGHIJKL01234"])
def test_a_direct_endpoint_has_the_id_of_its_instance_or_cluster(resource_id: str) -> None:
    environ = IAM | {"DB_HOST": INSTANCE}
    assert only(environ, "--resource-id", resource_id)[1].endswith(f":dbuser:{resource_id}/app")


def test_wildcards_in_a_users_name_stand_for_themselves() -> None:
    resource = only(IAM | {"DB_USER": "*"}, "--resource-id", PRX)[1]
    assert resource.endswith("/${*}")
    assert only(IAM | {"DB_USER": "a?${b}"})[1].endswith("/a${?}${$}{b}")


def test_a_login_by_secret_needs_to_read_that_secret() -> None:
    assert only(BY_SECRET) == (["secretsmanager:GetSecretValue"], SECRET)


@pytest.mark.parametrize("secret_id", ["prod/shop", f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:prod/shop"])
def test_a_secret_without_its_six_characters_gets_just_so_many_wildcards(secret_id: str) -> None:
    environ = BY_SECRET | {"DB_SECRET_ID": secret_id, "DB_REGION": "eu-west-1"}
    assert only(environ, "--account", ACCOUNT)[1].endswith(":secret:prod/shop-??????")


def test_a_name_that_ends_like_an_arn_is_still_a_name() -> None:
    assert only(BY_SECRET | {"DB_SECRET_ID": "shop-AbC123"})[1].endswith(":secret:shop-AbC123-??????")


def test_a_key_of_ones_own_may_decrypt_through_secrets_manager_only() -> None:
    _, decrypt = policy(BY_SECRET, "--kms-key", KEY)["Statement"]
    assert (decrypt["Action"], decrypt["Resource"]) == (["kms:Decrypt"], KEY)
    assert decrypt["Condition"] == {"StringEquals": {"kms:ViaService": ["secretsmanager.eu-west-1.amazonaws.com"]}}


@pytest.mark.parametrize(
    ("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("eu-west-3", "aws")]
)
def test_the_partition_follows_from_the_region(region: str, partition: str) -> None:
    environ = {"DB_AUTH": "iam", "DB_USER": "app", "DB_REGION": region}
    assert only(environ)[1].startswith(f"arn:{partition}:rds-db:{region}:")


# --- what is not known, and what is wrong


def test_what_is_not_known_is_marked_and_said_with_the_command_that_finds_it() -> None:
    result = run(IAM)
    assert "<ACCOUNT_ID>:dbuser:<RESOURCE_ID>/app" in result.stdout
    assert "describe-db-proxies --db-proxy-name the-proxy" in result.stderr
    assert "--account" in result.stderr
    assert "describe-db-instances --db-instance-identifier mydb" in run(IAM | {"DB_HOST": INSTANCE}).stderr


def test_nothing_is_said_when_all_is_known() -> None:
    assert run(IAM, "--resource-id", PRX, "--account", ACCOUNT).stderr == ""
    assert run(BY_SECRET).stderr == ""


@pytest.mark.parametrize(
    ("environ", "arguments", "words"),
    [
        (IAM, ["--resource-id", PROXY], "--resource-id"),
        (IAM, ["--resource-id", "db-ABC"], "is a proxy's: prx-"),
        (IAM, ["--account", "12"], "twelve digits"),
        (IAM, ["--kms-key", KEY], "--kms-key is a secret's"),
        (BY_SECRET, ["--kms-key", "alias/shop"], "an alias"),
        (BY_SECRET, ["--resource-id", PRX], "by secret"),
        (BY_SECRET | {"DB_SECRET_ID": "prod/*"}, [], "a secret's name"),
        ({"DB_HOST": "localhost", "DB_USER": "app", "DB_PASSWORD": CANARY, "DB_PORT": "5432"}, [], "no permission"),
        ({"DB_HOST": PROXY, "DB_PORT": "5432"}, [], "DB_USER is not set"),
        (IAM, ["--prefix", "no-prefix"], "prefix"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(environ: dict[str, str], arguments: list[str], words: str) -> None:
    result = run(environ, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert words in result.stderr
    assert CANARY not in result.stderr


# --- each snippet means the policy


def resolved(text: str) -> str:
    """Put in what a stack would put in for what is not known."""
    for unknown, value in {"<REGION>": "us-east-1", "<ACCOUNT_ID>": ACCOUNT, "<RESOURCE_ID>": PRX}.items():
        text = text.replace(unknown, value)
    return text


def wanted(environ: dict[str, str], arguments: list[str]) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = json.loads(resolved(run(environ, *arguments).stdout))["Statement"]
    return statements


def lint(path: Path, document: dict[str, Any]) -> list[str]:
    """Return what cfn-lint has against a policy, which it checks down to the actions' names."""
    from cfnlint.api import lint_file

    managed = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": document}}
    path.write_text(json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Policy": managed}}))
    return [str(match) for match in lint_file(path)]


@pytest.mark.parametrize("case", CASES)
def test_the_policy_is_one_that_a_linter_of_policies_accepts(case: str, tmp_path: Path) -> None:
    environ, arguments = CASES[case]
    statements = wanted(environ, arguments)
    path = tmp_path / "policy.json"
    assert lint(path, {"Version": "2012-10-17", "Statement": statements}) == []
    statements[0]["Action"] = [action + "s" for action in statements[0]["Action"]]
    assert lint(path, {"Version": "2012-10-17", "Statement": statements}) != []


class _Loader(yaml.SafeLoader):
    """Reads `!Sub` as CloudFormation does."""


def _sub(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    values = {
        "AWS::Partition": "aws",
        "AWS::Region": "us-east-1",
        "AWS::AccountId": ACCOUNT,
        "DatabaseResourceId": PRX,
    }

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        return f"${{{name[1:]}}}" if name.startswith("!") else values[name]

    return re.sub(r"\$\{([^}]*)\}", replace, node.value)


_Loader.add_constructor("!Sub", _sub)


@pytest.mark.parametrize("case", CASES)
def test_the_sam_snippet_is_the_policy(case: str) -> None:
    environ, arguments = CASES[case]
    text = run(environ, *arguments, "--format", "sam").stdout
    template = yaml.load(text, Loader=_Loader)
    assert template["Resources"]["Function"]["Properties"]["Policies"][0]["Statement"] == wanted(environ, arguments)
    assert ("Parameters" in template) == ("${DatabaseResourceId}" in text)


@pytest.mark.parametrize("case", CASES)
def test_the_sam_snippet_is_one_that_cfn_lint_accepts(case: str, tmp_path: Path) -> None:
    from cfnlint.api import lint_file

    environ, arguments = CASES[case]
    snippet = run(environ, *arguments, "--format", "sam").stdout
    function = "      Handler: app.handler\n      Runtime: python3.13\n      InlineCode: pass\n"
    header = "AWSTemplateFormatVersion: '2010-09-09'\nTransform: AWS::Serverless-2016-10-31\n"
    path = tmp_path / "template.yaml"
    path.write_text(header + snippet.replace("      Policies:\n", f"{function}      Policies:\n"))
    assert [str(match) for match in lint_file(path)] == []


class _Stack:
    partition, region, account = "aws", "us-east-1", ACCOUNT


class _Function:
    """Stands for a function of the AWS CDK, and keeps what it is given; the CDK itself needs Node."""

    stack = _Stack

    def __init__(self) -> None:
        self.statements: list[dict[str, Any]] = []

    def add_to_role_policy(self, statement: dict[str, Any]) -> None:
        self.statements.append(statement)


class _Iam:
    """Stands for `aws_cdk.aws_iam`."""

    @staticmethod
    def PolicyStatement(  # noqa: N802 - the CDK's name
        *, sid: str, actions: list[str], resources: list[str], conditions: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        (resource,) = resources
        made = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}
        return made | ({"Condition": conditions} if conditions else {})


@pytest.mark.parametrize("case", CASES)
def test_the_cdk_snippet_compiles_and_gives_a_function_the_policy(case: str) -> None:
    environ, arguments = CASES[case]
    source = run(environ, *arguments, "--format", "cdk").stdout
    assert given_by(source) == wanted(environ, arguments)
    assert "from aws_cdk import aws_iam as iam\n" in source


def given_by(source: str) -> list[dict[str, Any]]:
    """Run a snippet; return the statements that it gives a function."""
    code = source.replace("from aws_cdk import aws_iam as iam\n", "").replace(
        'resource_id = "..."', f"resource_id = {PRX!r}"
    )
    function = _Function()
    exec(compile(code, "snippet", "exec"), {"function": function, "iam": _Iam})
    return function.statements


@pytest.mark.parametrize("case", CASES)
def test_the_terraform_snippet_is_the_policy(case: str) -> None:
    environ, arguments = CASES[case]
    written = run(environ, *arguments, "--format", "terraform").stdout
    assert written_for_terraform(written) == wanted(environ, arguments)


def written_for_terraform(text: str) -> list[dict[str, Any]]:
    """Parse a snippet; return the policy's statements."""
    import hcl2

    parsed = hcl2.loads(text)
    blocks = next(block for block in parsed["data"] if '"aws_iam_policy_document"' in block)
    statements = blocks['"aws_iam_policy_document"']['"database"']["statement"]
    return [of_terraform(statement) for statement in statements]


def of_terraform(statement: dict[str, Any]) -> dict[str, Any]:
    """Return what the AWS provider makes of a statement; the parser leaves texts in quotes."""
    known = {
        "${data.aws_partition.current.partition}": "aws",
        "${data.aws_region.current.name}": "us-east-1",
        "${data.aws_caller_identity.current.account_id}": ACCOUNT,
        "${var.database_resource_id}": PRX,
    }

    def text(literal: str) -> str:
        for expression, value in known.items():
            literal = literal.replace(expression, value)
        found: str = json.loads(literal)
        return found.replace("&{", "${")

    (resource,) = statement["resources"]
    made: dict[str, Any] = {
        "Sid": text(statement["sid"]),
        "Effect": "Allow",
        "Action": [text(action) for action in statement["actions"]],
        "Resource": text(resource),
    }
    for condition in statement.get("condition", ()):
        tests = {text(condition["variable"]): [text(value) for value in condition["values"]]}
        made.setdefault("Condition", {})[text(condition["test"])] = tests
    return made


# --- hostile names


HOSTILE_PARTS = ["'", '"', "\\", "`", "$", "{", "}", "${", "%{", "%%{", "$${", "&{", "*", "?", "#", ": ", "\u00e9", "x"]
HOSTILE_PARTS += [
    '"}]}',
    "!Sub",
    "${AWS::Region}",
    "${!x}",
    "{resource_id}",
    '{__import__("os")}',
    "\\N{BULLET}",
    "\\u0022",
]
users = st.lists(st.sampled_from(HOSTILE_PARTS) | st.text(st.characters(max_codepoint=0xFF), max_size=3), min_size=1)


def literally(resource: str) -> str:
    """Return what a resource with IAM's escapes matches; a wildcard or a variable is an error."""
    found = re.sub(r"\$\{([*?$])\}", lambda match: chr(0xE000 + ord(match[1])), resource)
    assert not re.search(r"[*?]|\$\{", found), found
    return "".join(chr(ord(letter) - 0xE000) if ord(letter) >= 0xE000 else letter for letter in found)


def statements_for(user: str, *, is_known: bool) -> tuple[Statement, ...] | None:
    """Return the policy for a user; None if it is refused."""
    try:
        settings = local(user=user, auth="iam", host=PROXY, sslmode="verify-full")
        return least_policy(settings, Order(account=ACCOUNT, resource_id=PRX if is_known else None))
    except ConfigurationError:
        return None


@given(users.map("".join), st.booleans())
def test_whatever_the_user_is_called_each_format_means_just_that_user(user: str, is_known: bool) -> None:
    statements = statements_for(user, is_known=is_known)
    if statements is None:
        assert not user.strip() or not user.isprintable() or user != user.strip()
        return
    (as_json,) = json.loads(resolved(formats.json_policy(statements)))["Statement"]
    assert literally(as_json["Resource"]) == f"arn:aws:rds-db:us-east-1:{ACCOUNT}:dbuser:{PRX}/{user}"
    template = yaml.load(formats.sam(statements), Loader=_Loader)
    assert template["Resources"]["Function"]["Properties"]["Policies"][0]["Statement"] == [as_json]
    assert given_by(formats.cdk(statements)) == [as_json]
    if "&{" in user:
        with pytest.raises(ConfigurationError, match="Terraform"):
            formats.terraform(statements)
    else:
        assert written_for_terraform(formats.terraform(statements)) == [as_json]


def test_the_cdk_snippet_runs_nothing_of_a_users_name() -> None:
    code = run(IAM | {"DB_USER": "'];open('/tmp/x','w')#{open}"}, "--format", "cdk").stdout
    calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert {call.attr for call in calls if isinstance(call, ast.Attribute)} == {"add_to_role_policy", "PolicyStatement"}
    assert all(isinstance(call, ast.Attribute) for call in calls)


@pytest.mark.parametrize(
    "region", ["*", "us-east-1*", "us-east-?", 'us-east-1"', "us-east-1\n", "${AWS::Region}", "eu", "é-b-1"]
)
@pytest.mark.parametrize("form", ["json", "sam", "cdk", "terraform"])
def test_a_region_is_the_name_of_one(region: str, form: str) -> None:
    result = run({"DB_AUTH": "iam", "DB_USER": "app"}, "--region", region, "--format", form)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "egion" in result.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--account", "\u0661" * 12),
        ("--account", f"{ACCOUNT}\n"),
        ("--account", "*"),
        ("--resource-id", "prx-*"),
        ("--resource-id", 'prx-0"'),
        ("--resource-id", f"{PRX}\n"),
        ("--user", "app\u20ac"),
        ("--user", "app\x1b[2J"),
        ("--user", "app\n*"),
    ],
)
def test_what_cannot_be_part_of_an_arn_is_refused_and_shown_harmlessly(option: str, value: str) -> None:
    result = run(IAM, option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    "secret_id",
    [
        f"arn:aws:secretsmanager:*:{ACCOUNT}:secret:prod/shop-AbC123",
        f"arn:*:secretsmanager:eu-west-1:{ACCOUNT}:secret:prod/shop-AbC123",
        f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:*",
        f'arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:shop"-AbC123',
        "shop${x}",
        "shop'",
    ],
)
def test_a_secrets_name_or_arn_has_no_wildcard_and_no_quote(secret_id: str) -> None:
    result = run(BY_SECRET | {"DB_SECRET_ID": secret_id})
    assert (result.exit_code, result.stdout) == (2, "")
