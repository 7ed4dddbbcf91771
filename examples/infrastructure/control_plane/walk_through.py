"""What the console does in a few clicks, as calls: the secret, the proxy, and the function that may connect to it.

    python walk_through.py --cluster shop --function orders-api --auth iam

The cluster and the function exist, in one VPC, and the database has the user. This makes the user's secret, the proxy
with its role, its security group, its targets and a read-only endpoint, and points the function at them. It says each
step as it is done. It is for reading and for trying: it does not undo, and a second run stops at the first name that is
taken. The templates beside it are for what is to stay.
"""

from __future__ import annotations

import argparse
import getpass
import json
import time
from typing import Any, NamedTuple

import boto3

PORTS = {"postgresql": 5432, "mysql": 3306}
WAIT_S = 30 * 60.0


class Clients(NamedTuple):
    """boto3's clients."""

    rds: Any
    ec2: Any
    iam: Any
    secretsmanager: Any
    lambda_: Any

    @classmethod
    def default(cls) -> Clients:
        """Return clients for the region and the credentials that boto3 finds."""
        return cls(*(boto3.client(name) for name in ("rds", "ec2", "iam", "secretsmanager", "lambda")))


class Plan(NamedTuple):
    """What is to be done.

    Args:
        cluster: The identifier of the Aurora cluster.
        function: The name of the Lambda function.
        user: The database user.
        password: The user's password.
        auth: How the function logs in: `iam` or `secret`.
        rotation: The ARN of a function that rotates such secrets; empty for none. AWS's own is deployed from the
            Serverless Application Repository, by the console or by the templates.
        poll_s: Seconds between two looks at what is being made.
    """

    cluster: str
    function: str
    user: str
    password: str
    auth: str
    rotation: str = ""
    poll_s: float = 10.0

    @property
    def name(self) -> str:
        """Return the name of the proxy."""
        return f"{self.cluster}-proxy"


class Database(NamedTuple):
    """What the cluster says of itself."""

    engine: str
    host: str
    port: int
    name: str
    security_groups: list[str]
    subnets: list[str]
    vpc: str

    @classmethod
    def of(cls, rds: Any, identifier: str) -> Database:
        """Ask RDS."""
        cluster = rds.describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"][0]
        group = rds.describe_db_subnet_groups(DBSubnetGroupName=cluster["DBSubnetGroup"])["DBSubnetGroups"][0]
        return cls(
            engine="mysql" if "mysql" in cluster["Engine"] else "postgresql",
            host=cluster["Endpoint"],
            port=cluster["Port"],
            name=cluster["DatabaseName"],
            security_groups=[group["VpcSecurityGroupId"] for group in cluster["VpcSecurityGroups"]],
            subnets=[subnet["SubnetIdentifier"] for subnet in group["Subnets"]],
            vpc=group["VpcId"],
        )


def create_secret(secretsmanager: Any, plan: Plan, database: Database) -> str:
    """Store user and password as a rotation wants them; return the ARN. The host is the database's, not the proxy's."""
    content = {
        "engine": "mysql" if database.engine == "mysql" else "postgres",
        "host": database.host,
        "port": database.port,
        "dbname": database.name,
        "username": plan.user,
        "password": plan.password,
    }
    answer = secretsmanager.create_secret(Name=f"{plan.name}/{plan.user}", SecretString=json.dumps(content))
    return str(answer["ARN"])


def rotate_monthly(secretsmanager: Any, plan: Plan, secret_arn: str) -> None:
    """Let the function that the plan names rotate the secret, from the next date on."""
    secretsmanager.rotate_secret(
        SecretId=secret_arn,
        RotationLambdaARN=plan.rotation,
        RotationRules={"ScheduleExpression": "rate(30 days)"},
        RotateImmediately=False,
    )


def create_proxy_role(iam: Any, plan: Plan, secret_arn: str) -> str:
    """Let RDS Proxy read this one secret; return the role's ARN."""
    trust = _policy("sts:AssumeRole", principal={"Service": "rds.amazonaws.com"})
    role = iam.create_role(RoleName=plan.name, AssumeRolePolicyDocument=trust)["Role"]
    policy = _policy("secretsmanager:GetSecretValue", resource=secret_arn)
    iam.put_role_policy(RoleName=plan.name, PolicyName="read-the-secret", PolicyDocument=policy)
    return str(role["Arn"])


