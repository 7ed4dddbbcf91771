"""Metrics in CloudWatch's embedded metric format, as CloudWatch would take them out of a log line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

_SCHEMA = json.loads(Path(__file__).with_name("emf_schema.json").read_text())
_MOST_VALUES = 100


@dataclass(frozen=True, kw_only=True)
class Document:
    """One line: its namespace, dimensions and metrics, and whatever else is on the root node."""

    namespace: str
    dimensions: dict[str, str]
    metrics: dict[str, Any]
    units: dict[str, str]
    timestamp_ms: int
    root: dict[str, Any]


def read(line: str) -> Document:
    """Check a line against the published schema and the rest of the specification, and return what it says."""
    root = json.loads(line)
    jsonschema.Draft202012Validator(_SCHEMA).validate(root)
    (directive,) = root["_aws"]["CloudWatchMetrics"]
    (keys,) = directive["Dimensions"]
    dimensions = {key: root[key] for key in keys}
    assert all(isinstance(value, str) for value in dimensions.values())
    units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert len(units) == len(directive["Metrics"]) > 0
    assert not set(units) & set(dimensions)
    metrics = {name: root[name] for name in units}
    for value in metrics.values():
        numbers = value if isinstance(value, list) else [value]
        assert 0 < len(numbers) <= _MOST_VALUES
        assert all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers)
    return Document(
        namespace=directive["Namespace"],
        dimensions=dimensions,
        metrics=metrics,
        units=units,
        timestamp_ms=root["_aws"]["Timestamp"],
        root=root,
    )


def documents(output: str) -> list[Document]:
    """Return the documents among the lines of a function's output."""
    return [read(line) for line in output.splitlines() if line.startswith('{"_aws"')]
