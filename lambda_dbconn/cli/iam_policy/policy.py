"""The least that a function's role must be allowed for its settings' login, and nothing more.

Sources: RDS user guide, "Creating and using an IAM policy for IAM database access" and "Connecting to a database
through RDS Proxy"; Secrets Manager user guide, "Permissions policy examples"; KMS guide, "kms:ViaService"; IAM guide,
"Policy elements: variables", special characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lambda_dbconn.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lambda_dbconn.settings import Settings

PARTITION, REGION, ACCOUNT, RESOURCE_ID = "PARTITION", "REGION", "ACCOUNT_ID", "RESOURCE_ID"
_FULL_SECRET_ARN = re.compile(r"-[A-Za-z0-9]{6}$")
_RESOURCE = re.compile(r"(prx|db|cluster)-[A-Za-z0-9]+")
_REGION = re.compile(r"[a-z]{2,5}(-[a-z]{2,10})+-[0-9]{1,2}")
_SECRET_NAME = re.compile(r"[\w/+=.@!-]+", re.ASCII)
_ACCOUNT = re.compile(r"[0-9]{12}")
_KEY = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{12}:key/[A-Za-z0-9-]+")
_SECRET = re.compile(
    r"arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):secret:(?P<name>.+)", re.DOTALL
)
_CHINA = "cn-"
_SPECIAL = re.compile(r"[*?$]")  # a wildcard, or the beginning of a variable, unless it is written as one itself
_LAST_CHARACTER = "\xff"  # that a policy may have (IAM guide, "Grammar of the IAM JSON policy language")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A part of an ARN that is not known here: each language has its own way to put it in.

    Attributes:
        name: `PARTITION`, `REGION`, `ACCOUNT_ID` or `RESOURCE_ID`.
    """

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a policy.

    Attributes:
        sid: Its name.
        actions: What is allowed.
        resource: On what: texts, and what is not known here.
        conditions: By operator and key.
    """

    sid: str
    actions: tuple[str, ...]
    resource: tuple[str | Unknown, ...]
    conditions: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)

    @property
    def unknown(self) -> set[str]:
        """The names of what is not known."""
        return {part.name for part in self.resource if isinstance(part, Unknown)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is known beside the settings.

    Attributes:
        account: The AWS account's number.
        resource_id: `prx-…` of a proxy, `db-…` of an instance, `cluster-…` of a cluster.
        kms_key: The ARN of the secret's own key.
    """

    account: str | None = None
    resource_id: str | None = None
    kms_key: str | None = None

    def __post_init__(self) -> None:
        _check("account", self.account, _ACCOUNT, "twelve digits")
        _check("resource-id", self.resource_id, _RESOURCE, "prx-…, db-… or cluster-…, which is no endpoint's name")
        _check("kms-key", self.kms_key, _KEY, "a key's ARN; an alias cannot stand in a policy's resource")


def least_policy(settings: Settings, order: Order) -> tuple[Statement, ...]:
    """Return the statements that these settings need.

    Raises:
        ConfigurationError: They need none, or contradict the order.
    """
    if settings.auth == "iam":
        if order.kms_key is not None:
            raise ConfigurationError("--kms-key is a secret's, but the login is by IAM token")
        return (_connect(settings, order),)
    if settings.auth == "secret":
        if order.resource_id is not None:
            raise ConfigurationError("--resource-id is for logins by IAM token, but this one is by secret")
        return tuple(_read_secret(settings, order))
    raise ConfigurationError("a login by password needs no permission", remedy="Set AUTH to iam or secret.")


def _connect(settings: Settings, order: Order) -> Statement:
    """Allow to log in as this user at this proxy, instance or cluster."""
    region = _region(settings)
    kind: Literal["prx", "db"] = "prx" if settings.is_proxy else "db"
    if order.resource_id is not None and kind == "prx" and not order.resource_id.startswith("prx-"):
        raise ConfigurationError(
            f"--resource-id is {order.resource_id}, but {settings.server_name} is a proxy's: prx-…"
        )
    assert settings.user is not None  # noqa: S101 - settings with `iam` have one
    user = settings.user
    if not user or not user.isprintable() or max(user) > _LAST_CHARACTER:
        raise ConfigurationError(
            f"{settings.variable('user')} is {user!r}; accepted in an IAM policy: printable characters up to U+00FF"
        )
    return Statement(
        sid="ConnectToDatabase",
        actions=("rds-db:connect",),
        resource=(
            "arn:",
            _partition(region),
            ":rds-db:",
            region or Unknown(name=REGION),
            ":",
            order.account or Unknown(name=ACCOUNT),
            ":dbuser:",
            order.resource_id or Unknown(name=RESOURCE_ID),
            f"/{_escaped(user)}",
        ),
    )


