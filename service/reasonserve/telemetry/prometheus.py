"""Metrics of a process that serves its own ``/metrics`` page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from reasonserve.telemetry.metric import Metric

_KINDS = {"counter": Counter, "gauge": Gauge}


class PrometheusRecorder:
    """Records into one registry; a metric appears on the page when it is first recorded.

    Args:
        registry: What the page shows.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._made: dict[str, Counter | Gauge | Histogram] = {}

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """Adds to a counter."""
        self._of(metric, labels).inc(value)  # type: ignore[union-attr]  # the metric's kind says which it is

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Sets a gauge."""
        self._of(metric, labels).set(value)  # type: ignore[union-attr]

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Counts a value into a histogram."""
        self._of(metric, labels).observe(value)  # type: ignore[union-attr]

    def _of(self, metric: Metric, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        made = self._made.get(metric.name)
        if made is None:
            if metric.kind == "histogram":
                made = Histogram(
                    metric.name, metric.help, metric.labels, registry=self._registry, buckets=metric.buckets
                )
            else:
                made = _KINDS[metric.kind](metric.name, metric.help, metric.labels, registry=self._registry)
            self._made[metric.name] = made
        return made.labels(*labels) if labels else made
