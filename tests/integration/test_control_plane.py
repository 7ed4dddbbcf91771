"""The walk-through in boto3, against moto's control plane, and where moto falls short of AWS."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from moto import mock_aws

from examples.infrastructure.control_plane.walk_through import Clients, Plan, walk_through
from lambda_dbconn import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.walk

REGION = "us-east-1"
PASSWORD = "the-users-password"
ENGINES = {"postgresql": ("aurora-postgresql", 5432), "mysql": ("aurora-mysql", 3306)}


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    """Clients for all tests: to make them takes most of a second, for botocore reads how each service is called."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
            environment.delenv(name, raising=False)
        yield Clients.default()


@pytest.fixture
def account(clients: Clients) -> Iterator[Clients]:
    """An account with nothing in it."""
    with mock_aws(config={"lambda": {"use_docker": False}}):
        yield clients


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Give each engine, so that a test that does not name one runs with both."""
    return str(request.param)


def given(clients: Clients, engine: str, auth: str) -> Plan:
    """Make what the walk-through expects: a cluster and a function in a VPC."""
    cluster_engine, port = ENGINES[engine]
    vpc = clients.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        clients.ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=zone)["Subnet"][
            "SubnetId"
        ]
        for number, zone in enumerate(["us-east-1a", "us-east-1b"])
    ]
    groups = {
        name: clients.ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        for name in ("database", "function")
    }
    clients.rds.create_db_subnet_group(DBSubnetGroupName="shop", DBSubnetGroupDescription="shop", SubnetIds=subnets)
    clients.rds.create_db_cluster(
        DBClusterIdentifier="shop",
        Engine=cluster_engine,
        Port=port,
        DatabaseName="shop",
        MasterUsername="administrator",
        MasterUserPassword="unused-here",
        DBSubnetGroupName="shop",
        VpcSecurityGroupIds=[groups["database"]],
    )
    clients.rds.create_db_instance(
        DBInstanceIdentifier="shop-0",
        DBInstanceClass="db.serverless",
        Engine=cluster_engine,
        DBClusterIdentifier="shop",
    )
    role = clients.iam.create_role(RoleName="orders-api", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    clients.lambda_.create_function(
        FunctionName="orders-api",
        Runtime="python3.13",
        Handler="handler.handler",
        Role=role,
        Code={"ZipFile": an_archive()},
        VpcConfig={"SubnetIds": subnets, "SecurityGroupIds": [groups["function"]]},
        Environment={"Variables": {"DB_HOST": "shop.cluster-abc", "DB_PASSWORD": PASSWORD, "STAGE": "test"}},
    )
    return Plan(cluster="shop", function="orders-api", user="app", password=PASSWORD, auth=auth, poll_s=0.01)


def an_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("handler.py", "def handler(event, context): ...")
    return buffer.getvalue()


def allowed(clients: Clients, role: str) -> list[tuple[str, str]]:
    """Return action and resource of everything that a role's own policies allow."""
    found = []
    for name in clients.iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = clients.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        found += [(statement["Action"], statement["Resource"]) for statement in document["Statement"]]
    assert clients.iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    return found


def incoming(clients: Clients, group: str) -> list[tuple[int, int, list[str]]]:
    """Return ports and sources of what a security group lets in."""
    found = clients.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert all(rule["IpRanges"] == [] for rule in found)
    return [
        (rule["FromPort"], rule["ToPort"], [pair["GroupId"] for pair in rule["UserIdGroupPairs"]]) for rule in found
    ]


def proxy_of(clients: Clients) -> dict[str, Any]:
    return dict(clients.rds.describe_db_proxies(DBProxyName="shop-proxy")["DBProxies"][0])


def function_variables(clients: Clients) -> dict[str, str]:
    found = clients.lambda_.get_function_configuration(FunctionName="orders-api")["Environment"]["Variables"]
    return {str(name): str(value) for name, value in found.items()}


def test_with_iam_the_function_may_connect_as_its_user_to_this_proxy_and_no_more(account: Clients, engine: str) -> None:
    walk_through(account, given(account, engine, "iam"), has_reader=False)
    proxy = proxy_of(account)
    proxy_id = proxy["DBProxyArn"].rpartition(":")[2]
    assert proxy_id.startswith("prx-")
    assert allowed(account, "orders-api") == [
        ("rds-db:connect", f"arn:aws:rds-db:{REGION}:123456789012:dbuser:{proxy_id}/app")
    ]
    assert [item["IAMAuth"] for item in proxy["Auth"]] == ["REQUIRED"]


def test_with_a_secret_the_function_may_read_that_secret_and_no_more(account: Clients, engine: str) -> None:
    walk_through(account, given(account, engine, "secret"), has_reader=False)
    (auth,) = proxy_of(account)["Auth"]
    assert auth["IAMAuth"] == "DISABLED"
    assert allowed(account, "orders-api") == [("secretsmanager:GetSecretValue", auth["SecretArn"])]


