"""The app; the README beside it has the command."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
from stack import MYSQL, POSTGRESQL, FunctionWithDatabase

HERE = Path(__file__).parent

app = cdk.App()


def given(name: str, default: str | None = None) -> str:
    """Return what `cdk -c name=value` says."""
    value = app.node.try_get_context(name) or default
    if not value:
        raise SystemExit(f"pass -c {name}=...: {HERE / 'README.md'} has an example")
    return str(value)


FunctionWithDatabase(
    app,
    given("name", "shop"),
    vpc_id=given("vpc_id"),
    subnets=dict(zip(given("zones").split(","), given("subnet_ids").split(","), strict=True)),
    engine={"postgresql": POSTGRESQL, "mysql": MYSQL}[given("engine", "postgresql")],
    auth="secret" if given("auth", "iam") == "secret" else "iam",
    layer_zip=Path(given("layer_zip", str(HERE.parent / "layer.zip"))),
    has_secrets_manager_route=given("has_secrets_manager_route", "false") == "true",
)
app.synth()
