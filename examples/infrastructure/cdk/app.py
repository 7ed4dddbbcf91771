"""The app: `cdk deploy -c vpc_id=vpc-... -c auth=iam`."""

from __future__ import annotations

import os
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from stack import MYSQL, POSTGRESQL, FunctionWithDatabase

app = cdk.App()
account = cdk.Environment(account=os.environ["CDK_DEFAULT_ACCOUNT"], region=os.environ["CDK_DEFAULT_REGION"])
# The look-up asks the account, and needs a stack whose account and region are known.
network = cdk.Stack(app, "network", env=account)
FunctionWithDatabase(
    app,
    "shop",
    env=account,
    vpc=ec2.Vpc.from_lookup(network, "Vpc", vpc_id=app.node.get_context("vpc_id")),
    subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
    engine={"postgresql": POSTGRESQL, "mysql": MYSQL}[app.node.try_get_context("engine") or "postgresql"],
    auth=app.node.try_get_context("auth") or "iam",
    layer_zip=Path(__file__).parent.parent / "layer.zip",
    has_secrets_manager_route=app.node.try_get_context("has_secrets_manager_route") == "true",
)
app.synth()
