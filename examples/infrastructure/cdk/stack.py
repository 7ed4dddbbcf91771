"""A Lambda function that reaches Aurora through RDS Proxy, with IAM or with a secret that rotates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager

if TYPE_CHECKING:
    from constructs import Construct

USER = "app"
DATABASE = "shop"
FUNCTION_TIMEOUT = cdk.Duration.seconds(15)
# Below the function's timeout, so that an exhausted pool is told as such.
BORROW_TIMEOUT = cdk.Duration.seconds(10)
# Above the library's DB_MAX_IDLE_S, which is 1500 s by default: who closes first should be the client.
IDLE_CLIENT_TIMEOUT = cdk.Duration.seconds(1800)
INTERFACES = [
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
]


class Engine(NamedTuple):
    """What differs between PostgreSQL and MySQL."""

    name: Literal["postgresql", "mysql"]
    cluster: rds.IClusterEngine
    port: int
    # Run on each new database connection; it pins nothing, SET in the function would. It can be read by everyone who
    # may describe the target group. The limit is the function's timeout.
    init_query: str
    # Limits on the server, for what outlives its client. A change reaches the proxy after the instances' reboot
    # [RDS:rds-proxy].
    parameters: dict[str, str]
    rotation: secretsmanager.SecretRotationApplication


POSTGRESQL = Engine(
    name="postgresql",
    cluster=rds.DatabaseClusterEngine.aurora_postgres(version=rds.AuroraPostgresEngineVersion.VER_17_7),
    port=5432,
    init_query="SET statement_timeout = '15s'",
    parameters={
        "rds.force_ssl": "1",
        "client_connection_check_interval": "1000",
        "idle_in_transaction_session_timeout": "60000",
    },
    rotation=secretsmanager.SecretRotationApplication.POSTGRES_ROTATION_SINGLE_USER,
)
MYSQL = Engine(
    name="mysql",
    cluster=rds.DatabaseClusterEngine.aurora_mysql(version=rds.AuroraMysqlEngineVersion.VER_3_10_3),
    port=3306,
    init_query="SET max_execution_time = 15000",
    parameters={"require_secure_transport": "ON", "innodb_lock_wait_timeout": "10"},
    rotation=secretsmanager.SecretRotationApplication.MYSQL_ROTATION_SINGLE_USER,
)


class FunctionWithDatabase(cdk.Stack):
    """Database, secret, proxy and function, and who may talk to whom.

    Args:
        scope: The app.
        construct_id: The stack's name; also the proxy's and the function's.
        vpc_id: Where it all is.
        subnets: Private ones, by availability zone: two or more, none of them in use1-az3 or usw1-az2, where RDS Proxy
            is not to be had [RDS:rds-proxy]. Those are zone ids: which letter they have differs from account to
            account. Changing the subnets replaces the proxy.
        engine: POSTGRESQL or MYSQL.
        auth: How the function logs in at the proxy: by a token that its own role signs, or by the secret.
        layer_zip: From `lambda-dbconn layer --python 3.13 --arch arm64 --engine postgresql,mysql -o layer.zip`.
        has_secrets_manager_route: Whether the subnets reach Secrets Manager already, by a NAT gateway or by an
            interface endpoint: a second endpoint with private DNS in the same VPC would be refused.
        kwargs: For `Stack`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        vpc_id: str,
        subnets: dict[str, str],
        engine: Engine,
        auth: Literal["iam", "secret"],
        layer_zip: Path,
        has_secrets_manager_route: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(scope, construct_id, **kwargs)
        self._vpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=vpc_id,
            availability_zones=list(subnets),
            isolated_subnet_ids=list(subnets.values()),
        )
        self._subnets = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        self._engine = engine
        self._function_group = self._security_group("FunctionSecurityGroup", "The function")
        self._proxy_group = self._security_group("ProxySecurityGroup", "RDS Proxy")
        self._rotation_group = self._security_group("RotationSecurityGroup", "The function that rotates the secret")
        self._function_group.connections.allow_to(self._proxy_group, ec2.Port.tcp(engine.port), "Function to proxy")

        self._cluster = self._make_cluster()
        self._secret = self._make_secret()
        self._proxy = self._make_proxy(iam_auth=auth == "iam")
        self._reader = self._proxy.add_endpoint(
            "Reader",
            vpc=self._vpc,
            vpc_subnets=self._subnets,
            security_groups=[self._proxy_group],
            db_proxy_endpoint_name=f"{construct_id}-reader",
            target_role=rds.ProxyEndpointTargetRole.READ_ONLY,
        )
        self._function = self._make_function(auth, layer_zip)
        # The way to Secrets Manager: the rotation needs it always, the function only to read the secret itself. Signing
        # a token is no network call, and the proxy has a way of its own.
        callers = [self._rotation_group] + ([self._function_group] if auth == "secret" else [])
        self._let_reach_secrets_manager(callers, has_route=has_secrets_manager_route)
        self._make_outputs()

    def _security_group(self, name: str, description: str) -> ec2.SecurityGroup:
        """Return a group that nothing leaves but by the rules that are added."""
        return ec2.SecurityGroup(self, name, vpc=self._vpc, description=description, allow_all_outbound=False)

    def _make_cluster(self) -> rds.DatabaseCluster:
        """Return a writer, and a reader without which the proxy's read-only endpoint answers with an error."""
        cluster = rds.DatabaseCluster(
            self,
            "Database",
            engine=self._engine.cluster,
            port=self._engine.port,
            parameters=self._engine.parameters,
            default_database_name=DATABASE,
            # RDS makes the master user's secret, and rotates it. Nobody but an administrator reads it.
            credentials=rds.Credentials.from_username("administrator"),
            manage_master_user_password=True,
            # The Data API is how an administrator reaches a database in private subnets, to create the user `app`.
            enable_data_api=True,
            writer=rds.ClusterInstance.serverless_v2("Writer"),
            readers=[rds.ClusterInstance.serverless_v2("Reader", scale_with_writer=True)],
            # Not 0: the proxy keeps its own connections, so a cluster behind one does not pause.
            serverless_v2_min_capacity=0.5,
            serverless_v2_max_capacity=4,
            vpc=self._vpc,
            vpc_subnets=self._subnets,
            security_groups=[self._security_group("DatabaseSecurityGroup", "The database")],
            storage_encrypted=True,
            backup=rds.BackupProps(retention=cdk.Duration.days(7)),
            deletion_protection=True,
        )
        cluster.connections.allow_default_port_from(self._proxy_group, "Proxy to database")
        return cluster

    def _make_secret(self) -> secretsmanager.ISecret:
        """Return the user's secret: the proxy logs in with it at the database; with `secret` the function, too."""
        secret = secretsmanager.Secret(
            self,
            "AppSecret",
            description=f"The user {USER} of {self.stack_name}",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=self.to_json_string({"username": USER}),
                generate_string_key="password",
                password_length=32,
                exclude_punctuation=True,  # it goes into an SQL statement once, by hand
            ),
        )
        # Adds engine, host, port and dbname, which the rotation needs. The host is the database's, never the proxy's:
        # DB_HOST wins over it in the function.
        attached = secret.attach(self._cluster)
        secretsmanager.SecretRotation(
            self,
            "Rotation",
            application=self._engine.rotation,
            secret=attached,
            target=self._cluster,
            automatically_after=cdk.Duration.days(30),
            # True is the default, and would rotate now, while the database has no user `app` yet: the rotation logs in
            # as that user to change its password.
            rotate_immediately_on_update=False,
            vpc=self._vpc,
            vpc_subnets=self._subnets,
            security_group=self._rotation_group,
        )
        return attached

    def _make_proxy(self, *, iam_auth: bool) -> rds.DatabaseProxy:
        """Return the proxy. The construct waits for the instances, without which a cluster can't be registered."""
        return rds.DatabaseProxy(
            self,
            "Proxy",
            db_proxy_name=self.stack_name,
            proxy_target=rds.ProxyTarget.from_cluster(self._cluster),
            secrets=[self._secret],  # the construct lets the proxy's role read it
            iam_auth=iam_auth,
            require_tls=True,
            idle_client_timeout=IDLE_CLIENT_TIMEOUT,
            borrow_timeout=BORROW_TIMEOUT,
            max_connections_percent=90,  # the rest is for the rotation and for administrators
            max_idle_connections_percent=45,
            init_query=self._engine.init_query,
            # No session_pinning_filters: the only one is for MySQL, and lets one client's variables reach others.
            vpc=self._vpc,
            vpc_subnets=self._subnets,
            security_groups=[self._proxy_group],  # in a shared VPC the default group may not be used [RDS:rds-proxy]
        )

    def _make_function(self, auth: str, layer_zip: Path) -> lambda_.Function:
        log_group = logs.LogGroup(
            self,
            "FunctionLogs",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        role = self._make_role()
        log_group.grant_write(role)
        variables = {
            # No DB_SSLROOTCERT: Amazon's authority signs for the proxy, and the package has its roots.
            "DB_ENGINE": self._engine.name,
            "DB_HOST": self._proxy.endpoint,
            "DB_READER_HOST": self._reader.endpoint,
            "DB_NAME": DATABASE,
            "DB_AUTH": auth,
        }
        if auth == "iam":
            variables["DB_USER"] = USER
            # rds-db:connect on the proxy's own id, prx-..., which covers the read-only endpoint, too.
            self._proxy.grant_connect(role, USER)
        else:
            variables["DB_SECRET_ID"] = self._secret.secret_arn
            self._secret.grant_read(role)
        layer = lambda_.LayerVersion(
            self,
            "Layer",
            code=lambda_.Code.from_asset(str(layer_zip)),
            compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
            compatible_architectures=[lambda_.Architecture.ARM_64],
        )
        return lambda_.Function(
            self,
            "Function",
            function_name=self.stack_name,
            code=lambda_.Code.from_asset(str(Path(__file__).parent.parent / "function"), exclude=["*.sql"]),
            handler="handler.handler",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            memory_size=512,
            timeout=FUNCTION_TIMEOUT,
            role=role,
            layers=[layer],
            log_group=log_group,
            vpc=self._vpc,
            vpc_subnets=self._subnets,
            security_groups=[self._function_group],
            environment=variables,
        )

    def _make_role(self) -> iam.Role:
        """Return a role of the function's own: the one that CDK would make may write to every log group."""
        role = iam.Role(self, "FunctionRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        # Lambda makes the interfaces with the function's role [LAM:configuration-vpc]. They have no names before that,
        # so the resource is all of them.
        role.add_to_policy(iam.PolicyStatement(actions=INTERFACES, resources=["*"]))
        # Lambda itself is not kept from them by this; the function's own code is.
        role.add_to_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                actions=INTERFACES,
                resources=["*"],
                conditions={
                    "ArnEquals": {
                        "lambda:SourceFunctionArn": self.format_arn(
                            service="lambda",
                            resource="function",
                            resource_name=self.stack_name,
                            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                        )
                    }
                },
            )
        )
        return role

    def _let_reach_secrets_manager(self, callers: list[ec2.SecurityGroup], *, has_route: bool) -> None:
        https = ec2.Port.tcp(443)
        if has_route:
            for caller in callers:
                # The addresses of a route of your own are not known here, so port 443 is open to all.
                caller.add_egress_rule(ec2.Peer.any_ipv4(), https, "To Secrets Manager")
            return
        group = self._security_group("EndpointSecurityGroup", "The interface endpoint for Secrets Manager")
        ec2.InterfaceVpcEndpoint(
            self,
            "SecretsManagerEndpoint",
            service=ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
            vpc=self._vpc,
            subnets=self._subnets,
            security_groups=[group],
            open=False,  # else everything in the VPC may use it
        )
        for caller in callers:
            caller.connections.allow_to(group, https, "To Secrets Manager")

    def _make_outputs(self) -> None:
        master = self._cluster.secret
        outputs = {
            "FunctionName": self._function.function_name,
            "ProxyEndpoint": self._proxy.endpoint,
            "ReaderEndpoint": self._reader.endpoint,
            "ClusterArn": self._cluster.cluster_arn,
            "AppSecretArn": self._secret.secret_arn,
            **({"MasterSecretArn": master.secret_arn} if master else {}),
        }
        for name, value in outputs.items():
            cdk.CfnOutput(self, name, value=value)