def _read_secret(settings: Settings, order: Order) -> list[Statement]:
    """Allow to read this secret, and to decrypt it with its own key, through Secrets Manager only."""
    assert settings.secret_id is not None  # noqa: S101 - settings with `secret` have one
    region: str | None
    by_arn = _SECRET.fullmatch(settings.secret_id)
    if by_arn:
        region = by_arn["region"]
        name = _checked_name(by_arn["name"])
        prefix: tuple[str | Unknown, ...] = (settings.secret_id.removesuffix(by_arn["name"]),)
    else:
        region, name = _region(settings), _checked_name(settings.secret_id)
        prefix = (
            "arn:",
            _partition(region),
            ":secretsmanager:",
            region or Unknown(name=REGION),
            ":",
            order.account or Unknown(name=ACCOUNT),
            ":secret:",
        )
    # Secrets Manager adds a hyphen and six characters to the name. Whoever gives a name gives none of them.
    is_full = by_arn is not None and _FULL_SECRET_ARN.search(name) is not None
    statements = [
        Statement(
            sid="ReadDatabaseSecret",
            actions=("secretsmanager:GetSecretValue",),
            resource=(*prefix, name if is_full else f"{name}-??????"),
        )
    ]
    if order.kms_key is not None:
        key = _KEY.fullmatch(order.kms_key)
        assert key is not None  # noqa: S101 - an order is checked
        services = [f"secretsmanager.{key['region']}.amazonaws.com"]
        if key["region"].startswith(_CHINA):
            services.append(f"{services[0]}.cn")  # which of the two it is there, we have not seen written
        statements.append(
            Statement(
                sid="DecryptDatabaseSecret",
                actions=("kms:Decrypt",),
                resource=(order.kms_key,),
                conditions={"StringEquals": {"kms:ViaService": services}},
            )
        )
    return statements


def as_json(statements: tuple[Statement, ...]) -> dict[str, Any]:
    """Return the policy document; what is not known is written in capitals between angle brackets."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": statement.sid,
                "Effect": "Allow",
                "Action": list(statement.actions),
                "Resource": "".join(
                    part if isinstance(part, str) else _PLAIN.get(part.name, f"<{part.name}>")
                    for part in statement.resource
                ),
                **({"Condition": statement.conditions} if statement.conditions else {}),
            }
            for statement in statements
        ],
    }


_PLAIN = {PARTITION: "aws"}


def _region(settings: Settings) -> str | None:
    from lambda_dbconn.settings import environment
    from lambda_dbconn.settings.endpoint import classify

    region = classify(settings.server_name).region or settings.region or environment("AWS_REGION")
    if region is not None and not _REGION.fullmatch(region):
        raise ConfigurationError(f"the region is {region!r}; accepted: the name of one, as us-east-1 is")
    return region


def _partition(region: str | None) -> str | Unknown:
    """Return the partition of a region, where its name tells; most regions are in `aws`."""
    if region is None:
        return Unknown(name=PARTITION)
    for prefix, partition in ((_CHINA, "aws-cn"), ("us-gov-", "aws-us-gov")):
        if region.startswith(prefix):
            return partition
    return Unknown(name=PARTITION) if "iso" in region or region.startswith("eusc-") else "aws"


def _escaped(user: str) -> str:
    """Write what IAM takes for wildcards and variables so that it stands for itself: `${*}`."""
    return _SPECIAL.sub(lambda found: f"${{{found[0]}}}", user)


def _checked_name(name: str) -> str:
    if not _SECRET_NAME.fullmatch(name):
        raise ConfigurationError(
            f"SECRET_ID is {name!r}; accepted: a secret's name (letters, digits, /_+=.@!-) or its ARN"
        )
    return name


def _check(option: str, value: str | None, form: re.Pattern[str], words: str) -> None:
    if value is not None and not form.fullmatch(value):
        raise ConfigurationError(f"--{option} is {value!r}; accepted: {words}")