@pytest.mark.parametrize("auth", ["iam", "secret"])
def test_the_proxy_reads_its_secret_and_no_more(account: Clients, engine: str, auth: str) -> None:
    walk_through(account, given(account, engine, auth), has_reader=False)
    (login,) = proxy_of(account)["Auth"]
    assert allowed(account, "shop-proxy") == [("secretsmanager:GetSecretValue", login["SecretArn"])]
    content = json.loads(account.secretsmanager.get_secret_value(SecretId=login["SecretArn"])["SecretString"])
    assert {name: content[name] for name in ("username", "password", "dbname")} == {
        "username": "app",
        "password": PASSWORD,
        "dbname": "shop",
    }
    assert content["port"] == ENGINES[engine][1]


def test_the_function_reaches_the_proxy_and_the_proxy_the_database(account: Clients, engine: str) -> None:
    plan = given(account, engine, "iam")
    walk_through(account, plan, has_reader=False)
    (proxy_group,) = proxy_of(account)["VpcSecurityGroupIds"]
    cluster = account.rds.describe_db_clusters(DBClusterIdentifier="shop")["DBClusters"][0]
    database_group = cluster["VpcSecurityGroups"][0]["VpcSecurityGroupId"]
    function = account.lambda_.get_function_configuration(FunctionName="orders-api")["VpcConfig"]
    port = ENGINES[engine][1]
    assert incoming(account, proxy_group) == [(port, port, function["SecurityGroupIds"])]
    assert incoming(account, database_group) == [(port, port, [proxy_group])]


def test_the_proxy_requires_tls_and_has_the_cluster_as_its_target(account: Clients, engine: str) -> None:
    walk_through(account, given(account, engine, "iam"), has_reader=False)
    proxy = proxy_of(account)
    assert proxy["RequireTLS"] is True
    assert proxy["IdleClientTimeout"] > Settings.max_idle_s
    targets = account.rds.describe_db_proxy_targets(DBProxyName="shop-proxy")["Targets"]
    assert "shop" in [target["RdsResourceId"] for target in targets]
    (group,) = account.rds.describe_db_proxy_target_groups(DBProxyName="shop-proxy")["TargetGroups"]
    assert group["ConnectionPoolConfig"]["ConnectionBorrowTimeout"] == 10


@pytest.mark.parametrize("auth", ["iam", "secret"])
def test_the_functions_variables_are_settings_and_the_others_stay(account: Clients, engine: str, auth: str) -> None:
    walk_through(account, given(account, engine, auth), has_reader=False)
    variables = function_variables(account)
    settings = Settings.from_env(environ=variables)
    assert (settings.auth, settings.engine, settings.host) == (auth, engine, proxy_of(account)["Endpoint"])
    assert variables["STAGE"] == "test"
    assert "DB_PASSWORD" not in variables


def test_the_secret_rotates_monthly_by_the_function_that_is_named(account: Clients) -> None:
    plan = given(account, "postgresql", "secret")
    rotation = account.lambda_.get_function_configuration(FunctionName="orders-api")["FunctionArn"]
    walk_through(account, plan._replace(rotation=rotation), has_reader=False)
    (auth,) = proxy_of(account)["Auth"]
    secret = account.secretsmanager.describe_secret(SecretId=auth["SecretArn"])
    assert secret["RotationLambdaARN"] == rotation
    assert json.loads(account.secretsmanager.get_secret_value(SecretId=auth["SecretArn"])["SecretString"])
    # Two shortcomings of moto's: it enables only a rotation that begins at once, and forgets the schedule.
    assert secret["RotationEnabled"] is False
    assert "ScheduleExpression" not in secret["RotationRules"]


def test_no_step_shows_the_password(account: Clients, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    walk_through(account, given(account, engine, "secret"), has_reader=False)
    shown = capsys.readouterr().out
    assert "proxy " in shown
    assert PASSWORD not in shown


# Where moto falls short. Each of these fails on the day it does not any more; then the tests above can show more.


def test_moto_has_no_proxy_endpoints(account: Clients) -> None:
    with pytest.raises(NotImplementedError):
        walk_through(account, given(account, "postgresql", "iam"))


def test_motos_proxy_endpoint_has_another_shape_than_rdss(account: Clients) -> None:
    walk_through(account, given(account, "postgresql", "iam"), has_reader=False)
    host = proxy_of(account)["Endpoint"]
    assert ".db-proxy-" in host
    assert ".proxy-" not in host


def test_moto_registers_a_cluster_at_once_whether_or_not_it_has_an_instance(account: Clients) -> None:
    plan = given(account, "postgresql", "iam")
    account.rds.delete_db_instance(DBInstanceIdentifier="shop-0", SkipFinalSnapshot=True)
    walk_through(account, plan, has_reader=False)
    targets = account.rds.describe_db_proxy_targets(DBProxyName="shop-proxy")["Targets"]
    assert {target["TargetHealth"]["State"] for target in targets} == {"AVAILABLE"}
