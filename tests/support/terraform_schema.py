"""What Terraform's providers accept, taken from the Python bindings that HashiCorp generated from their schemas.

    pip download --no-deps cdktf-cdktf-provider-aws==21.22.1 cdktf-cdktf-provider-archive==11.0.1
    python -m tests.support.terraform_schema *.whl

writes `tests/data/terraform/schema.json` anew, for the types that `examples/infrastructure/terraform` uses. The
bindings have every argument, whether it is required, which ones are blocks, and every attribute; not the values that
are allowed. They have no ephemeral resources: the one that is used is written here by hand, from the provider's
documentation.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "tests" / "data" / "terraform" / "schema.json"
TEMPLATES = ROOT / "examples" / "infrastructure" / "terraform"

# Terraform's own, or added by the bindings.
_META = {"connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners", "tags_all"}
_BY_HAND = {
    "ephemeral.aws_secretsmanager_random_password": {
        "source": "terraform-provider-aws, website/docs/ephemeral-resources, at 1bf14ce2417c, read 2026-11-22",
        "required": [],
        "optional": [
            "exclude_characters",
            "exclude_lowercase",
            "exclude_numbers",
            "exclude_punctuation",
            "exclude_uppercase",
            "include_space",
            "password_length",
            "region",
            "require_each_included_type",
        ],
        "blocks": {},
        "attributes": ["random_password"],
    }
}


def types_used() -> set[str]:
    """Return `resource.aws_db_proxy` and the like, of the templates."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.tf")))
    return {f"{kind}.{name}" for kind, name in re.findall(r'^(resource|data|ephemeral) "(\w+)"', text, re.MULTILINE)}


class Bindings:
    """One generated module: the classes by name.

    Args:
        code: The module's text.
    """

    def __init__(self, code: str) -> None:
        tree = ast.parse(code)
        self.source = re.findall(r"https://registry\.terraform\.io/providers/([\w/.]+)/docs", code)[0]
        self._classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def resource(self) -> dict[str, Any]:
        """Return what the module's resource or data source accepts and has."""
        name = next(iter(self._classes))
        return {
            "source": self.source,
            **self._accepted(f"{name}Config"),
            "attributes": sorted(self._properties(name)),
        }

    def _accepted(self, name: str) -> dict[str, Any]:
        required: list[str] = []
        optional: list[str] = []
        blocks: dict[str, Any] = {}
        init = self._method(name, "__init__")
        text = ast.get_docstring(self._classes[name]) or ast.get_docstring(init) or ""
        is_block = set(re.findall(r":param (\w+): \1 block\.", text))
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
            # The bindings let each resource have an id, which a data source may be given and a resource may not.
            if argument.arg in _META or (argument.arg == "id" and not name.startswith("Data")):
                continue
            (required if default is None else optional).append(argument.arg)
            if argument.arg in is_block:
                blocks[argument.arg] = self._accepted(self._class_in(argument.annotation))
        return {"required": sorted(required), "optional": sorted(optional), "blocks": blocks}

    def _class_in(self, annotation: ast.expr | None) -> str:
        """Return the class of this module that an annotation names."""
        assert annotation is not None
        found = [name for name in re.findall(r"\w+", ast.unparse(annotation)) if name in self._classes]
        assert len(set(found)) == 1, found
        return str(found[0])

    def _method(self, class_name: str, name: str) -> ast.FunctionDef:
        body = self._classes[class_name].body
        return next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == name)

    def _properties(self, class_name: str) -> set[str]:
        methods = [node for node in self._classes[class_name].body if isinstance(node, ast.FunctionDef)]
        names = {node.name for node in methods if "builtins.property" in map(ast.unparse, node.decorator_list)}
        return {name for name in names if not name.endswith("_input")}


def module_of(used: str) -> str:
    """Return the folder of a type's bindings: `db_proxy`, `data_aws_subnet`."""
    kind, _, name = used.partition(".")
    provider, _, rest = name.partition("_")
    return f"data_{provider}_{rest}" if kind == "data" else rest


def extract(wheels: list[Path]) -> dict[str, Any]:
    """Return the schema of the types that the templates use."""
    schema: dict[str, Any] = dict(_BY_HAND)
    for used in types_used() - set(schema):
        provider = used.partition(".")[2].partition("_")[0]
        wheel = next(path for path in wheels if f"_{provider}-" in path.name)
        with zipfile.ZipFile(wheel) as archive:
            code = archive.read(f"cdktf_cdktf_provider_{provider}/{module_of(used)}/__init__.py").decode()
        schema[used] = Bindings(code).resource()
    return dict(sorted(schema.items()))


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(extract([Path(name) for name in sys.argv[1:]]), indent=1) + "\n", encoding="utf-8")
