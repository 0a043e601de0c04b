"""Faults on the real processes: what is lost, how long it takes, and whether a slot was granted twice."""

from __future__ import annotations

import contextlib
import itertools
import resource
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from rich.progress import Progress
from rich.table import Table

from reasonserve.bench.control.cluster import LIMITS, Cluster, refusal, running, wait_until
from reasonserve.bench.control.timeline import over_granted, recovered_s
from reasonserve.status import from_rpc_error

REPLICAS = 3
TTL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a fault did.

    Attributes:
        fault: Its name.
        requests: Requests that ended well while it was tried.
        lost: Requests that did not, those of a killed replica left out.
        recovery_s: Until every tenant was leased its limit again, as `recovered_s` says, counted as `counted` says.
        counted: From when.
        over_granted: Most slots by which leases in force exceeded a tenant's limit together.
        carried: Most slots beyond the limit that cover what was admitted under the guaranteed share of a lapsed lease.
        writes_lost: Acknowledged writes that were gone afterwards.
        refused_as: Status of writes that were refused meanwhile; empty where none was.
    """

    fault: str
    requests: int
    lost: int
    recovery_s: float
    counted: str
    over_granted: int
    carried: int
    writes_lost: int = 0
    refused_as: str = ""


def controller_killed(cluster: Cluster) -> Outcome:
    """The controller is killed while tenants are created, and started again half a second later."""
    acknowledged: set[str] = set()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set() and refusal(lambda: cluster.create_tenant(f"w{len(acknowledged)}")) is None:
            acknowledged.add(f"w{len(acknowledged)}")

    writer = threading.Thread(target=write)
    began = time.monotonic()
    writer.start()
    time.sleep(1.0)
    stop.set()
    killed = time.monotonic()
    cluster.controller.kill()
    writer.join()
    time.sleep(0.5)
    cluster.controller.start()
    wait_until(lambda: _recovered(cluster, killed, all_told=True) < float("inf"), 6 * cluster.lease_ttl_s)
    _run_on()
    recovery_s = _recovered(cluster, killed, all_told=True)
    lost = len(acknowledged - cluster.tenant_ids())
    return _outcome("controller killed, restarted", cluster, began, recovery_s, "the kill", writes_lost=lost)


def replica_killed(cluster: Cluster) -> Outcome:
    """One replica of several is killed; its slots go to the others when its lease lapses."""
    began = time.monotonic()
    cluster.replicas[0].kill()
    alive = cluster.told[1:]
    wait_until(lambda: recovered_s(alive, LIMITS, began, all_told=False) < float("inf"), 4 * cluster.lease_ttl_s)
    _run_on()
    recovery_s = recovered_s(alive, LIMITS, began, all_told=False)
    return _outcome("replica killed", cluster, began, recovery_s, "the kill")


def network_cut(cluster: Cluster, *, periods: float, fault: str) -> Outcome:
    """The network between a replica and the controller is cut for some lease periods, and heals."""
    began = time.monotonic()
    cluster.replicas[0].proxy.cut()
    _crowd(cluster)
    time.sleep(periods * cluster.lease_ttl_s)
    healed = time.monotonic()
    cluster.replicas[0].proxy.heal()
    return _after(fault, cluster, began, healed, "the healing")


def clock_jump(cluster: Cluster) -> Outcome:
    """A replica's wall clock jumps a day ahead, then two days back."""
    began = time.monotonic()
    for seconds in (86_400.0, -172_800.0):
        cluster.replicas[0].jump(seconds)
        time.sleep(cluster.lease_ttl_s * 0.8)
    return _after("wall clock jumps", cluster, began, began, "the first jump")


def replica_frozen(cluster: Cluster) -> Outcome:
    """A replica's process is stopped for longer than its lease, as a frozen virtual machine, and goes on."""
    began = time.monotonic()
    cluster.replicas[0].pause()
    _crowd(cluster)
    time.sleep(1.6 * cluster.lease_ttl_s)
    resumed = time.monotonic()
    cluster.replicas[0].resume()
    return _after("replica frozen past its lease", cluster, began, resumed, "the thaw")


def database_refuses(cluster: Cluster, fault: str, failing: Callable[[Cluster], Any]) -> Outcome:
    """The database takes no writes for longer than a lease period; reads and renewals go on."""
    began = time.monotonic()
    before, refused, after = (f"{fault.split()[-1]}-{part}" for part in ("before", "refused", "after"))
    cluster.create_tenant(before)
    with failing(cluster):
        # What fits into the file's last page is still taken.
        numbers = itertools.count()
        wait_until(lambda: refusal(lambda: cluster.create_tenant(f"{before}-{next(numbers)}")) is not None, 30)
        failed = refusal(lambda: cluster.create_tenant(refused))
        assert before in cluster.tenant_ids()
        time.sleep(1.2 * cluster.lease_ttl_s)
        held = cluster.is_whole() or wait_until(cluster.is_whole, 2.0)
    mended = time.monotonic()
    wait_until(lambda: refusal(lambda: cluster.create_tenant(after)) is None, 30)
    recovery_s = time.monotonic() - mended if held else float("inf")
    lost = len({before, after} - cluster.tenant_ids()) + (refused in cluster.tenant_ids())
    outcome = _outcome(fault, cluster, began, recovery_s, "the first write afterwards", writes_lost=lost)
    return Outcome(**{**asdict(outcome), "refused_as": _status(failed)})


