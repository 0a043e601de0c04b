"""Metrics of a Ray Serve replica: Ray's exporter on each node shows them, with the replica's name as a label.

Several replicas of a node share that one page, so that a scraper finds all of them at a port that is known.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ray.serve import metrics as serve_metrics

from reasonserve.telemetry.metric import Metric
from reasonserve.telemetry.soon import soon

_KINDS = {"counter": serve_metrics.Counter, "gauge": serve_metrics.Gauge}


class RayRecorder:
    """Records through Ray; make it in a replica's constructor or later, where Ray Serve knows the replica."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """Adds to a counter; Ray refuses a zero."""
        if value > 0:
            soon(partial(self._of(metric).inc, value, tags=_tags(metric, labels)))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Sets a gauge."""
        soon(partial(self._of(metric).set, value, tags=_tags(metric, labels)))

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Counts a value into a histogram."""
        soon(partial(self._of(metric).observe, value, tags=_tags(metric, labels)))

    def _of(self, metric: Metric) -> Any:
        made = self._made.get(metric.name)
        if made is None:
            keys = metric.labels or None
            if metric.kind == "histogram":
                made = serve_metrics.Histogram(metric.name, metric.help, list(metric.buckets), keys)
            else:
                made = _KINDS[metric.kind](metric.name, metric.help, keys)
            self._made[metric.name] = made
        return made


def _tags(metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