def open_the_way(ec2: Any, plan: Plan, database: Database, function_groups: list[str]) -> str:
    """Let the function reach the proxy and the proxy reach the database; return the proxy's security group."""
    group = ec2.create_security_group(GroupName=plan.name, Description="RDS Proxy", VpcId=database.vpc)["GroupId"]
    # On the engine's standard port the proxy listens; the database may have another [RDS:rds-proxy].
    ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[_from_groups(function_groups, PORTS[database.engine])]
    )
    for database_group in database.security_groups:
        ec2.authorize_security_group_ingress(
            GroupId=database_group, IpPermissions=[_from_groups([group], database.port)]
        )
    return str(group)


def create_proxy(rds: Any, plan: Plan, database: Database, *, role: str, secret: str, group: str) -> dict[str, Any]:
    """Create the proxy, wait until it is available, and return what RDS says of it."""
    rds.create_db_proxy(
        DBProxyName=plan.name,
        EngineFamily=database.engine.upper(),
        Auth=[
            {
                "AuthScheme": "SECRETS",
                "SecretArn": secret,
                "IAMAuth": "REQUIRED" if plan.auth == "iam" else "DISABLED",
            }
        ],
        RoleArn=role,
        VpcSubnetIds=database.subnets,
        VpcSecurityGroupIds=[group],
        RequireTLS=True,
        IdleClientTimeout=1800,
    )
    return _until(lambda: rds.describe_db_proxies(DBProxyName=plan.name)["DBProxies"][0], "Status", plan.poll_s)


def register_cluster(rds: Any, plan: Plan) -> None:
    """Make the cluster the proxy's target, and wait until the proxy has logged in there."""
    rds.modify_db_proxy_target_group(
        DBProxyName=plan.name,
        TargetGroupName="default",  # there is no other
        ConnectionPoolConfig={
            "MaxConnectionsPercent": 90,
            "MaxIdleConnectionsPercent": 45,
            "ConnectionBorrowTimeout": 10,
        },
    )
    rds.register_db_proxy_targets(DBProxyName=plan.name, DBClusterIdentifiers=[plan.cluster])
    _until(lambda: _target_health(rds, plan.name), "State", plan.poll_s)


def create_reader_endpoint(rds: Any, plan: Plan, database: Database, group: str) -> str:
    """Add an endpoint that leads to the cluster's readers; return its host."""
    name = f"{plan.name}-reader"
    rds.create_db_proxy_endpoint(
        DBProxyName=plan.name,
        DBProxyEndpointName=name,
        TargetRole="READ_ONLY",
        VpcSubnetIds=database.subnets,
        VpcSecurityGroupIds=[group],
    )
    endpoint = _until(
        lambda: rds.describe_db_proxy_endpoints(DBProxyEndpointName=name)["DBProxyEndpoints"][0], "Status", plan.poll_s
    )
    return str(endpoint["Endpoint"])


def let_function_connect(iam: Any, lambda_: Any, plan: Plan, *, proxy_arn: str, secret: str) -> None:
    """Give the function's role the one permission that it needs."""
    role = lambda_.get_function_configuration(FunctionName=plan.function)["Role"].rpartition("/")[2]
    if plan.auth == "secret":
        policy = _policy("secretsmanager:GetSecretValue", resource=secret)
    else:
        # arn:aws:rds:us-east-1:123456789012:db-proxy:prx-...: the id is not the proxy's name.
        _, partition, _, region, account, _, proxy_id = proxy_arn.split(":")
        resource = f"arn:{partition}:rds-db:{region}:{account}:dbuser:{proxy_id}/{plan.user}"
        policy = _policy("rds-db:connect", resource=resource)
    iam.put_role_policy(RoleName=role, PolicyName=plan.name, PolicyDocument=policy)


def point_function_at(lambda_: Any, plan: Plan, variables: dict[str, str]) -> None:
    """Set the function's variables for the proxy, and leave the others; a password there is not needed any more."""
    known = lambda_.get_function_configuration(FunctionName=plan.function).get("Environment", {}).get("Variables", {})
    kept = {name: value for name, value in known.items() if name not in {"DB_PASSWORD", "DB_URL", "DB_SSLROOTCERT"}}
    lambda_.update_function_configuration(FunctionName=plan.function, Environment={"Variables": {**kept, **variables}})


