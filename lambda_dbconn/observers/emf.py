"""`EmfObserver`: CloudWatch metrics as JSON lines on stdout, which Lambda hands to CloudWatch Logs.

The format is the one of
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from _thread import allocate_lock

from lambda_dbconn._values import TYPE_CHECKING
from lambda_dbconn.errors import ConfigurationError
from lambda_dbconn.events import ConnectionReleased, ConnectionReused
from lambda_dbconn.observers.measures import COUNT, measures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_dbconn.events import Event

_DEFAULT_NAMESPACE = "lambda_dbconn"
_TRACE_ID = "_X_AMZN_TRACE_ID"  # the runtime client sets it anew for each invocation
_MOST_DIMENSIONS = 30
_MOST_VALUES = 100  # of one metric in one document
_NAMESPACE = re.compile(r"(?!AWS/|:)[\w.\-/#: ]{1,255}", re.ASCII)
_DIMENSION_NAME = re.compile(r"(?!:)[ -~]{1,255}")
_DIMENSION_VALUE = re.compile(r"[ -~]{1,1024}")
_OURS = re.compile(  # the members of a line that are not dimensions
    "_aws|endpoints|request_id|(Acquire|Connect|Credential|CredentialRefresh|Ping)(Failures|Ms)|"
    r"Connects|CredentialRefreshes|Pins|Replacements|Replaced\w+|Reuses|TransactionsLeftOpen"
)


class EmfObserver:
    """Writes metrics in CloudWatch's embedded metric format, one line an invocation at most.

    A line is written at the end of a loan, while the invocation runs: nothing depends on what happens after it. It
    is written when there is news (all but a mere reuse), or when `every_s` seconds have passed since the one before,
    and not if this invocation has one already: what comes later waits for the next invocation's, or for `flush()`.
    What still waits when the environment ends is lost. Threads may share it; a fork's child begins anew.

    Args:
        namespace: CloudWatch's; by default `POWERTOOLS_METRICS_NAMESPACE`, else `lambda_dbconn`.
        dimensions: Names and values, the same for all metrics; by default `service` from `POWERTOOLS_SERVICE_NAME`,
            else `function_name` from Lambda's variable, else none.
        every_s: How long mere reuses may wait; 0 writes a line in each invocation.
        write: Takes a line with its end; by default it goes to stdout.
        wall: Gives seconds since the epoch.

    Raises:
        ConfigurationError: CloudWatch would not take the namespace or a dimension.
    """

    ignores: tuple[type[Event], ...] = (ConnectionReused,)

    def __init__(
        self,
        namespace: str | None = None,
        dimensions: Mapping[str, str] | None = None,
        *,
        every_s: float = 60.0,
        write: Callable[[str], object] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._namespace = _checked_namespace(namespace)
        self._dimensions = _checked_dimensions(_default_dimensions() if dimensions is None else dict(dimensions))
        if not every_s >= 0:
            raise ConfigurationError(f"the argument every_s is {every_s!r}; accepted: seconds, 0 or more")
        self._every_s = every_s
        self._write = write if write is not None else _write_to_stdout
        self._wall = wall
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._adding = allocate_lock()
        self._written_at = float("-inf")
        self._written_in = ("", "")  # the last line's invocation: request id and trace id, as far as known
        self._empty()

    def _empty(self) -> None:
        self._counts: dict[str, float] = {}
        self._values: dict[str, tuple[str, list[float]]] = {}  # with their units
        self._endpoints: set[str] = set()
        self._reuses: list[Event] = []  # mere reuses that are yet to be added: an append is all that they cost
        self._has_news = False

    def on_event(self, event: Event) -> None:
        """Add an event to the metrics; at the end of a loan, write the line that is due."""
        if os.getpid() != self._pid:  # a fork's child: these numbers, and maybe the lock, are its parent's
            self._begin_anew()
        is_reuse = type(event) is ConnectionReleased and event.outcome == "reused"
        if is_reuse and not self._is_time(self._wall()):
            with self._adding:
                self._reuses.append(event)
                if len(self._reuses) == _MOST_VALUES:
                    self._add_reuses()
        elif measures(event):  # else not even the lock: `close()` may be called from a signal handler
            line = self._line_after(event, is_reuse=is_reuse)
            if line is not None:
                self._write(line)

    def _is_time(self, now: float) -> bool:
        """Say whether something waits that is worth a line: news, or reuses for long enough."""
        return self._has_news or not 0 <= now - self._written_at < self._every_s  # a clock may be put back

    def _line_after(self, event: Event, *, is_reuse: bool) -> str | None:
        """Add an event, and return the line that is then due, if any."""
        with self._adding:
            self._add(event)
            self._has_news = self._has_news or not is_reuse
            if not isinstance(event, ConnectionReleased):
                return None
            now = self._wall()
            invocation = event.request_id, os.environ.get(_TRACE_ID, "")
            if _is_same(invocation, self._written_in) or not self._is_time(now):
                return None
            return self._take_line(now, invocation)

    def flush(self) -> None:
        """Write what waits, if anything does: a line beside the invocation's own."""
        with self._adding:
            waits = self._reuses or self._counts or self._values
            line = self._take_line(self._wall(), ("", os.environ.get(_TRACE_ID, ""))) if waits else None
        if line is not None:
            self._write(line)

    def _add_reuses(self) -> None:
        reuses, self._reuses = self._reuses, []
        for event in reuses:
            self._add(event)

    def _add(self, event: Event) -> None:
        for name, unit, value in measures(event):
            if unit == COUNT:
                self._counts[name] = self._counts.get(name, 0) + value
            else:
                values = self._values.setdefault(name, (unit, []))[1]
                if len(values) < _MOST_VALUES:
                    values.append(value)
        self._endpoints.add(event.endpoint)

    def _take_line(self, now: float, invocation: tuple[str, str]) -> str:
        self._add_reuses()
        metrics: dict[str, float | list[float]] = {**self._counts}
        units = dict.fromkeys(self._counts, COUNT)
        for name, (unit, values) in self._values.items():
            metrics[name], units[name] = values, unit
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [list(self._dimensions)],
            "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
        }
        document = {
            "_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [directive]},
            **self._dimensions,
            "endpoints": sorted(self._endpoints - {""}),
            "request_id": invocation[0],
            **metrics,
        }
        self._empty()
        self._written_at, self._written_in = now, invocation
        return json.dumps(document, separators=(",", ":")) + "\n"


