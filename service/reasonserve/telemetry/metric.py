"""What a metric is, and how its labels stay bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

Kind = Literal["counter", "gauge", "histogram"]
Process = Literal["gateway", "replica", "controller"]

OTHER: Final = "other"
"""The label of what is past the cap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Base name with its unit; a counter's has no ``_total`` yet.
        kind: Prometheus type.
        process: Who exports it.
        help: One sentence, as the exporter and the documentation show it.
        labels: Own labels.
        buckets: Upper bounds of a histogram, in its unit.
    """

    name: str
    kind: Kind
    process: Process
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """Name on the scraped page; of a histogram without ``_bucket``, ``_sum`` or ``_count``."""
        prefix = "" if self.process == "controller" else "ray_"
        return prefix + self.name + ("_total" if self.kind == "counter" else "")


def counter(process: Process, name: str, text: str, *labels: str) -> Metric:
    """Declares a counter."""
    return Metric(name=name, kind="counter", process=process, help=text, labels=labels)


def gauge(process: Process, name: str, text: str, *labels: str) -> Metric:
    """Declares a gauge."""
    return Metric(name=name, kind="gauge", process=process, help=text, labels=labels)


def histogram(process: Process, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    """Declares a histogram."""
    return Metric(name=name, kind="histogram", process=process, help=text, labels=labels, buckets=buckets)


class Recorder(Protocol):
    """Where figures go; labels in the order that the metric declares them."""

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """Adds to a counter."""

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Sets a gauge."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Counts a value into a histogram."""


class LabelCap:
    """Gives the first names a label of their own and the rest ``other``, so that series stay bounded.

    Args:
        most: Names that get their own label.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """Returns the label of a name; empty for none."""
        if name in self._known or not name:
            return name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name