def variables_for(plan: Plan, database: Database, *, host: str, reader: str, secret: str) -> dict[str, str]:
    """Return what `lambda_dbconn.from_env()` reads."""
    login = {"DB_USER": plan.user} if plan.auth == "iam" else {"DB_SECRET_ID": secret}
    variables = {
        "DB_ENGINE": database.engine,
        "DB_HOST": host,
        "DB_READER_HOST": reader,
        "DB_NAME": database.name,
        "DB_AUTH": plan.auth,
        **login,
    }
    return {name: value for name, value in variables.items() if value}


def walk_through(clients: Clients, plan: Plan, *, has_reader: bool = True) -> dict[str, str]:
    """Do all of it, in order; return the function's new variables."""
    database = Database.of(clients.rds, plan.cluster)
    secret = create_secret(clients.secretsmanager, plan, database)
    print(f"secret     {secret}")
    if plan.rotation:
        rotate_monthly(clients.secretsmanager, plan, secret)
    print(f"rotation   {plan.rotation or 'none'}")
    role = create_proxy_role(clients.iam, plan, secret)
    print(f"role       {role}")
    function = clients.lambda_.get_function_configuration(FunctionName=plan.function)
    group = open_the_way(clients.ec2, plan, database, function["VpcConfig"]["SecurityGroupIds"])
    print(f"network    {group}")
    proxy = create_proxy(clients.rds, plan, database, role=role, secret=secret, group=group)
    print(f"proxy      {proxy['Endpoint']}")
    register_cluster(clients.rds, plan)
    print(f"targets    {plan.cluster}")
    reader = create_reader_endpoint(clients.rds, plan, database, group) if has_reader else ""
    print(f"reader     {reader or 'none'}")
    let_function_connect(clients.iam, clients.lambda_, plan, proxy_arn=proxy["DBProxyArn"], secret=secret)
    variables = variables_for(plan, database, host=proxy["Endpoint"], reader=reader, secret=secret)
    point_function_at(clients.lambda_, plan, variables)
    print(f"function   {plan.function}")
    return variables


def _policy(action: str, *, resource: str | None = None, principal: dict[str, str] | None = None) -> str:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": action}
    if resource:
        statement["Resource"] = resource
    if principal:
        statement["Principal"] = principal
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _from_groups(groups: list[str], port: int) -> dict[str, Any]:
    return {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": port,
        "UserIdGroupPairs": [{"GroupId": group} for group in groups],
    }


def _target_health(rds: Any, proxy: str) -> dict[str, Any]:
    """Return the worst of the targets' states; while there are none, that they are being registered."""
    targets = rds.describe_db_proxy_targets(DBProxyName=proxy)["Targets"]
    instances = [target["TargetHealth"] for target in targets if target.get("TargetHealth")]
    waiting = [health for health in instances if health["State"] != "AVAILABLE"]
    return dict((waiting or instances or [{"State": "REGISTERING"}])[0])


def _until(look: Any, field: str, poll_s: float) -> dict[str, Any]:
    """Look until it is available, for half an hour at most; return what was seen."""
    give_up_at = time.monotonic() + WAIT_S
    while (seen := look())[field].upper() != "AVAILABLE":
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"not available after {WAIT_S:g} s: {seen}")
        time.sleep(poll_s)
    return dict(seen)


def main() -> None:
    """Read the command line, and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cluster", required=True, help="the Aurora cluster's identifier")
    parser.add_argument("--function", required=True, help="the Lambda function's name")
    parser.add_argument("--user", default="app", help="the database user")
    parser.add_argument("--auth", choices=["iam", "secret"], default="iam", help="how the function logs in")
    parser.add_argument("--rotation", default="", help="the ARN of a function that rotates the secret")
    parser.add_argument("--no-reader", action="store_true", help="leave out the read-only endpoint")
    options = parser.parse_args()
    plan = Plan(
        cluster=options.cluster,
        function=options.function,
        user=options.user,
        password=getpass.getpass(f"Password of the database user {options.user}: "),
        auth=options.auth,
        rotation=options.rotation,
    )
    walk_through(Clients.default(), plan, has_reader=not options.no_reader)


if __name__ == "__main__":
    main()
