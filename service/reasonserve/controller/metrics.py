"""The controller's Prometheus page: who leads, what is leased to whom, splits and writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reasonserve.controller.core import Controller
from reasonserve.controller.records import Change, TenantUse
from reasonserve.controller.store import Store
from reasonserve.controller.usage import parts_by_tenant
from reasonserve.errors import StartupError, UnavailableError
from reasonserve.telemetry import metric as declared
from reasonserve.telemetry import metrics
from reasonserve.telemetry.prometheus import PrometheusRecorder

_TURN = 500
ANSWER_WITHIN_S = 5.0
_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


class Sample(NamedTuple):
    """One figure of one metric."""

    metric: declared.Metric
    value: float
    labels: tuple[str, ...] = ()


class CountedStore(Store):
    """A store whose writes are counted.

    Args:
        url: As `Store`'s.
        recorder: Where the counts go.
    """

    def __init__(self, url: str, recorder: declared.Recorder) -> None:
        super().__init__(url)
        self._recorder = recorder

    def write(self, change: Change) -> None:
        """Writes a change; errors as `Store.write`."""
        began, result = time.perf_counter(), "failed"
        try:
            super().write(change)
            result = "ok"
        finally:
            self._recorder.add(metrics.CONTROLLER_WRITES, 1, result)
            self._recorder.observe(metrics.CONTROLLER_WRITE_SECONDS, time.perf_counter() - began)


class LedgerCollector(Collector):
    """Reads the ledger when the page is asked for, on the loop that owns it.

    Args:
        controller: Whose ledger it is.
        loop: The loop that it belongs to.
        max_tenants: Tenants that get a label of their own.
    """

    def __init__(self, controller: Controller, loop: asyncio.AbstractEventLoop, max_tenants: int) -> None:
        self._controller = controller
        self._loop = loop
        self._tenants = declared.LabelCap(max_tenants)

    def collect(self) -> Iterator[Metric]:
        """Yields what the page shows; nothing where the loop does not answer in time."""
        answer = asyncio.run_coroutine_threadsafe(self._read(), self._loop)
        try:
            samples = answer.result(ANSWER_WITHIN_S)
        except TimeoutError:
            answer.cancel()
            return
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in samples:
            of = sample.metric
            family = families.setdefault(of.name, _FAMILIES[of.kind](of.name, of.help, labels=of.labels))
            family.add_metric(sample.labels, sample.value)
        yield from families.values()

    async def _read(self) -> list[Sample]:
        try:
            ledger = self._controller.ledger
        except UnavailableError:
            return [Sample(metrics.CONTROLLER_LEADS, 0)]
        stats = self._controller.splitter.stats
        return [
            Sample(metrics.CONTROLLER_LEADS, 1),
            Sample(metrics.CONTROLLER_REVISION, ledger.state.revision),
            Sample(metrics.CONTROLLER_SPLITS, stats.splits),
            Sample(metrics.CONTROLLER_SPLIT_SECONDS, stats.seconds),
            Sample(metrics.CLUSTER_REPLICAS, ledger.leases.num_replicas),
            Sample(metrics.CLUSTER_CAPACITY_SLOTS, ledger.leases.capacity_slots),
            *await self._tenant_samples(),
        ]

    async def _tenant_samples(self) -> Iterable[Sample]:
        ledger, sums = self._controller.ledger, dict[tuple[str, str], Sample]()
        parts = parts_by_tenant(ledger.leases.replicas.values())
        for i, (tenant_id, tenant) in enumerate(sorted(ledger.state.tenants.items())):
            if i % _TURN == 0:
                await asyncio.sleep(0)  # renewals get their turn in between
            label = self._tenants.of(tenant_id)
            replicas = parts[tenant_id]
            uses = [replica.report.tenants.get(tenant_id, TenantUse()) for replica in replicas]
            for metric, value in (
                (metrics.TENANT_GUARANTEED_SLOTS, tenant.guaranteed_slots),
                (metrics.TENANT_LIMIT_SLOTS, tenant.limit_slots),
                (metrics.TENANT_LEASED_SLOTS, sum(replica.leases.get(tenant_id, 0) for replica in replicas)),
                (metrics.TENANT_RESERVED_SLOTS, sum(use.reserved_slots for use in uses)),
                (metrics.TENANT_WANTED_SLOTS, sum(use.wanted_slots for use in uses)),
            ):
                before = sums.get((metric.name, label))
                sums[metric.name, label] = Sample(metric, value + (before.value if before else 0), (label,))
        return sums.values()


class MetricsPage:
    """Serves the page from a thread of its own until `close`.

    Args:
        controller: Whose figures it shows.
        host: Address it binds.
        port: Its port.
        max_tenants: Tenants that get a label of their own.

    Raises:
        StartupError: The port is taken.
    """

    def __init__(self, controller: Controller, *, host: str, port: int, max_tenants: int) -> None:
        registry = CollectorRegistry()
        self.recorder = PrometheusRecorder(registry)
        registry.register(LedgerCollector(controller, asyncio.get_running_loop(), max_tenants))
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise StartupError(
                f"The metrics page cannot listen on {host}:{port}: {error.strerror}. Choose another --metrics-port."
            ) from error

    def close(self) -> None:
        """Ends the page."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
