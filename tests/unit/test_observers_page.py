"""The reference of metrics has what the observers write when they are told of everything that can happen."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from lambda_dbconn import events
from lambda_dbconn.events import ConnectionReleased, ConnectionReplaced, Event
from lambda_dbconn.observers.emf import EmfObserver
from lambda_dbconn.observers.opentelemetry import OpenTelemetryObserver
from lambda_dbconn.observers.powertools import PowertoolsObserver
from tests.unit.test_docs import ROOT, public, read

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

PAGE = ROOT / "docs" / "reference" / "metrics.md"
_SAMPLES: dict[str, Any] = {"str": "x", "int": 1, "float": 0.5, "bool": True}
_NO_REPLACEMENT = {"first", "closed"}


def sample(event: type[Event], **given: str) -> Event:
    """Return an event of this class, its fields filled by their types."""
    types: dict[str, str] = {}
    for base in reversed(event.__mro__):
        types |= inspect.get_annotations(base)
    return event(**{name: given.get(name, _SAMPLES[types[name]]) for name in event._fields})


def reasons() -> list[str]:
    """Return the reasons for which a connection is replaced, as the reference of events has them."""
    table = read(ROOT / "docs" / "reference" / "events.md").partition("\n## Reasons\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    return [reason for reason in found if reason not in _NO_REPLACEMENT]


def everything() -> Iterator[Event]:
    """Yield an event of each kind, with each reason and outcome; loans last, as they write lines."""
    for name in sorted(public(events, Event) - {"Event", "ConnectionReleased", "ConnectionReplaced"}):
        yield sample(getattr(events, name))
    for reason in reasons():
        yield sample(ConnectionReplaced, reason=reason)
    for outcome in ("failed", "opened", "reused"):
        yield sample(ConnectionReleased, outcome=outcome)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    section = read(PAGE).partition(f"\n## {heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def documented() -> dict[str, str]:
    """Return the units of CloudWatch's metrics by name, as the page has them."""
    found = {name.strip("`"): unit for name, unit, _ in rows("CloudWatch")}
    assert len(found) == len(rows("CloudWatch")), "a metric has two rows"
    return found


class Recorded:
    """Powertools' metrics, or OpenTelemetry's meter: remembers what it is asked for."""

    def __init__(self) -> None:
        self.units: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.attributes: dict[str, set[str]] = {}

    def add_metric(self, *, name: str, unit: str, value: float) -> None:
        self.units[name] = unit

    def create_histogram(self, name: str, *, unit: str) -> Instrument:
        return self._create("histogram", name, unit)

    def create_counter(self, name: str, *, unit: str) -> Instrument:
        return self._create("counter", name, unit)

    def _create(self, kind: str, name: str, unit: str) -> Instrument:
        self.kinds[name], self.units[name] = kind, unit
        return Instrument(self.attributes.setdefault(name, set()))


class Instrument:
    def __init__(self, attributes: set[str]) -> None:
        self._attributes = attributes

    def record(self, _value: float, attributes: dict[str, str]) -> None:
        self._attributes.update(attributes)

    add = record


def test_every_metric_of_the_emf_observer_is_on_the_page_with_its_unit_and_there_is_no_other() -> None:
    lines: list[str] = []
    observer = EmfObserver("Test", {}, every_s=0, write=lines.append)
    for event in everything():
        observer.on_event(event)
    observer.flush()
    written = [json.loads(line)["_aws"]["CloudWatchMetrics"][0]["Metrics"] for line in lines]
    assert {metric["Name"]: metric["Unit"] for metrics in written for metric in metrics} == documented()


def test_every_metric_of_the_powertools_observer_is_on_the_page_with_its_unit_and_there_is_no_other() -> None:
    recorded: Any = Recorded()
    observer = PowertoolsObserver(metrics=recorded)
    for event in everything():
        observer.on_event(event)
    assert recorded.units == documented()


def test_every_instrument_of_opentelemetry_is_on_the_page_with_kind_unit_and_attributes() -> None:
    recorded: Any = Recorded()
    observer = OpenTelemetryObserver(meter=recorded)
    for event in everything():
        observer.on_event(event)
    found = {name.strip("`"): (kind, unit, set(re.findall(r"`([\w.]+)`", attributes)))
             for name, kind, unit, attributes, _ in rows("The OpenTelemetry observer")}  # fmt: skip
    endpoint = {"db.client.connection.pool.name"}
    assert found == {
        name: (recorded.kinds[name], unit, recorded.attributes[name] - endpoint)
        for name, unit in recorded.units.items()
    }
    assert all(endpoint <= attributes for attributes in recorded.attributes.values())


def test_the_reasons_for_a_replacement_are_those_of_its_docstring() -> None:
    said = (ConnectionReplaced.__doc__ or "").partition("reason:")[2].partition("age_s")[0]
    assert set(re.findall(r"`(\w+)`", said)) == set(reasons())


@pytest.mark.parametrize(
    "name", ["POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_SERVICE_NAME", "AWS_LAMBDA_FUNCTION_NAME"]
)
def test_the_variables_that_the_page_names_for_namespace_and_dimensions_are_the_codes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"`{name}`" in read(PAGE)
    monkeypatch.setenv(name, "Orders")
    lines: list[str] = []
    observer = EmfObserver(write=lines.append)
    observer.on_event(sample(ConnectionReleased, outcome="opened"))
    assert "Orders" in lines[0]
