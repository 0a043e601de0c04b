"""The panels of the Grafana dashboards, as data; every expression is built from declared metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from reasonserve.telemetry import metrics as m
from reasonserve.telemetry.metric import Metric

Unit = Literal["short", "s", "percentunit", "bytes", "reqps", "ops", "none"]
TENANT: Final = 'tenant=~"$tenant"'
WINDOW: Final = "[$__rate_interval]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: What it shows.
        unit: Grafana's unit of the axis.
        lines: (expression, legend) of each line.
        text: What to read from it; shown on hover.
        stacked: Lines are stacked.
    """

    title: str
    unit: Unit
    lines: tuple[tuple[str, str], ...]
    text: str
    stacked: bool = False


def total(metric: Metric, by: str, where: str = TENANT) -> str:
    """Returns the sum of a gauge by labels."""
    return f"sum by ({by}) ({metric.exposed}{{{where}}})"


def per_second(metric: Metric, by: str, where: str = TENANT) -> str:
    """Returns the rate of a counter by labels."""
    return f"sum by ({by}) (rate({metric.exposed}{{{where}}}{WINDOW}))"


def quantile(metric: Metric, share: float, by: str = "tenant", where: str = TENANT) -> str:
    """Returns a quantile of a histogram by labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric.exposed}_bucket{{{where}}}{WINDOW})))"


def quantiles(metric: Metric, by: str = "tenant", where: str = TENANT) -> tuple[tuple[str, str], ...]:
    """Returns the lines of median and 99th percentile."""
    name = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (quantile(metric, share, by, where), f"{name}{label}") for share, label in ((0.5, "p50"), (0.99, "p99"))
    )


TENANTS: Final = (
    Panel(
        title="Requests by outcome",
        unit="reqps",
        lines=((per_second(m.REQUESTS, "tenant, outcome"), "{{tenant}} {{outcome}}"),),
        text="How requests ended; resource_exhausted is a tenant out of KV memory.",
        stacked=True,
    ),
    Panel(
        title="Tokens generated",
        unit="ops",
        lines=((per_second(m.OUTPUT_TOKENS, "tenant"), "{{tenant}}"),),
        text="Tokens per second by tenant.",
        stacked=True,
    ),
    Panel(
        title="KV slots: reserved and leased",
        unit="short",
        lines=(
            (total(m.TENANT_RESERVED_SLOTS, "tenant"), "{{tenant}} reserved"),
            (total(m.TENANT_LEASED_SLOTS, "tenant"), "{{tenant}} leased"),
        ),
        text="Leased and not reserved is room that a tenant may take at once.",
    ),
    Panel(
        title="Share of the limit in use",
        unit="percentunit",
        lines=(
            (f"{total(m.TENANT_RESERVED_SLOTS, 'tenant')} / {total(m.TENANT_LIMIT_SLOTS, 'tenant')}", "{{tenant}}"),
        ),
        text="At 100% the tenant's own limit refuses its requests, whatever the cluster has free.",
    ),
    Panel(
        title="Guarantee and demand",
        unit="short",
        lines=(
            (total(m.TENANT_GUARANTEED_SLOTS, "tenant"), "{{tenant}} guaranteed"),
            (total(m.TENANT_WANTED_SLOTS, "tenant"), "{{tenant}} wanted"),
        ),
        text="Wanted slots are those of requests that wait or were refused.",
    ),
    Panel(
        title="Admissions",
        unit="ops",
        lines=((per_second(m.ADMISSIONS, "tenant, result"), "{{tenant}} {{result}}"),),
        text="Shrunk requests got a smaller KV budget than the tenant's default.",
        stacked=True,
    ),
    Panel(
        title="Queue",
        unit="short",
        lines=((total(m.QUEUED_REQUESTS, "tenant"), "{{tenant}}"),),
        text="Requests that wait for KV slots.",
        stacked=True,
    ),
    Panel(
        title="Key checks",
        unit="ops",
        lines=((per_second(m.KEY_CHECKS, "result", ""), "{{result}}"),),
        text="Stale: the controller could not be asked and a key verified before was trusted.",
        stacked=True,
    ),
)
MEMORY: Final = (
    Panel(
        title="KV slots of the cluster",
        unit="short",
        lines=(
            (total(m.CAPACITY_SLOTS, "replica", ""), "{{replica}} capacity"),
            (total(m.USED_SLOTS, "replica", ""), "{{replica}} used"),
            (total(m.RESERVED_SLOTS, "replica", ""), "{{replica}} reserved"),
        ),
        text="Reserved is what admission promised, used what the engine holds now.",
    ),
    Panel(
        title="KV memory in use",
        unit="bytes",
        lines=((f"{total(m.USED_SLOTS, 'replica', '')} * {total(m.SLOT_BYTES, 'replica', '')}", "{{replica}}"),),
        text="Bytes that running requests hold.",
        stacked=True,
    ),
    Panel(
        title="Pressure",
        unit="percentunit",
        lines=(
            (f"{total(m.RESERVED_SLOTS, 'replica', '')} / {total(m.CAPACITY_SLOTS, 'replica', '')}", "{{replica}}"),
        ),
        text="Reserved share of each replica's pool.",
    ),
    Panel(
        title="Allowed and reserved by tenant",
        unit="short",
        lines=(
            (total(m.ALLOWED_SLOTS, "tenant, replica"), "{{tenant}} at {{replica}} allowed"),
            (total(m.RESERVED_SLOTS, "tenant, replica"), "{{tenant}} at {{replica}} reserved"),
        ),
        text="Allowed is the lease, or the guarantee's share once the lease has lapsed.",
    ),
    Panel(
        title="Squeezes",
        unit="ops",
        lines=((per_second(m.SQUEEZES, "tenant"), "{{tenant}}"),),
        text="Running requests whose budget was lowered to let another in.",
        stacked=True,
    ),
    Panel(
        title="Lease age",
        unit="s",
        lines=((f"max by (replica) ({m.LEASE_AGE_SECONDS.exposed})", "{{replica}}"),),
        text="Growing without end: the replica does not reach the controller.",
    ),
    Panel(
        title="Leases anew",
        unit="none",
        lines=((f"max by (replica) ({m.LEASE_EPOCH.exposed})", "{{replica}}"),),
        text="A step is a replica that was leased anew.",
    ),
    Panel(
        title="Controller: leader, splits and writes",
        unit="ops",
        lines=(
            (f"sum({m.CONTROLLER_LEADS.exposed})", "controllers that lead"),
            (per_second(m.CONTROLLER_SPLITS, "instance", ""), "{{instance}} splits"),
            (per_second(m.CONTROLLER_WRITES, "result", ""), "writes {{result}}"),
        ),
        text="Exactly one controller leads; failed writes mean that the database does not take changes.",
    ),
)
ROUNDS: Final = (
    Panel(
        title="Rounds",
        unit="ops",
        lines=((per_second(m.ROUNDS, "tenant, method"), "{{tenant}} {{method}}"),),
        text="Compression rounds per second.",
        stacked=True,
    ),
    Panel(
        title="Seconds of a round",
        unit="s",
        lines=quantiles(m.ROUND_SECONDS, "method", ""),
        text="A request's share of a round.",
    ),
    Panel(
        title="Cells kept and evicted",
        unit="ops",
        lines=(
            (per_second(m.KEPT_CELLS, "tenant"), "{{tenant}} kept"),
            (per_second(m.EVICTED_CELLS, "tenant"), "{{tenant}} evicted"),
        ),
        text="KV cells per second that rounds judged.",
        stacked=True,
    ),
    Panel(
        title="Share evicted",
        unit="percentunit",
        lines=(
            (
                f"{per_second(m.EVICTED_CELLS, 'tenant')} / "
                f"({per_second(m.EVICTED_CELLS, 'tenant')} + {per_second(m.KEPT_CELLS, 'tenant')})",
                "{{tenant}}",
            ),
        ),
        text="Of the cells that a round judged.",
    ),
)
LATENCY: Final = (
    Panel(
        title="Time to first token",
        unit="s",
        lines=quantiles(m.TTFT_SECONDS),
        text="From the request's arrival at the gateway.",
    ),
    Panel(
        title="Time per token",
        unit="s",
        lines=quantiles(m.INTER_TOKEN_SECONDS),
        text="After the first token.",
    ),
    Panel(
        title="Whole request",
        unit="s",
        lines=quantiles(m.REQUEST_SECONDS),
        text="From arrival to end, however it ended.",
    ),
    Panel(
        title="Wait for admission",
        unit="s",
        lines=quantiles(m.QUEUE_SECONDS),
        text="Until KV slots were free.",
    ),
    Panel(
        title="Prompt tokens found in the prefix cache",
        unit="percentunit",
        lines=(
            (
                # A tenant of which nothing was found yet has no series of found tokens.
                f"({per_second(m.CACHED_TOKENS, 'tenant')} or 0 * {per_second(m.INPUT_TOKENS, 'tenant')})"
                f" / {per_second(m.INPUT_TOKENS, 'tenant')}",
                "{{tenant}}",
            ),
        ),
        text="Share of finished requests' prompt tokens.",
    ),
    Panel(
        title="Requests running",
        unit="short",
        lines=((total(m.ACTIVE_REQUESTS, "tenant, replica"), "{{tenant}} at {{replica}}"),),
        text="Admitted and not finished.",
        stacked=True,
    ),
)
DASHBOARDS: Final = {"tenants": TENANTS, "memory": MEMORY, "rounds": ROUNDS, "latency": LATENCY}
"""Panels by dashboard."""