def _is_same(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Say whether two invocations are one. Two may share a trace id, so request ids decide where both are known."""
    if one[0] and other[0]:
        return one[0] == other[0]
    return bool(one[1]) and one[1] == other[1]


def _write_to_stdout(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


def _default_dimensions() -> dict[str, str]:
    for name, variable in (("service", "POWERTOOLS_SERVICE_NAME"), ("function_name", "AWS_LAMBDA_FUNCTION_NAME")):
        if value := os.environ.get(variable):
            return {name: value}
    return {}


def _checked_namespace(given: str | None) -> str:
    label, namespace = "the argument namespace", given
    if namespace is None:
        label = "POWERTOOLS_METRICS_NAMESPACE"
        namespace = os.environ.get(label) or _DEFAULT_NAMESPACE
    if not _is_text(namespace, _NAMESPACE):
        raise ConfigurationError(
            f"{label} is {namespace!r}; accepted: up to 255 letters, digits, spaces and any of . - _ / # :, "
            "beginning neither with a colon nor with AWS/"
        )
    return namespace


def _checked_dimensions(dimensions: dict[str, str]) -> dict[str, str]:
    if len(dimensions) > _MOST_DIMENSIONS:
        raise ConfigurationError(f"there are {len(dimensions)} dimensions; accepted: {_MOST_DIMENSIONS} at most")
    for name, value in dimensions.items():
        if not _is_text(name, _DIMENSION_NAME):
            raise ConfigurationError(
                f"a dimension's name is {name!r}; accepted: up to 255 printable ASCII characters, not all of them "
                "spaces, the first no colon"
            )
        if _OURS.fullmatch(name):
            raise ConfigurationError(f"a dimension's name is {name!r}, which is or may become a member of every line")
        if not _is_text(value, _DIMENSION_VALUE):
            raise ConfigurationError(
                f"the dimension {name!r} is {value!r}; accepted: up to 1024 printable ASCII characters, not all of "
                "them spaces"
            )
    return dimensions


def _is_text(value: object, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and not value.isspace() and form.fullmatch(value) is not None
