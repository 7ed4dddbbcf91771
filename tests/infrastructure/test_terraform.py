"""The Terraform configuration: parsed, held against the providers' schemas, and read for what it grants.

Terraform itself would need the providers' programs, which are not to be had from a package registry; so types of
values, and what only `terraform plan` evaluates, are not checked here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.terraform_schema import SCHEMA, TEMPLATES, types_used

if TYPE_CHECKING:
    from collections.abc import Iterator

# Terraform's own arguments and blocks, which no schema has.
META_ARGUMENTS = {"count", "for_each", "depends_on", "provider"}
META_BLOCKS = {"lifecycle"}
INTERFACES = "${local.interfaces}"


def unquoted(value: Any) -> Any:
    """Return what the parser gives, without the quotes and the marks that it adds."""
    if isinstance(value, list):
        return [unquoted(item) for item in value]
    if isinstance(value, dict):
        return {unquoted(name): unquoted(item) for name, item in value.items() if not name.startswith("__")}
    return value[1:-1] if isinstance(value, str) and value[:1] == value[-1:] == '"' else value


def text() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.tf")))


@pytest.fixture(scope="session")
def parsed() -> list[tuple[str, dict[str, Any]]]:
    """Give each top-level block of all files: its keyword and what it holds."""
    import hcl2

    files = [unquoted(hcl2.loads(path.read_text(encoding="utf-8"))) for path in sorted(TEMPLATES.glob("*.tf"))]
    return [(keyword, block) for file in files for keyword, blocks in file.items() for block in blocks]


@pytest.fixture(scope="session")
def blocks(parsed: list[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Give resources and data sources by address: `resource.aws_db_proxy.proxy`."""
    return {
        f"{keyword}.{kind}.{name}": body
        for keyword, block in parsed
        if keyword in {"resource", "data", "ephemeral"}
        for kind, named in block.items()
        for name, body in named.items()
    }