@contextlib.contextmanager
def full(cluster: Cluster) -> Iterator[None]:
    """No file of the controller may grow: what a full disk is to SQLite."""
    process = cluster.controller.running
    before = process.rlimit(resource.RLIMIT_FSIZE)
    wal = cluster.controller.database.with_name(cluster.controller.database.name + "-wal")
    most = max(file.stat().st_size for file in (wal, cluster.controller.database) if file.exists())
    process.rlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(cluster: Cluster) -> Iterator[None]:
    """Every write is refused by the database itself."""
    with contextlib.closing(sqlite3.connect(cluster.controller.database, isolation_level=None)) as connection:
        refuse = "BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'read-only'); END"
        connection.execute(f"CREATE TRIGGER refuse {refuse}")
        try:
            yield
        finally:
            connection.execute("DROP TRIGGER refuse")


def _after(fault: str, cluster: Cluster, began: float, mended: float, counted: str) -> Outcome:
    """Waits for the cluster to be whole again after a fault that ended."""
    wait_until(lambda: _recovered(cluster, mended, all_told=True) < float("inf"), 6 * cluster.lease_ttl_s)
    cluster.replicas[1].crowd("gold", 0)
    _run_on()
    return _outcome(fault, cluster, began, _recovered(cluster, mended, all_told=True), counted)


def _crowd(cluster: Cluster) -> None:
    """Has another replica want what the first one was leased and does not use."""
    cluster.replicas[1].crowd("gold", 25)


def _run_on() -> None:
    """Goes on for a while, so that what comes late is seen."""
    time.sleep(1.0)


def _recovered(cluster: Cluster, since: float, *, all_told: bool) -> float:
    return recovered_s(cluster.told, LIMITS, since, all_told=all_told)


def _outcome(
    fault: str, cluster: Cluster, began: float, recovery_s: float, counted: str, *, writes_lost: int = 0
) -> Outcome:
    granted, carried = over_granted(cluster.told, LIMITS)
    return Outcome(
        fault=fault,
        requests=sum(told.count("done", began) for told in cluster.told),
        lost=sum(told.count("lost", began) for told in cluster.told),
        recovery_s=recovery_s,
        counted=counted,
        over_granted=granted,
        carried=carried,
        writes_lost=writes_lost,
    )


def _status(error: grpc.RpcError | None) -> str:
    return "" if error is None else f"{error.code().name}: {from_rpc_error(error).message}"


SCENARIOS: dict[str, Callable[[Cluster], Outcome]] = {
    "controller-killed": controller_killed,
    "replica-killed": replica_killed,
    "short-cut": lambda cluster: network_cut(cluster, periods=0.4, fault="network cut, shorter than a lease"),
    "long-cut": lambda cluster: network_cut(cluster, periods=2.0, fault="network cut, longer than a lease"),
    "clock-jump": clock_jump,
    "frozen": replica_frozen,
    "full": lambda cluster: database_refuses(cluster, "database full", full),
    "read-only": lambda cluster: database_refuses(cluster, "database read-only", read_only),
}
QUICK = ("controller-killed", "replica-killed", "long-cut", "full")


def try_fault(name: str, *, lease_ttl_s: float = TTL_S) -> Outcome:
    """Tries one scenario on a cluster of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), replicas=REPLICAS, lease_ttl_s=lease_ttl_s) as c,
    ):
        return SCENARIOS[name](c)


def measure(names: Sequence[str], progress: Progress) -> list[Outcome]:
    """Tries scenarios in turn."""
    task = progress.add_task("Faults", total=len(names))
    outcomes = []
    for name in names:
        progress.update(task, description=name)
        outcomes.append(try_fault(name))
        progress.advance(task)
    return outcomes


def table(outcomes: Sequence[Outcome]) -> Table:
    """Returns the faults one below the other."""
    shown = Table(title=f"Faults, {REPLICAS} replicas, lease period {TTL_S:g} s", title_justify="left")
    for column in ("fault", "requests", "lost", "recovery s", "counted from", "over-granted", "carried", "writes lost"):
        shown.add_column(column, justify="left" if column in ("fault", "counted from") else "right")
    for o in outcomes:
        counts = (str(o.requests), str(o.lost), f"{o.recovery_s:.2f}", o.counted, str(o.over_granted))
        shown.add_row(o.fault, *counts, str(o.carried), str(o.writes_lost))
        if o.refused_as:
            shown.add_row(f"  writes: {o.refused_as}")
    return shown


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns every figure."""
    return {"lease_ttl_s": TTL_S, "replicas": REPLICAS, "faults": [asdict(outcome) for outcome in outcomes]}
