"""The commands ``control`` and ``faults`` of ``python -m reasonserve.bench``."""

from __future__ import annotations

import math

import typer
from rich.progress import Progress

from reasonserve.bench.options import JsonFile, Quick, make_console, print_machine, write_json


def control(quick: Quick = False, json_file: JsonFile = None) -> None:
    """How the controller's work grows with replicas and tenants: a real process, simulated replicas, real gRPC.

    Exits with 1 if a lease lapsed, or a split grew faster than n log n. No engine and no model are needed.
    Example: python -m reasonserve.bench control --quick
    """
    from reasonserve.bench.control import scale

    console = make_console()
    header = print_machine(console)
    setup = scale.QUICK if quick else scale.FULL
    with Progress(console=console, transient=True) as progress:
        rows = scale.measure(setup, progress)
    console.print(scale.table(rows))
    growth = scale.n_log_n(rows)
    console.print(f"One split grew {growth:.2f} times as fast as n log n, n being the cells.")
    write_json(json_file, header, scale.as_json(setup, rows))
    if growth > 1 or any(row.lapsed for row in rows):
        raise typer.Exit(1)


def faults(quick: Quick = False, json_file: JsonFile = None) -> None:
    """What faults cost: controller and replicas killed, networks cut, clocks moved, databases that take no writes.

    Every part is a process of its own; only the engine is left out. Exits with 1 if a request or a write was lost,
    a slot was granted twice, or the cluster did not recover.
    Example: python -m reasonserve.bench faults --quick
    """
    from reasonserve.bench.control import faults as run

    console = make_console()
    header = print_machine(console)
    with Progress(console=console, transient=True) as progress:
        outcomes = run.measure(run.QUICK if quick else tuple(run.SCENARIOS), progress)
    console.print(run.table(outcomes))
    write_json(json_file, header, run.as_json(outcomes))
    if any(o.lost or o.over_granted or o.writes_lost or math.isinf(o.recovery_s) for o in outcomes):
        raise typer.Exit(1)
