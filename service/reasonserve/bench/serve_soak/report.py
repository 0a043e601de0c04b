"""What a soak found, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from reasonserve.bench.serve_soak.account import ENDS, Account
from reasonserve.bench.serve_soak.memory import Slope
from reasonserve.bench.serve_soak.plan import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run.

    Attributes:
        setup: What was asked for.
        capacity_per_s: Requests a second that were answered while the capacity was measured.
        capacity_refused: Requests that were refused then.
        requests: Requests of the load.
        seconds: From the first of them to the end of the last.
        replica_killed_s: When a replica was killed, from the beginning of the load.
        controller_killed_s: When the controller was.
        account: What became of the requests.
        slopes: How the memory of each process went.
        run_again: Requests that lost a replica and were run again.
        faults: Everything that should not have happened, one line each; empty when all is well.
    """

    setup: Setup
    capacity_per_s: float
    capacity_refused: int
    requests: int
    seconds: float
    replica_killed_s: float
    controller_killed_s: float
    account: Account
    slopes: tuple[Slope, ...]
    run_again: int
    faults: tuple[str, ...]


def summary(report: Report) -> str:
    """Returns the run in one paragraph."""
    waited, refused, late = report.account.seconds, report.account.refused_s, report.account.late_s
    return (
        f"{report.requests} requests in {report.seconds:.0f} s, {report.setup.share:.0%} of the "
        f"{report.capacity_per_s:.2f} a second that {report.setup.clients} clients got answered "
        f"({report.capacity_refused} refused); "
        f"{report.account.tokens} tokens. A request took {percentile(waited, 50):.1f} s (p50), "
        f"{percentile(waited, 99):.1f} s (p99), a refusal "
        f"{percentile(refused, 50):.1f} s (p50); requests were sent {percentile(late, 99):.2f} s late (p99). "
        f"Killed: a replica at {report.replica_killed_s:.0f} s, the controller at {report.controller_killed_s:.0f} s; "
        f"{report.run_again} requests were run again."
    )


def ends_table(report: Report) -> Table:
    """Returns how the requests of each tenant ended."""
    shown = Table(title="How requests ended", title_justify="left")
    shown.add_column("tenant")
    for end in ENDS:
        shown.add_column(end, justify="right")
    for tenant, ends in report.account.ends.items():
        shown.add_row(tenant, *(str(ends.get(end, 0)) for end in ENDS))
    shown.add_row("all", *(str(report.account.total(end)) for end in ENDS), style="bold")
    return shown


def memory_table(report: Report) -> Table:
    """Returns how the memory of each process went, its first time left out."""
    shown = Table(title=f"Resident memory after {report.setup.warm_up_s:.0f} s", title_justify="left")
    shown.add_column("process")
    shown.add_column("life")
    for column in ("samples", "first MiB", "last MiB", "MiB an hour", "95% interval"):
        shown.add_column(column, justify="right")
    for slope in report.slopes:
        per_hour = "-" if slope.per_hour is None else f"{slope.per_hour:+.1f}"
        interval = "-" if slope.low is None or slope.high is None else f"{slope.low:+.1f} to {slope.high:+.1f}"
        sizes = f"{slope.first_mib:.1f}", f"{slope.last_mib:.1f}"
        shown.add_row(f"{slope.role} {slope.pid}", slope.life, str(slope.samples), *sizes, per_hour, interval)
    return shown


def as_json(report: Report) -> dict[str, Any]:
    """Returns every figure; of the requests' times the percentiles."""
    figures = asdict(report)
    for name in ("seconds", "refused_s", "late_s"):
        values = figures["account"].pop(name)
        figures["account"][name] = {f"p{percent}": percentile(values, percent) for percent in (50, 90, 99)}
    return figures


def percentile(values: Sequence[float], percent: int) -> float:
    """Returns the smallest value that so many percent of the values do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else 0.0
