"""What the SAM template and the CDK app deploy, in all their variants."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import Settings
from lambda_dbconn.settings.endpoint import EndpointKind
from tests.infrastructure.templates import (
    ACCOUNT,
    LOG_GROUP_ARN,
    PROXY_HOST,
    PROXY_ID,
    READER_HOST,
    REGION,
    SECRET_ARN,
    Template,
    Variant,
    cdk,
    sam,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORTS = {"postgresql": 5432, "mysql": 3306}
# They act on interfaces that have no name yet, and the describing ones know no resource.
UNNAMED = {
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
}
READS_SECRET = {("secretsmanager:GetSecretValue", SECRET_ARN)}
# CDK's own `grant_read` adds it, on the same secret; it shows no value.
DESCRIBES_SECRET = {("secretsmanager:DescribeSecret", SECRET_ARN)}
VARIANTS = [
    *(
        Variant("sam", engine, auth, has_route)
        for engine in PORTS
        for auth in ("iam", "secret")
        for has_route in (False, True)
    ),
    # Each of these starts Python and Node.js, and takes seconds.
    Variant("cdk", "postgresql", "iam", has_route=False),
    Variant("cdk", "postgresql", "secret", has_route=True),
    Variant("cdk", "mysql", "iam", has_route=True),
    Variant("cdk", "mysql", "secret", has_route=False),
]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(map(str, variant)))
def variant(request: pytest.FixtureRequest) -> Variant:
    """Give each variant in turn."""
    return Variant(*request.param)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Variant], Template]:
    """Give a function that makes each variant's template once, in whatever order the tests come."""

    def make(variant: Variant) -> Template:
        return cdk(variant, tmp_path_factory.mktemp("cdk")) if variant.tool == "cdk" else sam(variant)

    return functools.cache(make)