@pytest.fixture(scope="session")
def local(parsed: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Give the local values."""
    return {name: value for keyword, block in parsed if keyword == "locals" for name, value in block.items()}


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    """Give what the providers accept."""
    return dict(json.loads(SCHEMA.read_text(encoding="utf-8")))


def faults(body: dict[str, Any], accepted: dict[str, Any], where: str) -> Iterator[str]:
    """Say what a block has that its schema does not, and what it lacks."""
    known = {*accepted["required"], *accepted["optional"], *META_ARGUMENTS, *META_BLOCKS, "dynamic"}
    dynamic = {name: block["content"] for item in body.get("dynamic", []) for name, block in item.items()}
    given = set(body) | set(dynamic)
    yield from (f"{where} has no argument {name}" for name in sorted(given - known))
    yield from (f"{where} needs {name}" for name in accepted["required"] if name not in given)
    for name, inner in accepted["blocks"].items():
        for number, block in enumerate([*as_list(body.get(name, [])), *as_list(dynamic.get(name, []))]):
            if isinstance(block, dict):
                yield from faults(block, inner, f"{where}.{name}[{number}]")
            else:
                yield f"{where}.{name} is a block"


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# --- schema


def test_every_type_that_is_used_has_a_schema_with_its_source(schema: dict[str, Any]) -> None:
    assert set(schema) == types_used(), "run: python -m tests.support.terraform_schema"
    assert all(entry["source"] for entry in schema.values())


def test_every_argument_is_one_that_the_provider_knows_and_none_is_missing(
    blocks: dict[str, dict[str, Any]], schema: dict[str, Any]
) -> None:
    assert len(blocks) > 30
    found = [
        fault for address, body in blocks.items() for fault in faults(body, schema[address.rpartition(".")[0]], address)
    ]
    assert found == []


def test_a_misspelt_a_missing_and_a_misplaced_argument_are_found(schema: dict[str, Any]) -> None:
    good = {"name": "x", "engine_family": "MYSQL", "role_arn": "x", "vpc_subnet_ids": [], "auth": [{"iam_auth": "x"}]}
    accepted = schema["resource.aws_db_proxy"]
    assert list(faults(good, accepted, "p")) == []
    assert list(faults({**good, "require_ssl": True}, accepted, "p")) == ["p has no argument require_ssl"]
    assert list(faults({**good, "auth": [{"iam": "x"}]}, accepted, "p")) == ["p.auth[0] has no argument iam"]
    del good["role_arn"]
    assert list(faults(good, accepted, "p")) == ["p needs role_arn"]


def test_every_reference_is_to_something_that_is_there(
    blocks: dict[str, dict[str, Any]], schema: dict[str, Any]
) -> None:
    code = re.sub(r"^\s*#.*$", "", text(), flags=re.MULTILINE)
    references = re.findall(
        r"(?<![\w.])((?:data\.|ephemeral\.)?(?:aws|archive)_\w+)\.(\w+)(?:\[\d\])?(?:\.(\w+))?", code
    )
    assert len(references) > 60
    for kind, name, attribute in references:
        address = kind if "." in kind else f"resource.{kind}"
        assert f"{address}.{name}" in blocks, f"{address}.{name}"
        # The bindings write `output_base64_sha256` for `output_base64sha256`.
        known = {known.replace("_", "") for known in schema[address]["attributes"]}
        assert attribute.replace("_", "") in {*known, ""}, f"{address}.{name}.{attribute}"


def test_every_variable_and_local_value_is_declared_and_used(
    parsed: list[tuple[str, dict[str, Any]]], local: dict[str, Any]
) -> None:
    declared = {name for keyword, block in parsed if keyword == "variable" for name in block}
    assert set(re.findall(r"\bvar\.(\w+)", text())) == declared
    assert set(re.findall(r"\blocal\.(\w+)", text())) == set(local)


# --- permissions


def policy(blocks: dict[str, dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return list(blocks[f"data.aws_iam_policy_document.{name}"]["statement"])


def test_no_policy_is_for_all_resources_where_one_can_be_named(blocks: dict[str, dict[str, Any]]) -> None:
    documents = [body for address, body in blocks.items() if ".aws_iam_policy_document." in address]
    statements = [statement for document in documents for statement in document["statement"]]
    everything = [statement for statement in statements if "*" in str(statement.get("resources"))]
    named = [statement for statement in everything if statement["resources"] != ["*"]]
    assert [statement["resources"] for statement in named] == [["${aws_cloudwatch_log_group.function.arn}:*"]]
    assert {statement["actions"] for statement in everything if statement not in named} == {INTERFACES}


def test_the_interfaces_permissions_are_lambdas_list_and_denied_to_the_functions_code(
    blocks: dict[str, dict[str, Any]], local: dict[str, Any]
) -> None:
    assert all(action.startswith("ec2:") and "*" not in action for action in local["interfaces"])
    assert len(local["interfaces"]) == 6
    (denied,) = (statement for statement in policy(blocks, "function") if statement.get("effect") == "Deny")
    (condition,) = denied["condition"]
    assert (denied["actions"], condition["variable"]) == (INTERFACES, "lambda:SourceFunctionArn")


def test_the_function_may_connect_as_its_user_to_this_proxy(
    blocks: dict[str, dict[str, Any]], local: dict[str, Any]
) -> None:
    (statement,) = policy(blocks, "connect")
    assert statement["actions"] == ["rds-db:connect"]
    (resource,) = statement["resources"]
    assert resource.endswith(":rds-db:${local.arn_tail}:dbuser:${local.proxy_id}/app")
    assert local["proxy_id"] == '${element(split(":", aws_db_proxy.proxy.arn), 6)}'


def test_the_secret_is_read_by_the_proxy_and_with_a_secret_login_by_the_function(
    blocks: dict[str, dict[str, Any]],
) -> None:
    (statement,) = policy(blocks, "read_secret")
    assert statement == {
        "actions": ["secretsmanager:GetSecretValue"],
        "resources": ["${aws_secretsmanager_secret.app.arn}"],
    }
    assert blocks["resource.aws_iam_role_policy.proxy"]["policy"] == "${data.aws_iam_policy_document.read_secret.json}"
    chosen = blocks["resource.aws_iam_role_policy.connect"]["policy"]
    documents = "data.aws_iam_policy_document"
    assert chosen == f'${{var.auth == "iam" ? {documents}.connect.json : {documents}.read_secret.json}}'


def test_no_managed_policy_is_attached() -> None:
    assert "policy_attachment" not in text()
    assert "managed_policy_arns" not in text()


# --- what the other templates have, too


def test_nothing_secret_comes_into_the_state(blocks: dict[str, dict[str, Any]]) -> None:
    cluster = blocks["resource.aws_rds_cluster.database"]
    assert (cluster["manage_master_user_password"], "master_password" in cluster) == (True, False)
    version = blocks["resource.aws_secretsmanager_secret_version.first"]
    assert "secret_string" not in version
    assert "ephemeral.aws_secretsmanager_random_password.first.random_password" in version["secret_string_wo"]


def test_the_rotation_waits_for_the_user(blocks: dict[str, dict[str, Any]]) -> None:
    assert blocks["resource.aws_secretsmanager_secret_rotation.app"]["rotate_immediately"] is False


def test_the_cluster_is_registered_when_its_instances_are_there(blocks: dict[str, dict[str, Any]]) -> None:
    assert blocks["resource.aws_db_proxy_target.database"]["depends_on"] == ["${aws_rds_cluster_instance.database}"]
    assert blocks["resource.aws_rds_cluster_instance.database"]["count"] == 2
    assert blocks["resource.aws_db_proxy_endpoint.reader"]["target_role"] == "READ_ONLY"


def test_the_proxy_refuses_zones_where_there_is_none(blocks: dict[str, dict[str, Any]]) -> None:
    (lifecycle,) = blocks["resource.aws_db_proxy.proxy"]["lifecycle"]
    conditions = " ".join(item["condition"] for item in lifecycle["precondition"])
    assert "use1-az3" in conditions
    assert "usw1-az2" in conditions


def test_the_values_are_those_of_the_sam_template(blocks: dict[str, dict[str, Any]], local: dict[str, Any]) -> None:
    from tests.infrastructure.templates import Variant, sam

    proxy = blocks["resource.aws_db_proxy.proxy"]
    (pool,) = blocks["resource.aws_db_proxy_default_target_group.proxy"]["connection_pool_config"]
    function = blocks["resource.aws_lambda_function.function"]
    for engine in ("postgresql", "mysql"):
        other = sam(Variant("sam", engine, "iam", has_route=False))
        here = local["engines"][engine]
        cluster, group = other.one("RDS::DBCluster"), other.one("RDS::DBProxyTargetGroup")
        other_pool = group["ConnectionPoolConfigurationInfo"]
        assert (here["cluster"], here["version"], here["port"]) == tuple(
            cluster[name] for name in ("Engine", "EngineVersion", "Port")
        )
        assert here["init_query"] == other_pool["InitQuery"]
        assert here["parameters"] == other.one("RDS::DBClusterParameterGroup")["Parameters"]
        assert here["parameter_group"] == other.one("RDS::DBClusterParameterGroup")["Family"]
        assert here["family"] == other.one("RDS::DBProxy")["EngineFamily"]
        assert pool["connection_borrow_timeout"] == other_pool["ConnectionBorrowTimeout"]
        assert proxy["idle_client_timeout"] == other.one("RDS::DBProxy")["IdleClientTimeout"]
        assert function["timeout"] == other.one("Lambda::Function")["Timeout"]
        variables = other.one("Lambda::Function")["Environment"]["Variables"]
        assert set(local["environment"]) | set(local["environment_of"]["iam"]) == set(variables)