@pytest.fixture
def template(variant: Variant, made: Callable[[Variant], Template]) -> Template:
    """Give the variant's template, resolved."""
    return made(variant)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def allowed(template: Template, role: str) -> set[tuple[str, str]]:
    """Return action and resource of everything that a role's policies allow."""
    return {
        (action, resource)
        for statement in template.statements(role)
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def rules(template: Template) -> Iterator[tuple[str, str, str, Any]]:
    """Return direction, source, target and port of every rule that lets something through."""
    for name, group in template.all("EC2::SecurityGroup").items():
        for direction in ("SecurityGroupIngress", "SecurityGroupEgress"):
            for rule in group["Properties"].get(direction, []):
                yield direction, name, rule["CidrIp"], rule.get("FromPort")
    for rule in (item["Properties"] for item in template.all("EC2::SecurityGroupIngress").values()):
        assert rule["FromPort"] == rule["ToPort"]
        yield "SecurityGroupIngress", rule["SourceSecurityGroupId"], rule["GroupId"], rule["FromPort"]
    for rule in (item["Properties"] for item in template.all("EC2::SecurityGroupEgress").values()):
        assert rule["FromPort"] == rule["ToPort"]
        target = rule.get("DestinationSecurityGroupId") or rule["CidrIp"]
        yield "SecurityGroupEgress", rule["GroupId"], target, rule["FromPort"]


def way(template: Template, direction: str) -> set[tuple[str, str, int]]:
    """Return who may talk to whom, by the groups' descriptions, as the rules of one direction have it."""
    names = {
        name: group["Properties"]["GroupDescription"] for name, group in template.all("EC2::SecurityGroup").items()
    }
    nothing = {"127.0.0.1/32", "255.255.255.255/32"}
    return {
        (names[source], names.get(target, target), port)
        for found, source, target, port in rules(template)
        if found == direction and target not in nothing
    }


# --- permissions


def test_no_role_may_do_anything_to_all_resources_that_have_names(template: Template) -> None:
    for role in template.all("IAM::Role"):
        for action, resource in allowed(template, role):
            is_named = "*" not in resource.removesuffix(":*")
            assert is_named or action in UNNAMED, (role, action, resource)
            assert "*" not in action


def test_no_role_has_a_managed_policy(template: Template) -> None:
    assert [role for role in template.all("IAM::Role").values() if role["Properties"].get("ManagedPolicyArns")] == []


def test_there_are_two_roles_the_functions_and_the_proxys(template: Template) -> None:
    roles = {template.role_of("lambda.amazonaws.com"), template.role_of("rds.amazonaws.com")}
    assert set(template.all("IAM::Role")) == roles


def test_the_function_may_do_what_its_login_needs_and_no_more(template: Template, variant: Variant) -> None:
    permissions = allowed(template, template.role_of("lambda.amazonaws.com"))
    beside = {(action, "*") for action in UNNAMED} | {
        (action, LOG_GROUP_ARN) for action in ("logs:CreateLogStream", "logs:PutLogEvents")
    }
    assert permissions >= beside
    login = permissions - beside
    if variant.auth == "iam":
        assert login == {("rds-db:connect", f"arn:aws:rds-db:{REGION}:{ACCOUNT}:dbuser:{PROXY_ID}/app")}
    else:
        assert login - DESCRIBES_SECRET == READS_SECRET


def test_the_functions_own_code_may_not_touch_network_interfaces(template: Template) -> None:
    statements = template.statements(template.role_of("lambda.amazonaws.com"))
    (denied,) = (statement for statement in statements if statement["Effect"] == "Deny")
    assert set(denied["Action"]) == UNNAMED
    function = template.one("Lambda::Function")["FunctionName"]
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"
    assert denied["Condition"] == {"ArnEquals": {"lambda:SourceFunctionArn": arn}}


def test_the_proxy_may_read_the_secret_and_no_more(template: Template) -> None:
    assert allowed(template, template.role_of("rds.amazonaws.com")) - DESCRIBES_SECRET == READS_SECRET


# --- network


def test_only_neighbours_may_talk_and_both_ends_agree(template: Template, variant: Variant) -> None:
    port = PORTS[variant.engine]
    rotation, endpoint = "The function that rotates the secret", "The interface endpoint for Secrets Manager"
    databases = {
        ("The function", "RDS Proxy", port),
        ("RDS Proxy", "The database", port),
        (rotation, "The database", port),
    }
    readers = [rotation] + (["The function"] if variant.auth == "secret" else [])
    secrets_manager = "0.0.0.0/0" if variant.has_route else endpoint
    to_secrets_manager = {(reader, secrets_manager, 443) for reader in readers}
    assert way(template, "SecurityGroupEgress") == databases | to_secrets_manager
    assert way(template, "SecurityGroupIngress") == databases | (set() if variant.has_route else to_secrets_manager)


def test_every_security_group_has_a_rule_for_what_leaves_it(template: Template) -> None:
    """A group without one is given one that allows everything."""
    have_one = {source for direction, source, _, _ in rules(template) if direction == "SecurityGroupEgress"}
    assert set(template.all("EC2::SecurityGroup")) == have_one


def test_the_way_to_secrets_manager_is_made_where_there_is_none(template: Template, variant: Variant) -> None:
    endpoints = list(template.all("EC2::VPCEndpoint").values())
    assert len(endpoints) == (0 if variant.has_route else 1)
    assert all(endpoint["Properties"]["PrivateDnsEnabled"] is True for endpoint in endpoints)


# --- database and secret


def test_the_database_is_private_encrypted_and_speaks_tls_only(template: Template, variant: Variant) -> None:
    cluster = template.one("RDS::DBCluster")
    assert (cluster["StorageEncrypted"], cluster["DeletionProtection"]) == (True, True)
    parameters = template.one("RDS::DBClusterParameterGroup")["Parameters"]
    by_engine = {"postgresql": ("rds.force_ssl", "1"), "mysql": ("require_secure_transport", "ON")}
    assert by_engine[variant.engine] in parameters.items()
    instances = template.all("RDS::DBInstance").values()
    assert [instance["Properties"]["PubliclyAccessible"] for instance in instances] == [False, False]


def test_no_password_is_in_the_template(template: Template) -> None:
    cluster = template.one("RDS::DBCluster")
    assert cluster["ManageMasterUserPassword"] is True
    assert "MasterUserPassword" not in cluster
    secret = template.one("SecretsManager::Secret")
    assert "SecretString" not in secret
    assert secret["GenerateSecretString"]["GenerateStringKey"] == "password"


def test_the_secret_is_attached_and_rotates_but_not_before_the_user_exists(template: Template) -> None:
    attachment = template.one("SecretsManager::SecretTargetAttachment")
    assert (attachment["SecretId"], attachment["TargetType"]) == (SECRET_ARN, "AWS::RDS::DBCluster")
    schedule = template.one("SecretsManager::RotationSchedule")
    assert schedule["SecretId"] == SECRET_ARN
    assert schedule["RotateImmediatelyOnUpdate"] is False
    (rotation,) = template.all("Serverless::Application")
    assert schedule["RotationLambdaARN"] == f"{rotation}.Outputs.RotationLambdaARN"


def test_the_server_bounds_statements_without_a_pin(template: Template, variant: Variant) -> None:
    pool = template.one("RDS::DBProxyTargetGroup")["ConnectionPoolConfigurationInfo"]
    parameters = template.one("RDS::DBClusterParameterGroup")["Parameters"]
    if variant.engine == "postgresql":
        assert pool["InitQuery"] == "SET statement_timeout = '15s'"
        assert {"client_connection_check_interval", "idle_in_transaction_session_timeout"} < set(parameters)
    else:
        assert pool["InitQuery"] == "SET max_execution_time = 15000"
        assert "innodb_lock_wait_timeout" in parameters
    assert template.one("Lambda::Function")["Timeout"] == 15
    assert "SessionPinningFilters" not in pool


# --- proxy


def test_the_proxy_wants_tls_and_the_login_of_the_variant(template: Template, variant: Variant) -> None:
    proxy = template.one("RDS::DBProxy")
    assert proxy["RequireTLS"] is True
    assert proxy["EngineFamily"] == variant.engine.upper()
    assert proxy["Auth"] == [
        {
            "AuthScheme": "SECRETS",
            "SecretArn": SECRET_ARN,
            "IAMAuth": "REQUIRED" if variant.auth == "iam" else "DISABLED",
        }
    ]
    assert len(proxy["VpcSubnetIds"]) == 2
    assert proxy["VpcSecurityGroupIds"]


def test_the_limits_follow_each_other(template: Template) -> None:
    """The client gives up an idle connection before the proxy does; the proxy answers before the function's end."""
    assert Settings.max_idle_s < template.one("RDS::DBProxy")["IdleClientTimeout"]
    pool = template.one("RDS::DBProxyTargetGroup")["ConnectionPoolConfigurationInfo"]
    assert pool["ConnectionBorrowTimeout"] + Settings.reserve_s < template.one("Lambda::Function")["Timeout"]
    assert pool["MaxIdleConnectionsPercent"] < pool["MaxConnectionsPercent"] < 100


def test_the_cluster_is_registered_when_its_instances_are_there(template: Template) -> None:
    (group,) = template.all("RDS::DBProxyTargetGroup").values()
    assert group["Properties"]["TargetGroupName"] == "default"
    assert group["Properties"]["DBClusterIdentifiers"] == list(template.all("RDS::DBCluster"))
    assert set(template.all("RDS::DBInstance")) <= set(group["DependsOn"])


def test_the_read_only_endpoint_has_a_reader_behind_it(template: Template) -> None:
    endpoint = template.one("RDS::DBProxyEndpoint")
    assert endpoint["TargetRole"] == "READ_ONLY"
    assert endpoint["DBProxyName"] == next(iter(template.all("RDS::DBProxy")))
    assert len(template.all("RDS::DBInstance")) == 2


# --- function


def test_the_functions_variables_are_settings_without_a_warning(template: Template, variant: Variant) -> None:
    variables = template.one("Lambda::Function")["Environment"]["Variables"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = Settings.from_env(environ={**variables, "AWS_REGION": REGION})
    assert (settings.host, settings.reader_host) == (PROXY_HOST, READER_HOST)
    assert (settings.engine, settings.auth, settings.name) == (variant.engine, variant.auth, "shop")
    assert settings.endpoint.kind is EndpointKind.PROXY
    assert settings.user == ("app" if variant.auth == "iam" else None)
    assert settings.secret_id == (SECRET_ARN if variant.auth == "secret" else None)


def test_the_function_runs_with_the_layer_in_the_vpc_for_the_same_machine(template: Template) -> None:
    function = template.one("Lambda::Function")
    layer = template.one("Lambda::LayerVersion")
    assert function["Layers"] == list(template.all("Lambda::LayerVersion"))
    assert function["Architectures"] == layer["CompatibleArchitectures"] == ["arm64"]
    assert layer["CompatibleRuntimes"] == [function["Runtime"]]
    assert function["VpcConfig"]["SubnetIds"] == template.one("RDS::DBProxy")["VpcSubnetIds"]
    assert len(function["VpcConfig"]["SecurityGroupIds"]) == 1
